"""What is certified: a network, its inputs as boxes, and what computes it; all that may be wrong with it is refused."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from simulator.arithmetic.spec import MacSpec
from simulator.errors import InputError, first_line
from simulator.hardware import Machine
from simulator.network.batches import Batch, as_batch, check_samples_first, check_whole, fixed_batch
from simulator.network.fit import check_fit

from .bounded import Bounded
from .graph import MOST_WHOLE, is_beyond
from .rule import Unit
from .units import of_mac, of_machine

_SAMPLES = "expected samples (N, ...), or two ends of a box for each, of one shape; give these"


@dataclass(frozen=True)
class Boxes:
    """Inputs of a network between two ends each: arguments of its forward pass, samples along their first axes. Those
    without axes are the same for all samples, and points.
    """

    lo: Batch
    hi: Batch

    def rows(self, rows: slice | Tensor) -> Boxes:
        """Return the boxes of some samples."""
        return Boxes(self.lo.rows(rows), self.hi.rows(rows))

    def named(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return both ends by name; a positional input is x."""
        upper = self.hi.inputs
        return {name: (lo, upper[name]) for name, lo in self.lo.inputs.items()}

    def bounded(self) -> list[Bounded]:
        """Return those with axes as exact values within boxes, in the order of a graph's inputs."""
        ends = [(lo.double(), hi.double()) for lo, hi in self.named().values() if lo.dim()]
        return [Bounded(lo, hi, torch.zeros_like(lo)) for lo, hi in ends]


class Subject(NamedTuple):
    """A network in eval mode, boxes that it takes, and what computes it, as of `certify`."""

    model: nn.Module
    x: Boxes
    mac: str | MacSpec | Machine | None
    precision: int | None
    mode: str

    def unit(self) -> Unit:
        """Return what computes it.

        Raises:
            InputError: a format, an accumulator or a machine without a rule.
        """
        try:
            if isinstance(self.mac, Machine):
                return of_machine(self.model, self.mac, self.mode, self.x.lo)
            return of_mac(self.mac, self.precision)
        except ValueError as error:
            raise error if isinstance(error, InputError) else InputError(f"bounds: mac: {error}") from None


def subject(model: Any, x: Any, mac: Any, precision: Any, mode: str) -> Subject:
    """Return what the arguments of `certify` say, checked.

    Raises:
        InputError: no network in eval mode, inputs that it does not take, or arguments that do not go together.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"bounds: model: got {type(model).__name__}; expected a torch.nn.Module; wrap it in one")
    if model.training:
        raise InputError("bounds: got a model in training mode; expected one that runs as it will; call model.eval()")
    _check_weights(model)
    if not isinstance(mac, str | MacSpec | Machine | None):
        raise InputError(
            f"bounds: mac: got {type(mac).__name__}; expected a MAC, a machine or None; give e.g. 'fma(fp16)'"
        )
    if isinstance(mac, Machine) and precision is not None:
        raise InputError("bounds: precision: got one beside a machine, whose formats are known; give one of both")
    if not isinstance(mac, Machine) and mode != "low":
        raise InputError(
            f"bounds: mode: got {mode!r} without a machine; expected it beside one, which has modes; leave it out, or "
            "give simulator.load_hardware(...) as mac"
        )
    found = boxes(model, x)
    remedy = "expected samples as its forward takes them; correct these samples, or the network"
    check_samples_first(model, "bounds: x")
    check_whole(model, found.lo.samples, "bounds: x")
    first = found.lo.part(0, fixed_batch(model) or 1).copy()
    check_fit(model, first.args, dict(first.kwargs), None, "bounds", remedy)
    return Subject(model, found, mac, _whole(precision), mode)


def boxes(model: nn.Module, x: Any) -> Boxes:
    """Return inputs as boxes, of the type of a model's weights if they are floats: samples rounded to nearest, ends of
    boxes outward.

    Args:
        x: as of `certify`, or what this returned.
    Raises:
        InputError: what is no such thing.
    """
    if isinstance(x, Boxes):
        return x
    if not isinstance(x, Mapping):
        lo, hi = _ends(model, x, "x", 2)
        return Boxes(as_batch(lo, None), as_batch(hi, None))
    ends = {name: _ends(model, one, name, 0) for name, one in x.items()}
    for name, (lo, hi) in ends.items():
        if not lo.dim() and bool(lo != hi):
            raise InputError(
                f"bounds: {name}: got two ends of one number for all samples; expected a point; give it an axis of "
                "samples in the network, or one value"
            )
    lower, upper = ({name: both[end] for name, both in ends.items()} for end in (0, 1))
    return Boxes(as_batch(lower, None), as_batch(upper, None))


def _ends(model: nn.Module, x: Any, name: str, axes: int) -> tuple[Tensor, Tensor]:
    """Return both ends of one input, which has at least so many axes."""
    if isinstance(x, tuple) and len(x) != 2:
        raise InputError(f"bounds: {name}: got {len(x)} values; {_SAMPLES}")
    try:
        lo, hi = (torch.as_tensor(end).detach() for end in (x if isinstance(x, tuple) else (x, x)))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"bounds: {name}: got no array of numbers ({first_line(error)}); {_SAMPLES}") from None
    if lo.shape != hi.shape or lo.dim() < axes or (lo.dim() and not len(lo)):
        raise InputError(f"bounds: {name}: got shapes {tuple(lo.shape)} and {tuple(hi.shape)}; {_SAMPLES}")
    if lo.is_complex() or hi.is_complex() or lo.dtype != hi.dtype:
        raise InputError(
            f"bounds: {name}: got values of {lo.dtype} and {hi.dtype}; expected real numbers of one type; convert them"
        )
    if not bool((lo <= hi).all()) or not bool(lo.isfinite().all() and hi.isfinite().all()):
        raise InputError(
            f"bounds: {name}: got an end that is not finite, or a lower end above the upper one; correct it"
        )
    if is_beyond(lo) or is_beyond(hi):
        raise InputError(
            f"bounds: {name}: got integers beyond {MOST_WHOLE}, which float32 does not hold; expected up to that; give "
            "floats, or scale them"
        )
    kind = next((w.dtype for w in model.parameters() if w.is_floating_point()), lo.dtype)
    if not lo.is_floating_point() or kind == lo.dtype:
        return lo, hi
    ends = lo.to(kind), hi.to(kind)
    if isinstance(x, tuple):
        ends = _outward(lo, ends[0], -torch.inf), _outward(hi, ends[1], torch.inf)
    if not all(bool(end.isfinite().all()) for end in ends):
        raise InputError(f"bounds: {name}: got values that {kind}, the type of the weights, does not hold; scale them")
    return ends


def _outward(end: Tensor, rounded: Tensor, towards: float) -> Tensor:
    """Return a rounded end of a box, the next number where the box would be smaller."""
    inside = rounded.double() > end.double() if towards < 0 else rounded.double() < end.double()
    return torch.where(inside, torch.nextafter(rounded, torch.full_like(rounded, towards)), rounded)


def _whole(precision: Any) -> Any:
    """Return a whole number of any type as Python's; what is none as it is, to be refused where it is read."""
    if precision is None or isinstance(precision, bool):
        return precision
    try:
        return operator.index(precision)
    except TypeError:
        return precision


def _check_weights(model: nn.Module) -> None:
    for name, weight in model.named_parameters():
        if is_lazy(weight):
            raise InputError(
                f"bounds: {name}: got a weight without a shape; expected a model that has run; run it once"
            )
        if weight.is_floating_point() and bool(weight.isnan().any()):
            raise InputError(f"bounds: {name}: got a NaN among the weights; expected numbers; train or load it anew")
