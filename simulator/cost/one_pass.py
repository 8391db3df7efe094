"""One uniform pass of a GEMM: its tile and dataflow, cycles, bits moved, what the array writes and adds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.hardware import Array, Memory

from .folds import RunCycles, as_streamed, ceil_div, joins, register_bits
from .pipeline import pipeline_sum
from .problem import Problem
from .tile_choice import choose_tile
from .tile_costs import TileCosts
from .tiling import Tile
from .traffic import ArrayBits, Traffic, Transfer, level_bits, memory_bounds


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
        register_bits: written inside the array. fold_adds: sums added to each other.
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
    """Return the pass with the tile of `choose_tile`; dataflow ws | is | os | dot | best (least cycles).

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


def tile_costs_of(array: Array, memory: Memory | None, problem: Problem, found: Pass) -> TileCosts:
    """Return the tiles of a pass that `uniform_pass` found."""
    tile = found.tile
    if found.dataflow == "is":
        problem, tile, memory = problem.exchanged(), tile.exchanged(), None if memory is None else memory.exchanged()
    return TileCosts(array, memory, found.dataflow, problem, tile)


def tiled_pass(array: Array, memory: Memory | None, dataflow: str, problem: Problem, tile: Tile) -> Pass:
    """Return the pass with a given tile; for is, memory, problem and tile are already exchanged."""
    tiles = TileCosts(array, memory, dataflow, problem, tile)
    m, n, k, _, widths, passes = problem
    summed, traffic, exchanged = pipeline_sum(tiles), pass_traffic(tiles), dataflow == "is"
    peak = ceil_div(m * n * k * passes, array.pes * problem.rate)  # all PEs at their peak rate
    ports = memory_bounds(memory, traffic)
    roofline = max([peak, *ports.values()])
    a_passes, w_passes = tile.crossings(problem, memory)[0]
    return Pass(
        dataflow=dataflow,
        tile=tile.exchanged() if exchanged else tile,
        a_passes=w_passes if exchanged else a_passes,
        w_passes=a_passes if exchanged else w_passes,
        a_share=widths.w_share if exchanged else widths.a_share,
        run=summed.run,
        memory_stall=summed.total - summed.run.total,
        roofline=roofline,
        peak=peak,
        bound="compute" if peak == roofline else max(ports, key=lambda port: ports[port]),
        traffic=traffic.exchanged() if exchanged else traffic,
        level_bits=level_bits(memory, traffic),
        register_bits=register_bits(array, tiles.flow, problem),
        fold_adds=joins(array, tiles.flow, k, problem.rate) * m * n,
        step_counts=summed.step_counts,
        steps=summed.steps,
        start=summed.start,
    )


def pass_traffic(tiles: TileCosts) -> Traffic:
    """Return the bits that all tiles move."""
    moved, problem = ArrayBits(), tiles.problem
    for tile, times in tiles.by_size():
        moved = moved.plus(tile.moved, times)
    if tiles.memory is None:
        return Traffic(moved, ())
    a_bits, w_bits = map(math.ceil, problem.fetched_bits)
    o_bits, crossings = problem.m * problem.n * problem.widths.out, tiles.tile.crossings(problem, tiles.memory)
    return Traffic(moved, tuple(Transfer(a * a_bits, w * w_bits, o_bits) for a, w in crossings))
