"""Numpy in, numpy out: one call of the engine's matmul."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from formats import Use

from . import ffi, isa_index, kernel_index, lib
from .twins import check
from .uses import use_fields

MAX_NODES = lib.ULP_MAX_NODES
MAX_JOINS = lib.ULP_MAX_JOINS
MAX_THREADS = lib.ULP_MAX_THREADS


class Profile(NamedTuple):
    """What the finite, non-zero elements of an operand are like.

    Args:
        max_exponent: largest floor(log2|x|).
        min_last_bit: smallest exponent of a last significant bit.
        significant_bits: most significant bits of any element.
        finite: whether no element is infinite or NaN.
        nonzero: whether there is such an element; if not, the first three are 0.
        minus_zero: whether an element is -0.
        square: at least the largest sum of squares of the finite elements of a row.
    """

    max_exponent: int
    min_last_bit: int
    significant_bits: int
    finite: bool
    nonzero: bool
    minus_zero: bool = False
    square: float = math.inf

    @property
    def within_float32(self) -> bool:
        """Whether every element is a float32."""
        return self.significant_bits <= 24 and self.max_exponent < 128 and self.min_last_bit >= -149


@dataclass(frozen=True)
class Node:
    """A node of an accumulator tree; node 0 is the root.

    Args:
        kind: fma, seq, tree, interleave, chunk, kahan, neumaier, aligned, exact or fixed_point.
        sum, product: uses. length: of a run, step or group. inner, outer: nodes.
        fields: further fields of ulp_node by name, for aligned, tree and fixed_point.
    """

    kind: str
    sum: Use | None = None
    product: Use | None = None
    length: int = 0
    inner: int = 0
    outer: int = 0
    fields: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Join:
    """Runs of `length` terms of the level below, each added with one rounding."""

    length: int
    sum: Use


NONE = lib.ULP_NONE
COUNTED_COLUMNS = lib.ULP_COUNTED_COLUMNS
COUNTS = np.dtype([("overflows", "i8"), ("underflows", "i8"), ("swamped", "i8"), ("largest", "f8")])


class Key(NamedTuple):
    """What the random words of stochastic roundings depend on.

    Args:
        seed, step: key. site: number of the operation, 24 bits.
        first, row, column: output [m, n] has the index first + m * row + n * column, modulo 2**64.
        matrix: which operand b of a stack or of the groups of a convolution; known to the rounding of operands only.
    """

    seed: int = 0
    step: int = 0
    site: int = 0
    first: int = 0
    row: int = 0
    column: int = 0
    matrix: int = 0


class Gathered(NamedTuple):
    """A matrix read from an array without copying it: element [i, k] is data[row_offsets[i] + k_offsets[k]].

    Args:
        data: contiguous float32 or float64, of any shape. row_offsets, k_offsets: int64, in elements of data.
    """

    data: NDArray[Any]
    row_offsets: NDArray[np.int64]
    k_offsets: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.row_offsets.size, self.k_offsets.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self.data.dtype

    def row(self, i: int) -> NDArray[Any]:
        """Return a row as an array of its own."""
        return self.data.reshape(-1)[self.row_offsets[i] + self.k_offsets]


def profile(x: NDArray[Any] | Gathered) -> Profile:
    """Profile a float32 or float64 matrix. Exact, but for `square`, which is rounded up."""
    repeats = 1
    if not isinstance(x, Gathered):
        # A broadcast axis repeats the same elements: one of them tells all (a dot of n rows has an n x n addend).
        columns = x.shape[1]
        x = x[tuple(slice(1) if stride == 0 else slice(None) for stride in x.strides)]
        repeats = columns // max(x.shape[1], 1)
    record = ffi.new("ulp_profile *")
    matrix = ffi.new("ulp_matrix *", _matrix(x))
    check(lib.ulp_profile_of(isa_index(), matrix, *x.shape, record))
    return Profile(
        record.max_exponent,
        record.min_last_bit,
        record.significant_bits,
        bool(record.finite),
        bool(record.nonzero),
        bool(record.minus_zero),
        math.nextafter(repeats * record.square, math.inf),
    )


def matmul(
    kernel: str,
    nodes: Sequence[Node],
    joins: Sequence[Join],
    leaf: int,
    a: NDArray[Any] | Gathered,
    b: NDArray[Any],
    c: NDArray[Any] | None,
    out: NDArray[Any],
    overflow: NDArray[np.bool_] | None = None,
    outputs: tuple[NDArray[np.signedinteger], NDArray[np.signedinteger]] | None = None,
    threads: int = 1,
    isa: str | None = None,
    key: Key = Key(),  # noqa: B008  # immutable
    counts: NDArray[Any] | None = None,
    bounded: bool = False,
    on_grid: int = 0,
    split: int = NONE,
) -> None:
    """Fill `out` with the products of a and b, accumulated as the nodes say.

    Args:
        kernel: name of a kernel whose condition holds for these operands; the caller answers for that.
        nodes, joins, leaf: the accumulator as a tree, and as a leaf with runs of runs (innermost first).
        a, b: (M, K) and (K, N) of float32 or float64, any strides; a may be gathered.
        c: (M, N), values of the outermost state's format, any strides (0 for a broadcast bias); None for +0.
        out: float32 or float64, (M, N) with a contiguous last axis, or one-dimensional if `outputs` is given.
        overflow: boolean, like out, or None: set where a rounding met a value beyond the largest, else left alone.
        outputs: (rows, columns) of the only outputs to compute, in the order of `out`; None for all.
        threads: at most so many. isa: name of the instruction set, or None for the one in force.
        key: of the random words of stochastic roundings.
        counts: array of COUNTS, (M, N / COUNTED_COLUMNS rounded up), to be added to; None where `outputs` is given.
        bounded, on_grid, split: what the caller has proved besides (engine.h, ulp_job); change no bit if true.
    Raises:
        EngineError: too little memory, or an instruction set that this processor lacks.
    """
    (m, k), n = a.shape, b.shape[1]
    job = ffi.new("ulp_job *")
    job.m, job.n, job.k = m, n, k
    job.a, job.b = _matrix(a), _matrix(b)
    if c is not None:
        job.c = _matrix(c)
    job.out = ffi.cast("void *", out.ctypes.data)
    job.out_row_stride, job.out_column_stride = out.strides[0] // out.itemsize, 1
    job.out_is_double = out.dtype == np.float64
    if overflow is not None:
        job.overflow = ffi.cast("uint8_t *", overflow.ctypes.data)
    if outputs is not None:
        rows, columns = (np.ascontiguousarray(index, np.int64) for index in outputs)
        job.rows, job.columns = (ffi.cast("int64_t *", index.ctypes.data) for index in (rows, columns))
        job.count = rows.size
    job.threads = threads
    job.seed, job.step, job.site, _, job.row_index, job.column_index, _ = key
    job.first_index = key.first % (1 << 64)
    if counts is not None:
        job.counts = ffi.cast("ulp_counts *", counts.ctypes.data)
    for i, node in enumerate(nodes):
        fields = {
            "kind": getattr(lib, f"ULP_{node.kind.upper()}"),
            "length": node.length,
            "inner": node.inner,
            "outer": node.outer,
            **dict(node.fields),
        }
        if node.sum:
            fields["sum"] = use_fields(node.sum)
        if node.product:
            fields["product"] = use_fields(node.product)
        job.nodes[i] = fields
    job.join_count = len(joins)
    for i, join in enumerate(joins):
        job.join_length[i] = join.length
        job.join[i] = use_fields(join.sum)
    job.leaf = leaf
    job.bounded, job.on_grid, job.split = bounded, on_grid, split
    check(lib.ulp_matmul(kernel_index(kernel), isa_index(isa), job))


def _matrix(x: NDArray[Any] | Gathered) -> dict[str, Any]:
    if isinstance(x, Gathered):
        tables = {"row_offsets": _indices(x.row_offsets), "column_offsets": _indices(x.k_offsets)}
        return {"data": ffi.cast("void *", x.data.ctypes.data), "is_double": x.data.dtype == np.float64, **tables}
    return {
        "data": ffi.cast("void *", x.ctypes.data),
        "row_stride": x.strides[0] // x.itemsize,
        "column_stride": x.strides[1] // x.itemsize,
        "is_double": x.dtype == np.float64,
    }


def _indices(x: NDArray[np.int64]) -> Any:
    return ffi.cast("int64_t *", x.ctypes.data)
