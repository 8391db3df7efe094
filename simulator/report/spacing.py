"""How finely number formats resolve magnitudes, as one HTML file that loads nothing."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from simulator.errors import MissingLibraryError
from simulator.report.html import embed, plotly_js, template
from simulator.report.plots import Figure

COLOURS = ("--high", "--low", "--two-pass", "--spare-1", "--sram", "--gather", "--text", "--leak")
DASHES = {"solid": "━", "dash": "╍", "dot": "┅", "dashdot": "┉"}


class Point(NamedTuple):
    """A magnitude and the distance to the next larger one divided by it: logarithms to base 2, and both in words."""

    log2_magnitude: float
    log2_spacing: float
    magnitude: str
    spacing: str


def render_spacing(curves: Mapping[str, Sequence[Point]]) -> str:
    """Return a page with one curve a format: relative spacing against magnitude, both as powers of two.

    The axes are linear in the exponents, so that magnitudes beyond float64 have their places too.

    Args:
        curves: title of a format -> points, ascending.
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
            "x": [point.log2_magnitude for point in points],
            "y": [point.log2_spacing for point in points],
            "customdata": [[point.magnitude, point.spacing] for point in points],
            "line": {"color": colour, "dash": dash, "width": 1.3},
            "hovertemplate": f"<b>{html.escape(name, quote=False)}</b><br>magnitude %{{customdata[0]}}<br>"
            "relative spacing %{customdata[1]}<extra></extra>",
        }
        for (name, points), (colour, dash) in zip(curves.items(), styles, strict=True)
    ]
    axis = {"type": "linear", "tickprefix": "2<sup>", "ticksuffix": "</sup>", "fixedrange": False}
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
