"""Where two formats differ: counts against plain sets, and the way of wide formats against that of narrow ones."""

import math

import numpy as np
import pytest

import formats
from formats import comparison
from formats.comparison import compare

PAIRS = [
    ("fp8_e4m3", "e4m3:ieee"), ("fp8_e4m3", "fp8_e4m3fnuz"), ("fp8_e5m2", "fp8_e4m3"), ("fp6_e3m2", "fp6_e2m3"),
    ("fp4_e2m1", "int4"), ("e8m0", "fp8_e5m2"), ("ue4m3", "fp8_e4m3"), ("posit8", "posit8e0"), ("posit8", "fp8_e4m3"),
    ("takum8", "posit8"), ("int8", "uint8"), ("fix8.3", "ufix8.3"), ("fix8.3", "fix8.5"), ("fp8_e5m2", "e5m2:ftz"),
    ("binary8p4se", "binary8p4sf"), ("posit8", "posit8"), ("e2m4:fn", "e3m3:fn"),
]  # fmt: skip


def finite(name):
    table = formats.get(name).table()
    return {float(value) + 0.0 for value in table[np.isfinite(table)]}


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_values_that_only_one_has_are_those_of_the_tables(a, b):
    found = compare(formats.get(a), formats.get(b))
    of_a, of_b = finite(a), finite(b)
    assert found.counts == (len(of_a), len(of_b), len(of_a & of_b))
    for lacking, only in ((found.only_a, of_a - of_b), (found.only_b, of_b - of_a)):
        assert sum(one.count for one in lacking) == len(only)
        for one in lacking:
            values = set(one.examples) | {one.low, one.high}
            assert values <= only
            assert not one.both_signs or {-value for value in values} <= only


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_the_way_of_wide_formats_counts_the_same_as_enumeration(a, b, monkeypatch):
    one, other = formats.get(a), formats.get(b)
    expected = compare(one, other)
    monkeypatch.setattr(comparison, "enumerable", lambda fmt: False)
    found = compare(one, other)
    assert found.counts == expected.counts
    assert found.identical == expected.identical
    for side in ("only_a", "only_b"):
        counts = [{kind.kind: kind.count for kind in getattr(result, side)} for result in (found, expected)]
        assert counts[0] == counts[1]
        ends = {kind.kind: (kind.low, kind.high) for kind in getattr(expected, side) if kind.both_signs}
        for kind in getattr(found, side):
            if kind.kind in ends and kind.low is not None:
                assert (kind.low, kind.high) == ends[kind.kind]
            only = finite(a) - finite(b) if side == "only_a" else finite(b) - finite(a)
            assert set(kind.examples) <= only


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [("fp16", "fp32"), ("bf16", "tf32"), ("int16", "fp32"), ("posit16", "posit32"), ("e8m0", "fp32")],
)
def test_a_narrow_format_within_a_wide_one_lacks_nothing(narrow, wide):
    found = compare(formats.get(narrow), formats.get(wide))
    assert found.only_a == () and found.counts[2] == found.counts[0]
    assert compare(formats.get(wide), formats.get(narrow)).counts == (found.counts[1], found.counts[0], found.counts[2])


def test_fp32_and_fp64_in_numbers():
    found = compare(formats.get("fp32"), formats.get("fp64"))
    assert found.counts == (2 * 0x7F7FFFFF + 1, 2 * 0x7FEFFFFFFFFFFFFF + 1, 2 * 0x7F7FFFFF + 1)
    beyond = next(kind for kind in found.only_b if kind.kind == "beyond its range")
    # Above the largest float32 fp64 has the rest of its binade and those from 2**128 to below 2**1024.
    assert beyond.count == 2 * (2**29 - 1 + (1024 - 128) * 2**52)
    assert beyond.low == math.nextafter(np.finfo(np.float32).max, math.inf)
    assert beyond.high == np.finfo(np.float64).max
    assert [(step.low, step.high, step.a, step.b) for step in found.precision] == [
        (-1074, -1023, None, (1, 52)), (-1022, -150, None, (53, 53)), (-149, -127, (1, 23), (53, 53)),
        (-126, 127, (24, 24), (53, 53)), (128, 1023, None, (53, 53)),
    ]  # fmt: skip


def test_codes_with_another_value_are_counted_and_shown():
    found = compare(formats.get("fp8_e4m3"), formats.get("e4m3:ieee"))
    assert found.codes == 14
    assert [one.code for one, _ in found.code_examples] == [*range(0x78, 0x7F), *range(0xF8, 0xFF)]
    assert [one.value for one, _ in found.code_examples][:7] == [256, 288, 320, 352, 384, 416, 448]
    assert math.isinf(found.code_examples[0][1].value) and math.isnan(found.code_examples[1][1].value)
    assert compare(formats.get("fp16"), formats.get("fp8_e4m3")).codes is None


def test_the_sign_of_zero_counts_among_codes():
    found = compare(formats.get("fp8_e4m3fnuz"), formats.get("e4m3:fn:b8"))
    assert [
        (one.code, math.isnan(one.value), other.value) for one, other in found.code_examples if one.code == 0x80
    ] == [(0x80, True, 0.0)]
    assert found.identical is False


def test_the_same_values_under_another_name_are_identical():
    found = compare(formats.get("posit8"), formats.CodebookFormat("copy", tuple(sorted(finite("posit8")))))
    assert found.only_a == found.only_b == ()
    assert found.identical is False  # the list has no NaR
    found = compare(formats.get("int8"), formats.CodebookFormat("copy", tuple(map(float, range(-128, 128)))))
    assert found.identical is True
    assert found.codes == 256  # the code of a codebook is the place in the list
    assert compare(formats.get("fp16"), formats.get("e5m10")).record == ()


def test_numbers_that_differ_are_named():
    found = compare(formats.get("fp16"), formats.get("bf16"))
    assert {what: (one, other) for what, one, other in found.record if what != "specials"} == {
        "precision": (11, 8), "max": (65504.0, formats.get("bf16").max), "min": (-65504.0, -formats.get("bf16").max),
        "smallest_normal": (2.0**-14, 2.0**-126), "smallest_subnormal": (2.0**-24, 2.0**-133),
        "exponent_bits": (5, 8), "fraction_bits": (10, 7), "bias": (15, 127), "emin": (-14, -126), "emax": (15, 127),
    }  # fmt: skip


def test_block_formats_are_compared_by_their_numbers_and_parts():
    found = compare(formats.get("mxfp4"), formats.get("nvfp4"))
    assert found.counts is None and found.identical is None
    assert {what for what, _, _ in found.record} >= {"block_size", "scale", "scale_mode", "bits_per_element"}
    assert [(part.a.name, part.b.name) for part in found.parts] == [("e8m0", "ue4m3")]
    assert compare(formats.get("mxfp4"), formats.get("fp4_e2m1")).parts == ()


def test_uneven_binades_are_told_from_empty_ones():
    found = compare(formats.get("posit8"), formats.get("fp8_e4m3"))
    steps = {step.low: step for step in found.precision}
    assert steps[-24].a == (0, 0) and steps[-24].b is None
