"""The tap: PyTorch's dispatcher shows every aten operation of any model; those that multiply and add become Ops.

No model is rewritten. The tap knows which module an operation belongs to, in the forward pass and in the backward
pass, gives it a name that is the same in every pass, and hands it to an executor. Everything else runs as it is, or as
the caller computes it; what multiplies and adds without being an Op is listed.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    _get_current_dispatch_mode_stack,
)

from simulator.errors import InputError

from .aten_ops import FUNCTIONAL, as_op, bears_none, write
from .gradients import CONVOLUTION_BACKWARD, GRADIENTS, Origin, Origins, as_gradients, operands
from .ops import FORWARD, Op
from .parts import Parts

# Phase of what the backward pass does beside the products of gradients.
BACKWARD = "backward"

# Where an operation ran, if not in a module.
IN_BACKWARD, OUTSIDE, ANOTHER_THREAD = "the backward pass", "no forward pass of the model", "another thread"


class Ran(NamedTuple):
    """An operation that ran.

    Args:
        func, args, kwargs, result: the call of torch's dispatcher.
        path: of the module whose forward pass it ran in, or to which it belongs in the backward pass, IN_BACKWARD
            where that is not known; empty outside of the passes of the model.
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


class _Call(NamedTuple):
    """A module whose forward pass runs.

    Args:
        path: of the module. backward: the backward pass that was going on when it was called, -1 for none.
        modes: what was entered for the time of the call.
    """

    path: str
    backward: int
    modes: ExitStack


Execute = Callable[[Op], Tensor | None]
Compute = Callable[[Any, tuple[Any, ...], dict[str, Any], str], Any]
Observe = Callable[[Ran], None]
Before = Callable[[Any, tuple[Any, ...], dict[str, Any]], None]
Begin = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]


class Tap:
    """Watches a model; a context manager around its forward and backward passes, to be entered as often as needed.

    Within it attention takes its decomposed path, a linear layer is one matrix product whatever the shape of its
    input, and recurrent layers are the products of their gates, so that all are seen as Ops; a module of another kind
    that computes such a layer step by step says so by an attribute `recurs`. So are the products of
    the backward pass that belong to an Op of the forward pass, whose name they have.

    Args:
        model: whose modules give the names; a module called again has `#2` and so on behind its name.
        execute: returns the result of an Op, or None to let torch compute it.
        compute: returns the result of another operation of the model, given (function, arguments, keyword arguments,
            path of the module), or None to let torch compute it.
        observe: called after every operation.
        begin: called with (module, arguments, keyword arguments) before each forward pass, of the model or of a module
            of it that is called directly. end: called after it, unless it raised.
        emulates: whether the operations of a module, by its path, are to be seen as Ops in the sense above; if that is
            false for all, torch's own results come out bit for bit.
        follows: whether `compute` has to do with the backward pass too.
        before: called with (function, arguments, keyword arguments) before every operation, wherever it runs.
    """

    def __init__(
        self,
        model: nn.Module,
        execute: Execute,
        observe: Observe | None = None,
        begin: Begin | None = None,
        emulates: Callable[[str], bool] = lambda path: True,
        compute: Compute = lambda func, args, kwargs, path: None,
        end: Callable[[], None] = lambda: None,
        follows: bool = False,
        before: Before | None = None,
    ) -> None:
        self.before = before
        self.model, self.execute, self.observe, self.begin, self.emulates = model, execute, observe, begin, emulates
        self.compute, self.end, self.follows = compute, end, follows
        self.not_emulated: Counter[tuple[str, str]] = Counter()  # by operation and by where it ran
        self._running: list[_Call] = []
        self._calls: Counter[str] = Counter()
        self._origins = Origins(follows)
        self._recurs = 0  # which of the recurrent layers of a pass runs, counted from 1
        self._recurrent = 0  # how many ran in the pass so far
        self._begins = False  # whether `begin` runs
        self._emulating = False
        self._thread = 0
        self._dispatcher = _Dispatcher(self)
        self._entered = ExitStack()

    def __enter__(self) -> Tap:
        _refuse_hidden(self.model)
        for mode in _get_current_dispatch_mode_stack():
            if isinstance(mode, _Dispatcher) and not _modules(mode.tap.model).isdisjoint(_modules(self.model)):
                raise InputError(
                    f"{type(self.model).__name__}: being emulated or tracked already; expected one of both at a "
                    "time; leave the first one, or emulate a copy of the model"
                )
        with ExitStack() as entered:
            modules = [(path or type(self.model).__name__, module) for path, module in self.model.named_modules()]
            for path, module in modules:
                # First before the hooks of the user, which may change the arguments, and last behind them.
                enter = functools.partial(self._entering, path)
                before = module.register_forward_pre_hook(_Hook(enter), prepend=True, with_kwargs=True)
                entered.callback(before.remove)
                behind = module.register_forward_hook(_Hook(self._leaving), always_call=True)
                entered.callback(behind.remove)
            self._thread = threading.get_ident()
            entered.callback(self._running.clear)
            self._emulating = any(self.emulates(path) for path, _ in modules)
            if self._emulating:
                entered.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
                torch.backends.mha.set_fastpath_enabled(False)
                entered.enter_context(sdpa_kernel(SDPBackend.MATH))
                entered.enter_context(self._parts())
            entered.enter_context(self._dispatcher)
            self._entered = entered.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._entered.close()

    @property
    def path(self) -> str | None:
        """Path of the module whose forward pass runs, that of the model itself being the name of its class; or None."""
        if not self._running:
            return None
        # A module may be called within a backward pass (checkpoints), and a backward pass within a module.
        call = self._running[-1]
        return call.path if call.backward == torch._C._current_graph_task_id() else None

    def _parts(self) -> Parts:
        return Parts(lambda: self.path is not None and self.emulates(self.path), self.recurring)

    @contextmanager
    def recurring(self) -> Iterator[None]:
        """Within it, products are those of one call of a recurrent layer."""
        self._recurrent += 1
        before, self._recurs = self._recurs, self._recurrent
        try:
            yield
        finally:
            self._recurs = before

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], plain: bool) -> Any:
        """Run an operation; `plain` unless it has tensors that dispatch it themselves, as a whole."""
        if plain and _is_composite(func):
            # In inference mode compound operations arrive whole; their parts are what we look for.
            with self._dispatcher:
                return func._op_dk(_COMPOSITE, *args, **kwargs)
        if self.before is not None:
            self.before(func, args, kwargs)
        path = self.path
        in_backward = path is None and torch._C._current_graph_task_id() != -1
        if in_backward and _checkpoint_recomputes():
            origin = self._origins.current()
            path = origin.path if origin is not None else None
        if path is not None:
            ran = self._forward(func, args, kwargs, path)
        elif in_backward:
            ran = self._backward(func, args, kwargs)
        else:
            ran = self._elsewhere(func, args, kwargs)
        if self.observe is not None:
            self.observe(ran)
        return ran.result

    def _forward(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], path: str) -> Ran:
        found = self._as_op(func, args, kwargs)
        op = found if isinstance(found, Op) else None
        tensors = [x for x in args if isinstance(x, Tensor)]
        if op is not None:
            op.name = self._name(path)
            if self._recurs:
                op.step = self._recurs, operands(op, tensors)[1].data_ptr()
        self._origins.remember(path, tensors, op)
        if op is None:
            unknown = found if isinstance(found, str) else ""
            if unknown:
                self.not_emulated[unknown, path] += 1
            return Ran(func, args, kwargs, self._other(func, args, kwargs, path), path, FORWARD, unknown=unknown)
        with _alone():
            result = self.execute(op)
            executed = result is not None
            if result is not None and func in FUNCTIONAL:
                result = write(result, args, kwargs)
        if result is None:
            result = func(*args, **kwargs)
        return Ran(func, args, kwargs, result, path, FORWARD, (op,), executed)

    def _as_op(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Op | str | None:
        """Return an operation as an Op, as `as_op` does; of tensors without values, only if something is emulated."""
        if bears_none(func):
            return None
        if not self._emulating and any(isinstance(x, Tensor) and x.is_meta for x in (*args, *kwargs.values())):
            return None
        with _alone():
            return as_op(func, args, kwargs)

    def _backward(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Ran:
        # Asking torch for the node wraps it for Python, and freeing a long chain of such nodes overflows the stack; so
        # it is asked for products only, unless others are computed here too.
        origin = self._origins.current() if func in GRADIENTS or self.follows else None
        if origin is not None and func in GRADIENTS and origin.op is not None:
            return self._gradient(func, args, kwargs, origin)
        unknown = self._list(func, args, kwargs, IN_BACKWARD)
        if origin is None:
            return Ran(func, args, kwargs, func(*args, **kwargs), IN_BACKWARD, BACKWARD, unknown=unknown)
        result = self._other(func, args, kwargs, origin.path)
        return Ran(func, args, kwargs, result, origin.path, BACKWARD, unknown=unknown)

    def _gradient(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], origin: Origin) -> Ran:
        with _alone():
            gradients = as_gradients(func, args, origin)
            results = [None if op is None else self.execute(op) for op in gradients]
        found = tuple(op for op in gradients if op is not None)
        # Of a convolution as many as its mask asks for; the bias's is no product.
        products = sum(args[-1][:2]) if func is CONVOLUTION_BACKWARD else 1
        unknown = ""
        if len(found) < products:
            unknown = func.overloadpacket.__name__
            self.not_emulated[unknown, IN_BACKWARD] += 1
        executed = any(result is not None for result in results)
        result = self._completed(func, args, results, executed) if func is CONVOLUTION_BACKWARD else results[0]
        if result is None:
            result = func(*args, **kwargs)
        phase = found[0].phase if found else BACKWARD
        return Ran(func, args, kwargs, result, origin.path, phase, found, executed, unknown)

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

    def _elsewhere(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Ran:
        """Run what no forward pass of the model did or asked for, such as a loss or an optimiser, as torch does."""
        self._origins.remember("", [x for x in args if isinstance(x, Tensor)], None)
        unknown = self._list(func, args, kwargs, OUTSIDE)
        return Ran(func, args, kwargs, func(*args, **kwargs), "", FORWARD, unknown=unknown)

    def _list(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], where: str) -> str:
        """Return the name of what multiplies and adds where no Op is looked for, and list it; empty if it does not."""
        if bears_none(func):
            return ""
        outer = [mode.tap for mode in _get_current_dispatch_mode_stack() if isinstance(mode, _Dispatcher)]
        if any(tap.path is not None or tap._origins.current() is not None for tap in outer):
            return ""  # it belongs to another model, whose tap it reaches next
        found = self._as_op(func, args, kwargs)
        unknown = str(func.overloadpacket.__name__) if isinstance(found, Op) else found or ""
        if unknown:
            self.not_emulated[unknown, where] += 1
        return unknown

    def _other(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], path: str) -> Any:
        result = self.compute(func, args, kwargs, path)
        return func(*args, **kwargs) if result is None else result

    def _name(self, path: str) -> str:
        self._calls[path] += 1
        return path if self._calls[path] == 1 else f"{path}#{self._calls[path]}"

    def _entering(self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._begins:
            return  # what `begin` runs
        if threading.get_ident() != self._thread:
            self.not_emulated["forward pass", ANOTHER_THREAD] += 1
            return
        backward = torch._C._current_graph_task_id()
        if module is self.model and backward == -1:
            self._running.clear()  # whatever an interruption left there
            self._recurs = 0
        with ExitStack() as modes:
            if backward != -1 and not any(call.backward == backward for call in self._running):
                # What a checkpoint computes again, outside of the modes of functions, which a backward pass leaves.
                modes.enter_context(self._parts())
            if getattr(module, "recurs", False):
                modes.enter_context(self.recurring())
            self._running.append(_Call(path, backward, modes.pop_all()))
        if len(self._running) == 1:
            self._calls.clear()  # a new forward pass: the same names again
            self._recurrent = self._recurs
            if self.begin is not None and backward == -1:
                self._begins = True
                try:
                    self.begin(module, args, kwargs)
                finally:
                    self._begins = False

    def _leaving(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._begins or threading.get_ident() != self._thread or not self._running:
            return
        call = self._running.pop()
        call.modes.close()
        if not self._running and call.backward == -1 and output is not None:
            self.end()


class _Hook:
    """A hook of a module that does nothing in a copy of the module."""

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> None:
        self._call(*args)

    def __reduce__(self) -> tuple[type[_Hook], tuple[Callable[..., None]]]:
        return _Hook, (_nothing,)


def _nothing(*args: Any) -> None:
    pass


# Operations with such a kernel, and none for the CPU, are made of others.
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


@functools.cache
def _is_composite(func: Any) -> bool:
    if not isinstance(func, torch._ops.OpOverload) or func.namespace == "prim":
        return False
    name = func.name()
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return has_kernel(name, _COMPOSITE) and not has_kernel(name, torch._C.DispatchKey.CPU)


def _checkpoint_recomputes() -> bool:
    """Whether a checkpoint computes again, for its saved tensors, what it had not kept."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks is not None and getattr(hooks[0], "__module__", "") == "torch.utils.checkpoint"


@contextmanager
def _alone() -> Iterator[None]:
    """Keep what an emulation does of its own from the taps of other models around it."""
    if not _get_current_dispatch_mode_stack():
        yield
        return
    with _disable_current_modes():
        yield


class _Dispatcher(TorchDispatchMode):
    """Hands what reaches the dispatcher to a tap."""

    supports_higher_order_operators = True

    def __init__(self, tap: Tap) -> None:
        super().__init__()
        self.tap = weakref.proxy(tap)  # which refers to this, and is kept by its hooks while it is entered

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # By default torch imports its compiler, seconds of work, to keep it away from this method; compiled modules are
        # refused when the tap is entered.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return self.tap._run(func, args, kwargs or {}, plain=not types)


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
        if any(is_lazy(parameter) for parameter in module._parameters.values()):
            raise InputError(
                f"{shown}: its parameters have no shape yet; expected a module that has run once; run it on a sample"
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(f"{shown}: a TorchScript module; expected a plain module; give the one it was made of")
