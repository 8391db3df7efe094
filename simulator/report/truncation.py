"""The study of truncation as one HTML file that loads nothing: accuracy against bits by setting, and its tables."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from simulator.report import figures as signs
from simulator.report.axes import PERCENT, in_percent
from simulator.report.html import embed, plotly_js, template
from simulator.report.plots import Figure

Row = Mapping[str, Any]
COLOURS = ("--high", "--low", "--two-pass", "--gather")
_CARRIER, _CARRIER_NAME = 0, "fp64"


def render_truncation(study: Mapping[str, Any]) -> str:
    """Return the page of a study, given as plain data; without plotly it has no figures and says so."""
    library = plotly_js()
    rows = {(row["setting"], row["bits"]): row for row in study["rows"]}
    panels = {
        what: {value: name for value, name in named.items() if any(setting == name for setting, _ in rows)}
        for what, named in study["panels"].items()
    }
    panels = {what: named for what, named in panels.items() if named and (len(named) > 1 or what == "rounding")}
    widths = sorted({bits for _, bits in rows}, key=_place)
    drawn = [_panel(what, named, rows, widths) for what, named in panels.items()]
    exponents = _exponents(study["rows"])
    drawn += [exponents] if exponents else []
    figures = drawn if library else []
    return template("truncation.html.j2").render(
        study=study,
        rows=rows,
        settings=list(dict.fromkeys(setting for setting, _ in rows)),
        widths=[(bits, _label(bits)) for bits in reversed(widths)],
        legends={figure.key: [(trace["line"]["color"], trace["name"]) for trace in figure.data] for figure in drawn},
        figures=figures,
        data=embed(figures),
        library=library,
        q=signs,
    )


def _place(bits: int) -> float:
    return float("inf") if bits == _CARRIER else bits


def _label(bits: int) -> str:
    return _CARRIER_NAME if bits == _CARRIER else str(bits)


def _panel(what: str, named: Mapping[str, str], rows: Mapping[tuple[str, int], Row], widths: Sequence[int]) -> Figure:
    """Return accuracy against bits, a curve for each value of what is varied."""
    data = []
    for (value, name), colour in zip(named.items(), COLOURS, strict=False):
        found = [rows[name, bits] for bits in widths if (name, bits) in rows]
        data.append(_curve(value, colour, [_label(row["bits"]) for row in found], found, "bits"))
    layout = {
        "height": 300,
        "xaxis": {"type": "category", "categoryorder": "array", "categoryarray": [_label(bits) for bits in widths],
                  "title": {"text": "stored significand bits"}},
        "yaxis": {**PERCENT, "range": [0, 102]},
    }  # fmt: skip
    return Figure(f"panel-{what.replace(' ', '-')}", f"Accuracy by {what}", data, layout)


def _exponents(rows: Sequence[Row]) -> Figure | None:
    """Return accuracy against bits of the exponent, None where these were not varied."""
    found = sorted(
        (row for row in rows if row["setting"].startswith("exponent ")),
        key=lambda row: (row["bits"], int(row["setting"].split()[1])),
    )
    if not found:
        return None
    data = []
    for bits, colour in zip(dict.fromkeys(row["bits"] for row in found), COLOURS, strict=False):
        these = [row for row in found if row["bits"] == bits]
        places = [row["setting"].split()[1] for row in these]
        data.append(_curve(f"{_label(bits)} significand bits", colour, places, these, "exponent bits"))
    layout = {
        "height": 300,
        "xaxis": {"type": "category", "title": {"text": "exponent bits"}},
        "yaxis": dict(PERCENT),
    }
    return Figure("panel-exponent", "Accuracy by exponent bits", data, layout)


def _curve(name: str, colour: str, x: Sequence[str], rows: Sequence[Row], what: str) -> dict[str, Any]:
    name = html.escape(name, quote=False)
    trace: dict[str, Any] = {
        "type": "scatter", "mode": "lines+markers", "name": name, "x": list(x),
        "y": [in_percent(row["accuracy"]) for row in rows], "line": {"width": 1.5, "color": colour},
        "marker": {"size": 6, "color": colour}, "cliponaxis": False,
        "hovertemplate": f"<b>{name}</b>, %{{x}} {what}<br>accuracy %{{y:.2f}} %<extra></extra>",
    }  # fmt: skip
    if any(row["deviation"] for row in rows):
        spread = [in_percent(row["deviation"] or 0.0) for row in rows]
        trace["error_y"] = {"type": "data", "array": spread, "thickness": 1, "width": 3, "color": colour}
    return trace
