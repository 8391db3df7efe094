"""The JSON schema of machine files: true of every file that loads, and able to say no."""

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.hardware import bundled_names, load_hardware
from simulator.hardware.json_schema import json_schema
from simulator.hardware.quantities import UNITS
from simulator.hardware.schema import MachineFile
from simulator.hardware.sections import (
    check_of,
    default_of,
    default_words,
    example_of,
    fields_of,
    named_section,
    section_of,
)
from tests.oracles.json_schema import problems

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "hwconfigs" / "schema.json").read_text())
SHORT = {"array": {"rows": 16, "columns": 16}, "mac": {"low": "fma(fp8_e4m3)"}}


def all_sections(section=MachineFile, seen=None):
    seen = {} if seen is None else seen
    if section is not None and section not in seen:
        seen[section] = None
        for field in fields_of(section).values():
            all_sections(section_of(field), seen)
        all_sections(named_section(section), seen)
    return seen


FIELDS = [
    (f"{section.__name__}.{key}", field) for section in all_sections() for key, field in fields_of(section).items()
]
PLAIN = [(name, field) for name, field in FIELDS if section_of(field) is None]


def with_key(path, value):
    """The shortest file with one more key."""
    data = json.loads(json.dumps(SHORT))
    *parents, last = path
    place = data
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return data


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", bundled_names())
def test_every_bundled_machine_is_valid(name):
    assert list(problems(SCHEMA, yaml.safe_load((ROOT / "hwconfigs" / f"{name}.yaml").read_text()))) == []


def test_the_other_validator_agrees():
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft7Validator(SCHEMA)
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    files = [yaml.safe_load(path.read_text()) for path in (ROOT / "hwconfigs").glob("*.yaml")]
    for data in (*files, *(with_key(path, value) for path, value in REFUSED), {}, {"array": {}}):
        assert validator.is_valid(data) == (not list(problems(SCHEMA, data)))


ACCEPTED = [
    (("mac", "low"), {"accumulator": {"fma": "fp16"}, "operands": ["fp8_e4m3", "fp8_e5m2"], "energy": "0.4 pJ"}),
    (("array", "latency"), "4  cycles"),
    (("array", "dataflow"), "dot"),
    (("memory",), {"dram": {"bandwidth": "204.8 bit/cycle"}, "l1": {"size": "1 MiB", "holds": ["a", "w", "o"],
                                                                  "read": "8 B/cycle", "write": "8 B/cycle"}}),
    (("layers",), {"fc*": "high", "conv": {"activations": "row", "weights": {"per": "block", "block": 32}}}),
    (("technology", "frequency"), ".5 GHz"),
]  # fmt: skip
REFUSED = [
    (("memroy",), {}),
    (("array", "dataflw"), "ws"),
    (("array", "rows"), 0),
    (("array", "rows"), "16"),
    (("array", "rows"), True),
    (("array", "dataflow"), "WS"),
    (("array", "latency"), "4 ns"),
    (("array", "latency"), "4"),
    (("technology", "frequency"), "1 ghz"),
    (("technology", "frequency"), 1e9),
    (("mac", "low"), {"operands": "fp8_e4m3"}),
    (("mac", "low"), {"accumulator": "fma(fp16)", "energy": "none"}),
    (("mac", "datapath"), None),
    (("memory",), {"sram": {"size": "1 KiB"}}),
    (("memory",), {"dram": {"bandwidth": "1 GB/s"}, "l1": {"size": "1 MiB", "holds": ["psum", "a"]}}),
    (("layers",), {"fc*": {"mca": "high"}}),
    (("policy",), {"tolerance": -1}),
    (("batch_norm",), True),
    (("schema",), 2),
]


@pytest.mark.parametrize(("path", "value"), ACCEPTED, ids=str)
def test_what_a_file_may_say_is_valid(path, value):
    assert list(problems(SCHEMA, with_key(path, value))) == []


@pytest.mark.parametrize(("path", "value"), REFUSED, ids=str)
def test_what_no_file_may_say_is_not(path, value, tmp_path):
    data = with_key(path, value)
    assert list(problems(SCHEMA, data))
    (tmp_path / "m.yaml").write_text(json.dumps(data))
    with pytest.raises(ValueError):
        load_hardware(tmp_path / "m.yaml")


def test_required_keys_are_required():
    for path in (("array",), ("mac",), ("array", "rows"), ("array", "columns"), ("mac", "low")):
        data = json.loads(json.dumps(SHORT))
        place = data
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
        assert list(problems(SCHEMA, data)), path


# --- keys -----------------------------------------------------------------------------------------------------------


def test_every_check_says_what_it_takes():
    assert [name for name, field in PLAIN if check_of(field) is None] == []
    assert [name for name, field in FIELDS if not field.description or len(field.examples or []) != 1] == []


@pytest.mark.parametrize(("name", "field"), PLAIN, ids=[name for name, _ in PLAIN])
def test_the_example_of_a_key_is_taken(name, field):
    check_of(field).read(example_of(field))


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=[name for name, _ in FIELDS])
def test_the_default_of_a_key_is_what_it_is_without(name, field):
    """As a value of the file, or in words of the schema."""
    value = default_of(field)
    if value is None:
        assert field.is_required() or "without" in (field.json_schema_extra or {}), f"{name}: say what holds without it"
    else:
        assert check_of(field).read(value) == field.default
        assert default_words(field) == (str(value).lower() if isinstance(value, bool) else str(value))


TEXTS = [
    "auto", "ws", "os", "none", "fp16", "fma(fp16)", "chunk(16, fma(fp16), seq(fp32))", "high", "low", "tensor",
    ".5 GHz", "1 cycle", "1  cycles", "2 ns", " 3 pJ/bit ", "+4 pJ", "5. B/s", "1e3 bit/cycle", "8 KiB", "7 nm", "0 W",
    "9 MAC/cycle", "jouppi2021_7nm", "psum", "npu", "two_pass", "uniform", "int8", "1 µs", "1 us", "1 J", "x" * 101, "",
]  # fmt: skip
ANY = st.one_of(
    st.sampled_from([*TEXTS, *(example_of(field) for _, field in PLAIN)]),
    st.one_of(st.integers(-2, 2**21), st.floats(), st.booleans(), st.none()),
    st.lists(st.sampled_from(["a", "w", "o", "psum", "fp16", "int8"]), max_size=4),
    st.builds(
        "{} {}".format, st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["GHz", "pJ", "cycle"])
    ),
)
CHECKS = {check_of(field): name for name, field in PLAIN}


@settings(deadline=None, max_examples=150)
@given(ANY)
def test_what_a_key_takes_is_valid(value):
    """Of every key: the schema marks nothing that the loader accepts."""
    for check, name in CHECKS.items():
        try:
            check.read(value)
        except ValueError:
            continue
        assert list(problems(dict(check.form), value)) == [], name


def test_every_unit_is_in_the_pattern_of_its_dimension():
    pattern = SCHEMA["definitions"]["Dram"]["properties"]["bandwidth"]["pattern"]
    for unit in (*UNITS["bandwidth"], *UNITS["bandwidth per cycle"]):
        assert re.search(pattern, f"1.5 {unit}")
    assert not re.search(pattern, "1.5 pJ") and not re.search(pattern, "1.5GB/s")


def test_the_schema_is_that_of_the_models():
    assert json.loads(json.dumps(json_schema())) == SCHEMA
    assert SCHEMA["additionalProperties"] is False
    assert all("additionalProperties" in one for one in SCHEMA["definitions"].values())
    energy = SCHEMA["definitions"]["Dram"]["properties"]["energy"]
    assert energy["default"] == "auto" and energy["description"].startswith(
        "energy per bit moved. Takes: energy per bit (0 J"
    )
