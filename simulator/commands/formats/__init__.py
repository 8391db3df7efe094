"""`python -m simulator formats`: which formats there are, what one is made of, where two differ."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from simulator.errors import InputError

if TYPE_CHECKING:
    from formats import Format
    from simulator.report.spacing import Point


def run(
    names: Sequence[str],
    compare: tuple[str, str] | None = None,
    plot: str | None = None,
    markdown: str | None = None,
    json: bool = False,
) -> None:
    """Do what the arguments of the command ask for and print it.

    Args:
        names: formats to show; none for the list of all. compare: two formats. plot: file for the plot of all that are
            named. markdown: "table" (of the formats that are named, else of all) or "page", the parts of the
            documentation made here. json: print records instead.
    Raises:
        InputError: arguments that do not go together, a format that is unknown or impossible, a file that cannot be
            written.
    """
    if compare and names:
        raise InputError(
            f"formats: --compare: got {' '.join(names)} besides; expected two formats and no others; leave it out"
        )
    if markdown and (compare or plot or json or (names and markdown == "page")):
        raise InputError(
            "formats: --markdown: got it beside others; expected it alone, or with names for a table; leave the rest "
            "out"
        )
    if plot is not None and not (names or compare):
        raise InputError(
            "formats: --plot: got no format; expected the names of those to draw; add some, such as fp16 bf16"
        )
    if plot is not None:
        from simulator.report import check_writable

        check_writable(plot, ".html", "--plot")
    if markdown:
        from .markdown import page, table

        sys.stdout.write(page() if markdown == "page" else table([_get(name) for name in names]))
        return
    wanted = [_get(name) for name in compare or names]
    if plot:
        _draw(plot, wanted)
    if json:
        from .record import print_json

        print_json(wanted, compared=compare is not None)
        return
    from . import terminal

    if compare:
        terminal.print_comparison(*wanted)
    elif not wanted:
        terminal.print_list()
    elif not plot:
        for fmt in wanted:
            terminal.print_format(fmt)
    if plot:
        print(f"Plot in {plot}")


def _get(name: str) -> Format:
    """Return a format that can be described: a plug-in's may exist and yet give no sensible numbers."""
    import formats
    from formats.facts import facts_of

    try:
        fmt = formats.get(name)
        facts_of(fmt)
        return fmt
    except (ValueError, ImportError) as error:
        raise InputError(str(error)) from error


def _draw(path: str, wanted: Sequence[Format]) -> None:
    from formats.block import BlockFormat
    from simulator.report.directories import write_file
    from simulator.report.spacing import render_spacing

    curves = {}
    for fmt in wanted:
        if isinstance(fmt, BlockFormat):
            curves[f"{fmt.name}, its elements at scale 1"] = _points(fmt.element)
        else:
            curves[fmt.name] = _points(fmt)
    page = render_spacing(curves)
    write_file(Path(path), page)


def _points(fmt: Format) -> list[Point]:
    from formats.binades import relative_spacing
    from formats.exact import log2, scaled
    from simulator.report.figures import decimal, exact
    from simulator.report.spacing import Point

    return [
        Point(
            point.exponent + log2(point.significand),
            log2(point.relative),
            exact(scaled(point.significand, point.exponent)),
            decimal(point.relative, ".3g"),
        )
        for point in relative_spacing(fmt)
    ]
