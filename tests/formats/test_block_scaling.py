"""Scales with a significand, NVFP4's two levels, exact quotients, and the names of block-scaled formats."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.block import BlockFormat
from formats.block_names import BLOCKS, from_name
from formats.block_scales import SIGNIFICAND_MODES
from formats.catalogue import FLOATS
from formats.codebook import CodebookFormat
from formats.fixed import FixedFormat
from formats.floats import FloatFormat
from formats.philox import word
from formats.rounding import parse_rounding
from formats.scaling import _project_quotient, quantize_quotient
from tests.oracles.bits import assert_same_bits
from tests.oracles.blocks import MX_ELEMENTS, UE4M3, float32, nvfp4

FLOAT = {fmt.name: fmt for fmt in FLOATS}
NVFP4 = from_name("nvfp4")
SEED = 20240608


def between(values, x, mode):
    """Round a positive fraction to one of ascending values (index parity is that of the code), at most the last."""
    if x >= values[-1]:
        return values[-1]
    i = max(k for k, v in enumerate(values) if v <= x)
    low, high = values[i], values[i + 1]
    if low == x or mode in ("rz", "rd"):
        return low
    middle = (low + high) / 2
    odd = bool(i % 2)
    up = {
        "ru": True, "odd": not odd, "rna": x >= middle, "rnz": x > middle, "rne": x > middle or (x == middle and odd),
    }[mode]  # fmt: skip
    return high if up else low


@pytest.mark.parametrize("mode", SIGNIFICAND_MODES)
def test_a_scale_with_a_significand_is_the_exact_quotient_by_the_largest_element_rounded_once(mode):
    values = UE4M3.exact[: UE4M3.top + 1]
    middles = [(a + b) / 2 for a, b in pairwise(values)]
    at = np.array([float(6 * v) for v in [*values[:25], *values[40::9], *values[-3:], *middles[:25], *middles[-3:]]])
    amax = np.concatenate([at, np.nextafter(at, 0), np.nextafter(at, np.inf), [5e-324, 1e-5, 1e5, 1.7e308]])
    for scale in ("ue4m3", "fp8_e4m3"):
        fmt = from_name(f"block(fp4_e2m1,16,scale={scale},mode={mode})")
        got = fmt.scale.decode(fmt.encode(amax[:, np.newaxis]).scales)[:, 0]
        expected = [float(between(values, Fraction(a) / 6, mode) or Fraction(1, 512)) for a in amax.tolist()]
        assert_same_bits(got, expected, amax, mode)


@pytest.mark.parametrize("scale", ["ue4m3", "fp8_e4m3", "fp16", "fp32"])
def test_elements_under_a_scale_with_a_significand_are_exact_quotients_rounded_once(scale, path):
    fmt = from_name(f"block(fp4_e2m1,16,scale={scale},mode=rne)")
    rng = np.random.default_rng(SEED)
    x = np.concatenate([rng.standard_normal((10, 16)), rng.integers(-48, 49, (10, 16)) / 8.0, np.zeros((1, 16))])
    scales = fmt.scale.decode(fmt.encode(x).scales)[:, 0].tolist()
    element = MX_ELEMENTS["mxfp4"]
    expected = [[element.scaled(v, Fraction(s)) for v in row] for row, s in zip(x.tolist(), scales, strict=True)]
    assert_same_bits(fmt.quantize(x), expected, x, f"seed {SEED}")


# --- exact quotients --------------------------------------------------------------------------------------------------


def rounded_quotient(x, divisor, precision, mode):
    """Nearest and directed rounding of a fraction to a number of significant bits, by integers around it."""
    exact = abs(Fraction(x) / Fraction(divisor))
    unit = Fraction(2) ** (math.floor(math.log2(exact)) - precision + 1)
    while exact / unit >= 2**precision:
        unit *= 2
    while exact / unit < 2 ** (precision - 1):
        unit /= 2
    s = exact / unit
    low = s.__floor__()
    up = {
        "rz": 0,
        "ru": x > 0,
        "rd": x < 0,
        "odd": low % 2 == 0,
        "rne": round(s) > low,
        "rna": s - low >= Fraction(1, 2),
    }
    if s != low:
        low += up[mode]
    return math.copysign(float(low * unit), x)


@pytest.mark.parametrize("mode", ["rne", "rna", "rz", "ru", "rd", "odd"])
def test_wide_formats_round_the_quotient_and_not_its_float64(mode, path):
    """With 51 of 53 bits kept, rounding the quotient to float64 first goes wrong about once in eight."""
    fmt = FloatFormat("e8m50", 8, 50)
    rng = np.random.default_rng(SEED)
    x, divisor = rng.standard_normal(400), rng.uniform(0.1, 10, 400)
    expected = [rounded_quotient(a, b, 51, mode) for a, b in zip(x.tolist(), divisor.tolist(), strict=True)]
    assert_same_bits(quantize_quotient(fmt, x, divisor, mode, "ieee"), expected, x, mode)


def test_stochastic_rounding_compares_its_word_with_the_exact_fraction(path):
    fmt = FloatFormat("e8m50", 8, 50)
    rng = np.random.default_rng(SEED)
    x, divisor = rng.uniform(1, 2, 300), rng.uniform(0.5, 1, 300)
    expected = []
    for i, (a, b) in enumerate(zip(x.tolist(), divisor.tolist(), strict=True)):
        exact = Fraction(a) / Fraction(b)
        unit = Fraction(2) ** ((1 if exact >= 2 else 0) - 50 + (exact >= 4))
        low, rest = divmod(exact, unit)
        expected.append(float((low + ((rest / unit * 2**64).__floor__() + word(3, 9 + i) >= 2**64)) * unit))
    assert_same_bits(quantize_quotient(fmt, x, divisor, "sr", "sat", 3, 9), expected, x)


def test_the_fraction_of_a_third_is_kept_to_the_last_random_bit():
    """floor(2**64 / 3) of the 2**64 random words send 1/3 up to 1."""
    fmt, mode = FixedFormat("int8", 8), parse_rounding("sr")
    least = 2**64 - 2**64 // 3
    assert _project_quotient(fmt, 1.0, 3.0, mode, "sat", least) == 1.0
    assert _project_quotient(fmt, 1.0, 3.0, mode, "sat", least - 1) == 0.0
    assert _project_quotient(fmt, -1.0, 3.0, mode, "sat", least) == -1.0


def test_wrapping_takes_all_bits_of_the_quotient():
    """The float64 around 2**61 are 512 apart, so both neighbours are the same byte and the quotient is another."""
    fmt = FixedFormat("int8", 8)
    x, divisor = [2.0**63, -(2.0**63), 700.0, 2.0**400, 1e300, -1e300], [3.0, 3.0, 3.0, 3.0, 1e-300, 1e-300]
    exact = [Fraction(a) / Fraction(b) for a, b in zip(x, divisor, strict=True)]
    expected = [(round(v) + 128) % 256 - 128 for v in exact]
    assert quantize_quotient(fmt, np.array(x), np.array(divisor), "rne", "wrap").tolist() == expected


@settings(max_examples=200, deadline=None)
@given(
    st.floats(allow_nan=False, allow_infinity=False), st.floats(5e-324, 1.7e308), st.sampled_from(["rne", "ru", "rz"])
)
def test_quotients_of_any_range_round_like_fractions(x, divisor, mode):
    fmt = FLOAT["fp8_e4m3"]
    got = quantize_quotient(fmt, np.array([x]), np.array([divisor]), mode, "sat")[0]
    towards = "rz" if mode == "ru" and x < 0 else mode
    values = MX_ELEMENTS["mxfp8_e4m3"].exact[:0x7F]
    expected = float(between(values, abs(Fraction(x) / Fraction(divisor)), towards))
    assert_same_bits([got], [math.copysign(expected, x)])


# --- NVFP4 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [-149, -140, -120, -100, -3, 0, 40, 100, 125])
def test_nvfp4_follows_its_definition_step_by_step(power, path):
    rng = np.random.default_rng(SEED)
    # Blocks from as large as the tensor down to ones whose scale is subnormal or rounds to zero.
    x = rng.standard_normal((12, 16)) * np.ldexp(1.0, -rng.integers(0, 24, (12, 1)))
    x[5], x[7, 3], x[8, 15] = 0.0, -0.0, 3.9
    x = np.ldexp(x, power).astype(np.float32).ravel()[:-5]
    assert_same_bits(NVFP4.quantize(x), nvfp4(x.tolist()), x.astype(np.float64), f"2**{power}")


def test_nvfp4_narrows_its_input_to_float32_first():
    x = np.array([1 + 2.0**-24 + 2.0**-40, 1.0, 0.3, 2.0**-160])
    assert_same_bits(NVFP4.quantize(x), NVFP4.quantize(x.astype(np.float32)), x)
    assert np.isnan(NVFP4.quantize([1e300, 1.0])).all()


def test_nvfp4_of_zeros():
    codes = NVFP4.encode(np.array([0.0, -0.0] * 20))
    assert codes.tensor_scale == 1
    assert codes.scales.tolist() == [1, 1, 1]
    assert_same_bits(NVFP4.decode(codes), [0.0, -0.0] * 20)
    # A zero block beside others: the smallest scale as well.
    assert NVFP4.encode(np.repeat([1.0, 0.0], 16)).scales.tolist() == [0x7E, 1]
    assert NVFP4.quantize(np.repeat([1.0, 0.0], 16))[16:].tolist() == [0.0] * 16


def test_nvfp4_blocks_with_nan_do_not_count_for_the_tensor_scale():
    x = np.repeat([1.0, 1000.0, 0.5], 16)
    x[20] = np.nan
    y, without = NVFP4.quantize(x), NVFP4.quantize(np.repeat([1.0, 0.5], 16))
    assert np.isnan(y[16:32]).all()
    assert_same_bits(np.concatenate([y[:16], y[32:]]), without)
    assert np.isnan(NVFP4.quantize([np.inf, np.nan])).all()


def test_nvfp4_order_of_operations_changes_bits():
    """(x * s) / scale lands on a tie or above it, where x * (s / scale) lies below."""
    x = [float.fromhex(text) for text in ("0x1.6864dep+2", "0x1.a475acp+0", "0x1.a475acp+1", "0x1.e0867ep-3")]
    codes = NVFP4.encode(x)
    s, scale = codes.tensor_scale, np.float32(448)
    assert NVFP4.scale.decode(codes.scales).tolist() == [448]
    assert NVFP4.element.decode(codes.elements).tolist() == [6, 2, 4, 0.5]
    other = np.array(x, np.float32) * (s / scale)
    assert NVFP4.element.quantize(other).tolist() == [6, 1.5, 3, 0]
    # And (amax / 6) * s against (amax * s) / 6, in the second block.
    x = np.repeat([float.fromhex("0x1.22450ep+3"), float.fromhex("0x1.b36796p+2")], 16)
    assert NVFP4.scale.decode(NVFP4.encode(x).scales).tolist() == [448, 320]
    other = np.float32(x[16]) * NVFP4.encode(x).tensor_scale / np.float32(6)
    assert NVFP4.scale.quantize([float(other)]).tolist() == [352]


def test_nvfp4_rounds_elements_stochastically_by_their_place(path):
    x = np.random.default_rng(SEED).standard_normal(40).astype(np.float32)
    codes = NVFP4.encode(x, "sr:4", seed=3, offset=500)
    scale = np.repeat(NVFP4.scale.decode(codes.scales), [16, 16, 8]).astype(np.float32)
    scaled = (x * codes.tensor_scale / scale).tolist()
    expected = [NVFP4.element.project(v, "sr:4", "sat", word(3, 500 + i)) for i, v in enumerate(scaled)]
    assert_same_bits(NVFP4.element.decode(codes.elements), expected, x.astype(np.float64))


def test_nvfp4_scales_of_a_tensor():
    assert NVFP4.encode([6.0]).tensor_scale == 448
    assert NVFP4.encode([7.0]).tensor_scale == np.float32(384)
    largest = np.finfo(np.float32).max
    assert NVFP4.encode([1e-40]).tensor_scale == largest  # 2688 / amax overflows
    assert NVFP4.max == float(2688 * float32(1 / float32(2688 / Fraction(float(largest)))))
    assert NVFP4.smallest_subnormal == float(Fraction(1, 1024) * float32(1 / Fraction(float(largest))))


def test_nvfp4_blocks_lie_along_any_axis():
    x = np.random.default_rng(SEED).standard_normal((5, 40, 3))
    for axis in range(3):
        moved = NVFP4.quantize(np.moveaxis(x, axis, -1))
        assert_same_bits(NVFP4.quantize(x, axis=axis), np.moveaxis(moved, -1, axis), x)
        assert_same_bits(NVFP4.decode(NVFP4.encode(x, axis=axis)), NVFP4.quantize(x, axis=axis), x)


def test_two_levels_are_checked_when_built():
    e2m1, ue4m3 = FLOAT["fp4_e2m1"], FLOAT["ue4m3"]
    for changes in ({"scale": FLOAT["e8m0"]}, {"mode": "ru"}, {"amax": FLOAT["bf16"]}):
        fields = {"element": e2m1, "size": 16, "scale": ue4m3, "mode": "rne", **changes}
        with pytest.raises(ValueError, match="two levels take scales with a significand, mode rne"):
            BlockFormat("mine", **fields, two_level=True)
    with pytest.raises(ValueError, match="as the largest value of two levels; expected one that is float32"):
        BlockFormat("mine", FixedFormat("int30", 30), 16, ue4m3, "rne", two_level=True)


# --- records and names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bits", "per_element", "largest", "normal", "subnormal"),
    [
        ("mxfp8_e4m3", 8, 8.25, 448 * 2.0**127, 2.0**-133, 2.0**-136),
        ("mxfp8_e5m2", 8, 8.25, 57344 * 2.0**127, 2.0**-141, 2.0**-143),
        ("mxfp6_e3m2", 6, 6.25, 28 * 2.0**127, 2.0**-129, 2.0**-131),
        ("mxfp6_e2m3", 6, 6.25, 7.5 * 2.0**127, 2.0**-127, 2.0**-130),
        ("mxfp4", 4, 4.25, 6 * 2.0**127, 2.0**-127, 2.0**-128),
        ("mxint8", 8, 8.25, 127 / 64 * 2.0**127, 2.0**-133, 2.0**-133),
    ],
)
def test_numbers_of_the_mx_formats(name, bits, per_element, largest, normal, subnormal):
    fmt = from_name(name)
    assert (fmt.bits, fmt.bits_per_element) == (bits, per_element)
    assert (fmt.max, fmt.smallest_normal, fmt.smallest_subnormal) == (largest, normal, subnormal)
    assert (fmt.size, fmt.scale.name, fmt.mode, fmt.default_overflow) == (32, "e8m0", "floor", "sat")


def test_nvfp4_takes_four_and_a_half_bits():
    assert (NVFP4.bits, NVFP4.bits_per_element, NVFP4.size) == (4, 4.5, 16)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        *((fmt.name, fmt.name) for fmt in BLOCKS),
        ("mxfp4:floor", "mxfp4"),
        ("mxfp4:rceil", "mxfp4:rceil"),
        ("nvfp4:rne", "nvfp4"),
        (" block( fp4_e2m1 , 32 , mode = floor , scale = e8m0 ) ", "mxfp4"),
        ("block(fp8_e4m3,32,scale=e8m0,mode=even)", "mxfp8_e4m3:even"),
        ("block(e4m3fn,16,scale=e8m0,mode=even)", "block(fp8_e4m3,16,scale=e8m0,mode=even)"),
        ("block(fp4_e2m1,16,scale=ue4m3,mode=rne)", "block(fp4_e2m1,16,scale=ue4m3,mode=rne)"),
        ("block(e4m3:ieee:ftz,8,scale=fp16,mode=ru,amax=bf16)", "block(e4m3:ieee:ftz,8,scale=fp16,mode=ru,amax=bf16)"),
    ],
)
def test_names_have_one_canonical_form(text, canonical):
    fmt = from_name(text)
    assert str(fmt) == canonical
    assert from_name(canonical) == fmt


@pytest.mark.parametrize("text", ["fp8_e4m3", "mxfp8", "blocks", "block", "int8", "e5m2:block(", ""])
def test_other_names_are_left_to_others(text):
    assert from_name(text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mxfp4:up", r"mxfp4:up: mode 'up' is unknown for scales in e8m0, of 1 significand bit; expected floor, ceil"),
        ("mxfp4:", r"mode '' is unknown"),
        ("nvfp4:floor", r"two levels take scales with a significand, mode rne"),
        ("nvfp4:ru", r"two levels take scales with a significand, mode rne"),
        (
            "block(fp4_e2m1,16,scale=ue4m3,mode=floor)",
            r"mode 'floor' is unknown for scales in ue4m3, of 4 .*; expected rne",
        ),
        ("block(fp4_e2m1,16,scale=ue4m3,mode=sr)", r"mode 'sr' is unknown"),
        ("block(fp4_e2m1,0,scale=e8m0,mode=floor)", r"got a block size of 0; expected 1 to 2\*\*32"),
        ("block(fp4_e2m1,4294967297,scale=e8m0,mode=floor)", r"a block size of 4294967297; expected 1 to 2\*\*32"),
        ("block(fp4_e2m1,9223372036854775807,scale=e8m0,mode=floor)", r"expected 1 to 2\*\*32"),
        ("block(fp4_e2m1,-1,scale=e8m0,mode=floor)", r"expected block\(ELEMENT,SIZE"),
        ("block(fp4_e2m1,16,scale=e8m0)", r"expected block\(ELEMENT,SIZE,scale=FORMAT,mode=MODE\)"),
        ("block(fp4_e2m1,16,scale=e8m0,mode=floor", r"expected block\(ELEMENT,SIZE"),
        ("block(fp4_e2m1)", r"expected block\(ELEMENT,SIZE"),
        ("block(fp4_e2m1,16,scale=e8m0,mode=floor,size=3)", r"'size=3' is not expected there"),
        ("block(fp4_e2m1,16,scale=e8m0,mode=floor,mode=ceil)", r"'mode=ceil' is not expected there, or not again"),
        ("block(e2m1,16,scale=e8m0,mode=floor)", r"'e2m1' is ambiguous"),
        ("block(fp5,16,scale=e8m0,mode=floor)", r"'fp5' is unknown"),
    ],
)
def test_impossible_names_say_why(text, message):
    with pytest.raises(ValueError, match=message):
        from_name(text)


def test_records_say_what_is_impossible():
    e8m0 = FLOAT["e8m0"]
    with pytest.raises(ValueError, match="got mxfp4 as the format of elements; expected one without blocks"):
        BlockFormat("mine", from_name("mxfp4"), 32, e8m0, "floor")
    with pytest.raises(ValueError, match="got int8 as the format of scale; expected a float; give"):
        BlockFormat("mine", FLOAT["fp4_e2m1"], 32, FixedFormat("int8", 8), "floor")
    with pytest.raises(ValueError, match="negative has no positive value to scale by"):
        BlockFormat("mine", CodebookFormat("negative", (-2.0, -1.0)), 32, e8m0, "floor")
    uneven = CodebookFormat("uneven", (-1.0, 0.0, 1.0, 1.3))
    with pytest.raises(ValueError, match="mode 'even' needs a precision, and uneven has no even spacing"):
        BlockFormat("mine", uneven, 32, e8m0, "even")
    assert BlockFormat("mine", uneven, 32, e8m0, "rceil").quantize([2.6, 1.9, -0.9]).tolist() == [2.6, 2.0, 0.0]


def test_single_numbers_have_no_block():
    for refused in (
        lambda: NVFP4.project(1.0, "rne", "sat"),
        lambda: NVFP4.project(0.0, "rne", "sat"),
        lambda: NVFP4.overflows(1, 0, None),
        lambda: NVFP4.code_of(1.0),
        lambda: NVFP4.value_of(1),
    ):
        with pytest.raises(TypeError, match=r"nvfp4 has no \w+ of a single number: its scale belongs to a block"):
            refused()
    with pytest.raises(
        ValueError, match=r"nvfp4 has no table of values.*that of fp4_e2m1, and its scales, that of ue4m3"
    ):
        NVFP4.table()


def test_uses_are_checked_against_the_elements():
    with pytest.raises(ValueError, match="overflow 'nan' needs a NaN, and fp4_e2m1 has none"):
        from_name("mxfp4").quantize([1.0], overflow="nan")
    with pytest.raises(ValueError, match="'wrap' is for fixed point and integers, and fp4_e2m1 is neither"):
        from_name("mxfp4").quantize([1.0], overflow="wrap")
    with pytest.raises(ValueError, match="rounding 'up' is unknown"):
        from_name("mxfp4").quantize([1.0], "up")
    assert np.isnan(from_name("mxfp8_e4m3").quantize([480.0, 1.0], overflow="nan")[0])
    assert from_name("mxfp8_e4m3").quantize([480.0, 1.0], overflow="nan")[1] == 1.0


def test_a_block_longer_than_the_array_is_one_block(path):
    longest = from_name("block(fp4_e2m1,4294967296,scale=e8m0,mode=floor)")
    x = np.random.default_rng(4).standard_normal((7, 5))
    for axis in (0, 1):
        one = from_name(f"block(fp4_e2m1,{x.shape[axis]},scale=e8m0,mode=floor)")
        assert_same_bits(longest.quantize(x, axis=axis), one.quantize(x, axis=axis), x)


def test_quotients_far_beyond_the_range_wrap_around_as_whole_numbers_do(path):
    """A scale that saturates leaves quotients of any size; no bit of theirs may be lost before they wrap."""
    fmt = from_name("block(int8,4,scale=ue4m3,mode=rne)")
    rng = np.random.default_rng(6)
    x = np.ldexp(rng.standard_normal(64), np.repeat(rng.integers(20, 900, 16), 4))
    codes = fmt.encode(x, overflow="wrap")
    scales = np.repeat(fmt.scale.decode(codes.scales), 4)
    exact = [Fraction(v) / Fraction(s) for v, s in zip(x.tolist(), scales.tolist(), strict=True)]
    assert (scales == fmt.scale.max).any()
    assert codes.elements.tolist() == [round(q) % 256 for q in exact], "seed 6"
