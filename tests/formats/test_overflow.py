"""Beyond the largest value, infinities, zeros and NaN under every overflow mode: round first, then compare."""

import math

import numpy as np
import pytest

import formats
from tests.oracles.bits import assert_same_bits

INF, NAN = math.inf, math.nan

# format, mode -> what +beyond and +Inf become; None: the mode needs a NaN and the format has none.
BEYOND = {
    ("fp16", "ieee"): INF,
    ("fp16", "sat"): 65504.0,
    ("fp16", "nan"): NAN,
    ("bf16", "sat"): math.ldexp(255, 120),
    ("bf16", "ieee"): INF,
    ("fp8_e5m2", "ieee"): INF,
    ("fp8_e5m2", "sat"): 57344.0,
    ("fp8_e5m2", "nan"): NAN,
    ("fp8_e4m3", "ieee"): NAN,
    ("fp8_e4m3", "sat"): 448.0,
    ("fp8_e4m3", "nan"): NAN,
    ("e4m3:ieee", "ieee"): INF,
    ("e4m3:ieee", "sat"): 240.0,
    ("fp8_e4m3fnuz", "ieee"): NAN,
    ("fp8_e4m3fnuz", "sat"): 240.0,
    ("fp8_e5m2fnuz", "nan"): NAN,
    ("fp6_e3m2", "ieee"): 28.0,
    ("fp6_e3m2", "sat"): 28.0,
    ("fp4_e2m1", "sat"): 6.0,
    ("e5m0", "ieee"): INF,
    ("fp16:ftz", "sat"): 65504.0,
    ("fp32", "ieee"): INF,
    ("fp64", "sat"): 1.7976931348623157e308,
}


@pytest.mark.parametrize(("name", "mode"), sorted(BEYOND))
def test_infinity_becomes_what_the_mode_says(name, mode, path):
    instead = BEYOND[name, mode]
    assert_same_bits(formats.get(name).quantize([INF, -INF], overflow=mode), [instead, -instead], note=f"{name}/{mode}")


@pytest.mark.parametrize(("name", "mode"), sorted(key for key in BEYOND if key[0] != "fp64"))
def test_only_what_rounds_beyond_the_largest_overflows(name, mode, path):
    fmt, instead = formats.get(name), BEYOND[name, mode]
    largest = fmt.max
    # The largest value of fp8_e4m3 has an even significand, those of all others an odd one: the tie goes the other way.
    ulp = 2.0 ** (math.floor(math.log2(largest)) - fmt.fraction_bits)
    tie = largest if fmt.encode([largest])[0] % 2 == 0 else instead
    inside = math.nextafter(largest + ulp / 2, 0)
    outside = math.nextafter(largest + ulp / 2, INF)
    x = np.array([largest, inside, largest + ulp / 2, outside, largest + ulp, 2 * largest, 1e308])
    expected = np.array([largest, largest, tie, instead, instead, instead, instead])
    assert_same_bits(fmt.quantize(x, overflow=mode), expected, x, f"{name}/{mode}")
    assert_same_bits(fmt.quantize(-x, overflow=mode), -expected, -x, f"{name}/{mode}")


@pytest.mark.parametrize(
    "name", ["fp16", "fp8_e4m3", "fp6_e3m2", "fp4_e2m1", "e5m2:ftz", "fp8_e5m2fnuz", "e4m3:fnuz:b3"]
)
def test_zero_keeps_its_sign_where_the_format_has_two(name, path):
    fmt = formats.get(name)
    tiny = fmt.smallest_subnormal / 2
    x = np.array([0.0, -0.0, tiny, -tiny, 5e-324, -5e-324])
    zeros = np.copysign(0.0, x) if "fnuz" not in name else np.zeros(6)
    assert_same_bits(fmt.quantize(x), zeros, x, name)


@pytest.mark.parametrize("mode", ["ieee", "sat", "nan"])
def test_nan_stays_nan_in_every_mode(mode, path):
    for name in ("fp16", "bf16", "fp8_e4m3", "fp8_e4m3fnuz", "e5m2:ftz", "fp64"):
        assert np.isnan(formats.get(name).quantize([NAN, -NAN], overflow=mode)).all(), f"{name}/{mode}"


@pytest.mark.parametrize("name", ["fp6_e3m2", "fp6_e2m3", "fp4_e2m1", "e5m0"])
def test_nan_is_refused_by_a_format_without_one(name, path):
    fmt = formats.get(name)
    with pytest.raises(ValueError, match=f"{name} has no NaN, and the array holds one; replace it before quantising"):
        fmt.quantize([1.0, NAN])
    with pytest.raises(ValueError, match="has no NaN"):
        fmt.encode(np.array([NAN], np.float32))
    with pytest.raises(ValueError, match=f"overflow 'nan' needs a NaN, and {name} has none; use 'sat'"):
        fmt.quantize([1.0], overflow="nan")


def test_flushing_happens_after_rounding(path):
    """What rounds up to the smallest normal value, with all its bits, is kept; what stays below becomes zero."""
    fmt = formats.get("fp16:ftz")
    normal = 2.0**-14
    below = math.nextafter(normal, 0)
    tie = normal * (1 - 2.0**-12)
    x = np.array([normal, below, tie, math.nextafter(tie, 0), normal * (1 - 2.0**-11), normal / 2, 2.0**-24])
    expected = np.array([normal, normal, normal, 0.0, 0.0, 0.0, 0.0])
    assert_same_bits(fmt.quantize(x), expected, x)
    assert_same_bits(fmt.quantize(-x), -expected, -x)


DEFAULTS = {
    "ieee": ["fp16", "bf16", "tf32", "fp32", "fp64", "fp8_e5m2", "fp8_e3m4", "e8m13", "e4m3:ieee", "e5m7", "e5m0",
             "binary8p4se", "binary8p4ue"],
    "nan": ["fp8_e4m3", "fp8_e4m3fnuz", "fp8_e5m2fnuz", "fp8_e4m3b11fnuz", "e8m0", "ue4m3", "dlfloat16", "binary8p4sf",
            "binary8p4uf"],
    "sat": ["fp6_e3m2", "fp6_e2m3", "fp4_e2m1", "e4m3:finite", "int8", "uint8", "fix16.8", "posit16", "takum16",
            "mxfp4", "mxfp8_e4m3", "mxint8", "nvfp4"],
}  # fmt: skip


@pytest.mark.parametrize("mode", DEFAULTS)
def test_defaults_are_ieee_with_infinities_nan_with_a_nan_alone_and_sat_with_neither(mode):
    assert {name: formats.get(name).default_overflow for name in DEFAULTS[mode]} == dict.fromkeys(DEFAULTS[mode], mode)


def test_what_names_no_mode_gets_the_default():
    for name in ("fp16", "fp8_e4m3", "fp8_e5m2fnuz", "fp4_e2m1", "int8", "posit16"):
        fmt = formats.get(name)
        assert_same_bits(fmt.quantize([1e9, -1e9]), fmt.quantize([1e9, -1e9], overflow=fmt.default_overflow))


# Family, mode -> what becomes of a finite value above the largest (M) and of +Inf.
M = "largest"
BY_FAMILY = {
    "fp16": {"ieee": (INF, INF), "sat": (M, M), "satprop": (M, INF), "nan": (NAN, NAN)},
    "fp8_e4m3": {"ieee": (NAN, NAN), "sat": (M, M), "satprop": (M, M), "nan": (NAN, NAN)},
    "fp8_e5m2fnuz": {"ieee": (NAN, NAN), "sat": (M, M), "satprop": (M, M), "nan": (NAN, NAN)},
    "fp4_e2m1": {"ieee": (M, M), "sat": (M, M), "satprop": (M, M)},
    "e8m0": {"ieee": (NAN, NAN), "sat": (M, M), "satprop": (M, M), "nan": (NAN, NAN)},
    "ue4m3": {"ieee": (NAN, NAN), "sat": (M, M), "satprop": (M, M), "nan": (NAN, NAN)},
    "dlfloat16": {"ieee": (NAN, NAN), "sat": (M, M), "satprop": (M, M), "nan": (NAN, NAN)},
    "int8": {"ieee": (M, M), "sat": (M, M), "satprop": (M, M)},
    "fix16.8": {"ieee": (M, M), "sat": (M, M), "satprop": (M, M)},
    # Posits and takums: an infinity is no real number in any mode, and nothing finite overflows but by request.
    "posit16": {"ieee": (NAN, NAN), "sat": (M, NAN), "satprop": (M, NAN), "nan": (NAN, NAN)},
    "takum16": {"ieee": (NAN, NAN), "sat": (M, NAN), "satprop": (M, NAN), "nan": (NAN, NAN)},
}


@pytest.mark.parametrize("name", BY_FAMILY)
def test_every_mode_does_in_every_family_what_its_line_of_the_table_says(name, path):
    fmt = formats.get(name)
    x = [1e300, INF]
    for mode, expected in BY_FAMILY[name].items():
        assert_same_bits(
            fmt.quantize(x, overflow=mode), [fmt.max if e == M else e for e in expected], x, f"{name}/{mode}"
        )
    for mode in {"ieee", "sat", "satprop", "nan"} - BY_FAMILY[name].keys():
        with pytest.raises(ValueError, match=f"overflow '{mode}' "):
            fmt.quantize(x, overflow=mode)


def test_unknown_modes_are_refused_with_the_known_ones(path):
    fmt = formats.get("fp16")
    with pytest.raises(ValueError, match="rounding 'up' is unknown; expected one of rne"):
        fmt.quantize([1.0], rounding="up")
    with pytest.raises(ValueError, match="overflow 'clip' is unknown; expected one of ieee, sat, satprop, nan, wrap"):
        fmt.encode([1.0], overflow="clip")


def test_no_overflow_mode_changes_a_value_inside_the_range(path):
    x = np.random.default_rng(31).uniform(-448, 448, 500)
    fmt = formats.get("fp8_e4m3")
    modes = [fmt.quantize(x, overflow=mode) for mode in ("ieee", "sat", "nan")]
    assert_same_bits(modes[0], modes[1], x, "seed 31")
    assert_same_bits(modes[0], modes[2], x, "seed 31")
