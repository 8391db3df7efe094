"""`python -m simulator runs`: what a store of runs holds; one point in full; exports; removal."""

from __future__ import annotations

import json as json_module
import sys
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from simulator.errors import InputError
from simulator.explore import Store
from simulator.explore.export import export
from simulator.report.console import print_view, standard_output
from simulator.report.figures import counted, printable, quantity, shorten


def show_all(path: str, json: bool) -> None:
    """List sweeps and points of a store."""
    with Store(Path(path)) as store:
        sweeps, points = store.sweeps(), list(store.points())
    if json:
        listed = [{key: value for key, value in asdict(point).items() if key != "record"} for point in points]
        sys.stdout.write(json_module.dumps({"sweeps": sweeps, "points": listed}, indent=2) + "\n")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("key", "stored", "took", "machine", "result"):
        table.add_column(heading)
    for point in points:
        machine = point.identity.get("machine", {}).get("name", "–")
        result = "done" if point.record is not None else f"failed: {shorten(point.error or '', 60)}"
        table.add_row(
            point.key[:12], point.stored, quantity(point.seconds, "s"), printable(str(machine)), printable(result)
        )
    named = ", ".join(f"{printable(name)} ({counted(count, 'point')})" for name, count in sweeps.items()) or "none"
    print_view(standard_output(), f"{printable(path)}: {counted(len(points), 'point')}; sweeps: {named}", table)


def show_one(path: str, key: str) -> None:
    """Print a point in full, as JSON."""
    with Store(Path(path)) as store:
        point = store.point(key)
    sys.stdout.write(json_module.dumps(asdict(point), indent=2) + "\n")


def export_sweep(path: str, sweep: str | None, target: str) -> None:
    """Write the points of a sweep, or of the only one there is, to a .csv or .parquet file."""
    with Store(Path(path)) as store:
        known = list(store.sweeps())
        if sweep is None and len(known) == 1:
            (sweep,) = known
        if sweep not in known:
            raise InputError(
                f"{path}: got {'no sweep' if sweep is None else repr(sweep)}; expected one of "
                f"{', '.join(known) or 'none, there is none'}; give --sweep NAME"
            )
        count = export(store.of_sweep(sweep), target)
    print_view(standard_output(), f"{printable(target)}: {counted(count, 'point')} of {printable(sweep)}")


def remove(path: str, keys: list[str]) -> None:
    """Remove points by their keys, or what only they begin with."""
    with Store(Path(path)) as store:
        whole = [store.point(key).key for key in keys]
        count = store.remove(whole)
    print_view(standard_output(), f"{printable(path)}: {counted(count, 'point')} removed")
