"""Rules of whole numbers that no rounding reaches, and of what they pick.

(C45) Of operands that are known, whole, and off by nothing, an operation on integers or decisions gives a known number,
which is computed here in integers; below 2^31, so that no type in which it may be computed wraps it. (C46) Rows of a
constant at known places, and values that known decisions pick, keep their bounds; a number in the code may be rounded,
(C8). What is known has no neighbours: derivatives by it are 0.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flint import arb

from .balls import ZERO, Balls, Ends, Places, summed_into, taken
from .document import Fault, Node, NoRule
from .places import Shape, fits, one_owner, spread
from .rule import Found, Gradients, Operand, Parts, Reader, Rule, plain

_MOST = 2**31


class _Known(NamedTuple):
    """Numbers that are known, whole but for those in the code; `value` is None of constants."""

    shape: Shape
    numbers: Sequence[int | float]
    owner: Places
    value: int | None = None

    def over(self, shape: Shape) -> Places:
        """Return the places of the numbers in a result of this shape."""
        return spread(self.shape, shape)


def _known(form: Any, node: Node, at: Reader) -> _Known:
    """Return an operand whose numbers are known; NoRule if they are not."""
    match form:
        case {"integers": given}:
            found = np.asarray(given)
            return _Known(found.shape, [int(n) for n in found.ravel().tolist()], np.full(found.size, -1))
        case {"value": int(value)}:
            x = at.operand(form, node)
            ends = zip(x.lo, x.hi, x.d, strict=True)
            if not all(lo == hi and d == 0 and lo.is_integer() for lo, hi, d in ends):
                raise NoRule(f"{node}: no rule for integers that are not known")
            return _Known(x.shape, [int(float(lo)) for lo in x.lo], x.owner.ravel(), value)
        case bool() | int() | float():
            return _Known((), [form], np.full(1, -1))
    raise Fault(f"{node}: got the argument {form!r}; expected integers or decisions")


def _nothing(node: Node, at: Reader, forms: Sequence[Any], grads: Gradients) -> Parts:
    """Return derivatives of 0 by what is known."""
    values = dict.fromkeys(form["value"] for form in forms if isinstance(form, dict) and "value" in form)
    return [
        (value, [Ends(*([ZERO] * len(at.operand({"value": value}, node).lo) for _ in "ab")) for _ in grads])
        for value in values
    ]


class Whole(Rule):
    """An operation on integers and decisions, element by element."""

    def __init__(self, function: Callable[..., int]) -> None:
        self._function = function

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        self._check(node)
        operands = [_known(form, node, at) for form in node.args]
        try:
            shape = np.broadcast_shapes(*(x.shape for x in operands))
        except ValueError as error:
            raise Fault(f"{node}: its arguments do not fit each other: {error}") from None
        fits(node, shape)
        places = [x.over(shape).ravel() for x in operands]
        rows = zip(*([x.numbers[i] for i in at.tolist()] for x, at in zip(operands, places, strict=True)), strict=True)
        try:
            found = [int(self._function(*row)) for row in rows]
        except (TypeError, ValueError, OverflowError):
            raise NoRule(f"{node}: no rule for these arguments") from None
        if any(abs(number) >= _MOST for number in found):
            raise NoRule(f"{node}: no rule for integers from 2^31")
        owners = one_owner(np.stack([x.owner[at] for x, at in zip(operands, places, strict=True)], -1), node)
        exact, zeros = [arb(number) for number in found], [ZERO] * len(found)
        return Found(tuple(shape), exact, exact, zeros, zeros, zeros, owners)

    def backward(self, node: Node, at: Reader, grads: Gradients) -> Parts:
        return _nothing(node, at, node.args, grads)

    def _check(self, node: Node) -> None:
        plain(node)


class Converts(Whole):
    """A conversion of integers or decisions into a type that holds them, or into decisions."""

    def __init__(self) -> None:
        super().__init__(lambda x: x)

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        kind = node.kwargs.get("dtype")
        if kind not in (None, "torch.bool", "torch.int32", "torch.int64"):
            raise NoRule(f"{node}: no rule for a conversion to {kind}")
        found = super().forward(node, at, stated)
        if kind != "torch.bool":
            return found
        exact = [arb(int(x != 0)) for x in found.lo]
        return found._replace(lo=exact, hi=exact)

    def _check(self, node: Node) -> None:
        plain(node, "dtype", "layout", "device", "memory_format")


class LooksUp(Rule):
    """Rows of a constant, along its first axis, at known places."""

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        table, which = self._read(node, at)
        width = len(table.lo) // max(1, table.shape[0])
        if not all(0 <= number < table.shape[0] for number in which.numbers):
            raise Fault(f"{node}: some places are not those of {table.shape[0]} rows")
        shape = (*which.shape, *table.shape[1:])
        fits(node, shape)
        places = np.asarray(which.numbers, np.int64)[:, None] * width + np.arange(width)
        rows, zeros = taken(table.lo, places), [ZERO] * places.size
        return Found(shape, rows, rows, zeros, zeros, zeros, np.repeat(which.owner, width))

    def backward(self, node: Node, at: Reader, grads: Gradients) -> Parts:
        return _nothing(node, at, node.args, grads)

    @staticmethod
    def _read(node: Node, at: Reader) -> tuple[Operand, _Known]:
        plain(node)
        match node.kind, node.args:
            case "embedding", [{"constant": _} as table, which, *_]:
                pass
            case "index_select at values", [{"constant": _} as table, 0, which]:
                pass
            case _:
                raise NoRule(f"{node}: no rule for these arguments")
        found = at.operand(table, node)
        if not found.shape:
            raise Fault(f"{node}: its constant has no rows")
        return found, _known(which, node, at)


class Picks(Rule):
    """Values of one operand where known decisions hold, and of another elsewhere."""

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        shape, parts, places, owners = self._read(node, at)
        lo, hi, d, e = (
            [*taken([*getattr(parts[0], name), *getattr(parts[1], name)], places)] for name in ("lo", "hi", "d", "e")
        )
        own = [off for x in parts for off in (x.d if x.number is None else [ZERO] * len(x.d))]
        return Found(shape, lo, hi, d, e, taken(own, places), one_owner(owners, node).ravel())

    def backward(self, node: Node, at: Reader, grads: Gradients) -> Parts:
        _, parts, places, _ = self._read(node, at)
        found, first = _nothing(node, at, node.args[:1], grads), 0
        for x in parts:
            size = len(x.lo)
            own = np.where((places >= first) & (places < first + size), places - first, -1)
            if x.number is not None:
                found.append((x.number, [Ends(*(summed_into(size, own, end) for end in g)) for g in grads]))
            first += size
        return found

    @staticmethod
    def _read(node: Node, at: Reader) -> tuple[Shape, list[Operand], Places, Places]:
        """Return the shape, both operands, places of the result in one behind the other, and all owners."""
        plain(node)
        if len(node.args) != 3:
            raise NoRule(f"{node}: no rule for {len(node.args)} arguments")
        decisions = _known(node.args[0], node, at)
        parts = [_either(form, node, at) for form in node.args[1:]]
        try:
            shape = tuple(np.broadcast_shapes(decisions.shape, *(x.shape for x in parts)))
        except ValueError as error:
            raise Fault(f"{node}: its arguments do not fit each other: {error}") from None
        fits(node, shape)
        decided = np.asarray([number != 0 for number in decisions.numbers])[decisions.over(shape)]
        first, second = (spread(x.shape, shape) for x in parts)
        owners = [decisions.owner[decisions.over(shape)], *(x.owner.ravel()[spread(x.shape, shape)] for x in parts)]
        return shape, parts, np.where(decided, first, second + len(parts[0].lo)), np.stack(owners, -1)


def _either(form: Any, node: Node, at: Reader) -> Operand:
    """Return what is picked: a value, a constant, or integers of the code."""
    if not isinstance(form, dict) or "integers" not in form:
        return at.operand(form, node)
    known = _known(form, node, at)
    exact, zeros = [arb(number) for number in known.numbers], [ZERO] * len(known.numbers)
    return Operand(known.shape, exact, exact, zeros, zeros, known.owner)


def _not(x: int) -> int:
    if x not in (0, 1):
        raise ValueError("no decision")
    return 1 - x


_WHOLE: dict[str, Callable[..., int]] = {
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "eq": operator.eq, "ne": operator.ne,
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "bitwise_and": operator.and_,
    "bitwise_or": operator.or_, "bitwise_not": _not, "logical_and": lambda x, y: bool(x) and bool(y),
    "logical_or": lambda x, y: bool(x) or bool(y), "logical_not": operator.not_,
}  # fmt: skip
RULES: dict[str, Rule] = {
    **{f"{name} of integers": Whole(function) for name, function in _WHOLE.items()},
    "_to_copy of integers": Converts(), "embedding": LooksUp(), "index_select at values": LooksUp(), "where": Picks(),
}  # fmt: skip
