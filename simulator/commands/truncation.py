"""`python -m simulator study truncation`: accuracy against the bits of stored parameters, row by row."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from simulator.errors import InputError
from simulator.explore.export import write_table
from simulator.report.console import print_view, standard_output
from simulator.report.directories import write_file
from simulator.report.figures import counted
from simulator.studies.truncation import BITS, SETTINGS, TruncationStudy, truncation_study
from simulator.training.trial import CARRIER

FILES = ("study.json", "study.parquet")
_LEGEND = (
    "Mean accuracy on the digits held out, by stored significand bits; fp64 rounds nothing. Rows change one setting of "
    "the first one: truncation, one hidden layer of 32 ReLU, SGD, rate 0.1, batches of 32, 20 epochs."
)


def run(out: str, settings: str | None, bits: str | None, **options: Any) -> TruncationStudy:
    """Run a study; lists come as texts with commas.

    Raises:
        InputError: what cannot be run.
    """
    names = tuple(SETTINGS) if settings is None else tuple(word.strip() for word in settings.split(","))
    try:
        widths = BITS if bits is None else tuple(int(word) for word in bits.split(","))
    except ValueError:
        raise InputError(
            f"study: --bits: got {bits!r}; expected whole numbers with commas between them; write e.g. 10,8,6"
        ) from None
    return truncation_study(names, widths, out=out, **options)


def save(found: TruncationStudy, out: str) -> list[Path]:
    """Write the means beside the runs: as JSON and as Parquet, each whole or not at all."""
    paths = [Path(out) / name for name in FILES]
    write_file(paths[0], _text(found))
    write_table(found.rows(), paths[1])
    return paths


def show(found: TruncationStudy, paths: Sequence[Path], json: bool) -> None:
    """Print a study."""
    if json:
        sys.stdout.write(_text(found))
        return
    rows = found.rows()
    widths = list(dict.fromkeys(row["bits"] for row in rows))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for bits in widths:
        table.add_column("fp64" if bits == CARRIER else str(bits), justify="right", no_wrap=True)
    for name in dict.fromkeys(row["setting"] for row in rows):
        cells = {row["bits"]: f"{row['accuracy']:.3f}".removeprefix("0") for row in rows if row["setting"] == name}
        table.add_row(name, *(cells.get(bits, "") for bits in widths))
    where = f"{counted(found.computed, 'run')} computed now; in {', '.join(map(str, paths))}"
    print_view(standard_output(), table, _LEGEND, where)


def _text(found: TruncationStudy) -> str:
    return json_module.dumps({"rows": found.rows()}, indent=2, allow_nan=False) + "\n"
