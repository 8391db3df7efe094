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

from .convolutions import convolution, same_padding, transposed_convolution


def torch_call(layer: Any) -> Callable[..., Any]:
    """Return what computes a layer, called as its `call` is, which it is unless there is a way here."""
    import keras

    layers = keras.layers
    if layer.quantization_mode is not None:
        return layer.call
    # Of these types alone: a class that is derived from one may do anything.
    if type(layer) is layers.Dense:
        return lambda inputs, training=None: _dense(layer, inputs)
    if type(layer) is layers.EinsumDense:
        return lambda inputs, training=None: _einsum_dense(layer, inputs, training)
    if type(layer) in (layers.Conv1D, layers.Conv2D, layers.Conv3D):
        return lambda inputs: _convolution(layer, inputs, _weight(layer), layer.groups)
    if type(layer) in (layers.DepthwiseConv1D, layers.DepthwiseConv2D):
        return lambda inputs: _convolution(layer, inputs, _depthwise_weight(layer), layer.kernel.shape[-2])
    if type(layer) in (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose):
        return lambda inputs: _transposed_convolution(layer, inputs)
    if type(layer) is layers.BatchNormalization:
        return lambda inputs, training=None, mask=None: _batch_norm(layer, inputs, training, mask)
    if type(layer) is layers.Normalization and layer.mean is not None:
        return _normalisation(layer)
    return layer.call


def _normalisation(layer: Any) -> Callable[[Tensor], Tensor]:
    """Return what normalises by constants of which the root is taken here and once, not anew in each pass."""
    import keras

    mean, deviation = layer.mean, layer.variance.sqrt().clamp(min=keras.config.epsilon())
    if layer.invert:
        return lambda inputs: mean + inputs * deviation
    return lambda inputs: (inputs - mean) / deviation


def _dense(layer: Any, x: Tensor) -> Any:
    return _activated(layer, functional.linear(x, value_of(layer.kernel).mT, _bias(layer)))


def _einsum_dense(layer: Any, x: Tensor, training: bool | None) -> Any:
    kernel, summed = value_of(layer.kernel), _summed(layer.equation)
    bias = None if layer.bias is None else value_of(layer.bias)
    if not summed or (bias is not None and bias.shape != kernel.shape[summed:]):
        return type(layer).call(layer, x, training=training)
    weight = kernel.flatten(0, summed - 1).flatten(1).mT
    y = functional.linear(x.flatten(-summed), weight, None if bias is None else bias.flatten())
    return _activated(layer, y.unflatten(-1, kernel.shape[summed:]))


def _summed(equation: str) -> int:
    """Return how many axes an equation of a linear layer sums: the last of the input, in whose place those that are
    left of the kernel come. 0 of any other equation.
    """
    operands, _, output = equation.partition("->")
    x, _, kernel = operands.partition(",")
    for count in range(1, len(kernel)):
        left = x.removesuffix(kernel[:count])
        names = left.replace(".", "") + kernel
        if left != x and output == left + kernel[count:] and len(set(names)) == len(names):
            return count
    return 0


def _convolution(layer: Any, x: Tensor, weight: Tensor, groups: int) -> Any:
    def run(x: Tensor) -> Tensor:
        axes = zip(x.shape[2:], weight.shape[2:], layer.strides, layer.dilation_rate, strict=True)
        begin, end = zip(*(_padding(layer.padding, *axis) for axis in axes), strict=True)
        return convolution(x, weight, _bias(layer), layer.strides, layer.dilation_rate, begin, end, groups)

    return _activated(layer, _channels_first(layer, x, run))


def _padding(kind: str, size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return the zeros before and behind an axis: as many outputs as strides ("same"), or none that look ahead."""
    reach = (kernel - 1) * dilation
    if kind == "causal":
        return reach, 0
    needed = same_padding(size, reach + 1, stride) if kind == "same" else 0
    return needed // 2, needed - needed // 2


def _transposed_convolution(layer: Any, x: Tensor) -> Any:
    weight, extra = _weight(layer), layer.output_padding
    extras = extra if isinstance(extra, tuple | list) else [extra] * len(layer.strides)
    axes = zip(weight.shape[2:], layer.strides, layer.dilation_rate, extras, strict=True)
    begin, end = zip(*(_border(layer.padding, *axis) for axis in axes), strict=True)

    def run(x: Tensor) -> Tensor:
        return transposed_convolution(x, weight, _bias(layer), layer.strides, layer.dilation_rate, begin, end, 1)

    return _activated(layer, _channels_first(layer, x, run))


def _border(kind: str, kernel: int, stride: int, dilation: int, extra: int | None) -> tuple[int, int]:
    """Return what is removed of a transposed convolution before and behind an axis; negative: zeros are added.

    Without `extra` ("output padding"), as many outputs as strides are left ("same"), or at least a stride for each
    input.
    """
    extent = (kernel - 1) * dilation + 1
    if kind == "valid":
        return 0, -(max(0, stride - extent) if extra is None else extra)
    removed = extent - stride if extra is None else extent - extent % 2 - extra
    before = max(0, removed // 2)
    return before, removed - before


def _channels_first(layer: Any, x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    """Run on images as torch has them what a layer computes on its own."""
    if layer.data_format == "channels_first":
        return run(x)
    return run(x.movedim(-1, 1)).movedim(1, -1)


def _weight(layer: Any) -> Tensor:
    """Return a kernel (axes..., channels, filters) as torch's (filters, channels, axes...).

    That of a transposed convolution has the two the other way round, as torch's has.
    """
    return value_of(layer.kernel).movedim((-1, -2), (0, 1))


def _depthwise_weight(layer: Any) -> Tensor:
    """Return a kernel (axes..., channels, multiplier) as torch's (channels * multiplier, 1, axes...)."""
    return value_of(layer.kernel).movedim((-2, -1), (0, 1)).flatten(0, 1).unsqueeze(1)


def _batch_norm(layer: Any, x: Tensor, training: bool | None, mask: Any) -> Any:
    if (training and layer.trainable) or x.dtype != layer.moving_mean.value.dtype:
        return type(layer).call(layer, x, training=training, mask=mask)
    gamma, beta = (value_of(layer.gamma) if layer.scale else None), (value_of(layer.beta) if layer.center else None)
    mean, variance = value_of(layer.moving_mean), value_of(layer.moving_variance)
    y = functional.batch_norm(x.movedim(layer.axis, 1), mean, variance, gamma, beta, eps=layer.epsilon)
    return y.movedim(1, layer.axis)


def value_of(variable: Any) -> Tensor:
    """The tensor of a variable, or of the sum that stands for it where Keras trains by ranks."""
    return variable.value if hasattr(variable, "value") else variable


def _bias(layer: Any) -> Tensor | None:
    return value_of(layer.bias) if layer.use_bias else None


def _activated(layer: Any, x: Tensor) -> Any:
    return x if layer.activation is None else layer.activation(x)
