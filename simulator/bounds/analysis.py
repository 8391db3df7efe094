"""The analysis of a network: bounds of every value on the way forward, and of margins on the way back.

(B40) Forward: every operation by its rule, in the order of the graph. (B41) Of two outputs i and j with exact values
z_i above z_j the order cannot change if z_i - z_j > d_i + d_j. (B42) Adjoint: replace the exact operations by the
computed ones, one after the other; each step changes z_i - z_j by at most the local error of the operation times the
largest derivative of what follows, anywhere between exact and computed values, by the mean value theorem (of Clarke,
where there are kinks). The boxes of the forward pass hold all these values. So the margin changes by at most
B = sum |g| local, over the elements that belong to its sample (B43, see owners.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from simulator.errors import InputError

from . import binary, integers, moves, normal, pools, products, unary
from .bounded import Bounded
from .graph import AT_VALUES, OF_INTEGERS, Graph, Node, with_roundings
from .outward import grown
from .owners import owners
from .refused import without_rule
from .rule import Interval, Rule, Unit

RULES: Mapping[str, Rule] = {
    **moves.RULES, **unary.RULES, **binary.RULES, **pools.RULES, **normal.RULES, **products.RULES,
    **integers.RULES,
}  # fmt: skip


@dataclass(frozen=True)
class Forward:
    """Bounds of every value of a graph by number, and the local errors of the operations that made them."""

    graph: Graph
    values: Mapping[int, Bounded]
    locals: Mapping[int, Tensor]

    @property
    def output(self) -> Bounded:
        """Bounds of the output."""
        return self.values[self.graph.output]

    @cached_property
    def owners(self) -> Mapping[int, Tensor]:
        """Sample of every element, by number of the value (B43).

        Raises:
            InputError: samples are mixed.
        """
        return owners(self.graph, {number: x.lo.shape for number, x in self.values.items()})


def check(graph: Graph) -> None:
    """Raise InputError that names every operation of a graph without a rule."""
    unknown = [node for node in graph.nodes if node.kind not in RULES and _is_used(graph, node)]
    for node in unknown:
        if refusal := without_rule(node.path, graph.modules):
            raise InputError(refusal)
    if unknown:
        names = dict.fromkeys(f"{node.kind} in {node.path}" for node in unknown)
        whole = any(node.kind.endswith((OF_INTEGERS, AT_VALUES)) for node in unknown)
        raise InputError(
            f"bounds: no rule for {', '.join(names)}; expected operations of docs/theory/bounds.md; leave the others "
            f"out of the model{', or give what they make of token ids or masks as another input' if whole else ''}"
        )


def _is_used(graph: Graph, node: Node) -> bool:
    read = {number for other in graph.nodes for number in other.inputs} | {graph.output}
    return any(number in read for number in node.outputs)


def forward(graph: Graph, inputs: Sequence[Bounded], unit: Unit) -> Forward:
    """Return bounds of every value. Upper bounds, for all exact inputs within those of `inputs`.

    Args:
        inputs: of the graph, in its order.
    Raises:
        InputError: an operation without a rule.
    """
    graph = with_roundings(graph, [x.lo.shape for x in inputs], unit.held)
    values = dict(zip(graph.inputs, inputs, strict=True))
    local = {number: x.d for number, x in values.items()}
    for node in graph.nodes:
        rule = RULES.get(node.kind)
        # What has no rule may be there as long as nothing reads it, as the statistics of a normalisation.
        if rule is None or any(number not in values for number in node.inputs):
            if _is_used(graph, node):
                check(graph)
                raise InputError(
                    f"bounds: {node.path}: {node.kind} reads what has no bounds, such as indices: no rule; expected "
                    "values; leave it out of the model"
                )
            continue
        for number, step in zip(node.outputs, rule.forward(node, values.__getitem__, unit), strict=False):
            if number is not None and step is not None:
                values[number], local[number] = step
    return Forward(graph, values, local)


@dataclass(frozen=True)
class Margins:
    """How much the differences between the top output and each other one may change.

    Args:
        bound: (samples, classes), B of each; 0 of the top class. parts: by name of the operation, likewise.
    """

    bound: Tensor
    parts: Mapping[str, Tensor]


def margins(found: Forward, top: Tensor) -> Margins:
    """Return bounds of the changes of z_top - z_j, (B42).

    Args:
        top: (samples,) class of each sample.
    """
    classes, owner = found.output.lo.shape[1], found.owners
    bounds, parts = [], []
    for j in range(classes):
        by_part = _adjoint(found, _seed(top, j, classes), owner)
        same = top == j
        parts.append({name: torch.where(same, 0.0, part) for name, part in by_part.items()})
        bounds.append(grown(torch.stack(list(parts[-1].values())).sum(0)) * (~same))
    names = parts[0]
    return Margins(torch.stack(bounds, 1), {name: torch.stack([one[name] for one in parts], 1) for name in names})


def adjoints(found: Forward, top: Tensor) -> dict[int, dict[int, Interval]]:
    """Return the derivatives of z_top - z_j with respect to every value, by j and by number of the value."""
    classes, owner = found.output.lo.shape[1], found.owners
    every: dict[int, dict[int, Interval]] = {}
    for j in range(classes):
        every[j] = {}
        _adjoint(found, _seed(top, j, classes), owner, every[j])
    return every


def _seed(top: Tensor, j: int, classes: int) -> Interval:
    seed = torch.nn.functional.one_hot(top, classes).double()
    seed[:, j] -= 1.0
    return Interval(seed, seed.clone())


def _adjoint(
    found: Forward, seed: Interval, owner: Mapping[int, Tensor], kept: dict[int, Interval] | None = None
) -> dict[str, Tensor]:
    """Return what each operation adds to B, (samples,), by name.

    Args:
        owner: sample of every element, by number of the value. kept: receives the derivatives with respect to each
            value.
    """
    grads: dict[int, Interval] = {found.graph.output: seed}
    parts: dict[str, Tensor] = {}
    samples = seed.lo.shape[0]

    def count(name: str, number: int) -> None:
        local = found.locals[number]
        if number in grads and bool((local != 0).any()):
            sizes = torch.where(local == 0, 0.0, grads[number].magnitude * local)
            each = torch.zeros(samples, dtype=torch.float64)
            each = grown(each.index_add(0, owner[number].reshape(-1), sizes.reshape(-1)), sizes.numel())
            parts[name] = parts[name] + each if name in parts else each

    for node in reversed(found.graph.nodes):
        known = [number for number in node.outputs if number in grads]
        if not known:
            continue
        for number in known:
            count(node.layer or f"{node.path}: {node.kind}", number)
        for number, interval in RULES[node.kind].backward(node, found.values.__getitem__, grads):
            before = grads.get(number)
            grads[number] = (interval if before is None else before.plus(interval)).known()
        for number in known:
            if kept is not None:
                kept[number] = grads[number]
            del grads[number]
    for number in found.graph.inputs:
        count("input", number)
    if kept is not None:
        kept |= grads
    return parts or {"input": torch.zeros(samples, dtype=torch.float64)}
