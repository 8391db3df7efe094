"""SCALE-Sim 3.0.0: its recorded results reproduced, and its files read."""

import csv
import json
import math
import random
import re
from pathlib import Path

import pytest

import simulator
from simulator.__main__ import main
from simulator.cost import Gemm, price
from simulator.cost.scalesim import scalesim_convolution, scalesim_input_words, scalesim_layer
from simulator.errors import InputError
from simulator.hardware import load_hardware
from simulator.hardware.scalesim_files import CONVOLUTION, GEMM, read_config, read_topology

VECTORS = Path(__file__).parents[1] / "vectors" / "scalesim"
WS_OS, IS, CONV, USER = (
    list(csv.DictReader((VECTORS / f"scalesim_{name}.csv").read_text().splitlines()))
    for name in ("gemm", "is", "conv", "stall_64")
)
CALC = WS_OS + IS
COUNTS = (
    "total_cycles",
    "stall_cycles",
    "sram_a_reads",
    "sram_w_reads",
    "sram_o_writes",
    "dram_a_reads",
    "dram_w_reads",
)
SHARES = ("overall_util_pct", "mapping_eff_pct", "compute_util_pct")
SIZES = ("ifmap_height", "ifmap_width", "filter_height", "filter_width", "channels", "num_filter", "strides")


def layer_of(row, bandwidth=None):
    m, n, k, rows, cols = (int(row[name]) for name in ("M", "N", "K", "rows", "cols"))
    return scalesim_layer(row["layer"], m, n, k, row["dataflow"], rows, cols, bandwidth)


def convolution_of(row):
    sizes = tuple(int(row[name]) for name in SIZES)
    shape = scalesim_convolution(*sizes)
    return scalesim_layer(
        row["layer"], *shape, row["dataflow"], int(row["rows"]), int(row["cols"]), None, scalesim_input_words(*sizes)
    )


def named(row):
    return f"{row['run']} {row['layer']}"


def test_all_rows_are_there():
    assert (len(WS_OS), len(IS), len(CONV), len(USER)) == (34, 17, 60, 8)


def is_reproduced(found, row):
    for name in COUNTS:
        assert getattr(found, name) == int(row[name]), name
    assert 0 <= int(row["dram_o_writes"]) - found.dram_o_writes <= int(row["cols"]) - 1
    for name in SHARES:
        assert getattr(found, name) == pytest.approx(float(row[name]), rel=1e-9), name


@pytest.mark.parametrize("row", CALC, ids=named)
def test_rows_without_stalls_are_reproduced(row):
    is_reproduced(layer_of(row), row)


@pytest.mark.parametrize("row", CONV, ids=named)
def test_rows_of_convolutions_are_reproduced(row):
    is_reproduced(convolution_of(row), row)


@pytest.mark.parametrize("row", USER, ids=lambda row: row["run"])
def test_rows_with_stalls_lie_within_their_bounds(row):
    total, stalls, bandwidth = (int(row[name]) for name in ("total_cycles", "stall_cycles", "bw_words_per_cycle"))
    found = layer_of(row)
    assert total - stalls == found.total_cycles
    for name in ("sram_a_reads", "sram_w_reads", "sram_o_writes"):
        assert getattr(found, name) == int(row[name])
    busiest = max(int(row[name]) for name in ("dram_a_reads", "dram_w_reads", "dram_o_writes"))
    least = max(found.total_cycles, math.ceil(busiest / bandwidth))  # by the words of the row itself
    assert least <= total <= 1.16 * least
    own = layer_of(row, bandwidth)  # with the least traffic that there can be
    assert own.total_cycles - own.stall_cycles == found.total_cycles and own.total_cycles <= total


def test_input_stationary_is_weight_stationary_with_the_operands_exchanged():
    choose = random.Random(5)
    for _ in range(50):
        m, n, k, rows, cols = (choose.randint(1, 90) for _ in range(5))
        one = scalesim_layer("", m, n, k, "is", rows, cols)
        other = scalesim_layer("", n, m, k, "ws", rows, cols)
        assert (m, n, k) == (one.M, one.N, one.K)
        assert one.total_cycles == other.total_cycles and one.mapping_eff_pct == other.mapping_eff_pct
        assert (one.sram_a_reads, one.sram_w_reads) == (other.sram_w_reads, other.sram_a_reads)
        assert (one.dram_a_reads, one.dram_w_reads) == (m * k, k * n)


@pytest.mark.parametrize("height, kernel, stride", [(224, 7, 2), (28, 3, 1), (9, 3, 3), (10, 3, 3)])
def test_a_convolution_has_an_output_too_many_where_the_stride_leaves_a_rest(height, kernel, stride):
    m, n, k = scalesim_convolution(height, height, kernel, kernel, 3, 64, stride)
    real = (height - kernel) // stride + 1
    assert math.isqrt(m) == real + ((height - kernel) % stride > 0) and (n, k) == (64, 3 * kernel**2)


# --- a machine with compat: scalesim3 ---------------------------------------------------------------------------------

MAC = 'mac: {low: "int8 -> fixed(32, 0, wrap)"}\n'
MEMORY = """memory:
  dram: {bandwidth: "1 bit/cycle", latency: "100 cycles"}
  sram: {size: "64 KiB", read: "1 bit/cycle", write: "1 bit/cycle"}
"""


def machine(tmp_path, array, rest=MAC):
    path = tmp_path / "m.yaml"
    path.write_text(f"array: {{{array}}}\n{rest}")
    return load_hardware(path)


def shape_of(row):
    return Gemm(*(int(row[name]) for name in "MNK"))


@pytest.mark.parametrize("row", CALC, ids=named)
def test_a_machine_counts_as_scalesim_where_its_file_says_so(tmp_path, row):
    array = f"rows: {row['rows']}, columns: {row['cols']}, dataflow: {row['dataflow']}"
    cost = price(machine(tmp_path, f"{array}, compat: scalesim3"), shape_of(row), "low")
    assert cost.cycles == sum(cost.cycle_parts.values()) == int(row["total_cycles"]) >= cost.roofline_cycles
    assert cost.traffic_bits["sram_reads"] == 8 * (int(row["sram_a_reads"]) + int(row["sram_w_reads"]))
    assert cost.traffic_bits["sram_writes"] == 8 * int(row["sram_o_writes"])
    dram = sum(int(row[f"dram_{name}"]) for name in ("a_reads", "w_reads", "o_writes"))
    assert 0 <= 8 * dram - cost.traffic_bits["dram"] <= 8 * (int(row["cols"]) - 1)
    assert 100 * cost.utilisation == pytest.approx(float(row["overall_util_pct"]), rel=1e-9)
    (warning,) = cost.warnings
    assert warning.startswith("array.compat: scalesim3: cycles and traffic are those of SCALE-Sim 3.0.0, artefacts inc")
    # The same array in the words of the model: one cycle more, no word too many, the partial sums read back.
    modes = "drain: none" if row["dataflow"] == "os" else "load: exposed, drain: exposed"
    own = price(machine(tmp_path, f"{array}, {modes}"), shape_of(row), "low")
    assert own.cycles == cost.cycles + 1 and "compat" not in str(own.warnings)
    assert own.energy_parts_j.keys() == cost.energy_parts_j.keys()
    for part in ("mul", "acc", "register"):
        assert own.energy_parts_j[part] == cost.energy_parts_j[part]


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_a_memory_takes_no_part_in_scalesim_s_counts(tmp_path, dataflow):
    array = f"rows: 8, columns: 4, dataflow: {dataflow}, compat: scalesim3"
    costs = [price(machine(tmp_path, array, rest), Gemm(30, 20, 10, 3), "low") for rest in (MAC, MAC + MEMORY)]
    assert costs[0] == costs[1]
    assert costs[0].energy_parts_j["sram"] == costs[0].energy_parts_j["dram"] == 0
    one = price(machine(tmp_path, array), Gemm(30, 20, 10), "low")
    assert costs[0].cycles == 3 * one.cycles and costs[0].traffic_bits["dram"] == 3 * one.traffic_bits["dram"]


def test_the_least_product_on_the_least_array_lasts_no_cycle_in_scalesim(tmp_path):
    cost = price(machine(tmp_path, "rows: 1, columns: 1, dataflow: os, compat: scalesim3"), Gemm(1, 1, 1), "low")
    assert (cost.cycles, cost.utilisation, cost.energy_parts_j["idle"]) == (0, 0.0, 0.0)


@pytest.mark.parametrize(
    "array, mac, message",
    [
        ("dataflow: dot", MAC, "array.dataflow: got dot with array.compat: scalesim3.*; expected ws, os or is"),
        ("latency: 2 cycles", MAC, "array.latency: got 2 cycles with array.compat: scalesim3.*; expected 1 cycle;"),
        ("dataflow: os, interleave: 4", MAC, "array.interleave: got 4 with array.compat: scalesim3.*; expected 1;"),
        ("copies: 2", MAC, "array.copies: got 2 with array.compat: scalesim3.*; expected 1;"),
        ("load: overlapped", MAC, "array.load: got overlapped with array.compat: scalesim3.*; expected exposed;"),
        ("drain: overlapped", MAC, "array.drain: got overlapped with array.compat: scalesim3.*; expected exposed;"),
        ("dataflow: os, drain: exposed", MAC, "array.drain: got exposed with array.compat.*; expected none;"),
        (
            "dataflow: ws",
            'mac: {low: {operands: int8, accumulator: "fma(fp32)", rate: "2 MAC/cycle"}}',
            "mac.low.rate: got 2 MAC/cycle with array.compat: scalesim3.*; expected 1 MAC/cycle;",
        ),
        (
            "dataflow: ws",
            'mac: {low: "int8 -> fma(fp16)", high: "int8 -> fma(fp32)"}',
            "mac.high: got a second mode with array.compat: scalesim3.*; expected mac.low alone;",
        ),
        ("compat: scalesim2", MAC, "array.compat: got 'scalesim2'; expected one of none, scalesim3"),
    ],
)
def test_what_scalesim_lacks_is_refused_by_both_keys(tmp_path, array, mac, message):
    compat = "" if "compat" in array else ", compat: scalesim3"
    with pytest.raises(InputError, match=message):
        machine(tmp_path, f"rows: 8, columns: 8, {array}{compat}", mac)


def test_the_settings_of_scalesim_s_array_may_be_written_out(tmp_path):
    for array in ("load: exposed, drain: exposed", "dataflow: os, drain: none", "dataflow: is, latency: 1 cycle"):
        array = machine(tmp_path, f"rows: 8, columns: 8, {array}, compat: scalesim3").array
        assert (array.load, array.drain) == ("exposed", "none" if array.dataflow == "os" else "exposed")


def test_a_run_on_such_a_machine_says_so(tmp_path):
    pytest.importorskip("torch")
    from simulator.run import run as main_job

    machine(tmp_path, "rows: 16, columns: 16, compat: scalesim3")
    record = main_job(tmp_path / "m.yaml", samples=2)
    assert any(text.startswith("array.compat: scalesim3") for text in record.warnings)


# --- files ------------------------------------------------------------------------------------------------------------

CFG = """[general]
run_name = mine

[architecture_presets]
ArrayHeight:    16
ArrayWidth:     16
IfmapSramSzkB:   64
Bandwidth : 10
Dataflow : {flow}

[run_presets]
InterfaceBandwidth: {mode}
"""


def files(tmp_path, flow="ws", mode="CALC", topology="Layer,M,N,K,\ng_64x64x64,64,64,64,\ng_1,1,32,128,\n"):
    (tmp_path / "a.cfg").write_text(CFG.format(flow=flow, mode=mode))
    (tmp_path / "t.csv").write_text(topology)
    return ["estimate", "--scalesim-cfg", str(tmp_path / "a.cfg"), "--topology", str(tmp_path / "t.csv")]


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["simulator", *map(str, arguments)])
    try:
        main()
        code = 0
    except SystemExit as exit:
        code = exit.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_command_prints_an_object_a_layer(tmp_path, monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, *files(tmp_path, "os"), "--json")
    (row,) = [row for row in CALC if row["run"].startswith("calc_os_16x16") and row["layer"] == "g_64x64x64"][:1]
    first, second = json.loads(out)
    assert code in (0, None) and first["layer"] == "g_64x64x64" and second["M"] == 1
    for name in ("total_cycles", "sram_a_reads", "sram_w_reads", "sram_o_writes"):
        assert first[name] == int(row[name])
    assert first["mapping_eff_pct"] == float(row["mapping_eff_pct"])
    assert set(first) <= set(row) | {"stall_cycles"}


def test_the_command_reads_convolutions_and_prints_a_table(tmp_path, monkeypatch, capsys):
    topology = (
        "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"
        "conv1, 28, 28, 5, 5, 1, 6, 1,\n"
    )
    code, out, _ = run(monkeypatch, capsys, *files(tmp_path, topology=topology), "--input", "conv")
    assert code in (0, None) and "conv1" in out and "576 x 6 x 25" in out


def test_bandwidth_counts_where_the_user_sets_it(tmp_path):
    files(tmp_path, mode="USER")
    assert read_config(str(tmp_path / "a.cfg")).bandwidth == 10
    files(tmp_path)
    assert read_config(str(tmp_path / "a.cfg")).bandwidth is None


@pytest.mark.parametrize(
    "change, message",
    [
        ({"flow": "xs"}, r"a.cfg: architecture_presets.Dataflow: got 'xs'; expected ws, os or is"),
        ({"mode": "FAST"}, r"a.cfg: run_presets.InterfaceBandwidth: got 'FAST'"),
        ({"topology": ""}, r"t.csv: an empty file"),
        ({"topology": "Layer,M,N,\na,1,2,\n"}, r"t.csv:1: the heading has Layer, M, N; expected Layer, M, N, K; add K"),
        ({"topology": "Layer,M,N,K\n"}, r"t.csv: a heading and no layer"),
        ({"topology": "Layer,M,N,K\na,1,2\n"}, r"t.csv:2: 3 cells; expected 4"),
        ({"topology": "Layer,M,N,K,Sparsity\na,1,2,3,1:2\n"}, r"t.csv:2: a sparsity of 1:2, which this simulator does"),
        ({"topology": "Layer,M,N,K\na,1,-2,3\n"}, r"t.csv:2: N: got '-2'; expected a whole number from 1"),
    ],
)
def test_bad_files_are_refused_with_their_place(tmp_path, monkeypatch, capsys, change, message):
    code, _, err = run(monkeypatch, capsys, *files(tmp_path, **change))
    assert code == 2 and re.search(message, err)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["estimate"], "got no machine; expected a file or a bundled name"),
        (["estimate", "--hw", "npu"], "got neither --gemm nor --topology; expected one of the two"),
        (["estimate", "--scalesim-cfg", "a.cfg"], "got --scalesim-cfg without --topology"),
        (
            ["estimate", "--scalesim-cfg", "a", "--topology", "t", "--flagged", "0.1"],
            "got --flagged beside --scalesim-cfg",
        ),
        (["estimate", "--topology", "t.csv"], "got no machine; expected a file or a bundled name"),
        (
            ["estimate", "--hw", "npu", "--gemm", "8", "8", "8", "--topology", "t"],
            "got both --gemm and --topology; expected one of the two",
        ),
        (["estimate", "--hw", "npu", "--gemm", "8", "8", "8", "--out", "o"], "--out without --scalesim-cfg"),
        (["estimate", "--scalesim-cfg", "nowhere.cfg", "--topology", "t.csv"], "nowhere.cfg: cannot be read"),
        (["estimate", "--hw", "npu", "--gemm", "0", "1", "1"], "0"),
        (["estimate", "--hw", "npu", "--gemm", "8", "8", "8", "--input", "conv"], "got --input conv with --gemm"),
        (["estimate", "--hw", "tpu_v1", "--gemm", "8", "8", "8", "--flagged", "0.1"], "which has no two-pass policy"),
        (["estimate", "--hw", "npu", "--gemm", "8", "8", "8", "--flagged", "2"], "expected a fraction from 0 to 1"),
    ],
)
def test_bad_arguments_are_refused(monkeypatch, capsys, arguments, message):
    code, _, err = run(monkeypatch, capsys, *arguments)
    assert code == 2 and message in err


def test_a_product_on_a_machine(monkeypatch, capsys):
    product = ("estimate", "--hw", "npu", "--gemm", 64, 64, 784)
    code, out, _ = run(monkeypatch, capsys, *product, "--flagged", 0.02, "--json")
    found, wanted = json.loads(out), simulator.estimate("npu", gemm=(64, 64, 784), flagged=0.02)
    assert code in (0, None) and found["two_pass"]["cycles"] == wanted.two_pass.cycles
    code, out, _ = run(monkeypatch, capsys, *product)
    assert code in (0, None) and "two-pass" in out and "npu: 64 x 64 x 784" in out


# --- reports ----------------------------------------------------------------------------------------------------------

REPORTS = ("COMPUTE_REPORT.csv", "BANDWIDTH_REPORT.csv", "DETAILED_ACCESS_REPORT.csv")
RECORDED = {"COMPUTE_REPORT.csv": 5, "BANDWIDTH_REPORT.csv": 3, "DETAILED_ACCESS_REPORT.csv": 5}  # columns exported
GEMMS = "Layer,M,N,K,\na,64,64,64,\nb,100,50,70,\nc,8,8,8,\nd,1,32,128,\n"
CFG_8X16 = CFG.replace("ArrayHeight:    16", "ArrayHeight: 8")


def cells(text):
    return [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]


def test_reports_are_those_of_scalesim_in_its_own_words(tmp_path, monkeypatch, capsys):
    arguments = files(tmp_path, "os", topology=GEMMS)
    (tmp_path / "a.cfg").write_text(CFG_8X16.format(flow="os", mode="CALC"))
    code, *_ = run(monkeypatch, capsys, *arguments, "--out", tmp_path / "out")
    assert code in (0, None) and {path.name for path in (tmp_path / "out").iterdir()} == set(REPORTS)
    for name, columns in RECORDED.items():
        ours, theirs = (folder / name for folder in (tmp_path / "out", VECTORS / "reports"))
        own, recorded = cells(ours.read_text()), cells(theirs.read_text())
        places = [recorded[0].index(column) for column in own[0]]
        assert places == sorted(places) and len(places) == columns + 2  # LayerID, and the comma at the end
        for mine, its in zip(own, recorded, strict=True):
            assert mine[0] == its[0]
            if mine is not own[0]:
                for value, place in zip(mine[:-1], places, strict=False):
                    assert float(value) == pytest.approx(float(its[place]), rel=1e-9)
        assert ours.read_text().startswith("LayerID, ") and ours.read_text().endswith(",\n")


def test_stalled_columns_are_left_out_of_reports(tmp_path, monkeypatch, capsys):
    run(monkeypatch, capsys, *files(tmp_path, mode="USER"), "--out", tmp_path / "out")
    found = {path.name: cells(path.read_text())[0] for path in (tmp_path / "out").iterdir()}
    assert found == {
        "COMPUTE_REPORT.csv": ["LayerID", "Mapping Efficiency %", "Compute Util %", ""],
        "DETAILED_ACCESS_REPORT.csv": ["LayerID", "SRAM IFMAP Reads", "SRAM Filter Reads", "SRAM OFMAP Writes", ""],
    }
    # Reports without stalls take their place, and those with stalls that of them.
    for mode, count in (("CALC", 3), ("USER", 2)):
        run(monkeypatch, capsys, *files(tmp_path, mode=mode), "--out", tmp_path / "out")
        assert len(list((tmp_path / "out").iterdir())) == count


def test_reports_are_replaced_whole_or_not_at_all(tmp_path, monkeypatch, capsys):
    arguments = (*files(tmp_path), "--out", tmp_path / "out")
    run(monkeypatch, capsys, *arguments)
    before = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    files(tmp_path, topology=GEMMS)
    written = []

    def full(descriptor):
        written.append(descriptor)
        if len(written) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    code, out, err = run(monkeypatch, capsys, *arguments)
    assert code == 2 and "No space left on device" in err and not out
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.cfg", "out", "t.csv"]
    (tmp_path / "out" / "mine.txt").write_text("")
    code, _, err = run(monkeypatch, capsys, *arguments)
    assert code == 2 and "found mine.txt, which is not an earlier report" in err


def test_a_depthwise_convolution_runs_its_channels_one_by_one(tmp_path, monkeypatch, capsys):
    heading = ", ".join(("Layer name", *CONVOLUTION))
    topology = f"{heading},\nc_DP, 10, 10, 3, 3, 3, 2, 1,\nwhole, 10, 10, 3, 3, 3, 2, 1,\n"
    _, out, _ = run(monkeypatch, capsys, *files(tmp_path, topology=topology), "--input", "conv", "--json")
    found = json.loads(out)
    assert [layer["layer"] for layer in found] == [*(f"c_DPChannel_{i}" for i in range(3)), "whole"]
    assert [layer["K"] for layer in found] == [9, 9, 9, 27]
    too_many = topology.replace("3, 3, 3, 2", f"3, 3, {2**17}, 2")
    code, _, err = run(monkeypatch, capsys, *files(tmp_path, topology=too_many), "--input", "conv")
    assert code == 2 and "c_DP: got 131072 channels" in err


def test_a_filter_larger_than_its_image_is_refused_with_its_line(tmp_path, monkeypatch, capsys):
    topology = ", ".join(("Layer name", *CONVOLUTION)) + "\nc, 4, 9, 5, 3, 3, 2, 1\n"
    code, _, err = run(monkeypatch, capsys, *files(tmp_path, topology=topology), "--input", "conv")
    assert code == 2 and "t.csv:2: a filter of 5 x 3 on 4 x 9; expected one that fits" in err


def test_topologies_are_read_by_their_headings(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Layer,K,M,N\n a b ,3,1,2\n\n")
    (layer,) = read_topology(str(path), GEMM)
    assert (layer.name, layer.sizes) == ("a b", (1, 2, 3))
    with pytest.raises(InputError, match="add IFMAP Height, or choose the other --input"):
        read_topology(str(path), CONVOLUTION)
