"""Figures of the points of a sweep or a search: what can be had for what, and numbers over parameters."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from statistics import fmean
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
OPEN = 6  # figures of a section that are seen at once; the others open on demand
LONG = 16  # signs beyond which values of a parameter stand beside the figure and not below it
WIDE = 8  # between the least and the largest value of a number is a factor above which its axis is logarithmic
NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)")


@dataclass(frozen=True)
class Section:
    """Figures of a section of the page: those that are seen at once, and those that open on demand."""

    seen: Sequence[Figure] = ()
    folded: Sequence[Figure] = ()

    def __iter__(self) -> Iterator[Figure]:
        return chain(self.seen, self.folded)


def front_figures(record: Record, done: Sequence[Record]) -> dict[str, Section]:
    """Return the figures of points by the section of the page that they stand in; `done` are those with a result.

    Numbers that are the same at all points have none, see alike. Of many figures these are seen at once: pairs of
    objectives, and objectives over the parameters that tell most of them.
    """
    vary = [name for name in record["numbers"] if _vary(done, name)]
    objectives = [name for name in record["objectives"] if name in vary]
    others = [name for name in vary if name not in objectives]
    named = [*combinations(objectives, 2), *((y, x) for y in objectives[:1] for x in others)]
    pairs = [_scatter(record, done, y, x, joined={y, x} == {*objectives}) for y, x in named]
    pairs = [figure for figure in pairs if figure.data]
    groups = varied_together(record, done)
    ranked = sorted(groups, key=lambda keys: -sum(_told(done, keys, name) for name in objectives))[:PARAMETERS_SHOWN]
    most = ranked[: max(1, OPEN // len(objectives))] if objectives else []
    search = record["search"]
    return {
        "search": Section([_hypervolumes(search)] if search and search["hypervolumes"] else []),
        "front": Section(pairs[:OPEN], pairs[OPEN:]),
        "parameters": Section(*(
            [_multiple(record, done, keys, name) for keys in groups if keys in some for name in objectives]
            for some in (most, [keys for keys in ranked if keys not in most])
        )),
    }  # fmt: skip


def alike(record: Record, done: Sequence[Record]) -> dict[str, float]:
    """Return the numbers that are the same at all points that have them, of those that are shown, and their values."""
    known = {name: _known(done, name) for name in record["numbers"]}
    return {name: values[0] for name, values in known.items() if values and not _vary(done, name)}


def _known(points: Sequence[Record], name: str) -> list[float]:
    return [point["values"][name] for point in points if point["values"].get(name) is not None]


def _vary(points: Sequence[Record], name: str) -> bool:
    """Return whether a figure could tell two values of a number apart."""
    return len({rounded(value) for value in _known(points, name)}) > 1


def _told(done: Sequence[Record], keys: Sequence[str], number: str) -> float:
    """Return how much of a number parameters tell: epsilon squared of the ranks of its values, at most 1.

    That is the share of their variance that lies between the values of the parameters, with both variances by degrees
    of freedom, so that many values tell no more than few by their number alone.
    """
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(_known(done, number))):
        places.setdefault(value, []).append(place)
    ranks = {value: fmean(those) for value, those in places.items()}
    groups: dict[str, list[float]] = {}
    for point in done:
        if (value := point["values"].get(number)) is not None:
            groups.setdefault(_values(point, keys), []).append(ranks[value])
    every = [rank for group in groups.values() for rank in group]
    if len(ranks) < 2 or len(groups) == len(every):
        return 0.0
    within = sum(map(_squares, groups.values())) / (len(every) - len(groups))
    return 1 - within / (_squares(every) / (len(every) - 1))


def _squares(values: Sequence[float]) -> float:
    """Return the sum of squares about the mean."""
    mean = fmean(values)
    return sum((value - mean) ** 2 for value in values)


def varied_together(record: Record, done: Sequence[Record]) -> list[list[str]]:
    """Return the parameters that vary among the points with a result, those in one list that vary together.

    Those of a search are keys of one axis, since the few points of one may go one to one by chance; those of a sweep
    are such whose values go one to one.
    """
    names = dict.fromkeys(key for point in done for key in point["parameters"])
    vary = [key for key in names if len({_of(point, key) for point in done}) > 1]
    if record["search"] is not None and record["search"]["axes"]:  # stores of before have none
        return [own for axis in record["search"]["axes"] if (own := [key for key in axis if key in vary])]
    columns = {key: [_of(point, key) for point in record["points"]] for key in vary}
    groups: list[list[str]] = []
    for key in vary:
        same = (group for group in groups if _one_to_one(columns[group[0]], columns[key]))
        group = next(same, None)
        if group is None:
            groups.append([key])
        else:
            group.append(key)
    return groups


def _one_to_one(a: Sequence[str], b: Sequence[str]) -> bool:
    return len(set(a)) == len(set(b)) == len(set(zip(a, b, strict=True)))


def _scatter(record: Record, done: Sequence[Record], y: str, x: str, joined: bool) -> Figure:
    """Return all points in two numbers; those of the front joined where it is of these two."""
    axes = {name: _axis(record, done, name) for name in (x, y)}
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
    return Figure(f"front-{y}-{x}".replace("_", "-"), title, [trace for trace in data if trace["x"]], layout)


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
    texts = _categories(record, done, keys)
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


def _categories(record: Record, done: Sequence[Record], keys: Sequence[str]) -> list[str]:
    """Return the values of parameters that vary together, once each: by the first of them, numbers by size.

    Others stand in the order of the plan, in which the points of a sweep are. A search has them in that of its choices:
    its values are in natural order, in which fp8 comes before fp16.
    """
    shown = {_values(point, keys) for point in done}
    places = {
        text: point["parameters"].get(keys[0]) for point in record["points"] if (text := _values(point, keys)) in shown
    }
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in places.values()):
        return sorted(places, key=lambda text: places[text])
    return list(places) if record["search"] is None else sorted(places, key=_natural)


def _natural(text: str) -> list[str | float]:
    return [float(part) if place % 2 else part for place, part in enumerate(NUMBER.split(text))]


def _axis(record: Record, points: Sequence[Record], name: str) -> tuple[float, dict[str, Any]]:
    """Return by what the values of a number are divided, and the axis that shows them."""
    values = _known(points, name)
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
    # Of numbers that are never negative, no axis runs below 0 to make room for a marker.
    return scale, {"title": {"text": title}, **({"rangemode": "nonnegative"} if min(values, default=-1) >= 0 else {})}


def _facts(record: Record, point: Record) -> str:
    parameters = [f"{html.escape(key, quote=False)} <b>{_of(point, key)}</b>" for key in point["parameters"]]
    numbers = [
        f"{name_of(name)} {written(name, unit, point['values'].get(name))}" for name, unit in record["numbers"].items()
    ]
    return "<br>".join((*parameters, *numbers))


def _parameters(point: Record) -> str:
    return ", ".join(f"{html.escape(key, quote=False)} {_of(point, key)}" for key in point["parameters"])


def _values(point: Record, keys: Sequence[str]) -> str:
    return ", ".join(_of(point, key) for key in keys)


def _of(point: Record, key: str) -> str:
    """Return a point's value of a parameter as plotly.js may show it."""
    return html.escape(signs.parameter(point["parameters"].get(key)), quote=False)
