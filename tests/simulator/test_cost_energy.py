"""Energies against the published operations, and what the file or the table says about them."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import formats
from simulator.arithmetic.accumulators import innermost
from simulator.arithmetic.spec import mac
from simulator.cost import Gemm, price
from simulator.cost.datapath import alignment, decoder, multiplier, number, summation
from simulator.cost.energy import component_energy, mac_energy
from simulator.cost.folds import register_bits
from simulator.cost.problem import Problem, Widths
from simulator.errors import InputError
from simulator.hardware import Array, MacMode, load_hardware
from simulator.hardware.tables import bundled_table
from simulator.hardware.widths import exact_product_bits
from tests.oracles.unpriced import UNPRICED

NPU = load_hardware("npu")


def femtojoules(table, circuits):
    return 1e15 * sum(component_energy(table, circuit, "MAC").value for circuit in circuits)


def formats_of(spec):
    return tuple(use.format for use in spec.operands)


# What the specification of the cost model has for an exact product and its adder, without registers and alignment
# shift, in pJ.
COLUMNS = ("int8 -> fma(int32)", "fp8_e4m3 -> exact(fp32)", "fp8_e4m3 -> fma(fp16)", "fp8_e4m3 -> fma(fp32)",
           "bf16 -> fma(fp32)", "fp16 -> fma(fp16)", "fp16 -> fma(fp32)", "fp32 -> fma(fp32)")  # fmt: skip


@pytest.mark.parametrize(
    ("table", "expected_pj"),
    [
        ("horowitz2014_45nm", (0.10, 0.30, 0.18, 0.47, 0.95, 1.11, 0.80, 1.28, 2.70)),
        ("jouppi2021_7nm", (0.03, 0.10, 0.06, 0.18, 0.37, 0.43, 0.30, 0.49, 0.99)),
    ],
)
def test_default_mac_energies(table, expected_pj):
    table = bundled_table(table)
    for column, expected in zip(("int4 -> fma(int16)", *COLUMNS), expected_pj, strict=True):
        spec = mac(column)
        formats, state = formats_of(spec), innermost(spec.accumulator)
        sums = [circuit for circuit in summation(state, formats) if circuit.what != "alignment shift"]
        total = femtojoules(table, multiplier(formats, state)) + femtojoules(table, sums)
        if column == "fp8_e4m3 -> exact(fp32)":  # the column int37: one product, without room for further ones
            total -= 16 * table.adder_j_per_bit.value * 1e15
        assert round(total * 1e-3, 2) == expected, column


def test_published_units_are_as_far_from_the_model_as_the_specification_says():
    """ASAP7 post-layout (arXiv 2504.09072): int8 MAC 0.055, e4m3 with fp32 sum 0.195 pJ; 1.8 and 1.9 times less."""
    table = bundled_table("jouppi2021_7nm")
    for column, published, ratio in (("int8 -> fma(int32)", 0.055, 1.8), ("fp8_e4m3 -> fma(fp32)", 0.195, 1.9)):
        found = mac_energy(table, MacMode(mac(column)), 0).mac_j * 1e12
        assert found / published == pytest.approx(ratio, abs=0.05)


def test_a_rounded_product_is_priced_as_a_multiplier_of_its_own():
    table = bundled_table("jouppi2021_7nm")
    for operands, expected_pj in (("fp16", 0.34), ("fp32", 1.31), ("bf16", 0.232)):
        spec = mac(f"{operands} -> seq({operands})")
        rounded = femtojoules(table, multiplier(formats_of(spec), innermost(spec.accumulator)))
        assert rounded * 1e-3 == pytest.approx(expected_pj, abs=0.005)


@pytest.mark.parametrize(("operands", "ratio"), [("fp32", 2.0), ("bf16", 3.7)])
def test_a_multiplier_of_its_own_overstates_a_product_in_an_array(operands, ratio):
    table = bundled_table("horowitz2014_45nm")
    alone, in_array = (
        femtojoules(table, multiplier(formats_of(spec), innermost(spec.accumulator)))
        for spec in (mac(f"{operands} -> seq({operands})"), mac(f"{operands} -> fma(fp32)"))
    )
    assert alone / in_array == pytest.approx(ratio, abs=0.15)


@pytest.mark.parametrize(("table", "expected_pj"), [("horowitz2014_45nm", 0.22), ("jouppi2021_7nm", 0.07)])
def test_an_exact_e4m3_product_needs_37_bits_and_an_alignment_dearer_than_the_rest(table, expected_pj):
    spec = mac("fp8_e4m3 -> exact(fp32)")
    width = exact_product_bits(*formats_of(spec))
    assert width == 37
    assert round(femtojoules(bundled_table(table), [alignment(width)]) * 1e-3, 2) == expected_pj


# What stands beside each accumulator of fp16 products, in adders of the node: of floats by the bit of the significand
# (f), of integers by the bit (i), and shifters by the bit and level (s).
ADDERS = {
    "kahan(fp16)": lambda f, i, s: 4 * 11 * f,
    "tree(fp16)": lambda f, i, s: 11 * f,
    "fixed(32, 0, wrap)": lambda f, i, s: 32 * i + 32 * 5 * s,
    "fma(int32)": lambda f, i, s: 32 * i + 32 * 5 * s,
    # 25 + 3 bits and 5 of carries, 11 + 5 bits and 3 of carries; a shift and a rounding back to a float each step
    "aligned(16, 25, fp32/rz)": lambda f, i, s: 33 * i + 33 * 6 * s + (33 * 6 * s + 24 * i) / 16,
    "fma(fp16, 4)": lambda f, i, s: 19 * i + 19 * 5 * s + (19 * 5 * s + 11 * i) / 4,
    "interleave(2, fma(fp16), seq(fp32))": lambda f, i, s: 11 * f,
    "chunk(4, fma(fp16), seq(fp32))": lambda f, i, s: 11 * f + 24 * f / 4,
    "chunk(4, fma(int32), seq(int32))": lambda f, i, s: 32 * i + 32 * 5 * s + 32 * i / 4,  # no float at the join
    "fma(posit16)": lambda f, i, s: 1.45 * 12 * f,
}


@pytest.mark.parametrize("accumulator", ADDERS)
def test_sums_of_each_accumulator_are_priced_by_their_adders(accumulator):
    table = bundled_table("jouppi2021_7nm")
    spec = mac(f"fp16 -> {accumulator}")
    expected = ADDERS[accumulator](14.5, 0.9, 0.3)
    assert femtojoules(table, summation(spec.accumulator, formats_of(spec))) == pytest.approx(expected)
    # In the array the outermost joins are folds, so that only what is within them belongs to a product.
    in_array = MacMode(mac(f"fp16 -> chunk(16, {accumulator}, seq(fp32))"))
    own = [entry.value for part, _, entry in mac_energy(table, in_array, 0).mac if part == "acc"]
    assert sum(own) * 1e15 == pytest.approx(expected)


def test_integer_products_have_no_exponents_to_add_and_need_no_alignment():
    table = bundled_table("jouppi2021_7nm")
    for accumulator, width in (("fixed(32, 0, wrap)", 32), ("exact(int32)", 16 + 16)):
        spec = mac(f"int8 -> {accumulator}")
        state = innermost(spec.accumulator)
        assert femtojoules(table, multiplier(formats_of(spec), state)) == pytest.approx(64 * 1.1)
        assert femtojoules(table, summation(state, formats_of(spec))) == pytest.approx(width * 0.9)


# --- other formats, by hand at 7 nm: products 1.1 fJ/bit², exponents 0.9 fJ/bit ---------------------------------------

PRODUCTS = {
    ("posit8", "posit8", "fma(posit16)"): 1.45 * (1.1 * 4 * 4 + 0.9 * (6 + 1)),  # 8 - 2 - 2 bits; 2^-24 to 2^24
    ("takum8", "takum8", "fma(takum16)"): 1.45 * (1.1 * 4 * 4 + 0.9 * (9 + 1)),  # 8 - 4 bits; 2^-239 to 2^239
    ("posit16", "posit16", "seq(posit16)"): 1.45 * (1.89 * 12 * 12 + 7.0 * 16),
    ("mxfp8_e4m3", "mxfp8_e4m3", "fma(fp32)"): 1.1 * 4 * 4 + 0.9 * (4 + 1) + 0.9 * 9 / 32,  # 8-bit scales are added
    ("mxint8", "mxint8", "fma(fp32)"): 1.1 * 8 * 8 + 0.9 * 9 / 32,
    ("nvfp4", "nvfp4", "fma(fp32)"): 1.1 * 2 * 2 + 0.9 * (2 + 1) + (1.1 * 4 * 4 + 0.9 * (4 + 1)) / 16,
    ("mxfp8_e4m3", "fp16", "fma(fp32)"): 1.1 * 4 * 11 + 0.9 * (5 + 1) + 0.9 * 9 / 32,
    ("fp8_e4m3", "fp8_e5m2", "fma(fp32)"): 1.1 * 4 * 3 + 0.9 * (5 + 1),
    ("int8", "int4", "fma(int32)"): 1.1 * 8 * 4,
    ("fix16.8", "fix16.8", "fma(fix32.16)"): 1.1 * 16 * 16,
}


@pytest.mark.parametrize(("a", "w", "accumulator"), PRODUCTS)
def test_products_of_other_formats(a, w, accumulator):
    spec = mac({"operands": [a, w], "accumulator": accumulator})
    found = femtojoules(bundled_table("jouppi2021_7nm"), multiplier(formats_of(spec), innermost(spec.accumulator)))
    assert found == pytest.approx(PRODUCTS[a, w, accumulator])


def test_a_codebook_costs_as_the_smallest_float_that_holds_its_values():
    book = formats.CodebookFormat("book", (-6.0, -1.25, 0.0, 0.5, 3.0))  # 5 is the largest odd part, 2^-1 to 2^2
    assert number(book)[:2] == (3, 2)
    assert number(formats.CodebookFormat("signs", (-1.0, 1.0)))[:2] == (1, 1)


def test_posits_are_decoded_where_they_enter_the_array():
    low = replace(NPU.mac.low, spec=mac("posit8 -> chunk(64, fma(posit16), seq(posit16))"), energy_j=None)
    m, n, k = 20, 24, 150
    cost = price(replace(NPU, mac=replace(NPU.mac, low=low)), Gemm(m, n, k), "low")
    counts = {item.what: (item.count, item.each_j * 1e15) for item in cost.energy_items if "decoding" in item.what}
    one = pytest.approx(0.9 * 8 + 0.3 * 8 * 3)
    # Activations once for each of two folds along N, weights once: 16 rows of posits share a decoded one.
    assert counts == {"decoding of activations": (2 * m * k, one), "decoding of weights": (k * n, one)}
    assert decoder(formats.get("fp16")) is None


def test_the_scales_of_blocks_are_moved_with_their_elements():
    plain, blocks = (
        replace(NPU.mac.low, spec=mac(f"{name} -> chunk(64, fma(fp16), seq(fp16))"))
        for name in ("fp8_e4m3", "mxfp8_e4m3")
    )
    gemm = Gemm(32, 32, 64)
    of = [price(replace(NPU, mac=replace(NPU.mac, low=low)), gemm, "low").traffic_bits for low in (plain, blocks)]
    scales = (32 * 64 + 64 * 32) * 8 // 32
    assert of[1]["dram"] - of[0]["dram"] == scales
    assert of[1]["sram_reads"] - of[0]["sram_reads"] == (2 * 32 * 64 + 64 * 32) * 8 // 32


def test_wide_products_from_narrow_slices():
    """fp16 from 4-bit significands: ceil(11/4)^2 = 9 passes, whose products are added in 22 bits."""
    low = MacMode(mac("fp8_e4m3 -> fma(fp16)"))
    high = MacMode(mac("fp16 -> fma(fp32)"), passes=9)
    energy = mac_energy(bundled_table("jouppi2021_7nm"), high, 0, low)
    product = 9 * 1.1 * 4 * 4 + 8 * 0.9 * 22 + 0.9 * (5 + 1)
    assert energy.mac_j * 1e15 == pytest.approx(product + 14.5 * 24)


@given(st.sampled_from(["horowitz2014_45nm", "jouppi2021_7nm"]), st.data())
def test_a_wider_format_is_never_cheaper(table, data):
    exponent, fraction, n = data.draw(st.integers(2, 8)), data.draw(st.integers(0, 22)), data.draw(st.integers(5, 31))
    names = {
        "float": (f"e{exponent}m{fraction}:ieee", f"e{exponent}m{fraction + 1}:ieee"),
        "exponent": (f"e{exponent}m{fraction}:ieee", f"e{exponent + 1}m{fraction}:ieee"),
        "integer": (f"int{n}", f"int{n + 1}"),
        "posit": (f"posit{n}", f"posit{n + 1}"),
        "takum": (f"takum{n}", f"takum{n + 1}"),
    }[data.draw(st.sampled_from(["float", "exponent", "integer", "posit", "takum"]))]
    accumulator = data.draw(st.sampled_from(["fma({})", "seq({})", "kahan({})", "fma(fp32)"]))
    narrow, wide = (
        mac_energy(bundled_table(table), MacMode(mac(f"{name} -> {accumulator.format(name)}")), 0).mac_j
        for name in names
    )
    assert wide >= narrow > 0


def test_sram_energy_goes_through_the_points_of_the_table():
    table = bundled_table("jouppi2021_7nm")
    energies = [table.sram_energy(kib * 8192).value * 1e15 for kib in (8, 32, 256, 1024)]
    assert energies == pytest.approx([117, 133, 179, 219], abs=0.5)
    old = bundled_table("horowitz2014_45nm")
    assert old.sram_energy(1024 * 8192).value * 1e15 == pytest.approx(156 * math.sqrt(128))


def test_energies_of_the_file_replace_those_of_the_table():
    low = replace(NPU.mac.low, energy_j=1e-12)
    level = replace(NPU.memory, dram=replace(NPU.memory.dram, energy_j_per_bit=1e-12))
    machine = replace(NPU, mac=replace(NPU.mac, low=low), memory=level)
    cost = price(machine, Gemm(16, 16, 64), "low")
    assert cost.energy_parts_j["mul"] == pytest.approx(16 * 16 * 64 * 1e-12, rel=1e-9, abs=0)
    assert cost.energy_parts_j["acc"] == 0
    assert cost.energy_parts_j["dram"] == cost.traffic_bits["dram"] * 1e-12
    assert "mul user x/÷ 1" in cost.energy_basis and "dram user x/÷ 1" in cost.energy_basis


@pytest.mark.parametrize(("mode", "key"), [("low", "mac.low"), ("high", "mac.high")])
def test_a_format_without_a_price_asks_for_the_energy_of_the_mac(mode, key):
    unit = replace(getattr(NPU.mac, mode), spec=UNPRICED, energy_j=None)
    machine = replace(NPU, mac=replace(NPU.mac, **{mode: unit}))
    with pytest.raises(InputError) as caught:
        price(machine, Gemm(16, 16, 64), mode)
    assert str(caught.value) == (
        f"{NPU.source}: {key}: lns8: got a format that the cost model does not price; expected a float, posit, takum, "
        "fixed-point or block-scaled format or a codebook; give the MAC's energy, as in 'energy: \"0.4 pJ\"'"
    )


def test_a_format_without_a_price_costs_what_the_file_says():
    unit = replace(NPU.mac.low, spec=UNPRICED, energy_j=1e-12)
    cost = price(replace(NPU, mac=replace(NPU.mac, low=unit)), Gemm(16, 16, 64), "low")
    assert cost.energy_parts_j["mul"] == pytest.approx(16 * 16 * 64 * 1e-12, rel=1e-9, abs=0)
    adds = cost.energy_parts_j["acc"] / 1e-12
    assert adds == pytest.approx(round(adds))  # a partial sum costs a whole MAC


def test_static_power_is_counted_over_the_latency():
    machine = replace(NPU, technology=replace(NPU.technology, leakage_w=0.01))
    cost = price(machine, Gemm(16, 16, 64), "low")
    assert cost.energy_parts_j["leak"] == pytest.approx(0.01 * cost.latency_s, rel=1e-9, abs=0)
    assert "static power" not in cost.energy_basis


def test_the_basis_of_the_energy_names_table_class_and_band():
    assert price(NPU, Gemm(64, 64, 64), "low").energy_basis == (
        "estimate, table jouppi2021_7nm (7 nm): mul fit x/÷ 2, acc fit x/÷ 2, register scaled x/÷ 4, idle assumed "
        "x/÷ 4, sram fit x/÷ 2, dram table x/÷ 1.3; static power not given, counted as 0"
    )


# --- parts of a whole operation, derived beside the assertion ---------------------------------------------------------

SMALL = st.integers(1, 40)


@given(SMALL, SMALL, SMALL, st.sampled_from([1, 4]), st.sampled_from(["ws", "os"]))
def test_register_writes_are_the_sum_over_folds(m, n, k, rate, flow):
    rows, columns, a, w, acc = 4, 3, 8, 16, 32
    inner = math.ceil(k / rate)
    high, wide, t = (inner, n, m) if flow == "ws" else (m, n, inner)
    bits = 0
    for i, j in itertools.product(range(0, high, rows), range(0, wide, columns)):
        r, c = min(rows, high - i), min(columns, wide - j)
        if flow == "ws":
            bits += t * r * c * a * rate + t * rows * c * acc + c * rows * (rows + 1) // 2 * w * rate
        else:
            bits += t * r * c * (a * rate + w * rate + acc) + c * rows * (rows + 1) // 2 * acc
    assert (
        register_bits(Array(rows, columns, flow), flow, Problem(m, n, k, rate, Widths(a, w, acc, acc, acc, a, w)))
        == bits
    )


def test_every_part_of_a_uniform_pass():
    m, n, k = 20, 24, 150  # ceil(150/64) = 3 folds along K, 2 along N, one tile
    cost, table = price(NPU, Gemm(m, n, k), "low"), NPU.technology.table
    pj = {part: joules * 1e12 for part, joules in cost.energy_parts_j.items()}
    mul, acc = 1.08 * (1.1 * 16 + 0.9 * 5) * 1e-3, 1.08 * 14.5 * 4 * 1e-3  # one of two modes: 8 % more
    assert pj["mul"] == pytest.approx(m * n * k * mul)
    assert pj["acc"] == pytest.approx((m * n * k + 2 * m * n) * acc)  # two of three folds add to a partial sum
    high = 22.1e-3 + 14.5 * 11 * 1e-3
    idle_slots, engine_slots = 16 * 16 * 4 * cost.cycles - m * n * k, 64 * cost.cycles
    assert pj["idle"] == pytest.approx(0.1 * (idle_slots * (mul + acc) + engine_slots * high))
    bits = {
        "dram": 8 * (m * k + k * n + m * n),
        "sram_reads": 8 * (2 * m * k + k * n + m * n),  # A once per fold along N; outputs on their way to DRAM
        "sram_writes": 8 * (m * n + m * k + k * n),
        "accumulators_reads": 8 * 2 * m * n,  # two sums written and two read back for each output
        "accumulators_writes": 8 * 2 * m * n,
    }
    assert cost.traffic_bits == bits
    sram, psum = (table.sram_energy(kib * 8192).value * 1e12 for kib in (256, 16))
    assert pj["sram"] == pytest.approx((bits["sram_reads"] + bits["sram_writes"]) * sram + 8 * 4 * m * n * psum)
    assert pj["dram"] == pytest.approx(bits["dram"] * 20.3)
    assert pj["side"] == pj["gather"] == pj["leak"] == 0


def test_partial_sums_without_a_buffer_are_in_the_traffic_of_the_sram():
    machine = replace(NPU, memory=replace(NPU.memory, accumulators=None))
    gemm = Gemm(20, 24, 150)
    with_buffer, without = price(NPU, gemm, "low").traffic_bits, price(machine, gemm, "low").traffic_bits
    sums = 8 * 2 * 20 * 24
    assert without["sram_reads"] == with_buffer["sram_reads"] + sums
    assert without["sram_writes"] == with_buffer["sram_writes"] + sums
    assert not any(name.startswith("accumulators") for name in without)


def test_every_part_of_a_second_pass_on_the_engine():
    m, n, k = 20, 24, 150
    mask = np.zeros((m, n), bool)
    mask[3, [1, 2, 20]] = mask[7, 5] = True
    gemm = Gemm(m, n, k)
    low, both = price(NPU, gemm, "low"), price(NPU, gemm, "two_pass", mask)
    more = {part: (both.energy_parts_j[part] - low.energy_parts_j[part]) * 1e12 for part in low.energy_parts_j}
    sram = NPU.technology.table.sram_energy(256 * 8192).value * 1e12
    assert more["mul"] == pytest.approx(4 * k * 22.1e-3)
    assert more["acc"] == pytest.approx((4 * k + 4 * 9) * 14.5 * 11 * 1e-3)  # ceil(150/16) = 10 runs, 9 joins
    assert more["register"] == pytest.approx(4 * k * (8 + 8 + 16) * 2.4e-3)
    # Two rows of A, four columns of W, results of 16 bit; the 8 bit by which these are wider go on to the DRAM.
    assert more["gather"] == pytest.approx(8 * (2 * k + 4 * k + 2 * 4 + 4) * sram)
    assert more["sram"] == pytest.approx(2 * m * n * sram)  # the mask
    assert more["side"] == pytest.approx(m * n * 0.9e-3 * 8)
    assert more["dram"] == pytest.approx(4 * 8 * 20.3)  # changed outputs are wider by 8 bit
    assert both.cycles - low.cycles == 4 * 3 + 6  # ceil(150/64) cycles each, and the tree of 64 lanes


def test_every_part_of_a_second_pass_on_the_array():
    m, n, k = 20, 24, 150
    mask = np.zeros((m, n), bool)
    mask[3, [1, 2, 20]] = True
    policy = replace(NPU.policy, gather="row", overlap="none")
    machine, gemm = replace(NPU, policy=policy, side_engine=None), Gemm(m, n, k)
    low, both = price(machine, gemm, "low"), price(machine, gemm, "two_pass", mask)
    more = {part: (both.energy_parts_j[part] - low.energy_parts_j[part]) * 1e12 for part in low.energy_parts_j}
    mul, acc = 1.08 * 22.1e-3, 1.08 * 14.5 * 11 * 1e-3
    macs, joins = n * k, 9 * n
    assert more["mul"] == pytest.approx(macs * mul)
    assert more["acc"] == pytest.approx((macs + joins) * acc)
    assert more["idle"] == pytest.approx(0.1 * (256 * (both.cycles - low.cycles) - macs) * (mul + acc))
    row = Problem(1, n, k, 1, Widths(8, 8, 16, 16, 16, 8, 8))
    assert more["register"] == pytest.approx(2.4e-3 * register_bits(machine.array, "ws", row))
    sram, psum = (machine.technology.table.sram_energy(kib * 8192).value * 1e12 for kib in (256, 16))
    assert more["gather"] == pytest.approx((8 * (2 * k + k * n) + 2 * 16 * n) * sram + 16 * 2 * joins * psum)
    assert more["dram"] == pytest.approx(16 * n * 20.3)  # a row stored again, in the format of the high MAC


def test_two_datapaths_pay_for_the_one_that_rests():
    pair = replace(NPU, mac=replace(NPU.mac, datapath="pair"), side_engine=None, policy=None)
    cost = price(pair, Gemm(20, 24, 150), "low")
    low, high = 22.1e-3 + 58e-3, 22.1e-3 + 159.5e-3
    slots = 256 * 4 * cost.cycles - 20 * 24 * 150
    assert cost.energy_parts_j["idle"] * 1e12 == pytest.approx(0.1 * (slots * low + 256 * cost.cycles * high))
