"""Fast twins of block-scaled formats: the same results, code for code."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from formats import FixedFormat, FloatFormat, Format, PositFormat, Rounding, Use

from . import ffi, isa_index, lib
from .twins import array_record, check
from .uses import use_fields

if TYPE_CHECKING:
    from formats import BlockFormat
    from formats.block import Scaled

Array = NDArray[np.float64]


def _amax(fmt: BlockFormat, x: NDArray[Any], axis: int) -> Array:
    """Return the largest magnitude of each block; infinity or NaN where it holds one."""
    maxima = np.zeros((*x.shape[:axis], -(-x.shape[axis] // fmt.size), *x.shape[axis + 1 :]))
    x = np.ascontiguousarray(x)
    if x.size:
        record = _geometry(fmt, x.shape, axis)
        target = ffi.cast("uint64_t *", maxima.ctypes.data)
        check(lib.ulp_block_maxima(isa_index(), array_record(x), x.size, record, target))
    return maxima


def _quantize(
    fmt: BlockFormat, blocks: Scaled, rounding: Rounding, overflow: str, seed: int, offset: int
) -> Array | None:
    """Return the values, or None where the engine cannot prove them exact."""
    factors = _factors(fmt, blocks)
    if factors is None:
        return None
    y = _elements(fmt, blocks, rounding, overflow, seed, offset, np.float64, factors)
    return None if y is None else _with_nans(fmt, y, blocks)


def _encode(
    fmt: BlockFormat, blocks: Scaled, rounding: Rounding, overflow: str, seed: int, offset: int
) -> NDArray[Any] | None:
    """Return the codes of the elements, or None for elements that the engine does not divide."""
    return _elements(fmt, blocks, rounding, overflow, seed, offset, fmt.element.code_dtype, None)


def _values(fmt: BlockFormat, elements: Array, blocks: Scaled) -> Array | None:
    """Return elements times scales, or None where the engine cannot prove them exact."""
    factors = _factors(fmt, blocks)
    if factors is None:
        return None
    y = _run(fmt, elements, use_fields(Use.parse("fp64")), blocks, None, factors, np.float64, 0, 0)
    return None if y is None else _with_nans(fmt, y, blocks)


def _with_nans(fmt: BlockFormat, y: Array, blocks: Scaled) -> Array:
    if blocks.broken.any():
        y[fmt.spread(blocks.broken, y.shape, blocks.axis)] = np.nan
    return y


def _factors(fmt: BlockFormat, blocks: Scaled) -> Array | None:
    """Return what elements are multiplied by, None where a product may have more than 53 significant bits."""
    bits = _significand_bits(fmt.element) + fmt.scale.precision + (24 if fmt.two_level else 0)
    return fmt.factors(blocks) if bits <= 53 else None


def _significand_bits(element: Format) -> int | float:
    """Return the most significand bits of a value; infinity where the engine rounds no quotients to the family."""
    if type(element) is FloatFormat or type(element) is PositFormat:  # a subclass is another family
        return element.precision
    return element.bits if type(element) is FixedFormat else math.inf


def _elements(
    fmt: BlockFormat, blocks: Scaled, rounding: Rounding, overflow: str, seed: int, offset: int, dtype: Any,
    factors: Array | None,
) -> NDArray[Any] | None:  # fmt: skip
    if math.isinf(_significand_bits(fmt.element)):
        return None
    fields = use_fields(Use(fmt.element, str(rounding), overflow))
    if fmt.symmetric and "lowest" in fields and overflow != "wrap":
        fields["lowest"] = -fields["highest"]
    x, divisors = fmt.dividends(blocks)
    if overflow == "wrap" and divisors is not None and not _keeps_fractions(fmt, x, divisors):
        return None
    return _run(fmt, x, fields, blocks, divisors, factors, dtype, seed, offset)


def _keeps_fractions(fmt: BlockFormat, x: NDArray[Any], divisors: Array) -> bool:
    """Whether the engine's quotients, of 117 bits and more, hold all the bits that wrapping and rounding ask for.

    Quotients by powers of two are exact; of the others at most 2**50 quanta leave 64 bits behind the point.
    """
    if fmt.scale.precision == 1:
        return True
    largest, divisor = (float(of) for of in (np.abs(x).max(initial=0.0), divisors.min(initial=np.inf)))
    # Every value is a multiple of the smallest; the comparison is far from its bound by more than its roundings.
    return largest == 0.0 or largest / divisor / fmt.element.smallest_subnormal < 2.0**50


def _run(
    fmt: BlockFormat, x: NDArray[Any], fields: dict[str, Any], blocks: Scaled, divisors: Array | None,
    factors: Array | None, dtype: Any, seed: int, offset: int,
) -> NDArray[Any] | None:  # fmt: skip
    y = np.empty(x.shape, dtype)
    x = np.ascontiguousarray(x)
    record = _geometry(fmt, x.shape, blocks.axis)
    divisors, factors = (None if of is None else np.ascontiguousarray(of) for of in (divisors, factors))
    record.divisors, record.factors = (
        ffi.NULL if of is None else ffi.cast("double *", of.ctypes.data) for of in (divisors, factors)
    )
    use, place = ffi.new("ulp_use *", fields), ffi.new("ulp_place *", {"seed": seed, "index": offset})
    status = lib.ulp_quantize(isa_index(), array_record(x), array_record(y), x.size, use, place, ffi.NULL, record)
    if status == lib.ULP_INEXACT:
        return None
    check(status)
    return y


def _geometry(fmt: BlockFormat, shape: tuple[int, ...], axis: int) -> Any:
    return ffi.new("ulp_blocks *", {"length": shape[axis], "inner": math.prod(shape[axis + 1 :]), "size": fmt.size})


Format.fast_twins.update(
    {
        ("formats.block.BlockFormat", "amax"): _amax,
        ("formats.block.BlockFormat", "quantize"): _quantize,
        ("formats.block.BlockFormat", "encode"): _encode,
        ("formats.block.BlockFormat", "values"): _values,
    }
)
