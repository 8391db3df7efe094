"""The side engine behind the first pass: an in-order queue fed tile by tile; without limit, but for `flagged_tiles`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from simulator.hardware import Machine

from .flags import Flags, IndependentFlags, MaskFlags, parts
from .folds import ceil_div, rounded_up
from .one_pass import Pass
from .recomputing import ArrayUnit, DotUnit, group_size, recomputing_unit


class Engine:
    """The side engine and its queue; `flagged` is of each output tile (outputs, cycles).

    The outputs of a tile come evenly while it is computed. One leaves the queue when it is done, and another needs a
    place in it to come: with that, no more than `queue` are left when a tile ends, and the last of the next comes when
    all but that many of those before it are done.
    """

    def __init__(self, flagged: Iterator[tuple[int, int]], queue: int | None) -> None:
        self.flagged, self.queue = flagged, queue
        self.free = 0  # when it has done all so far

    def take(self, start: int, end: int) -> tuple[int, tuple[int, int]]:
        """Take the flagged outputs of the next tile, computed from one cycle to another if nothing holds it up.

        Returns:
            The cycle at which the last of them is in the queue, and those between which the engine works on them.
        """
        outputs, cycles = next(self.flagged)
        if not cycles:
            return end, (self.free, self.free)
        before, outputs = self.free, max(outputs, 1)
        first = start + ceil_div(end - start, outputs)
        if self.queue is not None:
            begun = max(before, first) if outputs > self.queue else before
            end = max(end, begun + ceil_div((outputs - self.queue) * cycles, outputs))
        self.free = max(before + cycles, first + cycles, end + ceil_div(cycles, outputs))
        return end, (max(before, first), self.free)


def engine_cycles(machine: Machine, first: Pass, flags: MaskFlags, k: int) -> Iterator[NDArray[np.int64]]:
    """Yield the cycles that the engine takes for each tile of the first pass: (gemms, tiles along M, tiles along N)."""
    policy, tile, (_, m, n) = machine.policy, first.tile, flags.shape
    assert policy is not None
    unit, (rows, columns) = recomputing_unit(machine, first, k), group_size(machine, first, n)
    if policy.gather == "element":
        for counts in flags.per_tile(tile.m, tile.n):
            yield counts * unit.cycles(1, 1)
        return
    within = (tile.m, tile.n)
    starts, widths = parts(n, columns, tile.n)
    along_n = np.flatnonzero(starts % tile.n == 0)
    if policy.gather == "tile":
        tops, heights = parts(m, rows, tile.m)
        along_m = np.flatnonzero(tops % tile.m == 0)
        each = _tabulated(unit, *np.broadcast_arrays(heights[:, None], widths))
        for counts in flags.per_tile(rows, columns, within):
            yield np.add.reduceat(np.add.reduceat((counts > 0) * each, along_m, axis=1), along_n, axis=2)
        return
    for held in flags.rows_per_band(columns, within):
        yield np.add.reduceat(_tabulated(unit, *np.broadcast_arrays(held, widths)), along_n, axis=2)


def _tabulated(unit: DotUnit | ArrayUnit, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the cycles of groups of so many rows and columns, 0 for those without rows."""
    sizes, at = np.unique(np.stack([rows.reshape(-1), columns.reshape(-1)]), axis=1, return_inverse=True)
    cycles = [unit.cycles(int(r), int(c)) if r else 0 for r, c in sizes.T]
    return np.array(cycles, np.int64)[at.reshape(-1)].reshape(rows.shape)


def measured_queue(machine: Machine, first: Pass, flags: MaskFlags, k: int, period: int, waiting: int) -> int:
    """Return the cycle at which the engine has taken the last group of a mask.

    `period` are the cycles of the low passes of a GEMM, `waiting` those of all groups.
    """
    finish = first.finish().reshape(-1)
    latest = gemm = 0
    for per_tile in engine_cycles(machine, first, flags, k):
        in_order = per_tile.swapaxes(1, 2) if first.tile.outer == "n" else per_tile
        high = in_order.reshape(-1)
        starts = (np.arange(len(per_tile)) + gemm + 1)[:, None] * period - first.cycles
        done = (starts + finish).reshape(-1)
        left = waiting - (np.cumsum(high) - high)  # by this tile and those behind it
        latest = max(latest, int((done + left)[left > 0].max(initial=0)))
        waiting -= int(high.sum())
        gemm += len(per_tile)
    return latest


def _expected_cycles(machine: Machine, first: Pass, flags: IndependentFlags, k: int) -> list[list[float]]:
    """Return the cycles that a tile gives the engine, by whether it is the last along the outer and the inner loop."""
    policy, tile, n = machine.policy, first.tile, flags.n
    assert policy is not None
    unit, (rows, columns) = recomputing_unit(machine, first, k), group_size(machine, first, n)

    def of_tile(tall: int, wide: int, tiles: int) -> float:
        if policy.gather == "element":
            return flags.fraction * tall * wide * unit.cycles(1, 1)
        pieces = (
            flags.block_pieces(tiles, tall, wide, rows, columns)
            if policy.gather == "tile"
            else flags.band_pieces(tiles, tall, wide, columns)
        )
        return sum(count * unit.cycles(r, c) for count, r, c in pieces) / tiles

    along_m, along_n = _tile_classes(flags.m, tile.m), _tile_classes(n, tile.n)
    cycles = [[of_tile(h, w, flags.gemms * down * across) for w, across in along_n] for h, down in along_m]
    return cycles if tile.outer == "m" else [list(column) for column in zip(*cycles, strict=True)]


def _tile_classes(length: int, size: int) -> list[tuple[int, int]]:
    """Return (length, how many) of the tiles along a dimension, those before the last and the last."""
    count = ceil_div(length, size)
    return [(size, max(count - 1, 1)), (length - (count - 1) * size, 1)]


def expected_queue(machine: Machine, first: Pass, flags: IndependentFlags, k: int, period: int) -> int:
    """Return the same for independent flags, from the classes of tiles.

    Over the tiles of a class, over its rows of tiles and over the GEMMs, what is done and what waits change linearly:
    the maximum is at a first or last one.
    """
    outer, inner = first.step_counts
    of_class = _expected_cycles(machine, first, flags, k)
    expected = [
        [of_class[x == len(outer) - 1][y == len(inner) - 1] for y in range(len(inner))] for x in range(len(outer))
    ]
    gemm_high = sum(
        rows * times * one
        for rows, row in zip(outer, expected, strict=True)
        for times, one in zip(inner, row, strict=True)
    )
    latest, row_done, row_high = 0.0, first.start, 0.0  # when a class of rows begins, and what came before it
    for rows, steps, high in zip(outer, first.steps, expected, strict=True):
        row_steps = sum(times * step for times, step in zip(inner, steps, strict=True))
        row_flags = sum(times * one for times, one in zip(inner, high, strict=True))
        for gemm, row in itertools.product({0, flags.gemms - 1}, {0, rows - 1}):
            done, before = (gemm + 1) * period - first.cycles + row * row_steps + row_done, row_high
            total, of_rows = (flags.gemms - gemm) * gemm_high, row * row_flags
            for times, step, one in zip(inner, steps, high, strict=True):
                for tile in {0, times - 1}:
                    waiting = total - (of_rows + before + tile * one)
                    latest = max(latest, done + (tile + 1) * step + waiting)
                done, before = done + times * step, before + times * one
        row_done, row_high = row_done + rows * row_steps, row_high + rows * row_flags
    return rounded_up(latest)


def flagged_tiles(machine: Machine, first: Pass, flags: Flags, k: int, steps: int) -> Iterator[tuple[int, int]]:
    """Yield, of each output tile of each GEMM in the order of the loops, its flags and the engine's cycles for them.

    Args:
        steps: cycles of all flags. Independent flags, and these cycles, are spread over the tiles as expected; what the
            tiles so far have is rounded up.
    """
    rows_outside = first.tile.outer == "m"
    if isinstance(flags, MaskFlags):
        counts, cycles = flags.per_tile(first.tile.m, first.tile.n), engine_cycles(machine, first, flags, k)
        for pair in zip(counts, cycles, strict=True):
            in_order = (per_tile if rows_outside else per_tile.swapaxes(1, 2) for per_tile in pair)
            yield from zip(*(one.reshape(-1).tolist() for one in in_order), strict=True)
        return
    assert isinstance(flags, IndependentFlags)
    of_class = _expected_cycles(machine, first, flags, k)
    along_m, along_n = _tile_sizes(flags.m, first.tile.m), _tile_sizes(flags.n, first.tile.n)
    outer, inner = (along_m, along_n) if rows_outside else (along_n, along_m)
    in_tiles = [
        (height * width, of_class[x == len(outer) - 1][y == len(inner) - 1])
        for x, height in enumerate(outer)
        for y, width in enumerate(inner)
    ]
    in_gemm, wanted, outputs = sum(cycles for _, cycles in in_tiles), flags.count(), flags.gemms * flags.m * flags.n
    by_element = machine.policy is not None and machine.policy.gather == "element"
    seen, given = 0, (0, 0)
    for gemm in range(flags.gemms):
        expected = 0.0
        for number, (size, of_tile) in enumerate(in_tiles, 1):
            seen, expected = seen + size, expected + of_tile
            count = ceil_div(wanted * seen, outputs)
            share = (gemm + (1.0 if number == len(in_tiles) else expected / in_gemm)) / flags.gemms
            total = count, steps * count // wanted if by_element else min(rounded_up(steps * share), steps)
            yield total[0] - given[0], total[1] - given[1]
            given = total


def _tile_sizes(length: int, size: int) -> list[int]:
    """Return the lengths of the tiles along a dimension."""
    return [min(size, length - start) for start in range(0, length, size)]
