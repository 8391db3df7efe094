"""What numbers are: number formats, exact and slow; numpy only.

`get` finds a format by name, `available` lists the names, `register` adds one; `Format.quantize`, `encode`, `decode`
and `table` use it. Importing the package `native` (as `simulator` does) installs fast twins of these methods that give
the same results.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import dyadic
from .fixed import FixedFormat
from .floats import FloatFormat
from .format import OVERFLOWS, Format
from .posit import PositFormat
from .registry import available, get, register
from .rounding import ROUNDINGS, Rounding
from .use import Use

if TYPE_CHECKING:
    from .block import BlockCodes, BlockFormat
    from .codebook import CodebookFormat
    from .takum import TakumFormat

# Families that few runs need, imported when they are asked for.
_LAZY = {"BlockCodes": "block", "BlockFormat": "block", "CodebookFormat": "codebook", "TakumFormat": "takum"}

__all__ = [
    "OVERFLOWS",
    "ROUNDINGS",
    "BlockCodes",
    "BlockFormat",
    "CodebookFormat",
    "FixedFormat",
    "FloatFormat",
    "Format",
    "PositFormat",
    "Rounding",
    "TakumFormat",
    "Use",
    "available",
    "dyadic",
    "get",
    "register",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'formats' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
