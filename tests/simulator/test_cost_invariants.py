"""What holds of every price, on random machines and layers, in all three fidelities."""

import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator.arithmetic.spec import mac
from simulator.cost import FIDELITIES, Gemm, price
from simulator.cost.energy import ENERGY_PARTS
from simulator.cost.event import walk
from simulator.cost.folds import fold_grid
from simulator.cost.one_pass import tile_costs_of, tiled_pass, uniform_pass
from simulator.cost.price import first_pass, problem_of
from simulator.cost.problem import Problem, Widths
from simulator.cost.tile_costs import TileCosts
from simulator.cost.tiling import Tile
from simulator.errors import InputError
from simulator.hardware import Array, Dram, Level, Memory
from tests.oracles.machines import NPU, arrays, machines, memories

DIMENSION = st.one_of(st.integers(1, 40), st.integers(41, 200))
SEED = st.integers(0, 2**32 - 1)
SHARE = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1), st.floats(0, 0.02))
BAND = 1.25


# A level is too small for a fold, or for its partial sums: where, the fold, what is needed and what is there.
TOO_SMALL = re.compile(
    r"(?P<file>\S+): memory\.(?P<level>\w+): (?:"
    r"one \d+x\d+x\d+ fold of the \d+x\d+x\d+ GEMM needs (?P<needed>\d+) bit "
    r"\((?:(?:a|w|outputs) \d+ bit, )+times (?P<copies>\d+) buffers\); "
    r"expected at most the (?P<size>\d+) bit of the level; "
    r"raise memory\.(?P=level)\.size or lower memory\.(?P=level)\.buffers"
    r"|the partial sums of one \d+x\d+x\d+ fold of the \d+x\d+x\d+ GEMM need (?P<sums>\d+) bit; "
    r"expected at most the (?P<room>\d+) bit of the level; raise memory\.(?P=level)\.size)"
)


def prices(machine, gemm, mode, flags=None):
    """The price in each fidelity; None where the memory is too small, as the message says, or tiles are too many."""
    try:
        return [price(machine, gemm, mode, flags, fidelity=fidelity) for fidelity in FIDELITIES]
    except InputError as error:
        if "fidelity: got event for" in str(error):  # tiles of few folds each, which event does not walk over
            return None
        found = TOO_SMALL.fullmatch(str(error))
        assert found, error
        memory = machine.memory
        named = {level.name: level for level in (*memory.buffers, memory.accumulators) if level}
        level = named[found["level"]]
        assert found["file"] == machine.source
        if found["sums"] is None:
            assert int(found["needed"]) > int(found["size"]) == level.size_bits
            assert int(found["copies"]) == level.buffers
        else:
            assert int(found["sums"]) > int(found["room"]) == level.size_bits
        return None


def in_all_modes(machine, gemm, share, seed):
    mask = np.random.default_rng(seed).random((gemm.gemms, gemm.m, gemm.n)) < share
    for mode, flags in (("low", None), ("high", None), ("two_pass", mask), ("two_pass", share)):
        found = prices(machine, gemm, mode, flags)
        if found is not None:
            yield flags, found


@settings(max_examples=150, deadline=None)
@given(machines(), DIMENSION, DIMENSION, DIMENSION, st.integers(1, 3), SHARE, SEED)
def test_parts_sum_to_the_total_and_bounds_enclose_it(machine, m, n, k, gemms, share, seed):
    gemm = Gemm(m, n, k, gemms)
    for flags, found in in_all_modes(machine, gemm, share, seed):
        for cost, fidelity in zip(found, FIDELITIES, strict=True):
            assert (cost.fidelity, cost.roofline_cycles) == (fidelity, found[0].cycles)
            assert type(cost.cycles) is int and cost.cycles >= cost.roofline_cycles
            assert sum(cost.cycle_parts.values()) == cost.cycles
            assert all(type(part) is int and part >= 0 for part in cost.cycle_parts.values())
            by_item = dict.fromkeys(cost.cycle_parts, 0)
            for item in cost.cycle_items:
                by_item[item.part] += item.cycles
            assert by_item == cost.cycle_parts
            assert tuple(cost.energy_parts_j) == ENERGY_PARTS
            assert sum(cost.energy_parts_j.values()) == pytest.approx(cost.energy_j, rel=1e-12)
            assert all(part >= 0 for part in cost.energy_parts_j.values())
            assert cost.energy_low_j <= cost.energy_j <= cost.energy_high_j
            assert 0 < cost.utilisation <= 1
            assert cost.latency_s == cost.cycles / 1e9
            assert cost.traffic_bits == found[0].traffic_bits
            assert cost.recomputed_outputs >= cost.flagged_outputs
            if isinstance(flags, np.ndarray):
                assert cost.flagged_outputs == np.count_nonzero(flags)


@settings(max_examples=100, deadline=None)
@given(machines(banks=False, most_copies=2, staging=False), DIMENSION, DIMENSION, DIMENSION, st.integers(1, 3))
def test_event_is_analytic_with_two_copies_and_neither_banks_nor_staging(machine, m, n, k, gemms):
    gemm = Gemm(m, n, k, gemms)
    for mode in ("low", "high"):
        found = prices(machine, gemm, mode)
        if found is not None:
            _, analytic, event = found
            if each_tile_brings_an_operand(machine, gemm, mode):
                assert event.cycles == analytic.cycles
                assert event.energy_parts_j == analytic.energy_parts_j
            assert event.cycles <= analytic.cycles


def each_tile_brings_an_operand(machine, gemm, mode):
    """Not so where a buffer keeps all of one, and the other comes once for a row of tiles."""
    if machine.memory is None:
        return True
    found = first_pass(machine, gemm, mode)
    tiles = tile_costs_of(machine.array, machine.memory, problem_of(machine, gemm, mode), found)
    return all(any(tiles.comes(x, y)) for x in range(tiles.outer_count) for y in range(tiles.inner_count))


def test_a_tile_that_brings_nothing_waits_for_no_load():
    """Two rows of two tiles: W stays whole in a buffer of its own, so that the last tile brings nothing."""
    level = partial(Level, size_bits=1024, buffers=2, read_bits_per_cycle=Fraction(4), write_bits_per_cycle=Fraction(4))
    memory = Memory(Dram(Fraction(4), 0, None), (level("a_o", holds=("a", "o")), level("w", holds=("w",))))
    array = Array(2, 2, "ws", copies=2)
    machine = replace(NPU, array=array, memory=memory, side_engine=None, policy=None)
    gemm = Gemm(3, 3, 1)
    assert not each_tile_brings_an_operand(machine, gemm, "low")
    _, analytic, event = prices(machine, gemm, "low")
    assert (event.cycles, analytic.cycles) == (36, 38)


@settings(max_examples=100, deadline=None)
@given(machines(banks=False), DIMENSION, DIMENSION, DIMENSION, st.integers(1, 3), SHARE, SEED)
def test_event_is_at_most_analytic_without_banks_and_without_a_full_queue(machine, m, n, k, gemms, share, seed):
    if machine.side_engine is not None:
        machine = replace(machine, side_engine=replace(machine.side_engine, queue=None))
    for flags, found in in_all_modes(machine, Gemm(m, n, k, gemms), share, seed):
        if not isinstance(flags, float):  # expected flags of a tile are rounded up to whole ones
            _, analytic, event = found
            assert event.cycles <= analytic.cycles


# --- banks: how much longer the busiest one can take ------------------------------------------------------------------


def bank_factor(array, memory, found, problem):
    """Upper bound of what banks make of a step: shares of the busiest bank in reads, in writes and in transfers."""
    if found.dataflow == "is":
        memory, problem = memory.exchanged(), problem.exchanged()
    tile = found.tile.exchanged() if found.dataflow == "is" else found.tile
    flow = "ws" if found.dataflow == "is" else found.dataflow
    parts = [
        {size, (length - 1) % size + 1}
        for length, size in ((problem.m, tile.m), (problem.n, tile.n), (problem.k, tile.k))
    ]
    grids = [fold_grid(array, flow, m, n, k, problem.rate) for m in parts[0] for n in parts[1] for k in parts[2]]
    factor = Fraction(1)
    for level in memory.staging:
        if level.banks:
            factor = max(factor, Fraction(2, level.ports * 2 ** int(math.log2(level.banks))))
    for level in memory.buffers:
        if not level.banks:
            continue
        banks = 2 ** int(math.log2(level.banks))
        for rows, columns, _ in grids:
            share = {"a": math.gcd(rows, banks), "w": math.gcd(columns, banks), "o": math.gcd(columns, banks)}
            read = max(share[tensor] for tensor in level.holds)
            write = share["o"] if "o" in level.holds else 0
            factor = max(factor, Fraction(read + write + 1, banks * level.ports))
    return factor


@st.composite
def layers(draw, **of_memory):
    """An array, a memory, a problem and its pass."""
    array = draw(arrays())
    memory = draw(memories(array.dataflow, **of_memory))
    widths = Widths(draw(st.sampled_from([4, 8])), 8, 16, draw(st.sampled_from([16, 32])), 8, 8, 12)
    sizes = [draw(st.integers(1, 60)) for _ in range(3)]
    problem = Problem(*sizes, draw(st.sampled_from([1, 4])), widths, draw(st.sampled_from([1, 4])))
    flow = array.dataflow
    own, inside = (problem.exchanged(), memory.exchanged()) if flow == "is" else (problem, memory)
    grains = array.rows, array.columns, array.rows * own.rate
    tile = Tile(
        *(
            min(size, grain * draw(st.integers(1, 4)))
            for size, grain in zip((own.m, own.n, own.k), grains, strict=True)
        ),
        draw(st.sampled_from("mn")),
    )
    try:
        found = uniform_pass(array, memory, flow, problem)
    except InputError:
        found = None
    if found is None or draw(st.booleans()):
        found = tiled_pass(array, inside, flow, own, tile)
    return array, memory, problem, found


def walked(array, memory, problem, found, **changes):
    """Analytic and event cycles, and the roofline, of the same tiles on a memory with changes."""
    memory, tile = replace(memory, **changes), found.tile
    if found.dataflow == "is":
        memory, problem, tile = memory.exchanged(), problem.exchanged(), tile.exchanged()
    result = tiled_pass(array, memory, found.dataflow, problem, tile)
    event = walk(TileCosts(array, memory, found.dataflow, problem, tile))
    return result.cycles, event.cycles, result.roofline


def check_band(array, memory, problem, found):
    analytic, event, roofline = walked(array, memory, problem, found)
    factor = bank_factor(array, memory, found, problem)
    assert roofline <= event <= factor * analytic
    return factor, Fraction(event, analytic)


@settings(max_examples=150, deadline=None)
@given(layers())
def test_event_is_within_its_band_of_analytic(layer):
    check_band(*layer)


@pytest.mark.full
@settings(max_examples=5000, deadline=None)
@given(layers())
def test_event_is_within_its_band_of_analytic_on_five_thousand_layers(layer):
    _, memory, _, _ = layer
    _, ratio = check_band(*layer)
    if all(level.banks is None or 2 ** int(math.log2(level.banks)) * level.ports >= 4 for level in memory.levels):
        assert ratio <= BAND


# --- more is never slower ---------------------------------------------------------------------------------------------


def one_level(memory, at, change):
    """Changes of a memory: one of its levels, buffers first."""
    buffers, staging = list(memory.buffers), list(memory.staging)
    where = buffers if at < len(buffers) else staging
    place = at if at < len(buffers) else at - len(buffers)
    where[place] = change(where[place])
    return {"buffers": tuple(buffers), "staging": tuple(staging)}


def with_buffers(level, buffers):
    """Another number of copies, each of the size that it was."""
    return replace(level, buffers=buffers, size_bits=level.size_bits // level.buffers * buffers)


@settings(max_examples=120, deadline=None)
@given(layers(), st.data())
def test_more_of_a_resource_is_never_slower_for_a_fixed_tile(layer, data):
    array, memory, problem, found = layer
    more, add = data.draw(st.sampled_from([Fraction(5, 4), 2, 3, 8])), data.draw(st.integers(1, 5))
    at = data.draw(st.integers(0, len(memory.levels) - 1))
    changed = {
        "DRAM bandwidth": {
            "dram": replace(memory.dram, bandwidth_bits_per_cycle=memory.dram.bandwidth_bits_per_cycle * more)
        },
        "latency": {"dram": replace(memory.dram, latency_cycles=memory.dram.latency_cycles // 2)},
        "read": one_level(memory, at, lambda one: replace(one, read_bits_per_cycle=one.read_bits_per_cycle * more)),
        "write": one_level(memory, at, lambda one: replace(one, write_bits_per_cycle=one.write_bits_per_cycle * more)),
        "size": one_level(memory, at, lambda one: replace(one, size_bits=one.size_bits * 3)),
        "banks": one_level(memory, at, lambda one: one if one.banks is None else replace(one, banks=one.banks + add)),
        "ports": one_level(memory, at, lambda one: replace(one, ports=one.ports + 1)),
        "buffers": one_level(memory, at, lambda one: with_buffers(one, one.buffers + add)),
    }
    before = walked(array, memory, problem, found)
    for resource, changes in changed.items():
        after = walked(array, memory, problem, found, **changes)
        assert all(new <= old for new, old in zip(after, before, strict=True)), (resource, before, after)


@settings(max_examples=60, deadline=None)
@given(machines(), DIMENSION, DIMENSION, DIMENSION, SHARE, SEED, st.integers(1, 8), st.integers(1, 40))
def test_a_longer_queue_is_never_slower(machine, m, n, k, share, seed, queue, more):
    assume(machine.side_engine is not None and machine.policy.overlap == "tile")
    mask = np.random.default_rng(seed).random((m, n)) < share
    cycles = []
    for room in (queue, queue + more, None):
        engine = replace(machine.side_engine, queue=room)
        found = prices(replace(machine, side_engine=engine), Gemm(m, n, k), "two_pass", mask)
        assume(found is not None)
        cycles.append(found[2].cycles)
    assert cycles == sorted(cycles, reverse=True)


# --- equivalences -----------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(layers())
def test_twice_the_bits_are_twice_the_traffic(layer):
    array, memory, problem, found = layer
    if found.dataflow == "is":
        memory, problem, found = memory.exchanged(), problem.exchanged(), replace(found, tile=found.tile.exchanged())
    names = ("a", "w", "state", "psum", "out", "a_held", "w_held")
    twice = Widths(*(2 * getattr(problem.widths, name) for name in names))
    # What a level keeps follows from its size.
    levels = (
        [replace(level, size_bits=2 * level.size_bits) for level in of] for of in (memory.staging, memory.buffers)
    )
    staging, buffers = map(tuple, levels)
    double = replace(memory, staging=staging, buffers=buffers)
    of_twice = Problem(problem.m, problem.n, problem.k, problem.rate, twice, problem.passes)
    one = tiled_pass(array, memory, found.dataflow, problem, found.tile).traffic
    two = tiled_pass(array, double, found.dataflow, of_twice, found.tile).traffic
    assert two.array == tuple(2 * bits for bits in one.array)
    assert two.transfers == tuple(tuple(2 * bits for bits in transfer) for transfer in one.transfers)


def slowest_port(machine, gemm, passes, back):
    """Cycles of the slowest port in which low passes move their bits, and so many more that come the way of A."""
    memory = machine.memory
    if memory is None:
        return 0
    traffic = first_pass(machine, gemm, "low").traffic
    array, moved = traffic.array, [(passes * traffic.dram + back, memory.dram.bandwidth_bits_per_cycle)]
    for level, outer, inner in zip(memory.staging, traffic.transfers[:-1], traffic.transfers[1:], strict=True):
        moved += [(passes * (inner.a + inner.w) + back, level.read_bits_per_cycle)]
        moved += [(passes * (outer.a + outer.w) + back, level.write_bits_per_cycle)]
        moved += [(passes * outer.o, level.read_bits_per_cycle), (passes * inner.o, level.write_bits_per_cycle)]
    for level in memory.buffers:
        sums = "o" in level.holds and memory.accumulators is None
        reads = array.a_reads * ("a" in level.holds) + array.w_reads * ("w" in level.holds) + array.psum_reads * sums
        writes = array.o_writes * ("o" in level.holds) + array.psum_writes * sums
        moved.append((passes * reads + back * ("a" in level.holds), level.read_bits_per_cycle))
        moved.append((passes * writes, level.write_bits_per_cycle))
    return max(math.ceil(bits / bandwidth) for bits, bandwidth in moved)


def with_wider_sums(machine, gemm, bits):
    """Roofline, analytic and event cycles of the low pass over a GEMM with so many more bits in each sum."""
    low, memory = machine.mac.low, machine.memory
    a, w = low.operand_bits
    widths = Widths(a, w, low.accumulator_bits + bits, low.partial_sum_bits + bits, low.output_bits, a, w)
    problem = Problem(gemm.m, gemm.n, gemm.k, low.rate, widths, low.passes)
    found = uniform_pass(machine.array, memory, machine.array.dataflow, problem)
    if memory is None:
        return found.roofline, found.cycles, found.cycles
    analytic, event, roofline = walked(machine.array, memory, problem, found)
    return roofline, analytic, event


def without_flags(machine, gemm):
    """Prices of the low mode and of two passes without a flag in each fidelity, of a mask and of a fraction."""
    uniform = prices(machine, gemm, "low")
    for none in (np.zeros((gemm.gemms, gemm.m, gemm.n), bool), 0.0):
        found = prices(machine, gemm, "two_pass", none)
        assume(uniform is not None and found is not None)  # a second sum of each output may be too much for it
        yield from zip(FIDELITIES, uniform, found, strict=True)


@settings(max_examples=100, deadline=None)
@given(machines(one_format=True), DIMENSION, DIMENSION, DIMENSION, st.integers(1, 3))
def test_an_empty_mask_takes_the_cycles_of_the_low_passes(machine, m, n, k, gemms):
    gemm, one, side = Gemm(m, n, k, gemms), Gemm(m, n, k), machine.policy.side_metric
    results = m * n * machine.mac.low.output_bits
    for fidelity, low, two_pass in without_flags(machine, gemm):
        cycles = low.cycles
        if side == "abs_sum":  # the second sum goes where the first one goes, and may make for another tile
            cycles = gemms * dict(zip(FIDELITIES, with_wider_sums(machine, one, 16), strict=True))[fidelity]
        elif side == "second_pass":  # over |a| and |w|; its results come back beside the other one
            if fidelity != "roofline":
                cycles += max(cycles, gemms * slowest_port(machine, one, 1, results))
            elif machine.policy.overlap == "none":
                cycles *= 2
            else:  # all that is moved is one of the bounds
                cycles = max(2 * cycles, slowest_port(machine, one, 2 * gemms, gemms * results))
        assert two_pass.cycles == cycles
        assert two_pass.recomputed_outputs == 0


@settings(max_examples=100, deadline=None)
@given(machines(one_format=True), DIMENSION, DIMENSION, DIMENSION, st.integers(1, 3))
def test_an_empty_mask_takes_the_bits_and_joules_of_the_low_passes_and_of_the_scores(machine, m, n, k, gemms):
    gemm, side, out = Gemm(m, n, k, gemms), machine.policy.side_metric, machine.mac.low.output_bits
    add_j, outputs = NPU.technology.table.adder_j_per_bit.value, gemms * m * n
    single = price(machine, Gemm(1, 1, 1), "low").energy_parts_j  # in one fold, without additions to partial sums
    sums = machine.memory is not None and side == "second_pass"
    for _, low, two_pass in without_flags(machine, gemm):
        of_macs = low.energy_parts_j["mul"] + low.energy_parts_j["acc"]
        beside_the_compares = {
            "output": 0,
            "abs_sum": gemm.macs * 16 * add_j,
            "second_pass": of_macs,
            "norm_bound": gemms * (m + n) * k * (single["mul"] + single["acc"]),
        }[side]
        parts = two_pass.energy_parts_j
        assert parts["side"] == pytest.approx(outputs * out * add_j + beside_the_compares, rel=1e-9)
        assert (parts["mul"], parts["acc"], parts["gather"]) == (
            low.energy_parts_j["mul"],
            low.energy_parts_j["acc"],
            0,
        )
        if side == "abs_sum":
            continue  # other tiles, other bits
        passes = 2 if side == "second_pass" else 1
        assert parts["register"] == pytest.approx(passes * low.energy_parts_j["register"], rel=1e-9)
        assert two_pass.traffic_bits["dram"] == passes * low.traffic_bits["dram"] + sums * outputs * out
        if side != "second_pass":
            name = "sram" if machine.memory is None else machine.memory.buffer("o").name
            mask = {f"{name}_reads": outputs, f"{name}_writes": outputs}
            assert two_pass.traffic_bits == {
                level: bits + mask.get(level, 0) for level, bits in low.traffic_bits.items()
            }
            assert [parts[part] for part in ("dram", "idle", "leak")] == pytest.approx(
                [low.energy_parts_j[part] for part in ("dram", "idle", "leak")], rel=1e-9
            )


@settings(max_examples=60, deadline=None)
@given(machines(one_format=True), DIMENSION, DIMENSION, DIMENSION, SEED)
def test_input_stationary_is_weight_stationary_with_the_operands_exchanged(machine, m, n, k, seed):
    mask = np.random.default_rng(seed).random((m, n)) < 0.05
    drain = "exposed" if machine.array.drain == "none" else machine.array.drain
    like = replace(machine.array, drain=drain, interleave=1)

    def with_flow(flow, operands):
        uses, unit, engine = mac(f"{operands} -> fma(fp16)").operands, machine.mac, machine.side_engine
        low, high = (replace(mode, spec=replace(mode.spec, operands=uses)) for mode in (unit.low, unit.high))
        memory = machine.memory if flow == "is" or machine.memory is None else machine.memory.exchanged()
        if engine is not None and engine.array is not None:
            engine = replace(engine, array=replace(engine.array, dataflow=flow, drain=drain, interleave=1))
        return replace(
            machine, array=replace(like, dataflow=flow), mac=replace(unit, low=low, high=high), memory=memory,
            side_engine=engine,
        )  # fmt: skip

    stationary_in, stationary_w = with_flow("is", "fp8_e4m3*fp16"), with_flow("ws", "fp16*fp8_e4m3")
    for mode in ("low", "high"):
        pair = prices(stationary_in, Gemm(m, n, k), mode), prices(stationary_w, Gemm(n, m, k), mode)
        if None in pair:
            assert pair == (None, None)
            continue
        for one, other in zip(*pair, strict=True):
            assert (one.cycles, one.roofline_cycles) == (other.cycles, other.roofline_cycles)
            assert one.traffic_bits == other.traffic_bits
            assert one.energy_j == pytest.approx(other.energy_j, rel=1e-12)
    # The other kinds take rows of A, which are columns of W, and so does a dot-product engine; results of a pass over
    # |a| come back where A is.
    symmetric = machine.side_engine is None or machine.side_engine.array is not None
    if machine.policy.gather == "tile" and symmetric and machine.policy.side_metric != "second_pass":
        pair = (
            prices(stationary_in, Gemm(m, n, k), "two_pass", mask),
            prices(stationary_w, Gemm(n, m, k), "two_pass", np.ascontiguousarray(mask.T)),
        )
        if None not in pair:
            for one, other in zip(*pair, strict=True):
                assert (one.cycles, one.recomputed_outputs) == (other.cycles, other.recomputed_outputs)


def test_prices_have_the_same_digits_on_any_number_of_threads():
    machine = replace(NPU, side_engine=replace(NPU.side_engine, queue=4))
    jobs = [
        (machine, Gemm(16 * i + 3, 5 * i + 1, 40 * i + 7), mode, flags, fidelity)
        for i in range(1, 13)
        for mode, flags in (("low", None), ("high", None), ("two_pass", 0.05))
        for fidelity in FIDELITIES
    ]
    found = []
    for threads in (1, 2, 7):
        uniform_pass.cache_clear()
        with ThreadPoolExecutor(threads) as pool:
            found.append(list(pool.map(lambda job: price(*job[:4], fidelity=job[4]), jobs)))
    assert found[0] == found[1] == found[2]
