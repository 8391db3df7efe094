"""What a sweep would do, and about how long that would take."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .plan import Plan, planned
from .store import Store, is_store
from .sweep import TOGETHER
from .work import Task, compute, load

# A point is tried whole if a run on so few samples lets expect that it takes no longer than this.
_FEW, _PATIENCE_S = 50, 20.0


@dataclass(frozen=True)
class Forecast:
    """What a sweep would do: points in all, of these known and to compute, and the seconds that it would take.

    The seconds are an estimate: those of the points that the store has, or of some that were tried.
    """

    points: int
    known: int
    remaining: int
    seconds: float
    workers: int

    def to_dict(self) -> dict[str, Any]:
        """Return the forecast as plain data."""
        return asdict(self)


def forecast(plan: Plan, out: str | os.PathLike[str], workers: int | None = None) -> Forecast:
    """Return what a sweep would do; where the store has none of its points, some are tried, and not kept.

    Args:
        plan: of the sweep. out: directory of the store, which need not exist. workers: None for one a processor.
    Raises:
        InputError: what is wrong with the plan or the store.
    """
    begun = time.perf_counter()
    to_compute: dict[str, bool] = {}
    some: dict[str, Task] = {}
    possible = 0
    for point in planned(plan):
        to_compute[point.key] = point.task is not None
        if point.task is not None:
            possible += 1
            if possible & (possible - 1) == 0:  # the first, second, fourth, eighth, ...
                some[point.key] = point.task
    planning_s = time.perf_counter() - begun
    known: dict[str, float] = {}
    if is_store(Path(out)):
        with Store(Path(out)) as store:
            known = store.known(to_compute)
    remaining = [key for key, computes in to_compute.items() if computes and key not in known]
    took = [seconds for seconds in known.values() if seconds]
    if remaining and not took:
        took = _tried(list(some.values()))
    each = sum(took) / len(took) if took else 0.0
    count = workers or len(os.sched_getaffinity(0))
    batches = -(-len(remaining) // TOGETHER) if plan.cost_only else len(remaining)
    seconds = max(planning_s, each * len(remaining) / max(1, min(count, batches)))
    return Forecast(len(to_compute), len(known), len(remaining), seconds, count)


def _tried(tasks: Sequence[Task]) -> list[float]:
    """Return about how many seconds points take: those that are priced, or the first of those that run."""
    if tasks[0].workload is not None:
        return [_seconds(task) for task in tasks]
    task = tasks[0]
    samples = load(task.inputs).samples.size
    few = replace(task.inputs, samples=min(samples, _FEW))
    expected = _seconds(replace(task, inputs=few, digests=load(few).digests)) * samples / min(samples, _FEW)
    return [_seconds(task) if expected <= _PATIENCE_S else expected]


def _seconds(task: Task) -> float:
    begun = time.perf_counter()
    compute([task])
    return time.perf_counter() - begun
