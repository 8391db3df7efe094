"""`python -m simulator sweep`: all points of a sweep file, on workers here or of a cluster, kept as they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Table

from simulator.explore import Forecast, Place, Plan, Point, Sweep, forecast, read_plan, sweep
from simulator.explore.objectives import own_mode
from simulator.report.console import plain_table, print_view, standard_output
from simulator.report.figures import MISSING, counted, parameter, printable, quantity, score, short_count
from simulator.result import MODE_LABELS

from .outcomes import errors, kinds
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


# What the table shows of a point, in its machine's own mode: two passes if it has them, or else the low one.
_COLUMNS = ("accuracy", "cycles", "latency", "energy")
_ROWS = 200  # more than these nobody reads


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
    if record is None:
        return ["failed", *[MISSING] * len(_COLUMNS)]
    totals = record["totals"]
    mode = own_mode(record)
    of = totals[mode] or {}
    accuracy = (record.get("accuracy") or {}).get(mode)
    return [
        MODE_LABELS[mode],
        MISSING if accuracy is None else score(accuracy),
        short_count(of["cycles"]) if of else MISSING,
        quantity(of["latency_s"], "s") if of else MISSING,
        quantity(of["energy_j"], "J") if of else MISSING,
    ]


def _errors(points: Sequence[tuple[Place, Point | None]]) -> list[RenderableType]:
    removed = "removed from the store"
    found = ((place, (place.error or removed) if point is None else point.error) for place, point in points)
    return errors((place.parameters, error) for place, error in found)
