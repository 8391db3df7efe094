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
from simulator.cost.scalesim import scalesim_convolution, scalesim_layer
from simulator.errors import InputError
from simulator.hardware.scalesim_files import CONVOLUTION, GEMM, read_config, read_topology

VECTORS = Path(__file__).parents[1] / "vectors" / "scalesim"
CALC, USER = (
    list(csv.DictReader((VECTORS / name).read_text().splitlines()))
    for name in ("scalesim_gemm.csv", "scalesim_stall_64.csv")
)


def layer_of(row, bandwidth=None):
    m, n, k, rows, cols = (int(row[name]) for name in ("M", "N", "K", "rows", "cols"))
    return scalesim_layer(row["layer"], m, n, k, row["dataflow"], rows, cols, bandwidth)


def test_all_rows_are_there():
    assert (len(CALC), len(USER)) == (34, 8)


@pytest.mark.parametrize("row", CALC, ids=lambda row: f"{row['run']} {row['layer']}")
def test_rows_without_stalls_are_reproduced(row):
    found = layer_of(row)
    for name in (
        "total_cycles",
        "stall_cycles",
        "sram_a_reads",
        "sram_w_reads",
        "sram_o_writes",
        "dram_a_reads",
        "dram_w_reads",
    ):
        assert getattr(found, name) == int(row[name]), name
    assert 0 <= int(row["dram_o_writes"]) - found.dram_o_writes <= int(row["cols"]) - 1
    for name in ("overall_util_pct", "mapping_eff_pct", "compute_util_pct"):
        assert getattr(found, name) == pytest.approx(float(row[name]), rel=1e-9), name


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
        ({"topology": "Layer,M,N,K\na,1,-2,3\n"}, r"t.csv:2: N: got '-2'; expected a whole number from 1"),
    ],
)
def test_bad_files_are_refused_with_their_place(tmp_path, monkeypatch, capsys, change, message):
    code, _, err = run(monkeypatch, capsys, *files(tmp_path, **change))
    assert code == 2 and re.search(message, err)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["estimate"], "got no machine or no product"),
        (["estimate", "--hw", "npu"], "got no machine or no product"),
        (["estimate", "--scalesim-cfg", "a.cfg"], "expected these two alone"),
        (["estimate", "--scalesim-cfg", "nowhere.cfg", "--topology", "t.csv"], "nowhere.cfg: cannot be read"),
        (["estimate", "--hw", "npu", "--gemm", "0", "1", "1"], "0"),
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


def test_topologies_are_read_by_their_headings(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Layer,K,M,N\n a b ,3,1,2\n\n")
    (layer,) = read_topology(str(path), GEMM)
    assert (layer.name, layer.sizes) == ("a b", (1, 2, 3))
    with pytest.raises(InputError, match="add IFMAP Height, or choose the other --input"):
        read_topology(str(path), CONVOLUTION)
