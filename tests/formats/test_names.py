"""The name grammar: canonical forms, ambiguity, modifiers, suggestions; error texts are part of the contract."""

import pytest

import formats
from formats import FloatFormat
from formats.catalogue import FLOATS

CANONICAL = {
    "fp16": "fp16",
    " fp16 ": "fp16",
    "e5m10": "fp16",
    "e8m7": "bf16",
    "e8m10": "tf32",
    "e8m23": "fp32",
    "e11m52": "fp64",
    "e8m13": "e8m13",
    "e5m2": "fp8_e5m2",
    "e3m4": "fp8_e3m4",
    "e4m3fn": "fp8_e4m3",
    "e4m3:fn": "fp8_e4m3",
    "e4m3:ieee": "e4m3:ieee",
    "fp8_e4m3:ieee": "e4m3:ieee",
    "e4m3:fnuz": "fp8_e4m3fnuz",
    "e4m3:b8:fnuz": "fp8_e4m3fnuz",
    "fp8_e4m3:fnuz": "fp8_e4m3fnuz",
    "e4m3:fnuz:b11": "fp8_e4m3b11fnuz",
    "e4m3:fnuz:b7": "e4m3:fnuz:b7",
    "e5m2:fnuz": "fp8_e5m2fnuz",
    "e3m2:finite": "fp6_e3m2",
    "e2m3:finite": "fp6_e2m3",
    "e2m1:finite": "fp4_e2m1",
    "e3m2:ieee": "e3m2:ieee",
    "e5m10:ieee": "fp16",
    "e5m10:b15": "fp16",
    "fp16:ftz": "e5m10:ftz",
    "e5m10:ftz:b20": "e5m10:b20:ftz",
    "fp8_e4m3:ftz": "e4m3:fn:ftz",
    "e8m6": "e8m6",
    "e5m7:b-3": "e5m7:b-3",
    "e5m2:b16": "e5m2:b16",
    "fp8_e4m3fnuz:ieee": "e4m3:ieee",
    "fp8_e4m3b11fnuz:ieee": "e4m3:ieee:b11",
    "e8m13:ftz": "e8m13:ftz",
    "e8m0:b100": "e8m0:scale:b100",
    "e8m0:scale": "e8m0",
    "e8m0:ieee": "e8m0:ieee",
    "ue4m3:b5": "e4m3:ufn:b5",
    "e4m3:ufn": "ue4m3",
    "dlfloat16:b30": "e6m9:dlfloat:b30",
    "e11m52:b1025": "e11m52:b1025",
    "binary8p4se": "binary8p4se",
    "binary8p4se:ftz": "binary8p4se:ftz",
    "binary16p1ue:b9": "binary16p1ue:b9",
    "binary8p4uf:b16:ftz": "binary8p4uf:ftz",
    "binary8p4se:ieee": "e4m3:ieee",
}


@pytest.mark.parametrize(("name", "canonical"), CANONICAL.items())
def test_a_name_prints_back_in_its_canonical_form(name, canonical):
    assert str(formats.get(name)) == formats.get(name).name == canonical


@pytest.mark.parametrize("canonical", sorted(set(CANONICAL.values())))
def test_a_canonical_name_reads_back_as_the_same_format(canonical):
    assert formats.get(canonical).name == canonical
    assert formats.get(canonical) == formats.get(canonical)


def test_a_format_is_taken_as_it_is():
    fmt = formats.get("e4m3:ieee")
    assert formats.get(fmt) is fmt


@pytest.mark.parametrize("x", range(1, 12))
def test_every_exmy_name_round_trips(x):
    for y in (1, 2, 5, 13, 52):
        for modifiers in ("", ":fn", ":fnuz:ftz", ":finite", ":b9"):
            if (x, y) in ((4, 3), (3, 2), (2, 3), (2, 1)) and modifiers in ("", ":b9"):
                continue  # ambiguous
            try:
                fmt = formats.get(f"e{x}m{y}{modifiers}")
            except ValueError as error:
                assert "no finite normal value" in str(error)
                continue
            assert formats.get(fmt.name) == fmt
            assert formats.get(fmt.name).name == fmt.name


def test_every_named_format_is_available_and_found():
    assert {fmt.name for fmt in FLOATS} <= set(formats.available())
    for fmt in FLOATS:
        assert formats.get(fmt.name) is fmt
        assert FLOATS[fmt], f"{fmt.name} names no source"


@pytest.mark.parametrize(
    ("name", "meanings"),
    [
        ("e4m3", ["fp8_e4m3 (OCP, largest 448)", "e4m3:ieee (largest 240)", "fp8_e4m3fnuz (largest 240, bias 8)"]),
        ("e3m2", ["fp6_e3m2 (OCP, largest 28)", "e3m2:ieee (largest 14)"]),
        ("e2m3", ["fp6_e2m3 (OCP, largest 7.5)", "e2m3:ieee (largest 3.75)"]),
        ("e2m1", ["fp4_e2m1 (OCP, largest 6)", "e2m1:ieee (largest 3)"]),
        ("e4m3:b8", ["fp8_e4m3", "e4m3:ieee"]),
        ("e4m3:ftz", ["fp8_e4m3", "e4m3:ieee"]),
    ],
)
def test_an_ambiguous_name_is_refused_with_the_list_of_its_meanings(name, meanings):
    with pytest.raises(ValueError) as caught:
        formats.get(name)
    text = str(caught.value)
    assert text.startswith(f"format '{name}' is ambiguous; write one of: ")
    for meaning in meanings:
        assert meaning in text


@pytest.mark.parametrize(
    ("name", "largest"),
    [
        ("fp8_e4m3", 448), ("e4m3:ieee", 240), ("fp8_e4m3fnuz", 240), ("fp6_e3m2", 28), ("e3m2:ieee", 14),
        ("fp6_e2m3", 7.5), ("e2m3:ieee", 3.75), ("fp4_e2m1", 6), ("e2m1:ieee", 3),
    ],
)  # fmt: skip
def test_the_meanings_offered_have_the_largest_values_they_claim(name, largest):
    assert formats.get(name).max == largest


ERRORS = {
    "fp17": "format 'fp17' is unknown; did you mean fp16",
    "fp8_e4m": "did you mean fp8_e4m3",
    "FP16": "format 'FP16' is unknown",
    "zzzzzz": "format 'zzzzzz' is unknown; expected one of fp64, fp32",
    "": "format '' is unknown; expected one of",
    "e5m10:foo": "format 'e5m10:foo': modifier 'foo' is unknown; expected ftz, bBIAS, ieee, fn, fnuz, finite",
    "fp16:": "modifier '' is unknown",
    "e5m10:ftz:ftz": "format 'e5m10:ftz:ftz': subnormals is given twice",
    "e5m10:ieee:fn": "dialect is given twice",
    "e5m10:b3:b4": "bias is given twice",
    "e12m3": "e12m3: 12 exponent and 3 fraction bits are out of range; expected 1 to 11 and 0 to 52",
    "e0m3": "out of range; expected 1 to 11 and 0 to 52",
    "e5m53": "out of range; expected 1 to 11 and 0 to 52",
    "e12m3:fn": "out of range; expected 1 to 11 and 0 to 52",
    "e1m0": "no finite normal value is left beside the special codes",
    "e1m2:ftz": "no finite normal value is left beside the special codes",
}


@pytest.mark.parametrize(("name", "text"), ERRORS.items())
def test_a_wrong_name_is_refused_with_a_reason_and_a_remedy(name, text):
    with pytest.raises(ValueError) as caught:
        formats.get(name)
    assert text in str(caught.value)


def test_what_is_no_name_is_refused_by_type():
    with pytest.raises(TypeError, match=r"got int; expected the name of a format; give e.g. 'fp8_e4m3'"):
        formats.get(16)


def test_an_unknown_dialect_of_the_record_is_refused():
    with pytest.raises(ValueError, match="mine: dialect 'ocp' is unknown; expected ieee, fn, fnuz, finite"):
        FloatFormat("mine", 4, 3, dialect="ocp")


def test_the_name_is_not_part_of_the_identity():
    assert FloatFormat("mine", 5, 10) == formats.get("fp16")
    assert hash(FloatFormat("mine", 5, 10)) == hash(formats.get("fp16"))
    assert formats.get("fp16:ftz") != formats.get("fp16")


def test_formats_are_immutable():
    with pytest.raises(AttributeError):
        formats.get("fp16").bias = 3


def test_derived_numbers_of_exmy():
    fmt = formats.get("e6m9:b20")
    assert (fmt.bits, fmt.precision, fmt.bias, fmt.min_exponent) == (16, 10, 20, -19)
    assert fmt.unit_roundoff == 2.0**-10
    assert fmt.smallest_normal == 2.0**-19
    assert fmt.smallest_subnormal == 2.0**-28
    assert fmt.max == (2 - 2.0**-9) * 2.0 ** (62 - 20)
    assert formats.get("e6m9:b20:ftz").smallest_subnormal == 2.0**-19
