"""What the outputs of a network say, going back, of the outputs of its layers: gradients along random signs.

The mean square of such a gradient is that of all outputs of the network (Hutchinson's estimate of a sum of squares).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .batches import passes
from .fit import refused_failures
from .ops import INPUT_GRADIENT, Convolution, Op
from .outputs import output_of
from .tap import Tap


def go_back(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    execute: Callable[[Op], Tensor | None],
    signs: torch.Generator,
    probes: int,
) -> None:
    """Run a network once forward, and back from its outputs so often, if these depend on anything by a gradient.

    Args:
        args, kwargs: of one forward pass. execute: what a tap asks of each Op, forward and back.
        signs: draws those of the outputs, along which it goes back.
    """
    with _differentiable(model, args, kwargs) as (own_args, own_kwargs, leaves), Tap(model, execute):
        y = output_of(model(*own_args, **own_kwargs))
        for probe in range(probes if y.requires_grad and leaves else 0):
            along = torch.randint(0, 2, y.shape, generator=signs) * 2 - 1
            torch.autograd.grad(y, leaves, along.to(y.dtype), retain_graph=probe < probes - 1, allow_unused=True)


def squares(op: Op) -> NDArray[np.float64] | float:
    """Return the sums of squares of the gradients that an Op of the way back begins with, by column."""
    dy = op.operands[0].astype(np.float64)
    if op.batched:
        return float((dy * dy).sum())
    found: NDArray[np.float64] = (dy * dy).sum(axis=(0, *range(3, dy.ndim)) if isinstance(op, Convolution) else 1)
    return found.ravel()


def reaches_layers(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Return whether any gradient of the outputs comes back to a layer; it does not through rounding or argmax.

    Args:
        model: in the mode in which it will run. args, kwargs: samples, as of a forward pass.
    Raises:
        InputError: the network does not take all of them.
    """
    reached = False

    def look(op: Op) -> None:
        nonlocal reached
        reached = reached or (op.phase == INPUT_GRADIENT and bool(np.any(squares(op))))

    signs = torch.Generator().manual_seed(0)
    for part, named in passes(model, args, kwargs):
        if not reached:
            with refused_failures("samples", model, part, named):
                go_back(model, part, named, look, signs, 1)
    return reached


@contextmanager
def _differentiable(model: nn.Module, args: Any, kwargs: Any) -> Iterator[tuple[Any, Any, list[Tensor]]]:
    """Give copies of the inputs that have gradients, or where none is a float, parameters that have."""
    leaves: list[Tensor] = []
    copies: dict[int, Tensor] = {}  # an input given twice stays one

    def copy(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            return leaf
        if id(leaf) not in copies:
            leaves.append(leaf.detach().clone().requires_grad_())
            copies[id(leaf)] = leaves[-1].clone()  # in which a model may write
        return copies[id(leaf)]

    frozen = []
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        args, kwargs = tree_map(copy, (args, dict(kwargs)))
        if not leaves:
            parameters = [p for p in tree_leaves(list(model.parameters())) if p.is_floating_point()]
            frozen = [p for p in parameters if not p.requires_grad]
            leaves += parameters
        try:
            for p in frozen:
                p.requires_grad_(True)
            yield args, kwargs, leaves
        finally:
            for p in frozen:
                p.requires_grad_(False)
