"""Pareto fronts and hypervolumes of points whose numbers are all better when they are smaller."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Losses = NDArray[np.float64]


def front(losses: Losses) -> list[int]:
    """Return which points no other is better than, in the order of their first number.

    A point is better than another if none of its numbers is larger and one is smaller; equal points all stay.

    Args:
        losses: (points, objectives), finite.
    """
    kept: list[int] = []
    for i in np.lexsort(losses.T[::-1]):  # a better one comes first
        others = losses[kept]
        if not np.any(np.all(others <= losses[i], axis=1) & np.any(others < losses[i], axis=1)):
            kept.append(int(i))
    return kept


def hypervolume(losses: Losses) -> float:
    """Return the volume of what is worse than one of the points, within the unit cube.

    Args:
        losses: (points, objectives); the cube's worst corner is (1, ..., 1), and points beyond it add nothing.
    Returns:
        From 0 to 1 for points in the cube; exact but for the rounding of float64.

    Source: While, Bradstreet and Barone, A fast way of calculating exact hypervolumes, IEEE Trans. Evolutionary
    Computation 16(1), 2012: points one after the other, each with what it adds to those behind it.
    """
    inside = losses[np.all(losses < 1.0, axis=1)]
    if not len(inside):
        return 0.0
    best = np.unique(inside[front(inside)], axis=0)
    if best.shape[1] == 1:
        return float(1.0 - best[0, 0])
    if best.shape[1] == 2:  # stairs: the second number falls as the first rises
        heights = np.concatenate(([1.0], best[:-1, 1])) - best[:, 1]
        return float(np.sum((1.0 - best[:, 0]) * heights))
    total = 0.0
    for i, one in enumerate(best):
        behind = np.maximum(best[i + 1 :], one)
        total += float(np.prod(1.0 - one)) - hypervolume(behind)
    return total
