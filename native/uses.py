"""The C records of uses of formats: the numbers that the engine reads, family by family."""

from __future__ import annotations

import functools
import math
import weakref
from typing import TYPE_CHECKING, Any

from formats import ROUNDINGS, FixedFormat, FloatFormat, Format, Use
from formats.environment import in_default_environment

from . import ffi, lib

if TYPE_CHECKING:
    from formats.tapered import TaperedFormat

CODEBOOKS = "formats.codebook.CodebookFormat"  # by name, as Format.family: few runs need to import the class

_ROUNDINGS = {name: getattr(lib, f"ULP_{name.upper()}") for name in ROUNDINGS}
_NO_CODE = (1 << 64) - 1
_ALIVE: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()  # what the pointers of a record point to


def use_record(use: Use) -> Any:
    """Return the record of a use, an `ulp_use *`.

    Raises:
        TypeError: a family that the engine does not know.
    """
    return _codebook_record(use) if use.format.family == CODEBOOKS else _plain_record(use)


@functools.lru_cache(maxsize=512)
def _plain_record(use: Use) -> Any:
    return ffi.new("ulp_use *", use_fields(use))


@functools.lru_cache(maxsize=32)  # a large codebook's tables take megabytes
@in_default_environment
def _codebook_record(use: Use) -> Any:
    from .codebooks import search_record  # few runs need it

    book = search_record(use.format, use.mode)  # type: ignore[arg-type]
    record = ffi.new("ulp_use *", _shared_fields(use) | {"family": lib.ULP_CODEBOOK, "codebook": book})
    _ALIVE[record] = book
    return record


@functools.lru_cache(maxsize=64)
@in_default_environment
def table_record(fmt: Format) -> Any:
    """Return an `ulp_use *` by which the codes of a format of at most 16 bits are looked up, for decoding only."""
    from .codebooks import lookup_record

    book = lookup_record(fmt.table())
    record = ffi.new("ulp_use *", {"family": lib.ULP_CODEBOOK, "codebook": book})
    _ALIVE[record] = book
    return record


@in_default_environment
def use_fields(use: Use) -> dict[str, Any]:
    """Return the fields of the record of a use that needs no tables: of any family but codebooks.

    Raises:
        TypeError: another family.
    """
    fmt: Any = use.format
    match fmt.family:  # a name: families that few runs need are imported only when one of their formats is made
        case "formats.floats.FloatFormat":
            return _shared_fields(use) | _float_fields(fmt, use)
        case "formats.posit.PositFormat":
            return _shared_fields(use) | _tapered_fields(fmt, use) | {"family": lib.ULP_POSIT, "exponent_bits": fmt.es}
        case "formats.takum.TakumFormat":
            return _shared_fields(use) | _tapered_fields(fmt, use) | {"family": lib.ULP_TAKUM}
        case "formats.fixed.FixedFormat":
            return _shared_fields(use) | _fixed_fields(fmt, use)
    raise TypeError(f"the engine computes with floats, posits, takums and fixed point; {fmt.name} is none")


def _shared_fields(use: Use) -> dict[str, Any]:
    mode = use.mode
    return {
        "code_bits": use.format.bits,
        "rounding": _ROUNDINGS[mode.mode],
        "random_bits": mode.random_bits,
        "variant": "abc".index(mode.variant),  # 0 too for modes without one
        "smallest": use.format.smallest_subnormal,
        "max": use.format.max,
    }


def _float_fields(fmt: FloatFormat, use: Use) -> dict[str, Any]:
    mode = use.mode
    return {
        "family": lib.ULP_FLOAT,
        "precision": fmt.precision,
        "min_exponent": fmt.min_exponent,
        "flush_subnormals": not fmt.subnormals,
        "unsigned_zero": not fmt.has_negative_zero,
        "is_signed": fmt.rules.signed,
        "gap": fmt.rules.field_zero != "subnormal",
        "bias": fmt.bias,
        "overflowed": fmt.overflowed(use.overflow, mode, False),
        "overflowed_below": fmt.overflowed(use.overflow, mode, True),
        "infinite": fmt.infinite(use.overflow),
        "infinite_below": fmt.project_special(-math.inf, use.overflow),
        "below_zero": fmt.below_zero(use.overflow, mode) if not fmt.rules.signed else 0.0,
        "zero": fmt.project_special(0.0, use.overflow),
        "top_code": fmt.code_of(fmt.max),
        "infinity_code": fmt.code_of(math.inf) if fmt.has_infinity else _NO_CODE,
        "nan_code": fmt.code_of(math.nan) if fmt.has_nan else _NO_CODE,
    }


def _tapered_fields(fmt: TaperedFormat, use: Use) -> dict[str, Any]:
    beyond = math.nan if use.overflow in ("ieee", "nan") else fmt.max
    return {
        "unsigned_zero": True,
        "is_signed": True,
        "overflowed": beyond,
        "overflowed_below": beyond,
        "infinite": math.nan,
        "infinite_below": math.nan,
    }


def _fixed_fields(fmt: FixedFormat, use: Use) -> dict[str, Any]:
    return {
        "family": lib.ULP_FIXED,
        "unsigned_zero": True,
        "is_signed": fmt.signed,
        "fraction_bits": fmt.fraction_bits,
        "wraps": use.overflow == "wrap",
        "lowest": fmt.lowest,
        "highest": fmt.highest,
        "infinite": math.nan if use.overflow == "wrap" else fmt.max,  # arithmetic modulo 2^N has no infinity
        "infinite_below": math.nan if use.overflow == "wrap" else fmt.min,
    }
