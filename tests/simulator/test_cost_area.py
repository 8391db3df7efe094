"""The area of a machine by hand, and against the published operations."""

from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.arithmetic.spec import mac
from simulator.cost import area, estimate, known_area
from simulator.cost.area import AREA_PARTS
from simulator.cost.datapath import multiplier, summation
from simulator.cost.energy import component_area
from simulator.errors import InputError
from simulator.hardware import Array, Mac, MacMode, load_hardware
from simulator.hardware.tables import bundled_table
from simulator.hardware.technology import BANDS
from tests.oracles.formulas import evaluate
from tests.oracles.unpriced import UNPRICED

NPU = load_hardware("npu")
OLD = bundled_table("horowitz2014_45nm")


def bare(low, high=None, datapath=None, array=None, passes=1):
    """Return a machine at 45 nm of MACs alone."""
    modes = [None if text is None else MacMode(mac(text)) for text in (low, high)]
    if passes > 1:
        modes[1] = replace(modes[1], passes=passes)
    return replace(
        NPU, technology=replace(NPU.technology, table=OLD), array=array or Array(4, 3, "os", drain="exposed"),
        mac=Mac(*modes, datapath), memory=None, policy=None, side_engine=None,
    )  # fmt: skip


def parts_of(machine):
    return {part: um2 for part, um2 in area(machine).area_parts_um2.items() if um2}


def test_every_part_of_an_array_of_integers():
    of = parts_of(bare("int8 -> fma(int32)"))
    assert of == pytest.approx({"mul": 12 * 3.9 * 64, "acc": 12 * 4.3 * 32, "register": 12 * 6 * (8 + 8 + 32)})
    shadow = parts_of(bare("int8 -> fma(int32)", array=Array(4, 3, "ws", copies=2)))
    assert shadow["register"] == pytest.approx(24 * 6 * (8 + 2 * 8 + 32))  # the next weight beside the one at work
    assert shadow["acc"] == pytest.approx((24 + 2 * 3) * 4.3 * 32)  # each column adds its sums to partial sums
    best = parts_of(bare("int8 -> exact(int32)", array=Array(4, 3, "best")))
    assert best["register"] == pytest.approx(12 * 6 * (8 + 8 + 2 * 32))  # os needs most: a sum leaves beside the next


def test_two_datapaths_cost_both_one_of_two_modes_the_larger_and_8_percent_composed_the_narrow_one():
    low, high = "fp8_e4m3 -> fma(fp16)", "fp16 -> fma(fp32)"
    narrow, wide = (parts_of(bare(text)) for text in (low, high))
    assert parts_of(bare(low, high, "pair")) == pytest.approx({part: narrow[part] + wide[part] for part in narrow})
    shared = parts_of(bare(low, high, "multi_mode"))
    assert shared == pytest.approx({"mul": 1.08 * wide["mul"], "acc": 1.08 * wide["acc"], "register": wide["register"]})
    composed = parts_of(bare(low, high, "composed", passes=9))
    # One multiplier of 4 x 4 bits, what adds its products in 22 bits, and the exponents of fp16.
    assert composed["mul"] == pytest.approx(12 * (3.9 * 4 * 4 + 4.3 * 22 + 4.3 * 6))
    assert composed["acc"] == pytest.approx(wide["acc"])
    assert composed["mul"] < wide["mul"]


def test_every_part_of_the_npu():
    table, found = NPU.technology.table, area(NPU)
    mul = table.partial_product_um2_per_bit2.value * 16 + table.adder_um2_per_bit.value * 5
    add = table.float_adder_um2_per_bit.value
    register = table.register_um2_per_bit.value
    expected = {
        "mul": 1024 * 1.08 * mul,  # four lanes of the low mode outweigh one of the high mode, which is as wide
        "acc": 1024 * 1.08 * 4 * add + 16 * 11 * add,  # 4 sums of 4 bits outweigh one of 11; edge of 16 columns
        "register": 256 * register * (4 * 8 + 2 * 4 * 8 + 8),
        "side": 16 * table.adder_um2_per_bit.value * 8,
        "engine": 64 * (mul + 11 * add + register * (8 + 8 + 16)),
        "sram": (256 + 16) * 8192 * 0.027 / 0.7,
    }
    assert found.area_parts_um2 == pytest.approx(expected)
    assert 0.1e6 < found.area_um2 < 0.2e6


@pytest.mark.parametrize(
    ("published", "operation"),
    [
        (282, multiplier), (3495, multiplier), (1640, multiplier), (7700, multiplier),
        (36, summation), (67, summation), (137, summation), (1360, summation), (4184, summation),
    ],
)  # fmt: skip
def test_published_areas_lie_in_the_band(published, operation):
    """Horowitz, ISSCC 2014: integer and float units at 45 nm."""
    specs = {282: "int8 -> fma(int32)", 3495: "int32 -> fma(int32)", 1640: "fp16 -> seq(fp16)",
             7700: "fp32 -> seq(fp32)", 36: "int4 -> fma(int8)", 67: "int8 -> fma(int16)", 137: "int8 -> fma(int32)",
             1360: "fp16 -> fma(fp16)", 4184: "fp16 -> fma(fp32)"}  # fmt: skip
    spec = mac(specs[published])
    formats = tuple(use.format for use in spec.operands)
    circuits = (
        multiplier(formats, spec.accumulator) if operation is multiplier else summation(spec.accumulator, formats)
    )
    entries = [component_area(OLD, circuit) for circuit in circuits]
    found, band = sum(entry.value for entry in entries), max(entry.band for entry in entries)
    assert band == BANDS["fit"] and published / 1.3 < found < published * 1.3


def test_the_area_at_7_nm_is_that_at_45_nm_scaled_but_for_the_bit_cells():
    new = bundled_table("jouppi2021_7nm")
    names = [name for name in vars(OLD) if "_um2_" in name and not name.startswith("sram")]
    assert len(names) == 7
    for name in names:
        assert getattr(new, name).value == pytest.approx(0.059 * getattr(OLD, name).value, rel=1e-3)
        assert getattr(new, name).uncertainty in ("scaled", "assumed")
    assert (OLD.sram_cell_um2_per_bit.value, new.sram_cell_um2_per_bit.value) == (0.346, 0.027)


@pytest.mark.parametrize("machine", [NPU, bare("posit8 -> fma(posit16)"), bare("mxfp4 -> fma(fp32)")])
def test_items_are_all_of_the_area_with_its_bounds_and_formulas(machine):
    found = area(machine)
    assert sum(item.area_um2 for item in found.items) == pytest.approx(found.area_um2)
    assert found.area_um2 == pytest.approx(sum(found.area_parts_um2.values()))
    assert set(found.area_parts_um2) == set(AREA_PARTS)
    assert found.area_low_um2 == pytest.approx(sum(item.area_um2 / item.band for item in found.items))
    assert found.area_high_um2 == pytest.approx(sum(item.area_um2 * item.band for item in found.items))
    for item in found.items:
        assert item.area_um2 == item.count * item.each_um2 > 0
        assert evaluate(item.formula) == pytest.approx(item.each_um2, rel=1e-5)
        assert item.source and item.band == BANDS[item.uncertainty]


def test_posits_need_decoders_at_the_edges():
    items = {item.what: item for item in area(bare("posit8 -> fma(posit16)")).items}
    one = 4.3 * 8 + 1.4 * 8 * 3
    assert items["mac.low: decoders of activations"].area_um2 == pytest.approx(4 * one)
    assert items["mac.low: decoders of weights"].area_um2 == pytest.approx(3 * one)
    assert items["mac.low: multiplier"].each_um2 == pytest.approx(1.45 * (3.9 * 16 + 4.3 * 7))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10), st.sampled_from(["ws", "is", "os", "dot"]))
def test_more_of_anything_is_never_smaller(rows, columns, fraction, flow):
    base = bare(f"e5m{fraction}:ieee -> fma(fp32)", array=Array(rows, columns, flow))
    larger = [
        bare(f"e5m{fraction}:ieee -> fma(fp32)", array=Array(rows + 1, columns, flow)),
        bare(f"e5m{fraction}:ieee -> fma(fp32)", array=Array(rows, columns, flow, copies=2)),
        bare(f"e5m{fraction + 1}:ieee -> fma(fp32)", array=Array(rows, columns, flow)),
        replace(base, memory=NPU.memory),
    ]
    assert all(area(other).area_um2 > area(base).area_um2 for other in larger)


def test_an_estimate_has_the_area_as_plain_numbers():
    found = estimate("npu", gemm=(4, 4, 4)).to_dict()["area"]
    assert found["area_um2"] == area(NPU).area_um2
    assert found["items"] == [asdict(item) for item in area(NPU).items]


def test_an_array_of_unknown_circuits_has_no_area():
    unit = Mac(MacMode(UNPRICED, energy_j=1e-12), None, None)
    machine = replace(NPU, mac=unit, policy=None, side_engine=None)
    with pytest.raises(InputError, match=r"^hwconfigs/npu.yaml: area: lns8: got a format that the cost model does not"):
        area(machine)
    assert known_area(machine) is None
