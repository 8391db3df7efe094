"""`python -m simulator study laws`: errors of rounded weights beside the laws that predict them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulator.report.console import plain_table, print_view, standard_output
from simulator.report.directories import write_file
from simulator.report.figures import counted, significant
from simulator.report.tables import write_table
from simulator.studies.directory import RESULTS, check_study_directory
from simulator.studies.laws import LawsStudy, laws_study

from .records import json_text

FILES = (RESULTS, "study.parquet")
_LEGEND = (
    "Relative errors of outputs, of the gradient of the inputs for a random gradient of the outputs, and share of the "
    "units with ReLU that open or close, after rounding the weights to so many stored bits; beside each what the law "
    "predicts, which is for ReLU and weights at random. Random networks: 8 layers of 128, ReLU, one of these varied. "
    "Trained ones: on 8x8 digits in float64, one hidden layer of 32 ReLU, SGD, rate 0.1, batches of 32, one varied."
)


def run(out: str, **options: Any) -> LawsStudy:
    """Run a study whose results are to go into a directory.

    Raises:
        InputError: what cannot be run, or not go there.
    """
    check_study_directory(out, "laws")
    return laws_study(**options)


def save(found: LawsStudy, out: str) -> list[Path]:
    """Write the rows as JSON and as Parquet, each whole or not at all."""
    paths = [Path(out) / name for name in FILES]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    write_file(paths[0], _text(found))
    write_table(found.rows(), paths[1])
    return paths


def show(found: LawsStudy, paths: Sequence[Path], json: bool) -> None:
    """Print a study."""
    if json:
        sys.stdout.write(_text(found))
        return
    numbers = ("bits", "forward", "law", "gradient", "law", "flips", "law")
    table = plain_table(("networks", "varied", "rounding"), numbers, gap=1, no_wrap=True)
    for row in found.found:
        what = row.value if row.varied == "training" else f"{row.varied} {row.value}"
        table.add_row(
            row.networks, what, row.rounding, str(row.bits), significant(row.forward),
            significant(row.forward_predicted), significant(row.gradient), significant(row.gradient_predicted),
            significant(row.flips), significant(row.flips_predicted),
        )  # fmt: skip
    where = f"{counted(found.seeds, 'network')} a row; in {', '.join(map(str, paths))}"
    print_view(standard_output(), table, _LEGEND, where)


def _text(found: LawsStudy) -> str:
    record = {"study": "laws", "seeds": found.seeds, "rows": found.rows()}
    return json_text(record)
