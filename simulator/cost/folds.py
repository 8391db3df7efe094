"""Closed forms of a systolic array: cycles of a run of folds, words moved by the array, register writes.

A GEMM O[MxN] = A[MxK] W[KxN] is cut into folds of the array's size. With `rate` MACs per PE and cycle the array sees
K' = ceil(K/rate). A partial fold takes as long as a full one. Several arrays share the folds of a product: those along
its columns where each keeps weights, so that every sum stays in one array; all of them where sums stay in the PEs.
Dot-product units get their operands by broadcast, without skew, and take another output while a sum is under way, so
that the latency shows once. Input-stationary is weight-stationary with the operands
exchanged: callers exchange M with N and A with W, so that only ws, os and dot appear here.
Source: Samajdar et al., "A systematic methodology for characterizing scalability of DNN accelerators using SCALE-Sim",
ISPASS 2020; the overlapped forms follow the shadow registers of the TPU (Jouppi et al., ISCA 2017).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from simulator.hardware import Array

from .problem import Problem


class RunCycles(NamedTuple):
    """Cycles of one run of folds, by cause: operands streaming, stationary load, skew in, results out."""

    compute: int
    load: int
    fill: int
    drain: int

    @property
    def total(self) -> int:
        return self.compute + self.load + self.fill + self.drain

    def plus(self, other: RunCycles, times: int = 1) -> RunCycles:
        """Return the sum with so many times another."""
        return RunCycles(
            self.compute + times * other.compute,
            self.load + times * other.load,
            self.fill + times * other.fill,
            self.drain + times * other.drain,
        )


class ArrayWords(NamedTuple):
    """Words between the array and on-chip memory."""

    a_reads: int
    w_reads: int
    psum_writes: int
    psum_reads: int


def ceil_div(a: int, b: int) -> int:
    """Return a/b rounded up, for b > 0."""
    return -(-a // b)


def rounded_up(expected: float) -> int:
    """Return an expected count rounded up.

    A share of 2^-50 less of it keeps a whole number that rounding has put above itself, such as 0.07 * 100, from
    counting one more; 0 stays 0.
    """
    return math.ceil(expected * (1 - 2.0**-50))


def cut(length: int, size: int) -> list[tuple[int, int]]:
    """Return the full parts of `size` and the last one, as (length, how many)."""
    full, rest = divmod(length, size)
    return [(part, times) for part, times in ((size, full), (rest, 1)) if part and times]


def sums_in_pes(dataflow: str) -> bool:
    """Whether partial sums stay in the PEs."""
    return dataflow in ("os", "dot")


def as_streamed(dataflow: str) -> str:
    """Return the dataflow with the operands exchanged where that makes it another: is becomes ws."""
    return "ws" if dataflow == "is" else dataflow


def streamed_cycles(length: int, latency: int, interleave: int) -> int:
    """Return T', the cycles in which one output-stationary PE takes `length` products.

    Args:
        length: T >= 1 products. latency: p cycles of a MAC. interleave: q partial sums in turns; q > 1 are merged
            pairwise by one adder at the end, p*ceil(log2 q) more.
    """
    turns = min(interleave, latency)
    merge = latency * (interleave - 1).bit_length()
    return (length - 1) // turns * latency + (length - 1) % turns + latency + merge


def run_cycles(array: Array, dataflow: str, folds: Iterable[tuple[int, int]]) -> RunCycles:
    """Return the cycles of folds that follow one another, operands on chip. Exact for the array as modelled.

    Args:
        array: rows, columns, latency p, load and drain. dataflow: ws | os | dot.
        folds: (how many, T): cycles in which a fold's operands stream, M for ws, K' for
            os and dot, of a composed product so many times; at least one.
    """
    folds = [(count, t) for count, t in folds if count and t]
    rows, columns, p = array.rows, array.columns, array.latency_cycles
    if dataflow == "dot":
        return RunCycles(sum([count * t for count, t in folds]), 0, p - 1, 0)
    if dataflow == "os":
        return _output_stationary(array, [(count, streamed_cycles(t, p, array.interleave)) for count, t in folds])
    number = sum([count for count, _ in folds])
    compute = sum([count * t for count, t in folds])
    # The first result leaves a column after p cycles in each row; the last column starts C-1 cycles later.
    skews = number if array.drain == "exposed" else 1
    fill, drain = skews * (p * rows - 1), skews * (columns - 1)
    if array.load == "exposed":
        load = number * rows
    elif array.drain == "exposed":
        load = rows
    else:
        load = rows + _shortfall(folds, rows)
    return RunCycles(compute, load, fill, drain)


def fold_cycles(array: Array, dataflow: str, length: int) -> int:
    """Return the cycles from the start of a fold to that of the next one in a run of folds.

    Args:
        array, dataflow: as for run_cycles. length: T >= 1 of the fold.
    """
    one, two = (run_cycles(array, dataflow, [(folds, length)]) for folds in (1, 2))
    return two.total - one.total


def _output_stationary(array: Array, folds: list[tuple[int, int]]) -> RunCycles:
    rows, skew = array.rows, array.rows + array.columns - 2
    number = sum([count for count, _ in folds])
    compute = sum([count * t for count, t in folds])
    if array.drain == "none":
        return RunCycles(compute, 0, number * skew, 0)
    if array.drain == "exposed":
        return RunCycles(compute, 0, number * skew, number * rows)
    return RunCycles(compute, 0, skew, rows + _shortfall(folds, rows))


def _shortfall(folds: list[tuple[int, int]], rows: int) -> int:
    """Cycles in which all folds but the last are shorter than the R cycles of the next load or the last drain."""
    short = sum([count * max(rows - t, 0) for count, t in folds])
    return short - max(rows - folds[-1][1], 0)


def folds_in_turn(array: Array, dataflow: str, rows: int, columns: int) -> int:
    """Return how many of rows x columns folds each array has to do, one after the other."""
    if sums_in_pes(dataflow):
        return ceil_div(rows * columns, array.copies)
    return rows * ceil_div(columns, array.copies)


def fold_grid(array: Array, dataflow: str, m: int, n: int, k: int, rate: int) -> tuple[int, int, int]:
    """Return (Fr, Fc, T): folds along rows and columns, and the streamed length."""
    inner = ceil_div(k, rate)
    if sums_in_pes(dataflow):
        return ceil_div(m, array.rows), ceil_div(n, array.columns), inner
    return ceil_div(inner, array.rows), ceil_div(n, array.columns), m


def joins(array: Array, dataflow: str, k: int, rate: int) -> int:
    """Return how often sums are added to each other for an output: those of folds along K, or those that take turns."""
    if sums_in_pes(dataflow):
        return min(array.interleave, ceil_div(k, rate)) - 1
    return ceil_div(ceil_div(k, rate), array.rows) - 1


def array_words(array: Array, dataflow: str, m: int, n: int, k: int, rate: int) -> ArrayWords:
    """Return the words that the array reads and writes for one GEMM. Exact for the array as modelled."""
    rows, columns, _ = fold_grid(array, dataflow, m, n, k, rate)
    if sums_in_pes(dataflow):
        return ArrayWords(columns * m * k, rows * k * n, m * n, 0)
    return ArrayWords(columns * m * k, k * n, rows * m * n, (rows - 1) * m * n)


def register_bits(array: Array, dataflow: str, problem: Problem) -> int:
    """Return the register bits written inside the array for one GEMM (estimate).

    Operands move one PE a cycle, `rate` of them side by side; sums move down (ws) or stay (os); the stationary values
    are shifted in (ws: weights) or out (os: sums).
    """
    m, n, rate, widths = problem.m, problem.n, problem.rate, problem.widths
    products = ceil_div(problem.k, rate) * m * n
    shift = array.rows * (array.rows + 1) // 2
    rows, _, _ = fold_grid(array, dataflow, m, n, problem.k, rate)
    if sums_in_pes(dataflow):
        shifted_out = rows * n * shift * widths.state if dataflow == "os" else 0
        return math.ceil(products * (rate * (widths.a + widths.w) + widths.state) + shifted_out)
    sums = m * array.rows * rows * n * widths.state
    return math.ceil(products * rate * widths.a + sums + rows * n * shift * rate * widths.w)
