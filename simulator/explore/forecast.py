"""What a sweep would do, and about how long that would take."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .cluster import Cluster
from .plan import Plan, grid, planned
from .store import Store, is_store
from .sweep import TOGETHER, Progress, directory
from .work import Task, compute, load

# A point is tried whole if a run on so few samples lets expect that it takes no longer than this.
_FEW, _LONGEST_TRIAL_S = 50, 20.0


@dataclass(frozen=True)
class Forecast:
    """What a sweep would do.

    Args:
        points: in all. known: of these, the ones that the store has. refused: the ones that can be no point.
        remaining: to compute; points that come to the same are computed once.
        seconds: that this would take, an estimate: by points that the store has, or by some that were tried here; None
            if all that were tried failed.
        workers: on so many.
    """

    points: int
    known: int
    refused: int
    remaining: int
    seconds: float | None
    workers: int

    def to_dict(self) -> dict[str, Any]:
        """Return the forecast as plain data."""
        return asdict(self)


def forecast(
    plan: Plan,
    out: str | os.PathLike[str],
    workers: int | None = None,
    scheduler: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Forecast:
    """Return what a sweep would do; where the store has none of its points, some are tried, and not kept.

    Args:
        plan: of the sweep. out: directory of the store, which need not exist. workers, scheduler, threads: as for
            sweep. progress: called with (points planned, points in all).
    Raises:
        InputError: what is wrong with the plan as a whole, the cluster or the store.
    """
    cluster, path = Cluster(workers, scheduler, threads), directory(out)
    parameters = grid(plan)
    points = planned(plan, parameters)
    count, of_each = cluster.size()
    begun = time.perf_counter()
    keys: list[str] = []
    some: list[Task] = []
    for done, point in enumerate(points, 1):
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
            known = store.known(dict.fromkeys(keys))
    remaining = set(keys) - set(known)
    took = list(known.values()) or (_tried(some, of_each) if remaining else [])
    seconds = None
    if took or not remaining:
        batches = -(-len(remaining) // TOGETHER) if plan.cost_only else len(remaining)
        each = sum(took) / max(1, len(took))
        seconds = max(planning_s, each * len(remaining) / max(1, min(count, batches)))
    return Forecast(
        len(parameters), sum(key in known for key in keys), len(parameters) - len(keys), len(remaining), seconds, count
    )


def _tried(tasks: Sequence[Task], threads: int | None) -> list[float]:
    """Return about how many seconds points take: those that are priced, or the first that runs."""
    if tasks[0].workload is not None:
        return [seconds for task in tasks if (seconds := _seconds(task, threads)) is not None]
    for task in tasks:
        samples = load(task.inputs).samples.size
        few = replace(task.inputs, samples=min(samples, _FEW))
        seconds = _seconds(replace(task, inputs=few, digests=load(few).digests), threads)
        if seconds is None:
            continue
        expected = seconds * samples / min(samples, _FEW)
        whole = _seconds(task, threads) if expected <= _LONGEST_TRIAL_S else None
        return [expected if whole is None else whole]
    return []


def _seconds(task: Task, threads: int | None) -> float | None:
    """Return how long a task takes here; None if it fails."""
    (outcome,) = compute([task], threads)
    return None if outcome.record is None else outcome.seconds
