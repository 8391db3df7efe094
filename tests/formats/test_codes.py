"""Codes: decode against other libraries on every code, encode as its inverse, order, refusals."""

import math

import gfloat
import ml_dtypes
import numpy as np
import pytest
from gfloat.types import Domain

import formats
from formats.catalogue import FLOATS
from tests.oracles.bits import assert_same_bits
from tests.oracles.nearest import CATALOGUE, Magnitudes, top_code

NARROW = [fmt for fmt in CATALOGUE if fmt.bits <= 16]

# Catalogue name -> the dtype of ml_dtypes or numpy that has the same codes, right-aligned in its storage.
DTYPES = {
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
    "fp8_e3m4": ml_dtypes.float8_e3m4,
    "fp8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "fp8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "fp8_e4m3b11fnuz": ml_dtypes.float8_e4m3b11fnuz,
    "fp6_e3m2": ml_dtypes.float6_e3m2fn,
    "fp6_e2m3": ml_dtypes.float6_e2m3fn,
    "fp4_e2m1": ml_dtypes.float4_e2m1fn,
    "e4m3:ieee": ml_dtypes.float8_e4m3,
}

# Constants of the formats, transcribed from the standards named in the catalogue: p, bias, largest, smallest normal,
# smallest subnormal, codes of infinities, codes of NaNs, whether -0 exists.
CONSTANTS = {
    "fp8_e5m2": (3, 15, 57344.0, 2.0**-14, 2.0**-16, {0x7C, 0xFC}, {0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF}, True),
    "fp8_e4m3": (4, 7, 448.0, 2.0**-6, 2.0**-9, set(), {0x7F, 0xFF}, True),
    "e4m3:ieee": (4, 7, 240.0, 2.0**-6, 2.0**-9, {0x78, 0xF8}, {*range(0x79, 0x80), *range(0xF9, 0x100)}, True),
    "fp8_e4m3fnuz": (4, 8, 240.0, 2.0**-7, 2.0**-10, set(), {0x80}, False),
    "fp8_e5m2fnuz": (3, 16, 57344.0, 2.0**-15, 2.0**-17, set(), {0x80}, False),
    "fp8_e4m3b11fnuz": (4, 11, 30.0, 2.0**-10, 2.0**-13, set(), {0x80}, False),
    "fp8_e3m4": (5, 3, 15.5, 2.0**-2, 2.0**-6, {0x70, 0xF0}, {*range(0x71, 0x80), *range(0xF1, 0x100)}, True),
    "fp6_e3m2": (3, 3, 28.0, 0.25, 0.0625, set(), set(), True),
    "fp6_e2m3": (4, 1, 7.5, 1.0, 0.125, set(), set(), True),
    "fp4_e2m1": (2, 1, 6.0, 1.0, 0.5, set(), set(), True),
    "e8m0": (1, 127, 2.0**127, 2.0**-127, 2.0**-127, set(), {0xFF}, False),
    "ue4m3": (4, 7, 448.0, 2.0**-6, 2.0**-9, set(), {0x7F}, False),
    "dlfloat16": (10, 31, 8573157376.0, 2.0**-31 * (1 + 2.0**-9), 2.0**-31 * (1 + 2.0**-9), set(),
                  {0x7FFF, 0xFFFF}, True),
    "fp16": (11, 15, 65504.0, 2.0**-14, 2.0**-24, {0x7C00, 0xFC00},
             {*range(0x7C01, 0x8000), *range(0xFC01, 0x10000)}, True),
    "bf16": (8, 127, math.ldexp(255, 120), 2.0**-126, 2.0**-133, {0x7F80, 0xFF80},
             {*range(0x7F81, 0x8000), *range(0xFF81, 0x10000)}, True),
}  # fmt: skip

# The same of formats with too many codes for a table, and the codes of their infinities.
WIDE_CONSTANTS = {
    "tf32": (11, 127, (2 - 2.0**-10) * 2.0**127, 2.0**-126, 2.0**-136, {0x3FC00, 0x7FC00}),
    "e8m13": (14, 127, (2 - 2.0**-13) * 2.0**127, 2.0**-126, 2.0**-139, {0x1FE000, 0x3FE000}),
    "fp32": (24, 127, (2 - 2.0**-23) * 2.0**127, 2.0**-126, 2.0**-149, {0x7F800000, 0xFF800000}),
    "fp64": (53, 1023, (2 - 2.0**-52) * 2.0**1023, 2.0**-1022, 2.0**-1074, {0x7FF << 52, 0xFFF << 52}),
}


def all_codes(fmt):
    return np.arange(1 << fmt.bits, dtype=fmt.code_dtype)


@pytest.mark.parametrize("name", sorted(DTYPES))
def test_every_code_decodes_as_in_ml_dtypes_or_numpy(name):
    fmt, dtype = formats.get(name), np.dtype(DTYPES[name])
    codes = all_codes(fmt)
    with np.errstate(invalid="ignore"):
        expected = codes.astype(f"u{dtype.itemsize}").view(dtype).astype(np.float64)
    assert_same_bits(fmt.decode(codes), expected, codes, name)
    assert_same_bits(fmt.table(), expected, codes, name)


def test_the_oracle_covers_every_catalogue_format_up_to_16_bits():
    assert {fmt.name for fmt in NARROW} <= set(DTYPES)


@pytest.mark.parametrize("name", sorted(CONSTANTS))
def test_constants_are_those_of_the_standard(name):
    precision, bias, largest, normal, subnormal, infinities, nans, negative_zero = CONSTANTS[name]
    fmt = formats.get(name)
    table = fmt.table()
    assert (fmt.precision, fmt.bias) == (precision, bias)
    assert (fmt.max, fmt.smallest_normal, fmt.smallest_subnormal) == (largest, normal, subnormal)
    assert (np.nanmax(table[np.isfinite(table)]), table[table > 0].min()) == (largest, subnormal)
    assert set(np.flatnonzero(np.isinf(table)).tolist()) == infinities
    assert set(np.flatnonzero(np.isnan(table)).tolist()) == nans
    zeros = table[table == 0]
    assert zeros.size == (name != "e8m0") + negative_zero
    assert fmt.has_negative_zero == negative_zero
    assert fmt.has_infinity == bool(infinities)
    assert fmt.has_nan == bool(nans)


@pytest.mark.parametrize("name", sorted(WIDE_CONSTANTS))
def test_constants_of_wide_formats_are_those_of_the_standard(name):
    precision, bias, largest, normal, subnormal, infinities = WIDE_CONSTANTS[name]
    fmt = formats.get(name)
    assert (fmt.precision, fmt.bias) == (precision, bias)
    assert (fmt.max, fmt.smallest_normal, fmt.smallest_subnormal) == (largest, normal, subnormal)
    assert set(fmt.encode([math.inf, -math.inf]).tolist()) == infinities
    assert fmt.value_of(1) == subnormal and fmt.value_of(min(infinities) - 1) == largest
    assert math.isnan(fmt.value_of(min(infinities) + 1)) and fmt.has_nan and fmt.has_negative_zero


def test_every_format_of_the_catalogue_has_its_constants_tested():
    assert {fmt.name for fmt in FLOATS} <= {*CONSTANTS, *WIDE_CONSTANTS}


@pytest.mark.parametrize("name", ["fp16", "fp8_e4m3", "fp8_e5m2fnuz", "e4m3:ieee"])
def test_fnuz_and_fn_nan_codes(name):
    fmt = formats.get(name)
    expected = {"fp16": 0x7E00, "fp8_e4m3": 0x7F, "fp8_e5m2fnuz": 0x80, "e4m3:ieee": 0x7C}[name]
    assert fmt.encode([math.nan]).tolist() == [expected]


@pytest.mark.parametrize("name", ["tf32", "fp32", "e8m13"])
def test_wide_formats_are_the_upper_bits_of_float32(name):
    """Truncating float32 codes to their upper bits is the definition of these formats; every exponent is tried."""
    fmt = formats.get(name)
    dropped = 32 - fmt.bits
    rng = np.random.default_rng(11)
    fractions = rng.integers(0, 1 << fmt.fraction_bits, (512, 20))
    codes = ((np.arange(512)[:, None] << fmt.fraction_bits) | fractions).astype(np.uint32).ravel()
    with np.errstate(invalid="ignore"):
        expected = (codes << np.uint32(dropped)).view(np.float32).astype(np.float64)
    assert_same_bits(fmt.decode(codes), expected, codes, f"{name} seed 11")
    numbers = ~np.isnan(expected)
    assert fmt.encode(expected[numbers]).tolist() == codes[numbers].tolist()


def test_fp64_codes_are_the_bits_of_a_double():
    fmt = formats.get("fp64")
    codes = np.random.default_rng(12).integers(0, 1 << 64, 2000, dtype=np.uint64)
    expected = codes.view(np.float64)
    numbers = ~np.isnan(expected)
    assert_same_bits(fmt.decode(codes), expected, codes, "seed 12")
    assert fmt.encode(expected[numbers]).tolist() == codes[numbers].tolist()


# --- a grid of eXmY with modifiers -----------------------------------------------------------------------------------

DOMAINS = {"ieee": Domain.Extended, "fn": Domain.Finite, "fnuz": Domain.Finite, "finite": Domain.Finite}


def _grid():
    """Names of small formats of every dialect, with and without subnormals, with biases other than the default."""
    for x in range(1, 7):
        for y in range(x == 1, 7 - x):  # e1m0 alone has no finite value, so its modifiers have nothing to start from
            for dialect in DOMAINS:
                for modifiers in ("", ":ftz", ":b3", ":b-2:ftz"):
                    name = f"e{x}m{y}:{dialect}{modifiers}"
                    # Refused where no finite normal value is left; test_names.py has the refusals themselves.
                    normal = top_code(x, y, dialect) >= 1 << y
                    if normal or ("ftz" not in name and top_code(x, y, dialect) > 0):
                        yield pytest.param(name, x, y, dialect, id=name)


GRID = list(_grid())


@pytest.mark.parametrize(("name", "x", "y", "dialect"), GRID)
def test_grid_decodes_as_the_definition_of_a_float_and_as_gfloat(name, x, y, dialect):
    fmt = formats.get(name)
    top = top_code(x, y, dialect)
    assert fmt.bits == 1 + x + y
    sign = 1 << (x + y)
    table = fmt.table()
    magnitudes = Magnitudes(x, y, fmt.bias, top).values[: top + 1]
    if ":ftz" in name:
        magnitudes[: 1 << y] = 0.0
    assert_same_bits(table[: top + 1], magnitudes, note=name)
    negative = -magnitudes
    if dialect == "fnuz":
        negative[0] = math.nan
    assert_same_bits(table[sign : sign + top + 1], negative, note=name)
    assert not np.isfinite(table[top + 1 : sign]).any()
    if ":ftz" not in name and not (dialect == "ieee" and y == 0):
        high_nans = {"ieee": (1 << y) - 1, "fn": 1, "fnuz": 0, "finite": 0}[dialect]
        info = gfloat.FormatInfo(
            name, 1 + x + y, y + 1, bias=fmt.bias, is_signed=True, domain=DOMAINS[dialect], has_nz=dialect != "fnuz",
            num_high_nans=high_nans, has_subnormals=True, is_twos_complement=False,
        )  # fmt: skip
        expected = [gfloat.decode_float(info, code).fval for code in range(1 << fmt.bits)]
        assert_same_bits(table, expected, note=f"{name}, gfloat")


@pytest.mark.parametrize(("name", "x", "y", "dialect"), GRID)
def test_grid_encode_inverts_decode_on_every_code(name, x, y, dialect):
    assert_encode_inverts_decode(formats.get(name))


@pytest.mark.parametrize("fmt", NARROW, ids=str)
def test_encode_inverts_decode_on_every_code(fmt):
    assert_encode_inverts_decode(fmt)


def assert_encode_inverts_decode(fmt):
    codes = all_codes(fmt)
    values = fmt.decode(codes)
    # NaN has many codes and comes back as one of them; a flushed subnormal code means zero and comes back as zero.
    own = ~np.isnan(values) & ((values != 0) | (codes % (1 << (fmt.bits - 1)) == 0))
    again = fmt.encode(values[own])
    assert again.dtype == fmt.code_dtype
    assert again.tolist() == codes[own].tolist(), fmt.name
    if np.isnan(values).any():
        assert np.isnan(fmt.decode(fmt.encode([math.nan]))).all()


@pytest.mark.parametrize("fmt", NARROW, ids=str)
def test_codes_are_ordered_like_their_values(fmt):
    half = 1 << (fmt.bits - 1)
    positive = fmt.table()[:half]
    positive = positive[~np.isnan(positive)]
    assert (np.diff(positive[np.isfinite(positive)]) > 0).all()
    negative = fmt.table()[half:]
    negative = negative[np.isfinite(negative)]
    assert (np.diff(negative) < 0).all()


# --- refusals --------------------------------------------------------------------------------------------------------


def test_codes_outside_the_format_are_refused_with_the_range():
    fmt = formats.get("fp8_e4m3")
    with pytest.raises(ValueError, match=r"codes of fp8_e4m3: got -1 \.\. 256; expected 0 \.\. 255"):
        fmt.decode([-1, 256])
    with pytest.raises(ValueError, match=r"code 256 of fp8_e4m3 lies outside 0 \.\. 255"):
        fmt.value_of(256)


def test_codes_that_are_no_integers_are_refused():
    with pytest.raises(TypeError, match="codes of fp16: got float64; expected integers"):
        formats.get("fp16").decode([1.0])


def test_a_value_without_a_code_is_refused():
    with pytest.raises(ValueError, match=r"0\.3 is not a value of fp16"):
        formats.get("fp16").code_of(0.3)
    with pytest.raises(ValueError, match="fp8_e4m3 has no infinity"):
        formats.get("fp8_e4m3").code_of(math.inf)
    with pytest.raises(ValueError, match="fp4_e2m1 has no NaN"):
        formats.get("fp4_e2m1").code_of(math.nan)
    with pytest.raises(ValueError, match="fp8_e4m3fnuz has no negative zero"):
        formats.get("fp8_e4m3fnuz").code_of(-0.0)


def test_tables_are_for_at_most_16_bits():
    with pytest.raises(ValueError, match=r"tf32 has 2\*\*19 codes; tables are made for at most 16 bits"):
        formats.get("tf32").table()


def test_decode_keeps_the_shape_and_takes_empty_and_large_arrays():
    fmt = formats.get("fp8_e5m2")
    assert fmt.decode([]).shape == (0,)
    assert fmt.decode(np.zeros((0, 3), np.uint8)).shape == (0, 3)
    assert fmt.decode(0x3C).shape == ()
    many = np.tile(all_codes(fmt), 3).reshape(3, 256)
    assert_same_bits(fmt.decode(many), np.tile(fmt.table(), (3, 1)))
