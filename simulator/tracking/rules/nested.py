"""Operands of an operation, which may be in lists and by keyword."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .registry import Choice


def leaves(x: Any) -> list[Any]:
    """Return what is in tuples, lists and dictionaries, whatever is in which, in order; a Choice is one of these."""
    found: list[Any] = []
    _gather(x, found)
    return found


def _gather(x: Any, found: list[Any]) -> None:
    kind = type(x)
    if kind is dict:
        x = x.values()
    elif kind is not tuple and kind is not list and (not isinstance(x, tuple | list) or kind is Choice):
        found.append(x)
        return
    for part in x:
        kind = type(part)
        if kind is tuple or kind is list or kind is dict or isinstance(part, tuple):
            _gather(part, found)
        else:
            found.append(part)


def mapped(x: Any, f: Callable[[Any], Any]) -> Any:
    """Return the same tuples, lists and dictionaries of f of each of the leaves."""
    kind = type(x)
    if kind is dict:
        return {key: mapped(part, f) for key, part in x.items()}
    if kind is tuple or kind is list or (isinstance(x, tuple | list) and kind is not Choice):
        return kind([mapped(part, f) for part in x])
    return f(x)
