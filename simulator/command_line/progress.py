"""While a command computes: how far it is, and where what the user's code prints goes; then what it found."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.progress import OpenProgress


@contextmanager
def progress_bar(unit: str = "sample", quiet: bool = False) -> Iterator[OpenProgress]:
    """Show how many samples are done and what time is left, on standard error if that is a terminal, unless quiet."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("time left"), TimeRemainingColumn())
    # The modes differ in speed, so that only all of the run tells what is left of it.
    period = 24 * 3600.0
    with Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        disable=quiet or not sys.stderr.isatty(),
        speed_estimate_period=period,
    ) as bar:
        task = bar.add_task("starting", total=None)

        def show(done: float, total: int | None) -> None:
            of = "" if total is None else f" of {total:,}"
            bar.update(
                task,
                completed=done,
                total=total,
                description=f"{int(done):,}{of} {unit}{'' if (total or done) == 1 else 's'}",
            )

        yield show


def prints_aside(json: bool, quiet: bool = False) -> AbstractContextManager[Any]:
    """Send what the user's code prints to standard error, lest it come between records and their reader, or be all."""
    return redirect_stdout(sys.stderr) if json or quiet else nullcontext()


@contextmanager
def shown(json: bool, quiet: bool = False) -> Iterator[None]:
    """Print what was found to standard output; if quiet, nowhere, but for the record that --json asks for."""
    from simulator.report.console import to_a_reader

    if quiet and not json:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            yield
    else:
        with to_a_reader():
            yield
