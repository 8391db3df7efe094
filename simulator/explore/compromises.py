"""The points of a sweep or a search with their numbers and their Pareto front, as plain data for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simulator.errors import InputError

from .objectives import OBJECTIVES, Goal, objective, value
from .pareto import front
from .store import Point, Store

SCORES = ("accuracy", "agreement", "forward_error")  # of which a sweep's front has the first that its points know
COSTS = ("energy_j", "latency_s", "area_mm2")


def compromises(path: Path, sweep: str | None = None) -> dict[str, Any]:
    """Return the points of a sweep or a search, with their Pareto front, as `report.render_front` takes them.

    The front of a search is of its objectives, among the points that keep its constraints. That of a sweep is of
    accuracy and energy; of agreement or error without labels; of latency and energy where points are only priced.

    Args:
        path: of the store. sweep: its name there; None for the only one.
    Raises:
        InputError: there is no store, or no such sweep in it, or several of which none is named.
    """
    with Store(path) as store:
        name = _sweep_of(store, path, sweep)
        said = store.searches().get(name)
        found = list(store.of_sweep(name))
    goal = _default_goal([point for _, point in found]) if said is None else Goal(**_without_grid(said))
    numbers = list(dict.fromkeys((*goal.objectives, *goal.constraints, *COSTS)))
    points: list[dict[str, Any]] = []
    for place, point in found:
        record = None if point is None else point.record
        error = place.error if point is None else point.error
        if record is None and error is None:
            error = "not computed yet"
        values: dict[str, float | None] = {}
        if record is not None:
            values = {number: value(record, number) for number in numbers}
        points.append({"parameters": dict(place.parameters), "values": values, "error": error})
    known = [number for number in numbers if any(one["values"].get(number) is not None for one in points)]
    _mark_front(points, goal)
    return {
        "name": name, "store": str(path), "objectives": dict(goal.objectives),
        "numbers": {number: objective(number).unit for number in dict.fromkeys((*goal.objectives, *known))},
        "constraints": [_words(name, interval) for name, interval in goal.constraints.items()], "points": points,
    }  # fmt: skip


def _without_grid(said: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in said.items() if key != "grid"}


def _sweep_of(store: Store, path: Path, sweep: str | None) -> str:
    known = list(store.sweeps())
    if sweep is None and len(known) == 1:
        return known[0]
    if sweep not in known:
        raise InputError(
            f"{path}: got {'no sweep' if sweep is None else repr(sweep)}; expected one of "
            f"{', '.join(known) or 'none, there is none'}; give --sweep NAME"
        )
    return sweep


def _default_goal(points: Sequence[Point | None]) -> Goal:
    """Return what the front of a sweep is of: how good answers are and energy, or time and energy of what is priced."""
    records = [point.record for point in points if point is not None and point.record is not None]
    scored = [name for name in SCORES if any(value(record, name) is not None for record in records)]
    first = scored[0] if scored else "latency_s"
    return Goal({first: OBJECTIVES[first].direction, "energy_j": "min"})


def _mark_front(points: Sequence[dict[str, Any]], goal: Goal) -> None:
    """Say of each point whether it keeps the constraints, and whether it is on the front of those that do."""
    losses = []
    for point in points:
        values = {name: point["values"].get(name) for name in goal.names}
        complete = point["error"] is None and None not in values.values()
        point["feasible"] = complete and not any(goal.excesses(values).values())
        point["on_front"] = False
        if point["feasible"]:
            losses.append(goal.losses(values))
    feasible = [point for point in points if point["feasible"]]
    for place in front(np.array(losses).reshape(len(feasible), len(goal.objectives))):
        feasible[place]["on_front"] = True


def _words(name: str, interval: Mapping[str, float]) -> str:
    ends = [f"{word} {interval[end]:g}" for end, word in (("from", "at least"), ("to", "at most")) if end in interval]
    return f"{name} {' and '.join(ends)}"
