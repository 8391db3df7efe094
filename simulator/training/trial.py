"""One training on 8x8 digits, of those that the study of truncation compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from simulator.network import bundled

from .causes import UpdateCounts
from .fit import fit
from .predict import predict
from .recipe import Recipe

CARRIER = 0  # bits of a run that rounds nothing
TRAINING_DIGITS = 1400


@dataclass(frozen=True)
class Setting:
    """A row of the table.

    Args:
        rounding: rz, rne or sr. hidden: widths of the hidden layers. activation: relu | tanh | sigmoid.
        batch, lr, optimizer, momentum: of the steps. epochs: passes over the digits. exponent: bits of the exponent.
    """

    rounding: str = "rz"
    hidden: tuple[int, ...] = (32,)
    activation: str = "relu"
    batch: int = 32
    lr: float = 0.1
    optimizer: str = "sgd"
    momentum: float = 0.0
    epochs: int = 20
    exponent: int = 8


_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Args:
        accuracy: on the digits that were held out. mean_weight: mean over the layers of the mean of |w|.
        lost: share of the updates of the last epoch without effect. predicted: by bits, the share that the run in the
            carrier predicts to nearest; empty of others. decay: coefficient of the weight decay that rounding was.
    """

    accuracy: float
    mean_weight: float
    lost: float
    decay: float
    predicted: Mapping[str, float] = field(default_factory=dict)


def network(setting: Setting, seed: int, inputs: int = 64, classes: int = 10) -> nn.Sequential:
    """Return a network in float64 with weights drawn as He et al. have it: normal, deviation sqrt(2 / inputs).

    Source: He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015, section 2.2.
    """
    random = np.random.default_rng(seed)
    layers: list[nn.Module] = []
    widths = (inputs, *setting.hidden, classes)
    for i, (rows, columns) in enumerate(pairwise(widths)):
        with torch.device("meta"):
            layer = nn.Linear(rows, columns)
        weight = random.standard_normal((rows, columns)).T * np.sqrt(2.0 / rows)
        layer.weight = nn.Parameter(torch.from_numpy(np.ascontiguousarray(weight)))
        layer.bias = nn.Parameter(torch.zeros(columns, dtype=torch.float64))
        layers += [layer, *([_ACTIVATIONS[setting.activation]()] if i < len(widths) - 2 else [])]
    return nn.Sequential(*layers)


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return 1,400 of the 8x8 digits to train on and the 397 others, each with their classes."""
    x, y = bundled.digits8x8()
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:TRAINING_DIGITS], order[TRAINING_DIGITS:]
    return (x[train], y[train]), (x[test], y[test])


def accuracy_under(setting: Setting, recipe: Recipe, seed: int) -> tuple[float, int]:
    """Train on the digits under a recipe, and return the accuracy on those held out, and how many these are.

    Args:
        setting: whose rounding and exponent are without effect. seed: of weights and of the order.
    """
    torch.set_num_threads(1)
    train, test = digits()
    options: dict[str, Any] = {"momentum": setting.momentum} if setting.momentum else {}
    history = fit(
        network(setting, seed), train, epochs=setting.epochs, batch_size=setting.batch, lr=setting.lr,
        optimizer=setting.optimizer, seed=seed, test=test, recipe=recipe, **options,
    )  # fmt: skip
    assert history.accuracy is not None
    return history.accuracy, len(test[0])


def trial(setting: Setting, bits: int, seed: int) -> Outcome:
    """Train on 1,400 of the 8x8 digits and test on the others.

    Args:
        bits: stored significand bits of the parameters, CARRIER for float64. seed: of weights and of the order.
    """
    torch.set_num_threads(1)
    train, test = digits()
    model = network(setting, seed)
    rounds: dict[str, Any] = (
        {} if bits == CARRIER else {"storage": f"e{setting.exponent}m{bits}", "rounding": setting.rounding}
    )
    momentum: dict[str, Any] = {"momentum": setting.momentum} if setting.momentum else {}
    history = fit(
        model, train, epochs=setting.epochs, batch_size=setting.batch, lr=setting.lr, optimizer=setting.optimizer,
        seed=seed, test=test, **rounds, **momentum,
    )  # fmt: skip
    total = UpdateCounts()
    for counts in history.epochs[-1].updates.values():
        total.add(counts)
    prediction = predict([total], history.steps, setting.lr)
    weights = [layer.weight.detach().abs().mean() for layer in model if isinstance(layer, nn.Linear)]
    assert history.accuracy is not None
    return Outcome(
        history.accuracy, float(torch.stack(weights).mean()), total.lost_share, total.decay(setting.lr),
        {str(m): prediction.lost_share(m) for m in range(1, 24)} if bits == CARRIER else {},
    )  # fmt: skip
