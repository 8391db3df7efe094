"""The types that a network from a file declares for its inputs, and integers that are given in others."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from simulator.errors import InputError


def input_types(model: nn.Module) -> Mapping[str, torch.dtype]:
    """Return the types that a network declares for its inputs, by name; it says so by an attribute of this name."""
    types = getattr(model, "input_types", {})
    return types if isinstance(types, Mapping) else {}


def kind_of(dtype: torch.dtype) -> str:
    """Return bool, float, complex or integer: what a type holds, within which it may be converted."""
    if dtype == torch.bool:
        return "bool"
    return "float" if dtype.is_floating_point else "complex" if dtype.is_complex else "integer"


def type_name(dtype: torch.dtype) -> str:
    """Return the name of a type for messages, e.g. int64."""
    return str(dtype).removeprefix("torch.")


def as_integers(place: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an input in the type that is declared for it, if both are of integers; else as it is.

    Args:
        place: the input, for the message.
    Raises:
        InputError: an integer that the type does not hold.
    """
    if value.dtype == dtype or {kind_of(value.dtype), kind_of(dtype)} != {"integer"}:
        return value
    if value.numel():
        limits = torch.iinfo(dtype)
        least, largest = (int(x) for x in value.long().aminmax())
        if least < limits.min or largest > limits.max:
            beyond = least if least < limits.min else largest
            raise InputError(
                f"{place}: is given {beyond}; expected {limits.min} to {limits.max}, as {type_name(dtype)} holds them; "
                "correct the data"
            )
    return value.to(dtype)
