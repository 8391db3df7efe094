"""Errors of a network whose stored weights are rounded, against itself: measured, for the laws that predict them."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .points import parse_use
from .trial import ACTIVATIONS, CARRIER, Setting, digits, trained

_TESTED = 256  # digits along which a trained network is measured
_WEIGHTS, _SAMPLES, _GRADIENTS = range(3)  # what is drawn with one seed, each from random numbers of its own


@dataclass(frozen=True)
class Errors:
    """What rounding weights did to outputs, gradients and masks.

    Args:
        forward, gradient: ||computed - true|| / ||true|| of the outputs, and of the gradient of the inputs for a random
            gradient of the outputs; root mean square over the samples. flips: by layer with ReLU, share of its units
            that open or close. units: how many units each of these is of.
    """

    forward: float
    gradient: float
    flips: tuple[float, ...]
    units: tuple[int, ...]

    @property
    def flipped(self) -> float:
        """Units that flipped, of all layers together."""
        return sum(share * count for share, count in zip(self.flips, self.units, strict=True))

    @classmethod
    def mean(cls, found: Sequence[Errors]) -> Errors:
        """Return those of several networks of the same shape on as many samples, in the root mean square."""

        def rms(values: list[float]) -> float:
            return math.sqrt(sum(value * value for value in values) / len(values))

        return cls(
            rms([one.forward for one in found]), rms([one.gradient for one in found]),
            tuple(sum(shares) / len(found) for shares in zip(*(one.flips for one in found), strict=True)),
            tuple(sum(counts) for counts in zip(*(one.units for one in found), strict=True)),
        )  # fmt: skip


def errors(model: nn.Module, x: Tensor, rounding: str, bits: int, seed: int = 0) -> Errors:
    """Return the errors of a copy of a network with rounded parameters, on samples.

    Args:
        x: (N, ...) in the type of the parameters, float64 for errors of rounding alone. rounding: rz, rne or sr.
        bits: stored significand bits, of 8 bits of exponent. seed: of the gradient of the outputs and of stochastic
            roundings.
    Raises:
        InputError: no such format.
    """
    use = parse_use(f"e8m{bits}", "errors", rounding)
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for number, parameter in enumerate(rounded.parameters()):
            parameter.copy_(torch.from_numpy(use.quantize(parameter.detach().numpy(), seed=(seed << 20) + number)))
    outputs, gradients, masks = [], [], []
    for one in (model, rounded):
        inputs = x.detach().clone().requires_grad_()
        with _masks(one) as seen:
            out = one(inputs)
        given = _normal(tuple(out.shape), seed, _GRADIENTS).to(out.dtype)
        gradients.append(torch.autograd.grad(out, inputs, given)[0])
        outputs.append(out.detach())
        masks.append(seen)
    flips = tuple(float((a != b).double().mean()) for a, b in zip(*masks, strict=True))
    return Errors(_relative(*outputs), _relative(*gradients), flips, tuple(mask.numel() for mask in masks[0]))


@contextmanager
def _masks(model: nn.Module) -> Iterator[list[Tensor]]:
    """Within it, the masks of layers with ReLU are collected as they run."""
    seen: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda module, args, out: seen.append(out.detach() > 0))
        for module in model.modules()
        if isinstance(module, nn.ReLU)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _relative(true: Tensor, computed: Tensor) -> float:
    """Return the root mean square over the samples of their relative errors; a sample that is 0 has none."""
    sizes = true.flatten(1).norm(dim=1)
    shares = ((computed - true).flatten(1).norm(dim=1) / sizes)[sizes > 0]
    return float(shares.square().mean().sqrt())


def _normal(shape: tuple[int, ...], seed: int, what: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng((seed, what)).standard_normal(shape))


def random_network(depth: int, width: int, activation: str = "relu", seed: int = 0) -> nn.Sequential:
    """Return layers of equal width in float64 without biases, weights normal with deviation sqrt(2 / width).

    Args:
        activation: behind each of them, relu | tanh | sigmoid.
    """
    layers: list[nn.Module] = []
    for weight in _normal((depth, width, width), seed, _WEIGHTS) * math.sqrt(2.0 / width):
        with torch.device("meta"):
            layer = nn.Linear(width, width, bias=False)
        layer.weight = nn.Parameter(weight)
        layers += [layer, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)


def at_initialisation(
    rounding: str, bits: int, depth: int, width: int, activation: str = "relu", samples: int = 256, networks: int = 4
) -> Errors:
    """Return the errors of random networks on normal samples.

    Args:
        rounding, bits: of the weights. depth, width, activation: of the networks. samples: of each; networks: how many.
    """
    found = []
    for seed in range(networks):
        x = _normal((samples, width), seed, _SAMPLES)
        found.append(errors(random_network(depth, width, activation, seed), x, rounding, bits, seed))
    return Errors.mean(found)


def after_training(setting: Setting, formats: Sequence[tuple[str, int]], seed: int) -> list[Errors]:
    """Return the errors of a network that was trained in float64, its weights being rounded behind it.

    Args:
        setting: of the training on 8x8 digits. formats: roundings and stored bits. seed: of the training.
    """
    model, _ = trained(setting, CARRIER, seed)
    x = digits().test[0][:_TESTED]
    return [errors(model, x, rounding, bits, seed) for rounding, bits in formats]
