"""The choice of the tile Mt x Nt x Kt that on-chip memory holds, by least time at the slowest place.

Loops over tiles run with k innermost, so that partial sums stay on chip. When Kt = K, the strip of the outer operand
stays for a whole row of tiles and is read once. A staging level between the DRAM and the buffers keeps what fits of
what is read again: a whole operand, or the strip of a row of tiles; the rest passes through it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
    """

    a: int | Fraction
    w: int | Fraction
    state: int
    psum: int
    out: int
    a_held: int | Fraction
    w_held: int | Fraction

    def exchanged(self) -> Widths:
        """Return the widths with the operands exchanged."""
        return Widths(self.w, self.a, self.state, self.psum, self.out, self.w_held, self.a_held)


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

    def passes(self, m: int, n: int, k: int) -> tuple[int, int]:
        """Return how often A and W are read into the buffers."""
        along_m, along_n, along_k = self.counts(m, n, k)
        return _passes(along_m, along_n, along_k == 1, self.outer)

    def kept(self, problem: Problem, level: Level) -> tuple[bool, bool]:
        """Return whether a staging level keeps the strip of the outer operand, and all of the inner one.

        The strip comes first, which is the smaller. Only what is read again is kept.
        """
        along_m, along_n, along_k = self.counts(problem.m, problem.n, problem.k)
        along_outer, along_inner = (along_m, along_n) if self.outer == "m" else (along_n, along_m)
        widths, free = problem.widths, level.size_bits // level.buffers
        strip = math.ceil(problem.k * (self.m * widths.a_held if self.outer == "m" else self.n * widths.w_held))
        whole = math.ceil(problem.k * (problem.n * widths.w_held if self.outer == "m" else problem.m * widths.a_held))
        keeps_strip = along_k > 1 and along_inner > 1 and strip <= free
        free -= strip if keeps_strip else 0
        return keeps_strip, along_outer > 1 and (along_inner > 1 or along_k > 1) and whole <= free

    def crossings(self, problem: Problem, staging: Sequence[Level]) -> list[tuple[int, int]]:
        """Return how often A and W cross each boundary between levels, outermost first.

        What a staging level keeps does not come from further out again, whether levels there keep it or not.
        """
        found = [self.passes(problem.m, problem.n, problem.k)]
        for level in reversed(staging):
            strip, whole = self.kept(problem, level)
            a, w = found[0]
            a_kept, w_kept = (strip, whole) if self.outer == "m" else (whole, strip)
            found.insert(0, (1 if a_kept else a, 1 if w_kept else w))
        return found


def _passes(along_m: int, along_n: int, whole_k: bool, outer: str) -> tuple[int, int]:
    """DRAM reads of A and W: with all of K on chip the outer operand stays, and the inner one if it is one tile."""
    if not whole_k:
        return along_n, along_m
    if outer == "m":
        return 1, along_m if along_n > 1 else 1
    return along_n if along_m > 1 else 1, 1


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
                crossings = tile.crossings(problem, memory.staging)
                bits = [math.ceil(a * m * k * widths.a + w * k * n * widths.w) for a, w in crossings]
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
