"""Formats rounded by qtorch and qtorch-plus, compiled: equality with native posits, the deviations of the floats."""

import math

import numpy as np
import pytest

import formats
from formats import Use
from formats.posit import PositFormat
from formats.qtorch import extension, from_name
from tests.formats.test_qtorch import POSITS, python
from tests.oracles.bits import assert_same_bits


def compiled(test):
    """Mark a test that needs the packages, which take half a minute to compile."""
    try:
        for package in extension.VERSIONS:
            extension.require(package, "this test")
        reason = ""
    except ImportError as error:
        reason = str(error)
    return pytest.mark.full(pytest.mark.skipif(bool(reason), reason=reason)(test))


def raw(fmt, x):
    """What the package itself makes of float32 values, without what stands around it here."""
    function = getattr(extension.extension(fmt.package, fmt.name), fmt.function)
    return extension.run(function, np.array(x, np.float32), fmt.parameters)


def beside(x, dtype):
    """Values, all of them exact in dtype, and both neighbours of each there; both signs."""
    x = np.asarray(x, dtype)
    near = np.concatenate([x, np.nextafter(x, dtype(0)), np.nextafter(x, dtype(np.inf))])
    return np.concatenate([near, -near])


# --- posits ----------------------------------------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize(("n", "es"), POSITS)
def test_qtorch_posits_equal_native_ones_on_every_code_and_every_tie(n, es):
    fmt, native = from_name(f"qtorch_posit{n}e{es}"), PositFormat(f"posit{n}e{es}", n, es)
    assert (fmt.bits, fmt.max, fmt.smallest_subnormal) == (n, native.max, native.smallest_subnormal)
    assert_same_bits(fmt.table(), native.table(), note=fmt.name)
    values, boundaries = native.boundaries()
    # float64 neighbours too: float32 does not hold them, so that they would be rounded twice.
    edges = [values[1] / 2, values[-1] * 1.5, 2.0**-149, 2.0**-150, 5e-324, 3.4028234663852886e38, 2.0**128, 1e308]
    specials = [0.0, -0.0, math.inf, -math.inf, math.nan]
    ties = [beside(boundaries[1:], dtype) for dtype in (np.float32, np.float64)]
    x = np.concatenate([fmt.table(), *ties, beside(edges, np.float64), specials])
    assert_same_bits(fmt.quantize(x), native.quantize(x), x, fmt.name)


@compiled
@pytest.mark.parametrize("name", ["posit16e1", "posit8e0", "posit12"])
def test_random_values_of_any_size_round_as_native_posits_do(name):
    fmt, native = from_name(f"qtorch_{name}"), PositFormat.from_name(name)
    words = np.random.default_rng(31).integers(0, 1 << 64, 20_000, dtype=np.uint64)
    wide = words.view(np.float64)
    narrow = words.astype(np.uint32).view(np.float32)
    moderate = np.random.default_rng(32).standard_normal(20_000)
    for x in (wide, narrow, moderate):
        assert_same_bits(fmt.quantize(x), native.quantize(x), x, f"{name} seeds 31, 32")


@compiled
def test_codes_are_those_of_the_native_posit():
    fmt, native = from_name("qtorch_posit8"), PositFormat.from_name("posit8")
    x = np.random.default_rng(33).standard_normal((20, 30)) * 100
    codes = fmt.encode(x)
    assert codes.dtype == np.uint8
    assert codes.tolist() == native.encode(x).tolist()
    assert_same_bits(fmt.decode(codes), native.quantize(x), x)
    assert fmt.encode([math.nan, math.inf, 0.0]).tolist() == [0x80, 0x80, 0]


@compiled
def test_projecting_a_posit_is_exact():
    fmt = from_name("qtorch_posit8")
    assert fmt.project(1.0625 + 2.0**-50, "rne", "sat") == 1.125
    assert fmt.project(1.0625, "rne", "sat") == 1.0
    assert math.isnan(fmt.project(math.inf, "rne", "sat"))
    assert not fmt.overflows(1, 0, Use(fmt).mode)


@compiled
def test_regress_posit_nar():
    """qtorch-plus makes -Inf of what is no number; here it is NaR."""
    fmt = from_name("qtorch_posit16e1")
    assert raw(fmt, [math.nan, math.inf, -math.inf]).tolist() == [-math.inf] * 3
    assert np.isnan(fmt.quantize([math.nan, math.inf, -math.inf])).all()


@compiled
@pytest.mark.parametrize("name", ["qtorch_posit8e1", "qtorch_e5m2"])
def test_arrays_of_any_shape_and_layout(name):
    fmt = from_name(name)
    x = np.random.default_rng(34).standard_normal((6, 8)).astype(np.float32)
    whole = fmt.quantize(x)
    assert whole.dtype == np.float64
    assert_same_bits(fmt.quantize(x.T[::2, 1:]), whole.T[::2, 1:])
    assert_same_bits(fmt.quantize(x[0, 0]), whole[0, 0])
    assert fmt.quantize(np.empty((0, 3))).shape == (0, 3)
    assert_same_bits(fmt.quantize(np.arange(4, dtype=np.int16)), [0.0, 1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match="dtype complex128"):
        fmt.quantize(np.array([1j]))


@compiled
def test_arrays_longer_than_one_call(monkeypatch):
    monkeypatch.setattr(extension, "CHUNK", 7)
    x = np.random.default_rng(35).standard_normal(50)
    assert_same_bits(from_name("qtorch_posit8").quantize(x), PositFormat.from_name("posit8").quantize(x), x, "seed 35")


# --- floats: what qtorch computes ------------------------------------------------------------------------------------


def as_qtorch_rounds(x, exponent_bits, fraction_bits):
    """The deviations, in float64, which holds all of this exactly."""
    x = np.asarray(x, np.float64)
    magnitude, emin = np.abs(x), 2 - (1 << (exponent_bits - 1))
    with np.errstate(all="ignore"):
        once = np.rint(np.ldexp(magnitude, 23 - emin))
        subnormal = np.ldexp(np.floor(np.ldexp(once, fraction_bits - 23) + 0.5), emin - fraction_bits)
        fraction, exponent = np.frexp(magnitude)
        places = fraction_bits + 1
        normal = np.ldexp(np.floor(np.ldexp(fraction, places) + 0.5), exponent - places)
    top_exponent = 1 << (exponent_bits - 1)
    if exponent_bits == 8:
        normal = np.where(normal >= 2.0**128, np.inf, normal)
    else:
        normal = np.minimum(normal, math.ldexp(2.0 - 2.0**-fraction_bits, top_exponent))
    normal = np.where(np.isinf(magnitude), np.inf if exponent_bits == 8 else normal, normal)
    return np.copysign(np.where(magnitude < 2.0**emin, subnormal, normal), x) + 0.0


@compiled
@pytest.mark.parametrize("exponent_bits", range(1, 9))
@pytest.mark.parametrize("fraction_bits", [0, 1, 2, 3, 7, 10, 16, 22])
def test_qtorch_floats_round_with_the_documented_deviations(exponent_bits, fraction_bits):
    fmt = from_name(f"qtorch_e{exponent_bits}m{fraction_bits}")
    rng = np.random.default_rng(36)
    emin, top = 2 - (1 << (exponent_bits - 1)), 1 << (exponent_bits - 1)
    exponents = rng.integers(max(emin - fraction_bits - 2, -149), min(top + 2, 128), 3000)
    x = np.ldexp(1 + rng.random(3000), exponents)
    quantum = np.maximum(exponents, emin) - fraction_bits
    ties = np.ldexp(np.floor(np.ldexp(x, -quantum)) + 0.5, quantum).astype(np.float32)
    ties = ties[np.isfinite(ties)]
    edges = np.array([3.4028234663852886e38, 2.0**-149, 2.0**-126], np.float32)
    x = np.concatenate([beside(x.astype(np.float32), np.float32), beside(ties, np.float32), edges, -edges, [0.0, -0.0]])
    x = np.concatenate([x[np.isfinite(x)], [math.inf, -math.inf]])
    expected = as_qtorch_rounds(x, exponent_bits, fraction_bits)
    assert_same_bits(fmt.quantize(x), expected, x, f"{fmt.name} seed 36")
    assert_same_bits(raw(fmt, x)[x != 0], expected[x != 0], x[x != 0], f"{fmt.name} without what stands around it")


@compiled
def test_regress_nearest_is_even_and_subnormal_once():
    """qtorch rounds ties away, and the neighbour below a subnormal tie up."""
    ours, theirs = formats.get("fp16"), from_name("qtorch_e5m10")
    tie = 1 + 2.0**-11
    assert (ours.quantize(tie), theirs.quantize(tie)) == (1.0, 1 + 2.0**-10)
    below = np.nextafter(np.float32(2.0**-25), np.float32(0))
    assert (ours.quantize(below), theirs.quantize(below)) == (0.0, 2.0**-24)


@compiled
@pytest.mark.parametrize(("name", "largest"), [("e5m2", 114688.0), ("e4m3", 480.0), ("e5m10", 131008.0)])
def test_regress_extra_binade(name, largest):
    """qtorch has numbers in the top exponent, and neither infinity nor NaN."""
    fmt = from_name(f"qtorch_{name}")
    assert fmt.max == largest
    assert fmt.quantize([largest, 2.0**100, math.inf, -math.inf]).tolist() == [largest, largest, largest, -largest]
    assert raw(fmt, [math.nan]).tolist() == [largest]
    assert not fmt.has_nan
    with pytest.raises(ValueError, match=f"qtorch_{name} has no NaN, and the array holds one"):
        fmt.quantize([math.nan])
    with pytest.raises(ValueError, match=f"qtorch_{name} has no NaN"):
        fmt.project(math.nan, "rne", "sat")


@compiled
def test_eight_exponent_bits_have_infinity_and_nan():
    fmt = from_name("qtorch_e8m7")
    assert fmt.default_overflow == "ieee"
    assert fmt.max == formats.get("bf16").max
    assert fmt.quantize(np.float32([3.4e38, math.inf, -math.inf])).tolist() == [math.inf, math.inf, -math.inf]
    nan = np.array([0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert raw(fmt, nan)[1] == 0.0
    assert np.isnan(fmt.quantize(nan)).all()


@compiled
def test_regress_zero_sign():
    """qtorch has one zero."""
    fmt = from_name("qtorch_e5m10")
    x = np.float32([-0.0, -1e-30])
    assert_same_bits(fmt.quantize(x), [0.0, 0.0], x)
    assert_same_bits(raw(fmt, x), [0.0, 0.0], x)
    assert_same_bits(fmt.decode([0x8000]), [0.0])
    assert_same_bits(fmt.table()[0x8000], 0.0)
    with pytest.raises(ValueError, match="qtorch_e5m10 has no negative zero"):
        fmt.code_of(-0.0)


@compiled
@pytest.mark.parametrize("name", ["qtorch_e5m10", "qtorch_e4m3", "qtorch_e8m7", "qtorch_e1m0", "qtorch_e2m1"])
def test_encode_inverts_decode_on_every_code_of_a_float(name):
    fmt = from_name(name)
    codes = np.arange(1 << fmt.bits)
    values = fmt.decode(codes)
    own = ~np.isnan(values) & (codes != 1 << (fmt.bits - 1))
    assert fmt.encode(values[own]).tolist() == codes[own].tolist()
    assert len(set(values[own].tolist())) == own.sum()


@compiled
def test_values_that_float32_does_not_hold_are_refused_by_floats():
    fmt = from_name("qtorch_e5m10")
    with pytest.raises(ValueError, match=r"qtorch_e5m10: 0\.1 is not exact in float32, .* would be rounded twice"):
        fmt.quantize([0.5, 0.1])
    with pytest.raises(ValueError, match=r"1e\+300 is not exact in float32"):
        fmt.quantize(1e300)
    with pytest.raises(ValueError, match=r"is not exact in float32, which qtorch takes; use e5m10:ieee"):
        fmt.project_finite(1, 5000, Use(fmt).mode, "sat")
    assert fmt.project_finite(3, -26, Use(fmt).mode, "sat") == 2.0**-24
    assert fmt.overflows(1, 17, Use(fmt).mode)
    assert not fmt.overflows(1, 16, Use(fmt).mode)


# --- the build folder -------------------------------------------------------------------------------------------------


@compiled
def test_a_stale_lock_in_the_real_folder_does_not_hang():
    import torch

    from_name("qtorch_posit8").quantize([1.0])
    lock = extension.build_folder("qtorch-plus", torch.__version__) / "lock"
    lock.touch()
    code = "from formats.qtorch import from_name; print(from_name('qtorch_posit8').quantize([1.1]).tolist())"
    done = python(code)
    assert done.stdout == "[1.125]\n", done.stderr
    assert done.stderr == ""
    assert not lock.exists()
