"""The two-pass study: its points are those of runs, its controls recompute as much, its files hold what it found."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("distributed")

import simulator
from simulator.errors import InputError
from simulator.network import bundled
from simulator.network.condition_numbers import condition_numbers
from simulator.network.metrics import Metrics
from simulator.studies import two_pass_study
from simulator.studies.intervals import wilson

ROOT = Path(__file__).parents[2]
SMALL = {"samples": 40, "calibration": 30, "workers": 1, "threads": 1}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    found = two_pass_study("npu", out=out, scores=["kappa_prime", "sensitivity"], budgets=[0.1], seeds=2, **SMALL)
    return found, out


def test_a_point_is_the_run_that_it_says(study):
    found, _ = study
    x, y = bundled.digits()
    text = (ROOT / "hwconfigs" / "npu.yaml").read_text()
    point = next(row for row in found.own if row["score"] == "kappa_prime" and row["budget"] is None)
    path = study[1] / "m.yaml"
    path.write_text(text.replace("tolerance: 0.5 ", "tolerance: 0.0 "))
    expected = simulator.evaluate(bundled.load("mlp"), path, x[30:70], y[30:70])
    assert point["logit_error_rms"] == expected.forward_error["two_pass"]
    assert point["logit_error_interval"] == list(expected.forward_error_interval["two_pass"])
    assert point["accuracy"] == expected.accuracy["two_pass"]
    macs = sum(layer.macs for layer in expected.layers)
    assert point["recomputed_macs_fraction"] == sum(layer.recomputed_macs for layer in expected.layers) / macs
    assert [layer["rms_error"] for layer in point["layers"]] == [layer.rms_error for layer in expected.layers]
    assert found.baselines["low"]["logit_error_rms"] == expected.forward_error["low"]
    assert point["accumulation_cost"] == pytest.approx(0.5 + point["recomputed_macs_fraction"])
    assert point["accumulation_cost_vs_low"] == pytest.approx(1 + 2 * point["recomputed_macs_fraction"])


def test_controls_recompute_as_much_of_each_layer(study):
    found, _ = study
    for point in found.own:
        random, largest = found.control(point, "random"), found.control(point, "largest")
        assert [row["seed"] for row in random] == [0, 1] and len(largest) == 1
        for row in (*random, *largest):
            for own, other in zip(point["layers"], row["layers"], strict=True):
                size = {"fc1": 784, "fc2": 128, "fc3": 10}[own["name"]] * 40
                less = own["recomputed_fraction"] - other["recomputed_fraction"]
                zeros = 0.02 if row["score"] == "largest" else 0.0  # which are never among the largest
                assert 0 <= less <= 1.5 / size + zeros
        errors = {row["logit_error_rms"] for row in random}
        assert len(errors) == 2


def test_a_static_plan_costs_as_much(study):
    found, _ = study
    for point in found.own:
        (static,) = found.control(point, "static")
        assert point["accumulation_cost"] - 0.002 < static["accumulation_cost"] <= point["accumulation_cost"] + 1e-9
        assert static["recomputed_macs_fraction"] == pytest.approx(2 * static["accumulation_cost"] - 1)
        assert static["logit_error_rms"] < found.baselines["low"]["logit_error_rms"]


def test_the_score_that_weighs_absolute_errors_wins_at_equal_budgets(study):
    found, _ = study
    error = {row["score"]: row["logit_error_rms"] for row in found.own if row["budget"] == 0.1}
    sensitivity = next(row for row in found.own if row["score"] == "sensitivity" and row["budget"] == 0.1)
    controls = [row["logit_error_rms"] for name in ("random", "largest") for row in found.control(sensitivity, name)]
    assert error["sensitivity"] < 0.6 * error["kappa_prime"] and error["sensitivity"] < 0.6 * min(controls)


def test_budgets_are_not_exceeded(study):
    found, _ = study
    for row in found.own:
        # What calibration shared out may differ from the samples that run, by what a layer has less.
        assert row["budget"] is None or row["recomputed_macs_fraction"] <= row["budget"]


def test_a_study_goes_on_from_its_store(study):
    found, out = study
    again = two_pass_study("npu", out=out, scores=["kappa_prime", "sensitivity"], budgets=[0.1], seeds=2, **SMALL)
    assert (found.computed > 0, again.computed) == (True, 0)
    assert again.points == found.points


def test_rules_of_layers_stay_in_the_controls(tmp_path):
    machine = tmp_path / "m.yaml"
    text = (ROOT / "hwconfigs" / "npu.yaml").read_text()
    machine.write_text(f"{text}\nlayers: {{fc1: {{mac: high}}, 'fc*': {{output: fp8_e4m3/sat}}}}\n")
    found = two_pass_study(machine, out=tmp_path / "out", scores=["kappa_prime"], tolerances=[0.5], seeds=1, **SMALL)
    (point,) = found.own
    (random,) = found.control(point, "random")
    for row in (point, random):
        assert [layer["recomputed_fraction"] > 0 for layer in row["layers"]] == [False, True, True]
    assert point["tolerance"] == 0.5 and point["budget"] is None


def test_the_command_writes_a_table_json_parquet_and_a_page(tmp_path):
    pandas = pytest.importorskip("pandas")
    words = [
        "study", "two-pass", "--hw", "npu", "--samples", "20", "--calibration", "20", "--scores", "norm2",
        "--budgets", "0.1", "--seeds", "1", "--workers", "1", "--out", "found",
    ]  # fmt: skip
    run = command(*words, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "norm2" in run.stdout and "random" in run.stdout and "found/study.html" in run.stdout
    record = json.loads((tmp_path / "found" / "study.json").read_text())
    printed = json.loads(command(*words, "--json", cwd=tmp_path).stdout)
    assert {**printed, "computed": 0} == {**record, "computed": 0} and printed["computed"] == 0
    table = pandas.read_parquet(tmp_path / "found" / "study.parquet")
    assert len(table) == len(record["points"]) == 8
    assert list(table["logit_error_rms"]) == [row["logit_error_rms"] for row in record["points"]]
    errors = [row["layers"][0]["rms_error"] if row["layers"] else None for row in record["points"]]
    assert [None if np.isnan(x) else x for x in table["rms_error_fc1"]] == errors
    page = (tmp_path / "found" / "study.html").read_text()
    assert "Two-pass accumulation: mlp on npu" in page and 'data-figure="errors"' in page


def command(*words, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "simulator", *words], cwd=cwd, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scores": ["kapa"]}, "study: scores: got 'kapa'; expected some of kappa_prime"),
        ({"scores": ["random"]}, "study: scores: got 'random'; expected some of"),
        ({"scores": []}, "study: scores: got none; expected at least one"),
        ({"seeds": 0}, "study: seeds: got none; expected at least one"),
        ({"tolerances": [1.0], "budgets": [0.1]}, "study: tolerances, budgets: got both; expected one of the two"),
        ({"tolerances": [-1.0]}, "study: tolerances: got -1; expected numbers from 0;"),
        ({"budgets": [1.5]}, "study: budgets: got 1.5; expected numbers from 0 to 1;"),
        ({"tolerances": []}, "study: tolerances: got none; expected numbers from 0;"),
        ({"over": "all"}, "study: over: got 'all'; expected network or layer"),
        ({"calibration": 1500}, "calibration: got 1500 of the 1500 samples"),
        ({"workers": 0}, "workers: got 0"),
        ({"samples": "ten"}, "samples: got 'ten'; expected a whole number from 1"),
        ({"calibration": 2.5}, "calibration: got 2.5; expected a whole number from 1"),
    ],
)
def test_what_cannot_be_studied_is_refused(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        two_pass_study("npu", out=tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_what_a_file_says_of_budgets_plans_and_signs_is_not_in_the_way(tmp_path):
    """The points are those of the same study of a machine that says nothing of these."""
    text = (ROOT / "hwconfigs" / "npu.yaml").read_text()
    machine = tmp_path / "m.yaml"
    settings = {"scores": ["kappa_prime"], "budgets": [0.1], "controls": False, **SMALL}
    expected = two_pass_study("npu", out=tmp_path / "npu", **settings)
    plan = next((tmp_path / "npu" / "plans").iterdir())
    for own in ("budget: 0.3\n  budget_over: network", f"plan: {plan}", "sign_safe: 0.04"):
        edited = text.replace("side_metric: output", "side_metric: norm_bound") if "sign" in own else text
        machine.write_text(edited.replace("tolerance: 0.5 ", f"{own}\n  tolerance: 0.5 "))
        found = two_pass_study(machine, out=tmp_path / "out", **settings)
        errors = [[row["logit_error_rms"] for row in one.points] for one in (found, expected)]
        assert errors[0] == errors[1]
        assert any("sign_safe is left out" in text for text in found.warnings) == ("sign" in own)


def test_a_static_plan_dearer_than_uniform_high_is_left_out(tmp_path):
    found = two_pass_study("npu", out=tmp_path, scores=["kappa_full"], budgets=[], controls=False, **SMALL)
    assert found.own[0]["accumulation_cost"] > 1 and not found.control(found.own[0], "static")


def test_a_machine_with_middle_modes_is_refused(tmp_path):
    machine = tmp_path / "m.yaml"
    text = (ROOT / "hwconfigs" / "npu.yaml").read_text().partition("side_engine:")[0]
    machine.write_text(text.replace("  high:\n", "  middle: {half: fp8_e4m3/sat -> fma(fp16/sat)}\n  high:\n", 1))
    with pytest.raises(InputError, match=r"has mac\.middle, whose passes have no controls"):
        two_pass_study(machine, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tolerances_from_zero_are_tolerances(tmp_path):
    words = ["study", "two-pass", "--hw", "npu", "--samples", "10", "--calibration", "10", "--scores", "norm2,norm2",
             "--tolerances", "0,1", "--no-controls", "--no-static", "--workers", "1", "--out", "found"]  # fmt: skip
    lines = command(*words, cwd=tmp_path).stdout.splitlines()
    rows = [line.split() for line in lines if line.startswith(("score", "norm2"))]
    assert rows[0][1] == "tolerance" and [row[1] for row in rows[1:]] == ["0", "1"]


def test_a_machine_of_one_pass_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"runs in one pass; expected a machine with mac\.high and a policy"):
        two_pass_study("tpu_v1", out=tmp_path / "out")


def test_lists_that_are_none_are_refused(tmp_path):
    done = command("study", "two-pass", "--hw", "npu", "--budgets", "0.1;0.2", cwd=tmp_path)
    assert done.returncode == 2 and "study: --budgets: got '0.1;0.2'; expected numbers with commas" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scores", "kapa"], "study: --scores: got 'kapa'; expected some of kappa_prime"),
        (["--scores", ","], "study: --scores: got none; expected at least one"),
        (
            ["--tolerances", "1", "--budgets", "0.1"],
            "study: --tolerances, --budgets: got both; expected one of the two",
        ),
        (["--tolerances=-1"], "study: --tolerances: got -1; expected numbers from 0;"),
        (["--calibration", "1500"], "study: --calibration: got 1500 of the 1500 samples"),
        (["--workers", "0"], "study: --workers: got 0"),
        (["--samples", "0"], "study two-pass: --samples: got 0; expected a number greater than or equal to 1"),
        (["--seeds", "0"], "study two-pass: --seeds: got 0; expected a number greater than or equal to 1"),
    ],
)
def test_the_command_refuses_by_the_option_that_it_was_given(tmp_path, words, message):
    done = command("study", "two-pass", "--hw", "npu", *words, "--out", "out", cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture
def quantised_network(tmp_path):
    """A network that rounds its activations in an ONNX file, and samples: no gradient of its outputs is anything."""
    pytest.importorskip("onnx")
    from tests.simulator.onnx_models import array, floats, model, node, saved

    rng = np.random.default_rng(1)
    held = [array("s", 0.02), array("z", 0, np.int8), array("w1", rng.normal(size=(7, 6))),
            array("w2", rng.normal(size=(6, 4)))]  # fmt: skip
    rounded = [
        (node("QuantizeLinear", f"{x} s z", f"{x}_i"), node("DequantizeLinear", f"{x}_i s z", f"{x}_q")) for x in "xhy"
    ]
    (x, h, y), first, second = rounded, node("MatMul", "x_q w1", "h"), node("MatMul", "h_q w2", "y")
    proto = model([*x, first, *h, second, *y], [floats("x", "N", 7)], [floats("y_q", "N", 4)], held)
    saved(proto, tmp_path / "net.onnx")
    samples = {"x": rng.normal(size=(30, 7)).astype(np.float32), "y": rng.integers(0, 4, 30)}
    np.savez(tmp_path / "samples.npz", **samples)
    return {"model": str(tmp_path / "net.onnx"), "data": str(tmp_path / "samples.npz")}


def test_the_default_scores_of_a_quantised_network_are_those_that_need_no_gradient(quantised_network, tmp_path):
    settings = {"budgets": [0.1], "seeds": 1, "static": False, "workers": 1, "threads": 1}
    found = two_pass_study("npu", out=tmp_path / "out", **quantised_network, **settings)
    assert [row["score"] for row in found.own] == ["kappa_prime", "kappa_prime", "norm2", "norm2"]
    assert found.warnings[0].startswith("the score sensitivity is left out: no gradient of the network's outputs")
    with pytest.raises(InputError, match="study: scores: got sensitivity, and no gradient of the network's outputs"):
        two_pass_study("npu", out=tmp_path / "other", scores=["norm2", "sensitivity"], **quantised_network, **settings)
    assert not (tmp_path / "other").exists()


def test_a_gradient_that_comes_back_to_one_layer_is_enough():
    import torch
    from torch import nn

    from simulator.network.output_gradients import reaches_layers

    class Rounded(nn.Module):
        def forward(self, x):
            return torch.round(x)

    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    first, second = nn.Linear(6, 6), nn.Linear(6, 3)
    for layers, reached in (
        ([first, second], True), ([first, Rounded(), second], True), ([Rounded(), second], True),
        ([first, second, Rounded()], False),
    ):  # fmt: skip
        model = nn.Sequential(*layers).eval().requires_grad_(False)
        assert reaches_layers(model, (x,), {}) == reached
        assert not any(one.requires_grad for one in model.parameters())
    assert not reaches_layers(nn.Sequential(nn.ReLU()), (x,), {})  # which has no layer


def test_wilson_intervals():
    """Against the roots of (p - x)^2 = z^2 x (1 - x) / n, which define them."""
    for share, samples in ((0.0, 10), (0.5, 40), (0.97, 1500), (1.0, 7)):
        for x in wilson(share, samples):
            assert (share - x) ** 2 == pytest.approx(1.959964**2 * x * (1 - x) / samples, abs=1e-12)
    assert wilson(1.0, 5)[1] == 1.0 and wilson(0.0, 5)[0] == 0.0


def test_the_interval_of_the_logit_error():
    """Against its definition, and however the samples are divided."""
    import torch

    generator = torch.Generator().manual_seed(0)
    exact, found = torch.randn(50, 10, generator=generator), torch.randn(50, 10, generator=generator)
    whole, parts = Metrics(), Metrics()
    whole.add(found, exact)
    for rows in (slice(0, 7), slice(7, 50)):
        parts.add(found[rows], exact[rows])
    squares = ((found.double() - exact.double()) ** 2).mean(1).numpy()
    half = 1.959964 * squares.std(ddof=1) / math.sqrt(50)
    assert whole.rms_interval == parts.rms_interval
    assert whole.rms_interval == pytest.approx((math.sqrt(squares.mean() - half), math.sqrt(squares.mean() + half)))
    one = Metrics()
    one.add(found[:1], exact[:1])
    assert one.rms_interval is None


def test_condition_numbers_are_those_of_the_definition():
    import torch
    from torch import nn

    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.ReLU()).eval().requires_grad_(False)
    model[0].bias.copy_(torch.arange(5) / 8)  # which the accumulators of the machine hold
    machine = simulator.load_hardware("npu")
    x = torch.randn(8, 6)
    first, second = condition_numbers(model, machine, (x,), {})
    fp8 = simulator.mac("fp8_e4m3 -> exact(fp64)")
    a, w, b = x.numpy(), model[0].weight.numpy(), model[0].bias.numpy().astype(np.float64)
    v = simulator.matmul(a, w.T, mac=fp8, c=np.broadcast_to(b, (8, 5)))
    size = simulator.matmul(np.abs(a), np.abs(w).T, mac=fp8, c=np.broadcast_to(np.abs(b), (8, 5)))
    kappa_v = np.sort((size / np.abs(v)).ravel())
    assert first.kappa_v[50] == pytest.approx(kappa_v[int(0.5 * 39)], rel=1e-6)
    kappa = np.sort((size * np.abs(2 / np.sinh(2 * v.astype(np.float64)))).ravel())
    assert first.kappa[95] == pytest.approx(kappa[int(0.95 * 39)], rel=1e-6)
    assert (first.layer, first.activation, first.outputs, first.active) == ("0", "tanh", 40, 1.0)
    assert first.numerator == pytest.approx(size.mean()) and first.numerator_variation == pytest.approx(
        size.std() / size.mean()
    )
    assert (second.activation, second.outputs) == ("relu", 32) and 0 < second.active < 1
    assert -1 <= first.rank_correlation <= 1


def test_an_infinite_tolerance_and_rules_of_layers_in_any_form(tmp_path):
    """Texts as rules, policies of layers left out with a note, infinity in a file of JSON, levels given twice."""
    text = (ROOT / "hwconfigs" / "npu.yaml").read_text()
    (tmp_path / "m.yaml").write_text(text + "layers:\n  fc1: two_pass\n  fc2: {policy: {tolerance: .inf}}\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = ["--hw", "m.yaml", "--samples", "10", "--calibration", "10", "--tolerances", "0.5,.5,inf", "--out", "out"]
    words += ["--scores", "kappa_prime", "--seeds", "1", "--workers", "1", "--no-static", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "simulator", "study", "two-pass", *words], cwd=tmp_path, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    own = [row for row in record["points"] if row["control_of"] is None]
    assert [row["tolerance"] for row in own] == [0.5, ".inf"]
    assert own[1]["recomputed_macs_fraction"] < own[0]["recomputed_macs_fraction"]
    assert min(layer["recomputed_fraction"] for layer in own[0]["layers"]) > 0  # fc2 too
    assert any(text.startswith("layers: fc2: their own policy is left out") for text in record["warnings"])
    assert (tmp_path / "out" / "study.html").exists()


def test_a_later_sample_that_the_network_does_not_take_is_one_message(tmp_path, monkeypatch):
    (tmp_path / "looks.py").write_text(
        "import torch\n\nclass Looks(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.e, self.l = torch.nn.Embedding(10, 4), torch.nn.Linear(4, 3)\n\n"
        "    def forward(self, ids):\n        return self.l(self.e(ids)[:, 0])\n\nlooks = Looks().eval()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    np.savez("late.npz", x=np.array([[1]] * 5 + [[12]] + [[1]] * 34))
    with pytest.raises(InputError, match=r"the network Looks fails \(e, .*IndexError.*expected samples"):
        two_pass_study("npu", out="st", model="looks:looks", data="late.npz", budgets=[0.2], seeds=1, workers=1)
