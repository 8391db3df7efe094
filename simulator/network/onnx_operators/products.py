"""Products of matrices."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .axes import fitting
from .carriers import computing
from .registry import Declined, Node, operator

# In an equation of Einsum: a label of an axis, or what stands for all axes without one.
_OTHERS = "..."
_LABEL = re.compile(r"\.\.\.|[A-Za-z]")
_EQUATION = re.compile(rf"(?:{_LABEL.pattern}|,)*(?:->(?:{_LABEL.pattern})*)?")


@operator("MatMul")
@computing
def matmul(node: Node, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the product as numpy.matmul has it; with the bias that the file adds to it, a linear layer.

    Args:
        bias: (..., N), a row that may have more axes than the product, which are the sum's too.
    """
    if bias is None:
        return torch.matmul(a, b)
    result = nn.functional.linear(a, b.mT, bias.reshape(-1) if bias.dim() > 1 else bias)
    return (
        result.reshape([1] * (bias.dim() - result.dim()) + list(result.shape)) if bias.dim() > result.dim() else result
    )


@operator("Gemm")
@computing
def gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """Return alpha A B + beta C, A and B transposed if asked for."""
    a = a.t() if node.get("transA", 0) else a
    b = b.t() if node.get("transB", 0) else b
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    if not a.is_floating_point():
        product = (alpha * torch.mm(a, b)).to(a.dtype)
        return product if c is None else product + (beta * c).to(a.dtype)
    if c is None:
        product = torch.mm(a, b)
        return product if alpha == 1 else alpha * product
    return torch.addmm(c, a, b, alpha=alpha, beta=beta)


@operator("Einsum")
@computing
def einsum(node: Node, *inputs: Tensor) -> Tensor:
    """Return the sum of products that an equation such as "bij,bjk->bik" names, one operand after the other.

    Raises:
        Declined: the equation is none, or not of these operands.
        InputError: the result, or what several operands come to on the way to it, does not fit in memory.
    """
    equation = node.get("equation").replace(" ", "")
    given, arrow, output = equation.partition("->")
    terms = [_LABEL.findall(term) for term in given.split(",")]
    counts = Counter(itertools.chain(*terms))
    implied = sorted(label for label, count in counts.items() if count == 1 or label == _OTHERS)
    wanted = _LABEL.findall(output) if arrow else implied
    fits = len(terms) == len(inputs) and all(map(_fits, terms, inputs)) and set(wanted) <= set(counts)
    if not fits or not _EQUATION.fullmatch(equation):
        raise Declined(f"an equation {equation!r} for operands of {', '.join(str(x.dim()) for x in inputs)} axes")
    if len(inputs) == 1:
        return torch.einsum(equation, *inputs)
    shapes = _shapes(terms, inputs)
    result, labels = inputs[0], terms[0]
    for place, x in enumerate(inputs[1:], 1):
        later = set(wanted).union(*terms[place + 1 :])
        both = [label for label in dict.fromkeys(labels + terms[place]) if label in later]
        kept = both if place + 1 < len(inputs) else wanted
        fitting(itertools.chain(*(shapes[label] for label in kept)), x.dtype)
        result = torch.einsum(",".join(map("".join, (labels, terms[place]))) + "->" + "".join(kept), result, x)
        labels = kept
    return result


def _fits(term: list[str], x: Tensor) -> bool:
    """Whether a term of an equation has a label for each axis of its operand."""
    return len(term) == x.dim() if _OTHERS not in term else len(term) - 1 <= x.dim()


def _shapes(terms: Sequence[list[str]], inputs: Sequence[Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the lengths of the axes that each label stands for: of one axis, or of all those that have no label."""
    shapes: dict[str, tuple[int, ...]] = {}
    for term, x in zip(terms, inputs, strict=True):
        lengths = iter(x.shape)
        for label in term:
            axes = x.dim() - len(term) + 1 if label == _OTHERS else 1
            own = tuple(itertools.islice(lengths, axes))
            shapes[label] = tuple(torch.broadcast_shapes(shapes.get(label, ()), own))
    return shapes


@operator("Det")
def determinant(node: Node, x: Tensor) -> Tensor:
    """Return the determinant of each matrix, in float32 at least."""
    wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
    return torch.linalg.det(wide).to(x.dtype)
