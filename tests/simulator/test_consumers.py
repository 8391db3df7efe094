"""The recording pass: the consumer of each Op, batch normalisation folded, and nothing of the model disturbed."""

import contextlib

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import simulator  # noqa: E402
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


class Attention(nn.Module):
    """Two heads of width 4 over 5 tokens, written in several ways."""

    def __init__(self, way):
        super().__init__()
        self.way, self.qkv = way, nn.Linear(8, 24)
        self.register_buffer("bias", torch.arange(10.0).reshape(2, 1, 5))

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        if self.way in ("sdpa", "causal"):
            return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.way == "causal")
        z = q @ k.transpose(-1, -2)
        if self.way == "columns":
            return (z / 2).softmax(-2) @ v
        if self.way == "twice":
            return (z / 2).softmax(-1) @ v + z.sum()
        z = (z + self.bias) * 0.5 if self.way == "bias" else z / 2
        if self.way == "masked":
            z = z.masked_fill(torch.ones(5, 5, dtype=torch.bool).triu(1), float("-inf"))
        return z.softmax(-1) @ v


UPPER = np.where(np.triu(np.ones((5, 5)), 1) > 0, -np.inf, 0.0)


@pytest.mark.parametrize(
    ("way", "factor", "addend"),
    [
        ("sdpa", 1.0, None),
        ("causal", 1.0, UPPER[None]),
        ("plain", 0.5, None),
        ("masked", 0.5, UPPER[None]),
        ("bias", 0.5, np.arange(10.0).reshape(2, 1, 5) / 2),
        ("columns", None, None),
        ("twice", None, None),
    ],
)
def test_logits_are_followed_to_their_softmax(way, factor, addend):
    model = Attention(way).eval()
    found = consumers(model, torch.randn(1, 5, 8))
    (logits,) = [one.logits for name, one in found.items() if not name.endswith("qkv")][:1]
    if factor is None:
        assert logits is None
        return
    assert logits.factor == factor
    if addend is None:
        assert logits.addend is None
    else:
        assert np.array_equal(logits.addend, addend)
        assert np.array_equal(logits.part(3, slice(0, 5))[1], addend[3 % len(addend)])


def test_masked_keys_are_never_computed_again_by_lamp():
    model = Attention("causal").eval().requires_grad_(False)
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
