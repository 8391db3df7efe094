"""A point as a search sees it: the numbers that it is for, and whether it keeps the constraints; the best of many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .objectives import Goal
from .pareto import front
from .store import Place, Point


@dataclass(frozen=True)
class Found:
    """A point with what it is looked at for.

    Args:
        parameters: of it. key: by which the store has it; None where the parameters can be no point.
        values: its objectives, and what is constrained, by name; None if it has no result, or lacks one of them.
        lacks: those of which its result has no finite number.
        feasible: whether it keeps all constraints. on_front: whether it is on the Pareto front of all.
        error: why it failed, or can be no point. computed: whether it is, with a result or an error; a point that was
            chosen by a search that ended early may be not.
    """

    parameters: Mapping[str, object]
    key: str | None
    values: Mapping[str, float] | None
    lacks: tuple[str, ...]
    feasible: bool
    on_front: bool
    error: str | None
    computed: bool

    @property
    def refused(self) -> bool:
        """Whether these parameters can be no point."""
        return self.key is None


def found_of(goal: Goal, stored: Iterable[tuple[Place, Point | None]]) -> list[Found]:
    """Return what a store has of points as a search for a goal sees it, what can be none too, in the order there."""
    points = [_found(goal, *one) for one in stored]
    places, losses = feasible_losses(goal, points)
    for i in front(losses):
        points[places[i]] = replace(points[places[i]], on_front=True)
    return points


def _found(goal: Goal, place: Place, point: Point | None) -> Found:
    """Return a point, which is not on a front yet."""
    error = place.error if point is None else point.error
    values, lacks = None, tuple[str, ...]()
    if point is not None and point.record is not None:
        values, lacks = goal.values(point.record), goal.lacks(point.record)
    feasible = values is not None and not any(goal.excesses(values).values())
    computed = point is not None or error is not None
    return Found(place.parameters, place.key, values, lacks, feasible, False, error, computed)


def absent(points: Sequence[Found]) -> tuple[str, ...]:
    """Return what the result of no point has; nothing where there is no result."""
    lacks = [point.lacks for point in points if point.values is not None or point.lacks]
    return tuple(name for name in lacks[0] if all(name in others for others in lacks)) if lacks else ()


def feasible_losses(goal: Goal, points: Sequence[Found]) -> tuple[list[int], NDArray[np.float64]]:
    """Return the places of the points that keep all constraints, and their objectives, of which less is better.

    Returns:
        The places among the points, and a matrix of shape (so many, objectives).
    """
    feasible = [(i, point.values) for i, point in enumerate(points) if point.feasible and point.values]
    losses = [goal.losses(values) for _, values in feasible]
    return [i for i, _ in feasible], np.array(losses).reshape(len(feasible), len(goal.objectives))


def front_of(goal: Goal, points: Iterable[Found]) -> tuple[Found, ...]:
    """Return the Pareto front: the feasible points than which none is better in one objective and as good in all.

    In the order of the first objective, the best first; equal ones all.
    """
    on_front = [point for point in points if point.on_front and point.values]
    return tuple(sorted(on_front, key=lambda point: goal.losses(point.values or {})))
