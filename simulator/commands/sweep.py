"""`python -m simulator sweep`: all points of a sweep file, on workers here or of a cluster, kept as they come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table

from simulator.explore import Forecast, Place, Plan, Point, Search, Sweep, forecast, read_plan, sweep
from simulator.explore.objectives import own_mode
from simulator.report.console import plain_table, print_view, standard_output
from simulator.report.failures import failures
from simulator.report.figures import counted, parameter, printable, quantity, score, short_count
from simulator.result import MODE_LABELS

from .records import print_record

if TYPE_CHECKING:
    from simulator.progress import Progress


def run(path: str, out: str, workers: int | None, scheduler: str | None, threads: int | None, tell: Progress) -> Sweep:
    """Run a sweep file.

    Raises:
        InputError: what is wrong with the file, the cluster or the store.
    """
    return sweep(
        plan=read_plan(path), out=out, workers=workers, scheduler=scheduler, threads=threads, progress=tell
    )  # fmt: skip


def show(found: Sweep, json: bool) -> None:
    """Print the points of a sweep."""
    if json:
        print_record(found.to_dict())
    else:
        points = found.first(_ROWS)
        print_view(standard_output(), _title(found), _table(points), *_errors(points), *_rest(found))


def dry_run(
    path: str, out: str, workers: int | None, scheduler: str | None, threads: int | None, tell: Progress
) -> tuple[Plan, Forecast]:
    """Return how many points a sweep file has, and how long the missing ones would take."""
    plan = read_plan(path)
    return plan, forecast(
        plan=plan, out=out, workers=workers, scheduler=scheduler, threads=threads, progress=tell
    )  # fmt: skip


def show_forecast(plan: Plan, found: Forecast, json: bool) -> None:
    """Print what a sweep would do."""
    if json:
        print_record(found.to_dict())
    else:
        print_view(standard_output(), _forecast(plan, found))


def _forecast(plan: Plan, found: Forecast) -> str:
    known = f", of which {found.known:,} are known" if found.known else ""
    refused = f", {found.refused:,} refused" if found.refused else ""
    took = "a time unknown, since all that were tried failed"
    if found.seconds is not None:
        took = f"about {quantity(found.seconds, 's')} on {counted(found.workers, 'worker')} (estimate)"
    return (
        f"{printable(plan.name)}: {counted(found.points, 'point')}{known}{refused}; {found.remaining:,} to compute, "
        f"in {took}{'' if found.reason is None else f'; refused or failed: {printable(found.reason)}'}"
    )


def _title(found: Sweep) -> str:
    return f"{printable(found.name)}: {counted(len(found.places), 'point')}, {kinds(found)}; in {found.store}"


def kinds(found: Sweep | Search) -> str:
    """Return how many points this call computed, how many the store had, and how many failed: all there are."""
    known = f", {found.known:,} from the store" if found.known else ""
    failed = f", {found.failed:,} failed" if found.failed else ""
    return f"{found.computed:,} computed now{known}{failed}"


# What the table shows of a point, in its machine's own mode: two passes if it has them, or else the low one.
_COLUMNS = ("accuracy", "cycles", "latency", "energy")
_ROWS = 200  # more than these nobody reads
_ERRORS = 10


def _rest(found: Sweep) -> list[str]:
    more = len(found.places) - _ROWS
    return [f"and {counted(more, 'more point')}: see --json, or `runs` with --export"] if more > 0 else []


def _table(points: Sequence[tuple[Place, Point | None]]) -> Table:
    names = list(dict.fromkeys(name for place, _ in points for name in place.parameters))
    table = plain_table([*map(printable, names), "mode"], _COLUMNS)
    for place, point in points:
        table.add_row(*_parameters(place, names), *_figures(None if point is None else point.record))
    return table


def _parameters(place: Place, names: Sequence[str]) -> list[str]:
    return [printable(parameter(place.parameters[name])) if name in place.parameters else "" for name in names]


def _figures(record: Mapping[str, Any] | None) -> list[str]:
    missing = "–"
    if record is None:
        return ["failed", *[missing] * len(_COLUMNS)]
    totals = record["totals"]
    mode = own_mode(record)
    of = totals[mode] or {}
    accuracy = (record.get("accuracy") or {}).get(mode)
    return [
        MODE_LABELS[mode],
        missing if accuracy is None else score(accuracy),
        short_count(of["cycles"]) if of else missing,
        quantity(of["latency_s"], "s") if of else missing,
        quantity(of["energy_j"], "J") if of else missing,
    ]


def _errors(points: Sequence[tuple[Place, Point | None]]) -> list[RenderableType]:
    removed = "removed from the store"
    found = ((place, (place.error or removed) if point is None else point.error) for place, point in points)
    return errors((place.parameters, error) for place, error in found)


def errors(points: Iterable[tuple[Mapping[str, Any], str | None]], what: str = "failed") -> list[RenderableType]:
    """Return lines that say why points failed, of which these are the parameters and the errors: each reason once."""
    reasons = failures((parameters, error) for parameters, error in points if error is not None)
    lines: list[RenderableType] = []
    for count, text in reasons[:_ERRORS]:
        problems = [printable(problem) for problem in text.split("\n")]
        why = f"{what}{'' if count == 1 else f' ({count} points)'}:"
        if len(problems) == 1:
            lines.append(f"{why} {problems[0]}")
        else:
            lines += [why, *(Padding(problem, (0, 0, 0, 2)) for problem in problems)]
    more = len(reasons) - _ERRORS
    return lines + ([f"and {counted(more, 'other reason')}"] if more > 0 else [])
