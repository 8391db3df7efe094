"""What recomputes flagged outputs, and in which groups: a dot-product engine, or the folds of an array.

A dot-product engine of L lanes takes ceil(K/L) cycles for an output. An array takes the rows of a band, or a block, in
folds.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from simulator.hardware import Array, Machine, MacMode, SideEngine

from .flags import Blocks, GroupBounds
from .folds import (
    array_words,
    as_streamed,
    ceil_div,
    cut,
    fold_cycles,
    fold_grid,
    folds_in_turn,
    joins,
    register_bits,
    run_cycles,
)
from .one_pass import Pass
from .problem import Problem, Widths
from .traffic import ArrayBits


class Group(NamedTuple):
    """What a group of rows x columns outputs takes from the unit that recomputes it."""

    moved: ArrayBits
    register_bits: int
    fold_adds: int


@dataclass(frozen=True)
class DotUnit:
    """A dot-product engine: lanes, latency of its MACs, length K; joins of an output's sums in the array's order."""

    engine: SideEngine
    latency: int
    high: MacMode
    k: int
    joins: int

    def cycles(self, rows: int, columns: int) -> int:
        """Cycles of a group beside others."""
        return rows * columns * ceil_div(self.k, self.engine.lanes)

    def busy(self, blocks: Blocks) -> int:
        """Cycles of all groups: the last result leaves through the tree of adders."""
        steps = sum(count * self.cycles(rows, columns) for count, rows, columns in blocks.pieces)
        return steps + self.latency * (self.engine.lanes - 1).bit_length()

    @property
    def switch(self) -> int:
        """None: the engine has one mode."""
        return 0

    def group(self, rows: int, columns: int) -> Group:
        """A row of A stays for the outputs of a group, a column of W is fetched for each of them."""
        outputs, k, high = rows * columns, self.k, self.high
        a_bits, w_bits = high.operand_bits
        return Group(
            ArrayBits(math.ceil(rows * k * a_bits), math.ceil(outputs * k * w_bits), outputs * high.output_bits),
            math.ceil(outputs * k * (a_bits + w_bits + high.accumulator_bits)),
            outputs * self.joins,
        )


@dataclass(frozen=True)
class ArrayUnit:
    """An array in the high mode: the dataflow that it runs in, length K, cycles of a step."""

    array: Array
    dataflow: str
    high: MacMode
    k: int
    passes: int
    is_engine: bool

    def _as_streamed(self, rows: int, columns: int) -> tuple[int, int]:
        return (columns, rows) if self.dataflow == "is" else (rows, columns)

    def _folds(self, rows: int, columns: int, times: int) -> tuple[int, int]:
        """Folds of so many groups, one after the other on each array, and the cycles that each streams."""
        flow = as_streamed(self.dataflow)
        m, n = self._as_streamed(rows, columns)
        down, across, t = fold_grid(self.array, flow, m, n, self.k, self.high.rate)
        return folds_in_turn(self.array, flow, down, times * across), t * self.passes

    def cycles(self, rows: int, columns: int) -> int:
        """Cycles of a group beside others."""
        folds, t = self._folds(rows, columns, 1)
        return folds * fold_cycles(self.array, as_streamed(self.dataflow), t)

    def busy(self, blocks: Blocks) -> int:
        """Cycles of all groups as one run of folds, the longest last."""
        folds = [self._folds(rows, columns, count) for count, rows, columns in blocks.pieces]
        return run_cycles(self.array, as_streamed(self.dataflow), sorted(folds, key=lambda fold: fold[1])).total

    @property
    def switch(self) -> int:
        """Cycles that fill the array for the second pass and empty it again; none on an engine of one mode."""
        run = run_cycles(self.array, as_streamed(self.dataflow), [(1, self.array.rows)])
        return 0 if self.is_engine else run.total - run.compute

    def group(self, rows: int, columns: int) -> Group:
        flow, high, array, k = as_streamed(self.dataflow), self.high, self.array, self.k
        a, w = high.operand_bits
        widths = Widths(a, w, high.accumulator_bits, high.partial_sum_bits, high.output_bits, a, w)
        problem = Problem(rows, columns, k, high.rate, widths, self.passes)
        if self.dataflow == "is":
            problem = problem.exchanged()
        m, n, widths = problem.m, problem.n, problem.widths
        words = array_words(array, flow, m, n, k, high.rate)
        psum_bits = words.psum_reads * widths.psum
        operands = math.ceil(words.a_reads * widths.a), math.ceil(words.w_reads * widths.w)
        moved = ArrayBits(*operands, m * n * widths.out, psum_bits, psum_bits)
        return Group(
            moved.exchanged() if self.dataflow == "is" else moved,
            register_bits(array, flow, problem),
            joins(array, flow, k, high.rate) * m * n,
        )


def recomputing_unit(machine: Machine, first: Pass, k: int, mode: MacMode | None = None) -> DotUnit | ArrayUnit:
    """Return what recomputes the outputs of a first pass with sums of K products, in a mode, None for the high one."""
    engine, high = machine.recomputing_engine, mode or machine.mac.high
    assert high is not None
    if engine is None:
        return ArrayUnit(machine.array, first.dataflow, high, k, high.passes, False)
    if engine.array is not None:
        return ArrayUnit(engine.array, first.dataflow, high, k, 1, True)
    added = joins(machine.array, as_streamed(first.dataflow), k, high.rate)
    return DotUnit(engine, machine.array.latency_cycles, high, k, added)


def group_size(machine: Machine, first: Pass, n: int) -> tuple[int, int]:
    """Return (rows, columns) of what is recomputed for a flag, where neither the product nor a tile ends before."""
    policy, engine = machine.policy, machine.recomputing_engine
    assert policy is not None
    array = machine.array if engine is None or engine.array is None else engine.array
    rows, columns = (array.columns, array.rows) if first.dataflow == "is" else (array.rows, array.columns)
    sizes = {"element": (1, 1), "row": (1, n), "coltile": (1, array.columns), "tile": (rows, columns)}
    return sizes[policy.gather]


def group_tiles(machine: Machine, first: Pass) -> GroupBounds | None:
    """Return the tiles within which groups are formed, None where they are formed from all outputs."""
    policy = machine.policy
    assert policy is not None
    return (first.tile.m, first.tile.n) if policy.overlap == "tile" else None


def group_sizes(machine: Machine, first: Pass, m: int, n: int) -> list[tuple[int, int]]:
    """Return the groups of all outputs of a GEMM as (outputs in groups of this size, outputs of a group)."""
    (rows, columns), within = group_size(machine, first, n), group_tiles(machine, first) or (m, n)
    found: Counter[int] = Counter()
    for (tall, down), (wide, across) in itertools.product(cut(m, within[0]), cut(n, within[1])):
        for (h, downwards), (w, times) in itertools.product(cut(tall, rows), cut(wide, columns)):
            found[h * w] += h * w * down * across * downwards * times
    return [(outputs, size) for size, outputs in found.items()]
