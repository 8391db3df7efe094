"""Fidelities in estimates, in runs and on the command line; traces."""

import json
import math
import shlex
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from simulator.cost import Gemm, estimate, price, timeline
from simulator.errors import InputError
from simulator.hardware import load_hardware

NPU = load_hardware("npu")
NARROW = """
name: narrow
array: {rows: 8, columns: 8}
mac:
  low: {operands: fp8_e4m3/sat, accumulator: fma(fp8_e4m3/sat), rate: "4 MAC/cycle"}
  high: {operands: fp8_e4m3/sat, accumulator: fma(fp16/sat)}
memory:
  dram: {bandwidth: "64 bit/cycle", latency: "40 cycles"}
  sram: {size: "16 KiB", read: "256 bit/cycle", write: "64 bit/cycle", banks: 1}
  accumulators: {size: "8 KiB"}
side_engine: {lanes: 16, queue: 2}
"""


@pytest.fixture
def narrow(tmp_path):
    path = tmp_path / "narrow.yaml"
    path.write_text(NARROW)
    return path


def command(*words):
    return subprocess.run(
        [sys.executable, "-m", "simulator", "estimate", *map(str, words)], capture_output=True, text=True, check=False
    )


def test_every_cause_of_a_stall_shows(narrow):
    machine = load_hardware(narrow)
    cost = price(machine, Gemm(128, 128, 128), "two_pass", 0.3, fidelity="event")
    assert {part for part, cycles in cost.cycle_parts.items() if cycles} >= {
        "compute", "load", "fill", "drain", "bank_stall", "transfer_stall", "latency_stall", "queue_stall", "gather",
    }  # fmt: skip
    slow_port = replace(
        machine.memory.buffers[0], read_bits_per_cycle=machine.memory.buffers[0].read_bits_per_cycle / 8
    )
    parts = price(
        replace(machine, memory=replace(machine.memory, buffers=(slow_port,))), Gemm(128, 128, 128), "low",
        fidelity="event",
    ).cycle_parts  # fmt: skip
    assert parts["port_stall"] > 0
    # A single copy of a tile makes each load wait; a second one takes these stalls away.
    stalls = {}
    for buffers in (1, 2):
        level = replace(machine.memory.buffers[0], buffers=buffers, size_bits=buffers * 8 * 8192, banks=None)
        one = replace(machine, memory=replace(machine.memory, buffers=(level,)))
        stalls[buffers] = price(one, Gemm(512, 64, 64), "low", fidelity="event").cycle_parts["buffer_stall"]
    assert stalls[1] > stalls[2] == 0


def test_energy_follows_the_cycles(narrow):
    machine = load_hardware(narrow)
    costs = [price(machine, Gemm(128, 128, 128), "low", fidelity=f) for f in ("roofline", "analytic", "event")]
    assert costs[0].cycles < costs[1].cycles < costs[2].cycles
    idle = [cost.energy_parts_j["idle"] for cost in costs]
    assert idle == sorted(idle) and idle[0] < idle[2]
    for part in ("mul", "acc", "register", "sram", "dram"):
        assert len({cost.energy_parts_j[part] for cost in costs}) == 1
    assert costs[0].roofline_bound in ("compute", "dram", "sram read", "sram write")


def test_estimates_and_timelines_are_of_one_walk(narrow):
    found = estimate(narrow, gemm=(96, 64, 200), flagged=0.1, fidelity="event")
    machine = load_hardware(narrow)
    for cost, flags in ((found.low, None), (found.high, None), (found.two_pass, 0.1)):
        events = timeline(machine, found.gemm, cost.mode, flags)
        array = [event for event in events if event.resource == "MAC array"]
        assert sum(event.end - event.start for event in array) + cost.cycle_parts.get("gather", 0) == cost.cycles
        engine = {event.resource for event in events} >= {"side engine"}
        assert engine == (cost.mode == "two_pass")
    side_by_side = next(kind for kind in found.gathers if kind.own)
    assert side_by_side.cycles == estimate(narrow, gemm=(96, 64, 200), flagged=0.1).two_pass.cycles


def test_a_second_pass_on_the_array_follows_in_the_timeline():
    machine = replace(NPU, policy=replace(NPU.policy, gather="tile", runs_on="array", overlap="none"), side_engine=None)
    mask = np.zeros((64, 64), bool)
    mask[3, 5] = True
    cost = price(machine, Gemm(64, 64, 64), "two_pass", mask, fidelity="event")
    last = timeline(machine, Gemm(64, 64, 64), "two_pass", mask)[-1]
    assert (last.what, last.resource, last.end) == ("recompute", "MAC array", cost.cycles)
    assert cost.cycle_parts["gather"] + cost.cycle_parts["switch"] == last.end - last.start


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: price(NPU, Gemm(2, 2, 2), "low", fidelity="exact"),
            "fidelity: got 'exact'; expected one of roofline, analytic, event; choose one",
        ),
        (
            lambda: price(NPU, Gemm(30000, 30000, 2000), "low", fidelity="event"),
            "expected at most 100000, which it walks over one by one; use analytic",
        ),
    ],
)
def test_what_a_fidelity_cannot_do_is_refused_by_name(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert message in str(caught.value)


def test_counts_of_scalesim_have_no_tiles(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text('array: {rows: 8, columns: 8, compat: scalesim3}\nmac: {low: "int8 -> fixed(32, 0, wrap)"}\n')
    machine = load_hardware(path)
    with pytest.raises(InputError, match=r"got fidelity roofline, which SCALE-Sim's counts do not have"):
        price(machine, Gemm(9, 9, 9), "low", fidelity="roofline")
    with pytest.raises(InputError, match=r"array.compat: scalesim3: got fidelity event, .* expected analytic"):
        price(machine, Gemm(9, 9, 9), "low", fidelity="event")


# --- the command ------------------------------------------------------------------------------------------------------


def test_a_trace_has_a_row_for_each_resource_and_all_events(narrow, tmp_path):
    path = tmp_path / "trace.json"
    path.write_text("an earlier one")
    done = command("--hw", narrow, "--gemm", 96, 64, 200, "--flagged", 0.1, "--fidelity", "event", "--trace", path)
    assert done.returncode == 0, done.stderr
    assert "fidelity event" in done.stdout and "transfer_stall" in done.stdout and f"Trace in {path}" in done.stdout
    trace = json.loads(path.read_text())
    assert trace["otherData"]["hardware"] == "narrow"
    records = trace["traceEvents"]
    processes = {r["pid"]: r["args"]["name"] for r in records if r["name"] == "process_name"}
    assert list(processes.values()) == ["low", "high", "two_pass"]
    rows = {(r["pid"], r["tid"]): r["args"]["name"] for r in records if r["name"] == "thread_name"}
    assert set(rows.values()) == {"dram", "MAC array", "side engine"}
    machine = load_hardware(narrow)
    for pid, mode in processes.items():
        flags = 0.1 if mode == "two_pass" else None
        events = timeline(machine, Gemm(96, 64, 200), mode, flags)
        written = [r for r in records if r["ph"] == "X" and r["pid"] == pid]
        assert [(r["name"], r["ts"], r["ts"] + r["dur"], rows[pid, r["tid"]]) for r in written] == [
            (event.what, event.start, event.end, event.resource) for event in events
        ]
        first = next(event for event in events if event.what == "compute")
        assert written[events.index(first)]["args"] == {"gemm": 0, "m": 0, "n": 0, "k": 0}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["narrow.yaml", "trace.json"]


def test_the_page_of_a_run_names_the_command_of_a_timeline_of_its_slowest_layer(narrow, tmp_path):
    pytest.importorskip("torch")
    from simulator.report import render
    from simulator.run import run

    for machine, given in (("npu", "npu"), (narrow, str(narrow))):
        record = run(machine, samples=3)
        fc1 = record.layers[0]
        share = f"{fc1.flagged_outputs / (3 * 784):.3g}"
        words = ["--hw", given, "--gemm", "3", "784", "784", "--flagged", share, "--fidelity", "event", "--trace"]
        expected = shlex.join(("python", "-m", "simulator", "estimate", *words, "timeline.json"))
        assert f"<code>{expected}</code>" in render(record)
        path = tmp_path / "timeline.json"
        assert command(*words, path).returncode == 0 and json.loads(path.read_text())["traceEvents"]


def test_a_roofline_names_what_binds_it():
    done = command("--hw", "npu", "--gemm", 512, 512, 512, "--fidelity", "roofline")
    assert done.returncode == 0, done.stderr
    assert "fidelity roofline" in done.stdout and "bound by" in done.stdout
    found = json.loads(command("--hw", "npu", "--gemm", 512, 512, 512, "--fidelity", "roofline", "--json").stdout)
    assert found["low"]["cycles"] == found["low"]["roofline_cycles"] == 512**3 // 1024
    assert found["low"]["fidelity"] == "roofline"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trace", "t.json"], "--trace: got fidelity analytic, which knows no events"),
        (["--fidelity", "event", "--trace", "t.txt"], "expected the name of a JSON file; write t.json"),
        (["--fidelity", "event", "--trace", "nowhere/t.json"], "nowhere/t.json: cannot be written"),
    ],
)
def test_a_trace_that_cannot_be_is_refused(words, message, tmp_path):
    done = command("--hw", "npu", "--gemm", 8, 8, 8, *words)
    assert done.returncode == 2
    assert message in done.stderr


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_run_is_billed_in_a_fidelity_with_its_own_flags(monkeypatch):
    pytest.importorskip("torch")
    from simulator.cost import event
    from simulator.run import run

    analytic, walked, bound = (run("npu", samples=3, fidelity=f) for f in ("analytic", "event", "roofline"))
    assert (analytic.fidelity, walked.fidelity, bound.fidelity) == ("analytic", "event", "roofline")
    for one, other, least in zip(analytic.layers, walked.layers, bound.layers, strict=True):
        assert one.recomputed_outputs == other.recomputed_outputs
        assert least.cycles == one.roofline_cycles <= other.cycles <= one.cycles
        assert sum(other.cycle_parts.values()) == other.cycles
        assert "queue_stall" in other.cycle_parts and "memory_stall" in one.cycle_parts
    assert not any(text.startswith("fidelity") for record in (analytic, walked, bound) for text in record.warnings)
    monkeypatch.setattr(event, "LARGEST_WALK", 0)
    refused = run("npu", samples=3, fidelity="event")
    assert [layer.cycles for layer in refused.layers] == [layer.cycles for layer in analytic.layers]
    assert any(text.startswith("fc1: fidelity: got event for ") for text in refused.warnings)


@pytest.mark.parametrize("fraction", [0.03, 0.77, 1.0])
@pytest.mark.parametrize("shape", [(257, 64, 784), (64, 33, 9), (80, 64, 100)])
def test_flags_of_a_fraction_are_those_that_a_tile_can_hold(shape, fraction):
    """Of a partial tile at the end no more than it has, and all of the engine's work: as with a mask of as many."""
    gemm, engine = Gemm(*shape), NPU.side_engine.lanes
    counted = price(NPU, gemm, "two_pass", fraction, fidelity="event")
    m, n, k = shape
    least = math.ceil(counted.flagged_outputs * k / engine)
    assert counted.cycles >= max(counted.roofline_cycles, least)
    mask = np.zeros((m, n), bool).reshape(-1)
    mask[: counted.flagged_outputs] = True
    spread = np.random.default_rng(1).permutation(mask).reshape(m, n)
    assert counted.cycles == pytest.approx(price(NPU, gemm, "two_pass", spread, fidelity="event").cycles, rel=0.05)
    assert all(item.count >= 0 for item in counted.energy_items)
