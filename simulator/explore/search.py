"""search: points of a sweep's grid chosen one after the other, for the best compromises between several objectives."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.errors import InputError
from simulator.notebook import Shown, Table, View
from simulator.report.figures import counted, parameter, percent
from simulator.report.names import name_of, written
from simulator.report.tables import as_json, as_written, frame_of

from .chooser import Chooser
from .cluster import Cluster
from .found import Found, absent, feasible_losses, found_of, front_of
from .grid import axes
from .objectives import Goal, goal_of, objective
from .pareto import front, hypervolume
from .plan import Plan, Planned, Planner, grid, plan_of
from .rows import flat
from .run import Progress, Run
from .store import Place, Point, Store, check_place, directory

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class Search(Shown):
    """What a search found, as it is in the store.

    Args:
        store: where its points are. name: of the search, under which they are there as those of a sweep.
        goal: what it is for. grid: of how many points those are that were chosen.
        points: in the order in which they were chosen. refused: what was chosen beside them and can be no point.
        computed: how many of the points have a result by this call.
    """

    store: Path
    name: str
    goal: Goal
    grid: int
    points: tuple[Found, ...]
    refused: tuple[Found, ...] = ()
    computed: int = 0

    @property
    def failed(self) -> int:
        """How many points were computed and have no result."""
        return sum(point.error is not None for point in self.points)

    @property
    def missing(self) -> int:
        """How many points a search that ended early has still to choose or to compute."""
        asked = self.grid if self.goal.points is None else self.goal.points
        return min(asked, self.grid - len(self.refused)) - sum(point.computed for point in self.points)

    @property
    def known(self) -> int:
        """How many points have a result from the store: of earlier calls, or of others at the same time."""
        return sum(point.computed for point in self.points) - self.computed - self.failed

    @property
    def lacking(self) -> int:
        """How many points have a result without one of the numbers that are looked at, or with one not finite."""
        return sum(bool(point.lacks) for point in self.points)

    @property
    def front(self) -> tuple[Found, ...]:
        """The Pareto front, see front_of."""
        return front_of(self.goal, self.points)

    @property
    def absent(self) -> tuple[str, ...]:
        """The numbers of the goal that no point with a result has."""
        return absent(self.points)

    @property
    def nearest(self) -> Found | None:
        """The point that breaks the constraints by the least, each in shares of its bound; None if none breaks any."""
        broken = [(point, point.values) for point in self.points if point.values is not None and not point.feasible]
        return min(broken, key=lambda one: max(self.goal.broken(one[1]).values()), default=(None,))[0]

    @property
    def why_none(self) -> str | None:
        """Why there is no front, in words; None where there is one."""
        if any(point.on_front for point in self.points):
            return None
        if not any(point.values is not None or point.lacks for point in self.points):
            return "no point is computed yet" if self.missing else "no point has a result"
        nearest = self.nearest
        if nearest is None or nearest.values is None:
            return f"no point has {' and '.join(map(name_of, self.absent or self.goal.names))}"
        values = nearest.values
        broken = self.goal.broken(values)
        has = [f"{name_of(name)} {written(name, objective(name).unit, values[name])}" for name in broken]
        at = ", ".join(f"{name} {parameter(value)}" for name, value in nearest.parameters.items())
        return f"no point keeps all constraints; the nearest, with {at}, has {' and '.join(has)}"

    @cached_property
    def range(self) -> dict[str, tuple[float, float]] | None:
        """By objective the best and the worst value of all feasible points; None if there is none."""
        _, losses = self._feasible
        if not len(losses):
            return None
        ends = zip(self.goal.objectives.items(), losses.min(axis=0), losses.max(axis=0), strict=True)
        return {
            name: (-float(best), -float(worst)) if way == "max" else (float(best), float(worst))
            for (name, way), best, worst in ends
        }

    @cached_property
    def hypervolumes(self) -> tuple[float, ...] | None:
        """The hypervolume after each point, a share of the box between the best and the worst of all in each objective.

        Its reference point are the worst values of all feasible points of the whole search, see range. An objective in
        which all are equal is left out; None if all are equal in all, or no point is feasible: there is no box.
        """
        places, losses = self._feasible
        if not len(losses):
            return None
        best, worst = losses.min(axis=0), losses.max(axis=0)
        differ = worst > best
        if not differ.any():
            return None
        scaled = (losses - best)[:, differ] / (worst - best)[differ]
        found: list[float] = []
        kept = scaled[:0]
        row = dict(zip(places, scaled, strict=True))
        for place in range(len(self.points)):
            if place in row and not np.any(np.all(kept <= row[place], axis=1)):
                kept = np.vstack([kept, row[place]])
                kept = kept[front(kept)]
                found.append(hypervolume(kept))
            else:
                found.append(found[-1] if found else 0.0)
        return tuple(found)

    @property
    def hypervolume(self) -> float | None:
        """The hypervolume of all points, see hypervolumes."""
        return None if self.hypervolumes is None else self.hypervolumes[-1]

    @cached_property
    def _feasible(self) -> tuple[list[int], np.ndarray[Any, np.dtype[np.float64]]]:
        """The places of the feasible points, and their objectives (points, objectives), less is better."""
        return feasible_losses(self.goal, self.points)

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain data: the goal, how many points there are of which kind, and the points.

        Each has on_front, and the hypervolume of all as far as it.
        """
        return {
            "search": self.name,
            "goal": self.goal.to_dict(),
            "grid": self.grid,
            "computed": self.computed,
            "known": self.known,
            "failed": self.failed,
            "missing": self.missing,
            "nearest": None if self.nearest is None else self.nearest.key,
            "range": None if self.range is None else {name: list(ends) for name, ends in self.range.items()},
            "hypervolume": self.hypervolume,
            "points": [
                {
                    "parameters": as_json(point.parameters, as_written), "key": point.key, "error": point.error,
                    "values": point.values, "feasible": point.feasible,
                    "on_front": point.on_front, "hypervolume": volume,
                }
                for point, volume in self._rows()
            ],
            "refused": [{"parameters": as_json(point.parameters, as_written), "error": point.error}
                        for point in self.refused],
        }  # fmt: skip

    def to_frame(self) -> pandas.DataFrame:
        """Return the points as a DataFrame, a column for each parameter and number of the goal; needs pandas."""
        return frame_of(
            [
                {
                    **flat(point.parameters), "key": point.key, "error": point.error,
                    **(point.values or dict.fromkeys(self.goal.names)),
                    "feasible": point.feasible, "on_front": point.on_front, "hypervolume": volume,
                }
                for point, volume in self._rows()
            ]
        )  # fmt: skip

    def __repr__(self) -> str:
        return (
            f"<Search {self.name}: {len(self.points):,} of {counted(self.grid, 'point')} in {self.store} for the "
            f"{self.goal.sought}; {self.computed:,} computed now, {self.known:,} known before, {self.failed:,} failed>"
        )

    def _view(self) -> View:
        kept = f"; {sum(point.feasible for point in self.points):,} keep {self.goal.bounds}" if self.goal.bounds else ""
        refused = f"; {counted(len(self.refused), 'combination')} that can be no point" if self.refused else ""
        missing = f", {self.missing:,} missing" if self.missing else ""
        front = "The front has no hypervolume: no two feasible points differ in an objective."
        if self.why_none is not None:
            front = f"There is no front: {self.why_none}."
        elif self.hypervolume is not None:
            front = (
                f"The hypervolume of the front is {percent(self.hypervolume)} of the box between the best and the "
                "worst of each objective."
            )
        facts = [
            f"For the {self.goal.sought}: {len(self.points):,} of {self.grid:,} points chosen, {self.computed:,} of "
            f"them computed now, {self.failed + self.lacking:,} without a result{missing}{kept}{refused}.",
            f"{front} Energies are estimates. In {self.store}.",
        ]
        rows = [{**flat(point.parameters), **(point.values or {})} for point in self.front]
        return View(f"Search {self.name}", facts, [Table("Pareto front", rows)])

    def _rows(self) -> Iterator[tuple[Found, float | None]]:
        return zip(self.points, self.hypervolumes or (None,) * len(self.points), strict=True)


def search(
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
    progress: Progress | None = None,
    **of_plan: Any,
) -> Search:
    """Choose points of a sweep's grid for several objectives, and compute those that the store does not have.

    Each is a point of the sweep, of the same key. The same goal chooses the same points, whatever the store has and
    however many workers there are, so that a call that ends early is taken up by the next one.

    Args:
        hw, varied: as for sweep, and so are plan, out, workers, scheduler, threads, progress and all of of_plan: name,
            only, exclude, cost_only, gemms, flagged, model, weights, data, samples, calibration, seed. The store has
            the search of a sweep NAME as NAME-search, beside the sweep.
        objectives, constraints, points: see Goal. search_seed: of the choice; seed is that of the runs.
        goal: in place of these four, beside plan or not.
    Raises:
        InputError: what is wrong with the plan as a whole, the goal, the cluster or the store; optuna is missing. A
            point that fails is kept with its error, counts as one of the points, and is tried again the next time.
    """
    goal = goal_of(goal, objectives=objectives, constraints=constraints, points=points, seed=search_seed)
    plan = plan_of("search", plan, hw=hw, varied=varied, **of_plan)
    cluster = Cluster(workers, scheduler, threads)
    goal, parameters, chooser, planner = prepared(plan, goal)
    check_place(directory(out))
    cluster.reach()
    with Store(out, create=True) as store:
        store.begin_search(plan.name, goal.points or 0, as_stored(goal, plan, len(parameters)))
        run = Run(store, plan, goal.points or 0, progress)
        groups = _groups(store, run, chooser, goal, planner, parameters)
        with closing(run.outcomes(groups, cluster)) as outcomes:
            for outcome in outcomes:
                run.keep(outcome)
        return replace(_read(store, plan.name), computed=run.computed)


def prepared(plan: Plan, goal: Goal) -> tuple[Goal, list[dict[str, Any]], Chooser, Planner]:
    """Return the goal with its number of points, the points of the grid, what chooses among them, and plans them.

    Raises:
        InputError: what is wrong with the plan as a whole, or the goal; optuna is missing.
    """
    if plan.cost_only:
        goal.check_priced()
    parameters = list({json.dumps(point): point for point in grid(plan)}.values())  # equal ones are one to choose
    goal = replace(goal, points=min(goal.points or -(-len(parameters) // 4), len(parameters)))
    chooser = Chooser(parameters, axes(plan.varied), len(goal.objectives), goal.seed)
    planner = Planner(plan)
    first = next(point for point in planner.points(parameters) if point.task is not None)
    source = planner.unlabelled(first)
    if source is not None and not {"model", "data"} & set(parameters[0]):  # others may have labels where these vary
        goal.check_unlabelled(source)
    return goal, parameters, chooser, planner


def read_found(out: str | os.PathLike[str], name: str | None = None) -> Search:
    """Return the search of a name, or the only one, in the store in a directory, as far as it is computed.

    Raises:
        InputError: there is no store, or no search of that name in it, or several of which none is named.
    """
    with Store(out) as store:
        return _read(store, name)


def _read(store: Store, name: str | None) -> Search:
    searches = store.searches()
    if name is None and len(searches) == 1:
        (name,) = searches
    said = None if name is None else store.goal(name)
    if name is None or said is None:
        raise InputError(
            f"{store.path}: got {'no name' if name is None else repr(name)}; expected that of a search, "
            f"{', '.join(searches) or 'of which there is none'}; check it"
        )
    return as_search(store.path, name, said, store.of_sweep(name))


def as_search(path: Path, name: str, said: Mapping[str, Any], stored: Iterable[tuple[Place, Point | None]]) -> Search:
    """Return a search of what a store has of it: its goal with the size of the grid, and its points in order."""
    goal = goal_in(said)
    return searched(path, name, goal, said["grid"], found_of(goal, stored))


def searched(path: Path, name: str, goal: Goal, grid: int, found: Sequence[Found]) -> Search:
    """Return a search of its points, from which those that can be none are parted."""
    points, refused = ([one for one in found if one.refused is way] for way in (False, True))
    return Search(path, name, goal, grid, tuple(points), tuple(refused))


def as_stored(goal: Goal, plan: Plan, grid: int) -> dict[str, Any]:
    """Return what a store has of a search: the goal, the size of the grid, and the keys of its axes."""
    return {"goal": goal.to_dict(), "grid": grid, "axes": [list(keys) for keys in axes(plan.varied)]}


def goal_in(said: Mapping[str, Any]) -> Goal:
    """Return the goal of what a store has of a search, see as_stored."""
    return Goal(**said["goal"])


def _groups(
    store: Store,
    run: Run,
    chooser: Chooser,
    goal: Goal,
    planner: Planner,
    parameters: Sequence[Mapping[str, Any]],
) -> Iterator[list[Planned]]:
    """Yield the points that are chosen at once, and an empty group as long as some of these are under way.

    Parameters that can be no point stand beside them, and others are chosen in their place.
    """
    assert goal.points is not None
    left = goal.points
    while left:
        chosen: list[tuple[int, Planned]] = []
        refused: list[Planned] = []
        while places := chooser.choose(min(goal.at_once, left) - len(chosen)):
            for place in places:
                one = planner.point(parameters[place])
                if one.task is None:
                    chooser.refuse(place)
                    refused.append(one)
                else:
                    chosen.append((place, one))
        run.add(len(refused))
        yield refused + [one for _, one in chosen]
        if not chosen:  # all of the grid are
            return
        left -= len(chosen)
        while run.under_way:
            yield []
        for place, one in chosen:
            point = None if one.key is None else store.find(one.key)
            values = None if point is None or point.record is None else goal.values(point.record)
            if values is None:
                chooser.tell(place, None, {})
            else:
                chooser.tell(place, goal.losses(values), goal.excesses(values))
