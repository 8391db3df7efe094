"""Floating-point formats and what one rounding into them does, by a table of this checker's own.

(C1) |R(x) - x| <= u |x| + eta while |x| is at most the largest value, and |R(x)| is then so too; u = 2**-p to nearest,
2**(1 - p) in other modes; eta is half the smallest subnormal, all of it in other modes, and the smallest normal where
subnormals are flushed (IEEE 754-2019, sections 4.3 and 7.5). To nearest u / (1 + u) will do for u, as a value that is
off by half an ulp lies above the power of two by as much; proofs call that t, and t = u in other modes.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass

from flint import arb

from .balls import INF, ZERO, power
from .document import NoRule

_NEAREST = ("rne", "rna", "rnz")
_ROUNDINGS = (*_NEAREST, "rz", "ru", "rd", "odd")
_OVERFLOWS = ("ieee", "sat", "satprop", "nan")
# Exponent bits, fraction bits, dialect.
_NAMED = {
    "fp64": (11, 52, "ieee"), "fp32": (8, 23, "ieee"), "fp16": (5, 10, "ieee"), "bf16": (8, 7, "ieee"),
    "tf32": (8, 10, "ieee"), "fp8_e4m3": (4, 3, "fn"), "fp8_e5m2": (5, 2, "ieee"), "fp8_e3m4": (3, 4, "ieee"),
    "fp6_e3m2": (3, 2, "finite"), "fp6_e2m3": (2, 3, "finite"), "fp4_e2m1": (2, 1, "finite"),
}  # fmt: skip
_BEYOND = {"ieee": "ieee", "fn": "nan", "finite": "sat"}  # what becomes of what is too large
_AMBIGUOUS = ("e4m3", "e3m2", "e2m3", "e2m1")  # vendors disagree on these without a dialect


@dataclass(frozen=True)
class Format:
    """A binary floating-point format.

    Args:
        precision: significand bits with the hidden one. least: exponent of the smallest normal. largest: finite value.
        flushes: whether there are no subnormals. overflow: what happens to what is too large, by default.
    """

    precision: int
    least: int
    largest: float
    flushes: bool
    overflow: str

    @property
    def smallest(self) -> arb:
        """Smallest positive value."""
        return power(self.least if self.flushes else self.least - self.precision + 1)

    @property
    def float32_holds(self) -> bool:
        """Whether every value is one of IEEE 754's binary32."""
        return self.precision <= 24 and self.largest < 2.0**128 and bool(self.smallest >= power(-149))


@dataclass(frozen=True)
class Rounding:
    """(C1) of a rounding.

    Args:
        bits: u is 2**-bits. eta: of underflow. largest: value up to which nothing overflows. nearest: whether it rounds
            to nearest.
    """

    bits: int
    eta: arb
    largest: arb
    nearest: bool = True

    @functools.cached_property
    def u(self) -> arb:
        """Largest relative error without underflow."""
        return power(-self.bits)

    def off(self, size: arb) -> arb:
        """Return the error of rounding a value of at most this magnitude; infinite if it may overflow."""
        return size * self.u + self.eta if size <= self.largest else INF


@dataclass(frozen=True)
class Use:
    """A format with a rounding and an overflow mode."""

    format: Format
    rounding: str
    overflow: str

    @property
    def nearest(self) -> bool:
        """Whether it rounds to nearest."""
        return self.rounding in _NEAREST

    def rounded(self, precision: int | None) -> Rounding:
        """Return its rounding; with a precision the one of so many bits and any exponent."""
        bits = (self.format.precision if precision is None else precision) - (not self.nearest)
        if precision is not None:
            return Rounding(bits, ZERO, INF, self.nearest)
        eta = self.format.smallest
        if self.nearest and not self.format.flushes:
            eta = eta / 2
        return Rounding(bits, eta, arb(self.format.largest), self.nearest)

    def error_of(self, x: float) -> arb | None:
        """Return |R(x) - x|, exactly, infinite where R(x) is not finite; None of a rounding by chance."""
        if self.rounding not in _ROUNDINGS:
            return None
        if x == 0:
            return ZERO
        own = self.format
        least = own.least - (1 if own.flushes else 0)
        value = _kept(x, max(math.frexp(x)[1] - 1, least) - own.precision + 1, self.rounding)
        if own.flushes and abs(value) < power(own.least):
            value = ZERO
        if abs(value) > own.largest:
            inwards = self.rounding in ("rz", "rd" if x > 0 else "ru")
            if self.overflow not in ("sat", "satprop") and not (self.overflow == "ieee" and inwards):
                return INF
            value = arb(math.copysign(own.largest, x))
        return abs(value - arb(x))


def _kept(x: float, last: int, rounding: str) -> arb:
    """Return x rounded to a multiple of 2**last, by its significand as an integer."""
    mantissa, exponent = math.frexp(abs(x))
    integer, shift = int(math.ldexp(mantissa, 53)), last - (exponent - 53)
    if shift <= 0:
        return arb(x)
    whole, rest = integer >> shift, integer & ((1 << shift) - 1)
    half = 1 << (shift - 1)
    up = {
        "rne": rest > half or (rest == half and whole & 1), "rna": rest >= half, "rnz": rest > half, "rz": False,
        "ru": rest > 0 and x > 0, "rd": rest > 0 and x < 0, "odd": rest > 0 and not whole & 1,
    }[rounding]  # fmt: skip
    found = arb(whole + bool(up)) * power(last)
    return found if x > 0 else -found


def nearest_error(x: float, bits: int) -> arb:
    """Return by how much x changes when it is rounded to so many significand bits, to nearest, with any exponent."""
    return ZERO if x == 0 else abs(_kept(x, math.frexp(x)[1] - bits, "rne") - arb(x))


@functools.cache
def use(text: str) -> Use:
    """Read `format[/rounding][/overflow]`; Fault of what is not in the table."""
    name, *modes = text.strip().split("/")
    found = _format(name, text)
    rounding, overflow = "rne", found.overflow
    for mode in modes:
        if mode in _ROUNDINGS or re.fullmatch("sr(:[1-9][0-9]?)?", mode):
            rounding = mode
        elif mode in _OVERFLOWS:
            overflow = mode
        else:
            raise NoRule(f"{text}: {mode} is no rounding or overflow mode that this checker has a rule for")
    return Use(found, rounding, overflow)


def _format(name: str, text: str) -> Format:
    base, *modifiers = name.split(":")
    match = re.fullmatch("e([1-9][0-9]?)m([1-9][0-9]?)", base)
    known = base in _NAMED or (match is not None and (base not in _AMBIGUOUS or "ieee" in modifiers))
    if not known or any(modifier not in ("ieee", "ftz") for modifier in modifiers):
        raise NoRule(f"{text}: the format {name} is none that this checker has a rule for")
    exponent_bits, fraction_bits, dialect = (
        _NAMED[base] if base in _NAMED or match is None else (int(match[1]), int(match[2]), "ieee")
    )
    if "ieee" in modifiers:
        dialect = "ieee"
    if not (2 <= exponent_bits <= 11 and 1 <= fraction_bits <= 52):
        raise NoRule(f"{text}: the format {name} is none that this checker has a rule for")
    bias = 2 ** (exponent_bits - 1) - 1
    top = 2**exponent_bits - 1 - bias - (dialect == "ieee")
    significand = 2.0 - 2.0**-fraction_bits * (2 if dialect == "fn" else 1)
    largest = math.ldexp(significand, top)
    return Format(fraction_bits + 1, 1 - bias, largest, "ftz" in modifiers, _BEYOND[dialect])
