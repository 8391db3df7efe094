"""Which quantisation point limits a training on 8x8 digits: with each point alone, and with all but each.

One hidden layer of 32 ReLU, SGD at 0.1, batches of 32, 20 epochs, float64 where nothing is rounded: the first setting
of the study of truncation. Every training is one line of a file, so that a study that was stopped goes on from there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from simulator.errors import InputError
from simulator.progress import Progress
from simulator.training.ablation import Ablation, combinations, kept
from simulator.training.recipe import LossScale, Recipe
from simulator.training.trial import Setting, accuracy_under

from .directory import check_study_directory
from .trainings import Trainings

POINTS = dict.fromkeys(("weight_store", "activation", "gradient"), "e8m4/rz")


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        recipe: what is rounded, as `Recipe.in_words` says it, in JSON. seed: of weights and order.
    """

    recipe: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What a training came to: accuracy on the samples held out, and how many these are."""

    accuracy: float
    samples: int


@dataclass(frozen=True)
class PointsStudy:
    """An ablation of a recipe. computed: how many of its trainings this call computed."""

    recipe: Recipe
    ablation: Ablation
    computed: int


def points_study(
    recipe: Recipe,
    seeds: int = 1,
    out: str | Path | None = None,
    workers: int | None = 1,
    progress: Progress = lambda done, of: None,
) -> PointsStudy:
    """Train the network of the study with no point of a recipe, with all, with each alone and with all but each.

    Args:
        recipe: whose points are ranked. seeds: trainings of each kind. out: directory whose runs.jsonl has the
            trainings that are known; None: none are. workers: processes to spawn, 1: none, None: one a processor.
            progress: called with how many of how many are known.
    Raises:
        InputError: a recipe without points, no seed, workers of no possible number, or a directory that the study
            cannot go into.
    """
    if seeds < 1:
        raise InputError(f"study: got {seeds} seeds; expected at least one; give more")
    if out is not None:
        check_study_directory(out, "points")
    kinds = combinations(recipe)
    runs = {on: [Run(_words(kept(recipe, on)), seed) for seed in range(seeds)] for on in kinds}
    path = None if out is None else Path(out) / "runs.jsonl"
    found, computed = _TRAININGS.all([run for these in runs.values() for run in these], path, workers, progress)
    accuracies = {on: [found[run].accuracy for run in these] for on, these in runs.items()}
    samples = found[runs[()][0]].samples
    return PointsStudy(recipe, Ablation(kinds[1], accuracies, samples), computed)


def _words(recipe: Recipe) -> str:
    return json.dumps(recipe.in_words(), sort_keys=True)


def _outcome(run: Run) -> Outcome:
    words = json.loads(run.recipe)
    recipe = Recipe.of(words["points"], LossScale(**words["loss_scale"]), macs=words["macs"])
    return Outcome(*accuracy_under(Setting(), recipe, run.seed))


_TRAININGS = Trainings(_outcome, Run, Outcome)
