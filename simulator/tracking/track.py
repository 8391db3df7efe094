"""track: follow how many digits of every value and gradient of a run are real, without a change of the run."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ParamSpec

import torch
from torch import Tensor, nn

from simulator.errors import InputError
from simulator.hardware import Machine, load_hardware
from simulator.network.emulation import Emulation
from simulator.network.tap import ANOTHER_THREAD, BACKWARD, IN_BACKWARD, Ran, Tap
from simulator.network.vector import FLOAT32

from .algebra import Algebra
from .apart import apart
from .certain_noise import CertainNoise
from .declared import declared
from .expected import Expected
from .interpret import Interpreter
from .labels import CERTAIN_NOISE, EXPECTED, LABELS, SAFE, precision, working
from .reading import Reading
from .report import Report
from .safe import Safe
from .statistics import GRADIENT, OF_PARAMETER, VALUE, Statistics

ALGEBRAS: dict[str, type[Algebra]] = {SAFE: Safe, EXPECTED: Expected, CERTAIN_NOISE: CertainNoise}


_P = ParamSpec("_P")


def _timed(method: Callable[_P, None]) -> Callable[_P, None]:
    """Count the seconds of a method of a tracker as those of tracking."""

    @functools.wraps(method)
    def timed(*args: _P.args, **kwargs: _P.kwargs) -> None:
        begun = time.perf_counter()
        try:
            method(*args, **kwargs)
        finally:
            tracker: Any = args[0]
            tracker.statistics.spent += time.perf_counter() - begun

    return timed


class UntrackedOperation(UserWarning):
    """An operation has no rule: its expected error is taken from a run in float64, and it has no safe bound."""


class Tracker:
    """A run that is followed; a context manager, within which forward and backward passes and optimiser steps are seen.

    Values and gradients come out bit for bit as without it. Noise is kept beside the tensors and goes with them; what
    the run was given, parameters among it, counts as exact until something computes it. The exact values that errors
    are measured from are those of the same operations in real numbers, with every random number and every decision
    that the run has made, but for those of pieces of functions (ReLU, max), which count both ways where they are not
    decided within the bounds.

    Args:
        model, numbers, hw, layers, seed, every, restart, roundings: see `track`.
    """

    def __init__(
        self,
        model: nn.Module | None,
        numbers: Sequence[str],
        machine: Machine | None,
        layers: Mapping[str, Any] | None,
        seed: int,
        every: int,
        restart: str,
        roundings: str,
    ) -> None:
        self.bounded = roundings == "bounded"
        self.model = nn.Module() if model is None else model
        self.numbers = tuple(numbers)
        self.restart = restart
        self.hardware = None if machine is None else machine.name
        recomputes = machine is not None or not self.bounded
        self._interpreter = Interpreter([ALGEBRAS[label]() for label in self.numbers], recomputes)
        self.statistics = Statistics(self.numbers, every)
        self._names: dict[int, str] = {}
        self._before: list[tuple[str, Tensor, Tensor]] = []  # parameters that are going to be written, as they were
        self._entered, self._within = ExitStack(), False
        self.emulation: Emulation | None = None
        self._tap: Tap | None = None  # within a block, for it refers to this object
        self._unseen = 0  # forward passes in other threads
        if machine is not None:
            if machine.fold_batch_norm:
                raise InputError(
                    f"track: {machine.name} folds batch normalisations into weights, whose outputs are those of no "
                    "operation of the model; expected a machine that does not; write vector_unit.batch_norm: separate"
                )
            self.emulation = Emulation(self.model, machine, layers, seed=seed)

    def __enter__(self) -> Tracker:
        if self._within:
            raise InputError("track: entered twice; expected one block at a time; leave it first, or call track again")
        if torch.get_float32_matmul_precision() != "highest":
            raise InputError(
                "track: torch multiplies float32 matrices in a narrower format, of which there is no rule; expected "
                "full precision; call torch.set_float32_matmul_precision('highest')"
            )
        _keep_freed_memory()
        with ExitStack() as entered:
            itself = weakref.ref(self)
            for name, parameter in self.model.named_parameters():
                self._names[parameter.untyped_storage()._cdata] = name
                if parameter.requires_grad:
                    entered.callback(parameter.register_post_accumulate_grad_hook(_Arrived(itself, name)).remove)
            entered.callback(self._end)
            entered.enter_context(self._watched())
            self._interpreter.table.enter()
            self._entered = entered.pop_all()
        self._within = True
        return self

    def __exit__(self, *exception: Any) -> None:
        self._within = False
        self._entered.close()
        self._interpreter.table.leave()
        self._interpreter.forget()
        self._before = []
        self._names.clear()
        unseen, self._unseen = self._unseen, self._elsewhere()
        self._tap = None
        if self._unseen > unseen:
            warnings.warn(
                "track: a forward pass ran in another thread, where nothing is followed: what it computed counts as "
                "exact; run it in the thread of the block",
                UntrackedOperation,
                stacklevel=2,
            )

    def of(self, x: Tensor) -> Reading:
        """Return what is known of a tensor: its reliable bits, one number of each kind per element.

        Raises:
            InputError: a tensor without real values, or one that was written to outside of the block.
        """
        _check_real("of", x)
        with apart():
            noise = self._interpreter.table.get(x)
            return Reading(x.detach(), dict(zip(self.numbers, noise, strict=True)))

    def declare(self, x: Tensor, bits: float | Tensor | None = None, error: float | Tensor | None = None) -> None:
        """Say how far given values are off, instead of exact.

        Args:
            bits: that are right, |error| <= 2**-bits |x|. error: absolute; one of both.
        Raises:
            InputError: neither or both, a negative error, or one of another shape; a tensor without real values.
        """
        _check_real("declare", x)
        with apart():
            noise = declared(x.detach().to(working(x.dtype)), bits, error, "track: declare")
            self._interpreter.table.put(x, tuple(noise[label] for label in self.numbers))

    def restart_exact(self) -> None:
        """Count all values as exact from here on."""
        self._interpreter.table.clear()

    def report(self, bits: float = 8) -> Report:
        """Return what became of the bits of every tensor, step by step, as a record that prints.

        Within the block it ends with the step before the one that runs.

        Args:
            bits: the report names the first tensor of whose elements half have fewer.
        """
        return Report.of(self, bits)

    @property
    def undecided(self) -> int:
        """How many elements so far were computed by a branch that the bounds do not decide."""
        return self._interpreter.undecided

    @property
    def shadowed(self) -> dict[str, int]:
        """Operations without a rule, as "operation in module", and how often they ran."""
        return {f"{s.name} in {s.path or 'no module'}": n for s, n in self._interpreter.shadowed.items()}

    @property
    def read_as_numbers(self) -> int:
        """How many values with noise the program read as plain numbers, which are exact from there on: by `item`,
        `float` and the like. What `tolist` and `numpy` read reaches no dispatcher: it is exact too, and not counted.
        """
        return self._interpreter.read_as_numbers

    @property
    def entries(self) -> int:
        """How many memories have noise."""
        return len(self._interpreter.table)

    @property
    def bytes(self) -> int:
        """Memory of all noise."""
        return self._interpreter.table.bytes

    def _watched(self) -> Emulation | Tap:
        if self.emulation is not None:
            self.emulation.watch(self._earlier, self._later, self._begin)
            return self.emulation
        self._tap, self._unseen = Tap(
            self.model, lambda op: None, self._later, self._begin, emulates=lambda path: False, before=self._earlier
        ), 0  # fmt: skip
        return self._tap

    def _elsewhere(self) -> int:
        watched = self.emulation or self._tap
        return 0 if watched is None else watched.not_emulated.get(("forward pass", ANOTHER_THREAD), 0)

    def _end(self) -> None:
        with apart():
            self.statistics.close(self.undecided)

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._end()
        self.statistics.begin()
        if self.restart == "step":
            self.restart_exact()

    @_timed
    def _earlier(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch._C._dynamo.eval_frame.get_eval_frame_callback() is not None:
            raise InputError(
                "track: a function compiled by torch.compile runs, whose operations are its own; expected plain ones; "
                "call the function that it was made of"
            )
        self._before = []
        if self._interpreter.known(func).idle:
            self._interpreter.forget()
            return
        with apart():
            self._interpreter.before(func, args, kwargs)
            if 0 in self._interpreter.known(func).writes and args and self.statistics.keeps:
                for x in args[0] if isinstance(args[0], list | tuple) else args[:1]:
                    name = self._names.get(x.untyped_storage()._cdata) if isinstance(x, Tensor) else None
                    if name is not None:
                        self._before.append((name, x, self.statistics.samples.take(x.detach())))

    @_timed
    def _later(self, ran: Ran) -> None:
        if self._interpreter.known(ran.func).idle:
            self._interpreter.looked(ran.args, ran.result)
            return
        own = (
            self.bounded
            and not ran.executed
            and (self.emulation is None or not ran.path or self.emulation.rules.vector(ran.path) == FLOAT32)
        )
        with apart():
            known = len(self._interpreter.shadowed)
            found = self._interpreter.after(ran.func, ran.args, ran.kwargs, ran.result, ran.path, own)
            if len(self._interpreter.shadowed) > known:
                last = list(self._interpreter.shadowed)[-1]
                warnings.warn(
                    f"track: {last.name} in {last.path or 'no module'} has no rule: no safe bound, and its expected "
                    "error is that of a shadow in float64",
                    UntrackedOperation,
                    stacklevel=_level(),
                )
            self.statistics.weigh(self.entries, lambda: self.bytes)
            if not self.statistics.keeps:
                return
            for name, target, before in self._before:
                self.statistics.parameter(name, before, target.detach(), self._interpreter.table.get(target))
            if self._before:
                self._before = []
                return
            kind = GRADIENT if ran.phase == BACKWARD or (ran.ops and ran.ops[0].phase != "forward") else VALUE
            product = kind == GRADIENT and len(ran.ops) == len(found) == 1
            what = ran.ops[0].phase if product else self._interpreter.known(ran.func).name
            where = "backward" if ran.path == IN_BACKWARD else ran.path
            for x, noise in found:
                if precision(x.dtype) is not None and (where or kind == GRADIENT):
                    self.statistics.take(kind, f"{where}: {what}", x, noise)

    @_timed
    def _arrived(self, name: str, gradient: Tensor) -> None:
        if self.statistics.keeps:
            with apart():
                noise = self._interpreter.table.get(gradient)
                self.statistics.take(OF_PARAMETER, name, gradient.detach(), noise)


# Where frames are that are no lines of the program that is tracked.
_INSIDE = tuple(f"{place}{os.sep}" for place in (Path(__file__).parents[1], Path(torch.__file__).parent))


def _level() -> int:
    """Return the stack level, for a warning of the caller, of the line of the program that runs."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE):
        level, frame = level + 1, frame.f_back
    return level


def _check_real(what: str, x: Any) -> None:
    if not isinstance(x, Tensor):
        raise InputError(f"track: {what}: got {type(x).__name__}; expected a tensor; give one that the run computed")
    if precision(x.dtype) is None:
        raise InputError(f"track: {what}: a tensor of {x.dtype}; expected real values; give a floating-point tensor")


# Of mallopt: how much freed memory at the end of the heap is kept, in bytes.
_TRIM_THRESHOLD = -1


def _keep_freed_memory() -> None:
    """Have the allocator of glibc keep what is freed, as elsewhere it does: noise is allocated and freed at every
    operation, and pages that go back to the system each time cost more than the arithmetic.
    """
    with apart():
        torch.empty(31 << 20, dtype=torch.uint8)  # it learns from the largest block that it sees freed
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_TRIM_THRESHOLD, 1 << 30)


class _Arrived:
    """A hook of a parameter, for when its gradient is complete; it keeps nothing alive."""

    def __init__(self, tracker: weakref.ref[Tracker], name: str) -> None:
        self.tracker, self.name = tracker, name

    def __call__(self, parameter: Tensor) -> None:
        tracker = self.tracker()
        if tracker is not None and parameter.grad is not None:
            tracker._arrived(self.name, parameter.grad)

    def __reduce__(self) -> Any:
        return _nothing, ()


def _nothing() -> Any:
    return lambda parameter: None


def checked_numbers(numbers: Sequence[str]) -> tuple[str, ...]:
    """Return labels of numbers in their order; InputError for unknown ones, or none."""
    unknown = [label for label in numbers if label not in LABELS]
    if unknown or not numbers:
        raise InputError(
            f"track: numbers: got {', '.join(map(repr, unknown)) or 'none'}; expected some of {', '.join(LABELS)}; "
            "give e.g. numbers=('safe',)"
        )
    return tuple(label for label in LABELS if label in numbers)


def track(
    model: nn.Module | None = None,
    numbers: Sequence[str] = LABELS,
    hw: Machine | str | os.PathLike[str] | None = None,
    layers: Mapping[str, Any] | None = None,
    seed: int = 0,
    every: int = 1,
    restart: str = "never",
    roundings: str = "bounded",
) -> Tracker:
    """Follow a run within a `with` block: values, gradients and optimiser steps, each with its reliable bits.

    Args:
        model: whose layers give the names; None for a program without one.
        numbers: of safe (upper bound), expected (statistical) and certain_noise (optimistic), which to keep; fewer cost
            less time and memory.
        hw: a machine on which the products run, as in `emulate`, with `layers` and `seed`; None: torch as it is.
        every: of so many steps one is kept for the report; a step begins with a forward pass of the model.
        roundings: "bounded": what an operation of torch rounds is bounded by what it may be at most; "measured": it is
            computed again in float64 and taken as it is, which gives several bits more and takes several times longer;
            without effect on runs in float64.
        restart: "never": errors are followed from step to step; "step": what a step starts from counts as exact.
    Returns:
        The Tracker: `of(tensor)`, `report()`, `declare(tensor, bits=...)`. It is a context manager.
    Raises:
        InputError: an unknown number, or a model or machine that cannot be followed.
    """
    numbers = checked_numbers(numbers)
    if restart not in ("never", "step"):
        raise InputError(f"track: restart: got {restart!r}; expected never or step; give one of them")
    if roundings not in ("bounded", "measured"):
        raise InputError(f"track: roundings: got {roundings!r}; expected bounded or measured; give one of them")
    if not isinstance(every, int) or every < 1:
        raise InputError(f"track: every: got {every!r}; expected a whole number from 1; give e.g. 10")
    if model is not None and not isinstance(model, nn.Module):
        raise TypeError(f"track: got {type(model).__name__}; expected a torch.nn.Module; give the network")
    machine = None if hw is None else hw if isinstance(hw, Machine) else load_hardware(hw)
    return Tracker(model, numbers, machine, layers, seed, every, restart, roundings)


__all__ = ["Tracker", "UntrackedOperation", "track"]
