"""Linear takums: against universal-dtypes, against wider takums, and the rules that they share with posits."""

import math

import numpy as np
import pytest

from formats.takum import TakumFormat
from tests.oracles.bits import assert_same_bits
from tests.oracles.universal import universal_dtype


def takum(n):
    return TakumFormat(f"takum{n}", n)


def codes_of(n):
    """All codes of up to 16 bits, and of wider formats both ends, the codes around 1 and random ones."""
    if n <= 16:
        return np.arange(1 << n)
    around = np.concatenate(
        [np.arange(-200, 200) + start for start in (200, 1 << (n - 2), 1 << (n - 1), (1 << n) - 200)]
    )
    return np.concatenate([around, np.random.default_rng(41).integers(0, 1 << n, 4000)])


def probes(n, every):
    """Values, the values of one bit more between them, their float64 neighbours, and what lies beyond both ends."""
    fmt = takum(n)
    codes = [code for code in codes_of(n)[::every].tolist() if 0 < code < (1 << (n - 1)) - 1]
    values = fmt.decode(codes)
    middles = (
        [takum(n + 1).value_of(2 * code + 1) for code in codes] if n < 32 else (values + values * (1 + 2.0**-28)) / 2
    )
    ends = np.concatenate([values, middles, [fmt.max, fmt.smallest_normal, 1e300, 1e-300, 2.0**255, 2.0**-255]])
    x = np.concatenate([ends, np.nextafter(ends, np.inf), np.nextafter(ends, 0)])
    return np.concatenate([x, -x, [0.0, -0.0, np.nan, np.inf, -np.inf]])


@pytest.mark.parametrize("n", [8, 16, 32])
def test_codes_are_those_of_universal(n):
    dtype = universal_dtype(f"takum{n}")
    codes = codes_of(n).astype(f"u{n // 8}")
    values = takum(n).decode(codes)
    assert_same_bits(values, codes.view(dtype).astype(np.float64), codes, "seed 41")
    few = slice(None, None, 1 if n == 8 else 7)
    assert np.array_equal(takum(n).encode(values[few]), codes[few])


@pytest.mark.parametrize(("n", "every"), [(8, 1), (16, 40), (32, 2), pytest.param(16, 1, marks=pytest.mark.full)])
def test_roundings_to_nearest_are_those_of_universal(n, every):
    """Universal 2.5.1 takes neighbours of ties of takum8 for ties: beside a long exponent it loses the last bits."""
    dtype = universal_dtype(f"takum{n}")
    x = probes(n, every)
    if n == 8:
        x = x.astype(np.float64)
        x = np.where(np.isfinite(x) & (x != 0), np.ldexp(np.rint(np.ldexp(np.frexp(x)[0], 40)), np.frexp(x)[1] - 40), x)
        x = np.concatenate([x, x * (1 + 2.0**-40), x * (1 - 2.0**-40)])
    with np.errstate(over="ignore"):
        expected = x.astype(dtype).astype(np.float64)
    assert_same_bits(takum(n).quantize(x), expected, x, f"takum{n}")


@pytest.mark.parametrize("n", [2, 3, 4, 5, 7, 8, 11, 12, 13])
def test_a_takum_is_the_wider_one_with_zeros_behind(n):
    assert_same_bits(takum(n).table(), takum(16).decode(np.arange(1 << n) << (16 - n)), note=f"takum{n}")
    signed = np.arange(-(1 << (n - 1)) + 1, 1 << (n - 1)) % (1 << n)
    assert np.all(np.diff(takum(n).decode(signed)) > 0)


@pytest.mark.parametrize("n", [3, 6, 8, 10])
def test_ties_lie_at_the_codes_of_one_bit_more(n):
    fmt, wider = takum(n), takum(n + 1)
    for code in range(1, (1 << (n - 1)) - 1):
        low, tie, high = fmt.value_of(code), wider.value_of(2 * code + 1), fmt.value_of(code + 1)
        before, past = math.nextafter(tie, 0), math.nextafter(tie, math.inf)
        x = [before, tie, past]
        even, odd = (low, high) if code % 2 == 0 else (high, low)
        for mode, expected in {
            "rne": [low, even, high],
            "rna": [low, high, high],
            "rnz": [low, low, high],
            "rz": [low] * 3,
            "ru": [high] * 3,
            "rd": [low] * 3,
            "odd": [odd] * 3,
        }.items():
            assert_same_bits(fmt.quantize(x, mode), expected, note=f"takum{n} {mode}, code {code}")
            mirrored = {"ru": "rd", "rd": "ru"}.get(mode, mode)
            assert_same_bits(fmt.quantize(np.negative(x), mirrored), np.negative(expected), note=f"takum{n} -{mode}")
        words = [fmt.project(tie, "sr:1", "sat", word << 63) for word in (0, 1)]
        assert words == [low, high]


def test_ends_saturate_and_specials_become_nar():
    for n in (8, 16, 32):
        fmt = takum(n)
        assert_same_bits(
            fmt.quantize([1e300, -1e300, 1e-300, -5e-324]),
            [fmt.max, -fmt.max, fmt.smallest_normal, -fmt.smallest_normal],
        )
        assert_same_bits(fmt.quantize([1e300, np.inf, np.nan, -0.0], overflow="nan"), [np.nan, np.nan, np.nan, 0.0])
        assert fmt.encode([np.nan, -np.inf]).tolist() == [1 << (n - 1)] * 2
    # The largest characteristic is 254, with all the fraction bits that are left: 4 of 16, 20 of 32.
    assert takum(16).max == (2 - 2.0**-4) * 2.0**254
    assert takum(32).max == (2 - 2.0**-20) * 2.0**254


def test_names_and_widths():
    assert str(TakumFormat.from_name("takum16")) == "takum16"
    assert TakumFormat.from_name("takum08") is None
    assert takum(16).value_of(takum(16).code_of(1.0) + 1) == 1 + 2.0 ** (1 - takum(16).precision)
    for n in (1, 33):
        with pytest.raises(ValueError, match=f"takum{n}: n = {n} is out of range; takums have n from 2 to 32 bits"):
            TakumFormat.from_name(f"takum{n}")
