"""Memory of the emulation: bounded by that of torch, and no bit depends on how work is divided for it."""

import sys
import tracemalloc
from importlib import import_module

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import simulator  # noqa: E402
from simulator.arithmetic.convolution import Geometry  # noqa: E402
from simulator.cost import Gemm, price  # noqa: E402
from simulator.hardware import load_hardware  # noqa: E402
from simulator.network.packed import PackedFlags  # noqa: E402
from tests.bench import memory  # noqa: E402
from tests.oracles.bits import assert_same_bits  # noqa: E402

measured = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")

# Where work is divided, and sizes that divide all of it.
SIZES = {
    "strips": {"ELEMENTS": 60, "LEAST_ROWS": 2},
    "convolution": {"PART_ELEMENTS": 60, "STRIP_ELEMENTS": 60},
    "engine": {"PART_ELEMENTS": 70},
    "ladder": {"SCORED_AT_ONCE": 7, "LISTED_AT_ONCE": 11},
}

LAYERS = {
    "linear": (lambda: nn.Linear(9, 5), (23, 9)),
    "stack": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), (3, 7, 8)),
    "conv2d": (lambda: nn.Conv2d(2, 3, 3, padding=1), (3, 2, 8, 7)),
    "groups": (lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 2), groups=2), (2, 4, 9, 8)),
    "beyond the image": (lambda: nn.Conv2d(2, 3, 2, padding=4, dilation=3), (2, 2, 3, 4)),
    "conv1d": (lambda: nn.Conv1d(2, 4, 3, stride=2), (2, 2, 31)),
    "conv3d": (lambda: nn.Conv3d(1, 2, 2, padding=1), (2, 1, 3, 4, 5)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 2, 3, (3, 2), 1, (2, 1), 2), (2, 4, 4, 3)),
    "cut": (lambda: nn.ConvTranspose2d(2, 3, 2, padding=2), (1, 2, 5, 5)),
}

ARITHMETICS = [
    "low", "two_pass", "fma(fp32)", "fp8_e5m2/sr:5 -> fma(fp16/sr:7) -> bf16/sr", "mxfp8_e4m3 -> fma(fp32)",
    "nvfp4 -> fma(fp32)", "posit16 -> fma(fp32)", "fp8_e4m3 -> reverse(4, fma(fp16))",
]  # fmt: skip


def emulated(build, shape, arithmetic):
    torch.manual_seed(4)
    layer = build().eval()
    x = torch.randn(shape)
    x[x > 1.5] = 0.0
    with torch.no_grad(), simulator.emulate(layer, "npu", layers={"*": arithmetic}, seed=3) as run:
        y = layer(x, x, x)[0] if isinstance(layer, nn.MultiheadAttention) else layer(x)
    return y.numpy(), run.result.layers


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("layer", LAYERS)
def test_no_bit_depends_on_how_the_work_is_divided(layer, arithmetic, monkeypatch):
    build, shape = LAYERS[layer]
    whole, record = emulated(build, shape, arithmetic)
    for module, sizes in SIZES.items():
        for name, size in sizes.items():
            monkeypatch.setattr(import_module(f"simulator.arithmetic.{module}"), name, size)
    parts, again = emulated(build, shape, arithmetic)
    assert_same_bits(parts, whole)
    assert again == record


def test_parts_of_an_image_are_its_windows(monkeypatch):
    """The rows of all parts in a row are those of the unfolded image, whatever the spread and the padding."""
    x = np.arange(1.0, 1 + 2 * 2 * 5 * 4).reshape(2, 2, 5, 4)
    for spread, padding in (((1, 1), ((1, 2), (0, 1))), ((3, 2), ((2, 0), (-1, 3))), ((2, 1), ((-3, -1), (0, 0)))):
        geometry = Geometry((2, 3), (2, 1), padding, (1, 1), spread)
        sizes = [(size - 1) * step + 1 for size, step in zip(x.shape[2:], spread, strict=True)]
        image = np.zeros((2, 2, *sizes))
        image[:, :, :: spread[0], :: spread[1]] = x
        image = np.pad(image, [(0, 0), (0, 0), *((max(0, b), max(0, e)) for b, e in padding)])
        image = image[
            (..., *(slice(max(0, -b), n - max(0, -e)) for n, (b, e) in zip(image.shape[2:], padding, strict=True)))
        ]
        windows = np.lib.stride_tricks.sliding_window_view(image, (2, 3), axis=(2, 3))[:, :, ::2]
        wanted = np.moveaxis(windows, 1, 3).reshape(-1, 2 * 2 * 3)
        for size in (1, 50, 1 << 20):
            monkeypatch.setattr(import_module("simulator.arithmetic.convolution"), "PART_ELEMENTS", size)
            parts = list(geometry.parts(x, 4))
            assert [rows.start for rows, _ in parts] == [0, *(rows.stop for rows, _ in parts[:-1])]
            rows = [part.row(i) for _, part in parts for i in range(part.shape[0])]
            assert np.array_equal(rows, wanted)


def test_flags_are_priced_without_unpacking_all_of_them():
    flags, mask = PackedFlags(1, 4096, 64, False), np.random.default_rng(1).random((1, 4096, 64)) < 0.03
    tracemalloc.start()
    for _ in range(256):  # 67 million
        flags.add(mask)
    cost = price(load_hardware("npu"), Gemm(4096 * 256, 64, 9), "two_pass", flags.counts())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert cost.flagged_outputs == 256 * mask.sum()
    assert peak < 20 << 20


@measured
def test_a_layer_of_many_outputs_takes_no_more_than_twice_the_memory_of_torch():
    """Of 34 million outputs; scores of them all would take 270 MB, and twice as much to be computed."""
    peaks = memory.peaks("linear of many rows", "two_pass")
    assert peaks.emulated <= peaks.bound, peaks


@pytest.mark.full
@measured
@pytest.mark.parametrize("arithmetic", memory.ARITHMETICS)
@pytest.mark.parametrize("network", memory.networks())
def test_no_network_takes_more_than_twice_the_memory_of_torch(network, arithmetic):
    peaks = memory.peaks(network, arithmetic)
    assert peaks.emulated <= peaks.bound, peaks
