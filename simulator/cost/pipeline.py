"""The cycles of one pass: its tiles in a pipeline over the shared DRAM.

    T = L_0 + sum_t max(C_t, L_{t+1} + S_{t-1}) + S_{n-1}

C_t is the longer of the closed form of tile t and its traffic through the ports of the buffers, L and S its loads and
stores at the slowest boundary between levels, which share the one DRAM channel; the DRAM latency is added to L_0 and
S_{n-1}. That takes two copies of a tile: a load into the only copy waits for the computation, and a computation whose
outputs have only one for the store. A staging level is passed through: what it keeps does not come from further out
again. Tiles of one row or column of tiles differ only at its ends, so one tile stands for all that lie between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .folds import RunCycles
from .tile_costs import Place, TileCosts


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
    outer_at, outer_weight = positions(tiles.outer_count)
    inner_at, inner_weight = positions(tiles.inner_count)
    steps = [[0] * len(inner_at) for _ in outer_at]
    run = [0] * len(RunCycles._fields)
    for i, x in enumerate(outer_at):
        for j, y in enumerate(inner_at):
            for z, times in _along_k(tiles):
                steps[i][j] += times * tiles.step(x, y, z)
                cycles, _ = tiles.compute(x, y, z)
                for part, count in enumerate(cycles):
                    run[part] += outer_weight[i] * inner_weight[j] * times * count
    start, end = _ends(tiles)
    between = sum(
        outer * inner * step
        for outer, row in zip(outer_weight, steps, strict=True)
        for inner, step in zip(inner_weight, row, strict=True)
    )
    return PipelineSum(
        start=start,
        run=RunCycles(*run),
        total=start + between + end,
        step_counts=(tuple(outer_weight), tuple(inner_weight)),
        steps=tuple(map(tuple, steps)),
    )


def pipeline_cycles(tiles: TileCosts) -> int:
    """Return the cycles of all tiles of a pass alone."""
    inner = list(zip(*positions(tiles.inner_count), strict=True))
    total = sum(_ends(tiles))
    for x, rows in zip(*positions(tiles.outer_count), strict=True):
        for y, columns in inner:
            total += rows * columns * sum(times * tiles.step(x, y, z) for z, times in _along_k(tiles))
    return total


def _ends(tiles: TileCosts) -> tuple[int, int]:
    """Return the cycles before the first tile is on chip, and those after the last one is computed."""
    last: Place = tiles.outer_count - 1, tiles.inner_count - 1, tiles.along_k - 1
    return tiles.load((0, 0, 0)) + tiles.latency, tiles.store(last) + tiles.latency


def _along_k(tiles: TileCosts) -> Iterator[tuple[int, int]]:
    """Yield the places along k that stand for all, each with how many it stands for."""
    return zip(*positions(tiles.along_k), strict=True)


def positions(count: int) -> tuple[list[int], list[int]]:
    """Return places along a loop that stand for all, and how many each stands for: the ends and their neighbours."""
    if count <= 5:
        return list(range(count)), [1] * count
    return [0, 1, 2, count - 2, count - 1], [1, 1, count - 4, 1, 1]
