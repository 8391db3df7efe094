"""What a kernel is asked to do: the accumulator, and what is known of the operands at hand.

Notation as in conditions.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

from formats import FloatFormat, PositFormat, Use
from native.matmul import Node, Profile

from .lowering import Lowered

TWO = Fraction(2)


class Clause(NamedTuple):
    """One part of a kernel's condition, with its numbers."""

    text: str
    holds: bool


@dataclass(frozen=True)
class Situation:
    """An accumulator as the engine takes it, and all that the conditions of kernels look at of its operands.

    Args:
        lowered: the accumulator.
        a, b: profiles of the operands as the engine will see them.
        c: profile of the addend in the state's format, or None.
        k: inner length.
        wide_operands: whether an operand needs float64 storage.
    """

    lowered: Lowered
    a: Profile
    b: Profile
    c: Profile | None
    k: int
    wide_operands: bool

    @property
    def leaf(self) -> Node:
        """The node that takes the products."""
        return self.lowered.nodes[self.lowered.leaf]

    @property
    def product_bits(self) -> int:
        """No finite product has more significant bits."""
        return self.a.significant_bits + self.b.significant_bits

    @property
    def product_last(self) -> int:
        """Finite products are multiples of 2**product_last."""
        return self.a.min_last_bit + self.b.min_last_bit

    @property
    def product_high(self) -> int:
        """|a*b| < 2**product_high."""
        return self.a.max_exponent + self.b.max_exponent + 2

    @property
    def finite(self) -> bool:
        """Whether operands and addend hold neither infinities nor NaNs."""
        return self.a.finite and self.b.finite and (self.c is None or self.c.finite)

    @property
    def largest(self) -> Fraction:
        """No finite product, rounded to nearest or not, exceeds this."""
        return TWO**self.product_high

    @cached_property
    def total(self) -> Fraction:
        """The magnitudes of an output's finite products, rounded if its leaf rounds them, sum up to at most this."""
        largest = self.k * self.largest
        if math.isinf(self.a.square) or math.isinf(self.b.square):
            return largest
        norms = root_above(Fraction(self.a.square) * Fraction(self.b.square))
        return min(largest, 2 * norms if self.leaf.kind == "seq" else norms)

    @property
    def starts_in_leaf(self) -> bool:
        """Whether the addend is where the leaf starts, and not a level of joins."""
        return not self.lowered.joins

    @property
    def addend(self) -> Fraction:
        """|c| < this."""
        return TWO ** (self.c.max_exponent + 1) if self.c and self.c.nonzero else Fraction(0)


@dataclass(frozen=True)
class Lane:
    """A SIMD lane as a number format.

    Args:
        precision: W, in bits. top: values stay below 2**top. last: exponent of the smallest subnormal.
        lowest_normal: exponent of the smallest normal value.
    """

    name: str
    precision: int
    top: int
    last: int
    lowest_normal: int


FLOAT32 = Lane("float32", 24, 128, -149, -126)
FLOAT64 = Lane("float64", 53, 1024, -1074, -1022)


def float_of(use: Use) -> FloatFormat:
    """Return the format of a use that is known to be a float."""
    assert isinstance(use.format, FloatFormat)
    return use.format


def uses_of(situation: Situation) -> list[Use]:
    """Every use in which a leaf with runs of runs rounds."""
    joins = situation.lowered.joins or ()
    return [use for use in (situation.leaf.product, situation.leaf.sum, *(join.sum for join in joins)) if use]


def posit_of(use: Use) -> PositFormat:
    """Return the format of a use that is known to be a posit."""
    assert isinstance(use.format, PositFormat)
    return use.format


def quantum(fmt: FloatFormat) -> int:
    """Return q: the subnormals are multiples of 2**q."""
    return fmt.min_exponent - fmt.fraction_bits


def log2_ceiling(x: Fraction) -> int:
    """Return the smallest e with x <= 2**e; of zero an e below that of any product of float64s."""
    if x <= 0:
        return -4096
    estimate = x.numerator.bit_length() - x.denominator.bit_length()
    return next(e for e in (estimate - 1, estimate, estimate + 1) if x <= TWO**e)


def root_above(x: Fraction) -> Fraction:
    """Return an upper bound of the square root of x, too large by 2^-30 of it at most where x is not tiny."""
    shift = 60 + max(x.denominator.bit_length() - x.numerator.bit_length(), 0)
    return Fraction(math.isqrt(math.ceil(x * 4**shift)) + 1, 2**shift)


def decimal(x: Fraction) -> str:
    """Write x, which float64 may not hold, for people; rounded up to a power of two where it does not."""
    return f"{float(x):.6g}" if x < TWO**1023 else f"2^{log2_ceiling(x)}"
