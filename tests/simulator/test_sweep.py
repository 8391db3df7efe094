"""Sweeps: the points of a file on workers, kept as they come; killed, refused, failing; and only priced."""

import io
import json
import math
import os
import re
import sqlite3
import subprocess
import sys
from concurrent.futures import CancelledError
from contextlib import closing, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("distributed")

import simulator
from simulator.commands import sweep as sweep_command
from simulator.cost import Gemm, price
from simulator.errors import InputError
from simulator.explore import Place, Plan, Point, Store, forecast, read_plan, sweep
from simulator.explore.objectives import own_mode, value
from simulator.explore.plan import Planner, grid
from simulator.explore.rows import columns, row
from simulator.explore.work import Inputs, compute
from simulator.hardware import load_hardware
from simulator.network import bundled
from simulator.report.tables import write_table
from simulator.versions import NUMERICS

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


def plan_keys(plan):
    return [point.key for point in Planner(plan).points(grid(plan))]


def tasks(plan):
    return [point.task for point in Planner(plan).points(grid(plan))]


def records(path):
    """What was computed, by parameters, without how long it took."""
    with Store(path) as store:
        return {json.dumps(place.parameters, sort_keys=True): point.record for place, point in store.of_sweep("s")}


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
        expected = json.loads(json.dumps(expected))
        for name in expected.keys() - {"machine", "model", "versions"}:
            assert record[name] == expected[name], name
        by_key = {setting["key"]: setting for setting in record["machine"]}
        assert by_key.keys() == {setting["key"] for setting in expected["machine"]}
        for key, given in (("array.rows", rows), ("policy.tolerance", tolerance)):
            assert (by_key[key]["value"], by_key[key]["origin"], by_key[key]["source"]) == (given, "varied", "")
        assert by_key["array.columns"]["origin"].startswith("hwconfigs/npu.yaml:")


def test_what_is_known_is_not_computed_again(undisturbed, tmp_path):
    with Store(undisturbed) as store:
        before = list(store.points())
    found = sweep(plan=read_plan(file(tmp_path)), out=undisturbed)
    assert (found.computed, found.known, found.failed, len(found.points)) == (0, 4, 0, 4)
    with Store(undisturbed) as store:
        assert list(store.points()) == before  # their times too
    # A sweep of other points shares those that it has in common.
    more = FILE.replace("[0.25, 1.0]", "[1.0, 2.0]")
    assert forecast(plan=read_plan(file(tmp_path, more)), out=undisturbed).known == 2


def test_one_process_may_sweep_again(undisturbed, tmp_path):
    """With workers of its own each time, and what others set of dask as it was."""
    import dask

    before = dask.config.get("distributed.scheduler.allowed-failures")
    for turn in range(2):
        found = sweep(plan=read_plan(file(tmp_path)), out=tmp_path / f"out{turn}", workers=2)
        assert (found.computed, found.failed) == (4, 0)
        assert records(tmp_path / f"out{turn}") == records(undisturbed)
    assert dask.config.get("distributed.scheduler.allowed-failures") == before


def test_a_script_that_workers_cannot_import_is_said(tmp_path):
    """Workers import the script that spawned them, which must not sweep again."""
    script = tmp_path / "script.py"
    call = 'print(simulator.explore.sweep("npu", {"array.rows": [8, 16]}, samples=5, out="out").computed)'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run():
        words = [sys.executable, str(script)]
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)

    script.write_text(f"import simulator\n{call}\n")
    said = run().stderr.splitlines()
    assert "workers cannot be started" in said[-1] and 'below `if __name__ == "__main__":`' in said[-1]
    assert sum("Traceback" in line for line in said) == 1
    script.write_text(f'import simulator\nif __name__ == "__main__":\n    {call}\n')
    assert (run().stdout, run().stderr) == ("2\n", "")


def test_another_cluster_gives_the_same(undisturbed, tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        found = sweep(plan=read_plan(file(tmp_path)), out=tmp_path / "out", scheduler=address, threads=1)
    assert found.computed == 4
    assert records(tmp_path / "out") == records(undisturbed)


def test_a_failing_point_stops_no_other(tmp_path):
    text = FILE.replace("array.rows: [8, 16]", "array.rows: [0, 8]").replace("[0.25, 1.0]", "[0.5]")
    done = command("sweep", file(tmp_path, text), "--out", "out", "--workers", 1, "--json", cwd=tmp_path)
    record = json.loads(done.stdout)
    failed, fine = record["points"]
    assert (record["computed"], record["known"], record["failed"]) == (1, 0, 1)
    assert done.returncode == 3, done.stderr
    assert failed["parameters"] == {"array.rows": 0, "policy.tolerance": 0.5}
    assert "array.rows: got 0; expected a whole number from 1" in failed["error"] and failed["key"] is None
    assert fine["error"] is None and fine["accuracy"]["two_pass"] > 0.8
    again = command("sweep", file(tmp_path, text), "--out", "out", cwd=tmp_path)
    assert again.returncode == 3 and "2 points, 0 computed now, 1 from the store, 1 failed; in" in again.stdout
    (line,) = [line for line in again.stdout.splitlines() if line.startswith("failed: ")]
    assert "array.rows: got 0; expected a whole number from 1" in line
    listed = json.loads(command("runs", "out", "--json", cwd=tmp_path).stdout)
    assert (
        listed["sweeps"] == {"s": {"points": 2, "done": 1, "failed": 1, "missing": 0, "search": False}}
        and len(listed["points"]) == 1
    )


def test_several_problems_of_a_point_are_lines(tmp_path):
    text = "hw: npu\ncost: {}\nsweep:\n  array: [{rows: 0, columns: 0}, {rows: 8, columns: 8}]\n"
    done = command("sweep", file(tmp_path, text), "--out", "out", cwd=tmp_path)
    lines = done.stdout.splitlines()
    place = lines.index("failed:")
    problems = [line for line in lines[place + 1 :] if ": got 0; expected" in line]
    assert [problem.split(": ")[1] for problem in problems] == ["array.rows", "array.columns"]
    assert all(line.startswith("  ") for line in lines[place + 1 :]) and "\\n" not in done.stdout
    assert "{rows: 0, columns: 0}" in done.stdout


def test_a_refusal_is_looked_at_again_each_time(tmp_path):
    """What is wrong with a machine file is not kept against a later version of it."""
    machine = tmp_path / "m.yaml"
    text = (ROOT / "hwconfigs" / "npu.yaml").read_text()
    plan = Plan("s", "npu", {"hw": ["npu", str(machine)]}, cost_only=True, gemms=[(8, 8, 8)])
    machine.write_text(text.replace("frequency: ", "frequency: minus "))
    found = sweep(plan=plan, out=tmp_path / "out")
    assert (found.computed, found.failed) == (1, 1) and found.points[1][1] is None
    assert "frequency" in found.places[1].error
    machine.write_text(text.replace("array: {rows: 16", "array: {rows: 8").replace("rows: 16 ", "rows: 8 "))
    fine = sweep(plan=plan, out=tmp_path / "out")
    assert (fine.computed, fine.failed) == (1, 0) and fine.points[1][1].record is not None


def test_what_is_wrong_with_all_points_is_said_once(tmp_path):
    with pytest.raises(InputError, match=r"aray: unknown key.*\(with aray.rows: 8\)"):
        sweep("npu", {"aray.rows": [8, 16]}, out=tmp_path / "out", samples=5)
    with pytest.raises(InputError, match=r"kind: got 'ring'.*\(with side_engine: {kind: ring, rows: 8}\)"):
        sweep("npu", {"side_engine": [{"kind": "ring", "rows": 8}]}, out=tmp_path / "out", samples=5)
    with pytest.raises(InputError, match=r"sweep: flagged: got 7; expected a share from 0 to 1"):
        sweep("npu", {"array.rows": [8, 16]}, out=tmp_path / "out", cost_only=True, flagged=7)
    with pytest.raises(InputError, match=r"^model: got 'nothing'"):
        sweep("npu", {"seed": [1, 2]}, out=tmp_path / "out", model="nothing")
    assert not (tmp_path / "out").exists()


def test_a_network_that_failed_is_read_once(tmp_path, monkeypatch):
    reads = []

    def load(inputs):
        reads.append(inputs.model)
        raise InputError("no such network")

    monkeypatch.setattr("simulator.explore.plan.load", load)
    plan = Plan("s", "npu", {"model": ["a", "b"], "array.rows": [4, 8, 16]})
    with pytest.raises(InputError, match="no such network"):
        Planner(plan).points(grid(plan))
    assert reads == ["a", "b"]


NETWORK = """
import torch
from torch import nn
SCALE = 1.0
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(4, 3)
    def forward(self, x):
        return self.l(x) * SCALE
"""


@pytest.mark.parametrize(
    ("seen", "edited"),
    [
        (True, NETWORK.replace("1.0", "2.0")),
        (True, NETWORK.replace("self.l(x)", "self.l(-x)")),
        (False, NETWORK.replace("self.l(x)", "self.l(-x)")),
        (False, NETWORK.replace("class Net", "class  Net(").replace("class Net", "?")),
    ],
)
def test_code_that_was_edited_since_it_was_imported_is_refused(tmp_path, monkeypatch, seen, edited):
    """A process computes with what it imported, which must not go under the key of what the file has now."""
    import importlib

    name = f"edited_{abs(hash((seen, edited)))}"
    module = tmp_path / f"{name}.py"
    module.write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    np.savez(tmp_path / "x.npz", x=np.ones((2, 4), np.float32))
    plan = Plan("s", "npu", {"array.rows": [8]}, Inputs(f"{name}:Net", data=str(tmp_path / "x.npz")))
    imported = importlib.import_module(name)
    before = plan_keys(plan) if seen else None
    module.write_text(edited)
    with pytest.raises(InputError, match="has changed since this process imported it; expected the file as it was"):
        plan_keys(plan)
    module.write_text(NETWORK)
    assert before in (None, plan_keys(plan))
    if "2.0" in edited:
        module.write_text(edited)
        importlib.invalidate_caches()
        importlib.reload(imported)
        assert plan_keys(plan) != before


def test_the_file_of_a_function_that_makes_the_network_decides_too(tmp_path, monkeypatch):
    (tmp_path / "made_by_test.py").write_text("from torch import nn\ndef net():\n    return nn.Linear(4, 3)\n")
    (tmp_path / "other_of_test.py").write_text("from torch import nn\ndef net():\n\n    return nn.Linear(4, 3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    np.savez(tmp_path / "x.npz", x=np.ones((2, 4), np.float32))
    models = ["made_by_test:net", "other_of_test:net"]
    keys = plan_keys(Plan("s", "npu", {"model": models}, Inputs(data=str(tmp_path / "x.npz"))))
    assert len(set(keys)) == 2


def test_a_worker_with_other_samples_or_numerics_refuses_the_point(tmp_path):
    """The key stands for what was planned with; what else a worker has gives no result under it."""
    path = tmp_path / "x.npz"
    x, y = bundled.digits()
    np.savez(path, x=x[:5], y=y[:5])
    plan = Plan("s", "npu", {"array.rows": [8]}, Inputs(data=str(path)))
    (first,) = tasks(plan)
    (fine,) = compute([first])
    assert fine.error is None and fine.record["accuracy"]["low"] is not None
    np.savez(path, x=x[5:10], y=y[5:10])
    (later,) = tasks(plan)
    assert later.key != first.key
    (fine,) = compute([later])  # this process had read the first file, and reads it again
    assert fine.error is None
    (other,) = compute([first])
    assert "has another network or other samples than the sweep was planned with" in other.error
    path.unlink()
    (missing,) = compute([replace(later, digests=later.digests._replace(samples="?"))])
    assert "x.npz: no such file" in missing.error
    (old,) = compute([replace(later, numerics=0)])
    assert "expected 0; install the same ulpsim there" in old.error


def test_a_point_that_failed_is_tried_again(tmp_path, monkeypatch):
    """Whatever it failed of: full memory, a fault of the user's code, a missing library may be mended by then."""
    (tmp_path / "failing_of_test.py").write_text(
        "import os\n"
        "from torch import nn\n"
        "class Net(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        if os.environ.get('FAIL_OF_TEST') and len(x) > 1:\n"
        "            raise RuntimeError('for \\udc80 now')\n"
        "        return super().forward(x)\n"
        "def net(): return Net(4, 3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    np.savez(tmp_path / "x.npz", x=np.ones((2, 4), np.float32))
    plan = Plan("s", "npu", {"array.rows": [8]}, Inputs("failing_of_test:net", data=str(tmp_path / "x.npz")))
    monkeypatch.setenv("FAIL_OF_TEST", "1")
    failed = sweep(plan=plan, out=tmp_path / "out", workers=1)
    assert (failed.computed, failed.known, failed.failed) == (0, 0, 1)
    assert "RuntimeError: for \\udc80 now" in failed.points[0][1].error
    monkeypatch.delenv("FAIL_OF_TEST")
    fine = sweep(plan=plan, out=tmp_path / "out", workers=1)
    assert (fine.computed, fine.failed) == (1, 0) and fine.points[0][1].key == failed.points[0][1].key


def test_what_another_command_has_computed_meanwhile_is_not_computed_again(tmp_path):
    plan = read_plan(file(tmp_path))
    first, *others = tasks(plan)
    done = compute([first])[0]
    waited = []

    def meanwhile(computed, remaining):
        waited.append((computed, remaining))
        if computed == 1:  # as another command would, while this one waits for a worker
            with Store(tmp_path / "out") as store:
                for task in others:
                    store.add(Point(task.key, NUMERICS, {}, done.record, None, 0.0))

    found = sweep(plan=plan, out=tmp_path / "out", workers=1, progress=meanwhile)
    assert found.computed < 4 and found.failed == 0 and all(point.record for _, point in found.points)
    assert waited[-1] == (found.computed, found.computed) and found.known == 4 - found.computed


def test_points_of_other_numerics_are_computed_again(tmp_path, monkeypatch):
    plan = Plan("s", "npu", {"array.rows": [8, 16]}, cost_only=True, gemms=[(8, 8, 8)])
    assert sweep(plan=plan, out=tmp_path).computed == 2
    monkeypatch.setattr("simulator.explore.identity.NUMERICS", 0)
    assert sweep(plan=plan, out=tmp_path).computed == 2
    monkeypatch.undo()
    done = command("runs", tmp_path, cwd=tmp_path)
    assert done.stdout.count("(outdated: numerics 0, now ") == 2
    assert "2 points removed" in command("runs", tmp_path, "--remove-outdated", cwd=tmp_path).stdout
    with Store(tmp_path) as store:
        assert {point.numerics for point in store.points()} == {NUMERICS}


def test_parameters_without_a_number_in_json(tmp_path):
    varied = {"policy.tolerance": [0.5, math.inf, math.nan]}
    found = sweep("npu", varied, out=tmp_path, cost_only=True, gemms=[(8, 8, 8)])
    assert [point["parameters"]["policy.tolerance"] for point in found.to_dict()["points"]] == [0.5, ".inf", ".nan"]
    json.dumps(found.to_dict(), allow_nan=False)


def test_progress_counts_what_there_is_to_compute(tmp_path):
    seen = []
    arguments = {"out": tmp_path, "cost_only": True, "gemms": [(8, 8, 8)], "progress": lambda *at: seen.append(at)}
    sweep("npu", {"array.rows": [4, 8, 0]}, **arguments)
    assert seen[-1] == (2, 2)
    seen.clear()
    sweep("npu", {"array.rows": [4, 8, 16, 8]}, **arguments)
    assert (seen[0], seen[-1]) == ((0, 1), (1, 1))


def test_a_dry_run_says_how_many_and_how_long(tmp_path):
    done = command("sweep", file(tmp_path), "--out", "out", "--workers", 2, "--dry-run", "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert (found["points"], found["known"], found["remaining"], found["workers"]) == (4, 0, 4, 2)
    assert found["seconds"] > 0 and not (tmp_path / "out").exists()


def test_a_forecast_of_points_of_which_the_first_are_refused(tmp_path):
    plan = Plan("s", "npu", {"array.rows": [0, -1, 8, 8]}, cost_only=True, gemms=[(8, 8, 8)])
    seen = []
    found = forecast(plan=plan, out=tmp_path / "out", progress=lambda *at: seen.append(at))
    assert (found.points, found.refused, found.known, found.remaining) == (4, 2, 0, 1) and found.seconds > 0
    assert "array.rows: got 0" in found.reason
    assert seen[-1] == (4, 4)
    sweep(plan=plan, out=tmp_path / "out")
    again = forecast(plan=plan, out=tmp_path / "out")
    assert (again.points, again.refused, again.known, again.remaining) == (4, 2, 2, 0)


def test_a_dry_run_says_reasons_as_lines_and_no_time_for_nothing(tmp_path):
    text = """
    hw: npu
    cost: {gemms: [[8, 8, 8]]}
    sweep: {"array.rows, array.columns": [[8, 8], [0, -1]]}
    """
    words = ("sweep", file(tmp_path, text), "--out", "out", "--workers", 2)
    first, head, *problems = command(*words, "--dry-run", cwd=tmp_path).stdout.splitlines()
    assert re.fullmatch(r"s: 2 points, 1 refused; 1 to compute, in about .*s on 2 workers \(estimate\)", first)
    assert head == "refused or failed:" and all(line.startswith("  ") for line in problems)
    assert [line for line in problems if "array.rows: got 0" in line or "array.columns: got -1" in line] == [
        problems[0], problems[-2],
    ]  # fmt: skip
    command(*words, cwd=tmp_path)
    first, head, *_ = command(*words, "--dry-run", cwd=tmp_path).stdout.splitlines()
    assert (first, head) == ("s: 2 points, of which 1 is known, 1 refused; nothing to compute", "refused or failed:")


def test_the_table_has_the_figures_that_points_have_by_their_names_in_searches(tmp_path):
    priced = {"hw": "npu", "cost": {"gemms": [[8, 8, 8]]}, "sweep": {"array.rows": [8, 0]}}
    done = command("sweep", file(tmp_path, json.dumps(priced)), "--out", "out", cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert lines[1].split() == ["array.rows", "mode", "cycles", "latency", "energy"]
    assert lines[3].split() == ["0", "failed", "–", "–", "–"]
    done = command("sweep", file(tmp_path, FILE), "--out", "run", cwd=tmp_path)
    assert done.stdout.splitlines()[1].split()[-5:] == ["mode", "accuracy", "cycles", "latency", "energy"]


def test_points_without_labels_have_the_agreement_with_the_exact_run(tmp_path):
    def point(accuracy):
        record = {"totals": {"low": {"cycles": 12345.0}}, "agreement": {"low": 0.5}, "accuracy": accuracy}
        return Place({"seed": 0}, "a"), Point("a", NUMERICS, {}, record, None, 0.0)

    def headings(accuracy):
        return [column.header for column in sweep_command._table([point(accuracy)]).columns]

    assert headings(None) == ["seed", "mode", "agreement with exact", "cycles"]
    assert headings({"low": 0.25}) == ["seed", "mode", "accuracy", "cycles"]


def test_reasons_are_of_all_points_and_not_only_of_those_that_the_table_shows(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_command, "_ROWS", 2)
    found = sweep("npu", {"array.rows": [8, 16, 0, 24, -1]}, out=tmp_path, cost_only=True, gemms=[(8, 8, 8)])
    text = text_of_sweep(found)
    assert "and 3 more points" in text and "failed (2 points): " in text and "array.rows: got 0, -1; expected" in text
    with Store(tmp_path) as store:  # one that failed as it was computed
        key = found.places[3].key
        store.remove([key])
        store.add(Point(key, NUMERICS, {}, None, "a worker was killed", 0.0))
    assert "failed: a worker was killed" in text_of_sweep(found)
    with Store(tmp_path) as store:
        store.remove([key])
    assert "failed: removed from the store" in text_of_sweep(found)


def text_of_sweep(found):
    with redirect_stdout(io.StringIO()) as out:
        sweep_command.show(found, json=False)
    return " ".join(out.getvalue().split())


def test_rules_that_fit_no_module_are_refused_before_anything_runs(tmp_path):
    plan = Plan("s", "npu", {"layers.nothing.mac": ["low"]}, Inputs(samples=5))
    with pytest.raises(InputError, match="layers: pattern 'nothing' fits no module"):
        forecast(plan=plan, out=tmp_path / "out")


def test_weights_of_one_network_of_a_module_do_not_mix(tmp_path, monkeypatch):
    """The same object has other weights for each point; each point has those of its key, whatever the order."""
    import torch

    (tmp_path / "nets_of_test.py").write_text("from torch import nn\nNET = nn.Linear(4, 3).requires_grad_(False)\n")
    monkeypatch.syspath_prepend(tmp_path)
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    np.savez(tmp_path / "x.npz", x=x.numpy(), y=np.zeros(6, np.int64))
    varied = {"weights": []}
    for name in "ab":
        varied["weights"].append(str(tmp_path / f"{name}.pt"))
        torch.save(torch.nn.Linear(4, 3).state_dict(), varied["weights"][-1])
    inputs = Inputs("nets_of_test:NET", data=str(tmp_path / "x.npz"))
    a, b = tasks(Plan("s", "npu", varied, inputs))
    first, second, again = compute([a, b, a])
    assert (first.error, second.error, again.error) == (None, None, None)
    assert first.record["metrics"] == again.record["metrics"] != second.record["metrics"]


NETS = """
from functools import partial
import numpy as np
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, act=torch.relu, buffer=0.0, **held):
        super().__init__()
        self.act = act
        self.__dict__.update(held)
        self.register_buffer('shift', torch.tensor(buffer), persistent=False)
        self.l = nn.Linear(4, 3)
        nn.init.ones_(self.l.weight)
        nn.init.zeros_(self.l.bias)
    def extra_repr(self):
        return f"act={self.act}"
    def forward(self, x):
        return self.act(self.l(x)) + self.shift

def hooked():
    net = Net()
    net.l.register_forward_hook(lambda module, given, found: found * 0)
    return net

nets = [
    partial(Net), partial(Net, torch.tanh), partial(Net, lambda x: x), partial(Net, lambda x: -x), hooked,
    partial(Net, buffer=5.0), partial(Net, scale=1.0), partial(Net, scale=2.0), partial(Net, cfg={"a": 1.0}),
    partial(Net, cfg={"a": 0.0}), partial(Net, mean=np.float32(0.1)), partial(Net, mean=np.float32(0.5)),
    partial(Net, mean=torch.tensor(0.1)), partial(Net, mean=torch.tensor(0.5)), partial(Net, nn.functional.silu),
    partial(Net, partial(torch.clamp, min=0)), partial(Net, partial(torch.clamp, min=1)),
]
for i, net in enumerate(nets):
    globals()[f"n{i}"] = net
COUNT = len(nets)
"""


def test_whatever_a_network_holds_decides_too_in_any_process(tmp_path, monkeypatch):
    (tmp_path / "nets_held.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    np.savez(tmp_path / "x.npz", x=np.ones((2, 4), np.float32))
    models = [f"nets_held:n{i}" for i in range(17)]
    plan = Plan("s", "npu", {"model": models}, Inputs(data=str(tmp_path / "x.npz")))
    keys = plan_keys(plan)
    assert len(set(keys)) == 17 and plan_keys(plan) == keys
    code = (
        "from simulator.explore.plan import *; from simulator.explore.work import Inputs; "
        f"p = Plan('s', 'npu', {{'model': {models}}}, Inputs(data='x.npz')); "
        "print(*[q.key for q in Planner(p).points(grid(p))])"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == keys, done.stderr


def test_what_a_run_leaves_in_a_network_the_next_one_does_not_see(tmp_path, monkeypatch):
    (tmp_path / "counts.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Linear):\n"
        "    calls = 0\n"
        "    def forward(self, x):\n"
        "        self.calls += 1\n"
        "        return super().forward(x) * self.calls\n"
        "def net(): return Net(4, 3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    np.savez(tmp_path / "x.npz", x=np.ones((2, 4), np.float32))
    plan = Plan("s", "npu", {"array.rows": [8, 16]}, Inputs("counts:net", data=str(tmp_path / "x.npz")))
    first, second = tasks(plan)
    (alone,) = compute([second])
    _, after = compute([first, second])
    assert alone.record["metrics"] == after.record["metrics"]


def test_what_the_code_of_a_network_prints_does_not_come_between_the_records(tmp_path):
    (tmp_path / "prints.py").write_text("from torch import nn\nprint('loading')\nnet = nn.Linear(4, 3)\n")
    np.savez(tmp_path / "x.npz", x=np.ones((2, 4), np.float32))
    text = "hw: npu\nmodel: prints:net\ndata: x.npz\nsweep: {array.rows: [8, 16]}\n"
    done = command("sweep", file(tmp_path, text), "--out", "out", "--workers", 1, "--json", cwd=tmp_path)
    assert done.returncode == 0 and len(json.loads(done.stdout)["points"]) == 2


@pytest.mark.parametrize(
    ("varied", "settings", "message"),
    [
        ({"flagged": [0.0, 0.5]}, {}, "sweep: flagged: varies in a sweep that runs"),
        ({"model": ["mlp", "cnn"]}, {"cost_only": True, "gemms": [(8, 8, 8)]}, "sweep: model: varies beside gemms"),
        ({"array.rows": [8], "array": [{"rows": 32}]}, {}, "sweep: array.rows: varies below array"),
        (
            {"layers.a.mac": ["low"]},
            {"cost_only": True, "gemms": [(8, 8, 8)]},
            "sweep: layers.a.mac: varies beside gemms",
        ),
        ({"array.rows": [8]}, {"gemms": [(8, 8, 8)]}, "sweep: gemms: given for a sweep that runs"),
        ({"array.rows": [8]}, {"flagged": 0.5}, "sweep: flagged: given for a sweep that runs"),
        ({"array.rows": [8]}, {"cost_only": True, "gemms": [(8, 8, 8)], "samples": 3}, "samples: given beside gemms"),
        ({"array.rows": [8]}, {"scheduler": "tcp://127.0.0.1:9", "workers": 2}, "scheduler: got .* beside workers"),
        ({"array.rows": [8]}, {"plan": Plan("s", "npu", {"array.rows": [8]})}, "hw: given beside plan, which says all"),
    ],
)
def test_what_would_have_no_effect_is_refused(tmp_path, varied, settings, message):
    with pytest.raises(InputError, match=message):
        sweep("npu", varied, out=tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": "2"}, "workers: got '2'; expected a whole number from 1"),
        ({"threads": 10**6}, "threads: got 1,000,000; expected at most"),
        ({"only": 5}, "sweep: only: got 5; expected a list of conditions"),
        ({"varied": ["array.rows"]}, "sweep: varied: got a list; expected keys with lists"),
        ({"varied": {"array.rows": np.array(8)}}, "sweep: array.rows: got 8; expected a list of values"),
        ({"name": 5}, "sweep: name: got 5; expected a text"),
        ({"name": ""}, "sweep: name: got ''; expected a text"),
        ({"samples": 0}, "sweep: samples: got 0; expected a whole number from 1"),
        ({"out": ""}, "out: got ''; expected a directory"),
        ({"gemms": 5, "cost_only": True}, "sweep: gemms: got 5; expected products"),
        ({"cost_only": "no"}, "sweep: cost_only: got 'no'; expected true or false"),
        ({"seed": -1}, "sweep: seed: got -1; expected a whole number from 0"),
        ({"flagged": True, "cost_only": True}, "sweep: flagged: got true; expected a share"),
    ],
)
def test_arguments_that_are_none_are_refused(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        sweep("npu", **{"varied": {"array.rows": [8]}, "out": tmp_path / "out", **settings})
    assert not (tmp_path / "out").exists()


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


def test_a_damaged_record_is_said_with_the_point_and_what_to_do(tmp_path):
    plan = Plan("s", "npu", {"array.rows": [8]}, cost_only=True, gemms=[(8, 8, 8)])
    (place,) = sweep(plan=plan, out=tmp_path).places
    with closing(sqlite3.connect(tmp_path / "runs.sqlite")) as base, base:
        base.execute("UPDATE points SET record = substr(record, 1, 20)")
    with Store(tmp_path) as store:
        with pytest.raises(InputError, match=rf"the record of {place.key} is damaged.*--remove {place.key}"):
            store.find(place.key)
        assert store.remove([place.key]) == 1


def test_equal_products_are_priced_once_and_a_fourth_number_says_how_many(tmp_path, monkeypatch):
    priced = []

    def noted(machine, gemm, *others):
        priced.append(gemm)
        return price(machine, gemm, *others)

    monkeypatch.setattr("simulator.explore.work.price", noted)
    varied = {"array.columns": [16]}
    settings = {"cost_only": True, "gemms": [(64, 64, 784), (8, 8, 8, 5), (64, 64, 784)]}
    _, point = sweep("npu", varied, out=tmp_path, **settings).points[0]
    assert len(priced) == 3 * 2  # two shapes in three modes
    costs = [price(load_hardware("npu"), gemm, "low") for gemm in (Gemm(64, 64, 784), Gemm(8, 8, 8, 5))]
    assert point.record["totals"]["low"]["cycles"] == 2 * costs[0].cycles + costs[1].cycles


def test_the_products_of_a_network_are_priced_without_running_it(tmp_path):
    plan = Plan("s", "npu", {"array.columns": [16]}, Inputs("cnn", samples=30), cost_only=True)
    _, point = sweep(plan=plan, out=tmp_path / "out").points[0]
    x, y = bundled.digits()
    ran = simulator.evaluate(bundled.load("cnn"), "npu", x[:30], y[:30])
    assert [layer["name"] for layer in point.record["layers"]] == [layer.name for layer in ran.layers]
    cycles = sum(layer.cycles for layer in ran.baseline_layers["low"])
    assert point.record["totals"]["low"]["cycles"] == cycles


def test_rules_of_layers_hold_where_a_network_is_only_priced(tmp_path):
    varied = {"layers.fc1.mac": ["low", "high", "fp16 -> fma(fp16)"]}
    found = sweep("npu", varied, out=tmp_path, cost_only=True, model="mlp", samples=30)
    plain = sweep("npu", {"array.rows": [16]}, out=tmp_path, cost_only=True, model="mlp", samples=30).points[0][1]
    low, high, custom = (point.record for _, point in found.points)
    machine = load_hardware("npu")
    fc1 = {mode: price(machine, Gemm(30, 784, 784), mode).cycles for mode in ("low", "high")}
    for mode in ("low", "high"):
        own = plain.record["totals"][mode]["cycles"] - fc1[mode]
        assert low["totals"][mode]["cycles"] == own + fc1["low"]
        assert high["totals"][mode]["cycles"] == own + fc1["high"]
    assert custom["totals"]["low"] is None
    assert "low: no totals, since these layers have no price: fc1 (custom)" in custom["warnings"]


def test_the_identity_of_a_point_is_what_decides(tmp_path):
    import torch

    x, y = bundled.digits()
    for name, labels in (("a", y[:5]), ("b", y[1:6])):
        np.savez(tmp_path / f"{name}.npz", x=x[:5], y=labels)
    state = bundled.load("mlp").state_dict()
    torch.save(state, tmp_path / "same.pt")
    torch.save({**state, "fc3.bias": state["fc3.bias"] + 1}, tmp_path / "other.pt")

    def key(**changes):
        settings = {"name": "s", "hw": "npu", "varied": {"array.rows": [8]}, "inputs": Inputs(samples=5), **changes}
        return plan_keys(Plan(**settings))[0]

    same = tmp_path / "other.yaml"
    same.write_text((ROOT / "hwconfigs" / "npu.yaml").read_text().replace("# assumed", "# guessed"))
    named = tmp_path / "named.yaml"
    named.write_text(same.read_text().replace("name: npu", "name: other"))
    assert (
        key()
        == key(name="t")
        == key(hw=str(same))
        == key(hw=str(named))
        == key(inputs=Inputs(data=str(tmp_path / "a.npz")))
    )
    assert key() == key(inputs=Inputs(samples=5, weights=str(tmp_path / "same.pt")))
    others = [
        key(varied={"array.rows": [16]}), key(inputs=Inputs(samples=6)), key(inputs=Inputs("cnn", samples=5)),
        key(inputs=Inputs(samples=5, seed=1)), key(cost_only=True), key(cost_only=True, flagged=0.5),
        key(inputs=Inputs(data=str(tmp_path / "b.npz"))),
        key(inputs=Inputs(samples=5, weights=str(tmp_path / "other.pt"))),
        key(varied={"array.rows": [8], "policy.score, policy.side_metric": [["norm2", "norm_bound"]]}),
        key(varied={"array.rows": [8], "policy.budget": [0.1]}),
    ]  # fmt: skip
    assert len({key(), *others}) == 1 + len(others)


def test_the_first_samples_calibrate_and_do_not_run(tmp_path):
    x, y = bundled.digits()
    varied = {"policy.score": ["sensitivity"]}
    plan = Plan("s", "npu", varied, Inputs(samples=20, calibration=30))
    (task,) = tasks(plan)
    (found,) = compute([task])
    machine = load_hardware("npu")
    machine = replace(machine, policy=replace(machine.policy, score="sensitivity"))
    expected = simulator.evaluate(bundled.load("mlp"), machine, x[30:50], y[30:50], calibration=x[:30])
    assert found.record["forward_error"] == expected.forward_error and found.record["samples"] == 20
    keys = plan_keys(plan) + plan_keys(Plan("s", "npu", varied, Inputs(samples=20, calibration=31)))
    assert len({*keys, *plan_keys(Plan("s", "npu", varied, Inputs(samples=20)))}) == 3
    with pytest.raises(InputError, match="calibration: got 1500 of the 1500 samples of bundled digits; expected 1"):
        tasks(Plan("s", "npu", varied, Inputs(calibration=1500)))


def test_zeros_of_any_kind_are_one_point():
    varied = {"flagged": [0, 0.0, -0.0], "policy.tolerance": [0, -0.0]}
    assert len(set(plan_keys(Plan("s", "npu", varied, cost_only=True, gemms=[(8, 8, 8)])))) == 1


def test_what_a_store_holds_is_listed_shown_exported_and_removed(undisturbed, tmp_path):
    pandas = pytest.importorskip("pandas")
    listed = json.loads(command("runs", undisturbed, "--json", cwd=tmp_path).stdout)
    assert (
        listed["sweeps"] == {"s": {"points": 4, "done": 4, "failed": 0, "missing": 0, "search": False}}
        and len(listed["points"]) == 4
    )
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


def test_tables_and_records_of_points_have_area_and_the_numbers_of_the_own_mode(undisturbed, tmp_path):
    pandas = pytest.importorskip("pandas")
    with Store(undisturbed) as store:
        stored = list(store.of_sweep("s"))
    done = command("runs", undisturbed, "--export", "x.csv", "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == {"table": "x.csv", "sweep": "s", "points": 4}
    table = pandas.read_csv(tmp_path / "x.csv")
    for at, (place, point) in enumerate(stored):
        record, line = point.record, table.iloc[at]
        mode = own_mode(record)
        assert line["mode"] == row(place, point)["mode"] == mode
        assert (
            line["area_mm2"] == row(place, point)["area_mm2"] == record["area_um2"] * 1e-6 == value(record, "area_mm2")
        )
        assert row(place, point)["hardware"] == line["hardware"] == record["hardware"]
        for name in ("cycles", "latency_s", "energy_j", *({"accuracy", "agreement"} & set(record))):
            assert line[name] == line[f"{name}_{mode}"] == value(record, name)
    assert "feasible" not in table.columns


def test_a_point_without_a_result_has_its_parameters_and_its_error_alone():
    place = Place({"array.rows": 0}, None, "refused")
    assert columns(place, None) == {
        "array.rows": 0, "key": None, "error": "refused", "seconds": None, "numerics": None,
    }  # fmt: skip


def test_a_table_that_cannot_be_written_is_refused_before_the_store_is_read(undisturbed, tmp_path):
    done = command("runs", undisturbed, "--export", "none/x.parquet", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith(
        f"ulpsim: error: none/x.parquet: cannot be written ({tmp_path}/none is no directory); expected a place where"
    )


def test_parameters_of_several_types_are_exported_as_text(tmp_path):
    pandas = pytest.importorskip("pandas")
    varied = {"array.rows": [4, "x", 8.5, [1, 2]], "policy.tolerance": [1, 0.5]}
    found = sweep("npu", varied, out=tmp_path, cost_only=True, gemms=[(8, 8, 8)])
    assert write_table([columns(*point) for point in found.first(8)], tmp_path / "x.parquet") == 8
    table = pandas.read_parquet(tmp_path / "x.parquet")
    assert list(table["array.rows"][::2]) == ["4", "x", "8.5", "[1, 2]"]
    assert list(table["policy.tolerance"][:2]) == [1.0, 0.5]
    assert list(table["cycles_low"].notna()) == [True] * 2 + [False] * 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hw: npu\n", "s.yaml:1:1: sweep: missing; expected keys with lists"),
        ("hw: npu\nsweep: 3\n", "s.yaml:2:8: sweep: got 3; expected keys with lists"),
        ("hw: npu\nsweeep: {}\nsweep: {a: [1]}\n", 's.yaml:2:1: sweeep: unknown key; did you mean "sweep"?'),
        ("hw: npu\nsamples: many\nsweep: {a: [1]}\n", "s.yaml:2:10: samples: got 'many'; expected a whole number"),
        ("hw: npu\nsweep: {a: 1}\n", "s.yaml:2:12: sweep.a: got 1; expected a list of values, or a range"),
        ("hw: npu\ncost: {flagged: x}\nsweep: {a: [1]}\n", "s.yaml:2:17: cost.flagged: got 'x'; expected a share"),
        (
            "hw: npu\ncost: {gemms: [[1, 2]]}\nsweep: {array.rows: [1]}\n",
            "s.yaml:2:16: cost.gemms[0]: got a list of 2; expected M, N, K",
        ),
        (
            "hw: npu\ncost:\nsweep: {array.rows: [1]}\n",
            "s.yaml:2:6: cost: got nothing; expected a value; write one",
        ),
        (
            "hw: npu\nsamples: 3\ncost: {gemms: [[1, 2, 3]]}\nsweep: {array.rows: [1]}\n",
            "s.yaml:2:1: samples: given beside gemms",
        ),
        (
            "hw: npu\nmodel: mlp\ncost: {gemms: [[1, 2, 3]]}\nsweep: {array.rows: [1]}\n",
            "s.yaml:2:1: model: given beside gemms, which are all that is priced",
        ),
        ("hw: npu\nsweep: {seed: [1.5]}\n", "s.yaml:2:15: sweep.seed: got 1.5; expected a whole number"),
        ("hw: npu\nsweep: {model: [[mlp]]}\n", "s.yaml:2:16: sweep.model: got a list; expected a network"),
        (
            "hw: npu\nsweep:\n  array: {rows: {from: 8, to: 9, step: 0}}\n",
            "s.yaml:3:17: sweep.array.rows: got the range {from: 8, to: 9, step: 0}; expected {from, to, step}",
        ),
        (
            "hw: npu\nsweep: {array.rows: [8]}\nonly:\n- {array.rows: 8}\n- {array.row: 8}\n",
            "s.yaml:5:4: only[1].array.row: does not vary; expected one of array.rows",
        ),
        (
            "hw: npu\nsweep: {array.rows: [8]}\nonly: [{array.rows: 9}]\n",
            "s.yaml:2:8: sweep: got conditions that leave",
        ),
        (
            "hw: npu\nsweep:\n  a, array.rows: [[1, 0]]\n",
            "s.yaml:3:18: sweep.a, array.rows: hwconfigs/npu.yaml:",
        ),
        (
            "hw: npu\nsweep: {hw: [nofile.yaml]}\n",
            "s.yaml:2:14: sweep.hw[0]: nofile.yaml: no such file; expected a YAML",
        ),
        ("hw: npu\nsweep:\n  array: [{rows: 0, columns: 8}]\n", "s.yaml:3:10: sweep.array: hwconfigs/npu.yaml:"),
        ("hw: npu\nsweep: {flagged: [0.5]}\n", "s.yaml:2:9: sweep.flagged: varies in a sweep that runs"),
        (
            "hw: npu\ncost: {gemms: [[1, 2, 3], [1, 2, x]]}\nsweep: {array.rows: [8]}\n",
            "s.yaml:2:27: cost.gemms[1]: k: got 'x'; expected a whole number",
        ),
        ("hw: npu\nsamples: 9999\nsweep: {array.rows: [8]}\n", "s.yaml:2:10: samples: got 9999; expected 1 to 1500"),
        ("hw: npu\ndata: none.npz\nsweep: {array.rows: [8]}\n", "s.yaml:2:7: data: none.npz: no such file"),
        (
            "hw: npu\ncost: {gemms: []}\nsweep: {array.rows: [1]}\n",
            "s.yaml:2:15: cost.gemms: got an empty list; expected products",
        ),
        ("hw: npu\ncost: {gemm: [[1, 2, 3]]}\nsweep: {a: [1]}\n", "s.yaml:2:8: cost.gemm: unknown key"),
        ("hw: npu\nmodel: nothing\nsweep: {array.rows: [8]}\n", "s.yaml:2:8: model: got 'nothing'"),
        ("hw: nowhere.yaml\nsweep: {array.rows: [8]}\n", "s.yaml:1:5: hw: nowhere.yaml: no such file"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, message):
    done = command("sweep", file(tmp_path, text), "--out", "out", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "") and message in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["workers", "threads"])
def test_no_workers_and_no_threads_are_refused(tmp_path, option):
    done = command("sweep", file(tmp_path), "--out", "out", f"--{option}", 0, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"ulpsim: error: sweep: --{option}: got 0; expected a whole number from 1; give one, or leave it out\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [OSError, CancelledError])
def test_a_scheduler_that_dies_between_a_result_and_its_fetching_is_said(tmp_path, monkeypatch, error):
    def result(future):
        raise error("Stream is closed")

    monkeypatch.setattr("distributed.Future.result", result)
    with pytest.raises(InputError, match=r"the cluster went away \(Stream is closed\)"):
        sweep("npu", {"array.rows": [4, 8]}, samples=5, out=tmp_path, workers=1)


def test_far_more_workers_than_processors_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"workers: got 100,000; expected at most \d+, 4 for each processor here"):
        sweep(plan=read_plan(file(tmp_path)), out=tmp_path / "out", workers=100_000)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["tls://localhost:1", "ucx://a:1", "nowhere"])
def test_an_address_that_is_none_is_refused(tmp_path, address):
    with pytest.raises(InputError, match=f"scheduler: {address}: no cluster answers"):
        sweep("npu", {"array.rows": [8]}, out=tmp_path / "out", samples=5, scheduler=address)


def test_no_cluster_at_an_address(tmp_path):
    done = command(
        "sweep", file(tmp_path), "--out", "out", "--scheduler", "tcp://127.0.0.1:9", cwd=tmp_path, timeout=100
    )
    assert done.returncode == 2
    assert "sweep: --scheduler: tcp://127.0.0.1:9: no cluster answers" in done.stderr


def test_a_file_in_which_the_machine_varies_needs_no_other(tmp_path):
    plan = read_plan(file(tmp_path, "cost: {gemms: [[8, 8, 8]]}\nsweep: {hw: [npu, tpu_v1]}\n"))
    found = sweep(plan=plan, out=tmp_path / "out")
    assert [point.record["hardware"] for _, point in found.points] == ["npu", "tpu_v1"]
    assert sweep(plan=plan, out=tmp_path / "out", workers=np.int64(1)).known == 2
    with pytest.raises(InputError, match="sweep: got nothing; expected the path of a sweep file"):
        read_plan(None)


@pytest.mark.parametrize("words", [("sweep", "s.yaml"), ("search", "s.yaml"), ("sweep", "s.yaml", "--json")])
def test_a_dry_run_whose_reader_is_gone_ends_as_all_commands_do(tmp_path, words):
    file(tmp_path, "hw: npu\ncost: {gemms: [[8, 8, 8]]}\nsweep: {array.rows: [4, 8, 16]}\n"
                   "search: {objectives: [latency_s, area_mm2]}\n")  # fmt: skip
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as nobody:
        done = subprocess.run(
            [sys.executable, "-m", "simulator", *words, "--dry-run"], cwd=tmp_path, stdout=nobody,
            stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=300,
        )  # fmt: skip
    assert "Traceback" not in done.stderr and done.returncode != 1


def test_a_refusal_names_the_option_whatever_stands_behind_it(tmp_path):
    file(tmp_path, "hw: npu\ncost: {gemms: [[8, 8, 8]]}\nsweep: {array.rows: [4, 8]}\n")
    done = command("sweep", "s.yaml", "--scheduler", "threads", cwd=tmp_path)
    assert done.returncode == 2 and "sweep: --scheduler: threads: no cluster answers" in done.stderr
