"""What one rounding does to a value, as a bound, and which roundings there are in a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from formats import FloatFormat, Use
from simulator.errors import InputError

NEAREST = frozenset({"rne", "rna", "rnz"})


@dataclass(frozen=True)
class Rounding:
    """|R(x) - x| <= u |x| + eta for every x with |x| <= largest, where R(x) is finite and |R(x)| <= largest.

    Args:
        u: unit roundoff: 2**-p to nearest, 2**(1 - p) in other modes, p significand bits. eta: half the smallest
            subnormal to nearest, all of it in other modes, the smallest normal where subnormals are flushed.
        largest: largest finite value. nearest: whether to nearest, which (B3) needs. flushed: below it results may
            become 0 though a neighbour is nearer; 0 of formats with subnormals.
    """

    u: float
    eta: float = 0.0
    largest: float = math.inf
    nearest: bool = True
    flushed: float = 0.0

    def of_number(self, x: float) -> float:
        """Return how far a number in the code is off once it is rounded: 0 where it has few enough bits."""
        if x == 0 or math.isinf(x) or not self.u:
            return 0.0
        few = math.ldexp(math.frexp(x)[0], math.floor(-math.log2(self.u))).is_integer()
        # Below eta / u the grid of the format may be coarser than its significand says.
        return 0.0 if few and abs(x) * self.u >= self.eta else (abs(x) * self.u + self.eta) * (1.0 + 2.0**-50)


# Of a format in use. A precision alone (k significand bits, to nearest, any exponent) answers for all formats at once.
Roundings = Callable[[Use], Rounding]
EXACT = Rounding(0.0)


def of_use(use: Use) -> Rounding:
    """Return the rounding of a format in use. Upper bound (IEEE 754-2019, sections 4.3 and 7.5).

    Raises:
        InputError: a format whose relative errors have no bound, or that has no negative values.
    """
    fmt = use.format
    if not isinstance(fmt, FloatFormat) or not fmt.has_zero or not fmt.rules.signed:
        raise InputError(
            f"bounds: {use}: its roundings have no relative bound over a range; expected a floating-point format with "
            "a sign and a zero; take one such as fp16"
        )
    nearest = use.mode.mode in NEAREST
    eta, flushed = fmt.smallest_subnormal / 2 if nearest else fmt.smallest_subnormal, 0.0
    if not fmt.subnormals or fmt.smallest_subnormal >= fmt.smallest_normal:
        eta = flushed = fmt.smallest_normal
    u = math.ldexp(1.0, -fmt.precision if nearest else 1 - fmt.precision)
    return Rounding(u, eta, fmt.max, nearest, flushed)


def of_precision(bits: int) -> Roundings:
    """Return k significand bits for every format: to nearest or not as the use says, with any exponent."""
    if not isinstance(bits, int) or isinstance(bits, bool) or not 2 <= bits <= MOST_BITS:
        raise InputError(
            f"bounds: precision: got {bits!r}; expected whole significand bits from 2 to {MOST_BITS}; give e.g. 11"
        )

    def rounding(use: Use) -> Rounding:
        nearest = use.mode.mode in NEAREST
        return Rounding(math.ldexp(1.0, -bits if nearest else 1 - bits), nearest=nearest)

    return rounding


MOST_BITS = 53
FLOAT32 = of_use(Use.parse("fp32"))
