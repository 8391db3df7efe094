"""What decode, encode and table must do, and what the numbers that a format says of itself must mean."""

import math

import numpy as np
import pytest

from formats import CodebookFormat, FixedFormat, FloatFormat
from formats.tapered import TaperedFormat
from tests.conftest import DEFINITION
from tests.contracts.samples import codes_of, finite_of, values_of
from tests.oracles.bits import assert_same_bits, bits


def test_decode_and_table_are_value_of_on_every_code(fmt, path):
    every = 61 if path == DEFINITION and codes_of(fmt).size > 2000 else 1
    codes, values = codes_of(fmt)[::every], values_of(fmt)[::every]
    assert_same_bits(fmt.decode(codes.astype(fmt.code_dtype)), values, codes, f"{fmt.name} {path}")
    assert fmt.decode(codes).dtype == np.float64
    few, of_few = codes[::5], values[::5]
    for dtype in (np.int64 if fmt.bits < 64 else np.uint64, f">u{fmt.code_dtype.itemsize}"):
        assert_same_bits(fmt.decode(few.astype(dtype)), of_few, few, f"{fmt.name} {path} {dtype}")
    if fmt.bits <= 8:  # more codes than there are, and not contiguous
        assert_same_bits(fmt.decode(codes.repeat(3)[::-1]), values.repeat(3)[::-1], note=f"{fmt.name} {path}")
    if fmt.bits > 16:
        with pytest.raises(ValueError, match=rf"2\*\*{fmt.bits} codes; tables are made for at most 16 bits"):
            fmt.table()
        return
    table = fmt.table()
    assert_same_bits(table, values_of(fmt), codes_of(fmt), f"{fmt.name} {path}")
    assert 1 << (fmt.bits - 1) < table.size <= 1 << fmt.bits
    table[:] = 0.0  # the caller's own
    assert fmt.decode(few[1:]).tobytes() != np.zeros(few[1:].size).tobytes() or fmt.bits < 4


def assert_encode_inverts_decode(fmt, every=1):
    codes, values = codes_of(fmt)[::every], values_of(fmt)[::every]
    numbers = ~np.isnan(values)
    encoded = fmt.encode(values[numbers])
    if getattr(fmt, "subnormals", True):
        assert encoded.tolist() == codes[numbers].tolist(), fmt.name
    else:  # the codes of flushed subnormals mean zero, and zero has a code of its own
        zero = values[numbers] == 0
        assert encoded[~zero].tolist() == codes[numbers][~zero].tolist(), fmt.name
        assert_same_bits(fmt.decode(encoded), values[numbers])
    if np.isnan(values).any():
        canonical = fmt.encode([math.nan])
        assert np.isnan(fmt.decode(canonical)).all()
        assert fmt.encode(values[~numbers]).tolist() == canonical.tolist() * int((~numbers).sum())


def test_encode_inverts_decode_on_every_code(fmt, path):
    slow = path == DEFINITION and codes_of(fmt).size > 2000
    assert_encode_inverts_decode(fmt, 61 if slow else 1)


@pytest.mark.full
def test_the_definition_of_encode_inverts_decode_on_every_code(fmt, monkeypatch):
    monkeypatch.setattr("formats.Format.fast_twins", {})
    assert_encode_inverts_decode(fmt)


def test_code_of_inverts_value_of(fmt):
    step = max(codes_of(fmt).size // 2000, 1)
    for code, value in zip(codes_of(fmt)[::step].tolist(), values_of(fmt)[::step].tolist(), strict=True):
        again = fmt.code_of(value)
        assert bits(fmt.value_of(again)) == bits(value), f"{fmt.name}: code {code} is {value}, whose code is {again}"


def in_order(fmt):
    """Codes from the smallest value to the largest, as the family documents it."""
    half = 1 << (fmt.bits - 1)
    codes = codes_of(fmt)
    if isinstance(fmt, CodebookFormat) or not (finite_of(fmt) < 0).any():
        return np.unique(codes)
    if isinstance(fmt, FloatFormat):  # sign and magnitude
        return np.concatenate([np.unique(codes[codes >= half])[::-1], np.unique(codes[codes < half])])
    return np.concatenate([np.unique(codes[codes >= half]), np.unique(codes[codes < half])])  # two's complement


def test_codes_are_ordered_as_their_values(fmt):
    if not isinstance(fmt, FloatFormat | FixedFormat | TaperedFormat | CodebookFormat):
        pytest.skip("a family that documents no order")
    values = fmt.decode(in_order(fmt))
    values = values[np.isfinite(values)]
    rises = np.diff(values)
    flat = values[1:][rises == 0]
    assert (rises >= 0).all(), fmt.name
    # Only zero may have several codes: one for each sign, and those of flushed subnormals.
    assert (flat == 0).all() and (flat.size <= 1 or not getattr(fmt, "subnormals", True)), fmt.name


def test_the_derived_numbers_are_those_of_the_values(fmt, path):
    finite = finite_of(fmt)
    magnitudes = np.abs(finite[finite != 0]) if isinstance(fmt, CodebookFormat) else finite[finite > 0]
    assert fmt.smallest_subnormal <= fmt.smallest_normal
    if fmt.bits <= 16:
        assert (fmt.max, fmt.smallest_subnormal) == (finite[-1], magnitudes.min())
        # Without a normal value beside the special codes (e1m1) the smallest one would lie beyond the largest.
        assert fmt.smallest_normal in magnitudes or fmt.smallest_normal > fmt.max
        assert fmt.has_nan == bool(np.isnan(values_of(fmt)).any())
    else:
        above, below = fmt.code_of(fmt.max) + 1, fmt.code_of(fmt.smallest_subnormal) - 1
        assert above >> fmt.bits or not fmt.max < fmt.value_of(above) < math.inf
        assert not 0 < fmt.value_of(below) < fmt.smallest_subnormal
        assert finite[-1] <= fmt.max and magnitudes.min() >= fmt.smallest_subnormal
        assert fmt.value_of(fmt.code_of(fmt.smallest_normal)) == fmt.smallest_normal
        if fmt.has_nan:
            assert math.isnan(fmt.value_of(fmt.code_of(math.nan)))
    assert fmt.code_dtype == np.min_scalar_type((1 << fmt.bits) - 1)
    # No result lies beyond the largest or between zero and the smallest: two numbers that would show it.
    far, near = fmt.quantize([1.7976931348623157e308, math.nextafter(fmt.smallest_subnormal, 0)], "rz", "sat")
    assert far == fmt.max and not 0 < near < fmt.smallest_subnormal


def test_a_format_is_a_hashable_record_with_a_name(fmt):
    assert hash(fmt) == hash(fmt) and fmt == fmt
    assert str(fmt) == fmt.name != ""


def test_codes_that_are_none_are_refused(fmt, path):
    last = fmt.table().size - 1 if fmt.bits <= 16 else (1 << fmt.bits) - 1
    for bad in ([-1, 0], *([[0, last + 1]] if last < (1 << 64) - 1 else [])):
        with pytest.raises(ValueError, match=rf"codes of .*: got .*; expected 0 \.\. {last}"):
            fmt.decode(np.array(bad, np.int64 if bad[0] < 0 else np.uint64))
    for code in (-1, last + 1):
        with pytest.raises(ValueError, match=rf"code {code} of .* lies outside 0 \.\. {last}"):
            fmt.value_of(code)
    for codes in ([1.0], ["1"], [None], [1j]):
        with pytest.raises(TypeError, match=f"codes of .*: got {np.asarray(codes).dtype}; expected integers"):
            fmt.decode(codes)


def test_a_number_that_is_no_value_has_no_code(fmt):
    finite = finite_of(fmt)
    between = finite[:-1] / 2 + finite[1:] / 2
    wrong = [v for v in between[:: max(between.size // 20, 1)].tolist() if v not in finite] if fmt.bits <= 16 else []
    for value in (*wrong, 1.7976931348623157e308 if fmt.max < 1e300 else 5e-324, 3e-320):
        if fmt.quantize([value], "rz", "sat")[0] != value:
            with pytest.raises(ValueError, match=fmt.name.replace(".", r"\.").replace("(", r"\(")):
                fmt.code_of(value)
