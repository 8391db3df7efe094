"""The order of summation that follows from the array.

What one PE does is written in the file, as a plain `fma` or `seq` or as any other accumulator. A weight- or
input-stationary array chains R rows of `rate` MACs, then adds the result to a partial sum: `chunk(R*rate, A, seq(F))`.
An output-stationary array, or a dot-product unit, keeps the sum in the PE: `A`; where q partial sums take turns in it,
`interleave(q, A, seq(F))`. An `exact` accumulator has no order. How memory cuts K into tiles changes nothing: tiles are
whole folds, and a sum stays where it is until the last of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.arithmetic.accumulators import (
    Accumulator,
    Aligned,
    Chunk,
    Exact,
    Fma,
    Interleave,
    Late,
    Seq,
    innermost,
    result_use,
)

if TYPE_CHECKING:
    from .records import Array


def array_order(written: Accumulator, array: Array, rate: int) -> Accumulator:
    """Return the accumulator with the order of the array worked in.

    Args:
        written: as the file has it. array: that the PEs are in. rate: MACs that one takes together.
    Raises:
        ValueError: a composition that the array does not perform; the message names the keys of the array.
    """
    match written:
        case Late():
            return Late(array_order(written.inner, array, rate))
        case Exact():
            return written
    if array.dataflow == "best":
        raise ValueError(
            f"got {written}, whose order of summation would change with the dataflow that array.dataflow: best picks "
            "for each operation; expected an accumulator without order; set array.dataflow to ws, is or os, or write "
            "exact(FORMAT)"
        )
    if array.dataflow not in ("os", "dot"):
        return _chunked(written, array.rows, rate)
    step = _step(innermost(written))
    if rate % step:
        raise ValueError(
            f"got steps of {step} products with a rate of {rate} MAC/cycle and array.dataflow: {array.dataflow}, whose "
            f"PEs add the products of a cycle; expected a rate that is a multiple of {step}; change rate or accumulator"
        )
    return written if array.interleave == 1 else _interleaved(written, array.interleave, rate)


def _interleaved(written: Accumulator, lanes: int, rate: int) -> Accumulator:
    if isinstance(written, Interleave):
        if written.ways != lanes:
            raise ValueError(
                f"got {written.ways} lanes; expected {lanes} = array.interleave; write {written.inner} and let the "
                "order follow from the array, or change array.interleave"
            )
        return written
    if rate > 1:
        raise ValueError(
            f"got a rate of {rate} with array.interleave ({lanes}): the products of a cycle go to one sum together, "
            "an order that no accumulator has; set rate to 1 MAC/cycle, or array.interleave to 1"
        )
    total = result_use(written)
    return Interleave(lanes, written, Seq(total, total))


def _chunked(written: Accumulator, rows: int, rate: int) -> Accumulator:
    if isinstance(written, Chunk):
        if written.length != rows * rate:
            raise ValueError(
                f"got runs of {written.length}; expected {rows * rate} = array.rows ({rows}) times rate ({rate}); "
                f"write {written.inner} and let the order follow from the array, change array.rows or rate, or set "
                "array.dataflow to os"
            )
        return written
    step = _step(innermost(written))
    if rows * rate % step:
        raise ValueError(
            f"got steps of {step} products, which do not fill the runs of {rows * rate} = array.rows ({rows}) times "
            f"rate ({rate}) of this array; make that a multiple of {step}, or set array.dataflow to os"
        )
    total = result_use(written)
    return Chunk(rows * rate, written, Seq(total, total))


def _step(state: Accumulator) -> int:
    """Return how many products a state takes together."""
    match state:
        case Aligned(n):
            return n
        case Fma(_, products):
            return products
    return 1
