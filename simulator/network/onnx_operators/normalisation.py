"""Normalisations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .axes import all_positive, fitting, positive
from .registry import Declined, Node, operator
from .types import torch_type


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    """Return one value a channel as it broadcasts to x (N, C, ...)."""
    return values.reshape(-1, *(1,) * (x.dim() - 2))


def _stashed(node: Node, x: Tensor) -> Tensor:
    """Return x in the precision that the statistics are computed in, `stash_type`, or its own if that is wider."""
    return x.to(torch.promote_types(x.dtype, torch_type(node.get("stash_type", 1))))


@operator("BatchNormalization")
def batch_normalization(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """Return (x - mean) / sqrt(variance + epsilon) scale + bias, each a channel.

    In the training mode mean and variance are the batch's, and the running ones are returned too.
    """
    epsilon = node.get("epsilon", 1e-5)
    if node.version < 14 and len(node.outputs) > 1:
        raise Declined("the training mode of versions before 14")
    if not node.get("training_mode", 0):
        return _batch_normalized(x, mean, variance, scale, bias, epsilon)
    axes = [axis for axis in range(x.dim()) if axis != 1]
    batch_mean, batch_variance = x.mean(axes), x.var(axes, correction=0)
    result = _batch_normalized(x, batch_mean, batch_variance, scale, bias, epsilon)
    kept = node.get("momentum", 0.9)
    return result, mean * kept + batch_mean * (1 - kept), variance * kept + batch_variance * (1 - kept)


def _batch_normalized(x: Tensor, mean: Tensor, variance: Tensor, scale: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    wide = x
    for values in (mean, variance, scale, bias):
        wide = wide.to(torch.promote_types(wide.dtype, values.dtype))
    mean, variance, scale, bias = (values.to(wide.dtype) for values in (mean, variance, scale, bias))
    return nn.functional.batch_norm(wide, mean, variance, scale, bias, eps=epsilon).to(x.dtype)


@operator("InstanceNormalization")
def instance_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Return each channel of each sample with mean 0 and variance 1, scaled and shifted."""
    return torch.group_norm(x, x.shape[1], scale, bias, node.get("epsilon", 1e-5))


@operator("GroupNormalization", since=18)
def group_normalization_by_group(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Return each group of channels with mean 0 and variance 1, scaled and shifted by one value a group."""
    each = x.shape[1] // node.get("num_groups")
    return group_normalization(node, x, scale.repeat_interleave(each), bias.repeat_interleave(each))


@operator("GroupNormalization", since=21)
def group_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Return each group of channels with mean 0 and variance 1, scaled and shifted by one value a channel."""
    groups, epsilon = node.get("num_groups"), node.get("epsilon", 1e-5)
    wide = _stashed(node, x)
    if wide.dtype == x.dtype:
        return torch.group_norm(x, groups, scale, bias, epsilon)
    normal = torch.group_norm(wide, groups, None, None, epsilon).to(x.dtype)
    return normal * _by_channel(scale, x) + _by_channel(bias, x)


@operator("LayerNormalization")
def layer_normalization(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """Return x with mean 0 and variance 1 over the axes from `axis` on, scaled and shifted.

    Also the means, and the reciprocals of the standard deviations, if they are asked for.
    """
    shape = x.shape[positive(node.get("axis", -1), x.dim()) :]
    epsilon, wide = node.get("epsilon", 1e-5), _stashed(node, x)
    if wide.dtype == x.dtype and scale.shape == shape and (bias is None or bias.shape == shape):
        result = nn.functional.layer_norm(x, shape, scale, bias, epsilon)
    else:
        result = nn.functional.layer_norm(wide, shape, None, None, epsilon).to(x.dtype) * scale
        result = result if bias is None else result + bias
    if len(node.outputs) == 1:
        return result
    axes = list(range(x.dim() - len(shape), x.dim()))
    variance, mean = torch.var_mean(wide, axes, correction=0, keepdim=True)
    return result, mean, (variance + epsilon).rsqrt()


@operator("RMSNormalization")
def rms_normalization(node: Node, x: Tensor, scale: Tensor) -> Tensor:
    """Return x / sqrt(mean(x^2) + epsilon) over the axes from `axis` on, scaled."""
    axes = list(range(positive(node.get("axis", -1), x.dim()), x.dim()))
    wide = _stashed(node, x)
    squares = wide.square().mean(axes, keepdim=True) + node.get("epsilon", 1e-5)
    return (wide * squares.rsqrt()).to(x.dtype) * scale


@operator("LRN")
def local_response_normalization(node: Node, x: Tensor) -> Tensor:
    """Return x / (bias + alpha / size sum)^beta, the sum of the squares of `size` channels around each."""
    size, bias = node.get("size"), node.get("bias", 1.0)
    fitting([x.shape[0], x.shape[1] + size - 1, *x.shape[2:]], x.dtype)
    before = (size - 1) // 2
    padding = (0, 0) * (x.dim() - 2) + (before, size - 1 - before)
    sums = nn.functional.pad(x.square(), padding).unfold(1, size, 1).sum(-1)
    return x / (bias + node.get("alpha", 1e-4) / size * sums).pow(node.get("beta", 0.75))


@operator("LpNormalization")
def lp_normalization(node: Node, x: Tensor) -> Tensor:
    """Return x over its 1-norm or 2-norm along an axis, 0 where that is 0."""
    axis = positive(node.get("axis", -1), x.dim())
    norm = x.abs().sum(axis, keepdim=True) if node.get("p", 2) == 1 else x.square().sum(axis, keepdim=True).sqrt()
    return torch.where(norm == 0, 0, x / norm)


@operator("MeanVarianceNormalization")
def mean_variance_normalization(node: Node, x: Tensor) -> Tensor:
    """Return (x - mean) / (standard deviation + 1e-9) over some axes."""
    axes = all_positive(node.get("axes", [0, 2, 3]), x.dim())
    mean = x.mean(axes, keepdim=True)
    deviation = (x.square().mean(axes, keepdim=True) - mean.square()).sqrt()
    return (x - mean) / (deviation + 1e-9)
