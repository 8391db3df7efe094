"""`--explain-cost` on the command line, and what a record and an estimate say of energy and area."""

import json
import re

import pytest

pytest.importorskip("torch")

import simulator
from simulator.cost import area
from simulator.hardware import load_hardware
from simulator.run import run
from tests.oracles.formulas import evaluate

GATED = """
array: {rows: 16, columns: 16}
mac: {low: fp8_e4m3 -> fma(fp8_e4m3), high: fp8_e4m3 -> fma(fp16), zero_gating: true}
"""


def totals(text):
    """Return (cycles, energy, sum of the cycles of all items, sum of their energies) of each mode of a bill."""
    found = []
    for of_mode in re.split(r"\n\n", text.strip()):
        (cycles,) = re.findall(r"^  cycles +(\d+)$", of_mode, re.M)
        (energy,) = re.findall(r"^  energy +([\d.]+) .J, an estimate$", of_mode, re.M)
        items = [int(value) for value in re.findall(r"^    \w+ +(\d+)  ", of_mode, re.M)]
        joules = [float(value) for value in re.findall(r"^    \w+ +([\d.]+) .J  ", of_mode, re.M)]
        found.append((int(cycles), float(energy), sum(items), sum(joules)))
    return found


def test_the_main_job_explains_a_layer_in_each_of_its_modes(command, tmp_path):
    (tmp_path / "gated.yaml").write_text(GATED)
    code, out, _ = command("--hw", "gated.yaml", "--samples", 3, "--explain-cost", "fc2")
    assert code == 0
    text = out[out.index("fc2, uniform low\n") :]
    assert re.findall(r"^\w.*", text, re.M) == ["fc2, uniform low", "fc2, uniform high", "fc2, two-pass"]
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    layers = [*(record["baseline_layers"][mode][1] for mode in ("low", "high")), record["layers"][1]]
    for (cycles, energy, of_cycles, of_energy), layer in zip(totals(text), layers, strict=True):
        assert cycles == of_cycles == layer["cycles"] == sum(item["cycles"] for item in layer["cycle_items"])
        assert energy == pytest.approx(of_energy, abs=1e-4)
        assert sum(item["energy_j"] for item in layer["energy_items"]) == pytest.approx(
            layer["energy_j"], rel=1e-9, abs=0
        )
        assert 0 < layer["zero_macs"] < layer["macs"]
        for item in layer["cycle_items"]:
            assert evaluate(item["formula"]) == item["cycles"]
    assert "MACs with a zero operand: " in text


def test_an_unknown_layer_lists_the_known_ones_and_leaves_earlier_results(command, tmp_path):
    assert command("--hw", "npu", "--samples", 3)[0] == 0
    before = (tmp_path / "out" / "summary.json").read_bytes()
    code, out, err = command("--hw", "npu", "--samples", 2, "--explain-cost", "fc33")
    assert code == 2 and out == "" and (tmp_path / "out" / "summary.json").read_bytes() == before
    assert err == (
        "ulpsim: error: --explain-cost: got 'fc33', no layer of this run; expected one of fc1, fc2, fc3; did you mean "
        '"fc3"?\n'
    )
    _, _, err = command("--hw", "npu", "--samples", 2, "--explain-cost", "x")
    assert err.endswith("expected one of fc1, fc2, fc3; name one of them\n")


def test_a_record_for_programs_and_a_text_for_people_are_two_requests(command):
    message = (
        "ulpsim: error: --explain-cost: got --json beside it, whose record has it all in energy_items and cycle_items; "
        "expected one of the two; leave one out\n"
    )
    assert command("--hw", "npu", "--json", "--explain-cost", "fc1") == (2, "", message)
    product = ("estimate", "--hw", "npu", "--gemm", 4, 4, 4)
    assert command(*product, "--json", "--explain-cost") == (2, "", message)


def test_estimate_explains_a_product_and_shows_the_area(command):
    product = ("estimate", "--hw", "npu", "--gemm", 64, 64, 784, "--flagged", 0.02)
    code, out, _ = command(*product, "--explain-cost")
    assert code == 0 and out.startswith("64 x 64 x 784, uniform low\n")
    assert [(cycles, of_cycles) for cycles, _, of_cycles, _ in totals(out)] == [
        (cost.cycles, cost.cycles)
        for cost in simulator.estimate("npu", gemm=(64, 64, 784), flagged=0.02).modes.values()
    ]
    _, table, _ = command(*product)
    assert "area 0.148 mm², 0.037 to 0.592 (estimate): mul 0.00547" in table
    found = json.loads(command(*product, "--json")[1])
    assert found["area"]["area_um2"] == area(load_hardware("npu")).area_um2
    assert found["low"]["energy_items"][0]["part"] == "mul"
    assert sum(item["cycles"] for item in found["two_pass"]["cycle_items"]) == found["two_pass"]["cycles"]


def test_estimate_takes_zeros_on_a_machine_that_gates_them(command, tmp_path):
    (tmp_path / "gated.yaml").write_text(GATED)
    product = ("estimate", "--gemm", 8, 8, 8, "--json", "--zeros", 0.5, "--hw")
    assert json.loads(command(*product, "gated.yaml")[1])["low"]["zero_macs"] == 256
    code, _, err = command(*product, "npu")
    assert code == 2 and "zeros: got 0.5 for a machine without mac.zero_gating (hwconfigs/npu.yaml)" in err
    _, _, err = command("estimate", "--scalesim-cfg", "a.cfg", "--topology", "t.csv", "--zeros", 0.5)
    assert "got --zeros beside --scalesim-cfg" in err


def test_a_run_has_the_area_of_its_machine():
    record = run("npu", samples=2)
    found = area(load_hardware("npu"))
    assert (record.area_um2, record.area_low_um2, record.area_high_um2) == (
        found.area_um2, found.area_low_um2, found.area_high_um2,
    )  # fmt: skip
    assert sum(record.area_parts_um2.values()) == pytest.approx(record.area_um2)
    assert sum(item.area_um2 for item in record.area_items) == pytest.approx(record.area_um2)
