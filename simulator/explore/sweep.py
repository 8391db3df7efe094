"""sweep: the points of a plan on workers, each kept as soon as it is there, so that a run that ends early goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cluster import Cluster
from .plan import Plan, Planned, planned
from .store import Point, Store
from .work import Inputs, Task, compute

if TYPE_CHECKING:
    import pandas

# Points that are only priced travel together, so many at a time.
_PRICED_TOGETHER = 64

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Forecast:
    """What a sweep would do: points in all, of these known and to compute, and the seconds that it would take.

    The seconds are an estimate: those of the points that the store has, or of one point that was tried.
    """

    points: int
    known: int
    remaining: int
    seconds: float
    workers: int

    def to_dict(self) -> dict[str, Any]:
        """Return the forecast as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Sweep:
    """The points of a sweep as they are in the store.

    Args:
        store: where they are. name: of the sweep. points: parameters and point; None for one not computed.
        computed: how many this call computed; failed: of all, those without a record.
    """

    store: Path
    name: str
    points: tuple[tuple[Mapping[str, Any], Point | None], ...]
    computed: int

    @property
    def failed(self) -> int:
        return sum(point is not None and point.record is None for _, point in self.points)

    def to_dict(self) -> dict[str, Any]:
        """Return the points as plain data: parameters, results, error."""
        return {"sweep": self.name, "points": [row(parameters, point) for parameters, point in self.points]}

    def to_frame(self) -> pandas.DataFrame:
        """Return the points as a DataFrame, a column for each parameter and number; needs pandas."""
        from .export import frame

        return frame(self.points)


# What of a record a sweep shows of each point; all of it is in the store.
_RESULTS = ("accuracy", "agreement", "forward_error", "metrics", "totals", "warnings")


def row(parameters: Mapping[str, Any], point: Point | None) -> dict[str, Any]:
    """Return a point with its parameters as plain data."""
    record = {} if point is None or point.record is None else point.record
    return {
        "parameters": dict(parameters),
        "key": None if point is None else point.key,
        "error": None if point is None else point.error,
        "seconds": None if point is None else point.seconds,
        **{name: record[name] for name in _RESULTS if name in record},
    }


def sweep(
    hw: str | None = None,
    varied: Mapping[str, Any] | None = None,
    *,
    out: str | os.PathLike[str],
    plan: Plan | None = None,
    name: str = "sweep",
    only: Sequence[Mapping[str, Any]] = (),
    cost_only: bool = False,
    gemms: Sequence[Sequence[int]] | None = None,
    flagged: float = 0.0,
    workers: int | None = None,
    scheduler: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    **inputs: Any,
) -> Sweep:
    """Compute all points of a sweep that the store does not have; a call that ends early is taken up by the next one.

    Args:
        hw: machine file or bundled name. varied: values by dotted key, see grid.combinations.
        out: directory of the store. plan: what a file says, in place of all that a plan consists of.
        name, only, cost_only, gemms, flagged: see Plan.
        workers: to spawn here; None for one a processor. scheduler: address of a dask cluster in their place.
        threads: of each worker. progress: called with (points done, points in all).
        inputs: model, weights, data, samples, seed, as the main job takes them.
    Raises:
        InputError: what is wrong with the plan, the cluster or the store. A point that fails is kept with its error.
    """
    if plan is None:
        plan = Plan(name, hw or "npu", varied or {}, Inputs(**inputs), only, cost_only, gemms, flagged)
    points = list(planned(plan))
    with Store(Path(out), create=True) as store:
        store.register(plan.name, [(point.parameters, point.key) for point in points])
        computed = _complete(store, points, Cluster(workers, scheduler, threads), plan.cost_only, progress)
        return Sweep(store.path, plan.name, tuple(store.of_sweep(plan.name)), computed)


def _complete(
    store: Store, points: Sequence[Planned], cluster: Cluster, priced: bool, progress: Progress | None
) -> int:
    """Compute the points that the store does not have; return how many."""
    unique = {point.key: point for point in points}
    known = store.known(unique)
    missing = {key: point for key, point in unique.items() if key not in known}
    done = len(unique) - len(missing)
    for key, point in missing.items():
        if point.task is None:
            store.add(Point(key, _numerics(point), point.identity, None, point.error, True, 0.0))
            done += 1
    tasks = [point.task for point in missing.values() if point.task is not None]
    if progress is not None:
        progress(done, len(unique))
    for outcome in _outcomes(tasks, cluster, priced):
        point = missing[outcome.key]
        store.add(
            Point(
                outcome.key,
                _numerics(point),
                point.identity,
                outcome.record,
                outcome.error,
                outcome.final,
                outcome.seconds,
            )
        )
        done += 1
        if progress is not None:
            progress(done, len(unique))
    return len(missing)


def _outcomes(tasks: Sequence[Task], cluster: Cluster, priced: bool) -> Iterator[Any]:
    if not tasks:
        return
    size = _PRICED_TOGETHER if priced else 1
    batches = [tasks[i : i + size] for i in range(0, len(tasks), size)]
    if priced and cluster.scheduler is None and len(batches) == 1:
        yield from compute(tasks)  # sooner done than a worker is started
        return
    for outcomes in cluster.outcomes(batches):
        yield from outcomes


def _numerics(point: Planned) -> int:
    return int(point.identity["numerics"])


def forecast(plan: Plan, out: str | os.PathLike[str], workers: int | None = None) -> Forecast:
    """Return what a sweep would do; one point that is not known is tried, on at most 50 samples, and not kept."""
    points = {point.key: point for point in planned(plan)}
    count = workers or len(os.sched_getaffinity(0))
    known, seconds = set(), []
    try:
        with Store(Path(out)) as store:
            known = store.known(points)
            seconds = [point.seconds for point in _some(store.points(), 100) if point.key in points and point.record]
    except ValueError:
        pass  # there is none yet
    remaining = [point.task for key, point in points.items() if key not in known and point.task is not None]
    each = sum(seconds) / len(seconds) if seconds else 0.0
    if remaining and not seconds:
        each = _tried(remaining[0])
    return Forecast(
        len(points), len(known), len(remaining), each * len(remaining) / min(count, max(1, len(remaining))), count
    )


def _some(points: Iterable[Point], count: int) -> Iterator[Point]:
    for _, point in zip(range(count), points, strict=False):
        yield point


def _tried(task: Task) -> float:
    begun = time.perf_counter()
    compute([task])
    return time.perf_counter() - begun
