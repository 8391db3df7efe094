"""Which points of a grid a search computes next: optuna suggests, and the nearest point not chosen yet is taken."""

from __future__ import annotations

import json
import math
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simulator.errors import missing

from .grid import is_number

# Chosen at random, before anything is known of the others.
_FIRST = 16


class Chooser:
    """Chooses points of a grid, none twice, by what is known of those before: the same whenever it is told the same.

    The sampler is optuna's multivariate TPE, with the points under way counted as bad ones, which spreads what is
    chosen at once. Keys whose values are numbers are ordered, as optuna sees them by their rank; others are categories.
    So are texts with a natural order: on a grid of sizes and bandwidths, searches that knew theirs found no more.
    Where a suggestion is no point of the grid, or was chosen before, the nearest one left takes its place: the distance
    sums over the axes the difference in rank over the largest one, and 1 where categories differ; of equal ones one is
    drawn.

    Args:
        points: parameters of the grid. axes: the keys that vary, those together that vary together.
        objectives: how many. seed: of the choice.
    Raises:
        InputError: optuna is not installed.
    """

    def __init__(
        self, points: Sequence[Mapping[str, Any]], axes: Sequence[tuple[str, ...]], objectives: int, seed: int
    ) -> None:
        try:
            with warnings.catch_warnings():
                # Of tqdm, which optuna imports, in a notebook without ipywidgets; no bar of either is shown.
                warnings.filterwarnings("ignore", "IProgress not found")
                import optuna
        except ImportError as error:
            raise missing("search", error.name, "explore") from None
        self._optuna = optuna
        columns = [_ranks([[point[name] for name in names] for point in points]) for names in axes]
        self._at = np.array([ranks for ranks, _ in columns]).T
        self._ordered = np.array([ordered for _, ordered in columns])
        most = self._at.max(axis=0)
        self._span = np.where(self._ordered, np.maximum(most, 1), 1)
        self._space: dict[str, Any] = {
            ",".join(names): optuna.distributions.IntDistribution(0, int(last))
            if ordered
            else optuna.distributions.CategoricalDistribution(range(int(last) + 1))
            for names, last, ordered in zip(axes, most, self._ordered, strict=True)
        }
        self._free = np.ones(len(points), dtype=bool)
        self._ties = random.Random(seed)
        self._trials: dict[int, Any] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                seed=seed, multivariate=True, constant_liar=True, n_startup_trials=_FIRST
            )
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            self._study = optuna.create_study(directions=["minimize"] * objectives, sampler=sampler)
        finally:
            optuna.logging.set_verbosity(before)

    def choose(self, count: int) -> list[int]:
        """Return the places in the grid of the next points, fewer if no more are left."""
        return [self._next() for _ in range(min(count, int(self._free.sum())))]

    def tell(self, place: int, losses: Sequence[float] | None, excesses: Mapping[str, float]) -> None:
        """Say what became of a point that was chosen.

        Args:
            place: of it. losses: its objectives, less is better; None if it has none.
            excesses: by how much each constraint is broken, by name; 0 where it is kept.
        """
        if losses is None:
            self.refuse(place)
            return
        trial = self._trials.pop(place)
        for name, excess in excesses.items():
            trial.set_constraint(name, excess)
        self._study.tell(trial, list(losses))

    def refuse(self, place: int) -> None:
        """Say that what was chosen can be no point."""
        self._study.tell(self._trials.pop(place), state=self._optuna.trial.TrialState.FAIL)

    def _next(self) -> int:
        trial = self._study.ask(self._space)
        away = self._at - np.array([trial.params[name] for name in self._space])
        distance = np.where(self._ordered, np.abs(away) / self._span, away != 0).sum(axis=1)
        distance[~self._free] = math.inf
        place = int(self._ties.choice(np.flatnonzero(distance == distance.min())))
        self._free[place] = False
        if distance[place]:
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            self._study.enqueue_trial(dict(zip(self._space, self._at[place].tolist(), strict=True)))
            trial = self._study.ask(self._space)
        self._trials[place] = trial
        return place


def _ranks(column: Sequence[Sequence[Any]]) -> tuple[list[int], bool]:
    """Return for each point the rank of its values on an axis, and whether they are ordered.

    They are if all are numbers, and those of further keys on the axis rise with those of the first.
    """
    texts = [json.dumps(values) for values in column]
    different = dict(zip(texts, column, strict=True))
    if ordered := all(is_number(value) for values in different.values() for value in values):
        different = dict(sorted(different.items(), key=lambda item: list(item[1])))
        ordered = all(list(values) == sorted(values) for values in zip(*different.values(), strict=True))
    ranks = {text: rank for rank, text in enumerate(different)}
    return [ranks[text] for text in texts], ordered
