"""Products of matrices."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .carriers import computing
from .registry import Node, operator


@operator("MatMul")
@computing
def matmul(node: Node, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the product as numpy.matmul has it; with the bias that the file adds to it, a linear layer."""
    return torch.matmul(a, b) if bias is None else nn.functional.linear(a, b.mT, bias)


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
    """Return the sum of products that an equation such as "bij,bjk->bik" names."""
    return torch.einsum(node.get("equation"), *inputs)


@operator("Det")
def determinant(node: Node, x: Tensor) -> Tensor:
    """Return the determinant of each matrix, in float32 at least."""
    wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
    return torch.linalg.det(wide).to(x.dtype)
