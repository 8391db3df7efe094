"""`python -m simulator sweep`: all points of a sweep file, on workers here or of a cluster, kept as they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from simulator.explore import Forecast, Place, Plan, Point, Sweep, forecast, read_plan, sweep
from simulator.explore.objectives import objective, own_mode, value
from simulator.report.console import plain_table, print_view, standard_output
from simulator.report.figures import counted, parameter, printable, quantity
from simulator.report.names import name_of, written
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
        print_view(standard_output(), _title(found), _table(points), *_rest(found), *errors(found.errors()))


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
        print_view(standard_output(), _forecast(plan, found), *errors([({}, found.reason)], "refused or failed"))


def _forecast(plan: Plan, found: Forecast) -> str:
    known = f", of which {found.known:,} {'is' if found.known == 1 else 'are'} known" if found.known else ""
    refused = f", {found.refused:,} refused" if found.refused else ""
    return f"{printable(plan.name)}: {counted(found.points, 'point')}{known}{refused}; {_to_compute(found)}"


def _to_compute(found: Forecast) -> str:
    if not found.remaining:
        return "nothing to compute"
    took = "a time unknown, since all that were tried failed"
    if found.seconds is not None:
        took = f"about {quantity(found.seconds, 's')} on {counted(found.workers, 'worker')} (estimate)"
    return f"{found.remaining:,} to compute, in {took}"


def _title(found: Sweep) -> str:
    return f"{printable(found.name)}: {counted(len(found.places), 'point')}, {kinds(found)}; in {found.store}"


# What the table shows of a point, in its machine's own mode: two passes if it has them, or else the low one.
_COLUMNS = ("accuracy", "agreement", "cycles", "latency_s", "energy_j")
_ROWS = 200  # more than these nobody reads


def _rest(found: Sweep) -> list[str]:
    more = len(found.places) - _ROWS
    return [f"and {counted(more, 'more point')}: see --json, or `runs` with --export"] if more > 0 else []


def _table(points: Sequence[tuple[Place, Point | None]]) -> Table:
    parameters = list(dict.fromkeys(name for place, _ in points for name in place.parameters))
    records = [None if point is None else point.record for _, point in points]
    known = [{} if record is None else {name: value(record, name) for name in _COLUMNS} for record in records]
    columns = [name for name in _COLUMNS if any(own.get(name) is not None for own in known)]
    if "accuracy" in columns:  # it says more than how often the answer is that of the exact run
        columns.remove("agreement")
    table = plain_table([*map(printable, parameters), "mode"], map(name_of, columns))
    for (place, _), record, own in zip(points, records, known, strict=True):
        cells = [written(name, objective(name).unit, own.get(name)) for name in columns]
        mode = "failed" if record is None else MODE_LABELS[own_mode(record)]
        table.add_row(*_parameters(place, parameters), mode, *cells)
    return table


def _parameters(place: Place, names: Sequence[str]) -> list[str]:
    return [printable(parameter(place.parameters[name])) if name in place.parameters else "" for name in names]
