"""Keeps what tracking does of its own from the run that it follows."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch

_NOTHING = nullcontext()


def apart() -> AbstractContextManager[Any]:
    """Keep what is computed within it, of tensors without gradients, from other modes, autograd and inference mode."""
    inference, modes = torch.is_inference_mode_enabled(), torch._C._len_torch_dispatch_stack() > 0
    if not inference and not modes:
        return _NOTHING  # within an operation, which is below autograd, or outside of all
    stack = ExitStack()
    if modes:
        stack.enter_context(torch._C._DisableTorchDispatch())  # in a tenth of the time of _disable_current_modes
    if inference:
        stack.enter_context(torch.inference_mode(False))  # which turns gradients on
    stack.enter_context(torch.no_grad())
    return stack
