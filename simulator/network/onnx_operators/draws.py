"""Operators that draw numbers: the same at every call, by the seed that the node gives, and not those of others."""

from __future__ import annotations

import torch
from torch import Tensor

from .axes import fitting
from .registry import Declined, Node, operator
from .types import torch_type


def _generator(node: Node) -> torch.Generator:
    """Return a generator in the state that the node's seed gives, a float whose bits count.

    Raises:
        Declined: the node gives none, and wants other numbers at every call.
    """
    if "seed" not in node.attributes:
        raise Declined("random numbers without a seed")
    bits = int(torch.tensor(node.get("seed"), dtype=torch.float32).view(torch.int32))
    return torch.Generator().manual_seed(bits)


def _dtype(node: Node, x: Tensor | None) -> torch.dtype:
    return torch_type(node.get("dtype", 1)) if x is None or "dtype" in node.attributes else x.dtype


@operator("RandomUniform", "RandomUniformLike")
def uniform(node: Node, like: Tensor | None = None) -> Tensor:
    """Return numbers that are equally likely from `low` to `high`, in a shape or that of another tensor."""
    shape = fitting(node.get("shape") if like is None else like.shape, torch.float32)
    low, high = node.get("low", 0.0), node.get("high", 1.0)
    return (low + (high - low) * torch.rand(shape, generator=_generator(node))).to(_dtype(node, like))


@operator("RandomNormal", "RandomNormalLike")
def normal(node: Node, like: Tensor | None = None) -> Tensor:
    """Return normally distributed numbers of a mean and a standard deviation `scale`."""
    shape = fitting(node.get("shape") if like is None else like.shape, torch.float32)
    drawn = torch.randn(shape, generator=_generator(node))
    return (node.get("mean", 0.0) + node.get("scale", 1.0) * drawn).to(_dtype(node, like))


@operator("Bernoulli")
def bernoulli(node: Node, probability: Tensor) -> Tensor:
    """Return 1 with the probability that each element gives, else 0."""
    return torch.bernoulli(probability, generator=_generator(node)).to(_dtype(node, probability))


@operator("Multinomial")
def multinomial(node: Node, logarithms: Tensor) -> Tensor:
    """Return `sample_size` classes for each row, by the logarithms of their probabilities, up to a constant."""
    likely = torch.softmax(logarithms.float(), 1)
    _, count = fitting([len(likely), node.get("sample_size", 1)], torch.int64)
    drawn = torch.multinomial(likely, count, replacement=True, generator=_generator(node))
    return drawn.to(torch_type(node.get("dtype", 6)))
