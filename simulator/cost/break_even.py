"""The share of flags up to which two passes are worth their energy."""

from __future__ import annotations

import math
from collections.abc import Iterable

_HALVINGS = 60  # of the interval 0 to 1, beyond the digits of a float


def waste_factor(flagged: float, group: int) -> float:
    """Return gamma, outputs recomputed over outputs flagged, for independent flags recomputed in groups of `group`."""
    return share_recomputed(flagged, group) / flagged if flagged else float(group)


def share_recomputed(flagged: float, group: int) -> float:
    """Return the share of outputs recomputed for a share of independent flags, in groups of `group`."""
    return -math.expm1(group * math.log1p(-flagged)) if flagged < 1.0 else 1.0


def break_even(low_j: float, side_j: float, high_j: float, group: int = 1) -> float:
    """Return the fraction of independent flags at which two passes cost as much as one in the high mode.

    Args:
        low_j, side_j, high_j: energy per MAC of the first pass, of its scoring, of the high mode.
        group: outputs recomputed together.
    Returns:
        f with gamma(f) * f = x, x = 1 - (low + side)/high; 0 where the first pass alone costs more.
    """
    return common_break_even(high_j - low_j - side_j, [(high_j, group)])


def common_break_even(saved_j: float, groups: Iterable[tuple[float, int]]) -> float:
    """Return the fraction of independent flags at which recomputing costs what the first pass saves.

    Args:
        saved_j: energy of the high mode less that of the first pass and its scores.
        groups: (energy to recompute all that is recomputed in groups of this size, outputs of such a group).
    Returns:
        In 0..1: 0 where nothing is saved, 1 where all could be recomputed for it.
    """
    groups = list(groups)
    if saved_j <= 0.0:
        return 0.0
    if saved_j >= sum(joules for joules, _ in groups):
        return 1.0
    least, most = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (least + most) / 2
        if sum(joules * share_recomputed(middle, size) for joules, size in groups) < saved_j:
            least = middle
        else:
            most = middle
    return most
