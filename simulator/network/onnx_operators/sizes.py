"""Operators that ask for shapes or make tensors of them; shapes are int64 tensors and stay exact."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from simulator.network.limits import check_fits

from .registry import Declined, Node, operator


@operator("Shape")
def _shape(node: Node, x: Tensor) -> Tensor:
    return torch.tensor(x.shape[node.get("start", 0) : node.get("end")], dtype=torch.int64)


@operator("Size")
def _size(node: Node, x: Tensor) -> Tensor:
    return torch.tensor(x.numel())


@operator("ConstantOfShape", since=9)
def _constant_of_shape(node: Node, shape: Tensor) -> Tensor:
    lengths = shape.tolist()
    if shape.dim() != 1 or min(lengths, default=0) < 0:
        raise Declined(f"a shape {lengths}")
    value = node.get("value", torch.zeros(1))
    if value.numel() != 1:
        raise Declined(f"a value of shape {tuple(value.shape)}, where it is to be one")
    check_fits(f"a tensor of shape {tuple(lengths)}", math.prod(lengths), value.element_size())
    return value.reshape([1] * len(lengths)).expand(lengths).clone()
