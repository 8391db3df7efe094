"""What a two-pass policy takes from samples: the score sensitivity and the shares of a budget of the network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import simulator  # noqa: E402
from simulator.arithmetic import scores  # noqa: E402
from simulator.arithmetic.bins import Bins  # noqa: E402
from simulator.arithmetic.scores import Seen, Sensitivity  # noqa: E402
from simulator.errors import InputError  # noqa: E402
from simulator.hardware import load_hardware  # noqa: E402
from simulator.network import bundled  # noqa: E402
from simulator.network.emulation import Emulation  # noqa: E402

ROOT = Path(__file__).parents[2]

NPU = load_hardware("npu")


def machine(score="sensitivity", budget=0.2, over="network", tolerance=0.0):
    policy = replace(NPU.policy, score=score, budget=budget, budget_over=over, tolerance=tolerance)
    return replace(NPU, policy=policy)


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(*layers):
    torch.manual_seed(5)
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.normal_(parameter, 0, 0.4)
    return nn.Sequential(*layers)


def criteria(model, *args, on=None):
    run = Emulation(model, on or machine())
    run.calibrate(*args)
    return run.criteria


# --- what is measured -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), nn.SiLU(), nn.Identity()])
def test_the_effect_is_that_of_a_unit_change_behind_the_activation(activation):
    """With one output the random signs have no say, and the effect is the weight that comes next."""
    model = network(nn.Linear(6, 9), activation, nn.Linear(9, 1))
    found = criteria(model, rand(40, 6))
    np.testing.assert_allclose(found["2"].score.effect, [1.0], rtol=1e-6)
    # The slope is that at the exact sums of quantised operands, the gradient torch's own there.
    np.testing.assert_allclose(found["0"].score.effect, model[2].weight.detach().abs()[0], rtol=1e-4)


def test_of_several_outputs_the_effect_is_the_norm_as_estimated():
    model = network(nn.Linear(6, 30), nn.ReLU(), nn.Linear(30, 10))
    effect = criteria(model, rand(400, 6))["0"].score.effect
    expected = model[2].weight.detach().norm(dim=0).numpy()
    np.testing.assert_allclose(effect, expected, rtol=0.35)
    assert np.corrcoef(effect, expected)[0, 1] > 0.9


def test_the_errors_are_those_of_the_first_pass():
    model, x = network(nn.Linear(50, 20)), rand(64, 50)
    score = criteria(model, x)["0"].score
    w, b = model[0].weight.detach().numpy().T, model[0].bias.detach().numpy()
    low = simulator.matmul(x.numpy(), w, NPU.mac.low.spec, c=b).astype(np.float64)
    exact = simulator.matmul(x.numpy(), w, "fp8_e4m3/sat -> exact(fp32)", c=b).astype(np.float64)
    bins = np.searchsorted(score.bins.edges, low)
    assert score.macs == 50 and len(score.errors) == len(score.bins.edges) + 1
    for i in (0, 7, len(score.bins.edges)):
        expected = np.sqrt(np.mean((low - exact)[bins == i] ** 2))
        assert score.errors[i] == pytest.approx(expected, rel=1e-12)
    assert score.errors.max() > 0


def test_a_score_is_error_times_slope_times_effect():
    score = Sensitivity(Bins(np.array([0.0])), np.array([0.5, 2.0]), np.array([3.0, 5.0]), 4)
    seen = simulator.arithmetic.scores.Seen(np.array([[-1.0, -1.0], [1.0, np.nan]]), "relu", slice(0, 2))
    assert np.array_equal(score(seen), [[0.0, 0.0], [2.0 * 3.0 / 2.0, np.nan]], equal_nan=True)


def test_groups_and_stacks_have_effects_of_their_own():
    model = network(nn.Conv2d(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(6 * 9, 1))
    found = criteria(model, rand(30, 4, 5, 5))["0"].score
    assert found.effect.shape == (6,)
    assert np.array_equal(found.part(1, 3).effect, found.effect[3:])
    weight = model[2].weight.detach().reshape(6, 9)
    np.testing.assert_allclose(found.effect, weight.square().mean(dim=1).sqrt(), rtol=1e-4)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        attention.eval()
        run = Emulation(attention, machine())
        x = rand(3, 5, 8)
        run.calibrate(x, x, x)
        with run:
            attention(x, x, x)
    assert {one.score.effect.size for name, one in run.criteria.items()} >= {1}
    assert sum(layer.recomputed_outputs for layer in run.result.layers) > 0


@pytest.mark.parametrize("when", ["dynamic", "calibrated"])
def test_the_errors_of_scaled_operands_are_those_behind_their_scales(when):
    """By hand: operands over powers of two that put the largest at most at 2, sums times these, bias in float32."""
    model, x = network(nn.Linear(50, 20), nn.ReLU(), nn.Linear(20, 3)), 1e-3 * rand(64, 50)
    rule = {"activations": {"per": "tensor", "to": 2.0, "when": when}, "weights": {"per": "channel", "to": 2.0}}
    run = Emulation(model, machine(budget=None, over="layer"), {"0": rule})
    run.calibrate(x)
    score = run.criteria["0"].score
    w, b = model[0].weight.detach().numpy().T, model[0].bias.detach().numpy()
    scale, scales = (np.exp2(np.ceil(np.log2(np.abs(m).max(axis) / 2))) for m, axis in ((x.numpy(), None), (w, 0)))
    sums = [
        simulator.matmul(x.numpy() / scale, w / scales, spec).astype(np.float64) * scale * scales + b
        for spec in (NPU.mac.low.spec, "fp8_e4m3/sat -> exact(fp32)")
    ]
    bins, errors = np.searchsorted(score.bins.edges, sums[0]), sums[0] - sums[1]
    np.testing.assert_allclose(score.bins.edges, np.quantile(sums[0], np.arange(1, 64) / 64), rtol=1e-12)
    for i in (0, 7, len(score.bins.edges)):
        np.testing.assert_allclose(score.errors[i], np.sqrt(np.mean(errors[bins == i] ** 2)), rtol=1e-12)
    with run, torch.no_grad():
        model(x)
    assert 0 < run.result.layers[0].recomputed_outputs < 64 * 20


def test_with_scaled_operands_a_budget_of_the_network_goes_where_it_helps(digits):
    """Images a thousand times too dark for fp8, which scales bring back."""
    x, y, calibration = digits
    model = bundled.load("mlp")
    with torch.no_grad():
        model.fc1.weight *= 1024
    errors, scale = {}, {"per": "tensor", "to": 2.0}  # which leaves the sums room in fp8
    for score in ("random", "kappa_prime", "sensitivity"):
        rules = {"fc1": {"activations": scale | {"when": "calibrated"}, "weights": scale}}
        found = simulator.evaluate(
            model, machine(score, 0.2), x / 1024, y, layers=rules, calibration=calibration / 1024
        )
        share = sum(layer.recomputed_macs for layer in found.layers) / sum(layer.macs for layer in found.layers)
        assert 0.15 < share <= 0.2
        errors[score] = found.forward_error["two_pass"]
    assert errors["sensitivity"] < 0.7 * min(errors["random"], errors["kappa_prime"])


def test_inputs_that_are_no_floats_leave_gradients_to_the_parameters():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 1)).requires_grad_(False)
    found = criteria(model, torch.arange(20).reshape(4, 5) % 10)
    assert (found["1"].score.effect > 0).any()
    assert not any(parameter.requires_grad for parameter in model.parameters())


# --- what becomes of it -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    x, y = bundled.digits()
    return x[:100], y[:100], x[500:628]


def evaluated(digits, on):
    x, y, calibration = digits
    return simulator.evaluate(bundled.load("mlp"), on, x, y, calibration=calibration)


@pytest.mark.parametrize("budget", [0.05, 0.2])
def test_a_budget_of_the_network_is_kept_and_goes_where_it_helps(digits, budget):
    errors = {}
    for score in ("kappa_prime", "random", "largest", "sensitivity"):
        found = evaluated(digits, machine(score, budget))
        share = sum(layer.recomputed_macs for layer in found.layers) / sum(layer.macs for layer in found.layers)
        assert 0.8 * budget < share <= budget
        errors[score] = found.forward_error["two_pass"]
    assert errors["sensitivity"] < min(errors[score] for score in ("random", "largest"))
    assert errors["sensitivity"] < errors["kappa_prime"] * {0.05: 0.65, 0.2: 1 / 3}[budget]


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_no_division_of_the_samples_shows(digits, name):
    x, y, calibration = digits
    model = bundled.load(name)
    results = [simulator.evaluate(model, machine(), x, y, calibration=calibration, batch=n) for n in (100, 33)]
    assert results[0].forward_error == results[1].forward_error
    assert [a.recomputed_outputs for a in results[0].layers] == [b.recomputed_outputs for b in results[1].layers]


def test_emulate_wants_samples_first():
    model, x = network(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4)), rand(20, 6)
    with (
        pytest.raises(InputError, match=r"0: its second pass is decided with calibration samples, which it has not"),
        simulator.emulate(model, machine()),
    ):
        model(x)
    run = simulator.emulate(model, machine())
    run.calibrate(x)
    with run:
        model(x)
    assert 0 < sum(layer.recomputed_macs for layer in run.result.layers) <= 0.2 * 20 * (54 + 36)


def test_what_cannot_be_calibrated_is_refused():
    model, x = network(nn.Linear(6, 9)), rand(20, 6)
    own = Emulation(model, machine(), {"0": {"policy": {"budget": 0.5}}})
    with pytest.raises(InputError, match=r"layers: 0: got a budget of its own with policy.budget_over: network"):
        own.calibrate(x)


def test_a_budget_of_the_network_is_none_of_layers_that_run_in_one_pass():
    run = Emulation(network(nn.Linear(3, 2)), machine(), {"0": {"mac": "high"}})
    run.calibrate(rand(4, 3))
    with run:
        run.model(rand(4, 3))
    (layer,) = run.result.layers
    assert run.criteria == {} and layer.recomputed_outputs == 0


def test_a_budget_of_the_network_wants_a_budget(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text(
        "array: {rows: 8, columns: 8}\n"
        "mac: {low: fp8_e4m3 -> fma(fp8_e4m3), high: fp8_e4m3 -> fma(fp16)}\n"
        "policy: {budget_over: network}\n"
    )
    with pytest.raises(InputError, match=r"policy.budget_over: got network without a budget; expected policy.budget"):
        load_hardware(path)


def test_columns_whose_errors_are_larger_score_higher():
    """A column that sums large terms of both signs errs more than its layer where v is the same."""
    model, x = network(nn.Linear(40, 12)), rand(400, 40)
    with torch.no_grad():
        model[0].weight[:6] *= 0.1
        model[0].bias.zero_()
    run = Emulation(model, machine(budget=None, over="layer"))
    run.calibrate(x)
    score = run.criteria["0"].score
    assert score.columns.shape == (12,) and score.columns[:6].max() < 0.9 < score.columns[6:].min()
    seen = Seen(np.full((1, 12), 0.25), "identity", slice(0, 1))
    even = replace(score, columns=np.ones(12))
    assert np.allclose(score(seen), even(seen) * score.columns)


# --- what calibration cannot see --------------------------------------------------------------------------------------


def sensitive(name="npu", **policy):
    machine = load_hardware(name)
    return replace(machine, policy=replace(machine.policy, score="sensitivity", tolerance=0.0, budget=0.2, **policy))


class Cut(nn.Module):
    """Two layers behind which the gradient ends."""

    def __init__(self, cut):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.cut = nn.Linear(8, 16), nn.Linear(16, 4), cut

    def forward(self, x):
        return self.cut(self.two(torch.relu(self.one(x))))


@pytest.mark.parametrize(
    "cut", [torch.round, torch.sign, lambda y: y.detach(), lambda y: y.argmax(1, keepdim=True).float()]
)
def test_outputs_without_a_gradient_are_refused(cut):
    run = Emulation(Cut(cut), sensitive())
    with pytest.raises(InputError, match="one, two: no gradient of the outputs reaches them"):
        run.calibrate(torch.randn(6, 8))


def test_a_single_layer_without_a_gradient_is_named():
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.one, self.aside = nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x):
            return self.one(x) + torch.round(self.aside(x))

    x = torch.randn(6, 8)
    record = simulator.evaluate(Aside().eval(), sensitive(), x)
    assert any("aside: no gradient of the outputs reached them" in text for text in record.warnings)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x):
        q = self.one(x)
        return self.two((torch.softmax(q @ q.transpose(1, 2) / 4, -1) @ x).mean(1))


def test_a_budget_that_other_shapes_exceed_is_said():
    run = Emulation(Attention().eval(), sensitive(budget_over="network"))
    run.calibrate(torch.randn(8, 64, 16))
    with torch.no_grad(), run:
        run.model(torch.randn(8, 2, 16))
    record = run.result
    share = sum(one.recomputed_macs for one in record.layers) / sum(one.macs for one in record.layers)
    said = [text for text in record.warnings if text.startswith("policy.budget: ")]
    assert (share > 0.2) == bool(said) and share > 0.2
    again = Emulation(Attention().eval(), sensitive(budget_over="network"))
    x = torch.randn(8, 64, 16)
    again.calibrate(x)
    with torch.no_grad(), again:
        again.model(x)
    assert not [text for text in again.result.warnings if text.startswith("policy.budget: ")]


def test_a_stack_with_one_product_for_each_head_counts_samples_by_rows():
    """einsum makes a stack of what is a layer; batches of any size are one record, and flags do not see them."""

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.w, self.out = nn.Parameter(torch.randn(3, 8, 5)), nn.Linear(15, 2)

        def forward(self, x):
            return self.out(torch.einsum("btf,hfd->bthd", x, self.w).flatten(2).mean(1))

    model, x = Heads().eval(), torch.randn(12, 4, 8)
    machine = replace(load_hardware("npu"), policy=replace(load_hardware("npu").policy, tolerance=0.0, budget=0.3))
    records = []
    for sizes in ((12,), (5, 3, 4), (1,) * 12):
        run = Emulation(model, machine)
        with torch.no_grad(), run:
            for part in torch.split(x, sizes):
                run.model(part)
        records.append([(one.name, one.gemms * one.m, one.recomputed_outputs) for one in run.result.layers])
    assert records[0] == records[1] == records[2]


def test_rules_of_layers_in_two_passes_are_calibrated_in_every_mode(tmp_path):
    model, (x, y) = bundled.load("mlp"), bundled.digits()
    record = simulator.evaluate(model, sensitive(), x[:20], y[:20], layers={"fc1": "two_pass"})
    assert "fc1: two passes by a rule of their own, in the low and the high mode too" in record.warnings
    assert record.baseline_layers["high"][0].recomputed_outputs > 0


def test_rows_that_are_looked_at_do_not_follow_the_width_of_an_image():
    """Of 28 rows of an image every 28th is its border."""
    model, (x, _) = bundled.load("cnn"), bundled.digits()
    shares = []
    for count in (380, 400, 420):
        run = Emulation(model, sensitive(budget_over="network"))
        run.calibrate(x[:count])
        shares.append(run.criteria["conv1"].budget)
    assert max(shares) < 1.3 * min(shares)


def test_a_ladder_by_a_network_budget_ends_where_its_tolerances_say(tmp_path):
    text = """
array: {rows: 16, columns: 16}
mac:
  low: {operands: fp8_e4m3/sat, accumulator: fma(fp8_e4m3/sat), rate: 4 MAC/cycle}
  middle:
    half: {operands: fp8_e4m3/sat, accumulator: fma(fp16/sat), rate: 2 MAC/cycle}
  high: {operands: fp8_e4m3/sat, accumulator: fma(fp32)}
policy: {tolerance: 0.0, budget: 0.2, budget_over: network}
"""
    (tmp_path / "m.yaml").write_text(text)
    x, y = bundled.digits()
    record = simulator.evaluate(bundled.load("mlp"), load_hardware(tmp_path / "m.yaml"), x[:30], y[:30])
    passes = [sum(one.pass_outputs.get(name, 0) for one in record.layers) for name in ("half", "high")]
    assert passes[1] > 0 and passes[1] > 0.8 * passes[0]


def test_a_registered_score_runs_in_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "_registered", {})
    scores.register("near_one", lambda seen: 1.0 / (1e-9 + np.abs(np.abs(seen.v) - 1.0)))
    text = (ROOT / "hwconfigs" / "npu.yaml").read_text().replace("score: kappa_prime", "score: near_one")
    text = text.replace("tolerance: 0.5 ", "score: near_one\n  tolerance: 10.0 ") if "near_one" not in text else text
    (tmp_path / "m.yaml").write_text(text)
    x, y = bundled.digits()
    record = simulator.evaluate(bundled.load("mlp"), load_hardware(tmp_path / "m.yaml"), x[:10], y[:10])
    assert sum(one.recomputed_outputs for one in record.layers) > 0
