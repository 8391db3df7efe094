"""The vector unit: elementwise operations, activations, normalisations, softmax, reductions, in a format of choice.

Each operation reads its operands rounded to the format, is computed by torch in its own arithmetic, and its results are
rounded to the format: one rounding for each operation of torch's dispatcher, however much of it that is. Values that
are only moved are not rounded.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from formats import Use
from simulator.arithmetic.rounding import rounded as round_array
from simulator.errors import InputError

# What torch does not mark as elementwise or as a reduction, by name without overload and without _ behind it.
_VECTOR = frozenset({
    "native_layer_norm", "native_layer_norm_backward", "native_group_norm", "native_group_norm_backward",
    "native_batch_norm", "native_batch_norm_backward", "_native_batch_norm_legit", "batch_norm_backward",
    "_native_batch_norm_legit_no_training", "_fused_rms_norm", "_fused_rms_norm_backward",
    "_softmax", "_log_softmax", "_safe_softmax", "_softmax_backward_data", "_log_softmax_backward_data", "logsumexp",
    "cumsum", "cumprod", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
    "avg_pool2d_backward", "avg_pool3d_backward", "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward",
    "max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool2d_with_indices_backward",
    "hardswish", "hardswish_backward", "glu", "glu_backward", "_prelu_kernel", "_prelu_kernel_backward",
    "log_sigmoid_forward", "log_sigmoid_backward", "rrelu_with_noise", "native_dropout", "renorm",
    "upsample_bilinear2d", "upsample_linear1d", "upsample_trilinear3d", "upsample_bicubic2d",
    "upsample_bilinear2d_backward", "upsample_linear1d_backward", "upsample_trilinear3d_backward",
    "elu_backward", "leaky_relu_backward", "softplus_backward", "softshrink_backward", "hardshrink_backward",
    "hardsigmoid_backward", "hardtanh_backward", "rrelu_with_noise_backward", "mish_backward", "silu_backward",
    "scatter_add", "index_add", "logcumsumexp", "dist", "grid_sampler_2d", "grid_sampler_3d", "segment_reduce",
    "grid_sampler_2d_backward", "grid_sampler_3d_backward", "col2im", "_weight_norm_interface",
    "_weight_norm_interface_backward",
    "upsample_bicubic2d_backward", "nll_loss_forward", "nll_loss2d_forward", "var_mean", "linalg_vector_norm",
})  # fmt: skip
# Copies, which torch makes for the sake of its layouts, a part of them only for some numbers of samples.
_COPIES = frozenset({"clone", "copy"})
# Conversions to another type of torch's, in which the machine's own values are not: no arithmetic, though some round.
_CONVERSIONS = frozenset({"_to_copy"})
# What only moves values, or makes some up: also what torch marks as elementwise.
_MOVES = _COPIES | frozenset({
    "fill", "masked_fill", "where", "zero", "full", "full_like", "ones", "ones_like",
    "zeros", "zeros_like", "new_full", "new_ones", "new_zeros", "arange", "linspace", "eye", "scalar_tensor", "cat",
    "stack", "embedding", "index", "index_select", "index_put", "_index_put_impl", "index_copy", "index_fill", "gather",
    "take", "scatter", "masked_select", "masked_scatter", "tril", "triu", "flip", "roll", "repeat", "repeat_interleave",
    "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
    "replication_pad2d", "replication_pad3d", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "im2col",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "select_backward", "slice_backward", "diag_embed",
    "slice_scatter", "select_scatter", "diagonal_scatter", "as_strided_scatter",
})  # fmt: skip
# What computes nothing, without being marked as a view: memory set apart, the same values of another shape or type.
_NOTHING = frozenset({
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "_reshape_alias",
    "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk", "resize", "set", "_local_scalar_dense", "lift_fresh",
})  # fmt: skip

# Operations that write to arguments that their schema does not mark (running statistics, which keep their precision):
# how many of the first ones are only read.
_READ = {"native_batch_norm": 3, "_native_batch_norm_legit": 3, "_native_batch_norm_legit_no_training": 3}

FLOAT32 = Use.parse("fp32")  # the format in which all is left as torch computes it


def unit(form: str | Use) -> Use:
    """Return the format of a vector unit; InputError if its values do not stand alone or need random words."""
    try:
        use = Use.parse(form)
    except ValueError as error:
        raise InputError(f"vector_unit: {error}; expected a format; give e.g. 'bf16'") from None
    if use.format.has_blocks or use.mode.stochastic:
        raise InputError(
            f"vector_unit: got {use}; expected a format of single values, rounded without random words; give e.g. bf16"
        )
    return use


@functools.cache
def covers(func: Any) -> bool:
    """Whether an operation is one of the vector unit."""
    name = _plain_name(func)
    if not name:
        return False
    forms = [func]
    returning = getattr(torch.ops.aten, name, None)  # operations in place lack the marks of those that return
    if returning is not None:
        forms += [getattr(returning, overload) for overload in returning.overloads()]
    marked = any(torch.Tag.pointwise in form.tags or torch.Tag.reduction in form.tags for form in forms)
    return (marked and name not in _MOVES) or name in _VECTOR


@functools.cache
def moves(func: Any) -> bool:
    """Whether an operation only moves values."""
    return _plain_name(func) in _MOVES


@functools.cache
def converts(func: Any) -> bool:
    """Whether an operation only converts values to another type, or copies them to another layout."""
    return _plain_name(func) in _CONVERSIONS


@functools.cache
def copies(func: Any) -> bool:
    """Whether an operation only copies values, as they are, to another place or layout."""
    return _plain_name(func) in _COPIES


@functools.cache
def computes_nothing(func: Any) -> bool:
    """Whether an operation neither computes nor moves: a view, or memory set apart."""
    return bool(getattr(func, "is_view", False)) or _plain_name(func) in _NOTHING


def _plain_name(func: Any) -> str:
    """Return the name of an operation of torch without overload and without _ behind it; empty for others."""
    if not isinstance(func, torch._ops.OpOverload) or func.namespace not in ("aten", "prims"):
        return ""
    return str(func.overloadpacket.__name__).removesuffix("_")


def compute(use: Use, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation of the vector unit in a format; None where torch does so itself."""
    if use == FLOAT32 or not covers(func):
        return None

    def read(x: Any) -> Any:
        return tree_map_only(Tensor, lambda tensor: rounded(tensor, use), x)

    written = _written(func, args, kwargs)
    if written:
        for tensor in written:
            tensor.copy_(rounded(tensor, use))
        same = {id(tensor) for tensor in written}
        args, kwargs = tree_map_only(
            Tensor, lambda tensor: tensor if id(tensor) in same else rounded(tensor, use), (args, kwargs)
        )
        result = func(*args, **kwargs)
        for tensor in written:
            tensor.copy_(rounded(tensor, use))
        return tree_map_only(Tensor, lambda tensor: tensor if id(tensor) in same else rounded(tensor, use), result)
    first = _READ.get(func.overloadpacket.__name__, len(args))
    return read(func(*(*read(args[:first]), *args[first:]), **read(kwargs)))


def rounded(x: Tensor, use: Use) -> Tensor:
    """Return a tensor of floats rounded into a use, of its own type and layout; others as they are."""
    if not x.is_floating_point() or x.layout is not torch.strided or not x.numel():
        return x
    x = x.detach()
    wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
    return torch.from_numpy(round_array(wide.numpy(), use)).to(x.dtype)


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    if not func._schema.is_mutable:
        return []
    found = []
    for i, argument in enumerate(func._schema.arguments):
        value = args[i] if i < len(args) else kwargs.get(argument.name)
        if argument.is_write and isinstance(value, Tensor) and value.is_floating_point():
            found.append(value)
    return found
