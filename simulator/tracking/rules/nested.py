"""Operands of an operation, which may be in lists and by keyword."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .registry import Choice


def leaves(x: Any) -> list[Any]:
    """Return what is in tuples, lists and dictionaries, whatever is in which, in order; a Choice is one of these."""
    if isinstance(x, tuple | list) and not isinstance(x, Choice):
        return [leaf for part in x for leaf in leaves(part)]
    if isinstance(x, dict):
        return leaves(tuple(x.values()))
    return [x]


def mapped(x: Any, f: Callable[[Any], Any]) -> Any:
    """Return the same tuples, lists and dictionaries of f of each of the leaves."""
    if isinstance(x, tuple | list) and not isinstance(x, Choice):
        return type(x)(mapped(part, f) for part in x)
    if isinstance(x, dict):
        return {key: mapped(part, f) for key, part in x.items()}
    return f(x)
