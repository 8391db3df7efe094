"""What follows a product, as the graph shows it: on it the score of a first pass depends, and so which outputs the
second pass computes again.

A machine scores outputs by the condition number of the only operation that reads them, followed through views and
copies; of none and of several readers, the network's output being one, and of readers that are no activation or read a
part, it takes the identity. Behind a batch normalisation the score is another one, of which no rule is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from .document import Fault, Node, NoRule

FLAGGING = ("identity", "leaky_relu", "relu")  # of which (C13) says what they flag
_ACTIVATIONS = ("relu", "leaky_relu", "tanh", "sigmoid", "silu", "gelu", "exp")
_SAME_VALUES = frozenset({
    "view", "_unsafe_view", "reshape", "_reshape_alias", "t", "transpose", "permute", "squeeze", "unsqueeze", "slice",
    "select", "expand", "clone", "detach", "alias", "lift_fresh", "diagonal", "split", "split_with_sizes", "unbind",
    "_to_copy", "round to format",
})  # fmt: skip


def check_activation(node: Node, nodes: Sequence[Node], output: int) -> None:
    """Fault where a second pass is said to follow an activation that the graph does not have behind the product.

    Args:
        nodes: of the graph. output: number of its output.
    """
    stated = "" if node.second is None else node.second.activation
    if stated not in FLAGGING:
        return  # of which nothing is taken to be flagged
    number, size = node.outputs[0], math.prod(node.shapes[0])
    found = [] if number is None else list(_readers(number, size, nodes, output))
    if len(found) == 1 and "batch_norm" in found[0]:
        raise NoRule(f"{node}: no rule for what a second pass computes again before {found[0]}")
    shown = found[0] if len(found) == 1 else "identity"
    if stated != shown:
        raise Fault(f"{node}: second: got the activation {stated}; the graph has {shown} behind it")


def _readers(number: int, size: int, nodes: Sequence[Node], output: int) -> Iterator[str]:
    """Yield for each operation that reads a value the activation that it is, or its name if it normalises."""
    if number == output:
        yield "identity"
    for node in nodes:
        if number not in node.inputs:
            continue
        if node.kind in _SAME_VALUES:
            for other in node.outputs:
                if other is not None:
                    yield from _readers(other, size, nodes, output)
        elif "batch_norm" in node.kind:
            yield node.kind
        else:
            yield _activation(node, size)


def _activation(node: Node, size: int) -> str:
    if node.kind not in _ACTIVATIONS or math.prod(node.shapes[0]) < size:
        return "identity"
    slope = [*node.args, 0.01][1]
    return "relu" if node.kind == "leaky_relu" and slope == 0 else node.kind
