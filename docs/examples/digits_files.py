"""Classifiers of scikit-learn's digits as files of Keras and ONNX, and what can be proved of their answers.

python digits_files.py DIR      trains and writes mlp.keras, cnn.keras, mlp.onnx and digits.npz; prints what is proved
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from digits_mlp import classifier, from_scikit_learn, parts
from numpy.typing import NDArray

import simulator
from simulator.errors import InputError, missing
from simulator.network.model_files import load_model

SAMPLES = 100  # of which proofs are made
SHARES = (0.5, 0.9, 1.0)
UNITS = ("seq(fp32)", "fma(fp16)", "fma(bf16)")


def write_files(directory: Path, epochs: int = 20) -> list[Path]:
    """Train and write a perceptron and a small convolutional network of Keras, the perceptron of scikit-learn as ONNX,
    and the digits held out; return the paths of the networks.

    Raises:
        InputError: scikit-learn, Keras or onnx is not installed.
    """
    for library, extra in (("keras", "keras"), ("onnx", "onnx")):
        if importlib.util.find_spec(library) is None:
            raise missing("the files", library, extra)
    (x, y), (held_out, labels) = parts()
    directory.mkdir(parents=True, exist_ok=True)
    np.savez(directory / "digits.npz", x=held_out.astype(np.float32), y=labels)
    for name, network in _of_keras().items():
        network.compile("adam", _loss(), metrics=["accuracy"])
        network.fit(x.astype(np.float32), y, epochs=epochs, verbose=0)
        network.save(directory / f"{name}.keras")
    _write_onnx(directory / "mlp.onnx")
    return [directory / name for name in ("mlp.keras", "cnn.keras", "mlp.onnx")]


def _of_keras() -> dict[str, Any]:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    return {
        "mlp": keras.Sequential([
            keras.Input((64,)), layers.Dense(64, "relu", name="first"), layers.Dense(32, "relu", name="second"),
            layers.Dense(10, name="last"),
        ]),
        "cnn": keras.Sequential([
            keras.Input((64,)), layers.Reshape((8, 8, 1)), layers.Conv2D(8, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(2), layers.Flatten(), layers.Dense(32, "relu", name="dense"),
            layers.Dense(10, name="last"),
        ]),
    }  # fmt: skip


def _loss() -> Any:
    import keras

    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _write_onnx(path: Path) -> None:
    """Write scikit-learn's perceptron: a Gemm a layer, with a Relu behind all but the last."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, tensors, value = [], [], "pixels"
    linear = [layer for layer in from_scikit_learn(classifier()) if isinstance(layer, torch.nn.Linear)]
    for number, layer in enumerate(linear):
        for name, tensor in (("weight", layer.weight), ("bias", layer.bias)):
            tensors.append(numpy_helper.from_array(tensor.detach().numpy(), f"fc{number}.{name}"))
        made, inputs = f"sum{number}", [value, f"fc{number}.weight", f"fc{number}.bias"]
        nodes.append(helper.make_node("Gemm", inputs, [made], name=f"fc{number}", transB=1))
        if number < len(linear) - 1:
            nodes.append(helper.make_node("Relu", [made], [f"active{number}"], name=f"relu{number}"))
        value = nodes[-1].output[0]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["samples", size])
        for name, size in (("pixels", 64), (value, 10))
    ]
    graph = helper.make_graph(nodes, "digits", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def proved(path: Path, x: NDArray[np.float32], y: NDArray[np.int64]) -> list[str]:
    """Return of a network the cells of a row: its name, the share that is right, the bits that provably keep the
    answers of so many samples, and the share of answers that are proved on each unit.
    """
    network, samples = load_model(str(path)), torch.from_numpy(x)
    with torch.no_grad():
        right = float((network(samples).argmax(1).numpy() == y).mean())
    bits = simulator.bounds.required_precision(network, samples[:SAMPLES]).quantiles(SHARES)
    certified = [simulator.bounds.certify(network, samples[:SAMPLES], mac=unit).certified.mean() for unit in UNITS]
    return [
        f"`{path.name}`", f"{right:.1%}", *(str(bits[share]) for share in SHARES),
        *(f"{share:.0%}" for share in certified),
    ]  # fmt: skip


def main(directory: Path) -> None:
    """Write the files and print the table."""
    networks = write_files(directory)
    with np.load(directory / "digits.npz") as digits:
        x, y = digits["x"], digits["y"]
    heads = ["network", "right", *(f"bits for {share:.0%}" for share in SHARES), *(f"`{unit}`" for unit in UNITS)]
    for cells in (heads, ["---"] * len(heads), *(proved(path, x, y) for path in networks)):
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python digits_files.py DIR")
    try:
        main(Path(sys.argv[1]))
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
