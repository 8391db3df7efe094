"""What is counted per layer while a network runs: shapes, flags, overflows, errors against the exact run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ops import Op


class RelativeErrors:
    """Largest, mean and median of |v - v*| / |v*| over the outputs with v* not 0, in bounded memory.

    The median is that of a histogram whose bins are 2**-12 wide, relative to the value.
    """

    _DROPPED_BITS = 11  # of a float32: 8 exponent and 12 fraction bits are left

    def __init__(self) -> None:
        self._bins = np.zeros(1 << (31 - self._DROPPED_BITS), np.int64)
        self._sum, self._count, self._max = 0.0, 0, 0.0

    def add(self, v: NDArray[Any], exact: NDArray[Any]) -> None:
        """Take outputs and what they would be exactly, of the same shape; a NaN counts as infinitely wrong."""
        wanted = exact != 0
        reference = exact[wanted].astype(np.float64)
        if not reference.size:
            return
        with np.errstate(invalid="ignore", over="ignore"):
            errors = np.abs(v[wanted] - reference) / np.abs(reference)
            errors[np.isnan(errors)] = np.inf
            keys = errors.astype(np.float32).view(np.uint32) >> self._DROPPED_BITS
        self._bins += np.bincount(keys, minlength=self._bins.size)
        self._sum += float(errors.sum())
        self._count += errors.size
        self._max = max(self._max, float(errors.max()))

    def summary(self) -> tuple[float | None, float | None, float | None]:
        """Return (max, mean, median), None each if nothing was added."""
        if not self._count:
            return None, None, None
        middle = int(np.searchsorted(np.cumsum(self._bins), (self._count + 1) // 2))
        edges = np.array([middle, middle + 1], np.uint32) << self._DROPPED_BITS
        low, high = edges.view(np.float32).astype(np.float64)
        median = 0.0 if middle == 0 else float(low if np.isinf(low) or np.isinf(high) else (low + high) / 2)
        return self._max, self._sum / self._count, median


class LayerTally:
    """One layer over all forward passes of a run.

    Args:
        op: the layer's first Op; later ones add rows (or products, where these count samples).
        label: "low", "high", "two_pass", or None for arithmetic that the machine does not price.
        mac: the arithmetic in words. activation: that the score used.
    """

    def __init__(self, op: Op, label: str | None, mac: str, activation: str) -> None:
        self.kind, self.n, self.k, self.batched = op.kind, op.n, op.k, op.batched
        self.m, self.gemms = (op.m, 0) if op.batched else (0, op.gemms)
        self.label, self.mac, self.activation = label, mac, activation
        self.overflows = 0
        self.errors = RelativeErrors()
        self._flags: list[tuple[NDArray[np.uint8], tuple[int, ...]]] = []

    def add(self, op: Op, overflows: int, flags: NDArray[np.bool_] | None) -> None:
        """Count one more Op of this layer; flags of shape (gemms, M, N), or None without a second pass."""
        if self.batched:
            self.gemms += op.gemms
        else:
            self.m += op.m
        self.overflows += overflows
        if flags is not None:
            self._flags.append((np.packbits(flags), flags.shape))

    def accepts(self, op: Op) -> bool:
        """Whether an Op has this layer's shape, but for the number of samples."""
        same = (op.kind, op.n, op.k, op.batched) == (self.kind, self.n, self.k, self.batched)
        return same and (op.m == self.m if self.batched else op.gemms == self.gemms)

    def flags(self) -> NDArray[np.bool_] | None:
        """Return all flags, (gemms, M, N), all samples in one batch."""
        if not self._flags:
            return None
        unpacked = [
            np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(np.bool_) for bits, shape in self._flags
        ]
        return np.concatenate(unpacked, axis=0 if self.batched else 1)
