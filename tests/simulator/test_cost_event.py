"""The event fidelity against a machine advanced cycle by cycle, banks against accesses counted one by one."""

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.cost.event import LARGEST_WALK, STALLS, walk
from simulator.cost.one_pass import pass_traffic
from simulator.cost.problem import Problem, Widths
from simulator.cost.tile_costs import TileCosts
from simulator.cost.tiling import Tile
from simulator.errors import InputError
from simulator.hardware import AccumulatorBuffer, Array, Dram, Level, Memory
from tests.oracles.banks import arbitrated
from tests.oracles.tile_queues import TileJob, TileQueues

WIDTHS = Widths(8, 4, 16, 16, 8, 8, 4)
COPIES = st.integers(1, 4)
PORT = st.sampled_from([16, 64, 1024]).map(Fraction)


@st.composite
def pipelines(draw):
    """A pipeline of few tiles on a machine without banks."""
    flow = draw(st.sampled_from(["ws", "is", "os", "dot"]))
    array = Array(4, draw(st.sampled_from([4, 8])), flow, copies=draw(st.integers(1, 2)))

    def level(name, holds):
        return Level(name, 1 << draw(st.integers(9, 16)), holds, draw(COPIES), draw(PORT), draw(PORT))

    split = draw(st.booleans())
    buffers = [level("x", ("a", "o")), level("y", ("w",))] if split else [level("x", ("a", "w", "o"))]
    staging = [level(f"l{i}", ("a", "w", "o")) for i in range(draw(st.integers(0, 2)))]
    dram = Dram(draw(st.sampled_from([5, 32, 400]).map(Fraction)), draw(st.sampled_from([0, 9])), None)
    memory = Memory(dram, tuple(buffers), draw(st.sampled_from([None, AccumulatorBuffer(1 << 20)])), tuple(staging))
    sizes = [draw(st.integers(1, 30)) for _ in range(3)]
    tile = Tile(*(min(size, 4 * draw(st.integers(1, 4))) for size in sizes), draw(st.sampled_from("mn")))
    return TileCosts(array, memory, flow, Problem(*sizes, 1, WIDTHS), tile)


def places(pipeline):
    return [
        (x, y, z)
        for x in range(pipeline.outer_count)
        for y in range(pipeline.inner_count)
        for z in range(pipeline.along_k)
    ]


def queues(pipeline, gemms=1, flagged=(0,), **engine):
    """The machine advanced cycle by cycle; `flagged` are outputs of one output tile after the other, over and over."""
    memory, flags = pipeline.memory, itertools.cycle(flagged)

    def job(*place):
        stored = pipeline.stored_bits(*place)
        return TileJob(
            pipeline.compute(*place)[1],
            [cycles for _, cycles in reversed(pipeline.loads(memory, *place))],
            [math.ceil(stored / port) for port in reversed(pipeline.outward_bits_per_cycle)],
            pipeline.comes(*place[:2]),
            next(flags) if stored else 0,
        )

    tiles = [[job(*place) for place in places(pipeline)] for _ in range(gemms)]
    copies = tuple(memory.buffer(tensor).buffers for tensor in "awo")
    staged = [level.buffers for level in memory.staging]
    return TileQueues(tiles, copies, staged, memory.dram.latency_cycles, **engine)


@settings(max_examples=80, deadline=None)
@given(pipelines(), st.integers(1, 2))
def test_the_walk_is_that_of_a_machine_advanced_cycle_by_cycle(pipeline, gemms):
    found = walk(pipeline, gemms)
    assert found.cycles == queues(pipeline, gemms).run()
    assert sum(found.parts.values()) == found.cycles
    assert found.parts["bank_stall"] == found.parts["queue_stall"] == 0


@settings(max_examples=60, deadline=None)
@given(
    pipelines(),
    st.lists(st.integers(0, 40), min_size=1, max_size=9),
    st.integers(1, 25),
    st.one_of(st.none(), st.integers(1, 20)),
    st.integers(1, 2),
)
def test_a_full_queue_holds_up_the_array_as_in_the_machine(pipeline, flags, per_output, queue, gemms):
    tiles = sum(pipeline.stored_bits(*place) > 0 for place in places(pipeline)) * gemms
    flagged = list(itertools.islice(itertools.cycle(flags), tiles))
    found = walk(pipeline, gemms, [(one, one * per_output) for one in flagged], queue)
    machine = queues(pipeline, gemms, flags, per_output=per_output, queue=queue)
    assert (found.cycles, found.recomputed) == (machine.run(), machine.engine_done)
    assert sum(found.parts.values()) == found.cycles
    alone = gemms * walk(pipeline).cycles
    assert found.cycles - found.parts["queue_stall"] <= alone <= found.cycles <= alone + sum(flagged) * per_output
    assert queue is not None or found.cycles == alone


@settings(max_examples=60, deadline=None)
@given(pipelines())
def test_what_happens_at_a_resource_happens_one_after_the_other(pipeline):
    found = walk(pipeline, trace=True)
    assert walk(pipeline).events == ()
    by_resource = {}
    for event in found.events:
        by_resource.setdefault(event.resource, []).append(event)
        assert 0 <= event.start < event.end <= found.cycles
    for resource, events in by_resource.items():
        if resource != "MAC array":
            events = [event for event in events if event.what in ("load", "store")]
        assert all(before.end <= after.start for before, after in itertools.pairwise(events)), resource
    # The array's row has no gaps: it computes, or a stall says why not.
    row = by_resource["MAC array"]
    assert [row[0].start, row[-1].end] == [0, found.cycles]
    assert all(before.end == after.start for before, after in itertools.pairwise(row))
    for part in STALLS:
        assert sum(event.end - event.start for event in row if event.what == part) == found.parts[part]
    computed = [event.tile for event in row if event.what == "compute"]
    tile = pipeline.tile.exchanged() if pipeline.dataflow == "is" else pipeline.tile
    problem = pipeline.problem.exchanged() if pipeline.dataflow == "is" else pipeline.problem
    along_m, along_n, along_k = tile.counts(problem.m, problem.n, problem.k)
    assert len(set(computed)) == len(computed) == along_m * along_n * along_k
    assert {tile[1] for tile in computed} == set(range(along_m))
    assert {tile[2] for tile in computed} == set(range(along_n))


def test_too_many_tiles_are_refused_by_name():
    level = Level("sram", 1 << 30, ("a", "w", "o"), 2, Fraction(64), Fraction(64))
    memory = Memory(Dram(Fraction(64), 0, None), (level,))
    pipeline = TileCosts(Array(4, 4), memory, "ws", Problem(4 * LARGEST_WALK + 4, 4, 4, 1, WIDTHS), Tile(4, 4, 4, "m"))
    with pytest.raises(InputError) as caught:
        walk(pipeline)
    assert str(caught.value) == (
        "fidelity: got event for 100001 tiles of 4x4x4; expected at most 100000, which it walks over one by one; "
        "use analytic"
    )


# --- banks ------------------------------------------------------------------------------------------------------------


def banked(banks, ports, rows, columns, inner, tile_rows=None):
    """A pipeline of so many folds each way on 4x4 PEs, whose ports take what the array takes in a cycle, 32 bits."""
    word = Fraction(32)
    level = Level("sram", 1 << 24, ("a", "w", "o"), 2, word, word, banks, ports)
    memory = Memory(Dram(word, 0, None), (level,), AccumulatorBuffer(1 << 24))
    m, n, k = 4 * rows, 4 * columns, 4 * inner
    tile = Tile(4 * (tile_rows or rows), n, k, "m")
    return TileCosts(Array(4, 4), memory, "ws", Problem(m, n, k, 1, Widths(*[8] * 7)), tile)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([1, 2, 4, 8, 16]), st.integers(1, 2), *[st.integers(1, 9)] * 3)
def test_a_stride_concentrates_the_accesses_on_the_banks_that_it_meets(banks, ports, rows, columns, inner):
    pipeline = banked(banks, ports, rows, columns, inner)
    met = {stride: len({place * stride % banks for place in range(banks)}) for stride in (inner, columns)}
    # Words of A for each column of folds, of W once, of outputs with the last fold along K.
    a, w, o = columns * inner * 4 * rows, 4 * inner * columns, 4 * rows * columns
    busiest = math.ceil((Fraction(a, met[inner]) + Fraction(w + o, met[columns])) / ports)
    found = walk(pipeline)
    busy = pipeline.compute(0, 0, 0)[1]
    assert found.parts["bank_stall"] == max(busiest - busy, 0)
    assert found.cycles == max(busiest, busy) + a // columns + w + o  # and the load before, the store behind


@pytest.mark.parametrize(("rows", "columns", "inner"), [(6, 2, 2), (8, 3, 1), (4, 4, 4)])
def test_a_single_bank_with_one_port_does_all_accesses_one_after_the_other(rows, columns, inner):
    pipeline = banked(1, 1, rows, columns, inner, tile_rows=2)
    moved = pass_traffic(pipeline)
    assert walk(pipeline).cycles == (sum(moved.array[:3]) + moved.dram) // 32
    assert walk(banked(4, 1, rows, 1, 1, tile_rows=2)).parts["bank_stall"] == 0


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([1, 2, 4, 8, 16]),
    st.integers(1, 2),
    st.lists(
        st.tuples(st.integers(1, 60), st.sampled_from([1, 1, 2, 3, 4, 8]), st.integers(0, 15)), min_size=2, max_size=4
    ),
)
def test_the_busiest_bank_stands_for_accesses_granted_cycle_by_cycle(banks, ports, streams):
    """With two accesses that may wait for each port; within a few cycles at both ends."""
    wanted = [[(start + stride * i) % banks for i in range(count)] for count, stride, start in streams]
    busiest = sum(Fraction(count * math.gcd(stride, banks), banks) for count, stride, _ in streams) / ports
    counted = max(math.ceil(busiest), *(count for count, _, _ in streams))
    granted = arbitrated(wanted, banks, ports)
    assert granted <= 1.25 * counted + banks
    if all(stride == 1 for _, stride, _ in streams):
        assert granted >= counted
