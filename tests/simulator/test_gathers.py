"""A two-pass run shows the four gathers with its own flags, and its bits follow from the array that it is priced on."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rich.console import Console  # noqa: E402
from torch import nn  # noqa: E402

import simulator  # noqa: E402
from formats import Use  # noqa: E402
from simulator.arithmetic import Criterion  # noqa: E402
from simulator.cost import Gemm, estimate, price  # noqa: E402
from simulator.cost.gathers import GATHERS, with_gather  # noqa: E402
from simulator.hardware import Array, SideEngine, load_hardware  # noqa: E402
from simulator.network.emulation import Emulation  # noqa: E402
from simulator.report import print_run, render, to_json  # noqa: E402

NPU = load_hardware("npu")


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(2, 20, 3), nn.ReLU(), nn.Flatten(), nn.Linear(720, 33), nn.Tanh(), nn.Linear(33, 5))


def emulated(model, x, machine):
    with Emulation(model, machine) as run:
        outputs = model(x)
    return outputs, run.result


# --- side by side -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [1, 3])
def test_each_gather_is_that_of_a_run_with_its_policy(batches):
    model, x = network(), rand(6, 2, 8, 8)
    with Emulation(model, NPU) as run:
        outputs = torch.cat([model(part) for part in x.chunk(batches)])
    record = run.result
    whole = [one for one in record.gathers if one.layer is None]
    assert [one.gather for one in record.gathers[:4]] == [one.gather for one in whole] == list(GATHERS)
    assert len(record.gathers) == 4 * (1 + len(record.layers))
    for kind in whole:
        other, own = emulated(model, x, with_gather(NPU, kind.gather))
        assert torch.equal(other, outputs)
        layers = [one for one in record.gathers if one.layer is not None and one.gather == kind.gather]
        assert [one.layer for one in layers] == [layer.name for layer in own.layers]
        for one, layer in zip(layers, own.layers, strict=True):
            assert (one.cycles, one.energy_j, one.flagged_outputs) == (
                layer.cycles, layer.energy_j, layer.recomputed_outputs,
            )  # fmt: skip
            assert one.waste_factor == layer.waste_factor
            assert one.outputs == layer.gemms * layer.m * layer.n
            high = price(NPU, Gemm(layer.m, layer.n, layer.k, layer.gemms, layer.a_words), "high")
            assert one.energy_vs_high == pytest.approx(layer.energy_j / high.energy_j)
            alone = estimate(with_gather(NPU, kind.gather), Gemm(layer.m, layer.n, layer.k, layer.gemms, layer.a_words))
            assert one.break_even_flagged == pytest.approx(alone.break_even_flagged)
        assert kind.cycles == sum(layer.cycles for layer in own.layers)
        assert kind.energy_j == pytest.approx(sum(layer.energy_j for layer in own.layers))
        assert kind.recomputed_outputs == sum(one.recomputed_outputs for one in layers)
        least, most = (f(one.break_even_flagged for one in layers) for f in (min, max))
        assert least - 1e-12 <= kind.break_even_flagged <= most + 1e-12


def test_the_layers_of_the_modes_are_what_the_gathers_are_compared_with():
    record = simulator.evaluate(network(), NPU, rand(9, 2, 8, 8))
    own, both, high = record.gathers[0], record.layers, record.baseline_layers["high"]
    assert own.cycles == sum(layer.cycles for layer in both)
    assert own.cycles_vs_high == pytest.approx(own.cycles / sum(layer.cycles for layer in high))
    assert own.energy_vs_high == pytest.approx(own.energy_j / sum(layer.energy_j for layer in high))


def test_steps_of_a_recurrent_layer_are_one_layer_and_modes_without_flags_none():
    torch.manual_seed(0)
    model, x = nn.GRU(6, 7, batch_first=True), rand(3, 4, 6)
    with Emulation(model, NPU) as run:
        model(x)[0].sum().backward()
    record = run.result
    forward = [layer for layer in record.layers if layer.phase == "forward"]
    assert {one.layer for one in record.gathers} == {None, *(layer.name for layer in forward)}
    for layer in forward:
        own = next(one for one in record.gathers if one.layer == layer.name and one.own)
        assert (own.cycles, own.flagged_outputs) == (layer.cycles, layer.recomputed_outputs)
        assert own.energy_j == pytest.approx(layer.energy_j)
        assert layer.waste_factor == 1.0
    assert all(layer.waste_factor is None for layer in record.layers if layer.phase != "forward")
    with Emulation(model, NPU, default="high") as run:
        model(x)
    assert run.result.gathers == ()
    with Emulation(model, NPU, {"*": "fp8_e4m3 -> fma(fp16)"}) as run:
        model(x)
    assert run.result.gathers == ()


def test_a_gather_that_the_machine_lacks_is_shown_with_the_reason():
    engine = SideEngine(64, replace(NPU.array, rows=8, columns=8))
    machine = replace(NPU, side_engine=engine, policy=replace(NPU.policy, gather="coltile"))
    record = simulator.evaluate(network(), machine, rand(5, 2, 8, 8))
    element, row, coltile, tile = record.gathers[:4]
    assert element.obstacle == "needs a side engine of kind dot"
    assert (element.cycles, element.waste_factor, element.break_even_flagged) == (None, None, None)
    assert [one.runs_on for one in (row, coltile, tile)] == ["side_engine"] * 3
    assert coltile.own and not row.own
    assert 1.0 <= coltile.waste_factor <= row.waste_factor
    console = Console(file=io.StringIO(), width=100)
    print_run(record, console)
    text = console.file.getvalue()
    assert "element needs a side engine of kind dot." in " ".join(text.split()).replace("Element", "element")
    page = render(record)
    assert page.count("needs a side engine of kind dot") == 2 + len(record.layers)  # rows, and the sentence
    assert json.loads(to_json(record))["gathers"][0]["cycles"] is None


def test_the_reports_show_waste_break_even_and_what_beats_uniform_high():
    record = simulator.evaluate(network(), NPU, rand(40, 2, 8, 8))
    console = Console(file=io.StringIO(), width=100)
    print_run(record, console)
    text = console.file.getvalue()
    row = next(line for line in text.splitlines() if line.startswith("coltile"))
    coltile = record.gathers[2]
    assert f"{coltile.waste_factor:#.3g}".rstrip(".") in row.split()
    assert f"{100 * coltile.break_even_flagged:.2f}" in row.split()
    better = [one.gather for one in record.gathers[:4] if one.energy_vs_high < 1]
    assert f"Less energy than uniform high: {', '.join(better) or 'none'}" in " ".join(text.split())
    assert all(len(line) <= 100 for line in text.splitlines())
    page = render(record)
    assert "Gathering flagged outputs" in page
    assert page.count('<td class="left">element *</td>') == 1 + len(record.layers)
    assert page.count(f'<th scope="rowgroup" rowspan="{len(GATHERS)}">') == 1 + len(record.layers)
    share = f"{100 * coltile.flagged_outputs / coltile.outputs:.1f} %"
    assert f"{share} flagged" in page and f"{share} of the outputs are flagged" in text
    of_analytic = "Cycles here are analytic"
    assert of_analytic not in page and of_analytic not in text
    walked = replace(record, fidelity="event")
    print_run(walked, console)
    assert f"{of_analytic}, not of fidelity event.\n" in console.file.getvalue()
    assert f"{of_analytic}, and not of the fidelity event." in render(walked)
    assert "Gathering" not in render(replace(record, gathers=()))


# --- scores with a side metric ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "metric"), [("kappa_full", "abs_sum"), ("kappa_full", "second_pass"), ("norm2", "norm_bound")]
)
def test_a_score_with_a_side_metric_is_computed_and_priced(score, metric, tmp_path):
    path = tmp_path / "m.yaml"
    side_format = ", side_format: fp16" if metric == "abs_sum" else ""
    path.write_text(
        "array: {rows: 8, columns: 8}\n"
        "mac: {low: fp8_e4m3 -> fma(fp8_e4m3), high: fp8_e4m3 -> fma(fp16)}\n"
        f"policy: {{score: {score}, side_metric: {metric}{side_format}, tolerance: 5}}\n"
    )
    model, x = nn.Linear(12, 9), rand(20, 12)
    machine = load_hardware(path)
    with simulator.emulate(model, machine) as run:
        y = model(x)
    operands = x.numpy(), model.weight.detach().numpy().T, model.bias.detach().numpy()
    rule = Criterion(5, score, side_format=Use.parse("fp16") if side_format else None)
    low, high = machine.mac.low.spec, machine.mac.high.spec
    expected = simulator.two_pass(*operands[:2], low, high, c=operands[2], criterion=rule)
    assert np.array_equal(y.detach().numpy(), expected.output.astype(np.float32))
    (layer,) = run.result.layers
    assert 0 < layer.recomputed_outputs == expected.recomputed.sum() < 180
    assert layer.energy_parts_j["side"] > 0
    total = run.result.totals["two_pass"]["accumulation_cost"]
    assert total == pytest.approx(expected.cost.relative_to_high, rel=1e-12)


@pytest.mark.parametrize("score", ["kappa_full", "norm1", "norm2", "norm_inf", "random"])
@pytest.mark.parametrize("groups", [1, 2])
def test_scores_of_a_convolution_are_those_of_its_unfolded_product(score, groups):
    """Whose image is read where it lies, padding included."""
    machine = replace(NPU, policy=replace(NPU.policy, score=score, tolerance={"random": 0.6}.get(score, 4.0)))
    torch.manual_seed(3)
    model, x = nn.Conv2d(4, 6, 3, padding=1, groups=groups), rand(2, 4, 5, 5)
    with Emulation(model, machine, seed=9) as run:
        y = model(x).detach()
    low, high = machine.mac.low.spec, machine.mac.high.spec
    patches = nn.functional.unfold(x, 3, padding=1).transpose(1, 2).reshape(50, groups, -1).numpy()
    flags = 0
    for group in range(groups):
        own = slice(6 // groups * group, 6 // groups * (group + 1))
        w, b = model.weight[own].detach().flatten(1).numpy().T, model.bias[own].detach().numpy()
        rule = Criterion(machine.policy.tolerance, score)
        expected = simulator.two_pass(
            patches[:, group], w, low, high, c=b, criterion=rule, seed=9, first_row=group << 32, matrix=group
        )
        found = y[:, own].permute(0, 2, 3, 1).reshape(50, -1).numpy()
        assert np.array_equal(found, expected.output.astype(np.float32))
        flags += expected.recomputed.sum()
    (layer,) = run.result.layers
    assert 0 < layer.recomputed_outputs == flags < 300


def test_whole_numbers_that_add_up_fractions_are_warned_of(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text(
        "array: {rows: 8, columns: 8}\n"
        "mac: {low: fp8_e4m3 -> fma(fp8_e4m3), high: fp8_e4m3 -> fma(fp16)}\n"
        "policy: {score: kappa_full}\n"
    )
    warned = "policy.side_format: uint16 rounds each magnitude of a product to a whole number"
    model = nn.Linear(4, 4)
    for mode, expected in (("two_pass", True), ("low", False)):
        with Emulation(model, load_hardware(path), default=mode) as run:
            model(rand(2, 4))
        assert any(text.startswith(warned) for text in run.result.warnings) == expected


def test_a_budget_of_the_file_and_of_a_layer(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text(
        "array: {rows: 8, columns: 8}\n"
        "mac: {low: fp8_e4m3 -> fma(fp8_e4m3), high: fp8_e4m3 -> fma(fp16)}\n"
        "policy: {tolerance: 0, budget: 0.5}\n"
        "layers: {1: {policy: {budget: 0.1}}}\n"
    )
    model = nn.Sequential(nn.Linear(6, 10), nn.Linear(10, 20))
    with simulator.emulate(model, path) as run:
        model(rand(7, 6))
    assert [layer.recomputed_outputs for layer in run.result.layers] == [7 * 5, 7 * 2]


# --- one MacSpec for the bits and the bill ----------------------------------------------------------------------------

MACHINE = """
array: {rows: ROWS, columns: 4, dataflow: FLOW, latency: "4 cycles", interleave: TURNS}
mac: {low: {operands: fp8_e4m3, accumulator: fma(fp8_e4m3)}, high: {operands: fp8_e4m3, accumulator: fma(bf16)}}
"""


def machine_of(tmp_path, rows, flow, turns):
    path = tmp_path / f"{flow}{rows}{turns}.yaml"
    path.write_text(MACHINE.replace("ROWS", str(rows)).replace("FLOW", flow).replace("TURNS", str(turns)))
    return load_hardware(path)


def test_the_bits_change_when_the_array_does_and_the_bill_is_of_the_same_macs(tmp_path):
    model, x = network(), rand(12, 2, 8, 8)
    arrays = {"os": (8, "os", 1), "os, 4 turns": (8, "os", 4), "ws, 8 rows": (8, "ws", 1), "ws, 16 rows": (16, "ws", 1)}
    inner = {
        "os": "fma({})", "os, 4 turns": "interleave(4, fma({0}), seq({0}))",
        "ws, 8 rows": "chunk(8, fma({0}), seq({0}))", "ws, 16 rows": "chunk(16, fma({0}), seq({0}))",
    }  # fmt: skip
    outputs, records = {}, {}
    for name, array in arrays.items():
        machine = machine_of(tmp_path, *array)
        records[name] = simulator.evaluate(model, machine, x)
        with Emulation(model, machine) as run:
            outputs[name] = model(x)
        low, high = machine.mac.low.spec, machine.mac.high.spec
        # The arithmetic that ran is the record's of the machine, which follows from its array, and what is priced.
        assert (run.rules.default.low, run.rules.default.high) == (low, high)
        assert run.rules.default.low is low and run.rules.default.high is high
        assert str(low) == f"fp8_e4m3 -> {inner[name].format('fp8_e4m3')}"
        for layer in records[name].layers:
            assert layer.mac == f"{low}; {high}"
            gemm = Gemm(layer.m, layer.n, layer.k, layer.gemms, layer.a_words)
            for mode, unit in (("low", machine.mac.low), ("high", machine.mac.high)):
                priced = next(one for one in records[name].baseline_layers[mode] if one.name == layer.name)
                assert priced.mac == str(unit.spec)
                assert priced.energy_j == price(machine, gemm, mode).energy_j
    names = list(arrays)
    for i, name in enumerate(names):
        for other in names[i + 1 :]:
            assert not torch.equal(outputs[name], outputs[other]), (name, other)
            for mode in ("low", "high", "two_pass"):
                assert records[name].forward_error[mode] != records[other].forward_error[mode]
            assert records[name].totals["low"]["cycles"] != records[other].totals["low"]["cycles"]
    # The order belongs to the array alone: another number of columns, or a latency without turns, changes no bit.
    wide = replace(machine_of(tmp_path, 8, "ws", 1), array=Array(8, 16))
    assert torch.equal(emulated(model, x, wide)[0], outputs["ws, 8 rows"])
