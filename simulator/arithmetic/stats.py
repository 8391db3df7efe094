"""What was counted on the way of a product, and how far its results lie from the exact ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from formats.notebook import Shown, View, frame
from native.matmul import COUNTED_COLUMNS, COUNTS

if TYPE_CHECKING:
    from formats.notebook import DataFrame

# Of a tile: counts over its outputs, the largest finite sum, and errors against the exact inner products.
TILE = np.dtype([*((name, COUNTS[name]) for name in COUNTS.names or ()), ("max_error", "f8"), ("mean_error", "f8"),
                 ("max_relative_error", "f8")])  # fmt: skip
TILE_SIDES = (64, 64)  # rows and columns, if nobody asks for others


@dataclass(frozen=True)
class Stats(Shown):
    """What was counted on the way; counting changes no bit.

    Args:
        kernel: the kernel that ran.
        overflowed: boolean array like the result: whether a rounding of that output met a value beyond the largest
            finite one (it overflowed or saturated). Exact.
        counts: (M, N / 16 rounded up) records of counts over 16 outputs of a row, of the accumulator's own roundings,
            that of the output and a late addend not counted; None where only overflows were asked for. Exact. Fields:
            overflows: roundings that met a value beyond the largest finite one.
            underflows: finite values other than zero that were rounded to zero.
            swamped: additions that left the sum as it was, though what was added is not zero and nothing overflowed; in
                an aligned step terms that were cut to zero, in a tree sums equal to the largest of several terms.
            largest: largest finite magnitude of a sum.
        errors: result minus exact inner product, in float64; None where only overflows were asked for.
        exact: exact inner products of the operands and the addend as the unit takes them, in float64.
        error_bound: the exact ones are off by at most this, from their own sums in float64; 0 where these are exact.
    """

    kernel: str
    overflowed: NDArray[np.bool_]
    counts: NDArray[Any] | None = None
    errors: NDArray[np.float64] | None = None
    exact: NDArray[np.float64] | None = None
    error_bound: float = 0.0

    @property
    def overflows(self) -> int:
        """How many outputs overflowed at least once."""
        return int(np.count_nonzero(self.overflowed))

    @property
    def total(self) -> dict[str, float]:
        """Counts, largest sum and errors over all outputs: the fields of a tile."""
        m, n = self.overflowed.shape
        tile = self.tiles(max(m, 1), max(n, 1))
        whole = tile[0, 0] if tile.size else np.zeros((), TILE)
        return {name: whole[name].item() for name in TILE.names or ()}

    def tiles(self, rows: int = TILE_SIDES[0], columns: int = TILE_SIDES[1]) -> NDArray[Any]:
        """Return the same for each tile of rows x columns outputs: an array of records, the last ones of less.

        Args:
            rows: at least 1. columns: a multiple of 16, or all columns there are.
        Returns:
            Records of counts (see `counts`) and max_error, mean_error (of the magnitudes, NaNs and infinities left
            out), max_relative_error (where the exact inner product is not 0).
        Raises:
            ValueError: a tile that cuts the counts, or no counts.
        """
        if self.counts is None or self.errors is None or self.exact is None:
            raise ValueError("these statistics hold overflows only; ask for stats=True")
        m, n = self.overflowed.shape
        if rows < 1 or columns < 1 or (columns % COUNTED_COLUMNS and columns < n):
            raise ValueError(
                f"tiles of {rows} x {columns}: expected at least one row, and columns in multiples of "
                f"{COUNTED_COLUMNS} or all {n}"
            )
        tops, lefts = range(0, m, rows), range(0, n, columns)
        result = np.zeros((len(tops), len(lefts)), TILE)
        with np.errstate(divide="ignore", invalid="ignore"):
            errors = np.where(np.isfinite(self.errors), np.abs(self.errors), np.nan)
            relative = np.where(self.exact != 0, errors / np.abs(self.exact), np.nan)
        for i, top in enumerate(tops):
            for j, left in enumerate(lefts):
                segments = slice(left // COUNTED_COLUMNS, -(-min(left + columns, n) // COUNTED_COLUMNS))
                counted = self.counts[top : top + rows, segments]
                area = (slice(top, top + rows), slice(left, left + columns))
                for name in ("overflows", "underflows", "swamped"):
                    result[name][i, j] = counted[name].sum()
                result["largest"][i, j] = counted["largest"].max()
                result["max_error"][i, j] = _over_numbers(np.max, errors[area])
                result["mean_error"][i, j] = _over_numbers(np.mean, errors[area])
                result["max_relative_error"][i, j] = _over_numbers(np.max, relative[area])
        return result

    def tile_rows(self, rows: int = TILE_SIDES[0], columns: int = TILE_SIDES[1]) -> list[dict[str, Any]]:
        """Return the tiles, see `tiles`, each with its first row and column."""
        tiles = self.tiles(rows, columns)
        return [
            {"row": i * rows, "column": j * columns, **dict(zip(TILE.names or (), tiles[i, j].item(), strict=True))}
            for i, j in np.ndindex(tiles.shape)
        ]

    def to_frame(self, rows: int = TILE_SIDES[0], columns: int = TILE_SIDES[1]) -> DataFrame:
        """Return the tiles, see `tiles`, as a DataFrame, a row each with its first row and column; needs pandas."""
        return frame(self.tile_rows(rows, columns), ("row", "column", *(TILE.names or ())))

    def _view(self) -> View:
        from .shown import stats_view

        return stats_view(self)


def _over_numbers(function: Any, x: NDArray[np.float64]) -> float:
    numbers = x[~np.isnan(x)]
    return float(function(numbers)) if numbers.size else 0.0
