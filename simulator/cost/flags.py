"""Counts of flagged outputs, from a measured mask or from a fraction of independent flags."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.errors import InputError

from .folds import ceil_div, cut, rounded_up


@dataclass(frozen=True)
class Blocks:
    """Rectangles of outputs: (how many, rows, columns) each, and the distinct rows and columns that they touch."""

    pieces: list[tuple[int, int, int]]
    rows: int
    columns: int

    @property
    def outputs(self) -> int:
        return sum(count * rows * columns for count, rows, columns in self.pieces)


GroupBounds = tuple[int, int]  # rows and columns of the tiles within which groups are formed


class Flags(Protocol):
    """Which outputs of `gemms` GEMMs of M x N are recomputed; all counts are over all GEMMs."""

    independent: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """(gemms, M, N)."""

    def count(self) -> int:
        """Flagged outputs."""

    def rows(self) -> int:
        """Rows that hold a flag."""

    def columns(self) -> int:
        """Columns that hold a flag."""

    def bands(self, width: int, within: GroupBounds | None = None) -> Blocks:
        """Per band of `width` columns, the rows that hold a flag in it; bands begin anew in each tile, if given."""

    def tiles(self, height: int, width: int, within: GroupBounds | None = None) -> Blocks:
        """Blocks of `height` x `width` outputs that hold a flag; they begin anew in each tile, if given."""


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
        self._shape, self._masks = shape, masks
        self._known: dict[tuple[object, ...], Blocks] = {}

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._shape

    @property
    def _whole(self) -> GroupBounds:
        return self.shape[1:]

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
        for of_gemms in self._masks:
            held = np.zeros((1, self.shape[2]), np.bool_)
            for mask in of_gemms:
                count += int(np.count_nonzero(mask))
                rows += int(np.count_nonzero(mask.any(axis=2)))
                held = held | mask.any(axis=1)
            columns += int(np.count_nonzero(held))
        return count, rows, columns

    def bands(self, width: int, within: GroupBounds | None = None) -> Blocks:
        return self._once(("bands", width, within), lambda: self._bands(width, within or self._whole))

    def tiles(self, height: int, width: int, within: GroupBounds | None = None) -> Blocks:
        return self._once(("tiles", height, width, within), lambda: self._tiles(height, width, within or self._whole))

    def _once(self, key: tuple[object, ...], find: Callable[[], Blocks]) -> Blocks:
        """Return what was found before, since each count reads all of the mask."""
        if key not in self._known:
            self._known[key] = find()
        return self._known[key]

    def _bands(self, width: int, within: GroupBounds) -> Blocks:
        _, widths = parts(self.shape[2], width, within[1])
        found: Counter[tuple[int, int]] = Counter()
        columns = 0
        for rows in self.rows_per_band(width, within):
            sizes = np.stack([rows, np.broadcast_to(widths, rows.shape)]).reshape(2, -1)
            pairs, counts = np.unique(sizes, axis=1, return_counts=True)
            found.update({(int(r), int(w)): int(c) for (r, w), c in zip(pairs.T, counts, strict=True) if r})
            columns += int((rows.any(axis=1) * widths).sum())
        pieces = [(count, rows, wide) for (rows, wide), count in sorted(found.items())]
        return Blocks(pieces, self.rows(), columns)

    def _tiles(self, height: int, width: int, within: GroupBounds) -> Blocks:
        _, m, n = self.shape
        (_, heights), (_, widths) = parts(m, height, within[0]), parts(n, width, within[1])
        found: Counter[tuple[int, int]] = Counter()
        rows = columns = 0
        for per_tile in self.per_tile(height, width, within):
            held = per_tile > 0
            for h in np.unique(heights):
                for w in np.unique(widths):
                    found[int(h), int(w)] += int(np.count_nonzero(held[:, heights == h][:, :, widths == w]))
            rows += int((held.any(axis=2) * heights).sum())
            columns += int((held.any(axis=1) * widths).sum())
        return Blocks([(count, h, w) for (h, w), count in found.items() if count], rows, columns)

    def rows_per_band(self, width: int, within: GroupBounds) -> Iterator[NDArray[np.int64]]:
        """Yield the rows of each tile that hold a flag in a band, (gemms, tiles along M, bands along N)."""
        starts, _ = parts(self.shape[2], width, within[1])
        rows, _ = parts(self.shape[1], within[0], within[0])
        yield from self._summed(rows, lambda mask: np.logical_or.reduceat(mask, starts, axis=2), starts.size)

    def per_tile(self, height: int, width: int, within: GroupBounds | None = None) -> Iterator[NDArray[np.int64]]:
        """Yield the flags in each block, (gemms, blocks along M, blocks along N), of some GEMMs after others."""
        _, m, n = self.shape
        tile_m, tile_n = within or self._whole
        (along_m, _), (along_n, _) = parts(m, height, tile_m), parts(n, width, tile_n)
        yield from self._summed(
            along_m, lambda mask: np.add.reduceat(mask, along_n, axis=2, dtype=np.int64), along_n.size
        )

    def _summed(
        self, starts: NDArray[np.int64], reduced: Callable[[NDArray[Any]], NDArray[Any]], across: int
    ) -> Iterator[NDArray[np.int64]]:
        """Yield sums over the rows from each start to the next, of what each part of a mask is reduced to."""
        for of_gemms in self._masks:
            counts, row = np.zeros((0, 0, 0), np.int64), 0
            for mask in of_gemms:
                if not row:
                    counts = np.zeros((len(mask), starts.size, across), np.int64)
                first = int(np.searchsorted(starts, row, "right")) - 1
                last = int(np.searchsorted(starts, row + mask.shape[1]))
                along_m = np.maximum(starts[first:last] - row, 0)
                counts[:, first:last] += np.add.reduceat(reduced(mask), along_m, axis=1, dtype=np.int64)
                row += mask.shape[1]
            yield counts


class IndependentFlags:
    """Expected counts of flags that are set independently with one probability, rounded up (estimate)."""

    independent = True

    def __init__(self, fraction: float, gemms: int, m: int, n: int) -> None:
        self.fraction, self.gemms, self.m, self.n = fraction, gemms, m, n

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.gemms, self.m, self.n

    def count(self) -> int:
        return self._expected(self.gemms * self.m * self.n, 1)

    def rows(self) -> int:
        return self._expected(self.gemms * self.m, self.n)

    def columns(self) -> int:
        return self._expected(self.gemms * self.n, self.m)

    def bands(self, width: int, within: GroupBounds | None = None) -> Blocks:
        tile_m, tile_n = within or (self.m, self.n)
        pieces, columns = [], 0
        for wide, across in cut(self.n, tile_n):
            for tall, down in cut(self.m, tile_m):
                pieces += self.band_pieces(self.gemms * down * across, tall, wide, width)
            for w, times in cut(wide, width):
                columns += w * self._expected(self.gemms * across * times, self.m * w)
        return Blocks(pieces, self.rows(), columns)

    def tiles(self, height: int, width: int, within: GroupBounds | None = None) -> Blocks:
        tile_m, tile_n = within or (self.m, self.n)
        pieces = []
        for (tall, down), (wide, across) in itertools.product(cut(self.m, tile_m), cut(self.n, tile_n)):
            pieces += self.block_pieces(self.gemms * down * across, tall, wide, height, width)
        rows = min(self.gemms * self.m, height * self._expected(self.gemms * ceil_div(self.m, height), height * self.n))
        columns = min(self.gemms * self.n, width * self._expected(self.gemms * ceil_div(self.n, width), width * self.m))
        return Blocks(pieces, rows, columns)

    def band_pieces(self, tiles: int, tall: int, wide: int, width: int) -> list[tuple[int, int, int]]:
        """Return the bands of so many tiles of tall x wide outputs that hold a flag, with the rows that do."""
        pieces = []
        for w, times in cut(wide, width):
            held = self._expected(tiles * times, tall * w)
            if held:
                pieces.append((held, ceil_div(self._expected(tiles * times * tall, w), held), w))
        return pieces

    def block_pieces(self, tiles: int, tall: int, wide: int, height: int, width: int) -> list[tuple[int, int, int]]:
        """Return the blocks of height x width of so many tiles of tall x wide outputs that hold a flag."""
        pieces = []
        for (h, down), (w, across) in itertools.product(cut(tall, height), cut(wide, width)):
            held = self._expected(tiles * down * across, h * w)
            if held:
                pieces.append((held, h, w))
        return pieces

    def _expected(self, groups: int, size: int) -> int:
        """Groups of `size` outputs that hold a flag."""
        if self.fraction == 1.0:
            return groups
        held = self.fraction if size == 1 else -math.expm1(size * math.log1p(-self.fraction))
        return rounded_up(groups * held)


def parts(length: int, size: int, within: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return starts and lengths of parts of `size`, which begin anew at each multiple of `within`."""
    starts = (np.arange(0, length, within)[:, None] + np.arange(0, min(within, length), size)).reshape(-1)
    starts = starts[starts < length]
    return starts, np.diff(starts, append=length)
