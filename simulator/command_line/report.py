"""Pages of what was saved: report."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import JsonRecord, Quiet
from .progress import shown
from .refusals import by_option


def make_report(
    context: typer.Context,
    directories: Annotated[
        list[str], typer.Argument(metavar="DIR...", help="Saved runs, or one store of a sweep or a search.")
    ],
    out: Annotated[
        str | None,
        typer.Option(metavar="FILE.html", help="The page. Default: report.html in DIR, or here if of several."),
    ] = None,
    sweep: Annotated[str | None, typer.Option(metavar="NAME", help="Which sweep of the store, of several.")] = None,
    export: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write every layer in every mode, or a sweep's points, as .csv or .parquet."),
    ] = None,
    json: JsonRecord = False,
    quiet: Quiet = False,
) -> None:
    """Make an HTML page of a saved run, of several side by side, or of the points of a sweep and their Pareto front."""
    from simulator.commands import report

    with by_option(context):
        found = report.run(directories, out, sweep, export)
    with shown(json, quiet):
        report.show(*found, json)
