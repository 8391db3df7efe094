"""Rounding modes: their single definition, on exact integers.

A finite value is a pair (magnitude, exponent), an integer times a power of two, with its sign kept apart.
`round_magnitude` is the only place in the exact arithmetic where bits are dropped.
Source: number-format notes in docs/guarantees.md; IEEE 754-2019 section 4.3.
"""

ROUNDINGS = ("rne",)


def round_magnitude(magnitude: int, shift: int, rounding: str, one_is_odd: bool = True) -> int:
    """Drop the `shift` lowest bits of a non-negative integer, rounding to an integer.

    Args:
        magnitude: non-negative integer.
        shift: number of low bits to drop; a value <= 0 multiplies by 2**-shift instead, exactly.
        rounding: one of ROUNDINGS.
        one_is_odd: whether a kept 1 counts as odd in a tie; where a significand has one bit only, its code decides.
    Returns:
        The rounded quotient magnitude / 2**shift. Correctly rounded.
    """
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding {rounding!r} is unknown; expected one of {', '.join(ROUNDINGS)}")
    if shift <= 0:
        return magnitude << -shift
    kept = magnitude >> shift
    dropped = magnitude & ((1 << shift) - 1)
    half = 1 << (shift - 1)
    if dropped > half or (dropped == half and kept & one_is_odd):
        kept += 1
    return kept
