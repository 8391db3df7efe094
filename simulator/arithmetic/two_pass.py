"""Two-pass adaptive accumulation: everything in low precision, then again in high precision what is badly conditioned.

The score of an output v is kappa'(v) = kappa_phi(v) / |v|, kappa_phi the condition number of the activation that
consumes it; an output is kept if its score is at most the tolerance. Source: arXiv 2503.15568 and its public code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from formats.arguments import whole_of_bits
from native.matmul import Gathered
from native.twins import convert

from .accumulators import Accumulator, result_use
from .engine import Accumulation, Ready, check_shapes, numbers, random_key
from .places import SITE_BITS
from .spec import MacSpec, mac

# Outputs that are scored together, in several arrays of float64, and among which those to be recomputed are listed.
SCORED_AT_ONCE = 1 << 17
LISTED_AT_ONCE = 1 << 21


def _inverse(v: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(1.0, np.abs(v, out=v), out=v)


def _inverse_if_positive(v: NDArray[np.float64]) -> NDArray[np.float64]:
    negative = v < 0  # a NaN is not, and stays NaN
    inverse = _inverse(v)  # written over v
    np.copyto(inverse, 0.0, where=negative)
    return inverse


def _tanh(v: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(2.0, np.abs(np.sinh(np.multiply(2.0, v, out=v), out=v), out=v), out=v)


# kappa_phi(v) / |v| for each activation, on float64 v of any sign, written over v; +inf at a zero that the activation
# does not forgive.
KAPPA_PRIME: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "identity": _inverse,
    "relu": _inverse_if_positive,
    "tanh": _tanh,
}


@dataclass(frozen=True)
class Criterion:
    """When an output of the low pass is kept.

    Args:
        tolerance: largest score that is kept, in [0, inf].
        score: "kappa_prime".
        recompute_nonfinite: recompute infinities and NaNs whatever their score.
        recompute_saturated: recompute outputs that overflowed or saturated on the way, whatever their score.
    """

    tolerance: float = 0.5
    score: str = "kappa_prime"
    recompute_nonfinite: bool = True
    recompute_saturated: bool = True

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
        if self.score != "kappa_prime":
            raise ValueError(f"score {self.score!r} is unknown; expected kappa_prime")

    def keep(self, v: NDArray[Any], scores: NDArray[np.float64], saturated: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which outputs of the low pass are kept."""
        keep = scores <= self.tolerance  # false for NaN; +inf is kept by an infinite tolerance only
        if self.recompute_nonfinite:
            keep &= np.isfinite(v)
        if self.recompute_saturated:
            keep &= ~saturated
        return keep


@dataclass(frozen=True)
class TwoPassCost:
    """Accumulation cost relative to the uniform modes: equations (9) and (10) of the source.

    Args:
        ratio: a, bits of the low state over bits of the high one.
        recomputed: rho, the share of outputs (and of MACs) that were recomputed.
    """

    ratio: float
    recomputed: float

    @property
    def relative_to_high(self) -> float:
        """C / C_high = a + rho."""
        return self.ratio + self.recomputed

    @property
    def relative_to_low(self) -> float:
        """C / C_low = 1 + rho / a."""
        return 1.0 + self.recomputed / self.ratio


@dataclass(frozen=True)
class TwoPassResult:
    """What a two-pass matmul gives.

    Args:
        output: (M, N), before the activation; kept outputs are those of the uniform low pass, the others those of the
            uniform high pass, bit for bit.
        recomputed: (M, N) boolean. scores: (M, N) float64, or None where they were not to be kept.
        saturated: (M, N) boolean, overflow in the low pass.
        cost: relative accumulation cost.
    """

    output: NDArray[Any]
    recomputed: NDArray[np.bool_]
    scores: NDArray[np.float64] | None
    saturated: NDArray[np.bool_]
    cost: TwoPassCost


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
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        wide = convert(v, np.float64)
        if not (np.isscalar(scale) and scale == 1 and np.isscalar(shift) and shift == 0):
            wide = wide * _onto(wide.shape, scale, "scale") + _onto(wide.shape, shift, "shift")
        return KAPPA_PRIME[activation](wide.copy() if wide is v else wide)


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
) -> TwoPassResult:
    """Multiply two matrices in two passes; the second computes the flagged outputs only.

    Args:
        a, b, c, seed, threads, step, site, first_row, matrix: as for matmul, but (M, K) and (K, N) only; a may be
            gathered, and b ready where both passes have its format. The passes draw different random words: their sites
            are the pair 2 * site and 2 * site + 1.
        low, high: MAC units of the two passes.
        tolerance, score: of the criterion, unless one is given whole.
        activation: what consumes the output: identity, relu or tanh.
        criterion: when an output of the low pass is kept; in place of tolerance and score.
        scale, shift: of an affine map between the output and the activation, broadcast to (M, N).
        keep_scores: whether to return them; they take more memory than all else.
    Returns:
        TwoPassResult: its output is (M, N), float32 if that holds the outputs of both passes, else float64; exact
        definition.
    Raises:
        ValueError: shapes, formats, tolerance or activation that do not fit. TypeError: operands that are not numbers.
    """
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
    first, counted = Accumulation(low, a, b, c, threads, keys[0]).dense("overflows")
    assert counted is not None
    saturated = counted.overflowed
    affine: list[Any] = [
        x if np.isscalar(x) else _onto(first.shape, x, name) for x, name in ((scale, "scale"), (shift, "shift"))
    ]
    recomputed = np.empty(first.shape, np.bool_)
    kept = np.empty(first.shape) if keep_scores else None
    for rows in _strips(first.shape, SCORED_AT_ONCE):
        scores = kappa_prime(first[rows], activation, *(x if np.isscalar(x) else x[rows] for x in affine))
        np.logical_not(criterion.keep(first[rows], scores, saturated[rows]), out=recomputed[rows])
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
    ratio = result_use(low.accumulator).format.bits / result_use(high.accumulator).format.bits
    cost = TwoPassCost(ratio, count / recomputed.size if recomputed.size else 0.0)
    return TwoPassResult(output, recomputed, kept, saturated, cost)


def _strips(shape: tuple[int, int], outputs: int) -> Iterator[slice]:
    """Yield the rows of a result so many outputs at a time; an empty result at once."""
    step = max(1, outputs // max(1, shape[1]))
    for first in range(0, max(1, shape[0]), step):
        yield slice(first, min(first + step, shape[0]))
