"""Rules of what multiplies and adds: linear layers, convolutions, products of two values.

(B31) With computed operands within M + d, z = sum a b + c: what comes in moves z by at most sum (d_a |b| + |a| d_b) +
d_c, conversions of the operands add theirs likewise, and the unit is off by its model (sums.py), or by what its partial
sums say (running.py), and by what rounds its result. No state overflows, or there is no bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from formats import Use
from simulator.arithmetic.accumulators import joins_late, result_use
from simulator.arithmetic.spec import MacSpec, float32_holds, mac
from simulator.errors import InputError

from .bounded import Bounded
from .graph import Node, Ref
from .outward import above, below, grown, radius_of_sum
from .roundings import FLOAT32, Rounding, of_use
from .rule import Gradients, Interval, Read, Rule, Step, Unit, off_by, operand, unbroadcast
from .running import Term, applies, running
from .sums import SumBound, of_any_order, sum_bound

# What torch's own products are, but for their order and whether they are fused.
_TORCH = mac("seq(fp32)")
_OF_ROWS = ("center", "radius", "error")
# Outputs whose partial sums are followed together.
_AT_ONCE = 1 << 17


def unit_of(node: Node, unit: Unit) -> MacSpec:
    """Return the MAC unit of a product, torch's own where nothing emulates it."""
    return unit.mac(node.layer) or _TORCH


class _Converted(NamedTuple):
    """An operand as the unit has it: how far it is off in all, what the conversion adds to that, its magnitude."""

    d: Tensor
    own: Tensor
    most: Tensor


class Products(Rule):
    """A product of two operands with an addend, or without.

    Args:
        a, b, c: places of the operands and of the addend among the arguments, None for none.
    """

    def __init__(self, a: int, b: int, c: int | None) -> None:
        self.places = a, b, c

    def forward(self, node: Node, read: Read, unit: Unit) -> list[Step | None]:
        first = self._step(node, read, unit, unit.mac(node.layer))
        second = unit.second(node.layer)
        if second is None:
            return [first]
        # (B32) Two passes: an output has the bound of either, and that of the second where it is surely flagged.
        again = self._step(node, read, unit, second.mac)
        sure = second.flags(*first.value.box)
        d, local = (
            torch.where(sure, b, torch.maximum(a, b))
            for a, b in ((first.value.d, again.value.d), (first.local, again.local))
        )
        return [Step(Bounded(first.value.lo, first.value.hi, d), local)]

    def _step(self, node: Node, read: Read, unit: Unit, spec: MacSpec | None) -> Step:
        a, b, c = self._operands(node, read)
        named = spec or _TORCH
        uses = (None, None) if named.operands is None else named.operands
        left, right = _converted(a, uses[0], node), _converted(b, uses[1], node)
        product, n = self._product(node), node.terms
        # Exact values: the product of the centers, and what the radii and float64 make of it.
        centers, radii = zip(*((_middle(x.lo, x.hi)) for x in (a, b)), strict=True)
        z = product(centers[0], centers[1])
        most = product(left.most, right.most)
        r = _sum_of(product, (radii[0], centers[1].abs() + radii[1]), (centers[0].abs(), radii[1]))
        r = r + radius_of_sum(most, n + 1)
        moved = _sum_of(product, (left.d, right.most), (a.magnitude, right.d))
        own = _sum_of(product, (left.own, right.most), (left.most, right.own))
        addend = torch.zeros((), dtype=torch.float64)
        if c is not None:
            middle, radius = _middle(c.lo, c.hi)
            z, r, moved, addend = z + middle, r + radius + z.abs() * 2.0**-52, moved + c.d, c.computed
        lo, hi = below(z - grown(r, n)), above(z + grown(r, n))
        moved, own = grown(moved, n), grown(own, n)
        if spec is None:
            model = of_any_order(unit.roundings(named.result), n)
        else:
            model = sum_bound(spec, n, unit.roundings, self._smallest(spec, left, right), unit.spread)
        summed = self._summed(node, unit, spec, (a, b, c), (left, right), model, most, addend, n)
        off = summed
        size = torch.maximum(lo.abs(), hi.abs()) + moved
        for rounding in (*model.results, *_of_type(named, unit)):
            off = off + off_by(rounding, grown(size + off))
        return Step(Bounded(lo, hi, grown(moved + off)), grown(own + off))

    def _summed(
        self,
        node: Node,
        unit: Unit,
        spec: MacSpec | None,
        values: tuple[Bounded, Bounded, Bounded | None],
        converted: tuple[_Converted, _Converted],
        model: SumBound,
        most: Tensor,
        addend: Tensor,
        n: int,
    ) -> Tensor:
        """Return how far the unit is off before what rounds its result; infinite where a state may overflow."""
        off = grown(most * model.products + addend * model.addend + model.floor, n)
        found = torch.where(grown(most + addend + off, n) > model.largest, torch.inf, off)
        if spec is None or not n or not unit.running or not applies(spec.accumulator):
            return found
        return torch.minimum(found, self._running(node, unit, spec, values, converted, model))

    def _running(
        self,
        node: Node,
        unit: Unit,
        spec: MacSpec,
        values: tuple[Bounded, Bounded, Bounded | None],
        converted: tuple[_Converted, _Converted],
        model: SumBound,
    ) -> Tensor:
        """Return the bound of (B7), in the order in which the unit takes the products."""
        a, b, c = values
        late = joins_late(spec.accumulator)
        held = unit.roundings(result_use(spec.accumulator))
        found = []
        for left, right, start, shape in self._matrices(node, a, b, c, converted):
            first, terms = None, right[0].shape[0] + 2
            extra: Tensor | float = 0.0
            if start is not None:
                middle, radius = _middle(start.lo, start.hi)
                of_addend = off_by(unit.roundings(spec.result) if late else held, start.computed)
                if late:
                    extra = of_addend  # rounded, then added, which the model's results have
                else:  # and what float64 makes of it in all partial sums
                    slack = middle.abs() * (terms * 2.0**-52)
                    first = Term(middle, radius + start.d + slack, of_addend, False)
            parts = []
            rows = max(1, _AT_ONCE // max(1, right[0].shape[-1]))
            for at in range(0, left[0].shape[0], rows):
                some = [x[at : at + rows] for x in left]
                begun = None
                if first is not None:
                    begun = first._replace(**{name: _rows(getattr(first, name), at, rows) for name in _OF_ROWS})
                total = running(spec.accumulator, _terms(some, right), begun, unit.roundings)
                largest = min(model.largest, held.largest)
                off = torch.where(total.largest > largest, torch.inf, grown(total.error, 2 * terms))
                parts.append(off + _rows(extra, at, rows))
            found.append(torch.cat(parts).reshape(shape))
        return self._joined(node, found)

    def _operands(self, node: Node, read: Read) -> tuple[Bounded, Bounded, Bounded | None]:
        if any(float(node.kwargs.get(name, 1)) != 1 for name in ("alpha", "beta")):
            raise InputError(f"bounds: {node.path}: {node.kind} with alpha or beta: no rule; write it plainly")
        a, b, c = (None if i is None or node.args[i] is None else operand(node.args[i], read) for i in self.places)
        assert a is not None and b is not None
        return a, b, c

    def _product(self, node: Node) -> Callable[[Tensor, Tensor], Tensor]:
        return torch.matmul

    def _matrices(
        self, node: Node, a: Bounded, b: Bounded, c: Bounded | None, converted: tuple[_Converted, _Converted]
    ) -> Iterator[tuple[list[Tensor], list[Tensor], Bounded | None, torch.Size]]:
        """Yield, for each product of two matrices, center, radius and d of both, the addend, and its shape."""
        parts = []
        for x, one in zip((a, b), converted, strict=True):
            middle, radius = _middle(x.lo, x.hi)
            parts.append((middle, radius + one.d))
        shape = node.shapes[0]
        if b.lo.dim() == 1:
            yield list(parts[0]), [x[:, None] for x in parts[1]], None, shape
            return
        if a.lo.dim() == 2:
            yield list(parts[0]), list(parts[1]), None if c is None else c.map(lambda x: x.broadcast_to(shape)), shape
            return
        for i in range(a.lo.shape[0]):
            left, right = ([x[i] for x in part] for part in parts)
            own = None if c is None else c.map(lambda x, i=i: x.broadcast_to(shape)[i])  # type: ignore[misc]
            yield left, right, own, shape[1:]

    def _joined(self, node: Node, found: list[Tensor]) -> Tensor:
        return found[0] if len(node.shapes[0]) < 3 else torch.stack(found)

    def _smallest(self, spec: MacSpec, a: _Converted, b: _Converted) -> float:
        """Return the largest magnitude that the exponent of a subnormal factor, or of zero, stands for."""
        least = [2.0**-126, 2.0**-126]
        for i, use in enumerate(spec.operands or ()):
            least[i] = use.format.smallest_normal
        sizes = [float(x.most.detach().max()) if x.most.numel() else 0.0 for x in (a, b)]
        return max(least[0] * sizes[1], least[1] * sizes[0], least[0] * least[1])

    def backward(self, node: Node, read: Read, grads: Gradients) -> list[tuple[int, Interval]]:
        g = grads[node.outputs[0]]  # type: ignore[index]
        a, b, c = self._operands(node, read)
        found = []
        product = self._product(node)
        center, radius = _middle(g.lo, g.hi)
        boxes = [_middle(*x.box) if isinstance(node.args[i], Ref) else _middle(x.lo, x.hi)
                 for x, i in zip((a, b), self.places[:2], strict=True)]  # fmt: skip
        # Of what is summed on the way back each term has an output of its own, and one of the same sample for a.
        n = center.numel() if isinstance(node.args[self.places[1]], Ref) else center[:1].numel()
        for which in (0, 1):
            arg = node.args[self.places[which]]  # type: ignore[index]
            if not isinstance(arg, Ref):
                continue
            other, around = boxes[1 - which]

            def back(grad: Tensor, factor: Tensor, which: int = which) -> Tensor:
                own = torch.zeros_like(boxes[which][0]).requires_grad_()
                with torch.enable_grad():
                    y = product(own, factor) if which == 0 else product(factor, own)
                return torch.autograd.grad(y, own, grad)[0]

            middle = back(center, other)
            reach = back(radius + center.abs() * ((n + 2) * 2.0**-52), other.abs() + around)
            if bool((around > 0).any()):
                reach = reach + back(center.abs(), around)
            reach = grown(reach, n)
            found.append((arg.number, Interval(middle - reach, middle + reach)))
        if c is not None and self.places[2] is not None and isinstance(node.args[self.places[2]], Ref):
            found.append((node.args[self.places[2]].number, unbroadcast(g, c.lo.shape)))
        return found


class Convolutions(Products):
    """A convolution, plain or transposed."""

    def __init__(self) -> None:
        super().__init__(0, 1, 2)

    def _operands(self, node: Node, read: Read) -> tuple[Bounded, Bounded, Bounded | None]:
        a, b, c = super()._operands(node, read)
        if c is not None:
            shape = (1, -1, *(1,) * (a.lo.dim() - 2))
            c = c.map(lambda x: x.reshape(shape))
        return a, b, c

    def _product(self, node: Node) -> Callable[[Tensor, Tensor], Tensor]:
        settings = node.args[3:]
        return lambda x, w: torch.ops.aten.convolution(x, w, None, *settings)

    def _matrices(
        self, node: Node, a: Bounded, b: Bounded, c: Bounded | None, converted: tuple[_Converted, _Converted]
    ) -> Iterator[tuple[list[Tensor], list[Tensor], Bounded | None, torch.Size]]:
        stride, padding, dilation, _, _, groups = node.args[3:9]
        shape, size = node.shapes[0], b.lo.shape[2:]
        images: list[Tensor] = []
        weights: list[Tensor] = []
        for parts, x, one in ((images, a, converted[0]), (weights, b, converted[1])):
            middle, radius = _middle(x.lo, x.hi)
            parts += [middle, radius + one.d]
        inputs, outputs = a.lo.shape[1] // groups, shape[1] // groups
        for group in range(groups):
            left = []
            for image in images:
                part = image[:, group * inputs : (group + 1) * inputs]
                windows = functional.unfold(part, size, dilation, padding, stride)
                left.append(windows.transpose(1, 2).flatten(0, 1))
            right = [w[group * outputs : (group + 1) * outputs].reshape(outputs, -1).T for w in weights]
            start = None
            if c is not None:
                own = c.map(lambda x, g=group: x.reshape(1, -1)[:, g * outputs : (g + 1) * outputs])  # type: ignore[misc]
                rows = left[0].shape[0]
                start = own.map(lambda x, rows=rows: x.expand(rows, -1))  # type: ignore[misc]
            yield left, right, start, torch.Size((shape[0], shape[2] * shape[3], outputs))

    def _joined(self, node: Node, found: list[Tensor]) -> Tensor:
        shape = node.shapes[0]
        return torch.cat([part.transpose(1, 2) for part in found], 1).reshape(shape)

    def _summed(self, node: Node, unit: Unit, spec: MacSpec | None, *rest: Any) -> Tensor:
        plain = not node.args[6] and len(node.shapes[0]) == 4
        return super()._summed(node, unit, spec if plain else None, *rest)


def _terms(left: list[Tensor], right: list[Tensor]) -> Iterator[Term]:
    """Yield the products of two matrices, one k after the other."""
    exact = not bool((left[1] > 0).any()) and not bool((right[1] > 0).any())
    nothing, n = torch.zeros((), dtype=torch.float64), right[0].shape[0]
    slack = (n + 2) * 2.0**-52  # of the product, and of its share in all partial sums, in float64
    for k in range(n):
        a, b = left[0][:, k, None], right[0][None, k]
        center = a * b
        if exact:
            yield Term(center, center.abs() * slack, nothing, True)
            continue
        reach, around = left[1][:, k, None], right[1][None, k]
        radius = center.abs() * slack + reach * (b.abs() + around) + a.abs() * around
        yield Term(center, radius * (1.0 + 2.0**-40), nothing, True)


def _rows(x: Tensor | float, first: int, rows: int) -> Any:
    return x[first : first + rows] if isinstance(x, Tensor) and x.dim() > 1 else x


def _middle(lo: Tensor, hi: Tensor) -> tuple[Tensor, Tensor]:
    """Return center and radius of intervals, the radius rounded up and exactly 0 for points."""
    middle = (lo + hi) / 2
    radius = torch.maximum(hi - middle, middle - lo)
    return middle, torch.where(lo == hi, 0.0, radius * (1.0 + 2.0**-40))


def _sum_of(product: Callable[[Tensor, Tensor], Tensor], *pairs: tuple[Tensor, Tensor]) -> Tensor:
    """Return the sum of products of which both factors are not all zero."""
    total: Tensor | None = None
    for x, y in pairs:
        if bool((x != 0).any()) and bool((y != 0).any()):
            found = product(x, y)
            total = found if total is None else total + found
    return torch.zeros((), dtype=torch.float64) if total is None else total


def _converted(x: Bounded, use: Use | None, node: Node) -> _Converted:
    """Return an operand in the format of the unit: of known values exactly, of others by (B31)."""
    if use is None:
        return _Converted(x.d, torch.zeros_like(x.d), x.computed)
    if use.format.has_blocks:
        raise InputError(
            f"bounds: {node.layer}: operands in {use}, whose values share scales: no rule; take another unit"
        )
    own = None
    if not use.mode.stochastic:
        known = (x.lo == x.hi) & (x.d == 0)
        if bool(known.any()):
            rounded = torch.from_numpy(use.quantize(x.lo.numpy()))
            own = torch.where(known, (rounded - x.lo).abs() * (1.0 + 2.0**-50), torch.inf)
    if own is None or bool(own.isinf().any()):
        in_general = off_by(of_use(use), x.computed)
        own = in_general if own is None else torch.where(own.isinf(), in_general, own)
    return _Converted(grown(x.d + own), own, grown(x.computed + own))


def _of_type(spec: MacSpec, unit: Unit) -> tuple[Rounding, ...]:
    """Return the rounding of a result that the network's tensors of float32 do not hold."""
    return () if not unit.fixed or float32_holds(spec.result.format) else (FLOAT32,)


RULES: dict[str, Rule] = {
    "mm": Products(0, 1, None), "bmm": Products(0, 1, None), "addmm": Products(1, 2, 0), "baddbmm": Products(1, 2, 0),
    "mv": Products(0, 1, None), "convolution": Convolutions(),
}  # fmt: skip
