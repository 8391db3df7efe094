"""IEEE P3109 (a draft): every format up to 8 bits against digests of the published value tables, and the constants."""

import csv
import hashlib
import math
from pathlib import Path

import numpy as np
import pytest

import formats
from tests.oracles.bits import assert_same_bits

DIGESTS = {
    row["format"]: row["sha256_of_f64le_values"]
    for row in csv.DictReader((Path(__file__).parents[1] / "vectors" / "p3109" / "digests.csv").open())
}


def digest(values):
    """SHA-256 of float64 values in code order, NaN as 0x7FF8000000000000."""
    bits = (np.asarray(values, "<f8") + 0.0).view("<u8").copy()
    bits[np.isnan(values)] = 0x7FF8000000000000
    return hashlib.sha256(bits.tobytes()).hexdigest()


@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_the_value_table_is_the_published_one(name):
    fmt = formats.get(f"binary{name}")
    table = fmt.table()
    assert digest(table) == DIGESTS[name]
    assert fmt.encode(table).tolist() == list(range(1 << fmt.bits))


def test_there_are_digests_of_all_formats_of_3_to_8_bits():
    names = {f"{k}p{p}{kind}" for k in range(3, 9) for kind in ("se", "sf", "ue", "uf")
             for p in range(1, k + (kind[0] == "u"))}  # fmt: skip
    assert set(DIGESTS) == names


@pytest.mark.parametrize(
    ("name", "largest", "normal", "subnormal"),
    [
        ("binary8p3se", 49152.0, 2.0**-15, 2.0**-17),
        ("binary8p3sf", 57344.0, 2.0**-15, 2.0**-17),
        ("binary8p4se", 224.0, 2.0**-7, 2.0**-10),
        ("binary8p4sf", 240.0, 2.0**-7, 2.0**-10),
        ("binary8p5se", 15.0, 2.0**-3, 2.0**-7),
        ("binary4p2sf", 3.0, 0.5, 0.25),
    ],
)
def test_constants_are_those_of_the_interim_report(name, largest, normal, subnormal):
    fmt = formats.get(name)
    assert (fmt.max, fmt.smallest_normal, fmt.smallest_subnormal) == (largest, normal, subnormal)


@pytest.mark.parametrize("name", ["binary2p1se", "binary17p4se", "binary8p8se", "binary8p9ue", "binary8p0sf"])
def test_impossible_parameters_are_refused(name):
    with pytest.raises(ValueError, match=f"format '{name}'"):
        formats.get(name)


def test_ranges_beyond_float64_are_refused_by_name():
    with pytest.raises(ValueError, match=r"binary16p1se.*leave the range of float64.*take a larger P"):
        formats.get("binary16p1se")
    assert formats.get("binary16p5se").max < float("inf")


def test_overflow_without_saturation_is_that_of_the_interim_report(path):
    """SatNone of v4.0: finite formats stay at the largest value, and so does odd in an unsigned extended one."""
    for name, largest, beyond in (("binary8p4sf", 240.0, 240.0), ("binary8p4se", 224.0, math.inf)):
        fmt = formats.get(name)
        for rounding in ("rne", "rna", "rnz", "odd", "sr"):
            assert_same_bits(fmt.quantize([1e9, -1e9], rounding, "ieee"), [beyond, -beyond], note=f"{name}/{rounding}")
        assert_same_bits(fmt.quantize([1e9, -1e9], "rz", "ieee"), [largest, -largest], note=name)
        assert_same_bits(fmt.quantize([1e9, -1e9], "ru", "ieee"), [beyond, -largest], note=name)
        assert_same_bits(fmt.quantize([1e9, -1e9], "rd", "ieee"), [largest, -beyond], note=name)
    extended, finite = formats.get("binary8p4ue"), formats.get("binary8p4uf")
    for rounding, beyond in (("rne", math.inf), ("ru", math.inf), ("odd", 53248.0), ("rz", 53248.0), ("rd", 53248.0)):
        assert_same_bits(extended.quantize([1e9], rounding, "ieee"), [beyond], note=rounding)
        assert_same_bits(finite.quantize([1e9], rounding, "ieee"), [57344.0], note=rounding)
    assert_same_bits(extended.quantize([math.inf, 53248.0], "odd", "ieee"), [math.inf, 53248.0])
    assert_same_bits(finite.quantize([1e9, math.inf]), [math.nan, math.nan])


def test_dlfloat16_is_as_published():
    fmt = formats.get("dlfloat16")
    assert (fmt.bits, fmt.precision, fmt.bias, fmt.max) == (16, 10, 31, 8573157376.0)
    assert fmt.smallest_normal == 2.0**-31 * (1 + 2.0**-9)
    table = fmt.table()
    codes = fmt.encode(table[:0x7FFF])
    assert codes.tolist() == list(range(0x7FFF)) and np.isnan(table[0x7FFF])
