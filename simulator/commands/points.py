"""`python -m simulator study points`: which quantisation point limits a training."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from simulator.report.causes import ablation_views
from simulator.report.console import print_view, standard_output
from simulator.report.directories import write_file
from simulator.report.figures import counted
from simulator.report.tables import write_table
from simulator.studies.directory import RESULTS
from simulator.studies.points import POINTS, PointsStudy, points_study
from simulator.training.recipe import Recipe
from simulator.training.recipe_files import load_recipe

from .records import json_text

FILES = (RESULTS, "points.csv")


def run(out: str, points: str | None, recipe: str | None, **options: Any) -> PointsStudy:
    """Run a study of the points of a recipe.

    Args:
        points: `NAME=FORMAT,NAME=FORMAT`. recipe: name or path, as `load_recipe` takes it. None of both: the points of
            the study.
    Raises:
        InputError: what cannot be run.
    """
    return points_study(_recipe(points, recipe), out=out, **options)


def save(found: PointsStudy, out: str) -> list[Path]:
    """Write the study beside its trainings: whole as JSON, its points as CSV, each whole or not at all."""
    paths = [Path(out) / name for name in FILES]
    write_file(paths[0], _text(found))
    write_table([asdict(cost) for cost in found.ablation.costs], paths[1])
    return paths


def show(found: PointsStudy, paths: Sequence[Path], json: bool) -> None:
    """Print a study."""
    if json:
        sys.stdout.write(_text(found))
        return
    parts = [*found.recipe.points.items(), *found.recipe.macs.items()]
    points = ", ".join(f"{name}={use}" for name, use in parts)
    where = f"{counted(found.computed, 'run')} computed now; in {', '.join(map(str, paths))}"
    print_view(standard_output(), f"Mean accuracy on the digits held out, of {points}.", "",
               *ablation_views(found.ablation.to_dict()), "", where)  # fmt: skip


def _recipe(points: str | None, recipe: str | None) -> Recipe:
    if points is not None and recipe is not None:
        raise InputError("study: got --points and --recipe; expected one; write the points into the recipe")
    if recipe is not None:
        return load_recipe(recipe)
    return Recipe.of(POINTS if points is None else _read(points))


def _read(points: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in points.split(","):
        name, sign, use = (part.strip() for part in word.partition("="))
        if not sign or name in found:
            raise InputError(
                f"study: --points: got {word.strip()!r}; expected NAME=FORMAT with commas between, each name once; "
                "write e.g. weight_store=e8m4/rz,gradient=e8m4/rz"
            )
        found[name] = use
    return found


def _text(found: PointsStudy) -> str:
    record = {"study": "points", "recipe": found.recipe.in_words(), **found.ablation.to_dict()}
    return json_text(record)
