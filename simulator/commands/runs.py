"""`python -m simulator runs`: what a store of runs holds; one point in full; exports; removal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from simulator.explore import Counts, Point, Store
from simulator.explore.table import rows_of
from simulator.report.console import plain_table, print_view, standard_output
from simulator.report.figures import counted, printable, quantity
from simulator.report.tables import as_json, check_table, write_table
from simulator.versions import NUMERICS

from .records import print_record

_ROWS = 50
_LONGEST = 60  # characters of an error in the list


def show_all(path: str, json: bool) -> None:
    """List sweeps and points of a store."""
    with Store(Path(path)) as store:
        sweeps, searches, count = store.sweeps(), store.searches(), len(store)
        points = list(store.points(None if json else _ROWS))
    if json:
        listed = [{key: value for key, value in asdict(point).items() if key != "record"} for point in points]
        of = {
            name: {**counts._asdict(), "missing": counts.missing, "search": name in searches}
            for name, counts in sweeps.items()
        }
        print_record(as_json({"sweeps": of, "points": listed}))
        return
    kinds = [counted(len(sweeps) - len(searches), "sweep")] if len(sweeps) > len(searches) or not searches else []
    kinds += [f"{len(searches):,} search{'es' if len(searches) > 1 else ''}"] if searches else []
    title = f"{printable(path)}: {', '.join([counted(count, 'point'), *kinds])}"
    more = [f"the latest {_ROWS} of these; all of them with --json"] if count > _ROWS else []
    print_view(standard_output(), title, *([_sweeps(sweeps)] if sweeps else []), _points(points), *more)


def _sweeps(sweeps: Mapping[str, Counts]) -> Table:
    table = plain_table(("sweep",), ("points", "done", "failed", "missing"))
    for name, counts in sweeps.items():
        table.add_row(printable(name), *(f"{count:,}" for count in (*counts, counts.missing)))
    return table


def _points(points: Sequence[Point]) -> Table:
    table = plain_table(("key", "stored", "took", "result"))
    for point in points:
        result = "done" if point.record is not None else f"failed: {_beginning(point.error or '')}"
        if point.numerics != NUMERICS:
            result += f" (outdated: numerics {point.numerics}, now {NUMERICS})"
        took = quantity(point.seconds, "s")
        table.add_row(point.key[:12], point.stored, took, printable(result))
    return table


def _beginning(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def show_one(path: str, key: str) -> None:
    """Print a point in full, as JSON."""
    with Store(Path(path)) as store:
        point = store.point(key)
    print_record(as_json(asdict(point)))


def export_sweep(path: str, sweep: str | None, target: str, json: bool) -> None:
    """Write the points of a sweep, or of the only one there is, to a .csv or .parquet file, and print what it is.

    Raises:
        InputError: what is wrong with the file, the store or the name.
    """
    check_table(target, "runs: --export")
    with Store(Path(path)) as store:
        name = store.only_sweep(sweep)
        count = write_table(rows_of(store, name), target)
    if json:
        print_record({"table": target, "sweep": name, "points": count})
        return
    print_view(standard_output(), f"{printable(target)}: {counted(count, 'point')} of {printable(name)}")


def remove_outdated(path: str) -> None:
    """Remove points that earlier numerics computed, which no sweep takes any more."""
    with Store(Path(path)) as store:
        count = store.remove(store.outdated(NUMERICS))
    print_view(standard_output(), f"{printable(path)}: {counted(count, 'point')} removed")


def remove(path: str, keys: list[str]) -> None:
    """Remove points by their keys, or what only they begin with."""
    with Store(Path(path)) as store:
        whole = [store.key(key) for key in keys]
        count = store.remove(whole)
    print_view(standard_output(), f"{printable(path)}: {counted(count, 'point')} removed")
