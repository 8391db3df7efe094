"""Small ONNX models for tests, of operators that are defined here, so that what runs them is tested alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from simulator.network.onnx_operators.registry import Declined, Node, operator

DOMAIN = "ulpsim.tests"
OPSET = 18


@operator("Affine", domain=DOMAIN)
def _affine(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(N, K), (K, M), (M,) to (N, M)."""
    product = x @ weight
    return product if bias is None else product + bias


@operator("Plus", domain=DOMAIN)
def _plus(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return a + b


@operator("Less", domain=DOMAIN)
def _less(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return a < b


@operator("Rectified", domain=DOMAIN)
def _rectified(node: Node, x: Tensor) -> Tensor:
    return torch.relu(x)


@operator("Power", domain=DOMAIN)
def _power(node: Node, x: Tensor) -> Tensor:
    return x ** node.get("exponent", 2)


@operator("Halves", domain=DOMAIN)
def _halves(node: Node, x: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.chunk(2, dim=1))


@operator("Sorted", domain=DOMAIN)
def _sorted(node: Node, x: Tensor) -> Tensor:
    return x.sort(1).values


@operator("Fussy", domain=DOMAIN)
def _fussy(node: Node, x: Tensor) -> Tensor:
    raise Declined("anything at all")


def node(op: str, inputs: Any, outputs: Any, **attributes: Any) -> Any:
    """Return a node; names of inputs and outputs by spaces. The operators above come first."""
    domain = (
        DOMAIN if op in ("Affine", "Plus", "Less", "Rectified", "Power", "Halves", "Fussy", "Sorted", "Missing") else ""
    )
    attributes.setdefault("domain", domain)
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def floats(name: str, *shape: Any) -> Any:
    """Declare a float value."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def integers(name: str, *shape: Any, type: int = TensorProto.INT64) -> Any:
    """Declare a value of integers."""
    return helper.make_tensor_value_info(name, type, shape)


def array(name: str, values: Any, dtype: Any = np.float32) -> Any:
    """Return an initialiser."""
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def model(
    nodes: Any, inputs: Any, outputs: Any, initialisers: Any = (), *, opset: int = OPSET, functions: Any = (),
    ir_version: int = 10,
) -> Any:  # fmt: skip
    """Return a model."""
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), list(initialisers))
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=ir_version)


def perceptron(batch: Any = "N") -> Any:
    """Return a model of two layers, (batch, 6) to (batch, 3); the weights are of a seed."""
    rng = np.random.default_rng(3)
    return model(
        [
            node("Affine", "pixels net.fc1.weight net.fc1.bias", "hidden", name="/net/fc1/Gemm"),
            node("Rectified", "hidden", "active", name="/net/act/Relu"),
            node("Affine", "active net.fc2.weight net.fc2.bias", "scores", name="/net/fc2/Gemm"),
        ],
        [floats("pixels", batch, 6)],
        [floats("scores", batch, 3)],
        [
            array("net.fc1.weight", rng.normal(size=(6, 8))), array("net.fc1.bias", rng.normal(size=8)),
            array("net.fc2.weight", rng.normal(size=(8, 3))), array("net.fc2.bias", rng.normal(size=3)),
        ],
    )  # fmt: skip


def saved(proto: Any, path: Any) -> str:
    """Write a model, and return its path as text."""
    path.write_bytes(proto.SerializeToString())
    return str(path)
