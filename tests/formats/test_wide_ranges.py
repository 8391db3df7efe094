"""Formats with values that float64 does not hold are described exactly: against fractions made from their codes."""

import itertools
import math
import re
from fractions import Fraction

import pytest

import formats
from formats import FloatFormat
from formats.binades import bands, binades, relative_spacing
from formats.comparison import compare
from formats.exact import code_or_none, contains, ends, log2, next_magnitude, number, pair_of, value_of
from formats.facts import facts_of
from formats.table import landmarks, rows, specials

# The smallest and the largest value, or one of them, is beyond float64. No more than 13 bits, so that sets are small.
WIDE = [
    "e5m2:b-1000", "e4m3:fn:b1080", "e4m3:finite:b1080:ftz", "e6m2:b1080", "binary12p1ue", "binary13p1ue",
    "binary13p2uf", "binary13p1se",
]  # fmt: skip
P3109_WIDE = [
    name
    for k in range(3, 17)
    for kind in ("se", "sf", "ue", "uf")
    for p in range(1, k + (kind[0] == "u"))
    if not formats.get(name := f"binary{k}p{p}{kind}").fits_float64
]


def magnitude(fmt, code):
    """The value of the bits of a magnitude by IEEE 754-2019, section 3.4, which P3109 shares: (E > 0) + T, scaled."""
    field, fraction = code >> fmt.fraction_bits, code & ((1 << fmt.fraction_bits) - 1)
    if not field and not fmt.subnormals:
        return Fraction(0)
    significand = bool(field) + Fraction(fraction, 1 << fmt.fraction_bits)
    return significand * Fraction(2) ** (max(field, 1) - fmt.bias)


def finite(name):
    """All finite values of a format of the dialects above."""
    fmt = formats.get(name)
    codes = 1 << (fmt.exponent_bits + fmt.fraction_bits)
    reserved = {"ieee": 1 << fmt.fraction_bits, "fn": 1, "finite": 0, "se": 1, "sf": 0, "ue": 2, "uf": 1}
    magnitudes = {magnitude(fmt, code) for code in range(codes - reserved[fmt.dialect])}
    return magnitudes | {-value for value in magnitudes} if fmt.rules.signed else magnitudes


def exponent(value):
    """floor(log2(value)), from the lengths of numerator and denominator."""
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    return guess if Fraction(2) ** guess <= value else guess - 1


def test_the_formats_of_these_tests_are_wide():
    assert not any(formats.get(name).fits_float64 for name in WIDE)
    assert len(P3109_WIDE) == 50


# --- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("integer", "exponent", "is_float"),
    [
        (1, 1023, True), (1, 1024, False), ((1 << 53) - 1, 971, True), ((1 << 53) - 1, 972, False), (1, -1074, True),
        (1, -1075, False), (2, -1075, True), (3, -1075, False), ((1 << 54) - 1, 0, False), (-3, 9000, False),
        (0, 0, True), (-5, -9000, False), (1 << 60, -60, True),
    ],
)  # fmt: skip
def test_a_number_is_a_float_where_float64_holds_it_and_a_fraction_elsewhere(integer, exponent, is_float):
    value = number(integer, exponent)
    assert isinstance(value, float) == is_float and isinstance(value, Fraction) != is_float
    assert value == integer * Fraction(2) ** exponent
    odd, power = pair_of(value)
    assert odd * Fraction(2) ** power == value and (odd % 2 == 1 or value == 0)


def test_logarithms_reach_beyond_float64():
    assert log2(number(1, 16382)) == 16382 and log2(number(1, -99999)) == -99999 and log2(8.0) == 3
    assert round(log2(number(3, 9000)) - 9000, 12) == round(math.log2(3), 12)


# --- values and codes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WIDE)
def test_the_values_of_a_wide_format_are_those_of_its_bits(name):
    fmt = formats.get(name)
    values = [value_of(fmt, code) for code in range(1 << fmt.bits)]
    exact = [value for value in values if not isinstance(value, float) or math.isfinite(value)]
    assert {Fraction(value) for value in exact} == finite(name)
    for code, value in enumerate(values):
        magnitude_code = code & ((1 << (fmt.exponent_bits + fmt.fraction_bits)) - 1)
        if isinstance(value, Fraction):
            assert abs(value) == magnitude(fmt, magnitude_code), hex(code)
            assert code_or_none(fmt, value) == fmt.code_of_exact(*pair_of(value)) == code
    assert any(isinstance(value, Fraction) for value in values)


def test_what_is_no_value_of_a_wide_format_has_no_code():
    fmt = formats.get("e5m2:b-1000")
    for integer, power in ((9, 1010), (1, 998), (1, 1031), (1, 99_000), (-1, 998)):
        with pytest.raises(ValueError, match=rf"^{integer} \* 2\*\*{power} is not a value of e5m2:b-1000$"):
            fmt.code_of_exact(integer, power)
        assert code_or_none(fmt, number(integer, power)) is None and not contains(fmt, number(integer, power))
    with pytest.raises(ValueError, match=r"-1 \* 2\*\*1024 is not a value of binary13p1ue"):
        formats.get("binary13p1ue").code_of_exact(-1, 1024)
    assert code_or_none(formats.get("posit16"), number(1, 2000)) is None


def test_every_code_of_a_narrow_wide_format_has_a_row():
    found = rows(formats.get("e5m2:b-1000"))
    assert [row.code for row in found] == list(range(256))
    assert found[0x7B].value == 7 * Fraction(2) ** 1028 and found[0x81].value == -(2.0**999)
    assert {row.meaning for row in found} == {"zero", "subnormal", "normal", "infinity", "NaN"}
    assert [row.meaning for row in found[1:5]] == ["subnormal"] * 3 + ["normal"]


@pytest.mark.parametrize("name", [*P3109_WIDE, *WIDE, "e11m52:b1025", "e11m0:b-99999"])
def test_facts_and_landmarks_of_a_wide_format_are_its_ends(name):
    fmt = formats.get(name)
    facts, known = facts_of(fmt), {what: row for row in landmarks(fmt) for what in row.meaning.split(", ")}
    codes = 1 << (fmt.exponent_bits + fmt.fraction_bits)
    reserved = {"ieee": 1 << fmt.fraction_bits, "fn": 1, "finite": 0, "se": 1, "sf": 0, "ue": 2, "uf": 1}[fmt.dialect]
    largest = magnitude(fmt, codes - reserved - 1)
    smallest = magnitude(fmt, 1 if fmt.subnormals else 1 << fmt.fraction_bits)
    normal = magnitude(fmt, 1 << fmt.fraction_bits)
    assert (facts.max, facts.smallest_normal, facts.smallest_subnormal) == (largest, normal, smallest)
    assert facts.min == (-largest if fmt.rules.signed else 0)
    assert known["largest"].value == largest and known["smallest positive"].value == smallest
    assert known["largest"].code == codes - reserved - 1
    assert known["lowest"].value == -largest if fmt.rules.signed else "lowest" not in known
    assert -1 < facts.range_binades - (exponent(largest) - exponent(smallest)) <= 1  # the logarithm of a quotient
    assert facts.details["emax"] == exponent(largest)
    if smallest < normal:
        assert known["largest subnormal"].value == normal - smallest
    assert len(specials(fmt).infinities) == (2 if fmt.rules.signed else 1) * fmt.has_infinity


# --- binades and spacing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", WIDE)
def test_binades_of_a_wide_format_are_those_of_its_values(name, sign):
    magnitudes = sorted(value * sign for value in finite(name) if value * sign > 0)
    expected = []
    for e, group in itertools.groupby(enumerate(magnitudes), key=lambda pair: exponent(pair[1])):
        places = [place for place, _ in group]
        gaps = [magnitudes[i + 1] - magnitudes[i] for i in places if i + 1 < len(magnitudes)]
        unit = Fraction(2) ** e
        steps = (min(gaps) / unit, max(gaps) / unit) if gaps else None
        expected.append((e, magnitudes[places[0]], magnitudes[places[-1]], len(places), steps))
    found = binades(formats.get(name), sign)
    assert [(b.exponent, b.first, b.last, b.count, b.steps) for b in found] == expected


@pytest.mark.parametrize("name", WIDE)
def test_neighbours_and_spacing_in_a_wide_format(name):
    fmt = formats.get(name)
    values = sorted(finite(name))
    magnitudes = [value for value in values if value >= 0]
    assert [next_magnitude(fmt, value) for value in magnitudes] == [*magnitudes[1:], None]
    assert (ends(fmt).lowest, ends(fmt).largest) == (values[0], values[-1])
    middles = [(low + high) / 2 for low, high in itertools.pairwise(values)]
    assert all(contains(fmt, value) for value in values) and not any(contains(fmt, value) for value in middles)
    after = dict(itertools.pairwise(magnitudes))
    for point in relative_spacing(fmt):
        value = point.significand * Fraction(2) ** point.exponent
        assert 1 <= point.significand < 2
        assert value == magnitudes[-1] or point.relative == (after[value] - value) / value


def test_bands_of_wide_formats():
    (band,) = bands(formats.get("binary16p1se"))
    assert (band.low, band.high, band.count, band.precisions) == (-16383, 16382, 32766, (1, 1))
    assert band.gaps == (Fraction(1, 2**16383), 2**16381)
    fixed, floating = bands(formats.get("e11m52:b1025"))
    assert (fixed.low, fixed.high, floating.low, floating.high) == (-1076, -1025, -1024, 1021)
    assert fixed.gaps == (Fraction(1, 2**1076),) * 2 and floating.precisions == (53, 53)


# --- comparison -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("binary12p1ue", "binary13p1ue"), ("binary13p1ue", "binary13p2uf"), ("e5m2:b-1000", "e6m2:b1080"),
        ("binary13p1se", "binary12p1ue"), ("e4m3:fn:b1080", "e4m3:finite:b1080:ftz"), ("e5m2:b-1000", "fp8_e5m2"),
        ("binary13p1se", "fp8_e4m3"), ("fp8_e5m2", "binary13p2uf"), ("e6m2:b1080", "e6m2:b1080"),
    ],
)  # fmt: skip
def test_values_that_only_one_of_two_formats_has_are_those_of_the_sets(a, b):
    found = compare(formats.get(a), formats.get(b))
    of_a, of_b = finite(a), finite(b)
    assert found.counts == (len(of_a), len(of_b), len(of_a & of_b))
    for lacking, only in ((found.only_a, of_a - of_b), (found.only_b, of_b - of_a)):
        assert sum(one.count for one in lacking) == len(only)
        for one in lacking:
            values = {*one.examples, one.low, one.high} - {None}
            assert values <= only
            assert not one.both_signs or {-value for value in values} <= only
            if one.kind == "beyond its range" and one.both_signs:
                top = max(of_b if lacking is found.only_a else of_a)
                assert (one.low, one.high) == (min(value for value in only if value > top), max(only))


def test_codes_of_wide_formats_are_compared_one_by_one():
    a, b = formats.get("binary13p1se"), formats.get("binary13p2se")
    pairs = [(value_of(a, code), value_of(b, code)) for code in range(1 << 13)]
    differ = [code for code, (one, other) in enumerate(pairs) if one != other and (one == one or other == other)]
    found = compare(a, b)
    assert found.codes == len(differ)
    assert [one.code for one, _ in found.code_examples] == differ[:16]
    assert compare(a, formats.get("binary13p1se")).codes == 0


def test_a_wide_format_against_float64():
    found = compare(formats.get("binary16p1se"), formats.get("fp64"))
    # The powers of two from 2**-1074 to 2**1023 in both signs, and zero.
    assert found.counts == (2 * 32766 + 1, 2 * 0x7FEFFFFFFFFFFFFF + 1, 2 * 2098 + 1)
    ranges = {one.kind: (one.count, one.low, one.high) for one in found.only_a}
    assert ranges == {
        "nearer to zero than its smallest": (2 * (16383 - 1074), Fraction(1, 2**16383), Fraction(1, 2**1075)),
        "beyond its range": (2 * (16382 - 1023), 2**1024, 2**16382),
    }
    assert [one.kind for one in found.only_b] == ["between its values"]
    assert [(s.low, s.high, s.a, s.b) for s in found.precision] == [
        (-16383, -1075, (1, 1), None), (-1074, -1023, (1, 1), (1, 52)), (-1022, 1023, (1, 1), (53, 53)),
        (1024, 16382, (1, 1), None),
    ]  # fmt: skip


# --- ends of what there is ------------------------------------------------------------------------------------------


def test_a_format_of_subnormals_only_has_no_normal_value():
    fmt = formats.get("e1m2")
    assert fmt.decode(range(4)).tolist() == [0.0, 0.5, 1.0, 1.5]
    assert fmt.max == 1.5 and fmt.smallest_normal == 2.0  # where full precision would begin
    facts = facts_of(fmt)
    assert facts.smallest_normal is None and facts.unit_roundoff is None
    assert [row.meaning for row in rows(fmt)[:5]] == ["zero", *["subnormal"] * 3, "infinity"]
    assert "smallest normal" not in {what for row in landmarks(fmt) for what in row.meaning.split(", ")}
    assert facts_of(formats.get("block(e1m2,16,scale=e8m0,mode=floor)")).smallest_normal is None
    assert facts_of(formats.get("e1m2:fn")).smallest_normal == 2.0  # 2 is a value there


def test_a_bias_has_at_most_five_digits():
    for bias in (99_999, -99_999):
        fmt = FloatFormat("far", 5, 2, bias=bias)
        assert exponent(facts_of(fmt).max) == 30 - bias
    for bias in (100_000, -(10**12)):
        with pytest.raises(
            ValueError, match=re.escape(f"far: a bias of {bias} is out of range; expected -99999 to 99999")
        ):
            FloatFormat("far", 5, 2, bias=bias)
