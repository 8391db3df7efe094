"""The forward pass of a network that comes from a file, whose inputs the file names and no code does."""

from __future__ import annotations

import inspect
import itertools
import keyword
from collections.abc import Callable, Container, Sequence
from typing import Any

from torch import Tensor

from .result_sizes import CheckedSizes


class NamedForward:
    """A forward pass with names for its inputs, which `inspect.signature` finds as those of any other network.

    Args:
        names: of the inputs, in order. run: called with as many values, in that order.
    """

    def __init__(self, names: Sequence[str], run: Callable[..., Any]) -> None:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        self.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])
        self._run = run

    def __call__(self, *args: Tensor, **kwargs: Tensor) -> Any:
        """Run with inputs by position or by name.

        Raises:
            TypeError: others than the names. InputError: a result that does not fit into memory.
        """
        with CheckedSizes():
            return self._run(*self.__signature__.bind(*args, **kwargs).args)


def argument_of(name: str, known: Container[str]) -> str:
    """Return which of the known arguments a name of a file means, itself if none: as it is, or made an identifier, with
    or without the `:0` that TensorFlow puts behind names.
    """
    return next((own for own in (name, *unique_names([name]), *unique_names([f"{name}:0"])) if own in known), name)


def plain_name(name: str) -> str:
    """Return a name of a file with `_` for each character that no name of Python has."""
    return "".join(c if f"_{c}".isidentifier() else "_" for c in name)


def unique_names(names: Sequence[str]) -> list[str]:
    """Return names of a file as Python's: other characters become `_`, and repeated ones get `_1` and so on."""
    found: dict[str, None] = {}
    for name in names:
        plain = plain_name(name)
        plain = plain if plain.isidentifier() and not keyword.iskeyword(plain) else f"_{plain}"
        number = next(n for n in itertools.count() if (f"{plain}_{n}" if n else plain) not in found)
        found[f"{plain}_{number}" if number else plain] = None
    return list(found)
