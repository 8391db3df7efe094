"""Rules by the name of the operation, without overload and without the _ of operations in place."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..values import Trace


class Choice(NamedTuple):
    """Numbers that are no real ones, or decisions.

    Args:
        x: as the run has them; of a result of a rule only the shape counts, as the run has the rest. undecided:
            not 0 where they could be others within the bounds of what decided them.
    """

    x: Tensor
    undecided: Tensor


class Rule(NamedTuple):
    """What makes the noise of an operation.

    Args:
        make: (trace, *arguments, **keyword arguments) of the operation, its real tensors as Values -> Value, Choice,
            None for a result that needs no noise, or a tuple of these. It computes the results too; by how much those
            of the run depart from them is added.
        direct: whether it takes `z`, the result of the run, and counts the roundings of the operation itself instead.
        keeps: whether, in place, it reads the old values of what is overwritten, given the other arguments.
        chooses: whether it takes Choices.
    """

    make: Callable[..., Any]
    direct: bool = False
    keeps: Callable[..., bool] = lambda *args, **kwargs: True
    chooses: bool = False


RULES: dict[str, Rule] = {}

_Make = TypeVar("_Make", bound=Callable[..., Any])


def rule(
    *names: str,
    direct: bool = False,
    keeps: Callable[..., bool] = lambda *args, **kwargs: True,
    chooses: bool = False,
) -> Callable[[_Make], _Make]:
    """Register a function as the rule of operations of these names."""

    def register(make: _Make) -> _Make:
        for name in names:
            RULES[name] = Rule(make, direct, keeps, chooses)
        return make

    return register


def as_it_is(t: Trace, x: Any) -> Any:
    """Return a decision as a value: where it is not decided it is 0 or 1, and a whole number may be anything."""
    if not isinstance(x, Choice):
        return x
    jump = 1.0 if x.x.dtype == torch.bool else math.inf
    return t.value(x.x).either(torch.full_like(x.undecided, jump), x.undecided != 0)


def functional(func: Any) -> Any:
    """Return the operation that gives what another one writes in place; itself if it writes nothing, None if none."""
    if not func._schema.is_mutable:
        return func
    name = func.overloadpacket.__name__.removesuffix("_")
    packet = getattr(getattr(torch.ops, func.namespace), name, None)
    if packet is None:
        return None
    overload = func._overloadname
    overload = "default" if overload == "out" else overload.removesuffix("_out")
    found = getattr(packet, overload, None) if overload in packet.overloads() else None
    return None if found is None or found._schema.is_mutable else found
