"""Block-scaled formats with power-of-two scales: scales, elements, arrays. Bits, never tolerances."""

import math
from fractions import Fraction

import gfloat
import gfloat.formats
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.block import BlockCodes, BlockFormat
from formats.block_names import BLOCKS, from_name
from formats.block_scales import POWER_MODES
from formats.catalogue import FLOATS
from formats.codebook import CodebookFormat
from formats.floats import FloatFormat
from formats.philox import word
from tests.oracles.bits import assert_same_bits
from tests.oracles.blocks import MX_ELEMENTS, scale_exponent

FLOAT = {fmt.name: fmt for fmt in FLOATS}
E8M0 = FLOAT["e8m0"]
MX_WITH_MODES = [f"{name}:{mode}" for name in MX_ELEMENTS for mode in POWER_MODES]
SEED = 20240607


def exponents(fmt, amax):
    """The exponents of the scales of blocks that hold one number each."""
    return fmt.encode(np.array(amax, np.float64)[:, np.newaxis]).scales[:, 0].astype(int) - 127


@pytest.mark.parametrize(
    ("name", "amax", "expected"),
    [
        ("mxfp4:floor", [4.5, 6.1, 7.0], [0, 0, 0]),
        ("mxfp4:ceil", [4.5, 6.1, 7.0], [1, 1, 1]),
        ("mxfp4:rceil", [4.5, 6.1, 7.0], [0, 1, 1]),
        ("mxfp4:even", [4.5, 6.1, 7.0], [0, 0, 1]),
        ("mxfp8_e4m3:floor", [448, 449, 480, 496], [0, 0, 0, 0]),
        ("mxfp8_e4m3:ceil", [448, 449, 480, 496], [1, 1, 1, 1]),
        ("mxfp8_e4m3:rceil", [448, 449, 480, 496], [0, 1, 1, 1]),
        ("mxfp8_e4m3:even", [448, 449, 480, 496], [0, 0, 0, 1]),
        ("mxfp4:rne", [6, 8.9, 9, 12, 17.9, 18], [0, 0, 1, 1, 1, 2]),
    ],
)
def test_scales_of_the_published_cases(name, amax, expected):
    assert exponents(from_name(name), amax).tolist() == expected


@pytest.mark.parametrize("name", MX_WITH_MODES)
def test_scales_just_below_at_and_above_every_boundary(name):
    base, mode = name.split(":")
    element = MX_ELEMENTS[base]
    top = float(element.largest)
    near = [*range(-160, -105, 6), -127, -126, -125, *range(-5, 6), *range(105, 160, 6), 126, 127, 128]
    powers = np.ldexp(1.0, np.array([-1022, -1000, -500, *near, 500, 1000]))
    factors = [1.0, top / 2 ** (math.frexp(top)[1] - 1), 2 - 2.0**-element.precision, 1.5, 1.5 * top / 2.0**8]
    at = np.concatenate([powers * factor for factor in factors])
    amax = np.concatenate([np.nextafter(at, 0), at, np.nextafter(at, np.inf), [5e-324, 1.7e308]])
    expected = [scale_exponent(a, element.largest, element.precision, mode) for a in amax.tolist()]
    got = exponents(from_name(name), amax)
    wrong = np.flatnonzero(got != expected)
    assert not len(wrong), [(amax[i].hex(), int(got[i]), expected[i]) for i in wrong[:5]]


def blocks_with_ties(element, rng):
    """Blocks of 32: normal samples over many binades, and blocks made of values, of middles and of their neighbours."""
    values = np.array([float(v) for v in element.exact[: element.top + 1]])
    middles = (values[1:] + values[:-1]) / 2
    points = np.concatenate([values, middles, np.nextafter(middles, 0), np.nextafter(middles, np.inf)])
    chosen = rng.choice(points, (8, 32)) * np.ldexp(1.0, rng.integers(-140, 130, (8, 1)))
    chosen[:, 0] = values[-1] * np.ldexp(1.0, rng.integers(-140, 130, 8))
    normal = rng.standard_normal((8, 32)) * np.ldexp(1.0, rng.integers(-150, 150, (8, 1)))
    x = np.concatenate([chosen * rng.choice([-1.0, 1.0], chosen.shape), normal])
    x[::5, 7] = -0.0
    return x


def expected_values(element, x, mode):
    """Rows as blocks, by the oracle."""
    rows = []
    for row in x.tolist():
        amax = max(map(abs, row))
        scale = Fraction(2) ** scale_exponent(amax, element.largest, element.precision, mode)
        rows.append([element.scaled(v, scale) for v in row])
    return np.array(rows)


@pytest.mark.parametrize("name", MX_WITH_MODES)
def test_values_are_nearest_elements_of_exact_quotients_times_scales(name, path):
    base, mode = name.split(":")
    x = blocks_with_ties(MX_ELEMENTS[base], np.random.default_rng(SEED))
    expected = expected_values(MX_ELEMENTS[base], x, mode)
    assert_same_bits(from_name(name).quantize(x), expected, x, f"{name}, seed {SEED}")


@pytest.mark.parametrize("name", list(MX_ELEMENTS))
def test_decoded_codes_are_the_quantised_values(name, path):
    fmt = from_name(name)
    x = blocks_with_ties(MX_ELEMENTS[name], np.random.default_rng(SEED + 1))
    x[2, 3], x[5, 0] = np.nan, np.inf
    for axis in (0, 1):
        codes = fmt.encode(x, axis=axis)
        assert codes.shape == x.shape
        assert codes.elements.dtype == codes.scales.dtype == np.uint8
        assert_same_bits(fmt.decode(codes), fmt.quantize(x, axis=axis), x, name)


@pytest.mark.parametrize("name", [name for name in MX_ELEMENTS if name != "mxint8"])
def test_gfloat_agrees_on_floor_away_from_powers_of_two(name):
    """Not next to powers of two, where gfloat's logarithm rounds to the next exponent."""
    short = {"mxfp4": "mxfp4_e2m1"}.get(name, name)
    info = getattr(gfloat.formats, f"format_info_{short}")
    x = np.random.default_rng(SEED).standard_normal((20, 32)) * 8
    expected = [gfloat.quantize_block(info, row, gfloat.compute_scale_amax) for row in x]
    assert_same_bits(from_name(name).quantize(x), expected, x, name)


# --- defects of other implementations ---------------------------------------------------------------------------------


def test_regress_exponent_from_bits():
    """floor(log2(prev(2**k))) in floats is k for most k; the exponent there is k - 1."""
    k = np.arange(-120, 121)
    below32 = np.nextafter(np.ldexp(np.float32(1), k), np.float32(0))
    below64 = np.nextafter(np.ldexp(1.0, k), 0.0)
    fmt = from_name("mxint8:floor")
    for below in (below32, below64):
        assert exponents(fmt, below).tolist() == (k - 1).tolist()
    assert exponents(fmt, np.ldexp(1.0, k)).tolist() == k.tolist()


@pytest.mark.parametrize("fmt", BLOCKS, ids=str)
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_regress_nan_seen(fmt, bad):
    """A NaN or an infinity makes its own block NaN, and no other."""
    x = np.tile(np.linspace(-3, 3, 2 * fmt.size), (2, 1))
    clean = fmt.quantize(x)
    x[1, fmt.size + 3] = bad
    y, codes = fmt.quantize(x), fmt.encode(x)
    assert np.isnan(y[1, fmt.size :]).all()
    assert_same_bits(y[0], clean[0])
    assert_same_bits(y[1, : fmt.size], clean[1, : fmt.size])
    nan_code = {"e8m0": 0xFF, "ue4m3": 0x7F}[fmt.scale.name]
    assert (codes.scales == nan_code).tolist() == [[False, False], [False, True]]
    assert not codes.elements[1, fmt.size :].any()
    assert np.isnan(fmt.decode(codes)[1, fmt.size :]).all()


def test_regress_fp4_nan():
    """A NaN on its way to E2M1 is not -0; where not even the scale has a NaN it is refused."""
    assert np.isnan(from_name("mxfp4").quantize([1.0, np.nan])).all()
    without = BlockFormat("mine", FLOAT["fp4_e2m1"], 32, FLOAT["fp6_e3m2"], "rne")
    assert not without.has_nan
    with pytest.raises(ValueError, match=r"mine: a block holds a NaN .* fp6_e3m2 have no NaN"):
        without.quantize([1.0, np.nan])


def test_regress_e8m0_edges():
    """Zero gives the smallest scale and not NaN; ties go up in rne alone; what lies below 2**-127 gives 2**-127."""
    for mode in POWER_MODES:
        fmt = from_name(f"mxfp4:{mode}")
        assert fmt.encode(np.zeros(32)).scales.tolist() == [0]
        assert_same_bits(fmt.quantize([0.0, -0.0, 0.0]), [0.0, -0.0, 0.0])
        assert fmt.encode([6 * 2.0**-128]).scales.tolist() == [0]
        assert fmt.encode([-1.0]).scales.tolist() == fmt.encode([1.0]).scales.tolist()
        assert fmt.encode([math.inf]).scales.tolist() == [255]
        assert fmt.encode([1e300]).scales.tolist() == [254]
    # amax / M = 1.5 and 3, both halfway between powers of two.
    assert exponents(from_name("mxfp4:rne"), [9.0, 18.0]).tolist() == [1, 2]
    assert exponents(from_name("mxfp4:floor"), [9.0, 18.0]).tolist() == [1, 2]
    assert exponents(from_name("mxfp4:even"), [9.0, 18.0]).tolist() == [1, 2]
    assert exponents(from_name("mxfp4:rceil"), [9.0, 18.0]).tolist() == [1, 2]
    below = np.nextafter([9.0, 18.0], 0)
    assert exponents(from_name("mxfp4:rne"), below).tolist() == [0, 1]


# --- ends of the ranges -----------------------------------------------------------------------------------------------


def test_blocks_beyond_the_largest_scale_clamp(path):
    for name, element in MX_ELEMENTS.items():
        top = float(element.largest) * 2.0**127
        assert from_name(name).max == top
        y = from_name(name).quantize([1e300, -1e300, top, 0.0])
        assert_same_bits(y, [top, -top, top, 0.0], note=name)


def test_the_extra_code_of_two_s_complement_decodes_and_is_never_produced():
    fmt = from_name("mxint8")
    assert fmt.quantize([-1.999, 1.999]).tolist() == [-127 / 64, 127 / 64]
    codes = BlockCodes(np.array([127], np.uint8), np.array([0x80, 0x81, 0x7F], np.uint8), 0)
    assert fmt.decode(codes).tolist() == [-2.0, -127 / 64, 127 / 64]
    plain = BlockFormat("plain", fmt.element, 32, E8M0, "floor")
    assert plain != fmt
    assert plain.quantize([-1.999, 1.999]).tolist() == [-2.0, 127 / 64]
    assert fmt.quantize([-1.999, 1.999], overflow="wrap").tolist() == [-2.0, -2.0]


@pytest.mark.parametrize("rounding", ["rne", "rna", "rnz", "rz", "ru", "rd", "odd"])
def test_quotients_below_the_range_of_float64_still_round(rounding, path):
    """5e-324 / 2**119 is no float64, and not zero: directed modes and odd see it."""
    fmt = from_name("mxfp8_e4m3")
    x = np.array([2.0**127, 5e-324, -5e-324, 2.0**-1000, 0.0, -0.0])
    smallest = 2.0**-9 * 2.0**119
    up, down = rounding in ("ru", "odd"), rounding in ("rd", "odd")
    expected = [2.0**127, smallest * up, -smallest * down, smallest * up, 0.0, -0.0]
    assert_same_bits(fmt.quantize(x, rounding), expected, x, rounding)


def test_quotients_above_the_range_of_float64_still_overflow_as_finite_numbers(path):
    low = FloatFormat("low", 4, 0, bias=600, dialect="scale")  # largest scale 2**-586
    fmt = BlockFormat("mine", FLOAT["fp8_e5m2"], 4, low, "floor")
    x = [1e300, -1e300, 2.0**-590]
    top = 57344 * 2.0**-586
    assert fmt.quantize(x).tolist() == [top, -top, 2.0**-590]
    assert fmt.quantize(x, overflow="ieee").tolist() == [math.inf, -math.inf, 2.0**-590]
    assert fmt.quantize(x, "rz", "ieee").tolist() == [top, -top, 2.0**-590]
    assert fmt.decode(fmt.encode(x, overflow="ieee")).tolist() == [math.inf, -math.inf, 2.0**-590]


def test_products_beyond_float64_are_refused():
    with pytest.raises(ValueError, match="mine: the largest or the smallest element times scale is not a float64"):
        BlockFormat("mine", FLOAT["fp64"], 32, E8M0, "floor")
    fmt = BlockFormat("mine", CodebookFormat("thirds", (-1.0, -1 / 3, 0.0, 1 / 3, 1.0)), 2, FLOAT["ue4m3"], "rne")
    x = np.array([[1.0, 1.0], [1.125, 1 / 3]])
    with pytest.raises(ValueError, match=r"mine: element .* times scale .* at \(1, 1\) is not a float64"):
        fmt.quantize(x)
    codes = fmt.encode(x)
    with pytest.raises(ValueError, match="is not a float64"):
        fmt.decode(codes)
    tiny = FloatFormat("tiny", 4, 0, bias=1060, dialect="scale")  # smallest scale 2**-1060
    fmt = BlockFormat("mine", CodebookFormat("thirds", (-1.0, 0.0, 2.0**-10, 1 / 3, 1.0)), 2, tiny, "floor")
    assert fmt.quantize([2.0**-1060, 2.0**-1070]).tolist() == [2.0**-1060, 2.0**-1070]
    with pytest.raises(ValueError, match=r"times scale .* at \(1,\) is not a float64"):
        fmt.quantize([2.0**-1060, 2.0**-1062])


# --- arrays -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", [f for f in BLOCKS if f.name != "nvfp4"], ids=str)
def test_every_axis_and_layout_gives_what_its_rows_give(fmt):
    rows = np.random.default_rng(SEED).standard_normal((2, 3, 70)) * 100
    by_row = np.array([[fmt.quantize(row) for row in rows[i]] for i in range(2)])
    for axis in range(-3, 3):
        x, expected = np.moveaxis(rows, -1, axis), np.moveaxis(by_row, -1, axis)  # views of other strides
        assert_same_bits(fmt.quantize(x, axis=axis), expected, x)
        assert_same_bits(fmt.quantize(np.asfortranarray(x), axis=axis), expected, x)
    codes = fmt.encode(np.moveaxis(rows, -1, 1), axis=-2)
    assert (codes.axis, codes.scales.shape, codes.elements.shape) == (1, (2, 3, 3), (2, 70, 3))
    assert_same_bits(fmt.decode(codes), np.moveaxis(by_row, -1, 1))
    assert_same_bits(fmt.quantize(rows[:, ::2, ::-3]), fmt.quantize(rows[:, ::2, ::-3].copy()))


@pytest.mark.parametrize("fmt", BLOCKS, ids=str)
def test_element_types_and_sizes(fmt):
    wide = np.random.default_rng(SEED).standard_normal((5, 45)).astype(np.float32)
    kept = wide.copy()
    assert_same_bits(fmt.quantize(wide), fmt.quantize(wide.astype(np.float64)), wide)
    assert (wide == kept).all()
    integers = np.arange(-20, 40)
    assert_same_bits(fmt.quantize(integers), fmt.quantize(integers.astype(np.float64)))
    for shape in ((0,), (0, 5), (5, 0), (2, 0, 3)):
        for axis in range(len(shape)):
            codes = fmt.encode(np.zeros(shape), axis=axis)
            assert fmt.quantize(np.zeros(shape), axis=axis).shape == fmt.decode(codes).shape == shape
    with pytest.raises(TypeError, match="dtype object"):
        fmt.quantize(np.array([None]))


def test_a_short_last_block_has_its_own_scale():
    y = from_name("mxfp4")
    x = np.concatenate([np.full(32, 6.0), np.full(3, 0.75)])
    assert y.encode(x).scales.tolist() == [127, 127 - 3]
    assert y.quantize(x).tolist() == x.tolist()


def test_arrays_without_the_axis_are_refused():
    fmt = from_name("mxfp4")
    with pytest.raises(ValueError, match="mxfp4: got a single number; expected an array with an axis"):
        fmt.quantize(1.0)
    for axis in (2, -3):
        with pytest.raises(ValueError, match=rf"mxfp4: got axis {axis}; expected -2 to 1 for shape \(2, 3\)"):
            fmt.encode(np.zeros((2, 3)), axis=axis)


def test_codes_that_do_not_belong_together_are_refused():
    fmt = from_name("mxfp4")
    codes = fmt.encode(np.ones(33))
    with pytest.raises(TypeError, match="codes of mxfp4: got ndarray; expected BlockCodes"):
        fmt.decode(codes.elements)
    with pytest.raises(ValueError, match=r"got scales of shape \(1,\); expected \(2,\)"):
        fmt.decode(BlockCodes(codes.scales[:1], codes.elements, 0))
    with pytest.raises(ValueError, match="two-level formats only"):
        fmt.decode(BlockCodes(codes.scales, codes.elements, 0, np.float32(1)))
    with pytest.raises(ValueError, match=r"codes of fp4_e2m1: got .*; expected 0 \.\. 15"):
        fmt.decode(BlockCodes(codes.scales, codes.elements + 16, 0))


def test_amax_can_be_narrowed_first():
    """The bf16 above 2**k - 2**(k-10) is 2**k, so the scale grows by one; off unless asked for."""
    below = [np.nextafter(4.0, 0)] * 2
    exact, narrowed = (from_name(f"block(fp4_e2m1,2,scale=e8m0,mode=floor{option})") for option in ("", ",amax=bf16"))
    assert exact.encode(below).scales.tolist() == [126]
    assert narrowed.encode(below).scales.tolist() == [127]
    assert exact.encode([1e300, 0.0]).scales.tolist() == [254]
    assert narrowed.encode([1e300, 0.0]).scales.tolist() == [254 - 2]  # from the largest bf16, just below 2**128
    assert narrowed.encode([1e-300, 0.0]).scales.tolist() == [0]


# --- stochastic rounding ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mxfp8_e4m3", "mxint8", "mxfp4:rceil", "block(fp4_e2m1,16,scale=ue4m3,mode=rne)"])
def test_parts_split_at_block_borders_give_what_the_whole_gives(name, path):
    fmt = from_name(name)
    x = np.random.default_rng(SEED).standard_normal((6, 48))
    for rounding in ("sr", "sr:3:b"):
        whole = fmt.quantize(x, rounding, seed=7)
        rows = [fmt.quantize(x[i : i + 2], rounding, seed=7, offset=48 * i) for i in (0, 2, 4)]
        assert_same_bits(np.concatenate(rows), whole, x)
        flat = x.ravel()
        parts = [fmt.quantize(flat[i : i + 96], rounding, seed=7, offset=i) for i in range(0, 288, 96)]
        assert_same_bits(np.concatenate(parts), fmt.quantize(flat, rounding, seed=7), flat)
        columns = fmt.quantize(x, rounding, seed=7, axis=0)
        assert_same_bits(columns, fmt.decode(fmt.encode(x, rounding, seed=7, axis=0)), x)
        assert (whole != fmt.quantize(x, rounding, seed=8)).any()


def test_the_random_word_of_an_element_is_that_of_its_place_in_the_array(path):
    fmt = from_name("mxfp4")
    x = np.random.default_rng(SEED).standard_normal((40, 3))
    scales = np.repeat(np.ldexp(1.0, fmt.encode(x, axis=0).scales.astype(int) - 127), [32, 8], axis=0)
    words = [word(5, 1000 + i) for i in range(x.size)]
    expected = [
        fmt.element.project(v / s, "sr:5:c", "sat", w) * s
        for v, s, w in zip(x.ravel().tolist(), scales.ravel().tolist(), words, strict=True)
    ]
    assert_same_bits(fmt.quantize(x, "sr:5:c", seed=5, axis=0, offset=1000), np.reshape(expected, x.shape), x)


# --- properties -------------------------------------------------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.sampled_from(MX_WITH_MODES)


@settings(max_examples=150, deadline=None)
@given(names, st.lists(finite, min_size=1, max_size=40))
def test_codes_signs_and_specials_hold_for_any_floats(name, x):
    fmt = from_name(name)
    y = fmt.quantize(x)
    assert_same_bits(fmt.decode(fmt.encode(x)), y, x)
    assert (np.abs(y) <= fmt.max).all()
    assert (np.abs(fmt.quantize(np.negative(x))) == np.abs(y)).all()


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(MX_ELEMENTS)), st.lists(finite, min_size=1, max_size=40))
def test_floor_is_idempotent(name, x):
    fmt = from_name(name)
    y = fmt.quantize(x)
    assert_same_bits(fmt.quantize(y), y, x)


@settings(max_examples=150, deadline=None)
@given(
    names, st.lists(st.floats(-1000, 1000).filter(lambda v: v == 0 or abs(v) > 1e-6), min_size=1), st.integers(-60, 60)
)
def test_powers_of_two_commute_with_quantisation(name, x, k):
    fmt = from_name(name)
    assert_same_bits(fmt.quantize(np.ldexp(x, k)), np.ldexp(fmt.quantize(x), k), x)
