"""Uses: a format with its modes, parsed from text and printed back."""

import pytest

import formats
from formats import Use
from tests.oracles.bits import assert_same_bits

PRINTED = {
    "fp16": "fp16",
    "fp16/rne": "fp16",
    "fp16/ieee": "fp16",
    "fp16/rne/ieee": "fp16",
    "fp16/sat": "fp16/sat",
    "fp16/rne/sat": "fp16/sat",
    " fp8_e4m3/sat ": "fp8_e4m3/sat",
    "fp8_e4m3/nan": "fp8_e4m3",
    "fp8_e4m3/ieee": "fp8_e4m3/ieee",
    "e5m10/nan": "fp16/nan",
    "fp4_e2m1/sat": "fp4_e2m1",
    "fp4_e2m1/ieee": "fp4_e2m1/ieee",
    "e8m6:ftz/sat": "e8m6:ftz/sat",
}


@pytest.mark.parametrize(("text", "printed"), PRINTED.items())
def test_a_use_prints_back_in_its_canonical_form_and_reads_back(text, printed):
    use = Use.parse(text)
    assert str(use) == printed
    assert Use.parse(str(use)) == use
    assert hash(Use.parse(str(use))) == hash(use)


def test_parse_takes_uses_and_formats_as_they_are():
    use = Use.parse("fp16/sat")
    assert Use.parse(use) is use
    assert Use.parse(formats.get("fp8_e4m3")) == Use.parse("fp8_e4m3/nan")


@pytest.mark.parametrize("text", ["fp16/up", "fp16/sat/rne", "fp16/sat/sat", "fp16/rne/rne", "fp16/", "fp16/sat/x"])
def test_a_wrong_mode_is_refused_with_the_grammar(text):
    with pytest.raises(ValueError) as caught:
        Use.parse(text)
    assert "is not expected there; write FORMAT[/ROUNDING][/OVERFLOW] with rounding rne" in str(caught.value)
    assert "overflow ieee|sat|satprop|nan|wrap" in str(caught.value)


def test_a_wrong_format_in_a_use_keeps_its_own_message():
    with pytest.raises(ValueError, match="format 'e4m3' is ambiguous"):
        Use.parse("e4m3/sat")


def test_a_mode_that_the_format_cannot_have_is_refused_at_once():
    with pytest.raises(ValueError, match="overflow 'nan' needs a NaN, and fp6_e3m2 has none; use 'sat'"):
        Use.parse("fp6_e3m2/nan")
    with pytest.raises(ValueError, match="overflow 'clip' is unknown"):
        Use(formats.get("fp16"), "rne", "clip")
    with pytest.raises(ValueError, match="rounding 'up' is unknown"):
        Use(formats.get("fp16"), "up")


def test_a_use_quantizes_with_its_own_modes(path):
    assert_same_bits(Use.parse("fp8_e4m3/sat").quantize([1000.0, 1.0]), [448.0, 1.0])
    assert_same_bits(Use.parse("fp8_e4m3").quantize([1000.0, 1.0]), [float("nan"), 1.0])
