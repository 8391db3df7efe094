"""What a sweep would do, and about how long that would take; what a search would choose from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from simulator.report.tables import as_json, as_written

from .cluster import Cluster
from .grid import axes
from .objectives import Goal, goal_of
from .plan import Plan, Planner, grid, plan_of
from .run import TOGETHER, Progress
from .search import as_stored, prepared
from .store import Store, check_place, directory, is_store
from .work import Outcome, Task, compute, load

# A point is tried whole if a run on so few samples lets expect that it takes no longer than this.
_FEW, _LONGEST_TRIAL_S = 50, 20.0


@dataclass(frozen=True)
class Forecast:
    """What a sweep would do.

    Args:
        points: in all. known: of these, the ones that the store has. refused: the ones that can be no point.
        reason: why the first of these, or of the points that were tried, fails; None if none does.
        remaining: to compute; points that come to the same are computed once.
        seconds: that this would take, with the start of workers, an estimate: by points that the store has, or by some
            that were tried here; None if all that were tried failed.
        workers: on so many.
    """

    points: int
    known: int
    refused: int
    remaining: int
    seconds: float | None
    workers: int
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the forecast as plain data."""
        return asdict(self)


def forecast(
    hw: str | os.PathLike[str] | None = None,
    varied: Mapping[str, Any] | None = None,
    *,
    out: str | os.PathLike[str],
    plan: Plan | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    **of_plan: Any,
) -> Forecast:
    """Return what a sweep would do; where the store has none of its points, some are tried, and not kept.

    Args:
        hw, varied: as for sweep, and so are out, plan, workers, scheduler, threads and all of of_plan. progress: called
            with (points planned, points in all).
    Raises:
        InputError: what is wrong with the plan as a whole, the cluster or the store.
    """
    begun = time.perf_counter()
    plan = plan_of("sweep", plan, hw=hw, varied=varied, **of_plan)
    cluster, path = Cluster(workers, scheduler, threads), directory(out)
    check_place(path)
    parameters = grid(plan)
    points = Planner(plan).points(parameters)
    first_s = time.perf_counter() - begun
    count, of_each = cluster.size()
    begun = time.perf_counter()
    keys: list[str] = []
    some: list[Task] = []
    reason: str | None = None
    for done, point in enumerate(points, 1):
        reason = reason or point.error
        if point.task is not None:
            keys.append(point.task.key)
            if len(keys) & (len(keys) - 1) == 0:  # the first, second, fourth, eighth, ...
                some.append(point.task)
        if progress is not None:
            progress(done, len(parameters))
    planning_s = time.perf_counter() - begun
    known: dict[str, float] = {}
    if is_store(path):
        with Store(path) as store:
            store.check_name(plan.name, search=False)
            known = store.known(dict.fromkeys(keys))
    remaining = set(keys) - set(known)
    took = list(known.values())
    if remaining and not took:
        outcomes = _tried(some, of_each)
        took = [outcome.seconds for outcome in outcomes if outcome.record is not None]
        reason = reason or next((outcome.error for outcome in outcomes if outcome.record is None), None)
    seconds = None
    if took or not remaining:
        batches = -(-len(remaining) // TOGETHER) if plan.cost_only else len(remaining)
        each = sum(took) / max(1, len(took))
        here = scheduler is not None or not remaining or (plan.cost_only and batches == 1)  # no worker is started
        seconds = first_s + max(planning_s, each * len(remaining) / max(1, min(count, batches)))
        seconds += 0.0 if here else _start_s(plan)
    refused, shown = len(parameters) - len(keys), sum(key in known for key in keys)
    return Forecast(len(parameters), shown, refused, len(remaining), seconds, count, reason)


@dataclass(frozen=True)
class SearchForecast:
    """What a search would do.

    Args:
        name: of it. store: directory in which its points would be. goal: what it is for, with the number of points.
        space: for each axis the keys that vary together, and the values that they take. grid: how many points there
            are to choose from.
        known: how many points the store has of this very search; they are not computed again.
        workers: on so many.
    """

    name: str
    store: Path
    goal: Goal
    space: Mapping[tuple[str, ...], Sequence[Sequence[Any]]]
    grid: int
    known: int
    workers: int

    def to_dict(self) -> dict[str, Any]:
        """Return the forecast as plain data."""
        space = [{"keys": list(keys), "values": as_json(values, as_written)} for keys, values in self.space.items()]
        return {
            "search": self.name, "store": str(self.store), "goal": self.goal.to_dict(), "space": space,
            "grid": self.grid, "known": self.known, "workers": self.workers,
        }  # fmt: skip


def forecast_search(
    hw: str | os.PathLike[str] | None = None,
    varied: Mapping[str, Any] | None = None,
    *,
    out: str | os.PathLike[str],
    objectives: Mapping[str, str] | Sequence[str] | None = None,
    constraints: Mapping[str, Mapping[str, float]] | None = None,
    points: int | None = None,
    search_seed: int | None = None,
    plan: Plan | None = None,
    goal: Goal | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    threads: int | None = None,
    **of_plan: Any,
) -> SearchForecast:
    """Return what a search would do; nothing is computed, and nothing is written.

    Args:
        hw, varied: as for search, and so are all others.
    Raises:
        InputError: what search would refuse before its first point.
    """
    goal = goal_of(goal, objectives=objectives, constraints=constraints, points=points, seed=search_seed)
    plan = plan_of("search", plan, hw=hw, varied=varied, **of_plan)
    cluster, path = Cluster(workers, scheduler, threads), directory(out)
    check_place(path)
    goal, parameters, _, planner = prepared(plan, goal)
    space: dict[tuple[str, ...], list[list[Any]]] = {}
    for keys in axes(plan.varied):
        found = ([point[key] for key in keys] for point in parameters)
        space[keys] = list({json.dumps(values): values for values in found}.values())
    known = 0
    if is_store(path):
        with Store(path) as store:
            store.check_name(plan.name, search=True)
            if store.goal(plan.name) == json.loads(json.dumps(as_stored(goal, plan, len(parameters)))):
                known = sum(
                    point is not None and point.record is not None and planner.point(place.parameters).key == place.key
                    for place, point in store.of_sweep(plan.name)
                )
    return SearchForecast(plan.name, path, goal, space, len(parameters), known, cluster.size()[0])


def _start_s(plan: Plan) -> float:
    """Return the seconds that a new process takes until it has imported what a worker computes points with."""
    needed = "simulator.explore.work" if plan.cost_only else "simulator.network.evaluation"
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import distributed, {needed}"], check=False, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def _tried(tasks: Sequence[Task], threads: int | None) -> list[Outcome]:
    """Compute points that are priced, or the first that runs, if that does not take too long, else a part of it."""
    if tasks[0].workload is not None:
        return compute(tasks, threads)
    outcomes = []
    for task in tasks:
        samples = load(task.inputs).samples.size
        few = replace(task.inputs, samples=min(samples, _FEW))
        (outcome,) = compute([replace(task, inputs=few, digests=load(few).digests)], threads)
        outcomes.append(outcome)
        if outcome.record is None:
            continue
        expected = outcome.seconds * samples / min(samples, _FEW)
        if expected <= _LONGEST_TRIAL_S:
            return compute([task], threads)
        return [replace(outcome, seconds=expected)]
    return outcomes
