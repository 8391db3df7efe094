"""IEEE P3109 (a draft): all 504 formats of 3 to 16 bits.

Up to 8 bits against digests of the published value tables; all of them against gfloat and against the rule of the
interim report (v4.0, Decode), read once more in exact fractions; 50 of them have values that float64 does not hold.
"""

import bisect
import csv
import hashlib
import math
import re
from fractions import Fraction
from pathlib import Path

import gfloat
import numpy as np
import pytest
from gfloat.formats import format_info_p3109
from gfloat.types import Domain, Signedness

import formats
from formats.rounding import parse_rounding
from tests.oracles.bits import assert_same_bits
from tests.oracles.neighbours import DETERMINISTIC, goes_high

DIGESTS = {
    row["format"]: row["sha256_of_f64le_values"]
    for row in csv.DictReader((Path(__file__).parents[1] / "vectors" / "p3109" / "digests.csv").open())
}


def digest(values):
    """SHA-256 of float64 values in code order, NaN as 0x7FF8000000000000."""
    bits = (np.asarray(values, "<f8") + 0.0).view("<u8").copy()
    bits[np.isnan(values)] = 0x7FF8000000000000
    return hashlib.sha256(bits.tobytes()).hexdigest()


@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_the_value_table_is_the_published_one(name):
    fmt = formats.get(f"binary{name}")
    table = fmt.table()
    assert digest(table) == DIGESTS[name]
    assert fmt.encode(table).tolist() == list(range(1 << fmt.bits))


def parameters(widths):
    """K, P and kind of every format of the given widths."""
    return [(k, p, kind) for k in widths for kind in ("se", "sf", "ue", "uf") for p in range(1, k + (kind[0] == "u"))]


ALL = parameters(range(3, 17))


def named(k, p, kind):
    return formats.get(f"binary{k}p{p}{kind}")


def rule(k, p, kind, code):
    """The value m * 2**e of a non-negative code by the rule of the report, as if none had a special meaning."""
    bias = 2 ** (k - p - (kind[0] == "s"))
    field, t = divmod(code, 1 << (p - 1))
    return (t, 1 - bias - (p - 1)) if field == 0 else (2 ** (p - 1) + t, field - bias - (p - 1))


def magnitude(k, p, kind, code):
    return fraction_of(rule(k, p, kind, code))


def odd(pair):
    """The same value with an odd integer."""
    integer, exponent = pair
    while integer and integer % 2 == 0:
        integer, exponent = integer // 2, exponent + 1
    return (integer, exponent) if integer else (0, 0)


def top_code(k, kind):
    """Code of the largest finite value by the rule of the report."""
    return {"se": 2 ** (k - 1) - 2, "sf": 2 ** (k - 1) - 1, "ue": 2**k - 3, "uf": 2**k - 2}[kind]


def fraction_of(pair):
    return pair[0] * Fraction(2) ** pair[1]


def as_float64(value):
    """The float64 of a fraction, None if it is none."""
    try:
        return float(value) if Fraction(float(value)) == value else None
    except OverflowError:
        return None


WIDE = [
    which for which in ALL
    if None in (as_float64(magnitude(*which, 1)), as_float64(magnitude(*which, top_code(which[0], which[2]))))
]  # fmt: skip


def test_there_are_digests_of_all_formats_of_3_to_8_bits():
    assert set(DIGESTS) == {f"{k}p{p}{kind}" for k, p, kind in parameters(range(3, 9))}


def test_all_504_formats_are_there_and_print_their_names_back():
    names = [f"binary{k}p{p}{kind}" for k, p, kind in ALL]
    assert len(names) == 504
    assert [formats.get(name).name for name in names] == names
    assert [formats.get(name).bits for name in names] == [k for k, _, _ in ALL]


def test_50_formats_do_not_fit_float64():
    assert len(WIDE) == 50
    assert [which for which in ALL if not named(*which).fits_float64] == WIDE


@pytest.mark.parametrize("k", range(3, 17))
def test_codes_have_the_values_of_the_rule(k):
    """The codes of specials, both ends, 1.0, and a sample of the rest."""
    rng = np.random.default_rng(k)
    for which in parameters([k]):
        kind, fmt, top = which[2], named(*which), top_code(k, which[2])
        signed = kind[0] == "s"
        codes = {0, 1, 2, top - 1, top, *(int(code) for code in rng.integers(0, top + 1, 20))}
        for code in sorted(codes):
            expected = magnitude(*which, code)
            assert fraction_of(fmt.exact_value_of(code)) == expected, f"{fmt} {code:#x}, seed {k}"
            if signed and code:
                assert fraction_of(fmt.exact_value_of(code | 1 << (k - 1))) == -expected
            value = as_float64(expected)
            if value is not None:
                assert fmt.value_of(code).hex() == value.hex() and fmt.code_of(value) == code, f"{fmt} {code:#x}"
            else:
                with pytest.raises(ValueError, match=f"{fmt}: code {code} is .*which float64"):
                    fmt.value_of(code)
        assert fmt.value_of(1 << (k - 2) if signed else 1 << (k - 1)) == 1.0
        assert math.isnan(fmt.value_of(1 << (k - 1) if signed else (1 << k) - 1))
        if kind[1] == "e":
            assert fmt.value_of((1 << (k - 1)) - 1 if signed else (1 << k) - 2) == math.inf
            assert not signed or fmt.value_of((1 << k) - 1) == -math.inf


def as_gfloat(k, p, kind):
    signedness = Signedness.Signed if kind[0] == "s" else Signedness.Unsigned
    return format_info_p3109(k, p, signedness, Domain.Extended if kind[1] == "e" else Domain.Finite)


@pytest.mark.full
@pytest.mark.parametrize("k", range(3, 17))
def test_every_code_decodes_as_in_gfloat(k):
    """gfloat computes in float64: where a value is none, the rule stands alone."""
    for which in parameters([k]):
        fmt = named(*which)
        codes = np.arange(1 << k)
        if fmt.fits_float64:
            assert_same_bits(fmt.table(), gfloat.decode_ndarray(as_gfloat(*which), codes) + 0.0, codes, fmt.name)
            continue
        half = 1 << (k - 1)
        for code in codes.tolist():
            place = code & (half - 1) if which[2][0] == "s" else code
            if place <= top_code(k, which[2]) and code != half * (which[2][0] == "s"):
                integer, exponent = odd(rule(*which, place))
                expected = (-integer if code != place else integer, exponent)
                assert fmt.exact_value_of(code) == expected, f"{fmt} {code:#x}"


# --- formats wider than float64 --------------------------------------------------------------------------------------


def test_what_is_no_float64_is_refused_by_the_name_of_the_value():
    fmt = formats.get("binary16p1se")
    instead = (
        r", which float64, in which arrays are kept, does not hold; "
        r"use codes \(encode\) and their exact values \(exact_value_of\)"
    )
    for what, refused in {
        "the largest value is 2^16382": lambda: fmt.max,
        "the smallest normal value is 2^-16383": lambda: fmt.smallest_normal,
        "the smallest value is 2^-16383": lambda: fmt.smallest_subnormal,
        "code 1 is 2^-16383": fmt.table,
        "code 3 is 2^-16381": lambda: fmt.decode([1 << 14, 3]),
        "code 32770 is -2^-16382": lambda: fmt.decode([0x8002]),
        "code 17408 is 2^1024": lambda: fmt.quantize([1.0, 1.7e308]),
        "code 32766 is 2^16382": lambda: fmt.quantize([math.inf], overflow="sat"),
    }.items():
        with pytest.raises(ValueError, match=r"^binary16p1se: " + what.replace("^", r"\^") + instead):
            refused()
    with pytest.raises(ValueError, match=r"binary16p4ue: the largest value is 13 \* 2\^4092, which float64"):
        _ = formats.get("binary16p4ue").max
    with pytest.raises(ValueError, match="code 32768 of binary16p1se is nan, not a finite number"):
        fmt.exact_value_of(0x8000)


def test_values_that_float64_holds_are_given_by_every_format():
    fmt = formats.get("binary16p1se")
    assert_same_bits(fmt.decode([0, 0x4000, 0x4001, 0xC000, 0x7FFF, 0xFFFF, 0x8000]),
                     [0.0, 1.0, 2.0, -1.0, math.inf, -math.inf, math.nan])  # fmt: skip
    assert_same_bits(fmt.quantize([0.0, 3.0, -0.75, 5e-324, math.inf]), [0.0, 4.0, -1.0, 5e-324, math.inf])
    many = np.full(1 << 17, 0x4001)
    assert (fmt.decode(many) == 2.0).all()


def test_infinity_and_what_rounds_beyond_float64_have_codes():
    x = [math.inf, -math.inf, 1.7976931348623157e308, -5e-324, math.nan, -0.0]
    for overflow, infinite in (("ieee", 0x7FFF), ("satprop", 0x7FFF), ("sat", 0x7FFE), ("nan", 0x8000)):
        negative = infinite | 0x8000
        codes = formats.get("binary16p1se").encode(x, overflow=overflow)
        # 2^1024 has the code 2^14 + 1024; 2^-1074 that of 2^14 - 1074.
        assert codes.tolist() == [infinite, negative, 0x4400, 0x8000 | 0x3BCE, 0x8000, 0], overflow


@pytest.mark.parametrize("which", WIDE, ids=lambda which: str(named(*which)))
def test_encode_of_a_wide_format_is_correctly_rounded_in_every_mode(which):
    """Against the neighbours that bisection finds among the values of the rule, in exact fractions."""
    k, p, kind = which
    fmt, top = named(*which), top_code(k, kind)
    assert fmt.twin("encode") is None
    rng = np.random.default_rng(k * 100 + p)
    x = np.ldexp(rng.uniform(1, 2, 24), rng.integers(-1074, 1023, 24))
    x = np.concatenate(
        [x, np.ldexp(1 + rng.integers(0, 32, 12) / 32, rng.integers(-900, 1023, 12)), [5e-324, 1.79e308]]
    )
    lows = [
        bisect.bisect_right(range(top + 1), Fraction(v), key=lambda c: magnitude(*which, c)) - 1 for v in x.tolist()
    ]
    for mode in DETERMINISTIC:
        for sign in (1, -1) if kind[0] == "s" else (1,):
            expected = []
            for v, low in zip(x.tolist(), lows, strict=True):
                here, there = magnitude(*which, low), magnitude(*which, low + 1)
                directed = {"ru": "rd", "rd": "ru"}.get(mode, mode) if sign < 0 else mode
                up = Fraction(v) != here and goes_high(directed, Fraction(v), (here + there) / 2, bool(low % 2))
                code = low + up
                expected.append(code | 1 << (k - 1) if sign < 0 and code else code)
            codes = fmt.encode(sign * x, mode, "sat")
            assert codes.tolist() == expected, f"{fmt}/{mode}, seed {k * 100 + p}"
            assert codes.dtype == fmt.code_dtype


def test_stochastic_rounding_of_a_wide_format_counts_words_as_everywhere():
    fmt = formats.get("binary16p2sf")
    low = fmt.code_of(2.0)
    for n in (1, 3):
        mode = parse_rounding(f"sr:{n}")
        codes = [fmt.project_code(2.25, mode, "sat", word << (64 - n)) for word in range(1 << n)]
        assert sorted(codes) == [low] * ((1 << n) - (1 << n) // 4) + [low + 1] * ((1 << n) // 4)


@pytest.mark.parametrize(
    ("name", "largest", "normal", "subnormal"),
    [
        ("binary8p3se", 49152.0, 2.0**-15, 2.0**-17),
        ("binary8p3sf", 57344.0, 2.0**-15, 2.0**-17),
        ("binary8p4se", 224.0, 2.0**-7, 2.0**-10),
        ("binary8p4sf", 240.0, 2.0**-7, 2.0**-10),
        ("binary8p5se", 15.0, 2.0**-3, 2.0**-7),
        ("binary4p2sf", 3.0, 0.5, 0.25),
        ("binary6p3se", 12.0, 2.0**-3, 2.0**-5),
        ("binary6p4se", 3.5, 2.0**-1, 2.0**-4),
        ("binary8p1ue", 2.0**125, 2.0**-127, 2.0**-127),  # with p = 1 the smallest value is normal
    ],
)
def test_constants_are_those_of_the_interim_report(name, largest, normal, subnormal):
    fmt = formats.get(name)
    assert (fmt.max, fmt.smallest_normal, fmt.smallest_subnormal) == (largest, normal, subnormal)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("binary2p1se", "binary2p1se: K = 2 is out of range; P3109 formats have K from 3 to 16 bits"),
        ("binary17p4se", "binary17p4se: K = 17 is out of range; P3109 formats have K from 3 to 16 bits"),
        ("binary8p8se", "binary8p8se: P = 8 is out of range for K = 8; expected P from 1 to 7 in signed formats"),
        ("binary8p9ue", "binary8p9ue: P = 9 is out of range for K = 8; expected P from 1 to 8 in unsigned formats"),
        ("binary8p0sf", "format 'binary8p0sf' is unknown"),
    ],
)
def test_impossible_parameters_are_refused(name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        formats.get(name)


def test_dlfloat16_is_as_published():
    fmt = formats.get("dlfloat16")
    assert (fmt.bits, fmt.precision, fmt.bias, fmt.max) == (16, 10, 31, 8573157376.0)
    assert fmt.smallest_normal == 2.0**-31 * (1 + 2.0**-9)
    table = fmt.table()
    codes = fmt.encode(table[:0x7FFF])
    assert codes.tolist() == list(range(0x7FFF)) and np.isnan(table[0x7FFF])
