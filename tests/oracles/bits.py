"""Comparison of floats as bits: the sign of zero counts, and any NaN equals any NaN. No tolerances."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def bits(x: ArrayLike) -> NDArray[np.uint64]:
    """Return the float64 bit patterns, every NaN as the same one."""
    values = np.array(x, np.float64)
    values[np.isnan(values)] = np.nan
    return values.view(np.uint64)


def assert_same_bits(actual: ArrayLike, expected: ArrayLike, of: Any = None, note: str = "") -> None:
    """Fail with the first differing elements in pasteable hex, and with what they were computed from.

    Args:
        of: array of the same shape (the inputs), or a function from the index of an element to a text.
        note: what to know besides, such as the seed and the format.
    """
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}; {note}"
    wrong = np.argwhere(bits(actual) != bits(expected))
    if not len(wrong):
        return
    lines = [f"{len(wrong)} of {actual.size} differ; {note}"]
    for place in map(tuple, wrong[:5]):
        origin = "" if of is None else f" from {of(place) if callable(of) else float(of[place]).hex()}"
        lines.append(f"  at {place}: got {actual[place].hex()}, expected {expected[place].hex()}{origin}")
    raise AssertionError("\n".join(lines))


def operands_of(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any] | None = None):
    """Return the `of` for a matrix product: the row of a, the column of b and the addend as pasteable lists."""

    def text(place: tuple[int, ...]) -> str:
        row, column = place
        lists = [[float(v).hex() for v in vector] for vector in (a[row], b[:, column])]
        addend = None if c is None else float(np.broadcast_to(c, (a.shape[0], b.shape[1]))[row, column]).hex()
        return f"a={lists[0]} b={lists[1]} c={addend}"

    return text


def digest(x: NDArray[Any]) -> str:
    """Return the SHA-256 of an array's bytes in C order, as they are: NaN payloads count."""
    return hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()
