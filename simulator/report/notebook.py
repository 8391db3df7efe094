"""What notebooks show of runs and bills, with the figures that all reports have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from numbers import Integral, Real
from typing import Any

from formats.notebook import Table, View
from simulator.report import comparison
from simulator.report.bill import Billed
from simulator.report.figures import MISSING, count, decibels, percent, printable, quantity, score, significant
from simulator.result import MODE_LABELS, LayerResult, RunResult, in_mm2

_UNITS = {"j": "J", "s": "s", "w": "W", "hz": "Hz"}
_SHARES = re.compile(r"(^|_)(share|utilisation|flagged|recomputed)$")
_SCORES = ("accuracy", "agreement", "top1", "top5")
_MODE = re.compile(r"_(float32|exact|low|high|two_pass)$")  # behind the unit, in columns of sweeps
_UNIT = re.compile(r"_(j|s|w|hz|um2|mm2|db)$")
_BOUND = re.compile(r"_(low|high)(?=_(j|um2)$)")  # before the unit: of an estimate, and no mode
_ENDS = {"low": ", from", "high": ", to"}


def heading(column: str) -> str:
    """Return what stands above a column: its name without the unit, which stands with the numbers."""
    mode = _MODE.search(column)
    if _UNIT.search(column) or mode is None:
        return _UNIT.sub("", _BOUND.sub(lambda bound: _ENDS[bound[1]], column)).replace("_", " ")
    return f"{heading(column[: mode.start()])}, {MODE_LABELS[mode[1]]}"


def written(column: str, value: Any) -> str:
    """Return a value of a column in words, by what the name of the column says that it is."""
    match value:
        case None:
            return MISSING
        case bool():
            return "yes" if value else "no"
        case Integral() | Real():
            return _number(column if _UNIT.search(column) else _MODE.sub("", column), value)
        case str() if column == "mode":
            return MODE_LABELS.get(value, printable(value))
    return printable(" ".join(str(value).split()))


def _number(column: str, value: Any) -> str:
    unit = _UNIT.search(column)
    if unit is not None:
        if unit[1] in ("um2", "mm2"):
            return f"{significant(in_mm2(value) if unit[1] == 'um2' else value)} mm²"
        return f"{decibels(value)} dB" if unit[1] == "db" else quantity(float(value), _UNITS[unit[1]])
    if column in _SCORES:
        return score(value)
    if _SHARES.search(column) and not isinstance(value, Integral):
        return percent(value)
    return count(int(value)) if isinstance(value, Integral) else significant(value)


def run_view(run: RunResult) -> View:
    """Return what is shown of a run: what it says in words, its modes, and its layers."""
    facts = [
        f"{', '.join(comparison.run_facts(run))}{'' if run.complete else '; INCOMPLETE: it was interrupted'}.",
        *comparison.summary(run),
        comparison.largest_energy(run),
        *(f"Warning: {warning}" for warning in run.warnings),
    ]
    modes = [{"mode": row.label, **_without(asdict(row), "mode", "label")} for row in comparison.mode_rows(run)]
    shown = MODE_LABELS[comparison.shown_mode(run)]
    layers = [
        {
            "layer": layer.title,
            "op": layer.op,
            "macs": layer.macs,
            "flagged_share": comparison.flagged_share([layer]),
            "cycles": layer.cycles,
            "utilisation": layer.utilisation,
            "energy_j": layer.energy_j,
            "max_rel_error": layer.max_rel_error,
            "median_rel_error": layer.median_rel_error,
            "sqnr_db": layer.sqnr_db,
        }
        for layer in run.layers
    ]
    return View(
        f"{run.model} on {run.hardware}",
        facts,
        [_known("Modes side by side", modes), _known(f"Layers, {shown}; energy is an estimate", layers)],
    )


def layer_view(layer: LayerResult) -> View:
    """Return what is shown of a layer: its shape, its arithmetic, its bill."""
    gemms = f"{layer.gemms:,} times " if layer.gemms > 1 else ""
    facts = [f"{layer.op}, {gemms}{layer.m:,} x {layer.n:,} x {layer.k:,}, in {layer.mac}."]
    if layer.flagged_outputs:
        facts.append(f"{percent(comparison.flagged_share([layer]))} of its outputs were flagged for another pass.")
    if layer.max_rel_error is not None:
        facts.append(
            f"Relative errors: median {significant(layer.median_rel_error)}, largest "
            f"{significant(layer.max_rel_error)}; SQNR {significant(layer.sqnr_db)} dB."
        )
    bill = bill_view(layer)
    return View(layer.title, [*facts, bill.title], bill.tables)


def bill_view(of: Billed) -> View:
    """Return what is shown of a bill: its totals, and the parts of cycles and of energy."""
    if of.cycles is None or of.energy_j is None:
        return View("Nothing prices it.")
    cycles = [asdict(item) for item in of.cycle_items]
    energy = [
        {"part": item.part, "what": item.what, "energy_j": item.energy_j, "count": float(item.count), "of": item.unit,
         "each_j": item.each_j, "band": f"{item.uncertainty} x/÷\u00a0{item.band:g}", "source": item.source}
        for item in of.energy_items
    ]  # fmt: skip
    title = f"{count(of.cycles)} cycles and {quantity(of.energy_j, 'J')} (estimate)."
    tables = [Table("Cycles", cycles, ("part", "what", "cycles", "formula")), Table("Energy (estimate)", energy)]
    return View(title, (), tables)


BILL = ("quantity", "part", "what", "amount", "count", "unit", "each_j", "formula", "uncertainty", "band", "source")


def bill_rows(of: Billed) -> list[dict[str, Any]]:
    """Return the parts of cycles, then those of energy, with some of the columns BILL."""
    cycles: list[dict[str, Any]] = [
        {"quantity": "cycles", "part": item.part, "what": item.what, "amount": item.cycles, "formula": item.formula}
        for item in of.cycle_items
    ]
    return cycles + [{"quantity": "energy_j", "amount": item.energy_j, **asdict(item)} for item in of.energy_items]


def _known(caption: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table without the columns of which nothing is known."""
    names: Iterable[str] = rows[0] if rows else ()
    return Table(caption, rows, [name for name in names if any(row[name] is not None for row in rows)])


def _without(record: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}
