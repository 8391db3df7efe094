"""Arrays around the scalar definition: shapes, strides, input types, refusals."""

import numpy as np
import pytest

import formats
from formats import Format
from tests.oracles.bits import assert_same_bits

SEED = 41


def scalar_by_scalar(fmt, x):
    values = [fmt.project(float(v), "rne", fmt.default_overflow) for v in np.asarray(x, np.float64).ravel()]
    return np.array(values).reshape(np.shape(x))


@pytest.fixture
def sample():
    rng = np.random.default_rng(SEED)
    return np.ldexp(rng.standard_normal((6, 8, 10)), rng.integers(-20, 20, (6, 8, 10)))


@pytest.mark.parametrize("name", ["fp16", "fp8_e4m3", "e5m2:ftz", "fp8_e4m3fnuz", "e5m0:ieee"])
def test_non_contiguous_arrays_give_the_same_as_their_copies(name, sample, path):
    fmt = formats.get(name)
    views = [sample[::2], sample[:, ::-1], sample.T, sample[..., 3], sample[1:5, 2, ::3], np.asfortranarray(sample[0])]
    for view in views:
        assert_same_bits(fmt.quantize(view), scalar_by_scalar(fmt, view), view, f"{name} seed {SEED}")


def test_a_broadcast_array_is_taken_as_it_looks(sample, path):
    fmt = formats.get("fp16")
    repeated = np.broadcast_to(sample[0, 0], (4, 10))
    assert_same_bits(fmt.quantize(repeated), scalar_by_scalar(fmt, repeated), repeated)


def test_scalars_and_zero_dimensional_arrays_keep_their_shape(path):
    fmt = formats.get("fp8_e4m3")
    for x in (1.1, np.float64(1.1), np.array(1.1), np.array(1.1, np.float32), 1):
        y = fmt.quantize(x)
        assert isinstance(y, np.ndarray)
        assert (y.shape, y.dtype) == ((), np.float64)
        assert float(y) == (1.0 if x == 1 else 1.125)
        assert fmt.encode(x).shape == ()


def test_empty_arrays_keep_their_shape(path):
    for shape in ((0,), (0, 3), (3, 0, 2)):
        assert formats.get("fp16").quantize(np.zeros(shape)).shape == shape
        assert formats.get("fp16").encode(np.zeros(shape, np.float32)).shape == shape
    assert formats.get("fp16").quantize([]).shape == (0,)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 511, 512, 513, 1025])
def test_lengths_around_the_blocks_of_the_fast_twins(count, path):
    """The twins judge 512 elements together; an element that needs the slow way must not change its neighbours."""
    fmt = formats.get("bf16")
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal(count) * np.exp2(rng.integers(-140, 120, count))
    x[rng.integers(0, count)] = 1e300
    assert_same_bits(fmt.quantize(x), scalar_by_scalar(fmt, x), x, f"seed {SEED}")


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">f8"])
def test_every_float_type_is_taken_exactly(dtype, path):
    fmt = formats.get("fp8_e5m2")
    codes = np.random.default_rng(SEED).integers(0, 1 << 16, 300, dtype=np.uint16)
    x = codes.view(np.float16)
    x = x[~np.isnan(x)].astype(dtype)
    assert_same_bits(fmt.quantize(x), scalar_by_scalar(fmt, x.astype(np.float64)), x.astype(np.float64), dtype)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?"])
def test_every_integer_type_is_taken_exactly(dtype, path):
    fmt = formats.get("fp16")
    x = np.arange(0 if dtype[0] in "u?" else -120, 120).astype(dtype)
    assert_same_bits(fmt.quantize(x), scalar_by_scalar(fmt, x.astype(np.float64)), note=dtype)


def test_python_lists_of_integers_and_floats_are_taken(path):
    assert_same_bits(formats.get("fp8_e4m3").quantize([[1, 2.6], [-17, 0]]), [[1, 2.5], [-16, 0]])


def test_integers_beyond_2_to_53_are_refused(path):
    fmt = formats.get("fp16")
    assert_same_bits(fmt.quantize(np.array([1 << 53])), [np.inf])
    for x in (np.array([(1 << 53) + 1]), np.array([-(1 << 60)]), np.array([1 << 63], np.uint64)):
        with pytest.raises(TypeError, match=r"got 64-bit integers beyond 2\*\*53; expected ones that float64 holds"):
            fmt.quantize(x)


@pytest.mark.parametrize("x", [[1j], ["1"], [None], np.array([1], "M8[s]"), np.array([1.0], np.longdouble)])
def test_what_is_no_float_or_integer_is_refused_with_its_dtype(x, path):
    with pytest.raises(TypeError, match=r"got an array of dtype .*; expected floats of at most 64 bits, or integers"):
        formats.get("fp16").quantize(x)


def test_the_input_is_never_written_to(sample, path):
    before = sample.copy()
    formats.get("fp8_e4m3").quantize(sample)
    formats.get("fp8_e4m3").encode(sample)
    assert_same_bits(sample, before)
    narrow = sample[0].astype(np.float32)
    narrow.flags.writeable = False
    formats.get("fp8_e4m3").quantize(narrow)


def test_float32_and_float64_input_of_equal_values_give_equal_bits(path):
    """float32 patterns of every exponent; the twin takes them as they are, the definition by way of float64."""
    patterns = np.random.default_rng(SEED).integers(0, 1 << 32, 20_000 if path != "definition" else 1500, np.uint32)
    x = patterns.view(np.float32)
    x = x[~np.isnan(x)]
    for name in ("fp16", "bf16", "fp8_e4m3", "e8m13", "e5m2:ftz", "fp32"):
        fmt = formats.get(name)
        wide = x.astype(np.float64)
        assert_same_bits(fmt.quantize(x), fmt.quantize(wide), wide, f"{name} seed {SEED}")


def test_definition_and_fast_twin_agree_on_random_doubles(path):
    """Random bit patterns of float64, most of them far outside every format, and values near the format's own."""
    rng = np.random.default_rng(SEED)
    count = 400
    patterns = rng.integers(0, 1 << 64, count, np.uint64).view(np.float64)
    near = np.ldexp(rng.standard_normal(count), rng.integers(-30, 20, count))
    x = np.concatenate([patterns[~np.isnan(patterns)], near])
    for name in ("fp16", "bf16", "tf32", "fp32", "fp8_e4m3", "fp8_e5m2", "e8m13", "e8m21", "e5m2:ftz", "e4m3:fnuz"):
        fmt = formats.get(name)
        assert_same_bits(fmt.quantize(x), scalar_by_scalar(fmt, x), x, f"{name} seed {SEED}")


def test_the_fast_twin_is_installed_by_importing_native():
    assert ("formats.floats.FloatFormat", "quantize") in Format.fast_twins
