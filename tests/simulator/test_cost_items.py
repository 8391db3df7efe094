"""Where every joule and every cycle comes from: the items of a price, their formulas, and the text of the bill."""

import functools
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.arithmetic.spec import mac
from simulator.cost import Gemm, estimate, price
from simulator.errors import InputError
from simulator.hardware import Array, load_hardware
from simulator.hardware.order import array_order
from simulator.hardware.technology import BANDS
from simulator.report.bill import bill
from tests.oracles.formulas import evaluate

close = functools.partial(pytest.approx, rel=1e-5, abs=0)  # joules are far below pytest's own tolerance

NPU = load_hardware("npu")
MODES = {"low": None, "high": None, "two_pass": 0.02}


def machine_of(accumulator="fp8_e4m3 -> fma(fp16)", **array):
    """Return the NPU without second pass, with one MAC, on another array."""
    spec, shape = mac(accumulator), Array(**{"rows": 8, "columns": 8, **array})
    spec = replace(spec, accumulator=array_order(spec.accumulator, shape, 1))
    low = replace(NPU.mac.low, spec=spec, rate=1)
    memory = NPU.memory
    if shape.dataflow in ("os", "dot"):
        memory = replace(memory, accumulators=None)
    unit = replace(NPU.mac, low=low, high=None, datapath=None)
    return replace(NPU, array=shape, mac=unit, policy=None, side_engine=None, memory=memory)


def shares(cost):
    return {part: sum(item.energy_j for item in cost.energy_items if item.part == part) for part in cost.energy_parts_j}


@pytest.mark.parametrize("mode", MODES)
def test_items_are_all_of_the_energy_with_its_bounds_and_classes(mode):
    cost = price(NPU, Gemm(100, 60, 300, 2), mode, MODES[mode])
    assert sum(item.energy_j for item in cost.energy_items) == close(cost.energy_j)
    assert shares(cost) == close(cost.energy_parts_j)
    assert cost.energy_low_j == close(sum(item.energy_j / item.band for item in cost.energy_items))
    assert cost.energy_high_j == close(sum(item.energy_j * item.band for item in cost.energy_items))
    for item in cost.energy_items:
        assert item.energy_j == item.count * item.each_j > 0
        assert item.band == BANDS[item.uncertainty] and item.source and item.unit and item.what
        widest = max(BANDS[other.uncertainty] for other in cost.energy_items if other.part == item.part)
        assert re.search(rf"\b{item.part} \w+ x/÷ {widest:g}\b", cost.energy_basis)


@pytest.mark.parametrize("mode", MODES)
def test_formulas_of_energies_give_what_they_stand_beside(mode):
    cost = price(NPU, Gemm(100, 60, 300, 2), mode, MODES[mode])
    with_formula = [item for item in cost.energy_items if item.formula]
    assert len(with_formula) >= 7
    for item in with_formula:
        assert evaluate(item.formula) == close(item.each_j), item


ACCUMULATORS = ["fp8_e4m3 -> fma(fp16)", "int8 -> fma(int32)", "posit8 -> fma(posit16)", "mxfp4 -> fma(fp32)",
                "nvfp4 -> kahan(fp32)", "fp16 -> seq(fp16)", "bf16 -> exact(fp32)",
                "fp8_e4m3 -> chunk(4, fma(fp16), fma(fp32))"]  # fmt: skip


@pytest.mark.parametrize("accumulator", ACCUMULATORS)
def test_formulas_of_every_kind_of_mac(accumulator):
    cost = price(machine_of(accumulator, dataflow="os"), Gemm(10, 12, 50), "low")
    for item in cost.energy_items:
        assert not item.formula or evaluate(item.formula) == close(item.each_j), item


SIZES = st.integers(1, 150)


@given(
    SIZES, SIZES, SIZES, st.integers(1, 3), st.integers(1, 4), st.integers(1, 3),
    st.sampled_from(["ws", "is", "os", "dot"]), st.sampled_from(["overlapped", "exposed", "none"]),
    st.sampled_from(["overlapped", "exposed"]), st.sampled_from([1 << 13, 1 << 15, 1 << 21]),
)  # fmt: skip
def test_items_are_all_of_the_cycles_and_formulas_give_them(m, n, k, gemms, p, copies, flow, drain, load, bits):
    drain = "overlapped" if flow == "dot" or (drain == "none" and flow != "os") else drain
    one = machine_of(dataflow=flow, drain=drain, load=load, latency_cycles=p, copies=copies)
    level = replace(one.memory.buffers[0], size_bits=bits)
    cost = price(replace(one, memory=replace(one.memory, buffers=(level,))), Gemm(m, n, k, gemms), "low")
    assert sum(item.cycles for item in cost.cycle_items) == cost.cycles
    for part, cycles in cost.cycle_parts.items():
        assert sum(item.cycles for item in cost.cycle_items if item.part == part) == cycles
    for item in cost.cycle_items:
        assert evaluate(item.formula) == item.cycles > 0, item


def test_cycles_of_a_second_pass_are_items_too():
    mask = np.zeros((64, 64), bool)
    mask[::3, ::5] = True
    cost = price(NPU, Gemm(64, 64, 784), "two_pass", mask)
    assert sum(item.cycles for item in cost.cycle_items) == cost.cycles
    (gathered,) = (item for item in cost.cycle_items if item.part == "gather")
    assert evaluate(gathered.formula) == gathered.cycles == cost.cycle_parts["gather"]


# --- the text of the bill ---------------------------------------------------------------------------------------------


def test_the_bill_of_an_operation_adds_up_as_printed():
    found = estimate("npu", gemm=(64, 64, 784), flagged=0.02)
    text = bill("fc1", found.modes)
    of_modes = text.split("\n\n")
    assert [of.split("\n")[0] for of in of_modes] == ["fc1, uniform low", "fc1, uniform high", "fc1, two-pass"]
    for of, cost in zip(of_modes, found.modes.values(), strict=True):
        cycles = [int(value) for value in re.findall(r"^    \w+ +(\d+)  ", of, re.M)]
        assert re.search(r"^  cycles +(\d+)$", of, re.M)[1] == str(cost.cycles) == str(sum(cycles))
        energies = re.findall(r"^    (\w+) +([\d.]+) µJ  ", of, re.M)
        (total,) = re.findall(r"^  energy +([\d.]+) µJ", of, re.M)
        assert sum(float(value) for _, value in energies) == pytest.approx(float(total), abs=1e-4)
        assert len(energies) == len(cost.energy_items)
    first = next(line for line in of_modes[0].split("\n") if line.startswith("    mul"))
    assert (
        "multiplier: 3211264 MAC x 23.868 fJ [(1.1 fJ/bit² x 4 x 4 + 0.9 fJ/bit x (4 + 1)) x 1.08 (further mode)]; "
        in first
    )
    assert first.endswith("fit x/÷ 2, int8 and int32 multiply give 1.09 and 1.45; Jouppi 2021; integer adders give "
                          "0.88 to 0.94; Jouppi 2021")  # fmt: skip


def test_numbers_of_each_line_give_its_energy():
    text = bill("fc1", {"low": price(NPU, Gemm(64, 64, 784), "low")})
    lines = re.findall(
        r"^    \w+ +([\d.]+) µJ  [^:\n]*(?:: adder)?: (\d+) [A-Za-z ]+ x ([\d.e-]+) ([fpn])J", text, re.M
    )
    assert len(lines) >= 9
    for energy, count, each, prefix in lines:
        joules = int(count) * float(each) * {"f": 1e-15, "p": 1e-12, "n": 1e-9}[prefix]
        assert joules * 1e6 == pytest.approx(float(energy), abs=1e-6)


def test_a_layer_without_a_price_says_so():
    priced = price(NPU, Gemm(4, 4, 4), "low")
    assert "nothing prices this layer in this mode" in bill(
        "fc1", {"high": replace(priced, cycles=None, energy_j=None)}
    )


# --- zero gating ------------------------------------------------------------------------------------------------------

GATED = replace(NPU, mac=replace(NPU.mac, zero_gating=True))


def test_a_mac_with_a_zero_operand_costs_what_an_idle_one_does():
    gemm = Gemm(20, 24, 150)
    zeros = 30_000
    plain, gated = price(NPU, gemm, "low"), price(GATED, gemm, "low", zeros=zeros)
    one = {part: plain.energy_parts_j[part] for part in ("mul", "acc")}
    folds = 2 * 20 * 24 * 1.08 * 14.5 * 4 * 1e-15  # additions to partial sums go on
    working = 1 - zeros / gemm.macs
    assert gated.energy_parts_j["mul"] == close(one["mul"] * working)
    assert gated.energy_parts_j["acc"] == close((one["acc"] - folds) * working + folds)
    each = (one["mul"] + one["acc"] - folds) / gemm.macs
    more = gated.energy_parts_j["idle"] - plain.energy_parts_j["idle"]
    assert more == close(0.1 * zeros * each)
    for part in ("register", "sram", "dram", "side"):
        assert gated.energy_parts_j[part] == plain.energy_parts_j[part]
    assert gated.zero_macs == zeros and plain.zero_macs is None
    assert gated.cycles == plain.cycles and gated.warnings == ()


@given(st.integers(0, 20 * 24 * 150), st.integers(0, 20 * 24 * 150))
def test_more_zeros_never_cost_more(zeros, more):
    fewer, larger = sorted((zeros, more))
    of = [price(GATED, Gemm(20, 24, 150), "two_pass", 0.1, count).energy_j for count in (fewer, larger)]
    assert of[1] <= of[0] * (1 + 1e-12)


def test_zeros_as_a_fraction_and_none_at_all_are_warned_of():
    found = estimate(GATED, gemm=(20, 24, 150), zeros=0.25)
    assert found.low.zero_macs == found.two_pass.zero_macs == 18_000
    assert "zeros given as a fraction of the MACs are taken as given, not measured" in found.low.warnings
    assert (
        "mac.zero_gating: no zeros known, all MACs are counted as working"
        in price(GATED, Gemm(2, 2, 2), "low").warnings
    )


@pytest.mark.parametrize(
    ("machine", "zeros", "message"),
    [
        (NPU, 5, "zeros: got 5 for a machine without mac.zero_gating (hwconfigs/npu.yaml); expected none; leave them "
                 "out, or set mac.zero_gating: true"),
        (GATED, 9, "zeros: got 9; expected a count of MACs from 0 to 8, or a fraction from 0.0 to 1.0; give e.g. 0.5"),
        (GATED, 1.5, "zeros: got 1.5; expected a count of MACs from 0 to 8, or a fraction from 0.0 to 1.0; give e.g. "
                     "0.5"),
        (GATED, float("nan"), "zeros: got nan; expected a count of MACs from 0 to 8, or a fraction"),
        (GATED, True, "zeros: got True; expected a count of MACs from 0 to 8, or a fraction"),
    ],
)  # fmt: skip
def test_wrong_zeros_are_refused(machine, zeros, message):
    with pytest.raises(InputError) as caught:
        price(machine, Gemm(2, 2, 2), "low", zeros=zeros)
    assert str(caught.value).startswith(message)


def test_the_count_of_scalesim_leaves_a_cycle_out_and_says_so():
    array = Array(8, 8, "ws", load="exposed", compat="scalesim3")
    machine = replace(machine_of("int8 -> exact(int32)"), array=array, memory=None)
    cost = price(machine, Gemm(20, 30, 40, 2), "low")
    assert sum(item.cycles for item in cost.cycle_items) == cost.cycles
    assert [item.cycles for item in cost.cycle_items if "SCALE-Sim" in item.what] == [-2]
    assert all(evaluate(item.formula) == item.cycles for item in cost.cycle_items)
