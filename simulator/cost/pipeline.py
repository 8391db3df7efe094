"""One uniform pass of a GEMM: tiles in a pipeline over the shared DRAM.

    T = L_0 + sum_t max(C_t, L_{t+1} + S_{t-1}) + S_{n-1}

C_t is the longer of the closed form of tile t and its traffic through the ports of the buffers, L and S its loads and
stores at the slowest boundary between levels, which share the one DRAM channel; the DRAM latency is added to L_0 and
S_{n-1}. That takes two copies of a tile: a load into the only copy waits for the computation, and a computation whose
outputs have only one for the store. A staging level is passed through: what it keeps does not come from further out
again. Tiles of one row or column of tiles differ only at its ends, so one tile stands for all that lie between.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.hardware import Array, Memory

from .folds import (
    RunCycles,
    array_words,
    as_streamed,
    ceil_div,
    fold_grid,
    folds_in_turn,
    register_bits,
    run_cycles,
    sums_in_pes,
)
from .tiling import Problem, Tile, choose_tile, lengths, sums_stay
from .traffic import ArrayBits, Traffic, Transfer, level_bits, memory_bounds, port_cycles, transfer_cycles

Place = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Pass:
    """One pass over one GEMM.

    Args:
        dataflow: ws | is | os | dot. tile: all of the GEMM without a memory.
        a_passes, w_passes: how often A and W leave the DRAM. a_share: distinct elements of A in parts of all.
        run: cycles by cause. memory_stall: all others; cycles: their sum.
        roofline: lower bound of cycles. peak: those at the peak rate of all PEs. bound: by what the roofline is bound,
            compute or the port of a level.
        traffic: bits moved. level_bits: read from and written to each on-chip level, by its name.
        register_bits: written inside the array. fold_adds: sums added to partial sums.
        start: cycles before the first tile. steps: cycles of an output tile, by class along the outer and the inner
        loop. step_counts: how many tiles are in each class, in the order of the loops.
    """

    dataflow: str
    tile: Tile
    a_passes: int
    w_passes: int
    a_share: int | Fraction
    run: RunCycles
    memory_stall: int
    roofline: int
    peak: int
    bound: str
    traffic: Traffic
    level_bits: Mapping[str, tuple[int, int]]
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
    """Return the pass with the tile of least DRAM traffic; dataflow ws | is | os | dot | best (least cycles).

    Args:
        array, memory: of the machine. problem: the GEMM.
    Raises:
        InputError: not even one fold fits the memory.
    """
    if dataflow == "best":
        passes = [uniform_pass(array, memory, kind, problem) for kind in ("ws", "is", "os")]
        return min(passes, key=lambda p: p.cycles)
    if dataflow == "is":
        problem = problem.exchanged()
        memory = None if memory is None else memory.exchanged()
    whole = Tile(problem.m, problem.n, problem.k, "m")
    tile = whole if memory is None else choose_tile(array, memory, as_streamed(dataflow), problem)
    return tiled_pass(array, memory, dataflow, problem, tile)


def tiled_pass(array: Array, memory: Memory | None, dataflow: str, problem: Problem, tile: Tile) -> Pass:
    """Return the pass with a given tile; for is, memory, problem and tile are already exchanged."""
    return Pipeline(array, memory, dataflow, problem, tile).result()


def pipeline_of(array: Array, memory: Memory | None, problem: Problem, found: Pass) -> Pipeline:
    """Return the tiles of a pass that `uniform_pass` found."""
    tile = found.tile
    if found.dataflow == "is":
        problem, tile, memory = problem.exchanged(), tile.exchanged(), None if memory is None else memory.exchanged()
    return Pipeline(array, memory, found.dataflow, problem, tile)


class Pipeline:
    """The tiles of one pass, each by its place (x, y, z) in the outer loop, the inner one and that along k.

    Args:
        array, memory: of the machine. dataflow: ws | is | os | dot. problem: the GEMM. tile: its tiles. For is, memory,
            problem and tile are already exchanged.
    """

    def __init__(self, array: Array, memory: Memory | None, dataflow: str, problem: Problem, tile: Tile) -> None:
        self.array, self.memory, self.dataflow, self.tile = array, memory, dataflow, tile
        self.problem, self.rate, self.widths = problem, problem.rate, problem.widths
        self.flow = as_streamed(dataflow)
        self.m, self.n, self.k = problem.m, problem.n, problem.k
        counts = tile.counts(self.m, self.n, self.k)
        self.along_m, self.along_n, self.along_k = counts
        self.outer_count, self.inner_count = counts[:2] if tile.outer == "m" else (counts[1], counts[0])
        self.runs: dict[tuple[int, int, int, bool], tuple[RunCycles, int]] = {}
        # Of each staging level, whether it keeps the strip of the outer operand and all of the inner one.
        self.kept = [] if memory is None else [tile.kept(problem, level) for level in memory.staging]
        self.stays = (False, False) if memory is None else tile.stays(problem, memory)  # likewise, of the buffers

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
                    steps[i][j] += k_times * self.step(busy, self.following(x, y, z), self.preceding(x, y, z))
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
        a_passes, w_passes = self.passes()[0]
        traffic = self.traffic()
        fold_rows, _, _ = fold_grid(self.array, self.flow, self.m, self.n, self.k, self.rate)
        widths = self.widths
        exchanged = self.dataflow == "is"
        peak, ports = self.peak_cycles(), memory_bounds(self.memory, traffic)
        roofline = max([peak, *ports.values()])
        return Pass(
            dataflow=self.dataflow,
            tile=self.tile.exchanged() if exchanged else self.tile,
            a_passes=w_passes if exchanged else a_passes,
            w_passes=a_passes if exchanged else w_passes,
            a_share=widths.w_share if exchanged else widths.a_share,
            run=split,
            memory_stall=total - split.total,
            roofline=roofline,
            peak=peak,
            bound="compute" if peak == roofline else max(ports, key=lambda port: ports[port]),
            traffic=Traffic(traffic.array.exchanged(), tuple(t.exchanged() for t in traffic.transfers))
            if exchanged
            else traffic,
            level_bits=level_bits(self.memory, traffic),
            register_bits=register_bits(
                self.array, self.flow, self.m, self.n, self.k, self.rate, widths.a, widths.w, widths.state
            ),
            fold_adds=0 if sums_in_pes(self.flow) else (fold_rows - 1) * self.m * self.n,
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
            folds = folds_in_turn(self.array, self.flow, rows, columns)
            run = run_cycles(self.array, self.flow, [(folds, t * self.problem.passes)])
            if sums_in_pes(self.flow) and not last:  # the sum stays in the PE until the last tile along k
                run = RunCycles(run.compute, 0, 0, 0)
            busy = run.total
            if self.memory is not None:
                busy = max(busy, port_cycles(self.memory, self.array_bits(mt, nt, kt, first, last)))
            if first != last:
                return run, busy
            self.runs[key] = run, busy
        return self.runs[key]

    def array_bits(self, m: int, n: int, k: int, first: bool, last: bool) -> ArrayBits:
        """Bits of a tile between array and buffers."""
        words, widths = array_words(self.array, self.flow, m, n, k, self.rate), self.widths
        outputs = m * n if last else 0
        reads = math.ceil(words.a_reads * widths.a), math.ceil(words.w_reads * widths.w), outputs * widths.out
        if sums_stay(self.memory, self.flow):
            return ArrayBits(*reads)
        if sums_in_pes(self.flow):
            sums = m * n * widths.psum
            return ArrayBits(*reads, 0 if first else sums, 0 if last else sums)
        psum_reads = words.psum_reads + (0 if first else m * n)
        return ArrayBits(*reads, psum_reads * widths.psum, (words.psum_writes - outputs) * widths.psum)

    def step(self, busy: int, following: Place | None, preceding: Place | None) -> int:
        """Cycles of a tile's computation, of the load of the next one and of the store of the one before."""
        load, store = self.load(following), self.store(preceding)
        if not self.single:
            return max(busy, load + store)
        loads_later = following is not None and self.waits_for_copy(following)
        if "o" in self.single:
            return store + (busy + load if loads_later else max(busy, load))
        return max(busy, store) + load if loads_later else max(busy, load + store)

    @cached_property
    def single(self) -> frozenset[str]:
        """Which of a, w and o the buffers hold one copy of."""
        levels = () if self.memory is None else self.memory.buffers
        return frozenset(tensor for level in levels if level.buffers == 1 for tensor in level.holds)

    def waits_for_copy(self, at: Place) -> bool:
        """Whether something that a tile brings goes into the only copy there is, which the tile before still uses."""
        a, w = self.comes(*at)
        return (a and "a" in self.single) or (w and "w" in self.single)

    def comes(self, x: int, y: int, z: int) -> tuple[bool, bool]:
        """Whether a tile brings A, and whether it brings W, into the buffers; see Tile.crossings."""
        strip, whole = self.stays
        outer = y == 0 or (self.along_k > 1 and not strip)
        inner = x == 0 or not (whole or (self.along_k == 1 and self.inner_count == 1))
        return (outer, inner) if self.tile.outer == "m" else (inner, outer)

    def operand_bits(self, x: int, y: int, z: int) -> tuple[int, int]:
        """Bits of A and W that a tile brings into the buffers."""
        mt, nt, kt = self.sizes(x, y, z)
        a_comes, w_comes = self.comes(x, y, z)
        return a_comes * math.ceil(mt * kt * self.widths.a_fetched), w_comes * math.ceil(
            kt * nt * self.widths.w_fetched
        )

    def load(self, at: Place | None) -> int:
        """Cycles of a tile's operands on their way in, at the slowest boundary."""
        return 0 if at is None or self.memory is None else max([cycles for _, cycles in self.loads(self.memory, *at)])

    def loads(self, memory: Memory, x: int, y: int, z: int) -> list[tuple[int, int]]:
        """Bits of a tile's operands across each boundary between levels, and their cycles there, innermost first."""
        a, w = self.operand_bits(x, y, z)
        rows_outside = self.tile.outer == "m"
        into = 0
        for level in memory.buffers:
            bits = (a if "a" in level.holds else 0) + (w if "w" in level.holds else 0)
            into = max(into, transfer_cycles(bits, level.write_bits_per_cycle))
        found = []
        for level, (strip, whole) in zip(reversed(memory.staging), reversed(self.kept), strict=True):
            found.append((a + w, max(into, transfer_cycles(a + w, level.read_bits_per_cycle))))
            outer_comes, inner_comes = y == 0 or not strip, x == 0 or not whole
            a *= outer_comes if rows_outside else inner_comes
            w *= inner_comes if rows_outside else outer_comes
            into = transfer_cycles(a + w, level.write_bits_per_cycle)
        found.append((a + w, max(into, transfer_cycles(a + w, memory.dram.bandwidth_bits_per_cycle))))
        return found

    def store(self, at: Place | None) -> int:
        """Cycles of a tile's outputs on their way out, at the slowest boundary."""
        if at is None or self.memory is None:
            return 0
        bits = self.stored_bits(*at)
        return transfer_cycles(bits, self.store_bits_per_cycle) if bits else 0

    @cached_property
    def store_bits_per_cycle(self) -> Fraction:
        """Of the slowest port on the way of the outputs to the DRAM."""
        return min(self.outward_bits_per_cycle)

    def stored_bits(self, x: int, y: int, z: int) -> int:
        """Bits that leave with a tile: outputs, with the last one along k."""
        mt, nt, _ = self.sizes(x, y, z)
        return mt * nt * self.widths.out if z == self.along_k - 1 else 0

    @cached_property
    def outward_bits_per_cycle(self) -> tuple[Fraction, ...]:
        """Bits of outputs that cross each boundary between levels in a cycle, innermost first."""
        assert self.memory is not None
        inner, found = self.memory.buffer("o"), []
        for level in reversed(self.memory.staging):
            found.append(min(inner.read_bits_per_cycle, level.write_bits_per_cycle))
            inner = level
        return *found, min(inner.read_bits_per_cycle, self.memory.dram.bandwidth_bits_per_cycle)

    def following(self, x: int, y: int, z: int) -> Place | None:
        if z + 1 < self.along_k:
            return x, y, z + 1
        if y + 1 < self.inner_count:
            return x, y + 1, 0
        return (x + 1, 0, 0) if x + 1 < self.outer_count else None

    def preceding(self, x: int, y: int, z: int) -> Place | None:
        if z:
            return x, y, z - 1
        if y:
            return x, y - 1, self.along_k - 1
        return (x - 1, self.inner_count - 1, self.along_k - 1) if x else None

    def passes(self) -> list[tuple[int, int]]:
        """How often A and W cross each boundary between levels, outermost first."""
        return self.tile.crossings(self.problem, self.memory)

    def traffic(self) -> Traffic:
        m, n, k, widths = self.m, self.n, self.k, self.widths
        array = ArrayBits()
        for mt, m_times in lengths(m, self.tile.m):
            for nt, n_times in lengths(n, self.tile.n):
                for z, k_times in zip(*_positions(self.along_k), strict=True):
                    kt = min(self.tile.k, k - z * self.tile.k)
                    bits = self.array_bits(mt, nt, kt, z == 0, z == self.along_k - 1)
                    array = array.plus(bits, m_times * n_times * k_times)
        if self.memory is None:
            return Traffic(array, ())
        a_bits, w_bits = math.ceil(m * k * widths.a_fetched), math.ceil(k * n * widths.w_fetched)
        return Traffic(array, tuple(Transfer(a * a_bits, w * w_bits, m * n * widths.out) for a, w in self.passes()))

    def peak_cycles(self) -> int:
        """Cycles at the peak rate of all PEs."""
        return ceil_div(self.m * self.n * self.k * self.problem.passes, self.array.pes * self.rate)


def _positions(count: int) -> tuple[list[int], list[int]]:
    """Tile positions that stand for all, and how many each stands for: neighbours of the ends stand for themselves."""
    if count <= 5:
        return list(range(count)), [1] * count
    return [0, 1, 2, count - 2, count - 1], [1, 1, count - 4, 1, 1]
