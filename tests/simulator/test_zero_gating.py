"""Zeros of the quantised operands, measured while a network runs on a machine that gates them."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from formats import get  # noqa: E402
from simulator.arithmetic.convolution import Geometry  # noqa: E402
from simulator.arithmetic.zeros import zero_macs  # noqa: E402
from simulator.cost import Gemm, price  # noqa: E402
from simulator.hardware import load_hardware  # noqa: E402
from simulator.network.emulation import emulate  # noqa: E402

PLAIN = load_hardware("npu")
NPU = replace(PLAIN, mac=replace(PLAIN.mac, zero_gating=True))
E4M3 = get("fp8_e4m3")


def sparse(*shape, seed=0, share=0.4):
    generator = np.random.default_rng(seed)
    x = generator.standard_normal(shape) * np.exp(4 * generator.standard_normal(shape))
    return torch.tensor(x * (generator.random(shape) > share), dtype=torch.float32)


def counted(a, b):
    """Every multiply-accumulate looked at for itself."""
    return int(((a[:, :, None] == 0) | (b[None, :, :] == 0)).sum())


def test_zeros_of_a_product_are_those_of_all_its_terms():
    a, b = sparse(7, 11).numpy(), sparse(11, 5, seed=1).numpy()
    a[0, 0] = -0.0
    a[1, 0] = np.nan  # no zero
    assert zero_macs(a, b) == counted(a, b)
    image = sparse(2, 3, 6, 5).numpy()
    windows = Geometry((3, 2), (2, 1), ((1, 1), (0, 1)), (1, 2)).windows(image)
    rows = np.array([windows.row(i) for i in range(windows.shape[0])])
    weights = sparse(rows.shape[1], 4, seed=2).numpy()
    assert zero_macs(windows, weights) == counted(rows, weights)


def layers_of(model, x, machine=NPU, **options):
    with torch.no_grad(), emulate(model, machine, **options) as run:
        model(x)
    return run.result


@pytest.mark.parametrize("mode", ["low", "high", "two_pass"])
def test_zeros_are_those_of_the_operands_as_they_are_quantised(mode):
    model = nn.Sequential(nn.Linear(30, 20, bias=True)).eval()
    with torch.no_grad():
        model[0].weight.copy_(sparse(20, 30, seed=3) * 1e-2)  # some weights underflow
    x = sparse(9, 30)
    (layer,) = layers_of(model, x, layers={"*": mode}).layers
    quantised = [E4M3.quantize(tensor.detach().numpy(), overflow="sat") for tensor in (x, model[0].weight)]
    expected = counted(quantised[0], quantised[1].T)
    assert layer.zero_macs == expected > counted(x.numpy(), model[0].weight.detach().numpy().T)
    assert "MACs with a zero operand" in {item.what for item in layer.energy_items}
    if mode != "two_pass":
        assert layer.energy_j == pytest.approx(
            price(NPU, Gemm(9, 20, 30), mode, zeros=expected).energy_j, rel=1e-9, abs=0
        )


def test_zeros_around_an_image_count():
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, groups=2, bias=False)).eval()
    x = torch.ones(3, 2, 5, 5)
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    (layer,) = layers_of(model, x, layers={"*": "low"}).layers
    # Of 25 windows of 9 the border leaves 13^2 pairs of position and neighbour inside.
    assert layer.zero_macs == 3 * 4 * (25 * 9 - 13 * 13)


def test_scales_and_batches_change_no_count_of_zeros():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 8)).eval()
    x = sparse(6, 64)
    scaled = {
        "*": {"mac": "low", "activations": {"per": "block", "block": 16}, "weights": {"per": "block", "block": 16}}
    }
    (whole,) = layers_of(model, x, layers=scaled).layers
    with torch.no_grad(), emulate(model, NPU, layers=scaled) as run:
        for row in x.split([1, 3, 2]):
            model(row)
    assert run.result.layers[0].zero_macs == whole.zero_macs >= 8 * int((x == 0).sum())
    few = {"*": {"mac": "low", "activations": {"per": "tensor"}, "weights": {"per": "tensor"}}}
    assert 0 < layers_of(model, x, layers=few).layers[0].zero_macs < whole.macs


def test_steps_of_a_recurrent_layer_add_up():
    torch.manual_seed(0)
    model = nn.RNN(5, 6, batch_first=True).eval()
    result = layers_of(model, sparse(2, 7, 5), layers={"*": "low"})
    for layer in result.layers:
        assert sum(item.energy_j for item in layer.energy_items) == pytest.approx(layer.energy_j, rel=1e-9, abs=0)
        assert sum(item.cycles for item in layer.cycle_items) == layer.cycles
        resting = [item for item in layer.energy_items if item.what == "MACs with a zero operand"]
        assert sum(item.count for item in resting) == layer.zero_macs


def test_without_gating_nothing_is_counted_and_what_has_no_price_has_no_zeros():
    model = nn.Sequential(nn.Linear(30, 20)).eval()
    assert layers_of(model, sparse(4, 30), PLAIN).layers[0].zero_macs is None
    assert layers_of(model, sparse(4, 30), layers={"*": "exact"}).layers[0].zero_macs is None
    with torch.no_grad(), emulate(model, NPU) as run:
        model(sparse(4, 30))
    assert run.result.warnings == ()
