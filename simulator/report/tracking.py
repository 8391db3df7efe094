"""Bits of a tracked run as one HTML file that loads nothing, and as the files of a directory."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simulator.report import bits
from simulator.report import figures as signs
from simulator.report.axes import PERCENT, in_percent
from simulator.report.directories import Contents, check_replaceable, replace_directory
from simulator.report.html import embed, plotly_js, template
from simulator.report.plots import Figure

Record = Mapping[str, Any]
JSON, TENSORS, UPDATES, PAGE = "track.json", "bits.csv", "updates.csv", "track.html"
EARLIER = Contents("an earlier report of bits", (JSON, TENSORS, UPDATES, PAGE))
COLOURS = {"safe": "--two-pass", "expected": "--high", "certain_noise": "--low"}
GLYPHS = {"safe": "●", "expected": "■", "certain_noise": "◆"}
_SYMBOLS = {"safe": "circle", "expected": "square", "certain_noise": "diamond"}
_PREFIXES = {"gradient of parameter": "gradient of ", "parameter": "parameter "}
_STEPS, _TENSORS = 300, 80  # in a figure
_SCALE = "Viridis"  # the same to all eyes, on white and on black


def render_tracking(record: Record) -> str:
    """Return the page of a report given as plain data; without plotly it has no figures and says so."""
    library = plotly_js()
    figures: dict[str, list[Figure]] = {"bits": [], "histograms": [], "shares": []}
    if library and record["tensors"]:
        figures = {"bits": _heat_maps(record), "histograms": _histograms(record), "shares": _over_time(record)}
    shown = {key: [figure for figure in group if figure.data] for key, group in figures.items()}
    return template("tracking.html.j2").render(
        record=record,
        labels=bits.labels_of(record),
        colours=COLOURS,
        glyphs=GLYPHS,
        kept=len({row["step"] for row in record["tensors"]}),
        first_below=bits.first_below(record),
        last_step=bits.last_step(record),
        shares=bits.shares(record),
        notes=bits.notes(record),
        figures=shown,
        data=embed([figure for group in shown.values() for figure in group]),
        library=library,
        labelled=bits.labelled,
        few=bits.few,
        q=signs,
    )


def check_directory(directory: str | os.PathLike[str]) -> Path:
    """Return the absolute path of `directory` if a report may be saved there; errors as of `check_replaceable`."""
    return check_replaceable(directory, EARLIER)


def save_tracking(record: Record, directory: str | os.PathLike[str]) -> Path:
    """Write track.json, bits.csv, updates.csv and track.html, in place of earlier ones, all or none.

    Returns:
        The absolute path of the directory.
    Raises:
        InputError: `directory` must not be replaced or could not be written; see `replace_directory`.
    """
    files = {
        JSON: to_json(record), TENSORS: _csv(record["tensors"]), UPDATES: _csv(record["updates"]),
        PAGE: render_tracking(record),
    }  # fmt: skip
    return replace_directory(directory, EARLIER, files)


def to_json(record: Record) -> str:
    """Return a report as strict JSON; what is not finite is null."""
    return json.dumps(_finite(record), indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(rows: Sequence[Record]) -> str:
    """Return rows without their histograms."""
    columns = [name for name in rows[0] if name != "counts"] if rows else []
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _steps(record: Record) -> list[int]:
    """Return the steps that figures show: all that were kept, or evenly chosen ones."""
    kept = sorted({row["step"] for row in record["tensors"]})
    if len(kept) <= _STEPS:
        return kept
    return [kept[i * (len(kept) - 1) // (_STEPS - 1)] for i in range(_STEPS)]


def _heat_maps(record: Record) -> list[Figure]:
    """Return median bits by tensor and step, a figure for each label."""
    steps = _steps(record)
    place = {step: i for i, step in enumerate(steps)}
    found = []
    for label in bits.labels_of(record):
        medians: dict[tuple[str, str], list[float | None]] = {}
        most = 1
        for row in record["tensors"]:
            if row["label"] == label["label"] and row["step"] in place:
                line = medians.setdefault((row["kind"], row["name"]), [None] * len(steps))
                line[place[row["step"]]] = row["median"]
                most = max(most, row["most"])
        names = [_PREFIXES.get(kind, "") + name for kind, name in medians][:_TENSORS]
        title = f"Median bits, {bits.labelled(label)}"
        title += f", the first {_TENSORS} of {len(medians)} tensors" if len(medians) > _TENSORS else ""
        data = [{
            "type": "heatmap", "x": steps, "y": list(range(len(names))), "z": list(medians.values())[:_TENSORS],
            "zmin": 0, "zmax": most, "colorscale": _SCALE, "xgap": 0 if len(steps) > 40 else 1, "ygap": 1,
            "customdata": [[html.escape(name, quote=False)] * len(steps) for name in names],
            "hovertemplate": "%{customdata}<br>step %{x}: %{z} bits<extra></extra>",
            "colorbar": {"title": {"text": "bits"}, "thickness": 12, "outlinewidth": 0},
        }]  # fmt: skip
        layout = {
            "height": 90 + 19 * len(names),
            "xaxis": _steps_axis(steps),
            "yaxis": {
                "autorange": "reversed", "tickvals": list(range(len(names))), "showgrid": False,
                "ticktext": [html.escape(signs.shorten(name, 34), quote=False) for name in names],
            },
        }  # fmt: skip
        found.append(Figure(f"bits-{label['label']}", title, data, layout))
    return found


def _steps_axis(steps: Sequence[int]) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": {"text": "step"}, "showgrid": False}
    return {**axis, "tickvals": steps} if len(steps) <= 12 else axis


def _histograms(record: Record) -> list[Figure]:
    """Return the share of elements by bits over the steps: of gradients of parameters, or of values in inference."""
    steps = _steps(record)
    place = {step: i for i, step in enumerate(steps)}
    trained = any(row["kind"] == "gradient of parameter" for row in record["tensors"])
    kind = "gradient of parameter" if trained else "value"
    what = "gradients of parameters" if trained else "values"
    found = []
    for label in bits.labels_of(record):
        own = [
            row for row in record["tensors"]
            if row["label"] == label["label"] and row["kind"] == kind and row["step"] in place
        ]  # fmt: skip
        most = max((row["most"] for row in own), default=0)
        shares = [[0.0] * len(steps) for _ in range(most + 1)]
        elements = [0] * len(steps)
        for row in own:
            column = place[row["step"]]
            elements[column] += row["elements"]
            for of, count in enumerate(row["counts"]):
                shares[of][column] += count / row["sampled"] * row["elements"]
        z = [[in_percent(x / n) if n else None for x, n in zip(line, elements, strict=True)] for line in shares]
        data = [{
            "type": "heatmap", "x": steps, "y": list(range(most + 1)), "z": z, "zmin": 0, "colorscale": _SCALE,
            "hovertemplate": "step %{x}: %{z:.1f} % have %{y} bits<extra></extra>",
            "colorbar": {**PERCENT, "thickness": 12, "outlinewidth": 0},
        }]  # fmt: skip
        layout = {
            "height": 330, "xaxis": _steps_axis(steps),
            "yaxis": {"title": {"text": f"bits, {label['label']}"}, "showgrid": False},
        }  # fmt: skip
        title = f"Share of the elements of {what} by bits, {bits.labelled(label)}"
        found.append(Figure(f"histogram-{label['label']}", title, data if own else [], layout))
    return found


def _over_time(record: Record) -> list[Figure]:
    """Return how much of gradients is noise, and how much of updates is below it or lost."""
    lost = next(iter(bits.updates(record, "lost").values()), {})
    return [
        _lines("noise", "Gradient entries that are pure noise", bits.gradient_noise(record), {}, record),
        _lines(
            "updates", "Updates below the noise; dotted: lost, the parameter did not change",
            bits.updates(record, "below_noise"), lost, record,
        ),
    ]  # fmt: skip


def _lines(
    key: str, title: str, by_label: Mapping[str, Mapping[int, float]], lost: Mapping[int, float], record: Record
) -> Figure:
    data: list[dict[str, Any]] = []
    guarantees = {row["label"]: row["guarantee"] for row in bits.labels_of(record)}
    lines = [
        (f"{name} ({guarantees[name]})", by_label[name], COLOURS[name], "solid", _SYMBOLS[name]) for name in by_label
    ]
    lines += [("lost (of the sample)", lost, "--muted", "dot", "cross")] if lost else []
    for name, by_step, colour, dash, symbol in lines:
        data.append({
            "type": "scatter", "mode": "lines+markers" if len(by_step) <= 40 else "lines", "name": name,
            "x": list(by_step), "y": [in_percent(share) for share in by_step.values()], "cliponaxis": False,
            "line": {"color": colour, "width": 1.6, "dash": dash},
            "marker": {"color": colour, "symbol": symbol, "size": 6},
            "hovertemplate": f"{name}<br>step %{{x}}: %{{y:.2f}} %<extra></extra>",
        })  # fmt: skip
    top = max((y for trace in data for y in trace["y"]), default=0.0)
    layout = {
        "height": 330, "xaxis": {**_steps_axis(_steps(record)), "showgrid": True},
        "yaxis": {**PERCENT, "range": [0, max(1.05 * top, 0.1)]},
    }  # fmt: skip
    return Figure(key, title, data, layout)
