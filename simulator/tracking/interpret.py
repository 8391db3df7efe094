"""What an operation of torch does to the noise in the table: its rule, or the shadow where there is none."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from simulator.network.storages import plain

from .algebra import Algebra, Noise
from .labels import EXPECTED, precision, working
from .operation import Known, each_of, known_of, read_again, silent, without_out
from .rules import FUSED, MAKES, MOVES, Choice, moved
from .rules.nested import leaves, mapped
from .rules.normal import running
from .shadow import deviations
from .table import Table
from .values import Trace, Value, narrowed, reached, within

# Running statistics, which torch writes to though the schema does not say so.
_STATISTICS = frozenset({"native_batch_norm", "_native_batch_norm_legit"})
_READS_NUMBER = "_local_scalar_dense"


class Shadowed(NamedTuple):
    """An operation that had no rule.

    Args:
        name: of it. path: of the module in which it ran.
    """

    name: str
    path: str


class Interpreter:
    """Follows operations as they run.

    Args:
        algebras: of the numbers that are kept, in the order of the table. recomputes: whether results may have to be
            computed again, from all that their operations read.
    """

    def __init__(self, algebras: Sequence[Algebra], recomputes: bool = False) -> None:
        self.recomputes = recomputes
        self.algebras = tuple(algebras)
        self.table = Table(len(self.algebras))
        self.shadowed: dict[Shadowed, int] = {}
        self.read_as_numbers = 0  # real values with noise that became numbers of Python
        self._traces = {dtype: Trace(self.algebras, dtype) for dtype in (torch.float32, torch.float64)}
        self._expected = next((i for i, a in enumerate(self.algebras) if a.label == EXPECTED), None)
        self._old: dict[int, Tensor] = {}
        self._last: tuple[Any, Known] | None = None  # the operation that is about to run, or ran last
        self._measures = False  # whether roundings of the operation that ran last are measured

    @property
    def undecided(self) -> int:
        """How many elements so far were computed by a branch that is not decided within the bounds."""
        return sum(trace.undecided for trace in self._traces.values())

    def forget(self) -> None:
        """Drop what is kept of the operation that ran last, which may have failed."""
        self._old = {}

    def known(self, func: Any) -> Known:
        """Return what is known of an operation, which is mostly the last one that was asked for."""
        if self._last is None or self._last[0] is not func:
            self._last = func, known_of(func)
        return self._last[1]

    def before(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep what an operation is going to overwrite, where its rule reads it."""
        self._old = {}
        known = self.known(func)
        if known.name in _STATISTICS:
            self._keep(args[3:5])
        if known.idle or not (known.writes or known.named):
            return
        written = [args[i] for i in known.writes if i < len(args)]
        written += [kwargs[name] for name in known.named if name in kwargs]
        self._keep(read_again(written, args, kwargs))
        if not known.writes:
            return
        spares = known.rule is not None and not known.each and not self.recomputes
        if spares and known.rule is not None and not known.rule.keeps(*args, **without_out(kwargs, known.named)):
            return
        if known.name in MAKES or known.name == "copy":
            return
        self._keep(args[i] for i in known.writes if i < len(args))

    def _keep(self, targets: Any) -> None:
        for target in targets:
            for x in target if isinstance(target, tuple | list) else (target,):
                if isinstance(x, Tensor) and plain(x):
                    self._old[id(x)] = x.detach().clone()

    def looked(self, args: tuple[Any, ...], result: Any) -> None:
        """Keep in mind what an idle operation has made: another tensor of the same memory."""
        for x in (*args[:1], *(result if isinstance(result, tuple | list) else (result,))):
            if isinstance(x, Tensor) and plain(x) and not x.is_meta:
                self.table.see(x)

    def after(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, path: str, own: bool
    ) -> list[tuple[Tensor, tuple[Noise, ...]]]:
        """Set the noise of what an operation has computed; return it by tensor.

        Args:
            own: whether torch computed it, by its own arithmetic.
        """
        known = self.known(func)
        if known.idle:
            self.looked(args, result)
            return []
        if known.name == "copy" and not known.each and self.table.carry(args[0], args[1]):
            return []
        if known.name == _READS_NUMBER:
            if any(n is not None for n in self._noise(args[0])):
                self.read_as_numbers += 1
            return []
        if known.each:
            return self._each(func, known, args, kwargs, result, path)
        results = _parts(result)
        if known.name in FUSED:
            return self._fused(known, args, kwargs, path)
        if known.name not in _STATISTICS:
            self._lost(known, silent(known, args, kwargs, results), path)
        if all(x is None for x in results):
            return []
        if known.name in MAKES and not self._reads_noise(known, args, kwargs):
            nothing = (None,) * len(self.algebras)
            for x in results:
                if x is not None:
                    self.table.put(x, nothing)
            return []
        return self._computed(func, known, args, kwargs, results, path, own)

    def _each(
        self, func: Any, known: Known, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, path: str
    ) -> list[tuple[Tensor, tuple[Noise, ...]]]:
        """Follow an operation on each of a list of tensors."""
        outputs = args[0] if known.writes else result
        count = len(outputs)
        single = each_of(known.name)
        found = []
        for i in range(count):
            one = tuple(x[i] if isinstance(x, tuple | list) and len(x) == count else x for x in args)
            if known.name == "zero":
                self.table.put(outputs[i], (None,) * len(self.algebras))
            else:
                found += self._computed(single, known, one, kwargs, [outputs[i]], path, True)
        return found

    def _fused(
        self, known: Known, args: tuple[Any, ...], kwargs: dict[str, Any], path: str
    ) -> list[tuple[Tensor, tuple[Noise, ...]]]:
        """Follow the step of an optimiser on each of a list of parameters, with its state."""
        found = []
        settings = without_out(kwargs, ())
        for i in range(len(args[0])):
            one = tuple(x[i] if x else None for x in args if isinstance(x, tuple | list))
            results = [x for x in one if isinstance(x, Tensor)]
            dtype = torch.float64 if any(x.dtype == torch.float64 for x in results) else torch.float32
            trace = self._traces[dtype]
            given = tuple(self._wrapped(x, trace) for x in one)
            rest = mapped(settings, functools.partial(self._wrapped, trace=trace))
            try:
                made = FUSED[known.name](trace, *given, **rest)
            except Exception:  # as in _made
                self._lost(known, results, path)
                continue
            for x, y in zip(one, made, strict=True):
                if isinstance(x, Tensor) and y is not None:
                    found.append((x, self._set(x, y)))
        return found

    def _computed(
        self, func: Any, known: Known, args: tuple[Any, ...], kwargs: dict[str, Any], results: list[Tensor | None],
        path: str, own: bool,
    ) -> list[tuple[Tensor, tuple[Noise, ...]]]:  # fmt: skip
        real = [x for x in results if x is not None and precision(x.dtype) is not None]
        given = without_out(kwargs, known.named)
        dtype = torch.float32
        operands = leaves((args, given))
        given_tensors = [leaf for leaf in operands if isinstance(leaf, Tensor)]
        strange = any(_strange(x) for x in given_tensors) or any(x is not None and x.is_complex() for x in results)
        if any(x.dtype == torch.float64 for x in (*real, *given_tensors)):
            dtype = torch.float64
        self._measures = not own
        direct = own and bool(real) and all(x.dtype == dtype for x in real)
        if not own:
            dtype = torch.float64  # finer than the unit, so that its own errors are seen as they are
        trace = self._traces[dtype]
        once = {id(x): self._wrapped(x, trace) for x in operands}  # a tensor twice is one Value twice
        wrapped_args, wrapped = (mapped(x, lambda leaf: once[id(leaf)]) for x in (args, given))
        if real and args and isinstance(wrapped_args[0], Tensor) and not any(map(_real, given_tensors)) and not strange:
            wrapped_args = (trace.value(wrapped_args[0]), *wrapped_args[1:])  # a function of whole numbers
        inputs = leaves((wrapped_args, wrapped))
        made: list[Any] | None = None
        if not real and not strange and not any(_noisy(x) for x in inputs):
            made = [None] * len(results)
        elif not strange:
            made = self._made(func, known, wrapped_args, wrapped, inputs, results, direct, trace)
        if made is None:
            made = self._shadow(func, known, wrapped_args, wrapped, inputs, results, path, trace)
        found = []
        for x, y in zip(results, made, strict=True):
            if x is not None:
                found.append((x, self._set(x, y)))
        if known.name in _STATISTICS:
            self._statistics(known, args, wrapped_args, path, trace)
        return found

    def _made(
        self, func: Any, known: Known, args: Any, kwargs: Any, inputs: list[Any], results: list[Tensor | None],
        direct: bool, trace: Trace,
    ) -> list[Any] | None:  # fmt: skip
        """Return what the rule makes of each result; None where there is none, or it does not take these operands."""
        moves = known.name in MOVES and not any(isinstance(x, Choice) for x in inputs)
        if moves and not any(_noisy(x) for x in inputs):
            return [None] * len(results)
        rule = known.rule
        if not moves and (rule is None or (any(isinstance(x, Choice) for x in inputs) and not rule.chooses)):
            return None
        try:
            if moves:
                return moved(trace, func, args, kwargs, results)
            assert rule is not None
            if rule.direct and direct:
                made = rule.make(trace, *args, **kwargs, z=tuple(results) if len(results) > 1 else results[0])
            else:
                made = rule.make(trace, *args, **kwargs)
        except Exception:  # operands or an overload of which the rule says nothing; the run goes on in any case
            return None
        return _of_results(made, results)

    def _shadow(
        self, func: Any, known: Known, args: Any, kwargs: Any, inputs: list[Any], results: list[Tensor | None],
        path: str, trace: Trace,
    ) -> list[Any]:  # fmt: skip
        """Return the noise of results of which no rule says anything."""
        noisy = any(_noisy(x) or (isinstance(x, Tensor) and _strange(x)) for x in inputs)
        real = [x for x in results if x is not None and precision(x.dtype) is not None]
        rounded = any(x is not None and x.is_complex() for x in results)
        if real or rounded:
            where = Shadowed(known.name, path)
            self.shadowed[where] = self.shadowed.get(where, 0) + 1
        found: list[Tensor] | None = None
        if real and self._expected is not None and isinstance(func, torch._ops.OpOverload):
            found = deviations(func, args, kwargs, self._expected, real)
        made: list[Any] = []
        at = 0
        for x in results:
            if x is None or precision(x.dtype) is None:
                unknown = None if x is None or not (noisy or x.is_complex()) else x
                made.append(None if unknown is None else Choice(unknown, torch.full(unknown.shape, math.inf)))
                continue
            z = x.to(trace.dtype)
            noise = [algebra.unknown(z) for algebra in self.algebras]
            if found is not None and self._expected is not None:
                noise[self._expected] = found[at].to(trace.dtype)
            at += 1
            made.append(Value(trace, z, tuple(noise)))
        return made

    def _lost(self, known: Known, written: list[Tensor], path: str) -> None:
        """Count tensors as unknown that an operation has overwritten and does not return."""
        for x in written:
            if precision(x.dtype) is None:
                continue
            where = Shadowed(known.name, path)
            self.shadowed[where] = self.shadowed.get(where, 0) + 1
            self.table.put(x, tuple(a.unknown(x.detach().to(working(x.dtype))) for a in self.algebras))

    def _statistics(self, known: Known, args: Any, wrapped: Any, path: str, trace: Trace) -> None:
        """Follow running statistics, which a batch normalisation in training writes."""
        training = next((x for x in args[5:6] if isinstance(x, bool)), False)
        if not training or not all(isinstance(x, Tensor) for x in args[3:5]):
            return
        try:
            made = running(trace, wrapped[0], wrapped[3:5], float(args[6]))
        except Exception:  # as in _made
            self._lost(known, list(args[3:5]), path)
            return
        for x, y in zip(args[3:5], made, strict=True):
            self._set(x, y)

    def _set(self, x: Tensor, made: Any) -> tuple[Noise, ...]:
        """Put the noise of a result in the table; by how much it departs from what a rule computed is part of it."""
        count = len(self.algebras)
        if made is None:
            self.table.put(x, (None,) * count)
            return (None,) * count
        if isinstance(made, Value) and precision(x.dtype) is None:
            made = _as_whole(x, made)
            if made is None:
                return self._set(x, None)
        if isinstance(made, Choice):
            undecided = made.undecided.expand(x.shape).to(working(x.dtype))
            noise: tuple[Noise, ...] = (undecided,) * count if bool((undecided != 0).any()) else (None,) * count
            self.table.put(x, noise)
            return noise
        noise = made.noise if made.x is x else made.departing(x, self._measures).noise
        held = working(x.dtype)
        noise = tuple(
            None if n is None else narrowed(n, held) if n.dtype != held else n for n in noise
        )  # fmt: skip
        self.table.put(x, noise)
        return noise

    def _wrapped(self, x: Any, trace: Trace) -> Any:
        if not isinstance(x, Tensor) or (_strange(x) and not x.is_complex()):
            return x
        old = self._old.get(id(x))
        noise = self._noise(x)
        if precision(x.dtype) is None:
            undecided = next((n for n in noise if n is not None), None)
            return (x if old is None else old) if undecided is None else Choice(x if old is None else old, undecided)
        values = x if old is None else old
        return Value(trace, values.to(trace.dtype), tuple(None if n is None else n.to(trace.dtype) for n in noise))

    def _noise(self, x: Tensor) -> tuple[Noise, ...]:
        if not plain(x) or x.device.type == "meta":
            return (None,) * len(self.algebras)
        return self.table.get(x)

    def _reads_noise(self, known: Known, args: Any, kwargs: Any) -> bool:
        """Whether another operand than what is overwritten has noise."""
        rest = [x for i, x in enumerate(args) if i not in known.writes]
        if not known.writes:
            return False  # of what something is like, only shape and type count
        return any(isinstance(x, Tensor) and any(n is not None for n in self._noise(x)) for x in leaves((rest, kwargs)))


def _as_whole(x: Tensor, made: Value) -> Choice | None:
    """Return a conversion to whole numbers or decisions: undecided where the bound reaches another one."""
    bound = made.bound()
    if bound is None:
        return None
    if x.dtype == torch.bool:
        return Choice(x, within(made.x.abs(), bound).to(made.x.dtype))
    low, high = reached(made.x, bound)
    decided = (low.trunc() == made.x.trunc()) & (high.trunc() == made.x.trunc())
    return Choice(x, (~decided).to(made.x.dtype))


def _parts(result: Any) -> list[Tensor | None]:
    """Return the results of an operation, None in place of what is no plain tensor."""
    parts = result if isinstance(result, tuple | list) else (result,)
    return [x if isinstance(x, Tensor) and plain(x) and x.device.type != "meta" else None for x in parts]


def _strange(x: Tensor) -> bool:
    """Whether a tensor is of a kind of which no noise is kept: what comes of it is not known."""
    return not plain(x) or x.is_complex() or x.is_quantized


def _real(x: Tensor) -> bool:
    return precision(x.dtype) is not None


def _noisy(x: Any) -> bool:
    return isinstance(x, Choice) or (isinstance(x, Value) and any(n is not None for n in x.noise))


def _of_results(made: Any, results: list[Tensor | None]) -> list[Any]:
    """Return what was made for each of the results; a rule may leave out the last ones."""
    parts = list(made) if isinstance(made, tuple) and not isinstance(made, Choice) else [made]
    return (parts + [None] * len(results))[: len(results)]
