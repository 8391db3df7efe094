"""Rounding of whole arrays in 64-bit integers: a second, literal reading of the definitions, from the bits of float64.

A finite x is sign * s * 2**(L - 52) with 2**52 <= s < 2**53. A family says which integer m of its own counts is next to
|x| toward zero and how far beyond it |x| lies: a fraction v of which `Cut` keeps the first 64 bits and whether anything
follows them. `goes_up` then decides every rounding mode by its definition:

    rne  v > 1/2, or v = 1/2 and m odd     rna  v >= 1/2     rnz  v > 1/2     rz  never
    ru, rd  v > 0 and x > 0, x < 0         odd  v > 0 and m even
    sr   a: floor(v 2^N) + R >= 2^N   b: floor(v 2^(N+1)) + 2R + 1 >= 2^(N+1)   c: rne(v 2^N) + R >= 2^N

Nothing here imports the package that it checks. Sources: IEEE 754-2019 section 4.3, IEEE P3109 interim report v4.0;
Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, for Philox4x32-10.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

ONE = np.uint64(1)
HALF = np.uint64(1 << 63)
ALL = np.uint64((1 << 64) - 1)


class Cut(NamedTuple):
    """How far |x| lies beyond the integer below it: floor(v * 2**64), and whether that leaves a rest."""

    first: Words
    rest: Flags


def left(x: Words, by: Integers) -> Words:
    """x * 2**by modulo 2**64, for any by >= 0."""
    return np.where(by > 63, np.uint64(0), x << np.clip(by, 0, 63).astype(np.uint64))


def right(x: Words, by: Integers) -> Words:
    """floor(x / 2**by), for any by >= 0."""
    return np.where(by > 63, np.uint64(0), x >> np.clip(by, 0, 63).astype(np.uint64))


def parts(x: Floats) -> tuple[Flags, Words, Integers]:
    """Return (whether negative, s, L) of finite x; s = 0 for zeros."""
    bits = np.ascontiguousarray(x, np.float64).view(np.uint64)
    field = ((bits >> np.uint64(52)) & np.uint64(0x7FF)).astype(np.int64)
    fraction = bits & np.uint64((1 << 52) - 1)
    significand = np.where(field > 0, fraction | np.uint64(1 << 52), fraction)
    # A subnormal is moved up until its first bit stands at 52; its length is the exponent of its conversion, exact.
    length = np.frexp(fraction.astype(np.float64))[1].astype(np.int64)
    lift = np.where(field > 0, 0, 53 - length)
    exponent = np.where(field > 0, field - 1023, -1022 - lift)
    return (bits >> np.uint64(63)).astype(bool), left(significand, lift), exponent


def cut(significand: Words, dropped: Integers) -> tuple[Words, Cut]:
    """Split s into the integer above its `dropped` (>= 0) last bits and what they are."""
    first = np.where(dropped <= 64, left(significand, 64 - np.minimum(dropped, 64)), right(significand, dropped - 64))
    first = np.where(dropped == 0, np.uint64(0), first)
    rest = (dropped > 64) & (left(right(significand, dropped - 64), dropped - 64) != significand)
    rest |= (dropped > 127) & (significand != 0)
    return right(significand, dropped), Cut(first, rest)


def goes_up(mode: str, v: Cut, odd: Flags, negative: Flags, random: Words | None = None) -> Flags:
    """Return where |x| is rounded to the next integer, away from zero.

    Args:
        mode: rne, rna, rnz, rz, ru, rd, odd, or sr, sr:N, sr:N:a|b|c. odd: parity of the integer below.
        random: the 64-bit words of sr, the first N bits of which are R.
    """
    inexact = (v.first != 0) | v.rest
    above, tie = (v.first > HALF) | ((v.first == HALF) & v.rest), (v.first == HALF) & ~v.rest
    if not mode.startswith("sr"):
        return {
            "rne": above | (tie & odd),
            "rna": above | tie,
            "rnz": above,
            "rz": np.zeros(odd.shape, bool),
            "ru": inexact & ~negative,
            "rd": inexact & negative,
            "odd": inexact & ~odd,
        }[mode]
    assert random is not None
    _, n, variant = [*mode.split(":"), "", ""][:3] if mode != "sr" else ("", "64", "a")
    count = int(n)
    r = random >> np.uint64(64 - count)
    most = np.uint64((1 << count) - 1)
    if variant == "b":  # f + 2R + 1 >= 2^(N+1), written so that nothing passes 2^64
        finer = v.first >> np.uint64(63 - count)
        return inexact & (2 * r + ONE > np.uint64((1 << (count + 1)) - 1) - finer)
    scaled = v.first >> np.uint64(64 - count)
    if variant == "c":
        below = v.first << np.uint64(count)
        scaled = scaled + ((below > HALF) | ((below == HALF) & (v.rest | (scaled & ONE == 1)))).astype(np.uint64)
        return inexact & (scaled > most - r)
    return inexact & (r > most - scaled)


def philox_words(seed: int, first: int, count: int) -> Words:
    """Return the first 64 bits of Philox4x32-10 for the key (seed, 0) and the counters (index, 0, 0), index 64 bits."""
    return philox((seed, 0), np.arange(first, first + count, dtype=np.uint64), 0, 0)[0]


def philox(key: tuple[int, int], index: Words, c2: int, c3: int) -> tuple[Words, Words]:
    """Return the two 64-bit halves of the output of each counter (low index, high index, c2, c3)."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    a, b = index & mask, index >> half
    c, d = np.full(index.shape, c2, np.uint64), np.full(index.shape, c3, np.uint64)
    k0, k1 = key
    for _ in range(10):
        x, y = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
        a, b, c, d = (y >> half) ^ b ^ np.uint64(k0), y & mask, (x >> half) ^ d ^ np.uint64(k1), x & mask
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return a << half | b, c << half | d
