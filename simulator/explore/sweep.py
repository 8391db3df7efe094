"""sweep: the points of a plan on workers, each kept as soon as it is there, so that a run that ends early goes on."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cluster import Cluster
from .plan import Plan, Planned, grid, planned
from .store import Point, Store
from .work import Inputs, Outcome, Task, compute

if TYPE_CHECKING:
    import pandas

# So many points at a time are looked up, and travel to a worker together if they are only priced.
TOGETHER = 64

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sweep:
    """The points of a sweep as they are in the store.

    Args:
        store: where they are. name: of the sweep. keys: parameters and key of each, in the order of the grid.
        computed: how many this call computed. failed: of all, those without a result.
    """

    store: Path
    name: str
    keys: Sequence[tuple[Mapping[str, Any], str]]
    computed: int
    failed: int

    @cached_property
    def points(self) -> tuple[tuple[Mapping[str, Any], Point | None], ...]:
        """Parameters and point each; read when first asked for, None for one that somebody has removed since."""
        with Store(self.store) as store:
            return tuple((parameters, store.find(key)) for parameters, key in self.keys)

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
        "parameters": {key: _as_json(value) for key, value in parameters.items()},
        "key": None if point is None else point.key,
        "error": None if point is None else point.error,
        "seconds": None if point is None else point.seconds,
        **{name: record[name] for name in _RESULTS if name in record},
    }


def _as_json(value: Any) -> Any:
    """Return a parameter as JSON has numbers for it: infinity as a machine file writes it."""
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"


def sweep(
    hw: str | os.PathLike[str] | None = None,
    varied: Mapping[str, Any] | None = None,
    *,
    out: str | os.PathLike[str],
    plan: Plan | None = None,
    name: str = "sweep",
    only: Sequence[Mapping[str, Any]] = (),
    exclude: Sequence[Mapping[str, Any]] = (),
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
        name, only, exclude, cost_only, gemms, flagged: see Plan.
        workers: to spawn here; None for one a processor. scheduler: address of a dask cluster in their place.
        threads: of each worker. progress: called with (points computed, points to compute as far as is known).
        inputs: model, weights, data, samples, seed, as the main job takes them.
    Raises:
        InputError: what is wrong with the plan, the cluster or the store. A point that fails is kept with its error.
    """
    if plan is None:
        machine = "npu" if hw is None else os.fspath(hw)
        plan = Plan(name, machine, varied or {}, Inputs(**inputs), only, exclude, cost_only, gemms, flagged)
    cluster = Cluster(workers, scheduler, threads)
    size, points = len(grid(plan)), planned(plan)
    first = list(islice(points, TOGETHER))  # which shows what is wrong with the plan, before there is a store
    with Store(Path(out), create=True) as store:
        run = _Run(store, plan, size, progress)
        with closing(run.outcomes(_groups(first, points), cluster)) as outcomes:  # and the workers, if the disk is full
            for outcome in outcomes:
                run.keep(outcome)
        store.shorten(plan.name, size)
        return Sweep(store.path, plan.name, run.placed, run.computed, store.sweeps()[plan.name].failed)


def _groups(first: list[Planned], others: Iterator[Planned]) -> Iterator[list[Planned]]:
    group = first
    while group:
        yield group
        group = list(islice(others, TOGETHER))


class _Run:
    """One call of sweep. Machines and records are in memory of points on their way alone."""

    def __init__(self, store: Store, plan: Plan, size: int, progress: Progress | None) -> None:
        self._store, self._plan, self._progress = store, plan, progress
        self._waiting: dict[str, Planned] = {}
        self.placed: list[tuple[Mapping[str, Any], str]] = []
        self._left = size
        self.computed = 0

    def outcomes(self, groups: Iterator[list[Planned]], cluster: Cluster) -> Generator[Outcome]:
        """Yield the outcomes of all points that the store does not have, in no order."""
        batches = self._batches(groups)
        batch = next(batches, None)
        if batch is None:
            return
        following = next(batches, None)
        if following is None and self._plan.cost_only and cluster.scheduler is None:
            yield from compute(batch)  # sooner done than a worker is started
            return
        begun = [batch] if following is None else [batch, following]
        with closing(cluster.outcomes(chain(begun, batches), self._left)) as together:
            for outcomes in together:
                yield from outcomes

    def keep(self, outcome: Outcome) -> None:
        """Put a point into the store."""
        point = self._waiting.pop(outcome.key)
        self._add(point, outcome.record, outcome.error, outcome.final, outcome.seconds)
        self.computed += 1
        self._tell()

    def _batches(self, groups: Iterator[list[Planned]]) -> Iterator[list[Task]]:
        """Note which points the sweep has, and yield the tasks of those that are neither known nor on their way."""
        for group in groups:
            placed = [(point.parameters, point.key) for point in group]
            self._store.place(self._plan.name, len(self.placed), placed)
            self.placed += placed
            known = self._store.known(point.key for point in group)
            tasks = []
            for point in group:
                if point.task is None:
                    self._left -= 1
                    self._add(point, None, point.error, True, 0.0)
                elif point.key in known or point.key in self._waiting:
                    self._left -= 1
                else:
                    self._waiting[point.key] = point
                    tasks.append(point.task)
            self._tell()
            if self._plan.cost_only:
                yield from [tasks] if tasks else []
            else:
                yield from ([task] for task in tasks)

    def _add(
        self, point: Planned, record: Mapping[str, Any] | None, error: str | None, final: bool, seconds: float
    ) -> None:
        numerics = int(point.identity["numerics"])
        self._store.add(Point(point.key, numerics, point.identity, record, error, final, seconds))

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self.computed, self._left)
