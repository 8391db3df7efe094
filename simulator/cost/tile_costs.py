"""What one tile of a pass costs: cycles on the array and at its ports, of its loads and of its stores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from simulator.hardware import Array, Memory

from .folds import RunCycles, array_words, as_streamed, cut, fold_grid, folds_in_turn, run_cycles, sums_in_pes
from .problem import Problem
from .tiling import Tile, sums_stay
from .traffic import ArrayBits, port_cycles, transfer_cycles

Place = tuple[int, int, int]


def positions(count: int) -> tuple[list[int], list[int]]:
    """Return places along a loop that stand for all, and how many each stands for: the ends and their neighbours."""
    if count <= 5:
        return list(range(count)), [1] * count
    return [0, 1, 2, count - 2, count - 1], [1, 1, count - 4, 1, 1]


class OnArray(NamedTuple):
    """A tile on the array: its cycles there, the longer of these and of its traffic through the ports, and that."""

    run: RunCycles
    busy: int
    moved: ArrayBits


class TileCost(NamedTuple):
    """What a tile costs beside its neighbours, in cycles.

    Args:
        busy: on the array and at its ports. load, store: of its operands on their way in and of its outputs on their
            way out, at the slowest boundary. waits: whether its load waits for the computation before it.
    """

    busy: int
    load: int
    store: int
    waits: bool


NO_TILE = TileCost(0, 0, 0, False)


class TileCosts:
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
        self.counts = tile.counts(self.m, self.n, self.k)
        along_m, along_n, self.along_k = self.counts
        self.outer_count, self.inner_count = (along_m, along_n) if tile.outer == "m" else (along_n, along_m)
        # Mt, Nt, Kt of the last tile along each dimension.
        self.last = (
            self.m - (along_m - 1) * tile.m,
            self.n - (along_n - 1) * tile.n,
            self.k - (self.along_k - 1) * tile.k,
        )
        self.fetched = problem.widths.a_fetched, problem.widths.w_fetched
        self._on_array: dict[tuple[int, int, int, bool, bool], OnArray] = {}
        self._costs: dict[Place, TileCost] = {}
        # Of each staging level, and of the buffers: whether it keeps the strip of the outer operand, all of the inner.
        self.staging_keeps = [] if memory is None else [tile.staging_keeps(problem, level) for level in memory.staging]
        self.buffers_keep = (False, False) if memory is None else tile.buffers_keep(problem, memory)
        # Bits of outputs that cross each boundary between levels in a cycle, innermost first.
        self.outward_bits_per_cycle = () if memory is None else _outward(memory)
        # Which of a, w and o the buffers hold one copy of.
        levels = () if memory is None else memory.buffers
        self.single = frozenset(tensor for level in levels if level.buffers == 1 for tensor in level.holds)

    @property
    def latency(self) -> int:
        """Cycles until the DRAM answers."""
        return 0 if self.memory is None else self.memory.dram.latency_cycles

    def kind(self, x: int, y: int, z: int) -> Place:
        """Return a tile that costs the same: the ends of a loop stand for themselves, the second for all between."""
        return (
            x if x < 2 or x == self.outer_count - 1 else 1,
            y if y < 2 or y == self.inner_count - 1 else 1,
            z if z < 2 or z == self.along_k - 1 else 1,
        )

    def sizes(self, x: int, y: int, z: int) -> tuple[int, int, int]:
        """Return Mt, Nt, Kt of a tile."""
        tile, last, (along_m, along_n, along_k) = self.tile, self.last, self.counts
        i, j = (x, y) if tile.outer == "m" else (y, x)
        return (
            tile.m if i < along_m - 1 else last[0],
            tile.n if j < along_n - 1 else last[1],
            tile.k if z < along_k - 1 else last[2],
        )

    def compute(self, x: int, y: int, z: int) -> OnArray:
        """Return what a tile takes on the array."""
        return self._sized(*self.sizes(x, y, z), z)

    def by_size(self) -> Iterator[tuple[OnArray, int]]:
        """Yield what the tiles take on the array, and how many of them are alike there."""
        along_k = list(zip(*positions(self.along_k), strict=True))
        for mt, rows in cut(self.m, self.tile.m):
            for nt, columns in cut(self.n, self.tile.n):
                for z, times in along_k:
                    kt = min(self.tile.k, self.k - z * self.tile.k)
                    yield self._sized(mt, nt, kt, z), rows * columns * times

    def _sized(self, mt: int, nt: int, kt: int, z: int) -> OnArray:
        """Return what a tile of these sizes takes on the array, from its place along k."""
        key = mt, nt, kt, z == 0, z == self.along_k - 1
        found = self._on_array.get(key)
        if found is None:
            found = self._on_array[key] = self._compute(*key)
        return found

    def _compute(self, mt: int, nt: int, kt: int, first: bool, last: bool) -> OnArray:
        rows, columns, t = fold_grid(self.array, self.flow, mt, nt, kt, self.rate)
        folds = folds_in_turn(self.array, self.flow, rows, columns)
        run = run_cycles(self.array, self.flow, [(folds, t * self.problem.passes)])
        if sums_in_pes(self.flow) and not last:  # the sum stays in the PE until the last tile along k
            run = RunCycles(run.compute, 0, 0, 0)
        moved, busy = self._moved(mt, nt, kt, first, last), run.total
        return OnArray(run, busy if self.memory is None else max(busy, port_cycles(self.memory, moved)), moved)

    def _moved(self, m: int, n: int, k: int, first: bool, last: bool) -> ArrayBits:
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

    def costs(self, x: int, y: int, z: int) -> TileCost:
        """Return what a tile costs."""
        kind = self.kind(x, y, z)
        found = self._costs.get(kind)
        if found is None:
            found = self._costs[kind] = TileCost(
                self.compute(*kind).busy,
                0 if self.memory is None else max([cycles for _, cycles in self.loads(self.memory, *kind)]),
                self._store(self.stored_bits(*kind)),
                self.waits_for_copy(kind),
            )
        return found

    def step(self, before: TileCost, tile: TileCost, after: TileCost) -> int:
        """Return the cycles of a tile's computation with the load of the one after it and the store of that before."""
        busy, load, store = tile.busy, after.load, before.store
        if not self.single:
            return max(busy, load + store)
        if "o" in self.single:
            return store + (busy + load if after.waits else max(busy, load))
        return max(busy, store) + load if after.waits else max(busy, load + store)

    def waits_for_copy(self, at: Place) -> bool:
        """Whether something that a tile brings goes into the only copy there is, which the tile before still uses."""
        x, y, _ = at
        a, w = self.comes(x, y)
        return (a and "a" in self.single) or (w and "w" in self.single)

    def comes(self, x: int, y: int) -> tuple[bool, bool]:
        """Whether a tile brings A, and whether it brings W, into the buffers; see Tile.crossings."""
        strip, whole = self.buffers_keep
        outer = y == 0 or (self.along_k > 1 and not strip)
        inner = x == 0 or not (whole or (self.along_k == 1 and self.inner_count == 1))
        return (outer, inner) if self.tile.outer == "m" else (inner, outer)

    def operand_bits(self, x: int, y: int, z: int) -> tuple[int, int]:
        """Bits of A and W that a tile brings into the buffers."""
        mt, nt, kt = self.sizes(x, y, z)
        (a_comes, w_comes), (a_bits, w_bits) = self.comes(x, y), self.fetched
        return a_comes * math.ceil(mt * kt * a_bits), w_comes * math.ceil(kt * nt * w_bits)

    def loads(self, memory: Memory, x: int, y: int, z: int) -> list[tuple[int, int]]:
        """Bits of a tile's operands across each boundary between levels, and their cycles there, innermost first."""
        a, w = self.operand_bits(x, y, z)
        rows_outside = self.tile.outer == "m"
        into = 0
        for level in memory.buffers:
            bits = (a if "a" in level.holds else 0) + (w if "w" in level.holds else 0)
            into = max(into, transfer_cycles(bits, level.write_bits_per_cycle))
        found = []
        for level, (strip, whole) in zip(reversed(memory.staging), reversed(self.staging_keeps), strict=True):
            found.append((a + w, max(into, transfer_cycles(a + w, level.read_bits_per_cycle))))
            outer_comes, inner_comes = y == 0 or not strip, x == 0 or not whole
            a *= outer_comes if rows_outside else inner_comes
            w *= inner_comes if rows_outside else outer_comes
            into = transfer_cycles(a + w, level.write_bits_per_cycle)
        found.append((a + w, max(into, transfer_cycles(a + w, memory.dram.bandwidth_bits_per_cycle))))
        return found

    def stored_bits(self, x: int, y: int, z: int) -> int:
        """Bits that leave with a tile: outputs, with the last one along k."""
        mt, nt, _ = self.sizes(x, y, z)
        return mt * nt * self.widths.out if z == self.along_k - 1 else 0

    def _store(self, bits: int) -> int:
        """Cycles of outputs on their way out, at the slowest boundary."""
        return max([transfer_cycles(bits, port) for port in self.outward_bits_per_cycle], default=0)


def _outward(memory: Memory) -> tuple[Fraction, ...]:
    inner, found = memory.buffer("o"), []
    for level in reversed(memory.staging):
        found.append(min(inner.read_bits_per_cycle, level.write_bits_per_cycle))
        inner = level
    return *found, min(inner.read_bits_per_cycle, memory.dram.bandwidth_bits_per_cycle)
