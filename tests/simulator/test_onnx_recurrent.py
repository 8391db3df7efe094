"""Recurrent layers of ONNX files: their steps are one record as torch's are, and where their samples lie is known."""

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from torch import nn  # noqa: E402

from simulator.bounds import certify  # noqa: E402
from simulator.errors import InputError  # noqa: E402
from simulator.hardware import load_hardware  # noqa: E402
from simulator.network.emulation import Emulation  # noqa: E402
from simulator.network.evaluation import evaluate  # noqa: E402
from simulator.network.model_files import load_model  # noqa: E402
from simulator.network.samples import load_samples  # noqa: E402
from simulator.training import fit  # noqa: E402
from tests.simulator.onnx_models import array, floats, model, node, saved  # noqa: E402

STEPS, FEATURES, UNITS = 5, 4, 3
KINDS = {"LSTM": (nn.LSTM, (0, 3, 1, 2)), "GRU": (nn.GRU, (1, 0, 2)), "RNN": (nn.RNN, (0,))}  # and torch's gates


def weights(op, layer):
    """The weights of torch's layer as initialisers of ONNX, whose gates stand in another order."""
    order = KINDS[op][1]

    def gates(name, suffix):
        parts = getattr(layer, f"{name}_l0{suffix}").detach().numpy().reshape(len(order), UNITS, -1)
        return parts[list(order)].reshape(len(order) * UNITS, -1)

    suffixes = ["", "_reverse"][: 2 if layer.bidirectional else 1]
    biases = [np.concatenate([gates("bias_ih", s), gates("bias_hh", s)])[:, 0] for s in suffixes]
    return [
        array("W", np.stack([gates("weight_ih", s) for s in suffixes])),
        array("R", np.stack([gates("weight_hh", s) for s in suffixes])), array("B", np.stack(biases)),
    ]  # fmt: skip


def both(op, path, bidirectional=False, **attributes):
    """A layer of torch, batch first, and a file of the same, which gives the steps second again."""
    torch.manual_seed(1)
    layer = KINDS[op][0](FEATURES, UNITS, batch_first=True, bidirectional=bidirectional).eval()
    if op == "GRU":
        attributes = {"linear_before_reset": 1, **attributes}
    if bidirectional:
        attributes["direction"] = "bidirectional"
    proto = model(
        [
            node("Transpose", "x", "turned", perm=[1, 0, 2]),
            node(op, "turned W R B", "steps", name="r", hidden_size=UNITS, **attributes),
            node("Transpose", "steps", "ordered", perm=[2, 0, 1, 3]), node("Reshape", "ordered shape", "y"),
        ],
        [floats("x", "N", STEPS, FEATURES)], [floats("y", "N", STEPS, "M")],
        [*weights(op, layer), array("shape", [0, 0, -1], np.int64)],
    )  # fmt: skip
    return layer, load_model(saved(proto, path / "r.onnx"))


def inputs():
    return torch.from_numpy(np.random.default_rng(1).normal(size=(2, STEPS, FEATURES)).astype(np.float32))


def records(network, x, mode="two_pass"):
    with Emulation(network, load_hardware("npu"), default=mode) as run, torch.no_grad():
        network(x)
    return run.result.layers


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("op", KINDS)
def test_the_steps_are_one_record_and_one_bill_as_of_torch(tmp_path, op, bidirectional):
    layer, network = both(op, tmp_path, bidirectional)
    with torch.no_grad():
        torch.testing.assert_close(network(inputs()), layer(inputs())[0], rtol=1e-5, atol=1e-6)
    wanted = records(layer, inputs())
    found = records(network, inputs())
    assert [one.name.replace(op, "r") for one in wanted] == [one.name for one in found]
    assert found[1].name == f"r#2 to #{STEPS + 1}" and found[1].gemms == STEPS
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours.gemms, ours.m, ours.n, ours.k, ours.macs) == (
            theirs.gemms, theirs.m, theirs.n, theirs.k, theirs.macs
        )  # fmt: skip
    low = records(network, inputs(), "low")
    of_layer = records(layer, inputs(), "low")
    assert [(one.cycles, one.energy_j) for one in low] == [(one.cycles, one.energy_j) for one in of_layer]


def test_two_products_of_a_step_are_records_of_their_own(tmp_path):
    _, network = both("GRU", tmp_path, linear_before_reset=0)
    found = records(network, inputs())
    assert [(one.name, one.gemms, one.n) for one in found[1:]] == [
        ("r#2 to #10", STEPS, 2 * UNITS), ("r#3 to #11", STEPS, UNITS),
    ]  # fmt: skip


def test_a_layer_called_twice_has_two_records_of_steps(tmp_path):
    """Of one module the weights are the same in both calls."""

    class Twice(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(x) + self.network(2 * x)

    found = records(Twice(both("LSTM", tmp_path)[1]), inputs())
    assert [one.gemms for one in found] == [1, STEPS, 1, STEPS]


def test_a_hidden_size_that_contradicts_the_weights_is_refused(tmp_path):
    proto = model(
        [node("LSTM", "x W R B", "y", name="r", hidden_size=UNITS + 1)],
        [floats("x", STEPS, "N", FEATURES)], [floats("y", STEPS, 1, "N", UNITS)], weights("LSTM", nn.LSTM(4, 3)),
    )  # fmt: skip
    network = load_model(saved(proto, tmp_path / "r.onnx"))
    with pytest.raises(InputError, match=r"r \(LSTM\): hidden_size 4 with weights of a state of 3; expected"):
        network(torch.zeros(STEPS, 2, FEATURES))


# --- samples that are not along the first axis ------------------------------------------------------------------------

ELSEWHERE = {
    "time first": ({"x": (STEPS, "N", FEATURES)}, "x W R B", "input x along axis 1, as the LSTM that reads it has"),
    "all fixed": ({"x": (STEPS, 2, FEATURES)}, "x W R B", "input x along axis 1, as the LSTM"),
    "all free": ({"x": ("T", "N", FEATURES)}, "x W R B", "input x along axis 1, as the LSTM"),
    "a state": ({"x": ("N", STEPS, FEATURES), "h": (1, "N", UNITS)}, "turned W R B  h", "input h along axis 1"),
    "by name": ({"x": ("time", "batch_size", FEATURES)}, "read W R B", "input x along axis 1, by the names"),
}  # fmt: skip


@pytest.fixture(params=ELSEWHERE.values(), ids=ELSEWHERE)
def elsewhere(request, tmp_path):
    """A network that has the samples of an input elsewhere, its inputs and what is said of it."""
    shapes, read, said = request.param
    x, nodes = "x", []
    if "turned" in read:
        x, nodes = "turned", [node("Transpose", "x", "turned", perm=[1, 0, 2])]
    if "read" in read:
        x, nodes = "read", [node("Abs", "x", "read")]
    state = "h" if "h" in shapes else ""
    lstm = node("LSTM", f"{x} W R B", "steps", name="r", hidden_size=UNITS)
    lstm.input.extend(["", state] if state else [])
    proto = model(
        [*nodes, lstm], [floats(name, *shape) for name, shape in shapes.items()], [floats("steps", "T", 1, "N", UNITS)],
        weights("LSTM", nn.LSTM(FEATURES, UNITS)),
    )  # fmt: skip
    network = load_model(saved(proto, tmp_path / "r.onnx"))
    sizes = {name: [length if isinstance(length, int) else 2 for length in shape] for name, shape in shapes.items()}
    return network, {name: torch.ones(size) for name, size in sizes.items()}, said


def test_a_network_whose_samples_lie_elsewhere_runs_as_its_file_says(elsewhere):
    network, arrays, _ = elsewhere
    assert network.fixed_batch is None and network(**arrays).shape[2:] == (2, UNITS)


def test_what_divides_samples_refuses_it(elsewhere, tmp_path):
    network, arrays, said = elsewhere
    np.savez(tmp_path / "data.npz", **{name: x.numpy() for name, x in arrays.items()})
    x = next(iter(arrays.values()))
    said = rf": r has its samples elsewhere: {re.escape(said)}.*expected them along the first axis of every input"
    with pytest.raises(InputError, match=r"data\.npz" + said):
        load_samples(str(tmp_path / "data.npz"), None, network)
    with pytest.raises(InputError, match="^x" + said):
        evaluate(network, "npu", x)
    with pytest.raises(InputError, match="bounds: x" + said):
        certify(network, x)
    with pytest.raises(InputError, match="fit: data" + said):
        fit(network.requires_grad_(True), (x, torch.zeros(len(x))), storage="e8m6")


def test_a_layout_with_the_batch_first_is_run(tmp_path):
    """Which onnxruntime does not implement."""
    layer = nn.LSTM(FEATURES, UNITS, batch_first=True).eval()
    proto = model(
        [node("LSTM", "x W R B", "steps", hidden_size=UNITS, layout=1), node("Reshape", "steps shape", "y")],
        [floats("x", "N", STEPS, FEATURES)], [floats("y", "N", STEPS, UNITS)],
        [*weights("LSTM", layer), array("shape", [0, 0, -1], np.int64)],
    )  # fmt: skip
    network = load_model(saved(proto, tmp_path / "r.onnx"))
    assert network.batch_elsewhere is None
    with torch.no_grad():
        torch.testing.assert_close(network(inputs()), layer(inputs())[0], rtol=1e-5, atol=1e-6)
    assert evaluate(network, "npu", inputs()).samples == 2


# --- names of TensorFlow ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [("left:0", "right:0"), ("left", "right"), ("left_0", "right_0"), ("left:0", "right")]
)
def test_inputs_of_tensorflow_go_by_their_names_with_and_without_what_it_adds(tmp_path, names):
    proto = model([node("Sub", "left:0 right:0", "y:0")], [floats("left:0", "N", 3), floats("right:0", "N", 3)],
                  [floats("y:0", "N", 3)])  # fmt: skip
    network = load_model(saved(proto, tmp_path / "tf.onnx"))
    left, right = np.random.default_rng(1).normal(size=(2, 4, 3)).astype(np.float32)
    np.savez(tmp_path / "data.npz", **dict(zip(names, (left, right), strict=True)))
    samples = load_samples(str(tmp_path / "data.npz"), None, network)
    np.testing.assert_array_equal(network(**samples.x).numpy(), left - right)
    np.savez(tmp_path / "data.npz", **{names[0]: left, "middle:0": right})
    wanted = r"lacks right:0 and has besides middle:0; expected the inputs of tf: left:0, right:0"
    with pytest.raises(InputError, match=wanted):
        load_samples(str(tmp_path / "data.npz"), None, network)
    np.savez(tmp_path / "data.npz", **{"left:0": left, "left": right})
    with pytest.raises(InputError, match="left is there under another name too"):
        load_samples(str(tmp_path / "data.npz"), None, network)
