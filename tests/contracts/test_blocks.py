"""The contract of formats whose values share a scale by blocks: arrays only, along any axis."""

import math
from fractions import Fraction

import numpy as np
import pytest

from formats.rounding import parse_rounding
from tests.contracts.samples import SEED
from tests.oracles.bits import assert_same_bits
from tests.oracles.neighbours import DETERMINISTIC

ROUNDINGS = (*DETERMINISTIC, "sr", "sr:3:b")


def sample(shape, spread=12):
    """Numbers of many magnitudes, zeros of both signs among them."""
    rng = np.random.default_rng(SEED)
    x = np.ldexp(rng.standard_normal(shape), rng.integers(-spread, spread, shape))
    x[rng.random(shape) < 0.1] = 0.0
    return np.where(rng.random(shape) < 0.05, -0.0, x)


def scales_of(block_format, codes):
    """The scale of every element of BlockCodes along the last axis, that of the tensor included, as fractions."""
    scales = np.repeat(block_format.scale.decode(codes.scales), block_format.size, axis=-1)[..., : codes.shape[-1]]
    back = 1.0 if codes.tensor_scale is None else float(np.float32(1) / codes.tensor_scale)
    return [Fraction(v) * Fraction(back) for v in scales.ravel().tolist()]


def test_a_value_is_element_times_scale_exactly(block_format, path):
    fmt, x = block_format, sample((3, 75))
    for rounding in ROUNDINGS:
        codes = fmt.encode(x, rounding, seed=SEED)
        assert codes.elements.dtype == fmt.element.code_dtype and codes.scales.dtype == fmt.scale.code_dtype
        assert codes.scales.shape == (3, -(-75 // fmt.size))
        elements = fmt.element.decode(codes.elements).ravel().tolist()
        products = [Fraction(e) * s for e, s in zip(elements, scales_of(fmt, codes), strict=True)]
        expected = [float(p) if p else e for p, e in zip(products, elements, strict=True)]
        got = fmt.quantize(x, rounding, seed=SEED)
        assert_same_bits(got.ravel(), expected, x.ravel(), f"{fmt.name}/{rounding} {path} seed {SEED}")
        assert_same_bits(fmt.decode(codes), got, x, f"{fmt.name}/{rounding} {path} seed {SEED}")
        assert (np.abs(got) <= fmt.max).all() and (np.abs(got[got != 0]) >= fmt.smallest_subnormal).all()


def dyadic_of(quotient):
    """A fraction as integer * 2**exponent, with a bit far below set where it does not end: that decides no rounding."""
    numerator, denominator = quotient.numerator << 400, quotient.denominator
    whole, rest = divmod(abs(numerator), denominator)
    return (2 * whole | bool(rest)) * (1 if quotient > 0 else -1), -401


def test_elements_are_the_quotients_rounded_once(block_format, path):
    """By the scalar definition of the element's format on the exact quotient."""
    fmt, x = block_format, sample((2, 40), 6)
    if fmt.two_level:
        pytest.skip("its quotients are float32 operations; tests/formats/test_block.py has them")
    for rounding in DETERMINISTIC:
        codes, mode = fmt.encode(x, rounding), parse_rounding(rounding)
        got = fmt.element.decode(codes.elements).ravel()
        for v, scale, element in zip(x.ravel().tolist(), scales_of(fmt, codes), got.tolist(), strict=True):
            expected = fmt.element.project(v, mode, "sat")
            if v:
                expected = fmt.element.project_finite(*dyadic_of(Fraction(v) / scale), mode, "sat")
            if fmt.symmetric:
                expected = max(expected, -fmt.element.max)
            assert_same_bits(element, expected, note=f"{fmt.name}/{rounding} {path} {v.hex()}")


def test_axes_shapes_layouts_and_types_change_nothing(block_format, path):
    fmt, x = block_format, sample((4, 33))
    y = fmt.quantize(x)
    assert (y.shape, y.dtype) == (x.shape, np.float64)
    note = f"{fmt.name} {path}"
    assert_same_bits(fmt.quantize(x.T, axis=0), y.T, note=note)
    assert_same_bits(fmt.quantize(x.T, axis=-2), y.T, note=note)
    assert_same_bits(fmt.quantize(np.asfortranarray(x)), y, note=note)
    if not fmt.two_level:  # there one scale depends on the whole array
        assert_same_bits(fmt.quantize(x[::2]), y[::2], note=note)
    assert_same_bits(fmt.quantize(np.broadcast_to(x[0], (2, 33))), fmt.quantize(np.array([x[0], x[0]])), note=note)
    deep = fmt.quantize(x.reshape(2, 2, 33).transpose(0, 2, 1), axis=1)
    assert_same_bits(deep.transpose(0, 2, 1).reshape(4, 33), y, note=note)
    narrow = x.astype(np.float32)
    assert_same_bits(fmt.quantize(narrow), fmt.quantize(narrow.astype(np.float64)), narrow, note)
    integers = np.arange(-40, 40)
    expected = fmt.quantize(integers.astype(np.float64))
    for dtype in ("i1", "i4", ">i8", "f2", ">f4"):
        assert_same_bits(fmt.quantize(integers.astype(dtype)), expected, integers, f"{note} {dtype}")
    for shape in ((0,), (0, 3), (3, 0)):
        empty = np.zeros(shape)
        assert fmt.quantize(empty).shape == fmt.decode(fmt.encode(empty)).shape == shape


def test_what_cannot_be_taken_is_refused_by_name(block_format, path):
    fmt = block_format
    for method in (fmt.quantize, fmt.encode):
        for x in ([1j], [None], np.array([1.0], object), np.array([1.0], np.longdouble)):
            with pytest.raises(TypeError, match="expected floats of at most 64 bits") as caught:
                method(x)
            assert str(np.asarray(x).dtype) in str(caught.value)
        with pytest.raises(ValueError, match="got a single number; expected an array with an axis"):
            method(1.0)
        with pytest.raises(ValueError, match="got axis 1; expected -1 to 0"):
            method([1.0], axis=1)
        with pytest.raises(ValueError, match="rounding 'up' is unknown"):
            method([1.0], "up")
    with pytest.raises(TypeError, match=r"codes of .*: got .*; expected BlockCodes"):
        fmt.decode([1])
    with pytest.raises(ValueError, match="has no table of values"):
        fmt.table()
    for scalar in (lambda: fmt.project(1.0, "rne", "sat"), lambda: fmt.code_of(1.0), lambda: fmt.value_of(0)):
        with pytest.raises(TypeError, match="of a single number: its scale belongs to a block"):
            scalar()


def test_nan_and_infinity_break_their_block_or_are_refused(block_format, path):
    fmt = block_format
    for bad in (math.nan, math.inf, -math.inf):
        x = sample((1, 3 * fmt.size), 3)
        x[0, fmt.size] = bad
        if not fmt.has_nan:
            with pytest.raises(ValueError, match="a block holds a NaN or an infinity"):
                fmt.quantize(x)
            continue
        y = fmt.quantize(x)
        assert np.isnan(y[0]).tolist() == [fmt.size <= i < 2 * fmt.size for i in range(3 * fmt.size)], fmt.name
        assert_same_bits(fmt.decode(fmt.encode(x)), y, note=f"{fmt.name} {path}")
        others = np.delete(x, np.s_[fmt.size : 2 * fmt.size], axis=1)
        assert_same_bits(np.delete(y, np.s_[fmt.size : 2 * fmt.size], axis=1), fmt.quantize(others), note=fmt.name)


def test_stochastic_roundings_depend_on_seed_and_place_only(block_format, path):
    fmt, x = block_format, sample((12 * block_format.size,), 2)
    for rounding in ("sr", "sr:2:b"):
        whole = fmt.quantize(x, rounding, seed=5)
        assert_same_bits(fmt.quantize(x, rounding, seed=5), whole, note=f"{fmt.name} {path}")
        if not fmt.two_level:
            cut = 5 * fmt.size
            parts = [fmt.quantize(x[:cut], rounding, seed=5), fmt.quantize(x[cut:], rounding, seed=5, offset=cut)]
            assert_same_bits(np.concatenate(parts), whole, x, f"{fmt.name}/{rounding} {path}")
        if fmt.size > 1:  # alone, an element is its own scale's business and may be exact
            assert any((fmt.quantize(x, rounding, seed=s) != whole).any() for s in (6, 7)), f"{fmt.name} {path}"


def test_a_zero_block_is_zeros_of_the_signs_that_the_element_has(block_format, path):
    fmt = block_format
    x = np.tile([0.0, -0.0], fmt.size)
    assert_same_bits(fmt.quantize(x), fmt.element.quantize(x), x, f"{fmt.name} {path}")
