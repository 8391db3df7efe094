"""The default floating-point environment, for what Python and numpy compute in `formats`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from formats import environment

from . import ffi, lib

_SIZE = lib.ulp_environment_size()


@contextmanager
def default_environment() -> Iterator[None]:
    """Set the default environment of this thread, and restore the caller's at the end."""
    saved = ffi.new("char[]", _SIZE)
    lib.ulp_default_environment(saved)
    try:
        yield
    finally:
        lib.ulp_restore_environment(saved)


environment.install(default_environment)
