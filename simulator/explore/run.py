"""One call of a sweep or a search: points from their plan to the workers, and from these into the store."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import chain

from simulator.progress import Progress

from .cluster import Cluster
from .plan import Plan, Planned
from .store import Place, Point, Store
from .work import Outcome, Task, compute

# So many points at a time are looked up, and travel to a worker together if they are only priced.
TOGETHER = 64


class Run:
    """One call of a sweep or a search. Machines and records are in memory of points on their way alone.

    Args:
        store: for the points. plan: of them. size: how many there are at most. progress: called with (points
            done, points to compute as far as is known).

    Attributes:
        places: of the points so far. computed: how many points have a result by this call.
    """

    def __init__(self, store: Store, plan: Plan, size: int, progress: Progress | None) -> None:
        self._store, self._plan, self._progress = store, plan, progress
        self._waiting: dict[str, Planned] = {}
        self.places: list[Place] = []
        self._to_compute = size  # less what turns out to be known, refused or the same as another
        self._done = 0  # those that failed too
        self.computed = 0

    def outcomes(self, groups: Iterator[list[Planned]], cluster: Cluster) -> Generator[Outcome]:
        """Yield the outcomes of all points that the store does not have, in no order.

        An empty group says that the next one depends on outcomes: it is asked for when these have been kept.
        """
        batches = self._batches(groups)
        batch = next(batches, None)
        if batch is None:
            return
        following = next(batches, None)
        if not following and self._plan.cost_only and cluster.scheduler is None:
            for few in chain([batch], batches):
                yield from compute(few)  # sooner done than a worker is started
            return
        begun = [batch] if following is None else [batch, following]
        with closing(cluster.outcomes(chain(begun, batches), self._to_compute)) as together:
            for outcomes in together:
                yield from outcomes

    def add(self, count: int) -> None:
        """Say that there are so many points more."""
        self._to_compute += count

    @property
    def under_way(self) -> int:
        """How many points have no outcome yet."""
        return len(self._waiting)

    def keep(self, outcome: Outcome) -> None:
        """Put a point into the store."""
        point = self._waiting.pop(outcome.key)
        numerics = int(point.identity["numerics"])
        self._store.add(
            Point(outcome.key, numerics, point.identity, outcome.record, outcome.error, outcome.seconds)
        )  # fmt: skip
        self._done += 1
        self.computed += outcome.error is None
        self._tell()

    def _batches(self, groups: Iterator[list[Planned]]) -> Iterator[list[Task]]:
        """Note the places of the sweep, and yield the tasks of points that are neither known nor on their way."""
        tried: set[str] = set()
        for group in groups:
            if not group:
                yield []
                continue
            places = [Place(point.parameters, point.key, point.error) for point in group]
            self._store.place(self._plan.name, len(self.places), places)
            self.places += places
            known = self._store.known(point.task.key for point in group if point.task is not None)
            tasks = []
            for point in group:
                if point.task is None or point.task.key in known or point.task.key in tried:
                    self._to_compute -= 1
                else:
                    tried.add(point.task.key)
                    self._waiting[point.task.key] = point
                    tasks.append(point.task)
            self._tell()
            if self._plan.cost_only:
                yield from [tasks] if tasks else []
            else:
                yield from self._one_by_one(tasks)

    def _one_by_one(self, tasks: list[Task]) -> Iterator[list[Task]]:
        """Yield tasks as they are asked for, but for those that another command on this store has computed by then."""
        for task in tasks:
            if self._store.known([task.key]):
                del self._waiting[task.key]
                self._to_compute -= 1
                self._tell()
            else:
                yield [task]

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self._done, self._to_compute)
