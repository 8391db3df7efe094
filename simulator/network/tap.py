"""The tap: PyTorch's dispatcher shows every aten operation of any model; those that multiply and add become Ops.

No model is rewritten. The tap knows which module an operation belongs to, gives it a name that is the same in every
forward pass, and hands it to an executor; everything else runs as it is and is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from . import ops
from .ops import Op

aten = torch.ops.aten

# Operations that multiply and add, but are not turned into Ops: they run in float32 and are listed.
NOT_EMULATED = (
    "baddbmm", "addbmm", "addmv", "addr", "mv", "dot", "vdot", "convolution_backward", "_convolution", "bilinear",
    "_trilinear", "cdist", "_cdist_forward", "scaled_dot_product", "_scaled_dot_product", "lstm", "gru", "mkldnn",
    "_embedding_bag", "native_multi_head_attention", "_int_mm", "_scaled_mm", "linear_backward", "mkldnn_rnn_layer",
)  # fmt: skip

Execute = Callable[[Op], Tensor | None]
Observe = Callable[[Any, tuple[Any, ...], Any, Op | None], None]


class Tap(TorchDispatchMode):
    """Watches a model; use as a context manager around its forward passes.

    Args:
        model: whose modules give the names.
        execute: returns the result of an Op, or None to let torch compute it.
        observe: called after every operation with (function, arguments, result, Op or None).
    """

    def __init__(self, model: nn.Module, execute: Execute, observe: Observe | None = None) -> None:
        super().__init__()
        self.model, self.execute, self.observe = model, execute, observe
        self.not_emulated: Counter[str] = Counter()
        self._path: list[str] = []
        self._calls: Counter[str] = Counter()
        self._hooks = ExitStack()

    def __enter__(self) -> Tap:
        for path, module in self.model.named_modules():
            enter = module.register_forward_pre_hook(self._entering(path))
            leave = module.register_forward_hook(self._leaving, always_call=True)
            self._hooks.callback(enter.remove)
            self._hooks.callback(leave.remove)
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        try:
            super().__exit__(*exception)
        finally:
            self._hooks.close()
            self._path.clear()
            self._calls.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            op = as_op(func, args, kwargs)
        except _NotEmulated as reason:
            op = None
            self.not_emulated[f"{func.overloadpacket.__name__}{reason}"] += 1
        if op is None and func not in _OPS and func._can_decompose():
            # In inference mode compound operations arrive whole; their parts are what we look for.
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = None
        if op is not None:
            op.name = self._name()
            result = self.execute(op)
        if result is None:
            result = func(*args, **kwargs)
        if self.observe is not None:
            self.observe(func, (*args, *kwargs.values()), result, op)
        return result

    def _name(self) -> str:
        path = self._path[-1] if self._path and self._path[-1] else type(self.model).__name__
        self._calls[path] += 1
        return path if self._calls[path] == 1 else f"{path}#{self._calls[path]}"

    def _entering(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            if not self._path:
                self._calls.clear()  # a new forward pass: the same names again
            self._path.append(path)

        return hook

    def _leaving(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._path:
            self._path.pop()


class _NotEmulated(Exception):
    """An operation that multiplies and adds, but in a form that no Op covers; the text says which form."""


def as_op(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Op | None:
    """Return the Op of an aten call, or None if the call bears no MACs.

    Raises:
        _NotEmulated: it bears MACs, but is not covered.
    """
    build = _OPS.get(func)
    if build is None:
        name = func.overloadpacket.__name__
        if any(name == known or (known in ("mkldnn", "scaled_dot_product", "_scaled_dot_product") and known in name)
               for known in NOT_EMULATED):  # fmt: skip
            raise _NotEmulated("")
        return None
    bound = [*args, *(kwargs[key] for key in kwargs if key not in ("beta", "alpha"))]
    if not bound[0].is_floating_point():
        raise _NotEmulated(f" on {bound[0].dtype}")
    if kwargs.get("beta", 1) != 1 or kwargs.get("alpha", 1) != 1:
        raise _NotEmulated(" with beta or alpha")
    return build(*bound)


def _addmm(c: Tensor, a: Tensor, b: Tensor) -> Op:
    return ops.matrix_product("linear", a, b, c)


def _convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dilation: list[int],
    transposed: bool, output_padding: list[int], groups: int,
) -> Op:  # fmt: skip
    if transposed:
        raise _NotEmulated(" transposed")
    return ops.convolution(x, weight, bias, stride, padding, dilation, groups)


_OPS: dict[Any, Callable[..., Op]] = {
    aten.mm.default: lambda a, b: ops.matrix_product("mm", a, b, None),
    aten.addmm.default: _addmm,
    aten.bmm.default: lambda a, b: ops.matrix_product("bmm", a, b, None),
    aten.linear.default: lambda x, weight, bias=None: ops.linear(x, weight, bias),
    aten.convolution.default: _convolution,
}
