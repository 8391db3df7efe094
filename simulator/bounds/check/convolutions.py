"""Rules of convolutions, plain and transposed, along one to three axes: each group a block of dot products, by (C10).

(C12) Transposed, output o along an axis is the sum over taps k of what the input has at i, i stride = o + padding -
k dilation, nothing where there is no such i: a sum of as many products as there are taps, some of them zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .balls import Places
from .document import Fault, Node, NoRule
from .dots import Block
from .places import Shape, all_of, crossed, positions, setting
from .products import Products
from .rule import Operand, Rule


class Convolutions(Products):
    """A convolution."""

    def __init__(self) -> None:
        super().__init__(0, 1, 2, dimensions=0, arguments=9)

    def blocks(self, node: Node, a: Operand, b: Operand, c: Operand | None) -> tuple[Shape, list[Block]]:
        dims, transposed, groups = len(a.shape) - 2, node.args[6], node.args[8]
        if dims < 1 or len(b.shape) != len(a.shape) or not isinstance(transposed, bool):
            raise NoRule(f"{node}: no rule for shapes {list(a.shape)} and {list(b.shape)}")
        # Weights lie by output and input channels of a group; transposed, by input and output channels.
        first, second, *size = b.shape
        if not isinstance(groups, int) or groups < 1 or first % groups:
            raise NoRule(f"{node}: no rule for shapes {list(a.shape)} and {list(b.shape)} in {groups} groups")
        inputs, outputs = (first // groups, second) if transposed else (second, first // groups)
        if a.shape[1] != inputs * groups or (c is not None and c.shape != (outputs * groups,)):
            raise NoRule(f"{node}: no rule for shapes {list(a.shape)} and {list(b.shape)} in {groups} groups")
        if len(node.shapes[0]) != len(a.shape):
            raise Fault(f"{node}: its result has the shape {list(node.shapes[0])}; expected images")
        read = crossed(a.shape, _axes(node, a.shape[2:], tuple(size), transposed))
        shape = (a.shape[0], outputs * groups, *read.shape[2:-1])
        weights = all_of((groups, inputs if transposed else outputs, *b.shape[1:2], *size))
        if transposed:
            weights = weights.swapaxes(1, 2)  # groups, outputs, inputs
        out, found = all_of(shape), []
        for group in range(groups):
            some = slice(group * outputs, (group + 1) * outputs)
            part = np.moveaxis(read[:, group * inputs : (group + 1) * inputs], 1, -2)
            places = np.moveaxis(out[:, some], 1, -1).reshape(-1, outputs)
            of_c = None if c is None else np.broadcast_to(np.arange(outputs * groups)[some], places.shape)
            own = weights[group].reshape(outputs, -1).T
            found.append(Block(part.reshape(places.shape[0], -1), own, places, of_c))
        return shape, found


def _axes(node: Node, image: Shape, size: Shape, transposed: bool) -> list[Places]:
    """Return what each output along each axis reads."""
    dims = len(image)
    stride, padding, dilation, more = (
        setting(node.args[i], node, dims, least) for i, least in ((3, 1), (4, 0), (5, 1), (7, 0))
    )
    counts = node.shapes[0][2:]
    given: list[tuple[Any, ...]] = list(zip(image, size, stride, padding, dilation, counts, strict=True))
    if not transposed:
        return [positions(node, *one) for one in given]
    found = []
    for (n, k, step, pad, gap, count), extra in zip(given, more, strict=True):
        if count != (n - 1) * step - 2 * pad + gap * (k - 1) + extra + 1:
            raise Fault(f"{node}: {count} outputs do not fit an axis of {n}, spread by taps of {k}")
        at = np.arange(count)[:, None] + pad - np.arange(k)[None, :] * gap
        found.append(np.where((at % step == 0) & (at >= 0) & (at < n * step), at // step, -1))
    return found


RULES: dict[str, Rule] = {"convolution": Convolutions()}
