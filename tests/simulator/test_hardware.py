"""Machine files: what is accepted, what is refused, and the text of each refusal."""
# ruff: noqa: E501 - messages are asserted whole, one a line

import math
import re
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

import simulator.hardware.load as loader
from formats import Use
from simulator.arithmetic.spec import mac
from simulator.cost import Gemm, price
from simulator.errors import InputError
from simulator.hardware import Array, VectorUnit, load_hardware, schema
from simulator.hardware.order import array_order
from simulator.hardware.quantities import parse_quantity
from simulator.hardware.tables import bundled_table, table_names
from simulator.hardware.technology import BANDS

ROOT = Path(__file__).parent.parent.parent
NPU = (ROOT / "hwconfigs" / "npu.yaml").read_text()
SHORT = "array: {rows: 16, columns: 16}\nmac: {low: fma(fp8_e4m3)}\n"


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Load a text (or bytes) as m.yaml; return the message of the refusal as its lines."""
    monkeypatch.chdir(tmp_path)

    def load(content):
        Path("m.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(InputError) as caught:
            load_hardware("m.yaml")
        return str(caught.value).split("\n")

    return load


@pytest.fixture
def accepted(tmp_path):
    def load(content):
        path = tmp_path / "m.yaml"
        path.write_text(content)
        return load_hardware(path)

    return load


def edited(old: str, new: str) -> str:
    assert old in NPU
    return NPU.replace(old, new, 1)


# --- what is accepted -------------------------------------------------------------------------------------------------


def test_npu_is_found_by_name_and_carries_the_order_of_its_array():
    npu = load_hardware("npu")
    assert npu.name == "npu"
    assert str(npu.mac.low.spec) == "fp8_e4m3/sat -> chunk(64, fma(fp8_e4m3/sat), seq(fp8_e4m3/sat))"
    assert str(npu.mac.high.spec) == "fp8_e4m3/sat -> chunk(16, fma(fp16/sat), seq(fp16/sat))"
    assert (npu.mac.low.accumulator_bits, npu.mac.high.accumulator_bits) == (8, 16)
    assert npu.memory.dram.bandwidth_bits_per_cycle == Fraction(1024, 5)
    assert (npu.memory.dram.latency_cycles, npu.memory.buffers[0].size_bits) == (100, 256 * 8192)
    assert (npu.policy.tolerance, npu.policy.gather, npu.policy.overlap) == (0.5, "element", "tile")
    assert replace(load_hardware(ROOT / "hwconfigs" / "npu.yaml"), source=npu.source) == npu


def test_the_shortest_file_gets_the_documented_defaults(accepted):
    machine = accepted(SHORT)
    assert machine.name == "m"
    assert (machine.memory, machine.side_engine, machine.policy, machine.mac.high, machine.mac.datapath) == (None,) * 5
    assert (machine.technology.table.name, machine.technology.frequency_hz) == ("jouppi2021_7nm", 1e9)
    assert (machine.array.dataflow, machine.array.load, machine.array.drain) == ("ws", "overlapped", "overlapped")
    assert str(machine.mac.low.spec) == "chunk(16, fma(fp8_e4m3), seq(fp8_e4m3))"


def test_two_modes_default_to_two_passes_on_what_the_machine_has(accepted):
    two = SHORT.replace("}\n", ", high: fma(fp16)}\n").replace("16, high: fma(fp16)}", "16}", 1)
    machine = accepted(two)
    assert (machine.policy.gather, machine.policy.overlap, machine.mac.datapath) == ("coltile", "none", "multi_mode")
    machine = accepted(two + "side_engine: {lanes: 8}\n")
    assert (machine.policy.gather, machine.policy.overlap) == ("element", "tile")
    assert accepted(two + "policy: {kind: uniform}\n").policy is None


@pytest.mark.parametrize(
    ("dataflow", "written", "meant"),
    [
        ("ws", "seq(fp16, fp32)", "chunk(64, seq(fp16, fp32), seq(fp32))"),
        ("is", "fma(fp16/sat)", "chunk(64, fma(fp16/sat), seq(fp16/sat))"),
        ("ws", "late(fma(fp16))", "late(chunk(64, fma(fp16), seq(fp16)))"),
        ("ws", "chunk(64, fma(fp16), seq(fp32))", "chunk(64, fma(fp16), seq(fp32))"),
        ("ws", "{chunk: 64, inner: fma(fp16), outer: {seq: fp32}}", "chunk(64, fma(fp16), seq(fp32))"),
        ("os", "fma(fp16)", "fma(fp16)"),
        ("ws", "exact(fp16)", "exact(fp16)"),
        ("best", "exact(fp16)", "exact(fp16)"),
    ],
)
def test_the_order_follows_from_the_array(accepted, dataflow, written, meant):
    machine = accepted(
        f"array: {{rows: 16, columns: 8, dataflow: {dataflow}}}\n"
        f"mac: {{low: {{operands: fp8_e4m3, accumulator: '{written}', rate: 4 MAC/cycle}}}}\n".replace(
            "'{", "{"
        ).replace("}'", "}")
    )
    assert str(machine.mac.low.spec.accumulator) == meant


def test_the_order_of_the_array_is_idempotent():
    once = array_order(mac("fma(fp16/sat)").accumulator, Array(16, 16), 4)
    assert str(once) == "chunk(64, fma(fp16/sat), seq(fp16/sat))"
    assert array_order(once, Array(16, 16), 4) == once


def test_widths_of_states_partial_sums_and_outputs(accepted):
    text = "array: {rows: 16, columns: 8}\nmac: {low: 'fp8_e4m3*fp16 -> chunk(16, fma(fp16), seq(fp32)) -> bf16'}\n"
    low = accepted(text).mac.low
    assert [fmt.name for fmt in low.operand_formats] == ["fp8_e4m3", "fp16"]
    assert (low.accumulator_bits, low.partial_sum_bits, low.output_bits) == (16, 32, 16)


def test_stored_results_change_the_bill_and_no_bit(accepted):
    text = """array: {rows: 16, columns: 8}
mac: {low: {operands: int8, accumulator: "fixed(32, 0, wrap)"}}
memory:
  dram: {bandwidth: "8 B/cycle"}
  sram: {size: "64 KiB", read: "128 B/cycle", write: "128 B/cycle"}
  accumulators: {size: "4 KiB"}
"""
    sums, stored = accepted(text), accepted(text.replace('wrap)"', 'wrap)", stored: int8'))
    assert stored.mac.low.spec == sums.mac.low.spec
    assert (sums.mac.low.output_bits, stored.mac.low.output_bits, stored.mac.low.partial_sum_bits) == (32, 8, 32)
    before, after = (price(machine, Gemm(10, 20, 30), "low").traffic_bits for machine in (sums, stored))
    saved = 10 * 20 * (32 - 8)
    changed = {name: before[name] - bits for name, bits in after.items() if bits != before[name]}
    assert changed == {"dram": saved, "sram_writes": saved, "sram_reads": saved}  # written, and read for the store


@pytest.mark.parametrize("form", ["mxfp4", "bf16/sr", "fp99"])
def test_stored_results_are_single_values_rounded_without_random_words(refused, form):
    (message,) = refused(SHORT.replace("fma(fp8_e4m3)}", f"{{accumulator: fma(fp8_e4m3), stored: {form}}}}}"))
    assert re.match(r"m\.yaml:2:\d+: mac\.low\.stored: got ", message)


def test_a_vector_unit_has_a_format_lanes_and_an_energy(accepted):
    assert accepted(SHORT).vector_unit == VectorUnit(Use.parse("fp32"), None, None)
    unit = "vector_unit: {format: bf16/rz, lanes: 8, energy: 0.25 pJ}\n"
    assert accepted(SHORT + unit).vector_unit == VectorUnit(Use.parse("bf16/rz"), 8, 0.25e-12)
    assert accepted(SHORT + "vector_unit: {lanes: 8, energy: auto}\n").vector_unit.energy_j is None
    assert load_hardware("npu").vector_unit == VectorUnit(Use.parse("fp32"), 16)


def test_yaml_1_2_numbers_are_numbers(accepted):
    assert accepted(edited("tolerance: 0.5", "tolerance: 1e-3")).policy.tolerance == 1e-3
    assert accepted(edited("tolerance: 0.5", "tolerance: .inf")).policy.tolerance == math.inf
    assert accepted("﻿" + SHORT).array.rows == 16


def test_units_are_read_exactly():
    cases = {
        "25.6 GB/s": (Fraction("204.8e9"), "bandwidth"),
        "0.5 B/cycle": (4, "bandwidth per cycle"),
        "256 KiB": (256 * 8192, "size"),
        "256 kB": (256 * 8000, "size"),
        "0.179 pJ/bit": (Fraction("0.179e-12"), "energy per bit"),
        "1.5e-3 µs": (Fraction("1.5e-9"), "time"),
    }
    for text, (value, dimension) in cases.items():
        found = parse_quantity(text, (dimension,), "")
        assert (found.value, found.dimension) == (value, dimension)


def test_latency_and_bandwidth_follow_the_clock(accepted):
    memory = accepted(edited('"1 GHz"', '"0.5 GHz"')).memory
    assert (memory.dram.latency_cycles, memory.dram.bandwidth_bits_per_cycle) == (50, Fraction(2048, 5))
    assert memory.buffers[0].read_bits_per_cycle == 1024


def test_with_tolerance_is_a_copy(accepted):
    npu = load_hardware("npu")
    assert npu.with_tolerance(0.25).policy.tolerance == 0.25
    assert npu.policy.tolerance == 0.5
    assert npu.with_tolerance(math.inf).mac is npu.mac
    for bad in (-1, math.nan, True, "x"):
        with pytest.raises(InputError, match=r"^tolerance: got .*; expected a number >= 0 or infinity; give e.g. 0.5$"):
            npu.with_tolerance(bad)
    with pytest.raises(
        InputError, match=r"without a two-pass policy; expected a machine with mac\.high; leave the tolerance out"
    ):
        accepted(SHORT).with_tolerance(0.5)


# --- what is refused --------------------------------------------------------------------------------------------------

COUNT = "expected a whole number from 1 to 1048576; write e.g. 16"
REFUSALS = [
    ("dataflow: ws", "dataflw: ws", '13:3: array.dataflw: unknown key; did you mean "dataflow"?'),
    ("rows: 16 ", "rows: 0 ", f"11:9: array.rows: got 0; {COUNT}"),
    ("rows: 16 ", "rows: -16 ", f"11:9: array.rows: got -16; {COUNT}"),
    ("rows: 16 ", "rows: 016 ", f"11:9: array.rows: got '016'; {COUNT}"),
    ("rows: 16 ", "rows: 1:30 ", f"11:9: array.rows: got '1:30'; {COUNT}"),
    ("rows: 16 ", "rows: 16.0 ", f"11:9: array.rows: got 16.0; {COUNT}"),
    ("rows: 16 ", "rows: 9" + 30 * "9" + " ", f"11:9: array.rows: got '{31 * '9'}'; {COUNT}"),
    ("rows: 16 ", "rows: yes ", f"11:9: array.rows: got 'yes'; {COUNT}"),
    ("rows: 16 ", "rows: ", "11:8: array.rows: got nothing; expected a value; write one, or remove the key"),
    ("rows: 16 ", "rows: 16\n  rows: 8 ", "12:3: array.rows: duplicate key; expected it once, and line 11 has it already; remove one"),
    ('"1 GHz"', "1", '8:14: technology.frequency: got 1 without a unit; expected a frequency; write e.g. "1 GHz"'),
    ('"1 GHz"', '"1"', '8:14: technology.frequency: got 1 without a unit; expected a frequency; write e.g. "1 GHz"'),
    ('"1 cycle"', '"1 furlong"', "16:12: array.latency: got '1 furlong', and 'furlong' is no unit; expected cycles; write e.g. \"1 cycle\""),
    ('"1 GHz"', '"1 ghz"', "8:14: technology.frequency: got '1 ghz', and 'ghz' is no unit; expected a frequency; did you mean \"GHz\"?"),
    ('"1 GHz"', '"1 ns"', "8:14: technology.frequency: got '1 ns', which is a time; expected a frequency; write e.g. \"1 GHz\""),
    ('"1 GHz"', '"1GHz"', "8:14: technology.frequency: got '1GHz'; expected a space before the unit; write \"1 GHz\""),
    ('"1 GHz"', "fast", "8:14: technology.frequency: got 'fast'; expected a frequency as a number, a space and a unit; write e.g. \"1 GHz\""),
    ('"1 GHz"', '"-1 GHz"', "8:14: technology.frequency: got '-1 GHz'; expected a value from 1000 Hz to 1e+12 Hz; write e.g. \"1 GHz\""),
    ('"1 GHz"', '"1e999999999 GHz"', "8:14: technology.frequency: got '1e999999999 GHz', and 'e999999999 GHz' is no unit; expected a frequency; write e.g. \"1 GHz\""),
    ('"1 GHz"', ".nan", '8:14: technology.frequency: got nan without a unit; expected a frequency; write e.g. "1 GHz"'),
    ('size: "256 KiB"', 'size: "0 KiB"', "35:11: memory.sram.size: got '0 KiB'; expected a value from 8 bit to 1.1259e+15 bit; write e.g. \"256 KiB\""),
    ('size: "256 KiB"', 'size: "9999999 TiB"', "35:11: memory.sram.size: got '9999999 TiB'; expected a value from 8 bit to 1.1259e+15 bit; write e.g. \"256 KiB\""),
    ('size: "256 KiB"', 'size: "1.03 B"', "35:11: memory.sram.size: got '1.03 B'; expected a whole number; write e.g. \"256 KiB\""),
    ('size: "256 KiB"', 'size: "256 kib"', "35:11: memory.sram.size: got '256 kib', and 'kib' is no unit; expected a size; did you mean \"KiB\"?"),
    ('"25.6 GB/s"', '"25.6 GB"', "31:16: memory.dram.bandwidth: got '25.6 GB', which is a size; expected a bandwidth or a bandwidth per cycle; write e.g. \"25.6 GB/s\""),
    ("energy: auto              # 20.3", "energy: 0.40 ns # 20.3", "33:13: memory.dram.energy: got '0.40 ns', which is a time; expected an energy per bit; write e.g. \"0.18 pJ/bit\" or \"auto\""),
    ("energy: auto              # 0.080", "energy: 0.4 # 0.080", '22:13: mac.low.energy: got 0.4 without a unit; expected an energy; write e.g. "0.40 pJ" or "auto"'),
    ('"4 MAC/cycle"', '"1.5 MAC/cycle"', "21:11: mac.low.rate: got '1.5 MAC/cycle'; expected a whole number; write e.g. \"4 MAC/cycle\""),
    ("buffers: 2", "buffers: true", "38:14: memory.sram.buffers: got true; expected a whole number from 1 to 16; write e.g. 2"),
    ("overlap: tile", "overlap: off", "55:12: policy.overlap: got 'off'; expected one of none, tile; write e.g. none"),
    ("tolerance: 0.5", "tolerance: -0.5", "53:14: policy.tolerance: got -0.5; expected a plain number >= 0, or .inf; write e.g. 0.5"),
    ("tolerance: 0.5", "tolerance: 1.0e+400", "53:14: policy.tolerance: got '1.0e+400'; expected a plain number >= 0, or .inf; write e.g. 0.5"),
    ("tolerance: 0.5", "tolerance: .nan", "53:14: policy.tolerance: got nan; expected a plain number >= 0, or .inf; write e.g. 0.5"),
    ("tolerance: 0.5", "tolerance: '0.5'", "53:14: policy.tolerance: got '0.5'; expected a plain number >= 0, or .inf; write e.g. 0.5"),
    ("score: kappa_prime", "score: kappa_exact", "51:10: policy.score: got 'kappa_exact'; expected one of kappa_prime, kappa_full, norm1, norm2, norm_inf, random, sensitivity, largest, smallest, lamp, lamp_absolute; write e.g. kappa_prime"),
    ("side_metric: output", "side_metric: abs_sum", "52:16: policy.side_metric: got abs_sum with policy.score: kappa_prime, which is computed with output or norm_bound; expected output or norm_bound, or policy.score: kappa_full; change one of the two"),
    ("score: kappa_prime", "score: norm2", "52:16: policy.side_metric: got output with policy.score: norm2, which is computed with norm_bound; expected norm_bound, or policy.score: kappa_prime or random or sensitivity or largest or smallest or lamp; change one of the two"),
    ("side_metric: output", "side_metric: output\n  side_format: fp16", "53:16: policy.side_format: got fp16 with policy.side_metric: output, which keeps no running sum; expected none; remove it"),
    ("side_metric: output", "side_format: posit16", "52:16: policy.side_format: got posit16; expected a float or an integer, whose sums have a price; write e.g. uint16"),
    ("side_metric: output", "side_format: 16", "52:16: policy.side_format: got 16; expected a format; write e.g. uint16"),
    ("weights: both", "weights: cut", "56:12: policy.weights: got 'cut'; expected one of both, high_only, sliced; write e.g. both"),
    ("lanes: 64", "rows: 8", "46:3: side_engine.lanes: missing; expected MACs per cycle of a dot-product engine; add e.g. 'lanes: 64'"),
    ("lanes: 64", "lanes: 64\n  rows: 8", "48:9: side_engine.rows: got 8 with side_engine.kind: dot; expected lanes; remove it, or write kind: array"),
    ("kind: dot", "kind: array", "47:10: side_engine.lanes: got 64 with side_engine.kind: array; expected rows and columns; remove it, or write kind: dot"),
    ("kind: dot", "kind: array", "46:3: side_engine.columns: missing; expected columns of PEs of an array; add e.g. 'columns: 8'"),
    ("kind: dot\n  lanes: 64 ", "kind: array\n  rows: 6\n  columns: 6 ", "47:9: side_engine.rows: got 6, in which sums would end elsewhere than in the 16 of array.rows; expected a number that divides these, so that the second pass sums in the order of mac.high; change one of the two"),
    ("kind: dot\n  lanes: 64 ", "kind: array\n  rows: 8\n  columns: 8 ", "55:11: policy.gather: got element without a dot-product engine; expected row, coltile or tile; write one, or side_engine.kind: dot"),
    ("overlap: tile", "runs_on: array", "55:12: policy.runs_on: got array, which cannot take single outputs, with policy.gather: element; expected side_engine; write it, or another gather"),
    ("datapath: multi_mode", "datapath: shared", "28:13: mac.datapath: got 'shared'; expected one of multi_mode, pair, composed; write e.g. multi_mode"),
    ("datapath: multi_mode", "datapath: composed", "26:11: mac.high.rate: got 1 MAC/cycle with mac.datapath: composed, which takes the 4 of mac.low together, in several cycles; expected no rate; remove it"),
    ("weights: both", "weights: both\n  recompute_nonfinite: off", "57:24: policy.recompute_nonfinite: got 'off'; expected true or false; write one of them without quotes"),
    ("accumulator: fma(fp16/sat)", "accumulator: fma(fp61)", "25:18: mac.high.accumulator: got what is no arithmetic: format 'fp61' is unknown; did you mean fp64 or fp16 or fp6_e3m2?; expected an accumulator; write e.g. fma(fp16)"),
    ("accumulator: fma(fp16/sat)", "accumulator: [fma]", "25:18: mac.high.accumulator: got what is no arithmetic: a list instead of text or a mapping; expected an accumulator; write e.g. fma(fp16)"),
    ("accumulator: fma(fp16/sat)", "accumulator: {fma: true}", "25:18: mac.high.accumulator: got what is no arithmetic: true instead of text or a mapping; expected an accumulator; write e.g. fma(fp16)"),
    ("accumulator: fma(fp16/sat)", "accumulator: aligned(32, 13, fp32/rz)", "25:18: mac.high.accumulator: got steps of 32 products, which do not fill the runs of 16 = array.rows (16) times rate (1) of this array; make that a multiple of 32, or set array.dataflow to os"),
    ("accumulator: fma(fp16/sat)", "accumulator: chunk(8, fma(fp16), seq(fp16))", "25:18: mac.high.accumulator: got runs of 8; expected 16 = array.rows (16) times rate (1); write fma(fp16) and let the order follow from the array, change array.rows or rate, or set array.dataflow to os"),
    ("accumulator: fma(fp16/sat)", "accumulator: fma(mxfp4)", "25:18: mac.high.accumulator: got what is no arithmetic: mxfp4: accumulators and outputs are single values; mxfp4, whose values share scales, can be an operand; expected an accumulator; write e.g. fma(fp16)"),
    ("accumulator: fma(fp16/sat)", "accumulator: fma(binary16p1se)", "25:18: mac.high.accumulator: got what is no arithmetic: binary16p1se has values that float64, in which arrays are kept, does not hold; take a format of a narrower range, such as fp32; expected an accumulator; write e.g. fma(fp16)"),
    ("accumulator: fma(fp16/sat)", "accumulator: fma(fp16/sat)\n    output: binary16p1se", "26:13: mac.high.output: got what is no arithmetic: binary16p1se has values that float64, in which arrays are kept, does not hold; take a format of a narrower range, such as fp32; expected a format; write e.g. fp8_e4m3/sat"),
    ("operands: fp8_e4m3/sat    # OCP", "operands: binary16p1se # OCP", "19:15: mac.low.operands: got what is no arithmetic: binary16p1se has values that float64, in which arrays are kept, does not hold; take a format of a narrower range, such as fp32; expected a format, or a list of two; write e.g. fp8_e4m3"),
    ("operands: fp8_e4m3/sat    # OCP", "operands: 8 # OCP", "19:15: mac.low.operands: got 8; expected a format, or a list of two; write e.g. fp8_e4m3"),
    ("operands: fp8_e4m3/sat    # OCP", "operands: e4m3 # OCP", "19:15: mac.low.operands: got what is no arithmetic: format 'e4m3' is ambiguous; write one of: fp8_e4m3 (OCP, largest 448), e4m3:ieee (largest 240), fp8_e4m3fnuz (largest 240, bias 8); expected a format, or a list of two; write e.g. fp8_e4m3"),
    ("schema: 1", "schema: 2", "4:9: schema: got 2; expected 1, the only version so far; write 1"),
    ("schema: 1", "schema: true", "4:9: schema: got true; expected 1, the only version so far; write 1"),
    ("name: npu", "name: [npu]", "5:7: name: got a list; expected a name of at most 100 printable characters; write e.g. npu"),
    ("table: jouppi2021_7nm", "table: jouppi", "9:10: technology.table: got 'jouppi'; expected one of horowitz2014_45nm, jouppi2021_7nm, or the path of a YAML file; write one of them"),
    ('node: "7 nm"', 'given_class: guess', "7:16: technology.given_class: got 'guess'; expected one of user, table, fit, scaled, assumed; write e.g. user"),
    ("drain: overlapped", "drain: none", "15:10: array.drain: got none with array.dataflow: ws; expected overlapped or exposed; write one of them"),
    ("dataflow: ws", "interleave: 2", "13:15: array.interleave: got 2 with array.dataflow: ws, whose PEs keep one sum; expected 1, or array.dataflow: os; change one of the two"),
    ("lanes: 64", "lanes: 64\n  queue: 0", "48:10: side_engine.queue: got 0; expected a whole number from 1 to 1048576; write e.g. 64"),
    ("lanes: 64", "lanes: 64\n  depth: 64", "48:3: side_engine.depth: unknown key; expected one of kind, lanes, rows, columns, mac, queue; remove it"),
    ("array:\n", "array: &a\n", "10:8: got the anchor &a; expected plain values; write the value out"),
    ("dataflow: ws", "dataflow: *a", "13:13: got the alias *a; expected plain values; write the value out"),
    ("dataflow: ws", "dataflow: !!python/name:os.system ws", "13:13: got the tag tag:yaml.org,2002:python/name:os.system; expected plain values; write the value out"),
    ("  rows: 16", "\trows: 16", "11:1: got a tab; expected spaces as indentation; replace it by spaces"),
    ("lanes: 16  ", "lanes: 0  ", "59:10: vector_unit.lanes: got 0; expected a whole number from 1 to 1048576; write e.g. 16"),
    ("energy: auto                # 0.35", "energy: 1 pJ/bit # 0.35", "60:11: vector_unit.energy: got '1 pJ/bit', which is an energy per bit; expected an energy; write e.g. \"0.40 pJ\" or \"auto\""),
    ("policy:\n", "policy: two_pass\nx:\n", "49:9: policy: got 'two_pass'; expected a mapping with keys out of kind, score, side_metric, side_format, tolerance, ladder, budget, budget_over, sign_safe, plan, gather, runs_on, overlap, weights, recompute_nonfinite, recompute_saturated; indent them below"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), REFUSALS, ids=[f"{new[:40]!r}" for _, new, _ in REFUSALS])
def test_a_wrong_value_is_refused_with_place_value_expectation_and_remedy(refused, old, new, message):
    assert f"m.yaml:{message}" in refused(edited(old, new))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "m.yaml:1:1: the file is empty; expected a mapping; write 'key: value' lines"),
        ("# nothing\n", "m.yaml:1:1: the file is empty; expected a mapping; write 'key: value' lines"),
        ("- a\n", "m.yaml:1:1: got a list at the top; expected a mapping; write 'key: value' lines"),
        ("npu", "m.yaml:1:1: got 'npu' at the top; expected a mapping; write 'key: value' lines"),
        (SHORT + "---\n" + SHORT, "m.yaml:3:1: got a second document; expected one per file; remove the '---'"),
        (
            "a: [1, 2\n",
            "m.yaml:2:1: YAML syntax while parsing a flow sequence: expected ',' or ']', but got '<stream end>'; "
            "expected 'key: value' lines; check indentation, quotes and brackets",
        ),
        ("? [a]\n: 1\n", "m.yaml:1:3: got a list or mapping as key; expected a name; write 'name: value'"),
        (
            "a: 1\nb: '\x01'\n",
            "m.yaml:2:5: got the character U+0001, which YAML forbids; expected plain text; remove it",
        ),
        (b"a: 1\nb: \xff\n", "m.yaml:2:4: got byte 0xff; expected UTF-8; save the file as UTF-8"),
        (SHORT.encode("utf-16"), "m.yaml:1:1: got byte 0xff; expected UTF-8; save the file as UTF-8"),
        (
            'a: 1\nname: "\\UFFFFFFFF"\n',
            "m.yaml:2:10: got what YAML cannot read (Python int too large to convert to C int); expected plain text; "
            "write the characters out",
        ),
        ("[" * 5000, "m.yaml: nested too deeply; expected a few levels; flatten it"),
        (b"#" * (1 << 21), "m.yaml: got more than 1 MiB; expected a short YAML file; check that it is the right one"),
    ],
    ids=range(13),
)
def test_a_file_that_is_no_mapping_is_refused(refused, content, message):
    assert refused(content) == [message]


@pytest.mark.parametrize("form", ["{}", "fp8_e4m3 -> {}"])
@pytest.mark.parametrize("depth", [3000])
def test_a_mac_nested_too_deeply_is_refused_with_its_place(refused, form, depth):
    deep = "late(" * depth + "fma(fp16)" + ")" * depth
    (line,) = refused(f"array: {{rows: 16, columns: 16}}\nmac:\n  low: '{form.format(deep)}'\n")
    assert line.startswith("m.yaml:3:8: mac.low: got what is ")
    assert line.endswith("expected [OPERANDS ->] ACCUMULATOR [-> OUTPUT]; write e.g. fp8_e4m3 -> fma(fp16)")


@pytest.mark.parametrize("depth", [100, 300, 3000])
def test_an_accumulator_nested_too_deeply_as_a_mapping_is_refused(refused, depth):
    deep = "{late: " * depth + "fma(fp16)" + "}" * depth
    (line,) = refused(f"array: {{rows: 16, columns: 16}}\nmac: {{low: {{accumulator: {deep}}}}}\n")
    assert line.startswith("m.yaml") and len(line) < 2000


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("policy: {}\n", "3:9: policy: got a two-pass policy for a machine with one MAC; expected mac.high beside mac.low; add mac.high, or write kind: uniform"),
        ("policy: {kind: two_pass}\n", "3:16: policy.kind: got a two-pass policy for a machine with one MAC; expected mac.high beside mac.low; add mac.high, or write kind: uniform"),
        ("policy: {kind: uniform, tolerance: 1}\n", "3:36: policy.tolerance: got a key of a two-pass policy with policy.kind: uniform; expected kind alone; remove it"),
        ("side_engine: {lanes: 4}\n", "3:14: side_engine: got an engine that a machine with one MAC does not use; expected none; remove it"),
        ("memory: {dram: {bandwidth: 1 GB/s}}\n", "3:9: memory: got no on-chip level that holds a, w, o; expected one for each of a, w and o; add e.g. 'sram: {size: 256 KiB, read: ..., write: ...}'"),
        ("vector_unit: {energy: 1 pJ}\n", "3:23: vector_unit.energy: got an energy without vector_unit.lanes, without which nothing of the unit is priced; expected both or none; add lanes, or remove it"),
        ("technology: {node: 5 nm}\n", "3:20: technology.node: got 5 nm; expected a node with a technology table: 45 nm (horowitz2014_45nm), 7 nm (jouppi2021_7nm), or one next to it, scaled: 65 nm, 10 nm; write one of them, or name the table whose numbers to take as they are as technology.table"),
    ],
)  # fmt: skip
def test_keys_that_do_not_go_together_are_named(refused, more, message):
    assert refused(SHORT + more) == [f"m.yaml:{message}"]


def test_datapath_belongs_to_two_modes(refused):
    text = "array: {rows: 16, columns: 16}\nmac: {low: fma(fp16), datapath: pair}\n"
    message = "got a datapath of two modes; expected mac.high beside it; remove it, or add mac.high"
    assert refused(text) == [f"m.yaml:2:33: mac.datapath: {message}"]


def test_an_array_gather_uses_neither_engine_nor_overlap(refused):
    assert refused(edited("gather: element", "gather: row")) == [
        "m.yaml:46:3: side_engine: got an engine that policy.gather: row does not use, as it runs on the array; expected none; remove it, or write policy.runs_on: side_engine",
        "m.yaml:55:12: policy.overlap: got tile, but policy.gather: row runs on the array itself; expected none; write none",
    ]


def test_a_group_of_outputs_runs_on_the_engine_that_the_policy_names(accepted, refused):
    on_dot = accepted(edited("gather: element", "gather: row\n  runs_on: side_engine"))
    assert (on_dot.recomputing_engine.lanes, on_dot.recomputing_engine.array) == (64, None)
    array = edited("kind: dot\n  lanes: 64 ", "kind: array\n  rows: 8\n  columns: 4\n  queue: 32 ")
    machine = accepted(array.replace("gather: element", "gather: coltile"))
    engine = machine.recomputing_engine
    assert (engine.lanes, engine.queue, engine.array) == (32, 32, replace(machine.array, rows=8, columns=4))
    assert (machine.policy.runs_on, machine.policy.overlap) == ("side_engine", "tile")
    without = array[: array.index("side_engine:")] + array[array.index("policy:") :]
    assert refused(without.replace("gather: element", "gather: row\n  runs_on: side_engine")) == [
        "m.yaml:51:12: policy.runs_on: got side_engine in a machine without one; expected array; write it, or add side_engine",
    ]


def test_an_engine_of_another_height_needs_sums_without_order_or_in_the_pes(accepted):
    text = "array: {rows: 16, columns: 16, dataflow: FLOW}\nmac: {low: fp8_e4m3 -> fma(fp16), high: MAC}\n"
    text += "side_engine: {kind: array, rows: 6, columns: 6}\n"
    for flow, high in (("os", "fp8_e4m3 -> fma(fp32)"), ("ws", "fp8_e4m3 -> exact(fp32)")):
        machine = accepted(text.replace("FLOW", flow).replace("MAC", high))
        assert (machine.policy.gather, machine.recomputing_engine.array.rows) == ("coltile", 6)


def test_the_score_decides_on_the_hardware(accepted):
    for score, metric in (("kappa_full", "abs_sum"), ("norm1", "norm_bound"), ("kappa_prime", "output")):
        policy = accepted(edited("score: kappa_prime\n  side_metric: output", f"score: {score}")).policy
        assert (policy.side_metric, str(policy.side_format)) == (metric, "uint16" if metric == "abs_sum" else "None")
    full = edited("score: kappa_prime\n  side_metric: output", "score: kappa_full\n  side_format: bf16")
    assert str(accepted(full).policy.side_format) == "bf16"
    full = edited("score: kappa_prime\n  side_metric: output", "score: kappa_full\n  side_metric: second_pass")
    assert accepted(full).policy.side_format is None


SLICED = """
array: {rows: 8, columns: 8}
mac:
  low: {operands: LOW, accumulator: fma(fp16)}
  high: {operands: HIGH, accumulator: fma(fp32)}
policy: {weights: sliced}
"""


@pytest.mark.parametrize(
    ("low", "high", "fits"),
    [
        ("fp8_e5m2/rz", "fp16", True), ("fp8_e5m2", "fp16", False), ("fp8_e4m3/rz", "fp16", False),
        ("fp16/rz", "fp8_e5m2", False), ("bf16/rz", "fp32", True), ("fp8_e4m3", "fp8_e4m3", True),
        ("int8", "int16", False), ("int4/rd", "fix8.4", True), ("int4/rz", "fix8.4", False), ("int4/rd", "fix12.4", False),
        ("[fp8_e5m2/rz, fp16]", "fp16", True), ("posit8", "posit16", False),
    ],
)  # fmt: skip
def test_slices_are_the_leading_bits_of_an_operand(accepted, refused, low, high, fits):
    text = SLICED.lstrip().replace("LOW", low).replace("HIGH", high)
    if fits:
        assert accepted(text).policy.weights == "sliced"
        return
    (line,) = refused(text)
    assert line.startswith(
        f"m.yaml:5:19: policy.weights: got sliced with operands {low}*{low} in mac.low and {high}*{high}"
    )
    assert line.endswith("write both, or change the operands")


def test_output_stationary_has_no_stationary_load_and_no_buffer_of_partial_sums(refused):
    assert refused(edited("dataflow: ws", "dataflow: os")) == [
        "m.yaml:14:9: array.load: got a load mode with array.dataflow: os, which has no stationary load; expected none; remove it",
        "m.yaml:42:5: memory.accumulators: got a buffer of partial sums with array.dataflow: os, which sums in the PEs; "
        "expected none; remove it",
    ]


@pytest.mark.parametrize(
    "accumulator",
    ["chunk(8, fma(fp16), seq(fp16))", "kahan(bf16)", "interleave(2, fma(fp16), seq(fp32))", "fma(fp16/sr:8)"],
)
def test_what_one_pe_of_an_output_stationary_array_does_is_taken_as_written(accepted, accumulator):
    array = "array: {rows: 4, columns: 4, dataflow: os}\n"
    assert str(accepted(f"{array}mac: {{low: '{accumulator}'}}\n").mac.low.spec.accumulator) == accumulator


@pytest.mark.parametrize(
    ("low", "meant"),
    [
        ("{accumulator: h100.fp16}", "fp16 -> aligned(n=16, frac=25, out=fp32/rz, e_min=-133)"),
        ("{accumulator: h100.fp8.wgmma}", "fp8_e4m3 -> aligned(n=32, frac=13, out=e8m13/rz, e_min=-133)"),
        ("{accumulator: h100.fp16, output: fp16}", "fp16 -> aligned(n=16, frac=25, out=fp16, e_min=-133)"),
        ("{accumulator: h100.fp16, operands: bf16, output: bf16}",
         "bf16 -> aligned(n=16, frac=25, out=fp32/rz, e_min=-133) -> bf16"),
        ("{accumulator: {chunk: 128, inner: h100.fp8.wgmma, outer: seq(fp32)}, operands: fp8_e5m2}",
         "fp8_e5m2 -> chunk(128, aligned(n=32, frac=13, out=e8m13/rz, e_min=-133), seq(fp32))"),
    ],
)  # fmt: skip
def test_a_preset_brings_its_formats(accepted, low, meant):
    mode = f"{low.removesuffix('}')}, rate: 32 MAC/cycle}}"
    assert str(accepted(f"array: {{rows: 4, columns: 4, dataflow: os}}\nmac: {{low: {mode}}}\n").mac.low.spec) == meant


def test_a_preset_in_one_line_is_summed_in_the_order_of_the_array(accepted):
    spec = accepted("array: {rows: 16, columns: 4}\nmac: {low: h100.fp16}\n").mac.low.spec
    assert str(spec) == "fp16 -> chunk(16, aligned(n=16, frac=25, out=fp32/rz, e_min=-133), seq(fp32/rz))"


@pytest.mark.parametrize("dataflow", ["os", "dot"])
@pytest.mark.parametrize(
    ("accumulator", "step"),
    [("fma(fp16, 32)", 32), ("v100.fp16", 4), ("late(chunk(64, fma(fp16, 8), seq(fp32)))", 8)],
)
def test_a_unit_that_keeps_its_sum_takes_whole_steps_in_a_cycle(accepted, refused, dataflow, accumulator, step):
    text = f"array: {{rows: 4, columns: 4, dataflow: {dataflow}}}\nmac: {{low: {{accumulator: '{accumulator}', rate: %s}}}}\n"
    for rate in (step, 2 * step):
        assert accepted(text % f"{rate} MAC/cycle").mac.low.rate == rate
    for rate in (step // 2, step + 1):
        (line,) = refused(text % f"{rate} MAC/cycle")
        assert line.startswith("m.yaml:2:") and line.endswith(
            f"mac.low.accumulator: got steps of {step} products with a rate of {rate} MAC/cycle and array.dataflow: {dataflow}, "
            f"whose PEs add the products of a cycle; expected a rate that is a multiple of {step}; change rate or accumulator"
        )


def test_best_refuses_an_accumulator_with_an_order(refused):
    lines = refused("array: {rows: 4, columns: 4, dataflow: best}\nmac: {low: fma(fp16)}\n")
    assert lines == [
        "m.yaml:2:12: mac.low: got fma(fp16), whose order of summation would change with the dataflow that array.dataflow: best "
        "picks for each operation; expected an accumulator without order; set array.dataflow to ws, is or os, or write "
        "exact(FORMAT)"
    ]


def test_all_problems_of_a_file_come_at_once_in_its_order(refused):
    text = "arry: 1\narray: {rows: 0, columns: x}\nmac: {low: {rate: 4}}\nmemory: {dram: {bandwidth: 1 W}, sram: 5}\n"
    assert [re.match(r"m\.yaml:(\d+):(\d+): ([\w.]+): ", line).groups() for line in refused(text)] == [
        ("1", "1", "arry"),
        ("2", "15", "array.rows"),
        ("2", "27", "array.columns"),
        ("3", "12", "mac.low.accumulator"),
        ("3", "19", "mac.low.rate"),
        ("4", "28", "memory.dram.bandwidth"),
        ("4", "40", "memory.sram"),
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("npo", "hardware: got 'npo', no file and no bundled machine; expected one of npu; did you mean \"npu\"?"),
        (
            "zzz",
            "hardware: got 'zzz', no file and no bundled machine; expected one of npu; name one of them, or give the path of "
            "a YAML file",
        ),
        ("lost/mine.yaml", "lost/mine.yaml: no such file; expected a YAML file; check the path"),
        (
            "lost/npu.yaml",
            "lost/npu.yaml: no such file; expected a YAML file; write npu for the bundled machine of that name",
        ),
        ("./folder", "./folder: is a directory; expected a YAML file; name a file in it"),
        ("", "hardware: got ''; expected a path or a name; give e.g. npu"),
        (None, "hardware: got nothing; expected a path or a name; give e.g. npu"),
        (3, "hardware: got 3; expected a path or a name; give e.g. npu"),
        ("a\0b.yaml", "a\0b.yaml: cannot be read (embedded null byte); expected a readable YAML file; check it"),
    ],
)
def test_a_missing_machine_says_what_there_is(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loader, "bundled_names", lambda: ["npu"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError) as caught:
        load_hardware(name)
    assert str(caught.value) == message


def test_a_file_comes_before_a_bundled_machine_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "hwconfigs" / "npu.yaml", tmp_path / "mine")
    assert load_hardware("mine").source == "mine"
    (tmp_path / "npu").mkdir()
    assert load_hardware("npu").source == "hwconfigs/npu.yaml"


# --- tables and documentation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", table_names())
def test_every_entry_of_a_technology_table_has_a_source_and_a_class(name):
    table = bundled_table(name)
    entries = [value for value in vars(table).values() if hasattr(value, "source")] + [
        e for _, e in table.sram_j_per_bit
    ]
    assert len(entries) >= 22
    assert all(entry.source and entry.uncertainty in BANDS and entry.value > 0 for entry in entries)


def schema_keys(model: type[BaseModel], prefix: str = ""):
    for name, field in model.model_fields.items():
        key = field.alias or name
        yield prefix + key, field.is_required()
        inner = [t for t in types(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)]
        if inner and key not in ("high", "middle", "weights"):  # as mac.low, and as layers.NAME.activations
            yield from schema_keys(inner[0], f"{prefix}{key}.{'NAME.' if key == 'layers' else ''}")
    if model is schema.MemorySection:
        yield from schema_keys(schema.LevelSection, f"{prefix}NAME.")


def types(annotation):
    yield annotation
    for inner in get_args(annotation):
        yield from types(inner)


def test_the_page_of_keys_lists_every_key_and_which_are_required():
    text = (ROOT / "docs" / "reference" / "config.md").read_text()
    rows = re.findall(r"^\| `([a-zA-Z_.]+)` \| [^|]+ \| [^|]+ \| ([^|]+) \|", text, re.MULTILINE)
    assert {key: default == "**required**" for key, default in rows} == dict(schema_keys(schema.MachineFile))
    assert text.count("## `mac.high`\n\nThe keys of `mac.low`.") == 1


def test_the_example_of_the_readme_loads(accepted):
    text = (ROOT / "hwconfigs" / "README.md").read_text()
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        accepted(block)


TWO_MODES = "array: {rows: 8, columns: 8, dataflow: os}\nmac:\n  low: {accumulator: fma(fp32), operands: LOW}\n  high: {accumulator: fma(fp32), operands: HIGH}\n"


def test_nothing_is_composed_of_what_one_pass_takes(refused):
    text = TWO_MODES.replace("LOW", "fp16").replace("HIGH", "bf16") + "  datapath: composed\npolicy: {kind: uniform}\n"
    (message,) = refused(text)
    assert message == (
        "m.yaml:5:13: mac.datapath: got composed with operands of mac.high that one pass of mac.low's multiplier takes; "
        "expected wider ones; write multi_mode"
    )


def test_wide_operands_are_not_made_of_narrow_ones(refused):
    text = TWO_MODES.replace("LOW", "fp32").replace("HIGH", "fp8_e4m3") + "policy: {gather: row, weights: high_only}\n"
    (message,) = refused(text)
    assert message == (
        "m.yaml:5:32: policy.weights: got high_only with operands of mac.high that are narrower than those of mac.low, "
        "which cannot be made of them; expected wider ones; write both"
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            'adder_j_per_bit: "1e9 J/bit"',
            "got '1e9 J/bit'; expected a value above 0, at most 1 µJ/bit; write e.g. \"0.9 fJ/bit\"",
        ),
        ("posit_factor: 1.0e+308", "got 1e+308; expected at most 10; write e.g. 0.1"),
        ("idle_factor: 5", "got 5; expected at most 1; write e.g. 0.1"),
    ],
)
def test_entries_that_no_circuit_has_are_refused(refused, entry, message):
    (found,) = refused(SHORT + f"technology: {{overrides: {{{entry}}}}}\n")
    assert found.endswith(f"technology.overrides.{entry.partition(':')[0]}: {message}")
