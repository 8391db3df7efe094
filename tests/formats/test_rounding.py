"""Rounding to nearest, ties to even: every adjacent pair of every small format against a table of values."""

import math
from fractions import Fraction
from functools import cache

import gmpy2
import ml_dtypes
import numpy as np
import pytest

import formats
from tests.oracles.bits import assert_same_bits
from tests.oracles.mpfr import FORMATS, Mpfr
from tests.oracles.nearest import CATALOGUE, Magnitudes, quantized, special, top_code

NARROW = [fmt for fmt in CATALOGUE if fmt.bits <= 8]
SIXTEEN = [fmt for fmt in CATALOGUE if fmt.bits == 16]

GRID = [
    f"e{x}m{y}:{dialect}{modifiers}"
    for x in range(1, 6)
    for y in range(6)
    for dialect in ("ieee", "fn", "fnuz", "finite")
    for modifiers in ("", ":ftz", ":b4")
    # e1m0 alone has no finite value, so its modifiers have nothing to start from.
    if 2 <= x + y <= 7 and (top_code(x, y, dialect) >= 1 << y)
]


@cache
def table_of(fmt):
    return Magnitudes(
        fmt.exponent_bits, fmt.fraction_bits, fmt.bias, top_code(fmt.exponent_bits, fmt.fraction_bits, fmt.dialect)
    )


def flushing_ends(fmt):
    """Where flushing ends: the middle of the smallest normal value and the one below it, had that all its bits."""
    if fmt.subnormals:
        return 0.0
    middle = 2.0 ** (1 - fmt.bias) * (1 - 2.0 ** -(fmt.fraction_bits + 2))
    # The code of the smallest normal, 2**fraction_bits, is even, so that a tie is kept, or it is 1.
    return middle if fmt.fraction_bits else np.nextafter(middle, np.inf)


def assert_nearest_everywhere(fmt):
    """All probes in every overflow mode."""
    table = table_of(fmt)
    x, flush = table.probes(), flushing_ends(fmt)
    around = np.array([flush, np.nextafter(flush, 0), np.nextafter(flush, 1e9)])
    x = np.concatenate([x, around, -around])
    for overflow in ("ieee", "sat", "nan"):
        if overflow == "nan" and not fmt.has_nan:
            continue
        beyond = special(fmt.dialect, overflow, table.values[table.top])
        expected = quantized(table, x, beyond, flush, fmt.dialect == "fnuz")
        assert_same_bits(fmt.quantize(x, "rne", overflow), expected, x, f"{fmt.name}/{overflow}")


@pytest.mark.parametrize("fmt", NARROW, ids=str)
def test_every_midpoint_and_its_neighbours_round_to_the_nearest_value(fmt, path):
    assert_nearest_everywhere(fmt)


@pytest.mark.parametrize("fmt", SIXTEEN, ids=str)
def test_every_midpoint_of_the_16_bit_formats_rounds_to_the_nearest_value(fmt, path):
    if path == "definition":
        # The slow definition: every 7th probe here, all of them in the full tier.
        table = table_of(fmt)
        x = table.probes()[::7]
        expected = quantized(table, x, math.inf)
        assert_same_bits(fmt.quantize(x), expected, x, fmt.name)
    else:
        assert_nearest_everywhere(fmt)


@pytest.mark.full
@pytest.mark.parametrize("fmt", SIXTEEN, ids=str)
def test_the_definition_rounds_every_midpoint_of_the_16_bit_formats(fmt, monkeypatch):
    monkeypatch.setattr(formats.Format, "fast_twins", {})
    assert_nearest_everywhere(fmt)


def test_grid_formats_round_to_the_nearest_value(path):
    for name in GRID if path != "definition" else GRID[::3]:
        assert_nearest_everywhere(formats.get(name))


@pytest.mark.full
def test_the_definition_rounds_every_grid_format_to_the_nearest_value(monkeypatch):
    monkeypatch.setattr(formats.Format, "fast_twins", {})
    for name in GRID:
        assert_nearest_everywhere(formats.get(name))


def test_the_table_oracle_agrees_with_exact_distances():
    """The vectorised oracle above against fractions, so that a slip in it cannot hide one in the code."""
    for name in ("fp8_e4m3", "fp6_e3m2", "e5m0:ieee", "e2m3:fnuz"):
        table = table_of(formats.get(name))
        x = table.probes()
        x = x[np.abs(x) < table.values[-1]]
        assert table.codes_of_nearest(x).tolist() == [table.code_of_nearest(Fraction(v)) for v in x.tolist()]


def test_a_single_significand_bit_takes_evenness_from_the_code(path):
    """Between 2^k and 2^(k+1) the tie goes to the even code, not always up (P3109)."""
    fmt = formats.get("e5m0:ieee")
    codes = fmt.encode([2.0**k for k in range(-3, 4)])
    ties = np.array([1.5 * 2.0**k for k in range(-3, 3)])
    even = [c if c % 2 == 0 else c + 1 for c in codes[:-1].tolist()]
    assert fmt.encode(ties).tolist() == even
    assert_same_bits(fmt.quantize([2.0**-15, 1.5 * 2.0**-14]), [0.0, 2.0**-13])


@pytest.mark.parametrize("name", ["bf16", "fp16", "fp8_e5m2", "fp8_e3m4", "fp6_e3m2", "fp6_e2m3", "fp4_e2m1"])
def test_random_float32_round_as_in_ml_dtypes_or_numpy(name, path):
    """Random bit patterns, float32 on both sides (ml_dtypes rounds float64 twice); overflow as there, to infinity."""
    dtype = {
        "bf16": ml_dtypes.bfloat16,
        "fp16": np.float16,
        "fp8_e5m2": ml_dtypes.float8_e5m2,
        "fp8_e3m4": ml_dtypes.float8_e3m4,
        "fp6_e3m2": ml_dtypes.float6_e3m2fn,
        "fp6_e2m3": ml_dtypes.float6_e2m3fn,
        "fp4_e2m1": ml_dtypes.float4_e2m1fn,
    }[name]
    rng = np.random.default_rng(21)
    codes = rng.integers(0, 1 << 32, 4000 if path == "definition" else 200_000, dtype=np.uint32)
    x = codes.view(np.float32)
    x = x[np.isfinite(x)]
    x = np.concatenate([x, rng.standard_normal(x.size).astype(np.float32)])
    with np.errstate(over="ignore"):
        expected = x.astype(dtype).astype(np.float64)
    assert_same_bits(formats.get(name).quantize(x), expected, x, f"{name} seed 21")


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_random_float64_round_as_in_mpfr(name, path):
    """One rounding from all 53 bits; exponents around the format's own, so that subnormals and overflow occur."""
    precision, emin, emax, _ = FORMATS[name]
    rng = np.random.default_rng(22)
    count = 3000
    exponents = rng.integers(emin - precision - 2, (emax if emax is not None else 8) + 3, count)
    x = np.ldexp(1 + rng.random(count), exponents) * rng.choice([-1, 1], count)
    # Half of them on or right beside a tie of the format.
    quantum = np.maximum(exponents, emin) - precision
    near = np.ldexp(np.rint(np.ldexp(x, -quantum)) // 2 * 2 + 1, quantum)
    near = np.where(rng.random(count) < 0.6, near, np.nextafter(near, rng.choice([-np.inf, np.inf], count)))
    x = np.concatenate([x, near])
    oracle = Mpfr(name)
    expected = [oracle.fma(-0.0, v, 1.0) for v in x.tolist()]
    assert_same_bits(formats.get(name).quantize(x), expected, x, f"{name} seed 22")


def test_fp64_leaves_every_double_alone(path):
    x = np.random.default_rng(23).integers(0, 1 << 64, 5000, dtype=np.uint64).view(np.float64)
    assert_same_bits(formats.get("fp64").quantize(x), x, x, "seed 23")


@pytest.mark.parametrize("name", ["e11m40", "e11m50", "e11m51", "e10m49", "e11m30:ftz"])
def test_formats_nearly_as_wide_as_double_round_as_in_mpfr(name, path):
    fmt = formats.get(name)
    rng = np.random.default_rng(24)
    codes = rng.integers(0, 1 << 64, 3000, dtype=np.uint64)
    x = codes.view(np.float64)
    x = np.concatenate([x[np.isfinite(x)], np.ldexp(rng.random(500), -1022), [1.7976931348623157e308]])
    p, emin, emax = fmt.fraction_bits + 1, 1 - fmt.bias, fmt.bias
    context = gmpy2.context(precision=p, emin=emin - p + 2, emax=emax + 1, subnormalize=True)
    # Made outside the context, which would round them to its own subnormals.
    exact, one, zero = [gmpy2.mpfr(v, 53) for v in x.tolist()], gmpy2.mpfr(1), gmpy2.mpfr(-0.0)
    with context:
        expected = np.array([float(gmpy2.fma(v, one, zero)) for v in exact])
    if not fmt.subnormals:
        expected[np.abs(expected) < 2.0**emin] *= 0.0
    assert_same_bits(fmt.quantize(x), expected, x, f"{name} seed 24")


def test_values_below_the_smallest_normal_double_keep_their_precision(path):
    """A bias this large puts normal values of the format among the subnormals of float64."""
    fmt = formats.get("e5m2:b1060")
    x = np.array([1.25 * 2.0**-1040, 1.125 * 2.0**-1040, 1.375 * 2.0**-1040, 2.0**-1061, 2.0**-1062])
    expected = [1.25 * 2.0**-1040, 2.0**-1040, 1.5 * 2.0**-1040, 2.0**-1061, 0.0]
    assert_same_bits(fmt.quantize(x), expected, x)
    assert_same_bits(fmt.quantize(-x), -np.array(expected), -x)
