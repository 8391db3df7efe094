"""Quantisation points: where in a training step values are rounded, each into a format of its own.

Source: arXiv 1805.01078 for `weight_store`, the stored network truncated after every batch; the others extend it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from formats import Use
from formats.philox import philox
from native.twins import quantize
from simulator.errors import InputError

WEIGHT_STORE, WEIGHT_USE, ACTIVATION = "weight_store", "weight_use", "activation"
GRADIENT, WEIGHT_GRADIENT, OPTIMIZER_STATE = "gradient", "weight_gradient", "optimizer_state"

MEANINGS = {
    WEIGHT_STORE: "parameters, once before training and after every step of the optimiser",
    WEIGHT_USE: "the copy of the parameters that a batch runs with; the master copy keeps the carrier",
    ACTIVATION: "outputs of layers with parameters, each tensor of tuples too, before what follows them",
    GRADIENT: "gradients with respect to these outputs",
    WEIGHT_GRADIENT: "gradients of the parameters, before the loss scale is taken off and the optimiser reads them",
    OPTIMIZER_STATE: "momenta and moments, after their update",
}
POINTS = tuple(MEANINGS)

_TENSORS = 1 << 20  # of a point, each with a site of its own for its random words
_CALLS = 1 << 31  # the site of keys for a tensor that is met again in a step, such as of a layer that is called twice


@dataclass
class Counts:
    """What rounding did to the values that met it; zeros are not counted.

    Args:
        values: how many. saturated: beyond the largest finite value, and kept there. overflowed: beyond it, and
            infinite or NaN since. vanished: rounded to 0. subnormal: rounded to a value below the smallest normal one.
            Of formats with shared scales `values` and `vanished` alone are counted.
    """

    values: int = 0
    saturated: int = 0
    overflowed: int = 0
    vanished: int = 0
    subnormal: int = 0

    def add(self, other: Counts) -> None:
        """Add those of another."""
        self.values += other.values
        self.saturated += other.saturated
        self.overflowed += other.overflowed
        self.vanished += other.vanished
        self.subnormal += other.subnormal


@dataclass
class Point:
    """A quantisation point of a run.

    Args:
        name: of POINTS. use: the format and its rounding. seed: key of stochastic roundings; with the step, the number
            of the tensor and how often it was met in the step it decides on every random word.
        counts: by tensor, of an epoch. numbers: of the tensors, in the order in which they were met.
        met: how often a tensor was, in the step `step`.
    """

    name: str
    use: Use
    seed: int = 0
    counts: dict[str, Counts] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    met: dict[str, int] = field(default_factory=dict)
    step: int = 0

    def apart(self) -> Point:
        """Return the same point, with the same random words as at the beginning of a step, whose counts are its own."""
        return replace(self, counts={}, numbers=dict(self.numbers), met={})

    def rounded(self, x: Tensor, tensor: str, step: int) -> Tensor:
        """Return values rounded into the format. Correctly rounded.

        Args:
            tensor: its name. step: of the training, from 0; weights before the first one have their own.
        """
        number = self.numbers.setdefault(tensor, len(self.numbers))
        if step != self.step:
            self.step, self.met = step, {}
        call = self.met.get(tensor, 0)
        self.met[tensor] = call + 1
        seed = mixed_key(self.seed, call, _CALLS) if call else self.seed
        array = x.detach().numpy()
        if self.use.format.has_blocks:
            found = self.use.quantize(array, seed=mixed_key(seed, step, self._site(number)))
            given = int(np.count_nonzero(array))
            vanished = given - int(np.count_nonzero(found))
            self.counts.setdefault(tensor, Counts()).add(Counts(given, vanished=vanished))
        else:
            beyond = np.zeros(array.shape, np.bool_)
            found = quantize(array, self.use, np.float64, beyond, seed=seed, step=step, site=self._site(number))
            self._count(tensor, array, found, beyond)
        return torch.from_numpy(np.ascontiguousarray(found)).to(x.dtype)

    def _site(self, number: int) -> int:
        return POINTS.index(self.name) * _TENSORS + number

    def _count(self, tensor: str, x: NDArray[Any], y: NDArray[Any], beyond: NDArray[np.bool_]) -> None:
        counts = self.counts.setdefault(tensor, Counts())
        given, kept, size = int(np.count_nonzero(x)), int(np.count_nonzero(y)), np.abs(y)
        overflowed = int(np.count_nonzero(beyond & ~np.isfinite(y)))
        counts.add(
            Counts(
                given, int(np.count_nonzero(beyond)) - overflowed, overflowed, given - kept,
                int(np.count_nonzero(size < self.use.format.smallest_normal)) - (size.size - kept),
            )
        )  # fmt: skip

    def close(self) -> dict[str, Counts]:
        """Return the counts since the last call, and begin anew."""
        found, self.counts = self.counts, {}
        return found


def mixed_key(seed: int, step: int, site: int) -> int:
    """Return a key of 32 bits that differs from step to step and from tensor to tensor."""
    return int(philox((seed, step), (site, 0, 0, 0))[0])


def parse_use(text: str | Use, where: str = "", rounding: str | None = None) -> Use:
    """Return a format in use, written `e8m6/rz`; InputError says what is wrong with it, and where it stands."""
    try:
        if rounding is not None and isinstance(text, str) and "/" not in text:
            text = f"{text}/{rounding}"
        return Use.parse(text)
    except (ValueError, TypeError) as error:
        at = f"{where}: " if where else ""
        raise InputError(f"{at}{error}; expected a format and its rounding; write e.g. 'e8m6/rz'") from None


def parameters_of(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Yield the parameters that have a format, by name: those that are real, trained or frozen."""
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            yield name, parameter


def layers_of(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield the modules that have parameters of their own, by path."""
    for path, module in model.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            yield path or type(model).__name__, module
