"""IEEE P3109 (a draft) projections: the modes SatNone (`ieee`), SatFinite (`sat`) and SatPropagate (`satprop`).

The tables are transcribed from the interim report v4.0; gfloat is the second opinion on the roundings.
"""

import itertools
import math

import gfloat
import numpy as np
import pytest
from gfloat import RoundMode
from gfloat.formats import format_info_p3109
from gfloat.types import Domain

import formats
from formats.rounding import parse_rounding
from tests.oracles.bits import assert_same_bits

INF, NAN = math.inf, math.nan
MODES = ("rne", "rna", "rnz", "rz", "ru", "rd", "odd", "sr", "sr:4:b", "sr:4:c")
LARGEST = {"se": 224.0, "sf": 240.0, "ue": 53248.0, "uf": 57344.0}  # of the formats of 8 bits and 4 significand bits


def sat_none(kind, mode):
    """What becomes of a finite value above the largest, one below the smallest, +Inf and -Inf under SatNone."""
    signed, extended, largest = kind[0] == "s", kind[1] == "e", LARGEST[kind]
    endless = INF if extended else largest
    above = largest if mode in ("rz", "rd") or (mode == "odd" and kind == "ue") else endless
    if signed:
        return above, -largest if mode in ("rz", "ru") else -endless, endless, -endless
    return above, 0.0 if mode in ("rz", "ru") else NAN, endless, NAN


def saturating(kind, propagate):
    """The same under SatFinite and SatPropagate, whatever the rounding."""
    largest = LARGEST[kind]
    lowest = -largest if kind[0] == "s" else 0.0
    positive = INF if propagate and kind[1] == "e" else largest
    negative = -INF if propagate and kind == "se" else lowest
    return largest, lowest, positive, negative


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", LARGEST)
def test_projections_are_those_of_the_interim_report(kind, mode, path):
    fmt = formats.get(f"binary8p4{kind}")
    assert fmt.max == LARGEST[kind]
    x = [1e9, -1e9, INF, -INF, NAN]
    for overflow, expected in {
        "ieee": sat_none(kind, mode),
        "sat": saturating(kind, False),
        "satprop": saturating(kind, True),
    }.items():
        assert_same_bits(fmt.quantize(x, mode, overflow), [*expected, NAN], x, f"{fmt}/{mode}/{overflow}")


@pytest.mark.parametrize("kind", LARGEST)
def test_codes_of_projections_are_those_of_the_report(kind):
    """Largest value, infinities, NaN and zero by the rules for their codes."""
    fmt = formats.get(f"binary8p4{kind}")
    codes = {
        "se": ([0x7F, 0xFF, 0x7F, 0xFF, 0x80], [0x7E, 0xFE, 0x7E, 0xFE, 0x80]),
        "sf": ([0x7F, 0xFF, 0x7F, 0xFF, 0x80], [0x7F, 0xFF, 0x7F, 0xFF, 0x80]),
        "ue": ([0xFE, 0xFF, 0xFE, 0xFF, 0xFF], [0xFD, 0x00, 0xFD, 0x00, 0xFF]),
        "uf": ([0xFE, 0xFF, 0xFE, 0xFF, 0xFF], [0xFE, 0x00, 0xFE, 0x00, 0xFF]),
    }[kind]
    x = [1e9, -1e9, INF, -INF, NAN]
    for overflow, expected in zip(("ieee", "sat"), codes, strict=True):
        assert fmt.encode(x, overflow=overflow).tolist() == expected, overflow


@pytest.mark.parametrize("name", ["binary8p4ue", "binary8p4uf", "binary8p1ue", "binary8p8uf", "ue4m3"])
def test_a_negative_value_that_rounds_to_zero_is_zero_in_an_unsigned_format(name, path):
    """Rounding comes before the comparison with the range, to which zero belongs."""
    fmt = formats.get(name)
    tie = fmt.smallest_subnormal / 2
    below, above = -math.nextafter(tie, 0), -math.nextafter(tie, 1)
    for mode, zeros in {
        "rne": [below, -tie],
        "rna": [below],
        "rnz": [below, -tie],
        "rz": [below, -tie, above],
        "ru": [below, -tie, above],
        "rd": [],
        "odd": [],
    }.items():
        for overflow in ("ieee", "nan"):
            for x in (below, -tie, above):
                # Toward zero and upwards, zero is also what the overflow mode gives.
                expected = 0.0 if x in zeros else NAN
                assert_same_bits(fmt.quantize([x], mode, overflow), [expected], [x], f"{name}/{mode}/{overflow}")
                integer, exponent = (-1, math.frexp(tie)[1] - 1) if x == -tie else float_pair(x)
                assert fmt.overflows(integer, exponent, parse_rounding(mode)) == (x not in zeros)
        for overflow in ("sat", "satprop"):
            assert_same_bits(fmt.quantize([below, -tie, above], mode, overflow), [0.0] * 3, note=f"{name}/{mode}")


def test_a_negative_value_that_is_flushed_is_zero_in_an_unsigned_format(path):
    fmt = formats.get("ue4m3:ftz")
    assert_same_bits(fmt.quantize([-(2.0**-7), -(2.0**-6), 2.0**-7]), [0.0, NAN, 0.0])
    assert not fmt.overflows(-1, -7, parse_rounding("rne")) and fmt.overflows(-1, -6, parse_rounding("rne"))


def float_pair(x):
    numerator, denominator = x.as_integer_ratio()
    return numerator, 1 - denominator.bit_length()


GFLOAT = {
    "rne": RoundMode.TiesToEven,
    "rna": RoundMode.TiesToAway,
    "rz": RoundMode.TowardZero,
    "ru": RoundMode.TowardPositive,
    "rd": RoundMode.TowardNegative,
}
STOCHASTIC = {"a": RoundMode.StochasticFastest, "b": RoundMode.StochasticFast, "c": RoundMode.Stochastic}
WHICH = [(8, 4), (8, 1), (6, 1), (5, 2), (8, 7), (12, 5)]


def probes(fmt, seed):
    """Values inside the range: random ones, middles of neighbours and what lies just beside them; both signs.

    All have 24 bits: gfloat adds to the fraction in float64, which takes one next to a half for the half.
    """
    rng = np.random.default_rng(seed)
    values = np.unique(np.abs(fmt.table()[np.isfinite(fmt.table())]))
    place = rng.integers(0, len(values) - 1, 30)
    middles = (values[place] + values[place + 1]) / 2
    x = [middles, middles * (1 + 2.0**-20), middles * (1 - 2.0**-20), rng.uniform(values[place], values[place + 1])]
    x = np.concatenate([*x, *(-part for part in x)])
    return np.copysign(np.ldexp(np.round(np.ldexp(np.frexp(x)[0], 24)), np.frexp(x)[1] - 24), x)


@pytest.mark.parametrize(("k", "p"), WHICH)
def test_roundings_are_those_of_gfloat(k, p):
    info, fmt = format_info_p3109(k, p), formats.get(f"binary{k}p{p}se")
    x = np.concatenate([probes(fmt, 10 * k + p), [4 * min(fmt.max, 1e300), -4 * min(fmt.max, 1e300), INF, -INF]])
    for mode, theirs in GFLOAT.items():
        for overflow, sat in (("ieee", False), ("sat", True)):
            expected = [gfloat.round_float(info, v, theirs, sat) for v in x.tolist()]
            assert_same_bits(fmt.quantize(x, mode, overflow), expected, x, f"{fmt}/{mode}/{overflow}")


@pytest.mark.parametrize(("k", "p"), WHICH)
@pytest.mark.parametrize("variant", STOCHASTIC)
def test_stochastic_roundings_are_those_of_gfloat_for_every_random_word(k, p, variant):
    info, fmt = format_info_p3109(k, p), formats.get(f"binary{k}p{p}se")
    x = probes(fmt, 10 * k + p)
    for n in (1, 2, 4):
        mode = parse_rounding(f"sr:{n}:{variant}")
        for word in range(1 << n):
            expected = [gfloat.round_float(info, v, STOCHASTIC[variant], True, word, n) for v in x.tolist()]
            results = [fmt.project(v, mode, "sat", word << (64 - n)) for v in x.tolist()]
            assert_same_bits(results, expected, x, f"{fmt}/{mode} word {word}")


def test_gfloat_gives_nan_where_a_finite_format_of_p3109_has_its_largest_value():
    """The trap of the oracle above: SatNone into a finite format is pinned by the table instead."""
    info = format_info_p3109(8, 4, domain=Domain.Finite)
    assert math.isnan(gfloat.round_float(info, 1e9))
    assert formats.get("binary8p4sf").quantize([1e9], overflow="ieee").tolist() == [240.0]


@pytest.mark.parametrize("name", ["binary6p1se", "binary6p1sf", "binary6p1ue", "binary6p1uf"])
def test_with_one_significand_bit_the_code_decides_what_is_even(name):
    fmt = formats.get(name)
    values = fmt.table()[: fmt.code_of(fmt.max) + 1]
    for code, (low, high) in enumerate(itertools.pairwise(values.tolist())):
        middle = (low + high) / 2
        even, odd = (code, code + 1) if code % 2 == 0 else (code + 1, code)
        assert fmt.encode([middle, middle * 1.25], "odd").tolist() == [odd, odd], f"{name} {code}"
        assert fmt.encode([middle]).tolist() == [even], f"{name} {code}"
