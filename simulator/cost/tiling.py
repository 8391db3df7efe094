"""The choice of the tile Mt x Nt x Kt that on-chip memory holds, by least time at the slowest place.

Loops over tiles run with k innermost, so that partial sums stay on chip. When Kt = K, the strip of the outer operand
stays for a whole row of tiles and is read once. A staging level between the DRAM and the buffers keeps what fits of
what is read again: a whole operand, or the strip of a row of tiles; the rest passes through it. So does a buffer that
holds one of the operands only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from simulator.errors import InputError
from simulator.hardware import Array, Level, Memory

from .folds import ceil_div, fold_grid, folds_in_turn, sums_in_pes
from .traffic import transfer_cycles


class Widths(NamedTuple):
    """Bits per element: a, w as moved; a_held, w_held on chip; state in the PE; psum between folds; out as stored.

    Those of operands in blocks have fractions, their shares of the scales; what is moved rounds up to whole bits.
    a_share, w_share are the distinct elements of an operand in parts of its elements: an image comes from further out
    as it lies, and is unfolded where it enters the array.
    """

    a: int | Fraction
    w: int | Fraction
    state: int
    psum: int
    out: int
    a_held: int | Fraction
    w_held: int | Fraction
    a_share: int | Fraction = 1
    w_share: int | Fraction = 1

    def exchanged(self) -> Widths:
        """Return the widths with the operands exchanged."""
        return Widths(
            self.w, self.a, self.state, self.psum, self.out, self.w_held, self.a_held, self.w_share, self.a_share
        )

    @property
    def a_fetched(self) -> int | Fraction:
        """Bits that come from further out for each element of A."""
        return self.a * self.a_share

    @property
    def w_fetched(self) -> int | Fraction:
        """The same of W."""
        return self.w * self.w_share


class Problem(NamedTuple):
    """One GEMM as the array sees it: M, N, K, MACs that a PE takes together, in how many cycles, bits per element."""

    m: int
    n: int
    k: int
    rate: int
    widths: Widths
    passes: int = 1

    def exchanged(self) -> Problem:
        """Return the problem with the operands exchanged: O^T = W^T A^T."""
        return Problem(self.n, self.m, self.k, self.rate, self.widths.exchanged(), self.passes)


@dataclass(frozen=True)
class Tile:
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

    def kept(self, problem: Problem, level: Level) -> tuple[bool, bool]:
        """Return whether a staging level keeps the strip of the outer operand, and all of the inner one.

        The strip comes first, which is the smaller. Only what is read again is kept.
        """
        strip, whole = self._read_again(problem)
        free = level.size_bits // level.buffers
        keeps_strip = 0 < strip <= free
        free -= strip if keeps_strip else 0
        return keeps_strip, 0 < whole <= free

    def stays(self, problem: Problem, memory: Memory) -> tuple[bool, bool]:
        """Return the same of the buffers, of an operand that does not share its buffer with the other."""
        outer, inner = (memory.buffer(tensor) for tensor in (("a", "w") if self.outer == "m" else ("w", "a")))
        if outer == inner:
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

    def crossings(self, problem: Problem, memory: Memory | None) -> list[tuple[int, int]]:
        """Return how often A and W cross each boundary between levels, outermost first, the one of the buffers last.

        With all of K on chip the outer operand stays there for a row of tiles, and the inner one if it is one tile.
        What a level keeps does not come from further out again, whether levels there keep it or not.
        """
        along_m, along_n, along_k = self.counts(problem.m, problem.n, problem.k)
        along_outer, along_inner = (along_m, along_n) if self.outer == "m" else (along_n, along_m)
        strip, whole = (False, False) if memory is None else self.stays(problem, memory)
        outer = 1 if along_k == 1 or strip else along_inner
        inner = 1 if whole or (along_k == 1 and along_inner == 1) else along_outer
        found = [(outer, inner)]
        for level in reversed(() if memory is None else memory.staging):
            strip, whole = self.kept(problem, level)
            outer, inner = found[0]
            found.insert(0, (1 if strip else outer, 1 if whole else inner))
        return found if self.outer == "m" else [(inner, outer) for outer, inner in found]


def sums_stay(memory: Memory | None, dataflow: str) -> bool:
    """Whether sums stay in the PEs from tile to tile along k.

    Dot-product units put theirs away between two tiles if there is a level for them.
    """
    return sums_in_pes(dataflow) and (dataflow != "dot" or memory is None or memory.accumulators is None)


def choose_tile(array: Array, memory: Memory, dataflow: str, problem: Problem) -> Tile:
    """Return the tile that takes the least time at the slowest place: the arrays, the DRAM, or a level further in.

    Ties go to the least bits out of the DRAM, then to the least bits into each level further in, then to the larger Kt,
    Nt, Mt. One array has the same folds for every tile: without staging levels it is the one with the least DRAM bits.
    Tiles are multiples of the array, and all tiles of one dimension but the last are equal with the last as close as
    that allows.

    Args:
        array, memory: of the machine. dataflow: ws | os | dot. problem: the GEMM.
    Raises:
        InputError: not even one fold fits; names tensor, level, bits needed and bits available.
    """
    m, n, k, widths = problem.m, problem.n, problem.k, problem.widths
    grain_n, grain_k = array.columns, array.rows * problem.rate
    stay = sums_stay(memory, dataflow)
    ports = [memory.dram.bandwidth_bits_per_cycle, *(level.read_bits_per_cycle for level in memory.staging)]
    best: tuple[tuple[int, ...], Tile] | None = None
    for mt in _sizes(m, array.rows):
        # With Mt and either all or less of K on chip, the widest Nt has the least traffic and wins ties.
        for held in {k, min(k, grain_k)}:
            most = _widest(memory, dataflow, mt, held, widths)
            if stay and held < k:  # the sums of one fold of each array stay in the PEs
                most = min(most, array.copies // ceil_div(mt, array.rows) * grain_n)
            nt = _balanced(n, grain_n, most)
            if nt == 0:
                continue
            kt = _longest(memory, dataflow, mt, nt, k, grain_k, widths)
            for outer in ("m", "n"):
                tile = Tile(mt, nt, kt, outer)
                crossings = tile.crossings(problem, memory)
                bits = [math.ceil(a * m * k * widths.a_fetched + w * k * n * widths.w_fetched) for a, w in crossings]
                slowest = max(map(transfer_cycles, bits, ports))
                if array.copies > 1:  # one array does all folds in any case
                    slowest = max(slowest, _array_cycles(array, dataflow, problem, tile))
                key = (slowest, *bits, -kt, -nt, -mt)
                if best is None or key < best[0]:
                    best = key, tile
    if best is None:
        raise InputError(_too_small(array, memory, dataflow, problem))
    return best[1]


def _array_cycles(array: Array, dataflow: str, problem: Problem, tile: Tile) -> int:
    """Return the cycles in which operands stream, of all tiles."""
    total = 0
    for mt, along_m in lengths(problem.m, tile.m):
        for nt, along_n in lengths(problem.n, tile.n):
            for kt, along_k in lengths(problem.k, tile.k):
                rows, columns, t = fold_grid(array, dataflow, mt, nt, kt, problem.rate)
                total += along_m * along_n * along_k * folds_in_turn(array, dataflow, rows, columns) * t
    return total * problem.passes


def lengths(length: int, size: int) -> list[tuple[int, int]]:
    """Full tiles along a dimension and the last partial one, as (length, how many)."""
    full, rest = divmod(length, size)
    return [(part, times) for part, times in ((size, full), (rest, 1)) if part and times]


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


def _widest(memory: Memory, dataflow: str, mt: int, kt: int, widths: Widths) -> int:
    """Largest Nt for which Mt x Kt, Kt x Nt and Mt x Nt fit, or 0."""
    buffer = memory.accumulators
    most = 2**62 if buffer is None or sums_stay(memory, dataflow) else buffer.size_bits // (mt * widths.psum)
    for level in memory.buffers:
        free = level.size_bits // level.buffers - (mt * kt * widths.a_held if "a" in level.holds else 0)
        for_each: int | Fraction = kt * widths.w_held if "w" in level.holds else 0
        for_each += mt * _staged_bits(memory, dataflow, widths) if "o" in level.holds else 0
        most = min(most, max(free, 0) // for_each) if for_each else most if free >= 0 else 0
    return most


def _longest(memory: Memory, dataflow: str, mt: int, nt: int, k: int, grain: int, widths: Widths) -> int:
    """Largest balanced Kt that fits beside Mt x Nt outputs, of which at least one fold along K does."""
    longest = k
    for level in memory.buffers:
        free = level.size_bits // level.buffers
        free -= mt * nt * _staged_bits(memory, dataflow, widths) if "o" in level.holds else 0
        per_k = mt * widths.a_held if "a" in level.holds else 0
        per_k += nt * widths.w_held if "w" in level.holds else 0
        if free < longest * per_k:
            total = ceil_div(k, grain)
            longest = ceil_div(total, ceil_div(total, free // (per_k * grain))) * grain
    return longest


def _staged_bits(memory: Memory, dataflow: str, widths: Widths) -> int:
    """Bits per output on chip: the stored result, or the partial sum where no other buffer holds it."""
    beside_outputs = memory.accumulators is None and not sums_in_pes(dataflow)
    return max(widths.psum, widths.out) if beside_outputs else widths.out


def _too_small(array: Array, memory: Memory, dataflow: str, problem: Problem) -> str:
    m, n, k, widths = problem.m, problem.n, problem.k, problem.widths
    mt, nt, kt = min(m, array.rows), min(n, array.columns), min(k, array.rows * problem.rate)
    buffer = memory.accumulators
    sums = mt * nt * widths.psum
    fold = f"one {mt}x{nt}x{kt} fold of the {m}x{n}x{k} GEMM"
    if buffer is not None and not sums_stay(memory, dataflow) and sums > buffer.size_bits:
        return (
            f"memory.{buffer.name}: the partial sums of {fold} need {sums} bit; expected at most the "
            f"{buffer.size_bits} bit of the level; raise memory.{buffer.name}.size"
        )
    needs = {
        "a": math.ceil(mt * kt * widths.a_held),
        "w": math.ceil(kt * nt * widths.w_held),
        "o": mt * nt * _staged_bits(memory, dataflow, widths),
    }
    words = {"a": "a", "w": "w", "o": "outputs"}
    for level in memory.buffers:
        total = level.buffers * sum(needs[tensor] for tensor in level.holds)
        if total > level.size_bits:
            break
    detail = ", ".join(f"{words[tensor]} {needs[tensor]} bit" for tensor in level.holds)
    return (
        f"memory.{level.name}: {fold} needs {total} bit ({detail}, times {level.buffers} buffers); expected at most "
        f"the {level.size_bits} bit of the level; raise memory.{level.name}.size or lower memory.{level.name}.buffers"
    )
