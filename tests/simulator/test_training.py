"""Training with reduced precision: every point against a loop written out, laws of truncation, the same bits again."""

import copy
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

import formats  # noqa: E402
import simulator  # noqa: E402
from formats.philox import word  # noqa: E402
from simulator.errors import InputError  # noqa: E402
from simulator.training import DivergedTraining, LossScale, Recipe, UnroundedLayer, fit, predict  # noqa: E402
from simulator.training.points import POINTS, Point  # noqa: E402
from simulator.training.updates import C1, LOW, PER_BIT, Updates  # noqa: E402


def blobs(count=256, classes=4, size=12, seed=0):
    """Classes around centres of their own; the last input is 0 in every sample, so its weights have no gradient."""
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, count)
    x = random.standard_normal((classes, size))[y] + random.standard_normal((count, size)) * 0.7
    x[:, -1] = 0.0
    return x, y


def net(seed=0, widths=(12, 16, 4), dtype=torch.float64, activation=nn.ReLU):
    torch.manual_seed(seed)
    layers = []
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        layers += [nn.Linear(a, b, dtype=dtype), *([activation()] if i < len(widths) - 2 else [])]
    return nn.Sequential(*layers)


def state(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("rounding", ["rz", "rne", "sr"])
def test_stored_parameters_are_values_of_the_format(rounding):
    model = net()
    history = fit(model, blobs(), storage="e8m5", rounding=rounding, epochs=2)
    found = state(model).numpy()
    assert np.array_equal(formats.get("e8m5").quantize(found), found)
    assert history.steps == 16 and history.epochs[-1].accuracy > 0.5


def test_truncation_after_every_batch_is_the_loop_of_the_paper():
    """Written out: initial parameters and those behind every step are truncated, all else is in the carrier."""
    x, y = (torch.as_tensor(part) for part in blobs())
    fmt = formats.get("e6m4")
    model, own = net(), net()
    fit(model, (x, y), storage="e6m4", rounding="rz", epochs=2, batch_size=50, lr=0.2, momentum=0.9, seed=7)

    def truncate():
        with torch.no_grad():
            for p in own.parameters():
                p.copy_(torch.from_numpy(fmt.quantize(p.detach().numpy(), rounding="rz")))

    optimizer = torch.optim.SGD(own.parameters(), lr=0.2, momentum=0.9)
    order = torch.Generator().manual_seed(7)
    truncate()
    for _ in range(2):
        for rows in torch.randperm(len(x), generator=order).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(own(x[rows]), y[rows]).backward()
            optimizer.step()
            truncate()
    assert torch.equal(state(model), state(own))


def test_every_point_rounds_what_it_says():
    """One step of one sample on a linear layer: y = w x with w, y, dL/dy, dL/dw and the momentum each rounded."""
    forms = {
        "weight_store": "e8m6", "weight_use": "e8m3", "activation": "e8m4", "gradient": "e8m2",
        "weight_gradient": "e8m1", "optimizer_state": "e8m7",
    }  # fmt: skip
    assert set(forms) == set(POINTS)

    def rounded(point, value):
        return torch.from_numpy(formats.get(forms[point]).quantize(value.numpy(), rounding="rne"))

    model = nn.Linear(3, 2, bias=False, dtype=torch.float64)
    start = model.weight.detach().clone()
    x, y = torch.tensor([[0.7, -1.3, 2.1]], dtype=torch.float64), torch.tensor([[0.4, -0.9]], dtype=torch.float64)
    seen = {}

    def loss(out, target):
        seen["out"] = out.detach().clone()
        return ((out - target) ** 2).sum()

    kept = {}

    def make(parameters):
        kept["optimizer"] = torch.optim.SGD(parameters, lr=0.125, momentum=0.5)
        return kept["optimizer"]

    recipe = Recipe.of({point: f"{form}/rne" for point, form in forms.items()})
    fit(model, (x, y), recipe=recipe, epochs=1, loss=loss, optimizer=make)

    stored = rounded("weight_store", start)
    used = rounded("weight_use", stored)
    out = rounded("activation", x @ used.T)
    assert torch.equal(seen["out"], out)
    gradient = rounded("gradient", 2 * (out - y))
    of_weight = rounded("weight_gradient", gradient.T @ x)
    assert torch.equal(model.weight.detach(), rounded("weight_store", stored - 0.125 * of_weight))
    momentum = kept["optimizer"].state[model.weight]["momentum_buffer"]
    assert torch.equal(momentum, rounded("optimizer_state", of_weight))


def test_frozen_parameters_are_stored_and_used_in_the_formats():
    form, narrow = formats.get("e8m6"), formats.get("e8m3")
    model = net()
    model[0].weight.requires_grad_(False)
    start, seen = model[0].weight.detach().numpy().copy(), []
    model[0].register_forward_pre_hook(lambda layer, args: seen.append(layer.weight.detach().numpy().copy()))
    recipe = Recipe.of({"weight_store": "e8m6/rne", "weight_use": "e8m3/rne"})
    fit(model, blobs(), recipe=recipe, epochs=1)
    stored = form.quantize(start, rounding="rne")
    assert np.array_equal(model[0].weight.numpy(), stored)
    assert all(np.array_equal(used, narrow.quantize(stored, rounding="rne")) for used in seen) and seen


def test_products_run_on_the_mac_units_of_the_recipe():
    model = nn.Linear(40, 3, bias=False)
    start = model.weight.detach().numpy().copy()
    x = np.random.default_rng(1).standard_normal((8, 40)).astype(np.float32)
    y = np.zeros((8, 3), np.float32)
    units = {"forward": "fma(fp16)", "weight_gradient": "seq(bf16)"}
    recipe = Recipe.of({}, macs=units)
    fit(model, (x, y), recipe=recipe, epochs=1, lr=0.5, seed=3)

    rows = torch.randperm(8, generator=torch.Generator().manual_seed(3)).numpy()
    out = simulator.matmul(x[rows], start.T.copy(), mac="fma(fp16)")
    leaf = torch.from_numpy(np.ascontiguousarray(out)).requires_grad_()
    nn.functional.mse_loss(leaf, torch.from_numpy(y[rows])).backward()
    gradient = simulator.matmul(leaf.grad.numpy().T.copy(), x[rows], mac="seq(bf16)")
    assert np.array_equal(
        model.weight.detach().numpy(), (torch.from_numpy(start) - 0.5 * torch.from_numpy(gradient)).numpy()
    )


def test_stochastic_words_depend_on_seed_step_point_and_tensor_alone():
    use = formats.Use.parse("e8m2/sr")
    x = torch.linspace(-3, 3, 101, dtype=torch.float64)
    point = Point("gradient", use, seed=5)
    first, again = point.rounded(x, "a", 3), Point("gradient", use, seed=5).rounded(x, "a", 3)
    assert torch.equal(first, again)
    others = (point.rounded(x, "a", 4), point.rounded(x, "b", 3), Point("weight_store", use, 5).rounded(x, "a", 3))
    assert not any(torch.equal(first, other) for other in others)
    point = Point("gradient", use, seed=5)
    point.rounded(x, "z", 3)
    calls = [point.rounded(x, "a", 3) for _ in range(3)]
    assert len({call.numpy().tobytes() for call in calls}) == 3
    assert torch.equal(calls[0], others[1]) and torch.equal(point.apart().rounded(x, "a", 3), calls[0])
    blocks = Point("activation", formats.Use.parse("mxfp8_e4m3/sr"), seed=5)
    assert not torch.equal(blocks.rounded(x, "a", 3), blocks.rounded(x, "a", 3))
    # Against the definition: the word is a fraction of a last place, which is added before the rest is cut.
    site = POINTS.index("gradient") << 20
    for i in (10, 40, 77):
        value = float(x[i])
        ulp = 2.0 ** (math.floor(math.log2(abs(value))) - 2)
        whole = math.floor(abs(value) / ulp + word(5, i, site=site, step=3) * 2.0**-64)
        assert float(first[i]) == math.copysign(whole * ulp, value)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer, self.head, self.seen = kind(3, 4, batch_first=True), nn.Linear(4, 4), []

    def forward(self, x):
        out = self.layer(x)
        self.seen.append([each.detach().numpy() for each in tree_leaves(out)])
        return self.head(out[0][:, -1] + sum(each[0] for each in tree_leaves(out[1])))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("point", ["activation", "gradient"])
def test_outputs_in_tuples_are_rounded(kind, point):
    """The outputs, the last state, and that of an LSTM's cells; of the outputs the last one alone has a gradient."""
    torch.manual_seed(0)
    model, form = Recurrent(kind).double(), formats.get("e8m2")
    x, y = blobs(8)
    x = x.reshape(8, 4, 3)
    unrounded = copy.deepcopy(model)
    fit(unrounded, (x, y), epochs=1)
    history = fit(model, (x, y), epochs=1, recipe=Recipe.of({point: "e8m2/rne"}), causes=True)
    states = 2 if kind is nn.LSTM else 1
    # A step, and for activations the test too, of 8 samples, 4 times and 4 outputs.
    of_outputs, passes = (4, 2) if point == "activation" else (1, 1)
    assert history.epochs[0].counts[point]["layer"].values == passes * 8 * 4 * (of_outputs + states)
    if point == "activation":
        assert len(model.seen[0]) == 1 + states
        assert all(np.array_equal(form.quantize(each), each) for each in model.seen[0])
        assert history.epochs[0].observation.effects[point]["layer"].forward_error > 0
    assert history.epochs[0].observation.effects[point]["layer"].gradient_error > 0
    assert not torch.equal(model.layer.weight_ih_l0, unrounded.layer.weight_ih_l0)


def test_layers_that_no_point_meets_are_told_once_by_name():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(12, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x[:, None], x[:, None], x[:, None])[0][:, 0]

    with pytest.warns(UnroundedLayer) as told:
        history = fit(Attending(), blobs(8), epochs=2, batch_size=4, recipe=Recipe.of({"activation": "fp16"}))
    assert [str(each.message).split(":")[0] for each in told] == ["attention.out_proj"]
    assert told[0].filename == __file__ and history.epochs[0].counts["activation"]["attention"].values > 0


def test_a_layer_called_twice_and_batches_of_a_test_have_words_of_their_own():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.seen = nn.Linear(12, 4), []

        def forward(self, x):
            out = self.layer(x), self.layer(x)
            self.seen.append([each.detach().numpy().tobytes() for each in out])
            return out[0] + out[1]

    x, y = blobs(1, seed=4)
    model, recipe = Twice(), Recipe.of({"activation": "e8m2/sr"})
    fit(model, (x, y), recipe=recipe, epochs=1, lr=1e-30, test=(np.repeat(x, 2048, 0), np.repeat(y, 2048)))
    (first, second), *tested = model.seen
    assert first != second and len(tested) == 2
    assert len({each for batch in tested for each in batch}) == 4


def test_the_same_seed_gives_the_same_bits_whatever_the_threads():
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            model = net(dtype=torch.float32)
            recipe = Recipe.of({"weight_store": "e8m3/sr", "activation": "e5m2/sr"}, macs={"forward": "seq(fp16/sr)"})
            fit(model, blobs(), recipe=recipe, epochs=1, seed=9)
            results.append(state(model))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)
    other = net(dtype=torch.float32)
    fit(other, blobs(), recipe=recipe, epochs=1, seed=10)
    assert not torch.equal(results[0], state(other))


def test_a_loss_scale_changes_no_bit_while_nothing_overflows():
    plain, scaled = net(), net()
    fit(plain, blobs(), epochs=1)
    fit(scaled, blobs(), epochs=1, recipe=Recipe.of({}, loss_scale=1024.0))
    assert torch.equal(state(plain), state(scaled))


def test_gradients_that_vanish_without_a_loss_scale_survive_with_one():
    def lost(scale):
        recipe = Recipe.of({"gradient": "fp8_e5m2"}, loss_scale=scale)
        counts = fit(net(), blobs(), epochs=1, batch_size=256, recipe=recipe).epochs[0].counts["gradient"]
        return sum(c.vanished for c in counts.values()) / sum(c.values for c in counts.values())

    assert lost(2.0**-10) > 0.5 and lost(1024.0) < 0.01


def test_a_dynamic_scale_halves_and_skips_the_step_until_gradients_are_finite():
    model = net(dtype=torch.float32)
    start = copy.deepcopy(model)
    scale = LossScale(2.0**126, dynamic=True, every=1000)
    with pytest.warns(DivergedTraining, match="epoch 0: all 4 steps were skipped"):
        history = fit(model, blobs(64), epochs=1, batch_size=16, recipe=Recipe.of({"gradient": "fp16"}, scale))
    assert history.epochs[0].skipped == 4 and history.epochs[0].loss_scale == 2.0**122
    assert torch.equal(state(model), state(start))
    growing = LossScale(1.0, dynamic=True, every=2)
    assert fit(net(), blobs(64), epochs=1, batch_size=16, recipe=Recipe.of({}, growing)).epochs[0].loss_scale == 4.0


def test_a_training_that_diverges_is_told_once_and_its_scale_stays_normal():
    x, y = np.full((4, 2), np.inf, np.float32), np.zeros((4, 1), np.float32)
    scale = Recipe.of({}, LossScale(2.0**-124, dynamic=True))
    with pytest.warns(DivergedTraining) as told:
        history = fit(nn.Linear(2, 1), (x, y), epochs=3, batch_size=1, recipe=scale)
    assert history.epochs[-1].loss_scale == 2.0**-126 and history.steps == 0
    assert [str(each.message).split(" ")[2:5] for each in told] == [["the", "loss", "is"], ["all", "4", "steps"]]
    assert all(each.filename == __file__ for each in told)


def test_a_dynamic_scale_grows_to_the_largest_power_of_float32():
    def last(start):
        scale = Recipe.of({}, LossScale(start, dynamic=True, every=1))
        return fit(net(), blobs(64), epochs=1, batch_size=16, recipe=scale).epochs[0].loss_scale

    assert last(2.0**125) == 2.0**127 and last(2.0**200) == 2.0**200


def test_updates_that_are_not_finite_are_no_updates():
    updates, before = Updates(), torch.tensor([1.0, 2.0, 0.0, 4.0])
    wanted = torch.tensor([math.nan, math.inf, 1.0, 3.0])
    updates.see("w", before, wanted, wanted.clone())
    found = updates.close()["w"]
    assert (found.wanted, found.entries, found.lost, found.critical.sum()) == (2, 1, 0, 1)
    assert found.shrunk == 0.0


def test_finite_gradients_whose_sum_is_not_are_stepped_with():
    model = nn.Linear(2, 1, bias=False)
    scale = LossScale(1.0, dynamic=True)
    x, y = np.full((1, 2), 2e38, np.float32), np.zeros((1, 1), np.float32)
    history = fit(model, (x, y), epochs=1, lr=1e-30, recipe=Recipe.of({}, scale), loss=lambda out, target: out.sum())
    assert history.epochs[0].skipped == 0 and history.steps == 1


def test_gradients_of_parameters_are_rounded_under_the_loss_scale():
    """The least value of fp8_e5m2 is 2**-16; the gradients are 2**-20 and 3 2**-20."""
    x, y = np.array([[1.0, 3.0]]) * 2.0**-20, np.zeros((1, 1))

    def moved(scale):
        model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
        start = model.weight.detach().clone()
        recipe = Recipe.of({"weight_gradient": "fp8_e5m2"}, scale)
        history = fit(model, (x, y), epochs=1, lr=1.0, recipe=recipe, loss=lambda out, target: out.sum())
        return (start - model.weight.detach()).numpy() * 2.0**20, history.epochs[0]

    assert not moved(1.0)[0].any()
    assert moved(1024.0)[0] == pytest.approx(np.array([[1.0, 3.0]]), abs=1e-9)
    # A dynamic scale sees what the format makes of too large a gradient.
    with pytest.warns(DivergedTraining):
        updates, epoch = moved(LossScale(2.0**36, dynamic=True))
    assert not updates.any() and epoch.skipped == 1 and epoch.loss_scale == 2.0**35


def test_truncation_is_a_weight_decay():
    """The law w <- w - C1 2**-m w for each batch whose gradient is not 0, and no decay where it is; 3 %."""
    bits, epochs, batch = 8, 30, 16
    x, y = (torch.as_tensor(part) for part in blobs(512))
    truncated, decayed = net(3), net(3)
    unseen = truncated[0].weight[:, -1].detach().clone()
    fit(truncated, (x, y), storage=f"e8m{bits}", rounding="rz", epochs=epochs, batch_size=batch, seed=1)
    optimizer = torch.optim.SGD(decayed.parameters(), lr=0.1)
    order = torch.Generator().manual_seed(1)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=order).split(batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(decayed(x[rows]), y[rows]).backward()
            optimizer.step()
            with torch.no_grad():
                for p in decayed.parameters():
                    p.mul_(1.0 - C1 * 2.0**-bits * (p.grad != 0))
    sizes = [state(m).abs().mean() for m in (truncated, decayed)]
    assert abs(float(sizes[0] / sizes[1]) - 1.0) < 0.03
    carrier = net(3)
    fit(carrier, (x, y), epochs=epochs, batch_size=batch, seed=1)
    assert float(sizes[0] / state(carrier).abs().mean()) < 0.9  # the decay is there to be seen
    kept = formats.get(f"e8m{bits}").quantize(unseen.numpy(), rounding="rz")
    assert np.array_equal(truncated[0].weight[:, -1].detach().numpy(), kept)


def test_lost_updates_are_predicted_from_a_run_in_the_carrier():
    runs = {"batch_size": 16, "epochs": 8, "seed": 2}
    plain = fit(net(4), blobs(512), **runs)
    prediction = predict(plain.epochs[-1].updates.values(), plain.steps, 0.1)
    for bits in (8, 6, 4):
        history = fit(net(4), blobs(512), storage=f"e8m{bits}", rounding="rne", **runs)
        updates = history.epochs[-1].updates.values()
        share = sum(u.lost for u in updates) / sum(u.wanted for u in updates)
        assert abs(prediction.lost_share(bits) - share) < 0.05
    assert prediction.lost_share(20) < 0.05 and prediction.lost_share(0) > 0.9
    assert prediction.quantile(0.1) < prediction.quantile(0.5) < prediction.quantile(0.9)


def test_updates_are_counted_by_what_became_of_them():
    before = torch.tensor([1.0, 1.0, -2.0, 4.0, 0.0])
    wanted = torch.tensor([1.25, 0.75, -2.5, 4.0, 1.0])
    after = torch.tensor([1.0, 0.75, -2.0, 4.0, 1.0])
    updates = Updates()
    updates.see("w", before, wanted, after)
    found = updates.close()["w"]
    assert (found.wanted, found.lost, found.lost_away, found.lost_towards) == (4, 2, 2, 0)
    assert found.shrunk == pytest.approx(0.25 + 0.0 + 0.25) and found.entries == 3
    # m* = floor(log2|w|) - log2|d| - 1 is 1, 1 and 1 + 1 - 1.
    assert found.critical.sum() == 3 and predict([found], 1, 0.1).lost_share(0) == 1.0
    assert predict([found], 1, 0.1).lost_share(1) == 0.0
    assert updates.close() == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_critical_widths_are_counted_exactly(dtype):
    """Against the definition in rational numbers, in which a quarter of a bit is a fourth root."""
    random = np.random.default_rng(3)
    sizes = 2.0 ** random.uniform(-40, 8, 300)
    before = torch.from_numpy(np.where(random.random(300) < 0.1, 0.0, sizes)).to(dtype)
    wanted = (before.double() + torch.from_numpy(sizes * 2.0 ** random.uniform(-8, 4, 300))).to(dtype)
    if dtype == torch.float32:  # subnormal values, of which bits alone do not tell the exponent
        before[:3], wanted[:3] = torch.tensor([3e-42, 1e-44, 1e-38]), torch.tensor([5e-42, 1.4e-44, 1.0001e-38])
    updates = Updates()
    updates.see("w", before, wanted, wanted)
    found = updates.close()["w"]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    expected = np.zeros(len(found.critical), int)
    for w, v in zip(before.to(wide), wanted.to(wide), strict=True):
        d = abs(Fraction(float(v - w)))
        if not d or not w:
            continue
        exponent = math.frexp(float(w))[1] - 1
        # ceil(4 m*) is the least a with m* <= a / 4, which is 2**(4 (exponent - 1) - a) <= d**4.
        least = next(a for a in range(-400, 1000) if Fraction(2) ** (4 * (exponent - 1) - a) <= d**4)
        expected[min(max(least - PER_BIT * LOW, 1), len(expected)) - 1] += 1
    assert (
        np.array_equal(found.critical, expected)
        and found.critical.sum() == found.entries > 200
        and np.count_nonzero(expected) > 40
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"storage": "e8m"}, "storage: "),
        ({"storage": "e8m6", "rounding": "up"}, "storage: "),
        ({"rounding": "rz"}, "rounding without storage"),
        ({"optimizer": "adan"}, "optimizer: got 'adan'"),
        ({"lr": -1.0}, "lr: got -1.0"),
        ({"momentun": 0.9}, "its own options"),
        ({"lr": "a"}, "lr: got 'a'"),
        ({"lr": math.nan}, "lr: got nan"),
        ({"momentum": math.nan}, "momentum: got nan; expected a finite number"),
        ({"weight_decay": math.inf}, "weight_decay: got inf; expected a finite number"),
        ({"momentum": -1.0}, "sgd: Invalid momentum value"),
        ({"optimizer": torch.optim.SGD, "lr": 0.5}, "got lr beside what makes an optimizer"),
        ({"optimizer": torch.optim.SGD, "momentum": 0.9}, "got momentum beside what makes an optimizer"),
        ({"test": ("ab", "cd")}, "test: .*; expected two arrays of numbers"),
        ({"test": (1.0, 2)}, "test: got a single number"),
        ({"storage": "e8m6", "recipe": Recipe()}, "got a recipe with storage"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_changes(arguments, message):
    model = net()
    start = state(model).clone()
    with pytest.raises(InputError, match=message):
        fit(model, blobs(), **arguments)
    assert torch.equal(state(model), start)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_only_the_carriers_are_trained(dtype):
    model = net(dtype=dtype)
    start = state(model).clone()
    with pytest.raises(InputError, match=rf"0\.weight is {str(dtype)[6:]}; expected float32 or float64"):
        fit(model, blobs(), storage="e8m3")
    assert torch.equal(state(model), start)


@pytest.mark.parametrize(("changed", "found"), [(4, "from 0 to 4"), (-1, "from -1 to 3")])
def test_classes_without_an_output_are_named(changed, found):
    x, y = blobs()
    y[-1] = changed
    model = net()
    start = state(model).clone()
    with pytest.raises(InputError, match=f"data: got classes {found}; expected them from 0 to 3"):
        fit(model, (x, y), epochs=1)
    assert torch.equal(state(model), start) and not model._forward_hooks


def test_recipes_are_strict():
    for start in (0, "a", True, (1 << 60) + 1, 1 << 2000, math.nan):
        with pytest.raises(InputError, match=r"recipe: loss_scale: got .*; expected a power of two"):
            Recipe.of({}, start)
    with pytest.raises(InputError, match="every: got 0; expected a whole number from 1"):
        LossScale(every=0)
    with pytest.raises(InputError, match=r"weight_store: got 'e8m6'; expected a format in use; call Recipe\.of"):
        Recipe({"weight_store": "e8m6"})
    with pytest.raises(InputError, match="loss_scale: got 2; expected a LossScale"):
        Recipe({}, 2)
    with pytest.raises(InputError, match="mac: forward: "):
        Recipe(macs={"forward": "fma"})
    with pytest.raises(InputError, match="weights: unknown quantisation point"):
        Recipe.of({"weights": "fp16"})
    with pytest.raises(InputError, match=r"loss_scale: got 3\.0; expected a power of two"):
        Recipe.of({}, 3.0)
    with pytest.raises(InputError, match="mac: backward: unknown product"):
        Recipe.of({}, macs={"backward": "fma(fp16)"})
    recipe = Recipe.of({"activation": "fp16", "gradient": "bf16"}, macs={"forward": "fma(fp16)"})
    assert recipe.parts == ("activation", "gradient", "forward")
    assert recipe.without("forward").parts == ("activation", "gradient") and recipe.only("gradient").parts == (
        "gradient",
    )
