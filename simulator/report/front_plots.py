"""Figures of the points of a sweep or a search: what can be had for what, and numbers over parameters."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from simulator.report import figures as signs
from simulator.report.axes import PERCENT, in_percent, logarithmic_axis, rounded, share_axis
from simulator.report.names import heading_of, name_of, written
from simulator.report.plots import Figure

Record = Mapping[str, Any]
POINT, FRONT = "--muted", "--low"
# How points are drawn: those that others beat, those that no answer to the search may be, and those of the front.
OTHERS, BREAKING, BEST = "other points", "points that break a constraint", "Pareto front"
STYLES: Mapping[str, Mapping[str, Any]] = {
    BREAKING: {"color": POINT, "symbol": "circle-open", "size": 6, "opacity": 0.55, "glyph": "○"},
    OTHERS: {"color": POINT, "symbol": "circle", "size": 6, "opacity": 0.55, "glyph": "●"},
    BEST: {"color": FRONT, "symbol": "circle", "size": 9, "opacity": 1, "glyph": "●"},
}
PARAMETERS_SHOWN = 8  # with figures of their own
LONG = 16  # signs beyond which values of a parameter stand beside the figure and not below it
WIDE = 20  # between the least and the largest value of a number is a factor above which its axis is logarithmic


def front_figures(record: Record, done: Sequence[Record]) -> dict[str, list[Figure]]:
    """Return the figures of points by the section of the page that they stand in; `done` are those with a result."""
    first, *others = record["numbers"]
    pairs = [_scatter(record, done, first, other) for other in others]
    _, *objectives = record["objectives"]
    pairs += [_scatter(record, done, y, x) for y, x in combinations(objectives, 2)]
    groups = varied_together(record["points"], done)[:PARAMETERS_SHOWN]
    multiples = [_multiple(record, done, keys, name) for keys in groups for name in record["objectives"]]
    return {
        "search": [_hypervolumes(record["search"])] if record["search"] and BEST in kinds(record, done) else [],
        "front": [figure for figure in pairs if figure.data],
        "parameters": [figure for figure in multiples if figure.data],
    }


def varied_together(points: Sequence[Record], done: Sequence[Record]) -> list[list[str]]:
    """Return the parameters that vary among the points with a result, those in one list whose values go one to one."""
    names = dict.fromkeys(key for point in done for key in point["parameters"])
    columns = {key: [_text(point, key) for point in points] for key in names}
    groups: list[list[str]] = []
    for key in (key for key in names if len({_text(point, key) for point in done}) > 1):
        same = (group for group in groups if _one_to_one(columns[group[0]], columns[key]))
        group = next(same, None)
        if group is None:
            groups.append([key])
        else:
            group.append(key)
    return groups


def _one_to_one(a: Sequence[str], b: Sequence[str]) -> bool:
    return len(set(a)) == len(set(b)) == len(set(zip(a, b, strict=True)))


def _scatter(record: Record, done: Sequence[Record], y: str, x: str) -> Figure:
    """Return all points in two numbers; those of the front joined where it is of these two."""
    axes = {name: _axis(record, done, name) for name in (x, y)}
    joined = set(record["objectives"]) == {x, y}
    data = []
    for kind in kinds(record, done):
        known = [p for p in done if kind_of(record, p) == kind and None not in (p["values"].get(x), p["values"].get(y))]
        known.sort(key=lambda point: point["values"][x])
        data.append({
            **_points(record, kind, known),
            "mode": "lines+markers" if joined and kind == BEST else "markers",
            "x": [rounded(point["values"][x] / axes[x][0]) for point in known],
            "y": [rounded(point["values"][y] / axes[y][0]) for point in known],
            "customdata": [_parameters(point) for point in known],
            "line": {"color": FRONT, "width": 1.3, "shape": _stairs(record, x)},
        })  # fmt: skip
    layout = {"height": 340, "xaxis": axes[x][1], "yaxis": axes[y][1]}
    title = f"{heading_of(y)} against {name_of(x)}"
    of = x if y == next(iter(record["numbers"])) else f"{y}-{x}"
    return Figure(f"front-{of}".replace("_", "-"), title, [trace for trace in data if trace["x"]], layout)


def kind_of(record: Record, point: Record) -> str:
    """Return how a point with a result is drawn."""
    if point["on_front"]:
        return BEST
    return BREAKING if record["constraints"] and not point["feasible"] else OTHERS


def kinds(record: Record, done: Sequence[Record]) -> list[str]:
    """Return the kinds of points that there are, in the order in which they are drawn."""
    there = {kind_of(record, point) for point in done}
    return [kind for kind in STYLES if kind in there]


def _points(record: Record, kind: str, points: Sequence[Record]) -> dict[str, Any]:
    """Return what all points of a kind are drawn with, wherever they lie."""
    style = STYLES[kind]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": kind,
        "cliponaxis": False,
        "hovertext": [_facts(record, point) for point in points],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "marker": {name: style[name] for name in ("color", "symbol", "size", "opacity")},
    }


def _stairs(record: Record, x: str) -> str:
    """Return how points of a front are joined: what lies on the stair is reached by none and beaten by none."""
    return "hv" if record["objectives"].get(x) == "min" else "vh"


def _hypervolumes(search: Record) -> Figure:
    """Return how the front grew with the points that were chosen."""
    volumes = search["hypervolumes"]
    trace = {
        "type": "scatter", "mode": "lines", "name": "hypervolume",
        "x": list(range(1, len(volumes) + 1)), "y": [in_percent(volume) for volume in volumes],
        "hovertemplate": "%{y:.1f} % after %{x}<extra></extra>", "line": {"color": FRONT, "width": 1.6, "shape": "hv"},
    }  # fmt: skip
    xaxis = {"title": {"text": "points chosen"}, "rangemode": "tozero"}
    yaxis = {"title": {"text": "hypervolume"}, **PERCENT, "rangemode": "tozero"}
    return Figure(
        "hypervolume", "Hypervolume over the points", [trace], {"height": 240, "xaxis": xaxis, "yaxis": yaxis}
    )


def _multiple(record: Record, done: Sequence[Record], keys: Sequence[str], number: str) -> Figure:
    """Return a number of all points over the values of one parameter, or of several that vary together."""
    scale, axis = _axis(record, done, number)
    places = {_text(point, keys[0]): _values(point, keys) for point in done}
    order = _order([point["parameters"].get(keys[0]) for point in done])
    texts = [places[_text({"parameters": {keys[0]: value}}, keys[0])] for value in order]
    lying = max(map(len, texts), default=0) > LONG
    along, across = ("y", "x") if lying else ("x", "y")
    data: list[dict[str, Any]] = []
    for kind in kinds(record, done):
        known = [p for p in done if kind_of(record, p) == kind and p["values"].get(number) is not None]
        values = [rounded(point["values"][number] / scale) for point in known]
        data.append({**_points(record, kind, known), along: [_values(point, keys) for point in known], across: values})
    data = [trace for trace in data if trace["x"]]
    named: dict[str, Any] = {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": texts,
        "title": {"text": html.escape(", ".join(keys))},
    }
    if lying:  # the first on top
        named |= {"autorange": "reversed", "automargin": True}
    height = max(240, 100 + 26 * len(texts)) if lying else 240
    title = f"{heading_of(number)} by {', '.join(keys)}"
    layout = {"height": height, f"{along}axis": named, f"{across}axis": axis}
    return Figure(f"by-{keys[0]}-{number}", title, data, layout)


def _order(values: Sequence[Any]) -> list[Any]:
    """Return the values of a parameter once each, numbers by size, others as they came."""
    once = list({str(value): value for value in values}.values())
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in once)
    return sorted(once) if numbers else once


def _axis(record: Record, points: Sequence[Record], name: str) -> tuple[float, dict[str, Any]]:
    """Return by what the values of a number are divided, and the axis that shows them."""
    values = [point["values"][name] for point in points if point["values"].get(name) is not None]
    unit = record["numbers"][name]
    title = name_of(name)
    if unit == "share":
        return 0.01, {**share_axis(values, room=0.08), "title": {"text": title}}
    power = signs.prefix_of(max(map(abs, values), default=0)) if unit in ("s", "J") else 0
    shown = f"{signs.PREFIXES[power]}{unit}" if unit not in ("", "cycles") else ""
    scale, title = 10.0**power, f"{title}, {shown}".rstrip(", ")
    # Decibels are logarithms already.
    if values and unit != "dB" and min(values) > 0 and max(values) > WIDE * min(values):
        return scale, logarithmic_axis([value / scale for value in values], title, pad=1.3)
    return scale, {"title": {"text": title}}


def _facts(record: Record, point: Record) -> str:
    parameters = [f"{html.escape(key, quote=False)} <b>{_text(point, key)}</b>" for key in point["parameters"]]
    numbers = [
        f"{name_of(name)} {written(name, unit, point['values'].get(name))}" for name, unit in record["numbers"].items()
    ]
    return "<br>".join((*parameters, *numbers))


def _parameters(point: Record) -> str:
    return ", ".join(f"{html.escape(key, quote=False)} {_text(point, key)}" for key in point["parameters"])


def _values(point: Record, keys: Sequence[str]) -> str:
    return ", ".join(_text(point, key) for key in keys)


def _text(point: Record, key: str) -> str:
    """Return the value of a parameter as plotly.js may show it."""
    return html.escape(signs.parameter(point["parameters"].get(key)), quote=False)
