"""Defects seen in other libraries, each pinned to the right behaviour."""

import math

import numpy as np
import pytest

import formats
from tests.oracles.bits import assert_same_bits


def test_regress_zero_sign(path):
    """Elsewhere -0 and tiny negative values came out as +0."""
    for name in ("fp16", "bf16", "fp8_e4m3", "fp4_e2m1"):
        assert_same_bits(formats.get(name).quantize([-0.0, -1e-300, -5e-324]), [-0.0, -0.0, -0.0], note=name)


def test_regress_top_binade(path):
    """Elsewhere 65520 became 65536 and 65536 became 0; 250 became 256 and 256 became 0 in an IEEE-like E4M3."""
    assert_same_bits(formats.get("fp16").quantize([65520.0, 65536.0]), [math.inf, math.inf])
    assert_same_bits(formats.get("e4m3:ieee").quantize([250.0, 256.0]), [math.inf, math.inf])


def test_regress_odd_keeps_exact(path):
    """Elsewhere an exact 1.0 moved; exact values never move, in any format and mode."""
    for name in ("fp16", "fp8_e4m3", "fp8_e5m2fnuz", "fp6_e2m3"):
        fmt = formats.get(name)
        values = fmt.table()[~np.isnan(fmt.table())]
        for overflow in ("ieee", "sat"):
            finite = values[np.isfinite(values)]
            assert_same_bits(fmt.quantize(finite, overflow=overflow), finite, finite, name)


def test_regress_exponent_from_bits(path):
    """Elsewhere floor(log2(x)) was computed in floating point, which is one too large just below powers of two."""
    fmt = formats.get("fp16")
    for k in range(-24, 16):
        below = math.nextafter(2.0**k, 0)
        # Below a normal power of two the quantum is that of the lower binade; the nearest value is the power itself.
        quantum = 2.0 ** (max(k - 1, -14) - 10)
        x = np.array([below, 2.0**k - quantum / 4, 2.0**k - 3 * quantum / 4])
        assert_same_bits(fmt.quantize(x), [2.0**k, 2.0**k, 2.0**k - quantum], x, f"k={k}")


def test_regress_wide_input(path):
    """Elsewhere a float64 just short of a tie was first rounded to float32, onto the tie."""
    assert_same_bits(formats.get("fp8_e4m3").quantize([-431.99999999999994]), [-416.0])
    assert_same_bits(formats.get("fp16").quantize([1 + 2.0**-11 + 2.0**-40]), [1 + 2.0**-10])


def test_regress_nan_seen(path):
    """Elsewhere NaN was searched for with ==, and never found."""
    for name in ("fp16", "fp8_e4m3", "fp8_e4m3fnuz"):
        assert np.isnan(formats.get(name).quantize([math.nan, 1.0])).tolist() == [True, False]


def test_regress_fp4_nan(path):
    """Elsewhere NaN became -0 in E2M1."""
    with pytest.raises(ValueError, match="fp4_e2m1 has no NaN"):
        formats.get("fp4_e2m1").quantize([math.nan])


def test_regress_e4m3_policy(path):
    """Two libraries give 448 and NaN for 464.1 under one name; here the use says which."""
    fmt = formats.get("fp8_e4m3")
    assert_same_bits(fmt.quantize([464.0, 464.1], overflow="sat"), [448.0, 448.0])
    assert_same_bits(fmt.quantize([464.0, 464.1], overflow="nan"), [448.0, math.nan])
    assert str(formats.Use.parse("fp8_e4m3/sat")) != str(formats.Use.parse("fp8_e4m3"))


def test_regress_nearest_is_even(path):
    """Elsewhere "nearest" rounded ties away from zero."""
    x = np.array([1.0625, 1.1875, -1.0625, -1.1875])
    assert_same_bits(formats.get("fp8_e4m3").quantize(x), [1.0, 1.25, -1.0, -1.25], x)


def test_regress_subnormal_once(path):
    """Elsewhere the float32 neighbour below every subnormal tie rounded up."""
    fmt = formats.get("fp8_e4m3")
    for code in range(8):
        tie = np.float32((code + 0.5) * 2.0**-9)
        below, above = np.nextafter(tie, np.float32(0)), np.nextafter(tie, np.float32(1))
        even = code + code % 2
        assert_same_bits(fmt.quantize([below, tie, above]), np.array([code, even, code + 1]) * 2.0**-9, note=f"{code}")


def test_regress_extra_binade(path):
    """Elsewhere the largest values were 114688, 480 and 131008, and Inf and NaN became finite."""
    assert [formats.get(n).max for n in ("fp8_e5m2", "fp8_e4m3", "fp16")] == [57344.0, 448.0, 65504.0]
    assert_same_bits(formats.get("fp8_e5m2").quantize([114688.0, math.inf, math.nan]), [math.inf, math.inf, math.nan])
    assert_same_bits(formats.get("fp16").quantize([131008.0]), [math.inf])


def test_regress_identity(path):
    """Elsewhere E8M23 flipped every sign."""
    x = np.random.default_rng(51).integers(0, 1 << 32, 1000, np.uint32).view(np.float32)
    x = x[~np.isnan(x)]
    assert_same_bits(formats.get("e8m23").quantize(x), x, x, "seed 51")


def test_regress_fp32_subnormal_in(path):
    """Elsewhere float32 subnormals were flushed on the way in."""
    x = np.array([2.0**-149, 3 * 2.0**-149, -(2.0**-130)], np.float32)
    assert_same_bits(formats.get("fp32").quantize(x), x, x)
    assert_same_bits(formats.get("bf16").quantize(x), [0.0, 0.0, -(2.0**-130)], x)
