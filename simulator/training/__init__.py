"""Training with reduced precision: any torch model, with formats and roundings at named points."""

from __future__ import annotations

from .causes import UpdateCounts
from .fit import fit
from .history import Epoch, History
from .loop import accuracy
from .points import MEANINGS, POINTS, Counts
from .predict import Prediction, predict
from .recipe import LossScale, Recipe
from .recipe_files import load_recipe, recipe_names

__all__ = ["MEANINGS", "POINTS", "Counts", "Epoch", "History", "LossScale", "Prediction", "Recipe", "UpdateCounts",
           "accuracy", "fit", "load_recipe", "predict", "recipe_names"]  # fmt: skip
