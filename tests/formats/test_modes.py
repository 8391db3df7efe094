"""Every rounding and overflow mode: the definition against a second reading of it, the twin against the definition."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

import formats
from formats import Format
from formats.philox import philox, word
from formats.rounding import parse_rounding, round_magnitude
from tests.oracles.bits import assert_same_bits
from tests.oracles.neighbours import DETERMINISTIC
from tests.oracles.rules import STOCHASTIC

NAMES = [
    "fp8_e4m3", "fp8_e5m2", "fp16", "bf16", "e8m13", "fp32", "fp64", "fp8_e4m3fnuz", "fp4_e2m1", "e5m10:ftz", "e8m0",
    "ue4m3", "dlfloat16", "binary8p3se", "binary8p1ue", "binary8p4uf", "binary6p1sf", "e3m0", "e11m30", "e10m2:b400",
    "e4m3:ieee:b-110", "e5m2:b-990",
]  # fmt: skip


def probes(fmt, seed=5):
    """Values of all magnitudes, neighbours, middles and what lies just beside them, specials."""
    rng = np.random.default_rng(seed)
    low, high = max(math.log2(fmt.smallest_subnormal), -1070) - 3, min(math.log2(fmt.max) + 2, 1022)
    spread = rng.choice([-1, 1], 150) * np.exp2(rng.uniform(low, high, 150))
    edges = [fmt.max, fmt.max * (1 + fmt.unit_roundoff), fmt.smallest_subnormal / 2, fmt.smallest_subnormal * 1.5]
    specials = [0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, 1.7e308, *edges, *(-x for x in edges)]
    x = np.concatenate([spread, rng.standard_normal(60), specials])
    if fmt.bits <= 16:
        table = np.unique(fmt.table()[np.isfinite(fmt.table())])
        place = rng.integers(0, len(table) - 1, 80)
        middle = (table[place] + table[place + 1]) / 2
        x = np.concatenate([x, table[place], middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf)])
    return x if fmt.has_nan else x[~np.isnan(x)]


@pytest.mark.parametrize("name", NAMES)
def test_the_fast_twin_equals_the_definition_in_every_mode(name, monkeypatch):
    import native

    fmt = formats.get(name)
    x = probes(fmt)
    for rounding in (*DETERMINISTIC, *STOCHASTIC):
        for overflow in ("ieee", "sat", "satprop", *(["nan"] if fmt.has_nan else [])):
            with monkeypatch.context() as patch:
                patch.setattr(Format, "fast_twins", {})
                expected = fmt.quantize(x, rounding, overflow, seed=7, offset=3)
            for isa in native.available_isas():
                monkeypatch.setenv("ULPSIM_ISA", isa)
                got = fmt.quantize(x, rounding, overflow, seed=7, offset=3)
                assert_same_bits(got, expected, x, f"{name}/{rounding}/{overflow} {isa}")


def neighbours(table, x):
    """The values of a sorted table on both sides of x, in exact fractions; x lies strictly between two."""
    place = int(np.searchsorted(table, x))
    return Fraction(float(table[place - 1])), Fraction(float(table[place]))


@pytest.mark.parametrize("name", ["fp8_e4m3", "fp8_e5m2", "fp4_e2m1", "binary8p4se", "binary6p3sf", "e3m2:ieee"])
@pytest.mark.parametrize("rounding", DETERMINISTIC)
def test_roundings_choose_the_neighbour_that_their_names_say(name, rounding, path):
    fmt = formats.get(name)
    values = np.unique(fmt.table()[np.isfinite(fmt.table())])
    middles = (values[1:] + values[:-1]) / 2
    x = np.concatenate([middles, np.nextafter(middles, np.inf), np.nextafter(middles, -np.inf), middles / 1.25])
    x = x[(x > values[0]) & (x < values[-1]) & ~np.isin(x, values)]
    expected = []
    for v in x:
        below, above = neighbours(values, v)
        to_below, to_above = Fraction(float(v)) - below, above - Fraction(float(v))
        inner, outer = (below, above) if v > 0 else (above, below)
        even = below if fmt.code_of(float(below)) % 2 == 0 else above
        if rounding in ("rne", "rna", "rnz"):
            tie = {"rne": even, "rna": outer, "rnz": inner}[rounding]
            choice = below if to_below < to_above else above if to_above < to_below else tie
        else:
            odd = above if even == below else below
            choice = {"rz": inner, "ru": above, "rd": below, "odd": odd}[rounding]
        signed = math.copysign(float(choice), v)
        expected.append(signed if choice or fmt.has_negative_zero else 0.0)
    assert_same_bits(fmt.quantize(x, rounding), expected, x, f"{name}/{rounding}")


@pytest.mark.parametrize("bits", [1, 2, 5])
@pytest.mark.parametrize("variant", ["a", "b", "c"])
def test_of_all_random_words_as_many_go_up_as_the_variant_says(bits, variant):
    shift = 8
    mode = parse_rounding(f"sr:{bits}:{variant}")
    for dropped in range(1, 1 << shift):
        v = Fraction(dropped, 1 << shift)
        scaled, finer = v * 2**bits, v * 2 ** (bits + 1)
        half_even = math.floor(scaled) + (
            scaled % 1 > Fraction(1, 2) or (scaled % 1 == Fraction(1, 2) and math.floor(scaled) % 2 == 1)
        )
        expected = {"a": math.floor(scaled), "b": (math.floor(finer) + 1) // 2, "c": half_even}[variant]
        ups = sum(round_magnitude(dropped, shift, mode, word=r << (64 - bits)) for r in range(1 << bits))
        assert ups == expected, f"dropped {dropped} of {1 << shift}, sr:{bits}:{variant}"


def test_the_random_words_are_those_of_philox_4x32_10():
    """The known answers of the generator's authors: zeros, ones, digits of pi."""
    assert philox((0, 0), (0, 0, 0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    ones = 0xFFFFFFFF
    assert philox((ones, ones), (ones,) * 4) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert philox((0xA4093822, 0x299F31D0), pi) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)
    assert word(0, 0) == 0x6627E8D5E169C58D and word(0, 0, which=1) == 0xBC57AC4C9B00DBD8


def test_stochastic_results_depend_on_the_seed_and_not_on_how_an_array_is_cut(path):
    fmt = formats.get("fp8_e4m3")
    x = np.random.default_rng(3).standard_normal((7, 401))
    whole = fmt.quantize(x, "sr", seed=11)
    flat = x.ravel()
    cuts = [0, 1, 500, 1300, flat.size]
    parts = [fmt.quantize(flat[a:b], "sr", seed=11, offset=a) for a, b in itertools.pairwise(cuts)]
    assert_same_bits(np.concatenate(parts), whole.ravel(), flat)
    assert (fmt.quantize(x, "sr", seed=12) != whole).any()
    with pytest.raises(ValueError, match=r"seed: got -1; expected a whole number from 0 to 2\*\*32 - 1"):
        fmt.quantize(x, "sr", seed=-1)


def test_indices_of_random_words_go_on_from_zero_after_the_last_of_64_bits(path):
    fmt = formats.get("fp8_e4m3")
    x = np.random.default_rng(5).standard_normal(120)
    whole = fmt.quantize(x, "sr", seed=11, offset=2**64 - 50)
    assert_same_bits(whole[50:], fmt.quantize(x[50:], "sr", seed=11), x[50:])
    assert_same_bits(whole[:50], fmt.quantize(x[:50], "sr", seed=11, offset=2**64 - 50), x[:50])


def test_directed_roundings_stop_at_the_largest_value_where_they_point_inwards(path):
    fmt = formats.get("fp16")
    x = [1e6, -1e6]
    assert fmt.quantize(x, "rz").tolist() == [65504.0, -65504.0]
    assert fmt.quantize(x, "rd").tolist() == [65504.0, -math.inf]
    assert fmt.quantize(x, "ru").tolist() == [math.inf, -65504.0]
    assert fmt.quantize([math.inf, 1e6], overflow="satprop").tolist() == [math.inf, 65504.0]


def test_unsigned_formats_turn_negative_values_into_nan_or_the_smallest(path):
    scale, unsigned = formats.get("e8m0"), formats.get("binary8p4ue")
    assert np.isnan(scale.quantize([-1.0, 0.0, math.inf])).tolist() == [True, True, True]
    assert scale.quantize([-1.0, 0.0, 1e-300], overflow="sat").tolist() == [2.0**-127] * 3
    assert np.isnan(unsigned.quantize([-1.0, -math.inf])).all()
    assert unsigned.quantize([-1.0, -math.inf], overflow="sat").tolist() == [0.0, 0.0]
    assert unsigned.quantize([-1.0], "rz", "ieee").tolist() == [0.0]


@pytest.mark.parametrize("text", ["sr:0", "sr:65", "sr:64:b", "nearest", "sr:4:d", "rne:2", "sr:٣", "sr:" + "9" * 5000])
def test_a_wrong_rounding_is_refused(text):
    with pytest.raises(ValueError, match="rounding"):
        formats.get("fp16").quantize([1.0], text)
