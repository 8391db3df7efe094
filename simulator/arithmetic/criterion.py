"""When an output of a pass is kept, and when it is computed again in a higher precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats import Use

from .scores import OF_SAMPLES, Score, score_of

LADDERS = ("climb", "jump")
_LARGEST = float(np.finfo(np.float64).max)
# Rows after which the account of a budget begins anew.
_PERIOD = 1 << 20


@dataclass(frozen=True)
class Criterion:
    """When an output of the low pass is kept, and which further level of a ladder the others have.

    Args:
        tolerance: largest score that is kept, in [0, inf].
        score: its name, see scores.SCORES, or the score itself.
        recompute_nonfinite: recompute infinities and NaNs whatever their score.
        recompute_saturated: recompute outputs that overflowed or saturated on the way, whatever their score.
        side_format: of the running sum of magnitudes beside the first pass, as kappa_full takes it; None: a pass of the
            low unit over the magnitudes.
        sign_safe: before relu an output v that is not positive is kept only if |v| is above so many upper bounds of its
            numerator sum |a b| + |c|, so that its sign is right where the error of the low pass is below that. None: by
            its score, as with other activations.
        budget: at most this share of the outputs is recomputed, in [0, 1], of the rows up to any one: what rows leave,
            later ones may have. In a row those come first that the switches name, whatever their score, then the
            largest scores; of equal ones the first. None: the tolerance decides alone.
        further: of a ladder the tolerances of the levels between the first and the last, rising; None: the first one
            times the unit roundoff of the first level over that of the level.
        threshold: of the budget of a network, which samples have shared out: the scores of the first pass up to it are
            kept, whatever the tolerance. None: the tolerance decides alone.
        kind: of a ladder: climb (each level is scored again with its own outputs) | jump (the scores of the first level
            pick the level of each output).
    """

    tolerance: float = 0.5
    score: str | Score = "kappa_prime"
    recompute_nonfinite: bool = True
    recompute_saturated: bool = True
    side_format: Use | None = None
    budget: float | None = None
    sign_safe: float | None = None
    further: tuple[float, ...] | None = None
    kind: str = "climb"
    threshold: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tolerance", _tolerance(self.tolerance))
        if self.further is not None:
            if not isinstance(self.further, Sequence) or isinstance(self.further, str):
                raise ValueError(
                    f"further: got {self.further!r}; expected tolerances, one for each level between; give a tuple"
                )
            further = tuple(_tolerance(x) for x in self.further)
            if any(after < before for before, after in pairwise((self.tolerance, *further))):
                raise ValueError(f"tolerance: got {(self.tolerance, *further)}; expected rising ones; sort them")
            object.__setattr__(self, "further", further)
        if self.kind not in LADDERS:
            raise ValueError(f"kind: got {self.kind!r}; expected {' or '.join(LADDERS)}; give one of them")
        if self.score != OF_SAMPLES:
            score_of(self.score)
        for switch in ("recompute_nonfinite", "recompute_saturated"):
            if not isinstance(getattr(self, switch), bool):
                raise ValueError(f"{switch}: got {getattr(self, switch)!r}; expected True or False; give one")
        if self.budget is not None and not (_is_number(self.budget) and 0 <= self.budget <= 1):
            raise ValueError(f"budget: got {self.budget!r}; expected a share in [0, 1] or None; give one")
        if self.sign_safe is not None and not (_is_number(self.sign_safe) and 0 < self.sign_safe <= 1):
            raise ValueError(f"sign_safe: got {self.sign_safe!r}; expected a number in (0, 1] or None; give one")

    def keep(
        self,
        v: NDArray[Any],
        scores: NDArray[np.float64],
        saturated: NDArray[np.bool_],
        first_row: int = 0,
        unsafe: NDArray[np.bool_] | bool = False,
        account: Account | None = None,
    ) -> NDArray[np.bool_]:
        """Return which outputs of the low pass are kept, of some rows, the first of which has this number.

        `unsafe` are those that must be computed again because of their sign; `account` what the rows before have left
        of a budget, None for nothing.
        """
        must = np.isnan(scores) | unsafe
        if self.recompute_nonfinite:
            must |= ~np.isfinite(v)
        if self.recompute_saturated:
            must |= saturated
        # +inf is kept by an infinite tolerance only.
        most_kept = self.tolerance if self.threshold is None else max(self.tolerance, self.threshold)
        keep: NDArray[np.bool_] = (scores <= most_kept) & ~must
        if self.budget is not None:
            wanted = np.count_nonzero(~keep, axis=1)
            most = (account or Account()).allow(self.budget * keep.shape[1], first_row, wanted)
            over = np.flatnonzero(wanted > most)
            # What must go stands before all else, also before the infinite scores of outputs that are zero.
            ranks = np.where(must[over], np.inf, np.minimum(scores[over], _LARGEST))
            keep[over] |= ~_first(ranks, most[over])
        return keep


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float | np.integer | np.floating) and not isinstance(x, bool)


def _tolerance(x: Any) -> float:
    if not _is_number(x) or not x >= 0:
        raise ValueError(f"tolerance: got {x!r}; expected a number in [0, inf]; give e.g. 0.5")
    try:
        return float(x)
    except OverflowError:
        raise ValueError(f"tolerance: got {x!r}; expected a number that float64 holds; give math.inf") from None


class Account:
    """What a budget has spent on rows that come one after the other, in one call or in several."""

    def __init__(self) -> None:
        self._next_row = self._spent = 0

    def allow(self, share: float, first_row: int, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many outputs of each row are recomputed, at most `share` for each of the rows up to any one.

        Args:
            share: outputs a row, on average. first_row: number of the first row; where it does not follow on those of
                the last call, nothing is left of the rows before. wanted: outputs by row.
        """
        allowed = np.empty_like(wanted)
        done = 0
        while done < wanted.size:
            number = (first_row + done) % _PERIOD
            some = np.cumsum(wanted[done : done + _PERIOD - number])
            if number == 0 or first_row + done != self._next_row:
                self._spent = math.floor(share * number)
            most = np.floor(share * np.arange(number + 1, number + 1 + some.size)).astype(np.int64)
            # What is spent up to a row is what is wanted, cut at each row before to what there was by then.
            spent = some + np.minimum(self._spent, np.minimum.accumulate(most - some))
            allowed[done : done + some.size] = np.diff(spent, prepend=self._spent)
            done += some.size
            self._next_row, self._spent = first_row + done, int(spent[-1])
        return allowed


def _first(scores: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which are the largest in each row, so many of them; of equal ones the first. No score is NaN."""
    falling = -np.sort(-scores, axis=1)  # many times as fast as an argsort that keeps the order of equal ones
    last = np.take_along_axis(falling, np.maximum(counts - 1, 0)[:, None], axis=1)
    chosen, equal = scores > last, scores == last
    left = counts - np.count_nonzero(chosen, axis=1)
    tied = np.flatnonzero(np.count_nonzero(equal, axis=1) > left)
    equal[tied] &= np.cumsum(equal[tied], axis=1) <= left[tied, None]
    return chosen | equal
