"""Bounds of a network as one HTML file that loads nothing: what is proved, of how many samples, what costs most."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping
from typing import Any

from simulator.report import figures as signs
from simulator.report.axes import logarithmic_axis, rounded
from simulator.report.html import embed, plotly_js, template
from simulator.report.plots import Figure

Record = Mapping[str, Any]
_SHOWN = 20  # operations in a figure
_EACH = 10  # samples up to which each has a line


def render_bounds(record: Record) -> str:
    """Return the page of what `bounds` found, given as plain data; without plotly it has no figures and says so."""
    library = plotly_js()
    figures = [_margins(record), _parts(record), _bits(record)] if library else []
    figures = [figure for figure in figures if figure.data]
    return template("bounds.html.j2").render(
        record=record, figures=figures, data=embed(figures), library=library, q=signs
    )


def _margins(record: Record) -> Figure:
    """Return the bound of each sample against its margin."""
    data: list[dict[str, Any]] = []
    for certified, name, colour in ((True, "certified", "--two-pass"), (False, "not certified", "--low")):
        own = [
            (place, one) for place, one in enumerate(record["samples"])
            if one["certified"] is certified and one["margin"] is not None and one["bound"] is not None
            and one["margin"] > 0 and one["bound"] > 0
        ]  # fmt: skip
        if own:
            data.append({
                "type": "scatter", "mode": "markers", "name": name, "marker": {"size": 5, "color": colour},
                "x": [rounded(one["margin"]) for _, one in own], "y": [rounded(one["bound"]) for _, one in own],
                "text": [f"sample {place}, {one['method']}" for place, one in own],
                "hovertemplate": "%{text}<br>margin %{x}<br>bound %{y}<extra></extra>",
            })  # fmt: skip
    hidden = len(record["samples"]) - sum(len(trace["x"]) for trace in data)
    title = "Bound against margin; below the dashed line the top class cannot change"
    if hidden:
        title += f"; not shown: {signs.counted(hidden, 'sample')} without a finite bound or a margin above 0"
    margins, bounds = ([value for trace in data for value in trace[axis]] for axis in ("x", "y"))
    ends = [*margins, *bounds]
    line = {"type": "line", "line": {"color": "--muted", "width": 1, "dash": "dash"}}
    shapes = [{**line, "x0": min(ends), "y0": min(ends), "x1": max(ends), "y1": max(ends)}] if ends else []
    layout = {
        "height": 420, "shapes": shapes,
        "xaxis": logarithmic_axis(margins, "margin of the top class, exact"),
        "yaxis": logarithmic_axis(bounds, "bound of its change"),
    }  # fmt: skip
    return Figure("margins", title, data, layout)


def _parts(record: Record) -> Figure:
    """Return what each operation adds to the bound of the median sample."""
    parts = list(record["contributions"].items())[:_SHOWN]
    data = []
    if parts:
        data.append({
            "type": "bar", "orientation": "h", "marker": {"color": "--high"},
            "y": list(range(len(parts))), "x": [rounded(value) for _, value in parts],
            "customdata": [html.escape(name, quote=False) for name, _ in parts],
            "hovertemplate": "%{customdata}<br>%{x}<extra></extra>",
        })  # fmt: skip
    layout = {
        "height": 90 + 26 * max(1, len(parts)),
        "xaxis": {"title": {"text": "part of the bound, median"}},
        "yaxis": {
            "autorange": "reversed", "tickvals": list(range(len(parts))),
            "ticktext": [html.escape(signs.shorten(name, 24), quote=False) for name, _ in parts], "automargin": True,
        },
    }  # fmt: skip
    return Figure("parts", "Which operation deserves bits", data, layout)


def _bits(record: Record) -> Figure:
    """Return how many samples need how many bits."""
    required = record["required_precision"]
    data, most = [], 0
    if required is not None:
        for name, title, colour in (
            ("bits", "by the margin", "--two-pass"),
            ("confidence_bits", "by the confidence", "--high"),
        ):
            counts = Counter(of for of in required[name] or () if of)
            if counts:
                bits, most = sorted(counts), max(most, *counts.values())
                data.append({
                    "type": "bar", "name": title, "marker": {"color": colour}, "x": bits,
                    "y": [counts[of] for of in bits], "hovertemplate": "%{x} bits: %{y} samples<extra></extra>",
                })  # fmt: skip
    layout = {
        "height": 340,
        "xaxis": {"title": {"text": "significand bits that suffice"}, "dtick": 1},
        "yaxis": {"title": {"text": "samples"}, **({"dtick": 1} if most <= _EACH else {})},
    }
    return Figure("bits", "Bits that the samples need", data, layout)
