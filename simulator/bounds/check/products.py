"""Rules of products of matrices: blocks of dot products, by the places of what they read.

(C10) With a', b' what the unit holds of the operands, |a'| at most A and so on, z = sum a b + c. The unit's own sum of
the exact products a' b' is off by its model (macs.py), or by its partial sums (partial_sums.py); conversions of
operands by sum (da B + A db), of which da is that of the conversion alone; and what comes in moves z by the same with
all that a' is off, and by the d of c. Results are rounded at their size. (C11) On the way back an interval of
derivatives c +- r becomes c B +- (r (|B| + s) + |c| s), with an operand within B +- s between exact and computed.
(C13) Of two passes an output has the larger bound of both, and that of the second where all that the first may give is
surely flagged: of magnitude v with 1 / v above the tolerance, and not negative before relu, where the graph has that
activation behind it (activations.py).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from flint import arb, arb_mat

from .activations import FLAGGING
from .balls import (
    INF,
    ONE,
    ZERO,
    Balls,
    Ends,
    Places,
    added,
    is_infinite,
    larger,
    magnitude,
    matrix,
    power,
    smaller,
    summed_into,
    taken,
)
from .document import Fault, Node, NoRule, Second
from .dots import Block, Dots, Side, as_held
from .formats import Rounding, Use
from .macs import Mac, Model, mac, model
from .partial_sums import GUARD, PartialSums, Scaled, Term, applies, scaled
from .places import Shape, all_of, fits, one_owner, shared, spread
from .rule import FLOAT32, Found, Gradients, Operand, Parts, Premises, Reader, Rule, each, plain

_TORCH = "seq(fp32)"


class Products(Rule):
    """A product of two operands with an addend, or without; a, b, c are their places among so many arguments."""

    def __init__(self, a: int, b: int, c: int | None, dimensions: int, arguments: int) -> None:
        self.places, self._dimensions, self._arguments = (a, b, c), dimensions, arguments

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        first = self._pass(node, at, stated)
        if node.second is None:
            return first
        again = self._pass(replace(node, mac=node.second.mac, ordered=True), at, stated)
        sure = [_flagged(node.second, *one) for one in zip(first.lo, first.hi, first.d, strict=True)]
        d, local = (
            [y if flag else larger(x, y) for x, y, flag in zip(*both, sure, strict=True)]
            for both in ((first.d, again.d), (first.local, again.local))
        )
        return first._replace(d=d, local=local)

    def _pass(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        """Return the bounds of the result of one pass."""
        a, b, c = self._operands(node, at)
        unit, roundings = _unit(node), _Roundings(at.premises)
        uses = unit.operands or (None, None)
        sides = as_held(a, uses[0], at.premises), as_held(b, uses[1], at.premises)
        least = _least(uses, sides)
        shape, blocks = self.blocks(node, a, b, c)
        fits(node, shape)
        size = math.prod(shape)
        lo, hi, d, local = ([ZERO] * size for _ in range(4))
        owner = np.full(size, -1)
        n = 0
        for block in blocks:
            owner[block.out] = _owner(block, a, b, c, node)
            n = block.a.shape[1]
            found = model(unit, n, roundings, least)
            results = [*found.results, *_of_type(unit, at.premises)]
            dots = Dots(block, *sides)
            z, around = dots.exact()
            moved, own, most = dots.moved(), dots.converted(), dots.sizes()
            start = _addend(block, c)
            partial = None
            if at.premises.running and node.ordered and applies(unit.accumulator):
                partial = _Partial(unit, roundings, block, sides, start)
            for i, place in enumerate(block.out.ravel().tolist()):
                ends = z[i] - around[i], z[i] + around[i]
                of_c = ZERO
                if start is not None:
                    ends = ends[0] + start.lo[i], ends[1] + start.hi[i]
                    moved[i] = moved[i] + start.d[i]
                    of_c = start.computed[i]
                lo[place], hi[place] = ends
                reach = magnitude(*ends) + moved[i]
                off = _through(_modelled(found, most[i], of_c), reach, results)
                enough = _reaches(stated["local"][place], own[i] + off) and _reaches(stated["d"][place], moved[i] + off)
                if partial is not None and not enough:
                    off = smaller(off, _through(partial.error(i), reach, results))
                d[place], local[place] = moved[i] + off, own[i] + off
        owner = shared(owner.reshape(shape), range(1, len(shape))).ravel()
        if not n:  # sums of nothing are said to belong to the sample of their row
            owner = np.where(owner < 0, np.arange(size) // max(1, math.prod(shape[1:])), owner)
        return Found(shape, lo, hi, d, None, local, owner)

    def backward(self, node: Node, at: Reader, grads: Gradients) -> Parts:
        a, b, c = self._operands(node, at)
        _, blocks = self.blocks(node, a, b, c)
        found: Parts = []
        for which, own in ((0, a), (1, b)):
            if own.number is not None:
                found.append((own.number, _back(blocks, grads, which, own, (b, a)[which])))
        if c is not None and c.number is not None:
            size = len(c.lo)
            found.append((c.number, [
                Ends(*(_collected(size, blocks, end) for end in g)) for g in grads
            ]))  # fmt: skip
        return found

    def _operands(self, node: Node, at: Reader) -> tuple[Operand, Operand, Operand | None]:
        plain(node, "alpha", "beta")
        for name in ("alpha", "beta"):
            factor = node.kwargs.get(name, 1)
            if isinstance(factor, bool) or factor != 1:
                raise NoRule(f"{node}: no rule for {name}={factor!r}")
        if len(node.args) != self._arguments:
            raise NoRule(f"{node}: no rule for {len(node.args)} arguments")
        a, b, c = (None if i is None or node.args[i] is None else at.operand(node.args[i], node) for i in self.places)
        if a is None or b is None:
            raise Fault(f"{node}: an operand is missing")
        return a, b, c

    def blocks(self, node: Node, a: Operand, b: Operand, c: Operand | None) -> tuple[Shape, list[Block]]:
        """Return the shape of the result, and the products of matrices that it is made of."""
        if len(a.shape) != self._dimensions or len(b.shape) != self._dimensions or a.shape[-1] != b.shape[-2]:
            raise NoRule(f"{node}: no rule for shapes {list(a.shape)} and {list(b.shape)}")
        if a.shape[:-2] != b.shape[:-2]:
            raise NoRule(f"{node}: no rule for shapes {list(a.shape)} and {list(b.shape)}")
        shape = (*a.shape[:-1], b.shape[-1])
        count = math.prod(shape[:-2])
        of_a, of_b, out = (all_of(x).reshape(count, *x[-2:]) for x in (a.shape, b.shape, shape))
        of_c = None if c is None else _spread(node, c.shape, shape).reshape(count, *shape[-2:])
        return shape, [Block(x, y, z, None if of_c is None else of_c[i])
                       for i, (x, y, z) in enumerate(zip(of_a, of_b, out, strict=True))]  # fmt: skip


class OfVectors(Products):
    """A product of a matrix and a vector."""

    def blocks(self, node: Node, a: Operand, b: Operand, c: Operand | None) -> tuple[Shape, list[Block]]:
        if len(a.shape) != 2 or b.shape != a.shape[1:]:
            raise NoRule(f"{node}: no rule for shapes {list(a.shape)} and {list(b.shape)}")
        return a.shape[:1], [Block(all_of(a.shape), all_of((*b.shape, 1)), all_of((a.shape[0], 1)), None)]


def _flagged(second: Second, lo: arb, hi: arb, d: arb) -> bool:
    """Whether an output is surely flagged, (C13), with room for what scores are rounded by in float64."""
    known = second.activation in FLAGGING and (second.activation != "relu" or lo - d >= 0)
    return bool(known and (magnitude(lo, hi) + d) * second.tolerance < ONE - power(-40))


class _Roundings:
    """The roundings of uses under the premises, each made once."""

    def __init__(self, premises: Premises) -> None:
        self._premises = premises
        self._made: dict[Use, Rounding] = {}

    def __call__(self, use: Use) -> Rounding:
        if use not in self._made:
            self._made[use] = use.rounded(self._premises.precision)
        return self._made[use]


def _unit(node: Node) -> Mac:
    if node.mac is None:
        raise Fault(f"{node}: a product without a MAC unit")
    if not node.ordered and node.mac != _TORCH:
        raise Fault(f"{node}: torch's own product by the unit {node.mac}; expected {_TORCH}")
    return mac(node.mac)


def _least(uses: tuple[Use | None, Use | None], sides: tuple[Side, Side]) -> arb:
    """Return the largest magnitude that the exponent of a product with a subnormal factor, or 0, stands for, (C9)."""
    normal = [power(-126 if one is None else one.format.least) for one in uses]
    most = [functools.reduce(larger, side.most, ZERO) for side in sides]
    return larger(larger(normal[0] * most[1], normal[1] * most[0]), normal[0] * normal[1])


def _of_type(unit: Mac, premises: Premises) -> tuple[Rounding, ...]:
    """Return the rounding of results that tensors of float32 do not hold."""
    return () if premises.precision is not None or unit.result.format.float32_holds else (FLOAT32,)


class _Addend(NamedTuple):
    """The addend of each result of a block."""

    lo: Balls
    hi: Balls
    d: Balls
    computed: Balls


def _addend(block: Block, c: Operand | None) -> _Addend | None:
    if c is None or block.c is None:
        return None
    return _Addend(*(taken(part, block.c) for part in (c.lo, c.hi, c.d, c.computed)))


def _modelled(found: Model, most: arb, addend: arb) -> arb:
    """Return the bound of a model; infinite where a state may overflow."""
    off = most * found.products + addend * found.addend + found.floor
    return off if most + addend + off <= found.largest else INF


def _reaches(stated: arb, off: arb) -> bool:
    return bool(stated >= off) or is_infinite(stated)


def _through(off: arb, size: arb, results: Sequence[Rounding]) -> arb:
    """Return how far a sum is off once its result has been rounded."""
    for rounding in results:
        off = off + rounding.off(size + off)
    return off


class _Partial:
    """The partial sums of a block, asked for one result at a time."""

    def __init__(
        self, unit: Mac, roundings: _Roundings, block: Block, sides: tuple[Side, Side], start: _Addend | None
    ) -> None:
        self._unit, self._roundings, self._block, self._start = unit, roundings, block, start
        self._left, self._right = (
            self._scaled(side, places, guard)
            for side, places, guard in zip(sides, (block.a, block.b.T), (GUARD, 0), strict=True)
        )
        self._sums = PartialSums(unit.accumulator, roundings, self._left.exponent + self._right.exponent)
        self._unbounded = tuple(
            {k for k, row in enumerate(places.tolist()) if any(at >= 0 and not side.is_bounded(at) for at in row)}
            for side, places in zip(sides, (block.a, block.b.T), strict=True)
        )

    @staticmethod
    def _scaled(side: Side, places: Places, guard: int) -> Scaled:
        """Return the rows of an operand; those in which something has no bound are not asked for."""
        bounded = [side.is_bounded(i) for i in range(len(side.d))]
        middle, around = (
            [x if fine else ZERO for x, fine in zip(part, bounded, strict=True)]
            for part in (side.middle, added(side.radius, side.d))
        )
        return scaled(taken(middle, places), taken(around, places), guard)

    def error(self, i: int) -> arb:
        """Return how far result i is off before what rounds it; infinite where a state may overflow."""
        n = self._block.a.shape[1]
        row, column = divmod(i, self._block.b.shape[1])
        if row in self._unbounded[0] or column in self._unbounded[1]:
            return INF
        (a, around_a), (b, around_b) = (
            (side.centers[at * n : (at + 1) * n], side.radii[at * n : (at + 1) * n])
            for side, at in ((self._left, row), (self._right, column))
        )
        products = [x * y for x, y in zip(a, b, strict=True)]
        radii = [
            r * (abs(y) + s) + abs(x) * s if r or s else 0 for x, r, y, s in zip(a, around_a, b, around_b, strict=True)
        ]
        term, extra = None, ZERO
        if self._start is not None:
            lo, hi, d, computed = (part[i] for part in self._start)
            if self._unit.joins_late:
                extra = self._roundings(self._unit.result).off(computed)
            else:
                off = self._roundings(self._unit.held).off(computed)
                term = Term((lo + hi) / 2, (hi - lo) / 2 + d, off)
        found = self._sums.error(products, radii, term)
        return INF if found is None else found + extra


def _owner(block: Block, a: Operand, b: Operand, c: Operand | None, node: Node) -> Places:
    """Return the sample of each result, -1 of what reads nothing."""
    rows = one_owner(_owners(a, block.a), node)
    columns = one_owner(_owners(b, block.b.T), node)
    parts = [np.broadcast_to(rows[:, None], block.out.shape), np.broadcast_to(columns, block.out.shape)]
    if c is not None and block.c is not None:
        parts.append(c.owner[block.c])
    return one_owner(np.stack(parts, -1), node)


def _owners(x: Operand, places: Places) -> Places:
    return np.where(places >= 0, x.owner[places], -1) if places.size else np.full((len(places), 1), -1)


def _back(blocks: Sequence[Block], grads: Gradients, which: int, own: Operand, other: Operand) -> list[Ends]:
    """Return the derivatives with respect to one operand, (C11), all classes at once."""
    lo, hi = other.box
    middle, radius = each(lambda x, y: (x + y) / 2, lo, hi), each(lambda x, y: (y - x) / 2, lo, hi)
    reach = added(each(abs, middle), radius)
    exact = all(r == 0 for r in radius)
    size = len(own.lo)
    centers, around = ([[ZERO] * size for _ in grads] for _ in range(2))
    for block in blocks:
        mine, theirs = (block.a, block.b.T) if which == 0 else (block.b.T, block.a)
        out = block.out if which == 0 else block.out.T
        rows, inner = out.shape
        g = [(taken(x.lo, out), taken(x.hi, out)) for x in grads]
        center = [(x + y) / 2 for one in g for x, y in zip(*one, strict=True)]
        spread_ = [(y - x) / 2 for one in g for x, y in zip(*one, strict=True)]

        def back(x: Balls, y: Balls, theirs: Places = theirs, rows: int = rows, inner: int = inner) -> Balls:
            return (arb_mat(len(grads) * rows, inner, x) * matrix(y, theirs)).entries()

        parts = back(center, middle), back(spread_, reach)
        if not exact:
            parts = parts[0], added(parts[1], back(each(abs, center), radius))
        for total, part in zip((centers, around), parts, strict=True):
            for j in range(len(grads)):
                some = part[j * mine.size : (j + 1) * mine.size]
                total[j] = added(total[j], summed_into(size, mine, some))
    return [Ends(each(lambda x, r: x - r, *one), each(lambda x, r: x + r, *one))
            for one in zip(centers, around, strict=True)]  # fmt: skip


def _collected(size: int, blocks: Sequence[Block], end: Balls) -> Balls:
    """Return the sums of derivatives by the place of the addend."""
    parts = [summed_into(size, block.c, taken(end, block.out)) for block in blocks if block.c is not None]
    return added(*parts)


def _spread(node: Node, shape: Shape, to: Shape) -> Places:
    try:
        return spread(shape, to)
    except ValueError:
        raise Fault(f"{node}: an addend of the shape {list(shape)} does not fit {list(to)}") from None


RULES: dict[str, Rule] = {
    "mm": Products(0, 1, None, 2, 2), "addmm": Products(1, 2, 0, 2, 3), "bmm": Products(0, 1, None, 3, 2),
    "baddbmm": Products(1, 2, 0, 3, 3), "mv": OfVectors(0, 1, None, 0, 2),
}  # fmt: skip
