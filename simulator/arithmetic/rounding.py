"""Arrays rounded into a format value by value, as a unit does that is no MAC."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats import Use
from native.twins import quantize

from .spec import float32_holds


def rounded(x: NDArray[Any], use: Use) -> NDArray[Any]:
    """Round an array of floats into a use of single values, correctly and without random words.

    Returns:
        float32 if that holds the format, else float64; with the order of axes that x has in memory.
    """
    dtype = np.float32 if float32_holds(use.format) else np.float64
    order = sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
    return np.transpose(quantize(np.transpose(x, order), use, dtype), np.argsort(order))
