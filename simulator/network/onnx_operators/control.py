"""Operators that choose and repeat: If, Loop, Scan; and those that hand on what they hold or are given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from simulator.network.limits import check_fits

from .registry import Declined, Graph, Node, Value, operator

# Rounds after which a loop is taken for one without end.
MAX_ROUNDS = 1 << 17


@operator("Constant")
def _constant(node: Node) -> Tensor:
    if len(node.attributes) == 1:
        ((name, value),) = node.attributes.items()
        if name == "value" and isinstance(value, Tensor):
            return value
        if name in ("value_int", "value_ints"):
            return torch.tensor(value, dtype=torch.int64)
        if name in ("value_float", "value_floats"):
            return torch.tensor(value, dtype=torch.float32)
    given = ", ".join(node.attributes) or "nothing"
    raise Declined(f"a constant given by {given}, where it is to be one of value, value_float(s) and value_int(s)")


@operator("Identity")
def _identity(node: Node, x: Value) -> Value:
    return x


@operator("If")
def _if(node: Node, condition: Tensor) -> tuple[Value, ...]:
    branch: Graph = node.get("then_branch" if _truth(condition) else "else_branch")
    return tuple(branch())


@operator("Loop")
def _loop(node: Node, rounds: Tensor | None = None, condition: Tensor | None = None, *state: Value) -> tuple[Any, ...]:
    body: Graph = node.get("body")
    limit = None if rounds is None else int(rounds)
    goes_on = condition is None or _truth(condition)
    values, scanned = list(state), _Scanned()
    done = 0
    while goes_on and (limit is None or done < limit):
        if done == MAX_ROUNDS:
            raise Declined(f"a loop that has not ended after {MAX_ROUNDS:,} rounds")
        flag, *outputs = body(torch.tensor(done), torch.tensor(True), *values)
        goes_on = _truth(flag)
        values = outputs[: len(state)]
        scanned.add(outputs[len(state) :])
        done += 1
    if not done:
        _decline_no_round(node, len(state))
    return (*values, *scanned.stacked([0] * scanned.count))


@operator("Scan", since=9)
def _scan(node: Node, *inputs: Tensor) -> tuple[Any, ...]:
    body: Graph = node.get("body")
    count = node.get("num_scan_inputs")
    if not 0 < count <= len(inputs):
        raise Declined(f"{count} of {len(inputs)} inputs to scan")
    values, sequences = list(inputs[:-count]), inputs[-count:]
    axes = node.get("scan_input_axes", [0] * count)
    backward = node.get("scan_input_directions", [0] * count)
    if len(axes) != count or len(backward) != count:
        raise Declined(f"{len(axes)} axes and {len(backward)} directions for {count} inputs to scan")
    lengths = {x.shape[axis] for x, axis in zip(sequences, axes, strict=True)}
    if len(lengths) > 1:
        raise Declined(f"inputs to scan of the lengths {', '.join(map(str, sorted(lengths)))}")
    (length,) = lengths
    states, scanned = len(values), _Scanned()
    for i in range(length):
        elements = [
            x.select(axis, length - 1 - i if flip else i)
            for x, axis, flip in zip(sequences, axes, backward, strict=True)
        ]
        outputs = body(*values, *elements)
        values = outputs[:states]
        scanned.add(outputs[states:])
    if not length:
        _decline_no_round(node, states)
    directions = node.get("scan_output_directions", [0] * scanned.count)
    scanned.flip(directions)
    return (*values, *scanned.stacked(node.get("scan_output_axes", [0] * scanned.count)))


class _Scanned:
    """What the rounds of a loop give one by one, to be stacked."""

    def __init__(self) -> None:
        self._parts: list[list[Tensor]] = []
        self._bytes = 0

    @property
    def count(self) -> int:
        return len(self._parts)

    def add(self, outputs: list[Value]) -> None:
        self._parts = self._parts or [[] for _ in outputs]
        for parts, value in zip(self._parts, outputs, strict=True):
            if not isinstance(value, Tensor):
                raise Declined("a sequence to be stacked")
            self._bytes += 2 * value.numel() * value.element_size()
            check_fits("what a loop gives in all its rounds", self._bytes, 1)
            parts.append(value.clone())

    def flip(self, backward: list[int]) -> None:
        self._parts = [parts[::-1] if flip else parts for parts, flip in zip(self._parts, backward, strict=True)]

    def stacked(self, axes: list[int]) -> list[Tensor]:
        return [torch.stack(parts, axis) for parts, axis in zip(self._parts, axes, strict=True)]


def _decline_no_round(node: Node, states: int) -> None:
    """Refuse to stack nothing: only a round shows the shape of its outputs."""
    if len(node.outputs) > states:
        raise Declined("a loop without a round, whose stacked outputs have no known shape")


def _truth(condition: Tensor) -> bool:
    if condition.numel() != 1:
        raise Declined(f"a condition of shape {tuple(condition.shape)}, where it is to be one")
    return bool(condition)
