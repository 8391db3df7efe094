"""Rounding modes: their single definition, on exact integers.

A finite value is a pair (magnitude, exponent), an integer times a power of two, with its sign kept apart.
`round_magnitude` is the only place in the exact arithmetic where bits are dropped.

    rounding := rne | rna | rnz | rz | ru | rd | odd | "sr" (":" N (":" ("a" | "b" | "c"))?)?

With s the exact quotient, its floor and the fraction v between:

    rne  to nearest, ties to even        up when v > 1/2, or v = 1/2 and the floor is odd
    rna  to nearest, ties away           up when v >= 1/2
    rnz  to nearest, ties toward zero    up when v > 1/2
    rz   toward zero                     never up
    ru   toward +infinity                up when v > 0 and the value is positive
    rd   toward -infinity                up when v > 0 and the value is negative
    odd  to odd                          up when v > 0 and the floor is even; an exact value never moves
    sr   stochastic, N random bits R     a: floor(v 2^N) + R >= 2^N
                                         b: floor(v 2^(N+1)) + 2R + 1 >= 2^(N+1)
                                         c: rne(v 2^N) + R >= 2^N

Source: IEEE 754-2019 section 4.3; Boldo and Melquiond 2008 for odd; IEEE P3109 interim report, stochastic A, B, C.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

ROUNDINGS = ("rne", "rna", "rnz", "rz", "ru", "rd", "odd", "sr")
RANDOM_BITS = 64  # of a rounding's random word, and N where `sr` names none


@dataclass(frozen=True)
class Rounding:
    """A rounding mode.

    Args:
        mode: one of ROUNDINGS. random_bits: N of sr, 1 to 64, else 0. variant: of sr, "a", "b" or "c", else "".
    """

    mode: str
    random_bits: int = 0
    variant: str = ""

    @property
    def stochastic(self) -> bool:
        """Whether the result depends on a random word."""
        return self.mode == "sr"

    def __str__(self) -> str:
        if not self.stochastic:
            return self.mode
        if self.variant != "a":
            return f"sr:{self.random_bits}:{self.variant}"
        return "sr" if self.random_bits == RANDOM_BITS else f"sr:{self.random_bits}"


@functools.cache
def parse_rounding(text: str) -> Rounding:
    """Read a rounding mode of the grammar above; ValueError says what is wrong."""
    if text in ROUNDINGS:
        return Rounding("sr", RANDOM_BITS, "a") if text == "sr" else Rounding(text)
    match = re.fullmatch(r"sr:([0-9]{1,18})(?::([abc]))?", text)
    if match:
        bits, variant = int(match[1]), match[2] or "a"
        most = RANDOM_BITS if variant == "a" else RANDOM_BITS - 1  # b and c look one bit further
        if not 1 <= bits <= most:
            raise ValueError(f"rounding {text!r}: {bits} random bits; expected 1 to {most} for variant {variant}")
        return Rounding("sr", bits, variant)
    raise ValueError(f"rounding {text!r} is unknown; expected one of {', '.join(ROUNDINGS)}, sr:N or sr:N:a|b|c")


def round_magnitude(
    magnitude: int, shift: int, rounding: Rounding, negative: bool = False, word: int = 0, odd: bool | None = None
) -> int:
    """Drop the `shift` lowest bits of a non-negative integer, rounding to an integer.

    Args:
        magnitude: non-negative integer.
        shift: number of low bits to drop; a value <= 0 multiplies by 2**-shift instead, exactly.
        rounding: the mode. negative: whether the value is, which directed modes ask.
        word: 64 random bits, the first N of which are R.
        odd: whether the floor counts as odd; None for its own parity (formats of one significand bit differ).
    Returns:
        The rounded quotient magnitude / 2**shift. Correctly rounded.
    """
    if shift <= 0:
        return magnitude << -shift
    kept = magnitude >> shift
    dropped = magnitude & ((1 << shift) - 1)
    if not dropped:
        return kept
    return kept + _goes_up(dropped, shift, rounding, negative, word, bool(kept & 1) if odd is None else odd)


def _goes_up(dropped: int, shift: int, rounding: Rounding, negative: bool, word: int, odd: bool) -> bool:
    """Decide a fraction dropped / 2**shift, strictly between 0 and 1."""
    twice, one = 2 * dropped, 1 << shift
    match rounding.mode:
        case "rne":
            return twice > one or (twice == one and odd)
        case "rna":
            return twice >= one
        case "rnz":
            return twice > one
        case "ru":
            return not negative
        case "rd":
            return negative
        case "odd":
            return not odd
        case "sr":
            n = rounding.random_bits
            random = word >> (RANDOM_BITS - n)
            if rounding.variant == "b":
                return ((dropped << (n + 1)) >> shift) + 2 * random + 1 >= 1 << (n + 1)
            if rounding.variant == "c":
                return round_magnitude(dropped << n, shift, Rounding("rne")) + random >= 1 << n
            return ((dropped << n) >> shift) + random >= 1 << n
        case _:
            return False
