"""Bins: which of some intervals values lie in."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

# Leading bits of a float64 that a cell is known by: sign, exponent and 7 bits of the fraction.
_CELL_BITS = 19
_DROPPED = 64 - _CELL_BITS


class Bins:
    """Intervals between edges: what np.searchsorted says, several times as fast for values in no order.

    A table by the leading bits of a value says in which bin its cell begins; edges within the cell are then compared.

    Args:
        edges: (B - 1,) float64, rising, none NaN; bin i holds values above edge i - 1 up to edge i.
    """

    def __init__(self, edges: Values) -> None:
        self.edges = edges

    def of(self, v: Values) -> NDArray[np.unsignedinteger]:
        """Return the bin of each value, as np.searchsorted(edges, v); exact. That of NaN is some bin."""
        first, most = self._cells
        ends = np.append(self.edges, np.inf)
        found = first[np.ascontiguousarray(v).view(np.uint64) >> np.uint64(_DROPPED)]
        for _ in range(most):
            found += v > ends[found]
        return found

    @cached_property
    def _cells(self) -> tuple[NDArray[np.unsignedinteger], int]:
        """The bin of the least value of each cell, and how many edges there are in one at most."""
        cells = np.arange(1 << _CELL_BITS, dtype=np.uint64) << np.uint64(_DROPPED)
        ends = cells.view(np.float64), (cells | np.uint64((1 << _DROPPED) - 1)).view(np.float64)
        negative = np.signbit(ends[0])
        infinity = np.where(negative, -np.inf, np.inf)  # what NaNs, the ends of its cells, stand for
        inner, outer = (np.where(np.isnan(x), infinity, x) for x in ends)
        first, last = (
            np.searchsorted(self.edges, np.where(negative, *pair)) for pair in ((outer, inner), (inner, outer))
        )
        narrow = np.min_scalar_type(self.edges.size)  # so that the table stays in the cache
        return first.astype(narrow), int((last - first).max(initial=0))
