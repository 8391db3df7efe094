"""Arrays of every shape, layout and type, and what is refused."""

import math

import numpy as np
import pytest

from tests.conftest import DEFINITION
from tests.contracts.samples import SEED, finite_of, overflow_modes, probes_of
from tests.oracles.bits import assert_same_bits


def sample(fmt, count=48):
    """Finite numbers among the probes that stay in range, whatever the format."""
    x = probes_of(fmt)
    x = x[np.isfinite(x)]
    return np.resize(np.random.default_rng(SEED).permutation(x), count)


def test_float32_and_float64_of_equal_value_give_the_same(fmt, path):
    with np.errstate(over="ignore", under="ignore"):
        x = probes_of(fmt).astype(np.float32)
    wide = x.astype(np.float64)
    for rounding in ("rne", "odd", "sr:4:c"):
        for overflow in overflow_modes(fmt)[:2]:
            expected = fmt.quantize(wide, rounding, overflow, seed=SEED)
            assert_same_bits(fmt.quantize(x, rounding, overflow, seed=SEED), expected, wide, f"{fmt.name} {path}")
            codes = fmt.encode(wide, rounding, overflow, seed=SEED)
            assert fmt.encode(x, rounding, overflow, seed=SEED).tolist() == codes.tolist()


def test_every_real_type_is_taken_exactly(fmt, path):
    integers = np.arange(-20, 20) * 3
    expected, codes = fmt.quantize(integers.astype(np.float64)), fmt.encode(integers.astype(np.float64))
    for dtype in ("f2", ">f4", ">f8", "i1", ">i2", "i4", "i8"):
        x = integers.astype(dtype)
        assert_same_bits(fmt.quantize(x), expected, integers, f"{fmt.name} {dtype} {path}")
        assert fmt.encode(x).tolist() == codes.tolist(), f"{fmt.name} {dtype} {path}"
    for dtype in ("u1", "u2", ">u4", "u8"):
        assert_same_bits(fmt.quantize(integers[20:].astype(dtype)), expected[20:], integers[20:], f"{fmt.name} {dtype}")
    assert_same_bits(fmt.quantize([True, False]), fmt.quantize([1.0, 0.0]), note=f"{fmt.name} bool {path}")


def test_shapes_and_layouts_change_nothing(fmt, path):
    x = sample(fmt)
    y, codes = fmt.quantize(x), fmt.encode(x)
    cube = x.reshape(2, 4, 6)
    views = {
        "3d": (cube, y.reshape(cube.shape)),
        "transposed": (cube.T, y.reshape(cube.shape).T),
        "strided": (x[::3], y[::3]),
        "reversed": (x[::-1], y[::-1]),
        "fortran": (np.asfortranarray(cube[0]), y.reshape(cube.shape)[0]),
        "broadcast": (np.broadcast_to(x[:6], (3, 6)), np.broadcast_to(y[:6], (3, 6))),
        "unaligned": (np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float64), y),
    }
    for what, (view, expected) in views.items():
        assert_same_bits(fmt.quantize(view), expected, view, f"{fmt.name} {what} {path}")
        assert_same_bits(fmt.decode(fmt.encode(view)), expected, view, f"{fmt.name} {what} {path}")
    assert_same_bits(fmt.decode(codes.reshape(2, 4, 6).T), y.reshape(2, 4, 6).T, note=f"{fmt.name} {path}")
    assert_same_bits(fmt.decode(codes[::-1]), y[::-1], note=f"{fmt.name} {path}")
    assert_same_bits(fmt.quantize(x.tolist()), y, x, f"{fmt.name} list {path}")


def test_scalars_and_empty_arrays_keep_their_shape(fmt, path):
    value = float(finite_of(fmt)[-1])
    for x in (value, np.float64(value), np.array(value)):
        for result, dtype in ((fmt.quantize(x), np.float64), (fmt.encode(x), fmt.code_dtype)):
            assert isinstance(result, np.ndarray) and (result.shape, result.dtype) == ((), dtype)
        decoded = fmt.decode(fmt.encode(x))
        assert isinstance(decoded, np.ndarray) and decoded.shape == () and decoded == value
    for shape in ((0,), (0, 3), (3, 0, 2)):
        for dtype in (np.float32, np.float64, np.int32):
            x = np.zeros(shape, dtype)
            assert (fmt.quantize(x).shape, fmt.quantize(x, "sr").dtype) == (shape, np.float64)
            assert (fmt.encode(x).shape, fmt.encode(x).dtype) == (shape, fmt.code_dtype)
        assert fmt.decode(np.zeros(shape, fmt.code_dtype)).shape == shape
    assert fmt.quantize([]).shape == (0,)


def test_lengths_around_vectors_and_blocks_of_the_twins(fmt, path):
    """What is rounded in one piece and in pieces is the same; the definition takes numbers one by one anyhow."""
    length = 40 if path == DEFINITION else 1100
    x = np.resize(sample(fmt), length)
    whole, codes = np.resize(fmt.quantize(sample(fmt)), length), np.resize(fmt.encode(sample(fmt)), length)
    for count in (1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 511, 513, 1025):
        if count > length:
            break
        start = length - count
        assert_same_bits(fmt.quantize(x[start:]), whole[start:], x[start:], f"{fmt.name} {count} {path}")
        assert fmt.encode(x[start:]).tolist() == codes[start:].tolist()
        assert_same_bits(fmt.decode(codes[start:]), whole[start:], note=f"{fmt.name} {count} {path}")


def test_the_input_is_never_written_to(fmt, path):
    x = sample(fmt)
    codes = fmt.encode(x)
    for array in (x, codes):
        array.flags.writeable = False
    before, codes_before = x.tobytes(), codes.tobytes()
    fmt.quantize(x)
    fmt.encode(x, "sr")
    result = fmt.decode(codes)
    assert (x.tobytes(), codes.tobytes()) == (before, codes_before)
    result[...] = 7.0  # a result is the caller's own
    assert fmt.decode(codes).tobytes() != result.tobytes() or x.size == 0


def test_what_is_no_real_number_is_refused_with_its_dtype(fmt, path):
    for x in ([1j], ["1"], [None], np.array([1], "M8[s]"), np.array([1.0], np.longdouble), np.array([1.0], object)):
        for method in (fmt.quantize, fmt.encode):
            with pytest.raises(
                TypeError, match=r"got an array of dtype .*; expected floats of at most 64 bits, or integers"
            ) as caught:
                method(x)
            assert str(np.asarray(x).dtype) in str(caught.value)


def test_integers_that_float64_does_not_hold_are_refused(fmt, path):
    for x in (np.array([(1 << 53) + 1]), np.array([1 << 63], np.uint64)):
        with pytest.raises(TypeError, match=r"integers beyond 2\*\*53; expected ones that float64 holds"):
            fmt.quantize(x)


def test_nan_is_nan_or_refused_by_name(fmt, path):
    for x in ([1.0, math.nan], np.array([math.nan, 1.0, 2.0], np.float32)):
        if fmt.has_nan:
            for overflow in overflow_modes(fmt):
                for rounding in ("rne", "odd", "sr"):
                    y = fmt.quantize(x, rounding, overflow)
                    assert np.isnan(y).tolist()[: len(x)] == np.isnan(x).tolist() or np.isnan(y[np.isnan(x)]).all()
                    assert np.isnan(fmt.decode(fmt.encode(x, rounding, overflow))[np.isnan(x)]).all()
        else:
            for method in (fmt.quantize, fmt.encode):
                with pytest.raises(ValueError, match="has no NaN, and the array holds one") as caught:
                    method(x)
                assert fmt.name in str(caught.value)


def test_infinities_become_an_end_or_nan_under_saturation(fmt, path):
    """ "sat" leaves no infinity; NaN stands only where the family says so (posits: NaR)."""
    y = fmt.quantize([math.inf, -math.inf], overflow="sat")
    lowest = max(finite_of(fmt)[0], 0.0) if finite_of(fmt)[0] >= 0 else finite_of(fmt)[0]
    assert y.tolist() in ([fmt.max, lowest], [fmt.max, -fmt.max]) or np.isnan(y).all(), f"{fmt.name} {path} {y}"
    assert np.isnan(y).any() == (np.isnan(fmt.project(math.inf, "rne", "sat")))


def test_zeros_keep_their_sign_where_both_exist(fmt, path):
    def has(value):
        try:
            fmt.code_of(value)
        except ValueError:
            return False
        return True

    y = fmt.quantize([0.0, -0.0], overflow="sat")
    if has(0.0):
        assert_same_bits(y, [0.0, -0.0 if has(-0.0) else 0.0], note=f"{fmt.name} {path}")
        assert_same_bits(fmt.decode(fmt.encode([0.0, -0.0])), y, note=f"{fmt.name} {path}")
    else:
        assert (y != 0).all(), f"{fmt.name} {path}"


def test_modes_that_do_not_exist_are_refused(fmt, path):
    for method in (fmt.quantize, fmt.encode):
        with pytest.raises(ValueError, match="rounding 'up' is unknown; expected one of rne"):
            method([1.0], "up")
        with pytest.raises(ValueError, match="overflow 'clip' is unknown; expected one of ieee"):
            method([1.0], "rne", "clip")
        for seed in (-1, 1 << 32):
            with pytest.raises(ValueError, match=f"seed: got {seed}; expected a whole number from 0"):
                method([1.0], "sr", seed=seed)
