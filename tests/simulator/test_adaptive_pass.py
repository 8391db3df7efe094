"""The adaptive pass on every unit, with every gather, side metric and store of weights: against walks written out."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats import Use
from simulator.arithmetic.spec import mac
from simulator.cost import Gemm, accumulation_cost, area, break_even, estimate, price, waste_factor
from simulator.cost.flags import read_flags
from simulator.cost.folds import fold_cycles, run_cycles
from simulator.cost.gathers import GATHERS, with_gather
from simulator.cost.price import first_pass
from simulator.cost.scoring import scoring_warnings
from simulator.cost.second_pass import second_work
from simulator.cost.traffic import memory_bound
from simulator.errors import InputError
from simulator.hardware import AccumulatorBuffer, Array, SideEngine, load_hardware

NPU = load_hardware("npu")
DIMENSION = st.integers(1, 80)
WIDE = Fraction(10**6)


def with_memory(machine, sram_kib=24, sums_kib=2, ports=WIDE):
    """The machine with little room, so that there are several tiles, and ports that nothing waits for."""
    sram = replace(
        machine.memory.buffers[0], size_bits=sram_kib * 8192, read_bits_per_cycle=ports, write_bits_per_cycle=ports
    )
    sums = AccumulatorBuffer(sums_kib * 8192) if machine.array.dataflow in ("ws", "is") else None
    return replace(machine, memory=replace(machine.memory, buffers=(sram,), accumulators=sums))


def array_engine(machine, rows, columns):
    array = replace(machine.array, rows=rows, columns=columns, copies=1)
    return SideEngine(rows * columns * machine.mac.high.rate, array)


@st.composite
def machines(draw):
    flow = draw(st.sampled_from(["ws", "is", "os"]))
    load = draw(st.sampled_from(["overlapped", "exposed"]))
    drain = draw(st.sampled_from(["overlapped", "exposed"]))
    array = Array(8, draw(st.sampled_from([4, 8])), flow, load, drain, draw(st.integers(1, 3)))
    machine = with_memory(replace(NPU, array=array), ports=draw(st.sampled_from([WIDE, Fraction(64)])))
    unit = draw(st.sampled_from(["array", "dot", "second array"]))
    engines = {
        "array": None,
        "dot": SideEngine(draw(st.sampled_from([2, 16, 64]))),
        "second array": array_engine(machine, draw(st.sampled_from([2, 4, 8])), draw(st.sampled_from([3, 8]))),
    }
    gathers = GATHERS if unit == "dot" else GATHERS[1:]
    overlap = "none" if unit == "array" else draw(st.sampled_from(["none", "tile"]))
    policy = replace(NPU.policy, gather=draw(st.sampled_from(gathers)), overlap=overlap)
    metric = draw(st.sampled_from(["output", "abs_sum", "norm_bound", "second_pass"]))
    policy = replace(policy, side_metric=metric, side_format=Use.parse("uint16") if metric == "abs_sum" else None)
    return replace(machine, side_engine=engines[unit], policy=policy)


def mask_of(gemms, m, n, fraction, seed):
    """Flags that cluster in some columns."""
    rng = np.random.default_rng(seed)
    return rng.random((gemms, m, n)) < fraction * rng.choice([0.1, 1, 2], n)


# --- the queue, tile by tile ------------------------------------------------------------------------------------------


def groups_of(machine, mask, columns, rows):
    """Yield (rows, columns) of the groups that are recomputed for the flags of one tile."""
    m, n = mask.shape
    gather = machine.policy.gather
    if gather == "element":
        yield from [(1, 1)] * int(mask.sum())
    elif gather == "tile":
        for i, j in itertools.product(range(0, m, rows), range(0, n, columns)):
            block = mask[i : i + rows, j : j + columns]
            if block.any():
                yield block.shape
    else:
        for j in range(0, n, n if gather == "row" else columns):
            band = mask[:, j : j + (n if gather == "row" else columns)]
            if band.any():
                yield int(band.any(axis=1).sum()), band.shape[1]


def engine_costs(machine, flow, k):
    """Return the cycles of a group, those from the first load to the last result beside, and the size of a block."""
    engine, array = machine.side_engine, machine.array
    if engine.array is None:
        size = (array.columns, array.rows) if flow == "is" else (array.rows, array.columns)
        tree = array.latency_cycles * math.ceil(math.log2(engine.lanes))
        return lambda r, c: r * c * math.ceil(k / engine.lanes), lambda groups: tree, size
    own, rate = engine.array, machine.mac.high.rate
    rows, columns, p = own.rows, own.columns, own.latency_cycles
    tail = p * rows + columns - 2

    def folds(r, c):
        if flow == "os":
            return math.ceil(r / rows) * math.ceil(c / columns), p * math.ceil(k / rate)
        across, t = (r, c) if flow == "is" else (c, r)
        return math.ceil(math.ceil(k / rate) / rows) * math.ceil(across / columns), t

    def one(t):  # from the start of a fold to that of the next one
        if flow == "os":
            return max(t, rows) if own.drain == "overlapped" else t + 2 * rows + columns - 2
        load, drain = own.load == "exposed", own.drain == "exposed"
        return t + rows * load + tail * drain if load or drain else max(t, rows)

    def ends(groups):
        longest = max(folds(r, c)[1] for r, c in groups)
        if flow == "os":
            beside = 2 * rows + columns - 2
            return beside - max(rows - longest, 0) if own.drain == "overlapped" else 0
        if own.load == "exposed":
            return tail if own.drain == "overlapped" else 0
        return rows + (0 if own.drain == "exposed" else tail - max(rows - longest, 0))

    size = (columns, rows) if flow == "is" else (rows, columns)
    return lambda r, c: folds(r, c)[0] * one(folds(r, c)[1]), ends, size


@settings(max_examples=150, deadline=None)
@given(machines(), DIMENSION, DIMENSION, DIMENSION, st.integers(1, 2), st.floats(0.001, 0.5), st.integers(0, 99))
def test_an_engine_behind_the_first_pass_is_the_longest_path_through_its_queue(machine, m, n, k, gemms, fraction, seed):
    if machine.side_engine is None:
        machine = replace(machine, side_engine=array_engine(machine, 4, 4))
    policy = replace(machine.policy, overlap="tile", side_metric="output", side_format=None)
    machine = replace(machine, policy=policy)
    mask = mask_of(gemms, m, n, fraction, seed)
    first = first_pass(machine, Gemm(m, n, k, gemms), "two_pass")
    cycles, ends, (rows, columns) = engine_costs(machine, first.dataflow, k)
    if policy.gather == "coltile":
        columns = (machine.side_engine.array or machine.array).columns
    tile, finish = first.tile, first.finish()
    outer, inner = (range(0, m, tile.m), range(0, n, tile.n))
    if tile.outer == "n":
        outer, inner = inner, outer
    free, all_groups = 0, []
    for g, (x, i), (y, j) in itertools.product(range(gemms), enumerate(outer), enumerate(inner)):
        top, left = (i, j) if tile.outer == "m" else (j, i)
        groups = list(groups_of(machine, mask[g, top : top + tile.m, left : left + tile.n], columns, rows))
        all_groups += groups
        if groups:
            free = max(free, g * first.cycles + int(finish[x, y])) + sum(cycles(*group) for group in groups)
    cost = price(machine, Gemm(m, n, k, gemms), "two_pass", mask)
    assert cost.recomputed_outputs == sum(r * c for r, c in all_groups)
    work = second_work(machine, (gemms, m, n, k), first, read_flags(mask, gemms, m, n))
    ports = memory_bound(machine.memory, work.traffic(machine.memory).plus(first.traffic, gemms))
    served = free + ends(all_groups) + first.last_store if all_groups else 0
    assert cost.cycles == max(gemms * first.cycles, served, ports)
    after = gemms * first.cycles + max(work.busy, memory_bound(machine.memory, work.traffic(machine.memory)))
    assert cost.cycles <= after


@settings(max_examples=100, deadline=None)
@given(machines(), DIMENSION, DIMENSION, DIMENSION, st.floats(0, 0.5), st.integers(0, 99))
def test_elements_are_never_slower_behind_the_first_pass_than_after_it(machine, m, n, k, fraction, seed):
    policy = replace(machine.policy, gather="element")
    after, behind = (
        replace(machine, side_engine=SideEngine(16), policy=replace(policy, overlap=overlap))
        for overlap in ("none", "tile")
    )
    for flags in (mask_of(1, m, n, fraction, seed), fraction):
        assert (
            price(behind, Gemm(m, n, k), "two_pass", flags).cycles
            <= price(after, Gemm(m, n, k), "two_pass", flags).cycles
        )


def test_groups_that_follow_tile_by_tile_may_cost_more_folds_than_they_hide():
    # One flagged row in each of four tiles: after the pass one fold of four rows along K, behind it four of one.
    machine = with_memory(replace(NPU, array=Array(8, 8)), sram_kib=7)
    policy = replace(NPU.policy, gather="coltile")
    behind = replace(machine, side_engine=array_engine(machine, 8, 8), policy=replace(policy, overlap="tile"))
    after = replace(behind, policy=replace(policy, overlap="none"))
    gemm = Gemm(64, 8, 128)
    first = first_pass(behind, gemm, "two_pass")
    assert first.tile.counts(64, 8, 128)[:2] == (4, 1)
    mask = np.zeros((64, 8), bool)
    mask[::16, 3] = True
    one, four = (price(machine, gemm, "two_pass", mask) for machine in (after, behind))
    assert one.recomputed_outputs == four.recomputed_outputs == 4 * 8
    assert four.cycles > one.cycles


# --- what every gather has --------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(machines(), DIMENSION, DIMENSION, DIMENSION, st.integers(1, 2), st.floats(0, 1), st.integers(0, 99))
def test_invariants_of_the_adaptive_pass(machine, m, n, k, gemms, fraction, seed):
    gemm, rng = Gemm(m, n, k, gemms), np.random.default_rng(seed)
    fewer = mask_of(gemms, m, n, fraction, seed)
    more = fewer | (rng.random((gemms, m, n)) < 0.1)
    none, some, all_ = (price(machine, gemm, "two_pass", flags) for flags in (np.zeros_like(fewer), fewer, more))
    assert none.cycles <= some.cycles <= all_.cycles
    assert none.energy_j <= some.energy_j * (1 + 1e-12) <= all_.energy_j * (1 + 1e-12)
    for cost in (none, some, all_, price(machine, gemm, "two_pass", fraction)):
        assert cost.waste_factor >= 1
        assert cost.recomputed_outputs <= gemms * m * n
        assert cost.roofline_cycles <= cost.cycles == sum(cost.cycle_parts.values())
        assert all(part >= 0 for part in cost.cycle_parts.values())
        assert sum(cost.energy_parts_j.values()) == pytest.approx(cost.energy_j, rel=1e-12)
        assert all(part >= 0 for part in cost.energy_parts_j.values())
        assert sum(item.cycles for item in cost.cycle_items) == cost.cycles
        assert sum(item.energy_j for item in cost.energy_items) == pytest.approx(cost.energy_j, rel=1e-12)
    on_engine = machine.side_engine is not None
    assert not on_engine or some.cycle_parts["switch"] == 0


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["ws", "os", "dot"]), st.sampled_from(["overlapped", "exposed"]),
    st.sampled_from(["overlapped", "exposed"]), st.integers(1, 3), st.integers(1, 40), st.integers(2, 9),
)  # fmt: skip
def test_one_more_fold_makes_a_run_longer_by_its_own_cycles(flow, load, drain, p, length, folds):
    array = Array(8, 4, flow, load, drain, p)
    longer, shorter = (run_cycles(array, flow, [(number, length)]).total for number in (folds + 1, folds))
    assert longer - shorter == fold_cycles(array, flow, length)


def test_a_switch_empties_the_array_and_loads_it_again():
    mask = np.zeros((64, 64), bool)
    mask[3, :3] = True
    for flow, switch in (("ws", 8 + 3 * 8 + 4 - 2), ("os", 2 * 8 + 4 - 2)):
        array = Array(8, 4, flow, latency_cycles=3)
        policy = replace(NPU.policy, gather="coltile", overlap="none")
        machine = replace(NPU, array=array, memory=None, side_engine=None, policy=policy)
        assert price(machine, Gemm(64, 64, 64), "two_pass", mask).cycle_parts["switch"] == switch


# --- break-even -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["output", "abs_sum", "norm_bound", "second_pass"])
@pytest.mark.parametrize("flow", ["ws", "is", "os"])
def test_at_the_break_even_two_passes_take_the_energy_of_one(flow, metric):
    gemm = Gemm(1000, 360, 300)  # bands of 16 columns and one of 8, blocks cut at the end
    high = replace(NPU.mac.high, spec=mac("fp16 -> fma(fp32)"))
    policy = replace(NPU.policy, side_metric=metric, side_format=Use.parse("int12") if metric == "abs_sum" else None)
    machine = replace(NPU, array=Array(16, 16, flow), memory=None, mac=replace(NPU.mac, high=high), policy=policy)

    def macs_j(cost):
        return sum(cost.energy_parts_j[part] for part in ("mul", "acc", "side"))

    beside = replace(machine, side_engine=array_engine(machine, 8, 4), policy=replace(policy, gather="coltile"))
    for base in (machine, beside):
        for kind in estimate(base, gemm).gathers:
            other, share = with_gather(base, kind.gather), kind.break_even_flagged
            if other is None:
                assert (kind.obstacle, share) == ("needs a side engine of kind dot", None)
                continue
            assert 0 < share < 1
            both = price(other, gemm, "two_pass", share)
            assert macs_j(both) == pytest.approx(macs_j(price(other, gemm, "high")), rel=0.01)
            assert macs_j(price(other, gemm, "two_pass", 0.8 * share)) < macs_j(both)


def test_the_worked_example_priced_on_an_array():
    # 2**24 MACs at 7 nm: int8 with an int32 sum at 0.10 pJ, a side sum of 16 bits, fp16 rounded into an fp32 sum.
    low = replace(NPU.mac.low, spec=mac("int8 -> fixed(32, 0, wrap)"), energy_j=0.10e-12, rate=1)
    policy = replace(NPU.policy, side_metric="abs_sum", side_format=Use.parse("uint16"))
    gemm = Gemm(256, 256, 256)
    # High energy: that of uniform high in microjoules; of element and of coltile how many times less, and break-even.
    expected = {0.72e-12: (12.08, (5.6, 0.84), (2.3, 0.108)), 0.49e-12: (8.22, (3.9, 0.77), (2.0, 0.087))}
    for high_j, (uniform, *kinds) in expected.items():
        high = replace(NPU.mac.high, spec=mac("fp16 -> fma(fp32)"), energy_j=high_j)
        machine = replace(NPU, array=Array(16, 16, "os"), memory=None, policy=policy)
        machine = replace(machine, mac=replace(NPU.mac, low=low, high=high, datapath="pair"))
        found = {one.gather: one for one in estimate(machine, gemm, 0.02).gathers}
        assert price(machine, gemm, "high").energy_parts_j["mul"] * 1e6 == pytest.approx(uniform, abs=0.005)
        for gather, (less, even) in zip(("element", "coltile"), kinds, strict=True):
            cost = price(with_gather(machine, gather), gemm, "two_pass", 0.02)
            macs_j = sum(cost.energy_parts_j[part] for part in ("mul", "acc", "side"))
            assert round(uniform / (macs_j * 1e6), 1) == less
            assert found[gather].break_even_flagged == pytest.approx(even, abs=0.006)


@pytest.mark.parametrize(
    ("flagged", "gammas"), [(0.001, (226, 62, 15.9)), (0.01, (92, 47, 14.9)), (0.1, (10, 10, 8.1))]
)
def test_the_table_of_waste_factors_is_what_random_masks_measure(flagged, gammas):
    mask = np.random.default_rng(7).random((40, 256, 64)) < flagged
    for gather, gamma in zip(("tile", "row", "coltile"), gammas, strict=True):
        cost = price(with_gather(NPU, gather), Gemm(256, 64, 64, 40), "two_pass", mask)
        assert cost.waste_factor == pytest.approx(gamma, rel=0.05)
        size = {"tile": 256, "row": 64, "coltile": 16}[gather]
        assert cost.waste_factor == pytest.approx(waste_factor(flagged, size), rel=0.05)


def test_where_the_first_pass_costs_more_than_it_can_save_no_flag_is_worth_it():
    assert break_even(1.0, 0.0, 0.5, 16) == 0.0
    dear = replace(NPU, mac=replace(NPU.mac, low=replace(NPU.mac.low, energy_j=1e-12)))
    assert estimate(dear, gemm=(64, 64, 64)).break_even_flagged == 0.0
    free = replace(NPU, mac=replace(NPU.mac, high=replace(NPU.mac.high, energy_j=1e-12)))
    cheap = replace(free, mac=replace(free.mac, low=replace(NPU.mac.low, energy_j=0.0)))
    assert estimate(cheap, gemm=(64, 64, 64)).break_even_flagged == pytest.approx(1.0, abs=0.01)


# --- side metrics -----------------------------------------------------------------------------------------------------


def with_metric(machine, metric, side_format=None):
    use = None if side_format is None else Use.parse(side_format)
    return replace(machine, policy=replace(machine.policy, side_metric=metric, side_format=use))


@pytest.mark.parametrize("flow", ["ws", "os"])
def test_without_a_flag_two_passes_cost_the_low_pass_and_the_score(flow):
    m, n, k, table = 24, 40, 96, NPU.technology.table
    base = replace(NPU, array=Array(8, 8, flow), memory=None)
    gemm, low = Gemm(m, n, k), price(base, Gemm(m, n, k), "low")
    compare = m * n * 8 * table.adder_j_per_bit.value
    low_macs = low.energy_parts_j["mul"] + low.energy_parts_j["acc"]
    float_add = table.float_adder_j_per_bit.value * 11
    low_mac = 1.08 * (1.1 * 16 + 0.9 * 5 + 14.5 * 4) * 1e-15
    cases = {
        ("output", None): (1, compare),
        ("abs_sum", "uint16"): (1, compare + m * n * k * 16 * table.adder_j_per_bit.value),
        ("abs_sum", "fp16"): (1, compare + m * n * k * float_add),
        ("norm_bound", None): (1, compare + (m + n) * k * low_mac),
        ("second_pass", None): (2, compare + low_macs),
    }
    for (metric, side_format), (passes, side_j) in cases.items():
        cost = price(with_metric(base, metric, side_format), gemm, "two_pass", np.zeros((m, n), bool))
        assert cost.cycles == passes * low.cycles
        assert cost.energy_parts_j["side"] == pytest.approx(side_j)
        for part in ("mul", "acc"):
            assert cost.energy_parts_j[part] == low.energy_parts_j[part]
        wider = {"uint16": 16, "fp16": 16}.get(side_format, 0)
        if flow == "os" and metric == "abs_sum":  # operands move as before, the sums are wider
            sums = m * n * k / 4 + math.ceil(m / 8) * n * 8 * 9 / 2
            more = cost.energy_parts_j["register"] - low.energy_parts_j["register"]
            assert more == pytest.approx(wider * sums * table.register_j_per_bit.value)


def test_a_second_running_sum_travels_with_the_partial_sum():
    m, n, k = 20, 24, 150
    machine = with_metric(NPU, "abs_sum", "uint16")
    low, both = price(NPU, Gemm(m, n, k), "low"), price(machine, Gemm(m, n, k), "two_pass", 0.0)
    for name in ("accumulators_reads", "accumulators_writes"):
        assert both.traffic_bits[name] * 8 == low.traffic_bits[name] * (8 + 16)
    assert both.traffic_bits["sram_reads"] - low.traffic_bits["sram_reads"] == m * n  # the mask alone


def test_the_pass_over_magnitudes_moves_what_a_low_pass_does_and_its_results_back():
    m, n, k = 20, 24, 150
    machine = with_metric(NPU, "second_pass")
    low, both = price(NPU, Gemm(m, n, k), "low"), price(machine, Gemm(m, n, k), "two_pass", 0.0)
    numerators = m * n * 8
    assert both.traffic_bits["dram"] == 2 * low.traffic_bits["dram"] + numerators
    assert both.traffic_bits["sram_reads"] == 2 * low.traffic_bits["sram_reads"] + numerators + m * n
    assert both.cycles >= 2 * low.cycles
    assert both.energy_parts_j["dram"] == pytest.approx(both.traffic_bits["dram"] * 20.3e-12)
    # The scores of a GEMM come while its other pass runs: with an overlapped engine only the last pass hides flags.
    mask = np.zeros((m, n), bool)
    mask[0, 0] = True
    assert price(machine, Gemm(m, n, k), "two_pass", mask).cycles == both.cycles + math.ceil(k / 64) + 6


def test_the_accumulation_cost_has_the_extra_of_the_score():
    expected = {("output", None): 0.8, ("norm_bound", None): 0.8, ("second_pass", None): 1.3, ("abs_sum", "uint8"): 1.3}
    for (metric, side_format), cost in expected.items():
        assert accumulation_cost(with_metric(NPU, metric, side_format), 0.3)["two_pass"] == pytest.approx(cost)


def test_a_running_sum_too_narrow_for_k_is_said():
    machine = with_metric(NPU, "abs_sum", "bf16")
    assert scoring_warnings(machine, 128) == []
    (warning,) = price(machine, Gemm(8, 8, 129), "two_pass", np.zeros((8, 8), bool)).warnings
    assert warning == (
        "policy.side_format: bf16 has 8 significand bits, with less than 9 of which a sum of 129 terms may stop "
        "growing, so that scores are too low; take a wider format"
    )
    assert price(machine, Gemm(8, 8, 129), "low").warnings == ()
    for side_format, enough in (("uint16", 2**15), ("int16", 2**14), ("fp16", 2**10)):
        machine = with_metric(NPU, "abs_sum", side_format)
        assert scoring_warnings(machine, enough) == [] != scoring_warnings(machine, enough + 1)


def test_a_side_metric_and_a_second_array_take_area():
    table, array = NPU.technology.table, Array(8, 4, "os")
    machine = replace(NPU, array=array, side_engine=None)
    plain = area(machine).area_parts_um2
    sums = area(with_metric(machine, "abs_sum", "uint16")).area_parts_um2
    adder, register = table.adder_um2_per_bit.value, table.register_um2_per_bit.value
    assert sums["side"] - plain["side"] == pytest.approx(32 * (4 * 16 * adder + 16 * register))  # four MACs a PE
    norms = area(with_metric(machine, "norm_bound")).area_parts_um2
    low_mac = sum(item.each_um2 * item.count for item in area(machine).items if item.what.startswith("mac.low"))
    assert 0 < norms["side"] - plain["side"] < low_mac
    assert area(with_metric(machine, "second_pass")).area_parts_um2 == plain
    beside = replace(machine, side_engine=array_engine(machine, 4, 4))
    engine = area(beside).area_parts_um2["engine"]
    one_mode = replace(
        NPU, array=replace(array, rows=4), mac=replace(NPU.mac, low=NPU.mac.high, high=None, datapath=None)
    )
    alone = area(replace(one_mode, policy=None, side_engine=None, memory=None)).area_parts_um2
    assert engine == pytest.approx(sum(alone.values()))


# --- operands in two formats ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("room_kib", "whole_k"), [(256, True), (10, False)])
def test_slices_move_the_rest_of_what_is_touched(room_kib, whole_k):
    low = replace(NPU.mac.low, spec=mac("fp8_e5m2/rz -> chunk(64, fma(fp8_e5m2), seq(fp8_e5m2))"))
    high = replace(NPU.mac.high, spec=mac("fp16 -> chunk(16, fma(fp16), seq(fp16))"))
    machine = replace(NPU, mac=replace(NPU.mac, low=low, high=high), policy=replace(NPU.policy, weights="sliced"))
    machine = replace(with_memory(machine, room_kib, 16), array=Array(16, 16))
    m, n, k = 16, 16, 256
    mask = np.zeros((m, n), bool)
    mask[1, 2] = mask[1, 3] = True
    first = first_pass(machine, Gemm(m, n, k), "two_pass")
    assert (first.tile.k == k) is whole_k
    moved = price(machine, Gemm(m, n, k), "two_pass", mask).traffic_bits["dram"]
    rest = 8 if whole_k else 16  # a part that has left the chip comes again
    assert moved == 2 * 16 * k * 8 + (1 + 2) * k * rest + m * n * 8 + 2 * 8
    both = replace(machine, policy=replace(machine.policy, weights="both"))
    if not whole_k:  # 24 bits an operand, where slices take 16
        with pytest.raises(InputError, match=r"memory.sram: one 16x16x64 fold of the 16x16x256 GEMM needs 102400 bit"):
            first_pass(both, Gemm(m, n, k), "two_pass")


# --- the four kinds side by side --------------------------------------------------------------------------------------


def test_a_replaced_policy_changes_the_gather_and_what_it_runs_on():
    on = {gather: with_gather(NPU, gather) for gather in GATHERS}
    assert on["element"] is NPU
    for gather in GATHERS[1:]:
        assert (on[gather].recomputing_engine, on[gather].policy.overlap) == (None, "none")
        assert on[gather].side_engine == NPU.side_engine  # which is there, and idles
    beside = replace(NPU, side_engine=array_engine(NPU, 8, 8), policy=replace(NPU.policy, gather="coltile"))
    assert with_gather(beside, "element") is None
    assert with_gather(beside, "row").recomputing_engine == beside.side_engine
    assert with_gather(beside, "row").policy.overlap == "tile"
    alone = replace(NPU, side_engine=None, policy=replace(NPU.policy, gather="tile", overlap="none", runs_on="array"))
    assert [with_gather(alone, gather) is None for gather in GATHERS] == [True, False, False, False]


def test_an_estimate_shows_the_four_gathers_beside_uniform_high():
    gemm = Gemm(500, 96, 200)
    found = estimate(NPU, gemm, 0.03)
    assert [one.gather for one in found.gathers] == list(GATHERS)
    for one in found.gathers:
        cost = price(with_gather(NPU, one.gather), gemm, "two_pass", 0.03)
        assert (one.cycles, one.energy_j, one.recomputed_outputs) == (
            cost.cycles, cost.energy_j, cost.recomputed_outputs,
        )  # fmt: skip
        assert one.cycles_vs_high == pytest.approx(cost.cycles / found.high.cycles)
        assert one.energy_vs_high == pytest.approx(cost.energy_j / found.high.energy_j)
        assert one.waste_factor == cost.waste_factor
        assert (one.layer, one.own, one.outputs) == (None, one.gather == "element", 500 * 96)
    assert found.gathers[0].break_even_flagged == found.break_even_flagged
    assert found.to_dict()["gathers"][0]["gather"] == "element"
    single = replace(NPU, mac=replace(NPU.mac, high=None, datapath=None), policy=None, side_engine=None)
    assert estimate(single, gemm).gathers == ()


def test_an_engine_that_is_not_used_idles_all_the_time():
    gemm, mask = Gemm(64, 64, 64), np.eye(64, dtype=bool)
    beside, alone = with_gather(NPU, "coltile"), replace(with_gather(NPU, "coltile"), side_engine=None)
    cost, without = (price(machine, gemm, "two_pass", mask) for machine in (beside, alone))
    assert cost.cycles == without.cycles
    engine_j = 0.1 * (1.1 * 16 + 0.9 * 5 + 14.5 * 11) * 1e-15
    more = cost.energy_parts_j["idle"] - without.energy_parts_j["idle"]
    assert more == pytest.approx(64 * cost.cycles * engine_j)
