"""The recording pass: the consumer of each Op, batch normalisation folded, and nothing of the model disturbed."""

import contextlib
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import simulator  # noqa: E402
from simulator.arithmetic.ladder import ladder  # noqa: E402
from simulator.network import execution  # noqa: E402
from simulator.network.consumers import record_first_sample  # noqa: E402

CONTEXTS = {"grad": contextlib.nullcontext, "no_grad": torch.no_grad, "inference": torch.inference_mode}

in_each_grad_mode = pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def consumers(model, *args, context=contextlib.nullcontext, **kwargs):
    with context():
        return record_first_sample(model, model, args, kwargs)


class After(nn.Module):
    """A linear layer or another first module, then a function of its output."""

    def __init__(self, function, first=None):
        super().__init__()
        self.first = first or nn.Linear(4, 6)
        self.function = function

    def forward(self, x):
        return self.function(self.first(x))


CONSUMED = {
    "relu": (torch.relu, "relu", ""),
    "nn.ReLU": (nn.ReLU(), "relu", ""),
    "relu in place": (torch.relu_, "relu", ""),
    "nn.ReLU in place, then more": (lambda y: nn.ReLU(inplace=True)(y).sigmoid() + y, "relu", ""),
    "tanh": (torch.tanh, "tanh", ""),
    "tanh in place": (torch.tanh_, "tanh", ""),
    "output": (lambda y: y, "identity", ""),
    "view": (lambda y: y.view(-1, 3, 2).relu(), "relu", ""),
    "flatten": (lambda y: y.unflatten(1, (3, 2)).flatten(1).relu(), "relu", ""),
    "reshape that copies": (lambda y: y.t().reshape(3, -1).relu(), "relu", ""),
    "permute, squeeze, expand": (lambda y: y.unsqueeze(0).permute(2, 0, 1).expand(6, 3, -1).relu(), "relu", ""),
    "contiguous and clone": (lambda y: y.t().contiguous().clone().relu(), "relu", ""),
    "another type": (lambda y: y.double().relu(), "relu", ""),
    "dropout in eval mode": (lambda y: functional.dropout(y, 0.5, training=False).relu(), "relu", ""),
    "a view in place": (lambda y: (y.view(-1, 3, 2).relu_(), y.exp())[1], "relu", ""),
    "unused": (lambda y: torch.zeros(1), "identity", ""),
    "sigmoid": (torch.sigmoid, "sigmoid", ""),
    "silu in place": (nn.SiLU(inplace=True), "silu", ""),
    "gelu": (nn.GELU(), "gelu", ""),
    "gelu with tanh": (nn.GELU("tanh"), "gelu_tanh", ""),
    "leaky relu": (nn.LeakyReLU(0.2), "leaky_relu", ""),
    "leaky relu of no slope": (nn.LeakyReLU(0.0), "relu", ""),
    "elu": (nn.ELU(2.0), "elu", ""),
    "selu": (nn.SELU(), "elu", ""),
    "celu": (nn.CELU(2.0), "identity", "consumed by celu, for which there is no rule"),
    "softplus": (nn.Softplus(), "softplus", ""),
    "softplus with a factor": (nn.Softplus(2.0), "identity", "consumed by softplus, for which there is no rule"),
    "exp": (torch.exp, "exp", ""),
    "no rule": (torch.cos, "identity", "consumed by cos, for which there is no rule"),
    "pooling before relu": (
        lambda y: functional.max_pool1d(y, 2).relu(), "identity", "consumed by max_pool2d_with_indices, for which"
    ),
    "two consumers": (lambda y: y.relu() + y.tanh(), "identity", "2 consumers (relu, tanh)"),
    "consumer and output": (lambda y: (y.relu(), y), "identity", "2 consumers (relu, output)"),
    "two outputs": (lambda y: {"a": y, "b": [y.view(-1)]}, "identity", "2 consumers (output, 2 times)"),
    "a part": (lambda y: y[:, :3].relu(), "identity", "consumed by relu (of a part), for which there is no rule"),
    "two parts": (lambda y: y[:, :3].relu() + y[:, 3:].tanh(), "identity", "2 consumers (relu (of a part), tanh (of"),
    "a part in place": (lambda y: (y[:, :3].relu_(), y.exp())[1], "identity", "2 consumers (relu_ (of a part), exp)"),
    "residual": (lambda y: torch.relu(y + 1), "identity", "consumed by add, for which there is no rule"),
    "another product": (lambda y: y @ torch.ones(6, 2), "identity", "consumed by mm, for which there is no rule"),
    "keyword": (lambda y: torch.where(condition=y > 0, input=y, other=y), "identity", "2 consumers (gt, where)"),
    "written into another": (lambda y: torch.zeros(y.shape).copy_(y).relu(), "identity", "consumed by copy_"),
    "overwritten by an out argument": (
        lambda y: (y.relu(), torch.add(torch.ones(1, 6), 1.0, out=y.detach()), y.exp())[2], "identity", "2 consumers"
    ),
}  # fmt: skip


@in_each_grad_mode
@pytest.mark.parametrize("function, activation, note", CONSUMED.values(), ids=CONSUMED)
def test_the_only_consumer_counts(function, activation, note, context):
    found = consumers(After(function), rand(1, 4), context=context)["first"]
    assert found.activation == activation
    assert (note in found.note and found.note.endswith("; scored as identity")) if note else not found.note
    assert found.affine is None
    assert found.outputs == 6


def test_in_place_activations_of_a_stack_do_not_make_two_consumers():
    layers = []
    for _ in range(3):
        layers += [nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(inplace=True)]
    found = consumers(nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 3)), rand(1, 2, 4, 4))
    assert [c.activation for c in found.values()] == ["relu", "relu", "relu", "identity"]
    assert [c.note for c in found.values()] == [""] * 4


def test_each_call_of_a_module_has_its_own_consumer():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(self.layer(x).relu()).tanh() @ torch.ones(4, 2)

    found = consumers(Twice(), rand(1, 4))
    assert {name: c.activation for name, c in found.items()} == {
        "layer": "relu", "layer#2": "tanh", "Twice": "identity",
    }  # fmt: skip


# --- batch normalisation ----------------------------------------------------------------------------------------------


def normalisation(kind, channels, **options):
    """A batch normalisation with statistics and weights that are not the initial ones."""
    norm = kind(channels, **options).eval()
    with torch.no_grad():
        for i, tensor in enumerate([*norm.parameters(), *(b for b in norm.buffers() if b.dim())]):
            tensor.copy_(rand(channels, seed=i).abs() + 0.1)
    return norm


@in_each_grad_mode
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"eps": 0.1}])
@pytest.mark.parametrize("first", [nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 3, groups=2)])
def test_batch_normalisation_in_eval_mode_is_folded(first, options, context):
    norm = normalisation(nn.BatchNorm2d, 6, **options)
    found = consumers(After(lambda y: norm(y).relu(), first), rand(1, 4, 5, 5), context=context)["first"]
    assert (found.activation, found.note) == ("relu", "")
    # By hand, as in every description of batch normalisation.
    weight = norm.weight.detach().double() if norm.affine else torch.ones(6).double()
    bias = norm.bias.detach().double() if norm.affine else torch.zeros(6).double()
    scale = weight / (norm.running_var.double() + norm.eps).sqrt()
    np.testing.assert_allclose(found.affine[0], scale, rtol=1e-12)
    np.testing.assert_allclose(found.affine[1], bias - norm.running_mean.double() * scale, rtol=1e-12)
    y = first(rand(2, 4, 5, 5)).double()
    folded = y * torch.from_numpy(found.affine[0]).view(-1, 1, 1) + torch.from_numpy(found.affine[1]).view(-1, 1, 1)
    torch.testing.assert_close(norm(y.float()).double(), folded, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "function, shape, activation, folded",
    [
        (lambda norm, y: norm(y).relu(), (1, 4), "relu", True),
        (lambda norm, y: norm(y), (1, 4), "identity", True),
        (lambda norm, y: norm(y.view(1, 6, 1)).relu(), (1, 4), "relu", True),
        (lambda norm, y: norm(y.transpose(1, 2)).relu(), (1, 5, 4), "relu", True),
        (lambda norm, y: norm(y.transpose(1, 2)).relu(), (1, 6, 4), "identity", False),  # which axis is which?
        (lambda norm, y: norm(y.repeat(2, 1)).relu(), (1, 4), "identity", False),
        (lambda norm, y: norm(y).relu() + norm(y), (1, 4), "identity", False),
        (lambda norm, y: norm(norm(y)).relu(), (1, 4), "identity", True),
    ],
)
def test_what_of_a_batch_normalisation_after_a_linear_layer_is_folded(function, shape, activation, folded):
    norm = normalisation(nn.BatchNorm1d, 6)
    found = consumers(After(lambda y: function(norm, y)), rand(*shape))["first"]
    assert found.activation == activation
    assert (found.affine is not None) == folded


def test_both_branches_behind_a_batch_normalisation_are_scored_behind_it():
    norm = normalisation(nn.BatchNorm1d, 6)

    def branches(y):
        y = norm(y)
        return y.relu() + y.tanh()

    found = consumers(After(branches), rand(1, 4))["first"]
    assert found.affine is not None
    assert found.note == "2 consumers (relu, tanh); scored as identity"


def test_a_branch_before_a_batch_normalisation_is_not_scored_behind_it():
    norm = normalisation(nn.BatchNorm1d, 6)
    found = consumers(After(lambda y: norm(y).relu() + y), rand(1, 4))["first"]
    assert found.affine is None
    assert found.note == "2 consumers (native_batch_norm, add); scored as identity"


@pytest.mark.parametrize("options", [{}, {"track_running_stats": False}])
def test_batch_normalisation_by_the_batch_is_not_folded(options):
    norm = nn.BatchNorm2d(6, **options).train()
    found = consumers(After(lambda y: norm(y).relu(), nn.Conv2d(4, 6, 3)), rand(4, 4, 5, 5))["first"]
    assert found.affine is None
    assert found.note == "consumed by native_batch_norm, for which there is no rule; scored as identity"


# --- the pass disturbs nothing ----------------------------------------------------------------------------------------


@in_each_grad_mode
def test_buffers_and_random_state_are_as_before(context):
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("last", torch.zeros(4))

        def forward(self, x):
            self.calls += 1
            self.last = x[0]
            return self.net(x)

    model = Counts().train()
    before = {name: (buffer, buffer.clone(), buffer._version) for name, buffer in model.named_buffers()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    consumers(model, rand(4, 4), context=context)
    assert torch.equal(torch.get_rng_state(), state)
    for name, buffer in model.named_buffers():
        same, value, version = before[name]
        assert buffer is same and torch.equal(buffer, value) and buffer._version == version


def test_a_model_that_raises_keeps_its_buffers():
    class Raises(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            raise KeyError("never")

    model = Raises()
    calls = model.calls
    with pytest.raises(KeyError, match="never"):
        consumers(model, rand(2, 4))
    assert model.calls is calls and calls.item() == 0
    assert not model._forward_hooks and not model._forward_pre_hooks


def test_the_first_sample_is_enough():
    shapes = []
    model = After(lambda y: shapes.append(tuple(y.shape)) or y.relu())
    consumers(model, rand(5, 4))
    assert shapes == [(1, 6)]


@pytest.mark.parametrize(
    "function",
    [
        lambda y: y.view(5, 2, 3).relu(),  # a fixed batch: torch raises RuntimeError for one sample
        lambda y: nn.BatchNorm1d(6).train()(y).relu(),  # ValueError for one sample
        lambda y: y[4].relu(),  # IndexError
    ],
)
def test_a_model_that_does_not_take_one_sample_gets_them_all(function):
    assert consumers(After(function), rand(5, 4))["first"].outputs == 30


def test_arguments_that_do_not_agree_on_the_number_of_samples_are_given_whole():
    shapes = []

    class Two(nn.Module):
        def forward(self, x, *, weight):
            shapes.append((tuple(x.shape), tuple(weight.shape)))
            return x @ weight

    assert consumers(Two(), rand(5, 4), weight=rand(4, 6))["Two"].outputs == 30
    assert shapes == [((5, 4), (4, 6))]


def test_parametrised_weights_that_are_cached_keep_their_gradients():
    from torch.nn.utils import parametrizations, parametrize

    import simulator

    layer = parametrizations.weight_norm(nn.Linear(4, 3))
    with simulator.emulate(layer, "npu"), parametrize.cached():
        layer(rand(2, 4)).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


UPPER = torch.ones(5, 5, dtype=torch.bool).triu(1)
ADDED = torch.zeros(5, 5).masked_fill(UPPER, -torch.inf)
BIAS = torch.arange(10.0).reshape(2, 1, 5)
# What logits meet on their way to a softmax, as attention is written -> factor, addend; None where it is none of rows.
WAYS = {
    "scaled": (lambda z: (z / 2).softmax(-1), 0.5, 0),
    "scaled from the left, by a tensor": (lambda z: (torch.tensor(0.25) * z).softmax(-1), 0.25, 0),
    "scaled in place": (lambda z: z.div_(2).softmax(-1), 0.5, 0),
    "another type": (lambda z: z.double().softmax(-1), 1.0, 0),
    "masked_fill": (lambda z: (z / 2).masked_fill(UPPER, -torch.inf).softmax(-1), 0.5, ADDED),
    "masked_fill by the least number": (lambda z: z.masked_fill(UPPER, -3.4e38).softmax(-1), 1.0, ADDED),
    "masked_fill in place": (lambda z: z.mul_(2).masked_fill_(UPPER, -torch.inf).softmax(-1), 2.0, ADDED),
    "where": (lambda z: torch.where(~UPPER, z, torch.tensor(-torch.inf)).softmax(-1), 1.0, ADDED),
    "added": (lambda z: (z + ADDED).softmax(-1), 1.0, ADDED),
    "added to": (lambda z: (ADDED + z / 2).softmax(-1), 0.5, ADDED),
    "added in place": (lambda z: (z / 2).add_(ADDED).softmax(-1), 0.5, ADDED),
    "bias, then scaled, then masked": (lambda z: ((z + BIAS) * 0.5 + ADDED).softmax(-1), 0.5, BIAS / 2 + ADDED),
    "masked by product": (lambda z: (z.flatten(0, 1) + BIAS).unflatten(0, (1, 2)).softmax(-1), 1.0, BIAS),
    "turned about an axis of one": (lambda z: (z.transpose(0, 1) / 2).transpose(0, 1).softmax(-1), 0.5, 0),
    "another axis": (lambda z: (z / 2).softmax(-2), None, None),
    "turned": (lambda z: z.transpose(-1, -2).softmax(-1), None, None),
    "heads turned": (lambda z: z.transpose(1, 2).softmax(-1).transpose(1, 2), None, None),
    "read twice": (lambda z: (z / 2).softmax(-1) + z, None, None),
    "masked lightly": (lambda z: z.masked_fill(UPPER, -5.0).softmax(-1), None, None),
    "added in part": (lambda z: torch.add(z, ADDED, alpha=2).softmax(-1), None, None),
    "scaled and rounded": (lambda z: torch.div(z, 2.0, rounding_mode="floor").softmax(-1), None, None),
    "made larger by what is added": (lambda z: (z + torch.zeros(3, 1, 5, 5)).softmax(-1), None, None),
    "divides": (lambda z: (2.0 / z).softmax(-1), None, None),
}


class Attention(nn.Module):
    """Two heads of width 4; the logits become weights by a function of them."""

    def __init__(self, weigh=None):
        super().__init__()
        self.weigh, self.qkv = weigh, nn.Linear(8, 24)

    def forward(self, x, keep=None):
        q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        if self.weigh is None:
            causal = keep is None
            return nn.functional.scaled_dot_product_attention(q, k, v, keep, is_causal=causal)
        return self.weigh(q @ k.transpose(-1, -2)).to(v.dtype) @ v


def rows_of(logits, products, rows):
    """Return the addends of all rows, (products, rows, columns)."""
    parts = [logits.part(p * rows, (p + 1) * rows)[1] for p in range(products)]
    return np.stack([np.broadcast_to(part, (rows, 5)) for part in parts])


@pytest.mark.parametrize("way", WAYS)
def test_logits_are_followed_to_their_softmax(way):
    weigh, factor, addend = WAYS[way]
    found = consumers(Attention(weigh).eval(), rand(1, 5, 8), context=torch.no_grad)
    logits = found["Attention"].logits
    if factor is None:
        assert logits is None
        return
    assert logits.factor == factor
    assert np.array_equal(rows_of(logits, 2, 5), np.broadcast_to(addend, (2, 5, 5)))


def test_logits_are_followed_through_scaled_dot_product_attention():
    model, x = Attention().eval(), rand(1, 5, 8)
    for keep, addend in ((None, ADDED), (~UPPER, ADDED), (BIAS[None], BIAS)):
        logits = consumers(model, x, keep=keep, context=torch.no_grad)["Attention"].logits
        assert logits.factor == 1  # it scales queries and keys
        assert np.array_equal(rows_of(logits, 2, 5), np.broadcast_to(addend, (2, 5, 5)))


def test_rows_of_a_layer_and_channels_of_a_convolution():
    """A layer counts its rows through; what lies beside each other in an image is no row."""
    table = rand(3, 5, seed=1)
    layer = After(lambda y: (y + table).softmax(-1), nn.Linear(4, 5)).eval()
    logits = consumers(layer, rand(1, 3, 4), context=torch.no_grad)["first"].logits
    assert np.array_equal(logits.part(1, 3)[1], table[1:])
    image = After(lambda y: y.softmax(-1), nn.Conv2d(1, 3, 1)).eval()
    assert consumers(image, rand(1, 1, 4, 3), context=torch.no_grad)["first"].logits is None


@pytest.fixture
def flags_and_logits(monkeypatch):
    """What runs a model with some products in two passes by lamp and the others in the low MAC, and returns, of shape
    (products, rows, columns) each, which are computed again, and what they are in the low MAC."""

    def run(model, layers, tolerance, *args, **kwargs):
        found = []
        for own in (tolerance, math.inf):
            seen = []

            def spy(*given, seen=seen, **more):
                seen.append(ladder(*given, **more))
                return seen[-1]

            monkeypatch.setattr(execution, "ladder", spy)
            rule = {"mac": "two_pass", "policy": {"score": "lamp", "tolerance": own}}
            rules = {path: "low" if mode == "low" else rule for path, mode in layers.items()}
            with torch.no_grad(), simulator.emulate(model, "npu", {**rules, "*": "low"}):
                model(*args, **kwargs)
            found.append(seen)
        flags, low = [one.computed[0] for one in found[0]], [one.output for one in found[1]]
        assert not any(one.computed[0].any() for one in found[1])
        return np.stack(flags), np.stack(low).astype(np.float64)

    return run


def chosen(z, allowed, tolerance):
    """The rule written out, of one row: the largest first, until the bound is met; None of what is kept out."""
    y = np.where(allowed, np.exp(z - z[allowed].max()), 0)
    y /= y.sum()
    found = np.zeros(len(z), bool)
    order = sorted(np.flatnonzero(allowed), key=lambda j: -y[j])
    for rank, j in enumerate(order):
        found[j] = y[order[:rank]].sum() + 2 * y[allowed].min() < 2 - tolerance
    return found


def test_lamp_sees_the_masks_of_every_sample_and_of_every_length(flags_and_logits):
    """Keys that are left out differ from sample to sample, and samples are of two lengths."""
    model = Attention().eval().requires_grad_(False)
    with torch.no_grad():
        model.qkv.weight *= 3
    last, layers = torch.tensor([5, 3, 4, 2]), {"Attention#2": "low", "Attention": "lamp"}
    for length in (5, 4):
        keep = torch.arange(length) < last[:, None, None, None]
        flags, low = flags_and_logits(model, layers, 1.4, rand(4, length, 8, seed=3), keep=keep)
        assert flags.shape == low.shape == (8, length, length)
        allowed = np.broadcast_to(keep.numpy(), (4, 2, length, length)).reshape(8, length, length)
        for of_product, z, some in zip(flags, low, allowed, strict=True):
            for row in range(length):
                assert np.array_equal(of_product[row], chosen(z[row], some[row], 1.4))
        assert 0 < flags.sum() < allowed.sum()


def test_one_emulation_takes_sequences_of_several_lengths():
    model = Attention().eval().requires_grad_(False)
    for score in ("kappa_prime", "lamp"):
        rule = {"Attention": {"policy": {"score": score, "tolerance": 1.4}}}
        with torch.no_grad(), simulator.emulate(model, "npu", rule) as run:
            for length in (5, 3, 7):
                model(rand(2, length, 8))
        assert run.result.layers


def test_a_mask_within_the_product_is_one(flags_and_logits):
    """MultiheadAttention that returns weights adds its mask in the product, where the low format cuts it at its end."""
    model, x = nn.MultiheadAttention(8, 2, batch_first=True).eval().requires_grad_(False), rand(6, 5, 8, seed=4)
    flags, low = flags_and_logits(model, {"MultiheadAttention#2": "lamp"}, 1.4, x, x, x, attn_mask=UPPER)
    assert flags.shape == (12, 5, 5) and np.isfinite(low).all() and flags.any()
    for of_product, z in zip(flags, low, strict=True):
        for row in range(5):
            assert np.array_equal(of_product[row], chosen(z[row], ~UPPER[row].numpy(), 1.4))


def test_an_input_that_is_given_twice_is_recorded_as_one():
    model, x = nn.MultiheadAttention(8, 2, batch_first=True).eval(), rand(3, 5, 8)
    found = consumers(model, x, x, x, context=torch.no_grad)
    assert len(found) == 4 and found["MultiheadAttention#2"].logits is not None


def test_the_recording_pass_leaves_its_arguments_as_they_were():
    model, x = After(torch.relu), rand(3, 4)
    model.register_forward_pre_hook(lambda module, args: args[0].mul_(2))
    with torch.no_grad():
        consumers(model, x)
    assert torch.equal(x, rand(3, 4))


def test_masked_keys_are_never_computed_again_by_lamp():
    model = Attention().eval().requires_grad_(False)
    rule = {"Attention": {"policy": {"score": "lamp", "tolerance": 1.0}}}
    x = torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(2))
    flags = {}

    def note(op, out, tally):
        flags[op.name] = tally

    run = simulator.emulate(model, "npu", rule)
    run.observers = (note,)
    with torch.no_grad(), run:
        model(x)
    first = next(layer for layer in run.result.layers if layer.gemms == 12 and layer.n == 5)
    counts = flags[first.name].flags()
    assert 0 < first.recomputed_outputs == counts.count() < 12 * 15
    assert any("scored by kappa_prime" in text for text in run.result.warnings)
