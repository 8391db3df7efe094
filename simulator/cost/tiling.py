"""The tiles Mt x Nt x Kt of a product: what of them fits on chip, and how often they bring the operands there.

Loops over tiles run with k innermost, so that partial sums stay on chip. When Kt = K, the strip of the outer operand
stays for a whole row of tiles and is read once. A staging level between the DRAM and the buffers keeps what fits of
what is read again: a whole operand, or the strip of a row of tiles; the rest passes through it. So does a buffer that
holds one of the operands only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from simulator.hardware import Array, Level, Memory

from .folds import ceil_div, sums_in_pes
from .problem import Problem, Widths


class Tile(NamedTuple):
    """A tile of m x n x k and the loop that is outermost, "m" or "n"."""

    m: int
    n: int
    k: int
    outer: str

    def exchanged(self) -> Tile:
        """Return the tile with the operands exchanged."""
        return Tile(self.n, self.m, self.k, "n" if self.outer == "m" else "m")

    def counts(self, m: int, n: int, k: int) -> tuple[int, int, int]:
        """Return how many tiles there are along each dimension."""
        return ceil_div(m, self.m), ceil_div(n, self.n), ceil_div(k, self.k)

    def staging_keeps(self, problem: Problem, level: Level) -> tuple[bool, bool]:
        """Return whether a staging level keeps the strip of the outer operand, and all of the inner one.

        The strip comes first, which is the smaller. Only what is read again is kept.
        """
        strip, whole = self._read_again(problem)
        free = level.size_bits // level.buffers
        keeps_strip = 0 < strip <= free
        free -= strip if keeps_strip else 0
        return keeps_strip, 0 < whole <= free

    def buffers_keep(self, problem: Problem, memory: Memory) -> tuple[bool, bool]:
        """Return the same of the buffers, of an operand that does not share its buffer with the other."""
        if len(memory.buffers) == 1:
            return False, False
        outer, inner = (memory.buffer(tensor) for tensor in (("a", "w") if self.outer == "m" else ("w", "a")))
        if outer is inner:
            return False, False
        strip, whole = self._read_again(problem)
        return 0 < strip <= self._free(problem, outer), 0 < whole <= self._free(problem, inner)

    def _read_again(self, problem: Problem) -> tuple[int, int]:
        """Return the bits of the strip of the outer operand and of all of the inner one, 0 if read but once."""
        along_m, along_n, along_k = self.counts(problem.m, problem.n, problem.k)
        k, widths = problem.k, problem.widths
        if self.outer == "m":
            along_outer, along_inner = along_m, along_n
            strip, whole = self.m * k * widths.a_held, problem.n * k * widths.w_held
        else:
            along_outer, along_inner = along_n, along_m
            strip, whole = self.n * k * widths.w_held, problem.m * k * widths.a_held
        strip_again = along_k > 1 and along_inner > 1
        whole_again = along_outer > 1 and (along_inner > 1 or along_k > 1)
        return math.ceil(strip) * strip_again, math.ceil(whole) * whole_again

    def _free(self, problem: Problem, level: Level) -> int:
        """Bits of a buffer beside a tile of outputs, if it holds these."""
        outputs = self.m * self.n * max(problem.widths.psum, problem.widths.out) if "o" in level.holds else 0
        return level.size_bits // level.buffers - outputs

    def crossing_bits(self, problem: Problem, memory: Memory) -> list[int]:
        """Return the bits of A and W that cross each boundary between levels, outermost first."""
        a_bits, w_bits = problem.fetched_bits
        return [math.ceil(a * a_bits + w * w_bits) for a, w in self.crossings(problem, memory)]

    def crossings(self, problem: Problem, memory: Memory | None) -> list[tuple[int, int]]:
        """Return how often A and W cross each boundary between levels, outermost first, the one of the buffers last.

        With all of K on chip the outer operand stays there for a row of tiles, and the inner one if it is one tile.
        What a level keeps does not come from further out again, whether levels there keep it or not.
        """
        along_m, along_n, along_k = self.counts(problem.m, problem.n, problem.k)
        along_outer, along_inner = (along_m, along_n) if self.outer == "m" else (along_n, along_m)
        strip, whole = (False, False) if memory is None else self.buffers_keep(problem, memory)
        outer = 1 if along_k == 1 or strip else along_inner
        inner = 1 if whole or (along_k == 1 and along_inner == 1) else along_outer
        found = [(outer, inner)]
        for level in reversed(() if memory is None else memory.staging):
            strip, whole = self.staging_keeps(problem, level)
            outer, inner = found[0]
            found.insert(0, (1 if strip else outer, 1 if whole else inner))
        return found if self.outer == "m" else [(inner, outer) for outer, inner in found]


def sums_stay(memory: Memory | None, dataflow: str) -> bool:
    """Whether sums stay in the PEs from tile to tile along k.

    Dot-product units put theirs away between two tiles if there is a level for them.
    """
    return sums_in_pes(dataflow) and (dataflow != "dot" or memory is None or memory.accumulators is None)


def widest_tiles(array: Array, memory: Memory, dataflow: str, problem: Problem, least_k: set[int]) -> Iterator[Tile]:
    """Yield for each Mt, beside each of some Kt, the widest Nt that fits, with the longest Kt that does.

    Tiles are multiples of the array, and all tiles of one dimension but the last are equal with the last as close as
    that allows. With Mt and either all or less of K on chip, the widest Nt has the least traffic.
    """
    n, k, sums = problem.n, problem.k, memory.accumulators
    grain_n, grain_k = array.columns, array.rows * problem.rate
    rooms, in_pes = _rooms(memory, dataflow, problem.widths), sums_stay(memory, dataflow)
    for mt in _sizes(problem.m, array.rows):
        widest = set()
        for held in least_k:
            most = n if in_pes or sums is None else sums.size_bits // (mt * problem.widths.psum)
            if held < k and in_pes:  # the sums of one fold of each array stay in the PEs
                most = array.copies // ceil_div(mt, array.rows) * grain_n
            widest.add(_balanced(n, grain_n, _widest(rooms, mt, held, most)))
        for nt in widest - {0}:
            kt = _longest(rooms, mt, nt, k, grain_k)
            yield Tile(mt, nt, kt, "m")
            yield Tile(mt, nt, kt, "n")


def fits(array: Array, memory: Memory, dataflow: str, problem: Problem, tile: Tile) -> bool:
    """Return whether the buffers hold a tile in all their copies, and its sums have a place."""
    folds, sums = ceil_div(tile.m, array.rows) * ceil_div(tile.n, array.columns), tile.m * tile.n * problem.widths.psum
    if sums_stay(memory, dataflow):
        if tile.k < problem.k and folds > array.copies:
            return False
    elif memory.accumulators is not None and sums > memory.accumulators.size_bits:
        return False
    needs = held_bits(memory, dataflow, problem.widths, tile)
    return all(level.buffers * sum(needs[of] for of in level.holds) <= level.size_bits for level in memory.buffers)


def held_bits(memory: Memory, dataflow: str, widths: Widths, tile: Tile) -> dict[str, int]:
    """Return the bits that a tile has in the buffers of a, w and o."""
    return {
        "a": math.ceil(tile.m * tile.k * widths.a_held),
        "w": math.ceil(tile.k * tile.n * widths.w_held),
        "o": tile.m * tile.n * _staged_bits(memory, dataflow, widths),
    }


def evenly(length: int, grain: int, count: int) -> int:
    """Return the size of the least multiples of `grain` that cut a dimension into at most so many tiles."""
    return min(ceil_div(ceil_div(length, grain), count) * grain, length)


def _sizes(length: int, grain: int) -> Iterator[int]:
    """Tile sizes along a dimension, from all of it downwards: for each number of tiles the smallest multiple."""
    units = ceil_div(length, grain)
    size = units
    while True:
        yield min(size * grain, length)
        if size == 1:
            return
        size = ceil_div(units, ceil_div(units, size - 1))


def _balanced(length: int, grain: int, most: int) -> int:
    """Largest of the sizes along a dimension that is at most `most`, or 0."""
    if most >= length:
        return length
    units = ceil_div(length, grain)
    return ceil_div(units, ceil_div(units, most // grain)) * grain if most >= grain else 0


class _Room(NamedTuple):
    """One copy of a buffer: its bits, and those of an element of A, W and O there, 0 of what it does not hold."""

    bits: int
    a: int | Fraction
    w: int | Fraction
    o: int


def _rooms(memory: Memory, dataflow: str, widths: Widths) -> list[_Room]:
    outputs = _staged_bits(memory, dataflow, widths)
    return [
        _Room(
            level.size_bits // level.buffers,
            widths.a_held if "a" in level.holds else 0,
            widths.w_held if "w" in level.holds else 0,
            outputs if "o" in level.holds else 0,
        )
        for level in memory.buffers
    ]


def _widest(rooms: list[_Room], mt: int, kt: int, most: int) -> int:
    """Largest Nt up to `most` for which Mt x Kt, Kt x Nt and Mt x Nt fit, or 0."""
    for room in rooms:
        free, for_each = room.bits - mt * kt * room.a, kt * room.w + mt * room.o
        if free < 0:
            return 0
        if for_each:
            most = min(most, free // for_each)
    return most


def _longest(rooms: list[_Room], mt: int, nt: int, k: int, grain: int) -> int:
    """Largest balanced Kt that fits beside Mt x Nt outputs, of which at least one fold along K does."""
    longest = k
    for room in rooms:
        free, per_k = room.bits - mt * nt * room.o, mt * room.a + nt * room.w
        if free < longest * per_k:
            total = ceil_div(k, grain)
            longest = ceil_div(total, ceil_div(total, free // (per_k * grain))) * grain
    return longest


def _staged_bits(memory: Memory, dataflow: str, widths: Widths) -> int:
    """Bits per output on chip: the stored result, or the partial sum where no other buffer holds it."""
    beside_outputs = memory.accumulators is None and not sums_in_pes(dataflow)
    return max(widths.psum, widths.out) if beside_outputs else widths.out
