"""The tap: PyTorch's dispatcher shows every aten operation of any model; those that multiply and add become Ops.

No model is rewritten. The tap knows which module an operation belongs to, in the forward pass and in the backward
pass, gives it a name that is the same in every pass, and hands it to an executor. Everything else runs as it is, or as
the caller computes it; what multiplies and adds without being an Op is listed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from simulator.errors import InputError

from . import ops
from .gradients import Origins, as_gradients
from .ops import FORWARD, Op

aten = torch.ops.aten

# Words in the names of the operations that multiply and add. An operation of torch is decomposed as far as torch can;
# one that is left, has such a word in its name and is no Op is listed.
MAC_WORDS = frozenset({
    "mm", "addmm", "bmm", "baddbmm", "addbmm", "hspmm", "sspaddmm", "mv", "addmv", "addr", "dot", "vdot", "matmul",
    "linear", "trilinear", "matrix", "conv", "conv2d", "conv3d", "convolution", "attention", "transformer", "rnn",
    "lstm", "gru", "cdist", "pdist", "euclidean", "bag",
})  # fmt: skip

# Namespaces of torch's own operations.
OWN = frozenset({"aten", "prim", "prims", "profiler"})

# Operations with such a kernel are made of others.
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd

# Phase of what the backward pass does beside the products of gradients.
BACKWARD = "backward"

# Where a listed operation ran, if not in a module.
IN_BACKWARD, OUTSIDE = "the backward pass", "no forward pass of the model"


class Ran(NamedTuple):
    """An operation that ran.

    Args:
        func, args, kwargs, result: the call of torch's dispatcher.
        path: of the module whose forward pass it ran in, or to which it belongs in the backward pass; empty if none.
        phase: FORWARD, or of the backward pass.
        ops: what it is as Ops. executed: whether the executor computed them, or torch.
        unknown: its name, if it multiplies and adds and no Op covers it; else empty.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    path: str
    phase: str
    ops: tuple[Op, ...] = ()
    executed: bool = False
    unknown: str = ""


Execute = Callable[[Op], Tensor | None]
Compute = Callable[[Any, tuple[Any, ...], dict[str, Any], str], Any]
Observe = Callable[[Ran], None]
Begin = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]


class Tap:
    """Watches a model; a context manager around its forward and backward passes, to be entered as often as needed.

    Within it attention takes its decomposed path, a linear layer is one matrix product whatever the shape of its
    input, and recurrent layers are the products of their gates, so that all are seen as Ops. So are the products of
    the backward pass that belong to an Op of the forward pass, whose name they have.

    Args:
        model: whose modules give the names; a module called again has `#2` and so on behind its name.
        execute: returns the result of an Op, or None to let torch compute it.
        compute: returns the result of another operation of the model, given (function, arguments, keyword arguments,
            path of the module), or None to let torch compute it.
        observe: called after every operation.
        begin: called with (module, arguments, keyword arguments) before each forward pass, of the model or of a module
            of it that is called directly.
        emulates: whether the operations of a module, by its path, are to be seen as Ops in the sense above; if that is
            false for all, torch's own results come out bit for bit.
    """

    def __init__(
        self,
        model: nn.Module,
        execute: Execute,
        observe: Observe | None = None,
        begin: Begin | None = None,
        emulates: Callable[[str], bool] = lambda path: True,
        compute: Compute = lambda func, args, kwargs, path: None,
    ) -> None:
        self.model, self.execute, self.observe, self.begin, self.emulates = model, execute, observe, begin, emulates
        self.compute = compute
        self.not_emulated: Counter[tuple[str, str]] = Counter()  # by operation and by where it ran
        self._path: list[tuple[str, int]] = []  # with the backward pass that was going on when the module was called
        self._calls: Counter[str] = Counter()
        self._origins = Origins()
        self._recurs = False  # whether a recurrent layer runs
        self._dispatcher = _Dispatcher(self)
        self._entered = ExitStack()

    def __enter__(self) -> Tap:
        _refuse_hidden(self.model)
        for mode in _get_current_dispatch_mode_stack():
            if isinstance(mode, _Dispatcher) and not _modules(mode.tap.model).isdisjoint(_modules(self.model)):
                raise InputError(
                    f"{type(self.model).__name__}: being emulated already; expected one emulation of a model at a "
                    "time; leave the first one, or emulate a copy of the model"
                )
        with ExitStack() as entered:
            modules = [(path or type(self.model).__name__, module) for path, module in self.model.named_modules()]
            for path, module in modules:
                # First before the hooks of the user, which may change the arguments, and last behind them.
                enter = module.register_forward_pre_hook(self._entering(path), prepend=True, with_kwargs=True)
                entered.callback(enter.remove)
                leave = module.register_forward_hook(self._leaving, always_call=True)
                entered.callback(leave.remove)
            entered.callback(self._path.clear)
            if any(self.emulates(path) for path, _ in modules):
                entered.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
                torch.backends.mha.set_fastpath_enabled(False)
                entered.enter_context(sdpa_kernel(SDPBackend.MATH))
                entered.enter_context(_Parts(self))
            entered.enter_context(self._dispatcher)
            self._entered = entered.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._entered.close()

    @property
    def path(self) -> str | None:
        """Path of the module whose forward pass runs, that of the model itself being the name of its class; or None."""
        if not self._path:
            return None
        path, backward = self._path[-1]
        # A module may be called within a backward pass (checkpoints), and a backward pass within a module.
        return path if backward == torch._C._current_graph_task_id() else None

    @contextmanager
    def recurring(self) -> Iterator[None]:
        """Within it, products are those of a recurrent layer."""
        before, self._recurs = self._recurs, True
        try:
            yield
        finally:
            self._recurs = before

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        known = isinstance(func, torch._ops.OpOverload)
        if known and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE):
            # In inference mode compound operations arrive whole; their parts are what we look for.
            with self._dispatcher:
                return func._op_dk(_COMPOSITE, *args, **kwargs)
        path = self.path
        if path is not None:
            ran = self._forward(func, args, kwargs, path)
        elif torch._C._current_graph_task_id() != -1:
            ran = self._backward(func, args, kwargs)
        else:
            ran = self._elsewhere(func, args, kwargs, OUTSIDE)
        if self.observe is not None:
            self.observe(ran)
        return ran.result

    def _forward(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], path: str) -> Ran:
        found = as_op(func, args, kwargs)
        op = found if isinstance(found, Op) else None
        if op is not None:
            op.name, op.step = self._name(path), self._recurs
        self._origins.remember(path, [x for x in args if isinstance(x, Tensor)], op)
        if op is not None:
            result = self.execute(op)
            executed = result is not None
            if result is None:
                result = func(*args, **kwargs)
            elif func in FUNCTIONAL:
                result = _written(result, args, kwargs)
            return Ran(func, args, kwargs, result, path, FORWARD, (op,), executed)
        unknown = found if isinstance(found, str) else ""
        if unknown:
            self.not_emulated[unknown, path] += 1
        return Ran(func, args, kwargs, self._other(func, args, kwargs, path), path, FORWARD, unknown=unknown)

    def _backward(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Ran:
        origin = self._origins.current()
        if origin is None:
            return self._elsewhere(func, args, kwargs, IN_BACKWARD, BACKWARD)
        gradients = as_gradients(func, args, origin)
        if gradients is None:
            unknown = _unknown(as_op(func, args, kwargs), func)
            if unknown:
                self.not_emulated[unknown, IN_BACKWARD] += 1
            result = self._other(func, args, kwargs, origin.path)
            return Ran(func, args, kwargs, result, origin.path, BACKWARD, unknown=unknown)
        found = tuple(op for op in gradients if op is not None)
        results = [None if op is None else self.execute(op) for op in gradients]
        executed = any(result is not None for result in results)
        result = results[0] if len(results) == 1 else self._completed(func, args, results, executed)
        if result is None:
            result = func(*args, **kwargs)
        return Ran(func, args, kwargs, result, origin.path, found[0].phase if found else BACKWARD, found, executed)

    def _completed(
        self, func: Any, args: tuple[Any, ...], results: list[Tensor | None], executed: bool
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of a convolution: those given, the bias's as a sum, and torch's own where one lacks."""
        *settings, mask = args
        if executed and mask[2]:
            dy = args[0]
            with self._dispatcher:
                results[2] = dy.sum([0, *range(2, dy.dim())])
        wanted = [want and result is None for want, result in zip(mask, results, strict=True)]
        rest = func(*settings, wanted) if any(wanted) else (None,) * len(results)
        return tuple(own if own is not None else other for own, other in zip(results, rest, strict=True))

    def _elsewhere(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], where: str, phase: str = FORWARD
    ) -> Ran:
        """Run what no forward pass of the model did or asked for, such as a loss or an optimiser, as torch does."""
        if phase == FORWARD:
            self._origins.remember("", [x for x in args if isinstance(x, Tensor)], None)
        unknown = _unknown(as_op(func, args, kwargs), func)
        if unknown:
            self.not_emulated[unknown, where] += 1
        return Ran(func, args, kwargs, func(*args, **kwargs), "", phase, unknown=unknown)

    def _other(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], path: str) -> Any:
        result = self.compute(func, args, kwargs, path)
        return func(*args, **kwargs) if result is None else result

    def _name(self, path: str) -> str:
        self._calls[path] += 1
        return path if self._calls[path] == 1 else f"{path}#{self._calls[path]}"

    def _entering(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            backward = torch._C._current_graph_task_id()
            self._path.append((path, backward))
            if len(self._path) == 1:
                self._calls.clear()  # a new forward pass: the same names again
                if self.begin is not None and backward == -1:
                    self.begin(module, args, kwargs)

        return hook

    def _leaving(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._path:
            self._path.pop()


class _Dispatcher(TorchDispatchMode):
    """Hands what reaches the dispatcher to a tap."""

    supports_higher_order_operators = True

    def __init__(self, tap: Tap) -> None:
        super().__init__()
        self.tap = tap

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # By default torch imports its compiler, seconds of work, to keep it away from this method; compiled modules are
        # refused when the tap is entered.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return self.tap._run(func, args, kwargs or {})


_RECURRENT = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)


class _Parts(TorchFunctionMode):
    """Keeps a linear layer one product of two matrices with its bias, and recurrent layers products at all.

    Of an input that is one vector or not contiguous, torch makes a product, with the weight repeated for every sample
    at times, and a separate addition of the bias; an array has the weight once and the bias in its accumulators.
    """

    def __init__(self, tap: Tap) -> None:
        super().__init__()
        self.tap = tap

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        path = self.tap.path
        if path is not None and self.tap.emulates(path):
            if func is functional.linear:
                return _linear(*args, **kwargs)
            if func is functional.multi_head_attention_forward:
                # What it calls is not seen here, but of contiguous inputs its projections stay whole.
                same = {id(x): x.contiguous() for x in args[:3]}
                args = (*(same[id(x)] for x in args[:3]), *args[3:])
            elif func in _RECURRENT and not kwargs:
                with self.tap.recurring():
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


def _modules(model: nn.Module) -> set[int]:
    return {id(module) for module in model.modules()}


def _refuse_hidden(model: nn.Module) -> None:
    """Raise InputError for a model whose operations do not reach the dispatcher one by one."""
    for path, module in model.named_modules():
        shown = path.removesuffix("_orig_mod").rstrip(".") or type(model).__name__
        if path.split(".")[-1] == "_orig_mod" or module._compiled_call_impl is not None:
            raise InputError(
                f"{shown}: compiled by torch.compile; expected a plain module; give the one it was made of"
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(f"{shown}: a TorchScript module; expected a plain module; give the one it was made of")


def _unknown(found: Op | str | None, func: Any) -> str:
    """Return the name of what multiplies and adds where no Op is looked for; empty if it does not."""
    return func.overloadpacket.__name__ if isinstance(found, Op) else found or ""


def as_op(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Op | str | None:
    """Return the Op of an operation; its name and form if no Op covers it; None if it bears no MACs.

    Operations from outside of torch count as bearing MACs, since nothing is known of them. Operands that do not fit
    give None too, so that torch refuses them in its own words.
    """
    if not isinstance(func, torch._ops.OpOverload):
        return str(func.__name__)  # a higher-order operation, of which only the whole is seen
    name = func.overloadpacket.__name__
    if func.namespace not in OWN:
        return f"{func.namespace}.{name}"
    build = _OPS.get(FUNCTIONAL.get(func, func))
    if build is None:
        return None if MAC_WORDS.isdisjoint(name.split("_")) else name.rstrip("_")
    tensors = [x for x in args if isinstance(x, Tensor)]
    types = {x.dtype for x in tensors}
    if len(types) > 1 or any(x.layout is not torch.strided or x.is_nested for x in tensors):
        return f"{name} on mixed types or layouts"
    if not tensors[0].is_floating_point():
        return f"{name} on {str(tensors[0].dtype).removeprefix('torch.')}"
    op = build(*args)
    if op is not None:
        op.factors = float(kwargs.get("alpha", 1)), float(kwargs.get("beta", 1))
    return op


def _written(result: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
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
