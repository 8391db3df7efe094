"""What numbers and MAC units are: formats, explain."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from .options import JsonRecord, JsonRecords, Quiet, Threads
from .progress import shown


def show_formats(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Formats to show in full. Default: a list of all.")
    ] = None,
    compare: Annotated[
        tuple[str, str] | None, typer.Option(metavar="A B", help="Show where the formats A and B differ.")
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(metavar="FILE.html", help="Draw relative spacing against magnitude, a curve for each format."),
    ] = None,
    markdown: Annotated[
        Literal["table", "page"] | None,
        typer.Option(help="Print a Markdown table, or the page docs/reference/formats.md."),
    ] = None,
    json: JsonRecords = False,
    quiet: Quiet = False,
) -> None:
    """Show number formats: all of them, one with its value table, or where two differ."""
    from simulator.commands import formats

    with shown(json, quiet):
        formats.run(names or [], compare, plot, markdown, json)


def explain_spec(
    spec: Annotated[
        str, typer.Argument(metavar="SPEC", help="MAC unit: [OPERANDS ->] ACCUMULATOR [-> OUTPUT], or a preset.")
    ],
    shape: Annotated[tuple[int, int, int], typer.Option(metavar="M N K", help="Of the matrix product.")] = (
        512,
        512,
        512,
    ),
    threads: Threads = None,
    json: JsonRecord = False,
    quiet: Quiet = False,
) -> None:
    """Explain how a MAC unit's product is computed: kernel, proof, order, evidence, time."""
    from simulator.commands import explain

    with shown(json, quiet):
        explain.run(spec, shape, threads, json)
