"""Two-pass adaptive accumulation: everything in low precision, then again in high precision what is badly conditioned.

Each output of the low pass has a score, see scores.py, and is kept if that is at most the tolerance; where there is a
budget, no more of a row are computed again than it allows. It is the ladder of two levels, see ladder.py. Source:
arXiv 2503.15568 and its public code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from formats.notebook import Shown, Table, View, frame
from native.matmul import Gathered

from .accumulators import Accumulator
from .criterion import Account, Criterion
from .engine import Ready, check_shapes, numbers
from .ladder import ladder
from .spec import MacSpec

if TYPE_CHECKING:
    from formats.notebook import DataFrame


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
class TwoPassResult(Shown):
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

    def to_frame(self) -> DataFrame:
        """Return the outputs as a DataFrame, a row each with its score and what became of it; needs pandas."""
        kept = {"output": self.output, "score": self.scores, "recomputed": self.recomputed, "saturated": self.saturated}
        row, column = np.indices(self.output.shape).reshape(2, -1).tolist()
        values = [row, column, *([None] * len(row) if x is None else x.ravel().tolist() for x in kept.values())]
        return frame(list(zip(*values, strict=True)), ("row", "column", *kept))

    def _view(self) -> View:
        m, n = self.output.shape
        counts = [{"outputs": m * n, "recomputed": int(self.recomputed.sum()), "saturated": int(self.saturated.sum())}]
        tables = [Table("Outputs", counts)]
        if self.cost is not None:
            cost = {
                "bits of low over high": self.cost.ratio,
                "share recomputed": self.cost.recomputed,
                "of uniform high": self.cost.relative_to_high,
                "of uniform low": self.cost.relative_to_low,
            }
            rounded = {name: float(f"{value:.3g}") for name, value in cost.items()}
            tables.append(Table("Accumulation cost", [rounded]))
        return View(f"Two passes of {m} x {n} outputs", (), tables)


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
    if not isinstance(criterion, Criterion | None):
        raise TypeError(f"criterion: got {criterion!r}; expected a Criterion or None; make one")
    if not isinstance(a, Gathered):
        a = numbers(a, "a")
    if not isinstance(b, Ready):
        b = numbers(b, "b")
    check_shapes("two_pass", a, b)
    found = ladder(
        a, b, (low, high), activation=activation, c=c, seed=seed, threads=threads,
        criterion=Criterion(tolerance, score) if criterion is None else criterion, scale=scale, shift=shift, step=step,
        site=site, first_row=first_row, matrix=matrix, keep_scores=keep_scores, account=account, logits=logits,
    )  # fmt: skip
    (recomputed,), cost = found.computed, found.cost
    relative = None if cost is None else TwoPassCost(cost.ratios[0], cost.shares[0], cost.scoring)
    return TwoPassResult(found.output, recomputed, found.scores, found.saturated, relative)
