"""The backward pass on the engine: gradients equal the formulas, computed by the definition."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import formats  # noqa: E402
import simulator  # noqa: E402
from simulator.network.emulation import Emulation  # noqa: E402
from tests.oracles.layers import NPU, by_definition, product  # noqa: E402
from tests.oracles.networks import Function  # noqa: E402

MIXED = "fp8_e5m2*fp8_e4m3 -> fma(fp16)"


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def same(found, wanted):
    return np.array_equal(np.asarray(found.detach(), np.float64), np.asarray(wanted, np.float64), equal_nan=True)


@pytest.mark.parametrize("mac", ["fp8_e4m3 -> fma(fp16)", "bf16 -> seq(bf16)", MIXED])
def test_a_training_step_equals_the_emulated_formulas(mac):
    """Forward, both gradients of both layers and a step of SGD, each product by the exact reference."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    x, labels = rand(3, 6).requires_grad_(), torch.tensor([0, 3, 1])
    first, last = model[0], model[2]
    w1, c1, w2, c2 = (p.detach().clone() for p in model.parameters())
    optimiser = torch.optim.SGD(model.parameters(), lr=0.25)
    with simulator.emulate(model, "npu", layers={"*": mac}) as run:
        y = model(x)
        functional.cross_entropy(y, labels).backward()
        optimiser.step()
    # Values and gradients have the first operand's format, weights the second's.
    values = simulator.mac(mac).operands[0]
    accumulator = mac.split("->")[-1]
    of_values = f"{values} -> {accumulator}"

    def gradient(a, b):  # of a weight: nothing but values
        return by_definition(of_values, a, b)

    z = by_definition(mac, x.detach(), w1.T, c1)
    h = z.relu()
    out = by_definition(mac, h, w2.T, c2)
    assert torch.equal(y, out)
    g = out.clone().requires_grad_()
    functional.cross_entropy(g, labels).backward()
    g = g.grad
    assert torch.equal(last.weight.grad, gradient(g.T, h))
    assert torch.equal(last.bias.grad, g.sum(0))
    g = by_definition(mac, g, w2) * (z > 0)
    assert torch.equal(first.weight.grad, gradient(g.T, x.detach()))
    assert torch.equal(x.grad, by_definition(mac, g, w1))
    assert torch.equal(first.weight, w1 - 0.25 * first.weight.grad)
    assert [(r.name, r.phase, r.m, r.n, r.k) for r in run.result.layers] == [
        ("0", "forward", 3, 5, 6), ("2", "forward", 3, 4, 5), ("2", "input gradient", 3, 5, 4),
        ("2", "weight gradient", 4, 5, 3), ("0", "input gradient", 3, 6, 5), ("0", "weight gradient", 5, 6, 3),
    ]  # fmt: skip
    assert not [w for w in run.result.warnings if "not emulated" in w]


CONVOLUTIONS = {
    "1d": (1, (4, 6, 3), {}, (2, 4, 9)),
    "2d": (2, (4, 6, 3), {}, (2, 4, 6, 7)),
    "2d, stride that leaves positions over": (2, (4, 6, 3), {"stride": 2}, (2, 4, 6, 8)),
    "2d, all settings": (
        2, (4, 6, (2, 3)), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}, (2, 4, 7, 7),
    ),
    "2d, depthwise": (2, (4, 4, 3), {"groups": 4, "padding": 1}, (2, 4, 6, 7)),
    "3d": (3, (2, 3, 2), {"padding": 1}, (1, 2, 3, 4, 4)),
}  # fmt: skip
TRANSPOSED = {
    "1d": (1, (4, 6, 3), {}, (2, 4, 9)),
    "2d, stride and output padding": (2, (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1}, (2, 4, 5, 6)),
    "2d, all settings": (
        2, (4, 6, (2, 3)), {"stride": (2, 3), "padding": (0, 1), "dilation": (3, 1), "groups": 2}, (2, 4, 4, 5),
    ),
}  # fmt: skip


def multiplied_terms(layer, x):
    """For each gradient of a convolution, the pairs whose products are summed, by brute force on impulses.

    (dx index -> list of (dy index, weight index)), (dw index -> list of (x index, dy index)).
    """
    weight = layer.weight.detach()
    to_input, to_weight = {}, {}
    impulses = torch.eye(x[0].numel()).reshape(-1, *x.shape[1:])
    for w in np.ndindex(*weight.shape):
        one = torch.zeros_like(weight)
        one[w] = 1
        outputs = transposed(layer, impulses, one) if layer.transposed else layer._conv_forward(impulses, one, None)
        for i, *o in outputs.nonzero().tolist():
            at = tuple(map(int, np.unravel_index(i, x.shape[1:])))
            for n in range(len(x)):
                to_input.setdefault((n, *at), []).append(((n, *o), w))
                to_weight.setdefault(w, []).append(((n, *at), (n, *o)))
    return to_input, to_weight


def transposed(layer, x, weight):
    function = {3: functional.conv_transpose1d, 4: functional.conv_transpose2d}[x.dim()]
    return function(x, weight, None, layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)


def layer_of(dims, sizes, settings, kind):
    torch.manual_seed(1)
    return getattr(nn, f"{kind}{dims}d")(*sizes, **settings)


@pytest.mark.parametrize(
    "kind, dims, sizes, settings, shape",
    [("Conv", *case) for case in CONVOLUTIONS.values()] + [("ConvTranspose", *case) for case in TRANSPOSED.values()],
    ids=[*CONVOLUTIONS, *(f"transposed {name}" for name in TRANSPOSED)],
)
def test_gradients_of_convolutions_with_exact_sums_are_the_sums_of_their_terms(kind, dims, sizes, settings, shape):
    """Exact sums do not depend on the order, so that they are those of the pairs found by impulses."""
    layer, x = layer_of(dims, sizes, settings, kind), rand(*shape).requires_grad_()
    mac = "fp8_e5m2*fp8_e4m3 -> exact(fp32)"
    with simulator.emulate(layer, "npu", layers={"*": mac}) as run:
        y = layer(x)
        dy = rand(*y.shape, seed=4)
        y.backward(dy)
    assert [r.phase for r in run.result.layers] == ["forward", "input gradient", "weight gradient"]
    e5m2, e4m3 = (use.format for use in simulator.mac(mac).operands)
    q = {
        "x": torch.from_numpy(e5m2.quantize(x.detach().numpy())), "dy": torch.from_numpy(e5m2.quantize(dy.numpy())),
        "w": torch.from_numpy(e4m3.quantize(layer.weight.detach().numpy())),
    }  # fmt: skip
    to_input, to_weight = multiplied_terms(layer, x)
    for at in list(np.ndindex(*x.shape))[::7]:
        wanted = math.fsum(float(q["dy"][o]) * float(q["w"][w]) for o, w in to_input.get(at, []))
        assert float(x.grad[at]) == np.float32(wanted)
    for at in list(np.ndindex(*layer.weight.shape))[::5]:
        wanted = math.fsum(float(q["x"][i]) * float(q["dy"][o]) for i, o in to_weight.get(at, []))
        assert float(layer.weight.grad[at]) == np.float32(wanted)
    assert torch.equal(layer.bias.grad, dy.sum([0, *range(2, dy.dim())]))


def test_gradients_of_a_convolution_are_summed_in_order():
    """Over outputs and kernel positions, flipped, for the image; over samples and positions for the weight."""
    layer, x = nn.Conv2d(2, 3, 3, padding=1, bias=False), rand(2, 2, 5, 6).requires_grad_()
    mac = "fp8_e4m3 -> seq(fp16)"
    with simulator.emulate(layer, "npu", layers={"*": mac}):
        y = layer(x)
        dy = rand(*y.shape, seed=4)
        y.backward(dy)
    w = layer.weight.detach()
    windows = functional.unfold(dy, 3, padding=1).transpose(1, 2)  # (samples, positions, outputs * kernel)
    flipped = w.flip(2, 3).transpose(0, 1).reshape(2, -1)  # (channels, outputs * kernel)
    wanted = torch.stack([by_definition(mac, rows, flipped.T) for rows in windows])
    assert torch.equal(x.grad.flatten(2), wanted.transpose(1, 2))
    windows = functional.unfold(x.detach(), 3, padding=1).transpose(1, 2).reshape(-1, 18)
    wanted = by_definition(mac, windows.T, dy.transpose(0, 1).flatten(1).T)
    assert torch.equal(layer.weight.grad, wanted.T.reshape(3, 2, 3, 3))


def test_gradients_of_attention():
    """Of both products of attention, for every head."""
    q, k, v = (rand(1, 2, 4, 3, seed=i).requires_grad_() for i in range(3))

    class Attention(nn.Module):
        def forward(self, q, k, v):
            return functional.scaled_dot_product_attention(q, k, v)

    model = Attention()
    with Emulation(model, NPU, default="low") as run:
        y = model(q, k, v)
        y.sum().backward()
    phases = [(r.name, r.phase, r.gemms, r.m, r.n, r.k) for r in run.result.layers]
    assert phases == [
        ("Attention", "forward", 2, 4, 4, 3), ("Attention#2", "forward", 2, 4, 3, 4),
        ("Attention#2", "weight gradient", 2, 4, 3, 4), ("Attention#2", "input gradient", 2, 4, 4, 3),
        ("Attention", "weight gradient", 2, 3, 4, 4), ("Attention", "input gradient", 2, 4, 3, 4),
    ]  # fmt: skip
    scores = [product("low", q[0, h].detach() * 3**-0.25, k[0, h].detach().T * 3**-0.25)[0] for h in range(2)]
    attention = [torch.from_numpy(s).softmax(-1) for s in scores]
    dy = torch.ones(4, 3)
    for h in range(2):
        assert same(v.grad[0, h], product("low", attention[h].T, dy)[0])
        d_attention = torch.from_numpy(product("low", dy, v[0, h].detach().T)[0])
        d_scores = torch._softmax_backward_data(d_attention, attention[h], -1, torch.float32)
        dq = product("low", d_scores, k[0, h].detach() * 3**-0.25)[0]
        dk = product("low", q[0, h].detach().T * 3**-0.25, d_scores)[0].T
        assert same(q.grad[0, h], torch.from_numpy(dq) * 3**-0.25)
        assert same(k.grad[0, h], torch.from_numpy(dk) * 3**-0.25)


def test_of_two_passes_gradients_have_the_high_one():
    layer, x = nn.Linear(6, 5), rand(3, 6).requires_grad_()
    with Emulation(layer, NPU, default="two_pass"):
        layer(x).backward(dy := rand(3, 5, seed=1))
    assert same(x.grad, product("high", dy, layer.weight.detach())[0])
    assert same(layer.weight.grad, product("high", dy.T, x.detach())[0])


def test_rules_name_the_arithmetic_of_gradients():
    layer, x = nn.Linear(6, 5), rand(3, 6).requires_grad_()
    with simulator.emulate(layer, NPU, layers={"*": {"mac": "low", "gradients": "float32"}}) as run:
        layer(x).backward(dy := rand(3, 5, seed=1))
    assert torch.equal(x.grad, dy @ layer.weight)
    assert [(r.phase, r.mac, r.energy_j is None) for r in run.result.layers][1:] == [
        ("input gradient", "float32", True), ("weight gradient", "float32", True),
    ]  # fmt: skip


def test_float32_changes_no_bit_of_a_gradient():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    x = rand(2, 2, 5, 5)
    model(x).square().sum().backward()
    wanted = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with simulator.emulate(model, NPU, layers={"*": "float32"}):
        model(x).square().sum().backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), wanted, strict=True))


def test_weight_gradients_of_several_steps_are_one_sum_over_all_samples():
    layer = nn.Linear(6, 5)
    with Emulation(layer, NPU, default="low") as run:
        for size in (3, 3, 2):
            layer(rand(size, 6)).sum().backward()
    assert [(r.phase, r.m, r.n, r.k) for r in run.result.layers] == [
        ("forward", 8, 5, 6), ("weight gradient", 5, 6, 8),
    ]  # fmt: skip


def test_random_words_differ_from_step_to_step():
    layer, x = nn.Linear(64, 5, bias=False), rand(8, 64)
    gradients = []
    with simulator.emulate(layer, NPU, layers={"*": "fp8_e4m3 -> fma(fp8_e4m3/sr)"}):
        for _ in range(2):
            layer.zero_grad()
            layer(x).backward(torch.ones(8, 5))
            gradients.append(layer.weight.grad.clone())
    assert not torch.equal(*gradients)


def test_a_small_network_learns_on_the_machine():
    torch.manual_seed(0)
    x = rand(64, 8)
    labels = (x[:, 0] * x[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    with simulator.emulate(model, NPU, layers={"*": "fp8_e4m3 -> fma(fp16)"}):
        for _ in range(100):
            optimiser.zero_grad()
            loss = functional.cross_entropy(model(x), labels)
            loss.backward()
            optimiser.step()
        accuracy = (model(x).argmax(1) == labels).double().mean()
    assert loss < 0.2 and accuracy > 0.95


# --- what is easily taken for something else --------------------------------------------------------------------------

TWO_FORMATS = "fp8_e4m3*fp8_e5m2 -> exact(fp32)"
VALUES = "fp8_e4m3 -> exact(fp32)"


def gradients(model, run, x, mac=TWO_FORMATS):
    """Gradients of the squares of what `run` returns, of the parameters and of x, under an emulation of a model."""
    model.zero_grad()
    x = x.detach().requires_grad_()
    with simulator.emulate(model, "npu", layers={"*": mac}) as emulation:
        y = run(x)
        (y[0] if isinstance(y, tuple) else y).square().sum().backward()
    assert not [text for text in emulation.result.warnings if "not emulated" in text]
    return [x.grad, *(p.grad.clone() for p in model.parameters())]


class Checkpointed(nn.Module):
    def __init__(self, inner, reentrant):
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x):
        from torch.utils.checkpoint import checkpoint

        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize(
    "inner, x",
    [
        (lambda: nn.Linear(8, 8), rand(4, 3, 8).transpose(0, 1)),
        (lambda: nn.Linear(8, 8), rand(8, 8)),
        (lambda: nn.LSTM(8, 8), rand(4, 3, 8)),
        (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0), rand(2, 4, 8)),
        (lambda: nn.Sequential(nn.Conv1d(3, 4, 2), nn.ReLU(), nn.Conv1d(4, 4, 2)), rand(2, 3, 6)),
    ],
    ids=["linear", "square", "lstm", "transformer", "convolutions"],
)
def test_gradients_through_checkpoints(inner, x, reentrant):
    torch.manual_seed(5)
    inner = inner()
    wanted = gradients(inner, inner, x)
    found = gradients(model := Checkpointed(inner, reentrant), model, x)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def product_gradients(a, b, dy):
    """By definition: the gradient of the first operand has weights in it, that of the second nothing but values."""
    return by_definition(TWO_FORMATS, dy, b.T), by_definition(VALUES, a.T, dy)


@pytest.mark.parametrize("function", [torch.mm, lambda a, b: torch.addmm(torch.zeros(4), a, b)])
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("turned", [False, True])
def test_gradients_of_square_products(function, wanted, turned):
    a, b, dy = rand(4, 4), rand(4, 4, seed=1), rand(4, 4, seed=2)
    if turned:
        a, b = a.T.contiguous().T, b.T.contiguous().T
    a.requires_grad_(wanted[0])
    b.requires_grad_(wanted[1])
    model = Function(function)
    with simulator.emulate(model, "npu", layers={"*": TWO_FORMATS}):
        model(a, b).backward(dy)
    gradients = product_gradients(a.detach(), b.detach(), dy)
    for operand, gradient, is_wanted in zip((a, b), gradients, wanted, strict=True):
        assert torch.equal(operand.grad, gradient) if is_wanted else operand.grad is None


def test_gradients_of_a_matrix_with_itself():
    x, dy = rand(4, 4).requires_grad_(), rand(4, 4, seed=2)
    model = Function(lambda x: x @ x.T)
    with simulator.emulate(model, "npu", layers={"*": TWO_FORMATS}):
        model(x).backward(dy)
    first, second = product_gradients(x.detach(), x.detach().T, dy)
    assert torch.equal(x.grad, first + second.T)


def test_gradients_of_parts_of_one_tensor():
    both, dy = rand(1, 4, 8).requires_grad_(), rand(1, 4, 4, seed=2)

    def scores(both):
        q, k = both.chunk(2, -1)
        return q @ k.transpose(1, 2)

    model = Function(scores)
    with simulator.emulate(model, "npu", layers={"*": TWO_FORMATS}):
        model(both).backward(dy)
    q, k = both.detach()[0].chunk(2, -1)
    first, second = product_gradients(q, k.T, dy[0])
    assert torch.equal(both.grad[0], torch.cat([first, second.T], 1))


def test_gradients_of_saved_copies():
    """Hooks that keep copies: no operand is where it was."""
    a, b, dy = rand(4, 4).requires_grad_(), rand(4, 4, seed=1).requires_grad_(), rand(4, 4, seed=2)
    for function in (
        torch.mm,
        lambda a, b: torch.addmm(torch.zeros(4), a, b),
        lambda a, b: torch.bmm(a[None], b[None])[0],
    ):
        a.grad = b.grad = None
        model = Function(function)
        with (
            simulator.emulate(model, "npu", layers={"*": TWO_FORMATS}),
            torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t.clone()),
        ):
            model(a, b).backward(dy)
        first, second = product_gradients(a.detach(), b.detach(), dy)
        assert torch.equal(a.grad, first) and torch.equal(b.grad, second)


@pytest.mark.parametrize("what", ["gradient of the outputs", "second operand"])
def test_gradients_of_saved_copies_where_an_operand_was(what):
    """The first operand is gone by the backward pass, and something else lies in its memory."""
    x, b, dy = rand(4, 4).requires_grad_(), rand(4, 4, seed=1).requires_grad_(), rand(4, 4, seed=2)
    memory = np.empty((4, 4), np.float32)

    def placed(t):
        memory[:] = t.detach().numpy()
        return torch.from_numpy(memory)

    class Placed(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return placed(x)

        @staticmethod
        def backward(context, dy):
            return dy

    def unpacked(kept):
        return placed(kept) if what == "second operand" and same(kept, b.detach()) else kept

    model = Function(lambda x, b: torch.mm(Placed.apply(x), b))
    with (
        simulator.emulate(model, "npu", layers={"*": TWO_FORMATS}),
        torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), unpacked),
    ):
        y = model(x, b)
        y.backward(placed(dy) if what == "gradient of the outputs" else dy)
    first, second = product_gradients(x.detach(), b.detach(), dy)
    assert torch.equal(x.grad, first) and torch.equal(b.grad, second)


def test_gradients_of_two_emulations_at_once():
    first, second, x = nn.Linear(4, 6), nn.Linear(6, 3), rand(5, 4)
    together = nn.Sequential(first, second)
    wanted = gradients(together, together, x)[1:]
    together.zero_grad()
    with (
        simulator.emulate(first, "npu", layers={"*": TWO_FORMATS}) as inner,
        simulator.emulate(second, "npu", layers={"*": TWO_FORMATS}) as outer,
    ):
        second(first(x)).square().sum().backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(together.parameters(), wanted, strict=True))
    for run, phases in (
        (inner, ["forward", "weight gradient"]),
        (outer, ["forward", "input gradient", "weight gradient"]),
    ):
        assert [layer.phase for layer in run.result.layers] == phases
        assert not [text for text in run.result.warnings if "not emulated" in text]


@pytest.mark.parametrize("activation", [nn.SiLU, nn.Mish, nn.GELU, nn.ELU, nn.Hardswish, nn.Softplus, nn.LogSigmoid])
def test_float32_leaves_compound_backward_functions_alone(activation):
    model, x = nn.Sequential(nn.Linear(8, 8), activation()), rand(5, 8)
    model(x).sum().backward()
    wanted = [p.grad.clone() for p in model.parameters()]
    found = gradients_of_sum(model, x)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def gradients_of_sum(model, x):
    model.zero_grad()
    with simulator.emulate(model, NPU, layers={"*": "float32"}):
        model(x).sum().backward()
    return [p.grad for p in model.parameters()]


def test_what_no_op_covers_is_listed_in_the_backward_pass_too():
    layer = nn.ConvTranspose2d(2, 3, 3, stride=1, dilation=2, output_padding=1)
    with simulator.emulate(layer, NPU, layers={"*": VALUES}) as run:
        layer(rand(1, 2, 5, 5).requires_grad_()).sum().backward()
    assert [layer.phase for layer in run.result.layers] == ["forward"]
    assert any("convolution_backward in the backward pass: not emulated" in text for text in run.result.warnings)


# --- which operand of a weight's gradient is the gradient of the outputs ----------------------------------------------

PLACED = {"*": {"mac": VALUES, "gradients": MIXED, "weight_gradients": MIXED}}


def gradient_of_second(a, dy):
    """By definition: dy in e5m2 and a in e4m3, (K, N); the formats the other way round would give other bits."""
    wanted = by_definition(MIXED, dy.T, a)
    assert not torch.equal(wanted, by_definition("fp8_e4m3*fp8_e5m2 -> fma(fp16)", dy.T, a))
    return wanted.T


@pytest.mark.parametrize("of_input", [False, True])
@pytest.mark.parametrize("m, k, n", [(3, 4, 4), (4, 4, 4), (4, 3, 4), (4, 4, 3), (3, 5, 4)])
def test_the_gradient_has_its_place_in_linear_layers(m, k, n, of_input):
    """Also where the gradient of the outputs is the input itself, so that their memory tells nothing."""
    layer, x = nn.Linear(k, n), rand(m, k, seed=3).requires_grad_(of_input)
    for dy in [rand(m, n, seed=5), *([x.detach()] if k == n else [])]:
        layer.zero_grad()
        x.grad = None
        with simulator.emulate(layer, "npu", layers=PLACED):
            layer(x).backward(dy)
        assert torch.equal(layer.weight.grad, gradient_of_second(x.detach(), dy).T)
        assert torch.equal(x.grad, by_definition(MIXED, dy, layer.weight.detach())) if of_input else x.grad is None


SQUARE = {
    "mm": torch.mm,
    "addmm": lambda a, b: torch.addmm(torch.zeros(4), a, b),
    "bmm": lambda a, b: torch.bmm(a[None], b[None])[0],
    "baddbmm": lambda a, b: torch.baddbmm(torch.zeros(1), a[None], b[None])[0],
    "addbmm": lambda a, b: torch.addbmm(torch.zeros(4), a[None], b[None]),
}


@pytest.mark.parametrize("function", SQUARE.values(), ids=SQUARE)
@pytest.mark.parametrize("of_first", [False, True])
@pytest.mark.parametrize("by_column", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("given", ["another", "first", "second"])
def test_the_gradient_has_its_place_in_square_products(function, of_first, by_column, given):
    """Of operands in either layout; the gradient of the outputs may be an operand."""
    a, b = (
        x.T.contiguous().T if turned else x
        for x, turned in zip((rand(4, 4), rand(4, 4, seed=1)), by_column, strict=True)
    )
    dy = {"another": rand(4, 4, seed=2), "first": a.detach(), "second": b.detach()}[given]
    a.requires_grad_(of_first)
    b.requires_grad_()
    model = Function(function)
    with simulator.emulate(model, "npu", layers=PLACED):
        model(a, b).backward(dy)
    assert torch.equal(b.grad, gradient_of_second(a.detach(), dy))
    assert torch.equal(a.grad, by_definition(MIXED, dy, b.detach().T)) if of_first else a.grad is None


@pytest.mark.parametrize("of_first", [False, True])
def test_the_gradient_has_its_place_in_products_of_vectors(of_first):
    """A column times a row is a matrix, of which torch computes both gradients as products with it."""
    column, row, dy = rand(4).requires_grad_(of_first), rand(4, seed=1).requires_grad_(), rand(4, 4, seed=2)
    model = Function(lambda u, v: torch.addr(torch.zeros(4, 4), u, v))
    with simulator.emulate(model, "npu", layers=PLACED):
        model(column, row).backward(dy)
    assert torch.equal(row.grad, gradient_of_second(column.detach()[:, None], dy)[0])
    if of_first:
        assert torch.equal(column.grad, by_definition(MIXED, dy, row.detach()[:, None])[:, 0])
    matrix, vector, dy = rand(1, 4).requires_grad_(of_first), rand(4, seed=1).requires_grad_(), rand(1, seed=2)
    model = Function(torch.mv)
    with simulator.emulate(model, "npu", layers=PLACED):
        model(matrix, vector).backward(dy)
    assert torch.equal(vector.grad, gradient_of_second(matrix.detach(), dy[:, None])[:, 0])


@pytest.mark.parametrize("turned", [(False, False), (False, True), (True, False)])
def test_the_gradient_has_its_place_in_products_of_an_operand_with_itself(turned):
    x, dy = rand(4, 4).requires_grad_(), rand(4, 4, seed=2)
    model = Function(lambda x: torch.mm(*(x.T if turn else x for turn in turned)))
    with simulator.emulate(model, "npu", layers=PLACED):
        model(x).backward(dy)
    a, b = (x.detach().T if turn else x.detach() for turn in turned)
    parts = by_definition(MIXED, dy, b.T), gradient_of_second(a, dy)
    first, second = (part.T if turn else part for part, turn in zip(parts, turned, strict=True))
    assert torch.equal(x.grad, first + second)


@pytest.mark.parametrize("of_input", [False, True])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_the_gradient_has_its_place_in_convolutions(kind, of_input):
    """As many samples as channels, outputs and kernel positions along an axis; exact sums are those of float64."""
    layer, x = kind(3, 3, 3, padding=1, bias=False), rand(3, 3, 5, 5).requires_grad_(of_input)
    with simulator.emulate(
        layer, "npu", layers={"*": {"mac": VALUES, "weight_gradients": "fp8_e5m2*fp8_e4m3 -> exact(fp32)"}}
    ):
        y = layer(x)
        y.backward(dy := rand(*y.shape, seed=4))

    def by_formats(of_gradient, of_values):
        dy_, x_ = (
            torch.from_numpy(formats.get(name).quantize(t.detach().numpy()))
            for name, t in ((of_gradient, dy), (of_values, x))
        )
        same_layer = kind(3, 3, 3, padding=1, bias=False).double()
        return torch.autograd.grad(same_layer(x_), same_layer.weight, dy_)[0].float()

    assert torch.equal(layer.weight.grad, by_formats("fp8_e5m2", "fp8_e4m3"))
    assert not torch.equal(layer.weight.grad, by_formats("fp8_e4m3", "fp8_e5m2"))


@pytest.mark.parametrize("reentrant", [False, True])
def test_the_gradient_has_its_place_in_checkpoints(reentrant):
    """What a checkpoint computes again lies elsewhere."""
    layer, x = nn.Linear(4, 4), rand(4, 4, seed=3).requires_grad_()
    model, dy = Checkpointed(layer, reentrant), rand(4, 4, seed=5)
    with simulator.emulate(model, "npu", layers=PLACED):
        model(x).backward(dy)
    assert torch.equal(layer.weight.grad, gradient_of_second(x.detach(), dy).T)


@pytest.mark.full
def test_long_graphs():
    layer, x = nn.LSTM(2, 2), rand(8000, 1, 2)
    with simulator.emulate(layer, NPU, layers={"*": VALUES}) as run:
        layer(x)[0].sum().backward()
    assert not [text for text in run.result.warnings if "not emulated" in text]
