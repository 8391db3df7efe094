"""Ctrl-C while a command computes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from .exit_codes import INTERRUPTED


@contextmanager
def interruptible(left: str | Callable[[], str] = "") -> Iterator[None]:
    """End the command on Ctrl-C with one line, which says what is left of its work, and the code for it."""
    try:
        yield
    except KeyboardInterrupt:
        found = left if isinstance(left, str) else left()
        so_far = f"; {found}" if found else ""
        print(f"ulpsim: interrupted{so_far}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def points_stay(out: str) -> Callable[[], str]:
    """Return what says what is left of the work of a command that keeps its points in the store in a directory."""

    def said() -> str:
        path = Path(out)
        there = path.is_file() or (path.is_dir() and any(path.iterdir()))
        return f"the points so far are in {out}, and the same command goes on" if there else "nothing was written"

    return said
