"""Scales of operands: which are chosen, and that outputs are those of the quantised operands times the scales."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import simulator  # noqa: E402
from formats import Use  # noqa: E402
from simulator.errors import InputError  # noqa: E402
from simulator.hardware import Scaling, load_hardware  # noqa: E402
from simulator.network.scales import Magnitudes, chosen, measured  # noqa: E402

NPU = load_hardware("npu")
FMA = "fp8_e4m3 -> fma(fp32)"


def rand(*shape, seed=0, spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * torch.exp(spread * torch.randn(shape, generator=generator))


def as_array(x):
    return x.detach().numpy().astype(np.float32)


# --- which scale ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fp8_e4m3", "fp8_e5m2", "int8", "int4", "fp4_e2m1"])
@pytest.mark.parametrize("powers_of_two", [True, False])
def test_the_largest_magnitude_becomes_the_largest_value(name, powers_of_two):
    use, x = Use.parse(name), as_array(rand(6, 200))
    scales = measured(x, use, Scaling(powers_of_two=powers_of_two))
    for scale, row in zip(scales.tolist(), np.abs(x), strict=True):
        exact = float(row.max()) / use.format.max
        if powers_of_two:
            assert math.frexp(scale)[0] == 0.5 and scale / 2 < exact <= scale
        else:
            assert scale == np.float32(exact)


def test_a_magnitude_that_is_the_largest_value_needs_no_scale():
    assert measured(np.array([[448.0, -3.0]], np.float32), Use.parse("fp8_e4m3"), Scaling()).tolist() == [1.0]


def test_zeros_and_what_is_not_finite_do_not_count():
    use = Use.parse("int8")
    x = np.array([[0.0, -0.0, 0.0], [np.nan, np.inf, 127.0], [np.inf, -np.inf, np.nan]], np.float32)
    for method in ("max", "percentile", "mse"):
        assert measured(x, use, Scaling(method=method, percentile=50.0)).tolist() == [1.0, 1.0, 1.0]
    assert measured(np.zeros((2, 0), np.float32), use, Scaling()).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("share", [50.0, 90.0, 99.9, 100.0])
def test_percentiles_of_the_magnitudes_that_are_not_zero(share):
    x = as_array(rand(4, 3000))
    x[:, ::3] = 0
    magnitudes = Magnitudes(4, counted=True)
    for part in np.array_split(x, 5, axis=1):
        magnitudes.add(part)
    for found, row in zip(magnitudes.percentile(share), np.abs(x), strict=True):
        exact = np.sort(row[row > 0])[math.ceil(share / 100 * np.count_nonzero(row)) - 1]
        assert exact <= found <= exact * (1 + 2**-5)


@pytest.mark.parametrize("name", ["int4", "fp4_e2m1", "int8", "posit8", "takum8"])
@pytest.mark.parametrize("powers_of_two", [True, False])
def test_the_scale_of_the_least_error_is_the_best_of_all_tried(name, powers_of_two):
    use, x = Use(Use.parse(name).format, overflow="sat"), as_array(rand(1, 4000, spread=0.3))

    def error(scale):
        return float(np.square(x - use.quantize(x / scale) * scale).mean())

    (scale,) = measured(x, use, Scaling(method="mse", powers_of_two=powers_of_two)).tolist()
    if powers_of_two:
        assert math.frexp(scale)[0] == 0.5
    candidates = [scale * 2.0 ** (i / (1 if powers_of_two else 8)) for i in range(-6, 7)]
    assert error(scale) <= 1.01 * min(map(error, candidates))


def test_calibration_over_batches_is_calibration_at_once():
    x, use = as_array(rand(3, 900)), Use.parse("int8")
    for method in ("max", "percentile", "mse"):
        scaling = Scaling(method=method, percentile=99.0)
        magnitudes = Magnitudes(3, counted=method != "max")
        for part in np.array_split(x, 7, axis=1):
            magnitudes.add(part)
        assert chosen(magnitudes, use, scaling).tolist() == measured(x, use, scaling).tolist()


# --- what is computed -------------------------------------------------------------------------------------------------


def emulated(layer, x, rule, calibrate=None):
    run = simulator.emulate(layer, NPU, layers={"*": rule})
    if calibrate is not None:
        run.calibrate(calibrate)
    with run, torch.no_grad():
        y = layer(x)
    (record,) = run.result.layers
    return y, record


def scale_of(x, to=448.0):
    """The scale of an array as one cell, by the definition of max."""
    exact = float(np.abs(x).max()) / to
    return np.float32(2.0 ** math.ceil(math.log2(exact)))


def product(mac, a, b):
    return simulator.matmul(a, b, mac=mac).astype(np.float32)


SATURATING = "fp8_e4m3/sat -> fma(fp32)"


def test_per_tensor():
    layer, x = nn.Linear(40, 7), rand(5, 40)
    y, record = emulated(layer, x, {"mac": FMA, "activations": "tensor", "weights": "tensor"})
    a, w = as_array(x), as_array(layer.weight)
    s, t = scale_of(a), scale_of(w)
    assert np.array_equal(as_array(y), product(SATURATING, a / s, w.T / t) * s * t + as_array(layer.bias))
    assert record.mac == SATURATING


def test_per_row_and_per_output_channel():
    layer, x = nn.Linear(40, 7), rand(5, 40)
    y, _ = emulated(layer, x, {"mac": FMA, "activations": "row", "weights": "channel"})
    a, w = as_array(x), as_array(layer.weight)
    s = np.array([[scale_of(row)] for row in a])
    t = np.array([scale_of(row) for row in w])
    assert np.array_equal(as_array(y), product(SATURATING, a / s, w.T / t) * s * t + as_array(layer.bias))


def test_scales_of_input_channels_move_into_the_weights():
    layer, x = nn.Linear(40, 7), rand(5, 40)
    y, _ = emulated(layer, x, {"mac": FMA, "activations": "channel", "weights": "tensor"})
    a, w = as_array(x), as_array(layer.weight)
    s = np.array([scale_of(column) for column in a.T])
    moved = w.T * s[:, None]
    t = scale_of(moved)
    assert np.array_equal(as_array(y), product(SATURATING, a / s, moved / t) * t + as_array(layer.bias))


def test_blocks_are_summed_apart_and_added_in_float32():
    layer, x = nn.Linear(40, 7), rand(5, 40)
    blocks = {"per": "block", "block": 16}
    y, _ = emulated(layer, x, {"mac": FMA, "activations": blocks, "weights": blocks})
    a, w = as_array(x), as_array(layer.weight)
    total = np.float32(0)
    for first in (0, 16, 32):  # the last block is half full
        own, other = a[:, first : first + 16], w[:, first : first + 16]
        s = np.array([[scale_of(row)] for row in own])
        t = np.array([scale_of(row) for row in other])
        total = total + product(SATURATING, own / s, other.T / t) * s * t
    assert np.array_equal(as_array(y), total + as_array(layer.bias))


def test_of_a_convolution_per_image_and_per_output_channel():
    layer, x = nn.Conv2d(4, 6, 3, groups=2, padding=1), rand(3, 4, 5, 5)
    y, _ = emulated(layer, x, {"mac": FMA, "activations": "row", "weights": "channel"})
    a, w = as_array(x), as_array(layer.weight)
    s = np.array([scale_of(image) for image in a])
    t = np.array([scale_of(kernel) for kernel in w])
    sums = simulator.convolution(
        a / s[:, None, None, None], w / t[:, None, None, None], SATURATING, padding=1, groups=2
    )
    wanted = sums * s[:, None, None, None] * t[None, :, None, None] + as_array(layer.bias)[None, :, None, None]
    assert np.array_equal(as_array(y), wanted.astype(np.float32))


def test_of_a_convolution_in_blocks_of_channels():
    layer, x = nn.Conv2d(6, 4, 3, bias=False), rand(2, 6, 5, 5)
    blocks = {"per": "block", "block": 4}
    y, _ = emulated(layer, x, {"mac": FMA, "activations": blocks, "weights": blocks})
    a, w = as_array(x), as_array(layer.weight)
    total = np.float32(0)
    for part in (slice(0, 4), slice(4, 6)):
        s = np.array([scale_of(image) for image in a[:, part]])[:, None, None, None]
        t = np.array([scale_of(kernel) for kernel in w[:, part]])[:, None, None, None]
        sums = simulator.convolution(a[:, part] / s, w[:, part] / t, SATURATING)
        total = total + sums * s * t[None, :, 0]
    assert np.array_equal(as_array(y), total)


def test_of_a_convolution_per_input_channel_in_groups():
    layer, x = nn.Conv2d(4, 6, 3, groups=2, bias=False), rand(3, 4, 5, 5)
    y, _ = emulated(layer, x, {"mac": FMA, "activations": "channel"})
    a, w = as_array(x), as_array(layer.weight)
    s = np.array([scale_of(a[:, channel]) for channel in range(4)])
    moved = w * np.repeat(s.reshape(2, 2), 3, axis=0)[:, :, None, None]
    assert np.array_equal(as_array(y), simulator.convolution(a / s[None, :, None, None], moved, SATURATING, groups=2))


def test_powers_of_two_change_only_where_values_fall():
    """Of operands that the format holds anyway, without under- or overflow, a power of two changes no bit."""
    layer, x = nn.Linear(32, 7, bias=False), torch.randint(-8, 8, (5, 32)).float()
    layer.weight.data = torch.randint(-8, 8, (7, 32)).float()
    plain, _ = emulated(layer, x, {"mac": "fp8_e4m3 -> exact(fp32)"})
    scaled, _ = emulated(layer, x, {"mac": "fp8_e4m3 -> exact(fp32)", "activations": "row", "weights": "channel"})
    assert torch.equal(plain, scaled)


def test_int8_without_scales_is_useless_and_with_them_close():
    layer, x = nn.Linear(64, 16), torch.randn(10, 64, generator=torch.Generator().manual_seed(1))
    exact = layer(x).detach()
    rule = {"mac": "int8 -> exact(fp32)"}
    plain, _ = emulated(layer, x, rule)
    scaled, _ = emulated(layer, x, rule | {"activations": {"per": "row", "powers_of_two": False}, "weights": "channel"})
    assert (plain - exact).norm() > 0.5 * exact.norm()
    assert (scaled - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("scaling", [
    {"per": "tensor"}, {"per": "channel"}, {"per": "tensor", "method": "mse"},
    {"per": "tensor", "method": "percentile", "percentile": 99.0},
])  # fmt: skip
@pytest.mark.parametrize("layer, shape", [(nn.Linear(40, 7), (6, 40)), (nn.Conv2d(4, 6, 3), (6, 4, 5, 5))])
def test_calibrated_on_the_very_samples_is_dynamic(scaling, layer, shape):
    x = rand(*shape)
    rule = {"mac": FMA, "activations": scaling}
    dynamic, _ = emulated(layer, x, rule)
    calibrated, _ = emulated(layer, x, {"mac": FMA, "activations": scaling | {"when": "calibrated"}}, calibrate=x)
    assert torch.equal(dynamic, calibrated)


def test_calibrated_scales_stay_and_saturate():
    layer, x = nn.Linear(40, 7, bias=False), rand(6, 40)
    rule = {"mac": FMA, "activations": {"when": "calibrated"}}
    run = simulator.emulate(layer, NPU, layers={"*": rule})
    run.calibrate(x)
    run.calibrate(x / 2)  # adds nothing larger
    with run, torch.no_grad():
        y = layer(8 * x)
    s = scale_of(as_array(x))
    assert np.array_equal(as_array(y), product(SATURATING, as_array(8 * x) / s, as_array(layer.weight).T) * s)


def test_calibrated_blocks_of_a_convolution():
    layer, x = nn.Conv2d(6, 4, 3, bias=False), rand(2, 6, 5, 5)
    rule = {"mac": FMA, "activations": {"per": "block", "block": 4, "when": "calibrated"}}
    y, _ = emulated(layer, x, rule, calibrate=x)
    a, w = as_array(x), as_array(layer.weight)
    total = np.float32(0)
    for part in (slice(0, 4), slice(4, 6)):
        s = scale_of(a[:, part])
        total = total + simulator.convolution(a[:, part] / s, w[:, part], SATURATING) * s
    assert np.array_equal(as_array(y), total)


def test_without_calibration_there_is_a_message():
    layer = nn.Linear(4, 3)
    run = simulator.emulate(layer, NPU, layers={"*": {"mac": FMA, "activations": {"when": "calibrated"}}})
    with pytest.raises(InputError, match=r"Linear: its scales are calibrated.*call calibrate\(samples\)"), run:
        layer(rand(2, 4))


def test_two_passes_score_what_the_activation_sees():
    """Scales and addend stand before the score; the second pass has the same scales."""
    model, x = nn.Sequential(nn.Linear(64, 16), nn.ReLU()), rand(10, 64, spread=0.5)
    rule = {"mac": "two_pass", "activations": {"to": 2.0}, "weights": {"per": "channel", "to": 1.0}}
    with simulator.emulate(model, NPU, layers={"0": rule}) as run, torch.no_grad():
        y = model(x)
    a, w, c = as_array(x), as_array(model[0].weight), as_array(model[0].bias)
    s, t = scale_of(a, to=2.0), np.array([scale_of(row, to=1.0) for row in w])
    low, high = NPU.mac.low.spec, NPU.mac.high.spec
    passes = [simulator.matmul(a / s, w.T / t, mac=spec, stats="overflows") for spec in (low, high)]
    first, second = (sums.astype(np.float32) * s * t + c for sums, _ in passes)
    with np.errstate(divide="ignore"):
        keep = np.where(first < 0, 0, 1 / np.abs(first)) <= NPU.policy.tolerance
    keep &= np.isfinite(first) & ~passes[0][1].overflowed
    wanted = np.where(keep, first, second)
    assert np.array_equal(as_array(y), np.maximum(wanted, 0))
    assert 0 < run.result.layers[0].recomputed_outputs == np.count_nonzero(~keep) < keep.size


def test_scales_of_weights_are_found_once_until_the_weights_change(monkeypatch):
    from simulator.network import scaled

    calls = []
    measure = scaled.measured
    monkeypatch.setattr(scaled, "measured", lambda *args: calls.append(1) or measure(*args))
    layer, x = nn.Linear(40, 7), rand(5, 40, spread=0.5)
    rule = {"mac": FMA, "weights": {"per": "channel", "method": "mse"}}
    run = simulator.emulate(layer, NPU, layers={"*": rule})
    with run, torch.no_grad():
        first = [layer(x), layer(x)]
        assert len(calls) == 1 and torch.equal(*first)
        layer.weight.data.mul_(3.0)  # which torch does not count as a new version
        changed = layer(x)
        assert len(calls) == 2
    wanted, _ = emulated(layer, x, rule)
    assert torch.equal(changed, wanted)
    layer.weight.data.mul_(0.5)
    with run, torch.no_grad():
        again = layer(x)
    assert torch.equal(again, emulated(layer, x, rule)[0])


def test_gradients_are_scaled_per_tensor():
    layer, x = nn.Linear(40, 7, bias=False), rand(5, 40).requires_grad_()
    with simulator.emulate(layer, NPU, layers={"*": {"mac": FMA, "activations": "row", "weights": "channel"}}):
        y = layer(x)
        y.backward(dy := 1e-6 * rand(5, 7, seed=3))  # far below what fp8 holds
    g, w, a = as_array(dy), as_array(layer.weight), as_array(x)
    s, t, u = scale_of(g), scale_of(w), scale_of(a)
    assert np.array_equal(as_array(x.grad), product(SATURATING, g / s, w / t) * s * t)
    assert np.array_equal(as_array(layer.weight.grad), product(SATURATING, g.T / s, a / u) * s * u)
    assert x.grad.abs().max() > 0


@pytest.mark.parametrize(
    "mac", ["mxfp8_e4m3 -> fma(fp32)", "int8 -> exact(fp32)", "posit8 -> fma(posit16)", FMA, "bf16 -> fma(bf16)"]
)
@pytest.mark.parametrize("scaling", [{"to": 32.0}, {"method": "mse"}])
def test_every_kind_of_operand_can_be_scaled_per_tensor(mac, scaling):
    layer, x = nn.Linear(64, 7, bias=False), 1e-4 * rand(5, 64, spread=0.5)
    y, _ = emulated(layer, x, {"mac": mac, "activations": scaling, "weights": scaling})
    assert (y - layer(x)).norm() < 0.2 * layer(x).norm()


def test_room_for_the_sums_of_a_narrow_accumulator():
    """Two operands at 448 overflow fp16 at once; at 4 their sums have room."""
    layer, x = nn.Linear(64, 7, bias=False), rand(5, 64, spread=0.5)
    for to, finite in ((448.0, False), (4.0, True)):
        scaling = {"to": to}
        y, record = emulated(layer, x, {"mac": "fp8_e4m3 -> fma(fp16)", "activations": scaling, "weights": scaling})
        assert bool(y.isfinite().all()) is finite and (record.overflows == 0) is finite


@pytest.mark.parametrize(
    "rule, message",
    [
        ({"mac": "fma(fp16)", "weights": "tensor"}, r"takes its operands as they are; .*add e.g. operands: fp8_e4m3"),
        (
            {"mac": "posit8 -> fma(posit16)", "weights": "tensor"},
            "posit8: got scales by max .* densest around 1; .*method: mse",
        ),
        (
            {"mac": "bf16 -> fma(fp32)", "weights": "tensor"},
            "bf16: got scales by max .* up to 3.39e.38; .*add e.g. to: 1",
        ),
        ({"mac": "low", "weights": {"to": 3, "method": "mse"}}, "to: got it with method: mse"),
        ({"mac": "mxfp8_e4m3 -> fma(fp32)", "weights": "channel"}, "its blocks have their own; expected per: tensor"),
        ({"mac": "two_pass", "weights": {"per": "block", "block": 32}}, "scales per block with two passes"),
        ({"mac": "low", "weights": "row"}, "weights: per: got row"),
        ({"mac": "low", "weights": {"per": "block"}}, "per: block without its size"),
        ({"mac": "low", "activations": {"block": 32}}, "got block: 32 with per: tensor"),
        ({"mac": "low", "activations": {"percentile": 99}}, "method: max; expected method: percentile"),
        ({"mac": "low", "weights": {"when": "calibrated"}}, "got calibrated for weights"),
        ({"mac": "low", "activations": {"per": "row", "when": "calibrated"}}, "got calibrated for rows"),
        ({"mac": "float32", "weights": "tensor"}, "beside mac: float32"),
        ({"mac": "high", "policy": {"tolerance": 1}}, "beside mac: high, which has one pass"),
        ({"mac": FMA, "operands": "int8"}, "which may name operands"),
        (
            {"activations": {"per": "block", "block": 32}, "weights": {"per": "block", "block": 16}, "mac": "low"},
            "blocks of 16 with activations in blocks of 32",
        ),
    ],
)
def test_what_cannot_be_scaled_is_refused(rule, message):
    with pytest.raises(InputError, match=message):
        simulator.emulate(nn.Linear(64, 3), NPU, layers={"*": rule})


def test_scales_that_leave_no_room_are_in_the_warnings():
    layer, x = nn.Linear(64, 7, bias=False), rand(5, 64, spread=0.5)
    for to, warned in ((448.0, True), (4.0, False)):
        rule = {"mac": "fp8_e4m3 -> fma(fp16)", "activations": {"to": to}, "weights": {"to": to}}
        with simulator.emulate(layer, NPU, {"*": rule}) as run:
            layer(x)
        found = [text for text in run.result.warnings if "needs room for its sums" in text]
        assert bool(found) is warned and (run.result.layers[0].overflows > 0) is warned


def test_a_place_beyond_the_format_is_refused():
    with pytest.raises(InputError, match="fp8_e4m3: got scales to 1000, beyond its largest value 448"):
        simulator.emulate(nn.Linear(4, 3), NPU, {"*": {"mac": FMA, "activations": {"to": 1000}}})


def test_weights_that_move_or_overlap_are_quantised_anew():
    rule = {"*": "fp8_e4m3 -> fma(fp32)"}
    memory = torch.linspace(-2, 2, 64)
    outer, inner = nn.Linear(8, 8, bias=False), nn.Linear(4, 4, bias=False)
    outer.weight, inner.weight = nn.Parameter(memory.view(8, 8)), nn.Parameter(memory[16:32].view(4, 4))
    model, x = nn.ModuleList([outer, inner]), rand(3, 8, spread=0.5)
    with simulator.emulate(model, NPU, rule), torch.no_grad():
        outer(x)
        inner(x[:, :4])
        inner.weight.mul_(3)
        changed = outer(x)
        outer.weight.data = torch.linspace(1, -1, 64).view(8, 8)
        moved = outer(x)
        outer.weight.mul_(0.5)
        halved = outer(x)
    for found, weight in (
        (moved, torch.linspace(1, -1, 64).view(8, 8)),
        (halved, torch.linspace(0.5, -0.5, 64).view(8, 8)),
    ):
        assert np.array_equal(as_array(found), product(FMA, as_array(x), as_array(weight).T))
    assert np.array_equal(as_array(changed), product(FMA, as_array(x), as_array(memory).reshape(8, 8).T))


def test_one_weight_under_two_rules_is_made_ready_for_each():
    """Blocks of activations cut the weight too, elsewhere for each size."""
    first, second = nn.Linear(32, 7, bias=False), nn.Linear(32, 7, bias=False)
    second.weight = first.weight
    model, x = nn.ModuleList([first, second]), rand(5, 32, spread=0.5)
    rules = {
        "0": {"mac": FMA, "activations": {"per": "block", "block": 16}},
        "1": {"mac": FMA, "activations": {"per": "block", "block": 8}},
    }
    with simulator.emulate(model, NPU, rules), torch.no_grad():
        found = [first(x), second(x)]
    for y, rule in zip(found, rules.values(), strict=True):
        assert torch.equal(y, emulated(nn.Sequential(first)[0], x, rule)[0])
