"""A ladder of precisions: everything in the lowest one, then what is badly conditioned in the next, and so on.

Each output of a pass has a score, see scores.py, and is kept if that is at most the tolerance of the level: by default
tau_k = tau_1 u_1 / u_k, u_k the unit roundoff of level k, since the error of an output is in proportion to both its
condition number and that. Source: arXiv 2503.15568 for two levels; more of them are the project's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from formats import FloatFormat
from formats.arguments import whole_of_bits
from formats.notebook import Shown, Table, View, frame
from native.matmul import Gathered
from native.twins import convert

from .accumulators import Accumulator, result_use
from .activations import KAPPA_PRIME
from .criterion import Account, Criterion
from .engine import Accumulation, Ready, check_shapes, numbers, random_key
from .places import SITE_BITS
from .scores import Product, Score, Seen, score_of, upper_bound
from .spec import MacSpec, mac

if TYPE_CHECKING:
    from formats.notebook import DataFrame

# Outputs that are scored together, in several arrays of float64, and among which those to be recomputed are listed.
SCORED_AT_ONCE = 1 << 17
LISTED_AT_ONCE = 1 << 21

MOST_LEVELS = 32
# Of sites, where there are more than two levels: the random words of each pair of levels are from a part of their own.
_PAIR_BITS = 4


@dataclass(frozen=True)
class LadderCost:
    """Accumulation cost relative to the uniform modes.

    Args:
        ratios: a_k of each level below the last, bits of its state over those of the last one.
        shares: q_k of each level after the first, the share of outputs (and of MACs) that it computed.
        scoring: e, what the score costs beside the first pass, in first passes; see TwoPassCost.
    """

    ratios: tuple[float, ...]
    shares: tuple[float, ...]
    scoring: float = 0.0

    @property
    def relative_to_high(self) -> float:
        """C / C_high = a_1 (1 + e) + sum over k >= 2 of a_k q_k."""
        further = zip((*self.ratios[1:], 1.0), self.shares, strict=True)
        return self.ratios[0] * (1.0 + self.scoring) + sum(a * q for a, q in further)

    @property
    def relative_to_low(self) -> float:
        """C / C_low, of the first level alone."""
        return self.relative_to_high / self.ratios[0]


@dataclass(frozen=True)
class LadderResult(Shown):
    """What a ladder of K levels gives.

    Args:
        output: (M, N), before the activation; each output is that of the uniform pass of its level, bit for bit.
        computed: of each level after the first, which outputs it computed, (M, N) boolean.
        scores: of the first pass, (M, N) float64, or None where they were not to be kept.
        saturated: (M, N) boolean, overflow in the first pass.
        cost: relative accumulation cost; None with kappa_exact, which no hardware has.
    """

    output: NDArray[Any]
    computed: tuple[NDArray[np.bool_], ...]
    scores: NDArray[np.float64] | None
    saturated: NDArray[np.bool_]
    cost: LadderCost | None

    @property
    def level(self) -> NDArray[np.uint8]:
        """Which level gave each output, (M, N), from 0."""
        found = np.zeros(self.output.shape, np.uint8)
        for number, computed in enumerate(self.computed, 1):
            found[computed] = number
        return found

    def to_frame(self) -> DataFrame:
        """Return the outputs as a DataFrame, a row each with its score and the level that gave it; needs pandas."""
        kept = {"output": self.output, "score": self.scores, "level": self.level, "saturated": self.saturated}
        row, column = np.indices(self.output.shape).reshape(2, -1).tolist()
        values = [row, column, *([None] * len(row) if x is None else x.ravel().tolist() for x in kept.values())]
        return frame(list(zip(*values, strict=True)), ("row", "column", *kept))

    def _view(self) -> View:
        m, n = self.output.shape
        given = np.bincount(self.level.ravel(), minlength=1 + len(self.computed)).tolist()
        counts = [m * n, *(int(np.count_nonzero(one)) for one in self.computed)]
        ratios = [None] * len(counts) if self.cost is None else [*self.cost.ratios, 1.0]
        levels = [
            {"level": number, "computed": computed, "kept": kept, "bits over those of the last": _short(ratio)}
            for number, (computed, kept, ratio) in enumerate(zip(counts, given, ratios, strict=True))
        ]
        names = [name for name in levels[0] if self.cost is not None or not name.startswith("bits")]
        tables = [Table("Outputs by level", levels, names)]
        if self.cost is not None:
            cost = {"of uniform high": self.cost.relative_to_high, "of uniform low": self.cost.relative_to_low}
            tables.append(Table("Accumulation cost", [{name: _short(value) for name, value in cost.items()}]))
        return View(f"Ladder of {len(counts)} levels, {m} x {n} outputs", (), tables)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


class Judged(NamedTuple):
    """What is said of some rows of a pass: what the score sees, the scores, which signs are unsafe."""

    seen: Seen
    scores: NDArray[np.float64]
    unsafe: NDArray[np.bool_] | bool


@dataclass(frozen=True)
class _Judge:
    """What scores the outputs of each pass.

    Args:
        score: its name. activation: what consumes the outputs. product: of the first pass, for numerators.
        scale, shift: of the affine map between, numbers or (M, N). logits: a factor and (M, N), or None.
    """

    score: str | Score
    activation: str
    product: Product
    scale: Any
    shift: Any
    logits: tuple[float, NDArray[Any]] | None

    def __call__(self, outputs: NDArray[Any], rows: slice, sign_safe: float | None) -> Judged:
        """Judge some rows of a pass; `sign_safe` is that of its level."""
        scale, shift = (x if np.isscalar(x) else x[rows] for x in (self.scale, self.shift))
        added = None if self.logits is None else (self.logits[0], self.logits[1][rows])
        v = mapped(outputs[rows], scale, shift).view()
        v.flags.writeable = False  # of a pass in float64 these are the outputs themselves
        seen = Seen(v, self.activation, rows, self.product, scale, shift, added)
        return Judged(seen, _checked(score_of(self.score)(seen), seen, self.score), _unsafe(sign_safe, seen))


def ladder(
    a: ArrayLike | Gathered,
    b: ArrayLike | Ready,
    levels: Sequence[str | Mapping[str, Any] | MacSpec | Accumulator],
    tolerance: float | Sequence[float] = 0.5,
    activation: str = "identity",
    c: ArrayLike | None = None,
    score: str | Score = "kappa_prime",
    kind: str = "climb",
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
) -> LadderResult:
    """Multiply two matrices in passes of rising precision, each of which computes what the one before did not settle.

    Infinities, NaNs and overflows, as far as the criterion names them, and what has no score or an unsafe sign, go to
    the next level; with `jump` other outputs go to the first level whose tolerance their score meets, and nothing is
    scored again. Numerators of scores are those of the first pass. A budget counts what goes beyond the first level.

    Args:
        a, b, c, seed, threads, step, site, first_row, matrix: as for matmul, but (M, K) and (K, N) only; a may be
            gathered, and b ready where all passes have its format. Each pass draws random words of its own, whatever
            was flagged: see `site_of_level`.
        levels: MAC units in rising precision, two at least.
        tolerance, score, kind: of the criterion, unless one is given whole; one tolerance for each level below the
            last, or that of the first.
        activation: what consumes the output, a key of activations.KAPPA_PRIME.
        criterion: when an output is kept; in place of tolerance, score and kind.
        scale, shift: of an affine map between the output and the activation, broadcast to (M, N).
        keep_scores: whether to return them; they take more memory than all else.
        account: of a budget, where the rows before were those of other calls.
        logits: where a softmax over each row reads the outputs: a factor, and what is then added, broadcast to (M, N).
    Returns:
        LadderResult: its output is (M, N), float32 if that holds the outputs of all passes, else float64; exact
        definition.
    Raises:
        ValueError: shapes, formats, levels, tolerances or activation that do not fit. TypeError: operands that are not
        numbers.
    """
    if not isinstance(activation, str) or activation not in KAPPA_PRIME:
        raise ValueError(f"activation {activation!r} has no rule; expected one of {', '.join(KAPPA_PRIME)}")
    if not isinstance(criterion, Criterion | None):
        raise TypeError(f"criterion: got {criterion!r}; expected a Criterion or None; make one")
    if criterion is None:
        first_one, *further = tolerance if isinstance(tolerance, Sequence) else (tolerance,)
        criterion = Criterion(first_one, score, further=tuple(further) or None, kind=kind)
    units = [mac(level) for level in levels]
    if not 2 <= len(units) <= MOST_LEVELS:
        raise ValueError(f"levels: got {len(units)}; expected 2 to {MOST_LEVELS} MAC units; give so many")
    criteria = criteria_of(criterion, units)
    if not isinstance(a, Gathered):
        a = numbers(a, "a")
    if not isinstance(b, Ready):
        b = numbers(b, "b")
    check_shapes("ladder", a, b)
    n = b.shape[1]
    whole_of_bits("site", site, SITE_BITS - 1 - (_PAIR_BITS if len(units) > 2 else 0))
    keys = [random_key(seed, step, site_of_level(site, number), first_row, n, matrix) for number in range(len(units))]
    accumulation = Accumulation(units[0], a, b, c, threads, keys[0])
    first, counted = accumulation.dense("overflows")
    assert counted is not None
    saturated = counted.overflowed
    affine = [x if np.isscalar(x) else onto(first.shape, x, name) for x, name in ((scale, "scale"), (shift, "shift"))]
    added = None if logits is None else (logits[0], onto(first.shape, logits[1], "logits"))
    product = Product(accumulation, criterion.side_format)
    judge = _Judge(criterion.score, activation, product, affine[0], affine[1], added)
    account = Account() if account is None else account
    wanted, kept = _levels_of(first, saturated, judge, criteria, first_row, account, keep_scores)
    output = convert(first, np.result_type(*(unit.dtype for unit in units)))
    computed = []
    for number, (unit, key) in enumerate(zip(units[1:], keys[1:], strict=True), 1):
        own = wanted == number
        computed.append(own)
        if not own.any():
            continue
        last = number == len(units) - 1
        overflowed = _computed(Accumulation(unit, a, b, c, threads, key), own, output, counts=not last)
        if last:
            break
        rule = criteria[number]
        for rows in _strips(first.shape, SCORED_AT_ONCE):
            if not own[rows].any():
                continue
            if criterion.kind == "climb":
                _, scores, unsafe = judge(output, rows, rule.sign_safe)
            else:
                scores, unsafe = np.zeros(output[rows].shape), False
            wanted[rows] += own[rows] & ~rule.keep(output[rows], scores, overflowed[rows], unsafe=unsafe)
    shares = tuple(int(np.count_nonzero(one)) / one.size if one.size else 0.0 for one in computed)
    return LadderResult(output, tuple(computed), kept, saturated, _cost(units, criterion, shares))


def _levels_of(
    first: NDArray[Any], saturated: NDArray[np.bool_], judge: _Judge, criteria: Sequence[Criterion], first_row: int,
    account: Account, keep_scores: bool,
) -> tuple[NDArray[np.uint8], NDArray[np.float64] | None]:  # fmt: skip
    """Return the level that is to compute each output after the first pass, 0 for one that is kept, and the scores."""
    criterion = criteria[0]
    wanted = np.zeros(first.shape, np.uint8)
    kept = np.empty(first.shape) if keep_scores else None
    for rows in _strips(first.shape, SCORED_AT_ONCE):
        seen, scores, unsafe = judge(first, rows, criterion.sign_safe)
        out, beyond = first[rows], saturated[rows]
        if judge.logits is not None:  # what no softmax reads is kept, whatever it is
            out, beyond = np.where(seen.masked, 0, out), beyond & ~seen.masked
        go = ~criterion.keep(out, scores, beyond, first_row + rows.start, unsafe, account)
        wanted[rows] = go
        if criterion.kind == "jump":
            for rule in criteria[1:]:
                wanted[rows] += go & (scores > rule.tolerance)
        if kept is not None:
            kept[rows] = scores
    return wanted, kept


def _computed(again: Accumulation, own: NDArray[np.bool_], output: NDArray[Any], counts: bool) -> NDArray[np.bool_]:
    """Compute some outputs by another pass, in place, and return which of them overflowed, if that counts."""
    overflowed = np.zeros(own.shape, np.bool_)
    for rows in _strips(own.shape, LISTED_AT_ONCE):
        at, columns = np.divmod(np.flatnonzero(own[rows]), own.shape[1])
        at += rows.start
        if at.size:
            output[at, columns], counted = again.listed((at, columns), overflows=counts)
            if counted is not None:
                overflowed[at, columns] = counted.overflowed
    return overflowed


def site_of_level(site: int, number: int) -> int:
    """Return the site from which a level draws its random words, the first of which has the number 0.

    The first two have the neighbours 2 * site and 2 * site + 1; each pair of further ones has these in a part of the
    sites of its own.
    """
    return number // 2 << SITE_BITS - _PAIR_BITS | 2 * site + number % 2


def criteria_of(criterion: Criterion, levels: Sequence[MacSpec]) -> tuple[Criterion, ...]:
    """Return when an output is kept, of each level but the last.

    A budget counts what goes beyond the first level, and only there.

    Raises:
        ValueError: another number of tolerances than levels below the last; a level of which no unit roundoff is known
            that a tolerance could follow from, or with a larger one than the level before.
    """
    between, further = levels[1:-1], criterion.further
    if further is not None and len(further) != len(between):
        raise ValueError(
            f"tolerance: got {1 + len(further)}; expected one, or one for each level below the last, "
            f"{len(between) + 1}; give so many"
        )
    found = [criterion]
    for number, _ in enumerate(between, 1):
        ratio = 1.0 if further is not None and criterion.sign_safe is None else roundoff_ratio(levels, number)
        found.append(
            replace(
                criterion,
                tolerance=criterion.tolerance * ratio if further is None else further[number - 1],
                sign_safe=None if criterion.sign_safe is None else criterion.sign_safe / ratio,
                budget=None,
                threshold=None,
                further=None,
            )
        )
    return tuple(found)


def roundoff_ratio(levels: Sequence[MacSpec], number: int) -> float:
    """Return the unit roundoff of the first level over that of another."""
    formats_of = [result_use(unit.accumulator).format for unit in levels[: number + 1]]
    roundoffs = [fmt.unit_roundoff for fmt in formats_of if isinstance(fmt, FloatFormat)]
    if len(roundoffs) < len(formats_of):
        raise ValueError(
            f"levels: got {', '.join(map(str, levels))}; expected accumulators of floats, whose unit roundoffs give "
            "the tolerances between; give one tolerance for each level below the last, and no sign_safe"
        )
    if any(after > before for before, after in pairwise(roundoffs)):
        raise ValueError(f"levels: got {', '.join(map(str, levels))}; expected rising precisions; sort them")
    return roundoffs[0] / roundoffs[-1]


def mapped(v: NDArray[Any], scale: ArrayLike, shift: ArrayLike) -> NDArray[np.float64]:
    """Return what the activation gets, float64."""
    wide = convert(v, np.float64)
    if np.isscalar(scale) and scale == 1 and np.isscalar(shift) and shift == 0:
        return wide
    with np.errstate(over="ignore", invalid="ignore"):
        found: NDArray[np.float64] = wide * onto(wide.shape, scale, "scale") + onto(wide.shape, shift, "shift")
    return found


def onto(shape: tuple[int, ...], x: ArrayLike, name: str) -> NDArray[Any]:
    """Return numbers broadcast to a shape; ValueError names those that do not fit."""
    factors = numbers(x, name)
    try:
        return np.broadcast_to(factors, shape)
    except ValueError:
        raise ValueError(f"{name} {factors.shape} does not broadcast to the output's shape {shape}") from None


def _checked(scores: Any, seen: Seen, score: str | Score) -> NDArray[np.float64]:
    """Return scores as they are; TypeError or ValueError where a score of the user's gives something else."""
    if not isinstance(scores, np.ndarray) or scores.dtype.kind != "f":
        raise TypeError(
            f"score {score!r}: got {type(scores).__name__}; expected an array of real numbers; return float64"
        )
    if scores.shape != seen.v.shape:
        raise ValueError(
            f"score {score!r}: got the shape {scores.shape}; expected {seen.v.shape}; return a score for each output"
        )
    return scores


def _unsafe(beta: float | None, seen: Seen) -> NDArray[np.bool_] | bool:
    """Return which outputs may be positive but for the errors of their pass, and count as negative."""
    if beta is None or seen.activation != "relu":
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        found: NDArray[np.bool_] = ~((seen.v > 0) | (np.abs(seen.v) > beta * upper_bound(seen)))
    return found


def _cost(units: Sequence[MacSpec], criterion: Criterion, shares: tuple[float, ...]) -> LadderCost | None:
    if criterion.score == "kappa_exact":
        return None
    *bits, last = (result_use(unit.accumulator).format.bits for unit in units)
    scoring = 0.0
    if criterion.score == "kappa_full":
        scoring = 1.0 if criterion.side_format is None else criterion.side_format.format.bits / bits[0]
    return LadderCost(tuple(one / last for one in bits), shares, scoring)


def _strips(shape: tuple[int, int], outputs: int) -> Iterator[slice]:
    """Yield the rows of a result so many outputs at a time; an empty result at once."""
    step = max(1, outputs // max(1, shape[1]))
    for first in range(0, max(1, shape[0]), step):
        yield slice(first, min(first + step, shape[0]))
