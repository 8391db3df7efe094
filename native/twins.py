"""Fast twins of the methods of `formats`: the same results, code for code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats import ROUNDINGS, FloatFormat, Format, Rounding, Use

from . import ffi, isa_index, lib

_FP32 = Use.parse("fp32")


class EngineError(RuntimeError):
    """The C engine refused or failed; the message is the engine's."""


def check(status: int) -> None:
    """Turn a status code of the engine into an exception."""
    if status:
        raise EngineError(ffi.string(lib.ulp_status_text(status)).decode())


_ROUNDINGS = {name: getattr(lib, f"ULP_{name.upper()}") for name in ROUNDINGS}


def use_fields(use: Use) -> dict[str, Any]:
    """Return the fields of the C record of a use of a float format."""
    fmt, mode = use.format, use.mode
    if not isinstance(fmt, FloatFormat):
        raise TypeError(f"the engine takes float formats; {fmt.name} is none")
    return {
        "precision": fmt.precision,
        "min_exponent": fmt.min_exponent,
        "rounding": _ROUNDINGS[mode.mode],
        "random_bits": mode.random_bits,
        "variant": max("abc".find(mode.variant), 0) if mode.variant else 0,
        "flush_subnormals": not fmt.subnormals,
        "unsigned_zero": not fmt.has_negative_zero,
        "is_signed": fmt.rules.signed,
        "gap": fmt.rules.field_zero != "subnormal",
        "bias": fmt.bias,
        "smallest": fmt.smallest_subnormal,
        "max": fmt.max,
        "overflowed": fmt.overflowed(use.overflow, mode, False),
        "overflowed_below": fmt.overflowed(use.overflow, mode, True),
        "infinite": fmt.infinite(use.overflow),
        "infinite_below": fmt.project_special(-math.inf, use.overflow),
        "below_zero": fmt.project_finite(-1, 0, mode, use.overflow) if not fmt.rules.signed else 0.0,
        "zero": fmt.project_special(0.0, use.overflow),
    }


def quantize(
    x: NDArray[Any],
    use: Use,
    dtype: Any = np.float64,
    overflow: NDArray[np.bool_] | None = None,
    seed: int = 0,
    offset: int = 0,
) -> NDArray[Any]:
    """Round a float32 or float64 array into a use. Correctly rounded, in one rounding.

    Args:
        dtype: of the result, float64 or (if it holds the format) float32.
        overflow: boolean array of the shape of x, set where the rounded value lies beyond the largest finite one.
        seed, offset: of a stochastic rounding, as in Format.quantize.
    """
    y = np.empty(x.shape, dtype)
    x = np.ascontiguousarray(x)
    record = ffi.new("ulp_use *", use_fields(use))
    place = ffi.new("ulp_place *", {"seed": seed, "index": offset})
    flags = ffi.NULL if overflow is None else ffi.cast("uint8_t *", overflow.ctypes.data)
    source, target = (ffi.cast("void *", array.ctypes.data) for array in (x, y))
    wide = [array.dtype == np.float64 for array in (x, y)]
    check(lib.ulp_quantize(isa_index(), source, wide[0], target, wide[1], x.size, record, place, flags))
    return y


def convert(x: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Return an array of float32 values as float32 or float64, in the same layout; itself if it is that already.

    Exact whatever the caller's floating-point environment; numpy's conversion follows it, and a flush-to-zero mode
    would cost subnormals.
    """
    if x.dtype == dtype:
        return x
    if x.flags.f_contiguous:
        return quantize(x.T, _FP32, dtype).T
    return quantize(x, _FP32, dtype)


def add(x: NDArray[Any], c: NDArray[Any], use: Use, overflow: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Return R(x + c) elementwise, one rounding of each exact sum; `overflow` as for quantize."""
    y = np.empty(x.shape)
    x, c = (np.ascontiguousarray(convert(array, np.float64)) for array in (x, c))
    flags = ffi.NULL if overflow is None else ffi.cast("uint8_t *", overflow.ctypes.data)
    pointers = [ffi.cast("double *", array.ctypes.data) for array in (x, c, y)]
    check(lib.ulp_add(*pointers, x.size, ffi.new("ulp_use *", use_fields(use)), flags))
    return y


def _quantize_twin(
    fmt: FloatFormat, x: NDArray[Any], rounding: Rounding, overflow: str, seed: int, offset: int
) -> NDArray[np.float64]:
    return quantize(x, Use(fmt, str(rounding), overflow), seed=seed, offset=offset)


Format.fast_twins[FloatFormat, "quantize"] = _quantize_twin
