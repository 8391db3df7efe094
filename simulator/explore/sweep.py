"""sweep: the points of a plan on workers, each kept as soon as it is there, so that a run that ends early goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.errors import InputError
from simulator.notebook import MOST_ROWS, Shown, Table, View

from .cluster import Cluster
from .found import Found, absent, found_of, front_of
from .objectives import goal_of, own_mode, value
from .plan import Plan, Planned, Planner, grid, plan_of
from .rows import flat, frame, row
from .run import TOGETHER, Progress, Run
from .store import Place, Point, Store, check_place, directory

if TYPE_CHECKING:
    import pandas

# Of the machine's own mode, what a notebook shows of a point beside its parameters.
_SHOWN = ("accuracy", "agreement", "forward_error", "cycles", "latency_s", "energy_j")


@dataclass(frozen=True, repr=False)
class Sweep(Shown):
    """The points of a sweep as they are in the store.

    Args:
        store: where they are. name: of the sweep. places: parameters and key of each, in the order of the grid, or why
            these can be no point.
        computed: how many of them have a result by this call. failed: how many have none.
    """

    store: Path
    name: str
    places: Sequence[Place]
    computed: int
    failed: int

    @property
    def known(self) -> int:
        """How many results are from the store: of earlier calls, of others at the same time, of places before."""
        return len(self.places) - self.computed - self.failed

    @cached_property
    def points(self) -> tuple[tuple[Mapping[str, Any], Point | None], ...]:
        """Parameters and point each; read when first asked for, None for one that is refused, or removed since."""
        return tuple((place.parameters, point) for place, point in self.first(len(self.places)))

    def front(
        self,
        objectives: Mapping[str, str] | Sequence[str],
        constraints: Mapping[str, Mapping[str, float]] | None = None,
    ) -> tuple[Found, ...]:
        """Return the Pareto front of the points for some objectives, the best in the first of them first.

        Args:
            objectives, constraints: as those of a search, see Goal.
        Raises:
            InputError: a name or a value that these cannot have; a number that no point has.
        """
        goal = goal_of(None, objectives=objectives, constraints=constraints)
        points = found_of(goal, self.first(len(self.places)))
        if names := absent(points):
            raise InputError(
                f"sweep: {names[0]}: no point of {self.name} has it; expected a number that some have; take another"
            )
        return front_of(goal, points)

    def first(self, count: int) -> list[tuple[Place, Point | None]]:
        """Return the first places and their points, read anew."""
        with Store(self.store) as store:
            return [
                (place, None if place.key is None else store.find(place.key)) for place in self.places[:count]
            ]  # fmt: skip

    def errors(self) -> Iterator[tuple[Mapping[str, Any], str | None]]:
        """Yield the parameters of the places that have no result, and why, read anew; no record is in memory for it."""
        with Store(self.store) as store:
            for place in self.places:
                if place.key is None:
                    yield place.parameters, place.error
                elif not store.known([place.key]):
                    point = store.find(place.key)
                    yield place.parameters, "removed from the store" if point is None else point.error

    def to_dict(self) -> dict[str, Any]:
        """Return the points as plain data, parameters, results and error, with how many there are of which kind."""
        return {
            "sweep": self.name, "computed": self.computed, "known": self.known, "failed": self.failed,
            "points": [row(*point) for point in self.first(len(self.places))],
        }  # fmt: skip

    def to_frame(self) -> pandas.DataFrame:
        """Return the points as a DataFrame, a column for each parameter and number; needs pandas."""
        return frame(self.first(len(self.places)))

    def __repr__(self) -> str:
        return f"<Sweep {self.name}: {self._in_words}>"

    @property
    def _in_words(self) -> str:
        return (
            f"{len(self.places):,} points in {self.store}: {self.computed:,} computed now, {self.known:,} known "
            f"before, {self.failed:,} without a result"
        )

    def _view(self) -> View:
        rows = [_shown(*point) for point in self.first(MOST_ROWS)]
        known = list(dict.fromkeys(name for one in rows for name, value in one.items() if value is not None))
        rows += [{}] * (len(self.places) - len(rows))  # of which only the number is shown
        facts = [f"{self._in_words}. Energies are estimates."]
        return View(f"Sweep {self.name}", facts, [Table("Points, in the mode of the machine", rows, known)])


def _shown(place: Place, point: Point | None) -> dict[str, Any]:
    """Return what a notebook shows of a point."""
    record = None if point is None else point.record
    if record is None:
        return {**flat(place.parameters), "error": place.error if point is None else point.error}
    own = {name: value(record, name) for name in _SHOWN}
    cycles = own["cycles"]
    return {
        **flat(place.parameters),
        "mode": own_mode(record),
        **own,
        "cycles": None if cycles is None else int(cycles),
    }


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
        threads: of each worker. progress: called with (points done, points to compute as far as is known).
    Raises:
        InputError: what is wrong with the plan as a whole, the cluster or the store. A point that fails is kept with
            its error, and tried again the next time.
    """
    plan = plan_of(
        "sweep", plan, hw=hw, varied=varied, name=name, only=only, exclude=exclude, cost_only=cost_only, gemms=gemms,
        flagged=flagged, model=model, weights=weights, data=data, samples=samples, calibration=calibration, seed=seed,
    )  # fmt: skip
    cluster = Cluster(workers, scheduler, threads)
    parameters = grid(plan)
    points = Planner(plan).points(parameters)  # which says what is wrong with the plan, before there is a store
    check_place(directory(out))
    cluster.reach()
    with Store(out, create=True) as store:
        store.begin(plan.name, parameters)
        run = Run(store, plan, len(parameters), progress)
        with closing(run.outcomes(_groups(points), cluster)) as outcomes:  # and the workers, if the disk is full
            for outcome in outcomes:
                run.keep(outcome)
        return Sweep(store.path, plan.name, run.places, run.computed, store.sweeps()[plan.name].failed)


def _groups(points: Iterator[Planned]) -> Iterator[list[Planned]]:
    while group := list(islice(points, TOGETHER)):
        yield group
