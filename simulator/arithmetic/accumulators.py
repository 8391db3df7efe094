"""Accumulators as immutable values: what happens between the products and the output.

Each record owns the order in which the products are taken, the state kept for each output and every rounding on the
way. Their exact meaning is `reference.py`; here they are only data, with a string form that reads back.
"""

from __future__ import annotations

from dataclasses import dataclass

from formats import Use


@dataclass(frozen=True)
class Fma:
    """Fused multiply-add: s = R(s + a*b), one rounding of the exact value."""

    sum: Use

    def __str__(self) -> str:
        return f"fma({self.sum})"


@dataclass(frozen=True)
class Seq:
    """Separate multiply and add: t = R_product(a*b), then s = R_sum(s + t)."""

    product: Use
    sum: Use

    def __str__(self) -> str:
        return f"seq({self.sum})" if self.product == self.sum else f"seq({self.product}, {self.sum})"


@dataclass(frozen=True)
class Chunk:
    """Runs of `length` products each go through `inner` from +0; `outer` adds their results in order.

    A result is a value, not a product: a Seq that receives one skips its product rounding.
    """

    length: int
    inner: Accumulator
    outer: Accumulator

    def __post_init__(self) -> None:
        if not isinstance(self.length, int) or isinstance(self.length, bool) or not 1 <= self.length < 1 << 63:
            raise ValueError(
                f"chunk: the length of a run must be a whole number from 1 to 2**63 - 1, got {self.length!r}"
            )
        if isinstance(self.inner, Late) or isinstance(self.outer, Late):
            raise ValueError("chunk: write late(chunk(...)); the addend joins the whole accumulation, not a part of it")
        if isinstance(self.inner, Exact) or isinstance(self.outer, Exact):
            raise ValueError("chunk: exact(...) rounds once, at the end, and cannot be a part of a chunk")

    def __str__(self) -> str:
        return f"chunk({self.length}, {self.inner}, {self.outer})"


@dataclass(frozen=True)
class Late:
    """`inner` runs from +0; the addend joins at the end as R(result + R(c)), with the rounding of the output."""

    inner: Accumulator

    def __post_init__(self) -> None:
        if isinstance(self.inner, Late):
            raise ValueError("late(late(...)) says the same thing twice; write late once")

    def __str__(self) -> str:
        return f"late({self.inner})"


@dataclass(frozen=True)
class Exact:
    """The addend and all products as one real number, rounded once at the end; order does not exist."""

    sum: Use

    def __str__(self) -> str:
        return f"exact({self.sum})"


Accumulator = Fma | Seq | Chunk | Late | Exact


def result_use(accumulator: Accumulator) -> Use:
    """Return the use in which the final state is held: the output, unless the MAC names another."""
    match accumulator:
        case Chunk():
            return result_use(accumulator.outer)
        case Late():
            return result_use(accumulator.inner)
        case _:
            return accumulator.sum


def uses(accumulator: Accumulator) -> tuple[Use, ...]:
    """Return every use in which something is rounded on the way."""
    match accumulator:
        case Chunk():
            return (*uses(accumulator.inner), *uses(accumulator.outer))
        case Late():
            return uses(accumulator.inner)
        case Seq():
            return (accumulator.product, accumulator.sum)
        case _:
            return (accumulator.sum,)
