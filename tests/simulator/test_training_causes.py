"""Causes: every number of the report against a count written out, and the training the same with and without it."""

import copy
import csv
import itertools
import json
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import formats  # noqa: E402
from simulator.arithmetic import mac  # noqa: E402
from simulator.arithmetic.reference import Place, accumulate  # noqa: E402
from simulator.arithmetic.reference import Run as Sum  # noqa: E402
from simulator.errors import InputError  # noqa: E402
from simulator.training import LossScale, Recipe, UpdateCounts, ablation, causes_of, fit, load_recipe  # noqa: E402
from simulator.training.ablation import Ablation, combinations, kept  # noqa: E402
from simulator.training.laws import C2, C3  # noqa: E402
from simulator.training.observed import flips_law, forward_law  # noqa: E402
from simulator.training.points import Point  # noqa: E402
from simulator.training.swamping import Swamped  # noqa: E402
from simulator.training.updates import C1  # noqa: E402

EVERY_POINT = {
    "weight_store": "e8m4/rz", "weight_use": "e8m5/sr", "activation": "e6m3/rne", "gradient": "e5m2/sr",
    "weight_gradient": "e8m3/rz", "optimizer_state": "bf16",
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    """Networks as small as these are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def blobs(count=128, classes=4, size=12, seed=0):
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, count)
    return random.standard_normal((classes, size))[y] + random.standard_normal((count, size)) * 0.7, y


class Net(nn.Module):
    """Layers, a batch normalisation with buffers, dropout with random numbers, and a ReLU that is no module."""

    def __init__(self, seed=0, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(12, 16, dtype=dtype)
        self.normal = nn.BatchNorm1d(16, dtype=dtype)
        self.drop = nn.Dropout(0.25)
        self.last = nn.Linear(16, 4, dtype=dtype)

    def forward(self, x):
        return self.last(self.drop(torch.relu(self.normal(self.first(x)))))


def plain(seed=0, widths=(12, 16, 16, 4), inplace=False):
    torch.manual_seed(seed)
    layers = [nn.Linear(widths[0], widths[1], dtype=torch.float64)]
    for a, b in itertools.pairwise(widths[1:]):
        layers += [nn.ReLU(inplace=inplace), nn.Linear(a, b, dtype=torch.float64)]
    return nn.Sequential(*layers)


def state(model):
    return torch.cat([value.detach().double().flatten() for value in model.state_dict().values()])


def observed(model, points, data=None, **options):
    """Train for an epoch, and return the observation with what the batch and the parameters were: the last ones."""
    x, y = (torch.as_tensor(part) for part in (data or blobs()))
    history = fit(model, (x, y), recipe=points, epochs=1, causes=True, **options)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(options.get("seed", 0)))
    rows = order.split(options.get("batch_size", 32))[-1]
    return history.epochs[-1].observation, x[rows], y[rows]


@pytest.mark.parametrize("macs", [{}, {"forward": "seq(fp16/sr)", "weight_gradient": "fma(bf16)"}], ids=["", "macs"])
def test_no_bit_of_the_training_changes_while_it_is_observed(macs):
    recipe = Recipe.of(EVERY_POINT, 256.0, macs=macs)
    dtype = torch.float32 if macs else torch.float64
    ends = []
    for causes in (False, True):
        model = Net(dtype=dtype)
        torch.manual_seed(5)
        history = fit(model, blobs(), recipe=recipe, epochs=2, momentum=0.9, seed=3, causes=causes)
        shown = [(e.loss, e.accuracy, e.counts) for e in history.epochs]
        gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
        ends.append((state(model), torch.rand(1), gradients, shown))
        assert all((epoch.observation is not None) == causes for epoch in history.epochs)
    for plain_end, observed_end in zip(*ends, strict=True):
        same = (
            torch.equal(plain_end, observed_end) if isinstance(plain_end, torch.Tensor) else plain_end == observed_end
        )
        assert same


def test_the_optimiser_is_followed_for_the_time_of_the_training_only():
    made = []

    def make(parameters):
        made.append(torch.optim.SGD(parameters, lr=0.25))
        return made[0]

    seen, _, _ = observed(plain(), Recipe.of({"weight_store": "e8m4/rz"}), optimizer=make)
    assert set(seen.rates.values()) == {0.25}
    assert not made[0]._optimizer_step_pre_hooks and not made[0]._optimizer_step_post_hooks


@pytest.mark.parametrize("inplace", [False, True])
def test_flips_and_errors_of_activations_are_those_of_two_passes_written_out(inplace):
    model = plain(1, inplace=inplace)
    seen, x, y = observed(model, Recipe.of({"activation": "e8m2/rz"}))

    def passed(rounds):
        leaves, masks, value = [], [], x
        for layer in model:
            if isinstance(layer, nn.ReLU):
                masks.append(value > 0)
                value = torch.clamp(value, min=0)
                continue
            value = nn.functional.linear(value, layer.weight, layer.bias)
            if rounds:
                coarse = torch.from_numpy(formats.get("e8m2").quantize(value.detach().numpy(), rounding="rz"))
                value = value + (coarse - value).detach()
                assert torch.allclose(value, coarse, rtol=1e-15)
            value.retain_grad()
            leaves.append(value)
        nn.functional.cross_entropy(value, y).backward()
        return leaves, masks

    (rounded, masks), (exact, right) = passed(True), passed(False)
    effects = seen.effects["activation"]
    assert list(effects) == ["0", "2", "4"] and [e.depth for e in effects.values()] == [1, 2, 3]
    for i, effect in enumerate(effects.values()):
        forward = (rounded[i] - exact[i]).detach().norm() / exact[i].detach().norm()
        gradient = (rounded[i].grad - exact[i].grad).norm() / exact[i].grad.norm()
        assert effect.forward_error == pytest.approx(float(forward), rel=1e-9)
        assert effect.gradient_error == pytest.approx(float(gradient), rel=1e-9)
        if i < 2:
            assert (effect.units, effect.flipped) == (masks[i].numel(), int((masks[i] != right[i]).sum()))
        else:
            assert (effect.units, effect.flips) == (0, None)
    # Truncation of an output alone cannot change its own sign; of what it is made from it can.
    assert effects["0"].flipped == 0 and effects["2"].flipped > 0
    assert seen.effects["all"] == effects


def test_what_vanishes_flips_its_mask():
    model = plain(widths=(1, 2, 4))
    with torch.no_grad():
        model[0].weight.copy_(torch.full((2, 1), 2.0**-12))
        model[0].bias.zero_()
    data = np.ones((8, 1)), np.zeros(8, np.int64)
    seen, _, _ = observed(model, Recipe.of({"activation": "fp8_e4m3/rz"}), data, lr=1e-30)
    assert (seen.effects["activation"]["0"].units, seen.effects["activation"]["0"].flipped) == (16, 16)


def test_stored_weights_are_compared_with_those_that_the_last_step_wanted():
    """The step is taken again, from the parameters before it: one batch is one step."""
    data = blobs(32)
    stored, own = plain(2), plain(2)
    fmt = formats.get("e8m3")

    def truncated(model):
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.from_numpy(fmt.quantize(p.detach().numpy(), rounding="rz")))
        return model

    seen, x, y = observed(stored, Recipe.of({"weight_store": "e8m3/rz", "gradient": "fp32"}), data)
    truncated(own)
    optimizer = torch.optim.SGD(own.parameters(), lr=0.1)
    nn.functional.cross_entropy(own(x), y).backward()
    optimizer.step()
    wanted, kept_ones = own, truncated(copy.deepcopy(own))
    first = [nn.functional.linear(x, m[0].weight, m[0].bias) for m in (kept_ones, wanted)]
    effect = seen.effects["weight_store"]["0"]
    assert effect.flipped == int(((first[0] > 0) != (first[1] > 0)).sum()) > 0
    assert effect.forward_error == pytest.approx(_away(*first))


def _away(found, expected):
    return float((found - expected).detach().norm() / expected.detach().norm())


@pytest.mark.parametrize("scale", [1.0, 2.0**-8])
def test_a_gradient_point_is_seen_behind_the_loss_scale(scale):
    model = plain(3)
    recipe = Recipe.of({"gradient": "fp8_e5m2/rz"}, scale)
    seen, x, y = observed(model, recipe)
    out = model(x).detach().requires_grad_()
    nn.functional.cross_entropy(out, y).backward()
    rounded = formats.get("fp8_e5m2").quantize((out.grad * scale).numpy(), rounding="rz") / scale
    expected = np.linalg.norm(rounded - out.grad.numpy()) / float(out.grad.norm())
    assert seen.effects["gradient"]["4"].gradient_error == pytest.approx(expected, rel=1e-9)
    assert seen.effects["gradient"]["4"].forward_error == 0.0


def test_signal_to_noise_is_that_of_numpy_over_the_batches():
    model, kept_ones = plain(4), []

    class Noting(torch.optim.SGD):
        def step(self, closure=None):
            kept_ones.append([p.grad.numpy().copy() for group in self.param_groups for p in group["params"]])
            return super().step(closure)

    seen, x, y = observed(
        model, Recipe.of({"weight_gradient": "e8m2/rz"}, 256.0), optimizer=lambda parameters: Noting(parameters, lr=0.1)
    )
    assert len(kept_ones) == 4
    for (name, noise), gradients in zip(seen.gradients.items(), zip(*kept_ones, strict=True), strict=True):
        stack = np.array(gradients)
        signal, deviation = np.linalg.norm(stack.mean(0)), np.linalg.norm(stack.std(0))
        assert (noise.batches, noise.ratio) == (4, pytest.approx(signal / deviation))
        assert (noise.signal, noise.deviation) == (pytest.approx(signal), pytest.approx(deviation))
        model.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        exact = model.get_parameter(name).grad.numpy()
        away = np.linalg.norm(formats.get("e8m2").quantize(exact, rounding="rz") - exact)
        assert noise.rounding["weight_gradient"] == pytest.approx(away) and away > 0


def test_swamped_additions_are_those_of_a_loop_over_every_sum():
    """One linear layer, whose three products are summed by the definition, term by term."""
    model = nn.Sequential(nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, 3))
    x, y = blobs(16, classes=3, size=40)
    x = x.astype(np.float32) * (np.random.default_rng(1).random(x.shape) < 0.8)
    units = {"forward": "fma(fp8_e4m3)", "input_gradient": "seq(fp16)", "weight_gradient": "seq(fp8_e5m2)"}
    seen, x, y = observed(model, Recipe.of({}, LossScale(64.0), macs=units), (x.astype(np.float32), y), batch_size=16)

    def loop(a, b, c, unit):
        spec, additions, swamped = mac(unit), 0, 0
        for i in range(a.shape[0]):
            for j in range(b.shape[1]):
                total = Sum(Place(i * b.shape[1] + j, 0, 1, 0, 0, 0), spec)
                accumulate(a[i].tolist(), b[:, j].tolist(), None if c is None else float(c[j]), total)
                additions += int(np.count_nonzero((a[i] != 0) & (b[:, j] != 0)))
                swamped += total.swamped
        return additions, swamped

    first = model[0]
    rows, weight, bias = x.numpy(), first.weight.detach().numpy(), first.bias.detach().numpy()
    found = seen.swamping["forward"]["0"]
    assert (found.additions, found.swamped) == loop(rows, weight.T, bias, units["forward"])
    assert 0 < found.swamped < found.additions and found.share == found.swamped / found.additions
    # Backward: the layer's own input needs no gradient; the second one's does, and both weights do.
    assert set(seen.swamping["input_gradient"]) == {"2"} and set(seen.swamping["weight_gradient"]) == {"0", "2"}
    assert seen.swamping["weight_gradient"]["0"].swamped > 0


def test_swamping_by_hand_and_on_a_sample_of_rows():
    """In fp16 of eleven bits: 2048 + 1 stays 2048 in every row, and of four additions one begins at 0."""
    weight = torch.tensor([[1.0, 1.0, 1.0, 0.0, 1.0]])
    model = nn.Linear(5, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(weight)
    rows = torch.tensor([[2048.0, 1.0, 1.0, 3.0, 1.0]]).repeat(6, 1)
    from simulator.hardware import load_hardware
    from simulator.network.emulation import Emulation

    for most, sampled in ((1 << 22, 6), (10, 2)):
        emulation = Emulation(model, load_hardware("npu"), {"*": {"mac": "fma(fp16)"}}, default="low")
        counting = Swamped(emulation, ["forward"], most=most)
        emulation.observers = (counting,)
        with emulation, torch.no_grad():
            model(rows)
        found = next(iter(counting.found["forward"].values()))
        assert (found.additions, found.swamped) == (4 * sampled, 3 * sampled)


def test_values_beyond_the_largest_are_counted_by_what_became_of_them():
    x = torch.tensor([1e9, -1e9, 3.0, 1e-9, 2.0**-15, 0.0, -5e4], dtype=torch.float64)
    for rounding, saturated, overflowed in (("rz", 2, 0), ("rne", 0, 2)):
        point = Point("activation", formats.Use.parse(f"fp16/{rounding}"))
        point.rounded(x, "a", 1)
        counts = point.close()["a"]
        assert (counts.values, counts.saturated, counts.overflowed) == (6, saturated, overflowed)
        assert (counts.vanished, counts.subnormal) == (1, 1)


def test_formats_with_shared_scales_are_counted_as_far_as_is_known():
    x = torch.zeros(2, 32, dtype=torch.float64)
    x[0, 0], x[0, 1], x[1, 2] = 1024.0, 2.0**-20, 2.0**-20
    point = Point("gradient", formats.Use.parse("mxfp8_e4m3"))
    assert int((point.rounded(x, "a", 1) != 0).sum()) == 2
    assert (point.counts["a"].values, point.counts["a"].vanished) == (3, 1)
    history = fit(plain(), blobs(), recipe=Recipe.of({"gradient": "mxfp8_e4m3"}), epochs=1)
    row = next(row for row in causes_of(history).rows if row["point"] == "gradient")
    assert row["values"] > 0 and row["vanished"] is not None
    assert row["saturated"] is None and row["subnormal"] is None


def test_laws_are_those_of_the_specification():
    assert (round(C1, 4), round(C2, 4), round(C3, 4)) == (0.3607, 0.2242, 0.2123)
    use = formats.Use.parse
    assert flips_law(use("e8m4/rz"), 9) == pytest.approx(math.atan(0.2242 * 3 / 16) / math.pi, rel=1e-3)
    assert flips_law(use("e8m4/rne"), 4) == pytest.approx(math.atan(0.2123 * 2 / 16) / math.pi, rel=1e-3)
    assert forward_law(use("e8m10/rz"), 8) == pytest.approx(2.95 * 2.0**-10, rel=0.01)
    assert forward_law(use("e8m10/rne"), 16) == pytest.approx(0.85 * 2.0**-10, rel=0.01)
    assert forward_law(use("e8m10/sr"), 16) == pytest.approx(math.sqrt(2) * forward_law(use("e8m10/rne"), 16))
    assert flips_law(use("int8"), 1) is None and forward_law(use("e8m4/ru"), 1) is None


@pytest.mark.parametrize(("rounding", "bits"), [("rz", 6), ("rz", 8), ("rne", 6), ("rne", 8)])
def test_random_networks_flip_as_many_masks_as_the_law_says(rounding, bits):
    """Sixteen layers of 128 units with weights rounded for use, 512 inputs, a million masks: within 15 %."""
    torch.manual_seed(bits)
    layers = []
    for _ in range(16):
        layer = nn.Linear(128, 128, bias=False, dtype=torch.float64)
        nn.init.normal_(layer.weight, std=math.sqrt(2 / 128))
        layers += [layer, nn.ReLU()]
    model, x = nn.Sequential(*layers), torch.randn(512, 128, dtype=torch.float64)
    recipe = Recipe.of({"weight_use": f"e8m{bits}/{rounding}"})
    seen, _, _ = observed(model, recipe, (x, torch.zeros(512, 128)), batch_size=512, lr=1e-12)
    effects = seen.effects["weight_use"].values()
    law = sum(flips_law(recipe.points["weight_use"], e.depth) for e in effects)
    assert sum(e.flips for e in effects) == pytest.approx(law, rel=0.15)
    assert sum(e.units for e in effects) == 2**20
    # Deeper, flips add to what the law says of the error.
    fourth = list(effects)[3]
    assert fourth.forward_error == pytest.approx(forward_law(recipe.points["weight_use"], 4), rel=0.15)


def test_the_report_has_every_epoch_point_and_layer(tmp_path):
    recipe = Recipe.of(EVERY_POINT, macs={"forward": "fma(fp8_e4m3)"})
    history = fit(Net(dtype=torch.float32), blobs(), recipe=recipe, epochs=2, momentum=0.9, causes=True)
    report = causes_of(history)
    keys = {(row["epoch"], row["point"], row["tensor"]): row for row in report.rows}
    assert len(keys) == len(report.rows)
    for epoch in range(2):
        for name in ("first.weight", "last.bias"):
            row = keys[epoch, "weight_store", name]
            updates = history.epochs[epoch].updates[name]
            assert row["layer"] == name.split(".")[0]
            assert (row["wanted"], row["lost"]) == (updates.wanted, updates.lost)
            assert row["decay"] == pytest.approx(updates.shrunk / updates.entries / 0.1)
            assert row["decay_law"] == pytest.approx(C1 / 16 / 0.1)
            assert keys[epoch, "all", name]["signal_to_noise"] > 0
        for point in (*EVERY_POINT, "forward", "all"):
            if point != "optimizer_state":
                assert keys[epoch, point, "first"]["forward_error"] is not None
        assert keys[epoch, "all", "last.weight"]["batches"] == 4
        assert keys[epoch, "activation", "first"]["values"] > 0
        assert keys[epoch, "weight_use", "normal"]["flips_law"] > 0
        assert keys[epoch, "forward", "first"]["additions"] > 0
        assert keys[epoch, "optimizer_state", "last.bias: momentum_buffer"]["layer"] == "last"
    paths = report.save(tmp_path / "out")
    assert json.loads(paths[0].read_text()) == json.loads(json.dumps(report.to_dict()))
    with paths[1].open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(report.rows) and table[0]["point"] == report.rows[0]["point"]
    text = str(report)
    for title in ("Epoch 1", "Updates of stored", "With the point", "Values that", "Additions of", "Gradients over"):
        assert title in text


def test_the_histogram_of_a_report_is_of_steps_in_last_places():
    model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.5, -3.0]]))
    # Gradients -0.5 and 0.25: steps of +2^-3 and -2^-4 at a rate of 1/4, last places being 2^-4 and 2^-3.
    x, y = torch.tensor([[-0.5, 0.25]], dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    history = fit(model, (x, y), storage="e8m4", rounding="rz", epochs=1, lr=0.25, loss=lambda out, target: out.sum())
    (row,) = causes_of(history).steps
    assert row["point"] == "weight_store"
    edges = dict(row["log2_in_ulps"])
    for exact in (1.0, -1.0):
        assert sum(count for edge, count in edges.items() if edge <= exact <= edge + 0.25) == 1
    assert sum(edges.values()) == 2
    updates = causes_of(history).rows[0]
    # Towards 0 nothing is lost; -3 - 2^-4 is away from it, by less than a last place.
    assert (updates["wanted"], updates["lost"], updates["lost_away"]) == (2, 1, 1) and updates["decay"] is None


def test_a_report_of_the_carrier_has_no_law_and_no_number_that_json_lacks():
    history = fit(plain(), blobs(), epochs=1, batch_size=128, lr=1e200, causes=True)  # a step out of the range
    assert history.epochs[0].observation.effects["all"]["4"].forward_error is None
    report = causes_of(history)
    json.dumps(report.to_dict(), allow_nan=False)
    assert {row["point"] for row in report.rows} == {"carrier", "all"}
    assert all(row["decay_law"] is None for row in report.rows)
    assert UpdateCounts().decay(0.1) == 0.0


# --- ablation -------------------------------------------------------------------------------------------------------


def accuracies(**found):
    return {tuple(name.split("_")) if name != "none" else (): values for name, values in found.items()}


def test_an_ablation_trains_each_combination_once_and_no_other():
    recipe = Recipe.of({"activation": "fp16", "gradient": "bf16"}, macs={"forward": "fma(fp16)"})
    assert combinations(recipe) == [
        (), ("activation", "gradient", "forward"), ("activation",), ("gradient",), ("forward",),
        ("gradient", "forward"), ("activation", "forward"), ("activation", "gradient"),
    ]  # fmt: skip
    assert combinations(recipe.without("forward")) == [(), ("activation", "gradient"), ("activation",), ("gradient",)]
    assert kept(recipe, ("forward", "gradient")).parts == ("gradient", "forward")
    with pytest.raises(InputError, match="rounds nothing"):
        combinations(Recipe())


def test_a_verdict_names_what_restores_most_with_its_error():
    found = Ablation(("a", "b"), accuracies(none=[0.9, 0.92], a=[0.6, 0.7], b=[0.9, 0.9], a_b=[0.5, 0.62]), 400)
    first, second = found.costs
    assert (first.point, second.point) == ("a", "b")
    assert first.cost == pytest.approx(0.91 - 0.65) and first.gain == pytest.approx(0.9 - 0.56)
    assert second.gain == pytest.approx(0.65 - 0.56)
    variance = (0.9 * 0.1 + 0.56 * 0.44) / 400 + np.var([0.4, 0.28], ddof=1) / 2
    assert first.gain_error == pytest.approx(math.sqrt(variance))
    verdict = found.verdict
    assert (verdict.point, verdict.samples, verdict.seeds) == ("a", 400, 2)
    assert "a limits the training (0.560 with all points, 0.900 without it: +0.340" in verdict.sentence
    assert "400 test samples, 2 seeds" in verdict.sentence


def test_where_no_removal_restores_more_than_chance_the_verdict_says_so():
    found = Ablation(("a", "b"), accuracies(none=[0.9], a=[0.89], b=[0.9], a_b=[0.89]), 400)
    assert found.verdict.point is None
    assert found.verdict.sentence.startswith("No removal restores more than 2 standard errors; the most is that of a")
    assert "+0.010" in str(found)


def test_an_ablation_is_trainings_with_some_of_the_points():
    recipe = Recipe.of({"weight_store": "e8m2/rz", "activation": "e8m8/rz"})
    data, test = blobs(128, seed=1), blobs(64, seed=1)
    calls = []
    found = ablation(
        plain,
        data,
        recipe,
        test,
        seeds=(0, 3),
        batch_size=64,
        epochs=1,
        progress=lambda done, of: calls.append((done, of)),
    )
    assert calls == [(done, 8) for done in range(9)] and found.samples == 64
    for on, shares in found.accuracies.items():
        for seed, share in zip((0, 3), shares, strict=True):
            own = fit(plain(seed), data, recipe=kept(recipe, on), test=test, seed=seed, batch_size=64, epochs=1)
            assert own.accuracy == share
    history = fit(plain(), data, recipe=recipe, test=test, epochs=1)
    report = causes_of(history, found)
    by_name = ablation(plain, data, "truncated", test, epochs=1)
    assert by_name.accuracies == ablation(plain, data, load_recipe("truncated"), test, epochs=1).accuracies
    assert report.to_dict()["ablation"] == found.to_dict() and found.verdict.sentence.split("(")[0] in str(report)


def test_an_ablation_without_classes_is_refused():
    x = np.ones((8, 12))
    with pytest.raises(InputError, match="the targets are no classes"):
        ablation(plain, (x, np.ones((8, 4))), Recipe.of({"gradient": "bf16"}), (x, np.ones((8, 4))), epochs=1)
    with pytest.raises(InputError, match="got no seeds"):
        ablation(plain, blobs(), Recipe.of({"gradient": "bf16"}), blobs(), seeds=())
