"""Linear layers that are two nodes in a file: a product with a weight, and the addition of a bias to it.

So exporters write a linear layer whose input has more than two axes. An array has the bias in its accumulators, and
what reads the sum is what reads the layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .onnx_scope import Constant, Scope, seen_around


def with_biases(
    nodes: Sequence[tuple[int, Any]], scope: Scope, outputs: Sequence[str], formulas: Mapping[str, Tensor]
) -> list[tuple[int, Any]]:
    """Return nodes in order, an Add of a bias as the third input of the MatMul whose product nobody else reads.

    Args:
        nodes: of a graph, with their numbers, in an order in which they can run. scope: of the graph, which knows all
            constants. outputs: names of what the graph returns.
        formulas: what nodes compute of constants alone, by name, perhaps without values.
    """
    readers = Counter(outputs)
    for _, node in nodes:
        readers.update((*node.input, *seen_around(node)))
    adds = {
        product: (number, node, bias)
        for number, node in nodes
        if _is(node, "Add")
        for product, bias in (node.input, reversed(node.input))
    }
    result = {number: (number, node) for number, node in nodes}
    for number, node in nodes:
        if not _is(node, "MatMul") or readers[node.output[0]] != 1 or node.output[0] not in adds:
            continue
        behind, add, bias = adds[node.output[0]]
        constant = scope.constant(bias)
        if _is_linear(scope.constant(node.input[1]), constant.tensor if constant else formulas.get(bias)):
            linear = type(node)()
            linear.CopyFrom(node)
            linear.input.append(bias)
            linear.output[:] = add.output
            # A formula is computed before the sum, and perhaps not before the product.
            here, gone = (number, behind) if constant else (behind, number)
            result[here] = number, linear
            del result[gone]
    return list(result.values())


def _is(node: Any, op: str) -> bool:
    """Whether a node is one of ONNX with two inputs, one output and nothing else."""
    own = node.op_type == op and node.domain in ("", "ai.onnx") and not node.attribute
    return own and (len(node.input), len(node.output)) == (2, 1)


def _is_linear(weight: Constant | None, bias: Tensor | None) -> bool:
    """Whether constants are a matrix of floats and a row with a number for each of its columns, of any axes before."""
    if weight is None or bias is None or weight.tensor.dim() != 2 or not weight.tensor.is_floating_point():
        return False
    row = bias.shape[-1:] == weight.tensor.shape[1:] and bias.numel() == bias.shape[-1]
    return row and bias.dtype == weight.tensor.dtype
