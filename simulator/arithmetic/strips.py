"""Rows of a product that are computed together, so that what a unit needs beside operands and outputs stays small."""

from __future__ import annotations

from collections.abc import Iterator

from formats import Use
from formats.block import BlockFormat

from .spec import MacSpec

# Elements of operand a, and outputs, of a strip. Operand b is made ready again for each, which rows enough outweigh.
ELEMENTS = 1 << 23
LEAST_ROWS = 1024


def row_strips(m: int, n: int, k: int, spec: MacSpec) -> Iterator[slice]:
    """Yield the rows of an (M, K) x (K, N) product in strips; all at once where operand a has to be whole."""
    step = max(LEAST_ROWS, ELEMENTS // max(n, k, 1))
    if spec.operands and shares_one_scale(spec.operands[0]):
        step = max(m, 1)
    for first in range(0, m, step):
        yield slice(first, min(first + step, m))


def shares_one_scale(use: Use) -> bool:
    """Whether all blocks of an array share a scale, so that a part of it is not rounded as in the whole."""
    return isinstance(use.format, BlockFormat) and use.format.two_level
