"""Codebooks: arrays and scalars against exact fractions; floats and posits written as codebooks; files."""

import math
from fractions import Fraction

import numpy as np
import pytest

import formats
from formats.codebook import MOST_VALUES, CodebookFormat
from formats.posit import PositFormat
from formats.rounding import parse_rounding
from tests.oracles.bits import assert_same_bits
from tests.oracles.neighbours import DETERMINISTIC, fraction_between, rounded, words_up

_RNG = np.random.default_rng(61)
# Neighbours so unlike that the mean of two is no float64, subnormals, the largest float64, no zero, one sign only.
BOOKS = {
    "nf4": [-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.091050036, 0.0, 0.0795803,
            0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0],
    "unlike": [-1e300, -1.0, -1e-300, 1e-310, 2e-310, 1.0, math.nextafter(1.0, 2), 1e16, 1e16 + 2, 1.7e308],
    "subnormal": [-1e-323, -5e-324, 0.0, 5e-324, 1.5e-323, 2e-323],
    "largest": [-1.7976931348623157e308, -1.7976931348623155e308, 1.7976931348623155e308, 1.7976931348623157e308],
    "without zero": [-3.0, -1.0, 1.0, 5.0],
    "negative": [-7.5, -3.25, -0.1],
    "random": np.unique(_RNG.standard_normal(121)).tolist(),
    "wide": np.unique(np.ldexp(_RNG.standard_normal(80), _RNG.integers(-1000, 1000, 80))).tolist(),
}  # fmt: skip


def book(name, boundaries=None):
    return CodebookFormat(name, BOOKS[name], boundaries)


def boundaries_of(values):
    """Boundaries of one's own: the lower end, the upper end, and in between, in turn."""
    low, high = np.array(values[:-1]), np.array(values[1:])
    weight = np.resize([0.25, 0.5, 0.8], low.size)
    inner = np.clip(low * (1 - weight) + high * weight, low, high)
    kind = np.arange(low.size) % 5
    return np.where(kind == 1, low, np.where(kind == 3, high, inner)).tolist()


def probes(values, boundaries=None):
    """Values, boundaries (as float64), numbers between and beyond (seed 64), the float64 neighbours of all, zeros."""
    exact = np.array(values)
    middles = exact[:-1] / 2 + exact[1:] / 2
    weight = np.random.default_rng(64).random(middles.size)
    between = exact[:-1] * (1 - weight) + exact[1:] * weight
    ends = np.concatenate([exact, middles, between, boundaries or [], [1.7976931348623157e308, 1e-300, 0.0, 3.0]])
    with np.errstate(over="ignore"):
        x = np.concatenate([ends, np.nextafter(ends, np.inf), np.nextafter(ends, -np.inf), -ends])
    return x[np.isfinite(x)]


@pytest.mark.parametrize("own", [False, True], ids=["means", "own boundaries"])
@pytest.mark.parametrize("name", sorted(BOOKS))
def test_arrays_and_scalars_are_rounded_as_in_fractions(name, own, path):
    boundaries = boundaries_of(BOOKS[name]) if own else None
    fmt = book(name, boundaries)
    exact = [Fraction(v) for v in BOOKS[name]]
    exact_boundaries = None if boundaries is None else [Fraction(b) for b in boundaries]
    x = probes(BOOKS[name], boundaries)
    for mode in DETERMINISTIC:
        codes = [rounded(exact, Fraction(v), mode, exact_boundaries) for v in x.tolist()]
        expected = fmt.table()[codes]
        assert_same_bits(fmt.quantize(x, mode), expected, x, f"{name} {mode}")
        assert fmt.encode(x, mode).tolist() == codes
        if path == "definition":
            assert_same_bits([fmt.project(v, mode, "sat") for v in x.tolist()], expected, x, f"scalar {name} {mode}")


@pytest.mark.parametrize("name", ["fp4_e2m1", "fp6_e3m2", "fp8_e5m2", "e3m3:ieee"])
def test_a_codebook_of_a_float_format_rounds_as_the_format(name):
    """Of the magnitudes only, so that places and codes have the same parity."""
    fmt = formats.get(name)
    magnitudes = fmt.table()
    magnitudes = magnitudes[np.isfinite(magnitudes) & ~np.signbit(magnitudes)]
    mirror = CodebookFormat("mirror", magnitudes)
    x = np.abs(probes(magnitudes.tolist()))
    for mode in (*DETERMINISTIC, "sr", "sr:5:b", "sr:3:c"):
        assert_same_bits(mirror.quantize(x, mode, seed=7), fmt.quantize(x, mode, "sat", seed=7), x, f"{name} {mode}")
    # A value more at the lower end makes the place of zero even where it was not, and mirrors the parities.
    negative = [-1e9, *(-magnitudes[:0:-1]).tolist()]
    both = CodebookFormat("both", [*(negative if len(negative) % 2 == 0 else negative[1:]), *magnitudes])
    inside = np.concatenate([x, -x])
    inside = inside[np.abs(inside) <= fmt.max]
    for mode in (*DETERMINISTIC, "sr", "sr:5:b", "sr:3:c"):
        expected = fmt.quantize(inside, mode, "sat", seed=7) + 0.0
        assert_same_bits(both.quantize(inside, mode, seed=7), expected, inside, f"{name} {mode}")


def test_a_codebook_with_the_boundaries_of_a_posit_rounds_as_the_posit():
    posit = PositFormat("posit8", 8)
    values, boundaries = posit.boundaries()
    fmt = CodebookFormat("posit8_magnitudes", values, boundaries)
    x = np.abs(np.concatenate([probes(values.tolist(), boundaries.tolist()), [5e-324]]))
    for mode in ("rne", "rna", "rnz"):
        assert_same_bits(fmt.quantize(x, mode), posit.quantize(x, mode), x, mode)


@pytest.mark.parametrize("name", ["nf4", "unlike", "without zero", "wide"])
def test_all_words_of_sr_split_by_the_exact_distance(name):
    fmt = book(name, boundaries_of(BOOKS[name]))  # boundaries have no say in sr
    exact = [Fraction(v) for v in BOOKS[name]]
    x = [v for v in probes(BOOKS[name]).tolist() if exact[0] < v < exact[-1] and Fraction(v) not in exact]
    for v in x[:: max(len(x) // 60, 1)]:
        near, far, fraction = fraction_between(exact, Fraction(v))
        for bits in (1, 2, 4):
            for variant in "abc":
                mode = parse_rounding(f"sr:{bits}:{variant}")
                first_up = 2**bits - words_up(fraction, bits, variant)
                for random in range(2**bits):
                    expected = fmt.value_of(far if random >= first_up else near)
                    actual = fmt.project(v, mode, "sat", random << (64 - bits))
                    assert actual == expected, f"{name} {mode} word {random} of {v.hex()}"


def test_sr_depends_on_seed_and_place_only():
    fmt, x = book("nf4"), np.full(400, 0.12)
    whole = fmt.quantize(x, "sr", seed=5)
    assert len(set(whole.tolist())) == 2
    parts = [fmt.quantize(x[:150], "sr", seed=5), fmt.quantize(x[150:], "sr", seed=5, offset=150)]
    assert_same_bits(np.concatenate(parts), whole)
    assert np.any(fmt.quantize(x, "sr", seed=6) != whole)
    assert_same_bits(fmt.decode(fmt.encode(x[150:], "sr", seed=5, offset=150)), whole[150:])


def test_numbers_wider_than_float64_are_rounded_once():
    fmt = CodebookFormat("halves", [0.0, 1.0, 2.0])
    mode = parse_rounding("rne")
    below, above = (1 << 200) - 1, (1 << 200) + 1  # one half, but for 2**-201
    assert [fmt.project_finite(v, -201, mode, "sat") for v in (below, above)] == [0.0, 1.0]
    assert [fmt.project_finite(3 * (1 << 200) + d, -201, mode, "sat") for d in (-1, 0, 1)] == [1.0, 2.0, 2.0]
    assert fmt.project_finite(1, 5000, mode, "sat") == 2.0
    assert fmt.project_finite(-1, 5000, mode, "sat") == 0.0
    assert fmt.project_finite(1, -5000, parse_rounding("ru"), "sat") == 1.0
    assert fmt.overflows((1 << 201) + 1, -200, mode)
    assert not fmt.overflows(1 << 201, -200, mode)
    assert fmt.overflows(-1, -5000, mode)


def test_regress_codebook_far(path):
    """qtorch-plus makes 0 of values farther than 1e5 from every entry."""
    fmt = CodebookFormat("far", [-2.0, 0.0, 0.5, 3.0, 1e12])
    x = [200000.0, -200000.0, 1e308, -1e308, np.inf, -np.inf, 4e11, 6e11]
    expected = [3.0, -2.0, 1e12, -2.0, 1e12, -2.0, 3.0, 1e12]
    for overflow in (None, "sat", "satprop", "ieee"):
        assert_same_bits(fmt.quantize(x, overflow=overflow), expected, x)


def test_codes_are_places_and_need_not_fill_their_bits():
    fmt = book("unlike")
    assert fmt.bits == 4 and fmt.code_dtype == np.uint8
    codes = np.arange(10)
    assert_same_bits(fmt.decode(codes), BOOKS["unlike"])
    assert_same_bits(fmt.table(), BOOKS["unlike"])
    assert fmt.encode(BOOKS["unlike"]).tolist() == codes.tolist()
    assert [fmt.code_of(v) for v in BOOKS["unlike"]] == codes.tolist()
    assert_same_bits(fmt.decode(np.arange(10).repeat(9).reshape(3, 30)), np.repeat(BOOKS["unlike"], 9).reshape(3, 30))
    with pytest.raises(ValueError, match=r"codes of unlike: got 0 \.\. 10; expected 0 \.\. 9"):
        fmt.decode([0, 10])
    with pytest.raises(ValueError, match=r"codes of unlike: got -1 \.\. 3; expected 0 \.\. 9"):
        fmt.decode([-1, 3])
    with pytest.raises(TypeError, match="codes of unlike: got float64; expected integers"):
        fmt.decode([0.0])
    with pytest.raises(ValueError, match=r"code 10 of unlike lies outside 0 \.\. 9"):
        fmt.value_of(10)
    for wrong in (0.5, 1e309, math.nan, -0.0):
        with pytest.raises(ValueError, match="is not a value of unlike"):
            fmt.code_of(wrong)


def test_shapes_and_dtypes_survive():
    fmt = book("nf4")
    x = np.linspace(-1.2, 1.2, 24)
    flat = fmt.quantize(x)
    assert_same_bits(fmt.quantize(x.reshape(2, 3, 4)), flat.reshape(2, 3, 4))
    assert_same_bits(fmt.quantize(x[::-2]), flat[::-2])
    single = x.astype(np.float32)
    assert_same_bits(fmt.quantize(single), fmt.quantize(single.astype(np.float64)))
    for empty in (np.zeros((0, 3)), np.zeros(0)):
        assert (
            fmt.quantize(empty).shape == fmt.encode(empty).shape == fmt.decode(fmt.encode(empty)).shape == empty.shape
        )
    scalar = fmt.quantize(0.4)
    assert isinstance(scalar, np.ndarray) and scalar.shape == () and fmt.decode(fmt.encode(0.4)) == scalar
    assert fmt.quantize([0, 1, 2]).tolist() == [0.0, 1.0, 1.0]
    assert_same_bits(fmt.quantize([-0.0]), [0.0])
    with pytest.raises(TypeError, match="expected floats of at most 64 bits"):
        fmt.quantize(["a"])


def test_modes_that_have_no_meaning_are_refused():
    fmt = book("nf4")
    with pytest.raises(ValueError, match="nf4 has no NaN, and the array holds one; replace it before quantising"):
        fmt.quantize([0.1, np.nan])
    with pytest.raises(ValueError, match="nf4 has no NaN; replace it before quantising"):
        fmt.project(math.nan, "rne", "sat")
    for overflow in ("nan", "wrap"):
        with pytest.raises(ValueError, match=f"overflow '{overflow}'"):
            fmt.quantize([0.1], overflow=overflow)
    with pytest.raises(ValueError, match="seed: got -1"):
        fmt.quantize([0.1], seed=-1)


def test_codebooks_are_records():
    fmt = CodebookFormat("mine", np.array([-1, 0, 2], np.int8))
    assert fmt.values == (-1.0, 0.0, 2.0)
    assert fmt == CodebookFormat("other", [-1, -0.0, 2.0]) and hash(fmt) == hash(CodebookFormat("other", [-1, 0, 2]))
    assert_same_bits(CodebookFormat("other", [-1, -0.0, 2.0]).table(), [-1.0, 0.0, 2.0])
    assert fmt != CodebookFormat("mine", [-1, 0, 2], [-0.5, 0.9])
    assert (fmt.min, fmt.max, fmt.smallest_normal, fmt.smallest_subnormal) == (-1.0, 2.0, 1.0, 1.0)
    assert (fmt.default_overflow, fmt.has_nan, fmt.bits, str(fmt)) == ("sat", False, 2, "mine")


def test_bad_codebooks_say_what_is_wrong():
    for values, boundaries, text in (
        ([1.0], None, "mine: got 1 values; a codebook has 2 to 65536"),
        (range(MOST_VALUES + 1), None, "mine: got 65537 values; a codebook has 2 to 65536"),
        ([0, 1, 1], None, r"mine: values\[2\]: got 1\.0 after 1\.0; list each value once, in ascending order"),
        ([0, math.nan], None, r"mine: values\[1\]: got nan; expected a finite number that float64 holds"),
        ([0, math.inf], None, r"mine: values\[1\]: got inf"),
        ([0, 2**53 + 1], None, r"mine: values\[1\]: got 9007199254740993; expected a finite number that float64 holds"),
        ([0, 10**400], None, r"mine: values\[1\]: got 10+; expected a finite"),
        ([0, "one"], None, r"mine: values\[1\]: got 'one'"),
        ([0, 1, 2], [0.5], "mine: got 1 boundaries for 3 values; expected one between each two neighbours, 2, or none"),
        ([0, 1, 2], [0.5, 0.9], r"mine: boundaries\[1\]: got 0\.9; expected one from 1\.0 to 2\.0, the values that it"),
        ([0, 1, 2], [0.5, math.nan], r"mine: boundaries\[1\]: got nan; expected a finite number"),
    ):
        with pytest.raises(ValueError, match=text):
            CodebookFormat("mine", values, boundaries)


@pytest.mark.full
def test_the_largest_codebook_rounds_as_in_fractions():
    values = np.unique(np.random.default_rng(62).standard_normal(70000))[:MOST_VALUES]
    fmt = CodebookFormat("largest", values)
    assert fmt.bits == 16 and len(fmt.values) == MOST_VALUES
    exact = [Fraction(v) for v in values.tolist()]
    x = probes(values.tolist())
    x = np.random.default_rng(63).choice(x, 40000, replace=False)
    for mode in DETERMINISTIC:
        expected = values[[rounded(exact, Fraction(v), mode) for v in x.tolist()]]
        assert_same_bits(fmt.quantize(x, mode), expected, x, f"{mode} seeds 62, 63")


# --- files -----------------------------------------------------------------------------------------------------------


def written(tmp_path, text):
    path = tmp_path / "book.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "boundaries"),
    [
        ("-1\n0\n0.5\n2e1\n", None),
        ("\ufeffvalue\n-1\n\n# a comment, with a comma\n0\n 0.5\n2e1", None),
        ("value,boundary\n-1,-0.25\n0,0.25\n0.5,20\n20,\n", (-0.25, 0.25, 20.0)),
        ("Value, Boundary\r\n-1, -0.25\r\n0, 0.25\r\n0.5, 20\r\n20\r\n", (-0.25, 0.25, 20.0)),
    ],
)
def test_files_of_one_or_two_columns_are_read(tmp_path, text, boundaries):
    fmt = CodebookFormat.from_csv(written(tmp_path, text), "mine")
    assert (fmt.name, fmt.values, fmt.boundaries) == ("mine", (-1.0, 0.0, 0.5, 20.0), boundaries)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"book\.csv: got 0 values; expected at least 2, one a line"),
        ("value\n1\n", r"book\.csv: got 1 values"),
        ("0\nO.5\n", r"book\.csv:2: value: got 'O\.5'; expected a finite number such as 0\.125"),
        ("O\n0.5\n", r"book\.csv:1: value: got 'O'"),
        ("# two\n0\ninf\n", r"book\.csv:3: value: got 'inf'; expected a finite number"),
        ("0\n1e999\n", r"book\.csv:2: value: got '1e999'"),
        ("0\n2\n\n1\n", r"book\.csv:4: value: got 1\.0 after 2\.0; list each value once, in ascending order"),
        ("0,1,2\n", r"book\.csv:1: got 3 columns; expected a value and, optionally, a boundary"),
        ("0,x\n1\n", r"book\.csv:1: boundary: got 'x'; expected a finite number"),
        ("0,0.5\n1,1.5\n", r"book\.csv:2: boundary: got 1\.5 after the last value; leave it out"),
        ("0,0.5\n1\n2\n", r"book\.csv:2: boundary: none, but other lines have one; give all but the last or none"),
        ("0,0.5\n1,2.5\n2\n", r"book\.csv:2: boundary: got 2\.5; expected one from 1\.0 to 2\.0"),
        ("0;1\n", r"book\.csv:1: value: got '0;1'"),
    ],
)
def test_errors_in_files_name_the_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        CodebookFormat.from_csv(written(tmp_path, text), "mine")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0\n1\n".encode("utf-16"), r"book\.csv: not text in UTF-8 \(invalid start byte\); save it as UTF-8"),
        (b"# caf\xe9\n0\n1\n", r"book\.csv: not text in UTF-8"),
        (b"0\n" + b"1" * 200_000 + b"\n", r"book\.csv:\d: not comma-separated: field larger than field limit"),
    ],
)
def test_a_file_that_is_no_csv_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "book.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        CodebookFormat.from_csv(path, "mine")
