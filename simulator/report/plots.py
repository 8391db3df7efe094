"""The figures of the report as plain plotly.js records: traces and the part of the layout that is not styling.

Colours are names of CSS custom properties (`--low`), which the page resolves, so that one record serves a light
screen, a dark one and paper.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from simulator.report.axes import in_percent, rounded, share_axis
from simulator.report.comparison import ModeRow, energy_by_part, layers_by_mode, mode_rows, shown_mode, sum_parts
from simulator.report.figures import MISSING, PREFIXES, prefix_of, quantity, score, shorten, significant
from simulator.result import MODE_LABELS, VECTOR_UNIT, LayerResult, RunResult

LAYERS_SHOWN = 40
ROWS_SHOWN = 400  # in the table of a figure
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
    """One figure: `key` names its place in the page, `title` is read above it, `data` and `layout` go to plotly.js.

    `numbers` are its table, headings and rows, where that has more than what is drawn; None: what is drawn.
    """

    key: str
    title: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    numbers: tuple[list[str], list[list[str]]] | None = None

    def table(self) -> tuple[list[str], list[list[str]]] | None:
        """Return the numbers as headings and rows of text, for readers who do not see the figure.

        None where it has another kind of trace than bars and marks, or more numbers than anybody reads.
        """
        if self.numbers is not None:
            return self.numbers
        names = [str(trace.get("name", "")) for trace in self.data]
        if all(trace["type"] == "bar" and "customdata" not in trace for trace in self.data):  # upright ones, of numbers
            heights = [dict(zip(trace["x"], trace["y"], strict=True)) for trace in self.data]
            places = sorted(set().union(*heights))
            rows = [
                [_written(place), *(self._shown("yaxis", own.get(place, 0)) for own in heights)] for place in places
            ]
            return [self._axis("xaxis"), *map(html.unescape, names)], rows
        if all(trace["type"] == "bar" for trace in self.data):
            columns = [[self._shown("xaxis", value) for value in trace["x"]] for trace in self.data]
            rows = [
                [html.unescape(name), *own] for name, *own in zip(self.data[0]["customdata"], *columns, strict=True)
            ]
            return [self._axis("xaxis"), *map(html.unescape, names)], rows
        if any(trace["type"] != "scatter" or "x" not in trace for trace in self.data):
            return None
        named_rows = "ticktext" in self.layout.get("yaxis", {})
        rows = []
        for name, trace in zip(names, self.data, strict=True):
            labels = trace.get("customdata") or [""] * len(trace["x"])
            for label, x, y in zip(labels, trace["x"], trace["y"], strict=True):
                what = filter(None, (name, label if isinstance(label, str) else ""))
                values = [self._shown("xaxis", x), *([] if named_rows else [self._shown("yaxis", y)])]
                rows.append([html.unescape(", ".join(what)), *values])
        axes = ["xaxis"] if named_rows else ["xaxis", "yaxis"]
        return (["", *map(self._axis, axes)], rows) if 0 < len(rows) <= ROWS_SHOWN else None

    def _shown(self, axis: str, value: Any) -> str:
        """Return a value as its axis shows it."""
        return (
            MISSING
            if value is None
            else f"{html.unescape(_written(value))}{self.layout.get(axis, {}).get('ticksuffix', '')}"
        )

    def _axis(self, axis: str) -> str:
        """Return what an axis shows; where nothing stands at the vertical one, the caption begins with it."""
        title = self.layout.get(axis, {}).get("title", {}).get("text")
        return html.unescape(title or (self.title.split(" against ")[0] if axis == "yaxis" else ""))


def energy_figures(run: RunResult) -> list[Figure]:
    """Return the energy split of the modes and of the layers as stacked bars, those of which anything is known."""
    modes = {MODE_LABELS[mode]: energy_by_part(run, mode) for mode in layers_by_mode(run)}
    layers, title = most_of(
        "Energy by layer", run, [layer for layer in run.layers if layer.energy_parts_j],
        lambda layer: sum(layer.energy_parts_j.values()),
    )  # fmt: skip
    shown = together((layer.title, layer.energy_parts_j) for layer in layers)
    figures = [
        energy_bars("energy-modes", "Energy by mode", modes, run),
        energy_bars("energy-layers", title, shown, run),
    ]
    return [figure for figure in figures if figure.data]


def most_of(
    title: str, run: RunResult, layers: Sequence[LayerResult], size: Callable[[LayerResult], float]
) -> tuple[list[LayerResult], str]:
    """Return the layers that a figure has room for, the largest, in their order, and its title, which says so."""
    largest = sorted(range(len(layers)), key=lambda place: -size(layers[place]))[:LAYERS_SHOWN]
    title = f"{title}, {MODE_LABELS[shown_mode(run)]}"
    if len(largest) < len(layers):
        title += f", the {LAYERS_SHOWN} that take most of {len(layers)}"
    return [layers[place] for place in sorted(largest)], title


def together(parts: Iterable[tuple[str, Mapping[str, float]]]) -> dict[str, Mapping[str, float]]:
    """Return the sums of parts by the title of a layer, which several may have."""
    found: dict[str, Mapping[str, float]] = {}
    for title, own in parts:
        found[title] = sum_parts([found.get(title, {}), own])
    return found


def part_colours(*runs: RunResult) -> dict[str, str]:
    """Return the colour of each part of the energy that is not zero in every mode of all runs."""
    sums = sum_parts(energy_by_part(run, mode) for run in runs for mode in layers_by_mode(run))
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
            drawn = in_percent if key == "score" else rounded
            place = f"{key}-{cost_name.split()[0]}"
            figure = _scatter(place, f"{name} against {cost_name}", rows, cost_of, value_of, drawn)
            figure.layout["xaxis"] = {"title": {"text": cost_title}, "rangemode": "tozero"}
            if key == "score":
                reference = None if exact is None else score_of(exact)
                figure.layout.update(_score_axis([value_of(row) for row in rows], reference))
            else:
                figure.layout["yaxis"] = _error_axis([value_of(row) for row in rows])
            if figure.data:
                figures.append(figure)
    return figures


def stacked_bars(
    key: str,
    title: str,
    splits: Mapping[str, Mapping[str, float]],
    colours: Mapping[str, str],
    axis: str,
    shown: str,
) -> Figure:
    """Return one bar for each split of a quantity, made of its parts.

    Args:
        splits: by name of the bar the parts by their names. colours: of the parts, in the order of stacking.
        axis: what is shown, with its unit. shown: how plotly.js writes the value of a part, e.g. `%{x} mJ`.
    """
    # plotly.js reads a little HTML in texts; escaped, a name shows as it is.
    texts = [html.escape(name, quote=False) for name in splits]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": html.escape(part, quote=False),
            "y": list(range(len(splits))),
            "x": [rounded(split.get(part, 0.0)) for split in splits.values()],
            "customdata": texts,
            "marker": {"color": colour},
            "hovertemplate": f"%{{customdata}}<br>{html.escape(part, quote=False)} {shown}<extra></extra>",
        }
        for part, colour in colours.items()
        if any(split.get(part) for split in splits.values())
    ]
    layout = rows_layout(list(splits), {"title": {"text": axis}, "rangemode": "tozero"})
    layout["yaxis"]["showgrid"] = False
    return Figure(key, title, data, {"barmode": "stack", **layout})


def rows_layout(names: Sequence[str], xaxis: Mapping[str, Any]) -> dict[str, Any]:
    """Return the layout of a figure with a row for each name, from above."""
    return {
        "height": 70 + (30 if len(names) <= 12 else 20) * len(names),
        "xaxis": dict(xaxis),
        "yaxis": {
            "tickvals": list(range(len(names))),
            "ticktext": [html.escape(shorten(name, 24), quote=False) for name in names],
            "range": [len(names) - 0.5, -0.5],
        },
    }


def energy_bars(key: str, title: str, splits: Mapping[str, Mapping[str, float]], *runs: RunResult) -> Figure:
    """Return the energy of each split as one bar, in the unit that suits the largest; colours are those of the runs."""
    power = prefix_of(max((sum(split.values()) for split in splits.values()), default=0))
    unit = f"{PREFIXES[power]}J"
    scaled = {name: {part: energy / 10.0**power for part, energy in split.items()} for name, split in splits.items()}
    return stacked_bars(key, title, scaled, part_colours(*runs), f"energy, {unit}", f"%{{x}} {unit}")


def _scatter(
    key: str,
    title: str,
    rows: Sequence[ModeRow],
    cost_of: Callable[[ModeRow], float | None],
    value_of: Callable[[ModeRow], float | None],
    drawn: Callable[[float | None], float | None],
) -> Figure:
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": row.label,
            "x": [rounded(cost_of(row))],
            "y": [drawn(value_of(row))],
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
    layout: dict[str, Any] = {"yaxis": share_axis(known)}
    if exact is not None and _finite(exact):
        place = {"xref": "paper", "x0": 0, "x1": 1, "y0": in_percent(exact), "y1": in_percent(exact)}
        layout["shapes"] = [{"type": "line", **place, "line": {"color": "--muted", "width": 1, "dash": "dash"}}]
    return layout


def _error_axis(values: Sequence[float | None]) -> dict[str, Any]:
    """Return an axis that begins a little below 0, so that a marker at 0 shows whole."""
    top = max((value for value in values if value is not None and math.isfinite(value)), default=0) or 1.0
    return {"range": [rounded(-0.06 * top), rounded(1.1 * top)]}


def _written(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _error_of(row: ModeRow) -> float | None:
    return row.forward_error


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _scaled(value: float | None, power: int) -> float | None:
    return None if value is None else rounded(value / 10.0**power)
