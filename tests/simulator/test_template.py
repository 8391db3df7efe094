"""A machine file as a template: its machines, each described when somebody asks, and not before."""

import copy
import pickle
from dataclasses import replace

import pytest
import yaml

from simulator.cost import Gemm, price
from simulator.hardware import configuration, load_hardware
from simulator.hardware.load import read_machine
from simulator.hardware.template import Template

NEAR = {"size": "64 KiB", "holds": ["a", "w", "o"], "read": "256 bit/cycle", "write": "128 bit/cycle"}
MEMORY = {"dram": {"bandwidth": "32 bit/cycle"}, "near": NEAR}
VARIED = [
    {},
    {"array.rows": 7, "array.columns": 100},
    {"memory": MEMORY},
    {"memory": MEMORY, "memory.near.size": "32 KiB"},
    {"memory.sram": NEAR},
    {"mac": {"low": "fp8_e4m3 -> fma(fp16)", "high": "fp8_e4m3 -> fma(fp32)"}, "policy": {}},
    {"mac.low.operands": ["fp8_e4m3", "fp8_e5m2"]},
    {"policy": {"tolerance": 1.5}, "technology": {"frequency": "2 GHz"}, "layers": {"fc*": "high"}},
]


@pytest.fixture(scope="module")
def npu():
    return Template("npu")


@pytest.fixture
def undescribed(monkeypatch):
    """No configuration may be worked out."""

    def refuse(*_):
        raise AssertionError("a configuration was worked out")

    monkeypatch.setattr(configuration, "derived_values", refuse)


@pytest.fixture
def written(tmp_path):
    """Returns the machine of npu's file with these values written into it."""

    def write(values):
        data = read_machine("npu").document.data
        for key, value in values.items():
            *above, last = key.split(".")
            inner = data
            for name in above:
                inner = inner[name]
            inner[last] = copy.deepcopy(value)
        path = tmp_path / "npu.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        return load_hardware(path)

    return write


@pytest.mark.parametrize("values", VARIED)
def test_a_machine_is_that_of_a_file_with_its_values(npu, written, values):
    varied, expected = npu.machine(values), written(values)
    assert varied == replace(expected, source=varied.source)
    shown, same = (
        {at: setting.value for at, setting in machine.configuration.items() if setting.value != {}}
        for machine in (varied, expected)
    )
    assert shown == same


@pytest.mark.parametrize("values", VARIED)
def test_a_configuration_says_what_was_varied_and_else_what_the_file_says(npu, values):
    plain, given = load_hardware("npu").configuration, {tuple(key.split(".")) for key in values}
    for at, setting in npu.machine(values).configuration.items():
        if any(at[:depth] in given for depth in range(1, len(at) + 1)):
            assert "hwconfigs/npu.yaml" not in setting.origin
        elif at in plain and plain[at].origin.startswith("hwconfigs/npu.yaml"):
            assert setting.origin == plain[at].origin


def test_a_machine_that_is_priced_is_not_described(npu, undescribed):
    machine = npu.machine({"array.rows": 9})
    for mode, flags in (("low", None), ("high", None), ("two_pass", 0.05)):
        assert price(machine, Gemm(50, 60, 70), mode, flags).cycles
    assert machine == replace(machine)
    with pytest.raises(AssertionError, match="was worked out"):
        len(machine.configuration)


@pytest.mark.parametrize("values", VARIED)
def test_a_configuration_is_the_same_whenever_it_is_read(npu, values):
    early, late, copied, pickled = (npu.machine(values) for _ in range(4))
    expected = dict(early.configuration)
    assert early == late
    assert dict(copy.deepcopy(copied).configuration) == expected
    read, unread = (pickle.loads(pickle.dumps(machine)) for machine in (early, pickled))
    assert read == unread == early
    assert read.configuration == unread.configuration == expected
    assert late.configuration == expected
    assert list(late.configuration) == list(expected)


def test_a_pickle_holds_settings_and_nothing_of_the_file(npu):
    read, unread = npu.machine({"array.rows": 9}), npu.machine({"array.rows": 9})
    assert len(read.configuration)
    pickled = pickle.dumps(unread)
    assert pickled == pickle.dumps(read)
    assert not any(room in pickled for room in (b"pydantic", b"hardware.schema", b"hardware.document"))


def test_what_is_changed_later_is_not_seen(npu):
    values = {"memory": copy.deepcopy(MEMORY), "mac.low.operands": ["fp8_e4m3", "fp8_e4m3"], "array.rows": 9}
    machine, expected = npu.machine(values), dict(npu.machine(copy.deepcopy(values)).configuration)
    values["memory"]["near"]["size"] = "1 KiB"
    values["mac.low.operands"][1] = "fp16"
    values["array.rows"] = 10
    npu.machine({"array.rows": 11})
    assert dict(machine.configuration) == expected


def test_a_value_of_the_user_stays_as_it_is(npu):
    memory = copy.deepcopy(MEMORY)
    npu.machine({"memory": memory, "memory.near.size": "32 KiB"})
    assert memory == MEMORY


def test_a_tolerance_of_the_run_is_said_of_a_varied_machine(npu):
    found = npu.machine({"array.rows": 9}).with_tolerance(2.0).configuration
    assert (found["policy", "tolerance"].value, found["array", "rows"].value) == (2.0, 9)


def test_machines_share_their_technology_table(npu):
    """So that what is cached by table finds it at once."""
    first, second = npu.machine({"array.rows": 3}), npu.machine({"array.rows": 4})
    assert first.technology.table is second.technology.table
    given = npu.machine({"technology.overrides": {"dram_j_per_bit": "1 pJ/bit"}}).technology.table
    assert given.dram_j_per_bit.value == 1e-12 != first.technology.table.dram_j_per_bit.value
    scaled = [Template("eyeriss_like").machine({"array.rows": rows}).technology.table for rows in (3, 4)]
    assert scaled[0] is scaled[1]
