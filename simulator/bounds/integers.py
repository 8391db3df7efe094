"""Rules of whole numbers that no rounding reaches, such as token ids and masks, and of what they pick.

(B34) Integers and decisions that are computed of integers of the inputs alone are what torch computes of them: known,
and off by nothing. Others, of boxes or of values with roundings, have no rule. Up to 2^24 they are values of float32
too, so that what mixes them with floats reads them as they are. (B35) Rows of a constant at known places, and values
picked by known decisions, are moved: nothing is rounded but a number in the code, and no margin has a derivative by
what is known.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from simulator.errors import InputError

from .bounded import Bounded
from .graph import AT_VALUES, MOST_WHOLE, OF_INTEGERS, Node, Ref
from .roundings import Rounding
from .rule import Gradients, Interval, Read, Rule, Step, Unit, operand, unbroadcast

_TYPES = (torch.bool, torch.int32, torch.int64)
_MOST_PICKED = 1e6
# What torch computes otherwise than its name says: a sum of decisions is "or", what is not an integer is its bits'.
_OTHERWISE = {("add", True), ("mul", True), ("sub", True), ("bitwise_not", False)}


class Whole(Rule):
    """(B34) An operation on integers and decisions."""

    def forward(self, node: Node, read: Read, unit: Unit) -> list[Step | None]:
        _check_known(node, read, node.inputs)
        assert node.known is not None
        name, is_bool = node.kind.removesuffix(OF_INTEGERS), node.known.dtype == torch.bool
        if node.kwargs.get("alpha", 1) != 1 or len(node.args) > 2 or (name, is_bool) in _OTHERWISE:
            raise InputError(
                f"bounds: {node.path}: {name} of {'decisions' if is_bool else 'integers'} in this way: no rule; "
                "expected sums without alpha, | of decisions and ~ of decisions alone; write it so"
            )
        if node.known.dtype not in _TYPES or (node.known.numel() and int(node.known.long().abs().max()) > MOST_WHOLE):
            raise InputError(
                f"bounds: {node.path}: {node.kind} gives {node.known.dtype}, or numbers beyond {MOST_WHOLE}: no rule; "
                "expected int32, int64 or bool up to that; convert them in the model"
            )
        return [_moved(Bounded.exactly(node.known))]

    def backward(self, node: Node, read: Read, grads: Gradients) -> list[tuple[int, Interval]]:
        return [(number, _nothing(read(number).lo)) for number in dict.fromkeys(node.inputs)]


class LooksUp(Rule):
    """(B35) Rows of a constant, along its first axis, at known places."""

    def forward(self, node: Node, read: Read, unit: Unit) -> list[Step | None]:
        table, places = self._read(node)
        _check_known(node, read, (places,))
        return [_moved(Bounded.exactly(table.detach()[read(places).lo.long()]))]

    def backward(self, node: Node, read: Read, grads: Gradients) -> list[tuple[int, Interval]]:
        _, places = self._read(node)
        return [(places, _nothing(read(places).lo))]

    @staticmethod
    def _read(node: Node) -> tuple[Tensor, int]:
        """Return the constant, and the number of the places."""
        table, *rest = node.args
        axis, places = (0, rest[0]) if node.kind == "embedding" else rest
        if not isinstance(table, Tensor) or not table.is_floating_point() or axis or not isinstance(places, Ref):
            raise InputError(
                f"bounds: {node.path}: {node.kind}: no rule; expected rows of a constant of floats, along its first "
                "axis; write it so"
            )
        return table, places.number


class Picks(Rule):
    """(B35) Values of one operand where known decisions hold, and of another elsewhere."""

    def forward(self, node: Node, read: Read, unit: Unit) -> list[Step | None]:
        r = unit.vector(node.path)
        decided, parts = self._decided(node, read), [_either(arg, read, r) for arg in node.args[1:3]]
        if not all(bool((x.magnitude <= _MOST_PICKED).all()) for x in parts):
            raise InputError(
                f"bounds: {node.path}: {node.kind} picks infinities, values without bounds, or such as -1e38, beside "
                "which a sum keeps nothing: no rule; expected numbers within a million; mask with one such as -1e4"
            )
        first, second = parts
        ends = (first.lo, second.lo), (first.hi, second.hi), (first.d, second.d), (first.e, second.e)
        lo, hi, d, e = (torch.where(decided, a, b) for a, b in ends)
        own, other = (
            torch.zeros_like(x.d) if isinstance(arg, Ref) else x.d for arg, x in zip(node.args[1:3], parts, strict=True)
        )
        return [Step(Bounded(lo, hi, d, e), torch.where(decided, own, other))]

    def backward(self, node: Node, read: Read, grads: Gradients) -> list[tuple[int, Interval]]:
        decided, g = self._decided(node, read), grads[node.outputs[0]]  # type: ignore[index]
        found = []
        for arg, there in zip(node.args[1:3], (decided, ~decided), strict=True):
            if isinstance(arg, Ref):
                own = Interval(torch.where(there, g.lo, 0.0), torch.where(there, g.hi, 0.0))
                found.append((arg.number, unbroadcast(own, read(arg.number).lo.shape)))
        if isinstance(node.args[0], Ref):
            found.append((node.args[0].number, _nothing(read(node.args[0].number).lo)))
        return found

    @staticmethod
    def _decided(node: Node, read: Read) -> Tensor:
        condition = node.args[0]
        if not isinstance(condition, Ref):
            return torch.as_tensor(condition) != 0
        _check_known(node, read, (condition.number,))
        return read(condition.number).lo != 0


def _either(arg: Any, read: Read, r: Rounding) -> Bounded:
    """Return what may be picked; a number in the code may be rounded first."""
    x = operand(arg, read)
    return x if isinstance(arg, Ref | Tensor) else Bounded(x.lo, x.hi, torch.full_like(x.lo, r.of_number(float(arg))))


def _check_known(node: Node, read: Read, numbers: tuple[int, ...]) -> None:
    if not all(read(number).is_exact for number in numbers):
        raise InputError(
            f"bounds: {node.path}: {node.kind} reads integers or decisions that are not known, of boxes or of values "
            "with roundings: no rule; expected inputs that are integers, or computed of these; give points"
        )


def _moved(x: Bounded) -> Step:
    return Step(x, torch.zeros_like(x.d))


def _nothing(x: Tensor) -> Interval:
    return Interval(torch.zeros_like(x), torch.zeros_like(x))


_WHOLE = (
    "lt", "le", "gt", "ge", "eq", "ne", "add", "sub", "mul", "bitwise_and", "bitwise_or", "bitwise_not", "logical_and",
    "logical_or", "logical_not", "_to_copy",
)  # fmt: skip
RULES: dict[str, Rule] = {
    **{f"{name}{OF_INTEGERS}": Whole() for name in _WHOLE},
    **dict.fromkeys(("embedding", f"index_select{AT_VALUES}"), LooksUp()),
    "where": Picks(),
}  # fmt: skip
