"""What one tile of a pass costs: cycles on the array and at its ports, of its loads and of its stores."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cached_property

from simulator.hardware import Array, Memory

from .folds import RunCycles, array_words, as_streamed, fold_grid, folds_in_turn, run_cycles, sums_in_pes
from .problem import Problem
from .tiling import Tile, sums_stay
from .traffic import ArrayBits, port_cycles, transfer_cycles

Place = tuple[int, int, int]


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
        counts = tile.counts(self.m, self.n, self.k)
        self.along_k = counts[2]
        self.outer_count, self.inner_count = counts[:2] if tile.outer == "m" else (counts[1], counts[0])
        self._computed: dict[Place, tuple[RunCycles, int]] = {}
        self._loaded: dict[Place, int] = {}
        # Of each staging level, and of the buffers: whether it keeps the strip of the outer operand, all of the inner.
        self.staging_keeps = [] if memory is None else [tile.staging_keeps(problem, level) for level in memory.staging]
        self.buffers_keep = (False, False) if memory is None else tile.buffers_keep(problem, memory)

    @property
    def latency(self) -> int:
        """Cycles until the DRAM answers."""
        return 0 if self.memory is None else self.memory.dram.latency_cycles

    def kind(self, x: int, y: int, z: int) -> Place:
        """Return a tile that costs the same: the ends of a loop stand for themselves, the second for all between."""
        outer, inner, along_k = self.outer_count - 1, self.inner_count - 1, self.along_k - 1
        return x if x in (0, outer) else 1, y if y in (0, inner) else 1, z if z in (0, along_k) else 1

    def sizes(self, x: int, y: int, z: int) -> tuple[int, int, int]:
        """Return Mt, Nt, Kt of a tile."""
        i, j = (x, y) if self.tile.outer == "m" else (y, x)
        tile = self.tile
        return (
            min(tile.m, self.m - i * tile.m),
            min(tile.n, self.n - j * tile.n),
            min(tile.k, self.k - z * tile.k),
        )

    def compute(self, x: int, y: int, z: int) -> tuple[RunCycles, int]:
        """Return the cycles of a tile on the array, and the longer of these and of its traffic through the ports."""
        kind = self.kind(x, y, z)
        if kind not in self._computed:
            self._computed[kind] = self._compute(*kind)
        return self._computed[kind]

    def _compute(self, x: int, y: int, z: int) -> tuple[RunCycles, int]:
        mt, nt, kt = self.sizes(x, y, z)
        first, last = z == 0, z == self.along_k - 1
        rows, columns, t = fold_grid(self.array, self.flow, mt, nt, kt, self.rate)
        folds = folds_in_turn(self.array, self.flow, rows, columns)
        run = run_cycles(self.array, self.flow, [(folds, t * self.problem.passes)])
        if sums_in_pes(self.flow) and not last:  # the sum stays in the PE until the last tile along k
            run = RunCycles(run.compute, 0, 0, 0)
        if self.memory is None:
            return run, run.total
        return run, max(run.total, port_cycles(self.memory, self.array_bits(mt, nt, kt, first, last)))

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

    def step(self, x: int, y: int, z: int) -> int:
        """Return the cycles of a tile's computation with the next one's load and the store of the one before."""
        following = self.following(x, y, z)
        _, busy = self.compute(x, y, z)
        load, store = self.load(following), self.store(self.preceding(x, y, z))
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
        a_comes, w_comes = self.comes(x, y)
        return a_comes * math.ceil(mt * kt * self.widths.a_fetched), w_comes * math.ceil(
            kt * nt * self.widths.w_fetched
        )

    def load(self, at: Place | None) -> int:
        """Return the cycles of a tile's operands on their way in, at the slowest boundary; 0 without a tile."""
        if at is None or self.memory is None:
            return 0
        kind = self.kind(*at)
        if kind not in self._loaded:
            self._loaded[kind] = max(cycles for _, cycles in self.loads(self.memory, *kind))
        return self._loaded[kind]

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
        """Return the next tile, None after the last."""
        if z + 1 < self.along_k:
            return x, y, z + 1
        if y + 1 < self.inner_count:
            return x, y + 1, 0
        return (x + 1, 0, 0) if x + 1 < self.outer_count else None

    def preceding(self, x: int, y: int, z: int) -> Place | None:
        """Return the tile before, None before the first."""
        if z:
            return x, y, z - 1
        if y:
            return x, y - 1, self.along_k - 1
        return (x - 1, self.inner_count - 1, self.along_k - 1) if x else None
