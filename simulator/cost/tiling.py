"""The choice of the tile Mt x Nt x Kt that on-chip memory holds, by least DRAM traffic.

Loops over tiles run with k innermost, so that partial sums stay on chip. When Kt = K, the strip of the outer operand
stays for a whole row of tiles and is read once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from simulator.errors import InputError
from simulator.hardware import Array, Memory

from .folds import ceil_div


@dataclass(frozen=True)
class Widths:
    """Bits per element: a, w as moved; a_held, w_held on chip; state in the PE; psum between folds; out as stored."""

    a: int
    w: int
    state: int
    psum: int
    out: int
    a_held: int
    w_held: int

    def exchanged(self) -> Widths:
        """Return the widths with the operands exchanged."""
        return Widths(self.w, self.a, self.state, self.psum, self.out, self.w_held, self.a_held)


@dataclass(frozen=True)
class Problem:
    """One GEMM as the array sees it: M, N, K, MACs per PE and cycle, bits per element."""

    m: int
    n: int
    k: int
    rate: int
    widths: Widths

    def exchanged(self) -> Problem:
        """Return the problem with the operands exchanged: O^T = W^T A^T."""
        return Problem(self.n, self.m, self.k, self.rate, self.widths.exchanged())


@dataclass(frozen=True)
class Tile:
    """A tile of m x n x k and the loop that is outermost, "m" or "n"."""

    m: int
    n: int
    k: int
    outer: str

    def counts(self, m: int, n: int, k: int) -> tuple[int, int, int]:
        """Return how many tiles there are along each dimension."""
        return ceil_div(m, self.m), ceil_div(n, self.n), ceil_div(k, self.k)

    def passes(self, m: int, n: int, k: int) -> tuple[int, int]:
        """Return how often A and W are read from DRAM."""
        along_m, along_n, along_k = self.counts(m, n, k)
        return _passes(along_m, along_n, along_k == 1, self.outer)


def _passes(along_m: int, along_n: int, whole_k: bool, outer: str) -> tuple[int, int]:
    """DRAM reads of A and W: with all of K on chip the outer operand stays, and the inner one if it is one tile."""
    if not whole_k:
        return along_n, along_m
    if outer == "m":
        return 1, along_m if along_n > 1 else 1
    return along_n if along_m > 1 else 1, 1


def choose_tile(array: Array, memory: Memory, dataflow: str, problem: Problem) -> Tile:
    """Return the tile with the least DRAM bits; ties go to the larger Kt, then Nt, then Mt.

    Tiles are multiples of the array, and all tiles of one dimension but the last are equal with the last as close as
    that allows.

    Args:
        array, memory: of the machine. dataflow: ws | os. problem: the GEMM.
    Raises:
        InputError: not even one fold fits; names tensor, level, bits needed and bits available.
    """
    m, n, k, widths = problem.m, problem.n, problem.k, problem.widths
    grain_n, grain_k = array.columns, array.rows * problem.rate
    best: tuple[tuple[int, int, int, int], Tile] | None = None
    for mt in _sizes(m, array.rows):
        # With Mt and either all or less of K on chip, the widest Nt has the least traffic and wins ties.
        for held in {k, min(k, grain_k)}:
            most = _widest(memory, dataflow, mt, held, widths)
            if dataflow == "os" and held < k:  # the sums of one fold stay in the PEs
                most = min(most, grain_n) if mt <= array.rows else 0
            nt = _balanced(n, grain_n, most)
            if nt == 0:
                continue
            kt = _longest(memory, dataflow, mt, nt, k, grain_k, widths)
            for outer in ("m", "n"):
                a_passes, w_passes = _passes(ceil_div(m, mt), ceil_div(n, nt), kt == k, outer)
                key = (a_passes * m * k * widths.a + w_passes * k * n * widths.w, -kt, -nt, -mt)
                if best is None or key < best[0]:
                    best = key, Tile(mt, nt, kt, outer)
    if best is None:
        raise InputError(_too_small(array, memory, dataflow, problem))
    return best[1]


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
    sram, buffer = memory.sram, memory.accumulators
    free = sram.size_bits // sram.buffers - mt * kt * widths.a_held
    most = max(free, 0) // (kt * widths.w_held + mt * _staged_bits(memory, dataflow, widths))
    if buffer is not None and dataflow != "os":
        most = min(most, buffer.size_bits // (mt * widths.psum))
    return most


def _longest(memory: Memory, dataflow: str, mt: int, nt: int, k: int, grain: int, widths: Widths) -> int:
    """Largest balanced Kt that fits beside Mt x Nt outputs, of which at least one fold along K does."""
    sram = memory.sram
    free = sram.size_bits // sram.buffers - mt * nt * _staged_bits(memory, dataflow, widths)
    per_k = mt * widths.a_held + nt * widths.w_held
    if free >= k * per_k:
        return k
    units = free // (per_k * grain)
    total = ceil_div(k, grain)
    return ceil_div(total, ceil_div(total, units)) * grain


def _staged_bits(memory: Memory, dataflow: str, widths: Widths) -> int:
    """Bits per output in the SRAM: the stored result, or the partial sum where no other buffer holds it."""
    in_sram = memory.accumulators is None and dataflow != "os"
    return max(widths.psum, widths.out) if in_sram else widths.out


def _too_small(array: Array, memory: Memory, dataflow: str, problem: Problem) -> str:
    m, n, k, widths = problem.m, problem.n, problem.k, problem.widths
    mt, nt, kt = min(m, array.rows), min(n, array.columns), min(k, array.rows * problem.rate)
    buffer = memory.accumulators
    sums = mt * nt * widths.psum
    fold = f"one {mt}x{nt}x{kt} fold of the {m}x{n}x{k} GEMM"
    if buffer is not None and dataflow != "os" and sums > buffer.size_bits:
        return (
            f"memory.accumulators: the partial sums of {fold} need {sums} bit; expected at most the "
            f"{buffer.size_bits} bit of the level; raise memory.accumulators.size"
        )
    needs = {
        "a": mt * kt * widths.a_held,
        "w": kt * nt * widths.w_held,
        "outputs": mt * nt * _staged_bits(memory, dataflow, widths),
    }
    total = memory.sram.buffers * sum(needs.values())
    detail = ", ".join(f"{name} {bits} bit" for name, bits in needs.items())
    return (
        f"memory.sram: {fold} needs {total} bit ({detail}, times {memory.sram.buffers} buffers); expected at most the "
        f"{memory.sram.size_bits} bit of the level; raise memory.sram.size or lower memory.sram.buffers"
    )
