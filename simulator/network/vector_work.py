"""What an operation asks of the vector unit, or of the memory where it only moves values: kind and numbers of elements.

The names are those of torch's operations without overload, without `_` at either end.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from simulator.cost import KINDS, VectorOperation

from .leaves import tensors_in
from .tap import Ran

# By kind the operations that do not have its name. What is in neither is elementwise, an addition for each element.
_NAMES = {
    "multiply": "mul square ldexp deg2rad rad2deg cumprod xlogy native_dropout_backward rrelu_with_noise_backward",
    "multiply_add": "lerp addcmul",
    "divide": "div true_divide reciprocal addcdiv fmod remainder hardsigmoid",
    "square_root": "sqrt rsqrt hypot",
    "function": "exp exp2 expm1 log log2 log10 log1p sin cos tan sinc asin acos atan atan2 sinh cosh asinh acosh atanh "
    "erf erfc erfinv digamma lgamma mvlgamma polygamma igamma igammac i0 frexp angle logcumsumexp",
    "power": "pow float_power",
    "clamp": "clip hardtanh relu6 hardtanh_backward hardsigmoid_backward softshrink softshrink_backward nan_to_num",
    "leaky_relu": "prelu_kernel leaky_relu_backward prelu_kernel_backward rrelu_with_noise",
    "hardswish": "hardswish_backward",
    "sigmoid": "logit",
    "silu": "glu softplus_backward log_sigmoid_backward",
    "elu": "celu selu elu_backward",
    "softplus": "log_sigmoid_forward logaddexp logaddexp2",
    "silu_backward": "glu_backward logit_backward",
    "dropout": "native_dropout",
    "maximum": "max min amax amin argmax argmin aminmax",
    "product": "prod",
    "norm": "linalg_vector_norm dist renorm",
    "variance": "var std var_mean std_mean",
    "log_sum_exp": "logsumexp",
    "softmax": "safe_softmax",
    "softmax_backward": "softmax_backward_data",
    "log_softmax_backward": "log_softmax_backward_data",
    "normalisation": "native_layer_norm native_group_norm",
    "scale_and_shift": "native_batch_norm native_batch_norm_legit native_batch_norm_legit_no_training",
    "rms_norm": "fused_rms_norm",
    "normalisation_backward": "native_layer_norm_backward native_group_norm_backward native_batch_norm_backward "
    "batch_norm_backward fused_rms_norm_backward",
    "weight_norm": "weight_norm_interface weight_norm_interface_backward",
    "max_pool": "max_pool2d_with_indices max_pool3d_with_indices",
    "average_pool": "avg_pool2d avg_pool3d adaptive_avg_pool2d adaptive_avg_pool3d avg_pool2d_backward "
    "avg_pool3d_backward adaptive_avg_pool2d_backward adaptive_avg_pool3d_backward",
    "interpolation": "upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d "
    "upsample_linear1d_backward upsample_bilinear2d_backward upsample_trilinear3d_backward "
    "upsample_bicubic2d_backward grid_sampler_2d grid_sampler_3d grid_sampler_2d_backward grid_sampler_3d_backward",
}

_KIND_OF = {name: kind for kind, names in _NAMES.items() for name in names.split()}

# Kinds of powers, by the exponent.
_POWERS = {2: "multiply", 0.5: "square_root", -0.5: "square_root"}

# Elements of the argument that interpolations weigh for one result.
_TAPS = {
    "upsample_linear1d": 2, "upsample_bilinear2d": 4, "upsample_trilinear3d": 8, "upsample_bicubic2d": 16,
    "grid_sampler_2d": 4, "grid_sampler_3d": 8,
}  # fmt: skip


def vector_operation(ran: Ran, largest: int, shared: Callable[[Tensor], bool]) -> VectorOperation:
    """Return what an operation of the vector unit asks of it.

    Args:
        largest: elements of the largest tensor that it reads or writes. shared: whether a tensor depends on no sample.
    """
    name = _name(ran.func)
    operands, results = list(_operands(ran)), _results(ran)
    parameters = sum(x.numel() for x in operands if shared(x))
    elements, rows = _elements(name, ran, results, largest)
    kind = kind_of(name)
    if kind == "scale_and_shift" and rows:  # with the statistics of the batch
        kind = "normalisation"
    elif kind == "power" and isinstance(ran.args[1], int | float):
        kind = _POWERS.get(ran.args[1], kind)
    return VectorOperation(
        kind, elements, rows, sum(x.numel() for x in operands) - parameters, sum(x.numel() for x in results),
        parameters,
    )  # fmt: skip


def move(ran: Ran) -> VectorOperation:
    """Return what an operation asks of the memory that only moves values: to read as many elements as it writes."""
    written = sum(x.numel() for x in _results(ran))
    return VectorOperation("move", written, 0, written, written)


def kind_of(name: str) -> str:
    """Return the kind of an operation of the vector unit by its name."""
    if name in KINDS:
        return name
    return "function" if name.startswith("special_") else _KIND_OF.get(name, "elementwise")


@functools.cache
def _name(func: Any) -> str:
    return str(func.overloadpacket.__name__).strip("_")


def _operands(ran: Ran) -> Iterator[Tensor]:
    """Yield the tensors that an operation reads, each once."""
    written = {argument.name for argument in ran.func._schema.arguments if argument.is_out}
    seen = set()
    for x in tensors_in((ran.args, {name: value for name, value in ran.kwargs.items() if name not in written})):
        if id(x) not in seen:
            seen.add(id(x))
            yield x


def _results(ran: Ran) -> list[Tensor]:
    """Return the tensors that an operation gives, without the indices that stand beside values."""
    found = tensors_in(ran.result)
    return [x for x in found if x.is_floating_point()] or found


def _elements(name: str, ran: Ran, results: list[Tensor], largest: int) -> tuple[int, int]:
    """Return (elements, rows) as a VectorOperation has them."""
    windows = _windows(name, ran, results)
    if windows is not None:
        positions, window = windows
        return positions * window, positions
    if "softmax" in name:
        backward = name.endswith("backward_data")
        x, along = ran.args[0], ran.args[2 if backward else 1]
        return largest, x.numel() // x.shape[along] if x.dim() else 1
    # A normalisation gives its means, one for each row, behind its result; a sum gives its rows.
    return largest, results[min(1, len(results) - 1)].numel() if results else 0


def _windows(name: str, ran: Ran, results: list[Tensor]) -> tuple[int, int] | None:
    """Return (positions, elements of the window of each) of poolings, and of what else counts by its result."""
    if not results:  # such as torch.equal, which gives a truth value
        return None
    args, base = ran.args, name.removesuffix("_backward")
    one = args[0] if name.endswith("_backward") else results[0]  # with an element for each position
    if base in _TAPS:
        return one.numel(), _TAPS[base]
    if name in ("glu", "max_pool2d_with_indices_backward", "max_pool3d_with_indices_backward"):
        return one.numel(), 1
    if "adaptive" in name:
        image, dims = args[1] if name.endswith("_backward") else args[0], 3 if "3d" in name else 2
        sizes = zip(image.shape[-dims:], one.shape[-dims:], strict=True)
        return one.numel(), math.prod(-(-whole // part) for whole, part in sizes)
    if "pool" in name:
        dims = 3 if "3d" in name else 2
        kernel = args[2] if name.endswith("_backward") else args[1]
        return one.numel(), math.prod(kernel) if len(kernel) > 1 else kernel[0] ** dims
    return None
