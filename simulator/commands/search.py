"""`python -m simulator search`: points of a sweep file chosen for several objectives; the Pareto front as a table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rich.table import Table

from simulator.explore import Found, Goal, Plan, Search, SearchForecast, forecast_search, read_search, search
from simulator.explore.objectives import objective
from simulator.report.console import plain_table, print_view, standard_output
from simulator.report.figures import counted, parameter, percent, printable
from simulator.report.names import name_of, written

from .outcomes import errors, kinds
from .records import print_record

if TYPE_CHECKING:
    from simulator.progress import Progress

_MOST = 200  # points of a front; more than these nobody reads
_VALUES = 12  # of an axis


def run(
    path: str, out: str, points: int | None, seed: int | None, workers: int | None, scheduler: str | None,
    threads: int | None, progress: Progress,
) -> Search:  # fmt: skip
    """Run a search file; a number of points and a seed take the place of those in it.

    Raises:
        InputError: what is wrong with the file, the cluster or the store.
    """
    plan, goal = _read(path, points, seed)
    return search(
        plan=plan, goal=goal, out=out, workers=workers, scheduler=scheduler, threads=threads,
        progress=progress,
    )  # fmt: skip


def dry_run(
    path: str, out: str, points: int | None, seed: int | None, workers: int | None, scheduler: str | None,
    threads: int | None,
) -> SearchForecast:  # fmt: skip
    """Return what a search file would do; arguments and errors as of run."""
    plan, goal = _read(path, points, seed)
    return forecast_search(plan=plan, goal=goal, out=out, workers=workers, scheduler=scheduler, threads=threads)


def _read(path: str, points: int | None, seed: int | None) -> tuple[Plan, Goal]:
    plan, goal = read_search(path)
    return plan, replace(
        goal, points=goal.points if points is None else points, seed=goal.seed if seed is None else seed
    )  # fmt: skip


def show_forecast(found: SearchForecast, json: bool) -> None:
    """Print what a search would do."""
    if json:
        print_record(found.to_dict())
        return
    goal = found.goal
    known = f", which has {counted(found.known, 'point')} of it" if found.known else ""
    table = plain_table(["varies"], ["values"])
    table.add_column("")
    for keys, values in found.space.items():
        some = [parameter(one[0] if len(keys) == 1 else one) for one in values[:_VALUES]]
        shown = ", ".join(some)
        more = ", ..." if len(values) > _VALUES else ""
        table.add_row(printable(", ".join(keys)), f"{len(values):,}", printable(shown + more))
    print_view(
        standard_output(),
        f"{printable(found.name)}: {goal.points:,} of {counted(found.grid, 'point')}, {goal.at_once} at a time, seed "
        f"{goal.seed}, on {counted(found.workers, 'worker')}; into {found.store}{known}",
        f"for the {goal.sought}{f', with {goal.bounds}' if goal.bounds else ''}",
        table,
        "nothing was computed or written",
    )


def show(found: Search, json: bool) -> None:
    """Print the Pareto front of a search."""
    if json:
        print_record(found.to_dict())
        return
    front = found.front
    failed = [
        *errors((point.parameters, point.error) for point in found.points),
        *errors(((point.parameters, point.error) for point in found.refused), "can be no point", "combination"),
    ]
    if not front:
        print_view(standard_output(), _title(found), printable(str(found.why_none)), *failed)
        return
    more = [f"and {counted(len(front) - _MOST, 'more point')}: see --json"] if len(front) > _MOST else []
    print_view(
        standard_output(), _title(found), _table(found, front[:_MOST]), *more, _summary(found), *failed
    )  # fmt: skip


def _title(found: Search) -> str:
    refused = f", {counted(len(found.refused), 'combination')} can be none" if found.refused else ""
    missing = f", {found.missing:,} missing" if found.missing else ""
    return (
        f"{printable(found.name)}: {len(found.points):,} of {counted(found.grid, 'point')}, {kinds(found)}{missing}"
        f"{refused}; in {found.store}"
    )


def _table(found: Search, front: tuple[Found, ...]) -> Table:
    parameters = list(dict.fromkeys(name for point in front for name in point.parameters))
    table = plain_table(map(printable, parameters), map(name_of, found.goal.names))
    for point in front:
        cells = [printable(parameter(point.parameters[name])) for name in parameters]
        values = point.values or {}
        table.add_row(*cells, *(written(name, objective(name).unit, values[name]) for name in found.goal.names))
    return table


def _summary(found: Search) -> str:
    """Return how good the front is, and when it was so good."""
    feasible = sum(point.feasible for point in found.points)
    lacking = f"; {counted(found.lacking, 'point')} without a finite number of each" if found.lacking else ""
    kept = f", {feasible:,} of the points keep the constraints" if found.goal.constraints else ""
    front = f"Pareto front: {counted(len(found.front), 'point')}{kept}; "
    if found.hypervolumes is None:
        return f"{front}no hypervolume, since no two of these differ in an objective{lacking}"
    whole = found.hypervolumes[-1]
    most = next((i for i, volume in enumerate(found.hypervolumes, 1) if volume >= 0.99 * whole), None)
    since = f", 99 % of it after {counted(most, 'point')}" if whole and most is not None else ""
    return (
        f"{front}hypervolume {percent(whole)} of the box between the best and the worst of each objective{since}"
        f"{lacking}"
    )
