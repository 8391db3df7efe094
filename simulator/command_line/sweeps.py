"""Many runs and the store they are in: sweep, search, runs."""

from __future__ import annotations

from typing import Annotated

import typer

from simulator.errors import InputError

from .exit_codes import SAID_NO
from .interruption import interruptible, points_stay
from .options import JsonRecords, Quiet, Scheduler, Workers, WorkerThreads
from .progress import prints_aside, progress_bar, shown
from .refusals import by_option


def run_sweep(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE.yaml", help="What varies, on which machine and network.")],
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Where the store of points is; a sweep goes on from what is there.")
    ] = "sweep",
    workers: Workers = None,
    scheduler: Scheduler = None,
    threads: WorkerThreads = None,
    only_plan: Annotated[
        bool, typer.Option("--dry-run", help="Say how many points there are and how long they would take.")
    ] = False,
    json: JsonRecords = False,
    quiet: Quiet = False,
) -> None:
    """Run every combination of what a sweep file varies; points that are known are not computed again."""
    from simulator.commands import sweep

    left = "" if only_plan else points_stay(out)
    with (
        by_option(context), interruptible(left), prints_aside(json, quiet), progress_bar("point", quiet) as progress
    ):  # fmt: skip
        if only_plan:
            planned = sweep.dry_run(file, out, workers, scheduler, threads, progress)
        else:
            found = sweep.run(file, out, workers, scheduler, threads, progress)
    with shown(json, quiet):
        if only_plan:
            sweep.show_forecast(*planned, json)
        else:
            sweep.show(found, json)
    if not only_plan and found.failed:
        raise typer.Exit(SAID_NO)


def run_search(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE.yaml", help="A sweep file that says what is searched for.")],
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Where the store of points is; a search goes on from what is there.")
    ] = "search",
    points: Annotated[
        int | None, typer.Option(metavar="N", help="Compute so many. Default: as the file says, or a quarter of all.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="S", help="Of the choice of points. Default: as the file says, or 0.")
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    threads: WorkerThreads = None,
    only_plan: Annotated[
        bool, typer.Option("--dry-run", help="Say what there is to choose from, for what and where; write nothing.")
    ] = False,
    json: JsonRecords = False,
    quiet: Quiet = False,
) -> None:
    """Find the best compromises between objectives among the points of a sweep, and compute few of them."""
    from simulator.commands import search

    left = "" if only_plan else points_stay(out)
    with (
        by_option(context), interruptible(left), prints_aside(json, quiet), progress_bar("point", quiet) as progress
    ):  # fmt: skip
        if only_plan:
            planned = search.dry_run(file, out, points, seed, workers, scheduler, threads)
        else:
            found = search.run(file, out, points, seed, workers, scheduler, threads, progress)
    with shown(json, quiet):
        if only_plan:
            search.show_forecast(planned, json)
        else:
            search.show(found, json)
    if not only_plan and found.failed:
        raise typer.Exit(SAID_NO)


def show_runs(
    context: typer.Context,
    store: Annotated[str, typer.Argument(metavar="DIR", help="A directory with a store of runs, or its file.")],
    show: Annotated[str | None, typer.Option(metavar="KEY", help="Print one point in full, as JSON.")] = None,
    export: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write a sweep's points to a .csv or .parquet file.")
    ] = None,
    sweep: Annotated[str | None, typer.Option(metavar="NAME", help="Which sweep, where there are several.")] = None,
    remove: Annotated[list[str] | None, typer.Option(metavar="KEY", help="Remove a point; may be repeated.")] = None,
    remove_outdated: Annotated[
        bool, typer.Option("--remove-outdated", help="Remove what an ulpsim of other numerics computed.")
    ] = False,
    json: JsonRecords = False,
    quiet: Quiet = False,
) -> None:
    """List the runs in a store, show one, export a sweep, or remove some."""
    from simulator.commands import runs

    jobs = {
        "--show": show,
        "--export": export,
        "--remove": remove or None,
        "--remove-outdated": remove_outdated or None,
    }
    given = [option for option, value in jobs.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"runs: got {' and '.join(given)}; expected one of them; give one after the other")
    if sweep is not None and export is None:
        raise InputError("runs: got --sweep without --export; expected both or none; leave --sweep out")
    if json and given and given[0] not in ("--show", "--export"):
        raise InputError(f"runs: got --json with {given[0]}, which prints no record; expected it alone; leave it out")
    with by_option(context), shown(json, quiet):
        if show is not None:
            runs.show_one(store, show)
        elif export is not None:
            runs.export_sweep(store, sweep, export, json)
        elif remove:
            runs.remove(store, remove)
        elif remove_outdated:
            runs.remove_outdated(store)
        else:
            runs.show_all(store, json)
