"""Activations, and softmax and its relatives."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .axes import positive
from .carriers import computing
from .registry import Declined, Node, operator

_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875  # defaults of the specification


@operator("Relu")
def relu(node: Node, x: Tensor) -> Tensor:
    """Return max(x, 0)."""
    return nn.functional.relu(x)


@operator("LeakyRelu")
def leaky_relu(node: Node, x: Tensor) -> Tensor:
    """Return x, times alpha where it is negative."""
    return nn.functional.leaky_relu(x, node.get("alpha", 0.01))


@operator("PRelu")
@computing
def prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    """Return x, times a slope where it is negative."""
    return torch.where(x < 0, x * slope, x)


@operator("Elu")
def elu(node: Node, x: Tensor) -> Tensor:
    """Return x, or alpha (e^x - 1) where it is negative."""
    return nn.functional.elu(x, node.get("alpha", 1.0))


@operator("Selu")
def selu(node: Node, x: Tensor) -> Tensor:
    """Return gamma x, or gamma alpha (e^x - 1) where it is negative."""
    return node.get("gamma", _SELU_GAMMA) * nn.functional.elu(x, node.get("alpha", _SELU_ALPHA))


@operator("Celu")
def celu(node: Node, x: Tensor) -> Tensor:
    """Return x, or alpha (e^(x / alpha) - 1) where it is negative."""
    return nn.functional.celu(x, node.get("alpha", 1.0))


@operator("Gelu")
def gelu(node: Node, x: Tensor) -> Tensor:
    """Return x times the normal distribution function of x, or its approximation by tanh."""
    return nn.functional.gelu(x, approximate=node.get("approximate", "none"))


@operator("Sigmoid")
def sigmoid(node: Node, x: Tensor) -> Tensor:
    """Return 1 / (1 + e^-x)."""
    return torch.sigmoid(x)


@operator("HardSigmoid")
def hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    """Return alpha x + beta, from 0 to 1."""
    return (node.get("alpha", 0.2) * x + node.get("beta", 0.5)).clamp(0, 1)


@operator("HardSwish")
def hard_swish(node: Node, x: Tensor) -> Tensor:
    """Return x times (x / 6 + 1/2), that from 0 to 1."""
    return nn.functional.hardswish(x)


@operator("Softplus")
def softplus(node: Node, x: Tensor) -> Tensor:
    """Return ln(1 + e^x)."""
    return nn.functional.softplus(x)


@operator("Softsign")
def softsign(node: Node, x: Tensor) -> Tensor:
    """Return x / (1 + |x|)."""
    return nn.functional.softsign(x)


@operator("ThresholdedRelu")
def thresholded_relu(node: Node, x: Tensor) -> Tensor:
    """Return x where it exceeds alpha, else 0."""
    return nn.functional.threshold(x, node.get("alpha", 1.0), 0.0)


@operator("Shrink")
def shrink(node: Node, x: Tensor) -> Tensor:
    """Return x nearer to 0 by a bias where |x| exceeds lambd, else 0."""
    bias, lambd = node.get("bias", 0.0), node.get("lambd", 0.5)
    shrunk = torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, torch.zeros_like(x)))
    return shrunk.to(x.dtype)


@operator("Mish")
def mish(node: Node, x: Tensor) -> Tensor:
    """Return x tanh(ln(1 + e^x))."""
    return nn.functional.mish(x)


@operator("Swish")
def swish(node: Node, x: Tensor) -> Tensor:
    """Return x / (1 + e^(-alpha x))."""
    alpha = node.get("alpha", 1.0)
    return nn.functional.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


@operator("SwiGLU")
def swiglu(node: Node, gate: Tensor, x: Tensor) -> Tensor:
    """Return the Swish of a gate, times x."""
    return swish(node, gate) * x


@operator("Softmax", since=13)
def softmax(node: Node, x: Tensor) -> Tensor:
    """Return e^x over its sum along an axis."""
    return torch.softmax(x, positive(node.get("axis", -1), x.dim()))


@operator("LogSoftmax", since=13)
def log_softmax(node: Node, x: Tensor) -> Tensor:
    """Return the logarithm of the softmax along an axis."""
    return torch.log_softmax(x, positive(node.get("axis", -1), x.dim()))


@operator("Hardmax", since=13)
def hardmax(node: Node, x: Tensor) -> Tensor:
    """Return 1 at the first largest element along an axis, else 0."""
    axis = positive(node.get("axis", -1), x.dim())
    return torch.zeros_like(x).scatter_(axis, x.argmax(axis, keepdim=True), 1)


@operator("Softmax", "LogSoftmax", "Hardmax")
def of_rows(node: Node, x: Tensor) -> Tensor:
    """Return what later versions give along an axis, here over all axes from `axis` on together."""
    axis = positive(node.get("axis", 1), x.dim())
    rows = x.reshape(math.prod(x.shape[:axis]), -1)
    if node.op == "Hardmax":
        result = torch.zeros_like(rows).scatter_(1, rows.argmax(1, keepdim=True), 1)
    else:
        result = (torch.softmax if node.op == "Softmax" else torch.log_softmax)(rows, 1)
    return result.reshape(x.shape)


@operator("Dropout")
def dropout(node: Node, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None) -> tuple[Tensor, ...]:
    """Return x, and that nothing was dropped.

    Raises:
        Declined: a training mode that drops.
    """
    dropped = 0.5 if ratio is None else ratio.item()
    if training is not None and training.item() and dropped != 0:
        raise Declined("the training mode")
    return x, torch.ones_like(x, dtype=torch.bool)
