"""The buffers of a model as one run of it has them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Buffers:
    """A run's own buffers of a model, such as a counter or a cache: what a forward pass changes stays within the run.

    A context manager around each forward pass of the run. Within it the model has the run's buffers, which begin as
    copies of the caller's; afterwards it has the caller's own again, untouched, also where the pass raises. Of a pass
    that raises nothing is kept. Copies that a pass leaves as they were are not kept either, so that large buffers
    which never change, such as masks, take no memory for each run.

    What a model keeps elsewhere, in attributes of Python, is not seen here.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._changed: dict[nn.Module, dict[str, Tensor | None]] = {}
        self._callers: dict[nn.Module, dict[str, Tensor | None]] = {}
        self._copies: dict[int, Tensor] = {}

    def __enter__(self) -> Buffers:
        for module in self._model.modules():
            if not isinstance(
                module, torch.jit.ScriptModule
            ):  # whose buffers Python cannot exchange; the tap refuses it
                self._callers[module] = dict(module._buffers)
        for module, callers in self._callers.items():
            fresh = {name: self._copy(buffer) for name, buffer in callers.items()}
            module._buffers.update({**fresh, **self._changed.get(module, {})})
        return self

    def __exit__(self, kind: Any, *exception: Any) -> None:
        for module, callers in self._callers.items():
            if kind is None:
                self._changed[module] = {
                    name: buffer for name, buffer in module._buffers.items()
                    if name not in callers or not _same(buffer, callers[name])
                }  # fmt: skip
            module._buffers.clear()
            module._buffers.update(callers)
        self._callers, self._copies = {}, {}

    def _copy(self, buffer: Tensor | None) -> Tensor | None:
        """Copy a buffer, once where several modules share it."""
        return None if buffer is None else self._copies.setdefault(id(buffer), buffer.clone())


def _same(now: Tensor | None, before: Tensor | None) -> bool:
    if now is None or before is None:
        return now is before
    if now.shape != before.shape or now.dtype != before.dtype or now.layout is not torch.strided:
        return False
    return not now.is_quantized and not now.is_meta and torch.equal(now, before)
