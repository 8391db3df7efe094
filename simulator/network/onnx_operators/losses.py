"""Losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .registry import Node, operator


def _likelihood(node: Node, logarithms: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
    ignored = node.get("ignore_index")
    labels = labels.to(torch.int64)
    none = -1 if ignored is None else ignored
    return nn.functional.nll_loss(
        logarithms, labels, weight, ignore_index=none, reduction=node.get("reduction", "mean")
    )


@operator("NegativeLogLikelihoodLoss")
def negative_log_likelihood(node: Node, logarithms: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return minus the logarithm of each label (N, C, ...), weighted by class, their weighted mean, or their sum."""
    return _likelihood(node, logarithms, labels, weight)


@operator("SoftmaxCrossEntropyLoss")
def cross_entropy(node: Node, scores: Tensor, labels: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the negative log likelihood of the labels after a softmax over classes, and its logarithms."""
    logarithms = torch.log_softmax(scores, 1)
    return _likelihood(node, logarithms, labels, weight), logarithms
