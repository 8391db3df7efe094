"""Static plans: each column in one pass on the MAC that the plan gives it, to the bit; made on samples, kept."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import simulator  # noqa: E402  (needs torch)
from simulator.cost import Gemm, price  # noqa: E402
from simulator.errors import InputError  # noqa: E402
from simulator.explore import Plan as SweepPlan  # noqa: E402
from simulator.explore.plan import grid, planned  # noqa: E402
from simulator.explore.work import Inputs  # noqa: E402
from simulator.hardware.static_plan import ColumnPlan, StaticPlan, read_static_plan  # noqa: E402
from simulator.network import bundled  # noqa: E402
from simulator.network.digests import weights_digest  # noqa: E402
from simulator.network.static_plan import static_plan  # noqa: E402

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def machine():
    return simulator.load_hardware("npu")


def outputs(model, machine, x, layers=None):
    """By layer what an emulation gave, and the record."""
    found = {}

    def note(op, out, tally):
        whole = found.setdefault(op.name, np.full((op.gemms, op.m, op.n if op.part is None else len(op.part)), np.nan))
        whole[..., slice(None) if op.part is None else op.part] = out

    run = simulator.emulate(model, machine, layers)
    run.observers = (note,)
    with torch.no_grad(), run:
        y = model(x)
    return found, y, run.result


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_every_column_is_that_of_the_uniform_run_of_its_mode(machine, name):
    model = bundled.load(name)
    x, _ = bundled.digits()
    rng = np.random.default_rng(3)
    first = next(iter(outputs(model, machine, x[:1])[0]))
    n = outputs(model, machine, x[:1])[0][first].shape[-1]
    high = np.flatnonzero(rng.random(n) < 0.3)
    # All low but some columns of the first layer, so that all layers have the inputs of one of the two runs.
    shapes = {layer: out.shape[-1] for layer, out in outputs(model, machine, x[:1])[0].items()}
    columns = {
        layer: ColumnPlan(size, tuple(map(int, high)) if layer == first else ()) for layer, size in shapes.items()
    }
    planned_machine = machine.with_plan(StaticPlan(columns, weights_digest(model)))
    found, y, record = outputs(model, planned_machine, x[:6])
    low, wide = (outputs(model, machine, x[:6], {"*": mode})[0][first] for mode in ("low", "high"))
    assert np.array_equal(found[first][..., high], wide[..., high])
    others = np.setdiff1d(np.arange(n), high)
    assert np.array_equal(found[first][..., others], low[..., others]) and not np.isnan(found[first]).any()
    # In parts of the samples the same.
    parts = [outputs(model, planned_machine, x[rows])[1] for rows in (slice(0, 1), slice(1, 6))]
    assert torch.equal(torch.cat(parts), y)
    of_first = [layer for layer in record.layers if layer.name == first]
    assert sorted(layer.n for layer in of_first) == sorted([len(high), n - len(high)])


def test_all_low_and_all_high_are_the_uniform_runs(machine):
    model = bundled.load("cnn")
    x, _ = bundled.digits()
    shapes = {name: out.shape[-1] for name, out in outputs(model, machine, x[:1])[0].items()}
    for mode, high in (("low", lambda n: ()), ("high", lambda n: tuple(range(n)))):
        plan = StaticPlan({name: ColumnPlan(n, high(n)) for name, n in shapes.items()}, weights_digest(model))
        uniform, planned_one = (
            outputs(model, machine, x[:5], {"*": mode}),
            outputs(model, machine.with_plan(plan), x[:5]),
        )
        assert torch.equal(uniform[1], planned_one[1])


def test_the_bill_is_that_of_two_products(machine):
    model = bundled.load("mlp")
    x, y = bundled.digits()
    plan = static_plan(model, machine, x[:32], budget=0.3)
    record = simulator.evaluate(model, machine.with_plan(plan), x[:20], y[:20])
    share = 0
    for layer in record.layers:
        mode = "high" if "fp16" in layer.mac else "low"
        assert layer.cycles == price(machine, Gemm(20, layer.n, layer.k, 1, layer.a_words), mode).cycles
        assert layer.recomputed_outputs == 0 and layer.rms_error is not None
        share += layer.macs * (mode == "high")
    share /= sum(layer.macs for layer in record.layers)
    assert 0.25 < share <= 0.3
    assert record.totals["two_pass"]["accumulation_cost"] == pytest.approx(0.5 * (1 - share) + share)
    assert record.gathers == ()


def test_budgets_go_to_the_columns_that_matter_most(machine):
    """At an equal share of high columns the plan beats columns at random, and its error falls as the share grows."""
    model = bundled.load("mlp")
    x, y = bundled.digits()
    sensitive = replace(machine, policy=replace(machine.policy, score="sensitivity"))
    errors = []
    for budget in (0.1, 0.4):
        plan = static_plan(model, sensitive, x[:64], budget=budget)
        rng = np.random.default_rng(0)
        shuffled = {
            name: ColumnPlan(one.columns, tuple(sorted(map(int, rng.permutation(one.columns)[: len(one.high)]))))
            for name, one in plan.layers.items()
        }
        own, random = (
            simulator.evaluate(model, machine.with_plan(one), x[64:164], y[64:164]).forward_error["two_pass"]
            for one in (plan, replace(plan, layers=shuffled))
        )
        errors.append(own)
        assert own < 0.95 * random
    assert errors[1] < 0.6 * errors[0]


def test_budgets_over_a_layer_and_quantiles(machine):
    model = bundled.load("mlp")
    x, _ = bundled.digits()
    plan = static_plan(model, machine, x[:32], budget=0.25, over="layer")
    assert [len(one.high) for one in plan.layers.values()] == [196, 32, 2]
    assert plan.made_by == "kappa_prime, budget 0.25 over layer, on 32 samples"
    shares = []
    for quantile in (0.5, 0.9):
        plan = static_plan(model, machine, x[:32], quantile=quantile, tolerance=1.0)
        shares.append(sum(len(one.high) for one in plan.layers.values()))
    assert 0 < shares[0] < shares[1]


def test_stacks_of_products_are_planned_whole(machine):
    model = bundled.load("transformer")
    x, y = bundled.digits()
    sensitive = replace(machine, policy=replace(machine.policy, score="sensitivity"))
    plan = static_plan(model, sensitive, x[:16], budget=0.5)
    stacks = {name: one for name, one in plan.layers.items() if one.columns == 1}
    assert len(stacks) == 4 and any(one.high for one in plan.layers.values())
    record = simulator.evaluate(model, machine.with_plan(plan), x[16:26], y[16:26])
    cost = record.totals["two_pass"]["accumulation_cost"]
    assert 0.7 < cost <= 0.75


def test_a_file_says_all_of_a_plan(tmp_path, machine):
    plan = StaticPlan(
        {"fc1": ColumnPlan(5, (0, 3)), "b.0 \N{GREEK SMALL LETTER KAPPA}": ColumnPlan(1, ())}, "ab12", "words"
    )
    (tmp_path / "p.json").write_text(plan.to_json(), encoding="utf-8")
    assert read_static_plan(tmp_path / "p.json") == plan


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "p.json: no such file; expected a static plan; make one with"),
        ("{", "p.json: cannot be read"),
        ("[]", "p.json: holds a list without the keys"),
        ("{}", "p.json: holds a mapping without the keys"),
        ({"kind": "other"}, "without the keys kind, network, made_by, layers and the kind"),
        ({"network": 3}, "has layers, network or made_by of another type"),
        ({"layers": {"fc1": {"columns": 3, "high": [3]}}}, "has of fc1 other than columns and the numbers"),
        ({"layers": {"fc1": {"columns": 3, "high": [1, 0]}}}, "has of fc1 other than"),
        ({"layers": {"fc1": {"columns": 3, "high": [True]}}}, "has of fc1 other than"),
        ({"layers": {"fc1": {"columns": 3}}}, "has of fc1 other than"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path, text, message):
    whole = {"kind": "ulpsim static plan 1", "network": "", "made_by": "", "layers": {}}
    if text is not None:
        (tmp_path / "p.json").write_text(text if isinstance(text, str) else json.dumps({**whole, **text}))
    with pytest.raises(InputError, match=message):
        read_static_plan(tmp_path / "p.json")


def test_a_plan_for_something_else_is_refused(machine):
    model = bundled.load("mlp")
    x, _ = bundled.digits()
    plan = static_plan(model, machine, x[:8], budget=0.2)
    with pytest.raises(InputError, match=r"policy\.plan: was made for another network or other weights"):
        simulator.emulate(bundled.load("cnn"), machine.with_plan(plan))
    for layers, message in (
        ({name: one for name, one in plan.layers.items() if name != "fc2"}, "says nothing of fc2"),
        ({**plan.layers, "fc2": ColumnPlan(127, ())}, "fc2: has 127 columns, and the product 1 x 128"),
    ):
        with (
            pytest.raises(InputError, match=message),
            torch.no_grad(),
            simulator.emulate(model, machine.with_plan(replace(plan, layers=layers))),
        ):
            model(x[:1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "expected a budget or a quantile"),
        ({"budget": 0.1, "quantile": 0.5}, "expected a budget or a quantile"),
        ({"budget": 1.5}, "plan: budget: got 1.5; expected 0 to 1"),
        ({"quantile": 0.5, "tolerance": float("nan")}, "plan: tolerance: got nan; expected a number from 0"),
        ({"budget": 0.5, "tolerance": 1.0}, "plan: tolerance: given beside a budget"),
        ({"budget": 0.1, "over": "all"}, "plan: over: got 'all'; expected network or layer"),
    ],
)
def test_what_cannot_be_planned_is_refused(machine, settings, message):
    x, _ = bundled.digits()
    with pytest.raises(InputError, match=message):
        static_plan(bundled.load("mlp"), machine, x[:4], **settings)


def test_the_command_makes_a_plan_that_a_machine_file_names(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "simulator", *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    done = run("plan", "--hw", "npu", "--samples", "16", "--budget", "0.25", "--over", "layer", "--out", "plan.json")
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()[2:]] == [
        ["fc1", "784", "196", "25.0", "%"], ["fc2", "128", "32", "25.0", "%"], ["fc3", "10", "2", "20.0", "%"],
    ]  # fmt: skip
    text = (ROOT / "hwconfigs" / "npu.yaml").read_text().replace("tolerance: 0.5 ", "plan: plan.json  # ")
    (tmp_path / "m.yaml").write_text(text)
    record = json.loads(run("--hw", "m.yaml", "--samples", "10", "--json").stdout)
    assert record["totals"]["two_pass"]["accumulation_cost"] == pytest.approx(0.625, abs=1e-3)
    # What a plan says is part of a sweep's key, wherever it lies.
    sweep = SweepPlan("s", str(tmp_path / "m.yaml"), {"array.rows": [16]}, Inputs(samples=5))
    keys = [next(planned(sweep, grid(sweep))).key]
    run("plan", "--hw", "npu", "--samples", "16", "--budget", "0.5", "--out", "plan.json")
    keys.append(next(planned(sweep, grid(sweep))).key)
    assert keys[0] != keys[1]
    (tmp_path / "m.yaml").write_text(text.replace("plan.json", "nowhere.json"))
    refused = run("--hw", "m.yaml")
    assert refused.returncode == 2 and "policy.plan: " in refused.stderr and "no such file" in refused.stderr
