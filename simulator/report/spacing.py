"""How finely number formats resolve magnitudes, as one HTML file that loads nothing."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from simulator.errors import MissingLibraryError
from simulator.report.html import embed, plotly_js, template
from simulator.report.plots import Figure

COLOURS = ("--high", "--low", "--two-pass", "--spare-1", "--sram", "--gather", "--text", "--leak")
DASHES = {"solid": "━", "dash": "╍", "dot": "┅", "dashdot": "┉"}


def render_spacing(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Return a page with one curve a format: relative spacing against magnitude, both logarithmic.

    Args:
        curves: title of a format -> points (magnitude, distance to the next larger value / magnitude), ascending.
    Raises:
        MissingLibraryError: plotly is not installed.
    """
    library = plotly_js()
    if library is None:
        raise MissingLibraryError("plots need plotly; install it with: pip install 'ulpsim[report]'")
    styles = [(COLOURS[place % len(COLOURS)], list(DASHES)[place // len(COLOURS) % len(DASHES)])
              for place in range(len(curves))]  # fmt: skip
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": html.escape(name, quote=False),
            "x": [magnitude for magnitude, _ in points],
            "y": [spacing for _, spacing in points],
            "line": {"color": colour, "dash": dash, "width": 1.3},
            "hovertemplate": f"<b>{html.escape(name, quote=False)}</b><br>magnitude %{{x:.4g}}<br>"
            "relative spacing %{y:.3g}<extra></extra>",
        }
        for (name, points), (colour, dash) in zip(curves.items(), styles, strict=True)
    ]
    axis = {"type": "log", "exponentformat": "power", "fixedrange": False}
    layout = {
        "height": 560,
        "dragmode": "zoom",
        "xaxis": {**axis, "title": {"text": "magnitude"}},
        "yaxis": {**axis, "title": {"text": "relative spacing"}},
    }
    figure = Figure("spacing", "Distance to the next larger value, divided by the value", data, layout)
    return template("spacing.html.j2").render(
        figure=figure,
        legend=[(name, colour, DASHES[dash]) for name, (colour, dash) in zip(curves, styles, strict=True)],
        data=embed([figure]),
        library=library,
    )
