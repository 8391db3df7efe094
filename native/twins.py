"""Fast twins of the methods of `formats`: the same results, code for code."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from formats import FixedFormat, Format, Rounding, Use
from formats.philox import word

from . import ffi, isa_index, lib
from .uses import CODEBOOKS, table_record, use_record

if TYPE_CHECKING:
    from formats import CodebookFormat

_FP32 = Use.parse("fp32")


class EngineError(RuntimeError):
    """The C engine refused or failed; the message is the engine's."""


def check(status: int) -> None:
    """Turn a status code of the engine into an exception."""
    if status:
        raise EngineError(ffi.string(lib.ulp_status_text(status)).decode())


def quantize(
    x: NDArray[Any],
    use: Use,
    dtype: Any = np.float64,
    overflow: NDArray[np.bool_] | None = None,
    seed: int = 0,
    offset: int = 0,
    step: int = 0,
    site: int = 0,
    which: int = 0,
) -> NDArray[Any]:
    """Round a float32 or float64 array into a use. Correctly rounded, in one rounding.

    Args:
        dtype: of the result: float64, float32 (if that holds the format), or an unsigned integer type, for codes.
        overflow: boolean array of the shape of x, set where the rounded value lies beyond the largest finite one.
        seed, offset, step, site, which: of a stochastic rounding, as in Format.quantize and formats.philox.word.
    Returns:
        Array of the shape of x. Of a codebook under stochastic rounding NaN where the engine cannot decide.
    """
    y = np.empty(x.shape, dtype)
    x = np.ascontiguousarray(x)
    place = _place(seed, offset, step, site, which)
    flags = ffi.NULL if overflow is None else ffi.cast("uint8_t *", overflow.ctypes.data)
    arrays = array_record(x), array_record(y)
    check(lib.ulp_quantize(isa_index(), *arrays, x.size, use_record(use), place, flags, ffi.NULL))
    return y


def decode(codes: NDArray[Any], fmt: Format) -> NDArray[np.float64]:
    """Return the values of an array of codes of a format, of any integer type. Exact."""
    y = np.empty(codes.shape)
    codes = np.require(codes, fmt.code_dtype, ["C", "A"])
    looked_up = fmt.bits <= 16 and (codes.size > fmt.code_count or fmt.code_count < 1 << fmt.bits)
    record = table_record(fmt) if looked_up else use_record(Use(fmt))
    check(lib.ulp_decode(isa_index(), array_record(codes), array_record(y), codes.size, record))
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


def add(
    x: NDArray[Any], c: NDArray[Any], use: Use, overflow: NDArray[np.bool_] | None = None, **place: int
) -> NDArray[np.float64]:
    """Return R(x + c) elementwise, one rounding of each exact sum; no codebooks, the rest as for quantize.

    Args:
        place: seed, offset, step, site, which.
    """
    c = np.ascontiguousarray(convert(c, np.float64))
    return _combined(x, use, overflow, place, lambda x, y, *rest: lib.ulp_add(x, _doubles(c), y, *rest))


def scale(
    x: NDArray[Any], factor: float, use: Use, overflow: NDArray[np.bool_] | None = None, **place: int
) -> NDArray[np.float64]:
    """Return R(x * factor) elementwise, one rounding of each exact product; the rest as for add."""
    return _combined(x, use, overflow, place, lambda x, y, *rest: lib.ulp_scale(x, factor, y, *rest))


def _combined(
    x: NDArray[Any],
    use: Use,
    overflow: NDArray[np.bool_] | None,
    place: Mapping[str, int],
    call: Callable[..., int],
) -> NDArray[np.float64]:
    x, y = np.ascontiguousarray(convert(x, np.float64)), np.empty(x.shape)
    flags = ffi.NULL if overflow is None else ffi.cast("uint8_t *", overflow.ctypes.data)
    check(call(_doubles(x), _doubles(y), x.size, use_record(use), _place(**place), flags))
    return y


def _doubles(x: NDArray[np.float64]) -> Any:
    return ffi.cast("double *", x.ctypes.data)


def _place(seed: int = 0, offset: int = 0, step: int = 0, site: int = 0, which: int = 0) -> Any:
    return ffi.new("ulp_place *", {"seed": seed, "step": step, "index": offset, "site": site, "which": which})


_TYPES = {
    np.dtype(np.float64): lib.ULP_F64,
    np.dtype(np.float32): lib.ULP_F32,
    np.dtype(np.uint8): lib.ULP_U8,
    np.dtype(np.uint16): lib.ULP_U16,
    np.dtype(np.uint32): lib.ULP_U32,
    np.dtype(np.uint64): lib.ULP_U64,
}


def array_record(x: NDArray[Any]) -> Any:
    """Return the record of a contiguous array."""
    return ffi.new("ulp_array *", {"data": ffi.cast("void *", x.ctypes.data), "type": _TYPES[x.dtype]})


# --- the twins -------------------------------------------------------------------------------------------------------


def _quantize(
    fmt: Format,
    x: NDArray[Any],
    rounding: Rounding,
    overflow: str,
    seed: int,
    offset: int,
    dtype: Any = np.float64,
) -> NDArray[Any]:
    return quantize(x, Use(fmt, str(rounding), overflow), dtype, seed=seed, offset=offset)


def _encode(fmt: Format, x: NDArray[Any], rounding: Rounding, overflow: str, seed: int, offset: int) -> NDArray[Any]:
    return _quantize(fmt, x, rounding, overflow, seed, offset, fmt.code_dtype)


def _decode(fmt: Format, codes: NDArray[Any]) -> NDArray[np.float64]:
    return decode(codes, fmt)


def _without_wrapped_infinities(twin: Callable[..., NDArray[Any]]) -> Callable[..., NDArray[Any]]:
    def checked(fmt: FixedFormat, x: NDArray[Any], rounding: Rounding, overflow: str, *rest: int) -> NDArray[Any]:
        if overflow == "wrap" and np.isinf(x).any():
            fmt.project_special(math.inf, overflow)  # which refuses
        return twin(fmt, x, rounding, overflow, *rest)

    return checked


def _quantize_by_codebook(
    fmt: CodebookFormat, x: NDArray[Any], rounding: Rounding, overflow: str, seed: int, offset: int
) -> NDArray[np.float64]:
    if not fmt.is_monotone(rounding):  # rounding toward a zero that is no value: down above it, up below
        down, up = (_quantize(fmt, x, Rounding(mode), overflow, seed, offset) for mode in ("rd", "ru"))
        return np.where(x >= 0, down, up)
    y = _quantize(fmt, x, rounding, overflow, seed, offset)
    if rounding.stochastic:
        flat, values = y.reshape(-1), x.reshape(-1)
        for i in np.flatnonzero(np.isnan(flat)).tolist():  # what the engine left open
            flat[i] = fmt.project(float(values[i]), rounding, overflow, word(seed, offset + i))
    return y


def _encode_by_codebook(
    fmt: CodebookFormat, x: NDArray[Any], rounding: Rounding, overflow: str, seed: int, offset: int
) -> NDArray[Any]:
    if fmt.is_monotone(rounding) and not rounding.stochastic:
        return _encode(fmt, x, rounding, overflow, seed, offset)
    quantised = _quantize_by_codebook(fmt, x, rounding, overflow, seed, offset)
    return _encode(fmt, quantised, Rounding("rne"), overflow, seed, offset)


def _install(family: str, quantize: Any, encode: Any) -> None:
    twins = {"quantize": quantize, "encode": encode, "decode": _decode}
    Format.fast_twins.update({(family, operation): twin for operation, twin in twins.items()})


_install("formats.floats.FloatFormat", _quantize, _encode)
_install("formats.posit.PositFormat", _quantize, _encode)
_install("formats.takum.TakumFormat", _quantize, _encode)
_install("formats.fixed.FixedFormat", *map(_without_wrapped_infinities, (_quantize, _encode)))
_install(CODEBOOKS, _quantize_by_codebook, _encode_by_codebook)
