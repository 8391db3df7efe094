"""Accumulators as immutable values: what happens between the products and the output.

Each record owns the order in which the products are taken, the state kept for each output and every rounding on the
way. Their exact meaning is `reference/`; here they are only data, with a string form that `grammar.py` reads back.
They compose: where a record holds others, these take products (or values) in runs or by turns, and hand on values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from formats import FixedFormat, Use
from formats.rounding import parse_rounding

MAX_PRODUCTS = 4096  # that one step, one group of a tree or one round of lanes takes together
ALIGN_ROUNDINGS = ("rz", "rd", "rne")
ORDERS = ("ascending", "two_of_four")


def _whole(what: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        last = "2**63 - 1" if most == (1 << 63) - 1 else most
        raise ValueError(f"{what}: got {value!r}; expected a whole number from {least} to {last}; give one")


@dataclass(frozen=True)
class Fma:
    """Fused multiply-add: s = R(s + a*b), one rounding of the exact value; of s and `products` products at a time."""

    sum: Use
    products: int = 1

    def __post_init__(self) -> None:
        _whole("fma: the number of products of a step", self.products, 1, MAX_PRODUCTS)

    def __str__(self) -> str:
        return f"fma({self.sum})" if self.products == 1 else f"fma({self.sum}, {self.products})"


@dataclass(frozen=True)
class Seq:
    """Separate multiply and add: t = R_product(a*b), then s = R_sum(s + t)."""

    product: Use
    sum: Use

    def __str__(self) -> str:
        return f"seq({self.sum})" if self.product == self.sum else f"seq({self.product}, {self.sum})"


@dataclass(frozen=True)
class Tree:
    """Level by level, neighbours in groups of `radix`: the exact sum of a group, rounded once.

    A single element at the end of a level goes up unchanged. Leaves are the products, rounded, or exact.
    An addend joins at the end.
    """

    sum: Use
    radix: int = 2
    leaves: str = "rounded"

    def __post_init__(self) -> None:
        _whole("tree: the radix", self.radix, 2, MAX_PRODUCTS)
        if self.leaves not in ("rounded", "exact"):
            raise ValueError(f"tree: leaves: got {self.leaves!r}; expected rounded or exact; give one of them")

    def __str__(self) -> str:
        radix = f", {self.radix}" if self.radix != 2 else ""
        return f"tree({self.sum}{radix}{', leaves=exact' if self.leaves == 'exact' else ''})"


@dataclass(frozen=True)
class Interleave:
    """Lane l of `ways` runs `inner` over the products k = l modulo `ways`, from +0; `join` adds lanes 0, 1, ..."""

    ways: int
    inner: Accumulator
    join: Accumulator

    def __post_init__(self) -> None:
        _whole("interleave: the number of lanes", self.ways, 1, MAX_PRODUCTS)
        _refuse_late("interleave", self.inner, self.join)
        _refuse_reverse("interleave", self.join)

    def __str__(self) -> str:
        return f"interleave({self.ways}, {self.inner}, {self.join})"


@dataclass(frozen=True)
class Chunk:
    """Runs of `length` products each go through `inner` from +0; `outer` adds their results in order.

    A result is a value, not a product: a Seq that receives one skips its product rounding.
    """

    length: int
    inner: Accumulator
    outer: Accumulator

    def __post_init__(self) -> None:
        _whole("chunk: the length of a run", self.length, 1, (1 << 63) - 1)
        _refuse_late("chunk", self.inner, self.outer)
        _refuse_reverse("chunk", self.outer)

    def __str__(self) -> str:
        return f"chunk({self.length}, {self.inner}, {self.outer})"


@dataclass(frozen=True)
class Reverse:
    """Runs of `length` products (the last may be short) enter `inner` backwards; no rounding, only the order."""

    length: int
    inner: Accumulator

    def __post_init__(self) -> None:
        _whole("reverse: the length of a run", self.length, 1, (1 << 63) - 1)
        _refuse_late("reverse", self.inner)

    def __str__(self) -> str:
        return f"reverse({self.length}, {self.inner})"


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
class Kahan:
    """Compensated summation: t = R(a*b); y = R(t - e); z = R(s + y); e = R(R(z - s) - y); s = z (Kahan, 1965)."""

    sum: Use

    def __str__(self) -> str:
        return f"kahan({self.sum})"


@dataclass(frozen=True)
class Neumaier:
    """Improved Kahan-Babuska: t = R(a*b); z = R(s + t); e = R(e + R(R(larger - z) + smaller)); s = z; in the end
    R(s + e). Larger and smaller by magnitude of s and t, s where they are equal (Neumaier, 1974)."""

    sum: Use

    def __str__(self) -> str:
        return f"neumaier({self.sum})"


@dataclass(frozen=True)
class Aligned:
    """The aligned-truncated step of tensor cores: terms are cut at a common last bit, then added as integers.

    A step takes the state c and n products (what is missing at the end is filled with zeros). The exponent of a product
    is the sum of its operands' exponents, each at least that of the smallest normal of its operand format; of the state
    it is at least -126. E is the largest of all of them and of `e_min`; every term is rounded by `align` to a multiple
    of 2^(E - frac), their sum is exact, and `out` rounds it once. A sum beyond the largest value of `out` becomes what
    an infinity becomes; a zero sum is +0. Source: Khattak and Mikaitis, Accurate Models of NVIDIA Tensor Cores.

    Args:
        n: products a step. frac: F, bits below 2^E that terms keep. out: format and rounding of the state.
        c: "early", it is one of the terms; "late", it is added to the sum of the products, then `out` rounds once.
        align: rz, rd or rne. e_min: floor of E, or None.
        zero: "drop", zero products have no exponent; "keep", they have that of their operands, zero that of a smallest
            normal. order: "ascending", or "two_of_four": of 2n products first those with k mod 4 < 2, then the others.
        group: so many products are summed exactly and are one term, whose exponent is that of the sum.
        parts: 2 aligns products of even and of odd k apart; sums of parts (and c, which is late) are then aligned anew.
        part_frac: where there are two parts, bits below the larger of their exponents that their sums keep when they
            join, rounded down; None keeps all.
        sum_frac, c_frac: where c is late, bits below the largest exponent that the sums, and c, keep, rounded down;
            None keeps all. c_reach: c is dropped if its exponent is more than so many below that of the products.
    """

    n: int
    frac: int
    out: Use
    c: str = "early"
    align: str = "rz"
    e_min: int | None = None
    zero: str = "drop"
    order: str = "ascending"
    group: int = 1
    parts: int = 1
    part_frac: int | None = None
    sum_frac: int | None = None
    c_frac: int | None = None
    c_reach: int | None = None

    def __post_init__(self) -> None:
        _whole("aligned: n, the products of a step", self.n, 1, 1024)
        _whole("aligned: frac", self.frac, 1, 60)
        _choice("c", self.c, ("early", "late"))
        _choice("align", self.align, ALIGN_ROUNDINGS)
        _choice("zero", self.zero, ("drop", "keep"))
        _choice("order", self.order, ORDERS)
        _whole("aligned: group", self.group, 1, self.n)
        if self.n % self.group:
            raise ValueError(f"aligned: groups of {self.group} do not divide steps of n={self.n}")
        _whole("aligned: parts", self.parts, 1, 2)
        for name, most in (("e_min", 1023), ("part_frac", 48), ("sum_frac", 48), ("c_frac", 48), ("c_reach", 1000)):
            if getattr(self, name) is not None:
                _whole(f"aligned: {name}", getattr(self, name), -1100 if name == "e_min" else 1, most)
        if self.c == "early" and (self.parts, self.sum_frac, self.c_frac, self.c_reach) != (1, None, None, None):
            raise ValueError("aligned: parts, sum_frac, c_frac and c_reach are for c=late")
        if self.part_frac is not None and self.parts == 1:
            raise ValueError("aligned: part_frac is for parts=2")
        if self.group > 1 and (self.parts > 1 or self.order != "ascending"):
            raise ValueError("aligned: groups of products are for one part in ascending order")

    @property
    def sum(self) -> Use:
        """Use of the state."""
        return self.out

    def __str__(self) -> str:
        shown = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        return f"aligned({', '.join(f'{name}={getattr(self, name)}' for name in shown)})"


@dataclass(frozen=True)
class Exact:
    """The addend and all products as one real number, rounded once at the end; order does not exist.

    Kulisch accumulator, quire, P3109 BlockDotProduct.
    """

    sum: Use

    def __str__(self) -> str:
        return f"exact({self.sum})"


@dataclass(frozen=True)
class Fixed:
    """Fixed point: t = a*b rounded to a multiple of 2^-frac, then the integer sum s + t of `bits` bits.

    Args:
        bits, frac: width with sign, and how many of them lie behind the point.
        mode: "wrap", modulo 2^bits; "sat", clamped after every step; "track", a state of 53 bits instead, and steps
            that leave the range of `bits` bits count as overflows.
        rounding: of the products.
    """

    bits: int
    frac: int
    mode: str
    rounding: str = "rne"

    def __post_init__(self) -> None:
        _whole("fixed: bits", self.bits, 2, 53)
        _whole("fixed: frac", self.frac, 0, 1074)
        if self.mode not in ("wrap", "sat", "track"):
            raise ValueError(f"fixed: mode: got {self.mode!r}; expected wrap, sat or track; give one of them")
        object.__setattr__(self, "rounding", str(parse_rounding(self.rounding)))

    @property
    def sum(self) -> Use:
        """Use of the state; of `track` the widest that float64 holds."""
        bits = 53 if self.mode == "track" else self.bits
        name = f"fix{bits}.{self.frac}" if self.frac else f"int{bits}"
        return Use(FixedFormat(name, bits, self.frac), self.rounding, "wrap" if self.mode == "wrap" else "sat")

    @property
    def range(self) -> FixedFormat:
        """The format that the steps of `track` are judged by."""
        return FixedFormat(f"fix{self.bits}.{self.frac}", self.bits, self.frac)

    def __str__(self) -> str:
        rounding = "" if self.rounding == "rne" else f", {self.rounding}"
        return f"fixed({self.bits}, {self.frac}, {self.mode}{rounding})"


Accumulator = Fma | Seq | Tree | Interleave | Chunk | Reverse | Late | Kahan | Neumaier | Aligned | Exact | Fixed


def _choice(name: str, value: str, expected: tuple[str, ...]) -> None:
    if value not in expected:
        raise ValueError(f"aligned: {name}: got {value!r}; expected {' or '.join(expected)}; give one of them")


def _refuse_late(name: str, *parts: Accumulator) -> None:
    if any(isinstance(part, Late) for part in parts):
        raise ValueError(f"{name}: write late({name}(...)); the addend joins the whole accumulation, not a part of it")


def _refuse_reverse(name: str, part: Accumulator) -> None:
    if any(isinstance(inside, Reverse) for inside in walk(part)):
        raise ValueError(f"{name}: reverse is for products; write it around or inside what takes them, not in {part}")


def parts(accumulator: Accumulator) -> tuple[Accumulator, ...]:
    """Return the accumulators that one is composed of: first what takes the products, last what holds the result."""
    match accumulator:
        case Chunk():
            return accumulator.inner, accumulator.outer
        case Interleave():
            return accumulator.inner, accumulator.join
        case Late() | Reverse():
            return (accumulator.inner,)
    return ()


def walk(accumulator: Accumulator) -> Iterator[Accumulator]:
    """Yield an accumulator and all that it is composed of, each before its parts."""
    yield accumulator
    for part in parts(accumulator):
        yield from walk(part)


def numbered(accumulator: Accumulator) -> list[Accumulator]:
    """Return the parts that have a number, in that order: all but Reverse, which rounds nothing, so draws no words."""
    return [part for part in walk(accumulator) if not isinstance(part, Reverse)]


def outermost(accumulator: Accumulator) -> Accumulator:
    """Return what holds the final state."""
    while inside := parts(accumulator):
        accumulator = inside[-1]
    return accumulator


def innermost(accumulator: Accumulator) -> Accumulator:
    """Return what takes the products."""
    while inside := parts(accumulator):
        accumulator = inside[0]
    return accumulator


def without_late(accumulator: Accumulator) -> Accumulator:
    """Return what a Late accumulates in, and any other accumulator as it is."""
    return accumulator.inner if isinstance(accumulator, Late) else accumulator


def joins_late(accumulator: Accumulator) -> bool:
    """Whether an addend is added to the result instead of starting the state."""
    return isinstance(accumulator, Late) or isinstance(outermost(accumulator), Tree)


def result_use(accumulator: Accumulator) -> Use:
    """Return the use in which the final state is held: the output, unless the MAC names another."""
    final = outermost(accumulator)
    assert not isinstance(final, Chunk | Interleave | Reverse | Late)
    return final.sum


def uses(accumulator: Accumulator) -> tuple[Use, ...]:
    """Return every use in which something is rounded on the way, the last that of the final state."""
    found: list[Use] = []
    for part in walk(accumulator):
        if isinstance(part, Seq):
            found.append(part.product)
        if not isinstance(part, Chunk | Interleave | Reverse | Late):
            found.append(part.sum)
    return tuple(found)
