"""Figures of condition numbers: how they are distributed over the outputs of each layer."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from simulator.report.axes import logarithmic_axis, rounded
from simulator.report.figures import count, significant
from simulator.report.figures import percent as percent_of
from simulator.report.plots import LAYERS_SHOWN, Figure, rows_layout
from simulator.result import Conditions, RunResult

# Percents that have a mark, of those that are known: how it is drawn.
MARKS = {5: "line-ns-open", 25: "triangle-right", 50: "diamond", 75: "triangle-left", 95: "line-ns-open"}
COLOUR = "--two-pass"


def condition_figures(run: RunResult) -> list[Figure]:
    """Return the percentiles of kappa of each layer, and those of kappa_v where these are others; none if not known."""
    largest = sorted(run.conditions, key=lambda one: -one.outputs)[:LAYERS_SHOWN]
    shown = [one for one in run.conditions if one in largest]
    figures = [
        _percentiles("condition-layers", "Condition numbers with the activation, kappa, by layer", shown, "kappa")
    ]
    if any(not _close(one) for one in shown):
        title = "Condition numbers of the inner products, kappa_v, by layer"
        figures.append(_percentiles("condition-products", title, shown, "kappa_v"))
    return [figure for figure in figures if figure.data]


def _close(one: Conditions) -> bool:
    pairs = [(value or math.inf, one.kappa_v.get(percent) or math.inf) for percent, value in one.kappa.items()]
    return all(math.isclose(*pair, rel_tol=1e-9) for pair in pairs)


def _percentiles(key: str, title: str, shown: Sequence[Conditions], field: str) -> Figure:
    """Return a row of marks for each layer; a number of 0, or an infinite one, has none on a logarithmic axis."""
    values = [{percent: rounded(value) for percent, value in getattr(one, field).items()} for one in shown]
    data: list[dict[str, Any]] = []
    for percent, symbol in MARKS.items():
        known = [(place, own[percent]) for place, own in enumerate(values) if own.get(percent)]
        if known:
            name = "median" if percent == 50 else f"{percent} %"
            data.append({
                "type": "scatter", "mode": "markers", "name": name,
                "x": [value for _, value in known], "y": [place for place, _ in known],
                "customdata": [html.escape(shown[place].layer, quote=False) for place, _ in known],
                "marker": {"color": COLOUR, "symbol": symbol, "size": 12 if percent == 50 else 9,
                           "line": {"width": 2, "color": COLOUR}},
                "hovertemplate": f"%{{customdata}}<br>{name} below %{{x}}<extra></extra>",
            })  # fmt: skip
    names = [one.layer for one in shown]
    drawn = [value for trace in data for value in trace["x"]]
    layout = rows_layout(names, logarithmic_axis(drawn, "condition number"))
    spans = [_span(place, own, *ends) for place, own in enumerate(values) for ends in ((5, 95, 1), (25, 75, 5))]
    return Figure(key, title, data, {**layout, "shapes": [span for span in spans if span]}, _numbers(shown, field))


def _numbers(shown: Sequence[Conditions], field: str) -> tuple[list[str], list[list[str]]]:
    """Return all percentiles as a table, with what they are of."""
    percents = sorted({percent for one in shown for percent in getattr(one, field)})
    rows = []
    for one in shown:
        own = getattr(one, field)
        written = ["∞" if percent in own and own[percent] is None else significant(own.get(percent))
                   for percent in percents]  # fmt: skip
        rows.append([one.layer, one.activation, count(one.outputs), percent_of(one.active), *written])
    return ["", "activation", "outputs", "active", *(f"{percent} %" for percent in percents)], rows


def _span(place: int, own: dict[int, float | None], first: int, last: int, width: int) -> dict[str, Any] | None:
    """Return a line from one percentile to another; None where one has no place on the axis."""
    start, end = own.get(first), own.get(last)
    if not start or not end:
        return None
    line = {"color": COLOUR, "width": width}
    return {"type": "line", "layer": "between", "x0": start, "x1": end, "y0": place, "y1": place, "line": line}
