"""What rounding did to the updates of stored parameters: which were lost, and the decay that truncation implies."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Mean relative loss of a truncation to m stored bits, in units of 2**-m, significands being spread as 1 / x; law (6).
C1 = 1.0 / (4.0 * math.log(2.0))
# Bins of m*, the stored significand bits below which an update is lost: PER_BIT to a bit, from LOW to HIGH.
LOW, HIGH, PER_BIT = -8, 56, 4  # the last is that of _quarters


@dataclass
class UpdateCounts:
    """Updates of a parameter over an epoch, of entries whose optimiser wanted another value.

    Args:
        wanted: how many, those by a finite step. lost: without effect.
        lost_towards, lost_away: of these, towards 0 and away from it.
        shrunk: sum of (|w wanted| - |w stored|) / |w| over entries with w not 0, and `entries`, how many these are.
        critical: histogram of m* = floor(log2|w|) - log2|d| - 1, law (5) in predict.py.
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

    @classmethod
    def total(cls, several: Iterable[UpdateCounts]) -> UpdateCounts:
        """Return the counts of several parameters together."""
        found = cls()
        for counts in several:
            found.add(counts)
        return found

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
            before, after: what was stored. wanted: what the optimiser computed, the same tensor as `after` if nothing
                was rounded, of which there is less to count.
        """
        found = self._found.setdefault(name, UpdateCounts())
        stored, computed = _flat(before), _flat(wanted)
        kept = None if wanted is after else _flat(after)
        for start in range(0, stored.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            _count(found, stored[block], computed[block], None if kept is None else kept[block])

    def close(self) -> dict[str, UpdateCounts]:
        """Return the counts since the last call, and begin anew."""
        found, self._found = self._found, {}
        return found


_BLOCK = 1 << 14  # elements counted at once, whose arrays stay in a cache

Floats = NDArray[Any]  # float32 or float64


def _flat(x: Tensor) -> Floats:
    x = x.detach().reshape(-1)
    return (x if x.dtype in (torch.float32, torch.float64) else x.float()).numpy()


@np.errstate(over="ignore", invalid="ignore")  # a training that diverges is counted too
def _count(found: UpdateCounts, before: Floats, wanted: Floats, after: Floats | None) -> None:
    """Add a part of a step; after: None if it is what was wanted."""
    bins = len(found.critical)
    step = wanted - before
    moves = (step != 0) & np.isfinite(step)
    has = moves & (before != 0)
    found.wanted += int(np.count_nonzero(moves))
    found.entries += int(np.count_nonzero(has))
    if after is not None:
        lost = moves & (after == before)
        towards = int(np.count_nonzero(lost & has & (np.signbit(step) != np.signbit(before))))
        found.lost += int(np.count_nonzero(lost))
        found.lost_towards += towards
        found.lost_away += int(np.count_nonzero(lost)) - towards
        shrunk = np.abs(wanted) - np.abs(after)
        found.shrunk += float(np.divide(shrunk, np.abs(before), out=np.zeros_like(before), where=has).sum(dtype=float))
    # The bin of m* from above: ceil(PER_BIT (m* - LOW)), the first being 1.
    place = PER_BIT * _exponents(before) - _quarters(step)
    place -= PER_BIT * (1 + LOW) + 1
    np.clip(place, 0, bins - 1, out=place)
    place[~has] = bins
    found.critical += np.bincount(place, minlength=bins + 1)[:bins]


def _exponents(x: Floats) -> NDArray[np.int32]:
    """Return floor(log2|x|). Exact; of 0, infinity and NaN something."""
    bits, fraction_bits = _bits(x)
    if bits is None:
        return np.frexp(x)[1] - np.int32(1)
    return (bits >> fraction_bits).astype(np.int32, copy=False) - np.int32(_BIAS[fraction_bits])


def _quarters(x: Floats) -> NDArray[np.int32]:
    """Return floor(4 log2|x|). Exact; of 0, infinity and NaN something."""
    bits, fraction_bits = _bits(x)
    if bits is None:
        scaled, exponent = np.frexp(x)  # from 1/2 to 1
        return _quarters(2.0 * scaled) + 4 * (exponent - np.int32(1))
    fraction = bits & ((1 << fraction_bits) - 1)
    steps = np.zeros(x.shape, np.int8)
    for least in _ROOTS[fraction_bits]:
        steps += (fraction >= least).view(np.int8)
    found = (bits >> fraction_bits).astype(np.int32, copy=False) - np.int32(_BIAS[fraction_bits])
    found *= np.int32(4)
    found += steps
    return found


def _bits(x: Floats) -> tuple[NDArray[Any] | None, int]:
    """Return the bits of |x| as integers, None if subnormal values are among them, and how many are of the fraction."""
    signed, unsigned, fraction_bits = (
        (np.int32, np.uint32, 23) if x.dtype == np.float32 else (np.int64, np.uint64, 52)
    )  # fmt: skip
    bits: NDArray[Any] = np.bitwise_and(x.view(signed), np.iinfo(signed).max)
    subnormal = np.less((bits - 1).view(unsigned), (1 << fraction_bits) - 1)
    return (None if subnormal.any() else bits), fraction_bits


_BIAS = {23: 127, 52: 1023}


def _root(k: int, fraction_bits: int) -> int:
    """Return the least fraction of a significand that is not below 2**(k/4)."""
    return math.isqrt(math.isqrt(1 << (4 * fraction_bits + k))) + 1 - (1 << fraction_bits)


_ROOTS = {fraction_bits: [_root(k, fraction_bits) for k in (1, 2, 3)] for fraction_bits in _BIAS}
