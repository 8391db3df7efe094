"""Causes of lost accuracy in the terminal: what rounding did in the last epoch of a training, and what points cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import RenderableType
from rich.table import Table

from simulator.report.console import plain_table
from simulator.report.figures import MISSING, percent, printable, short_count, shorten, significant

Record = Mapping[str, Any]


class _Column(NamedTuple):
    """A column of a table: its heading, and what it shows of a row."""

    heading: str
    show: Callable[[Record], str]


def _plain(name: str) -> Callable[[Record], str]:
    return lambda row: significant(row[name])


def _count(name: str) -> Callable[[Record], str]:
    return lambda row: short_count(row[name])


def _share(name: str, of: str) -> Callable[[Record], str]:
    return lambda row: percent(row[name] / row[of]) if row[of] and row[name] is not None else MISSING


def _percent(name: str) -> Callable[[Record], str]:
    return lambda row: percent(row[name])


# Title, the column that says which rows have something to show, and what they show.
_TABLES: tuple[tuple[str, str, tuple[_Column, ...]], ...] = (
    ("Updates of stored parameters", "wanted", (
        _Column("wanted", _count("wanted")), _Column("lost", _share("lost", "wanted")),
        _Column("towards 0", _share("lost_towards", "wanted")), _Column("away", _share("lost_away", "wanted")),
        _Column("decay", _plain("decay")), _Column("law", _plain("decay_law")),
    )),
    ("With the point minus without, on the last batch", "units", (
        _Column("flips", _percent("flips")), _Column("law", _percent("flips_law")),
        _Column("forward", _percent("forward_error")), _Column("law", _percent("forward_law")),
        _Column("gradient", _percent("gradient_error")),
    )),
    ("Values that met a point", "values", (
        _Column("values", _count("values")), _Column("saturated", _share("saturated", "values")),
        _Column("to infinity", _share("overflowed", "values")), _Column("to 0", _share("vanished", "values")),
        _Column("subnormal", _share("subnormal", "values")),
    )),
    ("Additions of products, on the last batch", "additions", (
        _Column("additions", _count("additions")), _Column("swamped", _share("swamped", "additions")),
        _Column("overflows", _count("sum_overflows")), _Column("to 0", _count("sum_underflows")),
    )),
    ("Gradients over the batches of the epoch", "batches", (
        _Column("batches", _count("batches")), _Column("mean / deviation", _plain("signal_to_noise")),
        _Column("rounding / deviation", lambda row: significant(
            row["rounding"] / row["deviation"] if row["deviation"] and row["rounding"] is not None else None
        )),
    )),
)  # fmt: skip


def views(record: Record) -> list[RenderableType]:
    """Return what is shown of a report given as plain data: its last epoch, and the verdict of an ablation."""
    if not record["rows"]:
        return ["No epoch was trained."]
    last = record["rows"][-1]["epoch"]
    accuracy = record["accuracies"][-1]
    found: list[RenderableType] = [
        f"Epoch {last}" + ("" if accuracy is None else f", accuracy {accuracy:.3f}") + ", by quantisation point."
    ]
    rows = [row for row in record["rows"] if row["epoch"] == last]
    for title, key, columns in _TABLES:
        if shown := [row for row in rows if row[key] is not None]:
            found += ["", f"{title}:", _table(shown, columns)]
    if record["ablation"] is not None:
        found += ["", *ablation_views(record["ablation"])]
    return found


def _table(rows: Iterable[Record], columns: Sequence[_Column]) -> Table:
    table = plain_table(("point", ""), [column.heading for column in columns], no_wrap=True)
    for row in rows:
        cells = (column.show(row) for column in columns)
        table.add_row(row["point"], shorten(printable(row["tensor"]), 28), *cells)
    return table


def ablation_views(record: Record) -> list[RenderableType]:
    """Return what is shown of an ablation given as plain data."""
    table = plain_table(("point",), ("alone", "costs", "+-", "without it", "restores", "+-"), no_wrap=True)
    for row in record["points"]:
        names = ("alone", "cost", "cost_error", "without", "gain", "gain_error")
        table.add_row(row["point"], *(f"{row[name]:.3f}" for name in names))
    head = f"Accuracy {record['carrier']:.3f} in the carrier, {record['all']:.3f} with all points."
    return [head, table, "", record["verdict"]["sentence"]]
