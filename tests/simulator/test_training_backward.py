"""Training on MAC units: outputs, gradients of inputs and of all parameters equal the definition, bit for bit."""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from simulator.training import Recipe, UnemulatedProduct, fit  # noqa: E402
from simulator.training.recipe import PRODUCTS  # noqa: E402
from tests.oracles import training as definition  # noqa: E402

# A unit of its own for each product, so that no two can change places unnoticed.
FLOATS = (
    "fp8_e4m3*bf16 -> fma(fp16)",
    "fp8_e5m2*fp8_e4m3 -> seq(bf16)",
    "fp8_e5m2*fp8_e4m3 -> chunk(3, seq(fp16), seq(fp32))",
)
BLOCKS = ("mxfp8_e4m3 -> fma(fp16)", "mxfp8_e5m2*mxfp8_e4m3 -> seq(fp32)", "mxfp4 -> exact(fp32)")
STOCHASTIC = ("fp8_e4m3 -> seq(fp16/sr)", "fp8_e5m2*fp8_e4m3 -> fma(bf16/sr)", "seq(fp16/sr)")
SEED = 5
ARITHMETICS = {"floats": FLOATS, "blocks": BLOCKS}


class Recorder(torch.optim.SGD):
    """Keeps the gradients that each step has been given."""

    def __init__(self, parameters, seen):
        super().__init__(parameters, lr=0.0625)
        self.seen = seen

    def step(self, closure=None):
        self.seen += [p.grad.clone() for group in self.param_groups for p in group["params"]]
        return super().step(closure)


class Probe(nn.Module):
    """A model whose outputs, and gradients of its input, are kept; each pass of it is a step of the units."""

    def __init__(self, model, seen, units=None):
        super().__init__()
        self.model, self.seen, self.units, self.step = model, seen, units, 0

    def forward(self, x):
        self.step += 1
        if self.units is not None:
            self.units.begin(SEED, self.step)
        if x.is_floating_point():
            x = x.detach().requires_grad_()
            x.register_hook(lambda gradient: self.seen.append(gradient.clone()))
        y = self.model(x)
        y = y[0] if isinstance(y, tuple) else y
        self.seen.append(y.detach().clone())
        return y.flatten(1)


def trained(make, x, recipe, units=None, epochs=2):
    """What a model that `make` makes has seen in training: outputs, gradients of inputs and of parameters, in order.

    Args:
        units: those of the definition that computes it; None: the engine does.
    """
    torch.manual_seed(1)
    model = make()
    seen = []
    y = torch.linspace(-1, 1, len(x))[:, None]
    torch.manual_seed(2)  # of dropout
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnemulatedProduct)
        fit(
            Probe(model, seen, units), (x, y), recipe=recipe, epochs=epochs, batch_size=len(x), seed=SEED,
            optimizer=lambda parameters: Recorder(parameters, seen),
            loss=lambda out, y: (out * y + out.square()).mean(),
        )  # fmt: skip
    return [*seen, *(p.detach().clone() for p in model.parameters()), *(b.clone() for b in model.buffers())]


def patched(monkeypatch, units):
    """Have torch's layers compute their products by definition."""
    for name, function in {
        "linear": definition.linear(units), "scaled_dot_product_attention": definition.attention(units),
        "conv1d": definition.convolution(units), "conv2d": definition.convolution(units),
        "conv3d": definition.convolution(units), "conv_transpose2d": definition.convolution(units, transposed=True),
    }.items():  # fmt: skip
        monkeypatch.setattr(functional, name, function)
    monkeypatch.setattr(torch, "matmul", definition.matmul(units))
    monkeypatch.setattr(torch, "bmm", definition.matmul(units))
    monkeypatch.setattr(torch, "einsum", lambda form, a, b: definition.matmul(units)(a, b.transpose(1, 2)))
    monkeypatch.setattr(torch._VF, "lstm", lstm)
    monkeypatch.setattr(torch._VF, "gru", gru)


def lstm(x, states, weights, has_biases, layers, dropout, train, bidirectional, batch_first):
    """One layer in one direction, its gates as products."""
    w, v, b, c = weights
    h, state = (s[0] for s in states)
    inputs = functional.linear(x.transpose(0, 1).contiguous() if batch_first else x, w, b)
    outputs = []
    for part in inputs:
        i, f, g, o = (functional.linear(h, v, c) + part).chunk(4, 1)
        state = f.sigmoid() * state + i.sigmoid() * g.tanh()
        h = o.sigmoid() * state.tanh()
        outputs.append(h)
    out = torch.stack(outputs)
    return out.transpose(0, 1) if batch_first else out, h[None], state[None]


def gru(x, states, weights, has_biases, layers, dropout, train, bidirectional, batch_first):
    w, v, b, c = weights
    h = states[0]
    inputs = functional.linear(x.transpose(0, 1).contiguous() if batch_first else x, w, b)
    outputs = []
    for part in inputs:
        r, z, n = part.chunk(3, 1)
        hr, hz, hn = functional.linear(h, v, c).chunk(3, 1)
        n = (hn * (hr + r).sigmoid() + n).tanh()
        h = (h - n) * (hz + z).sigmoid() + n
        outputs.append(h)
    out = torch.stack(outputs)
    return out.transpose(0, 1) if batch_first else out, h[None]


class Stacks(nn.Module):
    """Products of which both operands have gradients."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1, 4))

    def forward(self, x):
        x = x * self.scale
        scores = torch.matmul(x, x.transpose(1, 2) * 0.5)
        return torch.bmm(torch.einsum("bij,bkj->bik", scores, scores * 0.25), x)


class Gates(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.inner = getattr(nn, kind)(4, 3, batch_first=True)

    def forward(self, x):
        return self.inner(x)[0]


class Attention(nn.Module):
    def __init__(self, dropout=0.0, **options):
        super().__init__()
        self.inner, self.options = nn.MultiheadAttention(8, 2, dropout=dropout, batch_first=True), options

    def forward(self, x):
        return self.inner(x, x, x, **self.options)[0]


CAUSAL = torch.full((3, 3), float("-inf")).triu(1)


def mlp():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))


def rand(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


NETWORKS = {
    "linear": (mlp, rand(5, 6)),
    "linear of sequences": (mlp, rand(3, 2, 6)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), rand(2, 4, 9)),
    "conv2d": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 2, stride=2)),
        rand(2, 2, 5, 5),
    ),
    "conv2d, all settings": (
        lambda: nn.Conv2d(4, 6, (2, 3), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2), rand(2, 4, 5, 5),
    ),
    "conv2d, depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, padding=1), rand(2, 4, 4, 5)),
    "conv2d, many samples": (lambda: nn.Conv2d(1, 2, 2), rand(16, 1, 4, 4)),
    "conv3d": (lambda: nn.Conv3d(2, 2, 2, padding=1), rand(1, 2, 2, 3, 2)),
    "conv_transpose2d": (
        lambda: nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1, groups=2), rand(2, 4, 3, 4),
    ),
    "stacks": (Stacks, rand(2, 3, 4)),
    "attention": (lambda: Attention(need_weights=False), rand(2, 3, 8)),
    "attention, masked": (lambda: Attention(need_weights=False, attn_mask=CAUSAL), rand(2, 3, 8)),
    "attention with dropout": (lambda: Attention(0.3, need_weights=False), rand(2, 3, 8)),
    "attention that returns its weights": (Attention, rand(2, 3, 8)),
    "transformer": (lambda: nn.TransformerEncoderLayer(8, 2, 6, dropout=0.0, batch_first=True), rand(2, 3, 8)),
    "transformer with dropout": (
        lambda: nn.TransformerEncoderLayer(8, 2, 6, dropout=0.2, batch_first=True, norm_first=True), rand(2, 3, 8),
    ),
    "batch normalisation": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2)),
        rand(4, 2, 4, 4),
    ),
    "layer and group normalisation": (
        lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 4), nn.GroupNorm(2, 4), nn.Linear(4, 3)), rand(5, 6),
    ),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3)), torch.tensor([[1, 4, 1], [0, 2, 3]]),
    ),
    "lstm": (lambda: Gates("LSTM"), rand(2, 3, 4)),
    "gru": (lambda: Gates("GRU"), rand(2, 3, 4)),
}  # fmt: skip


def assert_trains_by_definition(make, x, units, monkeypatch):
    units = definition.Units(*units)
    found = trained(make, x, Recipe.of({}, macs=units.recipe))
    with monkeypatch.context() as patch:
        patched(patch, units)
        wanted = trained(make, x, Recipe(), units)
    assert len(found) == len(wanted) and any(bool(g.count_nonzero()) for g in wanted)
    for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert torch.equal(a, b), f"tensor {number} of {len(found)}: {a.flatten()[:8]} is not {b.flatten()[:8]}"


@pytest.mark.parametrize("units", ARITHMETICS.values(), ids=ARITHMETICS)
@pytest.mark.parametrize("name", NETWORKS)
def test_two_steps_equal_the_definition(name, units, monkeypatch):
    assert_trains_by_definition(*NETWORKS[name], units, monkeypatch)


@pytest.mark.parametrize("name", ["linear", "conv2d", "conv2d, all settings", "conv2d, many samples"])
def test_two_steps_with_stochastic_accumulators_equal_the_definition(name, monkeypatch):
    """Also the random words: those of the place in the run, in the second step others than in the first."""
    assert_trains_by_definition(*NETWORKS[name], STOCHASTIC, monkeypatch)


@pytest.mark.parametrize(
    "named", [("forward",), ("input_gradient",), ("weight_gradient",), ("forward", "weight_gradient")]
)
def test_a_product_that_is_not_named_is_torchs_own(named, monkeypatch):
    units = definition.Units(*(unit if name in named else None for name, unit in zip(PRODUCTS, FLOATS, strict=True)))
    x = rand(5, 6)
    found = trained(mlp, x, Recipe.of({}, macs={name: getattr(units, name) for name in named}), epochs=1)
    with monkeypatch.context() as patch:
        patched(patch, units)
        wanted = trained(mlp, x, Recipe(), epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(found, trained(mlp, x, Recipe(), epochs=1), strict=True))


def test_operands_beyond_the_largest_value_have_gradients_all_the_same():
    """Quantisation is passed straight through: the gradient is that of the rounded operands, at the given ones."""
    seen, model = [], nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 3.3)
    fit(
        Probe(model, seen), (np.full((1, 1), 1e6, np.float32), np.zeros((1, 1), np.float32)), epochs=1, batch_size=1,
        recipe=Recipe.of({}, macs=dict.fromkeys(PRODUCTS, "fp8_e4m3/sat -> exact(fp32)")),
        optimizer=lambda parameters: Recorder(parameters, seen), loss=lambda out, y: out.sum(),
    )  # fmt: skip
    output, of_input, of_weight = (float(x) for x in seen)
    assert (output, of_input, of_weight) == (448 * 3.25, 3.25, 448.0)


class Distances(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.places = nn.Linear(4, 4), nn.Parameter(torch.eye(5, 4))

    def forward(self, x):
        return torch.cdist(self.inner(x), self.places)


def test_what_no_unit_computes_is_told_once_by_name():
    x = rand(5, 4).numpy()
    recipe = Recipe.of({}, macs={"weight_gradient": "fma(fp16)"})
    with pytest.warns(UnemulatedProduct) as told:
        fit(Distances(), (x, np.zeros((5, 5), np.float32)), recipe=recipe, epochs=2, batch_size=3)
    texts = [str(warning.message) for warning in told]
    assert (
        "_cdist_forward in Distances: not on a MAC unit of the recipe; torch computed it in its own arithmetic" in texts
    )
    assert len(texts) == len(set(texts)) and all("cdist" in text or "euclidean" in text for text in texts)


class Everything(nn.Module):
    """All kinds of layers, so large that threads share their work."""

    def __init__(self):
        super().__init__()
        self.images = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16, padding=1),
            nn.ConvTranspose2d(16, 8, 2, stride=2), nn.GroupNorm(2, 8), nn.MaxPool2d(2), nn.Conv2d(8, 16, 1),
        )  # fmt: skip
        self.sequences = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.gates = nn.LSTM(16, 12, batch_first=True)
        self.last = nn.Linear(12, 10)

    def forward(self, x):
        x = self.images(x).flatten(2).transpose(1, 2)
        return self.last(self.gates(self.sequences(x))[0][:, -1])


@pytest.mark.parametrize(
    "units", [(), FLOATS[:1], FLOATS, BLOCKS, ("fma(fp32)", "h100.fp8.wgmma", "fp8_e4m3 -> fma(fp16)")], ids=str
)
def test_one_and_two_threads_give_the_same_bits(units):
    """Of products and of torch's own operations, some of whose sums would differ."""
    x, y = rand(32, 3, 8, 8), torch.arange(32) % 10
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            torch.manual_seed(3)
            model = Everything()
            fit(
                model,
                (x, y),
                recipe=Recipe.of({}, macs=dict(zip(PRODUCTS, units, strict=False))),
                epochs=1,
                batch_size=16,
            )
            found.append([*model.parameters(), *model.buffers()])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
