"""Steered: a network every rounding of which is off by u times a number in [-1, 1] of one's choice, in float64.

Products and sums are rounded in order, one after the other; torch differentiates the outputs by the choices, so that
the worst ones can be looked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_map

from simulator.bounds.graph import Graph, Node, Ref


class Steered:
    """The graph of a network with steered roundings.

    Args:
        graph: of the network. u: of all roundings.
    """

    def __init__(self, graph: Graph, u: float) -> None:
        self.graph, self.u = graph, u
        self.turns: list[Tensor] = []  # in [-1, 1], of each rounding; empty before the first run
        self._next = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs for inputs in float64."""
        values: dict[int, Tensor] = {self.graph.inputs[0]: x}
        self._next = 0

        def read(leaf: Any) -> Any:
            if isinstance(leaf, Ref):
                return values[leaf.number]
            return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

        for node in self.graph.nodes:
            args = tree_map(read, node.args, is_leaf=lambda leaf: isinstance(leaf, Ref))
            y = self._run(node, args, dict(node.kwargs))
            assert node.outputs[0] is not None
            values[node.outputs[0]] = y
        return values[self.graph.output]

    def _run(self, node: Node, args: list[Any], kwargs: dict[str, Any]) -> Tensor:
        match node.kind:
            case "mm" | "bmm":
                return self._product(args[0], args[1], None)
            case "addmm" | "baddbmm":
                return self._product(args[1], args[2], args[0])
            case "convolution":
                return self._convolution(args)
            case "_softmax" | "_safe_softmax":
                return self._softmax(args[0], args[1])
            case "native_layer_norm":
                return self._layer_norm(args[0], args[2], args[3], args[4], len(args[1]))
            case "native_batch_norm":
                return self._batch_norm(*args[:5], args[7])
            case "mean":
                terms = args[0].flatten(1) if len(args) == 1 else args[0].movedim(args[1][0], -1)
                return self._off(self._sum(terms, -1) / terms.shape[-1])
            case "relu" | "max_pool2d_with_indices" | "abs" | "neg" | "maximum" | "minimum":
                found = node.func(*args, **kwargs)
                return found if isinstance(found, Tensor) else found[0]
            case kind if kind in _MOVES:
                return args[0].reshape(args[1]) if "view" in kind else node.func(*args)
            case kind if kind in _ROUNDED:
                return self._off(node.func(*args, **kwargs))
        raise AssertionError(f"{node.kind} is not steered")

    def _off(self, x: Tensor) -> Tensor:
        """Return the rounding of an exact result."""
        if self._next == len(self.turns):
            self.turns.append(torch.zeros_like(x).requires_grad_())
        turn = self.turns[self._next]
        self._next += 1
        return x * (1.0 + self.u * turn)

    def _sum(self, x: Tensor, dim: int) -> Tensor:
        first, *others = x.unbind(dim)
        for term in others:
            first = self._off(first + term)
        return first

    def _product(self, a: Tensor, b: Tensor, c: Tensor | None) -> Tensor:
        shape = torch.broadcast_shapes(a.shape[:-1], (*b.shape[:-2], a.shape[-2])) + b.shape[-1:]
        state = None if c is None else self._off(c.expand(shape))
        for k in range(a.shape[-1]):
            term = self._off(a[..., :, k, None] * b[..., None, k, :])
            state = term if state is None else self._off(state + term)
        assert state is not None
        return state

    def _convolution(self, args: list[Any]) -> Tensor:
        x, w, b, stride, padding, dilation, _, _, groups = args
        assert groups == 1
        windows = functional.unfold(x, w.shape[2:], dilation, padding, stride).transpose(1, 2)
        y = self._product(windows, w.flatten(1).T.expand(len(x), -1, -1), b)
        size = [(x.shape[2 + i] + 2 * padding[i] - dilation[i] * (w.shape[2 + i] - 1) - 1) // stride[i] + 1
                for i in (0, 1)]  # fmt: skip
        return y.transpose(1, 2).unflatten(2, size)

    def _softmax(self, x: Tensor, dim: int) -> Tensor:
        e = self._off(self._off(x - x.amax(dim, keepdim=True)).exp())
        return self._off(e / self._sum(e, dim).unsqueeze(dim))

    def _layer_norm(self, x: Tensor, g: Tensor | None, b: Tensor | None, eps: float, dims: int) -> Tensor:
        assert dims == 1 and g is not None and b is not None
        n, off = x.shape[-1], self._off
        deviation = off(x - off(self._sum(x, -1) / n).unsqueeze(-1))
        variance = off(self._sum(off(deviation.square()), -1) / n).unsqueeze(-1)
        return off(off(off(deviation * off(1.0 / off(torch.sqrt(off(variance + eps))))) * g) + b)

    def _batch_norm(self, x: Tensor, g: Tensor, b: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
        shape, off = (1, -1, *(1,) * (x.dim() - 2)), self._off
        scale = off(g * off(1.0 / off(torch.sqrt(off(variance + eps))))).reshape(shape)
        return off(off(off(x - mean.reshape(shape)) * scale) + b.reshape(shape))


_MOVES = frozenset({
    "view", "_unsafe_view", "t", "transpose", "permute", "expand", "clone", "select", "cat", "slice", "unsqueeze",
    "squeeze", "detach", "alias", "split",
})  # fmt: skip
_ROUNDED = frozenset({"add", "sub", "mul", "div", "tanh", "sigmoid", "gelu", "silu", "exp"})

Objective = Callable[[Tensor], Tensor]  # of outputs (samples, classes), by sample


def ascend(steered: Steered, x: Tensor, objective: Objective, steps: int) -> Tensor:
    """Return outputs for roundings that make the objective large: each goes to the end to which the gradient points.

    Args:
        steps: how often the gradient is asked; the first one is at exact arithmetic.
    """
    best, best_output = torch.full((len(x),), -torch.inf, dtype=torch.float64), steered(x).detach()
    for turn in steered.turns:
        turn.data.zero_()
    for _ in range(steps):
        found = objective(steered(x)).sum()
        grads = torch.autograd.grad(found, steered.turns, allow_unused=True)
        for turn, grad in zip(steered.turns, grads, strict=True):
            if grad is not None:
                turn.data = torch.where(grad == 0, turn.data, grad.sign())
        with torch.no_grad():
            y = steered(x)
            own = objective(y)
            better = own > best
            best_output[better], best[better] = y[better], own[better]
    return best_output
