"""Convolutions against matmul on unfolded images, and against torch where nothing rounds."""

import itertools
import tracemalloc

import numpy as np
import pytest

import formats
import simulator
from tests.oracles.bits import assert_same_bits

torch = pytest.importorskip("torch")
SEED = 900
functional = torch.nn.functional


def whole_numbers(*shape):
    return np.random.default_rng(SEED).integers(-3, 4, shape).astype(float)


SETTINGS = [
    ((2, 4, 9), (6, 4, 3), {}),
    ((2, 4, 9), (6, 2, 3), {"groups": 2, "stride": 2, "padding": 1}),
    ((3, 2, 7, 8), (4, 2, 3, 2), {"padding": (2, 0), "dilation": (1, 3), "stride": (2, 1)}),
    ((1, 6, 6, 5), (6, 1, 3, 3), {"groups": 6, "padding": 1}),
    ((2, 1, 4, 5, 6), (2, 1, 2, 2, 3), {"stride": (1, 2, 1)}),
    ((0, 2, 5), (3, 2, 2), {}),
]


@pytest.mark.parametrize(("image", "kernel", "settings"), SETTINGS, ids=str)
def test_where_nothing_rounds_it_is_torchs(image, kernel, settings):
    x, weight = whole_numbers(*image), whole_numbers(*kernel)
    bias = np.arange(kernel[0], dtype=float)
    dims = len(image) - 2
    convolve = getattr(functional, f"conv{dims}d")
    expected = convolve(*(torch.from_numpy(v) for v in (x, weight, bias)), **settings).numpy()
    assert np.array_equal(simulator.convolution(x, weight, "fma(fp32)", bias=bias, **settings), expected)


TRANSPOSED = [
    ((2, 4, 5), (4, 3, 3), {}),
    ((2, 4, 5), (4, 3, 3), {"stride": 3, "padding": 1, "output_padding": 2}),
    ((2, 4, 5), (4, 1, 2), {"groups": 2, "stride": 2, "padding": 1}),
    ((1, 2, 4, 3), (2, 3, 3, 2), {"stride": (2, 1), "dilation": (1, 2), "output_padding": (1, 1)}),
    ((1, 2, 4, 4), (2, 3, 2, 2), {"padding": 2}),
]


@pytest.mark.parametrize(("image", "kernel", "settings"), TRANSPOSED, ids=str)
def test_a_transposed_one_where_nothing_rounds_is_torchs(image, kernel, settings):
    x, weight = whole_numbers(*image), whole_numbers(*kernel)
    convolve = getattr(functional, f"conv_transpose{len(image) - 2}d")
    expected = convolve(torch.from_numpy(x), torch.from_numpy(weight), **settings).numpy()
    assert np.array_equal(simulator.convolution(x, weight, "fma(fp32)", transposed=True, **settings), expected)


SPECS = [
    "fma(fp16)", "fp8_e4m3 -> fma(fp16)", "fp16 -> seq(bf16) -> fp8_e5m2", "fp16 -> tree(fp16)",
    "mxfp8_e4m3 -> fma(fp32)",
    "fp16 -> aligned(4, 12, fp32/rz)", "posit8 -> fma(posit16)", "fp8_e5m2/sr:5 -> fma(fp16/sr:7) -> bf16/sr",
    "fp64 -> fma(fp64)", "exact(fp16)",
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS)
def test_it_is_the_product_of_the_unfolded_image(spec):
    rng = np.random.default_rng(SEED)
    x, weight = rng.standard_normal((2, 4, 6, 5)), rng.standard_normal((6, 2, 3, 2))
    bias = rng.standard_normal(6)
    y = simulator.convolution(x, weight, spec, bias=bias, groups=2, padding=1, stride=2, seed=5, site=7)
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
    positions = list(itertools.product(range(2), range(0, 6, 2), range(0, 6, 2)))
    for group in range(2):
        rows = [padded[s, 2 * group : 2 * group + 2, i : i + 3, j : j + 2].ravel() for s, i, j in positions]
        part = slice(3 * group, 3 * group + 3)
        expected = simulator.matmul(
            np.array(rows), weight[part].reshape(3, -1).T, spec, c=bias[part], seed=5, site=7,
            first_row=group * len(positions), matrix=group,
        )  # fmt: skip
        assert_same_bits(y[:, part], np.moveaxis(expected.reshape(2, 3, 3, 3), -1, 1))


def test_the_unfolded_image_is_never_made():
    x = formats.get("fp8_e4m3").quantize(np.random.default_rng(SEED).standard_normal((1, 8, 128, 128)))
    weight = np.ones((4, 8, 7, 7), np.float32)
    unfolded = 122 * 122 * 8 * 49 * 4  # bytes
    tracemalloc.start()
    simulator.convolution(x.astype(np.float32), weight, "fma(fp16)")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < unfolded / 10


@pytest.mark.parametrize(
    ("image", "kernel", "settings", "message"),
    [
        ((2, 3), (4, 3), {}, "as many spatial axes"),
        ((1, 3, 5), (4, 3, 3, 3), {}, "as many spatial axes"),
        ((1, 3, 5), (4, 2, 3), {}, "expected 2 channels"),
        ((1, 4, 5), (3, 2, 3), {"groups": 2}, "groups that divide"),
        ((1, 3, 2), (4, 3, 3), {}, "a kernel of 3 with dilation 1 does not fit into 2 positions with 0 and 0"),
        ((1, 3, 5), (4, 3, 3), {"stride": 0}, "stride is a whole number from 1 to 2**31 - 1, or 1 of them; got 0"),
        ((1, 3, 5), (4, 3, 3), {"padding": (1, 1)}, "from 0 to 2**31 - 1, or 1 of them; got (1, 1)"),
        ((1, 3, 5), (4, 3, 3), {"stride": 1.5}, "stride is a whole number from 1 to 2**31 - 1, or 1 of them; got 1.5"),
        ((1, 3, 5), (4, 3, 3), {"stride": 10**30}, "stride is a whole number from 1 to 2**31 - 1, or 1"),
        ((1, 3, 5), (4, 3, 3), {"padding": 10**12}, "padding is a whole number from 0 to 2**31 - 1, or 1 of them; got"),
        ((1, 3, 5, 5), (4, 3, 3, 3), {"padding": 10**6}, "the result would have shape (1, 4, 2000003, 2000003)"),
        ((1, 3, 5, 5), (4, 3, 3, 3), {"padding": 10**6, "stride": 10**6}, "the padded image would have shape (1, 3, 2"),
        ((1, 4, 5, 5), (4, 3, 3, 3), {"transposed": True, "stride": 10**6}, "zeros between would have shape (1, 4, 4"),
        ((1, 4, 5, 5), (4, 3, 3, 3), {"transposed": True, "dilation": 10**6}, "the result would have shape (1, 3, 2"),
        ((1, 4, 5), (4, 3, 3), {"transposed": True, "padding": 4}, "padding (4,) cuts all outputs of a transposed"),
        ((1, 3, 5), (4, 3, 3), {"groups": True}, "groups is a whole number from 1; got True"),
        ((1, 3, 5), (4, 3, 3), {"output_padding": 1}, "output_padding is for transposed ones"),
        ((1, 4, 5), (4, 3, 3), {"transposed": True, "output_padding": 1}, "must stay below stride (1,) or"),
        ((1, 3, 5), (4, 3, 3), {"bias": np.ones(3)}, "expected one value for each of 4 outputs"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(image, kernel, settings, message):
    with pytest.raises(ValueError) as caught:
        simulator.convolution(np.ones(image), np.ones(kernel), "fma(fp16)", **settings)
    assert message in str(caught.value)


def test_a_setting_may_be_a_number_of_numpys():
    x, weight = np.ones((1, 3, 9)), np.ones((4, 3, 3))
    expected = simulator.convolution(x, weight, "fma(fp16)", stride=2)
    for stride in (np.int64(2), np.array([2])):
        assert np.array_equal(simulator.convolution(x, weight, "fma(fp16)", stride=stride), expected)


def test_a_word_is_not_taken_for_a_transposed_convolution():
    with pytest.raises(TypeError, match="transposed is True or False; got 'no'"):
        simulator.convolution(np.ones((1, 3, 5)), np.ones((4, 3, 3)), "fma(fp16)", transposed="no")
