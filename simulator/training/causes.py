"""What rounding did to the updates of stored parameters: which were lost, and the decay that truncation implies."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# (6) of the specification: mean relative loss of a truncation is C1 2**-m, significands being spread as 1 / x.
C1 = 1.0 / (4.0 * math.log(2.0))
# Bins of m*, the stored significand bits below which an update is lost: PER_BIT to a bit, from LOW to HIGH.
LOW, HIGH, PER_BIT = -8, 56, 4


@dataclass
class UpdateCounts:
    """Updates of a parameter over an epoch, of entries whose optimiser wanted another value.

    Args:
        wanted: how many. lost: without effect. lost_towards, lost_away: of these, towards 0 and away from it.
        shrunk: sum of (|w wanted| - |w stored|) / |w| over entries with w not 0, and `entries`, how many these are.
        critical: histogram of m* = floor(log2|w|) - log2|d| - 1, (5) of the specification.
    """

    wanted: int = 0
    lost: int = 0
    lost_towards: int = 0
    lost_away: int = 0
    shrunk: float = 0.0
    entries: int = 0
    critical: NDArray[np.int64] = field(default_factory=lambda: np.zeros((HIGH - LOW) * PER_BIT, np.int64))

    @property
    def lost_share(self) -> float:
        """Share of wanted updates without effect."""
        return self.lost / self.wanted if self.wanted else 0.0

    def add(self, other: UpdateCounts) -> None:
        """Add those of another."""
        for name in ("wanted", "lost", "lost_towards", "lost_away", "shrunk", "entries"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.critical = self.critical + other.critical

    def decay(self, lr: float) -> float:
        """Return the coefficient of the weight decay that rounding amounted to: w <- w - lr decay w."""
        return self.shrunk / self.entries / lr if self.entries else 0.0


class Updates:
    """Counts of all parameters."""

    def __init__(self) -> None:
        self._found: dict[str, UpdateCounts] = {}

    def see(self, name: str, before: Tensor, wanted: Tensor, after: Tensor) -> None:
        """Count a step.

        Args:
            before, after: what was stored. wanted: what the optimiser computed.
        """
        found = self._found.setdefault(name, UpdateCounts())
        step = wanted - before
        moves = step != 0
        lost = moves & (after == before)
        towards = lost & (step.sign() == -before.sign())
        found.wanted += int(moves.sum())
        found.lost += int(lost.sum())
        found.lost_towards += int(towards.sum())
        found.lost_away += int(lost.sum()) - int(towards.sum())
        has = moves & (before != 0)
        found.shrunk += float(((wanted.abs() - after.abs())[has] / before.abs()[has]).double().sum())
        found.entries += int(has.sum())
        critical = torch.frexp(before[has].double()).exponent - 2 - torch.log2(step[has].double().abs())
        place = ((critical.clamp(LOW, HIGH) - LOW) * PER_BIT).ceil().clamp(1, len(found.critical)).to(torch.int64) - 1
        found.critical += torch.bincount(place, minlength=len(found.critical)).numpy()

    def close(self) -> dict[str, UpdateCounts]:
        """Return the counts since the last call, and begin anew."""
        found, self._found = self._found, {}
        return found
