"""Figures of the layers of a run: where their time goes, how far off they are, what of them is computed again."""

from __future__ import annotations

import html
import shlex
from typing import Any

from simulator.report.axes import PERCENT, logarithmic_axis, rounded
from simulator.report.comparison import layers_by_mode, shown_mode, sum_parts
from simulator.report.plots import (
    MODE_COLOURS,
    MODE_SYMBOLS,
    Figure,
    most_of,
    rows_layout,
    stacked_bars,
    together,
)
from simulator.result import MODE_LABELS, VECTOR_UNIT, LayerResult, RunResult

# The array at work is blue, what fills and empties it green, waiting for memory warm, the second pass red.
CYCLE_COLOURS = {
    "compute": "--mul",
    "load": "--register",
    "fill": "--idle",
    "drain": "--side",
    "memory_stall": "--dram",
    "transfer_stall": "--dram",
    "port_stall": "--sram",
    "bank_stall": "--spare-1",
    "buffer_stall": "--spare-2",
    "latency_stall": "--leak",
    "queue_stall": "--low",
    "gather": "--gather",
    "switch": "--spare-1",
    VECTOR_UNIT: "--vector",
}
BUNDLED = "hwconfigs/"  # where the files of machines lie that go by their names
AGAIN_COLOURS = {"flagged": "--two-pass", "neighbours": "--idle"}


def cycle_colours(*runs: RunResult) -> dict[str, str]:
    """Return the colour of each cause of cycles that is not zero in every mode of all runs."""
    sums = sum_parts(cycles_by_part(run, mode) for run in runs for mode in layers_by_mode(run))
    return {name: CYCLE_COLOURS.get(name, "--muted") for name in (*CYCLE_COLOURS, *sums) if sums.get(name)}


def again_colours(run: RunResult) -> dict[str, str]:
    """Return the colours of flagged outputs, and of their neighbours where some are recomputed."""
    sums = sum_parts(_again(layer) for layer in run.layers if layer.pass_outputs)
    return {name: colour for name, colour in AGAIN_COLOURS.items() if sums.get(name)}


def latency_figures(run: RunResult) -> list[Figure]:
    """Return the cycles of the modes and of the layers by cause, as stacked bars; those of which anything is known."""
    colours = cycle_colours(run)
    modes = {MODE_LABELS[mode]: cycles_by_part(run, mode) for mode in layers_by_mode(run)}
    shown, title = most_of("Cycles by layer", run, run.layers, _cycles)
    layers = together((layer.title, layer.cycle_parts) for layer in shown)
    figures = [
        stacked_bars("cycles-modes", "Cycles by mode", modes, colours, "cycles", "%{x:,} cycles"),
        stacked_bars("cycles-layers", title, layers, colours, "cycles", "%{x:,} cycles"),
    ]
    return [figure for figure in figures if figure.data]


def largest_latency(run: RunResult) -> str:
    """Return a sentence that names the cause of most cycles; an empty text where nothing is priced."""
    parts = cycles_by_part(run, shown_mode(run))
    cycles = sum(parts.values())
    if not cycles:
        return ""
    largest = max(parts, key=lambda name: parts[name])
    share = f"{100 * parts[largest] / cycles:.0f} % of {cycles:,.0f}"
    return f"The largest part of the {MODE_LABELS[shown_mode(run)]} cycles is {largest.replace('_', ' ')}: {share}."


def timeline_command(run: RunResult) -> str:
    """Return the command that writes the events of the layer with most cycles for Perfetto; empty if none has any."""
    priced = [layer for layer in run.layers if layer.cycles and layer.m and layer.n and layer.k]
    if not priced:
        return ""
    layer = max(priced, key=_cycles)
    file = next((setting.origin for setting in run.machine if not setting.key), "")
    machine = run.hardware if not file or file.startswith(BUNDLED) else file
    twice = f"--flagged {layer.flagged_outputs / (layer.gemms * layer.m * layer.n):.3g} " if layer.pass_outputs else ""
    return (
        f"python -m simulator estimate --hw {shlex.quote(machine)} "
        f"--gemm {layer.m} {layer.n} {layer.k} {twice}--fidelity event --trace timeline.json"
    )


def error_figures(run: RunResult) -> list[Figure]:
    """Return the median relative error of each layer, and its signal-to-noise ratio, a mark for each mode."""
    measures = (
        ("error-layers", "Median relative error", "median_rel_error", "median of |v - v*| / |v*|", "log"),
        ("sqnr-layers", "Signal-to-quantisation-noise ratio", "sqnr_db", "SQNR, dB", "linear"),
    )
    figures = [_marks(run, *measure) for measure in measures]
    return [figure for figure in figures if figure.data]


def recomputed_figures(run: RunResult) -> list[Figure]:
    """Return the share of each layer's outputs that is flagged, and that of those recomputed along with them."""
    twice = [layer for layer in run.layers if layer.pass_outputs and layer.gemms * layer.m * layer.n]
    shown, title = most_of("Outputs computed again by layer", run, twice, _cycles)
    splits = {layer.title: _again(layer) for layer in shown}
    figure = stacked_bars("recomputed", title, splits, AGAIN_COLOURS, "share of the outputs", "%{x:.2f} %")
    figure.layout["xaxis"] |= {**PERCENT, "range": [0, 102]}
    return [figure] if figure.data else []


def _cycles(layer: LayerResult) -> int:
    return layer.cycles or 0


def _again(layer: LayerResult) -> dict[str, float]:
    """Return what of the outputs is computed again, in percent."""
    flagged = 100 * layer.flagged_outputs / (layer.gemms * layer.m * layer.n)
    return {"flagged": flagged, "neighbours": flagged * ((layer.waste_factor or 1.0) - 1.0)}


def cycles_by_part(run: RunResult, mode: str) -> dict[str, float]:
    """Return the cycles of a mode by cause: the parts of its layers, and all that is no layer as "vector unit"."""
    parts = sum_parts(layer.cycle_parts for layer in layers_by_mode(run).get(mode, ()))
    beside = (run.totals.get(mode) or {}).get("vector_cycles")
    return {**parts, VECTOR_UNIT: beside} if beside else parts


def _marks(run: RunResult, key: str, title: str, field: str, axis: str, kind: str) -> Figure:
    shown, _ = most_of(title, run, run.layers, _cycles)
    names = list(dict.fromkeys(layer.title for layer in shown))
    data: list[dict[str, Any]] = []
    for mode, layers in layers_by_mode(run).items():
        own = {layer.title: getattr(layer, field) for layer in layers}
        values = [(place, rounded(own.get(name))) for place, name in enumerate(names)]
        points = [(place, value) for place, value in values if value is not None and (kind == "linear" or value > 0)]
        if points:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": MODE_LABELS[mode],
                    "x": [value for _, value in points],
                    "y": [place for place, _ in points],
                    "customdata": [html.escape(names[place], quote=False) for place, _ in points],
                    "marker": {"color": MODE_COLOURS[mode], "symbol": MODE_SYMBOLS[mode], "size": 9},
                    "hovertemplate": f"%{{customdata}}<br>{MODE_LABELS[mode]} %{{x}}<extra></extra>",
                }
            )
    drawn = [value for trace in data for value in trace["x"]]
    xaxis = logarithmic_axis(drawn, axis) if kind == "log" else {"title": {"text": axis}}
    return Figure(key, f"{title} by layer", data, rows_layout(names, xaxis))
