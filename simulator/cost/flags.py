"""Counts of flagged outputs, from a measured mask or from a fraction of independent flags."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.errors import InputError

from .folds import ceil_div


@dataclass(frozen=True)
class Blocks:
    """Rectangles of outputs: (how many, rows, columns) each, and the distinct rows and columns that they touch."""

    pieces: list[tuple[int, int, int]]
    rows: int
    columns: int

    @property
    def outputs(self) -> int:
        return sum(count * rows * columns for count, rows, columns in self.pieces)


class Flags(Protocol):
    """Which outputs of `gemms` GEMMs of M x N are recomputed; all counts are over all GEMMs."""

    independent: bool

    def count(self) -> int:
        """Flagged outputs."""

    def rows(self) -> int:
        """Rows that hold a flag."""

    def columns(self) -> int:
        """Columns that hold a flag."""

    def bands(self, width: int) -> Blocks:
        """Per band of `width` columns, the rows that hold a flag in it."""

    def tiles(self, height: int, width: int) -> Blocks:
        """Tiles that hold a flag."""


def read_flags(flags: NDArray[Any] | float | MaskFlags, gemms: int, m: int, n: int) -> Flags:
    """Return the counts of a mask of shape (gemms, M, N) or (M, N), or of a fraction in 0..1.

    Args:
        flags: bool array, or MaskFlags, or fraction.
    Raises:
        InputError: another shape or type, or a fraction outside 0..1.
    """
    if isinstance(flags, MaskFlags):
        if flags.shape != (gemms, m, n):
            raise InputError(
                f"flags: got those of shape {flags.shape}; expected {(gemms, m, n)}; pass those of the GEMM"
            )
        return flags
    if isinstance(flags, np.ndarray) and flags.ndim:
        shapes = [(gemms, m, n), (m, n)] if gemms == 1 else [(gemms, m, n)]
        if flags.dtype != np.bool_ or flags.shape not in shapes:
            raise InputError(
                f"flags: got an array of {flags.dtype} of shape {flags.shape}; expected bool of shape "
                f"{' or '.join(map(str, shapes))}; pass the mask of the GEMM"
            )
        return MaskFlags((gemms, m, n), [[flags.reshape(gemms, m, n)]])
    if isinstance(flags, bool) or not isinstance(flags, int | float | np.floating) or not 0.0 <= flags <= 1.0:
        raise InputError(f"flags: got {flags!r}; expected a fraction from 0 to 1, or a bool array; give e.g. 0.02")
    return IndependentFlags(float(flags), gemms, m, n)


class MaskFlags:
    """Counts measured on a mask, read part by part. Exact.

    Args:
        shape: (gemms, M, N).
        masks: of GEMMs one after another, some at a time, for each of these parts of their rows one after another: bool
            arrays (gemms of these, rows, N). Iterated for each count, so that no more than a part is in memory.
    """

    independent = False

    def __init__(self, shape: tuple[int, int, int], masks: Iterable[Iterable[NDArray[Any]]]) -> None:
        self.shape, self._masks = shape, masks

    def count(self) -> int:
        return self._totals[0]

    def rows(self) -> int:
        return self._totals[1]

    def columns(self) -> int:
        return self._totals[2]

    @functools.cached_property
    def _totals(self) -> tuple[int, int, int]:
        """Flags, rows that hold one, columns that hold one."""
        count = rows = columns = 0
        for parts in self._masks:
            held = np.zeros((1, self.shape[2]), np.bool_)
            for mask in parts:
                count += int(np.count_nonzero(mask))
                rows += int(np.count_nonzero(mask.any(axis=2)))
                held = held | mask.any(axis=1)
            columns += int(np.count_nonzero(held))
        return count, rows, columns

    def bands(self, width: int) -> Blocks:
        n = self.shape[2]
        starts = np.arange(0, n, width)
        widths = np.minimum(width, n - starts)
        found: Counter[tuple[int, int]] = Counter()
        for parts in self._masks:
            # (gemms, bands)
            rows = sum(np.count_nonzero(np.logical_or.reduceat(mask, starts, axis=2), axis=1) for mask in parts)
            sizes = np.stack([rows, np.broadcast_to(widths, np.shape(rows))]).reshape(2, -1)
            pairs, counts = np.unique(sizes, axis=1, return_counts=True)
            found.update({(int(r), int(w)): int(c) for (r, w), c in zip(pairs.T, counts, strict=True) if r})
        pieces = [(count, rows, columns) for (rows, columns), count in sorted(found.items())]
        return Blocks(pieces, self.rows(), sum(c * w for c, _, w in pieces))

    def tiles(self, height: int, width: int) -> Blocks:
        _, m, n = self.shape
        heights = np.minimum(height, m - np.arange(0, m, height))
        widths = np.minimum(width, n - np.arange(0, n, width))
        found: Counter[tuple[int, int]] = Counter()
        rows = columns = 0
        for per_tile in self.per_tile(height, width):
            held = per_tile > 0
            for h in np.unique(heights):
                for w in np.unique(widths):
                    found[int(h), int(w)] += int(np.count_nonzero(held[:, heights == h][:, :, widths == w]))
            rows += int((held.any(axis=2) * heights).sum())
            columns += int((held.any(axis=1) * widths).sum())
        return Blocks([(count, h, w) for (h, w), count in found.items() if count], rows, columns)

    def per_tile(self, height: int, width: int) -> Iterator[NDArray[np.int64]]:
        """Yield the flags in each tile, (gemms, tiles along M, tiles along N), of some GEMMs after others."""
        _, m, n = self.shape
        along_n = np.arange(0, n, width)
        for parts in self._masks:
            counts, row = np.zeros((0, 0, 0), np.int64), 0
            for mask in parts:
                if not row:
                    counts = np.zeros((len(mask), ceil_div(m, height), along_n.size), np.int64)
                first, last = row // height, ceil_div(row + mask.shape[1], height)
                along_m = np.maximum(np.arange(first, last) * height - row, 0)
                in_bands = np.add.reduceat(mask, along_n, axis=2, dtype=np.int64)
                counts[:, first:last] += np.add.reduceat(in_bands, along_m, axis=1)
                row += mask.shape[1]
            yield counts


class IndependentFlags:
    """Expected counts of flags that are set independently with one probability, rounded up (estimate)."""

    independent = True

    def __init__(self, fraction: float, gemms: int, m: int, n: int) -> None:
        self.fraction, self.gemms, self.m, self.n = fraction, gemms, m, n

    def count(self) -> int:
        return self._expected(self.gemms * self.m * self.n, 1)

    def rows(self) -> int:
        return self._expected(self.gemms * self.m, self.n)

    def columns(self) -> int:
        return self._expected(self.gemms * self.n, self.m)

    def bands(self, width: int) -> Blocks:
        pieces = []
        for w, times in _cut(self.n, width):
            rows = self._expected(self.m, w)
            if rows:
                pieces.append((self.gemms * times, rows, w))
        return Blocks(pieces, self.rows(), sum(c * w for c, _, w in pieces))

    def tiles(self, height: int, width: int) -> Blocks:
        pieces = []
        for h, down in _cut(self.m, height):
            for w, across in _cut(self.n, width):
                count = self._expected(self.gemms * down * across, h * w)
                if count:
                    pieces.append((count, h, w))
        rows = min(self.gemms * self.m, height * self._expected(self.gemms * ceil_div(self.m, height), height * self.n))
        columns = min(self.gemms * self.n, width * self._expected(self.gemms * ceil_div(self.n, width), width * self.m))
        return Blocks(pieces, rows, columns)

    def expected_per_tile(self, height: int, width: int, outer: str) -> Callable[[bool, bool], float]:
        """Return the flags of a tile, by whether it is the last along the outer and the inner loop."""
        heights = height, (self.m - 1) % height + 1
        widths = width, (self.n - 1) % width + 1
        outer_sizes, inner_sizes = (heights, widths) if outer == "m" else (widths, heights)
        return lambda last_outer, last_inner: self.fraction * outer_sizes[last_outer] * inner_sizes[last_inner]

    def _expected(self, groups: int, size: int) -> int:
        """Groups of `size` outputs that hold a flag."""
        if self.fraction == 1.0:
            return groups
        held = self.fraction if size == 1 else -math.expm1(size * math.log1p(-self.fraction))
        # A few units in the last place keep a product such as 0.07 * 100 from being rounded up by one; 0 stays 0.
        return math.ceil(groups * held * (1 - 2.0**-50))


def _cut(length: int, size: int) -> list[tuple[int, int]]:
    full, rest = divmod(length, size)
    return [(part, times) for part, times in ((size, full), (rest, 1)) if part and times]
