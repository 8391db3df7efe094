"""Posits and takums by the bits of their strings, in 64-bit integers, for whole arrays and any width up to 33 bits.

Posit (Standard for Posit Arithmetic, 2022, section 3): after the sign a run of equal bits, the opposite bit, es
exponent bits, the fraction. Takum (arXiv 2404.18603, definition 2): after the sign the direction D, three bits R, the
characteristic of r bits (r = R if D else 7 - R), the fraction. The first n - 1 bits of the string of |x| are its code
toward zero; the rest is what is rounded.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from .integers import ALL, Cut, Floats, Integers, Words, cut, goes_up, left, parts, right

ONE = np.uint64(1)


class TaperedRules(ABC):
    """What both have in common: rounding the string, never to zero, and the two's complement."""

    n: int

    def quantized(self, x: Floats, mode: str, overflow: str, random: Words | None = None) -> Floats:
        finite = np.isfinite(x) & (x != 0)
        negative, significand, exponent = parts(np.where(finite, x, 1.0))
        code, v, past = self.string(significand - np.uint64(1 << 52), exponent)
        up = goes_up(mode, v, code & ONE == 1, negative, random)
        code = np.maximum(code + up, 1)
        top = np.uint64((1 << (self.n - 1)) - 1)
        y = self.decoded(np.minimum(code, top))
        if overflow in ("ieee", "nan"):
            y = np.where((code > top) | past, math.nan, y)
        y = np.where(negative, -y, y)
        return np.where(finite, y, np.where(x == 0, 0.0, math.nan))

    @abstractmethod
    def string(self, fraction: Words, exponent: Integers):
        """Return the first n - 1 bits of a string, what follows them, and where x lies beyond every string."""

    @abstractmethod
    def decoded(self, code: Words) -> Floats:
        """Return the values of positive codes."""

    @abstractmethod
    def wider(self) -> TaperedRules:
        """The format of one bit more, whose odd codes are the boundaries."""

    def values(self) -> Floats:
        """All values, ascending."""
        positive = self.decoded(np.arange(1, 1 << (self.n - 1), dtype=np.uint64))
        return np.concatenate([-positive[::-1], [0.0], positive])

    def ties(self, x: Floats) -> Floats:
        """Return, for each x other than zero, the boundary above the code of its magnitude, with its sign."""
        x = np.where(np.isfinite(x) & (x != 0), x, 1.0)
        negative, significand, exponent = parts(x)
        code, _, _ = self.string(significand - np.uint64(1 << 52), exponent)
        code = np.clip(code, 1, max((1 << (self.n - 1)) - 2, 1))
        return self.wider().decoded(2 * code + ONE) * np.where(negative, -1, 1)


@dataclass(frozen=True)
class PositRules(TaperedRules):
    n: int
    es: int

    def wider(self) -> TaperedRules:
        return PositRules(self.n + 1, self.es)

    def string(self, fraction: Words, exponent: Integers):
        room = self.n - 1
        regime, field = exponent >> self.es, exponent & ((1 << self.es) - 1)
        body, width = field.astype(np.uint64) << np.uint64(52) | fraction, 52 + self.es
        ones = regime >= 0
        run = np.where(ones, regime + 1, -regime)
        # The run and the bit that ends it fit: the rest of the room goes to the body.
        kept = np.clip(room - run - 1, 0, None)
        prefix = np.where(ones, left(np.full(run.shape, 2, np.uint64), run) - np.uint64(2), ONE)
        code, v = cut(body, width - kept)
        code = left(prefix, kept) | code
        # They do not: the code is all ones or all zeros, and what follows begins with the rest of the run.
        extra = run - room
        long = extra >= 0
        more = np.where(ones, ~right(np.full(run.shape, ALL), extra), np.uint64(0))
        more |= np.where(ones, np.uint64(0), right(np.full(run.shape, 1 << 63, np.uint64), extra))
        shift = 63 - extra - width
        more |= np.where(shift >= 0, left(body, shift), right(body, -shift))
        lost = (shift < 0) & (left(right(body, -shift), -shift) != body)
        rest = lost | (extra > 64) | ((extra == 64) & (~ones | (body != 0)))
        code = np.where(long, np.where(ones, np.uint64((1 << room) - 1), np.uint64(0)), code)
        return code, Cut(np.where(long, more, v.first), np.where(long, rest, v.rest)), np.zeros(run.shape, bool)

    def decoded(self, code: Words) -> Floats:
        room = self.n - 1
        bits = code << np.uint64(64 - room)
        ones = bits >> np.uint64(63) == 1
        run = np.minimum(leading_zeros(np.where(ones, ~bits, bits)), room)
        regime = np.where(ones, run - 1, -run)
        rest = left(bits, run + 1)
        field = right(rest, np.full(run.shape, 64 - self.es)).astype(np.int64)
        fraction = left(rest, np.full(run.shape, self.es)) >> np.uint64(12)
        return np.ldexp((fraction | np.uint64(1 << 52)).astype(np.float64), regime * (1 << self.es) + field - 52)


@dataclass(frozen=True)
class TakumRules(TaperedRules):
    n: int

    def wider(self) -> TaperedRules:
        return TakumRules(self.n + 1)

    def string(self, fraction: Words, exponent: Integers):
        room = self.n - 1
        c = np.clip(exponent, -255, 254)
        direct = c >= 0
        size = np.where(direct, c + 1, -c)  # from 2**r to 2**(r + 1) - 1
        r = np.frexp(size.astype(np.float64))[1].astype(np.int64) - 1
        characteristic = np.where(direct, c + 1 - (1 << r), c - 1 + (2 << r))
        header = np.where(direct, 8 | r, 7 - r).astype(np.uint64)
        string = left(left(header, r) | characteristic.astype(np.uint64), np.full(r.shape, 52)) | fraction
        code, v = cut(string, 4 + r + 52 - room)
        # Smaller numbers are in front of every string, larger ones behind: nothing is left to be rounded.
        below, past = exponent < -255, exponent > 254
        code = np.where(below, 0, np.where(past, np.uint64((1 << room) - 1), code))
        outside = below | past
        return code, Cut(np.where(outside, np.uint64(0), v.first), v.rest & ~outside), past

    def decoded(self, code: Words) -> Floats:
        bits = code << np.uint64(64 - (self.n - 1))
        direct = bits >> np.uint64(63) == 1
        regime = ((bits >> np.uint64(60)) & np.uint64(7)).astype(np.int64)
        r = np.where(direct, regime, 7 - regime)
        characteristic = right(bits << np.uint64(4), 64 - r).astype(np.int64)
        c = characteristic + np.where(direct, (1 << r) - 1, 1 - (2 << r))
        fraction = left(bits, 4 + r) >> np.uint64(12)
        return np.ldexp((fraction | np.uint64(1 << 52)).astype(np.float64), c - 52)


def leading_zeros(x: Words) -> Integers:
    """Number of zeros above the first one, 64 for zero."""
    high, low = x >> np.uint64(32), x & np.uint64(0xFFFFFFFF)  # each exact in float64
    length = np.where(high != 0, 32 + np.frexp(high.astype(np.float64))[1], np.frexp(low.astype(np.float64))[1])
    return 64 - length.astype(np.int64)
