"""Training with reduced precision: any torch model, with formats and roundings at named points."""

from __future__ import annotations

from .ablation import Ablation, Cost, Verdict, ablation
from .causes import CausesReport, causes_of
from .fit import fit
from .history import Epoch, History
from .loop import DivergedTraining, accuracy
from .observed import Effect, GradientNoise, Observation
from .points import MEANINGS, POINTS, Counts
from .predict import Prediction, predict
from .products import UnemulatedProduct
from .recipe import LossScale, Recipe
from .recipe_files import load_recipe, recipe_names
from .rounds import UnroundedLayer
from .swamping import Swamping
from .updates import UpdateCounts

__all__ = ["MEANINGS", "POINTS", "Ablation", "CausesReport", "Cost", "Counts", "DivergedTraining", "Effect", "Epoch",
           "GradientNoise", "History", "LossScale", "Observation", "Prediction", "Recipe", "Swamping",
           "UnemulatedProduct", "UnroundedLayer", "UpdateCounts", "Verdict", "ablation", "accuracy", "causes_of",
           "fit", "load_recipe", "predict", "recipe_names"]  # fmt: skip
