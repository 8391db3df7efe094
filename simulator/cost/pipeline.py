"""One uniform pass of a GEMM: tiles in a pipeline over the shared DRAM.

    T = L_0 + sum_t max(C_t, L_{t+1} + S_{t-1}) + S_{n-1}

C_t is the longer of the closed form of tile t and its traffic through the SRAM ports, L and S its loads and stores on
the one DRAM channel; the DRAM latency is added to L_0 and S_{n-1}. Tiles of one row or column of tiles differ only at
its ends, so one tile stands for all that lie between.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.hardware import Array, Memory

from .folds import RunCycles, array_words, ceil_div, fold_grid, register_bits, run_cycles
from .tiling import Problem, Tile, choose_tile


@dataclass(frozen=True)
class Traffic:
    """Bits moved by one pass over one GEMM.

    Args:
        dram: in and out. sram_reads, sram_writes: ports to the array. sram_fills, sram_stores: port to the DRAM.
        psum_reads, psum_writes: of the accumulator buffer; without one they are in the SRAM's counts and these are 0.
    """

    dram: int
    sram_reads: int
    sram_writes: int
    sram_fills: int
    sram_stores: int
    psum_reads: int
    psum_writes: int


@dataclass(frozen=True, eq=False)
class Pass:
    """One pass over one GEMM.

    Args:
        dataflow: ws | is | os. tile: all of the GEMM without a memory. a_passes, w_passes: DRAM reads of A and W.
        run: cycles by cause. memory_stall: all others; cycles: their sum. roofline: lower bound of cycles.
        traffic: bits moved. register_bits: written inside the array. fold_adds: sums added to partial sums.
        start: cycles before the first tile. steps: cycles of an output tile, by class along the outer and the inner
        loop. step_counts: how many tiles are in each class, in the order of the loops.
    """

    dataflow: str
    tile: Tile
    a_passes: int
    w_passes: int
    run: RunCycles
    memory_stall: int
    roofline: int
    traffic: Traffic
    register_bits: int
    fold_adds: int
    step_counts: tuple[tuple[int, ...], tuple[int, ...]]
    steps: tuple[tuple[int, ...], ...]
    start: int

    @property
    def cycles(self) -> int:
        return self.run.total + self.memory_stall

    @property
    def last_store(self) -> int:
        """Cycles from the end of the last computation to that of the pass."""
        outer, inner = self.step_counts
        steps = sum(x * y * self.steps[i][j] for i, x in enumerate(outer) for j, y in enumerate(inner))
        return self.cycles - self.start - steps

    def finish(self) -> NDArray[Any]:
        """Return the cycle at which each output tile is computed, shape (outer tiles, inner tiles)."""
        outer, inner = self.step_counts
        steps = np.repeat(np.repeat(np.array(self.steps, dtype=np.int64), outer, axis=0), inner, axis=1)
        return self.start + np.cumsum(steps).reshape(steps.shape)


@lru_cache(maxsize=1 << 14)
def uniform_pass(array: Array, memory: Memory | None, dataflow: str, problem: Problem) -> Pass:
    """Return the pass with the tile of least DRAM traffic; dataflow ws | is | os | best (least cycles).

    Args:
        array, memory: of the machine. problem: the GEMM.
    Raises:
        InputError: not even one fold fits the memory.
    """
    if dataflow == "best":
        passes = [uniform_pass(array, memory, kind, problem) for kind in ("ws", "is", "os")]
        return min(passes, key=lambda p: p.cycles)
    flow = "os" if dataflow == "os" else "ws"
    if dataflow == "is":
        problem = problem.exchanged()
    whole = Tile(problem.m, problem.n, problem.k, "m")
    tile = whole if memory is None else choose_tile(array, memory, flow, problem)
    return tiled_pass(array, memory, dataflow, problem, tile)


def tiled_pass(array: Array, memory: Memory | None, dataflow: str, problem: Problem, tile: Tile) -> Pass:
    """Return the pass with a given tile; for is, problem and tile are already exchanged."""
    return _Pipeline(array, memory, dataflow, problem, tile).result()


def transfer_cycles(bits: int, bits_per_cycle: Fraction) -> int:
    """Return the cycles of a transfer, rounded up."""
    return ceil_div(bits * bits_per_cycle.denominator, bits_per_cycle.numerator)


class _Pipeline:
    """The walk over the tiles of one pass."""

    def __init__(self, array: Array, memory: Memory | None, dataflow: str, problem: Problem, tile: Tile) -> None:
        self.array, self.memory, self.dataflow, self.tile = array, memory, dataflow, tile
        self.rate, self.widths = problem.rate, problem.widths
        self.flow = "os" if dataflow == "os" else "ws"
        self.m, self.n, self.k = problem.m, problem.n, problem.k
        counts = tile.counts(self.m, self.n, self.k)
        self.along_m, self.along_n, self.along_k = counts
        self.outer_count, self.inner_count = counts[:2] if tile.outer == "m" else (counts[1], counts[0])
        self.runs: dict[tuple[int, int, int, bool], tuple[RunCycles, int]] = {}

    def result(self) -> Pass:
        outer_at, outer_weight = _positions(self.outer_count)
        inner_at, inner_weight = _positions(self.inner_count)
        k_at, k_weight = _positions(self.along_k)
        run = [0, 0, 0, 0]
        steps = [[0] * len(inner_at) for _ in outer_at]
        for i, x in enumerate(outer_at):
            for j, y in enumerate(inner_at):
                for z, k_times in zip(k_at, k_weight, strict=True):
                    times = outer_weight[i] * inner_weight[j] * k_times
                    cycles, busy = self.compute(x, y, z)
                    for part in range(4):
                        run[part] += times * cycles[part]
                    steps[i][j] += k_times * max(
                        busy, self.load(self.following(x, y, z)) + self.store(self.preceding(x, y, z))
                    )
        first = self.load((0, 0, 0)) + self.latency
        last = self.store((self.outer_count - 1, self.inner_count - 1, self.along_k - 1)) + self.latency
        total = (
            first
            + last
            + sum(
                outer_weight[i] * inner_weight[j] * steps[i][j]
                for i in range(len(outer_at))
                for j in range(len(inner_at))
            )
        )
        split = RunCycles(*run)
        a_passes, w_passes = self.tile.passes(self.m, self.n, self.k)
        traffic = self.traffic(a_passes, w_passes)
        fold_rows, _, _ = fold_grid(self.array, self.flow, self.m, self.n, self.k, self.rate)
        widths = self.widths
        exchanged = self.dataflow == "is"
        tile = self.tile
        return Pass(
            dataflow=self.dataflow,
            tile=Tile(tile.n, tile.m, tile.k, "n" if tile.outer == "m" else "m") if exchanged else tile,
            a_passes=w_passes if exchanged else a_passes,
            w_passes=a_passes if exchanged else w_passes,
            run=split,
            memory_stall=total - split.total,
            roofline=self.roofline(traffic),
            traffic=traffic,
            register_bits=register_bits(
                self.array, self.flow, self.m, self.n, self.k, self.rate, widths.a, widths.w, widths.state
            ),
            fold_adds=0 if self.flow == "os" else (fold_rows - 1) * self.m * self.n,
            step_counts=(tuple(outer_weight), tuple(inner_weight)),
            steps=tuple(tuple(row) for row in steps),
            start=first,
        )

    @property
    def latency(self) -> int:
        return 0 if self.memory is None else self.memory.dram.latency_cycles

    def sizes(self, x: int, y: int, z: int) -> tuple[int, int, int]:
        i, j = (x, y) if self.tile.outer == "m" else (y, x)
        tile = self.tile
        return (
            min(tile.m, self.m - i * tile.m),
            min(tile.n, self.n - j * tile.n),
            min(tile.k, self.k - z * tile.k),
        )

    def compute(self, x: int, y: int, z: int) -> tuple[RunCycles, int]:
        """Cycles of a tile on the array, and the longer of these and of its traffic through the SRAM ports."""
        mt, nt, kt = self.sizes(x, y, z)
        first, last = z == 0, z == self.along_k - 1
        key = (mt, nt, kt, first or last)
        if first != last or key not in self.runs:
            rows, columns, t = fold_grid(self.array, self.flow, mt, nt, kt, self.rate)
            run = run_cycles(self.array, self.flow, [(rows * columns, t)])
            if self.flow == "os" and not last:  # the sum stays in the PE until the last tile along k
                run = RunCycles(run.compute, 0, 0, 0)
            busy = run.total
            if self.memory is not None:
                reads, writes, _, _ = self.array_bits(mt, nt, kt, first, last)
                sram = self.memory.sram
                busy = max(
                    busy,
                    transfer_cycles(reads, sram.read_bits_per_cycle),
                    transfer_cycles(writes, sram.write_bits_per_cycle),
                )
            if first != last:
                return run, busy
            self.runs[key] = run, busy
        return self.runs[key]

    def array_bits(self, m: int, n: int, k: int, first: bool, last: bool) -> tuple[int, int, int, int]:
        """Bits of a tile between array and SRAM (read, written) and accumulator buffer (read, written)."""
        words, widths = array_words(self.array, self.flow, m, n, k, self.rate), self.widths
        reads, writes = words.a_reads * widths.a + words.w_reads * widths.w, 0
        if self.flow == "os":
            return reads, m * n * widths.out if last else 0, 0, 0
        psum_reads = (words.psum_reads + (0 if first else m * n)) * widths.psum
        psum_writes = (words.psum_writes - (m * n if last else 0)) * widths.psum
        if last:
            writes = m * n * widths.out
        if self.memory is None or self.memory.accumulators is None:
            return reads + psum_reads, writes + psum_writes, 0, 0
        return reads, writes, psum_reads, psum_writes

    def load(self, at: tuple[int, int, int] | None) -> int:
        if at is None or self.memory is None:
            return 0
        x, y, z = at
        mt, nt, kt = self.sizes(x, y, z)
        outer, inner = mt * kt * self.widths.a, kt * nt * self.widths.w
        if self.tile.outer == "n":
            outer, inner = inner, outer
        bits = outer + inner
        if self.along_k == 1:  # the outer operand stays for a row of tiles, a single inner one for the whole pass
            bits = (outer if y == 0 else 0) + (inner if x == 0 or self.inner_count > 1 else 0)
        return transfer_cycles(
            bits, min(self.memory.dram.bandwidth_bits_per_cycle, self.memory.sram.write_bits_per_cycle)
        )

    def store(self, at: tuple[int, int, int] | None) -> int:
        if at is None or self.memory is None or at[2] != self.along_k - 1:
            return 0
        mt, nt, _ = self.sizes(*at)
        bits = mt * nt * self.widths.out
        return transfer_cycles(
            bits, min(self.memory.dram.bandwidth_bits_per_cycle, self.memory.sram.read_bits_per_cycle)
        )

    def following(self, x: int, y: int, z: int) -> tuple[int, int, int] | None:
        if z + 1 < self.along_k:
            return x, y, z + 1
        if y + 1 < self.inner_count:
            return x, y + 1, 0
        return (x + 1, 0, 0) if x + 1 < self.outer_count else None

    def preceding(self, x: int, y: int, z: int) -> tuple[int, int, int] | None:
        if z:
            return x, y, z - 1
        if y:
            return x, y - 1, self.along_k - 1
        return (x - 1, self.inner_count - 1, self.along_k - 1) if x else None

    def traffic(self, a_passes: int, w_passes: int) -> Traffic:
        m, n, k, widths = self.m, self.n, self.k, self.widths
        totals = [0, 0, 0, 0]
        for mt, m_times in _lengths(m, self.tile.m):
            for nt, n_times in _lengths(n, self.tile.n):
                for z, k_times in zip(*_positions(self.along_k), strict=True):
                    kt = min(self.tile.k, k - z * self.tile.k)
                    bits = self.array_bits(mt, nt, kt, z == 0, z == self.along_k - 1)
                    for i in range(4):
                        totals[i] += m_times * n_times * k_times * bits[i]
        reads, writes, psum_reads, psum_writes = totals
        if self.memory is None:
            return Traffic(0, reads, writes, 0, 0, psum_reads, psum_writes)
        fills = a_passes * m * k * widths.a + w_passes * k * n * widths.w
        stores = m * n * widths.out
        return Traffic(fills + stores, reads, writes, fills, stores, psum_reads, psum_writes)

    def roofline(self, traffic: Traffic) -> int:
        compute = ceil_div(self.m * self.n * self.k, self.array.rows * self.array.columns * self.rate)
        return max(compute, memory_bound(self.memory, traffic.dram, traffic.sram_reads, traffic.sram_writes))


def memory_bound(memory: Memory | None, dram: int, sram_reads: int, sram_writes: int) -> int:
    """Return the cycles in which the slowest memory port moves its bits: a lower bound of any schedule."""
    if memory is None:
        return 0
    return max(
        transfer_cycles(dram, memory.dram.bandwidth_bits_per_cycle),
        transfer_cycles(sram_reads, memory.sram.read_bits_per_cycle),
        transfer_cycles(sram_writes, memory.sram.write_bits_per_cycle),
    )


def _positions(count: int) -> tuple[list[int], list[int]]:
    """Tile positions that stand for all, and how many each stands for: neighbours of the ends stand for themselves."""
    if count <= 5:
        return list(range(count)), [1] * count
    return [0, 1, 2, count - 2, count - 1], [1, 1, count - 4, 1, 1]


def _lengths(length: int, size: int) -> list[tuple[int, int]]:
    """Full tiles and the last partial one, as (length, how many)."""
    full, rest = divmod(length, size)
    return [(part, times) for part, times in ((size, full), (rest, 1)) if part and times]
