"""What is counted per layer while a network runs: shapes, flags, overflows, errors against the exact run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.cost import Gemm
from simulator.cost.flags import MaskFlags

from .consumers import Consumer
from .ops import Op
from .packed import PackedFlags
from .rules import Arithmetic
from .sums import ExactSum, decibels


class RelativeErrors:
    """Largest, mean and median of |v - v*| / |v*| over the outputs with v* not 0, and the SQNR, in bounded memory.

    Largest and mean are exact (the mean rounded once, at the end), and so are the sums of the SQNR, so that no order of
    summation and no division into batches shows. The median is the middle of a bin of a histogram, at most 2**-12 wide
    relative to the value.
    """

    _DROPPED_BITS = 11  # of a float32: 8 exponent and 12 fraction bits are left
    _INFINITE = 0x7F800000 >> _DROPPED_BITS

    def __init__(self) -> None:
        self._zeros = 0
        self._first, self._bins = 0, np.zeros(0, np.int64)  # counts of the keys from _first on, as far as they occur
        self._errors, self._max = ExactSum(), 0.0
        self._signal, self._noise = ExactSum(), ExactSum()

    def add(self, v: NDArray[Any], exact: NDArray[Any]) -> None:
        """Take outputs and what they would be exactly, of the same shape.

        A NaN counts as infinitely wrong, and so does whatever else is not the infinity that it should be.
        """
        values, reference = v.astype(np.float64), exact.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            differences = np.abs(values - reference)
            self._signal.add(np.square(reference))
            self._noise.add(np.square(differences))
            errors = (differences / np.abs(reference))[reference != 0]
            errors[np.isnan(errors)] = np.inf
            errors[(values == reference)[reference != 0]] = 0.0
            keys = (errors.astype(np.float32).view(np.uint32) >> self._DROPPED_BITS).astype(np.int64)
        self._zeros += int(np.count_nonzero(keys == 0))
        self._add_to_bins(keys[(keys > 0) & (keys < self._INFINITE)])
        self._errors.add(errors)
        self._max = max(self._max, float(errors.max(initial=0.0)))

    def join(self, other: RelativeErrors) -> None:
        """Take the outputs of another record."""
        self._zeros += other._zeros
        self._max = max(self._max, other._max)
        for own, more in ((self._errors, other._errors), (self._signal, other._signal), (self._noise, other._noise)):
            own.join(more)
        self._widen(other._first, other._first + other._bins.size - 1)
        at = other._first - self._first
        self._bins[at : at + other._bins.size] += other._bins

    def summary(self) -> tuple[float | None, float | None, float | None]:
        """Return (max, mean, median), None each if nothing was added."""
        mean = self._errors.mean
        if mean is None:
            return None, None, None
        below = np.cumsum(self._bins)
        rank = (self._errors.count + 1) // 2 - self._zeros
        if rank <= 0:
            return self._max, mean, 0.0
        if not below.size or rank > below[-1]:
            return self._max, mean, math.inf
        middle = self._first + int(np.searchsorted(below, rank))
        low, high = (np.array([middle, middle + 1], np.uint32) << self._DROPPED_BITS).view(np.float32).tolist()
        return self._max, mean, low if math.isinf(high) else (low + high) / 2

    @property
    def sqnr_db(self) -> float | None:
        """10 log10(sum v*^2 / sum (v - v*)^2) over all outputs; None where either sum is 0 or not finite."""
        return decibels(self._signal, self._noise)

    def _add_to_bins(self, keys: NDArray[np.int64]) -> None:
        if not keys.size:
            return
        self._widen(int(keys.min()), int(keys.max()))
        self._bins += np.bincount(keys - self._first, minlength=self._bins.size)

    def _widen(self, first: int, last: int) -> None:
        """Make room for counts of these keys."""
        if last < first:
            return
        if self._bins.size:
            first, last = min(first, self._first), max(last, self._first + self._bins.size - 1)
        if last - first + 1 > self._bins.size:
            grown = np.zeros(last - first + 1, np.int64)
            if self._bins.size:
                grown[self._first - first :][: self._bins.size] = self._bins
            self._first, self._bins = first, grown


class LayerTally:
    """One layer in one phase and shape over all passes of a run.

    Args:
        op: the layer's first Op; later ones add rows, products where these count samples, or terms of the sums where
            they run over samples.
        label: of the arithmetic; "low", "high" and "two_pass" are priced.
        mac: the arithmetic in words. activation: that the score used. site: number of the layer in the run.
        scales: of the operands in words, empty for none.
    """

    def __init__(self, op: Op, label: str, mac: str, activation: str, site: int, scales: str = "") -> None:
        self.name, self.phase, self.kind, self.batched, self.n = op.name, op.phase, op.kind, op.batched, op.n
        self.m, self.k, self.gemms = op.m, op.k, op.gemms
        self.summed = op.summed
        self.step = op.step
        self.label, self.mac, self.activation, self.site, self.scales = label, mac, activation, site, scales
        self.rows = 0  # computed so far, of each product, or of all products together where these count samples
        self.overflows = 0
        self.zeros = 0  # MACs with a zero operand, where they are counted
        self.a_words = 0  # elements of the first operand, of a convolution those of its image
        self.errors = RelativeErrors()
        self._begun = False
        self._flags: PackedFlags | None = None

    def add(self, op: Op, overflows: int, flags: NDArray[np.bool_] | None, zeros: int = 0) -> None:
        """Count one more Op of this layer.

        Args:
            flags: of shape (gemms, M, N), or None without a second pass. zeros: MACs with a zero operand.
        """
        if self._begun:
            self.gemms += op.gemms if self.batched else 0
            self.k += op.k if self.summed else 0
            self.m += 0 if self.batched or self.summed else op.m
        self._begun = True
        self.rows += op.gemms * op.m if self.batched else op.m
        self.overflows += overflows
        self.zeros += zeros
        self.a_words += op.operands[0].size
        if flags is not None:
            if self._flags is None:
                self._flags = PackedFlags(op.gemms, op.m, op.n, op.batched)
            self._flags.add(flags)

    @property
    def gemm(self) -> Gemm:
        """What is priced, all samples in one batch."""
        return Gemm(self.m, self.n, self.k, self.gemms, max(1, min(self.a_words, self.gemms * self.m * self.k)))

    def flags(self) -> MaskFlags | None:
        """Return the counts of all flags, all samples in one batch; None without a second pass."""
        return None if self._flags is None else self._flags.counts()


class Tallies:
    """The tallies of a run, in the order in which layers were met; iterates over them."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[object, ...], LayerTally] = {}

    def __iter__(self) -> Iterator[LayerTally]:
        return iter(self._tallies.values())

    def of(self, op: Op, arithmetic: Arithmetic, consumer: Consumer) -> LayerTally:
        """Return the tally of an Op: a layer has one for each shape, but for the number of samples."""
        counted = (op.gemms if not op.batched else None, op.m if op.batched or op.summed else None)
        key = (op.name, op.phase, op.kind, op.n, None if op.summed else op.k, op.batched, str(arithmetic), *counted)
        if key not in self._tallies:
            site, scales = len(self._tallies), arithmetic.scales_in_words(op.roles)
            self._tallies[key] = LayerTally(op, arithmetic.label, str(arithmetic), consumer.activation, site, scales)
        return self._tallies[key]
