"""The order of summation that follows from the array, and the width of the sums.

What one PE does is written in the file as a plain `fma` or `seq`. A weight- or input-stationary array chains R rows of
`rate` MACs, then adds the result to a partial sum: `chunk(R*rate, A, seq(F))`. An output-stationary array keeps the sum
in the PE: `A`. An `exact` accumulator has no order.
"""

from __future__ import annotations

from fractions import Fraction

from formats import Format
from simulator.arithmetic.accumulators import Accumulator, Chunk, Exact, Fma, Late, Seq, result_use

# An exact (fixed-point) accumulator has room for sums of 2**16 products.
GUARD_BITS = 16


def array_order(written: Accumulator, dataflow: str, rows: int, rate: int) -> Accumulator:
    """Return the accumulator with the order of the array worked in.

    Args:
        written: as the file has it. dataflow: ws | is | os | best. rows: R. rate: MACs per PE and cycle.
    Raises:
        ValueError: a composition that the array does not perform; the message names the keys of the array.
    """
    match written:
        case Late():
            return Late(array_order(written.inner, dataflow, rows, rate))
        case Exact():
            return written
        case Chunk():
            _check_composition(written, dataflow, rows, rate)
            return written
    if dataflow == "best":
        raise ValueError(
            f"got {written}, whose order of summation would change with the dataflow that array.dataflow: best picks "
            "for each operation; expected an accumulator without order; set array.dataflow to ws, is or os, or write "
            "exact(FORMAT)"
        )
    if dataflow == "os":
        return written
    total = result_use(written)
    return Chunk(rows * rate, written, Seq(total, total))


def _check_composition(written: Chunk, dataflow: str, rows: int, rate: int) -> None:
    if dataflow in ("os", "best"):
        raise ValueError(
            f"got {written}, but array.dataflow: {dataflow} does not sum in runs; expected what one PE does; "
            f"write {written.inner}, or set array.dataflow to ws"
        )
    if isinstance(written.inner, Chunk) or isinstance(written.outer, Chunk):
        raise ValueError(
            f"got the nested {written}; expected chunk({rows * rate}, inner, outer), the order of "
            "array.rows times rate; write what one PE does, e.g. fma(fp16)"
        )
    if written.length != rows * rate:
        raise ValueError(
            f"got runs of {written.length}; expected {rows * rate} = array.rows ({rows}) times rate ({rate}); "
            f"write {written.inner} and let the order follow from the array, or change array.rows or rate"
        )


def innermost(accumulator: Accumulator) -> Fma | Seq | Exact:
    """Return what adds each product."""
    while isinstance(accumulator, Late | Chunk):
        accumulator = accumulator.inner
    return accumulator


def state_bits(accumulator: Accumulator, operands: tuple[Format, Format]) -> int:
    """Return the width of the state to which each product is added."""
    state = innermost(accumulator)
    return exact_product_bits(*operands) + GUARD_BITS if isinstance(state, Exact) else state.sum.format.bits


def partial_sum_bits(accumulator: Accumulator, operands: tuple[Format, Format]) -> int:
    """Return the width of the sums kept between runs, or of the state where there are none."""
    match accumulator:
        case Chunk():
            return state_bits(accumulator.outer, operands)
        case Late():
            return partial_sum_bits(accumulator.inner, operands)
    return state_bits(accumulator, operands)


def exact_product_bits(a: Format, b: Format) -> int:
    """Return the bits of a two's complement fixed-point number that holds every product of two formats. Exact."""
    unit = Fraction(a.smallest_subnormal) * Fraction(b.smallest_subnormal)
    return (Fraction(a.max) * Fraction(b.max) // unit).bit_length() + 1
