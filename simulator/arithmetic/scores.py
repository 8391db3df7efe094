"""Scores: how much an output of the first pass deserves a second one.

A score sees some rows of a product after its first pass and gives a number for each output; what is above the tolerance
is computed again, the largest first where there is a budget. `register` adds one of your own. Source of the rules:
arXiv 2503.15568 and its public code; the cheap numerators and the controls are the project's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats import Use
from formats.philox import philox
from native.matmul import Gathered

from .accumulators import Exact, Fma
from .activations import KAPPA_PRIME, SLOPE, Values
from .bins import Bins
from .engine import Accumulation, RandomKey
from .places import SCORE, site_of
from .spec import MacSpec

# Elements of an operand of which norms are taken together, in several arrays of float64.
_AT_ONCE = 1 << 20


class Product:
    """The operands of a product as its first pass takes them, and what scores ask of them.

    Args:
        first: the accumulation of the first pass. side_format: of the running sum of magnitudes; None: a second pass of
            the low unit computes it.
    """

    def __init__(self, first: Accumulation, side_format: Use | None = None) -> None:
        self.first, self._side_format = first, side_format

    @property
    def columns(self) -> int:
        """N."""
        return self.first.shape[1]

    @property
    def key(self) -> RandomKey:
        """Of the random words of the first pass."""
        return self.first.key

    @cached_property
    def numerator(self) -> NDArray[Any]:
        """sum |a b| + |c| of each output, (M, N), as the hardware computes it."""
        accumulator = self.first.spec.accumulator if self._side_format is None else Fma(self._side_format)
        return self._magnitudes(MacSpec(accumulator))

    @cached_property
    def exact(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The sums and the numerators, (M, N), rounded once to float64."""
        unit, first = MacSpec(Exact(Use.parse("fp64"))), self.first
        sums, _ = Accumulation(unit, first.a, first.b, first.c, first.threads).dense()
        return sums, self._magnitudes(unit)

    def _magnitudes(self, unit: MacSpec) -> NDArray[Any]:
        first, a = self.first, self.first.a
        magnitudes = a._replace(data=np.abs(a.data)) if isinstance(a, Gathered) else np.abs(a)
        c = None if first.c is None else np.abs(first.c)
        return Accumulation(unit, magnitudes, np.abs(first.b), c, first.threads, first.key).dense()[0]

    @cached_property
    def row_norms(self) -> tuple[Values, Values, Values]:
        """The norms 1, 2 and infinity of each row of a, (M,) each."""
        return _norms(self.first.a)

    @cached_property
    def column_norms(self) -> tuple[Values, Values, Values]:
        """The norms 1, 2 and infinity of each column of b, (N,) each."""
        return _norms(self.first.b.T)

    def addend(self, rows: slice) -> Values | float:
        """|c| of some rows."""
        return 0.0 if self.first.c is None else np.abs(self.first.c[rows].astype(np.float64))


@dataclass(frozen=True)
class Seen:
    """What a score sees: some rows of a product after its first pass.

    Args:
        v: (rows, N) float64, what the activation gets: outputs after the affine map between, see `two_pass`.
        activation: key of KAPPA_PRIME. rows: which these are. product: all of it; None where only v counts.
        scale, shift: of the affine map, as they broadcast to v.
        logits: where a softmax over each row reads v: what it is multiplied by, and what is then added, as it
            broadcasts to v; MASKED and below is a key that does not count. None: none does.
    """

    v: Values
    activation: str
    rows: slice
    product: Product | None = None
    scale: Any = 1.0
    shift: Any = 0.0
    logits: tuple[float, Any] | None = None

    @property
    def masked(self) -> NDArray[np.bool_]:
        """Which logits are kept out of the softmax, as it broadcasts to v."""
        return np.asarray(False if self.logits is None else np.asarray(self.logits[1]) <= MASKED)

    def mapped(self, numerator: Any) -> Values:
        """Return numerators of v from those of the product: the affine map is one more term."""
        found: Values = np.abs(self.scale) * np.asarray(numerator, np.float64) + np.abs(self.shift)
        return found


Score = Callable[[Seen], Values]
MASKED = -1e4  # what is added to a logit to keep it out: its exponential is 0


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """A calibrated score: the error to expect of an output, times its effect, over the root of its MACs. Statistical.

    Of two outputs the one with the larger score lowers the squared error of the network's outputs more for each MAC.

    Args:
        bins: B of v. errors: (B,) rms error of the first pass in each.
        effect: (N,), of all groups side by side, or (1,): rms change of the network's outputs for a unit change behind
            the activation. macs: of an output, K.
        columns: as effect: how the errors of each column compare with those of the bins.
    """

    bins: Bins
    errors: Values
    effect: Values
    macs: int
    columns: Values = field(default_factory=lambda: np.ones(1))

    def __call__(self, seen: Seen) -> Values:
        with np.errstate(over="ignore", invalid="ignore"):
            slope = np.abs(SLOPE[seen.activation](seen.v.copy()))
            found = self.errors[self.bins.of(seen.v)] * slope * self.columns * self.effect
            found /= np.sqrt(self.macs)
        return np.where(np.isnan(seen.v), np.nan, found)

    def part(self, gemm: int, n: int) -> Sensitivity:
        """Return that of the N columns of one product, of those side by side."""
        own = slice(gemm * n, (gemm + 1) * n)
        effect, columns = (x if x.size in (1, n) else x[own] for x in (self.effect, self.columns))
        return replace(self, effect=effect, columns=columns)


def kappa_of(v: Values, activation: str) -> Values:
    """Return kappa' of what an activation gets. An estimate, in float64."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return KAPPA_PRIME[activation](v.copy())


def _kappa_prime(seen: Seen) -> Values:
    return kappa_of(seen.v, seen.activation)


def _with(numerator: Callable[[Product, slice], Any]) -> Score:
    """Return kappa' times a numerator: the condition number, or what stands for it."""

    def score(seen: Seen) -> Values:
        with np.errstate(invalid="ignore", over="ignore"):  # infinity times a zero numerator is NaN: computed again
            assert seen.product is not None
            return kappa_of(seen.v, seen.activation) * seen.mapped(numerator(seen.product, seen.rows))

    return score


def _full(product: Product, rows: slice) -> Any:
    return product.numerator[rows]


def _norm1(product: Product, rows: slice) -> Any:
    k = max(1, product.first.a.shape[1])
    return np.multiply.outer(product.row_norms[0][rows], product.column_norms[0] / k) + product.addend(rows)


def _norm2(product: Product, rows: slice) -> Any:
    return np.multiply.outer(product.row_norms[1][rows], product.column_norms[1]) + product.addend(rows)


def _norm_inf(product: Product, rows: slice) -> Any:
    row, column = product.row_norms, product.column_norms
    either = np.multiply.outer(row[2][rows], column[0]), np.multiply.outer(row[0][rows], column[2])
    return np.minimum(*either) + product.addend(rows)


def upper_bound(seen: Seen) -> Values:
    """Return an upper bound of the numerator of each output, by the norms of rows and columns; in float64."""
    assert seen.product is not None
    found = np.minimum(_norm2(seen.product, seen.rows), _norm_inf(seen.product, seen.rows))
    return seen.mapped(found)


def _kappa_exact(seen: Seen) -> Values:
    assert seen.product is not None
    v, numerator = (found[seen.rows].astype(np.float64) for found in seen.product.exact)
    with np.errstate(invalid="ignore", over="ignore"):
        return kappa_of(v * seen.scale + seen.shift, seen.activation) * seen.mapped(numerator)


def _lamp(seen: Seen) -> Values:
    """2 less the probability of all larger logits and twice the smallest one, which lies in [0, 2).

    Where the k largest logits of a row are recomputed, every probability is off by a relative error of at most the
    score of the next one times the largest absolute error of those that are kept, to first order: a tolerance between 1
    and 2 bounds that. Masked keys have 0. What no softmax reads has kappa'. Source: the idea of LAMP, arXiv 2601.21623.
    """
    if seen.logits is None:
        return _kappa_prime(seen)
    with np.errstate(over="ignore", invalid="ignore"):
        y, masked = _softmax(seen, *seen.logits)
        order = np.argsort(np.where(masked, np.inf, -y), axis=1, kind="stable")
        ranked = np.take_along_axis(y, order, axis=1)
        before = np.cumsum(ranked, axis=1) - ranked
        least = np.where(masked, np.inf, y).min(axis=1, keepdims=True)
        found = np.empty_like(y)
        np.put_along_axis(found, order, 2.0 - before - 2.0 * least, axis=1)
    return np.where(masked, 0.0, found)


def _lamp_absolute(seen: Seen) -> Values:
    """2 y (1 - y) times a bound of the numerator of a logit, y its probability: the effect of its error on the row.

    To first order an error e of one logit changes the probabilities of its row by 2 y (1 - y) |e| in all, and e is at
    most the numerator times gamma_m(u). Masked keys have 0; what no softmax reads has kappa'.
    """
    if seen.logits is None:
        return _kappa_prime(seen)
    assert seen.product is not None
    factor, addend = seen.logits
    with np.errstate(over="ignore", invalid="ignore"):
        y, masked = _softmax(seen, factor, addend)
        found = 2.0 * y * (1.0 - y) * abs(factor) * seen.mapped(_norm2(seen.product, seen.rows))
    return np.where(masked, 0.0, found)


def _softmax(seen: Seen, factor: float, addend: Any) -> tuple[Values, NDArray[np.bool_]]:
    """Return the probabilities of logits, and which of these are masked."""
    z = seen.v * factor + addend
    masked = np.broadcast_to(seen.masked, z.shape)
    z = np.where(masked, -np.inf, z)
    y = np.exp(z - z.max(axis=1, keepdims=True))
    return y / y.sum(axis=1, keepdims=True), masked


def _random(seen: Seen) -> Values:
    """Uniform in [0, 1): of the place of the output alone, however a run is divided."""
    assert seen.product is not None
    key, n = seen.product.key, seen.product.columns
    places = np.arange(seen.rows.start * n, seen.rows.stop * n, dtype=np.uint64).reshape(-1, n)
    index = places + np.uint64(key.first % (1 << 64))
    counter = index & np.uint64(0xFFFFFFFF), index >> np.uint64(32), 0, site_of(SCORE, key.site)
    high, low, *_ = philox((key.seed, key.step), counter)
    return ((high.astype(np.uint64) << np.uint64(21)) | (low.astype(np.uint64) >> np.uint64(11))) * 2.0**-53


def _largest(seen: Seen) -> Values:
    return np.abs(seen.v)


def _smallest(seen: Seen) -> Values:
    return kappa_of(seen.v, "identity")


# The scores by name. kappa_exact is for diagnosis: no hardware has it.
SCORES: Mapping[str, Score] = {
    "kappa_prime": _kappa_prime,
    "kappa_full": _with(_full),
    "norm1": _with(_norm1),
    "norm2": _with(_norm2),
    "norm_inf": _with(_norm_inf),
    "kappa_exact": _kappa_exact,
    "random": _random,
    "largest": _largest,
    "smallest": _smallest,
    "lamp": _lamp,
    "lamp_absolute": _lamp_absolute,
}
# Those that look at what a softmax reads, masks and all.
OF_LOGITS = frozenset({"lamp", "lamp_absolute"})
OF_SAMPLES = "sensitivity"  # the name of the score that is made of samples, see Sensitivity
_registered: dict[str, Score] = {}


def register(name: str, score: Score) -> None:
    """Add a score of your own: a function of a Seen that returns (rows, N) float64, NaN for what must be recomputed.

    A policy takes it by that name, as hardware that looks at the finished output alone; a sweep or a study does so on
    workers too where a module that registers it is imported there.

    Raises:
        ValueError: a name that is no identifier, or that is taken. TypeError: a name that is no text, or no function.
    """
    if not isinstance(name, str) or not callable(score):
        raise TypeError(
            f"score: got {name!r} and {score!r}; expected a name and a function of a Seen; give both in this order"
        )
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"score: got the name {name!r}; expected small letters, digits and _; write e.g. my_score")
    if name in SCORES or name in _registered or name == OF_SAMPLES:
        raise ValueError(f"score: got the name {name!r}, which there is already; expected a new one; take another")
    _registered[name] = score


def score_of(name: str | Score) -> Score:
    """Return the score of a name, or one that is given itself; ValueError lists those that there are."""
    if callable(name):
        return name
    if name == OF_SAMPLES:
        raise ValueError(
            f"score {name!r} is made of samples; expected one that is none, or a run of a network that calibrates it: "
            "simulator.evaluate, or calibrate of an emulation"
        )
    found = None if not isinstance(name, str) else SCORES.get(name) or _registered.get(name)
    if found is None:
        raise ValueError(f"score {name!r} is unknown; expected one of {', '.join((*SCORES, *_registered))}")
    return found


def registered() -> tuple[str, ...]:
    """Return the names that `register` has added."""
    return tuple(_registered)


def _norms(x: NDArray[Any] | Gathered) -> tuple[Values, Values, Values]:
    """Return three norms of each row, in float64: sums in pairs, whose order depends on nothing but the length."""
    rows, k = x.shape
    found = np.zeros((3, rows))
    step = max(1, _AT_ONCE // max(1, k))
    for first in range(0, rows, step):
        some = slice(first, min(first + step, rows))
        part = np.abs(np.ascontiguousarray(_rows(x, some), np.float64))
        with np.errstate(over="ignore", invalid="ignore"):
            found[:, some] = part.sum(axis=1), np.sqrt((part * part).sum(axis=1)), part.max(axis=1, initial=0.0)
    return found[0], found[1], found[2]


def _rows(x: NDArray[Any] | Gathered, rows: slice) -> NDArray[Any]:
    if isinstance(x, Gathered):
        return x.data.reshape(-1)[x.row_offsets[rows, None] + x.k_offsets]
    return x[rows]
