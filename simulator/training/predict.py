"""Before training at low precision: how many stored significand bits a network needs, from one run in the carrier.

Laws, derived for this project, of m stored significand bits and steps d of a weight w; estimates:

(5) A step is lost to nearest if m < m* = floor(log2|w|) - log2|d| - 1, as it is below half a unit of the last bit.
(6) Truncation after every batch shrinks |w| by C1 2^-m of it in the mean, as a weight decay of C1 2^-m / lr does.
(7) The share of steps that is lost to nearest is that of m* above m.
(8) The bits that suffice: for nearest, with no larger share lost than lets a training go on; for truncation, with which
    all batches together shrink weights by a factor e; for stochastic rounding, with which its noise does no harm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from simulator.network.array_inputs import Inputs

from .loop import accuracy
from .updates import C1, LOW, PER_BIT, UpdateCounts

# Share of lost updates at which training to nearest stagnates, as observed; uncertain.
STAGNATION = 0.9


@dataclass(frozen=True)
class Prediction:
    """What narrow storage would do to a training. Estimate.

    Args:
        updates: of a run in the carrier, all parameters together. batches: of the training. lr: of its steps.
    """

    updates: UpdateCounts
    batches: int
    lr: float

    def lost_share(self, bits: int) -> float:
        """Return the share of updates that would be lost to nearest, with so many stored significand bits; (7)."""
        counts = self.updates.critical
        first = (bits - LOW) * PER_BIT
        return float(counts[max(0, first) :].sum() / max(1, counts.sum()))

    def quantile(self, q: float) -> float:
        """Return the bits with which a share q of the updates would survive."""
        counts = np.cumsum(self.updates.critical)
        return LOW + (float(np.searchsorted(counts, q * counts[-1])) + 1.0) / PER_BIT

    def nearest(self, stagnation: float = STAGNATION) -> int:
        """Return the fewest bits with which no more than this share is lost to nearest."""
        return next(bits for bits in range(1, 64) if self.lost_share(bits) <= stagnation)

    @property
    def truncated(self) -> float:
        """Bits with which truncation after every batch shrinks weights by a factor e over the training; a warning below
        which nothing is learned rather than a forecast.
        """
        return math.log2(C1 * self.batches)

    def noise(self, bits: int) -> float:
        """Return the deviation of a weight, in units of its binade 2^floor(log2|w|), that stochastic rounding adds up
        over the training if nothing counteracts it: sqrt(sum over the steps of q^2 f (1 - f)).

        f is the fraction of a grid step in an update, 2^(bits - m* - 1) of what m* says of it.
        """
        counts = self.updates.critical
        critical = LOW + (np.arange(len(counts)) + 0.5) / PER_BIT
        fraction = np.exp2(bits - critical - 1.0) % 1.0
        variance = float((counts * fraction * (1.0 - fraction)).sum() / max(1, counts.sum()))
        return 2.0**-bits * math.sqrt(self.batches * variance)

    def stochastic(self, harmless: float) -> int:
        """Return the fewest bits with which the noise of stochastic rounding is harmless; (8).

        It is an upper estimate: steps of the gradient that work against the noise are left out.

        Args:
            harmless: deviation of the weights that leaves the loss as it is, as `harmless_noise` measures it.
        """
        return next((bits for bits in range(1, 64) if self.noise(bits) <= harmless), 64)

    def decay(self, bits: int) -> float:
        """Return the coefficient of the weight decay that truncation to so many stored bits amounts to, (6)."""
        return C1 * 2.0**-bits / self.lr


def predict(updates: Iterable[UpdateCounts], batches: int, lr: float) -> Prediction:
    """Return what the updates of a run in the carrier, of its last epoch or of all, predict.

    Args:
        updates: by parameter, as `Epoch.updates` has them. batches: of the training in question. lr: of its steps.
    """

    return Prediction(UpdateCounts.total(updates), batches, lr)


@torch.no_grad()
def harmless_noise(model: nn.Module, x: Inputs, y: Tensor, points: float = 0.01, draws: int = 4) -> float:
    """Return the largest deviation of the weights, in units of their binades, that costs no more accuracy than this.

    Args:
        x, y: samples (N, ...), or several inputs by name, and classes (N,).
        points: of accuracy that may be lost, in the mean of the draws.
    Returns:
        A power of the root of two, from 2^-12 to 1. Statistical.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    kept = [p.clone() for p in parameters]
    generator = torch.Generator().manual_seed(0)
    before, found = accuracy(model, x, y), 2.0**-12
    assert before is not None
    for half in range(-23, 1):
        deviation, after = 2.0 ** (half / 2), 0.0
        for _ in range(draws):
            for p, w in zip(parameters, kept, strict=True):
                binade = torch.where(w == 0, 0.0, torch.exp2(torch.frexp(w).exponent - 1.0))
                p.copy_(w + deviation * binade * torch.randn(w.shape, generator=generator, dtype=w.dtype))
            after += (accuracy(model, x, y) or 0.0) / draws
        if after < before - points:
            break
        found = deviation
    for p, w in zip(parameters, kept, strict=True):
        p.copy_(w)
    return found
