"""Emulation: every Op comes out as the MAC unit computes it, bit for bit, whatever the layer and its input."""

import copy
import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import simulator  # noqa: E402
from simulator.arithmetic import convolution, reference  # noqa: E402
from simulator.network.emulation import Emulation  # noqa: E402
from simulator.network.layer_arithmetic import arithmetic  # noqa: E402
from tests.oracles.layers import NPU, product, unfolded  # noqa: E402
from tests.simulator.tap_runs import emulated, in_each_grad_mode, rand, same  # noqa: E402

ARITHMETIC = ["low", "high", "exact", "two_pass", "fp8_e4m3 -> seq(bf16)", "fma(fp16)"]

in_each_arithmetic = pytest.mark.parametrize("name", ARITHMETIC)


# --- linear layers and products ---------------------------------------------------------------------------------------


@in_each_grad_mode
@in_each_arithmetic
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 40), (40,), (2, 3, 40), (2, 2, 3, 40), (1, 40)])
def test_linear(shape, bias, name, context):
    layer, x = nn.Linear(40, 7, bias=bias), rand(*shape)
    with context():
        output, result = emulated(layer, x, name=name)
    w, c = layer.weight.detach().numpy().T, layer.bias.detach().numpy() if bias else None
    values, mask = product(name, x.reshape(-1, 40).numpy(), w, c)
    assert output.dtype == torch.float32 and output.shape == layer(x).shape
    assert same(output, values)
    (record,) = result.layers
    assert (record.gemms, record.m, record.n, record.k) == (1, math.prod(shape[:-1]), 7, 40)
    assert record.flagged_outputs == record.recomputed_outputs == (0 if mask is None else np.count_nonzero(mask))
    assert record.flagged_macs == record.recomputed_macs == 40 * record.flagged_outputs


def test_linear_equals_the_exact_reference():
    layer, x = nn.Linear(70, 3), rand(2, 70)
    for name in ("low", "high", "exact"):
        output, _ = emulated(layer, x, name=name)
        spec = arithmetic(NPU, name).low
        w, c = layer.weight.tolist(), layer.bias.tolist()
        wanted = [[reference.dot(spec, row, w[n], c[n])[0] for n in range(3)] for row in x.tolist()]
        assert output.tolist() == wanted


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.transpose(0, 1),
        lambda x: x[::2],
        lambda x: x[..., ::2],
        lambda x: x.flip(1),
        lambda x: x.expand(2, 4, 6, 40),
    ],
)
def test_linear_of_strided_inputs(change):
    x = change(rand(4, 6, 40))
    layer = nn.Linear(x.shape[-1], 7)
    output, result = emulated(layer, x, name="low")
    values, _ = product(
        "low", x.reshape(-1, x.shape[-1]).numpy(), layer.weight.detach().numpy().T, layer.bias.detach().numpy()
    )
    assert same(output, values)
    assert [record.op for record in result.layers] == ["linear"]


@in_each_arithmetic
def test_products_of_functions(name):
    class Products(nn.Module):
        def forward(self, a, b):
            return a @ b, torch.addmm(torch.ones(4, 1), a, b), torch.bmm(a.view(2, 2, 30), b.view(2, 30, 3))

    a, b = rand(4, 30), rand(30, 6, seed=1)
    (mm, addmm, _), result = emulated(Products(), a, b[:, :6], name=name)
    assert same(mm, product(name, a, b)[0])
    assert same(addmm, product(name, a, b, np.ones((4, 1)))[0])
    assert [(r.name, r.op, r.gemms) for r in result.layers] == [
        ("Products", "mm", 1), ("Products#2", "linear", 1), ("Products#3", "bmm", 2),
    ]  # fmt: skip


FACTORS = {
    "alpha": lambda c, a, b: torch.addmm(c, a, b, alpha=0.7),
    "beta": lambda c, a, b: torch.addmm(c, a, b, beta=-1.3),
    "both": lambda c, a, b: torch.addmm(c, a, b, alpha=0.7, beta=-1.3),
    "beta 0 reads no addend": lambda c, a, b: torch.addmm(c * torch.nan, a, b, alpha=3, beta=0),
    "in place": lambda c, a, b: c.clone().addmm_(a, b, alpha=0.7, beta=-1.3),
    "a stack": lambda c, a, b: torch.baddbmm(c, a.view(2, 2, 30), b.view(2, 30, 3), alpha=0.7, beta=-1.3),
}


@pytest.mark.parametrize("function", FACTORS.values(), ids=FACTORS)
@in_each_arithmetic
def test_products_with_factors(function, name):
    """One pass each, of two passes the high one, whose epilogue has the factors."""

    class Products(nn.Module):
        def forward(self, c, a, b):
            return function(c, a, b)

    a, b = rand(4, 30), rand(30, 6, seed=1)
    stacked = function is FACTORS["a stack"]
    c = rand(2, 2, 3, seed=2) if stacked else rand(4, 6, seed=2)
    with Emulation(Products(), NPU, default=name) as run:
        y = run.model(c, a, b)
    alpha, beta = {"alpha": (0.7, 1), "beta": (1, -1.3), "beta 0 reads no addend": (3, 0)}.get(
        next(key for key, value in FACTORS.items() if value is function), (0.7, -1.3)
    )
    mac = arithmetic(NPU, "high" if name == "two_pass" else name).low
    a, b, c = (x.numpy() for x in (a, b, c))
    if stacked:
        a, b = a.reshape(2, 2, 30), b.reshape(2, 30, 3)
    wanted = simulator.matmul(a, b, mac=mac, c=c if beta else None, alpha=alpha, beta=beta)
    assert same(y, wanted)
    assert not run.result.warnings or "not emulated" not in " ".join(run.result.warnings)


@in_each_arithmetic
def test_products_that_are_written_or_summed(name):
    class Products(nn.Module):
        def forward(self, c, a, b):
            out = torch.empty(0)
            torch.mm(a, b, out=out)
            return out, torch.addbmm(c[:2, :3], a.view(2, 2, 30), b.view(2, 30, 3)), torch.addr(c, a[:, 0], b[0])

    a, b, c = rand(4, 30), rand(30, 6, seed=1), rand(4, 6, seed=2)
    with Emulation(Products(), NPU, default=name) as run, torch.no_grad():
        outputs = run.model(c, a, b)
    summed = a.view(2, 2, 30).transpose(0, 1).reshape(2, 60), b.view(2, 30, 3).reshape(60, 3), c[:2, :3]
    for y, operands in zip(outputs, ((a, b, None), summed, (a[:, :1], b[:1], c)), strict=True):
        assert same(y, product(name, *operands)[0])


@in_each_arithmetic
def test_batched_products(name):
    class Batched(nn.Module):
        def forward(self, a, b):
            return torch.matmul(a, b)

    a, b = rand(2, 3, 5, 20), rand(2, 3, 20, 4, seed=1)
    output, _ = emulated(Batched(), a, b, name=name)
    for i, j in itertools.product(range(2), range(3)):
        assert same(output[i, j], product(name, a[i, j], b[i, j])[0])


# --- convolutions -----------------------------------------------------------------------------------------------------


def convolved(name, x, layer):
    """What a convolution layer computes: (samples, channels, positions)."""
    padding = layer.padding
    if padding == "same":
        padding = [d * (k - 1) // 2 for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
    weight = layer.weight.detach().numpy()
    bias = None if layer.bias is None else layer.bias.detach().numpy()
    groups, channels, outputs = layer.groups, weight.shape[1], weight.shape[0] // layer.groups
    parts = []
    for group in range(groups):
        rows = unfolded(
            x[:, group * channels : (group + 1) * channels], layer.kernel_size, layer.stride, padding, layer.dilation
        )
        own = slice(group * outputs, (group + 1) * outputs)
        c = None if bias is None else bias[own]
        values, _ = product(name, rows.reshape(-1, rows.shape[2]), weight[own].reshape(outputs, -1).T, c)
        parts.append(values.reshape(len(x), -1, outputs))
    return np.concatenate(parts, axis=2).transpose(0, 2, 1)


CONVOLUTIONS = {
    "1d": (nn.Conv1d, (4, 6, 3), {}, (2, 4, 11)),
    "1d, all settings": (nn.Conv1d, (4, 6, 3), {"stride": 2, "padding": 3, "dilation": 2, "groups": 2}, (2, 4, 11)),
    "2d": (nn.Conv2d, (4, 6, 3), {}, (2, 4, 6, 7)),
    "2d without bias": (nn.Conv2d, (4, 6, 3), {"bias": False}, (2, 4, 6, 7)),
    "2d, one sample": (nn.Conv2d, (4, 6, 3), {}, (1, 4, 6, 7)),
    "2d, one position": (nn.Conv2d, (4, 6, (6, 7)), {}, (2, 4, 6, 7)),
    "2d, 1x1": (nn.Conv2d, (4, 6, 1), {}, (2, 4, 6, 7)),
    "2d, uneven": (
        nn.Conv2d, (4, 6, (2, 3)), {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 3)}, (2, 4, 6, 7),
    ),
    "2d, same": (nn.Conv2d, (4, 6, 3), {"padding": "same", "dilation": 2}, (2, 4, 6, 7)),
    "2d, groups": (nn.Conv2d, (4, 6, 3), {"groups": 2, "padding": 1}, (2, 4, 6, 7)),
    "2d, depthwise": (nn.Conv2d, (4, 4, 3), {"groups": 4}, (2, 4, 6, 7)),
    "2d, depthwise with two each": (nn.Conv2d, (4, 8, 3), {"groups": 4, "stride": 2}, (2, 4, 6, 7)),
    "3d": (nn.Conv3d, (2, 3, 2), {}, (2, 2, 3, 4, 5)),
    "3d, all settings": (
        nn.Conv3d, (2, 4, (2, 1, 3)), {"stride": (1, 2, 1), "padding": 1, "dilation": (2, 1, 1), "groups": 2},
        (1, 2, 4, 4, 5),
    ),
}  # fmt: skip

in_each_shape = pytest.mark.parametrize("kind, sizes, settings, shape", CONVOLUTIONS.values(), ids=CONVOLUTIONS)


@in_each_shape
@in_each_arithmetic
def test_convolution(kind, sizes, settings, shape, name):
    layer, x = kind(*sizes, **settings), rand(*shape)
    output, result = emulated(layer, x, name=name)
    plain = layer(x)
    assert output.shape == plain.shape and output.is_contiguous()
    assert same(output, convolved(name, x.numpy(), layer))
    (record,) = result.layers
    positions = math.prod(output.shape[2:])
    assert record.op == f"conv{len(shape) - 2}d"
    assert (record.gemms, record.m, record.n) == (layer.groups, len(x) * positions, sizes[1] // layer.groups)
    assert record.macs == plain.numel() * math.prod(layer.weight.shape[1:])


@in_each_shape
def test_convolution_does_not_depend_on_how_it_is_cut(kind, sizes, settings, shape, monkeypatch):
    layer, x = kind(*sizes, **settings), rand(*shape)
    for spec in ("mxfp8_e4m3 -> fma(fp16)", "fp8_e5m2/sr:4 -> fma(bf16/sr:6)"):
        whole, _ = emulated(layer, x, name=spec)
        for elements in (1, 100, 500, 1500):
            monkeypatch.setattr(convolution, "STRIP_ELEMENTS", elements)
            assert torch.equal(emulated(layer, x, name=spec)[0], whole)
        monkeypatch.undo()


@in_each_grad_mode
@pytest.mark.parametrize("padding", ["same", 1])
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_convolution_in_each_grad_mode(padding, context):
    layer, x = nn.Conv2d(4, 6, 3, padding=padding), rand(2, 4, 6, 7)
    with context():
        output, _ = emulated(layer, x, name="high")
    assert same(output, convolved("high", x.numpy(), layer))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: x.transpose(2, 3),
        lambda x: x[:, :, ::2, 1:],
        lambda x: x.flip(0),
        lambda x: x[:1].expand(2, -1, -1, -1),
    ],
)
def test_convolution_of_strided_inputs(change):
    x = change(rand(2, 4, 8, 7))
    for layer in (nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 3, groups=2).to(memory_format=torch.channels_last)):
        output, _ = emulated(layer, x, name="low")
        assert same(output, convolved("low", x.numpy(), layer))
        assert output.stride() == layer(x).stride()


@in_each_arithmetic
@pytest.mark.parametrize(
    "settings",
    [{}, {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}, {"dilation": 2, "padding": 3, "bias": False}],
    ids=str,
)
def test_a_transposed_convolution_is_the_plain_one_of_the_image_with_zeros_between(settings, name):
    layer, x = nn.ConvTranspose2d(4, 6, 3, **settings), rand(2, 4, 5, 6)
    output, result = emulated(layer, x, name=name)
    groups, stride, padding = settings.get("groups", 1), layer.stride[0], layer.padding[0]
    spread = torch.zeros(2, 4, 4 * stride + 1, 5 * stride + 1)
    spread[..., ::stride, ::stride] = x
    edge = layer.dilation[0] * 2 - padding
    spread = functional.pad(spread, (edge, edge + layer.output_padding[0]) * 2)
    plain = nn.Conv2d(4, 6, 3, groups=groups, dilation=layer.dilation, bias=layer.bias is not None)
    turned = layer.weight.detach().flip(2, 3).view(groups, 4 // groups, 6 // groups, 3, 3).transpose(1, 2)
    plain.weight.data = turned.reshape(6, 4 // groups, 3, 3)
    if layer.bias is not None:
        plain.bias.data = layer.bias.detach()
    wanted, of_plain = emulated(plain, spread, name=name)
    assert torch.equal(output, wanted)
    assert output.shape == layer(x).shape
    (record,), (other,) = result.layers, of_plain.layers
    assert record.op == "conv_transpose2d"
    assert (record.gemms, record.m, record.n, record.k) == (other.gemms, other.m, other.n, other.k)


@in_each_arithmetic
def test_an_lstm_equals_its_formula(name):
    """Four gates of the input and of the state, each with its bias; the rest is torch's in float32."""
    layer, x = nn.LSTM(9, 5), rand(4, 3, 9)
    with torch.no_grad():
        (output, (h, c)), result = emulated(layer, x, name=name)
        w_x, w_h, b_x, b_h = (p.detach().numpy() for p in layer.parameters())
        inputs = product(name, x.reshape(12, 9).numpy(), w_x.T, b_x)[0].reshape(4, 3, 20)
        state, cell = torch.zeros(3, 5), torch.zeros(3, 5)
        for t in range(4):
            gates = torch.from_numpy(product(name, state.numpy(), w_h.T, b_h)[0]).float()
            gates = gates + torch.from_numpy(np.ascontiguousarray(inputs[t])).float()
            i, f, g, o = gates.chunk(4, 1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            state = torch.sigmoid(o) * torch.tanh(cell)
            assert torch.equal(output[t], state)
    assert torch.equal(h[0], state) and torch.equal(c[0], cell)
    assert [(record.op, record.gemms) for record in result.layers] == [("linear", 1), ("linear", 4)]


def test_an_image_without_batch():
    layer, x = nn.Conv2d(4, 6, 3), rand(4, 6, 7)
    assert same(emulated(layer, x, name="low")[0], convolved("low", x[None].numpy(), layer))


@pytest.mark.parametrize(
    "layer, shape", [(nn.Linear(4, 3), (0, 4)), (nn.Linear(4, 3), (2, 0, 4)), (nn.Conv2d(4, 3, 3), (0, 4, 5, 5))]
)
def test_an_empty_batch_gives_an_empty_output_and_no_record(layer, shape):
    output, result = emulated(layer, torch.zeros(shape))
    assert output.shape == layer(torch.zeros(shape)).shape
    assert result.layers == ()


def test_products_without_terms_are_torchs_own():
    layer = nn.Linear(4, 3)
    layer.weight = nn.Parameter(torch.zeros(3, 0))
    output, result = emulated(layer, torch.zeros(2, 0))
    assert torch.equal(output, layer.bias.expand(2, 3))
    assert result.layers == ()


# --- types, sharing, attention, gradients -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.float32])
@in_each_arithmetic
def test_models_of_every_float_type(dtype, name):
    layer, x = nn.Linear(40, 7).to(dtype), rand(5, 40).to(dtype)
    output, _ = emulated(layer, x, name=name)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    w, c = layer.weight.detach().to(wide).numpy().T, layer.bias.detach().to(wide).numpy()
    assert output.dtype == dtype
    assert same(output, product(name, x.to(wide).numpy(), w, c)[0], dtype)


def test_autocast_decides_on_the_operands():
    layer, x = nn.Linear(40, 7), rand(5, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, _ = emulated(layer, x, name="exact")
    half = copy.deepcopy(layer).bfloat16()
    assert torch.equal(output, emulated(half, x.bfloat16(), name="exact")[0])


def test_shared_modules_and_parameters():
    class Shares(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(self.a(x)))

    model, x = Shares(), rand(5, 8)
    output, result = emulated(model, x, name="low")
    w = model.a.weight.detach().numpy().T
    y = x.numpy()
    for bias in (model.a.bias, model.a.bias, model.b.bias):
        y = product("low", y, w, bias.detach().numpy())[0]
    assert same(output, y)
    assert [layer.name for layer in result.layers] == ["a", "a#2", "b"]


@in_each_grad_mode
def test_attention_equals_its_formula(context):
    layer, x = nn.MultiheadAttention(8, 2, batch_first=True).eval(), rand(2, 5, 8)
    with context():
        (output, weights), _ = emulated(layer, x, x, x, name="high")
    flat = lambda t: t.reshape(-1, t.shape[-1]).numpy()  # noqa: E731
    with torch.no_grad():
        projected = product("high", flat(x), layer.in_proj_weight.T.numpy(), layer.in_proj_bias.numpy())[0]
        q, k, v = torch.from_numpy(projected).view(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
        heads = torch.empty(2, 2, 5, 4)
        attention = torch.empty(2, 2, 5, 5)
        for i, j in itertools.product(range(2), range(2)):
            scaled = product("high", (q[i, j] * math.sqrt(1 / 4)).numpy(), k[i, j].T.numpy())[0]
            attention[i, j] = torch.from_numpy(scaled).softmax(-1)
            heads[i, j] = torch.from_numpy(product("high", attention[i, j].numpy(), v[i, j].numpy())[0])
        joined = heads.transpose(1, 2).reshape(10, 8)
        wanted = product("high", joined.numpy(), layer.out_proj.weight.T.numpy(), layer.out_proj.bias.numpy())[0]
    assert same(output, wanted)
    assert torch.equal(weights, attention.mean(1))


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_a_convolution_never_unfolds_its_whole_input():
    """64 channels of 224 x 224 unfold to 116 MB; input, output and their padded copies take 13 MB each."""
    import tracemalloc

    layer, x = nn.Conv2d(64, 64, 3, padding=1, bias=False), rand(1, 64, 224, 224)
    with torch.no_grad():
        tracemalloc.start()
        emulated(layer, x, name="low")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 80e6
    assert functional.conv2d(x, layer.weight).shape[1] == 64


def test_a_pattern_on_a_container_holds_for_all_in_it():
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8)), nn.Linear(8, 2)).eval()
    with simulator.emulate(model, "npu", layers={"0.0": "low", "0": "exact"}) as inner:
        model(torch.ones(3, 8))
    with simulator.emulate(model, "npu", layers={"0": "exact"}) as outer:
        model(torch.ones(3, 8))
    assert "exact(fp32)" in outer.result.layers[0].mac and "exact" not in outer.result.layers[1].mac
    assert "exact" not in inner.result.layers[0].mac  # the first pattern that fits counts


# --- stochastic rounding ----------------------------------------------------------------------------------------------


def test_random_words_go_by_seed_layer_and_output_however_samples_are_batched():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5), nn.Linear(5, 5))
    x = rand(6, 2, 6, 6)

    def run(parts, threads=1, seed=3, spec="fp8_e5m2/sr:4 -> fma(bf16/sr:6) -> fp16/sr:3"):
        with torch.no_grad(), simulator.emulate(model, NPU, layers={"*": spec}, seed=seed, threads=threads):
            return torch.cat([model(part) for part in parts])

    whole = run([x])
    assert torch.equal(run([x[:2], x[2:3], x[3:]]), whole)
    assert torch.equal(run([x], threads=2), whole)
    assert not torch.equal(run([x], seed=4), whole)
