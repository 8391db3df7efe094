"""The backward pass as Ops: which product of the forward pass a gradient belongs to, and its own matrix products.

torch's formulas make of a product y = a b the products dy b^T, the gradient of the first operand (phase "input
gradient"), and a^T dy, that of the second ("weight gradient"); of a convolution likewise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from . import ops
from .ops import INPUT_GRADIENT, WEIGHT_GRADIENT, MatrixProduct, Op

aten = torch.ops.aten

# Origins kept, some hundred bytes each: those of graphs that nobody will go back through need not be told from others.
_KEPT = 1 << 16


class Place:
    """Where an operand begins, which says nothing once its memory is freed and may have been taken by another."""

    def __init__(self, operand: Tensor) -> None:
        self._address, self._memory = operand.data_ptr(), StorageWeakRef(operand.untyped_storage())

    def is_among(self, addresses: set[int]) -> bool:
        """Whether the operand is still there, and begins at one of the addresses."""
        return self._address in addresses and not self._memory.expired()


@dataclass
class Origin:
    """The operation of the forward pass that a node of the autograd graph stands for.

    Args:
        path: of its module. op: name, kind and of which step of a recurrent layer; None if it is no Op.
        shape: (M, N) of its product.
        first, second: where its operands begin. Those that gradients need are kept by the graph, unless hooks for saved
            tensors keep something else in their place.
        turned: whether torch computes the gradients of the two operands turned: b dyᵀ, and dyᵀ a.
        seen: gradients of both operands that were computed so far.
    """

    path: str
    op: tuple[str, str, tuple[int, int] | None] | None = None
    shape: tuple[int, int] = (0, 0)
    first: Place | None = None
    second: Place | None = None
    turned: tuple[bool, bool] = (False, False)
    seen: int = 0


class Origins:
    """Remembers the origins of the nodes of autograd graphs, by their sequence numbers.

    Args:
        all_operations: whether also of operations that are no Ops.
    """

    def __init__(self, all_operations: bool) -> None:
        self.all = all_operations
        self._of: dict[int, Origin] = {}

    def remember(self, path: str, tensors: list[Tensor], op: Op | None) -> None:
        """Note the operation about to run; `tensors` are its arguments, `path` is empty outside of the model.

        Of what is no Op the path is of use to a checkpoint, and to who follows all of the backward pass.
        """
        if op is None and not self.all and torch._C._autograd._top_saved_tensors_default_hooks(True) is None:
            return
        if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in tensors):
            return  # no node was made for it
        origin = Origin(path)
        if op is not None:
            a, b = operands(op, tensors)
            origin = Origin(
                path, (op.name, op.kind, op.step), (op.m, op.n), Place(a), Place(b), _turned_gradients(a, b)
            )
        # What has no derivative makes no node; the last one is that of an earlier operation, and known already.
        self._of.setdefault(torch.autograd._get_sequence_nr() - 1, origin)
        if len(self._of) > _KEPT:
            for old in list(self._of)[: _KEPT // 2]:
                del self._of[old]

    def current(self) -> Origin | None:
        """Return the origin, in a module, of the node whose backward function runs; None if it has none."""
        node = torch._C._current_autograd_node()
        origin = None if node is None else self._of.get(node._sequence_nr())
        return origin if origin is not None and origin.path else None


def operands(op: Op, tensors: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the two factors of an Op's product among the tensors that its operation was given."""
    a, b = tensors[:2] if isinstance(op, ops.Convolution) else tensors[-2:]
    return a, b


# The one that gives several gradients at once: those of the input, of the weight and of the bias.
CONVOLUTION_BACKWARD = aten.convolution_backward.default

# Operations of the backward pass that are products of gradients.
GRADIENTS = (aten.mm.default, aten.bmm.default, aten.mv.default, CONVOLUTION_BACKWARD)

# Nodes that compute the gradient of their second operand before that of the first; others do the first one first.
_SECOND_FIRST = frozenset({"MmBackward0", "BmmBackward0"})


def as_gradients(func: Any, args: tuple[Any, ...], origin: Origin) -> list[Op | None]:
    """Return the Ops of an operation of the backward pass, None in place of results that are none.

    Args:
        func: one of GRADIENTS. origin: of the node whose backward function calls it, with an Op.
    """
    assert origin.op is not None
    found: list[Op | None] = (
        _convolution_gradients(*args) if func is CONVOLUTION_BACKWARD else [_matrix_gradient(args[0], args[1], origin)]
    )
    for op in found:
        if op is not None:
            op.name, op.kind, op.step = origin.op
    return found


def _matrix_gradient(a: Tensor, b: Tensor, origin: Origin) -> MatrixProduct | None:
    """Build the Op of one gradient, which torch computes as it is or transposed."""
    op = ops.matrix_product("", a, b)
    if op is None:
        return None
    m, n = origin.shape
    # The gradient of the first operand runs over the N outputs of a row, that of the second over the M rows.
    if op.k not in (m, n):
        return None
    of_first = _is_of_first(a, b, origin) if m == n else op.k == n
    if of_first:
        op.phase, op.roles = INPUT_GRADIENT, ((1, 0) if origin.turned[0] else (0, 1))
    else:
        op.phase, op.roles, op.gradient = WEIGHT_GRADIENT, (0, 0), (0 if origin.turned[1] else 1)
    return op


def _turned_gradients(a: Tensor, b: Tensor) -> tuple[bool, bool]:
    """Return of both operands whether torch computes the gradient turned.

    It does where a matrix lies column by column, so that the gradient lies so too, and of the second of two vectors,
    whose product is a matrix. Shapes do not tell in square products, nor does memory: an operand can be the gradient of
    the outputs, or gone by the time of the backward pass and its place taken.

    Source: torch/csrc/autograd/FunctionsManual.cpp, mm_mat1_backward and mm_mat2_backward; tools/autograd/
    derivatives.yaml for bmm, mv and addr.
    """
    by_column = [x.dim() == 2 and x.stride() == (1, x.shape[0]) for x in (a, b)]
    return by_column[0], by_column[1] or a.dim() == b.dim() == 1


def _is_of_first(a: Tensor, b: Tensor, origin: Origin) -> bool:
    """Tell the gradients of a product apart that is as high as it is wide.

    Of one operand without a gradient there is nothing to tell apart. Else both operands are kept, and one is multiplied
    here, unless what is kept are copies or the operands are one: then the order in which torch's formulas compute them
    decides.
    """
    node = torch._C._current_autograd_node()
    first, second = (edge is not None for edge, _ in node.next_functions[-2:])
    if first != second:
        return first
    origin.seen += 1
    given = {a.data_ptr(), b.data_ptr()}
    first, second = (place is not None and place.is_among(given) for place in (origin.first, origin.second))
    if first != second:
        return second
    return (origin.seen % 2 == 0) == (node.name() in _SECOND_FIRST)


def _convolution_gradients(
    dy: Tensor, x: Tensor, weight: Tensor, bias_sizes: list[int] | None, stride: list[int], padding: list[int],
    dilation: list[int], transposed: bool, output_padding: list[int], groups: int, mask: list[bool],
) -> list[Op | None]:  # fmt: skip
    axes = x.dim() - 2
    stride, padding, dilation = (list(s) * axes if len(s) == 1 else list(s) for s in (stride, padding, dilation))
    to_input = to_weight = None
    if mask[0]:
        behind = [0] * axes
        if not transposed:
            sizes = zip(x.shape[2:], dy.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
            behind = [size - ((to - 1) * s - 2 * p + d * (k - 1) + 1) for size, to, k, s, p, d in sizes]
        to_input = ops.convolution(dy, weight, None, stride, padding, dilation, not transposed, behind, groups)
        if to_input is not None and to_input.spatial != tuple(x.shape[2:]):
            to_input = None
        if to_input is not None:
            to_input.phase = INPUT_GRADIENT
    if mask[1]:
        # A transposed convolution is the gradient of a plain one, so that image and gradient change places.
        image, outputs = (dy, x) if transposed else (x, dy)
        to_weight = ops.kernel_gradient(image, outputs, weight, stride, padding, dilation, groups)
        if to_weight is not None:
            to_weight.gradient = 0 if transposed else 1
    return [to_input, to_weight, None]
