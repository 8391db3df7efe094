"""Formats of one's own: registration and the entry-point group."""

import math
from types import SimpleNamespace

import pytest

import formats
from formats import FloatFormat, registry
from tests.oracles.bits import assert_same_bits


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Every test starts without registered and plugged-in formats."""
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(registry, "_plugged", list)


def plug(monkeypatch, name, load):
    monkeypatch.setattr(registry, "_plugged", lambda: [SimpleNamespace(name=name, load=load)])


def test_a_registered_format_is_found_and_listed():
    formats.register("mine8", FloatFormat("other", 4, 3, bias=5))
    assert formats.get("mine8").name == "mine8"
    assert "mine8" in formats.available()
    assert_same_bits(formats.get("mine8").quantize([2.0**-4]), [2.0**-4])


def test_a_registered_format_takes_modifiers_and_uses():
    formats.register("mine8", FloatFormat("other", 4, 3, bias=5))
    assert formats.get("mine8:ftz") == FloatFormat("", 4, 3, bias=5, subnormals=False)
    assert str(formats.Use.parse("mine8/sat")) == "mine8/sat"


def test_registering_the_same_format_again_is_no_error():
    formats.register("mine8", FloatFormat("a", 4, 3, bias=5))
    formats.register("mine8", FloatFormat("b", 4, 3, bias=5))
    assert formats.available().count("mine8") == 1


@pytest.mark.parametrize("name", ["fp16", "e4m3fn", "mine8", "e7m8"])
def test_a_taken_name_is_refused(name):
    formats.register("mine8", FloatFormat("a", 4, 3, bias=5))
    with pytest.raises(ValueError, match=f"format name '{name}' is taken; choose another"):
        formats.register(name, FloatFormat("a", 4, 3, bias=6))


@pytest.mark.parametrize("name", ["Mine", "8bit", "my-format", "my:format", "", "mine/sat"])
def test_a_malformed_name_is_refused(name):
    with pytest.raises(ValueError, match="expected a lower-case identifier such as 'mine8'"):
        formats.register(name, FloatFormat("a", 4, 3))


def test_an_entry_point_is_loaded_on_first_use_and_only_then(monkeypatch):
    loads = []

    def load():
        loads.append(1)
        return FloatFormat("vendor", 5, 3, bias=12)

    plug(monkeypatch, "vendor9", load)
    assert "vendor9" in formats.available()
    assert formats.get("fp16").name == "fp16"
    assert not loads
    assert formats.get("vendor9").max == math.ldexp(15, 18 - 3)
    assert formats.get("vendor9") is formats.get("vendor9")
    assert len(loads) == 1
    assert formats.available().count("vendor9") == 1


def test_an_unknown_name_suggests_plugged_in_formats(monkeypatch):
    plug(monkeypatch, "vendor9", None)
    with pytest.raises(ValueError, match="format 'vendor8' is unknown; did you mean vendor9"):
        formats.get("vendor8")


def test_built_in_names_win_over_entry_points(monkeypatch):
    plug(monkeypatch, "fp16", lambda: FloatFormat("impostor", 4, 3))
    assert formats.get("fp16").max == 65504.0


def test_the_group_is_the_documented_one(monkeypatch):
    from importlib import metadata

    monkeypatch.undo()
    asked = []
    monkeypatch.setattr(metadata, "entry_points", lambda **query: asked.append(query) or [])
    registry._plugged()
    assert asked == [{"group": "ulpsim.formats"}]


def test_modifiers_on_a_plugged_in_family_that_is_no_float_are_refused(monkeypatch):
    class Codebook(formats.Format):
        bits, max, smallest_normal, smallest_subnormal, default_overflow = 1, 1.0, 1.0, 1.0, "sat"
        name = "signs"

        def project_finite(self, integer, exponent, rounding, overflow, word=0):
            return 1.0 if integer > 0 else -1.0

        def overflows(self, integer, exponent, rounding, word=0):
            return False

        def project_special(self, x, overflow):
            return math.copysign(1.0, x)

        def code_of(self, value):
            return int(value < 0)

        def value_of(self, code):
            return -1.0 if code else 1.0

    plug(monkeypatch, "signs", Codebook)
    assert_same_bits(formats.get("signs").quantize([3.0, -0.5, 0.0]), [1.0, -1.0, 1.0])
    assert formats.get("signs").encode([3.0, -0.5]).tolist() == [0, 1]
    with pytest.raises(ValueError, match="format 'signs:ftz': modifiers apply to floats, and signs is none"):
        formats.get("signs:ftz")


def test_a_use_where_a_format_is_expected_is_named_as_such():
    with pytest.raises(ValueError, match="'fp16/sat' is a use of a format; expected a format, fp16; give the modes to"):
        formats.get("fp16/sat")
