"""Topologies of layers priced on a machine: `estimate --hw FILE --topology FILE`."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from simulator.__main__ import main
from simulator.cost import Gemm, estimate
from simulator.hardware import load_hardware
from simulator.hardware.scalesim_files import CONVOLUTION, GEMM, read_topology

DATA = Path(__file__).parents[1] / "data"
CONV_HEADING = ", ".join(("Layer name", *CONVOLUTION))


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["simulator", "estimate", *map(str, arguments)])
    try:
        main()
        code = 0
    except SystemExit as exit:
        code = exit.code
    printed = capsys.readouterr()
    return code or 0, printed.out, printed.err


def test_a_layer_is_priced_as_the_product_that_it_is(tmp_path, monkeypatch, capsys):
    (tmp_path / "t.csv").write_text("Layer,M,N,K,\nfirst,64,64,784,\nlast,5,10,64,\n")
    code, out, _ = run(
        monkeypatch, capsys, "--hw", "npu", "--topology", tmp_path / "t.csv", "--flagged", 0.02, "--json"
    )
    found = json.loads(out)
    assert code == 0 and [layer.pop("layer") for layer in found] == ["first", "last"]
    wanted = [estimate("npu", gemm=shape, flagged=0.02) for shape in ((64, 64, 784), (5, 10, 64))]
    assert found == json.loads(json.dumps([one.to_dict() for one in wanted]))


def test_layers_are_explained_one_after_the_other(tmp_path, monkeypatch, capsys):
    (tmp_path / "t.csv").write_text("Layer,M,N,K,\nfirst,64,64,784,\nlast,5,10,64,\n")
    code, out, _ = run(monkeypatch, capsys, "--hw", "npu", "--topology", tmp_path / "t.csv", "--explain-cost")
    headings = [line for line in out.split("\n") if line and not line.startswith(" ")]
    modes = ("uniform low", "uniform high", "two-pass")
    assert code == 0 and headings == [f"{name}, {mode}" for name in ("first", "last") for mode in modes]


def test_convolutions_have_as_many_outputs_as_fit(tmp_path, monkeypatch, capsys):
    lines = ("a, 16, 15, 3, 4, 8, 32, 2", "b_DP, 10, 10, 3, 3, 6, 2, 1")
    (tmp_path / "t.csv").write_text("\n".join((CONV_HEADING, *lines)))
    topology = ("--topology", tmp_path / "t.csv", "--input", "conv")
    _, out, _ = run(monkeypatch, capsys, "--hw", "npu", *topology, "--json")
    first, depthwise = (layer["gemm"] for layer in json.loads(out))
    # Windows of 3 x 4 two apart touch all of the image, whose elements are fewer than theirs.
    assert first == asdict(Gemm(7 * 6, 32, 3 * 4 * 8, a_words=16 * 15 * 8))
    assert depthwise == asdict(Gemm(64, 2, 9, gemms=6, a_words=10 * 10 * 6))


def test_the_table_ends_in_the_sum_of_the_layers(tmp_path, monkeypatch, capsys):
    (tmp_path / "t.csv").write_text("Layer,M,N,K,\nfirst,64,64,784,\nlast,5,10,64,\n")
    code, out, _ = run(monkeypatch, capsys, "--hw", "npu", "--topology", tmp_path / "t.csv")
    costs = [estimate("npu", gemm=shape) for shape in ((64, 64, 784), (5, 10, 64))]
    assert code == 0 and "npu: t.csv, 2 layers; layers in the mode two-pass" in out
    low = next(line for line in out.splitlines() if line.startswith("uniform low"))
    assert f"{sum(cost.low.cycles for cost in costs):,}" in low
    first = next(line for line in out.splitlines() if line.startswith("first"))
    assert "64 x 64 x 784" in first and f"{costs[0].two_pass.cycles:,}" in first
    assert "flags given as a fraction are taken as independent" in out


def test_a_machine_with_one_mac_has_one_mode(tmp_path, monkeypatch, capsys):
    (tmp_path / "m.yaml").write_text('array: {rows: 8, columns: 8}\nmac: {low: "int8 -> fixed(32, 0, wrap)"}\n')
    (tmp_path / "t.csv").write_text("Layer,M,N,K,\nonly,64,64,784,\n")
    code, out, _ = run(monkeypatch, capsys, "--hw", tmp_path / "m.yaml", "--topology", tmp_path / "t.csv")
    assert code == 0 and "layers in the mode uniform low" in out and "high" not in out and "no memory described" in out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--hw", "npu", "--topology", "nowhere.csv"), "nowhere.csv: cannot be read"),
        (("--hw", "nobody", "--topology", "nowhere.csv"), "got 'nobody', no file and no bundled machine"),
        (
            ("--hw", "npu", "--topology", DATA / "resnet50_conv.csv"),
            "expected Layer, M, N, K; add M, or choose the other",
        ),
        (("--hw", "npu", "--topology", DATA / "resnet50_gemm.csv", "--flagged", 2), "expected a fraction from 0 to 1"),
    ],
)
def test_bad_arguments_are_refused(monkeypatch, capsys, arguments, message):
    code, _, err = run(monkeypatch, capsys, *arguments)
    assert code == 2 and message in err


def test_a_layer_that_cannot_be_priced_is_named(tmp_path, monkeypatch, capsys):
    memory = 'memory: {dram: {bandwidth: "1 GB/s"}, sram: {size: "64 bit", read: "8 bit/cycle", write: "8 bit/cycle"}}'
    (tmp_path / "m.yaml").write_text(f'array: {{rows: 8, columns: 8}}\nmac: {{low: "int8 -> fma(int32)"}}\n{memory}\n')
    (tmp_path / "t.csv").write_text(f"{CONV_HEADING}\nhuge, 65536, 65536, 1, 1, 1, 1, 1\n")
    topology = ("--topology", tmp_path / "t.csv", "--input", "conv")
    code, _, err = run(monkeypatch, capsys, "--hw", "npu", *topology)
    assert code == 2 and "t.csv: huge: gemm: m: got 4294967296" in err
    (tmp_path / "t.csv").write_text(f"{CONV_HEADING}\nsmall, 8, 8, 1, 1, 64, 8, 1\n")
    code, _, err = run(monkeypatch, capsys, "--hw", tmp_path / "m.yaml", *topology)
    assert code == 2 and "t.csv: small: " in err and "m.yaml: memory.sram" in err


def resnet50(kind, columns):
    return read_topology(str(DATA / f"resnet50_{kind}.csv"), columns)


def test_resnet_50_has_the_work_and_the_weights_of_its_paper():
    layers = [Gemm(*line.sizes) for line in resnet50("gemm", GEMM)]
    assert len(layers) == 54
    assert 3.8e9 <= sum(layer.macs for layer in layers) < 3.9e9  # He et al., table 1: 3.8 * 10^9
    assert sum(layer.n * layer.k for layer in layers) == 25_502_912  # 25.6 M with biases and normalisation


def test_the_convolutions_of_resnet_50_are_its_products(monkeypatch, capsys):
    found = []
    for kind in ("gemm", "conv"):
        path = DATA / f"resnet50_{kind}.csv"
        _, out, _ = run(monkeypatch, capsys, "--hw", "npu", "--topology", path, "--input", kind, "--json")
        found.append(json.loads(out))
    images = [layer["gemm"].pop("a_words") for layer in found[1]]
    assert {layer["gemm"].pop("a_words") for layer in found[0]} == {None}
    assert [layer["gemm"] for layer in found[0]] == [layer["gemm"] for layer in found[1]]
    # The first layer unfolds its image, with padding 230 x 230 x 3, 49 times with every second window.
    assert images[0] == 230 * 230 * 3
    assert len(found[0]) == 54 and all(layer["two_pass"]["cycles"] > 0 for layer in found[0])


def test_the_bound_of_the_layers_is_below_their_cycles_on_every_dataflow():
    machine = load_hardware("npu")
    for dataflow in ("ws", "is"):
        array = replace(machine.array, dataflow=dataflow)
        for line in resnet50("gemm", GEMM):
            cost = estimate(replace(machine, array=array), line.sizes).low
            assert cost.roofline_cycles <= cost.cycles == sum(cost.cycle_parts.values())
