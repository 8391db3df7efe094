"""The roofline of a run: what its layers reach, below what the array and the memory allow at most."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

from simulator.report.axes import logarithmic_axis, rounded
from simulator.report.comparison import layers_by_mode, shown_mode
from simulator.report.figures import count, shorten, significant
from simulator.report.plots import MODE_COLOURS, MODE_SYMBOLS, Figure
from simulator.result import MODE_LABELS, LayerResult, RunResult

LABELLED = 12  # layers that are named beside their marks; of more, hovering tells


def roofline_figure(run: RunResult) -> Figure | None:
    """Return MACs a cycle against MACs a byte of the DRAM, a mark for each layer and mode, a roof for each mode.

    A layer counts the MACs of its first pass, whatever is computed twice, so that modes compare. The roof is the least
    of the peak of the mode and of intensity times bandwidth: no layer of one pass is above it.

    Returns:
        The figure; None where the machine has no memory, or nothing is priced.
    """
    bytes_per_cycle = (run.dram_bits_per_cycle or 0) / 8
    points = {mode: list(_points(layers)) for mode, layers in layers_by_mode(run).items()}
    intensities = [intensity for own in points.values() for _, intensity, _ in own]
    if not bytes_per_cycle or not intensities:
        return None
    peaks = {mode: peak for mode, peak in run.peak_macs_per_cycle.items() if peak > 0}
    ridges = [peak / bytes_per_cycle for peak in peaks.values()]
    least, most = min((*intensities, *ridges)) / 2, max((*intensities, *ridges)) * 2
    data = [_roof(mode, peak, bytes_per_cycle, least, most) for mode, peak in peaks.items()]
    data += [_marks(mode, own, mode == shown_mode(run)) for mode, own in points.items() if own]
    heights = [min(peak, least * bytes_per_cycle) for peak in peaks.values()]
    attained = [attained for own in points.values() for _, _, attained in own]
    floor, top = min((*heights, *attained)) / 2, max((*peaks.values(), *attained)) * 2.5
    layout = {
        "height": 420,
        "xaxis": logarithmic_axis((least, most), "arithmetic intensity, MACs a byte of DRAM", pad=1),
        "yaxis": logarithmic_axis((floor, top), "MACs a cycle", pad=1),
    }
    return Figure("roofline", "MACs a cycle against arithmetic intensity", data, layout)


def _points(layers: Iterable[LayerResult]) -> Iterable[tuple[LayerResult, float, float]]:
    """Yield the layers that take cycles and move data, with MACs a byte of DRAM and MACs a cycle."""
    for layer in layers:
        moved = layer.traffic_bits.get("dram", 0) / 8
        if layer.cycles and moved and layer.macs:
            yield layer, layer.macs / moved, layer.macs / layer.cycles


def _roof(mode: str, peak: float, bytes_per_cycle: float, least: float, most: float) -> dict[str, Any]:
    label = f"{mode}: {count(peak)} MACs a cycle"
    ridge = peak / bytes_per_cycle
    return {
        "type": "scatter",
        "mode": "lines+text",
        "name": f"roof of {html.escape(mode, quote=False)}",
        "x": [rounded(x) for x in (least, ridge, most)],
        "y": [rounded(y) for y in (least * bytes_per_cycle, peak, peak)],
        "text": ["", "", html.escape(label, quote=False)],
        "textposition": "top left",
        "textfont": {"color": MODE_COLOURS.get(mode, "--muted")},
        "line": {"color": MODE_COLOURS.get(mode, "--muted"), "width": 1.5},
        "hoverinfo": "skip",
    }


def _marks(mode: str, points: list[tuple[LayerResult, float, float]], named: bool) -> dict[str, Any]:
    named = named and len(points) <= LABELLED
    return {
        "type": "scatter",
        "mode": "markers+text" if named else "markers",
        "name": MODE_LABELS[mode],
        "x": [rounded(intensity) for _, intensity, _ in points],
        "y": [rounded(attained) for _, _, attained in points],
        "customdata": [html.escape(layer.title, quote=False) for layer, _, _ in points],
        "text": [html.escape(shorten(layer.title, 16), quote=False) for layer, _, _ in points],
        "textposition": "bottom center",
        "marker": {"color": MODE_COLOURS[mode], "symbol": MODE_SYMBOLS[mode], "size": 9},
        "hovertext": [_facts(mode, *point) for point in points],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _facts(mode: str, layer: LayerResult, intensity: float, attained: float) -> str:
    return (
        f"<b>{html.escape(layer.title, quote=False)}</b>, {MODE_LABELS[mode]}<br>{significant(attained)} MACs a cycle"
        f"<br>{significant(intensity)} MACs a byte"
    )
