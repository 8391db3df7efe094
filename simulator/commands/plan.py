"""`python -m simulator plan`: a static plan of a network on a machine, written to a file."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.text import Text

from simulator.hardware.static_plan import Agreement, StaticPlan
from simulator.report.console import plain_table, print_view, standard_output
from simulator.report.directories import write_file
from simulator.report.figures import percent, printable

from .records import print_record

_LEGEND = "Precision: share of high outputs that are flagged. Recall: share of flagged outputs that are high."


def write(plan: StaticPlan, out: str) -> None:
    """Write a plan to a file.

    Raises:
        InputError: it cannot be written.
    """
    write_file(Path(out), plan.to_json())


def show(plan: StaticPlan, out: str, checks: Sequence[Agreement], json: bool) -> None:
    """Print how many columns of each layer are high, and how they agree with flags, where that was looked at.

    The record is that of the file, with `agreement` besides.
    """
    if json:
        record = {**json_module.loads(plan.to_json()), "agreement": [_in_full(one) for one in checks]}
        print_record(record)
        return
    by_layer = {one.layer: one for one in checks}
    agreement = ("flagged", "precision", "recall") if checks else ()
    table = plain_table(("layer",), ("columns", "high", "share", *agreement))
    for name, one in plan.layers.items():
        share = percent(len(one.high) / one.columns)
        row = [printable(name), f"{one.columns:,}", f"{len(one.high):,}", share]
        if (check := by_layer.get(name)) is not None:
            row += [percent(check.flagged / check.outputs), percent(check.precision), percent(check.recall)]
        table.add_row(*row)
    note = [Text(_LEGEND, style="dim")] if checks else []
    print_view(standard_output(), f"{printable(out)}: {printable(plan.made_by)}", table, *note)


def _in_full(agreement: Agreement) -> dict[str, object]:
    return {**asdict(agreement), "precision": agreement.precision, "recall": agreement.recall}
