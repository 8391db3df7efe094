"""Formats of at most 8 bits against every library that knows them: all codes, all float32 ties and their neighbours.

OPINIONS is the list of who knows what. Known traps of the libraries, each worked round by name below:

    ml_dtypes 0.6.0   takes float32 only (float64 is rounded twice); NaN becomes -0 in FP6 and FP4; ties of E8M0 go up,
                      and so does all between its two smallest values, where float32 is subnormal
    torch 2.13        E4M3FN saturates; E8M0 drops the sign, and goes up as in ml_dtypes
    gfloat 0.5.2      unsigned formats take negative numbers for values; P3109's finite formats overflow to NaN
    universal 2.5.1   NaN becomes 0 in fixed point; the infinities of fp8e5m2 have the codes 7E and FE;
                      takum8 takes neighbours of float64 ties for ties (test_takum.py), which float32 does not reach
    softposit 0.3.4   NaR decodes as infinity; pX2 codes stand at the top of 32 bits; its names mean the old es
"""

import math
import re
from functools import cache

import gfloat
import ml_dtypes
import numpy as np
import pytest
import softposit
import torch
from gfloat import RoundMode
from gfloat.formats import format_info_p3109
from gfloat.types import Domain, Signedness

import formats
from tests.oracles.bits import assert_same_bits
from tests.oracles.rules import rules_of
from tests.oracles.universal import universal_dtype

P3109 = [
    f"binary{k}p{p}{kind}"
    for k in range(3, 9)
    for kind in ("se", "sf", "ue", "uf")
    for p in range(1, k + (kind[0] == "u"))
]
MODES = {
    "rne": RoundMode.TiesToEven, "rna": RoundMode.TiesToAway, "rz": RoundMode.TowardZero,
    "ru": RoundMode.TowardPositive, "rd": RoundMode.TowardNegative,
}  # fmt: skip

ML_DTYPES = {
    "fp8_e4m3": "float8_e4m3fn", "fp8_e5m2": "float8_e5m2", "fp8_e3m4": "float8_e3m4", "e4m3:ieee": "float8_e4m3",
    "fp8_e4m3fnuz": "float8_e4m3fnuz", "fp8_e5m2fnuz": "float8_e5m2fnuz", "fp8_e4m3b11fnuz": "float8_e4m3b11fnuz",
    "fp6_e3m2": "float6_e3m2fn", "fp6_e2m3": "float6_e2m3fn", "fp4_e2m1": "float4_e2m1fn", "e8m0": "float8_e8m0fnu",
}  # fmt: skip
TORCH = {
    "fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2, "fp8_e4m3fnuz": torch.float8_e4m3fnuz,
    "fp8_e5m2fnuz": torch.float8_e5m2fnuz, "e8m0": torch.float8_e8m0fnu,
}  # fmt: skip
# bits, p, bias, signed, infinities, codes of NaN at the top, -0, as gfloat counts them
GFLOAT = {
    "fp8_e4m3": (8, 4, 7, True, False, 1, True), "fp8_e5m2": (8, 3, 15, True, True, 3, True),
    "fp8_e3m4": (8, 5, 3, True, True, 15, True), "fp8_e4m3fnuz": (8, 4, 8, True, False, 0, False),
    "fp8_e5m2fnuz": (8, 3, 16, True, False, 0, False), "fp8_e4m3b11fnuz": (8, 4, 11, True, False, 0, False),
    "fp6_e3m2": (6, 3, 3, True, False, 0, True), "fp6_e2m3": (6, 4, 1, True, False, 0, True),
    "fp4_e2m1": (4, 2, 1, True, False, 0, True), "ue4m3": (7, 4, 7, False, False, 1, False),
    "e4m3:ieee": (8, 4, 7, True, True, 7, True), "e3m2:ieee": (6, 3, 3, True, True, 3, True),
    "e2m5": (8, 6, 1, True, True, 31, True),
}  # fmt: skip
UNIVERSAL = {
    "posit8": "posit8", "posit8e0": "posit8e0", "posit8e1": "posit8e1", "takum8": "takum8", "fp8_e5m2": "fp8e5m2",
    "fix8.4": "fixpnt8", "fix8.7": "q7",
}  # fmt: skip
SOFTPOSIT = ["posit8e0", *(f"posit{n}" for n in range(3, 9))]
NUMPY = ["int8", "uint8", "int4", "uint4", "fix8.6"]

OPINIONS = {
    "ml_dtypes": [*ML_DTYPES],
    "torch": [*TORCH],
    "gfloat": [*GFLOAT, *P3109],
    "universal": [*UNIVERSAL],
    "softposit": SOFTPOSIT,
    "numpy": NUMPY,
}


def test_every_named_format_of_8_bits_is_known_to_a_library():
    """Of block formats, the element and the scale."""
    known = {name for names in OPINIONS.values() for name in names}
    found = [formats.get(name) for name in formats.available()]
    parts = [part for fmt in found for part in ([fmt.element, fmt.scale] if fmt.has_blocks else [fmt])]
    assert {part.name for part in parts if part.bits <= 8} - known == set()


@cache
def ties(name, dtype=np.float32):
    """Values and boundaries, their neighbours in float32, numbers beyond both ends, specials; both signs."""
    rules = rules_of(name)
    values = rules.values()
    around = np.concatenate([values, np.nextafter(values, np.inf), np.nextafter(values, -np.inf)])
    exact = np.unique(np.concatenate([values, rules.ties(around)]))
    exact = exact[np.abs(exact) < 3.4e38]
    narrow = exact.astype(dtype)
    is_float32 = narrow == exact
    assert is_float32.all() or name == "takum8", name  # whose values end at 2**-239
    far = np.array([2.0**-149, 2.0**-128, 2.0**-127, 1e30, 3e38, 2 * min(values[-1], 1e38)], dtype)
    narrow = np.concatenate([narrow[is_float32], far, -far])
    narrow = np.concatenate([narrow, np.nextafter(narrow, dtype(np.inf)), np.nextafter(narrow, dtype(-np.inf))])
    return np.concatenate([narrow, np.array([0.0, -0.0, np.inf, -np.inf, np.nan], dtype)])


def ours(name, x, rounding="rne", overflow=None):
    """What we make of an array, NaN standing for NaN where the format refuses it."""
    fmt = formats.get(name)
    y = np.full(x.shape, np.nan)
    taken = slice(None) if fmt.has_nan else ~np.isnan(x)
    y[taken] = fmt.quantize(x[taken], rounding, overflow)
    return y


def codes_of(name):
    return np.arange(1 << formats.get(name).bits, dtype=np.uint8)


def without_low_e8m0(x):
    """Leave out what ml_dtypes and torch round up in E8M0 though it lies nearer to the smallest value."""
    return x[~((x > 2.0**-127) & (x < 1.5 * 2.0**-127))]


# --- ml_dtypes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ML_DTYPES)
def test_codes_and_ties_are_those_of_ml_dtypes(name, path):
    dtype = getattr(ml_dtypes, ML_DTYPES[name])
    fmt, codes, x = formats.get(name), codes_of(name), ties(name)
    assert_same_bits(fmt.decode(codes), codes.view(dtype).astype(np.float64), codes, name)
    if name == "e8m0":
        x = without_low_e8m0(x)
    with np.errstate(all="ignore"):
        theirs = x.astype(dtype)
    expected = theirs.astype(np.float64)
    if not fmt.has_nan:
        expected[np.isnan(x)] = np.nan  # trap: it gives -0
    # Trap: ties of E8M0 go up, which is rna.
    assert_same_bits(ours(name, x, "rna" if name == "e8m0" else "rne"), expected, x, name)
    own = ~np.isnan(expected)
    encoded = fmt.encode(x[own], "rna" if name == "e8m0" else "rne")
    assert encoded.tolist() == theirs.view(np.uint8)[own].tolist()


def test_e8m0_ties_go_to_the_even_code_under_rne():
    """Where ml_dtypes and torch go up: 1.5 becomes 2 (code 128), 3 becomes 2, 2**-128 becomes 2**-127."""
    assert_same_bits(formats.get("e8m0").quantize([1.5, 3.0, 6.0, 2.0**-128]), [2.0, 2.0, 8.0, 2.0**-127])
    assert_same_bits(formats.get("e8m0").quantize([1.5, 3.0], "rna"), [2.0, 4.0])


# --- torch -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TORCH)
def test_codes_and_ties_are_those_of_torch(name, path):
    codes, x = codes_of(name), ties(name)
    decoded = torch.from_numpy(codes.copy()).view(TORCH[name]).to(torch.float64).numpy()
    assert_same_bits(formats.get(name).decode(codes), decoded, codes, name)
    if name == "e8m0":
        x = without_low_e8m0(x[(x > 0) & (x <= formats.get(name).max)])  # trap: the sign is dropped
    expected = torch.from_numpy(x).to(TORCH[name]).to(torch.float64).numpy()
    overflow = "sat" if name == "fp8_e4m3" else None  # trap: it saturates, infinities too
    assert_same_bits(ours(name, x, "rna" if name == "e8m0" else "rne", overflow), expected, x, name)


# --- gfloat ----------------------------------------------------------------------------------------------------------


def info_of(name):
    if name in GFLOAT:
        bits, precision, bias, signed, infinities, nans, negative_zero = GFLOAT[name]
        return gfloat.FormatInfo(
            name, bits, precision, bias=bias, is_signed=signed, domain=Domain.Extended if infinities else Domain.Finite,
            has_nz=negative_zero, num_high_nans=nans, has_subnormals=True, is_twos_complement=False,
        )  # fmt: skip
    k, p, signedness, domain = re.fullmatch(r"binary(\d)p(\d)([su])([ef])", name).groups()
    sign = Signedness.Signed if signedness == "s" else Signedness.Unsigned
    return format_info_p3109(int(k), int(p), sign, Domain.Extended if domain == "e" else Domain.Finite)


def numbers_for_gfloat(name):
    x = ties(name, np.float64 if name in P3109 else np.float32).astype(np.float64)
    if formats.get(name).has_nan:
        return x if formats.get(name).rules.signed else x[~(np.signbit(x) & (x != 0))]  # trap: negative into unsigned
    return x[~np.isnan(x)]


def check_against_gfloat(name):
    fmt, info, x = formats.get(name), info_of(name), numbers_for_gfloat(name)
    codes = np.arange(1 << fmt.bits)
    decoded = [gfloat.decode_float(info, code).fval for code in codes.tolist()]
    assert_same_bits(fmt.decode(codes), decoded, codes, name)
    finite_p3109 = name in P3109 and name.endswith("f")
    for rounding, mode in MODES.items():
        saturated = gfloat.round_ndarray(info, x, mode, sat=True)
        assert_same_bits(ours(name, x, rounding, "sat"), saturated, x, f"{name}/{rounding}/sat")
        if not fmt.has_nan:
            continue
        # Trap: P3109's finite formats overflow to NaN; so does our mode "nan", where nothing points inwards.
        if not finite_p3109 or rounding in ("rne", "rna"):
            overflow = "nan" if finite_p3109 else "ieee"
            unsaturated = gfloat.round_ndarray(info, x, mode, sat=False)
            assert_same_bits(ours(name, x, rounding, overflow), unsaturated, x, f"{name}/{rounding}/{overflow}")


@pytest.mark.parametrize("name", GFLOAT)
def test_codes_and_ties_are_those_of_gfloat_in_five_modes(name, path):
    check_against_gfloat(name)


def test_codes_and_ties_of_all_p3109_formats_are_those_of_gfloat_in_five_modes(path):
    for name in P3109[:: 7 if path == "definition" else 1]:
        check_against_gfloat(name)


@pytest.mark.full
def test_the_definition_of_all_p3109_formats_is_that_of_gfloat_in_five_modes(monkeypatch):
    monkeypatch.setattr(formats.Format, "fast_twins", {})
    for name in P3109:
        check_against_gfloat(name)


STOCHASTIC = {"a": RoundMode.StochasticFastest, "b": RoundMode.StochasticFast, "c": RoundMode.Stochastic}


@pytest.mark.parametrize("name", ["fp8_e5m2", "fp8_e4m3", "fp6_e2m3", "binary8p1se", "binary6p3uf", "binary4p2sf"])
@pytest.mark.parametrize("variant", STOCHASTIC)
def test_every_random_word_decides_as_in_gfloat(name, variant):
    """All words of 1 to 4 bits on numbers between the values."""
    fmt, info = formats.get(name), info_of(name)
    top = rules_of(name).values()
    rng = np.random.default_rng(91)
    place = rng.integers(0, top.size - 1, 30)
    weight = rng.integers(1, 64, 30) / 64
    x = top[place] * (1 - weight) + top[place + 1] * weight
    for bits in (1, 2, 4):
        for word in range(1 << bits):
            srbits = np.full(x.size, word, np.int64)
            expected = gfloat.round_ndarray(info, x, STOCHASTIC[variant], True, srbits, bits)
            got = [fmt.project(v, f"sr:{bits}:{variant}", "sat", word << (64 - bits)) for v in x.tolist()]
            assert_same_bits(got, expected, x, f"{name} sr:{bits}:{variant} word {word} seed 91")


# --- universal, softposit, numpy -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UNIVERSAL)
def test_codes_and_ties_are_those_of_universal(name, path):
    dtype = universal_dtype(UNIVERSAL[name])
    codes, x = codes_of(name), ties(name)
    decoded = codes.view(dtype).astype(np.float64)
    if name == "fp8_e5m2":  # trap: OCP's infinities are 7C and FC
        decoded[[0x7C, 0xFC, 0x7E, 0xFE]] = decoded[[0x7E, 0xFE, 0x7C, 0xFC]]
    assert_same_bits(formats.get(name).decode(codes), decoded, codes, name)
    with np.errstate(all="ignore"):
        expected = x.astype(dtype).astype(np.float64)
    if not formats.get(name).has_nan:
        expected[np.isnan(x)] = np.nan  # trap: it gives 0
    assert_same_bits(ours(name, x), expected, x, name)


@pytest.mark.parametrize("name", SOFTPOSIT)
def test_codes_and_ties_are_those_of_softposit(name, path):
    fmt, x = formats.get(name), ties(name)
    below = 0 if name == "posit8e0" else 32 - fmt.bits  # trap: pX2 codes stand at the top of 32 bits
    encode = softposit.convertDoubleToP8 if not below else lambda v: softposit.convertDoubleToPX2(v, fmt.bits)
    decode = softposit.convertP8ToDouble if not below else softposit.convertPX2ToDouble
    record = softposit.posit8_t() if not below else softposit.posit_2_t()
    decoded = []
    for code in range(1 << fmt.bits):
        record.v = code << below
        decoded.append(decode(record))
    assert math.isinf(decoded[1 << (fmt.bits - 1)])  # trap: NaR
    decoded[1 << (fmt.bits - 1)] = math.nan
    assert_same_bits(fmt.table(), decoded, note=name)
    expected = [encode(v).v >> below for v in x.astype(np.float64).tolist()]
    assert fmt.encode(x).tolist() == expected, name


@pytest.mark.parametrize("name", NUMPY)
def test_codes_and_ties_are_those_of_numpys_integers_in_four_modes(name, path):
    fmt, x = formats.get(name), ties(name)
    x = x[~np.isnan(x)]
    unit = 2.0**-fmt.fraction_bits
    if fmt.bits == 8:
        codes = codes_of(name)
        assert_same_bits(fmt.decode(codes), codes.view(np.int8 if fmt.signed else np.uint8) * unit, codes, name)
    else:
        dtype = getattr(ml_dtypes, name)
        codes = codes_of(name)
        assert_same_bits(fmt.decode(codes), codes.view(dtype).astype(np.float64), codes, name)
    for rounding, function in (("rne", np.rint), ("rz", np.trunc), ("ru", np.ceil), ("rd", np.floor)):
        expected = np.clip(function(x.astype(np.float64) / unit) * unit, fmt.min, fmt.max) + 0.0
        assert_same_bits(fmt.quantize(x, rounding), expected, x, f"{name}/{rounding}")
