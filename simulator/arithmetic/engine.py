"""Accumulation: operands made ready for a MAC unit, the kernel that holds for them, and its run.

The results equal those of `reference.dot`, bit for bit, whatever kernel runs (NaNs come out as the positive quiet NaN).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from formats import FloatFormat, Use
from formats.arguments import whole_of_bits
from formats.format import as_floats
from native import matmul as engine
from native.matmul import Gathered
from native.twins import add, convert, quantize
from native.uses import CODEBOOKS

from . import reference
from .accumulators import Exact, joins_late, outermost, result_use
from .clauses import split
from .kernels import Kernel, choose, kernel_named
from .lowering import Lowered, lower, taken
from .places import OUTPUT, PRODUCT, SITE_BITS, SUM, A, B, C, Place, site_of
from .situation import Situation
from .spec import MacSpec, float32_holds
from .stats import Stats
from .strips import shares_one_scale

# Elements of an operand that are quantised at once where that takes several arrays of float64.
PART_ELEMENTS = 1 << 20

RandomKey = engine.Key
Outputs = tuple[NDArray[np.signedinteger], NDArray[np.signedinteger]]


class Ready(NamedTuple):
    """An operand b quantised and profiled, for any number of accumulations with it.

    Args:
        values: (K, N). use: to which it was quantised, None if to none. profile: of its values.
    """

    values: NDArray[Any]
    use: Use | None
    profile: engine.Profile

    @property
    def shape(self) -> tuple[int, ...]:
        """K and N."""
        return self.values.shape

    def of_columns(self, chosen: NDArray[np.bool_]) -> Ready:
        """Return some of its columns, (N,), as they are beside all others, with which they may share a scale."""
        values = self.values[:, chosen]
        return Ready(values, self.use, engine.profile(values.T))


def make_ready(b: NDArray[Any], use: Use | None) -> Ready:
    """Quantise an operand b (K, N), not stochastically, which would take the place of the product in the result."""
    values = _operand(b, use, 0, {})
    return Ready(values, use, engine.profile(values.T))


class Accumulation:
    """Operands made ready for one MAC unit: quantised, profiled, with the kernel chosen.

    Args:
        spec: the unit. a, b: (M, K) and (K, N) of float32 or float64; a may be gathered, if the unit rounds its
            elements one by one and not stochastically; b may be ready. c: addend broadcastable to (M, N), or None.
        threads: at most so many; None for all processors available.
        key: of the random words of stochastic roundings; None for seed 0 and a result that is whole.
    """

    def __init__(
        self,
        spec: MacSpec,
        a: NDArray[Any] | Gathered,
        b: NDArray[Any] | Ready,
        c: ArrayLike | None,
        threads: int | None = None,
        key: RandomKey | None = None,
    ) -> None:
        check_shapes("accumulation", a, b)
        self.spec = spec
        self.threads = min(check_threads(threads), engine.MAX_THREADS)
        self.shape = (a.shape[0], b.shape[1])
        self.key = engine.Key(row=self.shape[1], column=1) if key is None else key
        uses = spec.operands or (None, None)
        first_a = self.key.first // self.shape[1] * a.shape[1] if self.shape[1] else 0
        self.a: NDArray[Any] | Gathered
        if isinstance(a, Gathered):
            self.a = a._replace(data=_operand(a.data.reshape(1, -1), uses[0], 1, {}))
        else:
            self.a = _operand(a, uses[0], 1, random_words(self.key, A, first_a, PRODUCT))
        self._profile_of_b: engine.Profile | None = None
        if isinstance(b, Ready):
            assert b.use == uses[1]
            self.b, self._profile_of_b = b.values, b.profile
        else:
            self.b = _operand(b, uses[1], 0, random_words(self.key, B, self.key.matrix * b.size, PRODUCT))
        self.late = joins_late(spec.accumulator)
        self.c = None if c is None else self._addend(numbers(c, "c"))
        self.lowered: Lowered = lower(spec.accumulator, spec.operands)
        self.situation = self._profiled()  # what the choice of a kernel depends on
        self.kernel: Kernel = choose(self.situation)[0]

    def _addend(self, c: NDArray[Any]) -> NDArray[Any]:
        """Round the addend into the use in which it joins; an exact sum takes it as it is."""
        use = self.spec.result if self.late else result_use(self.spec.accumulator)
        try:
            if not self.late and isinstance(outermost(self.spec.accumulator), Exact):
                return np.broadcast_to(c, self.shape)
            if use.mode.stochastic:
                c = np.broadcast_to(c, (self.shape[0], self.shape[1] if self.key.column else 1))
            elif not use.format.has_nan and np.isnan(c).any():
                return np.broadcast_to(_with_nan(c, use), self.shape)
            return np.broadcast_to(quantize(c, use, **random_words(self.key, C, self.key.first)), self.shape)
        except ValueError:
            raise ValueError(f"c {c.shape} does not broadcast to the output's shape {self.shape}") from None

    def _profiled(self) -> Situation:
        starts = None if self.late or self.c is None else engine.profile(self.c)
        wide = self.a.dtype == np.float64 or self.b.dtype == np.float64
        a, b = engine.profile(self.a), self._profile_of_b or engine.profile(self.b.T)
        return Situation(self.lowered, a, b, starts, self.a.shape[1], wide)

    def dense(self, stats: bool | str = False) -> tuple[NDArray[Any], Stats | None]:
        """Compute all outputs, (M, N); with Stats, complete for True, without counts for "overflows"."""
        late_c = self.c if self.late else None
        if stats is not True:
            return self._run(late_c, None, stats == "overflows")
        segments = -(-self.shape[1] // engine.COUNTED_COLUMNS)
        counts = np.zeros((self.shape[0], segments), engine.COUNTS)
        y, counted = self._run(late_c, None, True, counts)
        assert counted is not None
        exact, bound = self._exact()
        errors = convert(y, np.float64)
        with np.errstate(invalid="ignore"):
            errors = np.subtract(errors, exact, out=None if errors is y else errors)
        return y, replace(counted, counts=counts, errors=errors, exact=exact, error_bound=bound)

    def listed(self, outputs: Outputs, overflows: bool = False) -> tuple[NDArray[Any], Stats | None]:
        """Compute the outputs (rows[i], columns[i]) only; the result has the shape of `rows`."""
        if self.b.strides[0] != self.b.itemsize:
            self.b = np.asfortranarray(self.b)  # gathering columns is fast where k is contiguous
        late_c = self.c[outputs] if self.late and self.c is not None else None
        return self._run(late_c, outputs, overflows)

    def _run(
        self,
        late_c: NDArray[Any] | None,
        outputs: Outputs | None,
        overflows: bool,
        counts: NDArray[Any] | None = None,
    ) -> tuple[NDArray[Any], Stats | None]:
        spec, lowered = self.spec, self.lowered
        kernel = self.kernel
        if counts is not None and not kernel.can_count(self.situation):
            kernel = choose(self.situation, counts=True)[0]
        use = result_use(spec.accumulator)
        y = np.empty(
            self.shape if outputs is None else outputs[0].shape,
            np.float32 if kernel.rounds and float32_holds(use.format) else np.float64,
        )
        overflowed = np.zeros(y.shape, np.bool_) if overflows else None
        shortcuts, at = kernel.shortcuts(self.situation), split(self.situation)
        if kernel.name == "definition":
            self._define(y, overflowed, outputs, counts)
        else:
            a, b = self._in_order()
            if not kernel.rounds:  # one sum, whatever runs it is said to be made of
                lowered = Lowered(lowered.nodes[lowered.leaf :][:1], 0, ())
            engine.matmul(
                kernel.name, lowered.nodes, lowered.joins or (), lowered.leaf, a, b,
                None if self.late else self.c, y, overflowed, outputs, self.threads, key=self.key,
                counts=counts if kernel.rounds else None,
                bounded=shortcuts is not None and shortcuts.bounded.holds,
                on_grid=0 if shortcuts is None else shortcuts.on_grid,
                split=engine.NONE if at is None else at,
            )  # fmt: skip
        if not kernel.rounds:
            sums, y = y, self._rounded(y, None, use, 0, outputs, overflowed)
            if counts is not None and overflowed is not None:
                _count_sums(counts, sums, y, overflowed)
        if late_c is not None:
            y = self._rounded(y, late_c, spec.result, OUTPUT, outputs, overflowed)
        elif spec.output:
            y = self._rounded(y, None, spec.output, OUTPUT, outputs, overflowed)
        y = convert(y, spec.dtype)
        return y, None if overflowed is None else Stats(kernel.name, overflowed)

    def _in_order(self) -> tuple[NDArray[Any] | Gathered, NDArray[Any]]:
        """Return the operands with k in the order in which the accumulator takes it."""
        order = taken(self.spec.accumulator, self.a.shape[1])
        if order is None:
            return self.a, self.b
        if isinstance(self.a, Gathered):
            return self.a._replace(k_offsets=self.a.k_offsets[order]), self.b[order]
        return self.a[:, order], self.b[order]

    def _exact(self) -> tuple[NDArray[np.float64], float]:
        """Return the exact inner products in float64, addend included, and how far they may be off."""
        lowered = lower(Exact(Use.parse("fp64")))
        c = None if self.c is None else convert(self.c, np.float64)
        situation = replace(self.situation, lowered=lowered, c=None if c is None else engine.profile(c))
        proved = [
            name
            for name in ("float32_exact", "float64_exact")
            if all(clause.holds for clause in kernel_named(name).condition(situation))
        ]
        kernel = proved[0] if proved else "float64_exact"
        exact = np.empty(self.shape)
        engine.matmul(kernel, lowered.nodes, (), 0, self.a, self.b, c, exact, threads=self.threads)
        if proved:
            return exact, 0.0
        # K + 1 sums in float64 of terms that may be rounded themselves: each is off by half an ulp of at most this, and
        # a product below the normal range by less than the smallest subnormal.
        terms, largest = self.a.shape[1] + 1, math.ldexp(1.0, min(1023, situation.product_high))
        if c is not None:
            largest = max(largest, float(np.abs(c).max(initial=0.0)))
        return exact, math.ldexp(terms * (terms + 1) * largest, -53) + math.ldexp(terms, -1074)

    def _define(
        self,
        y: NDArray[Any],
        overflowed: NDArray[np.bool_] | None,
        outputs: Outputs | None,
        counts: NDArray[Any] | None,
    ) -> None:
        """Fill y by the definition, output by output."""
        rows, columns = np.indices(self.shape) if outputs is None else outputs
        starts = None if self.late else self.c
        for at in np.ndindex(y.shape):
            row, column = int(rows[at]), int(columns[at])
            c = None if starts is None else float(starts[row, column])
            run = reference.Run(self._place(row, column), self.spec)
            a = self.a.row(row) if isinstance(self.a, Gathered) else self.a[row]
            y[at] = reference.accumulate(a.tolist(), self.b[:, column].tolist(), c, run)
            if overflowed is not None:
                overflowed[at] = run.overflows > 0
            if counts is not None:
                counted = counts[row, column // engine.COUNTED_COLUMNS]
                for name in ("overflows", "underflows", "swamped"):
                    counted[name] += getattr(run, name)
                counted["largest"] = max(counted["largest"], run.largest)

    def _place(self, row: int, column: int) -> Place:
        """Return the place of an output by its index in the whole result, which this one may be a part of."""
        key = self.key
        index = key.first + row * key.row + column * key.column
        return Place(index, 0, 1, key.seed, key.step, key.site)

    def _rounded(
        self,
        y: NDArray[Any],
        addend: NDArray[Any] | None,
        use: Use,
        node: int,
        outputs: Outputs | None,
        overflowed: NDArray[np.bool_] | None,
    ) -> NDArray[Any]:
        """Round y, or y + addend, once: with the random words of a node, where the outputs lie."""
        if (outputs is not None and use.mode.stochastic) or use.format.family == CODEBOOKS:
            return self._rounded_one_by_one(y, addend, use, node, outputs, overflowed)
        words = random_words(self.key, node, self.key.first)
        if addend is None:
            return quantize(y, use, overflow=overflowed, **words)
        return add(y, addend, use, overflowed, **words)

    def _rounded_one_by_one(
        self,
        y: NDArray[Any],
        addend: NDArray[Any] | None,
        use: Use,
        node: int,
        outputs: Outputs | None,
        overflowed: NDArray[np.bool_] | None,
    ) -> NDArray[Any]:
        """The same by the definition: what the engine has no function for."""
        rows, columns = np.indices(self.shape) if outputs is None else outputs
        result = np.empty(y.shape)
        for at in np.ndindex(y.shape):
            run = reference.Run(self._place(int(rows[at]), int(columns[at])), self.spec)
            terms = [(float(y[at]),)] + ([] if addend is None else [(float(addend[at]),)])
            random = run.word(node, SUM) if use.mode.stochastic else 0
            result[at] = reference.rounded_sum(use, terms, run, random)
            if overflowed is not None:
                overflowed[at] |= run.overflows > 0
        return result


def random_key(seed: int, step: int, site: int, first_row: int, columns: int, matrix: int = 0) -> RandomKey:
    """Return the key of random words of rows of a result; ValueError or TypeError says what is out of range."""
    first = whole_of_bits("first_row", first_row, 64) * columns
    key = whole_of_bits("seed", seed, 32), whole_of_bits("step", step, 32), whole_of_bits("site", site, SITE_BITS)
    return engine.Key(*key, first, columns, 1, whole_of_bits("matrix", matrix, 64))


def random_words(key: RandomKey, node: int, first: int, which: int = SUM) -> dict[str, Any]:
    """Return, as arguments of native.twins, which random words an array is rounded with.

    Args:
        node: of the accumulator, or one of the other places in places.py. first: index of the array's first element.
        which: PRODUCT or SUM, the word of the pair.
    """
    offset, site = first % (1 << 64), site_of(node, key.site)
    return {"seed": key.seed, "step": key.step, "offset": offset, "site": site, "which": which}


def numbers(x: ArrayLike, name: str) -> NDArray[Any]:
    """Return an operand as float32 or float64, exactly, or raise TypeError naming it."""
    try:
        return as_floats(x)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: {error}") from None


def available_processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_threads(threads: int | None) -> int:
    """Return a number of threads, that of the processors for None; ValueError if it is none."""
    if threads is None:
        return available_processors()
    if not isinstance(threads, int | np.integer) or isinstance(threads, bool) or threads < 1:
        raise ValueError(f"threads: got {threads!r}; expected a whole number from 1; give one, or leave it out")
    return int(threads)


def check_shapes(name: str, a: NDArray[Any] | Gathered, b: NDArray[Any] | Ready) -> None:
    """Raise ValueError unless a and b are (M, K) and (K, N)."""
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"{name}: a {a.shape} and b {b.shape} do not fit; expected (M, K) and (K, N)")


def _operand(x: NDArray[Any], use: Use | None, axis: int, words: Mapping[str, Any]) -> NDArray[Any]:
    """Quantise an operand, blocks along k, which is `axis`, and hold it as float32 if that is exact."""
    if use is not None and not isinstance(use.format, FloatFormat) and not use.mode.stochastic:
        # In the layout that it has, as below.
        return _in_parts(x.T, use, 1 - axis).T if x.flags.f_contiguous else _in_parts(x, use, axis)
    if use is not None:
        if not use.format.has_nan and np.isnan(x).any():
            raise ValueError(f"{use.format.name} has no NaN, and an operand holds one")
        dtype = np.float32 if float32_holds(use.format) else np.float64
        # Keep the layout: a transposed view stays one, so that k stays contiguous for weights that hold it so.
        if x.flags.f_contiguous and not use.mode.stochastic:
            return quantize(x.T, use, dtype).T
        return quantize(x, use, dtype, **words)
    return convert(x, np.float32) if x.dtype == np.float64 and engine.profile(x).within_float32 else x


def _in_parts(x: NDArray[Any], use: Use, axis: int) -> NDArray[Any]:
    """Quantise to float64, so much at a time that no whole matrix is, and keep float32 if that is exact."""
    if not use.format.has_blocks:
        axis = int(np.argmin(x.shape))  # blocks lie along k, and parts beside each other; else along the longer axis
    step = x.shape[1 - axis] if shares_one_scale(use) else PART_ELEMENTS // max(x.shape[axis], 1)
    y = np.empty(x.shape, np.float32)
    for first in range(0, x.shape[1 - axis], max(step, 1)):
        some = slice(first, first + max(step, 1))
        at = (some, slice(None)) if axis == 1 else (slice(None), some)
        part = use.quantize(x[at], axis=axis)
        if y.dtype == np.float32 and not engine.profile(part).within_float32:
            y = convert(y, np.float64)
        y[at] = convert(part, y.dtype)
    return y


def _count_sums(counts: NDArray[Any], sums: NDArray[Any], rounded: NDArray[Any], overflowed: NDArray[np.bool_]) -> None:
    """Count what the only rounding of exact sums meets."""
    starts = np.arange(0, sums.shape[1], engine.COUNTED_COLUMNS)
    if not counts.size:
        return
    magnitudes = np.abs(rounded)
    underflowed = (rounded == 0.0) & (sums != 0.0) & np.isfinite(sums)
    counts["overflows"] += np.add.reduceat(overflowed, starts, axis=1, dtype=np.int64)
    counts["underflows"] += np.add.reduceat(underflowed, starts, axis=1, dtype=np.int64)
    largest = np.maximum.reduceat(np.where(np.isfinite(magnitudes), magnitudes, 0.0), starts, axis=1)
    counts["largest"] = np.maximum(counts["largest"], largest)


def _with_nan(c: NDArray[Any], use: Use) -> NDArray[np.float64]:
    """Round an addend with NaNs into a format without: they stay, as in every sum."""
    return np.where(np.isnan(c), np.nan, quantize(np.where(np.isnan(c), 0.0, c), use))
