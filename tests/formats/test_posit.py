"""Posits: against strings of characters, universal-dtypes and SoftPosit; every code, boundary and rounding mode."""

import math
from fractions import Fraction

import numpy as np
import pytest
import softposit

from formats.posit import PositFormat
from formats.rounding import parse_rounding
from tests.oracles.bits import assert_same_bits
from tests.oracles.neighbours import DETERMINISTIC, words_up
from tests.oracles.posit_strings import Magnitudes, place, value
from tests.oracles.universal import universal_dtype

SMALL = [(n, es) for n in range(2, 9) for es in range(5)]
LARGE = [(9, 0), (10, 1), (11, 3), (12, 2), (12, 6), (13, 0), (14, 2), (16, 0), (16, 1), (16, 2), (16, 3), (16, 6)]


def posit(n, es=2):
    return PositFormat(f"posit{n}e{es}", n, es)


def named(name):
    fmt = PositFormat.from_name(name)
    assert fmt is not None
    return fmt


def all_codes(fmt):
    return np.arange(1 << fmt.n, dtype=fmt.code_dtype)


def check_codes(n, es):
    fmt, oracle = posit(n, es), Magnitudes(n, es)
    expected = np.concatenate([oracle.values, [np.nan], -oracle.values[:0:-1]])
    codes = all_codes(fmt)
    assert_same_bits(fmt.decode(codes), expected, codes, str(fmt))
    assert_same_bits(fmt.table(), expected, codes, str(fmt))
    assert np.array_equal(fmt.encode(expected), codes)
    values, boundaries = fmt.boundaries()
    assert_same_bits(values, oracle.values, note=str(fmt))
    assert_same_bits(boundaries, oracle.middles, note=str(fmt))


def check_roundings(n, es):
    fmt, oracle = posit(n, es), Magnitudes(n, es)
    x = oracle.probes()
    for mode in DETERMINISTIC:
        assert_same_bits(fmt.quantize(x, mode), oracle.quantized(x, mode), x, f"{fmt} {mode}")
    codes = oracle.codes(x, "rne")
    assert np.array_equal(fmt.encode(x), np.where(x < 0, (1 << n) - codes, codes) % (1 << n))


@pytest.mark.parametrize(("n", "es"), [*SMALL, (10, 1), (12, 2)])
def test_every_code_is_the_posit_of_its_string(n, es):
    check_codes(n, es)


@pytest.mark.parametrize(("n", "es"), [(2, 0), (3, 1), (5, 2), (6, 1), (8, 0), (8, 2)])
def test_every_boundary_of_some_posits_is_rounded_as_in_the_string_on_every_path(n, es, path):
    check_roundings(n, es)


@pytest.mark.parametrize(("n", "es"), SMALL)
def test_every_boundary_of_small_posits_is_rounded_as_in_the_string(n, es):
    check_roundings(n, es)


@pytest.mark.full
@pytest.mark.parametrize(("n", "es"), LARGE)
def test_every_boundary_of_posits_up_to_16_bits_is_rounded_as_in_the_string(n, es):
    check_codes(n, es)
    check_roundings(n, es)


@pytest.mark.parametrize("n", [16, 20, 24, 32])
def test_boundaries_of_wide_posits_are_those_of_one_bit_more(n):
    """All at the ends, where the regime is long, and random ones between."""
    fmt, top = posit(n), (1 << (n - 1)) - 1
    rng = np.random.default_rng(33)
    codes = [*range(1, 80), *range(top - 80, top), *rng.integers(1, top, 250).tolist()]
    for code in codes:
        low, tie, high = (float(value(c, bits, 2)) for c, bits in ((code, n), (2 * code + 1, n + 1), (code + 1, n)))
        x = [low, math.nextafter(tie, 0), tie, math.nextafter(tie, math.inf), -tie]
        even, odd = (high, low) if code % 2 else (low, high)
        assert_same_bits(fmt.quantize(x), [low, low, even, high, -even], note=f"{fmt} code {code} seed 33")
        assert_same_bits(fmt.quantize(x, "odd"), [low, odd, odd, odd, -odd], note=f"{fmt} code {code} seed 33")


@pytest.mark.parametrize(("n", "es"), [(5, 2), (6, 1), (8, 0), (7, 3)])
def test_all_words_of_sr_split_by_the_distance_in_the_string(n, es):
    fmt = posit(n, es)
    rng = np.random.default_rng(31)
    middles = Magnitudes(n, es).middles[1:]
    scale = math.log2(fmt.maxpos)
    inside = np.exp2(rng.uniform(-scale, scale, 25)) * rng.choice([-1, 1], 25)
    for x in [*inside.tolist(), *middles[:: max(middles.size // 6, 1)].tolist(), -math.nextafter(middles[-1], 0)]:
        below, fraction = place(abs(Fraction(x)), n, es)
        for bits in (1, 2, 4):
            for variant in "abc":
                mode = parse_rounding(f"sr:{bits}:{variant}")
                first_up = 2**bits - (words_up(fraction, bits, variant) if fraction else 0)
                for random in range(2**bits):
                    magnitude = value(below + (random >= first_up), n, es)
                    expected = math.copysign(float(magnitude), x)
                    actual = fmt.project(x, mode, "sat", random << (64 - bits))
                    assert actual == expected, f"{fmt} {mode} word {random} of {x.hex()}"


def test_sr_depends_on_seed_and_place_only():
    fmt, x = posit(8), np.full(600, 1.03)
    whole = fmt.quantize(x, "sr", seed=5)
    assert set(whole.tolist()) == {1.0, 1.125}
    parts = [fmt.quantize(x[:250], "sr", seed=5), fmt.quantize(x[250:], "sr", seed=5, offset=250)]
    assert_same_bits(np.concatenate(parts), whole)
    assert np.any(fmt.quantize(x, "sr", seed=6) != whole)


# --- other libraries -------------------------------------------------------------------------------------------------


def converted(x, dtype):
    """The values that universal makes of float64; infinities on the way to NaR are no overflow to warn of."""
    with np.errstate(over="ignore"):
        return x.astype(dtype).astype(np.float64)


def probes_of(fmt):
    values, boundaries = fmt.boundaries()
    ends = np.concatenate([values, boundaries, fmt.maxpos * np.array([1.5, fmt.useed, 2 * fmt.useed]), [1e300, 1e-300]])
    x = np.concatenate([ends, np.nextafter(ends, np.inf), np.nextafter(ends, -np.inf)])
    return np.concatenate([x, -x, [np.nan, np.inf, -np.inf]])


@pytest.mark.parametrize(
    "name",
    [
        "posit8",
        "posit8e0",
        "posit8e1",
        "posit12",
        *(pytest.param(f"posit16{e}", marks=pytest.mark.full) for e in ("", "e1")),
    ],
)
def test_codes_and_boundaries_are_those_of_universal(name):
    dtype = universal_dtype(name)
    fmt = named(name)
    codes = all_codes(fmt).astype(f"u{dtype.itemsize}")
    assert_same_bits(fmt.decode(codes), codes.view(dtype).astype(np.float64), codes, name)
    x = probes_of(fmt)
    assert_same_bits(fmt.quantize(x), converted(x, dtype), x, name)


def test_posit32_is_that_of_universal():
    dtype = universal_dtype("posit32")
    fmt = named("posit32")
    rng = np.random.default_rng(32)
    codes = np.concatenate([rng.integers(0, 1 << 32, 20000), np.arange(300), 2**31 + np.arange(-300, 300)])
    codes = codes.astype(np.uint32)
    decoded = fmt.decode(codes)
    assert_same_bits(decoded, codes.view(dtype).astype(np.float64), codes, "seed 32")
    assert np.array_equal(fmt.encode(decoded), codes)
    middles = np.array([float(value(2 * code + 1, 33, 2)) for code in (codes[:4000] >> 1).tolist()])
    x = np.concatenate(
        [middles, np.nextafter(middles, np.inf), np.nextafter(middles, 0), np.exp2(rng.uniform(-130, 130, 8000))]
    )
    x = np.concatenate([x, -x, [np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324]])
    assert_same_bits(fmt.quantize(x), converted(x, dtype), x, "seed 32")


@pytest.mark.parametrize(("name", "bits"), [("posit8e0", 8), pytest.param("posit16e1", 16, marks=pytest.mark.full)])
def test_codes_and_boundaries_are_those_of_softposit(name, bits):
    """SoftPosit's own names, posit8 and posit16, mean the old es of 0 and 1; it decodes NaR as infinity."""
    fmt = named(name)
    posit_of, float_of = getattr(softposit, f"convertDoubleToP{bits}"), getattr(softposit, f"convertP{bits}ToDouble")
    record = getattr(softposit, f"posit{bits}_t")()
    decoded = np.empty(1 << bits)
    for code in range(1 << bits):
        record.v = code
        decoded[code] = float_of(record)
    assert np.isinf(decoded[1 << (bits - 1)])
    decoded[1 << (bits - 1)] = np.nan
    assert_same_bits(fmt.table(), decoded, note=name)
    x = probes_of(fmt)
    assert np.array_equal(fmt.encode(x), [posit_of(v).v for v in x.tolist()])


# --- rules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "useed", "minpos"),
    [
        ("posit8", 16, 2.0**-24),
        ("posit16", 16, 2.0**-56),
        ("posit32", 16, 2.0**-120),
        ("posit8e0", 2, 2.0**-6),
        ("posit16e1", 4, 2.0**-28),
    ],
)
def test_constants_are_those_of_the_standards(name, useed, minpos):
    fmt = named(name)
    assert (fmt.useed, fmt.minpos, fmt.maxpos) == (useed, minpos, 1 / minpos)
    assert (fmt.max, fmt.smallest_normal, fmt.smallest_subnormal) == (1 / minpos, minpos, minpos)
    assert fmt.value_of((1 << (fmt.bits - 1)) - 1) == fmt.maxpos
    assert fmt.value_of(1) == fmt.minpos


def test_precision_is_that_around_one():
    for name in ("posit8", "posit16", "posit16e1", "posit32"):
        fmt = named(name)
        above = fmt.value_of(fmt.code_of(1.0) + 1)
        assert above == 1 + 2.0 ** (1 - fmt.precision)


def test_codes_order_as_signed_integers_and_negate_as_twos_complement():
    fmt = named("posit12")
    signed = np.arange(-(1 << 11) + 1, 1 << 11)
    values = fmt.decode((signed % (1 << 12)).astype(np.uint16))
    assert np.all(np.diff(values) > 0)
    assert_same_bits(values[values != 0][::-1], -values[values != 0])
    assert fmt.encode([-0.0, 0.0]).tolist() == [0, 0]
    assert_same_bits(fmt.quantize([-0.0]), [0.0])


@pytest.mark.parametrize("overflow", ["ieee", "sat", "satprop", "nan"])
@pytest.mark.parametrize("mode", [*DETERMINISTIC, "sr"])
def test_regress_posit_nar(mode, overflow, path):
    """qtorch-plus makes -Inf of NaN and of both infinities."""
    for fmt in (named("posit8"), named("posit16e1"), named("posit32")):
        x = [np.nan, np.inf, -np.inf]
        assert_same_bits(fmt.quantize(x, mode, overflow), [np.nan] * 3, note=str(fmt))
        assert fmt.encode(x, mode, overflow).tolist() == [1 << (fmt.bits - 1)] * 3
        assert np.isnan(fmt.decode([1 << (fmt.bits - 1)])[0])


def test_regress_posit_guard():
    """qtorch-plus ends the process for n > 16 and is silently wrong where es leaves the range of float32."""
    for n in (1, 33, 64):
        with pytest.raises(ValueError, match=rf"mine: n = {n} is out of range; posits have n from 2 to 32 bits"):
            PositFormat("mine", n, 2)
    for n, es, most in ((16, 7, 6), (32, 6, 5), (3, 10, 9), (2, 10, 9), (8, -1, 7)):
        text = (
            rf"mine: es = {es} is out of range for n = {n}; expected es from 0 to {most}, so that maxpos = .* 2\^1023"
        )
        with pytest.raises(ValueError, match=text):
            PositFormat("mine", n, es)
    for n, es in ((16, 6), (32, 5), (3, 9), (2, 9)):
        assert math.log2(posit(n, es).maxpos) == (n - 2) * 2**es
        assert posit(n, es).minpos * posit(n, es).maxpos == 1
    for n, es in ((12, 4), (10, 5), (8, 5)):  # there every value that leaves the range of float32 is wrong
        x = np.array([3.0, 2.0**-200, 2.0**200])
        assert_same_bits(posit(n, es).quantize(x), Magnitudes(n, es).quantized(x, "rne"), x, f"posit{n}e{es}")


def test_nothing_but_zero_becomes_zero_and_nothing_finite_nar():
    x = np.array([5e-324, 1e-300, 2.0**-57, 2.0**57, 1e300, 1.7976931348623157e308])
    fmt = named("posit16")
    expected = np.array([2.0**-56] * 3 + [2.0**56] * 3)
    for mode in (*DETERMINISTIC, "sr", "sr:3:c"):
        assert_same_bits(fmt.quantize(x, mode), expected, x, mode)
        assert_same_bits(fmt.quantize(-x, mode), -expected, -x, mode)


def test_overflow_counts_from_the_string_that_rounds_beyond_the_largest():
    """The next string after that of maxpos is maxpos * useed at one bit more: it is the boundary of nearest modes."""
    fmt = named("posit8")
    beyond = fmt.maxpos * fmt.useed
    before = math.nextafter(beyond, 0)
    cases = {
        "rne": [(before, False), (beyond, True)],
        "rna": [(before, False), (beyond, True)],
        "rnz": [(beyond, False), (math.nextafter(beyond, math.inf), True)],
        "ru": [(fmt.maxpos, False), (math.nextafter(fmt.maxpos, math.inf), True)],
        "rd": [(1e300, False)],
        "rz": [(1e300, False)],
        "odd": [(1e300, False)],
    }
    for mode, pairs in cases.items():
        for x, is_beyond in pairs:
            for overflow, expected in (("sat", fmt.maxpos), ("satprop", fmt.maxpos), ("nan", np.nan), ("ieee", np.nan)):
                expected = expected if is_beyond else fmt.maxpos
                assert_same_bits(fmt.quantize([x], mode, overflow), [expected], note=f"{mode} {overflow} {x.hex()}")
            ratio = x.as_integer_ratio()
            assert fmt.overflows(ratio[0], 1 - ratio[1].bit_length(), parse_rounding(mode)) == is_beyond
    assert_same_bits(fmt.quantize([-1e300], "rd", "nan"), [np.nan])
    assert_same_bits(fmt.quantize([-1e300], "ru", "nan"), [-fmt.maxpos])
    assert fmt.default_overflow == "sat"
    with pytest.raises(ValueError, match="overflow 'wrap' is for fixed point and integers, and posit8 is neither"):
        fmt.quantize([1.0], overflow="wrap")


def test_names_are_canonical():
    assert str(named("posit16e2")) == "posit16" == str(named("posit16"))
    assert str(named("posit16e1")) == "posit16e1"
    assert (named("posit16").n, named("posit16").es, named("posit7e0").es) == (16, 2, 0)
    assert named("posit16") == PositFormat("other", 16) != named("posit16e1")
    for name in ("posit", "posit016", "posit16e", "posit16e01", "posit-8", "bf16", "posit8e1x"):
        assert PositFormat.from_name(name) is None
    with pytest.raises(ValueError, match="posit33: n = 33"):
        PositFormat.from_name("posit33")


def test_tables_of_boundaries_end_at_16_bits_and_are_read_only():
    with pytest.raises(ValueError, match="posit17 has 2\\*\\*17 codes; tables of boundaries are made for n up to 16"):
        named("posit17").boundaries()
    with pytest.raises(ValueError, match="read-only"):
        named("posit8").boundaries()[0][3] = 1.0


def test_code_of_refuses_what_is_no_value():
    fmt = named("posit8")
    for wrong, text in (
        (1.0625, "1.0625 is not a value of posit8"),
        (-(2.0**30), "is not a value"),
        (2.0**-25, "is not a value"),
        (math.inf, "posit8 has no infinity"),
        (-0.0, "posit8 has no negative zero"),
    ):
        with pytest.raises(ValueError, match=text):
            fmt.code_of(wrong)
    with pytest.raises(ValueError, match=r"code 256 of posit8 lies outside 0 \.\. 255"):
        fmt.value_of(256)
