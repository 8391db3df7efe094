"""Floats, fixed point and codebooks by integers: what names mean, written down from the standards once more."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .integers import Cut, Flags, Floats, Words, cut, goes_up, left, parts


@dataclass(frozen=True)
class FloatRules:
    """A float format.

    Args:
        precision: p, the hidden bit included. bias: B. top: code of the largest magnitude.
        kind: "ieee" or a key of RESERVED. flush: whether results below the smallest normal become zero.
    """

    precision: int
    bias: int
    top: int
    kind: str
    flush: bool = False

    @property
    def signed(self) -> bool:
        return self.kind not in ("ue", "uf", "scale", "ufn")

    @property
    def has_inf(self) -> bool:
        return self.kind in ("ieee", "se", "ue")

    @property
    def has_nan(self) -> bool:
        return self.kind != "finite" and not (self.kind == "ieee" and self.precision == 1)

    @property
    def negative_zero(self) -> bool:
        return self.kind in ("ieee", "fn", "finite", "dlfloat")

    @property
    def emin(self) -> int:
        """Exponent of the first binade with full precision; without subnormals it has the exponent field 0."""
        return (0 if self.kind in ("scale", "dlfloat") else 1) - self.bias

    @property
    def smallest(self) -> float:
        """Smallest positive value."""
        if self.kind == "dlfloat":  # the code of 2**emin is zero
            return math.ldexp(1 + 2.0 ** (1 - self.precision), self.emin)
        full = self.kind == "scale" or self.flush
        return math.ldexp(1.0, self.emin if full else self.emin - self.precision + 1)

    @property
    def largest(self) -> float:
        field, fraction = divmod(self.top, 1 << (self.precision - 1))
        if field == 0 and self.kind not in ("scale", "dlfloat"):
            return math.ldexp(fraction, 1 - self.bias - self.precision + 1)
        return math.ldexp((1 << (self.precision - 1)) + fraction, field - self.bias - self.precision + 1)

    @property
    def p3109(self) -> bool:
        return self.kind in ("se", "sf", "ue", "uf")

    def beyond(self, mode: str, overflow: str, negative: Flags) -> Floats:
        """What replaces magnitudes past the largest."""
        if overflow in ("sat", "satprop"):
            return np.full(negative.shape, self.largest)
        if overflow == "nan":
            return np.full(negative.shape, math.nan)
        inwards = np.array([mode == "rz" or mode == "rd", mode == "rz" or mode == "ru"])[negative.astype(int)]
        if self.has_inf:
            outside = self.largest if self.kind == "ue" and mode == "odd" else math.inf
        else:
            outside = self.largest if self.p3109 or not self.has_nan else math.nan
        return np.where(inwards, self.largest, outside)

    def infinity(self, overflow: str) -> float:
        """What replaces +Inf."""
        if overflow == "nan" or (overflow == "ieee" and not self.has_inf and self.has_nan and not self.p3109):
            return math.nan
        return math.inf if self.has_inf and overflow in ("ieee", "satprop") else self.largest

    def quantized(self, x: Floats, mode: str, overflow: str, random: Words | None = None) -> Floats:
        """Return what the definition makes of x, NaN included."""
        finite = np.isfinite(x)
        negative, significand, exponent = parts(np.where(finite, x, 0.0))
        # Whether a value is flushed is decided with all its bits, as if exponents went on below emin.
        quantum = np.maximum(exponent, self.emin - self.flush) - self.precision + 1
        below, v = cut(significand, quantum - exponent + 52)
        odd = below % np.uint64(2) == 1
        if self.precision == 1:  # the parity is that of the exponent's code, and zero is even
            odd = (below != 0) & ((quantum + self.bias) % 2 == 1)
        up = goes_up(mode, v, odd, negative, random)
        with np.errstate(over="ignore"):
            y = np.ldexp((below + up).astype(np.float64), quantum)
        if self.kind == "scale":
            y = np.maximum(y, self.smallest)
        elif self.kind == "dlfloat":
            gap = (np.abs(x) < self.smallest) & (x != 0)
            part = ratios(np.abs(x[gap]), np.zeros(gap.sum()), np.full(gap.sum(), self.smallest))
            words = None if random is None else random[gap]
            y[gap] = self.smallest * goes_up(mode, part, np.zeros(gap.sum(), bool), negative[gap], words)
        elif self.flush:
            y[y < self.smallest] = 0.0
        y = np.where(y > self.largest, self.beyond(mode, overflow, negative), y)
        y = np.where(np.isinf(x), self.infinity(overflow), y)
        y = np.where(negative | (x == -math.inf), -y, y)
        if not self.signed:
            least = self.smallest if self.kind == "scale" else 0.0
            inside = overflow in ("sat", "satprop")
            below = (x < 0) & (y != 0)  # once rounded: what rounds to zero lies in the range
            y = np.where(below, least if inside or (overflow == "ieee" and mode in ("rz", "ru")) else math.nan, y)
            y = np.where(x == -math.inf, least if inside else math.nan, y)
        if self.kind == "scale":
            y = np.where(x == 0, self.smallest if overflow in ("sat", "satprop") else math.nan, y)
        elif not self.negative_zero:
            y = np.where(y == 0, 0.0, y)
        return np.where(np.isnan(x), math.nan, y)

    def values(self) -> Floats:
        """All finite values, ascending, zero once."""
        codes = np.arange(1, self.top + 1)
        field, fraction = np.divmod(codes, 1 << (self.precision - 1))
        normal = (field > 0) | (self.kind in ("scale", "dlfloat"))
        significand = np.where(normal, (1 << (self.precision - 1)) + fraction, fraction).astype(np.float64)
        magnitudes = np.ldexp(significand, np.where(normal, field, 1) - self.bias - self.precision + 1)
        if self.kind == "scale":
            return np.concatenate([[math.ldexp(1.0, -self.bias)], magnitudes])
        magnitudes = magnitudes[magnitudes >= self.smallest]
        return np.concatenate([-magnitudes[::-1] if self.signed else [], [0.0], magnitudes])

    def ties(self, x: Floats) -> Floats:
        """Return, for each x, a number half-way between two neighbours close to it."""
        negative, significand, exponent = parts(x)
        quantum = np.maximum(exponent, self.emin) - self.precision + 1
        below, _ = cut(significand, quantum - exponent + 52)
        # At p = 53 the half does not fit: there the value itself remains.
        with np.errstate(over="ignore"):
            return np.ldexp((2 * below + np.uint64(1)).astype(np.float64), quantum - 1) * np.where(negative, -1, 1)


# exponent bits, fraction bits, bias, kind: OCP FP8 1.0, OCP MX 1.0, IEEE 754-2019, the vendors' papers.
NAMED = {
    "fp64": (11, 52, 1023, "ieee"), "fp32": (8, 23, 127, "ieee"), "fp16": (5, 10, 15, "ieee"),
    "bf16": (8, 7, 127, "ieee"), "tf32": (8, 10, 127, "ieee"), "fp8_e4m3": (4, 3, 7, "fn"),
    "fp8_e5m2": (5, 2, 15, "ieee"), "fp8_e3m4": (3, 4, 3, "ieee"), "fp8_e4m3fnuz": (4, 3, 8, "fnuz"),
    "fp8_e5m2fnuz": (5, 2, 16, "fnuz"), "fp8_e4m3b11fnuz": (4, 3, 11, "fnuz"), "fp6_e3m2": (3, 2, 3, "finite"),
    "fp6_e2m3": (2, 3, 1, "finite"), "fp4_e2m1": (2, 1, 1, "finite"), "e8m0": (8, 0, 127, "scale"),
    "ue4m3": (4, 3, 7, "ufn"), "dlfloat16": (6, 9, 31, "dlfloat"), "e8m13": (8, 13, 127, "ieee"),
}  # fmt: skip

# kind -> number of the largest codes of magnitude that are no finite numbers; all of a binade for "ieee".
RESERVED = {
    "fn": 1, "fnuz": 0, "finite": 0, "se": 1, "sf": 0, "ue": 2, "uf": 1, "scale": 1, "ufn": 1, "dlfloat": 1,
}  # fmt: skip


def float_rules(name: str) -> FloatRules | None:
    """Return the rules of a name; None if it is none of a float."""
    base, *modifiers = name.split(":")
    p3109 = re.fullmatch(r"binary(\d+)p(\d+)([su][ef])", base)
    plain = re.fullmatch(r"e(\d+)m(\d+)", base)
    if base in NAMED:
        x, y, bias, kind = NAMED[base]
    elif p3109:
        k, p, kind = int(p3109[1]), int(p3109[2]), p3109[3]
        signed = kind[0] == "s"
        x, y, bias = k - p + (not signed), p - 1, 2 ** (k - p - 1) if signed and k > p else 2 ** (k - p)
    elif plain:
        x, y, kind = int(plain[1]), int(plain[2]), "ieee"
        for modifier in modifiers:
            kind = modifier if modifier in ("ieee", "fn", "fnuz", "finite") else kind
        bias = 2 ** (x - 1) - 1 + (kind == "fnuz")
    else:
        return None
    for modifier in modifiers:
        bias = int(modifier[1:]) if re.fullmatch(r"b-?\d+", modifier) else bias
    reserved = 1 << y if kind == "ieee" else RESERVED[kind]
    return FloatRules(y + 1, bias, (1 << (x + y)) - 1 - reserved, kind, "ftz" in modifiers)


@dataclass(frozen=True)
class FixedRules:
    """Multiples of 2**-fraction_bits in `bits` bits, two's complement if signed; no NaN, no infinities."""

    bits: int
    fraction_bits: int
    signed: bool

    def quantized(self, x: Floats, mode: str, overflow: str, random: Words | None = None) -> Floats:
        finite = np.isfinite(x)
        negative, significand, exponent = parts(np.where(finite, x, 0.0))
        dropped = 52 - exponent - self.fraction_bits
        below, v = cut(significand, np.maximum(dropped, 0))
        below = left(below, np.maximum(-dropped, 0)) + goes_up(mode, v, below % np.uint64(2) == 1, negative, random)
        first = -(1 << (self.bits - 1)) if self.signed else 0
        last = first + (1 << self.bits) - 1
        if overflow == "wrap":
            code = np.where(negative, -below.astype(np.uint64), below) & np.uint64((1 << self.bits) - 1)
            quanta = code.astype(np.int64)
            quanta = np.where(quanta > last, quanta - (1 << self.bits), quanta)
        else:
            far = (dropped < -10) & (significand != 0)  # at least 2**63 quanta
            quanta = np.where(far, np.int64(1 << 60), np.minimum(below, np.uint64(1 << 60)).astype(np.int64))
            quanta = np.clip(np.where(negative, -quanta, quanta), first, last)
        y = np.ldexp(quanta.astype(np.float64), -self.fraction_bits)
        ends = np.ldexp(np.array([first, last], np.float64), -self.fraction_bits)
        return np.where(np.isinf(x), np.where(x > 0, ends[1], ends[0]), y)

    def values(self) -> Floats:
        """All values, ascending."""
        first = -(1 << (self.bits - 1)) if self.signed else 0
        return np.ldexp(np.arange(first, first + (1 << self.bits), dtype=np.float64), -self.fraction_bits)

    def ties(self, x: Floats) -> Floats:
        """Return, for each x, a number half-way between two neighbours close to it."""
        limit = 2.0**50
        with np.errstate(over="ignore"):
            quanta = np.clip(np.floor(np.ldexp(x, self.fraction_bits)), -limit, limit)
        return np.ldexp(quanta + 0.5, -self.fraction_bits)


class CodebookRules:
    """A sorted list of values, a boundary between each two: its own or the exact mean."""

    def __init__(self, values: tuple[float, ...], boundaries: tuple[float, ...] | None = None) -> None:
        self.list = np.array(values)
        self.boundaries = None if boundaries is None else np.array(boundaries)
        self._last: tuple[object, Cut] | None = None  # the slow fractions of the latest array, for its other modes

    def quantized(self, x: Floats, mode: str, overflow: str, random: Words | None = None) -> Floats:
        low = np.clip(np.searchsorted(self.list, x, side="right") - 1, 0, self.list.size - 2)
        here, there = self.list[low], self.list[low + 1]
        positive, odd = x >= 0, low % 2 == 1
        if mode in ("rne", "rna", "rnz"):
            past, at = self._side(x, low, here, there)
            high = past | (at & {"rne": odd, "rna": positive, "rnz": ~positive}[mode])
        elif mode.startswith("sr"):
            inside = (x > here) & (x < there)
            near, far = np.where(positive, here, there)[inside], np.where(positive, there, here)[inside]
            v = ratios(
                np.abs(x[inside]), near * np.where(positive[inside], 1, -1), far * np.where(positive[inside], 1, -1)
            )
            high = np.zeros(x.shape, bool)
            words = None if random is None else random[inside]
            high[inside] = goes_up(mode, v, odd[inside], ~positive[inside], words) == positive[inside]
        else:
            high = {"rz": ~positive, "ru": np.ones(x.shape, bool), "rd": np.zeros(x.shape, bool), "odd": ~odd}[mode]
        return np.where(x <= here, here, np.where(x >= there, there, np.where(high, there, here)))

    def _side(self, x: Floats, low, here: Floats, there: Floats) -> tuple[Flags, Flags]:
        """Where x is past the boundary, and where on it."""
        if self.boundaries is not None:
            return x > self.boundaries[low], x == self.boundaries[low]
        # 2x against here + there: the sum rounded, then its error (Knuth's two-sum), all scaled so that none overflows.
        a, b, twice = here / 4, there / 4, x / 2
        exact = (a * 4 == here) & (b * 4 == there) & (twice * 2 == x)
        total = a + b
        error = (a - (total - (total - a))) + (b - (total - a))
        past, at = (twice > total) | ((twice == total) & (error < 0)), (twice == total) & (error == 0)
        for i in np.flatnonzero(~exact).tolist():  # subnormals that a division shortens
            difference = 2 * Fraction(float(x[i])) - Fraction(float(here[i])) - Fraction(float(there[i]))
            past[i], at[i] = difference > 0, difference == 0
        return past, at

    def values(self) -> Floats:
        """All values, ascending."""
        return self.list

    def ties(self, x: Floats) -> Floats:
        """Return, for each x, a boundary or the float64 next to it."""
        low = np.clip(np.searchsorted(self.list, x) - 1, 0, self.list.size - 2)
        return self.boundaries[low] if self.boundaries is not None else self.list[low] / 2 + self.list[low + 1] / 2


def ratios(x: Floats, near: Floats, far: Floats) -> Cut:
    """Return (x - near) / (far - near), which lies in [0, 1), from Python's integers. The slow part of the oracle."""
    first, rest = np.empty(x.size, np.uint64), np.empty(x.size, bool)
    for i, numbers in enumerate(zip(x.tolist(), near.tolist(), far.tolist(), strict=True)):
        ratio = [number.as_integer_ratio() for number in numbers]
        unit = max(denominator for _, denominator in ratio)
        at, low, high = (numerator * (unit // denominator) for numerator, denominator in ratio)
        quotient, remainder = divmod((at - low) << 64, high - low)
        first[i], rest[i] = quotient, bool(remainder)
    return Cut(first, rest)
