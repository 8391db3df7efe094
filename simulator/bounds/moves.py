"""Rules of what moves values or adds them up with weights that are not negative: shapes, copies, parts, means."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from formats import Use
from simulator.errors import InputError

from .bounded import Bounded
from .graph import ROUND, Node, Ref
from .outward import above, below, grown
from .roundings import Rounding, of_use
from .rule import Gradients, Interval, Read, Rule, Step, Unit, filled, off_by
from .sums import factor_of

# Types that conversions round to, one that holds all others, and no conversion of types at all.
_TYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.float64: None, None: None}


class Moves(Rule):
    """(B8) Values are moved: nothing is rounded. Constants that are joined to them are exact."""

    def forward(self, node: Node, read: Read, unit: Unit) -> list[Step | None]:
        def moved(part: Callable[[Bounded], Tensor], constant: Callable[[Tensor], Tensor]) -> list[Tensor]:
            return tree_leaves(called(node, *filled((node.args, dict(node.kwargs)), read, part, constant)))

        ends = moved(lambda x: x.lo, lambda x: x), moved(lambda x: x.hi, lambda x: x)
        parts = [*ends, moved(lambda x: x.d, torch.zeros_like)]
        if any(read(number).given is not None for number in node.inputs):
            parts.append(moved(lambda x: x.e, torch.zeros_like))
        return [Step(Bounded(*found), torch.zeros_like(found[2])) for found in zip(*parts, strict=True)]

    def backward(self, node: Node, read: Read, grads: Gradients) -> list[tuple[int, Interval]]:
        return transposed(node, read, grads)


class Converts(Moves):
    """(B9) A conversion to another type of real numbers: one rounding, but to float64."""

    def forward(self, node: Node, read: Read, unit: Unit) -> list[Step | None]:
        (step,) = super().forward(node, read, unit)
        kind = node.kwargs.get("dtype")
        if kind not in _TYPES:
            raise InputError(
                f"bounds: {node.path}: a conversion to {kind}: no rule; expected one to float16, bfloat16, float32 or "
                "float64; leave others out of the model"
            )
        name = _TYPES[kind]
        assert step is not None
        return [step if name is None else rounded(step.value, of_use(Use.parse(name)))]


class Rounds(Rule):
    """(B9) A value rounded into the format of a vector unit, see graph.with_roundings."""

    def forward(self, node: Node, read: Read, unit: Unit) -> list[Step | None]:
        assert node.use is not None
        return [rounded(read(node.args[0].number), of_use(node.use))]

    def backward(self, node: Node, read: Read, grads: Gradients) -> list[tuple[int, Interval]]:
        return [(node.args[0].number, grads[node.outputs[0]])]  # type: ignore[index]


def rounded(x: Bounded, r: Rounding) -> Step:
    """Return a value after one rounding."""
    off = grown(off_by(r, x.computed))
    return Step(Bounded(x.lo, x.hi, grown(x.d + off)), off)


class Pads(Moves):
    """(B8) of padding, whose value is rounded unless it has few bits."""

    def forward(self, node: Node, read: Read, unit: Unit) -> list[Step | None]:
        x, widths = read(node.args[0].number), node.args[1]
        value = float(node.args[2]) if len(node.args) > 2 else float(node.kwargs.get("value", 0.0) or 0.0)

        def padded(part: Tensor, with_value: float) -> Tensor:
            return torch.ops.aten.constant_pad_nd(part, widths, with_value)

        own = unit.vector(node.path).of_number(value)
        e = 0.0 if own == 0 else math.inf
        found = Bounded(padded(x.lo, value), padded(x.hi, value), padded(x.d, own), padded(x.e, e))
        return [Step(found, padded(torch.zeros_like(x.d), own))]


class Means(Rule):
    """(B10) Sums, means and average pools of n terms, at most, in any order: off by (n - 1) u of the sum of magnitudes,
    and means by two roundings more, unless all of them are of n terms and n is a power of two.

    To nearest there is no second-order term, whether the terms are of the format or not: m roundings in a tree over
    terms with the sum of magnitudes S are off by m u S. For add two sums with m, S and n, T, off by m u S and n u T. To
    show: the rounding is off by at most u ((n + 1) S + (m + 1) T). If T <= u S and m > 0, the first sum is one of the
    candidates, and so it is off by at most the second one, (1 + n u) T <= (n + 1) u S; likewise the other way round.
    Else it is off by at most u (S + T + m u S + n u T), where m u S <= m T and n u T <= n S.

    Args:
        scaled: whether what is summed is divided by n.
    """

    def __init__(self, scaled: bool) -> None:
        self.scaled = scaled

    def forward(self, node: Node, read: Read, unit: Unit) -> list[Step | None]:
        x, kwargs = read(node.args[0].number), {k: v for k, v in node.kwargs.items() if k != "dtype"}

        def means(part: Tensor) -> Tensor:
            return node.func(part, *node.args[1:], **kwargs)

        n, equal = _terms(node, x.lo)
        r = unit.vector(node.path)
        lo, hi, magnitudes, d = means(x.lo), means(x.hi), means(x.computed), means(x.d)
        slack = magnitudes * ((n + 3) * 2.0**-52)
        sums = magnitudes * n if self.scaled else magnitudes
        factor = sum_factor(r, n - 1)
        off = torch.where(sums > r.largest, torch.inf, magnitudes * factor + n * r.eta)
        if self.scaled and not (equal and math.frexp(n)[0] == 0.5):
            off = off + off_by(r, magnitudes + off, 2.0 + r.u)  # the reciprocal may be rounded before it multiplies
        local = grown(off, n)
        return [Step(Bounded(below(lo - slack), above(hi + slack), grown(d + local, n)), local)]

    def backward(self, node: Node, read: Read, grads: Gradients) -> list[tuple[int, Interval]]:
        return transposed(node, read, grads)


def sum_factor(r: Rounding, roundings: int) -> float:
    """Return that of a sum of this many roundings in any order: of (B10) to nearest, else (B2)."""
    return roundings * r.u if r.nearest else factor_of(r, roundings)


def _terms(node: Node, x: Tensor) -> tuple[int, bool]:
    """Return how many values the largest group has that is summed, and whether all are divided by that number."""
    if node.kind.startswith("avg_pool"):
        dims = int(node.kind[-2])
        n = math.prod(list(node.args[1]) * (dims if len(node.args[1]) == 1 else 1))
        defaults: list[Any] = [[0], False, True, None]
        padding, ceil, _, divisor = [*node.args[3:], *defaults[len(node.args[3:]) :]]
        plain = not any(padding) and not ceil
        return max(n, divisor or 0), plain and divisor in (None, n)
    if node.kind == "_adaptive_avg_pool2d":
        pairs = list(zip(x.shape[-2:], node.args[1], strict=True))
        # From floor(i size / parts) to ceil((i + 1) size / parts).
        most = [max(-(-(i + 1) * size // parts) - i * size // parts for i in range(parts)) for size, parts in pairs]
        return math.prod(most), all(size % parts == 0 for size, parts in pairs)
    ones = torch.ones_like(x, requires_grad=True)
    kwargs = {k: v for k, v in node.kwargs.items() if k != "dtype"}
    with torch.enable_grad():
        y = node.func(ones, *node.args[1:], **kwargs)
    per = torch.zeros_like(y)
    per.view(-1)[0] = 1.0
    (reads,) = torch.autograd.grad(y, ones, per)
    return max(1, int((reads != 0).sum())), True


def transposed(node: Node, read: Read, grads: Gradients) -> list[tuple[int, Interval]]:
    """Return the derivatives of a linear map whose coefficients are not negative: ends go to ends."""
    numbers = list(dict.fromkeys(node.inputs))
    known = [i for i, number in enumerate(node.outputs) if number in grads]

    def back(end: Callable[[Interval], Tensor]) -> list[Tensor]:
        leaves = {number: torch.zeros_like(read(number).lo).requires_grad_() for number in numbers}

        def one(leaf: Any) -> Any:
            if isinstance(leaf, Ref):
                return leaves[leaf.number]
            return leaf.detach().to(torch.float64) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

        args, kwargs = tree_map(one, (node.args, dict(node.kwargs)), is_leaf=lambda x: isinstance(x, Ref))
        with torch.enable_grad():
            results = tree_leaves(called(node, args, kwargs))
        wanted = [results[i] for i in known]
        found = torch.autograd.grad(
            wanted, list(leaves.values()), [end(grads[node.outputs[i]]) for i in known], allow_unused=True  # type: ignore[index]
        )  # fmt: skip
        return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves.values(), found, strict=True)]

    lo, hi, magnitude = back(lambda g: g.lo), back(lambda g: g.hi), back(lambda g: g.magnitude)
    return [
        (number, Interval(lo[i] - magnitude[i] * 2.0**-36, hi[i] + magnitude[i] * 2.0**-36))
        for i, number in enumerate(numbers)
    ]


def called(node: Node, args: Any, kwargs: Any) -> Any:
    """Call the operation with other tensors, in their own type."""
    kwargs = {name: value for name, value in kwargs.items() if name not in ("dtype", "memory_format")}
    if node.kind in ("_to_copy", "detach"):  # of which the derivative is wanted too
        return args[0].clone()
    if node.kind in ("view", "_unsafe_view", "_reshape_alias"):
        return args[0].reshape(args[1])  # whatever lies how in memory
    return node.func(*args, **kwargs)


_MOVED = (
    "view", "_unsafe_view", "reshape", "_reshape_alias", "t", "transpose", "permute", "squeeze", "unsqueeze", "slice",
    "select", "split", "split_with_sizes", "unsafe_split", "unbind", "cat", "stack", "expand", "clone", "detach",
    "alias", "lift_fresh", "index_select", "gather", "index", "flip", "roll", "repeat", "pixel_shuffle", "diagonal",
)  # fmt: skip
RULES: dict[str, Rule] = {
    **dict.fromkeys(_MOVED, Moves()),
    "_to_copy": Converts(),
    "constant_pad_nd": Pads(),
    ROUND: Rounds(),
    "sum": Means(scaled=False),
    **dict.fromkeys(("mean", "avg_pool1d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d"), Means(scaled=True)),
}  # fmt: skip
