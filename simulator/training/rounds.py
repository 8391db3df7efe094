"""Where in a step of training values meet the quantisation points of a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from .points import ACTIVATION, GRADIENT, WEIGHT_USE, Point, layers_of, parameters_of
from .recipe import Recipe


class UnroundedLayer(UserWarning):
    """A layer with parameters that ran in no step, or handed on no tensor: `activation`, `gradient` round nothing."""


class _Rounding(torch.autograd.Function):
    """Rounds an output forward and its gradient backward, each as if the other were not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, run: Rounds, layer: str) -> Tensor:
        ctx.run, ctx.layer = run, layer
        return run.at(ACTIVATION, x, layer)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.run.at(GRADIENT, gradient, ctx.layer), None, None


class Rounds:
    """The points of a training, and the step that it is at.

    Args:
        recipe: what they are. seed: of stochastic roundings.
    """

    def __init__(self, recipe: Recipe, seed: int) -> None:
        self.points = {name: Point(name, use, seed) for name, use in recipe.points.items()}
        self.step = 0

    def part(self, recipe: Recipe) -> Rounds:
        """Return them at the same step, those of the points that a recipe has, whose counts are their own."""
        part = Rounds(Recipe(), 0)
        part.points, part.step = {name: self.points[name].apart() for name in recipe.points}, self.step
        return part

    def at(self, point: str, x: Tensor, tensor: str) -> Tensor:
        """Return values as they are after a point: themselves if it is off."""
        found = self.points.get(point)
        return x.clone() if found is None else found.rounded(x, tensor, self.step)

    def store(self, point: str, x: Tensor, tensor: str) -> None:
        """Round values in place, if a point is on."""
        found = self.points.get(point)
        if found is not None:
            x.copy_(found.rounded(x, tensor, self.step))

    @contextmanager
    def in_layers(self, model: nn.Module) -> Iterator[set[str]]:
        """Within it, outputs of layers and their gradients are rounded, each tensor of tuples too.

        Yields:
            The paths of layers of which no output has met these points so far.
        """
        unmet: set[str] = set()

        def rounded(x: Tensor, path: str) -> Tensor:
            if not x.is_floating_point():
                return x
            unmet.discard(path)
            return cast("Tensor", _Rounding.apply(x, self, path))

        with ExitStack() as hooks:
            if ACTIVATION in self.points or GRADIENT in self.points:
                for path, module in layers_of(model):
                    unmet.add(path)
                    hook = module.register_forward_hook(
                        lambda module, args, out, path=path: tree_map_only(Tensor, lambda x: rounded(x, path), out)
                    )
                    hooks.callback(hook.remove)
            yield unmet

    @contextmanager
    def with_copies(self, model: nn.Module) -> Iterator[None]:
        """Within it, parameters of a model are rounded copies of the masters, which are there again behind it."""
        if WEIGHT_USE not in self.points:
            yield
            return
        parameters = dict(parameters_of(model))
        masters = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        with torch.no_grad():
            for name, parameter in parameters.items():
                self.store(WEIGHT_USE, parameter, name)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(masters[name])
