"""A study of two-pass accumulation as one HTML file that loads nothing: its table and its figures."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from simulator.report import figures as signs
from simulator.report.axes import PERCENT, in_percent, logarithmic_axis, rounded
from simulator.report.html import embed, plotly_js, template
from simulator.report.plots import Figure

Row = Mapping[str, Any]
COLOURS = ("--two-pass", "--low", "--high", "--sram", "--gather", "--spare-1", "--spare-2", "--mul")
SHARES = ("recomputed_macs_fraction", "accuracy", "unchanged")  # which are drawn in percent
CONTROL_COLOURS = {"random": "--muted", "largest": "--leak", "static": "--text"}
CONTROL_DASHES = {"random": "dot", "largest": "dash", "static": "dashdot"}


def render_two_pass(study: Mapping[str, Any]) -> str:
    """Return the page of a study, given as plain data; without plotly it has no figures and says so."""
    library = plotly_js()
    own = [row for row in study["points"] if row["control_of"] is None]
    scores = list(dict.fromkeys(row["score"] for row in own))
    colours = {score: COLOURS[place % len(COLOURS)] for place, score in enumerate(scores)}
    layers = [layer["layer"] for layer in study["conditions"]]
    of_layers = {layer: COLOURS[place % len(COLOURS)] for place, layer in enumerate(layers)}
    figures = [_errors(study, colours), _accuracies(study, colours)] if library else []
    conditions = _conditions(study, of_layers) if library else []
    return template("two_pass.html.j2").render(
        study=study,
        rows=[(row, {name: _controls(study, row, name) for name in CONTROL_COLOURS}) for row in own],
        layers=[layer["name"] for layer in own[0]["layers"]],
        colours=colours,
        controls=CONTROL_COLOURS,
        of_layers=of_layers,
        figures=[figure for figure in figures if figure.data],
        conditions=[figure for figure in conditions if figure.data],
        data=embed([figure for figure in (*figures, *conditions) if figure.data]),
        library=library,
        q=signs,
    )


def _controls(study: Row, point: Row, name: str) -> float | None:
    """Return the mean error of a control that recomputes what a point does."""
    found = [
        row["logit_error_rms"] for row in study["points"]
        if row["score"] == name and row["control_of"] == point["score"]
        and (row["tolerance"], row["budget"]) == (point["tolerance"], point["budget"])
    ]  # fmt: skip
    return sum(found) / len(found) if found and None not in found else None


def _curve(
    name: str, rows: Sequence[Row], x: str, y: str, style: Mapping[str, Any], interval: str | None
) -> dict[str, Any]:
    def drawn(number: str, value: float) -> float | None:
        return in_percent(value) if number in SHARES else rounded(value)

    known = sorted((row for row in rows if row[x] is not None and row[y] is not None), key=lambda row: row[x])
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": html.escape(name, quote=False),
        "x": [drawn(x, row[x]) for row in known],
        "y": [drawn(y, row[y]) for row in known],
        "text": [_facts(row) for row in known],
        "hovertemplate": "%{text}<extra></extra>",
        "line": {"width": 1.3, **style},
        "marker": {"size": 7, "color": style["color"]},
    }
    ends = [row[interval] for row in known] if interval else []
    if ends and all(ends):
        trace["error_y"] = {
            "type": "data", "symmetric": False, "thickness": 1, "width": 3, "color": style["color"],
            "array": [drawn(y, to - row[y]) for row, (_, to) in zip(known, ends, strict=True)],
            "arrayminus": [drawn(y, row[y] - start) for row, (start, _) in zip(known, ends, strict=True)],
        }  # fmt: skip
    return trace


def _facts(row: Row) -> str:
    level = f"budget {signs.percent(row['budget'])}" if row["budget"] is not None else f"tolerance {row['tolerance']:g}"
    name = row["score"] if row["control_of"] is None else f"{row['score']}, at the shares of {row['control_of']}"
    facts = [f"<b>{html.escape(name, quote=False)}</b>, {level}"]
    facts.append(f"MACs again {signs.percent(row['recomputed_macs_fraction'])}")
    facts.append(f"logit RMS error {signs.significant(row['logit_error_rms'])}")
    if row["accuracy"] is not None:
        facts.append(f"accuracy {signs.score(row['accuracy'])}")
    facts.append(f"C/C_high {signs.significant(row['accumulation_cost'])}")
    return "<br>".join(facts)


def _errors(study: Row, colours: Mapping[str, str]) -> Figure:
    """Return the error of the logits against the share of MACs that are computed again."""
    x, y = "recomputed_macs_fraction", "logit_error_rms"
    data = []
    for score, colour in colours.items():
        rows = [row for row in study["points"] if row["score"] == score and row["control_of"] is None]
        data.append(_curve(score, rows, x, y, {"color": colour}, "logit_error_interval"))
    first = next(iter(colours))
    for name, colour in CONTROL_COLOURS.items():
        if name == "static":  # of the same cost, and not of the same share
            continue
        rows = [
            row for row in study["points"] if row["score"] == name and row["control_of"] == first and not row["seed"]
        ]
        if rows:
            data.append(_curve(name, rows, x, y, {"color": colour, "dash": CONTROL_DASHES[name]}, None))
    levels = {mode: study["baselines"][mode]["logit_error_rms"] for mode in ("low", "high")}
    values = [value for trace in data for value in trace["y"] if value]
    spans = [end for row in study["points"] for end in row["logit_error_interval"] or () if row["score"] in colours]
    drawn = [value for value in (*values, *levels.values(), *spans) if value] if values else []
    layout = {
        "height": 420,
        "xaxis": {"title": {"text": "MACs computed again"}, **PERCENT, "rangemode": "tozero"},
        "yaxis": logarithmic_axis(drawn, "logit RMS error against exact accumulation", pad=1.3),
        "shapes": [_level(level, f"--{mode}") for mode, level in levels.items() if values and level],
    }
    title = f"Forward error; dashed: uniform modes; controls at the shares of {first}"
    return Figure("errors", title, data, layout)


def _level(value: float, colour: str) -> dict[str, Any]:
    line = {"color": colour, "width": 1, "dash": "dash"}
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": rounded(value),
        "y1": rounded(value),
        "line": line,
    }


def _accuracies(study: Row, colours: Mapping[str, str]) -> Figure:
    """Return accuracy, or else the share of unchanged answers, against cost."""
    labelled = study["baselines"]["low"]["accuracy"] is not None
    title = "Accuracy against cost" if labelled else "Answers as of exact accumulation against cost"
    points = [
        {**row, "unchanged": None if row["changed_decisions"] is None else 1 - row["changed_decisions"]}
        for row in study["points"]
    ]
    y = "accuracy" if labelled else "unchanged"
    data = [
        _curve(
            score, [row for row in points if row["score"] == score and row["control_of"] is None],
            "accumulation_cost", y, {"color": colour}, "accuracy_interval" if labelled else None,
        )
        for score, colour in colours.items()
    ]  # fmt: skip
    layout: dict[str, Any] = {
        "height": 420,
        "xaxis": {"title": {"text": "accumulation cost, uniform high = 1"}},
        "yaxis": dict(PERCENT),
    }
    if labelled and study["baselines"]["exact"]["accuracy"] is not None:
        layout["shapes"] = [_level(100 * study["baselines"]["exact"]["accuracy"], "--muted")]
        title += "; dashed: exact accumulation"
    return Figure("accuracy", title, [trace for trace in data if trace["y"]], layout)


def _conditions(study: Row, colours: Mapping[str, str]) -> list[Figure]:
    """Return the distributions of the condition numbers, a curve for each layer."""
    figures = []
    for key, what in (("kappa_v", "of the inner products, kappa_v"), ("kappa", "with the activation, kappa")):
        data: list[dict[str, Any]] = []
        for layer in study["conditions"]:
            name = html.escape(layer["layer"], quote=False)
            pairs = [(float(p), value) for p, value in layer[key].items() if value is not None and math.isfinite(value)]
            if pairs:
                data.append({
                    "type": "scatter", "mode": "lines+markers", "name": name,
                    "x": [rounded(value) for _, value in pairs], "y": [percent for percent, _ in pairs],
                    "line": {"width": 1.3, "color": colours[layer["layer"]]},
                    "hovertemplate": f"{name}<br>%{{y}} % below %{{x}}<extra></extra>",
                })  # fmt: skip
        layout = {
            "height": 360,
            "xaxis": logarithmic_axis([x for trace in data for x in trace["x"]], "condition number"),
            "yaxis": {**PERCENT, "title": {"text": "share of the active outputs below"}},
        }
        figures.append(Figure(f"conditions-{key}", f"Condition numbers {what}", data, layout))
    return figures
