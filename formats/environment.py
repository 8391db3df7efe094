"""The floating-point environment of the caller, kept out of what formats compute.

Flush-to-zero modes and directed roundings of the processor change what Python and numpy compute with doubles. Python
cannot set them; the package `native` installs a guard that does, for the time of a call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_guard: Callable[[], AbstractContextManager[None]] = nullcontext


def install(guard: Callable[[], AbstractContextManager[None]]) -> None:
    """Take a context manager that sets the default environment and restores the caller's at the end."""
    global _guard
    _guard = guard


def in_default_environment(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function compute in the default environment, once a guard is installed."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        with _guard():
            return function(*args, **kwargs)

    return guarded
