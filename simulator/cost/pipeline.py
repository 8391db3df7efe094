"""The cycles of one pass: its tiles in a pipeline over the shared DRAM.

    T = L_0 + sum_t max(C_t, L_{t+1} + S_{t-1}) + S_{n-1}

C_t is the longer of the closed form of tile t and its traffic through the ports of the buffers, L and S its loads and
stores at the slowest boundary between levels, which share the one DRAM channel; the DRAM latency is added to L_0 and
S_{n-1}. That takes two copies of a tile: a load into the only copy waits for the computation, and a computation whose
outputs have only one for the store. A staging level is passed through: what it keeps does not come from further out
again. Tiles of one row or column of tiles differ only at its ends, so one tile stands for all that lie between.
"""

from __future__ import annotations

import itertools
import math
import operator
from dataclasses import dataclass

from .folds import RunCycles
from .tile_costs import NO_TILE, TileCosts, positions


@dataclass(frozen=True, eq=False)
class PipelineSum:
    """The sum over the tiles of a pass. Exact as docs/cost-model.md says (Bands); else upper bound.

    Args:
        start: cycles before the first tile. run: those of the array, by cause. total: all.
        step_counts, steps: see Pass.
    """

    start: int
    run: RunCycles
    total: int
    step_counts: tuple[tuple[int, ...], tuple[int, ...]]
    steps: tuple[tuple[int, ...], ...]


def pipeline_sum(tiles: TileCosts) -> PipelineSum:
    """Return the cycles of all tiles of a pass, of the array by cause and by class of output tiles."""
    outer, inner, along_k = _weights(tiles)
    each = iter(_steps(tiles))
    steps = [[sum([times * next(each) for times in along_k]) for _ in inner] for _ in outer]
    run = RunCycles(0, 0, 0, 0)
    for tile, times in tiles.by_size():
        run = run.plus(tile.run, times)
    start, end = _ends(tiles)
    between = [
        rows * columns * step
        for rows, row in zip(outer, steps, strict=True)
        for columns, step in zip(inner, row, strict=True)
    ]
    return PipelineSum(
        start=start,
        run=run,
        total=start + sum(between) + end,
        step_counts=(tuple(outer), tuple(inner)),
        steps=tuple(map(tuple, steps)),
    )


def pipeline_cycles(tiles: TileCosts) -> int:
    """Return the cycles of all tiles of a pass alone."""
    times = map(math.prod, itertools.product(*_weights(tiles)))
    return sum(_ends(tiles)) + sum(map(operator.mul, times, _steps(tiles)))


def _steps(tiles: TileCosts) -> list[int]:
    """Return the cycles of the tiles that stand for all, in order.

    What is next to a tile there costs what its own neighbour does: of the tiles between the ends all are alike.
    """
    loops = tiles.outer_count, tiles.inner_count, tiles.along_k
    places = itertools.product(*[positions(count)[0] for count in loops])
    costs = [NO_TILE, *[tiles.costs(*place) for place in places], NO_TILE]
    return list(map(tiles.step, costs, costs[1:], costs[2:]))


def _weights(tiles: TileCosts) -> list[list[int]]:
    """Return how many places along each loop each of its places stands for."""
    return [positions(count)[1] for count in (tiles.outer_count, tiles.inner_count, tiles.along_k)]


def _ends(tiles: TileCosts) -> tuple[int, int]:
    """Return the cycles before the first tile is on chip, and those after the last one is computed."""
    last = tiles.costs(tiles.outer_count - 1, tiles.inner_count - 1, tiles.along_k - 1)
    return tiles.costs(0, 0, 0).load + tiles.latency, last.store + tiles.latency
