"""What is counted per layer while a network runs: shapes, flags, overflows, errors against the exact run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .consumers import Consumer
from .ops import WEIGHT_GRADIENT, Op
from .rules import Arithmetic


class RelativeErrors:
    """Largest, mean and median of |v - v*| / |v*| over the outputs with v* not 0, in bounded memory.

    Largest and mean are exact (the mean rounded once, at the end), so that no order of summation and no division into
    batches shows. The median is the middle of a bin of a histogram, at most 2**-12 wide relative to the value.
    """

    _DROPPED_BITS = 11  # of a float32: 8 exponent and 12 fraction bits are left
    _INFINITE = 0x7F800000 >> _DROPPED_BITS

    def __init__(self) -> None:
        self._zeros = 0
        self._first, self._bins = 0, np.zeros(0, np.int64)  # counts of the keys from _first on, as far as they occur
        self._sum, self._count, self._max = 0, 0, 0.0  # the sum in units of 2**-_UNIT

    def add(self, v: NDArray[Any], exact: NDArray[Any]) -> None:
        """Take outputs and what they would be exactly, of the same shape.

        A NaN counts as infinitely wrong, and so does whatever else is not the infinity that it should be.
        """
        wanted = exact != 0
        values, reference = v[wanted].astype(np.float64), exact[wanted].astype(np.float64)
        if not reference.size:
            return
        with np.errstate(invalid="ignore", over="ignore"):
            errors = np.abs(values - reference) / np.abs(reference)
            errors[np.isnan(errors)] = np.inf
            errors[values == reference] = 0.0
            keys = (errors.astype(np.float32).view(np.uint32) >> self._DROPPED_BITS).astype(np.int64)
        self._zeros += int(np.count_nonzero(keys == 0))
        self._add_to_bins(keys[(keys > 0) & (keys < self._INFINITE)])
        self._sum += _exact_sum(errors[np.isfinite(errors)])
        self._count += errors.size
        self._max = max(self._max, float(errors.max()))

    def summary(self) -> tuple[float | None, float | None, float | None]:
        """Return (max, mean, median), None each if nothing was added."""
        if not self._count:
            return None, None, None
        mean = math.inf if math.isinf(self._max) else float(Fraction(self._sum, self._count << _UNIT))
        below = np.cumsum(self._bins)
        rank = (self._count + 1) // 2 - self._zeros
        if rank <= 0:
            return self._max, mean, 0.0
        if not below.size or rank > below[-1]:
            return self._max, mean, math.inf
        middle = self._first + int(np.searchsorted(below, rank))
        low, high = (np.array([middle, middle + 1], np.uint32) << self._DROPPED_BITS).view(np.float32).tolist()
        return self._max, mean, low if math.isinf(high) else (low + high) / 2

    def _add_to_bins(self, keys: NDArray[np.int64]) -> None:
        if not keys.size:
            return
        first, last = int(keys.min()), int(keys.max())
        if self._bins.size:
            first, last = min(first, self._first), max(last, self._first + self._bins.size - 1)
        if last - first + 1 > self._bins.size:
            grown = np.zeros(last - first + 1, np.int64)
            if self._bins.size:
                grown[self._first - first :][: self._bins.size] = self._bins
            self._first, self._bins = first, grown
        self._bins += np.bincount(keys - self._first, minlength=self._bins.size)


_UNIT = 1074 + 53  # the significand of a float64 is a multiple of 2**-53, its exponent at least -1074


def _exact_sum(x: NDArray[np.float64]) -> int:
    """Return the sum of finite, non-negative numbers in units of 2**-_UNIT; exact for fewer than 2**26 of them."""
    significands, exponents = np.frexp(x)
    whole = np.ldexp(significands, 53).astype(np.int64)
    upper, lower = (np.bincount(exponents + 1074, part) for part in (whole >> 27, whole & (2**27 - 1)))
    return sum(((int(u) << 27) + int(w)) << i for i, (u, w) in enumerate(zip(upper, lower, strict=True)) if u or w)


class LayerTally:
    """One layer in one phase and shape over all passes of a run.

    Args:
        op: the layer's first Op; later ones add rows, products where these count samples, or terms of the sums where
            they run over samples.
        label: of the arithmetic; "low", "high" and "two_pass" are priced.
        mac: the arithmetic in words. activation: that the score used. site: number of the layer in the run.
    """

    def __init__(self, op: Op, label: str, mac: str, activation: str, site: int) -> None:
        self.name, self.phase, self.kind, self.batched, self.n = op.name, op.phase, op.kind, op.batched, op.n
        self.m, self.k, self.gemms = op.m, op.k, op.gemms
        self.summed = op.phase == WEIGHT_GRADIENT and not op.batched
        self.label, self.mac, self.activation, self.site = label, mac, activation, site
        self.rows = 0  # computed so far, of each product, or of all products together where these count samples
        self.overflows = 0
        self.errors = RelativeErrors()
        self._begun = False
        self._flags: list[tuple[NDArray[np.uint8], tuple[int, ...]]] = []

    def add(self, op: Op, overflows: int, flags: NDArray[np.bool_] | None) -> None:
        """Count one more Op of this layer; flags of shape (gemms, M, N), or None without a second pass."""
        if self._begun:
            self.gemms += op.gemms if self.batched else 0
            self.k += op.k if self.summed else 0
            self.m += 0 if self.batched or self.summed else op.m
        self._begun = True
        self.rows += op.gemms * op.m if self.batched else op.m
        self.overflows += overflows
        if flags is not None:
            self._flags.append((np.packbits(flags), flags.shape))

    def flags(self) -> NDArray[np.bool_] | None:
        """Return all flags, (gemms, M, N), all samples in one batch."""
        if not self._flags:
            return None
        unpacked = [
            np.unpackbits(bits, count=math.prod(shape)).view(np.bool_).reshape(shape) for bits, shape in self._flags
        ]
        return np.concatenate(unpacked, axis=0 if self.batched else 1)


class Tallies:
    """The tallies of a run, in the order in which layers were met; iterates over them."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[object, ...], LayerTally] = {}

    def __iter__(self) -> Iterator[LayerTally]:
        return iter(self._tallies.values())

    def of(self, op: Op, rule: Arithmetic, consumer: Consumer) -> LayerTally:
        """Return the tally of an Op: a layer has one for each shape, but for the number of samples."""
        summed = op.phase == WEIGHT_GRADIENT and not op.batched
        counted = (op.gemms if not op.batched else None, op.m if op.batched or summed else None)
        key = (op.name, op.phase, op.kind, op.n, None if summed else op.k, op.batched, *counted)
        if key not in self._tallies:
            self._tallies[key] = LayerTally(op, rule.label, str(rule), consumer.activation, len(self._tallies))
        return self._tallies[key]
