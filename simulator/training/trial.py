"""One training on digits, of those that the studies of truncation and of the laws compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from simulator.errors import InputError
from simulator.network import bundled
from simulator.network.arrays import array_names, read_arrays

from .fit import OPTIMIZERS, History, fit
from .predict import harmless_noise, predict
from .recipe import Recipe
from .updates import C1, UpdateCounts

CARRIER = 0  # bits of a run that rounds nothing
DECAY = "decay"  # in place of a rounding: the weight decay that truncation is by the law (6), in the carrier
TRAINING_DIGITS = 1400
# Of a file of digits, the last ones test: 1,500 of the 8,000 of MNIST that the bundled networks know.
TESTS, OF = 3, 16


@dataclass(frozen=True)
class Setting:
    """A row of the table.

    Args:
        rounding: rz, rne, sr or DECAY. hidden: widths of the hidden layers. activation: relu | tanh | sigmoid.
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


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


class Digits(NamedTuple):
    """Samples to train on and to test on: pixels from 0 to 1 as float64 (N, pixels), and classes as int64 (N,)."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


@cache
def digits(path: str | None = None) -> Digits:
    """Return digits: 1,400 of the 8x8 ones to train on and 397 to test on, or those of a file.

    Args:
        path: of an `.npz` file with grey levels `x`, uint8 (N, height, width), and classes `y` (N,), of which the last
            three sixteenths test; None for the 8x8 digits.
    Raises:
        InputError: a file that cannot be read, or has other arrays.
    """
    if path is None:
        x, y = bundled.digits8x8()
        order = torch.from_numpy(np.random.default_rng(0).permutation(len(x)))
        x, y, count = x[order], y[order], TRAINING_DIGITS
    else:
        missing = [name for name in ("x", "y") if name not in array_names(path)]
        if missing:
            raise InputError(f"{path}: holds no {missing[0]}; expected grey levels x and classes y; rename the arrays")
        arrays = read_arrays(path, ("x", "y"))
        pixels, classes = arrays["x"], arrays["y"]
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or classes.shape != (len(pixels),) or len(pixels) < OF:
            raise InputError(
                f"{path}: got x {pixels.dtype} {pixels.shape} and y {classes.shape}; expected x uint8 (N, height, "
                f"width) and y (N,), at least {OF} of them; convert the data"
            )
        if classes.dtype.kind not in "iu" or int(classes.min()) < 0:
            raise InputError(f"{path}: y is {classes.dtype}; expected classes from 0; relabel the data")
        x, y = torch.from_numpy(pixels.reshape(len(pixels), -1) / 255.0), torch.from_numpy(classes.astype(np.int64))
        count = len(x) - len(x) * TESTS // OF
    return Digits((x[:count], y[:count]), (x[count:], y[count:]))


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Args:
        accuracy: on the digits that were held out. mean_weight: mean over the layers of the mean of |w|.
        lost: share of the updates of the last epoch without effect. decay: coefficient of the weight decay that
            rounding was.
        predicted: by bits, the share that the run in the carrier predicts to nearest; empty of others.
        critical: by rounding, the bits below which that run predicts that nothing is learned; empty of others.
    """

    accuracy: float
    mean_weight: float
    lost: float
    decay: float
    predicted: Mapping[str, float] = field(default_factory=dict)
    critical: Mapping[str, float] = field(default_factory=dict)


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
        layers += [layer, *([ACTIVATIONS[setting.activation]()] if i < len(widths) - 2 else [])]
    return nn.Sequential(*layers)


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


def trained(setting: Setting, bits: int, seed: int, data: str | None = None) -> tuple[nn.Sequential, History]:
    """Return a network trained on digits, and how; on one thread.

    Args:
        bits: stored significand bits of the parameters, CARRIER for float64. seed: of weights and of the order.
        data: file of digits, None for the 8x8 ones.
    Raises:
        InputError: what cannot be read, or cannot be trained so.
    """
    torch.set_num_threads(1)
    found = digits(data)
    x, y = found.train
    model = network(setting, seed, x.shape[1], int(y.max()) + 1)
    rounds = bits != CARRIER and setting.rounding != DECAY
    decay = C1 * 2.0**-bits if bits != CARRIER and setting.rounding == DECAY else 0.0

    def optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        made = OPTIMIZERS[setting.optimizer](
            parameters, lr=setting.lr, **({"momentum": setting.momentum} if setting.momentum else {})
        )
        if decay:
            made.register_step_post_hook(lambda *_: _shrink(parameters, decay))
        return made

    history = fit(
        model, found.train, epochs=setting.epochs, batch_size=setting.batch, optimizer=optimizer, seed=seed,
        test=found.test, storage=f"e{setting.exponent}m{bits}" if rounds else None,
        rounding=setting.rounding if rounds else None,
    )  # fmt: skip
    return model, history


@torch.no_grad()
def _shrink(parameters: list[nn.Parameter], decay: float) -> None:
    """Multiply what has a gradient by 1 - decay; what has none is truncated no further, and stays."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.sub_(decay * parameter * (parameter.grad != 0))


def trial(setting: Setting, bits: int, seed: int, data: str | None = None) -> Outcome:
    """Train on digits and test on others.

    Args:
        setting, bits, seed, data: as `trained` takes them.
    Raises:
        InputError: what cannot be read.
    """
    model, history = trained(setting, bits, seed, data)
    total = UpdateCounts.total(history.epochs[-1].updates.values())
    prediction = predict([total], history.steps, setting.lr)
    weights = [layer.weight.detach().abs().mean() for layer in model if isinstance(layer, nn.Linear)]
    assert history.accuracy is not None
    predicted, critical = {}, {}
    if bits == CARRIER:
        predicted = {str(m): prediction.lost_share(m) for m in range(1, 24)}
        noise = harmless_noise(model, *digits(data).train)
        critical = {"rz": prediction.truncated, "rne": float(prediction.nearest()),
                    "sr": float(prediction.stochastic(noise))}  # fmt: skip
    return Outcome(
        history.accuracy, float(torch.stack(weights).mean()), total.lost_share, total.decay(setting.lr), predicted,
        critical,
    )  # fmt: skip
