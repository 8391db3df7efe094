"""`compare`: two machines on one network side by side, with the figures of their own runs."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from simulator.commands.compared import OWN, compared, compared_runs
from simulator.hardware import load_hardware
from simulator.report import render_runs
from simulator.report.figures import quantity
from simulator.report.side_by_side import Pair, differences, pair
from simulator.result import Setting
from simulator.run import run

NPU = (Path(__file__).parents[2] / "hwconfigs" / "npu.yaml").read_text()
ONE_MAC = """
name: small
array: {rows: 8, columns: 8}
mac: {low: {accumulator: fma(fp16), operands: fp8_e4m3, rate: 2 MAC/cycle}}
"""


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    path = tmp_path_factory.mktemp("machines") / "small.yaml"
    path.write_text(ONE_MAC)
    return load_hardware("npu"), load_hardware(path)


@pytest.fixture(scope="module")
def runs(machines):
    return tuple(run(machine, samples=20) for machine in machines)


def test_figures_are_those_of_the_two_runs(machines, runs):
    found = compared(machines, runs)
    a, b = runs
    assert (found.a, found.b, found.runs, found.samples, found.seed) == ("npu", "small", ("two_pass", "low"), 20, 0)
    own = found.modes[OWN]
    for name in ("cycles", "latency_s", "energy_j", "energy_low_j", "energy_high_j"):
        assert (own[name].a, own[name].b) == (a.totals["two_pass"][name], b.totals["low"][name])
        assert own[name].ratio == own[name].b / own[name].a
        assert found.modes["low"][name].a == a.totals["low"][name]
    assert (own["accuracy"].a, own["accuracy"].b) == (a.accuracy["two_pass"], b.accuracy["low"])
    assert (own["agreement"].a, own["forward_error"].b) == (a.agreement["two_pass"], b.forward_error["low"])
    high = found.modes["high"]["energy_j"]
    assert (high.a, high.b, high.ratio) == (a.totals["high"]["energy_j"], None, None)


def test_layers_stand_beside_each_other(machines, runs):
    found = compared(machines, runs)
    assert [layer.name for layer in found.layers] == ["fc1", "fc2", "fc3"]
    for layer, one, other in zip(found.layers, runs[0].layers, runs[1].layers, strict=True):
        assert (layer.m, layer.n, layer.k) == (one.m, one.n, one.k)
        assert (layer.figures["cycles"].a, layer.figures["cycles"].b) == (one.cycles, other.cycles)
        assert (layer.figures["median_rel_error"].a, layer.figures["energy_high_j"].b) == (
            one.median_rel_error, other.energy_high_j,
        )  # fmt: skip
        assert layer.figures["flagged"].a == one.flagged_macs / one.macs
        assert layer.figures["energy_low_j"].a < layer.figures["energy_j"].a < layer.figures["energy_high_j"].a
    for bound in ("energy_low_j", "energy_j", "energy_high_j"):
        whole = sum(layer.figures[bound].b for layer in found.layers)
        assert whole == pytest.approx(found.modes[OWN][bound].b, rel=1e-12)


def test_peaks_and_memory_are_those_of_the_files(machines, runs):
    peaks = compared(machines, runs).machines
    assert (peaks["peak_macs_per_s_low"].a, peaks["peak_macs_per_s_low"].b) == (16 * 16 * 4 * 1e9, 8 * 8 * 2 * 1e9)
    assert (peaks["peak_macs_per_s_high"].a, peaks["peak_macs_per_s_high"].b) == (16 * 16 * 1e9, None)
    assert (peaks["on_chip_bits"].a, peaks["on_chip_bits"].b) == ((256 + 16) * 8192, None)


def test_areas_are_those_of_the_runs(machines, runs):
    found = compared(machines, (replace(runs[0], area_um2=2e6, area_low_um2=1e6), replace(runs[1], area_um2=1e6)))
    area = found.machines["area_mm2"]
    assert (area.a, area.b, area.ratio) == (2.0, 1.0, 0.5) and found.machines["area_low_mm2"].a == 1.0
    unknown = compared(machines, tuple(replace(one, area_um2=None) for one in runs)).machines["area_mm2"]
    assert (unknown.a, unknown.b, unknown.ratio) == (None, None, None)


def test_only_keys_whose_values_differ_are_listed(tmp_path):
    changed = (
        NPU.replace('"100 ns"', '"0.1 us"')
        .replace("lanes: 64 ", "lanes: 32 ")
        .replace('size: "16 KiB"', 'size: "8 KiB"')
    )
    (tmp_path / "npu.yaml").write_text("# another line\n" + changed)
    a, b = load_hardware("npu"), load_hardware(tmp_path / "npu.yaml")
    found = differences([a.configuration.values(), b.configuration.values()])
    assert found == [("memory.accumulators.size", ["16 KiB", "8 KiB"]), ("side_engine.lanes", [64, 32])]


def test_a_key_of_one_machine_alone_differs():
    a = [Setting("memory", {}, "a.yaml", "as drawn"), Setting("x", 1, "default", ""), Setting("y", None, "default", "")]
    b = [Setting("x", 1.0, "b.yaml:1", ""), Setting("z", True, "default", "")]
    assert differences([a, b]) == [("z", [None, True])]


@pytest.mark.parametrize("unknown", [None, math.inf, math.nan])
def test_a_ratio_is_of_figures_that_both_are_known(unknown):
    assert (pair(2, 3).ratio, pair(0, 3).ratio, pair(2, 0).ratio) == (1.5, None, 0)
    assert pair(unknown, 3) == Pair(None, 3, None) and pair(2, unknown) == Pair(2, None, None)


# --- the command ----------------------------------------------------------------------------------------------------


def test_compare_prints_the_record_and_only_that(command, tmp_path, machines, runs):
    (tmp_path / "small.yaml").write_text(ONE_MAC)
    code, out, err = command("compare", "npu", "small.yaml", "--samples", 20, "--json")
    assert (code, err) == (0, "")
    record = json.loads(out)
    assert (record["model"], record["samples"]) == ("mlp", 20)
    assert record["modes"][OWN]["energy_j"]["b"] == runs[1].totals["low"]["energy_j"]
    assert record["layers"][0]["figures"]["cycles"]["a"] == runs[0].layers[0].cycles
    assert {"key": "array.rows", "a": 16, "b": 8} in record["configuration"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.yaml"]


def test_compare_prints_tables(command, tmp_path):
    (tmp_path / "small.yaml").write_text(ONE_MAC)
    code, out, err = command("compare", "npu", "small.yaml", "--samples", 20, "--model", "cnn", "--seed", 3)
    assert (code, err) == (0, "")
    assert out.startswith("cnn: npu and small · 20 samples · seed 3\n")
    assert re.search(r"^as each runs: two-pass, uniform low +npu +small +ratio$", out, re.M)
    assert re.search(r"^on-chip memory +272 KiB +–", out, re.M)
    assert re.search(r"^peak MAC/s, low mode +1\.02 TMAC/s +128 GMAC/s +0\.125$", out, re.M)
    assert re.search(r"^area +[\d.]+ mm² +[\d.]+ mm² +0\.\d+$", out, re.M) and "area, upper bound" in out
    assert "page: " not in out
    assert re.search(r"^array\.rows +16 +8$", out, re.M)
    assert "technology.table." not in out
    assert "Energy of A: estimate, table jouppi2021_7nm" in out
    assert max(map(len, out.splitlines())) <= 100


def test_machines_of_one_name_are_told_apart_by_their_files(command, tmp_path):
    (tmp_path / "mine.yaml").write_text(NPU)
    code, out, _ = command("compare", "npu", "mine.yaml", "--samples", 2)
    assert code == 0
    assert out.startswith("mlp: hwconfigs/npu.yaml and mine.yaml · 2 samples")
    assert "The two machines do not differ in any key." in out
    assert "The bounds of the two energies overlap: which is less is not certain." in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("npu", "nqu"), "ulpsim: error: hardware: got 'nqu', no file and no bundled machine"),
        (("npu", "npu", "--samples", 0), "ulpsim: error: "),
        (("npu", "npu", "--model", "nothing"), "ulpsim: error: "),
    ],
)
def test_compare_refuses_in_one_message(command, arguments, message):
    code, out, err = command("compare", *arguments)
    assert (code, out) == (2, "") and err.startswith(message) and err.count("\n") == 1


# --- two saved runs --------------------------------------------------------------------------------------------------


def test_saved_runs_are_compared_by_the_names_of_their_directories(command, tmp_path, runs):
    for name, one in zip(("npu", "b/small"), runs, strict=True):
        one.save(tmp_path / name)
    code, out, err = command("compare", "./npu", "b/small", "--out", "both.html")
    assert (code, err) == (0, "")
    assert out.startswith("mlp: npu and small · 20 samples · seed 0\n")
    energy = [quantity(run.totals[mode]["energy_j"], "J") for run, mode in zip(runs, ("two_pass", "low"), strict=True)]
    assert re.search(rf"^energy +{energy[0]} +{energy[1]} +[\d.]+$", out, re.M)
    assert re.search(r"^area +\d[\d.]* mm² +\d[\d.]* mm² +[\d.]+$", out, re.M)
    assert re.search(r"^MACs +14\.3 M +14\.3 M +1\.00$", out, re.M)
    assert re.search(r"^array\.rows +16 +8$", out, re.M)
    assert "samples differ" not in out and max(map(len, out.splitlines())) <= 100
    assert (tmp_path / "both.html").read_text() == render_runs({"npu": runs[0], "small": runs[1]})


def test_the_record_of_saved_runs_has_their_figures_and_what_each_is_of(command, tmp_path, runs):
    for name, one in zip("ab", runs, strict=True):
        replace(one, samples=20 if name == "a" else 10).save(tmp_path / name)
    code, out, err = command("compare", "a/summary.json", "b", "--json")
    record = json.loads(out)
    assert (code, err) == (0, "")
    assert (record["a"], record["b"], record["model"], record["samples"]) == ("a", "b", "mlp", None)
    assert [side["samples"] for side in record["of"]] == [20, 10]
    assert [side["hardware"] for side in record["of"]] == ["npu", "small"]
    own = record["modes"][OWN]["cycles"]
    assert (own["a"], own["b"]) == (runs[0].totals["two_pass"]["cycles"], runs[1].totals["low"]["cycles"])
    assert record["machines"]["area_mm2"]["a"] == runs[0].area_um2 * 1e-6
    _, out, _ = command("compare", "a", "b")
    assert "The samples differ: 20 and 10, of which cycles and energy are the sums." in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "nowhere"), "hardware: got 'nowhere', no file and no bundled machine"),
        (("run", "npu"), "compare: got the machine npu and the run run; expected two machines, or two runs; give two"),
        (("run", "npu_posit"), "expected two machines, or two runs; write ./npu_posit for the run of that name"),
        (("run", "other", "--samples", 3), "compare: got --samples beside two runs, which are done; expected"),
        (("run", "run"), "run: got this run twice; expected each run once; leave one out"),
        (("run", "nothing"), "compare: nothing is a directory that has no summary.json; expected machines, or"),
        (("run", "broken"), "broken/summary.json: is no record of a run"),
    ],
)
def test_compare_refuses_runs_in_one_message(command, tmp_path, runs, arguments, message):
    for name in ("run", "other", "npu_posit"):
        runs[0].save(tmp_path / name)
    (tmp_path / "nothing").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "summary.json").write_text("{}")
    code, out, err = command("compare", *arguments)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


def test_layers_of_other_shapes_are_rows_of_their_own(runs):
    """Saved runs may be of other networks, or of more samples."""
    wider = replace(runs[1], layers=tuple(replace(layer, m=4 * layer.m) for layer in runs[1].layers))
    same = compared_runs({"a": runs[0], "b": runs[1]}).layers
    other = compared_runs({"a": runs[0], "b": wider}).layers
    assert len(other) == 2 * len(same) and {layer.m for layer in other} == {runs[0].layers[0].m, wider.layers[0].m}
    assert all((layer.figures["cycles"].a is None) != (layer.figures["cycles"].b is None) for layer in other)
