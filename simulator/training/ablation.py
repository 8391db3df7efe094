"""Which quantisation point costs a training its accuracy: trained again with each of them alone, and without it."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

from torch import nn

from simulator.errors import InputError
from simulator.notebook import Shown, Table, View, frame

from .fit import fit
from .recipe import Recipe
from .recipe_files import load_recipe

if TYPE_CHECKING:
    from formats.notebook import DataFrame

# A gain counts from so many standard errors on.
ERRORS = 2.0

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Cost:
    """What a quantisation point costs, in accuracy.

    Args:
        point: its name, or that of a product with a MAC unit. alone: accuracy with this point only. cost: of the
            carrier minus that. without: accuracy with all the others. gain: that minus the accuracy with all.
        cost_error, gain_error: standard errors of these differences.
    """

    point: str
    alone: float
    cost: float
    cost_error: float
    without: float
    gain: float
    gain_error: float


@dataclass(frozen=True)
class Verdict:
    """The point whose removal restores most.

    Args:
        point: its name; None if no removal restores more than ERRORS standard errors. gain, error: of the best one.
        samples: of the test that accuracies rest on. seeds: trainings of each kind. sentence: the same in words.
    """

    point: str | None
    gain: float
    error: float
    samples: int
    seeds: int
    sentence: str


@dataclass(frozen=True)
class Ablation(Shown):
    """Accuracies of a recipe with some of its points.

    Args:
        parts: names of the points and products of the recipe. samples: of the test.
        accuracies: by the parts that were on, in the order of the recipe; one of each seed.
    """

    parts: Parts
    accuracies: Mapping[Parts, Sequence[float]]
    samples: int

    @property
    def carrier(self) -> float:
        """Mean accuracy with no point."""
        return statistics.fmean(self.accuracies[()])

    @property
    def whole(self) -> float:
        """Mean accuracy with all points."""
        return statistics.fmean(self.accuracies[self.parts])

    @property
    def costs(self) -> list[Cost]:
        """Points by what their removal restores, then by what they cost alone; the largest first."""
        found = []
        for part in self.parts:
            alone, without = (part,), _without(self.parts, part)
            cost, gain = self._difference((), alone), self._difference(without, self.parts)
            means = [statistics.fmean(self.accuracies[parts]) for parts in (alone, without)]
            found.append(Cost(part, means[0], *cost, means[1], *gain))
        return sorted(found, key=lambda c: (-c.gain, -c.cost))

    @property
    def verdict(self) -> Verdict:
        """The point whose removal restores most accuracy, if that is more than chance."""
        best, seeds = self.costs[0], len(self.accuracies[()])
        counts = best.gain > ERRORS * best.gain_error
        rests = (
            f"{self.whole:.3f} with all points, {best.without:.3f} without it: {best.gain:+.3f}, standard error "
            f"{best.gain_error:.3f}, on {self.samples} test samples, {seeds} seed{'' if seeds == 1 else 's'}"
        )
        sentence = (
            f"{best.point} limits the training ({rests})." if counts else
            f"No removal restores more than {ERRORS:g} standard errors; the most is that of {best.point} ({rests})."
        )  # fmt: skip
        return Verdict(best.point if counts else None, best.gain, best.gain_error, self.samples, seeds, sentence)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "carrier": self.carrier, "all": self.whole, "points": [asdict(cost) for cost in self.costs],
            "runs": [{"on": list(on), "accuracies": list(found)} for on, found in self.accuracies.items()],
            "samples": self.samples, "verdict": asdict(self.verdict),
        }  # fmt: skip

    def to_frame(self) -> DataFrame:
        """Return what each point costs as a DataFrame, a row each in the order of `costs`; needs pandas."""
        return frame([asdict(cost) for cost in self.costs], [each.name for each in fields(Cost)])

    def _view(self) -> View:
        facts = [
            f"Accuracy {self.carrier:.3f} in the carrier, {self.whole:.3f} with all points.",
            self.verdict.sentence,
        ]
        return View(
            f"Ablation of {len(self.parts)} points", facts, [Table("Accuracy", [asdict(cost) for cost in self.costs])]
        )

    def _written(self, column: str, value: Any) -> str:
        return f"{value:.3f}" if isinstance(value, float) else super()._written(column, value)

    def __str__(self) -> str:
        from simulator.report.causes import ablation_views
        from simulator.report.console import text_of

        return text_of(ablation_views(self.to_dict()))

    def _difference(self, more: Parts, less: Parts) -> tuple[float, float]:
        """Return the mean difference of two accuracies, and its standard error.

        Both are shares of the same samples, taken as independent, which overstates the error of what they share; what
        seeds differ by beside that shrinks with their number.
        """
        pairs = list(zip(self.accuracies[more], self.accuracies[less], strict=True))
        shares = [statistics.fmean(column) for column in zip(*pairs, strict=True)]
        variance = sum(share * (1.0 - share) for share in shares) / self.samples
        if len(pairs) > 1:
            variance += statistics.variance([a - b for a, b in pairs]) / len(pairs)
        return shares[0] - shares[1], math.sqrt(variance)


def kept(recipe: Recipe, on: Iterable[str]) -> Recipe:
    """Return a recipe with these of its parts."""
    return reduce(Recipe.without, set(recipe.parts) - set(on), recipe)


def combinations(recipe: Recipe) -> list[Parts]:
    """Return which parts are on in the trainings of an ablation: none, all, each alone, all but each.

    Raises:
        InputError: there is none.
    """
    parts = tuple(dict.fromkeys(recipe.parts))
    if not parts:
        raise InputError("ablation: the recipe rounds nothing; expected at least one quantisation point; switch one on")
    each = [(part,) for part in parts]
    return list(dict.fromkeys([(), parts, *each, *(_without(parts, part) for part in parts)]))


def ablation(
    make_model: Callable[[int], nn.Module],
    data: tuple[Any, Any],
    recipe: Recipe | str | os.PathLike[str],
    test: tuple[Any, Any],
    seeds: Sequence[int] = (0,),
    progress: Callable[[int, int], None] = lambda done, of: None,
    **options: Any,
) -> Ablation:
    """Train with no point, with all of a recipe, with each alone and with all but each, and compare.

    Args:
        make_model: returns an untrained model, always the same one for a seed. data, test: samples and their classes,
            as `fit` takes them. recipe: likewise, or the name or path of its file.
        seeds: all combinations are trained with each of them. progress: called with how many trainings of how many are
            done. options: of `fit`, such as epochs, lr, optimizer.
    Returns:
        The accuracies, which rank the points; `print` shows them with the verdict. A verdict comes from what happened
        without a point, not from counts of what rounding did.
    Raises:
        InputError: a recipe without points, no classes, or what `fit` refuses.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    wanted = [(on, seed) for seed in seeds for on in combinations(recipe)]
    if not wanted:
        raise InputError("ablation: got no seeds; expected at least one; give e.g. seeds=(0,)")
    found: dict[Parts, list[float]] = {}
    for done, (on, seed) in enumerate(wanted):
        progress(done, len(wanted))
        train = partial(fit, make_model(seed), data, test=test, seed=seed, recipe=kept(recipe, on))
        accuracy = train(**options).accuracy
        if accuracy is None:
            raise InputError("ablation: the targets are no classes; expected what has an accuracy; give whole numbers")
        found.setdefault(on, []).append(accuracy)
    progress(len(wanted), len(wanted))
    return Ablation(tuple(dict.fromkeys(recipe.parts)), found, len(test[1]))


def _without(parts: Parts, part: str) -> Parts:
    return tuple(other for other in parts if other != part)
