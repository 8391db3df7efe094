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
from tests.simulator.onnx_models import array, floats, model, node, saved  # noqa: E402

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
