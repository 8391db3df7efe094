"""The figures of the report as plain plotly.js records: traces and the part of the layout that is not styling.

Colours are names of CSS custom properties (`--low`), which the page resolves, so that one record serves a light
screen, a dark one and paper.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from simulator.report.comparison import (
    MODE_LABELS,
    ModeRow,
    energy_by_part,
    layers_by_mode,
    mode_rows,
    shown_mode,
    sum_parts,
)
from simulator.report.figures import PREFIXES, prefix_of, quantity, score, shorten, significant
from simulator.result import VECTOR_UNIT, RunResult

LAYERS_SHOWN = 40
# Hues go with the place: arithmetic blue, array green, memory warm. A part without a rule here takes a spare colour.
PART_COLOURS = {
    "mul": "--mul",
    "acc": "--acc",
    "side": "--side",
    "register": "--register",
    "idle": "--idle",
    "sram": "--sram",
    "dram": "--dram",
    "gather": "--gather",
    "leak": "--leak",
    VECTOR_UNIT: "--vector",
}
SPARE_COLOURS = ("--spare-1", "--spare-2")
MODE_COLOURS = {"low": "--low", "high": "--high", "two_pass": "--two-pass"}
MODE_SYMBOLS = {"low": "circle", "high": "square", "two_pass": "diamond"}


@dataclass(frozen=True)
class Figure:
    """One figure: `key` names its place in the page, `title` is read above it, `data` and `layout` go to plotly.js."""

    key: str
    title: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]


def energy_figures(run: RunResult) -> list[Figure]:
    """Return the energy split of the modes and of the layers as stacked bars, those of which anything is known."""
    modes = {MODE_LABELS[mode]: energy_by_part(run, mode) for mode in layers_by_mode(run)}
    layers = [layer for layer in run.layers if layer.energy_parts_j]
    dearest = sorted(layers, key=lambda layer: -sum(layer.energy_parts_j.values()))[:LAYERS_SHOWN]
    title = f"Energy by layer, {MODE_LABELS[shown_mode(run)]}"
    if len(dearest) < len(layers):
        title += f", the {LAYERS_SHOWN} that take most of {len(layers)}"
    shown: dict[str, Mapping[str, float]] = {}
    for layer in (layer for layer in layers if layer in dearest):
        shown[layer.title] = sum_parts([shown.get(layer.title, {}), layer.energy_parts_j])
    figures = [_bars("energy-modes", "Energy by mode", modes, run), _bars("energy-layers", title, shown, run)]
    return [figure for figure in figures if figure.data]


def part_colours(run: RunResult) -> dict[str, str]:
    """Return the colour of each part of the energy that is not zero in every mode."""
    sums = sum_parts(energy_by_part(run, mode) for mode in layers_by_mode(run))
    names = [name for name in (*PART_COLOURS, *(name for name in sums if name not in PART_COLOURS)) if sums.get(name)]
    unknown = [name for name in names if name not in PART_COLOURS]
    return {name: PART_COLOURS.get(name) or SPARE_COLOURS[unknown.index(name) % len(SPARE_COLOURS)] for name in names}


def tradeoff_figures(run: RunResult) -> list[Figure]:
    """Return score and logit RMS error against accumulation cost and energy, those with at least one point."""
    rows = [row for row in mode_rows(run) if row.mode in MODE_COLOURS]
    exact = next((row for row in mode_rows(run) if row.mode == "exact"), None)
    labelled = run.accuracy is not None
    score_name = "Accuracy" if labelled else "Agreement with exact"

    def score_of(row: ModeRow) -> float | None:
        return row.accuracy if labelled else row.agreement

    energies = [row.energy_j for row in rows if _finite(row.energy_j)]
    power = prefix_of(max(energies, default=0))
    unit = f"{PREFIXES[power]}J"
    costs = {
        "accumulation cost": ("accumulation cost, uniform high = 1", lambda row: row.accumulation_cost),
        "energy": (f"energy, {unit}", lambda row: _scaled(row.energy_j, power)),
    }
    figures = []
    for cost_name, (cost_title, cost_of) in costs.items():
        for name, value_of, key in ((score_name, score_of, "score"), ("Logit RMS error", _error_of, "error")):
            figure = _scatter(f"{key}-{cost_name.split()[0]}", f"{name} against {cost_name}", rows, cost_of, value_of)
            figure.layout["xaxis"] = {"title": {"text": cost_title}, "rangemode": "tozero"}
            if key == "score":
                reference = None if exact is None else score_of(exact)
                figure.layout.update(_score_axis([value_of(row) for row in rows], reference))
            else:
                figure.layout["yaxis"] = _error_axis([value_of(row) for row in rows])
            if figure.data:
                figures.append(figure)
    return figures


def _bars(key: str, title: str, splits: Mapping[str, Mapping[str, float]], run: RunResult) -> Figure:
    power = prefix_of(max((sum(split.values()) for split in splits.values()), default=0))
    unit = f"{PREFIXES[power]}J"
    names = list(splits)
    # plotly.js reads a little HTML in texts; escaped, a name shows as it is.
    texts = [html.escape(name, quote=False) for name in names]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": html.escape(part, quote=False),
            "y": list(range(len(names))),
            "x": [_scaled(split.get(part, 0.0), power) for split in splits.values()],
            "customdata": texts,
            "marker": {"color": colour},
            "hovertemplate": f"%{{customdata}}<br>{html.escape(part, quote=False)} %{{x}} {unit}<extra></extra>",
        }
        for part, colour in part_colours(run).items()
        if any(split.get(part) for split in splits.values())
    ]
    layout = {
        "barmode": "stack",
        "height": 70 + (30 if len(names) <= 12 else 20) * len(names),
        "xaxis": {"title": {"text": f"energy, {unit}"}, "rangemode": "tozero"},
        "yaxis": {
            "tickvals": list(range(len(names))),
            "ticktext": [html.escape(shorten(name, 24), quote=False) for name in names],
            "range": [len(names) - 0.5, -0.5],
            "showgrid": False,
        },
    }
    return Figure(key, title, data, layout)


def _scatter(
    key: str,
    title: str,
    rows: Sequence[ModeRow],
    cost_of: Callable[[ModeRow], float | None],
    value_of: Callable[[ModeRow], float | None],
) -> Figure:
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": row.label,
            "x": [_rounded(cost_of(row))],
            "y": [_rounded(value_of(row))],
            "cliponaxis": False,
            "marker": {"color": MODE_COLOURS[row.mode], "symbol": MODE_SYMBOLS[row.mode], "size": 12},
            "hovertemplate": f"{_facts(row)}<extra></extra>",
        }
        for row in rows
        if _finite(cost_of(row)) and _finite(value_of(row))
    ]
    return Figure(key, title, data, {"height": 260})


def _facts(row: ModeRow) -> str:
    facts = [f"<b>{row.label}</b>"]
    if row.accuracy is not None:
        facts.append(f"accuracy {score(row.accuracy)}")
    elif row.agreement is not None:
        facts.append(f"agreement {score(row.agreement)}")
    facts.append(f"logit RMS error {significant(row.forward_error)}")
    facts.append(f"accumulation cost {significant(row.accumulation_cost)}")
    facts.append(f"energy {quantity(row.energy_j, 'J')}, latency {quantity(row.latency_s, 's')}")
    return "<br>".join(facts)


def _score_axis(values: Sequence[float | None], exact: float | None) -> dict[str, Any]:
    """Return the axis around the scores, at least half a percent high, with a dashed line at the exact run."""
    known = [value for value in (*values, exact) if _finite(value)]
    if not known:
        return {}
    pad = max(0.15 * (max(known) - min(known)), 0.0025)
    layout: dict[str, Any] = {"yaxis": {"tickformat": ".1%", "range": [min(known) - pad, max(known) + pad]}}
    if exact is not None and _finite(exact):
        place = {"xref": "paper", "x0": 0, "x1": 1, "y0": _rounded(exact), "y1": _rounded(exact)}
        layout["shapes"] = [{"type": "line", **place, "line": {"color": "--muted", "width": 1, "dash": "dash"}}]
    return layout


def _error_axis(values: Sequence[float | None]) -> dict[str, Any]:
    """Return an axis that begins a little below 0, so that a marker at 0 shows whole."""
    top = max((value for value in values if value is not None and math.isfinite(value)), default=0) or 1.0
    return {"range": [_rounded(-0.06 * top), _rounded(1.1 * top)]}


def _error_of(row: ModeRow) -> float | None:
    return row.forward_error


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _scaled(value: float | None, power: int) -> float | None:
    return None if value is None else _rounded(value / 10.0**power)


def _rounded(value: float | None) -> float | None:
    """Return `value` with five significant digits, as a figure needs; None where a plot cannot hold it."""
    return float(f"{value:.5g}") if value is not None and math.isfinite(value) else None
