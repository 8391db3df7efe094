"""What numbers are: number formats, exact and slow; numpy only.

`get` finds a format by name, `Format.quantize`, `encode`, `decode` and `table` use it. Importing the package `native`
(as `simulator` does) installs fast twins of these methods that give the same results.
"""

from . import dyadic
from .floats import FloatFormat
from .format import OVERFLOWS, Format
from .registry import available, get, register
from .rounding import ROUNDINGS, Rounding
from .use import Use

__all__ = [
    "OVERFLOWS",
    "ROUNDINGS",
    "FloatFormat",
    "Format",
    "Rounding",
    "Use",
    "available",
    "dyadic",
    "get",
    "register",
]
