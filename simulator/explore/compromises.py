"""The points of a sweep or a search with their numbers and their Pareto front, as plain data for a page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from .found import found_of
from .objectives import OBJECTIVES, Goal, objective, value
from .search import goal_in, searched
from .store import Point, Store, directory

SCORES = ("accuracy", "agreement", "forward_error")  # of which a sweep's front has the first that its points know
COSTS = ("energy_j", "latency_s", "area_mm2")


def compromises(path: str | os.PathLike[str], sweep: str | None = None) -> dict[str, Any]:
    """Return the points of a sweep or a search, with their Pareto front, as `report.render_front` takes them.

    Points that are not computed yet, of one that was interrupted or is under way, are counted and left out.

    The front of a search is of its objectives, among the points that keep its constraints. That of a sweep is of
    accuracy and energy; of agreement or error without labels; of latency and energy where points are only priced.

    Args:
        path: of the store, a directory. sweep: its name there; None for the only one.
    Raises:
        InputError: there is no store, or no such sweep in it, or several of which none is named.
    """
    path = directory(path)
    with Store(path) as store:
        name = store.only_sweep(sweep)
        said = store.goal(name)
        missing = store.sweeps()[name].missing
        stored = list(store.of_sweep(name))
    goal = _default_goal([point for _, point in stored]) if said is None else goal_in(said)
    points_of = found_of(goal, stored)
    found = searched(path, name, goal, len(stored) if said is None else said["grid"], points_of)
    numbers = list(dict.fromkeys((*goal.objectives, *goal.constraints, *COSTS)))
    points: list[dict[str, Any]] = []
    for one, (_, point) in zip(points_of, stored, strict=True):
        if one.computed:
            record = None if point is None else point.record
            values = {} if record is None else {number: value(record, number) for number in numbers}
            points.append({"parameters": dict(one.parameters), "values": values, "error": one.error,
                           "refused": one.refused, "feasible": one.feasible,
                           "on_front": one.on_front})  # fmt: skip
    known = [number for number in numbers if any(one["values"].get(number) is not None for one in points)]
    shown = dict.fromkeys((*goal.objectives, *goal.constraints, *known))
    return {
        "name": name, "store": str(path), "objectives": dict(goal.objectives),
        "numbers": {number: objective(number).unit for number in shown},
        "constraints": {number: dict(interval) for number, interval in goal.constraints.items()},
        "search": None if said is None else {
            "grid": found.grid, "axes": said["axes"], "chosen": len(found.points), "hypervolumes": found.hypervolumes,
        },
        "missing": missing, "why_none": found.why_none, "points": points,
    }  # fmt: skip


def _default_goal(points: Sequence[Point | None]) -> Goal:
    """Return what the front of a sweep is of: how good answers are and energy, or time and energy of what is priced."""
    records = [point.record for point in points if point is not None and point.record is not None]
    scored = [name for name in SCORES if any(value(record, name) is not None for record in records)]
    first = scored[0] if scored else "latency_s"
    return Goal({first: OBJECTIVES[first].direction, "energy_j": "min"})
