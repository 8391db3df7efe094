"""MAC units: read from their words, and what they make of a sum of products, whatever the values.

With computed factors, S the sum of the magnitudes of their exact products and c the addend, each model says
|result - (sum + c)| <= products * S + addend * |c| + floor, as long as S + |c| and that are at most `largest`: no state
is larger. With u and eta of (C1), u_p and eta_p of the products, N sums:

(C2) A value that is rounded h times is multiplied by as many factors 1 + x, |x| <= u: (1 + u)**h - 1, and what
     underflowed on the way by no more.
(C3) To nearest, any order: (N + 1) u, with products rounded to the same u, or exact; (1 + u_p)(1 + (N + 1) u) - 1 with
     others. Of (C2) and (C3) the smaller one counts, for products and addend each, as both are more than what is proved
     here for both at once: products = (1 + t_p)(1 + N t) - 1, addend = (1 + t)(1 + N t) - 1, its conversion included.
     Proof, by induction, that N sums one after the other are off by at most N t σ + N eta, σ the sum of the magnitudes
     of start and terms: let the state s be off by (m - 1) t σ + (m - 1) eta, and x be the next term; its rounding d
     must be at most t σ + m t |x| + eta. If |x| is at most that, then d <= |x|, as s itself was a candidate. Else
     (1 - m t) |x| > t σ + eta, and d <= t (|s| + |x|) + eta, where |s| <= σ + (m - 1)(t σ + eta) < σ + (m - 1) |x|.
     Where a subnormal is flushed s is no candidate; the flush ends a sum and begins another from 0, costs less than
     eta, and all of these are off by their own parts. In other orders: Jeannerod and Rump (SIAM J. Matrix Anal. Appl.
     34, 2013), on which torch's own products rest.
(C4) Runs within a sum: (1 + P)(1 + Q) - 1 of both, the floors of the runs through the outer sum.
(C5) Trees: (C2) of their depth. Exact sums: one rounding. Late addends: a rounding of c, and one of the result.
(C9) Aligned steps, whose addend is a term: each of at most n + 1 terms is cut at 2**(E - frac), off by at most that.
     2**E is at most the largest of the terms, or L: 2**-126 for the state, 2**e_min, and what the exponent of a factor
     that is subnormal or 0 stands for, a smallest normal times the other factor. With v the magnitudes of the terms in
     sum, cut = (n + 1) 2**-frac, one step is off by cut (v + L), and its rounding by u (v + cut (v + L)) + eta: both by
     q (v + L) + eta, q = (1 + cut)(1 + u) - 1. A state is at most T + D, T the sum of all magnitudes and D how far it
     is off; so D grows to at most (1 + q) D + q (T + L) + eta, in k steps to F (T + L) + k eta (1 + F) with F = (1 +
     q)**k - 1. The addend is rounded first, which adds u |c| + eta, both carried on.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

from flint import arb

from .balls import INF, ONE, ZERO, larger, power, smaller
from .document import Fault, NoRule
from .formats import Rounding, Use, use

Roundings = Callable[[Use], Rounding]


@dataclass(frozen=True)
class Fma:
    """s = R(s + the exact sum of `products` products)."""

    sum: Use
    products: int = 1


@dataclass(frozen=True)
class Seq:
    """t = R_product(a b), then s = R_sum(s + t)."""

    product: Use
    sum: Use


@dataclass(frozen=True)
class Tree:
    """Neighbours in groups of `radix`, each summed exactly and rounded, level by level."""

    sum: Use
    radix: int
    exact_leaves: bool


@dataclass(frozen=True)
class Interleave:
    """Lane l takes the products k = l modulo `ways`; `join` adds the lanes."""

    ways: int
    inner: Accumulator
    join: Accumulator


@dataclass(frozen=True)
class Chunk:
    """Runs of `length` products go through `inner`, their results through `outer`."""

    length: int
    inner: Accumulator
    outer: Accumulator


@dataclass(frozen=True)
class Reverse:
    """Runs of products enter `inner` backwards."""

    length: int
    inner: Accumulator


@dataclass(frozen=True)
class Late:
    """`inner` runs from 0; the addend joins its result."""

    inner: Accumulator


@dataclass(frozen=True)
class Aligned:
    """`products` products and the state are cut `frac` bits below the largest exponent, at least `least`, summed
    exactly, and rounded; `pairs`: steps come in pairs, each of which takes some products of both.
    """

    sum: Use
    products: int
    frac: int
    least: int | None
    pairs: bool


@dataclass(frozen=True)
class Exact:
    """The sum as a real number, rounded once."""

    sum: Use


Accumulator = Fma | Seq | Tree | Interleave | Chunk | Reverse | Late | Aligned | Exact


@dataclass(frozen=True)
class Mac:
    """A unit: the formats that operands are converted to, the accumulator, the format of the result if another one."""

    operands: tuple[Use, Use] | None
    accumulator: Accumulator
    output: Use | None

    @property
    def held(self) -> Use:
        """Format of the final state."""
        final = outermost(self.accumulator)
        assert isinstance(final, Fma | Seq | Tree | Aligned | Exact)
        return final.sum

    @property
    def result(self) -> Use:
        """Format of what comes out."""
        return self.output or self.held

    @property
    def joins_late(self) -> bool:
        """Whether an addend is added to the result."""
        return isinstance(self.accumulator, Late) or isinstance(outermost(self.accumulator), Tree)


def outermost(accumulator: Accumulator) -> Accumulator:
    """Return what holds the final state."""
    match accumulator:
        case Chunk():
            return outermost(accumulator.outer)
        case Interleave():
            return outermost(accumulator.join)
        case Reverse() | Late():
            return outermost(accumulator.inner)
    return accumulator


@functools.cache
def mac(text: str) -> Mac:
    """Read `[operands ->] accumulator [-> output]`; Fault of what this checker has no rule for."""
    parts = [part.strip() for part in text.split("->")]
    operands = None
    if len(parts) > 1 and "(" not in parts[0]:
        names = parts.pop(0).split("*")
        operands = use(names[0]), use(names[-1])
    output = use(parts.pop()) if len(parts) > 1 else None
    if len(parts) != 1 or parts[0].rfind("late(") > 0:
        raise Fault(f"{text} is no MAC unit")
    return Mac(operands, _accumulator(parts[0]), output)


def _accumulator(text: str) -> Accumulator:
    name, bracket, rest = text.strip().partition("(")
    if not bracket or not rest.endswith(")"):
        raise NoRule(f"{text}: the accumulator is none that this checker has a rule for")
    arguments = _split(rest[:-1])
    match name, arguments:
        case "fma", [one]:
            return Fma(use(one))
        case "fma", [one, products]:
            return Fma(use(one), _whole(products, text))
        case "seq", [one]:
            return Seq(use(one), use(one))
        case "seq", [product, total]:
            return Seq(use(product), use(total))
        case "tree", [one, *settings] if len(settings) <= 2:
            exact = "leaves=exact" in settings
            radix = [setting for setting in settings if setting != "leaves=exact"] or ["2"]
            return Tree(use(one), _whole(radix[0], text), exact)
        case "interleave", [ways, inner, join]:
            return Interleave(_whole(ways, text), _accumulator(inner), _accumulator(join))
        case "chunk", [length, inner, outer]:
            return Chunk(_whole(length, text), _accumulator(inner), _accumulator(outer))
        case "reverse", [length, inner]:
            return Reverse(_whole(length, text), _accumulator(inner))
        case "late", [inner]:
            return Late(_accumulator(inner))
        case "exact", [one]:
            return Exact(use(one))
        case "aligned", _:
            return _aligned(arguments, text)
    raise NoRule(f"{text}: the accumulator {name} is none that this checker has a rule for")


_ALIGNED = {  # settings, and which ones change nothing in (C9)
    "n": "[1-9][0-9]*", "frac": "[1-9][0-9]*", "out": ".*", "e_min": "-?[0-9]+", "order": "ascending|two_of_four",
    "c": "early", "align": "rz|rd|rne", "zero": "drop|keep", "group": "[1-9][0-9]*",
}  # fmt: skip


def _aligned(arguments: list[str], text: str) -> Aligned:
    found = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name in found or not re.fullmatch(_ALIGNED.get(name, "(?!)"), value):
            raise NoRule(f"{text}: {argument} is no setting of aligned steps that this checker has a rule for")
        found[name] = value
    if not {"n", "frac", "out"} <= found.keys():
        raise Fault(f"{text}: got {', '.join(found)}; expected n, frac and out of aligned steps")
    least = int(found["e_min"]) if "e_min" in found else None
    pairs = found.get("order") == "two_of_four"
    return Aligned(use(found["out"]), int(found["n"]), int(found["frac"]), least, pairs)


def _split(text: str) -> list[str]:
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _whole(text: str, where: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise Fault(f"{where}: got {text}; expected a whole number above 0")
    return int(text)


@dataclass(frozen=True)
class Model:
    """A bound of a sum, see above; `results` are the roundings of the result that follow."""

    products: arb
    addend: arb
    floor: arb
    largest: arb
    results: tuple[Rounding, ...] = ()


def model(unit: Mac, products: int, roundings: Roundings, least: arb = ZERO) -> Model:
    """Return the model of a unit for sums of so many products.

    Args:
        least: of L in (C9) what the factors have in it.
    """
    accumulator = unit.accumulator.inner if isinstance(unit.accumulator, Late) else unit.accumulator
    results: tuple[Rounding, ...] = ()
    if isinstance(accumulator, Exact) and not unit.joins_late:  # what is rounded is the result
        found, results = Model(ZERO, ZERO, ZERO, INF), (roundings(accumulator.sum),)
    else:
        found = _part(accumulator, max(1, products), roundings, False, least)
    last = roundings(unit.result)
    if not unit.joins_late:
        return Model(
            found.products, found.addend, found.floor, found.largest, (*results, last) if unit.output else results
        )
    return Model(found.products, last.u, found.floor + last.eta, smaller(found.largest, last.largest), (*results, last))


def _part(accumulator: Accumulator, n: int, roundings: Roundings, values: bool, least: arb) -> Model:
    """Return the model of n products, or of n values of another accumulator."""
    match accumulator:
        case Fma():
            return _sequential(roundings(accumulator.sum), None, -(-n // accumulator.products), n)
        case Seq():
            return _sequential(roundings(accumulator.sum), None if values else roundings(accumulator.product), n, n)
        case Tree():
            r = roundings(accumulator.sum)
            rounded = 0 if values or accumulator.exact_leaves else 1
            depth = _levels(n, accumulator.radix) + rounded
            if n == 1 and not values:
                depth = 1  # a product that is alone becomes a value of the format too
            growth = (ONE + r.u) ** depth
            return Model(growth - ONE, ZERO, r.eta * 2 * n * growth, r.largest)
        case Interleave():
            lanes = min(n, accumulator.ways)
            inner = _part(accumulator.inner, -(-n // accumulator.ways), roundings, values, least)
            return _nested(inner, lanes, _part(accumulator.join, accumulator.ways, roundings, True, least))
        case Chunk():
            runs = -(-n // accumulator.length)
            inner = _part(accumulator.inner, min(n, accumulator.length), roundings, values, least)
            return _nested(inner, runs, _part(accumulator.outer, runs, roundings, True, least))
        case Exact():
            r = roundings(accumulator.sum)
            return Model(r.u, r.u, r.eta, r.largest)
        case Aligned():
            return _in_steps(accumulator, n, roundings(accumulator.sum), least)
    return _part(accumulator.inner, n, roundings, values, least)


def _sequential(r: Rounding, product: Rounding | None, sums: int, products: int) -> Model:
    """Return (C2) or (C3); of `products` rounded products, None for exact ones."""
    u_p, eta_p, top = ZERO, ZERO, r.largest
    if product is not None:
        u_p, eta_p, top = product.u, product.eta, smaller(top, product.largest)
    factor, addend = (ONE + u_p) * (ONE + r.u) ** sums - ONE, (ONE + r.u) ** (sums + 1) - ONE
    if r.nearest:
        alike = product is None or (product.nearest and product.bits == r.bits)
        any_order = (sums + 1) * r.u if alike else (ONE + u_p) * (ONE + (sums + 1) * r.u) - ONE
        factor, addend = smaller(factor, any_order), smaller(addend, (ONE + r.u) * (ONE + any_order) - ONE)
    return Model(factor, addend, (r.eta * (sums + 1) + eta_p * products) * (ONE + factor), top)


def _in_steps(aligned: Aligned, n: int, r: Rounding, least: arb) -> Model:
    """Return (C9)."""
    together = 2 if aligned.pairs else 1
    steps = together * -(-n // (together * aligned.products))
    q = (ONE + (aligned.products + 1) * power(-aligned.frac)) * (ONE + r.u) - ONE
    factor = (ONE + q) ** steps - ONE
    least = larger(least, power(-126 if aligned.least is None else max(-126, aligned.least)))
    floor = factor * least + r.eta * (steps + 1) * (ONE + factor)
    return Model(factor, (ONE + r.u) * (ONE + factor) - ONE, floor, r.largest)


def _nested(inner: Model, runs: int, outer: Model) -> Model:
    """Return (C4)."""
    through = ONE + outer.products
    return Model(
        (ONE + inner.products) * through - ONE, outer.addend, inner.floor * runs * through + outer.floor,
        smaller(inner.largest, outer.largest),
    )  # fmt: skip


def _levels(n: int, radix: int) -> int:
    levels = 0
    while n > 1:
        n, levels = -(-n // radix), levels + 1
    return levels
