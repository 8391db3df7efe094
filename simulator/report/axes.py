"""Numbers and axes of figures as plotly.js takes them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

PERCENT = {"ticksuffix": " %"}  # of an axis in percent, written as in texts, which the formats of plotly.js do not do
POWERS_SHOWN = 8  # beyond so many powers of ten, an axis names every second or third of them


def rounded(value: float | None) -> float | None:
    """Return `value` with five significant digits, as a figure needs; None where a plot cannot hold it."""
    return float(f"{value:.5g}") if value is not None and math.isfinite(value) else None


def in_percent(share: float | None) -> float | None:
    """Return a share of 1 as the axes of shares have it."""
    return None if share is None else rounded(100 * share)


def logarithmic_axis(values: Iterable[float], title: str, pad: float = 2.0) -> dict[str, Any]:
    """Return a logarithmic axis around positive numbers, with ticks at 1, 2 and 5, or at powers of ten alone.

    Args:
        values: all that is drawn; of none, plotly.js finds the ends. pad: the factor that is free on either side.
    """
    known = list(values)
    axis = {"type": "log", "exponentformat": "power", "title": {"text": title}}
    if not known:
        return axis
    least, most = min(known) / pad, max(known) * pad
    start, end = math.log10(least), math.log10(most)
    digits = (1, 2, 5) if end - start < 2.5 else (1,)
    step = math.ceil((end - start) / POWERS_SHOWN)
    powers = [power for power in range(math.floor(start), math.ceil(end) + 1) if power % step == 0]
    ticks = [digit * 10.0**power for power in powers for digit in digits]
    shown = [rounded(tick) for tick in ticks if least <= tick <= most]
    return {**axis, "range": [rounded(start), rounded(end)], "tickvals": shown}


def share_axis(values: Iterable[float], room: float = 0.15) -> dict[str, Any]:
    """Return an axis around scores or other shares of 1, at least half a percent high, in percent, see in_percent.

    Args:
        values: all that is drawn; of none, plotly.js finds the ends. room: what is free on either side, as a part of
            what they span.
    """
    known = list(values)
    if not known:
        return dict(PERCENT)
    pad = max(room * (max(known) - min(known)), 0.0025)
    # Of scores the last tick is 100 %, with room for half a marker above it.
    top = max(known) + pad if max(known) > 1 else min(max(known) + pad, 1 + pad / 5)
    return {**PERCENT, "range": [in_percent(min(known) - pad), in_percent(top)]}
