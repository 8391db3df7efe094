"""Compound operations of torch kept whole, or taken apart, so that their products are those of an array."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_RECURRENT = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)


class Parts(TorchFunctionMode):
    """Keeps a linear layer one product of two matrices with its bias, and recurrent layers products at all.

    Of an input that is one vector or not contiguous, torch makes a product, with the weight repeated for every sample
    at times, and a separate addition of the bias; an array has the weight once and the bias in its accumulators.

    Args:
        applies: whether the operations of the module that runs are to be seen so.
        recurring: context in which a recurrent layer runs.
    """

    def __init__(self, applies: Callable[[], bool], recurring: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__()
        self.applies, self.recurring = applies, recurring

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.applies():
            if func is functional.linear:
                return _linear(*args, **kwargs)
            if func is functional.multi_head_attention_forward:
                # What it calls is not seen here, but of contiguous inputs its projections stay whole.
                same = {id(x): x.contiguous() for x in args[:3]}
                args = (*(same[id(x)] for x in args[:3]), *args[3:])
            elif func in _RECURRENT and not kwargs:
                with self.recurring():
                    return _recurrent(func, *args)
        return func(*args, **kwargs)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    plain = input.layout is torch.strided and not input.is_nested and input.numel() > 0
    if input.dim() == 2 or weight.dim() != 2 or not plain or input.shape[-1] != weight.shape[1]:
        return functional.linear(input, weight, bias)
    flat = functional.linear(input.reshape(-1, weight.shape[1]), weight, bias)
    return flat.reshape(*input.shape[:-1], weight.shape[0])


def _recurrent(func: Any, *args: Any) -> Any:
    """Run a recurrent layer as products of its gates, time first, so that the biases of the inputs join them."""
    fused = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)  # its kernel is one operation for a whole layer
    try:
        packed = not isinstance(args[3], bool)  # then the sizes of the batches are the second argument
        if packed or not args[-1]:
            return func(*args)
        output, *states = func(args[0].transpose(0, 1).contiguous(), *args[1:-1], False)
        return output.transpose(0, 1), *states
    finally:
        torch._C._set_mkldnn_enabled(fused)
