"""Two-pass adaptive accumulation: everything in low precision, then again in high precision what is badly conditioned.

Each output of the low pass has a score, see scores.py, and is kept if that is at most the tolerance; where there is a
budget, no more of a row are computed again than it allows. Source: arXiv 2503.15568 and its public code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from formats import Use
from formats.arguments import whole_of_bits
from native.matmul import Gathered
from native.twins import convert

from .accumulators import Accumulator, result_use
from .activations import KAPPA_PRIME
from .engine import Accumulation, Ready, check_shapes, numbers, random_key
from .places import SITE_BITS
from .scores import Product, Score, Seen, kappa_of, score_of, upper_bound
from .spec import MacSpec, mac

# Outputs that are scored together, in several arrays of float64, and among which those to be recomputed are listed.
SCORED_AT_ONCE = 1 << 17
LISTED_AT_ONCE = 1 << 21
# Rows after which the account of a budget begins anew.
_PERIOD = 1 << 20


CALIBRATED = "sensitivity"  # the name of a score that is made of samples, see scores.Sensitivity


@dataclass(frozen=True)
class Criterion:
    """When an output of the low pass is kept.

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
    """

    tolerance: float = 0.5
    score: str | Score = "kappa_prime"
    recompute_nonfinite: bool = True
    recompute_saturated: bool = True
    side_format: Use | None = None
    budget: float | None = None
    sign_safe: float | None = None

    def __post_init__(self) -> None:
        number = isinstance(self.tolerance, int | float | np.integer | np.floating)
        if not number or isinstance(self.tolerance, bool) or not self.tolerance >= 0:
            raise ValueError(f"tolerance: expected a number in [0, inf], got {self.tolerance!r}")
        try:
            object.__setattr__(self, "tolerance", float(self.tolerance))
        except OverflowError:
            raise ValueError(
                f"tolerance: expected a number that float64 holds, got {self.tolerance!r}; give math.inf"
            ) from None
        if self.score != CALIBRATED:
            score_of(self.score)
        share = self.budget
        if share is not None and (isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1):
            raise ValueError(f"budget: expected a share in [0, 1] or None, got {share!r}")
        beta = self.sign_safe
        if beta is not None and (isinstance(beta, bool) or not isinstance(beta, int | float) or not 0 < beta <= 1):
            raise ValueError(f"sign_safe: expected a number in (0, 1] or None, got {beta!r}")

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
        keep: NDArray[np.bool_] = (scores <= self.tolerance) & ~must
        if self.budget is not None:
            wanted = np.count_nonzero(~keep, axis=1)
            most = (account or Account()).allow(self.budget * keep.shape[1], first_row, wanted)
            over = np.flatnonzero(wanted > most)
            keep[over] |= ~_first(np.where(must, np.inf, scores)[over], most[over])
        return keep


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
    """Return which are the largest in each row, so many of them; of equal ones the first."""
    order = np.argsort(-scores, axis=1, kind="stable")
    chosen = np.zeros(scores.shape, np.bool_)
    np.put_along_axis(chosen, order, np.arange(scores.shape[1]) < counts[:, None], axis=1)
    return chosen


@dataclass(frozen=True)
class TwoPassCost:
    """Accumulation cost relative to the uniform modes: equations (9) and (10) of the source.

    Args:
        ratio: a, bits of the low state over bits of the high one.
        recomputed: rho, the share of outputs (and of MACs) that were recomputed.
        scoring: e, what the score costs beside the low pass, in low passes: 1 for a second one, the bits of a running
            sum over those of the low state; 0 for what is done once an output.
    """

    ratio: float
    recomputed: float
    scoring: float = 0.0

    @property
    def relative_to_high(self) -> float:
        """C / C_high = a (1 + e) + rho."""
        return self.ratio * (1.0 + self.scoring) + self.recomputed

    @property
    def relative_to_low(self) -> float:
        """C / C_low = 1 + e + rho / a."""
        return 1.0 + self.scoring + self.recomputed / self.ratio


@dataclass(frozen=True)
class TwoPassResult:
    """What a two-pass matmul gives.

    Args:
        output: (M, N), before the activation; kept outputs are those of the uniform low pass, the others those of the
            uniform high pass, bit for bit.
        recomputed: (M, N) boolean. scores: (M, N) float64, or None where they were not to be kept.
        saturated: (M, N) boolean, overflow in the low pass.
        cost: relative accumulation cost; None with kappa_exact, which no hardware has.
    """

    output: NDArray[Any]
    recomputed: NDArray[np.bool_]
    scores: NDArray[np.float64] | None
    saturated: NDArray[np.bool_]
    cost: TwoPassCost | None


def kappa_prime(
    v: NDArray[Any], activation: str, scale: ArrayLike = 1.0, shift: ArrayLike = 0.0
) -> NDArray[np.float64]:
    """Return kappa' of outputs v, float64 and of their shape; an estimate, in float64 arithmetic.

    Args:
        activation: key of KAPPA_PRIME.
        scale, shift: of an affine map between v and the activation (a folded batch normalisation), broadcast to v.
    Raises:
        ValueError: an activation without a rule.
    """
    if not isinstance(activation, str) or activation not in KAPPA_PRIME:
        raise ValueError(f"activation {activation!r} has no rule; expected one of {', '.join(KAPPA_PRIME)}")
    return kappa_of(_mapped(v, scale, shift), activation)


def _mapped(v: NDArray[Any], scale: ArrayLike, shift: ArrayLike) -> NDArray[np.float64]:
    """Return what the activation gets, float64."""
    wide = convert(v, np.float64)
    if np.isscalar(scale) and scale == 1 and np.isscalar(shift) and shift == 0:
        return wide
    with np.errstate(over="ignore", invalid="ignore"):
        found: NDArray[np.float64] = wide * _onto(wide.shape, scale, "scale") + _onto(wide.shape, shift, "shift")
    return found


def _onto(shape: tuple[int, ...], x: ArrayLike, name: str) -> NDArray[Any]:
    factors = numbers(x, name)
    try:
        return np.broadcast_to(factors, shape)
    except ValueError:
        raise ValueError(f"{name} {factors.shape} does not broadcast to the output's shape {shape}") from None


def two_pass(
    a: ArrayLike | Gathered,
    b: ArrayLike | Ready,
    low: str | Mapping[str, Any] | MacSpec | Accumulator,
    high: str | Mapping[str, Any] | MacSpec | Accumulator,
    tolerance: float = 0.5,
    activation: str = "identity",
    c: ArrayLike | None = None,
    score: str = "kappa_prime",
    seed: int = 0,
    threads: int | None = None,
    criterion: Criterion | None = None,
    scale: ArrayLike = 1.0,
    shift: ArrayLike = 0.0,
    step: int = 0,
    site: int = 0,
    first_row: int = 0,
    matrix: int = 0,
    keep_scores: bool = True,
    account: Account | None = None,
    logits: tuple[float, ArrayLike] | None = None,
) -> TwoPassResult:
    """Multiply two matrices in two passes; the second computes the flagged outputs only.

    Args:
        a, b, c, seed, threads, step, site, first_row, matrix: as for matmul, but (M, K) and (K, N) only; a may be
            gathered, and b ready where both passes have its format. The passes draw different random words: their sites
            are the pair 2 * site and 2 * site + 1.
        low, high: MAC units of the two passes.
        tolerance, score: of the criterion, unless one is given whole.
        activation: what consumes the output, a key of activations.KAPPA_PRIME.
        criterion: when an output of the low pass is kept; in place of tolerance and score.
        scale, shift: of an affine map between the output and the activation, broadcast to (M, N).
        keep_scores: whether to return them; they take more memory than all else.
        account: of a budget, where the rows before were those of other calls.
        logits: where a softmax over each row reads the outputs: a factor, and what is then added, broadcast to (M, N).
    Returns:
        TwoPassResult: its output is (M, N), float32 if that holds the outputs of both passes, else float64; exact
        definition.
    Raises:
        ValueError: shapes, formats, tolerance or activation that do not fit. TypeError: operands that are not numbers.
    """
    if not isinstance(activation, str) or activation not in KAPPA_PRIME:
        raise ValueError(f"activation {activation!r} has no rule; expected one of {', '.join(KAPPA_PRIME)}")
    if not isinstance(criterion, Criterion | None):
        raise TypeError(f"criterion: expected a Criterion or None, got {criterion!r}")
    criterion = Criterion(tolerance, score) if criterion is None else criterion
    low, high = mac(low), mac(high)
    if not isinstance(a, Gathered):
        a = numbers(a, "a")
    if not isinstance(b, Ready):
        b = numbers(b, "b")
    check_shapes("two_pass", a, b)
    n = b.shape[1]
    whole_of_bits("site", site, SITE_BITS - 1)
    keys = [random_key(seed, step, 2 * site + i, first_row, n, matrix) for i in range(2)]
    accumulation = Accumulation(low, a, b, c, threads, keys[0])
    first, counted = accumulation.dense("overflows")
    assert counted is not None
    saturated, product = counted.overflowed, Product(accumulation, criterion.side_format)
    scored = score_of(criterion.score)
    account = Account() if account is None else account
    affine: list[Any] = [
        x if np.isscalar(x) else _onto(first.shape, x, name) for x, name in ((scale, "scale"), (shift, "shift"))
    ]
    recomputed = np.empty(first.shape, np.bool_)
    kept = np.empty(first.shape) if keep_scores else None
    for rows in _strips(first.shape, SCORED_AT_ONCE):
        own = [x if np.isscalar(x) else x[rows] for x in affine]
        added = None if logits is None else (logits[0], _onto(first.shape, logits[1], "logits")[rows])
        seen = Seen(_mapped(first[rows], *own), activation, rows, product, own[0], own[1], added)
        unsafe = _unsafe(criterion.sign_safe, seen)  # before the score, which may write over v
        scores = scored(seen)
        keep = criterion.keep(first[rows], scores, saturated[rows], first_row + rows.start, unsafe, account)
        np.logical_not(keep, out=recomputed[rows])
        if kept is not None:
            kept[rows] = scores
    output = convert(first, np.result_type(low.dtype, high.dtype))
    count = int(np.count_nonzero(recomputed))
    if count:
        second = Accumulation(high, a, b, c, threads, keys[1])
        for rows in _strips(first.shape, LISTED_AT_ONCE):
            at, columns = np.divmod(np.flatnonzero(recomputed[rows]), n)
            at += rows.start
            if at.size:
                output[at, columns] = second.listed((at, columns))[0]
    share = count / recomputed.size if recomputed.size else 0.0
    return TwoPassResult(output, recomputed, kept, saturated, _cost(low, high, criterion, share))


def _unsafe(beta: float | None, seen: Seen) -> NDArray[np.bool_] | bool:
    """Return which outputs may be positive but for the errors of the low pass, and count as negative."""
    if beta is None or seen.activation != "relu":
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        found: NDArray[np.bool_] = ~((seen.v > 0) | (np.abs(seen.v) > beta * upper_bound(seen)))
    return found


def _cost(low: MacSpec, high: MacSpec, criterion: Criterion, share: float) -> TwoPassCost | None:
    if criterion.score == "kappa_exact":
        return None
    bits = [result_use(unit.accumulator).format.bits for unit in (low, high)]
    scoring = 0.0
    if criterion.score == "kappa_full":
        scoring = 1.0 if criterion.side_format is None else criterion.side_format.format.bits / bits[0]
    return TwoPassCost(bits[0] / bits[1], share, scoring)


def _strips(shape: tuple[int, int], outputs: int) -> Iterator[slice]:
    """Yield the rows of a result so many outputs at a time; an empty result at once."""
    step = max(1, outputs // max(1, shape[1]))
    for first in range(0, max(1, shape[0]), step):
        yield slice(first, min(first + step, shape[0]))
