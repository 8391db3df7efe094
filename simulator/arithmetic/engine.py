"""matmul and dot as a MAC unit computes them: quantise, choose a kernel, accumulate, finish.

The results equal those of `reference.dot`, bit for bit, whatever kernel runs (NaNs come out as the positive quiet NaN).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from formats import FloatFormat, Use
from formats.arguments import whole_of_bits
from formats.format import as_floats
from native import matmul as engine
from native.twins import add, convert, quantize

from . import reference
from .accumulators import Accumulator, Exact, joins_late, outermost, result_use
from .kernels import Kernel, Situation, choose
from .lowering import Lowered, lower
from .places import OUTPUT, SITE_BITS, SUM, A, B, C, Place, site_of
from .spec import MacSpec, float32_holds
from .spec import mac as make_spec  # `mac` is the public name of an argument

MAX_THREADS = 256  # of the engine

Outputs = tuple[NDArray[np.signedinteger], NDArray[np.signedinteger]]


@dataclass(frozen=True)
class Stats:
    """What was counted on the way; counting changes no bit.

    Args:
        kernel: the kernel that ran.
        overflowed: boolean array like the result: whether a rounding of that output met a value beyond the largest
            finite one (it overflowed or saturated). Exact.
    """

    kernel: str
    overflowed: NDArray[np.bool_]

    @property
    def overflows(self) -> int:
        """How many outputs overflowed at least once."""
        return int(np.count_nonzero(self.overflowed))


def matmul(
    a: ArrayLike,
    b: ArrayLike,
    mac: str | Mapping[str, Any] | MacSpec | Accumulator,
    c: ArrayLike | None = None,
    seed: int = 0,
    threads: int | None = None,
    stats: bool = False,
    step: int = 0,
    site: int = 0,
    first_row: int = 0,
) -> Any:
    """Multiply two matrices as a MAC unit does.

    Args:
        a, b: (M, K) and (K, N), floats or integers that float64 holds; quantised first if the spec names operands.
        mac: MacSpec or its string or YAML form.
        c: addend, broadcastable to (M, N), or None.
        seed, step, site: key of the random words of stochastic roundings and number of the operation (32, 32 and 24
            bits); without effect on other roundings.
        first_row: row of the whole result that is row 0 of this one, where a product is computed in parts.
        threads: at most so many; None for all processors available. The result does not depend on it.
        stats: also return a Stats.
    Returns:
        (M, N), float32 if that holds the output format, else float64; with stats a pair. Exact definition:
        simulator.arithmetic.reference.
    Raises:
        ValueError: shapes or formats that do not fit, with what was found. TypeError: operands that are not numbers.
    """
    a, b = numbers(a, "a"), numbers(b, "b")
    check_shapes("matmul", a, b)
    key = random_key(seed, step, site, first_row, b.shape[1])
    y, counted = Accumulation(make_spec(mac), a, b, c, threads, key).dense(stats)
    return (y, counted) if stats else y


def random_key(seed: int, step: int, site: int, first_row: int, columns: int) -> engine.Key:
    """Return the key of random words of rows of a result, checked; ValueError or TypeError says what is out of range."""
    first = whole_of_bits("first_row", first_row, 64) * columns
    key = whole_of_bits("seed", seed, 32), whole_of_bits("step", step, 32), whole_of_bits("site", site, SITE_BITS)
    return engine.Key(*key, first, columns, 1)


def dot(
    a: ArrayLike,
    b: ArrayLike,
    mac: str | Mapping[str, Any] | MacSpec | Accumulator,
    c: ArrayLike | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> NDArray[Any]:
    """Row-wise inner products as a MAC unit computes them.

    Args:
        a, b: (..., K) and (..., K), leading axes broadcast against each other.
        c: addend, broadcastable to the leading axes, or None. The rest as for matmul.
    Returns:
        (...), float32 if that holds the output format, else float64.
    """
    a, b = numbers(a, "a"), numbers(b, "b")
    if a.ndim < 1 or b.ndim < 1 or a.shape[-1] != b.shape[-1]:
        raise ValueError(f"dot: a {a.shape} and b {b.shape} do not fit; expected (..., K) and (..., K)")
    a, b = np.broadcast_arrays(a, b)
    shape, k = a.shape[:-1], a.shape[-1]
    count = math.prod(shape)
    rows = np.arange(count, dtype=np.int64)
    addend = None if c is None else np.broadcast_to(numbers(c, "c"), shape).reshape(count, 1)
    key = engine.Key(whole_of_bits("seed", seed, 32), row=1)
    work = Accumulation(make_spec(mac), a.reshape(count, k), b.reshape(count, k).T, addend, threads, key)
    return work.listed((rows, rows))[0].reshape(shape)


class Accumulation:
    """Operands made ready for one MAC unit: quantised, profiled, with the kernel chosen.

    Args:
        spec: the unit. a, b: (M, K) and (K, N) of float32 or float64. c: addend broadcastable to (M, N), or None.
        threads: at most so many; None for all processors available.
        key: of the random words of stochastic roundings; None for seed 0 and a result that is whole.
    """

    def __init__(
        self,
        spec: MacSpec,
        a: NDArray[Any],
        b: NDArray[Any],
        c: ArrayLike | None,
        threads: int | None = None,
        key: engine.Key | None = None,
    ) -> None:
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise ValueError(f"threads: expected a whole number from 1, got {threads!r}")
        check_shapes("accumulation", a, b)
        self.spec = spec
        self.threads = available_processors() if threads is None else min(threads, MAX_THREADS)
        self.shape = (a.shape[0], b.shape[1])
        self.key = engine.Key(row=self.shape[1], column=1) if key is None else key
        uses = spec.operands or (None, None)
        first_a = self.key.first // self.shape[1] * a.shape[1] if self.shape[1] else 0
        self.a = _operand(a, uses[0], 1, self._words(A, first_a))
        self.b = _operand(b, uses[1], 0, self._words(B, 0))
        self.late = joins_late(spec.accumulator)
        self.c = None if c is None else self._addend(numbers(c, "c"))
        self.lowered: Lowered = lower(spec.accumulator, spec.operands)
        self.kernel: Kernel = choose(self.situation())[0]

    def _words(self, node: int, first: int, which: int = 0) -> dict[str, Any]:
        """Return what says which random words an array is rounded with."""
        key = self.key
        return {"seed": key.seed, "step": key.step, "offset": first % (1 << 64), "site": site_of(node, key.site), "which": which}

    def _addend(self, c: NDArray[Any]) -> NDArray[Any]:
        """Round the addend into the use in which it joins; an exact sum takes it as it is."""
        use = self.spec.result if self.late else result_use(self.spec.accumulator)
        try:
            if not self.late and isinstance(outermost(self.spec.accumulator), Exact):
                return np.broadcast_to(c, self.shape)
            if use.mode.stochastic:
                c = np.broadcast_to(c, self.shape)
            elif not use.format.has_nan and np.isnan(c).any():
                return np.broadcast_to(_with_nan(c, use), self.shape)
            return np.broadcast_to(quantize(c, use, **self._words(C, self.key.first, SUM)), self.shape)
        except ValueError:
            raise ValueError(f"c {c.shape} does not broadcast to the output's shape {self.shape}") from None

    def situation(self) -> Situation:
        """Return what the choice of a kernel depends on."""
        starts = None if self.late or self.c is None else engine.profile(self.c)
        wide = self.a.dtype == np.float64 or self.b.dtype == np.float64
        return Situation(self.lowered, engine.profile(self.a), engine.profile(self.b), starts, self.a.shape[1], wide)

    def dense(self, stats: bool = False) -> tuple[NDArray[Any], Stats | None]:
        """Compute all outputs, (M, N)."""
        return self._run(np.empty(self.shape, self._dtype()), self.c if self.late else None, None, stats)

    def listed(self, outputs: Outputs, stats: bool = False) -> tuple[NDArray[Any], Stats | None]:
        """Compute the outputs (rows[i], columns[i]) only; the result has the shape of `rows`."""
        rows = outputs[0]
        if self.b.strides[0] != self.b.itemsize:
            self.b = np.asfortranarray(self.b)  # gathering columns is fast where k is contiguous
        y = np.empty(rows.shape, self._dtype())
        late_c = self.c[outputs] if self.late and self.c is not None else None
        return self._run(y, late_c, outputs, stats)

    def _dtype(self) -> Any:
        exact = not self.kernel.rounds
        return np.float64 if exact or not float32_holds(result_use(self.spec.accumulator).format) else np.float32

    def _run(
        self, y: NDArray[Any], late_c: NDArray[Any] | None, outputs: Outputs | None, stats: bool
    ) -> tuple[NDArray[Any], Stats | None]:
        spec, lowered = self.spec, self.lowered
        overflowed = np.zeros(y.shape, np.bool_) if stats else None
        if self.kernel.name == "definition":
            self._define(y, overflowed, outputs)
        else:
            engine.matmul(
                self.kernel.name, lowered.nodes, lowered.joins or (), lowered.leaf, self.a, self.b,
                None if self.late else self.c, y, overflowed, outputs, self.threads, key=self.key,
            )  # fmt: skip
        if not self.kernel.rounds:
            y = self._rounded(y, None, result_use(spec.accumulator), 0, outputs, overflowed)
        if late_c is not None:
            y = self._rounded(y, late_c, spec.result, OUTPUT, outputs, overflowed)
        elif spec.output:
            y = self._rounded(y, None, spec.output, OUTPUT, outputs, overflowed)
        y = convert(y, spec.dtype)
        return y, None if overflowed is None else Stats(self.kernel.name, overflowed)

    def _define(self, y: NDArray[Any], overflowed: NDArray[np.bool_] | None, outputs: Outputs | None) -> None:
        """Fill y by the definition, output by output."""
        rows, columns = np.indices(self.shape) if outputs is None else outputs
        starts = None if self.late else self.c
        for at in np.ndindex(y.shape):
            row, column = int(rows[at]), int(columns[at])
            c = None if starts is None else float(starts[row, column])
            run = reference.Run(self._place(row, column), self.spec)
            y[at] = reference.accumulate(self.a[row].tolist(), self.b[:, column].tolist(), c, run)
            if overflowed is not None:
                overflowed[at] = run.overflows > 0

    def _place(self, row: int, column: int) -> Place:
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
        if (outputs is not None and use.mode.stochastic) or use.format.family == "formats.codebook.CodebookFormat":
            return self._rounded_one_by_one(y, addend, use, node, outputs, overflowed)
        words = self._words(node, self.key.first, SUM)
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


def check_shapes(name: str, a: NDArray[Any], b: NDArray[Any]) -> None:
    """Raise ValueError unless a and b are (M, K) and (K, N)."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"{name}: a {a.shape} and b {b.shape} do not fit; expected (M, K) and (K, N)")


def _operand(x: NDArray[Any], use: Use | None, axis: int, words: Mapping[str, Any]) -> NDArray[Any]:
    """Quantise an operand, blocks along k, which is `axis`, and hold it as float32 if that is exact."""
    if use is not None and not isinstance(use.format, FloatFormat) and not use.mode.stochastic:
        x = use.quantize(x, axis=axis)
    elif use is not None:
        if not use.format.has_nan and np.isnan(x).any():
            raise ValueError(f"{use.format.name} has no NaN, and an operand holds one")
        dtype = np.float32 if float32_holds(use.format) else np.float64
        # Keep the layout: a transposed view stays one, so that k stays contiguous for weights that hold it so.
        if x.flags.f_contiguous and not use.mode.stochastic:
            return quantize(x.T, use, dtype).T
        return quantize(x, use, dtype, **words)
    if x.dtype == np.float64:
        p = engine.profile(x)
        if p.significant_bits <= 24 and p.max_exponent < 128 and p.min_last_bit >= -149:
            return convert(x, np.float32)
    return x


def _with_nan(c: NDArray[Any], use: Use) -> NDArray[np.float64]:
    """Round an addend with NaNs into a format without: they stay, as in every sum."""
    return np.where(np.isnan(c), np.nan, quantize(np.where(np.isnan(c), 0.0, c), use))
