"""Defects seen in other libraries, each pinned to the right behaviour.

Those that belong to one family stand in that family's file; DEFECTS lists all that concern formats.
"""

import math
import re
from pathlib import Path

import numpy as np
import pytest

import formats
from formats import ROUNDINGS, Use
from tests.oracles.bits import assert_same_bits
from tests.oracles.integers import philox_words
from tests.oracles.rules import rules_of

# Name -> where it was seen, by running the library in the version named or by reading its source, and what it gave.
DEFECTS = {
    "zero_sign": "mptorch, qtorch 0.3.0, pychop 0.6.2: -0 and tiny negative values became +0",
    "top_binade": "pychop 0.6.2: fp16 65520 became 65536, and 65536 became 0",
    "odd_keeps_exact": "pychop 0.6.2: 1.0 rounded to odd became 1.00098",
    "away_symmetric": "pychop 0.6.2: with p = 4, -1.0625 rounded away became -1.0, its positive twin 1.125",
    "rz_below_power": "pychop 0.6.2: with p = 4, the float64 below 8 rounded toward zero became 7",
    "exponent_from_bits": "microxcaling: floor(log2(x)) in float32 is one too large just below powers of two",
    "wide_input": "ml_dtypes 0.6.0: float64 -431.99999999999994 became E4M3 -448, rounded twice",
    "nan_seen": "microxcaling: NaN was searched for with ==",
    "fp4_nan": "ml_dtypes 0.6.0: NaN became -0 in E2M1",
    "e8m0_edges": "ml_dtypes 0.6.0: in E8M0 ties go up, 0 becomes NaN, 2**-128 becomes 2**-127",
    "e4m3_policy": "torch 2.13 makes 448 of 464.1, ml_dtypes 0.6.0 and gfloat 0.5.2 NaN, under one name",
    "nearest_is_even": 'qtorch 0.3.0: "nearest" rounds ties away from zero',
    "subnormal_once": "qtorch 0.3.0: the float32 below every subnormal tie rounds up",
    "extra_binade": "qtorch 0.3.0: the largest E5M2 is 114688, NaN and Inf become finite",
    "seed": "qtorch 0.3.0, mptorch: stochastic rounding is seeded by the operating system; no two runs agree",
    "sr_few_bits": "mptorch on CPUs: few random bits clear one low bit only, and leave values outside the format",
    "posit_nar": "qtorch-plus 0.2.0: NaN and both infinities became -Inf",
    "posit_guard": "qtorch-plus 0.2.0: n > 16 ends the process, a large es is silently wrong",
    "codebook_far": "qtorch-plus 0.2.0: values farther than 1e5 from every entry became 0",
    "fp32_subnormal_in": "universal, pull request 1259: float32 subnormals became 0 on the way to posits",
}


def test_every_defect_has_its_test():
    sources = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    named = {name for source in sources for name in re.findall(r"^def test_regress_(\w+)\(", source, re.MULTILINE)}
    assert set(DEFECTS) - named == set()


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
        finite = fmt.table()[np.isfinite(fmt.table())]
        finite = finite[:: max(finite.size // 500, 1)]
        for rounding in ROUNDINGS:
            for overflow in ("ieee", "sat"):
                note = f"{name}/{rounding}/{overflow}"
                assert_same_bits(fmt.quantize(finite, rounding, overflow), finite, finite, note)


def test_regress_away_symmetric(path):
    """Elsewhere -1.0625 rounded away from zero became -1.0, and its positive twin 1.125."""
    assert_same_bits(formats.get("e8m3").quantize([-1.0625, 1.0625], "rna"), [-1.125, 1.125])


def test_regress_rz_below_power(path):
    """Elsewhere rounding toward zero lost a quantum more just below a power of two."""
    x = [math.nextafter(8, 0), math.nextafter(1024, 0), -math.nextafter(8, 0)]
    assert_same_bits(formats.get("e8m3").quantize(x, "rz"), [7.5, 960.0, -7.5], np.array(x))


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
    assert_same_bits(formats.get("posit32").quantize(x), [2.0**-120, 2.0**-120, -(2.0**-120)], x)
    assert_same_bits(formats.get("posit16e5").quantize(x), formats.get("posit16e5").quantize(x.astype(np.float64)), x)
    assert np.all(formats.get("posit16e5").encode(x) != 1)


def test_regress_seed(path):
    """Elsewhere no two runs agreed; here the seed decides, and nothing that came before."""
    fmt, x = formats.get("fp8_e4m3"), np.random.default_rng(52).uniform(-300, 300, 500)
    expected = rules_of("fp8_e4m3").quantized(x, "sr", "nan", philox_words(17, 0, x.size))
    for before in range(5):
        fmt.quantize(x[:before], "sr", seed=before)
        assert_same_bits(fmt.quantize(x, "sr", seed=17), expected, x, "seed 17")
    assert np.any(fmt.quantize(x, "sr", seed=18) != expected)
    assert_same_bits(fmt.quantize(x, "sr"), fmt.quantize(x, "sr", seed=0))


def test_regress_sr_few_bits(path):
    """Elsewhere few random bits gave results outside the format, and a wrong number of them failed late."""
    for name in ("fp8_e5m2", "fp16", "posit8", "fix8.4"):
        fmt = formats.get(name)
        x = np.random.default_rng(53).standard_normal(40) * 7
        down, up = fmt.quantize(x, "rd"), fmt.quantize(x, "ru")
        for bits in (*range(1, 12), 23, 24, 32, 52, 53, 63, 64):
            for variant in "abc" if bits < 64 else "a":
                y = fmt.quantize(x, f"sr:{bits}:{variant}", seed=3)
                assert ((y == down) | (y == up)).all(), f"{name} sr:{bits}:{variant} seeds 53, 3"
                assert fmt.encode(y).tolist() == [fmt.code_of(v) for v in y.tolist()]
    for spec in ("fp16/sr:0", "fp16/sr:65", "fp16/sr:64:b", "fp16/sr:64:c"):
        with pytest.raises(ValueError, match=r"random bits; expected 1 to 6[34] for variant"):
            Use.parse(spec)
