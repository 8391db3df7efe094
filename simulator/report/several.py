"""Several runs as one page: figures side by side, where energy and time go in each, what of the machines differs."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.errors import InputError
from simulator.report import figures as signs
from simulator.report.axes import in_percent, logarithmic_axis, rounded, share_axis
from simulator.report.comparison import ModeRow, energy_by_part, mode_rows, shown_mode
from simulator.report.html import embed, plotly_js, template
from simulator.report.layer_plots import cycle_colours, cycles_by_part
from simulator.report.plots import Figure, energy_bars, part_colours, rows_layout, stacked_bars
from simulator.report.side_by_side import TABLE_ENTRIES, differences, pair
from simulator.result import MODE_LABELS, RunResult, in_mm2

COLOURS = ("--high", "--low", "--two-pass", "--gather", "--sram", "--spare-1", "--vector", "--mul")
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "x", "star", "pentagon")
GLYPHS = {"circle": "●", "square": "■", "diamond": "◆", "cross": "✚", "triangle-up": "▲", "x": "✖", "star": "★",
          "pentagon": "⬟"}  # fmt: skip
DRAWN_BY_LAYER = len(COLOURS)  # runs that a figure of layers has marks for


@dataclass(frozen=True)
class Row:
    """A run in the mode that its machine runs by: its name on the page, what it is, and its figures."""

    name: str
    run: RunResult
    mode: str
    figures: ModeRow | None
    area_mm2: float | None
    colour: str
    symbol: str

    @property
    def glyph(self) -> str:
        return GLYPHS[self.symbol]

    def get(self, figure: str) -> float | None:
        """Return one of the figures, None where the run does not know it."""
        return None if self.figures is None else getattr(self.figures, figure)


def render_runs(runs: Mapping[str, RunResult]) -> str:
    """Return a page that compares runs, given by the names that it has for them, each in the mode of its own policy.

    Without plotly it has no figures and says so.

    Raises:
        InputError: there is no run.
    """
    if not runs:
        raise InputError(
            "report: got no run; expected one or more, by the names that the page has for them; give e.g. "
            '{"small": read_run("small")}'
        )
    rows = [_row(place, name, run) for place, (name, run) in enumerate(runs.items())]
    library = plotly_js()
    groups = _figures(rows) if library else {}
    return template("several.html.j2").render(
        rows=rows,
        labelled=any(row.get("accuracy") is not None for row in rows),
        ratio=ratios(rows) if len(rows) == 2 else None,
        bases=energy_bases(runs),
        differences=machine_differences(runs),
        figures=groups,
        parts=part_colours(*runs.values()),
        causes=cycle_colours(*runs.values()),
        data=embed([figure for group in groups.values() for figure in group]),
        library=library,
        q=signs,
    )


def _row(place: int, name: str, run: RunResult) -> Row:
    mode = shown_mode(run)
    own = next((row for row in mode_rows(run) if row.mode == mode), None)
    style = COLOURS[place % len(COLOURS)], SYMBOLS[place % len(SYMBOLS)]
    return Row(name, run, MODE_LABELS[mode], own, in_mm2(run.area_um2), *style)


def ratios(rows: Sequence[Row]) -> dict[str, float | None]:
    """Return the figures of the second of two runs over those of the first, None where one is not known or 0."""
    first, second = rows
    figures = ("forward_error", "cycles", "latency_s", "energy_j")
    found = {name: pair(first.get(name), second.get(name)) for name in figures}
    found["area_mm2"] = pair(first.area_mm2, second.area_mm2)
    return {name: one.ratio for name, one in found.items()}


def energy_bases(runs: Mapping[str, RunResult]) -> list[tuple[str, str]]:
    """Return what the energies rest on, each once, behind whose energy it is of: of all runs, or of some by name."""
    found: dict[str, list[str]] = {}
    for name, run in runs.items():
        found.setdefault(run.energy_basis or "nothing is priced", []).append(name)
    return [("Energy" if len(found) == 1 else f"Energy of {', '.join(names)}", basis) for basis, names in found.items()]


def machine_differences(runs: Mapping[str, RunResult]) -> list[tuple[str, list[Any]]]:
    """Return the keys of the machines whose values differ as differences does, without the technology tables."""
    found = differences([run.machine for run in runs.values()])
    return [(key, values) for key, values in found if not key.startswith(TABLE_ENTRIES)]


def _figures(rows: Sequence[Row]) -> dict[str, list[Figure]]:
    labelled = any(row.get("accuracy") is not None for row in rows)
    score = ("accuracy", "Accuracy") if labelled else ("agreement", "Agreement with exact")
    energy = ("energy_j", "energy", "J")
    tradeoff = [
        _marks(rows, *score, *energy),
        _marks(rows, "forward_error", "Logit RMS error", *energy),
        _marks(rows, *score, "latency_s", "latency", "s"),
    ]
    modes = {row.name: shown_mode(row.run) for row in rows}
    runs = [row.run for row in rows]
    energies = {row.name: energy_by_part(row.run, modes[row.name]) for row in rows}
    cycles = {row.name: cycles_by_part(row.run, modes[row.name]) for row in rows}
    groups = {
        "tradeoff": tradeoff,
        "energy": [energy_bars("energy-runs", "Energy by run", energies, *runs)],
        "latency": [
            stacked_bars("cycles-runs", "Cycles by run", cycles, cycle_colours(*runs), "cycles", "%{x:,} cycles")
        ],
        "errors": [_errors(rows)] if len(rows) <= DRAWN_BY_LAYER else [],
    }
    return {name: [figure for figure in group if figure.data] for name, group in groups.items()}


def _marks(rows: Sequence[Row], y: str, y_name: str, x: str, x_name: str, unit: str) -> Figure:
    """Return a mark for each run that knows both figures."""
    known = [(row, row.get(x), row.get(y)) for row in rows]
    points = [(row, a, b) for row, a, b in known if a is not None and b is not None and rounded(b) is not None]
    power = signs.prefix_of(max((a for _, a, _ in points), default=0))
    shares = y in ("accuracy", "agreement")
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": html.escape(row.name, quote=False),
            "x": [rounded(a / 10.0**power)],
            "y": [in_percent(b) if shares else rounded(b)],
            "cliponaxis": False,
            "marker": {"color": row.colour, "symbol": row.symbol, "size": 12},
            "hovertemplate": f"{_facts(row)}<extra></extra>",
        }
        for row, a, b in points
    ]
    axis = share_axis([b for _, _, b in points]) if shares else {"rangemode": "tozero"}
    layout = {
        "height": 260,
        "xaxis": {"title": {"text": f"{x_name}, {signs.PREFIXES[power]}{unit}"}, "rangemode": "tozero"},
        "yaxis": axis,
    }
    return Figure(f"{y}-{x}".replace("_", "-"), f"{y_name} against {x_name}", data, layout)


def _facts(row: Row) -> str:
    facts = [f"<b>{html.escape(row.name, quote=False)}</b>, {row.mode}"]
    if row.get("accuracy") is not None:
        facts.append(f"accuracy {signs.score(row.get('accuracy'))}")
    facts.append(f"logit RMS error {signs.significant(row.get('forward_error'))}")
    facts.append(
        f"energy {signs.quantity(row.get('energy_j'), 'J')}, latency {signs.quantity(row.get('latency_s'), 's')}"
    )
    return "<br>".join(facts)


def _errors(rows: Sequence[Row]) -> Figure:
    """Return the median relative error of each layer, a mark for each run."""
    names = list(dict.fromkeys(layer.title for row in rows for layer in row.run.layers))
    data: list[dict[str, Any]] = []
    for row in rows:
        own = {layer.title: layer.median_rel_error for layer in row.run.layers}
        points = [(place, rounded(own.get(name))) for place, name in enumerate(names) if own.get(name)]
        if points:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": html.escape(row.name, quote=False),
                    "x": [value for _, value in points],
                    "y": [place for place, _ in points],
                    "customdata": [html.escape(names[place], quote=False) for place, _ in points],
                    "marker": {"color": row.colour, "symbol": row.symbol, "size": 9},
                    "hovertemplate": f"%{{customdata}}<br>{html.escape(row.name, quote=False)} %{{x}}<extra></extra>",
                }
            )
    drawn = [value for trace in data for value in trace["x"]]
    layout = rows_layout(names, logarithmic_axis(drawn, "median of |v - v*| / |v*|"))
    return Figure("error-layers", "Median relative error by layer", data, layout)
