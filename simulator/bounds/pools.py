"""Rule of maximum pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from simulator.errors import InputError

from .bounded import Bounded
from .graph import Node
from .rule import Gradients, Interval, Read, Rule, Step, Unit

_Two = tuple[int, int]


class MaxPool(Rule):
    """(B25) of windows: exact; off by at most the largest error within. On the way back (B26) an input has the
    derivative of a window where it alone can be its maximum, something between 0 and that where it is one of several,
    else 0.
    """

    def forward(self, node: Node, read: Read, unit: Unit) -> list[Step | None]:
        x = read(node.args[0].number)

        def pooled(part: Tensor) -> Tensor:
            return node.func(part, *node.args[1:], **node.kwargs)[0]

        e = pooled(torch.where(x.e < 1, x.e, 1e300))
        found = Bounded(pooled(x.lo), pooled(x.hi), pooled(x.d), torch.where(e < 1, e, torch.inf))
        return [Step(found, torch.zeros_like(found.d)), None]

    def backward(self, node: Node, read: Read, grads: Gradients) -> list[tuple[int, Interval]]:
        number = node.args[0].number
        size, stride, padding, dilation = self._window(node)
        lo, hi = read(number).box
        windows = [_windows(end, size, stride, padding, dilation) for end in (lo, hi)]
        can = windows[1] >= windows[0].amax(1, keepdim=True)
        alone = can.sum(1, keepdim=True) == 1
        g = grads[node.outputs[0]]  # type: ignore[index]
        flat = [end.reshape(lo.shape[0] * lo.shape[1], 1, -1) for end in g]
        down = torch.where(alone, flat[0], flat[0].clamp(max=0)) * can
        up = torch.where(alone, flat[1], flat[1].clamp(min=0)) * can
        shape = lo.shape
        folded = [
            functional.fold(end, shape[-2:], size, dilation, padding, stride).reshape(shape)
            for end in (down, up, torch.maximum(down.abs(), up.abs()))
        ]
        slack = folded[2] * 2.0**-36
        return [(number, Interval(folded[0] - slack, folded[1] + slack))]

    @staticmethod
    def _window(node: Node) -> tuple[_Two, _Two, _Two, _Two]:
        given = node.args[1:]
        defaults: tuple[Any, ...] = ((), (0, 0), (1, 1), False)
        size, stride, padding, dilation, ceil = *given, *defaults[len(given) - 1 :]
        if ceil:
            raise InputError(
                f"bounds: {node.path}: a maximum pool with ceil_mode: no rule; expected one without; write it so"
            )
        return _two(size), _two(stride or size), _two(padding), _two(dilation)


def _two(x: Sequence[int]) -> _Two:
    return x[0], x[-1]


def _windows(x: Tensor, size: _Two, stride: _Two, padding: _Two, dilation: _Two) -> Tensor:
    """Return the windows of an image, (samples * channels, places of a window, windows); -infinity around it."""
    flat = x.reshape(-1, 1, *x.shape[-2:])
    around = functional.pad(flat, (padding[1], padding[1], padding[0], padding[0]), value=-1e300)
    return functional.unfold(around, size, dilation, 0, stride)


RULES: dict[str, Rule] = {"max_pool2d_with_indices": MaxPool()}
