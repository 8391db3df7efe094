"""(C6) Sums bounded by their partial sums: every rounding of a state is off by at most u |state| + eta, and to nearest
by no more than the term that was added, as the state before was a candidate; a state is at most the exact partial sum
of what the unit holds and the errors so far. In integers, multiples of a power of two.

Where subnormals are flushed the state before is no candidate, but the sum of the bounds still holds at every step: a
flush costs less than eta, and the first term x since the state was 0 was charged min(|x|, u |x| + eta), which is eta
more than its own rounding takes, or |x|, of which what it takes and the term that led to the flush leave as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flint import arb

from .balls import Balls, power
from .formats import Use
from .macs import Accumulator, Chunk, Fma, Late, Roundings, Seq

GUARD = 160  # bits below the last one of the products


class Term(NamedTuple):
    """What starts a state: within center +- radius of an exact value, computed within `error` of that."""

    center: arb
    radius: arb
    error: arb


class Sum(NamedTuple):
    """A sum in units: exactly within center +- radius, computed within `error` of that."""

    center: int
    radius: int
    error: int


def applies(accumulator: Accumulator) -> bool:
    """Whether the order is known step by step."""
    match accumulator:
        case Fma():
            return accumulator.products == 1
        case Seq():
            return True
        case Chunk():
            return applies(accumulator.inner) and applies(accumulator.outer)
        case Late():
            return applies(accumulator.inner)
    return False


@dataclass(frozen=True)
class Scaled:
    """Numbers with radii as integers, multiples of 2**exponent."""

    centers: Sequence[int]
    radii: Sequence[int]
    exponent: int


def scaled(centers: Balls, radii: Balls, guard: int = 0) -> Scaled:
    """Return numbers with radii as multiples of a power of two, the radii rounded up where they are no points."""
    parts = [x.mid().man_exp() for x in centers]
    around = [(radius + x.rad()).upper().man_exp() for x, radius in zip(centers, radii, strict=True)]
    least = min((int(exponent) for integer, exponent in (*parts, *around) if integer), default=0) - guard

    def units(found: Sequence[tuple[object, object]]) -> list[int]:
        return [int(integer) << (int(exponent) - least) if integer else 0 for integer, exponent in found]  # type: ignore[call-overload]

    return Scaled(units(parts), units(around), least)


class _Step(NamedTuple):
    """A rounding in units: u = 2**-bits."""

    bits: int
    eta: int
    largest: int | None
    clips: bool


class PartialSums:
    """The sums of one unit on operands that share their scales.

    Args:
        exponent: of the unit in which everything is counted, that of the products.
    """

    def __init__(self, accumulator: Accumulator, roundings: Roundings, exponent: int) -> None:
        self.accumulator = accumulator.inner if isinstance(accumulator, Late) else accumulator
        self.exponent, self._roundings = exponent, roundings
        self._steps: dict[Use, _Step] = {}

    def error(self, products: Sequence[int], radii: Sequence[int], start: Term | None) -> arb | None:
        """Return how far a sum of products in units is off; None where a state may overflow."""
        begun = Sum(0, 0, 0)
        if start is not None:
            radius, error = self._up(start.radius + start.center.rad()), self._up(start.error)
            if radius is None or error is None:
                return None
            middle = start.center.mid() / power(self.exponent)
            begun = Sum(_whole(middle.floor()), radius + 1, error)
        found = self._total(self.accumulator, products, radii, None, begun)
        return None if found is None else arb(found.error) * power(self.exponent)

    def _up(self, x: arb) -> int | None:
        """Return a bound in units, rounded up; None of an infinite one."""
        return _whole((x / power(self.exponent)).upper().ceil()) if x.is_finite() else None

    def _step(self, use: Use) -> _Step:
        found = self._steps.get(use)
        if found is None:
            rounding = self._roundings(use)
            largest = rounding.largest
            top = _whole((largest / power(self.exponent)).floor()) if largest.is_finite() else None
            eta = self._up(rounding.eta)
            assert eta is not None
            found = _Step(rounding.bits, eta, top, rounding.nearest)
            self._steps[use] = found
        return found

    def _total(
        self,
        accumulator: Accumulator,
        centers: Sequence[int],
        radii: Sequence[int],
        errors: Sequence[int] | None,
        start: Sum,
    ) -> Sum | None:
        """Return the sum of products, or of values with errors; None where a state may overflow."""
        if isinstance(accumulator, Chunk):
            runs = []
            for first in range(0, len(centers), accumulator.length):
                some = slice(first, first + accumulator.length)
                own = None if errors is None else errors[some]
                run = self._total(accumulator.inner, centers[some], radii[some], own, Sum(0, 0, 0))
                if run is None:
                    return None
                runs.append(run)
            return self._total(
                accumulator.outer, [x.center for x in runs], [x.radius for x in runs], [x.error for x in runs], start
            )
        assert isinstance(accumulator, Fma | Seq)
        step = self._step(accumulator.sum)
        product = None
        if isinstance(accumulator, Seq) and errors is None:
            product = self._step(accumulator.product)
        return _sequential(step, product, centers, radii, [0] * len(centers) if errors is None else errors, start)


def _whole(x: arb) -> int:
    """Return an integer that is held as a ball of radius 0."""
    integer, exponent = x.man_exp()
    return int(integer) << int(exponent) if exponent > 0 else int(integer) >> -int(exponent)


def _sequential(
    step: _Step, product: _Step | None, centers: Sequence[int], radii: Sequence[int], errors: Sequence[int], start: Sum
) -> Sum | None:
    bits, eta, largest, clips = step
    center, radius, error = start
    for x, around, off in zip(centers, radii, errors, strict=True):
        size = abs(x) + around + off
        if not size and clips and product is None:
            continue  # as would follow
        if product is not None:
            if product.largest is not None and size > product.largest:
                return None
            own = -(-size >> product.bits) + product.eta
            off += own
            size += own
        center += x
        radius += around
        error += off
        state = abs(center) + radius + error
        if largest is not None and state > largest:
            return None
        own = -(-state >> bits) + eta
        error += size if clips and size < own else own
    return Sum(center, radius, error)
