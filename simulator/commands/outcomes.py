"""What became of the points of a sweep or a search: how many of which kind, and why some have no result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding

from simulator.explore import Search, Sweep
from simulator.report.failures import failures
from simulator.report.figures import counted, printable

_ERRORS = 10


def kinds(found: Sweep | Search) -> str:
    """Return how many points this call computed, how many the store had, and how many failed: all there are."""
    known = f", {found.known:,} from the store" if found.known else ""
    failed = f", {found.failed:,} failed" if found.failed else ""
    return f"{found.computed:,} computed now{known}{failed}"


def errors(
    points: Iterable[tuple[Mapping[str, Any], str | None]], what: str = "failed", noun: str = "point"
) -> list[RenderableType]:
    """Return lines that say why points failed, of which these are the parameters and the errors: each reason once."""
    reasons = failures((parameters, error) for parameters, error in points if error is not None)
    lines: list[RenderableType] = []
    for count, text in reasons[:_ERRORS]:
        problems = [printable(problem) for problem in text.split("\n")]
        why = f"{what}{'' if count == 1 else f' ({counted(count, noun)})'}:"
        if len(problems) == 1:
            lines.append(f"{why} {problems[0]}")
        else:
            lines += [why, *(Padding(problem, (0, 0, 0, 2)) for problem in problems)]
    more = len(reasons) - _ERRORS
    return lines + ([f"and {counted(more, 'other reason')}"] if more > 0 else [])
