"""The choice of the tile Mt x Nt x Kt.

One array has the same folds for every tile: without staging levels it takes the tile with the least DRAM bits. Several
arrays share the folds of a tile, and a staging level has what it keeps from further in: there the tile decides how even
the shares come out, and how well loads and stores hide behind the computation. The one with the least cycles is looked
for, from the most promising tiles downhill.
"""

from __future__ import annotations

from collections.abc import Iterator

from simulator.errors import InputError
from simulator.hardware import Array, Memory

from .folds import ceil_div, cut, fold_grid, folds_in_turn, sums_in_pes
from .pipeline import pipeline_cycles
from .problem import Problem
from .tile_costs import TileCosts
from .tiling import Tile, evenly, fits, held_bits, sums_stay, widest_tiles
from .traffic import transfer_cycles

Key = tuple[int, ...]

STARTS = 3


def choose_tile(array: Array, memory: Memory, dataflow: str, problem: Problem) -> Tile:
    """Return the tile with the least DRAM bits or, of several arrays or with staging levels, one with few cycles.

    Ties go to the least bits out of the DRAM, then into each level further in, then to the larger Kt, Nt, Mt. The
    least DRAM bits are exact, of all tiles. The few cycles are what a descent ends with: no tile next to it takes
    fewer, nor does the tile with the least DRAM bits.

    Args:
        array, memory: of the machine. dataflow: ws | os | dot. problem: the GEMM.
    Raises:
        InputError: not even one fold fits; names tensor, level, bits needed and bits available.
    """
    k, fold = problem.k, min(problem.k, array.rows * problem.rate)
    several = array.copies > 1 or bool(memory.staging)
    halves = {evenly(k, fold, 2**power) for power in range(k.bit_length())} if several else set()
    widest = widest_tiles(array, memory, dataflow, problem, {k, fold} | halves)
    tiles = list(widest if several else _that_may_win(widest, memory, problem))
    if not tiles:
        raise InputError(_too_small(array, memory, dataflow, problem))

    def least_bits(tile: Tile) -> Key:
        return *tile.crossing_bits(problem, memory), -tile.k, -tile.n, -tile.m

    if not several:
        return min(tiles, key=least_bits)
    known: dict[Tile, Key] = {}

    def least_cycles(tile: Tile) -> Key:
        if tile not in known:
            known[tile] = pipeline_cycles(TileCosts(array, memory, dataflow, problem, tile)), *least_bits(tile)
        return known[tile]

    def downhill(tile: Tile) -> Tile:
        while True:
            near = {moved for moved in _near(array, problem, tile) if fits(array, memory, dataflow, problem, moved)}
            best = min(near, key=least_cycles, default=tile)
            if least_cycles(best) >= least_cycles(tile):
                return tile
            tile = best

    def promise(tile: Tile) -> Key:
        return _busiest(array, memory, dataflow, problem, tile), *least_bits(tile)

    promising = [min(group, key=promise) for group in _by_kt(tiles).values()]
    starts = sorted(promising, key=least_cycles)[:STARTS]
    return min([min(tiles, key=least_bits), *map(downhill, starts)], key=least_cycles)


def _that_may_win(tiles: Iterator[Tile], memory: Memory, problem: Problem) -> Iterator[Tile]:
    """Yield tiles, given from the largest Mt downwards, without those that cannot have the least bits.

    A smaller Mt beside the same Nt and Kt brings no less, but where a buffer of one operand may keep it. With all of N
    and K on chip each operand is brought once. The larger Mt wins the tie.
    """
    seen: set[tuple[int | str, ...]] = set()
    for tile in tiles:
        if tile[1:] in seen:
            continue
        yield tile
        if (tile.n, tile.k) == (problem.n, problem.k):
            return
        if len(memory.buffers) == 1:
            seen.add(tile[1:])


def _by_kt(tiles: list[Tile]) -> dict[int, list[Tile]]:
    """Return tiles by their Kt: more of K on chip is less of M and N."""
    found: dict[int, list[Tile]] = {}
    for tile in tiles:
        found.setdefault(tile.k.bit_length(), []).append(tile)
    return found


def _busiest(array: Array, memory: Memory, dataflow: str, problem: Problem, tile: Tile) -> int:
    """Return about how long a pass takes: the busiest of arrays and boundaries, with a tile's way in and out."""
    streamed = 0
    for mt, along_m in cut(problem.m, tile.m):
        for nt, along_n in cut(problem.n, tile.n):
            for kt, along_k in cut(problem.k, tile.k):
                rows, columns, t = fold_grid(array, dataflow, mt, nt, kt, problem.rate)
                streamed += along_m * along_n * along_k * folds_in_turn(array, dataflow, rows, columns) * t
    counts = tile.counts(problem.m, problem.n, problem.k)
    runs = counts[0] * counts[1] * (1 if sums_in_pes(dataflow) else counts[2])
    on_arrays = streamed * problem.passes + runs * (array.latency_cycles * array.rows + array.rows + array.columns)
    ports = [memory.dram.bandwidth_bits_per_cycle, *(level.read_bits_per_cycle for level in memory.staging)]
    outputs = problem.m * problem.n * problem.widths.out
    crossing = zip(tile.crossing_bits(problem, memory), ports, strict=True)
    busiest = max([on_arrays, *(transfer_cycles(bits + outputs, port) for bits, port in crossing)])
    return busiest + transfer_cycles(sum(held_bits(memory, dataflow, problem.widths, tile).values()), min(ports))


def _near(array: Array, problem: Problem, tile: Tile) -> Iterator[Tile]:
    """Yield tiles with the other loop outside, and with other numbers of tiles along a dimension, or along two."""
    lengths, grains = (problem.m, problem.n, problem.k), (array.rows, array.columns, array.rows * problem.rate)
    counts = tile.counts(*lengths)
    sizes = tile.m, tile.n, tile.k

    def recut(changed: dict[int, int]) -> Tile:
        found = [
            evenly(lengths[axis], grains[axis], max(changed[axis], 1)) if axis in changed else size
            for axis, size in enumerate(sizes)
        ]
        return Tile(found[0], found[1], found[2], tile.outer)

    yield tile._replace(outer="n" if tile.outer == "m" else "m")
    for axis, count in enumerate(counts):
        for other in (2 * count, count // 2, count + 1, count - 1):
            yield recut({axis: other})
        for second in {0, 1, 2} - {axis}:
            yield recut({axis: 2 * count, second: counts[second] // 2})
    if array.copies > 1:  # as many folds as there are arrays
        for axis, other in ((0, 1), (1, 0)):
            folds = array.copies // ceil_div(sizes[other], grains[other])
            if folds:
                yield recut({axis: ceil_div(lengths[axis], folds * grains[axis])})


def _too_small(array: Array, memory: Memory, dataflow: str, problem: Problem) -> str:
    m, n, k, widths = problem.m, problem.n, problem.k, problem.widths
    one = Tile(min(m, array.rows), min(n, array.columns), min(k, array.rows * problem.rate), "m")
    buffer = memory.accumulators
    sums = one.m * one.n * widths.psum
    fold = f"one {one.m}x{one.n}x{one.k} fold of the {m}x{n}x{k} GEMM"
    if buffer is not None and not sums_stay(memory, dataflow) and sums > buffer.size_bits:
        return (
            f"memory.{buffer.name}: the partial sums of {fold} need {sums} bit; expected at most the "
            f"{buffer.size_bits} bit of the level; raise memory.{buffer.name}.size"
        )
    needs = held_bits(memory, dataflow, widths, one)
    totals = {level: level.buffers * sum(needs[tensor] for tensor in level.holds) for level in memory.buffers}
    level = next(level for level, total in totals.items() if total > level.size_bits)
    words = {"a": "a", "w": "w", "o": "outputs"}
    detail = ", ".join(f"{words[tensor]} {needs[tensor]} bit" for tensor in level.holds)
    return (
        f"memory.{level.name}: {fold} needs {totals[level]} bit ({detail}, times {level.buffers} buffers); expected at "
        f"most the {level.size_bits} bit of the level; raise memory.{level.name}.size or lower "
        f"memory.{level.name}.buffers"
    )
