"""Which operations of torch's dispatcher are Ops, which multiply and add without being any, and which do neither."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import ops
from .ops import MatrixProduct, Op

aten = torch.ops.aten

# Words in the names of the operations that multiply and add. An operation of torch is decomposed as far as torch can;
# one that is left, has such a word in its name and is no Op is listed.
MAC_WORDS = frozenset({
    "mm", "addmm", "bmm", "baddbmm", "addbmm", "hspmm", "sspaddmm", "mv", "addmv", "addr", "dot", "vdot", "matmul",
    "linear", "trilinear", "matrix", "conv", "conv2d", "conv3d", "convolution", "attention", "transformer", "rnn",
    "lstm", "gru", "cdist", "pdist", "euclidean", "bag",
})  # fmt: skip

# Namespaces of torch's own operations.
TORCH_NAMESPACES = frozenset({"aten", "prim", "prims", "profiler"})


def as_op(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Op | str | None:
    """Return the Op of an operation; its name and form if no Op covers it; None if it bears no MACs.

    Operations from outside of torch count as bearing MACs, since nothing is known of them. Operands that do not fit
    give None too, so that torch refuses them in its own words.
    """
    if bears_none(func):
        return None
    if not isinstance(func, torch._ops.OpOverload):
        return str(func.__name__)  # a higher-order operation, of which only the whole is seen
    name = func.overloadpacket.__name__
    if func.namespace not in TORCH_NAMESPACES:
        return f"{func.namespace}.{name}"
    build = _OPS.get(FUNCTIONAL.get(func, func))
    if build is None:
        return str(name.rstrip("_"))
    tensors = [x for x in args if isinstance(x, Tensor)]
    types = {x.dtype for x in tensors}
    if len(types) > 1 or any(x.layout is not torch.strided or x.is_nested for x in tensors):
        return f"{name} on mixed types or layouts"
    if not tensors[0].is_floating_point():
        return f"{name} on {str(tensors[0].dtype).removeprefix('torch.')}"
    op = build(*args)
    if func in FUNCTIONAL and "out" not in kwargs and isinstance(op, MatrixProduct) and op.shape != args[0].shape:
        return None
    if op is not None:
        op.factors = float(kwargs.get("alpha", 1)), float(kwargs.get("beta", 1))
    return op


@functools.cache
def bears_none(func: Any) -> bool:
    """Whether an operation bears no MACs, whatever its operands are."""
    if not isinstance(func, torch._ops.OpOverload) or func.namespace not in TORCH_NAMESPACES:
        return False
    return FUNCTIONAL.get(func, func) not in _OPS and MAC_WORDS.isdisjoint(func.overloadpacket.__name__.split("_"))


def write(result: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Write a result where an operation in place, or one with `out=`, wants it."""
    target: Tensor = kwargs.get("out", args[0])
    if target.shape != result.shape:
        target.resize_(result.shape)
    return target.copy_(result)


# Operations that write their result -> those that return it.
FUNCTIONAL = {
    aten.mm.out: aten.mm.default, aten.bmm.out: aten.bmm.default, aten.mv.out: aten.mv.default,
    aten.dot.out: aten.dot.default, aten.vdot.out: aten.vdot.default,
    aten.addmm.out: aten.addmm.default, aten.addmm_.default: aten.addmm.default,
    aten.baddbmm.out: aten.baddbmm.default, aten.baddbmm_.default: aten.baddbmm.default,
    aten.addmv.out: aten.addmv.default, aten.addmv_.default: aten.addmv.default,
    aten.addbmm.out: aten.addbmm.default, aten.addbmm_.default: aten.addbmm.default,
    aten.addr.out: aten.addr.default, aten.addr_.default: aten.addr.default,
    aten.convolution.out: aten.convolution.default,
}  # fmt: skip

_OPS: dict[Any, Callable[..., Op | None]] = {
    aten.mm.default: lambda a, b: ops.matrix_product("mm", a, b),
    aten.addmm.default: lambda c, a, b: ops.matrix_product("linear", a, b, c),
    aten.bmm.default: lambda a, b: ops.matrix_product("bmm", a, b),
    aten.baddbmm.default: lambda c, a, b: ops.matrix_product("baddbmm", a, b, c),
    aten.addbmm.default: lambda c, a, b: ops.summed_products("addbmm", a, b, c),
    aten.addr.default: lambda c, a, b: ops.outer_product("addr", a, b, c),
    aten.mv.default: lambda a, b: ops.matrix_product("mv", a, b),
    aten.addmv.default: lambda c, a, b: ops.matrix_product("addmv", a, b, c),
    aten.dot.default: lambda a, b: ops.matrix_product("dot", a, b),
    aten.vdot.default: lambda a, b: ops.matrix_product("vdot", a, b),
    aten.convolution.default: ops.convolution,
}
