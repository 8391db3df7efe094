"""Value tables, density by binade and derived numbers, against formulas of the standards and enumeration."""

import math
from fractions import Fraction

import numpy as np
import pytest

import formats
from formats import FloatFormat
from formats.binades import _asked, _enumerated, bands, binades, relative_spacing
from formats.exact import contains, ends, next_magnitude
from formats.facts import facts_of
from formats.families import FAMILIES, family_of, source_of
from formats.table import _wide_specials, fields_of, landmarks, rows, specials
from tests.oracles.bits import assert_same_bits

SCALARS = [name for name in formats.available() if not formats.get(name).has_blocks]
FAMILY_NAMES = [
    "e5m7", "e4m3:fn:b11", "fp16:ftz", "e2m1:fn", "e1m2", "binary8p4se", "binary8p1ue", "binary5p3uf", "binary4p2sf",
    "posit8", "posit8e0", "posit16", "posit16e1", "posit6e3", "posit2", "takum8", "takum16", "takum12", "takum3",
    "fix8.3", "fix6.9", "ufix7.2", "int8", "uint4",
]  # fmt: skip
SMALL = [name for name in [*SCALARS, *FAMILY_NAMES] if formats.get(name).bits <= 10]
NARROW = [name for name in [*SCALARS, *FAMILY_NAMES] if formats.get(name).bits <= 16]


# --- fields ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SCALARS, *FAMILY_NAMES])
def test_fields_put_together_are_the_code(name):
    fmt = formats.get(name)
    last = (1 << fmt.bits) - 1
    for code in {*range(min(last + 1, 1024)), last // 3, last - 1, last}:
        assert int("".join(bits for _, bits in fields_of(fmt, code)), 2) == code
        assert sum(len(bits) for _, bits in fields_of(fmt, code)) == fmt.bits


@pytest.mark.parametrize("name", ["fp8_e5m2", "fp8_e4m3", "fp8_e3m4", "fp6_e2m3", "e4m3:fn:b11", "ue4m3"])
def test_the_fields_of_a_float_give_its_value_by_the_formula_of_ieee_754(name):
    """IEEE 754-2019, section 3.4: (-1)^S 2^(E - bias) (1 + T 2^(1-p)), subnormal where E is 0."""
    fmt = formats.get(name)
    for row in rows(fmt):
        if not math.isfinite(row.value):
            continue
        field = dict(row.fields)
        exponent, fraction = int(field["exponent"], 2), Fraction(int(field["fraction"], 2), 1 << fmt.fraction_bits)
        magnitude = (bool(exponent) + fraction) * Fraction(2) ** (max(exponent, 1) - fmt.bias)
        assert row.value == (-magnitude if field.get("sign") == "1" else magnitude), hex(row.code)
        assert row.meaning == ("normal" if exponent else "subnormal" if fraction else "zero")


@pytest.mark.parametrize("name", ["posit8", "posit8e0", "posit10e1", "posit6e3", "posit3"])
def test_the_fields_of_a_posit_give_its_value_by_the_formula_of_the_standard(name):
    """Standard for Posit Arithmetic (2022), section 3.2: ((1 - 3s) + f) 2^((1 - 2s)(2^es r + e + s)), on raw bits."""
    fmt = formats.get(name)
    for row in rows(fmt):
        field = dict(row.fields)
        if set("".join(bits for _, bits in row.fields)[1:]) == {"0"}:
            assert row.meaning == ("NaR" if row.code else "zero")
            continue
        run = field["regime"].rstrip("1" if field["regime"][0] == "0" else "0")
        r = len(run) - 1 if run[0] == "1" else -len(run)
        e = int(field.get("exponent", "").ljust(fmt.es, "0") or "0", 2)
        fraction = field.get("fraction", "")
        f = Fraction(int(fraction or "0", 2), 1 << len(fraction))
        s = int(field["sign"])
        assert row.value == (1 - 3 * s + f) * Fraction(2) ** ((1 - 2 * s) * ((r << fmt.es) + e + s)), hex(row.code)


@pytest.mark.parametrize("name", ["takum8", "takum10", "takum6", "takum3"])
def test_the_fields_of_a_takum_give_its_value_by_its_definition(name):
    """Hunhold, arXiv 2404.18603, definition 2 (linear): ((1 - 3S) + f) 2^e with e = (-1)^S (c + S)."""
    fmt = formats.get(name)
    for row in rows(fmt):
        text = "".join(bits for _, bits in row.fields)
        if set(text[1:]) == {"0"}:
            assert row.meaning == ("NaR" if row.code else "zero")
            continue
        field = dict(row.fields)
        regime = int(field.get("regime", "").ljust(3, "0"), 2)
        r = regime if field["direction"] == "1" else 7 - regime
        characteristic = int(field.get("characteristic", "").ljust(r, "0") or "0", 2)
        c = (1 << r) - 1 + characteristic if field["direction"] == "1" else 1 - (2 << r) + characteristic
        fraction = field.get("fraction", "")
        s = int(field["sign"])
        value = (1 - 3 * s + Fraction(int(fraction or "0", 2), 1 << len(fraction))) * Fraction(2) ** (
            (1 - 2 * s) * (c + s)
        )
        assert row.value == value, hex(row.code)


@pytest.mark.parametrize("name", ["fix8.3", "ufix7.2", "int8", "uint4", "fix6.9"])
def test_the_fields_of_fixed_point_give_its_value_as_twos_complement(name):
    fmt = formats.get(name)
    for row in rows(fmt):
        field = dict(row.fields)
        digits = field.get("integer", "") + field.get("fraction", "")
        quanta = int(digits, 2) - (int(field.get("sign", "0")) << len(digits))
        assert row.value == Fraction(quanta, 1 << fmt.fraction_bits)


@pytest.mark.parametrize("name", SMALL)
def test_a_value_table_is_what_decode_says(name):
    fmt = formats.get(name)
    found = rows(fmt)
    assert [row.code for row in found] == list(range(1 << fmt.bits))
    assert_same_bits([row.value for row in found], fmt.decode(np.arange(1 << fmt.bits)))


def test_a_codebook_has_a_row_for_each_of_its_values():
    found = rows(formats.CodebookFormat("three", (-1.0, 0.5, 2.0)))
    assert [(row.code, row.fields, row.value) for row in found] == [
        (0, (("bits", "00"),), -1.0), (1, (("bits", "01"),), 0.5), (2, (("bits", "10"),), 2.0),
    ]  # fmt: skip


# --- special codes and landmarks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "infinities", "nans", "negative_zero"),
    [
        ("fp8_e5m2", [0x7C, 0xFC], [0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF], 0x80),
        ("fp8_e4m3", [], [0x7F, 0xFF], 0x80),
        ("fp8_e4m3fnuz", [], [0x80], None),
        ("fp8_e5m2fnuz", [], [0x80], None),
        ("fp6_e3m2", [], [], 0x20),
        ("fp4_e2m1", [], [], 0x8),
        ("e8m0", [], [0xFF], None),
        ("ue4m3", [], [0x7F], None),
        ("binary8p4se", [0x7F, 0xFF], [0x80], None),
        ("binary8p4ue", [0xFE], [0xFF], None),
        ("posit16", [], [0x8000], None),
        ("int8", [], [], None),
    ],
)
def test_special_codes_are_those_of_the_standards(name, infinities, nans, negative_zero):
    """OCP FP8 and MX 1.0; AMD CDNA3 ISA; P3109 v4.0; Standard for Posit Arithmetic."""
    found = specials(formats.get(name))
    assert [code for low, high in found.infinities for code in range(low, high + 1)] == infinities
    assert [code for low, high in found.nans for code in range(low, high + 1)] == nans
    assert found.negative_zero == negative_zero


@pytest.mark.parametrize("name", [name for name in NARROW if isinstance(formats.get(name), FloatFormat)])
def test_special_codes_of_wide_floats_follow_the_same_rule_as_the_tables_of_narrow_ones(name):
    found = specials(formats.get(name))
    assert _wide_specials(formats.get(name)) == (found.infinities, found.nans)


@pytest.mark.parametrize(
    "name", ["fp64", "fp32", "tf32", "e8m13", "posit32", "takum32", "fix32.4", "uint20", "e9m12:fn"]
)
def test_special_codes_of_wide_formats_decode_to_what_they_are_said_to_be(name):
    fmt = formats.get(name)
    found = specials(fmt)
    assert all(math.isinf(fmt.value_of(code)) for ends in found.infinities for code in ends)
    assert all(math.isnan(fmt.value_of(code)) for ends in found.nans for code in ends)
    beside = {code + step for ends in found.nans for code, step in zip(ends, (-1, 1), strict=True)}
    assert not any(math.isnan(fmt.value_of(code)) for code in beside if 0 <= code < 1 << fmt.bits)
    assert found.has_zero and found.signed == (ends(fmt).lowest < 0)


@pytest.mark.parametrize("name", [*SCALARS, *FAMILY_NAMES, "posit32", "takum32", "fix53.20"])
def test_landmarks_are_codes_of_the_values_they_name(name):
    fmt = formats.get(name)
    known = {meaning: row for row in landmarks(fmt) for meaning in row.meaning.split(", ")}
    for meaning, row in known.items():
        assert_same_bits(fmt.value_of(row.code), row.value, note=meaning)
    values = {row.value for row in known.values()}
    assert {fmt.max, fmt.smallest_subnormal, ends(fmt).lowest} <= values
    assert ends(fmt).smallest_normal in {*values, None}  # e1m2 has subnormals only
    assert ("one" in known) == contains(fmt, 1.0)


# --- binades --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", SMALL)
def test_asking_by_directed_rounding_finds_the_binades_of_the_table(name, sign):
    """The way of the wide formats on narrow ones, where enumeration is the judge."""
    fmt = formats.get(name)
    assert list(_asked(fmt, sign)) == list(_enumerated(fmt, sign))


@pytest.mark.parametrize("name", SMALL)
def test_the_next_magnitude_and_the_lowest_value_are_those_of_the_table(name):
    fmt = formats.get(name)
    values = np.unique(fmt.table()[np.isfinite(fmt.table())])
    positive = [0.0, *values[values > 0].tolist()]
    assert [next_magnitude(fmt, value) for value in positive] == [*positive[1:], None]
    assert ends(fmt).lowest == values[0]
    between = np.unique(np.concatenate([values, (values[1:] + values[:-1]) / 2])).tolist()
    assert [contains(fmt, value) for value in between] == [value in values for value in between]


def test_binades_of_wide_formats():
    found = binades(formats.get("fp32"))
    assert (found[0].exponent, found[-1].exponent, len(found)) == (-149, 127, 277)
    assert sum(binade.count for binade in found) == 0x7F7FFFFF
    assert {binade.precision for binade in found if binade.exponent >= -126} == {24}
    found = binades(formats.get("posit32"))
    assert sum(binade.count for binade in found) == 2**31 - 1
    assert {b.exponent: b.precision for b in found}[0] == 28
    assert binades(formats.get("uint20"), -1) == ()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fp8_e4m3", [(-9, -7, "fixed", (1, 3)), (-6, 8, "floating", (4, 4))]),
        ("fp4_e2m1", [(-1, -1, "floating", (1, 1)), (0, 2, "floating", (2, 2))]),
        ("fp16:ftz", [(-14, 15, "floating", (11, 11))]),
        ("fp64", [(-1074, -1023, "fixed", (1, 52)), (-1022, 1023, "floating", (53, 53))]),
        ("int8", [(0, 6, "fixed", (1, 7))]),
        ("fix53.20", [(-20, 31, "fixed", (1, 52))]),
        ("takum8", None),
    ],
)
def test_bands_join_binades_of_one_precision_or_one_spacing(name, expected):
    found = bands(formats.get(name))
    assert [b for band in found for b in band.binades] == list(binades(formats.get(name)))
    if expected is not None:
        assert [(band.low, band.high, band.kind, band.precisions) for band in found] == expected


def test_precision_of_posits_tapers_off_by_a_bit_per_regime():
    """Standard for Posit Arithmetic (2022): regime k takes k + 2 bits from 1 on, 1 - k below; es = 2 more."""
    found = {binade.exponent: binade.precision for binade in binades(formats.get("posit16"))}
    assert {e: p for e, p in found.items() if -48 <= e < 48} == {
        e: (12 - e // 4 if e >= 0 else 13 + e // 4) for e in range(-48, 48)
    }


@pytest.mark.parametrize("name", [*SMALL, "fp16", "posit16"])
def test_relative_spacing_is_that_of_neighbouring_values(name):
    fmt = formats.get(name)
    values = np.unique(fmt.table()[np.isfinite(fmt.table())])
    positive = values[values > 0]
    spacing = dict(zip(positive.tolist(), np.diff(positive) / positive[:-1], strict=False))
    points = {math.ldexp(p.significand, p.exponent): float(p.relative) for p in relative_spacing(fmt)}
    assert list(points) == sorted(points)
    assert all(spacing[magnitude] == relative for magnitude, relative in points.items() if magnitude < fmt.max)
    # Nothing is missing: what no point stands for lies on the curve between two points.
    assert {binade.exponent for binade in binades(fmt) if binade.steps} == {math.frexp(m)[1] - 1 for m in points}


def test_relative_spacing_of_an_uneven_list_has_a_point_for_each_value_but_the_last():
    fmt = formats.CodebookFormat("list", (-3.0, 0.0, 1.0, 1.25, 1.875, 4.0))
    assert [(p.exponent, p.significand, p.relative) for p in relative_spacing(fmt)] == [
        (0, 1, Fraction(1, 4)), (0, Fraction(5, 4), Fraction(1, 2)), (0, Fraction(15, 8), Fraction(17, 15)),
    ]  # fmt: skip


# --- derived numbers, families and sources --------------------------------------------------------------------------


def test_derived_numbers_of_a_float():
    facts = facts_of(formats.get("fp8_e4m3"))
    assert (facts.bits, facts.precision, facts.max, facts.min) == (8, 4, 448.0, -448.0)
    assert (facts.details["bias"], facts.details["emin"], facts.details["emax"]) == (7, -6, 8)
    assert facts.unit_roundoff == 2.0**-4
    assert round(facts.range_binades, 3) == round(math.log2(448 * 512), 3)
    assert facts.default_overflow == "nan" and not facts.tapers


def test_derived_numbers_of_tapered_fixed_and_block_formats():
    posit = facts_of(formats.get("posit16"))
    assert (posit.precision, posit.tapers, posit.details["quire_bits"]) == (12, True, 256)
    assert facts_of(formats.get("posit16e1")).details["quire_bits"] is None
    fixed = facts_of(formats.get("fix8.3"))
    assert (fixed.precision, fixed.unit_roundoff, fixed.min) == (None, None, -16.0)
    block = facts_of(formats.get("nvfp4"))
    assert block.specials is None
    assert block.details["bits_per_element"] == 4.5
    assert (block.details["element"], block.details["scale"], block.details["block_size"]) == ("fp4_e2m1", "ue4m3", 16)


@pytest.mark.parametrize("family", [family for family in FAMILIES.values() if family.example], ids=lambda f: f.key)
def test_the_example_of_a_family_belongs_to_it(family):
    try:
        fmt = formats.get(family.example)
    except ImportError as error:
        pytest.skip(str(error))
    assert family_of(fmt) == family
    assert source_of(fmt) == family.source


@pytest.mark.parametrize("name", formats.available())
def test_every_named_format_has_a_source_of_its_own(name):
    assert source_of(formats.get(name)) not in ("", family_of(formats.get(name)).source)


def test_another_scale_mode_keeps_the_source_of_the_named_format():
    assert source_of(formats.get("mxfp4:ceil")) == source_of(formats.get("mxfp4"))
