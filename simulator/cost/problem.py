"""One matrix product as an array sees it: sizes, MACs that a PE takes together, bits of each tensor."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple


class Widths(NamedTuple):
    """Bits per element: a, w as moved; a_held, w_held on chip; state in the PE; psum between folds; out as stored.

    Those of operands in blocks have fractions, their shares of the scales; what is moved rounds up to whole bits.
    a_share, w_share are the distinct elements of an operand in parts of its elements: an image comes from further out
    as it lies, and is unfolded where it enters the array.
    """

    a: int | Fraction
    w: int | Fraction
    state: int
    psum: int
    out: int
    a_held: int | Fraction
    w_held: int | Fraction
    a_share: int | Fraction = 1
    w_share: int | Fraction = 1

    def exchanged(self) -> Widths:
        """Return the widths with the operands exchanged."""
        return Widths(
            self.w, self.a, self.state, self.psum, self.out, self.w_held, self.a_held, self.w_share, self.a_share
        )

    @property
    def a_fetched(self) -> int | Fraction:
        """Bits that come from further out for each element of A."""
        return self.a * self.a_share

    @property
    def w_fetched(self) -> int | Fraction:
        """The same of W."""
        return self.w * self.w_share


class Problem(NamedTuple):
    """One GEMM as the array sees it: M, N, K, MACs that a PE takes together, in how many cycles, bits per element."""

    m: int
    n: int
    k: int
    rate: int
    widths: Widths
    passes: int = 1

    @property
    def fetched_bits(self) -> tuple[int | Fraction, int | Fraction]:
        """Bits of A and of W that come from further out."""
        return self.m * self.k * self.widths.a_fetched, self.k * self.n * self.widths.w_fetched

    def exchanged(self) -> Problem:
        """Return the problem with the operands exchanged: O^T = W^T A^T."""
        return Problem(self.n, self.m, self.k, self.rate, self.widths.exchanged(), self.passes)
