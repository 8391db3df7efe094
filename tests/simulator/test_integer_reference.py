"""Whole layers against the definition in Python's integers: convolution, attention, LSTM, bit for bit."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import simulator  # noqa: E402
from tests.oracles.layers import by_definition, unfolded  # noqa: E402

MACS = ["fp8_e4m3 -> fma(fp16)", "bf16 -> seq(bf16)", "fp8_e4m3 -> chunk(4, fma(fp16), seq(fp32))", "h100.fp16"]


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def emulated(model, mac, *args):
    with simulator.emulate(model, "npu", layers={"*": mac}), torch.no_grad():
        return model(*args)


@pytest.mark.parametrize("mac", MACS)
def test_a_convolution(mac):
    layer, x = nn.Conv2d(2, 3, 3, stride=2, padding=1), rand(2, 2, 5, 6)
    rows = unfolded(x.numpy(), (3, 3), (2, 2), (1, 1), (1, 1))
    weight, bias = layer.weight.detach().reshape(3, -1).T, layer.bias.detach()
    wanted = torch.stack([by_definition(mac, image, weight, bias) for image in rows])
    assert torch.equal(emulated(layer, mac, x).flatten(2), wanted.transpose(1, 2))


@pytest.mark.parametrize("mac", MACS)
def test_attention(mac):
    """Four projections, the two products of each head, softmax in between in float32."""
    layer, x = nn.MultiheadAttention(8, 2, batch_first=True).eval(), rand(1, 5, 8)
    with torch.no_grad():
        projected = by_definition(mac, x[0], layer.in_proj_weight.T, layer.in_proj_bias)
        q, k, v = (part.unflatten(1, (2, 4)).transpose(0, 1) for part in projected.split(8, dim=1))
        heads = []
        for head in range(2):
            scores = by_definition(mac, q[head] * 4**-0.5, k[head].T)
            heads.append(by_definition(mac, scores.softmax(-1), v[head]))
        wanted = by_definition(mac, torch.cat(heads, 1), layer.out_proj.weight.T, layer.out_proj.bias)
    assert torch.equal(emulated(layer, mac, x, x, x)[0][0], wanted)


@pytest.mark.parametrize("mac", MACS)
def test_scaled_dot_product_attention(mac):
    class Attention(nn.Module):
        def forward(self, q, k, v):
            return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    q, k, v = (rand(1, 1, 5, 4, seed=i) for i in range(3))
    scale = 4**-0.25  # torch gives one half of the scale to each operand
    scores = by_definition(mac, q[0, 0] * scale, k[0, 0].T * scale)
    scores = scores + torch.full((5, 5), -torch.inf).triu(1)
    wanted = by_definition(mac, scores.softmax(-1), v[0, 0])
    assert torch.equal(emulated(Attention(), mac, q, k, v)[0, 0], wanted)


@pytest.mark.parametrize("mac", MACS)
def test_an_lstm(mac):
    layer, x = nn.LSTM(4, 3), rand(3, 2, 4)
    weights = [w.detach() for w in (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0)]
    w_ih, w_hh, b_ih, b_hh = weights
    from_inputs = by_definition(mac, x.flatten(0, 1), w_ih.T, b_ih).unflatten(0, (3, 2))
    h = c = torch.zeros(2, 3)
    wanted = []
    for inputs in from_inputs:
        gates = by_definition(mac, h, w_hh.T, b_hh) + inputs
        i, f, g, o = gates.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        wanted.append(h)
    assert torch.equal(emulated(layer, mac, x)[0], torch.stack(wanted))
