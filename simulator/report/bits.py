"""Bits of a tracked run in the terminal: what survives, where it first does not, what it cost; two runs side by side.

No count of bits is shown without its label and what that guarantees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rich.console import RenderableType
from rich.table import Table

from simulator.report.console import plain_table
from simulator.report.figures import MISSING, counted, percent, printable, quantity, shorten, significant

Record = Mapping[str, Any]
_SHOWN = 40  # tensors of the last step
_CELL = "{:>3} {:>6} {:>5}"  # under a label: least and median bits, share without any
_KINDS = {"value": "value", "gradient": "gradient", "gradient of parameter": "par. gradient", "parameter": "parameter"}


def views(record: Record) -> list[RenderableType]:
    """Return what is shown of a report given as plain data."""
    found: list[RenderableType] = [_head(record)]
    last = last_step(record)
    if last is None:
        found.append("No step was kept: a step begins with a forward pass of the model that was given to track.")
    else:
        found += ["", "First tensor of whose elements half have fewer bits:", _first_below(record)]
        found += ["", *_last_step(record, last), "", *_shares(record)]
    return [*found, *notes(record)]


def labelled(row: Record) -> str:
    """Return a label with what it guarantees."""
    return f"{row['label']} ({row['guarantee']})"


def labels_of(record: Record) -> list[Record]:
    """Return label and guarantee of each number that a report has rows of, in their order."""
    found = {row["label"]: row for row in record["tensors"]}
    return [found[label] for label in record["numbers"] if label in found]


def _head(record: Record) -> str:
    kept = len({row["step"] for row in record["tensors"]})
    where = "" if record["hardware"] is None else f" on {printable(record['hardware'])}"
    return (
        f"{printable(record['model'])}{where}: {counted(len(record['steps']), 'step')}, {kept:,} kept; roundings "
        f"{record['roundings']}, restart {record['restart']}. Bits and shares are of a sample of up to "
        f"{record['sample']} elements of each tensor."
    )


class FirstBelow(NamedTuple):
    """Rows of first_below by label and group, and by threshold."""

    thresholds: list[float]
    rows: dict[tuple[str, str], dict[float, Record]]


def first_below(record: Record) -> FirstBelow:
    """Return where bits first are fewer than each threshold."""
    found: dict[tuple[str, str], dict[float, Record]] = {}
    for row in record["first_below"]:
        found.setdefault((labelled(row), row["of"]), {})[row["fewer_than"]] = row
    return FirstBelow(list(dict.fromkeys(row["fewer_than"] for row in record["first_below"])), found)


def _first_below(record: Record) -> Table:
    thresholds, found = first_below(record)
    table = plain_table(("label", "of"), gap=1, no_wrap=True)
    for fewer in thresholds:
        table.add_column(f"below {fewer:g}", justify="right", no_wrap=True)
        table.add_column("where", no_wrap=True)
    for (label, group), rows in found.items():
        cells = []
        for fewer in thresholds:
            row = rows[fewer]
            never = row["step"] is None
            cells += ["never", ""] if never else [f"step {row['step']:,}", shorten(row["name"], 24)]
        table.add_row(label, group, *cells)
    return table


class LastStep(NamedTuple):
    """Rows of the last step that was kept, by kind and name, and by label."""

    step: int
    rows: dict[tuple[str, str], dict[str, Record]]


def last_step(record: Record) -> LastStep | None:
    """Return the tensors of the last step that was kept; None if none was."""
    if not record["tensors"]:
        return None
    last = record["tensors"][-1]["step"]
    rows: dict[tuple[str, str], dict[str, Record]] = {}
    for row in record["tensors"]:
        if row["step"] == last:
            rows.setdefault((row["kind"], row["name"]), {})[row["label"]] = row
    return LastStep(last, rows)


def _last_step(record: Record, last: LastStep) -> list[RenderableType]:
    labels = labels_of(record)
    under = _CELL.format("min", "median", "none")
    table = plain_table(("tensor", "kind"), [f"{label['label']}\n{under}" for label in labels], gap=1, no_wrap=True)
    for (kind, name), own in list(last.rows.items())[:_SHOWN]:
        cells = []
        for label in labels:
            row = own.get(label["label"])
            parts = ("", "", "") if row is None else (row["min"], f"{row['median']:g}", few(row["noise_share"]))
            cells.append(_CELL.format(*parts))
        table.add_row(shorten(name, 26), _KINDS[kind], *cells)
    head = f"Step {last.step:,}, least and median bits, and share of elements without any; "
    more = [f"and {counted(len(last.rows) - _SHOWN, 'more tensor')}"] if len(last.rows) > _SHOWN else []
    return [head + "; ".join(map(labelled, labels)) + ":", table, *more]


def few(share: float) -> str:
    """Return a share in whole percent, never a false zero or a false whole."""
    if share in (0.0, 1.0):
        return f"{100 * share:.0f} %"
    return "<1 %" if share < 0.01 else ">99 %" if share > 0.99 else f"{100 * share:.0f} %"


def shares(record: Record) -> list[tuple[str, str, float, float, float]]:
    """Return what of gradients is noise and of updates below it: what, label, in the first step, on average, in the
    last."""
    labels = labels_of(record)
    rows = [
        (title, labelled(label), by_step.get(label["label"], {}))
        for title, by_step in (
            ("gradient entries that are noise", gradient_noise(record)),
            ("updates below the noise", updates(record, "below_noise")),
        )
        for label in labels
    ]
    rows.append(("updates lost", "of the sample", next(iter(updates(record, "lost").values()), {})))
    known = [(title, label, list(by_step.values())) for title, label, by_step in rows if by_step]
    return [(title, label, own[0], sum(own) / len(own), own[-1]) for title, label, own in known]


def _shares(record: Record) -> list[RenderableType]:
    table = plain_table(("share of elements", "label"), ("first step", "mean", "last step"), gap=1, no_wrap=True)
    for title, label, *found in shares(record):
        table.add_row(title, label, *map(percent, found))
    return [table, ""] if table.row_count else []


def gradient_noise(record: Record) -> dict[str, dict[int, float]]:
    """Return by label and step the share of gradient entries that are noise."""
    found: dict[str, dict[int, float]] = {}
    for row in record["gradient_noise"]:
        found.setdefault(row["label"], {})[row["step"]] = row["share"]
    return found


def updates(record: Record, share: str) -> dict[str, dict[int, float]]:
    """Return by label and step a share of the updates, parameters counting by their elements."""
    parts: dict[tuple[str, int], list[tuple[float, int]]] = {}
    for row in record["updates"]:
        parts.setdefault((row["label"], row["step"]), []).append((row[share], row["elements"]))
    found: dict[str, dict[int, float]] = {}
    for (label, step), own in parts.items():
        found.setdefault(label, {})[step] = sum(x * n for x, n in own) / sum(n for _, n in own)
    return found


def totals(record: Record) -> Record:
    """Return seconds, those of tracking, the largest memory of noise and undecided elements of all steps."""
    undecided = [step["undecided"] for step in record["steps"]]
    return {
        "seconds": sum(step["seconds"] for step in record["steps"]),
        "tracking_seconds": sum(step["tracking_seconds"] for step in record["steps"]),
        "noise_bytes": max((step["noise_bytes"] for step in record["steps"]), default=0),
        "undecided": None if None in undecided or not undecided else sum(undecided),
    }


def notes(record: Record) -> list[str]:
    """Return in sentences what limits the numbers, and what they cost."""
    total = totals(record)
    found = []
    if total["undecided"] is not None:
        found.append(
            f"Branches that the bounds do not decide: {counted(total['undecided'], 'element')} (all steps, every "
            "element; upper bound)."
        )
    for row in record["shadowed"]:
        where = f" in {printable(row['module'])}" if row["module"] else ""
        found.append(
            f"No rule: {printable(row['operation'])}{where}, {counted(row['times'], 'time')}; no safe bound, expected "
            "from a shadow in float64 (statistical)."
        )
    if record["read_as_numbers"]:
        found.append(
            f"Values with noise read as plain numbers, exact from there on: {record['read_as_numbers']:,}; what was "
            "decided or computed with them counts as the run had it."
        )
    if record["steps"]:
        rest = total["seconds"] - total["tracking_seconds"]
        ratio = f", {significant(total['seconds'] / rest)} times the rest of the run (estimate)" if rest > 0 else ""
        found.append(
            f"Wall time {quantity(total['seconds'], 's')}, of which tracking {quantity(total['tracking_seconds'], 's')}"
            f"{ratio}; memory of noise up to {quantity(total['noise_bytes'], 'B')} (where it was looked at)."
        )
    return found


def calibration_views(record: Record) -> list[RenderableType]:
    """Return what is shown of a calibration given as plain data."""
    head = (
        f"{counted(record['steps'], 'step')} again in float64 from the same state, every element. claim, true: median "
        "bits; >0, >=1, ...: share of the elements that claim so many bits more than are true; under: true less "
        "claimed bits, median of the others; 2, 4 sigma: share of the errors within."
    )
    over = [">0" if by == 0 else f">={by}" for by in record["excesses"]]
    numbers = ("claim", "true", *over, "under", "2 sigma", "4 sigma")
    table = plain_table(("of", "label"), numbers, gap=1, no_wrap=True)
    for row in record["kinds"]:
        under = MISSING if row["under"] is None else f"{row['under']:.1f}"
        table.add_row(
            _KINDS[row["kind"]], labelled(row), f"{row['claimed']:g}", f"{row['true']:.1f}", *map(_tight, row["over"]),
            under, _tight(row["within_2"]), _tight(row["within_4"]),
        )  # fmt: skip
    return [head, "", table, *map(printable, record["notes"])]


def _tight(share: float | None) -> str:
    """Return a share in six signs."""
    return percent(share).replace(" ", "")


def comparison_views(record: Record, names: tuple[str, str]) -> list[RenderableType]:
    """Return what is shown of two runs side by side, given as plain data."""
    head = f"a: {printable(names[0])} ({printable(record['models'][0])}); b: {printable(names[1])} "
    head += f"({printable(record['models'][1])}). Bits are medians over steps of medians of samples."
    tensors = plain_table(("tensor", "kind", "label"), ("a", "b", "b - a"), gap=1, no_wrap=True)
    for row in record["tensors"][:_SHOWN]:
        tensors.add_row(
            shorten(row["name"], 30), _KINDS[row["kind"]], labelled(row),
            *(MISSING if row[key] is None else f"{row[key]:g}" for key in ("a", "b", "more")),
        )  # fmt: skip
    more = len(record["tensors"]) - _SHOWN
    found: list[RenderableType] = [head, "", tensors, *([f"and {counted(more, 'more row')}"] if more > 0 else [])]
    table = plain_table(("share of elements, mean over steps", "label"), ("a", "b"), gap=1, no_wrap=True)
    for row in record["shares"]:
        label = row["guarantee"] if row["label"] is None else labelled(row)
        table.add_row(row["what"], label, percent(row["a"]), percent(row["b"]))
    return [*found, "", table] if record["shares"] else found
