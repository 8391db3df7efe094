"""What is certified: a network, its inputs as boxes, and what computes it; all that may be wrong with it is refused."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from simulator.arithmetic.spec import MacSpec
from simulator.errors import InputError, first_line
from simulator.hardware import Machine
from simulator.network.batches import check_samples_first, check_whole, fixed_batch
from simulator.network.fit import check_fit

from .bounded import Bounded
from .rule import Unit
from .units import of_mac, of_machine

_SAMPLES = "expected samples (N, ...), or two ends of a box for each, of one shape; give these"


class Subject(NamedTuple):
    """A network in eval mode, samples or boxes (lo, hi) that it takes, and what computes it, as of `certify`."""

    model: nn.Module
    x: tuple[Tensor, Tensor]
    mac: str | MacSpec | Machine | None
    precision: int | None
    mode: str

    def unit(self) -> Unit:
        """Return what computes it.

        Raises:
            InputError: a format, an accumulator or a machine without a rule.
        """
        mac, (lo, _) = self.mac, self.x
        try:
            if isinstance(mac, Machine):
                return of_machine(self.model, mac, self.mode, lo)
            return of_mac(mac, self.precision)
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
    ends = boxes(model, x)
    remedy = "expected samples as its forward takes them; correct these samples, or the network"
    check_samples_first(model, "bounds: x")
    check_whole(model, len(ends[0]), "bounds: x")
    check_fit(model, (ends[0][: fixed_batch(model) or 1],), {}, None, "bounds", remedy)
    return Subject(model, ends, mac, _whole(precision), mode)


def boxes(model: nn.Module, x: Any) -> tuple[Tensor, Tensor]:
    """Return the ends of boxes, of the type of a model's weights if they are floats: samples rounded to nearest, ends
    of boxes outward.

    Raises:
        InputError: what is no such thing.
    """
    if isinstance(x, tuple) and len(x) != 2:
        raise InputError(f"bounds: x: got {len(x)} values; {_SAMPLES}")
    try:
        lo, hi = (torch.as_tensor(end).detach() for end in (x if isinstance(x, tuple) else (x, x)))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"bounds: x: got no array of numbers ({first_line(error)}); {_SAMPLES}") from None
    if lo.shape != hi.shape or lo.dim() < 2 or not len(lo):
        raise InputError(f"bounds: x: got shapes {tuple(lo.shape)} and {tuple(hi.shape)}; {_SAMPLES}")
    if lo.is_complex() or hi.is_complex() or lo.dtype != hi.dtype:
        raise InputError(
            f"bounds: x: got values of {lo.dtype} and {hi.dtype}; expected real numbers of one type; convert them"
        )
    if not bool((lo <= hi).all()) or not bool(lo.isfinite().all() and hi.isfinite().all()):
        raise InputError("bounds: x: got an end that is not finite, or a lower end above the upper one; correct it")
    kind = next((w.dtype for w in model.parameters() if w.is_floating_point()), lo.dtype)
    if not lo.is_floating_point() or kind == lo.dtype:
        return lo, hi
    ends = lo.to(kind), hi.to(kind)
    if isinstance(x, tuple):
        ends = _outward(lo, ends[0], -torch.inf), _outward(hi, ends[1], torch.inf)
    if not all(bool(end.isfinite().all()) for end in ends):
        raise InputError(f"bounds: x: got values that {kind}, the type of the weights, does not hold; scale them")
    return ends


def as_bounded(lo: Tensor, hi: Tensor) -> Bounded:
    """Return inputs as exact values within boxes."""
    wide_lo, wide_hi = lo.double(), hi.double()
    return Bounded(wide_lo, wide_hi, torch.zeros_like(wide_lo))


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
