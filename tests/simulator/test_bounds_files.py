"""Networks from files of ONNX and Keras are proved as torch's are, and a checker follows their certificates."""

import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("flint", reason="needs the extra bounds")
onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
os.environ["KERAS_BACKEND"] = "torch"
pytest.importorskip("keras", reason="needs the extra keras")

import keras  # noqa: E402
from keras import layers  # noqa: E402
from onnx import numpy_helper  # noqa: E402

import simulator  # noqa: E402
from simulator.bounds.certificate import certificate, text_of  # noqa: E402
from simulator.bounds.check import check  # noqa: E402
from simulator.network.model_files import load_model  # noqa: E402
from tests.simulator.onnx_models import array, floats, integers, model, node, saved  # noqa: E402

RNG = np.random.default_rng(5)


def as_exported(path):
    """A classifier as exporters write one: a GELU of its parts, by the root of a constant, between two layers."""
    first, last = RNG.normal(size=(6, 8)), RNG.normal(size=(8, 3))
    return saved(
        model(
            [
                node("MatMul", "x w1", "p", name="first"), node("Add", "p b1", "h"), node("Sqrt", "two", "root"),
                node("Div", "h root", "part"), node("Erf", "part", "e"), node("Add", "e one", "above"),
                node("Mul", "h above", "both"), node("Mul", "both half", "g"),
                node("Gemm", "g w2 b2", "y", name="last"),
            ],
            [floats("x", "N", 6)], [floats("y", "N", 3)],
            [
                array("w1", first), array("b1", RNG.normal(size=8)), array("two", 2.0), array("one", 1.0),
                array("half", 0.5), array("w2", last), array("b2", RNG.normal(size=3)),
            ],
        ),
        path / "net.onnx",
    )  # fmt: skip


def quantised(path):
    """A classifier whose weights are integers with a scale for each output, in the way of QDQ files."""
    integers = RNG.integers(-127, 128, size=(6, 8)).astype(np.int8)
    return saved(
        model(
            [
                node("DequantizeLinear", "w1 scale zero", "w", axis=1), node("MatMul", "x w", "p", name="first"),
                node("Add", "p b1", "h"), node("Relu", "h", "r"), node("MatMul", "r w2", "y", name="last"),
            ],
            [floats("x", "N", 6)], [floats("y", "N", 3)],
            [
                numpy_helper.from_array(integers, "w1"), array("scale", RNG.uniform(0.01, 0.03, size=8)),
                numpy_helper.from_array(np.zeros(8, np.int8), "zero"), array("b1", RNG.normal(size=8)),
                array("w2", RNG.normal(size=(8, 3))),
            ],
        ),
        path / "net.onnx",
    )  # fmt: skip


def of_keras(path):
    """A classifier with its inputs normalised."""
    normalise = layers.Normalization(mean=RNG.normal(size=6), variance=RNG.uniform(0.5, 2.0, size=6))
    net = keras.Sequential(
        [keras.Input((6,)), normalise, layers.Dense(8, activation="tanh", name="first"), layers.Dense(3, name="last")]
    )
    net.save(path / "net.keras")
    return str(path / "net.keras")


@pytest.mark.parametrize("write", [as_exported, quantised, of_keras])
@pytest.mark.parametrize("method", ["forward", simulator.bounds.METHODS[-1]])
def test_classifiers_from_files_are_certified_and_the_checker_follows(tmp_path, write, method):
    network = load_model(write(tmp_path))
    x = torch.tensor(RNG.normal(size=(6, 6)), dtype=torch.float32)
    found = certificate(network, x, "fma(fp16)", method=method)
    verdict = check(text_of(found))
    assert verdict.ok, "\n".join(verdict.problems)
    assert verdict.certified


@pytest.mark.parametrize("write", [as_exported, quantised, of_keras])
def test_their_bounds_hold_for_what_the_unit_computes(tmp_path, write):
    network = load_model(write(tmp_path))
    x = torch.tensor(RNG.normal(size=(200, 6)), dtype=torch.float32)
    found = simulator.bounds.certify(network, x, mac="fma(fp16)")
    with simulator.emulate(network, "npu", layers={"*": {"mac": "fma(fp16)"}}), torch.no_grad():
        off = np.abs(network(x).double().numpy() - found.logits)
    assert (off <= found.logit_bounds).all() and off.max() > 2**-12


def test_weights_of_integers_are_floats_once_the_file_is_read_and_training_leaves_them(tmp_path):
    network = load_model(quantised(tmp_path))
    assert [type(one).__name__ for one in network.children()] == ["Operation"] * 3  # two layers and what is between
    sizes = sorted(one.numel() for one in network.parameters())
    assert sizes == [8, 24]  # the bias, and the weights that are floats in the file


def test_token_ids_of_a_file_pick_rows_exactly_and_stand_beside_other_inputs(tmp_path):
    table, weights = RNG.normal(size=(9, 4)).astype(np.float32), RNG.normal(size=(4, 3)).astype(np.float32)
    path = saved(
        model(
            [
                node("Gather", "table ids", "rows"), node("ReduceMean", "rows axes", "mean", keepdims=0),
                node("Add", "mean more", "sum"), node("MatMul", "sum w", "y", name="last"),
            ],
            [integers("ids", "N", 5), floats("more", "N", 4)], [floats("y", "N", 3)],
            [array("table", table), array("axes", [1], np.int64), array("w", weights)],
        ),
        tmp_path / "ids.onnx",
    )  # fmt: skip
    network, ids = load_model(path), torch.from_numpy(RNG.integers(-9, 9, (6, 5)))
    more = torch.tensor(RNG.normal(size=(6, 4)), dtype=torch.float32)
    x = {"ids": ids, "more": (more - 1e-4, more + 1e-4)}
    found = simulator.bounds.certify(network, x, precision=16)
    exact = (table.astype(float)[ids.numpy()].mean(1) + more.double().numpy()) @ weights.astype(float)
    assert np.allclose(found.logits, exact, atol=1e-12) and found.certified.any()
    verdict = check(text_of(certificate(network, x, precision=16, method=simulator.bounds.METHODS[-1])))
    assert verdict.ok, "\n".join(verdict.problems)


def recurrent(path):
    weights = [array(name, RNG.normal(size=shape)) for name, shape in (("w", (1, 12, 6)), ("r", (1, 12, 4)))]
    steps = [node("Unsqueeze", "x axes", "steps"), node("GRU", "steps w r", " y", hidden_size=4, layout=1, name="rec")]
    last = [node("Squeeze", "y axes", "z")]
    inner = [array("axes", [1], np.int64), *weights]
    return saved(model([*steps, *last], [floats("x", "N", 6)], [floats("z", "N", 4)], inner), path / "net.onnx")


def of_integers(path):
    integer = [node("DynamicQuantizeLinear", "x", "q s z"), node("MatMulInteger", "q w z", "i", name="whole")]
    scaled = [node("Cast", "i", "f", to=1), node("Mul", "f s", "y")]
    weights = [numpy_helper.from_array(RNG.integers(-9, 9, (6, 3)).astype(np.int8), "w")]
    return saved(model([*integer, *scaled], [floats("x", "N", 6)], [floats("y", "N", 3)], weights), path / "net.onnx")


def rounding(path):
    ends = [node("QuantizeLinear", "x s z", "q", name="whole"), node("DequantizeLinear", "q s z", "y")]
    scale = [array("s", 0.1), numpy_helper.from_array(np.zeros((), np.int8), "z")]
    return saved(model(ends, [floats("x", "N", 6)], [floats("y", "N", 6)], scale), path / "net.onnx")


def exported(path):
    class Last(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rec = torch.nn.LSTM(6, 4, batch_first=True)

        def forward(self, x):
            return self.rec(x.unsqueeze(1))[0][:, -1]

    dims = ({0: torch.export.Dim("n", min=1, max=64)},)
    torch.export.save(torch.export.export(Last().eval(), (torch.randn(2, 6),), dynamic_shapes=dims), path / "net.pt2")
    return str(path / "net.pt2")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (recurrent, "bounds: rec: GRU: recurrent layers have no rule"),
        (exported, "bounds: rec: LSTM: recurrent layers have no rule"),
        (of_integers, "bounds: .*: DynamicQuantizeLinear: operators on quantised integers have no rule"),
        (rounding, "bounds: whole: QuantizeLinear: operators on quantised integers have no rule"),
    ],
)
def test_layers_without_rules_are_called_by_what_they_are(tmp_path, write, message):
    network = load_model(write(tmp_path))
    with pytest.raises(simulator.InputError, match=message):
        simulator.bounds.certify(network.eval(), torch.zeros(2, 6), precision=12)
