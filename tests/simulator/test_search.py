"""Searches: chosen points of a sweep's grid; the same however they are computed; fronts, hypervolumes, constraints."""

import itertools
import json
import os
import random
import re
import sqlite3
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("distributed")
pytest.importorskip("optuna")

from simulator.command_line.interruption import points_stay
from simulator.errors import InputError
from simulator.explore import (
    Goal,
    Plan,
    Store,
    compromises,
    forecast,
    forecast_search,
    read_found,
    read_plan,
    read_search,
    search,
    sweep,
)
from simulator.explore.chooser import Chooser
from simulator.explore.found import Found
from simulator.explore.objectives import OBJECTIVES, value
from simulator.explore.pareto import front, hypervolume
from simulator.explore.search import as_stored, searched
from simulator.explore.store import Place, Point
from simulator.network import metrics
from tests.bench import search as bench
from tests.simulator.test_sweep import command, file

ROOT = Path(__file__).parents[2]
RUN = """
hw: npu
model: mlp
samples: 5
sweep:
  array.rows, array.columns: [[8, 8], [16, 16], [32, 32]]
  policy.tolerance: {from: 0.25, to: 4.0, steps: 5, scale: log}
search:
  objectives: [forward_error, energy_j]
  points: 10
  at_once: 4
"""
SHAPES = {"array.rows": [4, 8, 16, 32], "array.columns": [4, 8, 16, 32], "side_engine.lanes": [16, 64]}
BILL = Plan("b", "npu", SHAPES, cost_only=True, gemms=[(64, 784, 784)], flagged=0.05)
COSTS = {"latency_s": "min", "energy_j": "min"}


def chosen(found):
    return [json.dumps(point.parameters) for point in found.points]


def test_a_search_chooses_points_of_the_sweep_and_none_twice(tmp_path):
    found = search(plan=BILL, goal=Goal(COSTS, points=20), out=tmp_path)
    assert (len(found.points), found.computed, found.failed, found.grid) == (20, 20, 0, 32)
    assert len(set(chosen(found))) == 20
    whole = sweep(plan=BILL, out=tmp_path)
    assert whole.computed == 12  # the others are known
    keys = {json.dumps(place.parameters): place.key for place in whole.places}
    assert all(keys[json.dumps(point.parameters)] == point.key for point in found.points)
    everything = search(plan=BILL, goal=Goal(COSTS, points=1000), out=tmp_path)
    assert sorted(chosen(everything)) == sorted(keys) and everything.computed == 0


def test_the_choice_depends_on_the_seed_alone(tmp_path):
    """Not on what the store has, how many points follow, or other seeds before."""
    long = search(plan=BILL, goal=Goal(COSTS, points=24, seed=1), out=tmp_path / "a")
    sweep(plan=BILL, out=tmp_path / "b")
    known = search(plan=BILL, goal=Goal(COSTS, points=24, seed=1), out=tmp_path / "b")
    short = search(plan=BILL, goal=Goal(COSTS, points=16, seed=1), out=tmp_path / "c")
    assert known.computed == 0 and chosen(known) == chosen(long) and chosen(short) == chosen(long)[:16]
    assert chosen(search(plan=BILL, goal=Goal(COSTS, points=24, seed=2), out=tmp_path / "a")) != chosen(long)


def test_workers_do_not_change_a_search_and_a_killed_one_goes_on(tmp_path):
    path = file(tmp_path, RUN)
    plan, goal = read_search(path)
    one = search(plan=plan, goal=goal, out=tmp_path / "one", workers=1, threads=1)

    class Killed(Exception):
        pass

    def progress(computed, to_compute):
        if computed == 6:
            raise Killed

    with pytest.raises(Killed):
        search(plan=plan, goal=goal, out=tmp_path / "two", workers=2, threads=1, progress=progress)
    with Store(tmp_path / "two") as store:
        assert store.sweeps()["s-search"].points == 10 and len(store) == 6
    begun = read_found(tmp_path / "two")
    assert (len([point for point in begun.points if point.computed]), begun.missing, begun.failed) == (6, 4, 0)
    assert [point.key for point in begun.points] == [point.key for point in one.points[: len(begun.points)]]
    two = search(plan=plan, goal=goal, out=tmp_path / "two", workers=2, threads=1)
    assert (one.computed, two.computed) == (10, 4)
    assert two.points == one.points and two.hypervolumes == one.hypervolumes
    assert read_plan(path) == plan  # a search file is a sweep file too
    assert sweep(plan=plan, out=tmp_path / "two", workers=2).computed == 5
    assert read_found(tmp_path / "two", "s-search") == replace(two, computed=0)  # beside the sweep
    with pytest.raises(InputError, match="got 's'; expected that of a search, s-search; check it"):
        read_found(tmp_path / "two", "s")


def test_the_command_prints_the_front(tmp_path):
    text = RUN.replace("  points: 10\n", "  constraints: {area_mm2: {to: 0.25}}\n")
    path = file(tmp_path, text)
    done = command("search", path, "--out", "out", "--points", 8, "--seed", 3, "--workers", 1, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    record = json.loads(done.stdout)
    assert record["goal"]["objectives"] == {"forward_error": "min", "energy_j": "min"}
    assert (record["points"][0]["key"] is not None, len(record["points"]), record["grid"]) == (True, 8, 15)
    assert record["goal"]["seed"] == 3 and record["hypervolume"] == record["points"][-1]["hypervolume"]
    for point in record["points"]:
        assert point["feasible"] == (point["values"]["area_mm2"] <= 0.25)
        assert point["feasible"] or not point["on_front"]
    assert {point["feasible"] for point in record["points"]} == {True, False}
    shown = command("search", path, "--out", "out", "--points", 8, "--seed", 3, cwd=tmp_path).stdout
    assert shown.startswith("s-search: 8 of 15 points, 0 computed now, 8 from the store; in out/runs.sqlite\n")
    rows = sum(point["on_front"] for point in record["points"])
    kept = sum(point["feasible"] for point in record["points"])
    assert f"Pareto front: {rows} point" in shown and f"{kept} of the points keep the constraints" in shown
    tolerances = {point["parameters"]["policy.tolerance"] for point in record["points"] if point["on_front"]}
    assert all(f" {tolerance:.6g} " in shown for tolerance in tolerances)
    listed = json.loads(command("runs", "out", "--json", cwd=tmp_path).stdout)
    assert listed["sweeps"] == {"s-search": {"points": 8, "done": 8, "failed": 0, "missing": 0, "search": True}}
    path = file(tmp_path, text.replace("{to: 0.25}", "{to: 0.001}"))
    none = command("search", path, "--out", "out", "--points", 2, cwd=tmp_path).stdout
    words = " ".join(none.splitlines()[1:])
    assert words.startswith("no point keeps all constraints; the nearest, with array.rows 16, array.columns 16, ")
    assert words.endswith(", has area 0.148 mm²")


def test_a_dry_run_says_what_there_is_to_choose_from_and_writes_nothing(tmp_path):
    path = file(tmp_path, RUN.replace("  points: 10\n", "  constraints: {area_mm2: {to: 0.25}}\n"))
    words = ["search", path, "--out", "out", "--workers", 2]
    record = json.loads(command(*words, "--dry-run", "--json", cwd=tmp_path).stdout)
    goal = record["goal"]
    assert (goal["points"], record["grid"], goal["at_once"], goal["seed"]) == (4, 15, 4, 0)
    assert (record["workers"], record["store"], record["known"]) == (2, "out", 0)
    assert goal["objectives"] == {"forward_error": "min", "energy_j": "min"}
    assert goal["constraints"] == {"area_mm2": {"to": 0.25}}
    assert record["space"] == [
        {"keys": ["array.rows", "array.columns"], "values": [[8, 8], [16, 16], [32, 32]]},
        {"keys": ["policy.tolerance"], "values": [[0.25], [0.5], [1.0], [2.0], [4.0]]},
    ]
    shown = command(*words, "--dry-run", "--points", 100, cwd=tmp_path).stdout
    assert shown.startswith("s-search: 15 of 15 points, 4 at a time, seed 0, on 2 workers; into out\n")
    assert "for the smallest logit RMS error, smallest energy, with area at most 0.250 mm²\n" in shown
    assert "array.rows, array.columns       3  [8, 8], [16, 16], [32, 32]" in shown
    assert not (tmp_path / "out").exists()


def test_a_dry_run_knows_what_the_store_has_of_the_search(tmp_path):
    goal = Goal(COSTS, points=6)
    search(plan=BILL, goal=goal, out=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert [forecast_search(plan=BILL, goal=goal, out=at).known for at in (tmp_path, tmp_path / "new")] == [6, 0]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(InputError, match="search: accuracy: is not known where points are only priced"):
        forecast_search(plan=BILL, objectives=["accuracy"], out=tmp_path)
    with pytest.raises(InputError, match=r"array\.rows: got 0"):
        forecast_search("npu", {"array.rows": [0]}, cost_only=True, gemms=[(8, 8, 8)], goal=goal, out=tmp_path)


def test_the_command_refuses_by_the_option_that_it_was_given(tmp_path):
    path = file(tmp_path, RUN)
    for words, message in (
        (("--points", 0), "search: --points: got 0"), (("--seed=-1",), "search: --seed: got -1"),
        (("--workers", 0, "--dry-run"), "search: --workers: got 0"), (("--out", ""), "search: --out: got ''"),
    ):  # fmt: skip
        done = command("search", path, *words, cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr, done.stderr
    path = file(tmp_path, RUN.replace("points: 10", "points: 0"))  # in the file it is no option
    assert "s.yaml:10:11: search.points: got 0" in command("search", path, cwd=tmp_path).stderr


def test_failed_points_are_kept_apart(tmp_path):
    text = RUN.replace("[[8, 8], [16, 16], [32, 32]]", "[[8, 8], [0, 16], [32, 32]]").replace(
        "points: 10", "points: 15"
    )
    done = command("search", file(tmp_path, text), "--out", "out", "--workers", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "10 of 15 points, 10 computed now, 5 combinations can be none; in" in done.stdout
    found = read_found(tmp_path / "out")
    assert (len(found.points), len(found.refused), found.failed, found.missing) == (10, 5, 0, 0)
    assert "array.rows: got 0; expected a whole number from 1" in " ".join(done.stdout.split())


def test_what_can_be_no_point_takes_the_place_of_none(tmp_path):
    """As many points as were asked for are computed, of a grid of which two thirds are refused."""
    seen = []
    shapes = {"array.rows": [4, 8, 0, -1, -2, -3], "array.columns": [4, 8, 16, 32], "side_engine.lanes": [16, 64]}
    given = {"objectives": COSTS, "cost_only": True, "gemms": [(64, 64, 784)]}
    found = search("npu", shapes, points=12, out=tmp_path, progress=lambda *at: seen.append(at), **given)
    assert found.computed == 12 and seen[-1] == (12, 12)
    assert (len(found.points), found.failed, found.missing) == (12, 0, 0) and found.refused
    assert all(point.key is None and point.error for point in found.refused)
    with Store(tmp_path) as store:
        counts = store.sweeps()["sweep-search"]
    assert counts == (12, 12, 0) and counts.missing == 0
    again = search("npu", shapes, points=12, out=tmp_path, **given)
    assert (again.computed, chosen(again)) == (0, chosen(found))
    whole = search("npu", shapes, points=1000, out=tmp_path, **given)
    assert (len(whole.points), len(whole.refused), whole.known, whole.missing) == (16, 32, 12, 0)
    with Store(tmp_path) as store:
        assert store.sweeps()["sweep-search"] == (16, 16, 0)


def test_a_frame_has_the_front_and_the_hypervolume(tmp_path):
    found = search("npu", SHAPES, objectives=COSTS, points=12, cost_only=True, gemms=[(64, 64, 784)], out=tmp_path)
    table = found.to_frame()
    assert len(table) == 12 and set(SHAPES) < set(table.columns)
    assert table["on_front"].sum() == len(found.front) > 0
    assert list(table["hypervolume"]) == sorted(found.hypervolumes) and table["hypervolume"].iloc[-1] <= 1
    best, worst = found.range["energy_j"]
    assert (best, worst) == (table["energy_j"].min(), table["energy_j"].max())


@pytest.mark.parametrize("command_of", [("runs",), ("report",)])
def test_exported_points_of_a_search_say_which_are_feasible_and_on_its_front(tmp_path, command_of):
    pandas = pytest.importorskip("pandas")
    goal = Goal(COSTS, {"area_mm2": {"from": 0.1, "to": 0.2}}, points=32)
    found = search(plan=BILL, goal=goal, out=tmp_path / "best")
    assert command(*command_of, "best", "--export", "x.csv", cwd=tmp_path).returncode == 0
    table = pandas.read_csv(tmp_path / "x.csv").set_index("key")
    assert len(table) == 32 and 0 < table["feasible"].sum() < 32 and table["on_front"].sum() > 0
    for point in found.points:
        line = table.loc[point.key]
        assert line["feasible"] == point.feasible and line["on_front"] == (point in found.front)
        assert {name: line[name] for name in found.goal.names} == pytest.approx(point.values, rel=1e-15)


def test_constraints_are_what_is_searched_within(tmp_path):
    """With none that keeps them there is no front, and it is said."""
    goal = Goal(COSTS, {"area_mm2": {"to": 1e-9}}, points=4)
    found = search(plan=BILL, goal=goal, out=tmp_path)
    assert found.front == () and found.hypervolumes is None and found.range is None
    some = search(plan=BILL, goal=Goal(COSTS, {"area_mm2": {"from": 0.1, "to": 0.2}}, points=32), out=tmp_path)
    areas = [point.values["area_mm2"] for point in some.points]
    assert [point.feasible for point in some.points] == [0.1 <= area <= 0.2 for area in areas]
    assert 0 < sum(point.feasible for point in some.points) < 32


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_fronts_and_hypervolumes_are_those_of_cells_counted(objectives):
    """Points on a grid of cells: a cell counts if one point is better than all of it."""
    draw = np.random.default_rng(objectives)
    cells = np.array(list(itertools.product(range(6), repeat=objectives)))
    for size in (1, 2, 5, 12):
        losses = draw.integers(0, 7, (size, objectives)) / 6
        covered = np.any(np.all(losses[:, None] * 6 <= cells + 1e-9, axis=2), axis=0)
        assert hypervolume(losses) == pytest.approx(covered.mean(), abs=1e-12)
        better = [
            any(np.all(other <= one) and np.any(other < one) for other in losses) for one in losses
        ]  # fmt: skip
        kept = front(losses)
        assert sorted(kept) == [i for i, worse in enumerate(better) if not worse]
        assert [losses[i, 0] for i in kept] == sorted(losses[i, 0] for i in kept)


def test_hypervolumes_are_those_of_optuna():
    ours = pytest.importorskip("optuna._hypervolume")
    draw = np.random.default_rng(0)
    for objectives in (2, 3, 4):
        losses = draw.random((40, objectives))
        assert hypervolume(losses) == pytest.approx(ours.compute_hypervolume(losses, np.ones(objectives)), rel=1e-9)


def test_a_kernel_without_widgets_hears_nothing_of_them(tmp_path, monkeypatch):
    """tqdm, which optuna imports, warns there of bars that nobody shows."""
    client, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    (tmp_path / "ipywidgets.py").write_text("raise ImportError\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    for name in ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    code = "from simulator.explore.chooser import Chooser\nChooser([{'x': 1}, {'x': 1}], [('x',)], 1, seed=0).choose(2)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    client.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert [output.output_type for output in notebook.cells[0].outputs] == ["execute_result"]


def test_the_chooser_takes_each_point_of_a_grid_with_holes_once():
    values = ["a", "b", [1, 2]]
    points = [{"x": x, "y": y, "z": x * 2} for x in (8, 1, 4) for y in values if (x, y) != (1, "b")]
    chooser = Chooser(points, [("x", "z"), ("y",)], 2, 0)
    places = []
    while some := chooser.choose(3):
        places += some
        for place in some:
            chooser.tell(place, None if place == 2 else [place, -place], {"c": float(place > 5)})
    assert sorted(places) == list(range(len(points)))


def test_numbers_of_a_record_by_name_and_mode():
    record = {
        "accuracy": {"exact": 1.0, "low": 0.5, "high": 0.75, "two_pass": None},
        "metrics": {"mse": {"low": 0.25}},
        "totals": {"low": {"energy_j": 2.0}, "high": {"energy_j": float("inf")}, "two_pass": None},
        "area_um2": 3e6,
    }
    names = ("accuracy", "accuracy_exact", "mse", "energy_j", "energy_j_high", "energy_j_two_pass", "area_mm2", "top5")
    assert [value(record, name) for name in names] == [0.5, 1.0, 0.25, 2.0, None, None, 3.0, None]
    assert set(metrics.NAMES) < set(OBJECTIVES)


def test_what_is_wrong_is_said(tmp_path):
    def said(text, old, new):
        with pytest.raises(InputError) as caught:
            read_search(file(tmp_path, text.replace(old, new)))
        return str(caught.value)

    assert "search: missing; expected a mapping with objectives" in said(RUN, RUN[RUN.index("search:") :], "")
    assert "s.yaml:9:31: search.objectives[1]: speed: unknown number; expected one of accuracy, agreement," in said(
        RUN, "energy_j", "speed"
    )
    assert said(RUN, "forward_error", "acuracy_low").endswith('; did you mean "accuracy_low"?')
    assert "expected max or min" in said(RUN, "[forward_error, energy_j]", "{energy_j: low}")
    assert "s.yaml:10:11: search.points: got 0; expected a whole number from 1" in said(RUN, "points: 10", "points: 0")
    assert 'search.point: unknown key; did you mean "points"?' in said(RUN, "points:", "point:")
    assert "search.lr: unknown key; expected one of objectives," in said(RUN, "points:", "lr:")
    for name, modes in (
        ("area_mm2_high", "area_mm2 alone"), ("sqnr_db_exact", "sqnr_db, alone or with one of float32, low, high,"),
        ("accuracy_float32", "accuracy, alone or with one of exact, low, high, two_pass behind it"),
        ("cycles_exact", "cycles, alone or with one of low, high, two_pass behind it"),
    ):  # fmt: skip
        assert f"{name}: unknown in this mode; expected {modes}" in said(RUN, "energy_j", name)
    assert "s.yaml:9:15: search.objectives: got energy_j twice" in said(RUN, "forward_error", "energy_j")
    assert "s.yaml:9:16: search.objectives[0]: forward_error: is not known where" in said(
        RUN, "samples: 5", "cost: {flagged: 0.1}"
    )
    limits = "constraints: {accuracy: [0.9]}"
    assert "s.yaml:10:27: search.constraints.accuracy: got a list" in said(RUN, "points: 10", limits)
    limits = "constraints: {accuracy: {form: 0.9}}"
    assert 'search.constraints.accuracy.form: unknown key; did you mean "from"?' in said(RUN, "points: 10", limits)
    assert "s.yaml:9:3: search: objectives: missing; expected names" in said(
        RUN, "objectives: [forward_error, energy_j]", "seed: 1"
    )
    with pytest.raises(InputError, match="search: accuracy: is not known where points are only priced"):
        search(plan=BILL, goal=Goal(["accuracy"]), out=tmp_path / "out")
    with pytest.raises(InputError, match="search: points: given beside goal"):
        search(plan=BILL, goal=Goal(COSTS), points=3, out=tmp_path / "out")
    with pytest.raises(InputError, match="search: samples: given beside plan"):
        search(plan=BILL, objectives=COSTS, samples=3, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_that_are_missing_are_missed_before_anything_runs(tmp_path, monkeypatch):
    (tmp_path / "nets_of_search.py").write_text(
        "from torch import nn\nNET = nn.Linear(784, 10).requires_grad_(False)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    x = np.random.default_rng(0).random((6, 784), np.float32)
    np.savez(tmp_path / "bare.npz", x=x)
    np.savez(tmp_path / "labelled.npz", x=x, y=np.zeros(6, np.int64))
    np.savez(tmp_path / "regression.npz", x=x, y=np.zeros(6, np.float32))

    def asked(varied, names, data=None):
        data = None if data is None else str(tmp_path / data)
        return search(
            "npu", varied, objectives=names, model="nets_of_search:NET", data=data, out=tmp_path / "out", points=1
        )

    rows = {"array.rows": [8]}
    for data in ("bare.npz", "regression.npz"):
        with pytest.raises(InputError, match=f"search: accuracy_low: needs labels, .*{data} does not have"):
            asked(rows, ["energy_j", "accuracy_low"], data)
    assert not (tmp_path / "out").exists()
    assert asked(rows, ["agreement", "energy_j"], "bare.npz").name == "sweep-search"
    several = {"data": [str(tmp_path / name) for name in ("bare.npz", "labelled.npz")]}
    assert asked(several, ["accuracy", "energy_j"]).failed == 0


def test_the_front_of_a_sweep_is_that_of_a_search_of_all_its_points(tmp_path):
    whole = sweep(plan=BILL, out=tmp_path)
    names, limits = ["latency_s", "area_mm2"], {"area_mm2": {"to": 0.5}}
    found = search(plan=BILL, objectives=names, constraints=limits, points=len(whole.places), out=tmp_path)
    best = whole.front(names, limits)
    assert 1 < len(best) < len(whole.places)
    assert [point.values for point in best] == [point.values for point in found.front]
    with pytest.raises(InputError, match="search: speed: unknown number"):
        whole.front(["speed"])


def test_a_store_of_before_takes_searches(tmp_path):
    sweep(plan=BILL, out=tmp_path)
    with sqlite3.connect(tmp_path / "runs.sqlite") as base:
        base.execute("DROP TABLE searches")
        base.execute("PRAGMA user_version = 2")
    base.close()
    found = search(plan=BILL, goal=Goal(COSTS, points=9), out=tmp_path)
    assert (found.computed, len(found.points)) == (0, 9)


def share_reached(case, points, store):
    return statistics.median(bench.reached(case, points, store).searched)


def test_a_quarter_of_the_points_gives_the_hypervolume_of_bills(tmp_path):
    columns = {"array.rows": range(4, 68, 8), "array.columns": range(4, 68, 8), "side_engine.lanes": [16, 32, 64, 128]}
    plan = Plan("few", "npu", columns, cost_only=True, gemms=[(100, 784, 784), (100, 128, 784)], flagged=0.05)
    case = bench.Case(plan, {"latency_s": "min", "energy_j": "min", "area_mm2": "min"})
    assert share_reached(case, 64, tmp_path) >= 0.98


@pytest.mark.full
@pytest.mark.parametrize("case", bench.CASES, ids=lambda case: f"{case.plan.name}-{'-'.join(case.objectives)}")
def test_a_quarter_of_the_points_gives_the_hypervolume(case, tmp_path_factory):
    """Of accuracy or error, energy, latency and area over formats, accumulators, array shapes and tolerances."""
    store = tmp_path_factory.getbasetemp() / f"searched-{case.plan.name}"
    assert share_reached(case, bench.points_of(case, store) // 4, store) >= 0.98


def test_random_points_are_worse_than_the_search_on_a_steep_grid(tmp_path):
    """A front that few points are on: one in 32 of the bills."""
    losses = [(x, y) for x in range(32) for y in range(32)]
    points = [{"x": x, "y": y} for x, y in losses]

    def nearest(places):
        return min(x + y for x, y in (losses[place] for place in places))

    found, drawn = [], []
    for seed in range(5):
        chooser = Chooser(points, [("x",), ("y",)], 2, seed)
        places = []
        while len(places) < 64:
            some = chooser.choose(8)
            places += some
            for place in some:
                chooser.tell(place, losses[place], {})
        found.append(nearest(places))
        drawn.append(nearest(random.Random(seed).sample(range(len(points)), 64)))
    assert statistics.median(found) < statistics.median(drawn)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ("{energy_j: {to: .inf}}", "energy_j.to: got inf; expected a finite number in J"),
        ("{energy_j: {to: 2.2 mJ}}", "energy_j.to: got '2.2 mJ'; expected a finite number in J"),
        ("{accuracy: {from: high}}", "accuracy.from: got 'high'; expected a finite number from 0 to 1"),
        ("{area_mm2: {from: 1, to: 0.15}}", "area_mm2: got from 1 to 0.15; expected from below to"),
    ],
)
def test_ends_of_constraints_are_finite_numbers_in_order(tmp_path, limits, message):
    path = file(tmp_path, RUN.replace("  points: 10\n", f"  constraints: {limits}\n"))
    with pytest.raises(InputError, match=re.escape(f"search.constraints.{message}")):
        read_search(path)


def test_a_sweep_and_a_search_never_take_each_others_name(tmp_path):
    """Either would take the other's list of points away; forecasts say it too."""
    sweep(plan=replace(BILL, name="b-search"), out=tmp_path)
    asked = {"plan": BILL, "objectives": COSTS, "points": 4, "out": tmp_path}
    for call in (search, forecast_search):
        with pytest.raises(InputError, match="got 'b-search' for a search; expected the name of no sweep there"):
            call(**asked)
    search(**{**asked, "out": tmp_path / "other"})
    for call in (sweep, forecast):
        with pytest.raises(InputError, match="got 'b-search' for a sweep; expected the name of no search there"):
            call(plan=replace(BILL, name="b-search"), out=tmp_path / "other")


def test_a_forecast_knows_of_its_very_search_alone(tmp_path):
    search(plan=BILL, objectives=COSTS, points=6, out=tmp_path)
    asked = {"plan": BILL, "objectives": COSTS, "points": 6, "out": tmp_path}
    assert forecast_search(**asked).known == 6
    assert forecast_search(**asked | {"points": 7}).known == 0  # another goal chooses anew
    assert forecast_search(**asked | {"plan": replace(BILL, flagged=0.5)}).known == 0  # other points of as large a grid


@pytest.mark.parametrize("call", [sweep, search, forecast, forecast_search])
def test_a_place_that_can_be_no_store_is_refused_by_all_calls(tmp_path, call):
    (tmp_path / "plain").write_text("text")
    given = {"objectives": COSTS, "points": 2} if "search" in call.__name__ else {}
    for out in (tmp_path / "plain" / "x", tmp_path / "plain" / "x" / "y"):
        with pytest.raises(InputError, match="cannot be made a directory"):
            call(plan=BILL, out=out, **given)


def test_arguments_of_another_type_are_refused_in_words(tmp_path):
    given = {"hw": "npu", "varied": SHAPES, "cost_only": True, "gemms": [(8, 8, 8)], "out": tmp_path / "out"}
    for more, message in (
        ({"goal": {"objectives": COSTS}}, "search: goal: got a mapping; expected a Goal"),
        ({"objectives": COSTS, "plan": "x"}, "search: plan: got 'x'; expected a Plan; read one with read_search"),
    ):
        with pytest.raises(InputError, match=message):
            search(**given | more)
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'foo'"):
        search(**given, objectives=COSTS, foo=3)
    for name in ("file", "inputs"):  # of a plan, and no arguments of the call
        with pytest.raises(TypeError, match=f"got an unexpected keyword argument '{name}'"):
            search(**given, objectives=COSTS, **{name: "x"})
    assert not (tmp_path / "out").exists()
    limits = {"area_mm2": {"to": np.float32(1.5), "from": np.int64(0)}}
    goal = Goal(COSTS, limits, points=np.int64(3), seed=np.uint8(1))
    found = search(**given, goal=goal)
    assert (found.goal.points, found.goal.seed, found.goal.constraints) == (3, 1, {"area_mm2": {"to": 1.5, "from": 0}})
    assert len(read_found(str(tmp_path / "out")).points) == 3
    assert compromises(str(tmp_path / "out"))["missing"] == 0


def test_equal_values_are_one_to_choose(tmp_path):
    shapes = {"array.rows": [8, 8, 16, 8], "array.columns": [8, 16]}
    found = search("npu", shapes, objectives=COSTS, points=8, cost_only=True, gemms=[(64, 64, 784)], out=tmp_path)
    assert (found.grid, len(found.points), found.computed) == (4, 4, 4)


def test_a_number_that_no_point_has_is_named(tmp_path):
    whole = sweep(plan=BILL, out=tmp_path)
    with pytest.raises(InputError, match="sweep: accuracy: no point of b has it"):
        whole.front(["accuracy", "energy_j"])
    one = search("tpu_v1", {"array.rows": [64, 128]}, cost_only=True, gemms=[(64, 64, 784)], out=tmp_path,
                 objectives=["latency_s", "energy_j_high"], points=2)  # fmt: skip
    assert (one.absent, one.lacking, one.front, one.hypervolume) == (("energy_j_high",), 2, (), None)


def test_a_front_without_a_box_has_no_hypervolume(tmp_path):
    """One point is neither all of a box nor nothing of it."""
    found = search(plan=BILL, objectives=COSTS, points=1, out=tmp_path)
    assert (len(found.front), found.hypervolumes, found.hypervolume) == (1, None, None)
    assert "no two feasible points differ" in found._repr_html_()
    assert found.to_frame()["hypervolume"].isna().all()


def test_an_interruption_before_there_is_a_store_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert points_stay("out")() == "nothing was written"
    search(plan=BILL, objectives=COSTS, points=1, out="out")
    assert points_stay("out")() == "the points so far are in out, and the same command goes on"


def test_the_nearest_point_breaks_its_bound_by_the_least_share_of_that_bound():
    """Not of the other end of the interval."""
    limits = {"energy_j": {"from": 1, "to": 1000}, "area_mm2": {"to": 1}}
    goal = Goal(["energy_j"], limits)
    assert goal.broken({"energy_j": 0.5, "area_mm2": 0.5}) == {"energy_j": 0.5}
    assert goal.broken({"energy_j": 1.0, "area_mm2": 1.25}) == {"area_mm2": 0.25}
    assert goal.broken({"energy_j": 1500.0, "area_mm2": 1.0}) == {"energy_j": 0.5}
    points = [
        Found({"array.rows": rows}, f"k{rows}", {"energy_j": energy, "area_mm2": area}, (), False, False, None, True)
        for rows, energy, area in ((8, 0.5, 0.5), (16, 10.0, 1.25), (32, 0.1, 4.0))
    ]
    found = searched(Path("s"), "s", goal, 3, points)
    assert found.nearest == points[1]
    assert found.why_none == "no point keeps all constraints; the nearest, with array.rows 16, has area 1.25 mm²"
    assert found.why_none in found._repr_html_() and found.to_dict()["nearest"] == "k16"


def test_what_is_missing_is_the_same_for_the_store_and_the_search(tmp_path):
    """Also of a search that ends when all of its grid are chosen, but not all computed."""
    goal = Goal(COSTS, points=8)
    with Store(tmp_path, create=True) as store:
        store.begin_search("s", 8, as_stored(goal, BILL, 8))
        store.place("s", 0, [Place({"array.rows": rows}, f"k{rows}") for rows in range(5)])
        store.place("s", 5, [Place({"array.rows": -rows}, None, "got less than 1") for rows in range(3)])
        for rows in range(3):
            store.add(Point(f"k{rows}", 1, {}, {"totals": {}}, None, 0.1))
        assert store.sweeps()["s"].missing == 2
    assert read_found(tmp_path).missing == compromises(tmp_path)["missing"] == 2


@pytest.mark.parametrize("call", [sweep, search])
def test_a_cluster_that_is_not_there_changes_no_store(tmp_path, call):
    given = {"objectives": COSTS, "points": 4} if call is search else {}
    call(plan=BILL, out=tmp_path / "old", **given)
    before = compromises(tmp_path / "old")
    for out in ("old", "new"):
        with pytest.raises(InputError, match="scheduler: foo: no cluster answers"):
            call(plan=replace(BILL, flagged=0.5), out=tmp_path / out, scheduler="foo", **given)
    assert compromises(tmp_path / "old") == before and not (tmp_path / "new").exists()


@pytest.mark.parametrize("call", [sweep, search, forecast, forecast_search])
def test_the_directory_of_a_run_is_no_place_of_a_store(tmp_path, call):
    """The page of one would take the place of the other's."""
    (tmp_path / "summary.json").write_text("{}")
    given = {"objectives": COSTS, "points": 2} if "search" in call.__name__ else {}
    with pytest.raises(InputError, match=r"has the summary\.json of a run"):
        call(plan=BILL, out=tmp_path, **given)
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_a_table_of_a_search_has_the_points_that_it_counts(tmp_path):
    pandas = pytest.importorskip("pandas")
    shapes = {"array.rows": [8, 0, 16], "array.columns": [8, 16]}
    found = search("npu", shapes, objectives=COSTS, points=6, cost_only=True, gemms=[(8, 8, 8)], out=tmp_path / "s")
    assert (len(found.points), len(found.refused)) == (4, 2)
    done = command("runs", "s", "--export", "s.csv", cwd=tmp_path)
    assert done.stdout == "s.csv: 4 points of sweep-search\n" and len(pandas.read_csv(tmp_path / "s.csv")) == 4


def test_a_search_that_ended_early_says_how_many_points_it_chose(tmp_path):
    with Store(tmp_path, create=True) as store:
        store.begin_search("s", 8, as_stored(Goal(COSTS, points=8), BILL, 32))
        store.place("s", 0, [Place({"array.rows": rows}, f"k{rows}") for rows in range(5)])
        store.add(Point("k0", 1, {}, {"totals": {}}, None, 0.1))
    record = compromises(tmp_path)
    assert (record["search"]["chosen"], len(record["points"]), record["missing"]) == (5, 1, 7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE points SET record = '{bad'", "the record of .* is damaged; .*remove the point with `runs"),
        ("UPDATE points SET record = '[]'", "the record of .* is damaged"),
        ("UPDATE places SET parameters = 'x'", "the parameters of b-search is damaged"),
        ("UPDATE searches SET goal = '{}'", "the goal of b-search is damaged"),
    ],
)
def test_a_damaged_store_is_refused_and_damaged_points_can_be_removed(tmp_path, change, words):
    key = search(plan=BILL, objectives=COSTS, points=2, out=tmp_path / "s").points[0].key
    base = sqlite3.connect(tmp_path / "s" / "runs.sqlite")
    base.execute(change)
    base.commit()
    base.close()
    with pytest.raises(InputError, match=words):
        compromises(tmp_path / "s")
    with Store(tmp_path / "s") as store:
        assert store.sweeps()["b-search"].points == 2  # what is not damaged is told
    removed = command("runs", "s", "--remove", key, cwd=tmp_path)
    assert (removed.returncode, removed.stdout) == (0, "s: 1 point removed\n")


def test_shares_and_counts_have_limits_in_their_messages():
    with pytest.raises(InputError, match="accuracy: from: got 90; expected a finite number from 0 to 1"):
        Goal(["accuracy"], {"accuracy": {"from": 90}})
    with pytest.raises(InputError, match=r"points: got 4294967296; expected a whole number from 1 to 2\*\*32 - 1"):
        Goal(["accuracy"], points=1 << 32)
    with pytest.raises(InputError, match="search: search_seed: got -1"):
        search(plan=BILL, objectives=COSTS, search_seed=-1, out="never")


def test_searches_of_a_store_of_before_are_read(tmp_path):
    """The goal and the size of the grid were one mapping."""
    found = search(plan=BILL, objectives=COSTS, points=4, out=tmp_path)
    base = sqlite3.connect(tmp_path / "runs.sqlite")
    goal = json.dumps({**found.goal.to_dict(), "grid": found.grid})
    base.execute("UPDATE searches SET goal = ?", (goal,))
    base.execute("PRAGMA user_version = 3")
    base.commit()
    base.close()
    assert read_found(tmp_path) == replace(found, computed=0)
    assert len(compromises(tmp_path)["points"]) == 4


def test_without_a_result_a_front_is_not_said_to_lack_numbers(tmp_path):
    with Store(tmp_path, create=True) as store:
        store.begin_search("s", 2, as_stored(Goal(COSTS, points=2), BILL, 32))
    assert read_found(tmp_path).why_none == "no point is computed yet"
    with Store(tmp_path) as store:
        store.place("s", 0, [Place({"array.rows": rows}, f"k{rows}") for rows in range(2)])
        for rows in range(2):
            store.add(Point(f"k{rows}", 1, {}, None, "no memory", 0.1))
    assert read_found(tmp_path).why_none == compromises(tmp_path)["why_none"] == "no point has a result"


def test_a_directory_may_be_called_as_an_option_is(tmp_path):
    for words in (("report", "out"), ("report", "sweep"), ("runs", "export")):
        (tmp_path / words[1]).mkdir(exist_ok=True)
        done = command(*words, cwd=tmp_path)
        assert done.returncode == 2 and done.stderr.startswith(f"ulpsim: error: {words[1]}: h"), done.stderr
