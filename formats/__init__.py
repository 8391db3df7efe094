"""What numbers are: number formats, exact and slow; numpy only.

`get` finds a format by name, `Format.quantize`, `encode`, `decode` and `table` use it. Importing the package `native`
(as `simulator` does) installs fast twins of these methods that give the same results.
"""

from . import dyadic
from .block import BlockCodes, BlockFormat
from .codebook import CodebookFormat
from .fixed import FixedFormat
from .floats import FloatFormat
from .format import OVERFLOWS, Format
from .posit import PositFormat
from .registry import available, get, register
from .rounding import ROUNDINGS, Rounding
from .takum import TakumFormat
from .use import Use

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
