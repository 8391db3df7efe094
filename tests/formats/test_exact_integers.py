"""Every family against integer arithmetic read once more from the definitions: exhaustive, and a million at random.

The oracle (tests/oracles/integers.py and the rules beside it) shares nothing with the package; it is itself compared
here with fractions, strings of characters and MPFR.
"""

from fractions import Fraction

import gmpy2
import numpy as np
import pytest

import formats
from formats import CodebookFormat, Format
from tests.conftest import DEFINITION, has_twins
from tests.contracts.representatives import subjects
from tests.contracts.samples import overflow_modes
from tests.oracles import posit_strings
from tests.oracles.bits import assert_same_bits
from tests.oracles.block_rules import MX, mx_quantized, nvfp4_quantized
from tests.oracles.integers import parts, philox, philox_words
from tests.oracles.neighbours import DETERMINISTIC, goes_high, words_up
from tests.oracles.rules import (
    STOCHASTIC,
    ends,
    exhaustive,
    mixture,
    rules_of,
    rules_of_codebook,
    specials,
)

ROUNDINGS = (*DETERMINISTIC, *STOCHASTIC)
SEED = 81
MILLION, CHUNK = 1_000_000, 1 << 16

SCALARS = [fmt for fmt in subjects() if not fmt.has_blocks]
NARROW = [fmt for fmt in SCALARS if fmt.bits <= 8]
SIXTEEN = [fmt for fmt in SCALARS if 8 < fmt.bits <= 16]
ALL_P3109 = [
    formats.get(f"binary{k}p{p}{kind}")
    for k in range(3, 9)
    for kind in ("se", "sf", "ue", "uf")
    for p in range(1, k + (kind[0] == "u"))
]
BLOCKS = [*MX, *(f"{base}:{mode}" for base in MX for mode in ("ceil", "rceil", "even", "rne")), "nvfp4"]


def oracle(fmt):
    if isinstance(fmt, CodebookFormat):
        return rules_of_codebook(fmt.values, fmt.boundaries)
    return rules_of(fmt.name)


def check(fmt, x, rounding, overflow, rules, note="", offset=0):
    """Quantize an array in one pair of modes, as the path in force does it, against the oracle."""
    if overflow == "wrap":
        x = x[np.isfinite(x)]
    random = philox_words(SEED, offset, x.size) if rounding.startswith("sr") else None
    expected = rules.quantized(x, rounding, overflow, random)
    got = fmt.quantize(x, rounding, overflow, seed=SEED, offset=offset)
    assert_same_bits(got, expected, x, f"{fmt.name}/{rounding}/{overflow} seed {SEED}, offset {offset} {note}")
    return x, expected


# --- the oracle itself -----------------------------------------------------------------------------------------------


def test_the_oracles_random_words_are_those_of_the_generators_authors():
    """The known answers that come with Random123 (Salmon et al.): zeros, ones, digits of pi."""
    cases = [
        ((0, 0), 0, (0, 0), (0x6627E8D5E169C58D, 0xBC57AC4C9B00DBD8)),
        ((0xFFFFFFFF,) * 2, (1 << 64) - 1, (0xFFFFFFFF,) * 2, (0x408F276D41C83B0E, 0xA20BC7C66D5451FD)),
        (
            (0xA4093822, 0x299F31D0),
            0x85A308D3_243F6A88,
            (0x13198A2E, 0x03707344),
            (0xD16CFE0994FDCCEB, 0x5001E42024126EA1),
        ),
    ]
    for key, index, rest, expected in cases:
        halves = philox(key, np.array([index], np.uint64), *rest)
        assert tuple(int(half[0]) for half in halves) == expected


@pytest.mark.parametrize("fmt", SCALARS, ids=str)
def test_the_oracle_chooses_between_neighbours_as_fractions_do(fmt):
    """Numbers inside the range, against the two neighbours in the oracle's own list of values."""
    if fmt.bits > 16:
        pytest.skip("its values are not listed; posits and takums of 32 bits below, floats by MPFR")
    rules = oracle(fmt)
    values = rules.values()
    tapered = fmt.name.startswith(("posit", "takum"))
    boundary_of = _boundaries(fmt, rules, values) if tapered else None
    x = mixture(rules, np.abs(values[values != 0]).min(), np.abs(values).max(), 300, SEED)
    x = x[(x > values[0]) & (x < values[-1]) & ~np.isin(x, values)]
    if getattr(fmt, "subnormals", True) is False or tapered:
        x = x[np.abs(x) > fmt.smallest_normal]
    low = np.searchsorted(values, x) - 1
    for rounding in DETERMINISTIC:
        expected = []
        for v, i in zip(x.tolist(), low.tolist(), strict=True):
            below, above = Fraction(float(values[i])), Fraction(float(values[i + 1]))
            if tapered:
                boundary = boundary_of[i]
            elif getattr(fmt, "boundaries", None):
                boundary = Fraction(fmt.boundaries[i])
            else:
                boundary = (below + above) / 2
            odd = bool(fmt.code_of(float(below)) % 2)
            chosen = float(above if goes_high(rounding, Fraction(v), boundary, odd) else below)
            negative_zero = chosen == 0 and v < 0 and getattr(fmt, "has_negative_zero", False)
            expected.append(-0.0 if negative_zero else chosen)
        assert_same_bits(rules.quantized(x, rounding, "sat"), expected, x, f"{fmt.name}/{rounding} seed {SEED}")


def _boundaries(fmt, rules, values):
    """The boundary above each value but the last: the odd codes of one bit more (0 around zero: nothing joins it)."""
    odd = rules.wider().values()
    middle = odd.size // 2
    upper = odd[middle + 1 :][2::2]  # codes 3, 5, ...: above codes 1, 2, ...
    upper = [Fraction(float(v)) for v in upper[: (values.size - 1) // 2 - 1]]
    return [*(-v for v in reversed(upper)), Fraction(0), Fraction(0), *upper]


@pytest.mark.parametrize("name", ["fp8_e4m3", "binary6p1sf", "fix8.4", "posit8", "takum8", "nf4", "dlfloat16"])
def test_the_oracle_counts_random_words_as_the_variants_say(name):
    """All words of few bits: as many go away from zero as the fraction between the neighbours asks for."""
    fmt = next(f for f in SCALARS if f.name == name)
    rules = oracle(fmt)
    values = rules.values()
    x = mixture(rules, fmt.smallest_subnormal, fmt.max, 120, SEED)
    x = x[(np.abs(x) > 4 * fmt.smallest_normal) & (x > values[0]) & (x < values[-1]) & ~np.isin(x, values)]
    place = np.searchsorted(values, x)
    near, far = (np.where(x > 0, values[place - i], values[place + i - 1]) for i in (1, 0))
    if name in ("posit8", "takum8"):
        # There the fraction is how far along the string x lies: what 22 bits more of it and the rest behind them say.
        fine = rules_of(name.replace("8", "30"))
        _, significand, exponent = parts(x)
        codes, rest, _ = fine.string(significand - np.uint64(1 << 52), exponent)
        pairs = zip(codes.tolist(), rest.first.tolist(), strict=True)
        fractions = [Fraction((code % (1 << 22) << 64) + behind, 1 << 86) for code, behind in pairs]
    else:
        triples = zip(x.tolist(), near.tolist(), far.tolist(), strict=True)
        fractions = [(Fraction(v) - Fraction(a)) / (Fraction(b) - Fraction(a)) for v, a, b in triples]
    for bits in (1, 3):
        for variant in "abc":
            first_up = [2**bits - words_up(fraction, bits, variant) for fraction in fractions]
            for word in range(2**bits):
                random = np.full(x.size, word << (64 - bits), np.uint64)
                expected = np.where(word >= np.array(first_up), far, near)
                got = rules.quantized(x, f"sr:{bits}:{variant}", "sat", random)
                assert (got == expected).all(), f"{name} sr:{bits}:{variant} word {word}"


@pytest.mark.parametrize(("n", "es"), [(2, 0), (5, 2), (8, 0), (8, 2), (10, 4), (12, 1)])
def test_the_oracles_posits_are_those_of_strings_of_characters(n, es):
    rules, strings = rules_of(f"posit{n}e{es}"), posit_strings.Magnitudes(n, es)
    assert_same_bits(rules.values()[(1 << (n - 1)) - 1 :], strings.values)
    x = strings.probes()
    for rounding in DETERMINISTIC:
        assert_same_bits(rules.quantized(x, rounding, "sat"), strings.quantized(x, rounding), x, f"posit{n}e{es}")


@pytest.mark.parametrize("name", ["fp32", "tf32", "bf16", "fp16", "e8m13", "e11m40"])
@pytest.mark.parametrize("rounding", ["rne", "rz", "ru", "rd"])
def test_the_oracles_floats_are_those_of_mpfr(name, rounding):
    rules = rules_of(name)
    x = mixture(rules, rules.smallest, rules.largest, 4000, SEED)
    p, emin = rules.precision, rules.emin
    mode = {"rne": gmpy2.RoundToNearest, "rz": gmpy2.RoundToZero, "ru": gmpy2.RoundUp, "rd": gmpy2.RoundDown}[rounding]
    exact = [gmpy2.mpfr(v, 53) for v in x.tolist()]
    one, zero = gmpy2.mpfr(1), gmpy2.mpfr(0)
    context = gmpy2.context(precision=p, emin=emin - p + 2, emax=rules.bias + 1, subnormalize=True, round=mode)
    with context:
        expected = np.array([float(gmpy2.fma(v, one, zero)) for v in exact])
    expected = np.where(expected == 0, np.copysign(0.0, x), expected)
    assert_same_bits(rules.quantized(x, rounding, "ieee"), expected, x, f"{name}/{rounding} seed {SEED}")


# --- exhaustive up to 16 bits ----------------------------------------------------------------------------------------


def check_exhaustively(fmt, roundings=DETERMINISTIC):
    rules = oracle(fmt)
    values = rules.values()
    table = fmt.table()
    assert_same_bits(np.unique(table[np.isfinite(table)] + 0.0), values, note=f"{fmt.name}: values")
    x = np.concatenate([exhaustive(rules), specials(fmt.has_nan)])
    outside = np.concatenate([ends(values), specials(fmt.has_nan)])
    for rounding in roundings:
        for overflow in overflow_modes(fmt):
            # What the overflow modes do is seen at the ends; between them one mode is enough.
            check(fmt, x if overflow == fmt.default_overflow else outside, rounding, overflow, rules)


@pytest.mark.parametrize("fmt", NARROW, ids=str)
def test_every_value_and_boundary_of_8_bits_is_rounded_in_every_mode_as_in_integers(fmt, path):
    if path == DEFINITION or has_twins(fmt):
        check_exhaustively(fmt)


def test_every_value_and_boundary_of_all_p3109_formats_of_8_bits_is_rounded_as_in_integers(path):
    for fmt in ALL_P3109[:: 1 if path != DEFINITION else 9]:
        check_exhaustively(fmt)


@pytest.mark.full
def test_the_definition_rounds_all_p3109_formats_of_8_bits_as_in_integers(monkeypatch):
    monkeypatch.setattr(Format, "fast_twins", {})
    for fmt in ALL_P3109:
        check_exhaustively(fmt)


@pytest.mark.full
@pytest.mark.parametrize("fmt", SIXTEEN, ids=str)
def test_every_value_and_boundary_of_16_bits_is_rounded_in_every_mode_as_in_integers(fmt, path):
    if path == DEFINITION or has_twins(fmt):
        check_exhaustively(fmt)


# --- a million at random ---------------------------------------------------------------------------------------------


def check_randomly(fmt, count):
    """`count` numbers in every rounding under the default overflow mode, a tenth of them in the other pairs."""
    rules = oracle(fmt)
    numbers = np.concatenate([mixture(rules, fmt.smallest_subnormal, fmt.max, count, SEED), specials(fmt.has_nan)])
    for start in range(0, numbers.size, CHUNK):
        x = numbers[start : start + CHUNK]
        for rounding in ROUNDINGS:
            for overflow in overflow_modes(fmt):
                if overflow == fmt.default_overflow:
                    check(fmt, x, rounding, overflow, rules, offset=start)
                elif start < max(count // 10, 1):
                    check(fmt, x[: max(x.size // 8, 50)], rounding, overflow, rules, offset=start)
        for rounding in ("rne", "sr:3:b") if start < 2 * CHUNK else ():
            random = philox_words(SEED, start, x.size)
            codes = fmt.encode(x, rounding, seed=SEED, offset=start)
            expected = rules.quantized(x, rounding, fmt.default_overflow, random)
            assert_same_bits(fmt.decode(codes), expected, x, f"{fmt.name}/{rounding} seed {SEED}: decoded codes")


@pytest.mark.parametrize("fmt", SCALARS, ids=str)
def test_random_numbers_are_rounded_in_every_mode_as_in_integers(fmt, path):
    if path == DEFINITION or has_twins(fmt):
        check_randomly(fmt, 100 if path == DEFINITION else 4000)


@pytest.mark.full
@pytest.mark.parametrize("fmt", SCALARS, ids=str)
def test_a_million_random_numbers_are_rounded_in_every_mode_as_in_integers(fmt):
    """By the twins of the widest instruction set; by the definition, which is slow, where a family has none."""
    check_randomly(fmt, MILLION if has_twins(fmt) else 3000)


@pytest.mark.full
@pytest.mark.parametrize("fmt", SCALARS, ids=str)
def test_the_definition_rounds_thousands_of_random_numbers_as_in_integers(fmt, monkeypatch):
    monkeypatch.setattr(Format, "fast_twins", {})
    check_randomly(fmt, 3000)


def check_blocks(name, rows):
    fmt = formats.get(name)
    rng = np.random.default_rng(SEED)
    columns = 32 * 25
    x = np.ldexp(rng.standard_normal((rows, columns)), rng.integers(-6, 7, (rows, columns)))
    x = np.ldexp(x, rng.integers(-20, 20, (rows, 1)) if name == "nvfp4" else rng.integers(-150, 150, (rows, 1)))
    # Largest magnitudes at which the modes change over, and their float64 neighbours.
    largest = fmt.element.max
    edges = [1.0, 1.5, 1.75, 1.875, 1.9375, 1.96875, 1.9921875, largest, 1.5 * largest, 1.25 * largest]
    edges = np.array([*edges, *np.nextafter(edges, 0), *np.nextafter(edges, np.inf)])
    tops = np.ldexp(np.resize(edges, (rows, 12)), np.frexp(np.abs(x).max(axis=1, keepdims=True))[1])
    x[:, :: columns // 12][:, :12] = tops
    if name == "nvfp4":
        x = x.astype(np.float32).astype(np.float64)
    x[rng.random(x.shape) < 0.01] = -0.0
    for rounding in ROUNDINGS:
        random = philox_words(SEED, 7, x.size) if rounding.startswith("sr") else None
        made = nvfp4_quantized(x, rounding, random) if name == "nvfp4" else mx_quantized(name, x, rounding, random)
        got = fmt.quantize(x, rounding, seed=SEED, offset=7)
        assert_same_bits(got, made, x, f"{name}/{rounding} seed {SEED}, offset 7")
        if rounding in ("rne", "sr:3:b"):
            assert_same_bits(fmt.decode(fmt.encode(x, rounding, seed=SEED, offset=7)), made, x, f"{name}/{rounding}")


@pytest.mark.parametrize("name", BLOCKS)
def test_random_blocks_are_scaled_and_rounded_as_in_integers(name):
    check_blocks(name, 5)


@pytest.mark.full
@pytest.mark.parametrize("name", BLOCKS)
def test_a_million_random_elements_of_blocks_are_scaled_and_rounded_as_in_integers(name):
    """The scale modes other than the default, which change no rounding, on a tenth of that."""
    has_fast_elements = has_twins(formats.get(name).element)
    check_blocks(name, 12 if not has_fast_elements else 125 if ":" in name else 1250)


def test_every_format_of_the_registry_has_an_oracle_here():
    known = {fmt.name for fmt in SCALARS} | set(BLOCKS)
    assert set(formats.available()) <= known
