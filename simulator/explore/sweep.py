"""sweep: the points of a plan on workers, each kept as soon as it is there, so that a run that ends early goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.errors import InputError

from .cluster import Cluster
from .export import frame, row
from .plan import Plan, Planned, grid, planned
from .store import Place, Point, Store
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
        store: where they are. name: of the sweep. places: parameters and key of each, in the order of the grid, or why
            these can be no point.
        computed: how many this call computed. failed: of all, those without a result.
    """

    store: Path
    name: str
    places: Sequence[Place]
    computed: int
    failed: int

    @cached_property
    def points(self) -> tuple[tuple[Mapping[str, Any], Point | None], ...]:
        """Parameters and point each; read when first asked for, None for one that is refused, or removed since."""
        return tuple((place.parameters, point) for place, point in self.first(len(self.places)))

    def first(self, count: int) -> list[tuple[Place, Point | None]]:
        """Return the first places and their points, read anew."""
        with Store(self.store) as store:
            return [
                (place, None if place.key is None else store.find(place.key)) for place in self.places[:count]
            ]  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return the points as plain data: parameters, results, error."""
        return {"sweep": self.name, "points": [row(*point) for point in self.first(len(self.places))]}

    def to_frame(self) -> pandas.DataFrame:
        """Return the points as a DataFrame, a column for each parameter and number; needs pandas."""
        return frame(self.first(len(self.places)))


def sweep(
    hw: str | os.PathLike[str] | None = None,
    varied: Mapping[str, Any] | None = None,
    *,
    out: str | os.PathLike[str],
    plan: Plan | None = None,
    name: str | None = None,
    only: Sequence[Mapping[str, Any]] | None = None,
    exclude: Sequence[Mapping[str, Any]] | None = None,
    cost_only: bool | None = None,
    gemms: Sequence[Sequence[int]] | None = None,
    flagged: float | None = None,
    model: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    samples: int | None = None,
    calibration: int | None = None,
    seed: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Compute all points of a sweep that the store does not have; a call that ends early is taken up by the next one.

    Args:
        hw: machine file or bundled name, npu if left out. varied: values by dotted key, see grid.combinations.
        out: directory of the store. plan: what a file says, in place of all that a plan consists of.
        name, only, exclude, cost_only, gemms, flagged: see Plan; the name is "sweep" if left out.
        model, weights, data, samples, seed: as the main job takes them. calibration: so many samples, from the first,
            are those of scales and policies that are calibrated, and do not run themselves; None: the first that run.
        workers: to spawn here; None for one a processor. scheduler: address of a dask cluster in their place.
        threads: of each worker. progress: called with (points computed, points to compute as far as is known).
    Raises:
        InputError: what is wrong with the plan as a whole, the cluster or the store. A point that fails is kept with
            its error, and tried again the next time.
    """
    inputs: dict[str, Any] = {
        "model": model, "weights": weights, "data": data, "samples": samples, "calibration": calibration, "seed": seed,
    }  # fmt: skip
    own: dict[str, Any] = {
        "hw": hw, "varied": varied, "name": name, "only": only, "exclude": exclude, "cost_only": cost_only,
        "gemms": gemms, "flagged": flagged,
    }  # fmt: skip
    given = [key for key, value in {**own, **inputs}.items() if value is not None]
    if plan is None:
        defaults: dict[str, Any] = {"hw": "npu", "varied": {}, "name": "sweep"}
        named = {key: value for key, value in inputs.items() if value is not None}
        plan = Plan(**{**defaults, **{key: own[key] for key in given if key in own}}, inputs=Inputs(**named))
    elif given:
        raise InputError(f"sweep: {given[0]}: given beside plan, which says all; expected one of the two; remove one")
    cluster = Cluster(workers, scheduler, threads)
    parameters = grid(plan)
    points = planned(plan, parameters)  # which says what is wrong with the plan, before there is a store
    with Store(directory(out), create=True) as store:
        store.begin(plan.name, parameters)
        run = _Run(store, plan, len(parameters), progress)
        with closing(run.outcomes(_groups(points), cluster)) as outcomes:  # and the workers, if the disk is full
            for outcome in outcomes:
                run.keep(outcome)
        return Sweep(store.path, plan.name, run.places, run.computed, store.sweeps()[plan.name].failed)


def directory(out: str | os.PathLike[str]) -> Path:
    """Return the directory that a user names for a store."""
    if not isinstance(out, str | os.PathLike) or not os.fspath(out):
        raise InputError(f"sweep: out: got {out!r}; expected a directory, which need not exist; name one")
    return Path(out)


def _groups(points: Iterator[Planned]) -> Iterator[list[Planned]]:
    while group := list(islice(points, TOGETHER)):
        yield group


class _Run:
    """One call of sweep. Machines and records are in memory of points on their way alone."""

    def __init__(self, store: Store, plan: Plan, size: int, progress: Progress | None) -> None:
        self._store, self._plan, self._progress = store, plan, progress
        self._waiting: dict[str, Planned] = {}
        self.places: list[Place] = []
        self._to_compute = size  # less what turns out to be known, refused or the same as another
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
        with closing(cluster.outcomes(chain(begun, batches), self._to_compute)) as together:
            for outcomes in together:
                yield from outcomes

    def keep(self, outcome: Outcome) -> None:
        """Put a point into the store."""
        point = self._waiting.pop(outcome.key)
        numerics = int(point.identity["numerics"])
        self._store.add(
            Point(outcome.key, numerics, point.identity, outcome.record, outcome.error, outcome.seconds)
        )  # fmt: skip
        self.computed += 1
        self._tell()

    def _batches(self, groups: Iterator[list[Planned]]) -> Iterator[list[Task]]:
        """Note the places of the sweep, and yield the tasks of points that are neither known nor on their way."""
        tried: set[str] = set()
        for group in groups:
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
            self._progress(self.computed, self._to_compute)
