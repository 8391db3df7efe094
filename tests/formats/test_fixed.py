"""Fixed point and integers: every code, every tie and its neighbours, every rounding, saturating and wrapping."""

import math
from fractions import Fraction

import numpy as np
import pytest

from formats.fixed import FixedFormat
from formats.rounding import parse_rounding
from tests.oracles.bits import assert_same_bits
from tests.oracles.neighbours import DETERMINISTIC, goes_high, words_up

NAMES = ["fix8.4", "ufix8.4", "int8", "uint8", "fix4.6", "ufix1.0", "int2", "uint3", "fix5.5"]


def named(name):
    fmt = FixedFormat.from_name(name)
    assert fmt is not None
    return fmt


def expected_of(fmt, x, mode, overflow):
    """The definition in fractions: the multiple chosen between the two neighbours, then the range."""
    quanta = Fraction(x) * 2**fmt.fraction_bits
    low = math.floor(quanta)
    if quanta != low:
        low += goes_high(mode, quanta, low + Fraction(1, 2), low % 2 == 1)
    count = 2**fmt.total_bits
    first = -count // 2 if fmt.signed else 0
    low = (low - first) % count + first if overflow == "wrap" else min(max(low, first), first + count - 1)
    return float(Fraction(low, 2**fmt.fraction_bits))


def probes(fmt):
    """Every half quantum in four times the range and the float64 neighbours of all."""
    count = 2**fmt.total_bits
    halves = np.ldexp(np.arange(-4 * count, 4 * count + 1, dtype=np.float64), -fmt.fraction_bits - 1)
    far = np.array([1e300, 2.0**60 + 2.0**8, 1e-300, 5e-324])
    return np.concatenate([halves, np.nextafter(halves, np.inf), np.nextafter(halves, -np.inf), far, -far])


@pytest.mark.parametrize("name", ["fix5.2", "ufix4.1", "int4", "uint3", "fix3.6", "ufix1.0", "int2", "fix5.5"])
def test_every_half_quantum_is_rounded_as_in_fractions(name, path):
    fmt = named(name)
    x = probes(fmt)
    for mode in DETERMINISTIC:
        for overflow in ("sat", "wrap"):
            expected = [expected_of(fmt, v, mode, overflow) for v in x.tolist()]
            assert_same_bits(fmt.quantize(x, mode, overflow), expected, x, f"{name} {mode} {overflow}")


@pytest.mark.full
@pytest.mark.parametrize("name", ["fix8.4", "ufix8.4", "int8", "uint8", "fix4.30", "fix10.9"])
def test_every_half_quantum_of_8_bits_is_rounded_as_in_fractions(name):
    fmt = named(name)
    x = probes(fmt)
    for mode in DETERMINISTIC:
        for overflow in ("sat", "wrap"):
            expected = [expected_of(fmt, v, mode, overflow) for v in x.tolist()]
            assert_same_bits(fmt.quantize(x, mode, overflow), expected, x, f"{name} {mode} {overflow}")


@pytest.mark.parametrize("name", ["fix16.8", "uint16", "int32", "fix53.20", "ufix53.53", "fix40.1074"])
def test_random_values_of_wide_formats_are_rounded_as_in_fractions(name, path):
    fmt = named(name)
    rng = np.random.default_rng(51)
    scale = math.frexp(fmt.max)[1]
    x = np.ldexp(rng.uniform(-1, 1, 150), rng.integers(max(scale - 30, -1070), scale + 4, 150))
    halves = np.ldexp(rng.integers(-(1 << 20), 1 << 20, 50) + 0.5, -min(fmt.fraction_bits, 1073))
    x = np.concatenate([x, halves])
    for mode in DETERMINISTIC:
        for overflow in ("sat", "wrap"):
            expected = [expected_of(fmt, v, mode, overflow) for v in x.tolist()]
            assert_same_bits(fmt.quantize(x, mode, overflow), expected, x, f"{name} {mode} {overflow} seed 51")


@pytest.mark.parametrize("name", ["int8", "uint8", "int16", pytest.param("uint16", marks=pytest.mark.full)])
def test_integers_are_those_of_numpy(name):
    fmt, dtype = named(name), np.dtype(name)
    codes = np.arange(1 << fmt.bits).astype(fmt.code_dtype)
    assert_same_bits(fmt.decode(codes), codes.view(dtype).astype(np.float64), codes)
    assert np.array_equal(fmt.encode(codes.view(dtype)), codes)
    x = np.random.default_rng(52).integers(-(1 << 40), 1 << 40, 300)
    assert_same_bits(fmt.quantize(x, overflow="wrap"), x.astype(dtype), x, "seed 52")
    info = np.iinfo(dtype)
    assert (fmt.min, fmt.max, fmt.smallest_normal) == (info.min, info.max, 1)
    assert_same_bits(fmt.quantize(x), np.clip(x, info.min, info.max), x, "seed 52")


@pytest.mark.parametrize("name", NAMES)
def test_codes_are_twos_complement(name):
    fmt = named(name)
    codes = np.arange(1 << fmt.bits)
    signed = np.where(codes >= (1 << fmt.bits) // 2, codes - (1 << fmt.bits), codes) if fmt.signed else codes
    expected = signed / 2.0**fmt.fraction_bits
    assert_same_bits(fmt.decode(codes), expected, codes, name)
    assert_same_bits(fmt.table(), expected, codes, name)
    assert np.array_equal(fmt.encode(expected), codes)
    assert (fmt.min, fmt.max) == (expected.min(), expected.max())
    assert (
        fmt.smallest_normal == fmt.smallest_subnormal == fmt.quantum == min(expected[expected > 0], default=fmt.quantum)
    )


def test_all_words_of_sr_split_by_the_fraction():
    fmt = named("fix6.2")
    rng = np.random.default_rng(53)
    for x in [*rng.uniform(-7, 7, 40).tolist(), 0.125, -0.125, 0.0625, -3.1875, math.nextafter(0.25, 0), 1e-300]:
        quanta = abs(Fraction(x)) * 4
        below = math.floor(quanta)
        for bits in (1, 2, 3, 5):
            for variant in "abc":
                mode = parse_rounding(f"sr:{bits}:{variant}")
                first_up = 2**bits - words_up(quanta - below, bits, variant)
                for random in range(2**bits):
                    expected = math.copysign((below + (random >= first_up)) / 4, x) + 0.0
                    actual = fmt.project(x, mode, "sat", random << (64 - bits))
                    assert_same_bits([actual], [expected], note=f"{mode} word {random} of {x.hex()}")


def test_specials_and_ends(path):
    fmt, unsigned = named("fix8.4"), named("ufix8.4")
    x = [np.inf, -np.inf, 1e300, -1e300, -0.0, 5e-324, -5e-324]
    for overflow in ("sat", "ieee", "satprop"):
        assert_same_bits(fmt.quantize(x, overflow=overflow), [7.9375, -8, 7.9375, -8, 0, 0, 0], note=overflow)
        assert_same_bits(unsigned.quantize(x, overflow=overflow), [15.9375, 0, 15.9375, 0, 0, 0, 0], note=overflow)
    # Rounding comes first: what rounds to zero is no negative value of an unsigned format.
    assert_same_bits(unsigned.quantize([-0.03125, -0.04, -0.0625], overflow="wrap"), [0, 15.9375, 15.9375])
    assert_same_bits(unsigned.quantize([-0.03125, -0.04], "ru", "wrap"), [0, 0])
    assert_same_bits(fmt.quantize([8, -8.0625, 24.5], overflow="wrap"), [-8, 7.9375, -7.5])
    for bad in (np.inf, -np.inf):
        with pytest.raises(
            ValueError, match=r"fix8\.4: -?inf cannot wrap around; replace infinities first, or use 'sat'"
        ):
            fmt.quantize([1.0, bad], overflow="wrap")
    with pytest.raises(ValueError, match=r"fix8\.4 has no NaN, and the array holds one"):
        fmt.quantize([1.0, np.nan])
    with pytest.raises(ValueError, match=r"overflow 'nan' needs a NaN, and fix8\.4 has none; use 'sat'"):
        fmt.quantize([1.0], overflow="nan")
    with pytest.raises(ValueError, match=r"fix8\.4 has no NaN; replace it before quantising"):
        fmt.project(np.nan, "rne", "sat")


def test_overflow_is_judged_after_rounding():
    fmt = named("int8")
    for x, mode, beyond in (
        (127.5, "rne", True), (127.5, "rnz", False), (math.nextafter(127.5, 0), "rne", False), (127.01, "ru", True),
        (127.9, "rz", False), (-128.5, "rne", False), (-128.5, "rna", True), (-128.1, "rd", True), (128.0, "rz", True),
    ):  # fmt: skip
        ratio = x.as_integer_ratio()
        assert fmt.overflows(ratio[0], 1 - ratio[1].bit_length(), parse_rounding(mode)) == beyond, (x, mode)
    assert named("uint8").overflows(-1, 0, parse_rounding("rne"))


def test_names_are_canonical():
    for given, canonical in (
        ("fix16.8", "fix16.8"), ("ufix16.8", "ufix16.8"), ("fix8.0", "int8"), ("ufix8.0", "uint8"), ("int8", "int8"),
        ("uint1", "uint1"), ("fix8.12", "fix8.12"),
    ):  # fmt: skip
        assert str(named(given)) == canonical
    assert named("int8") == FixedFormat("other", 8) != named("uint8")
    for name in ("fix8", "fix.8", "int", "int08", "uint8.4", "fix08.4", "sint8", "fix8.04", "e5m2", "fix8.-1"):
        assert FixedFormat.from_name(name) is None


def test_impossible_sizes_say_why():
    for name, text in (
        ("int1", "int1: 1 bits are out of range; expected 2 to 53"),
        ("uint0", "uint0: 0 bits are out of range; expected 1 to 53"),
        ("fix54.3", r"fix54\.3: 54 bits are out of range; expected 2 to 53, of which float64"),
        ("fix8.1075", r"fix8\.1075: 1075 fraction bits are out of range; expected 0 to 1074"),
    ):
        with pytest.raises(ValueError, match=text):
            FixedFormat.from_name(name)


def test_the_widest_formats_are_exact():
    fmt = named("uint53")
    assert fmt.max == 2.0**53 - 1
    assert fmt.encode([2.0**53 - 1]).tolist() == [2**53 - 1]
    assert fmt.decode(np.array([2**53 - 1])) == 2.0**53 - 1
    tiny = named("ufix53.1074")
    assert tiny.max == math.ldexp(2**53 - 1, -1074)
    assert tiny.encode([5e-324, tiny.max]).tolist() == [1, 2**53 - 1]


def test_code_of_refuses_what_is_no_value():
    fmt = named("fix8.4")
    for wrong, text in (
        (0.03125, "0.03125 is not a value of fix8.4"),
        (8.0, "8.0 is not a value"),
        (-8.0625, "is not a value"),
        (-0.0, "fix8.4 has no negative zero"),
        (math.inf, "fix8.4 has no inf"),
        (math.nan, "fix8.4 has no nan"),
    ):
        with pytest.raises(ValueError, match=text.replace(".", r"\.")):
            fmt.code_of(wrong)
    with pytest.raises(ValueError, match=r"code 256 of fix8\.4 lies outside 0 \.\. 255"):
        fmt.value_of(256)
