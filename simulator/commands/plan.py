"""`python -m simulator plan`: a static plan of a network on a machine, written to a file."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from simulator.hardware.static_plan import StaticPlan
from simulator.report.console import print_view, standard_output
from simulator.report.directories import write_file
from simulator.report.figures import percent, printable


def write(plan: StaticPlan, out: str) -> None:
    """Write a plan to a file.

    Raises:
        InputError: it cannot be written.
    """
    write_file(Path(out), plan.to_json())


def show(plan: StaticPlan, out: str) -> None:
    """Print how many columns of each layer are high."""
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    for heading in ("columns", "high", "share"):
        table.add_column(heading, justify="right")
    for name, one in plan.layers.items():
        share = percent(len(one.high) / one.columns)
        table.add_row(printable(name), f"{one.columns:,}", f"{len(one.high):,}", share)
    print_view(standard_output(), f"{printable(out)}: {printable(plan.made_by)}", table)
