"""Before training at low precision: how many stored significand bits a network needs, from one run in the carrier.

Source: sections 3 and 6 of the specification, derived there: (5) survival of updates, (6) the decay that truncation
amounts to, (7) lost shares, (8) critical widths. Estimates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np

from .causes import C1, LOW, PER_BIT, UpdateCounts

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

    def decay(self, bits: int) -> float:
        """Return the coefficient of the weight decay that truncation to so many stored bits amounts to, (6)."""
        return C1 * 2.0**-bits / self.lr


def predict(updates: Iterable[UpdateCounts], batches: int, lr: float) -> Prediction:
    """Return what the updates of a run in the carrier, of its last epoch or of all, predict.

    Args:
        updates: by parameter, as `Epoch.updates` has them. batches: of the training in question. lr: of its steps.
    """

    def added(a: UpdateCounts, b: UpdateCounts) -> UpdateCounts:
        a.add(b)
        return a

    return Prediction(reduce(added, updates, UpdateCounts()), batches, lr)
