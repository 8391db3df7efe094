"""The points of a sweep or a search as one page: the Pareto front, and every number against every parameter."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from simulator.report import figures as signs
from simulator.report.axes import rounded
from simulator.report.html import embed, plotly_js, template
from simulator.report.plots import Figure

Record = Mapping[str, Any]
NAMES = {
    "accuracy": "Accuracy", "agreement": "Agreement with exact", "forward_error": "Logit RMS error", "cycles": "Cycles",
    "energy_j": "Energy", "latency_s": "Latency", "area_mm2": "Area", "accumulation_cost": "Accumulation cost",
}  # fmt: skip
# What explains a number on the page, where something does.
TERMS = {"forward_error": "forward-error", "energy_j": "energy", "latency_s": "latency", "area_mm2": "area",
         **{name: name for name in ("accuracy", "agreement", "cycles")}}  # fmt: skip
POINT, FRONT = "--muted", "--low"
# How points are drawn: those that others beat, those that no answer to the search may be, and those of the front.
OTHERS, BREAKING, BEST = "other points", "points that break a constraint", "Pareto front"
STYLES: Mapping[str, Mapping[str, Any]] = {
    BREAKING: {"color": POINT, "symbol": "circle-open", "size": 6, "opacity": 0.55, "glyph": "○"},
    OTHERS: {"color": POINT, "symbol": "circle", "size": 6, "opacity": 0.55, "glyph": "●"},
    BEST: {"color": FRONT, "symbol": "circle", "size": 9, "opacity": 1, "glyph": "●"},
}
PARAMETERS_SHOWN = 8  # with figures of their own
ROWS_SHOWN = 500  # of the table of all points


def render_front(record: Record) -> str:
    """Return the page of many points, given as plain data.

    Args:
        record: `name`, `store`; `objectives`, what the front is of: by name max or min; `numbers`, all that are shown,
            by name their unit; `constraints`: by name an interval {from, to}; `points`: each `parameters`, `values` by
            name (None for what it lacks), `error`, `feasible` and `on_front`; `search`: None of a sweep, else `grid`,
            of how many points they were chosen, and `hypervolumes`, after each of them.
    """
    library = plotly_js()
    done = [point for point in record["points"] if point["error"] is None]
    groups = _figures(record, done) if library else {}
    front = sorted((point for point in done if point["on_front"]), key=lambda point: _first(record, point))
    return template("front.html.j2").render(
        record=record,
        front=front,
        done=done,
        shown=done[:ROWS_SHOWN],
        failed=[point for point in record["points"] if point["error"] is not None],
        parameters=list(dict.fromkeys(key for point in record["points"] for key in point["parameters"])),
        names={name: name_of(name) for name in record["numbers"]},
        terms=TERMS,
        about=[
            "front", *(["hypervolume"] if record["search"] else []),
            *(TERMS[name] for name in record["numbers"] if name in TERMS),
        ],
        show=lambda name, value: written(record["numbers"][name], value),
        constraints=[_words(record, name, interval) for name, interval in record["constraints"].items()],
        legend=[(STYLES[kind]["color"], kind, STYLES[kind]["glyph"]) for kind in _kinds(record, done)],
        figures=groups,
        data=embed([figure for group in groups.values() for figure in group]),
        library=library,
        q=signs,
    )  # fmt: skip


def name_of(number: str) -> str:
    """Return what a page calls a number, e.g. `Energy` for energy_j, `Energy, high` for energy_j_high."""
    for name, words in NAMES.items():
        if number == name:
            return words
        if number.startswith(f"{name}_"):
            return f"{words}, {number.removeprefix(f'{name}_').replace('_', ' ')}"
    return number


def written(unit: str, value: float | None) -> str:
    """Return a number with its unit as people read it."""
    match unit:
        case "share":
            return signs.score(value)
        case "cycles":
            return signs.count(value)
        case "s" | "J":
            return signs.quantity(value, unit)
    return f"{signs.significant(value)} {unit}".rstrip() if value is not None else signs.MISSING


def _words(record: Record, name: str, interval: Mapping[str, float]) -> str:
    """Return a constraint in words."""
    ends = [f"{word} {written(record['numbers'][name], interval[end])}"
            for end, word in (("from", "at least"), ("to", "at most")) if end in interval]  # fmt: skip
    return f"{name_of(name).lower()} {' and '.join(ends)}"


def _first(record: Record, point: Record) -> float:
    """Return the first objective of a point of the front, by which the table is sorted, the best first."""
    name, way = next(iter(record["objectives"].items()))
    value: float = point["values"][name]
    return -value if way == "max" else value


def _figures(record: Record, done: Sequence[Record]) -> dict[str, list[Figure]]:
    first, *others = record["numbers"]
    pairs = [_scatter(record, done, first, other) for other in others]
    names = dict.fromkeys(key for point in done for key in point["parameters"])
    varied = [key for key in names if len({_text(point, key) for point in done}) > 1][:PARAMETERS_SHOWN]
    multiples = [_multiple(record, done, key, name) for key in varied for name in list(record["objectives"])[:2]]
    return {
        "search": [_hypervolumes(record["search"])] if record["search"] and len(record["points"]) > 1 else [],
        "front": [figure for figure in pairs if figure.data],
        "parameters": [figure for figure in multiples if figure.data],
    }


def _scatter(record: Record, done: Sequence[Record], y: str, x: str) -> Figure:
    """Return all points in two numbers; those of the front joined where it is of these two."""
    axes = {name: _axis(record, done, name) for name in (x, y)}
    joined = set(record["objectives"]) == {x, y}
    data = []
    for kind in _kinds(record, done):
        known = [p for p in done if _kind(record, p) == kind and None not in (p["values"].get(x), p["values"].get(y))]
        known.sort(key=lambda point: point["values"][x])
        data.append({
            **_points(record, kind, known),
            "mode": "lines+markers" if joined and kind == BEST else "markers",
            "x": [rounded(point["values"][x] / axes[x][0]) for point in known],
            "y": [rounded(point["values"][y] / axes[y][0]) for point in known],
            "customdata": [_parameters(point) for point in known],
            "cliponaxis": False,
            "line": {"color": FRONT, "width": 1.3, "shape": _stairs(record, x)},
        })  # fmt: skip
    layout = {"height": 340, "xaxis": axes[x][1], "yaxis": axes[y][1]}
    title = f"{name_of(y)} against {name_of(x).lower()}"
    return Figure(f"front-{x}".replace("_", "-"), title, [trace for trace in data if trace["x"]], layout)


def _kind(record: Record, point: Record) -> str:
    if point["on_front"]:
        return BEST
    return BREAKING if record["constraints"] and not point["feasible"] else OTHERS


def _kinds(record: Record, done: Sequence[Record]) -> list[str]:
    """Return the kinds of points that there are, in the order in which they are drawn."""
    there = {_kind(record, point) for point in done}
    return [kind for kind in STYLES if kind in there]


def _points(record: Record, kind: str, points: Sequence[Record]) -> dict[str, Any]:
    """Return what all points of a kind are drawn with, wherever they lie."""
    style = STYLES[kind]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": kind,
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
        "x": list(range(1, len(volumes) + 1)), "y": [rounded(volume) for volume in volumes],
        "hovertemplate": "%{y:.1%} after %{x}<extra></extra>", "line": {"color": FRONT, "width": 1.6, "shape": "hv"},
    }  # fmt: skip
    xaxis = {"title": {"text": "points chosen"}, "rangemode": "tozero"}
    yaxis = {"title": {"text": "hypervolume"}, "tickformat": ".0%", "rangemode": "tozero"}
    return Figure(
        "hypervolume", "Hypervolume over the points", [trace], {"height": 240, "xaxis": xaxis, "yaxis": yaxis}
    )


def _multiple(record: Record, done: Sequence[Record], key: str, number: str) -> Figure:
    """Return a number of all points over the values of one parameter."""
    scale, axis = _axis(record, done, number)
    order = _order([point["parameters"].get(key) for point in done])
    texts = [_text({"parameters": {key: value}}, key) for value in order]
    data = []
    for kind in _kinds(record, done):
        known = [p for p in done if _kind(record, p) == kind and p["values"].get(number) is not None]
        data.append({
            **_points(record, kind, known),
            "x": [_text(point, key) for point in known],
            "y": [rounded(point["values"][number] / scale) for point in known],
        })  # fmt: skip
    data = [trace for trace in data if trace["x"]]
    xaxis = {"type": "category", "categoryorder": "array", "categoryarray": texts, "title": {"text": html.escape(key)}}
    title = f"{name_of(number)} by {key}"
    return Figure(f"by-{key}-{number}", title, data, {"height": 240, "xaxis": xaxis, "yaxis": axis})


def _order(values: Sequence[Any]) -> list[Any]:
    """Return the values of a parameter once each, numbers by size, others as they came."""
    once = list({str(value): value for value in values}.values())
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in once)
    return sorted(once) if numbers else once


def _axis(record: Record, points: Sequence[Record], name: str) -> tuple[float, dict[str, Any]]:
    """Return by what the values of a number are divided, and the axis that shows them."""
    values = [point["values"][name] for point in points if point["values"].get(name) is not None]
    unit = record["numbers"][name]
    title = name_of(name).lower()
    if unit == "share":
        pad = max(0.08 * (max(values) - min(values)), 0.0025) if values else 0
        ends = {"range": [rounded(min(values) - pad), rounded(max(values) + pad)]} if values else {}
        return 1.0, {"title": {"text": title}, "tickformat": ".1%", **ends}
    power = signs.prefix_of(max(map(abs, values), default=0)) if unit in ("s", "J") else 0
    shown = f"{signs.PREFIXES[power]}{unit}" if unit not in ("", "cycles") else ""
    return 10.0**power, {"title": {"text": f"{title}, {shown}".rstrip(", ")}}


def _facts(record: Record, point: Record) -> str:
    parameters = [f"{html.escape(key, quote=False)} <b>{_text(point, key)}</b>" for key in point["parameters"]]
    numbers = [
        f"{name_of(name).lower()} {written(unit, point['values'].get(name))}"
        for name, unit in record["numbers"].items()
    ]
    return "<br>".join((*parameters, *numbers))


def _parameters(point: Record) -> str:
    return ", ".join(f"{html.escape(key, quote=False)} {_text(point, key)}" for key in point["parameters"])


def _text(point: Record, key: str) -> str:
    """Return the value of a parameter as plotly.js may show it."""
    return html.escape(signs.setting(point["parameters"].get(key)), quote=False)
