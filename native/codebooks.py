"""Searching codebooks: tables by which the engine finds the code of a number in a few steps, whatever the values."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import ffi

if TYPE_CHECKING:
    from formats import CodebookFormat, Rounding

_MOST_BITS = 16  # of the fraction that tell buckets of a binade apart
_MOST_BUCKETS = 1 << 18
_ALIVE: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()  # what the pointers of a record point to


def search_record(fmt: CodebookFormat, rounding: Rounding) -> Any:
    """Return the `ulp_codebook *` of a codebook under a rounding mode; the contract is in engine.h.

    Each binade of numbers, by sign and exponent, is cut into a power of two of equal buckets, several for each
    threshold in it, so that few hold more than one.
    """
    thresholds = fmt.thresholds(rounding)
    orders = _order(thresholds)
    per_binade = np.bincount((orders >> np.uint64(52)).astype(np.int64), minlength=4096)
    for several in (16, 8, 4, 2):
        bits = np.where(per_binade > 0, np.ceil(np.log2(several * np.maximum(per_binade, 1.0))), 0).astype(np.int64)
        buckets = 1 << np.minimum(bits, _MOST_BITS)
        if buckets.sum() <= _MOST_BUCKETS:
            break
    shifts = 52 - np.minimum(bits, _MOST_BITS)
    offsets = np.concatenate([[0], np.cumsum(buckets)[:-1]])
    binade = np.repeat(np.arange(4096), buckets)
    within = (np.arange(binade.size) - offsets[binade]).astype(np.uint64)
    firsts = binade.astype(np.uint64) << np.uint64(52) | within << shifts[binade].astype(np.uint64)
    starts = np.append(np.searchsorted(orders, firsts), thresholds.size).astype(np.uint32)
    binades = np.stack([offsets, shifts], axis=1).astype(np.int32)
    values = fmt.table()
    ladder = np.stack([values, np.append(thresholds, np.nan)], axis=1)
    return _record(values, ladder, binades, starts)


def lookup_record(values: NDArray[np.float64]) -> Any:
    """Return the `ulp_codebook *` of the values of codes, by which the engine decodes and does nothing else."""
    return _record(values)


def _record(values: NDArray[np.float64], *search: NDArray[Any]) -> Any:
    fields = dict(zip(("ladder", "binades", "starts"), search, strict=False)) | {"values": values}
    record = ffi.new("ulp_codebook *", {"count": values.size})
    for name, array in fields.items():
        setattr(record, name, ffi.cast(ffi.typeof(getattr(record, name)), array.ctypes.data))
    _ALIVE[record] = fields
    return record


def _order(x: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return integers in the order of the values."""
    bits = (x + 0.0).view(np.uint64)
    negative = bits >> np.uint64(63) == 1
    return np.where(negative, ~bits, bits | np.uint64(1 << 63))
