"""A run as one HTML file that loads nothing: styles, data and plotly.js are inside it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from simulator.report import comparison
from simulator.report import figures as signs
from simulator.report.condition_plots import condition_figures
from simulator.report.drawing import CELL, LINE, WIDTH, drawing
from simulator.report.layer_plots import (
    again_colours,
    cycle_colours,
    error_figures,
    largest_latency,
    latency_figures,
    recomputed_figures,
    timeline_command,
)
from simulator.report.plots import MODE_COLOURS, Figure, energy_figures, part_colours, tradeoff_figures
from simulator.report.roofline import roofline_figure
from simulator.result import MODE_LABELS, RunResult

TEMPLATES = Path(__file__).parent / "templates"
# Characters with which a text inside a script element could end it or open a comment.
SCRIPT_ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}
GLYPHS = {"low": "●", "high": "■", "two_pass": "◆"}


def render(run: RunResult) -> str:
    """Return the report of a run as one self-contained HTML document.

    Tables and text need no script. Figures are drawn by plotly.js, which the optional package plotly carries (about
    5 MB); without that package the report has none and says so.
    """
    library = plotly_js()
    figures = _figures(run) if library else {}
    return template("report.html.j2").render(
        run=run,
        facts=comparison.run_facts(run),
        summary=[explained(sentence) for sentence in comparison.summary(run)],
        largest_energy=comparison.largest_energy(run),
        modes=comparison.mode_rows(run),
        metrics=comparison.metric_rows(run),
        operations=(operations := comparison.other_operations(run)),
        operations_total=comparison.operations_total(operations),
        phases=any(layer.phase != "forward" for layer in run.layers),
        shown=MODE_LABELS[comparison.shown_mode(run)],
        totals=comparison.layers_total(run),
        arithmetic=comparison.arithmetic(run),
        area=comparison.area(run),
        one_mac=comparison.one_mac(run),
        gathers=comparison.gathers_by_layer(run.gathers),
        gather_sentences=comparison.gather_sentences,
        flagged=comparison.flagged_share,
        utilisation=comparison.mean_utilisation(run.layers),
        figures=figures,
        data=embed([figure for group in figures.values() for figure in group]),
        parts=part_colours(run),
        causes=cycle_colours(run),
        largest_latency=largest_latency(run),
        timeline=timeline_command(run),
        again=again_colours(run),
        conditions=comparison.conditions_by_layer(run),
        drawing=drawing(run),
        box_width=WIDTH,
        line=LINE,
        cell=CELL,
        colours=MODE_COLOURS,
        glyphs=GLYPHS,
        library=library,
        q=signs,
    )


# What sentences of the summary call their numbers, and what explains these.
EXPLAINED = {
    "top-1 accuracy": "accuracy",
    "top-1 answer of the exact run": "agreement",
    "logit RMS error": "forward-error",
    "energy": "energy",
    "latency": "latency",
    "accumulation cost": "accumulation-cost",
}


def explained(sentence: str) -> Markup:
    """Return a sentence of the summary with a link at the first name of each number to what explains it."""
    text = str(escape(sentence))
    for name, key in EXPLAINED.items():
        text = text.replace(name, f'<a class="term" href="#about-{key}">{name}</a>', 1)
    return Markup(text)


def _figures(run: RunResult) -> dict[str, list[Figure]]:
    """Return the figures of a run by the section of the page that they stand in."""
    roofline = roofline_figure(run)
    return {
        "tradeoff": tradeoff_figures(run),
        "energy": energy_figures(run),
        "latency": latency_figures(run),
        "roofline": [] if roofline is None else [roofline],
        "errors": error_figures(run),
        "conditions": condition_figures(run),
        "recomputed": recomputed_figures(run),
    }


def plotly_js() -> Markup | None:
    """Return the text of plotly.js, or None where plotly is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        return None
    # Written by plotly's authors to stand inside a script element; everything else on the page is escaped.
    return Markup(get_plotlyjs())


def embed(figures: list[Figure]) -> Markup:
    """Return figures as JSON that may stand inside a script element."""
    record = {figure.key: {"data": figure.data, "layout": figure.layout} for figure in figures}
    text = json.dumps(record, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(SCRIPT_ESCAPES))


@cache
def template(name: str) -> Template:
    """Return a template of this folder; those of pages extend page.html.j2."""
    loader = FileSystemLoader(TEMPLATES)
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template(name)
