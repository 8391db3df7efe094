"""Rules of layers: from YAML and from Python to the arithmetic of each layer, in every mode of a run."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pathlib import Path  # noqa: E402

from torch import nn  # noqa: E402

import simulator  # noqa: E402
from formats import Use  # noqa: E402
from simulator.errors import InputError  # noqa: E402
from simulator.hardware import LayerRule, Scaling, load_hardware, read_layers  # noqa: E402
from simulator.network.emulation import Emulation  # noqa: E402
from simulator.network.rules import Rules  # noqa: E402

ROOT = Path(__file__).parents[2]
NPU = load_hardware("npu")
PATHS = ["Net", "stem", "body", "body.0", "body.0.fc", "body.1", "head"]


def rules(layers, mode="two_pass", machine=NPU):
    return Rules(machine, mode, read_layers(layers), PATHS)


def machine_with(tmp_path, text):
    path = tmp_path / "mine.yaml"
    bundled, _, _ = (ROOT / "hwconfigs" / "npu.yaml").read_text().partition("vector_unit:")  # its last section
    path.write_text(bundled + text)
    return load_hardware(path)


def test_yaml_and_python_say_the_same(tmp_path):
    machine = machine_with(
        tmp_path,
        """
layers:
  stem: high
  "body.*":
    mac: low
    operands: [int8, fp8_e4m3]
    output: bf16
    activations: {per: block, block: 32, method: percentile, percentile: 99, powers_of_two: false}
    weights: channel
    vector: bf16
    gradients: float32
    weight_gradients: high
  head: {policy: {tolerance: 0.25}, activations: {when: calibrated, to: 4}}
""",
    )
    python = read_layers({
        "stem": "high",
        "body.*": {
            "mac": "low", "operands": ["int8", "fp8_e4m3"], "output": "bf16",
            "activations": {
                "per": "block", "block": 32, "method": "percentile", "percentile": 99, "powers_of_two": False,
            },
            "weights": "channel", "vector": "bf16", "gradients": "float32",
            "weight_gradients": "high",
        },
        "head": {"policy": {"tolerance": 0.25}, "activations": {"when": "calibrated", "to": 4}},
    })  # fmt: skip
    assert machine.layers == python == (
        LayerRule("stem", "high"),
        LayerRule(
            "body.*", "low", (Use.parse("int8"), Use.parse("fp8_e4m3")), Use.parse("bf16"), None,
            Scaling("block", 32, "percentile", 99.0, None, "model", False), Scaling("channel"), Use.parse("bf16"),
            "float32", weight_gradients="high",
        ),
        LayerRule("head", tolerance=0.25, activations=Scaling(when="calibrated", to=4.0)),
    )  # fmt: skip
    assert read_layers({rule.pattern: rule for rule in python}) == python


def test_rules_of_python_come_before_those_of_the_file(tmp_path):
    machine = machine_with(tmp_path, 'layers: {"*": high}\nvector_unit: {format: bf16}\nbatch_norm: folded\n')
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with simulator.emulate(model, machine, layers={"0": "exact"}) as run, torch.no_grad():
        model(torch.ones(1, 4))
    assert [layer.mac for layer in run.result.layers] == [
        "fp8_e4m3/sat -> exact(fp32)", "fp8_e4m3/sat -> chunk(16, fma(fp16/sat), seq(fp16/sat))",
    ]  # fmt: skip
    assert machine.fold_batch_norm and [o.arithmetic for o in run.result.operations if o.name == "relu"] == ["bf16"]


def test_a_rule_without_a_mac_keeps_the_mode_of_the_run():
    layers = {"body*": {"operands": "fp8_e5m2"}}
    for mode in ("low", "high", "two_pass", "exact"):
        found = rules(layers, mode).forward("body.0.fc")
        assert str(found.low.operands[0]) == "fp8_e5m2"
        assert found.low.accumulator == rules({}, mode).forward("head").low.accumulator
        assert found.label == ("exact" if mode == "exact" else "custom")  # which the machine does not have


def test_the_exact_run_has_the_operands_and_scales_of_the_rules_and_their_float32():
    layers = {
        "stem": "float32", "body*": {"mac": "bf16 -> seq(bf16)"},
        "head": {"mac": "high", "activations": "row"},
    }  # fmt: skip
    found = rules(layers, "exact")
    assert found.forward("stem").low is None
    assert str(found.forward("body.1").low) == "bf16 -> exact(fp32)"
    assert str(found.forward("head").low) == "fp8_e4m3/sat -> exact(fp32)" and found.forward("head").scaled


def test_a_tolerance_is_that_of_the_second_pass_alone():
    layers = {"body*": {"policy": {"tolerance": 0.125}}}
    assert rules(layers).forward("body.0").criterion.tolerance == 0.125
    assert rules(layers).forward("head").criterion.tolerance == NPU.policy.tolerance
    assert rules(layers, "low").forward("body.0") == rules({}, "low").forward("body.0")


def test_gradients_of_two_passes_are_of_the_high_one():
    assert rules({}).backward("head").label == "high"
    assert rules({}, "low").backward("head").label == "low"
    found = rules({"body*": {"mac": "two_pass", "gradients": "bf16 -> fma(fp32)"}})
    assert str(found.backward("body.1").low) == "bf16 -> fma(fp32)"
    assert found.backward("head#2").label == "high"


def test_gradients_of_weights_may_have_a_mac_of_their_own():
    layers = {"*": {"mac": "low", "gradients": "seq(fp16)", "weight_gradients": "fma(fp32)"}}
    found = rules(layers)
    assert str(found.backward("head").low) == "seq(fp16)"
    assert str(found.backward("head", "weight gradient").low) == "fma(fp32)"
    model, x = nn.Linear(64, 3, bias=False), torch.linspace(-3, 3, 320).reshape(5, 64).requires_grad_()
    with Emulation(model, NPU, layers, default="low"):
        y = model(x)
        upstream = torch.linspace(0.1, 1.3, 15).reshape(5, 3)
        y.backward(upstream)
    weight, gradient = model.weight.detach().numpy(), upstream.numpy()
    assert np.array_equal(x.grad.numpy(), simulator.matmul(gradient, weight, mac="seq(fp16)"))
    assert np.array_equal(model.weight.grad.numpy(), simulator.matmul(gradient.T, x.detach().numpy(), mac="fma(fp32)"))


def test_a_layer_with_other_formats_is_computed_and_not_priced():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    with Emulation(model, NPU, {"0": {"operands": "int8"}}, default="low") as run, torch.no_grad():
        model(torch.ones(1, 4))
    first, second = run.result.layers
    assert first.energy_j is None and second.energy_j > 0
    assert run.result.totals["low"] is None


def test_operands_of_a_rule_are_quantised_so():
    layer, x = nn.Linear(8, 3, bias=False), torch.linspace(-3, 3, 16).reshape(2, 8)
    with simulator.emulate(layer, NPU, {"*": {"mac": "exact", "operands": ["int8", "bf16"]}}), torch.no_grad():
        y = layer(x)
    a = Use.parse("int8").quantize(x.numpy())
    w = Use.parse("bf16").quantize(layer.weight.detach().numpy())
    assert np.array_equal(y.numpy(), (a @ w.T).astype(np.float32))


@pytest.mark.parametrize(
    "text, message",
    [
        ("layers: {stem: hihg}", r"mine.yaml:57:16: layers.stem.mac: got what is no arithmetic: accumulator 'hihg'"),
        ("layers: {stem: {mak: low}}", r'mine.yaml:57:17: layers.stem.mak: unknown key; did you mean "mac"\?'),
        ("layers: {stem: {weights: rows}}", r"layers.stem.weights.per: got 'rows'; expected one of tensor, row,"),
        ("layers: {stem: {weights: row}}", r"mine.yaml:57:26: layers.stem.weights.per: got row; expected tensor"),
        ("layers: {stem: 3}", r"layers.stem: got 3; expected a mapping with keys out of mac, operands"),
        ("layers: [stem]", r"layers: got .*; expected a mapping"),
        ("vector_unit: {format: mxfp8_e4m3}", r"vector_unit.format: got what is no arithmetic: mxfp8_e4m3: "),
        ("vector_unit: {format: bf16/sr}", r"vector_unit.format: got bf16/sr; expected a rounding without random"),
        ("batch_norm: fold", r"mine.yaml:57:13: batch_norm: got 'fold'; expected one of separate, folded"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_place(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        machine_with(tmp_path, text + "\n")


def test_a_pattern_that_fits_nothing_and_a_mode_that_is_not_there():
    with pytest.raises(InputError, match="layers: pattern 'boddy' fits no module; expected a glob on Net, stem"):
        rules({"boddy": "low"})
    one = replace(NPU, mac=replace(NPU.mac, high=None, datapath=None), policy=None)
    with pytest.raises(InputError, match="mode 'high': the machine has one MAC"):
        rules({"stem": "high"}, "low", one)


def test_a_rule_without_effect_is_in_the_warnings():
    """Of an embedding, of what the attention around it computes, and of what an earlier pattern fits."""
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    layers = {"linear1": "high", "*out_proj": "float32", "linear?": "low", "norm1": {"vector": "bf16"}, "norm2": "low"}
    with simulator.emulate(model, NPU, layers=layers) as run, torch.no_grad():
        assert not [text for text in run.result.warnings if "no operation had the rule" in text]  # nothing ran yet
        model(torch.zeros(1, 3, 16))
    found = [text for text in run.result.warnings if "no operation had the rule" in text]
    assert [text.split("'")[1] for text in found] == ["*out_proj", "norm2"]


def test_settings_of_a_record_say_what_decided_on_the_bits(tmp_path):
    machine = machine_with(tmp_path, "vector_unit: {format: bf16}\nbatch_norm: folded\nlayers: {body*: high}\n")
    model = nn.Sequential()
    model.body, model.head = nn.Linear(4, 3), nn.Linear(3, 2)
    rule = {"mac": "low", "activations": {"per": "row", "to": 4}, "gradients": "float32"}
    with simulator.emulate(model, machine, {"head": rule}) as run, torch.no_grad():
        model(torch.ones(1, 4))
    assert run.result.settings == {
        "vector unit": "bf16",
        "batch normalisation": "folded",
        "layers head": "mac: low; activations: per row by max to 4, the model's or dynamic, powers of two; gradients: "
        "float32",
        "layers body*": "mac: high",
    }
    assert [layer.scales for layer in run.result.layers] == ["", "a per row by max to 4, dynamic, powers of two"]


def test_of_one_pattern_said_twice_that_of_python_counts(tmp_path):
    machine = machine_with(tmp_path, 'layers: {"*": {operands: bf16, vector: fp16}}\n')
    layer, x = nn.Linear(4, 3), torch.ones(2, 4)
    with simulator.emulate(layer, machine, {"*": "float32"}) as run, torch.no_grad():
        assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
    assert run.result.settings["layers *"] == "mac: float32"


def test_a_layer_may_have_a_score_of_its_own_and_is_priced_with_it(tmp_path):
    """Its flags are those of a machine with that score, and its bill is that of one, from the file and from Python."""
    from simulator.cost import Gemm, accumulation_cost, price
    from simulator.network import bundled

    x, _ = bundled.digits()
    model, npu = bundled.load("mlp"), simulator.load_hardware("npu")
    rule = {"fc2": {"policy": {"score": "kappa_full", "side_metric": "second_pass", "tolerance": 5.0}}}
    path = tmp_path / "m.yaml"
    path.write_text((ROOT / "hwconfigs" / "npu.yaml").read_text() + f"layers: {rule}\n")
    policy = replace(npu.policy, score="kappa_full", side_metric="second_pass", tolerance=5.0)
    own = replace(npu, policy=policy)
    others = {"fc[13]": {"policy": {"score": "kappa_prime", "tolerance": 0.5}}}
    records = []
    for machine, layers in ((npu, rule), (simulator.load_hardware(path), None)):
        with torch.no_grad(), simulator.emulate(model, machine, layers) as run:
            model(x[:30])
        records.append(run.result)
    with torch.no_grad(), simulator.emulate(model, own, others) as run:
        model(x[:30])
    other = {layer.name: layer for layer in run.result.layers}
    for record in records:
        fc1, fc2, _ = record.layers
        assert 0 < fc2.recomputed_outputs == other["fc2"].recomputed_outputs
        assert (fc2.cycles, fc2.energy_j) == (other["fc2"].cycles, other["fc2"].energy_j)
        assert (fc1.recomputed_outputs, fc1.energy_j) == (other["fc1"].recomputed_outputs, other["fc1"].energy_j)
        low = price(npu, Gemm(30, 128, 784, 1, fc2.a_words), "two_pass", 0.0)
        assert fc2.energy_parts_j["side"] > low.energy_parts_j["side"]
        macs = sum(layer.macs for layer in record.layers)
        cost = sum(
            layer.macs
            / macs
            * accumulation_cost(own if layer is fc2 else npu, layer.flagged_macs / layer.macs)["two_pass"]
            for layer in record.layers
        )
        assert record.totals["two_pass"]["accumulation_cost"] == pytest.approx(cost)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"score": "norm2", "side_metric": "output"}, "fc1: policy: side_metric: got output with .*score: norm2"),
        ({"score": "kappa_prime", "side_format": "uint16"}, "fc1: policy: side_format: got uint16"),
        ({"side_metric": "norm_bound"}, "fc1: policy: got a side metric or its format without a score"),
        ({"score": "kapa"}, "fc1: policy: score: got 'kapa'"),
    ],
)
def test_a_score_of_a_layer_that_does_not_fit_is_refused(policy, message):
    from simulator.network import bundled

    with pytest.raises(InputError, match=message):
        simulator.emulate(bundled.load("mlp"), "npu", {"fc1": {"policy": policy}})
