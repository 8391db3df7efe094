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
from simulator.explore.plan import Planner, grid  # noqa: E402
from simulator.explore.work import Inputs  # noqa: E402
from simulator.hardware.static_plan import ColumnPlan, StaticPlan, read_static_plan  # noqa: E402
from simulator.network import bundled  # noqa: E402
from simulator.network import static_plan as static_plan_module  # noqa: E402
from simulator.network.digests import weights_digest  # noqa: E402
from simulator.network.static_plan import agreement, static_plan  # noqa: E402
from simulator.report.bill import layer_bill  # noqa: E402
from simulator.report.plots import energy_figures  # noqa: E402

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def machine():
    return simulator.load_hardware("npu")


def outputs(model, machine, x, layers=None):
    """By layer what an emulation gave, and the record."""
    found = {}

    def note(op, out, tally):
        found[op.name] = out.copy()

    run = simulator.emulate(model, machine, layers, seed=5)
    run.observers = (note,)
    with torch.no_grad(), run:
        y = model(x)
    return found, y, run.result


UNITS = ("fp8_e4m3 -> fma(fp8_e4m3/sat)", "fp8_e4m3 -> fma(fp16)")


def plan_of(model, columns, machine):
    units = str(machine.mac.low.spec), str(machine.mac.high.spec)
    return StaticPlan(columns, weights_digest(model), units)


def machine_with(low, high, rule):
    """The form of a machine with these MACs and a rule of all layers."""

    def mode(text, rate):
        operands, accumulator, *output = text.split(" -> ")
        return {
            "operands": operands,
            "accumulator": accumulator,
            "rate": rate,
            **({"output": output[0]} if output else {}),
        }

    form = {
        "array": {"rows": 8, "columns": 8},
        "mac": {"low": mode(low, "2 MAC/cycle"), "high": mode(high, "1 MAC/cycle")},
        "policy": {"score": "kappa_prime", "tolerance": 0.5},
    }
    return form | ({"layers": {"*": rule}} if rule else {})


class Grouped(torch.nn.Module):
    """Convolutions of every kind of groups, and products of two stacks."""

    def __init__(self):
        super().__init__()
        self.dense = torch.nn.Conv2d(3, 8, 3)
        self.depthwise = torch.nn.Conv2d(8, 8, 3, groups=8)
        self.grouped = torch.nn.Conv2d(8, 12, 3, groups=4, bias=False)
        self.multiplied = torch.nn.Conv2d(12, 24, 1, groups=12)
        self.head = torch.nn.Linear(24, 5)

    def forward(self, x):
        x = self.multiplied(torch.relu(self.grouped(torch.relu(self.depthwise(torch.relu(self.dense(x)))))))
        x = x.mean((2, 3))
        return self.head(x) + torch.einsum("bi,ji->bj", x, self.head.weight)


@pytest.fixture(scope="module")
def grouped():
    torch.manual_seed(0)
    return Grouped().eval(), torch.randn(6, 3, 9, 9)


MACHINES = {
    "plain": (*UNITS, {}),
    "chunks": ("fp8_e4m3 -> chunk(16, fma(fp8_e4m3/sat), seq(fp8_e4m3/sat))", "fp8_e4m3 -> exact(fp32) -> fp16", {}),
    "stochastic": ("fp8_e4m3 -> fma(fp8_e4m3/sr/sat)", "fp8_e4m3 -> fma(fp16/sr) -> bf16/sr", {}),
    "stochastic operands": ("fp8_e4m3/sr -> fma(fp16)", "fp8_e4m3/sr -> fma(fp32)", {}),
    "shared scales": ("nvfp4 -> fma(fp16)", "nvfp4 -> fma(fp32)", {}),
    "blocks": ("mxfp8_e4m3 -> fma(fp16)", "fp8_e4m3 -> fma(fp32)", {}),
    "scales per tensor": (*UNITS, {"weights": {"per": "tensor", "to": 4}, "activations": {"per": "tensor", "to": 4}}),
    "scales per row": (*UNITS, {"weights": {"per": "channel", "to": 4}, "activations": {"per": "row", "to": 4}}),
    "scales per channel": (*UNITS, {"activations": {"per": "channel", "to": 4}}),
    "wide": ("fp16 -> fma(fp16)", "fp16 -> fma(fp64)", {}),
}


@pytest.mark.parametrize("name", MACHINES)
def test_every_column_is_that_of_the_uniform_run_of_its_mode(name, grouped, tmp_path):
    """Whatever else is high: the first layer's inputs are those of both uniform runs, so that it is looked at."""
    low, high, rule = MACHINES[name]
    model, x = grouped
    (tmp_path / "m.yaml").write_text(json.dumps(machine_with(low, high, rule)))
    machine = simulator.load_hardware(tmp_path / "m.yaml")
    rng = np.random.default_rng(3)
    uniform = {mode: outputs(model, machine, x, {"*": {**rule, "mac": mode}}) for mode in ("low", "high")}
    shapes = {at: out.shape[0] * out.shape[2] for at, out in uniform["low"][0].items()}
    for layer in ("dense", "depthwise", "grouped", "multiplied"):
        # What runs before the layer is low throughout, and so is what comes in.
        chosen = rng.random(shapes[layer]) < 0.4
        columns = {
            at: ColumnPlan(n, tuple(map(int, np.flatnonzero(chosen))) if at == layer else ())
            for at, n in shapes.items()
        }
        found, y, record = outputs(model, machine.with_plan(plan_of(model, columns, machine)), x)
        high_alone = {**{at: "low" for at in shapes if at != layer}, layer: "high"}
        own_rules = {at: {**rule, "mac": mode} for at, mode in high_alone.items() if "#" not in at and at != "Grouped"}
        wide = outputs(model, machine, x, {**own_rules, "*": {**rule, "mac": "low"}})[0][layer]
        narrow = uniform["low"][0][layer]
        gemms, _, n = narrow.shape
        mask = chosen.reshape(gemms, 1, n)
        assert chosen.any() and not chosen.all() and not np.array_equal(narrow, wide)
        assert np.array_equal(found[layer], np.where(mask, wide, narrow), equal_nan=True)
        parts = [one for one in record.layers if one.name == layer]
        assert sum(one.gemms * one.n for one in parts if one.planned == "high") == chosen.sum()
        assert sum(one.gemms * one.n for one in parts) == chosen.size
        assert sum(one.macs for one in parts) == next(one.macs for one in uniform["low"][2].layers if one.name == layer)
        # In parts of the samples the same, but for scales of all rows and formats that share one.
        if rule.get("activations", {}).get("per") in (None, "row") and name != "shared scales":
            run = simulator.emulate(model, machine.with_plan(plan_of(model, columns, machine)), seed=5)
            with torch.no_grad(), run:
                assert torch.equal(torch.cat([run.model(x[:1]), run.model(x[1:])]), y)


def test_a_plan_made_on_one_sample_holds_for_more(machine):
    """Stacks of products count samples, and what einsum makes a stack of one of does not."""
    torch.manual_seed(1)
    grouped = Grouped().eval()
    for model, x in ((grouped, torch.randn(4, 3, 9, 9)), (bundled.load("transformer"), bundled.digits()[0])):
        plan = static_plan(model, machine, x[:1], budget=0.5)
        assert any(one.high for one in plan.layers.values())
        record = simulator.evaluate(model, machine.with_plan(plan), x[1:4])
        assert {layer.planned for layer in record.layers} == {"low", "high"}
        whole = static_plan(model, machine, x[:4], budget=0.5)
        assert {at: one.columns for at, one in plan.layers.items()} == {
            at: one.columns for at, one in whole.layers.items()
        }


def test_all_low_and_all_high_are_the_uniform_runs(machine):
    model = bundled.load("cnn")
    x, _ = bundled.digits()
    shapes = {name: out.shape[-1] for name, out in outputs(model, machine, x[:1])[0].items()}
    for mode, high in (("low", lambda n: ()), ("high", lambda n: tuple(range(n)))):
        plan = plan_of(model, {name: ColumnPlan(n, high(n)) for name, n in shapes.items()}, machine)
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
        {"fc1": ColumnPlan(5, (0, 3)), "b.0 \N{GREEK SMALL LETTER KAPPA}": ColumnPlan(1, ())}, "ab12", UNITS, "words"
    )
    (tmp_path / "p.json").write_text(plan.to_json(), encoding="utf-8")
    assert read_static_plan(tmp_path / "p.json") == plan


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "p.json: no such file; expected a static plan; make one with"),
        ("{", "p.json: cannot be read"),
        ('{"kind": 1, "kind": 2}', r"p.json: cannot be read \(the key 'kind' twice\)"),
        ("[]", "p.json: holds an empty list without the keys"),
        ("{}", "p.json: holds an empty mapping without the keys"),
        ({"kind": "other"}, "without the keys kind, network, low, high, made_by, layers and"),
        ({"network": 3}, "has layers, network, low, high or made_by of another type"),
        ({"layers": {"fc1": {"columns": 3, "high": [3]}}}, "has of fc1 other than columns and the numbers"),
        ({"layers": {"fc1": {"columns": 3, "high": [1, 0]}}}, "has of fc1 other than"),
        ({"layers": {"fc1": {"columns": 3, "high": [True]}}}, "has of fc1 other than"),
        ({"layers": {"fc1": {"columns": 3}}}, "has of fc1 other than"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path, text, message):
    whole = {"kind": "ulpsim static plan 2", "network": "", "low": "", "high": "", "made_by": "", "layers": {}}
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
        ({**plan.layers, "fc2": ColumnPlan(127, ())}, "fc2: has 127 columns; expected 128"),
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
    keys = [next(Planner(sweep).points(grid(sweep))).key]
    run("plan", "--hw", "npu", "--samples", "16", "--budget", "0.5", "--out", "plan.json")
    keys.append(next(Planner(sweep).points(grid(sweep))).key)
    assert keys[0] != keys[1]
    (tmp_path / "m.yaml").write_text(text.replace("plan.json", "nowhere.json"))
    refused = run("--hw", "m.yaml")
    assert refused.returncode == 2 and "policy.plan: " in refused.stderr and "no such file" in refused.stderr


def test_agreement_counts_what_is_planned_and_flagged(machine):
    """Against masks made one by one: of a linear layer by two_pass, of a stack of products by its total."""
    model = bundled.load("mlp")
    x, _ = bundled.digits()
    plan = static_plan(model, machine, x[:32], budget=0.3)
    found = agreement(plan, model, machine, ((x[32:72],), {}), ((x[:32],), {}))
    assert [one.layer for one in found] == ["fc1", "fc2", "fc3"]
    first = found[0]
    weight, bias = (p.detach().numpy() for p in (model.fc1.weight, model.fc1.bias))
    flags = simulator.two_pass(
        x[32:72].flatten(1).numpy(), weight.T, machine.mac.low.spec, machine.mac.high.spec,
        tolerance=machine.policy.tolerance, activation="relu", c=bias,
    ).recomputed  # fmt: skip
    high = np.zeros(flags.shape, np.bool_)
    high[:, list(plan.layers["fc1"].high)] = True
    assert first.outputs == flags.size and first.planned == high.sum() and first.flagged == flags.sum()
    assert first.both == (flags & high).sum() > 0
    assert first.precision == first.both / first.planned and first.recall == first.both / first.flagged
    # By the rule that made it a plan agrees better than columns at random would, which have the share of all outputs.
    assert first.recall > 1.2 * first.planned / first.outputs
    nothing = replace(plan, layers={name: ColumnPlan(one.columns, ()) for name, one in plan.layers.items()})
    none = agreement(nothing, model, machine, ((x[:4],), {}), ((x[:4],), {}))
    assert all(one.precision is None and one.recall == 0.0 for one in none)


def test_agreement_of_stacks_of_products_is_of_whole_stacks(machine):
    model = bundled.load("transformer")
    x, _ = bundled.digits()
    plan = static_plan(model, machine, x[:4], budget=0.6)
    found = {one.layer: one for one in agreement(plan, model, machine, ((x[4:7],), {}), ((x[:4],), {}))}
    stacks = [name for name, one in plan.layers.items() if one.columns == 1]
    assert stacks and all(
        found[name].planned == (found[name].outputs if plan.layers[name].high else 0) for name in stacks
    )


def test_a_plan_for_other_macs_is_used_and_said(machine):
    model = bundled.load("mlp")
    x, y = bundled.digits()
    plan = static_plan(model, machine, x[:16], budget=0.3)
    own, other = (
        simulator.evaluate(model, machine.with_plan(one), x[:5], y[:5])
        for one in (plan, replace(plan, units=("a", "b")))
    )
    assert not any("policy.plan" in text for text in own.warnings)
    assert [text for text in other.warnings if "policy.plan" in text] == [
        f"policy.plan: was made for a and b, and the machine has {machine.mac.low.spec} and {machine.mac.high.spec}, "
        "with which other columns may deserve the high one"
    ]
    assert [layer.energy_j for layer in own.layers] == [layer.energy_j for layer in other.layers]


def test_zeros_are_counted_of_the_columns_of_each_mac(machine):
    gated = replace(machine, mac=replace(machine.mac, zero_gating=True))
    model = bundled.load("cnn")
    x, y = bundled.digits()
    plan = static_plan(model, gated, x[:16], budget=0.4)
    low = simulator.evaluate(model, gated, x[:5], y[:5], layers={"*": "low"})
    split = simulator.evaluate(model, gated.with_plan(plan), x[:5], y[:5])
    first = low.layers[0]
    parts = [layer for layer in split.layers if layer.name == first.name]
    assert {layer.planned for layer in parts} == {"low", "high"}
    assert sum(layer.zero_macs for layer in parts) == first.zero_macs > 0


def test_recurrent_layers_have_a_plan_for_each_step(machine):
    torch.manual_seed(2)

    class Recurrent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = torch.nn.LSTM(6, 8, batch_first=True), torch.nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.lstm(x)[0][:, -1])

    model, x = Recurrent().eval(), torch.randn(5, 4, 6)
    plan = static_plan(model, machine, x, budget=0.4)
    record = simulator.evaluate(model, machine.with_plan(plan), x)
    assert {layer.planned for layer in record.layers if layer.name.startswith("lstm")} == {"low", "high"}
    macs = simulator.evaluate(model, machine, x).layers
    assert sum(layer.macs for layer in record.layers) == sum(layer.macs for layer in macs)


def test_other_scores_choose_by_ranks(machine, monkeypatch):
    """A column with one output near zero is not worth more than one whose outputs all are small."""
    model, (x, _) = bundled.load("mlp"), bundled.digits()
    rng = np.random.default_rng(0)
    scores = rng.random((128, 784)) + np.arange(784) / 10
    scores[0, :5], scores[1, 5] = 1e30, np.nan

    def instead(layer, scores):
        return replace(layer, scores=[scores], v=[(0, scores)])

    def fake(*args):
        found = scored(*args)
        return {"fc1": instead(found["fc1"], scores)}

    scored = static_plan_module.scored
    monkeypatch.setattr(static_plan_module, "scored", fake)
    plan = static_plan(model, machine, x[:8], budget=0.25)
    assert plan.layers["fc1"].high == tuple(range(784 - 196, 784))
    sensitive = replace(machine, policy=replace(machine.policy, score="sensitivity"))
    assert static_plan(model, sensitive, x[:8], budget=0.25).layers["fc1"].high[:6] == (0, 1, 2, 3, 4, 5)


def test_bills_and_pages_tell_the_parts_apart(machine):
    model = bundled.load("mlp")
    x, y = bundled.digits()
    plan = static_plan(model, machine, x[:16], budget=0.3)
    record = simulator.evaluate(model, machine.with_plan(plan), x[:5], y[:5])
    text = layer_bill(record, "fc1")
    assert "fc1, low columns" in text and "fc1, high columns" in text
    layers = next(figure for figure in energy_figures(record) if figure.key == "energy-layers")
    assert {"fc1, low columns", "fc1, high columns"} <= {label for bar in layers.data for label in bar["customdata"]}


def test_scales_that_are_calibrated_are_before_a_plan_is_made(tmp_path):
    rule = {"activations": {"per": "tensor", "when": "calibrated", "to": 4}, "weights": {"per": "tensor", "to": 4}}
    (tmp_path / "m.yaml").write_text(json.dumps(machine_with(*UNITS, rule)))
    machine = simulator.load_hardware(tmp_path / "m.yaml")
    model, (x, y) = bundled.load("mlp"), bundled.digits()
    plan = static_plan(model, machine, x[:16], budget=0.2)
    record = simulator.evaluate(model, machine.with_plan(plan), x[16:26], y[16:26], calibration=x[:16])
    assert (
        sum(one.macs for one in record.layers if one.planned == "high") / sum(one.macs for one in record.layers) > 0.1
    )


@pytest.mark.parametrize("budget", ["a", True])
def test_a_budget_of_another_type_is_refused(machine, budget):
    with pytest.raises(InputError, match="plan: budget: got"):
        static_plan(bundled.load("mlp"), machine, bundled.digits()[0][:2], budget=budget)
