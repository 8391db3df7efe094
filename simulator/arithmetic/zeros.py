"""How many multiply-accumulates of a product have a zero operand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .convolution import Rows


def zero_macs(a: Rows, b: NDArray[Any]) -> int:
    """Return how many of the M*N*K multiply-accumulates of (M, K) x (K, N) have a zero operand. Exact.

    Both operands of term k are not zero in as many as a's column k has non-zeros, times those of b's row k.

    Args:
        a: may be gathered. b: (K, N).
    """
    rows, k = a.shape
    working = _nonzeros(a) @ np.count_nonzero(b, axis=1).astype(np.int64)
    return rows * k * b.shape[1] - int(working)


def _nonzeros(a: Rows) -> NDArray[np.int64]:
    """Return how many elements of each column are not zero."""
    if isinstance(a, np.ndarray):
        return np.count_nonzero(a, axis=0).astype(np.int64)
    set_bits = a.data.reshape(-1) != 0
    return np.array([np.count_nonzero(set_bits[a.row_offsets + offset]) for offset in a.k_offsets], np.int64)
