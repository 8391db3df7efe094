"""Layers of Keras in torch's own operations, where Keras takes several for what an array does as one.

Keras adds a bias after a product, and normalises a batch by arithmetic on its statistics. An array has the bias in its
accumulators, and a normalisation behind a product is folded into it; so these layers run as torch's own do, on Keras'
variables, and their results differ from Keras' in the last digits only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


def torch_call(layer: Any) -> Callable[..., Any]:
    """Return what computes a layer, called as its `call` is, which it is unless there is a way here."""
    import keras

    layers = keras.layers
    if layer.quantization_mode is not None:
        return layer.call
    # Of these types alone: a class that is derived from one may do anything.
    if type(layer) is layers.Dense:
        return lambda inputs, training=None: _dense(layer, inputs)
    if type(layer) in (layers.Conv1D, layers.Conv2D, layers.Conv3D):
        return lambda inputs: _convolution(layer, inputs, _weight(layer), layer.groups)
    if type(layer) in (layers.DepthwiseConv1D, layers.DepthwiseConv2D):
        return lambda inputs: _convolution(layer, inputs, _depthwise_weight(layer), layer.kernel.shape[-2])
    if type(layer) is layers.BatchNormalization:
        return lambda inputs, training=None, mask=None: _batch_norm(layer, inputs, training, mask)
    return layer.call


def _dense(layer: Any, x: Tensor) -> Any:
    return _activated(layer, functional.linear(x, _value(layer.kernel).mT, _bias(layer)))


def _convolution(layer: Any, x: Tensor, weight: Tensor, groups: int) -> Any:
    last = layer.data_format == "channels_last"
    x = x.movedim(-1, 1) if last else x
    sizes, kernel = x.shape[2:], weight.shape[2:]
    padding = [
        _padding(layer.padding, *axis) for axis in zip(sizes, kernel, layer.strides, layer.dilation_rate, strict=True)
    ]
    symmetric = all(before == behind for before, behind in padding)
    if not symmetric:
        # As torch wants them: from the last axis to the first.
        x = functional.pad(x, [length for pair in reversed(padding) for length in pair])
    within = [before for before, _ in padding] if symmetric else [0] * len(padding)
    y = _CONVOLUTIONS[len(sizes)](x, weight, _bias(layer), layer.strides, within, layer.dilation_rate, groups)
    return _activated(layer, y.movedim(1, -1) if last else y)


def _padding(kind: str, size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return the zeros before and behind an axis: as many outputs as strides ("same"), or none that look ahead."""
    reach = (kernel - 1) * dilation
    if kind == "causal":
        return reach, 0
    needed = max(0, (-(-size // stride) - 1) * stride + reach + 1 - size) if kind == "same" else 0
    return needed // 2, needed - needed // 2


def _weight(layer: Any) -> Tensor:
    """Return a kernel (axes..., channels, filters) as torch's (filters, channels, axes...)."""
    return _value(layer.kernel).movedim((-1, -2), (0, 1))


def _depthwise_weight(layer: Any) -> Tensor:
    """Return a kernel (axes..., channels, multiplier) as torch's (channels * multiplier, 1, axes...)."""
    return _value(layer.kernel).movedim((-2, -1), (0, 1)).flatten(0, 1).unsqueeze(1)


def _batch_norm(layer: Any, x: Tensor, training: bool | None, mask: Any) -> Any:
    if (training and layer.trainable) or x.dtype != layer.moving_mean.value.dtype:
        return type(layer).call(layer, x, training=training, mask=mask)
    gamma, beta = (_value(layer.gamma) if layer.scale else None), (_value(layer.beta) if layer.center else None)
    mean, variance = _value(layer.moving_mean), _value(layer.moving_variance)
    y = functional.batch_norm(x.movedim(layer.axis, 1), mean, variance, gamma, beta, eps=layer.epsilon)
    return y.movedim(1, layer.axis)


def _value(variable: Any) -> Tensor:
    """The tensor of a variable, or of the sum that stands for it where Keras trains by ranks."""
    return variable.value if hasattr(variable, "value") else variable


def _bias(layer: Any) -> Tensor | None:
    return _value(layer.bias) if layer.use_bias else None


def _activated(layer: Any, x: Tensor) -> Any:
    return x if layer.activation is None else layer.activation(x)
