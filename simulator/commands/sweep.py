"""`python -m simulator sweep`: all points of a sweep file, on workers here or of a cluster, kept as they come."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable, Mapping
from typing import Any

from rich.table import Table

from simulator.explore import Forecast, Plan, Sweep, forecast, read_plan, sweep
from simulator.report.console import print_view, standard_output
from simulator.report.figures import counted, percent, printable, quantity, short_count

Progress = Callable[[float, int | None], None]


def run(
    path: str,
    out: str,
    workers: int | None,
    scheduler: str | None,
    threads: int | None,
    json: bool,
    progress: Progress,
) -> bool:
    """Run a sweep file and print its points; return whether all have a result.

    Raises:
        InputError: what is wrong with the file, the cluster or the store.
    """
    found = sweep(
        plan=read_plan(path), out=out, workers=workers, scheduler=scheduler, threads=threads,
        progress=progress,
    )  # fmt: skip
    if json:
        sys.stdout.write(json_module.dumps(found.to_dict(), indent=2, allow_nan=False) + "\n")
    else:
        print_view(standard_output(), _title(found), _table(found), *_rest(found))
    return not found.failed


def dry_run(path: str, out: str, workers: int | None, json: bool) -> None:
    """Print how many points a sweep file has, and how long the missing ones would take."""
    plan = read_plan(path)
    found = forecast(plan, out, workers)
    if json:
        sys.stdout.write(json_module.dumps(found.to_dict(), indent=2) + "\n")
        return
    print_view(standard_output(), _forecast(plan, found))


def _forecast(plan: Plan, found: Forecast) -> str:
    known = f", of which {found.known:,} are known" if found.known else ""
    return (
        f"{printable(plan.name)}: {counted(found.points, 'point')}{known}; {found.remaining:,} to compute, in about "
        f"{quantity(found.seconds, 's')} on {counted(found.workers, 'worker')} (estimate)"
    )


def _title(found: Sweep) -> str:
    failed = f", {found.failed:,} failed" if found.failed else ""
    return (
        f"{printable(found.name)}: {counted(len(found.points), 'point')}, {found.computed:,} computed now{failed}; "
        f"in {found.store}"
    )


# What the table shows of a point's own mode: two passes, or its one MAC.
_COLUMNS = ("accuracy", "cycles", "latency", "energy")
_ROWS = 200  # more than these nobody reads


def _rest(found: Sweep) -> list[str]:
    more = len(found.points) - _ROWS
    return [f"and {counted(more, 'more point')}: see --json, or `runs` with --export"] if more > 0 else []


def _table(found: Sweep) -> Table:
    names = list(dict.fromkeys(name for parameters, _ in found.points for name in parameters))
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(printable(name))
    for heading in _COLUMNS:
        table.add_column(heading, justify="right")
    for parameters, point in found.points[:_ROWS]:
        shown = [printable(str(parameters.get(name, ""))) for name in names]
        if point is None or point.record is None:
            table.add_row(*shown, printable("not computed" if point is None else f"failed: {point.error}"))
            continue
        table.add_row(*shown, *_figures(point.record))
    return table


def _figures(record: Mapping[str, Any]) -> list[str]:
    totals = record["totals"]
    mode = "two_pass" if totals["two_pass"] else "low"
    of = totals[mode] or {}
    accuracy = (record.get("accuracy") or {}).get(mode)
    missing = "–"
    return [
        missing if accuracy is None else percent(accuracy),
        short_count(of["cycles"]) if of else missing,
        quantity(of["latency_s"], "s") if of else missing,
        quantity(of["energy_j"], "J") if of else missing,
    ]
