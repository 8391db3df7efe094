"""The bundled machines: numbers have sources, peak rates are the published ones, and each runs the main job."""

import math
import re
from pathlib import Path

import pytest

from simulator.arithmetic.presets import LABELS, presets
from simulator.arithmetic.spec import mac
from simulator.cost import Gemm, price
from simulator.hardware import bundled_names, load_hardware

ROOT = Path(__file__).parents[2]
FILES = {name: (ROOT / "hwconfigs" / f"{name}.yaml").read_text() for name in bundled_names()}
every_machine = pytest.mark.parametrize("name", FILES)

# A number by itself: neither part of a name (fp8, fix16.8) nor of a comment.
NUMBER = re.compile(r"(?<![\w.])\d")
# A work by its year or its number in arXiv or at a standards body; a file defines abbreviations of its own as `"X" is`.
WORK = re.compile(r"\b(19|20)\d\d\b|arXiv \d{4}\.\d{4,5}|JESD\d+|OCP .*\d\.\d")
ABBREVIATION = re.compile(r'"([^"]+)" is\b')

# Peak rates as published, in 10^12 operations a second, two for a MAC: by mode.
PEAKS = {
    "tpu_v1": {"low": 92},  # Jouppi et al., ISCA 2017, table 2
    "tpu_v4i_like": {"low": 138},  # Jouppi et al., ISCA 2021, table 1
    "nvidia_v100": {"low": 125},  # white paper V100, table 1
    "nvidia_a100": {"low": 312},  # white paper A100, table 4
    "nvidia_h100": {"low": 1979, "high": 989},  # white paper H100, table 3, dense
    "eyeriss_like": {"low": 0.0672},  # 33.6 GMAC/s; Chen et al., JSSC 2017, section VI
}

# The mlp in float32 has 97.3 % of all digits right.
FLOOR = 0.96


def header(name):
    """Return the comment lines at the top of a file as one text."""
    lines = FILES[name].splitlines()
    top = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    return " ".join(line.removeprefix("#").strip() for line in top)


@every_machine
def test_every_line_with_a_number_says_where_it_is_from(name):
    known = ABBREVIATION.findall(header(name))
    unsourced = []
    for line in FILES[name].splitlines():
        said, _, comment = line.partition("#")
        if not NUMBER.search(said) or said.startswith("schema:"):
            continue
        sourced = "assumed" in comment or WORK.search(comment) or any(work in comment for work in known)
        if not sourced:
            unsourced.append(line)
    assert not unsourced


@every_machine
def test_the_first_lines_say_what_is_known_and_what_is_approximated(name):
    text = header(name)
    assert re.search(rf"Numerics: .{{,80}}({'|'.join(LABELS)})", text)
    assert "Approximated: " in text or "An imaginary machine: sizes are assumed" in text


@every_machine
def test_a_unit_of_real_hardware_keeps_its_order_and_shows_its_evidence(name):
    machine, text = load_hardware(name), header(name)
    modes = [mode for mode in (machine.mac.low, machine.mac.high) if mode]
    for mode, called in zip(modes, re.findall(r"^    accumulator: (\S+)", FILES[name], re.M), strict=True):
        if called in presets():
            assert mode.spec.accumulator == mac(called).accumulator
            label = presets()[called].outputs["fp32"].label
            assert re.search(rf"{re.escape(called)},.{{,30}} {label}|{re.escape(called)}, {label}", text)


@pytest.mark.parametrize(("name", "mode", "peak"), [(name, *item) for name, of in PEAKS.items() for item in of.items()])
def test_the_peak_rate_is_the_published_one(name, mode, peak):
    machine = load_hardware(name)
    array, unit = machine.array, getattr(machine.mac, mode)
    rate = 2 * array.rows * array.columns * array.copies * unit.rate / unit.passes * machine.technology.frequency_hz
    assert rate / 1e12 == pytest.approx(peak, rel=0.004)


@pytest.mark.parametrize("name", [name for name in PEAKS if name.startswith(("nvidia", "tpu_v4i"))])
def test_a_large_product_keeps_hundreds_of_units_busy(name):
    # Real libraries come near the peak on such products; what keeps a model from it would be the choice of its tiles.
    cost = price(load_hardware(name), Gemm(8192, 8192, 8192), "low")
    assert 0.8 < cost.utilisation <= 1
    assert cost.cycles >= cost.roofline_cycles


@every_machine
def test_the_readme_lists_the_machine(name):
    table = (ROOT / "hwconfigs" / "README.md").read_text()
    assert len(re.findall(rf"^\| `{name}\.yaml` \| .+ \|$", table, re.M)) == 1


def check_main_job(name, samples, floor):
    pytest.importorskip("torch")
    from simulator.run import run

    machine, record = load_hardware(name), run(name, samples=samples)
    modes = ["low"] + ["high"] * (machine.mac.high is not None) + ["two_pass"] * (machine.policy is not None)
    assert {mode: total is not None for mode, total in record.totals.items()} == {
        mode: mode in modes for mode in ("low", "high", "two_pass")
    }
    for mode in modes:
        assert record.accuracy[mode] >= floor, mode
        total = record.totals[mode]
        assert math.isfinite(total["energy_j"])
        assert 0 < total["energy_low_j"] <= total["energy_j"] <= total["energy_high_j"] < math.inf
    assert len(record.layers) == 3
    for layers in (record.layers, *record.baseline_layers.values()):
        for layer in layers:
            assert 0 < layer.roofline_cycles <= layer.cycles < 2**53
            assert sum(layer.cycle_parts.values()) == layer.cycles
            assert layer.latency_s == pytest.approx(layer.cycles / machine.technology.frequency_hz)
            assert sum(layer.energy_parts_j.values()) == pytest.approx(layer.energy_j)
            assert 0 < layer.energy_j < math.inf


@every_machine
def test_the_main_job_runs(name):
    check_main_job(name, 48, 0.93)  # three mistakes


@pytest.mark.full
@every_machine
def test_the_main_job_gets_all_digits_about_as_often_right_as_float32(name):
    check_main_job(name, None, FLOOR)
