"""`python -m simulator study truncation`: accuracy against the bits of stored parameters, row by row."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from simulator.report.console import plain_table, print_view, standard_output
from simulator.report.directories import write_file
from simulator.report.figures import counted
from simulator.report.tables import write_table
from simulator.report.truncation import render_truncation
from simulator.studies.directory import RESULTS
from simulator.studies.truncation import POINTS, TruncationStudy, truncation_study
from simulator.training.trial import CARRIER

from .lists import numbers, words
from .records import json_text

FILES = (RESULTS, "study.parquet", "study.html")
_OF_CRITICAL = (
    "Predicted: from the run in float64, the bits below which nothing is learned, by the rule of the rounding. First: "
    f"the most bits with which {100 * POINTS:g} points or more are lost."
)
_OF_LOST = "Share of the updates of the last epoch without effect, and as the run in float64 predicts it."


def run(out: str, settings: str | None, bits: str | None, **options: Any) -> TruncationStudy:
    """Run a study; lists come as texts with commas.

    Raises:
        InputError: what cannot be run.
    """
    names = None if settings is None else words(settings)
    widths = None if bits is None else numbers("study: --bits", bits, int, "10,8,6")
    return truncation_study(names, widths, out=out, **options)


def save(found: TruncationStudy, out: str) -> list[Path]:
    """Write the means beside the runs: as JSON, as Parquet and as a page, each whole or not at all."""
    paths = [Path(out) / name for name in FILES]
    write_file(paths[0], _text(found))
    write_table(found.rows(), paths[1])
    write_file(paths[2], render_truncation(found.to_dict()))
    return paths


def show(found: TruncationStudy, paths: Sequence[Path], json: bool) -> None:
    """Print a study."""
    if json:
        sys.stdout.write(_text(found))
        return
    rows, base = found.rows(), found.base
    widths = list(dict.fromkeys(row["bits"] for row in rows))
    accuracies = _by_bits(widths)
    for name in dict.fromkeys(row["setting"] for row in rows):
        accuracies.add_row(name, *_cells(widths, rows, name, "accuracy"))
    legend = (
        f"Mean accuracy on {found.test:,} of {found.data}, trained on {found.train:,} others, by stored "
        "significand bits; fp64 rounds nothing. Rows change one setting of truncation, one hidden layer of "
        f"{base.hidden[0]} ReLU, SGD, rate {base.lr}, batches of {base.batch}, {base.epochs} epochs."
    )
    shown: list[Any] = [accuracies, legend]
    critical = found.critical()
    if critical:
        shown += ["", _critical(critical), _OF_CRITICAL]
    lost = [row for row in rows if row["lost_predicted"] is not None]
    if lost:
        table = _by_bits(known := [row["bits"] for row in lost if row["setting"] == lost[0]["setting"]])
        table.add_row("lost to nearest", *_cells(known, lost, lost[0]["setting"], "lost"))
        table.add_row("predicted", *_cells(known, lost, lost[0]["setting"], "lost_predicted"))
        shown += ["", table, _OF_LOST]
    shown += ["", f"{counted(found.computed, 'run')} computed now; in {', '.join(map(str, paths))}"]
    print_view(standard_output(), *shown)


def _by_bits(widths: Sequence[int]) -> Table:
    headings = ["fp64" if bits == CARRIER else str(bits) for bits in widths]
    return plain_table(("",), headings, gap=1, no_wrap=True)


def _cells(widths: Sequence[int], rows: Sequence[dict[str, Any]], name: str, value: str) -> list[str]:
    cells = {row["bits"]: f"{row[value]:.3f}".removeprefix("0") for row in rows if row["setting"] == name}
    return [cells.get(bits, "") for bits in widths]


def _critical(rows: Sequence[dict[str, Any]]) -> Table:
    table = plain_table(("critical bits",), ("rounding", "predicted", "first"), gap=1, no_wrap=True)
    for row in rows:
        first = "none" if row["first_losing_bits"] is None else str(row["first_losing_bits"])
        table.add_row(row["setting"], row["rounding"], f"{row['predicted_bits']:.1f}", first)
    return table


def _text(found: TruncationStudy) -> str:
    return json_text(found.to_dict())
