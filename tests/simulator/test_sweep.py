"""Sweeps: the points of a file on workers, kept as they come; killed, refused, failing; and only priced."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("distributed")

import simulator
from simulator.cost import Gemm, price
from simulator.errors import InputError
from simulator.explore import Plan, Store, forecast, read_plan, sweep
from simulator.explore.plan import planned
from simulator.explore.work import Inputs
from simulator.hardware import load_hardware
from simulator.network import bundled

ROOT = Path(__file__).parents[2]
FILE = """
hw: npu
model: mlp
samples: 20
sweep:
  array.rows: [8, 16]
  policy.tolerance: [0.25, 1.0]
"""


def file(tmp_path, text=FILE, name="s.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def command(*arguments, cwd, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "simulator", *map(str, arguments)]
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, **options)


def records(path):
    """What was computed, by parameters, without how long it took."""
    with Store(path) as store:
        return {json.dumps(p, sort_keys=True): point.record for p, point in store.of_sweep("s")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A sweep that nothing disturbs, on two workers of one thread."""
    directory = tmp_path_factory.mktemp("undisturbed")
    found = sweep(plan=read_plan(file(directory)), out=directory / "out", workers=2, threads=1)
    assert (found.computed, found.failed) == (4, 0)
    return directory / "out"


def test_points_are_what_evaluate_gives_for_the_machines(undisturbed):
    x, y = bundled.digits()
    for parameters, record in records(undisturbed).items():
        text = (ROOT / "hwconfigs" / "npu.yaml").read_text()
        rows, tolerance = json.loads(parameters).values()
        machine = undisturbed.parent / "m.yaml"
        edited = text.replace("rows: 16 ", f"rows: {rows} ").replace("tolerance: 0.5 ", f"tolerance: {tolerance} ")
        machine.write_text(edited)
        expected = simulator.evaluate(bundled.load("mlp"), machine, x[:20], y[:20]).to_dict()
        for name in ("accuracy", "forward_error", "totals", "metrics"):
            assert record[name] == json.loads(json.dumps(expected[name]))


def test_what_is_known_is_not_computed_again(undisturbed, tmp_path):
    before = (undisturbed / "runs.sqlite").stat().st_mtime_ns
    found = sweep(plan=read_plan(file(tmp_path)), out=undisturbed)
    assert (found.computed, found.failed, len(found.points)) == (0, 0, 4)
    assert (undisturbed / "runs.sqlite").stat().st_mtime_ns >= before
    # A sweep of other points shares those that it has in common.
    more = FILE.replace("[0.25, 1.0]", "[1.0, 2.0]")
    assert forecast(read_plan(file(tmp_path, more)), undisturbed).known == 2


def test_another_cluster_gives_the_same(undisturbed, tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        found = sweep(plan=read_plan(file(tmp_path)), out=tmp_path / "out", scheduler=address, threads=1)
    assert found.computed == 4
    assert records(tmp_path / "out") == records(undisturbed)


@pytest.mark.parametrize("moment", [1, 3])
def test_a_killed_sweep_goes_on(undisturbed, tmp_path, moment):
    """Client and workers killed once so many points are there: the next run computes the others alone."""
    out, path = tmp_path / "out", file(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "simulator", "sweep", path, "--out", out, "--workers", "1", "--threads", "1"]
    running = subprocess.Popen(
        words,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    there = 0
    while there < moment and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
        if (out / "runs.sqlite").exists():
            try:
                with Store(out) as store:
                    there = len(list(store.points()))
            except InputError:
                there = 0
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    with Store(out) as store:
        kept = len(list(store.points()))
    assert kept >= moment
    found = sweep(plan=read_plan(path), out=out, workers=1, threads=1)
    assert found.computed == 4 - kept
    assert records(out) == records(undisturbed)


def test_a_failing_point_stops_no_other(tmp_path):
    text = FILE.replace("array.rows: [8, 16]", "array.rows: [0, 8]").replace("[0.25, 1.0]", "[0.5]")
    done = command("sweep", file(tmp_path, text), "--out", "out", "--workers", 1, "--json", cwd=tmp_path)
    failed, fine = json.loads(done.stdout)["points"]
    assert done.returncode == 3, done.stderr
    assert failed["parameters"] == {"array.rows": 0, "policy.tolerance": 0.5}
    assert "array.rows: got 0; expected a whole number from 1" in failed["error"]
    assert fine["error"] is None and fine["accuracy"]["two_pass"] > 0.8
    again = command("sweep", file(tmp_path, text), "--out", "out", cwd=tmp_path)
    assert again.returncode == 3 and "2 points, 0 computed now, 1 failed" in again.stdout


def test_a_dry_run_says_how_many_and_how_long(tmp_path):
    done = command("sweep", file(tmp_path), "--out", "out", "--workers", 2, "--dry-run", "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert (found["points"], found["known"], found["remaining"], found["workers"]) == (4, 0, 4, 2)
    assert found["seconds"] > 0 and not (tmp_path / "out").exists()


def test_points_that_are_only_priced(tmp_path):
    text = """
    hw: npu
    cost: {gemms: [[64, 64, 784], [10, 10, 10]], flagged: 0.05}
    sweep: {array.columns: [8, 16], flagged: [0.0, 0.1]}
    """
    found = sweep(plan=read_plan(file(tmp_path, text)), out=tmp_path / "out")
    assert [dict(parameters) for parameters, _ in found.points][1] == {"array.columns": 8, "flagged": 0.1}
    machine = load_hardware("npu")
    _, point = found.points[3]
    for mode, flags in (("low", None), ("high", None), ("two_pass", 0.1)):
        costs = [price(machine, Gemm(*shape), mode, flags) for shape in ((64, 64, 784), (10, 10, 10))]
        assert point.record["totals"][mode]["cycles"] == sum(cost.cycles for cost in costs)
        assert point.record["totals"][mode]["energy_j"] == sum(cost.energy_j for cost in costs)


def test_the_products_of_a_network_are_priced_without_running_it(tmp_path):
    plan = Plan("s", "npu", {"array.columns": [16]}, Inputs("cnn", samples=30), cost_only=True)
    _, point = sweep(plan=plan, out=tmp_path / "out").points[0]
    x, y = bundled.digits()
    ran = simulator.evaluate(bundled.load("cnn"), "npu", x[:30], y[:30])
    assert [layer["name"] for layer in point.record["layers"]] == [layer.name for layer in ran.layers]
    cycles = sum(layer.cycles for layer in ran.baseline_layers["low"])
    assert point.record["totals"]["low"]["cycles"] == cycles


def test_the_identity_of_a_point_is_what_decides(tmp_path):
    def key(**changes):
        settings = {"name": "s", "hw": "npu", "varied": {"array.rows": [8]}, "inputs": Inputs(samples=5), **changes}
        return next(planned(Plan(**settings))).key

    same = tmp_path / "other.yaml"
    same.write_text((ROOT / "hwconfigs" / "npu.yaml").read_text().replace("# assumed", "# guessed"))
    assert key() == key() == key(name="t") == key(hw=str(same))
    others = [
        key(varied={"array.rows": [16]}), key(inputs=Inputs(samples=6)), key(inputs=Inputs("cnn", samples=5)),
        key(inputs=Inputs(samples=5, seed=1)), key(cost_only=True),
    ]  # fmt: skip
    assert len({key(), *others}) == 6


def test_what_a_store_holds_is_listed_shown_exported_and_removed(undisturbed, tmp_path):
    pandas = pytest.importorskip("pandas")
    listed = json.loads(command("runs", undisturbed, "--json", cwd=tmp_path).stdout)
    assert listed["sweeps"] == {"s": 4} and len(listed["points"]) == 4
    first = listed["points"][0]["key"]
    assert json.loads(command("runs", undisturbed, "--show", first[:8], cwd=tmp_path).stdout)["key"] == first
    frames = []
    for name, read in (("x.csv", pandas.read_csv), ("x.parquet", pandas.read_parquet)):
        done = command("runs", undisturbed, "--export", name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        frames.append(read(tmp_path / name))
    assert list(frames[0]["array.rows"]) == list(frames[1]["array.rows"]) == [8, 8, 16, 16]
    assert (frames[1]["cycles_two_pass"] > 0).all()
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "runs.sqlite").write_bytes((undisturbed / "runs.sqlite").read_bytes())
    assert "1 point removed" in command("runs", copy, "--remove", first, cwd=tmp_path).stdout
    assert len(json.loads(command("runs", copy, "--json", cwd=tmp_path).stdout)["points"]) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hw: npu\n", "s.yaml:1:1: sweep: missing; expected it in every sweep"),
        ("hw: npu\nsweep: 3\n", "s.yaml:2:8: sweep: got 3; expected keys with lists"),
        ("hw: npu\nsweeep: {}\nsweep: {a: [1]}\n", "s.yaml:2:1: sweeep: unknown key; expected one of hw, model"),
        ("hw: npu\nsamples: many\nsweep: {a: [1]}\n", "s.yaml:2:10: samples: got 'many'; expected a whole number"),
        ("hw: npu\nsweep: {a: 1}\n", "sweep: a: got 1; expected a list of values, or a range"),
        ("hw: npu\ncost: {gemm: [[1, 2, 3]]}\nsweep: {a: [1]}\n", "s.yaml:2:8: cost.gemm: unknown key"),
        ("hw: npu\nmodel: nothing\nsweep: {array.rows: [8]}\n", "--model: got 'nothing'"),
        ("hw: nowhere.yaml\nsweep: {array.rows: [8]}\n", "nowhere.yaml: no such file"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, message):
    done = command("sweep", file(tmp_path, text), "--out", "out", cwd=tmp_path)
    if done.returncode == 3:  # what only a point has wrong is kept with it
        assert message in command("sweep", file(tmp_path, text), "--out", "out", "--json", cwd=tmp_path).stdout
    else:
        assert done.returncode == 2 and message in done.stderr


def test_no_cluster_at_an_address(tmp_path):
    done = command(
        "sweep", file(tmp_path), "--out", "out", "--scheduler", "tcp://127.0.0.1:9", cwd=tmp_path, timeout=100
    )
    assert done.returncode == 2
    assert "sweep: --scheduler tcp://127.0.0.1:9: no cluster answers" in done.stderr
