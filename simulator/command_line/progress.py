"""While a command computes: how far it is, and where what the user's code prints goes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from typing import Any


@contextmanager
def progress_bar(unit: str = "sample") -> Iterator[Callable[[float, int | None], None]]:
    """Show on standard error, if that is a terminal, how many samples are done and how much time is left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("time left"), TimeRemainingColumn())
    # The modes differ in speed, so that only all of the run tells what is left of it.
    period = 24 * 3600.0
    with Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
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


def prints_aside(json: bool) -> AbstractContextManager[Any]:
    """Send what the user's code prints to standard error, lest it come between records and their reader."""
    return redirect_stdout(sys.stderr) if json else nullcontext()
