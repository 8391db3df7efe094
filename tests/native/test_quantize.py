"""The elementwise twins below the arithmetic: overflow flags, output types, one rounding of a sum."""

import math
from fractions import Fraction

import numpy as np
import pytest

from formats import Use
from native.matmul import Gathered, profile
from native.twins import add, convert, quantize
from tests.oracles.bits import assert_same_bits

SEED = 400
USES = ["fp16", "fp16/sat", "bf16", "fp8_e4m3", "fp8_e4m3/sat", "e5m2:ftz", "fp8_e4m3fnuz/sat", "fp64", "e5m0"]


def sample(use, count=700):
    rng = np.random.default_rng(SEED)
    fmt = use.format
    near = fmt.max * rng.choice([0.5, 0.99, 1, 1.01, 1.05, 2], count) * rng.choice([-1.0, 1.0], count)
    return np.concatenate([near[np.isfinite(near)], rng.standard_normal(count), [math.inf, -math.inf, 0.0, -0.0]])


@pytest.mark.parametrize("text", USES)
def test_overflow_flags_are_those_of_the_definition(text, isa):
    use = Use.parse(text)
    with np.errstate(over="ignore"):
        x = sample(use)
    flags = np.zeros(x.shape, bool)
    quantize(x, use, overflow=flags)

    def overflows(v):
        return math.isinf(v) or (v != 0 and use.format.overflows(*exact_pair(Fraction(v)), use.mode))

    expected = [overflows(v) for v in x.tolist()]
    assert flags.tolist() == expected, f"{text} {isa} seed {SEED}"
    assert any(expected)
    assert not all(expected)


def test_flags_that_are_already_set_stay_set(isa):
    flags = np.array([True, False, False])
    quantize(np.array([1.0, 1.0, 1e9]), Use.parse("fp16"), overflow=flags)
    assert flags.tolist() == [True, False, True]


@pytest.mark.parametrize("text", ["fp16", "bf16/sat", "fp8_e4m3", "e5m2:ftz", "e8m13"])
def test_float32_output_holds_the_same_values(text, isa):
    use = Use.parse(text)
    x = sample(use)
    assert_same_bits(quantize(x, use, np.float32), quantize(x, use), x, f"{text} {isa}")
    assert quantize(x, use, np.float32).dtype == np.float32


@pytest.mark.parametrize("text", ["fp16", "fp32", "fp8_e4m3/sat", "e5m2:ftz", "fp64"])
def test_add_rounds_the_exact_sum_once(text, isa):
    """Sums that float64 cannot hold: a tie of the format and a crumb far below decide together."""
    use = Use.parse(text)
    x = np.array([1.0, 1 + use.format.unit_roundoff, 1 + use.format.unit_roundoff, 1.5, -0.0, 0.0])
    c = np.array([1e-30, 1e-300, -1e-300, -1.5, -0.0, -0.0])
    y = add(x, c, use)
    for i in range(4):
        total = Fraction(float(x[i])) + Fraction(float(c[i]))
        expected = use.format.project_finite(*exact_pair(total), use.mode, use.overflow) if total else 0.0
        assert y[i].hex() == float(expected).hex(), f"{text}: {x[i].hex()} + {c[i].hex()}"
    assert [math.copysign(1, v) for v in y[4:]] == [-1.0, 1.0]


ADDED = [
    "fp16", "fp8_e4m3/sat", "e5m2:ftz", "fp8_e4m3fnuz", "e3m0", "ue4m3/sat", "e8m0", "dlfloat16", "fp64", "binary6p1sf",
    "posit16", "posit8e0", "posit16e1", "posit16e3", "takum16", "takum8", "fix8.4", "ufix8.4/sat", "int8",
]  # fmt: skip


@pytest.mark.parametrize("text", ADDED)
def test_a_crumb_of_any_size_beside_values_and_boundaries_decides_a_sum(text):
    """Below a value or a boundary between two, above it, or none: each rounding sees what the definition sees."""
    fmt = Use.parse(text).format
    overflow = Use.parse(text).overflow
    ends = [fmt.smallest_normal, fmt.smallest_subnormal, fmt.max] if fmt.family.endswith("FloatFormat") else [fmt.max]
    values = [v for v in [1.0, 1.5, 2.0, 4.0, 8.0, 0.25, *ends] if fmt.quantize(v) == v]
    near = {float(fmt.quantize(v * factor, "ru")) for v in values for factor in (1.0, 1.0001, 0.9)}
    near = sorted(v for v in near if math.isfinite(v))
    below = [float(fmt.quantize(math.nextafter(v, 0), "rd")) for v in near]
    halves = [v / 2 + w / 2 for v, w in zip(near, below, strict=True) if math.isfinite(w)]
    pairs = []
    for v in (*near, *halves):
        crumbs = [math.ldexp(v, -k) for k in (30, 53, 60, 63, 64, 65, 66, 90, *range(116, 132), 200)]
        pairs += [(s * v, t * crumb) for crumb in (0.0, *crumbs) for s in (1, -1) for t in (1, -1)]
        pairs += [(s * v, -s * v) for s in (1, -1)]
    x, c = np.array(pairs).T
    for rounding in ("rne", "rna", "rnz", "rz", "ru", "rd", "odd"):
        use, flags = Use(fmt, rounding, overflow), np.zeros(x.size, bool)
        y = add(x, c, use, flags)
        for i, (a, b) in enumerate(pairs):
            total = Fraction(a) + Fraction(b)
            signs = {math.copysign(1, a), math.copysign(1, b)}
            zero = math.copysign(0.0, -1.0 if signs == {-1} or (rounding == "rd" and signs != {1}) else 1.0)
            if total:
                expected = fmt.project_finite(*exact_pair(total), use.mode, overflow)
                assert flags[i] == fmt.overflows(*exact_pair(total), use.mode), f"{use}: {a.hex()} + {b.hex()}"
            else:
                expected = fmt.project(zero, use.mode, overflow)
            assert_same_bits(y[i], expected, note=f"{use}: {a.hex()} + {b.hex()}")


def exact_pair(total):
    numerator, denominator = total.as_integer_ratio()
    return numerator, 1 - denominator.bit_length()


def test_convert_keeps_layout_values_and_identity(isa):
    x = np.asfortranarray(np.ldexp(np.arange(6.0).reshape(2, 3), -149))
    narrow = convert(x, np.float32)
    assert narrow.dtype == np.float32
    assert narrow.flags.f_contiguous
    assert_same_bits(narrow, x)
    assert_same_bits(convert(narrow, np.float64), x)
    assert convert(narrow, np.float32) is narrow


def brute_profile(x):
    values = [abs(v) for v in np.asarray(x, np.float64).ravel().tolist() if v != 0 and math.isfinite(v)]
    if not values:
        return (0, 0, 0)
    numerators = [Fraction(v).as_integer_ratio() for v in values]
    high = max(math.frexp(v)[1] - 1 for v in values)
    lasts, widths = [], []
    for (numerator, denominator), v in zip(numerators, values, strict=True):
        trailing = (numerator & -numerator).bit_length() - 1
        last = trailing - (denominator.bit_length() - 1)
        lasts.append(last)
        widths.append(math.frexp(v)[1] - 1 - last + 1)
    return high, min(lasts), max(widths)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_profile_is_that_of_exact_fractions(dtype):
    rng = np.random.default_rng(SEED)
    for _ in range(40):
        x = np.ldexp(rng.integers(-300, 300, (4, 5)), rng.integers(-150, 100, (4, 5))).astype(dtype)
        x[rng.random((4, 5)) < 0.2] = 0
        x[rng.random((4, 5)) < 0.1] = np.inf
        found = profile(x)
        assert tuple(found[:3]) == brute_profile(x), f"seed {SEED}: {x.tolist()}"
        assert found.finite == bool(np.isfinite(x).all())
        assert found.nonzero == bool((x[np.isfinite(x)] != 0).any())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_profile_does_not_depend_on_how_a_matrix_lies(dtype, isa):
    """Side by side, one after the other, spread out, and gathered; longer than the stretches and rows looked at."""
    rng = np.random.default_rng(SEED)
    x = np.ldexp(rng.integers(-300, 300, (70, 1030)), rng.integers(-150, 100, (70, 1030))).astype(dtype)
    x += 0.0  # no -0
    x[3, 1029], x[69, 0] = -0.0, np.nan
    spread = np.ones((140, 3090), dtype)
    spread[::2, ::3] = x
    tables = np.arange(70) * 2 * 3090, np.arange(1030) * 3
    squares = [sum(Fraction(v) ** 2 for v in row if math.isfinite(v)) for row in x.tolist()]
    for y in (x, np.asfortranarray(x), spread[::2, ::3], Gathered(spread, *tables)):
        found = profile(y)
        assert tuple(found[:3]) == brute_profile(x)
        assert not found.finite
        assert found.minus_zero
        assert 0 <= Fraction(found.square) / max(squares) - 1 < Fraction(1, 10**12)
    x[3, 1029] = 0.0
    assert not profile(x).minus_zero


def test_profile_bounds_squares_that_overflow_and_that_underflow():
    assert profile(np.full((1, 3), 2.0**600)).square == math.inf
    assert 3 * Fraction(2) ** -1200 <= Fraction(profile(np.full((1, 3), 2.0**-600)).square) < Fraction(2) ** -1000


def test_profile_of_a_broadcast_matrix_is_that_of_what_is_repeated():
    row = np.array([[1.5, 0.0, -0.25]])
    big = np.broadcast_to(row, (10**9, 3))
    assert profile(big) == profile(row)
    everywhere = profile(np.broadcast_to(np.array([[3.0]]), (10**6, 10**6)))
    assert everywhere[:-1] == profile(np.array([[3.0]]))[:-1]
    assert 9e6 < everywhere.square < 9e6 * (1 + 1e-12)
    assert profile(np.zeros((0, 3))).nonzero is False
