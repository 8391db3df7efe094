"""Scaled Ops: operands divided by their scales, and the factors by which the accumulated products are multiplied."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from formats import Use
from simulator.errors import InputError
from simulator.hardware import Scaling

from .layer_arithmetic import Arithmetic
from .model_scales import ModelScales
from .ops import Axes, Op
from .scales import Magnitudes, chosen, measured, needs_histogram

Array = NDArray[Any]
Keep = Callable[[Any, Callable[[], Array]], Array]


class Scaled(NamedTuple):
    """An Op with operands divided by their scales, and the way back.

    Args:
        op: without an addend, which joins in float32 when the scales have been multiplied in.
        left: factors (gemms or 1, M or 1, parts or 1). right: factors (gemms or 1, parts or 1, N or 1); float32.
        parts: slices of K that are accumulated apart, their sums added in float32 in this order.
    """

    op: Op
    left: Array
    right: Array
    parts: tuple[slice, ...]


def scales_of(x: Array, axes: Axes, use: Use, scaling: Scaling, which: int, known: Calibration | None = None) -> Array:
    """Return the scales of an operand: an axis for each of its own, of length 1 where they are shared.

    Args:
        which: 0 for operand a, 1 for b. known: what calibrated scales come from.
    """
    kept = _kept(axes, scaling, which)
    if scaling.when == "calibrated":
        assert known is not None
        found = [chosen(magnitudes, use, scaling) for magnitudes in known.magnitudes]
    else:
        found = [measured(_cells(part, kept), use, scaling) for part in _blocks(x, axes.inner, scaling)]
    shape = [size if axis in kept else 1 for axis, size in enumerate(x.shape)]
    if scaling.per == "block":
        shape[axes.inner] = 1
    if any(part.size != math.prod(shape) for part in found):
        raise InputError(
            f"scales per {scaling.per}: calibrated for another number of channels than the {x.shape[axes.inner]} at "
            "hand; expected as many; make the scales dynamic"
        )
    return np.concatenate([part.reshape(shape) for part in found], axis=axes.inner)


def _over(x: Array, scales: Array, axes: Axes, scaling: Scaling | ModelScales) -> Array:
    """Divide an operand by its scales, rounded to its own type; by those of the model to the integers that it has."""
    if isinstance(scaling, ModelScales):
        with np.errstate(all="ignore"):
            return np.rint(x / scales)
    if scaling.per == "block":
        scales = np.repeat(scales, scaling.block, axis=axes.inner).take(range(x.shape[axes.inner]), axis=axes.inner)
    with np.errstate(all="ignore"):
        quotients: Array = x / scales
        return quotients


def _kept(axes: Axes, scaling: Scaling, which: int) -> tuple[int, ...]:
    """Return the axes along which scales differ, but for the blocks of the inner one."""
    match scaling.per:
        case "row":
            return axes.outer
        case "channel":
            return (*axes.groups, axes.inner) if which == 0 else axes.outer
        case "block":
            # What was calibrated holds for any number of rows.
            return axes.groups if scaling.when == "calibrated" else (*axes.outer, *axes.groups)
    return ()


def _blocks(x: Array, inner: int, scaling: Scaling) -> Iterator[Array]:
    if scaling.per != "block":
        yield x
        return
    for first in range(0, x.shape[inner], scaling.block):
        at = [slice(None)] * x.ndim
        at[inner] = slice(first, first + scaling.block)
        yield x[tuple(at)]


def _cells(x: Array, kept: Sequence[int]) -> Array:
    kept = sorted(kept)
    moved = np.moveaxis(x, kept, range(len(kept)))
    cells = int(np.prod(moved.shape[: len(kept)], dtype=np.int64))
    return moved.reshape(cells, -1) if x.size else np.zeros((cells, 0), np.float32)


class Calibration:
    """Magnitudes of the first operand of a layer over calibration samples, one set for each block.

    Args:
        op: an Op of the layer, whose values are not taken yet. scaling: what shares a scale.
    """

    def __init__(self, op: Op, scaling: Scaling) -> None:
        self.scaling = scaling
        self.magnitudes = [Magnitudes(len(cells), needs_histogram(scaling)) for cells in self._cells(op)]

    def add(self, op: Op) -> None:
        """Take the values of an Op."""
        for magnitudes, cells in zip(self.magnitudes, self._cells(op), strict=True):
            magnitudes.add(cells)

    def _cells(self, op: Op) -> list[Array]:
        axes = op.axes[0]
        kept = _kept(axes, self.scaling, 0)
        return [_cells(part, kept) for part in _blocks(op.operands[0], axes.inner, self.scaling)]


def scaled(op: Op, arithmetic: Arithmetic, calibrations: Mapping[str, Calibration], keep: Keep) -> Scaled:
    """Divide the operands of an Op by their scales.

    Args:
        calibrations: by name of the layer.
        keep: takes (what they depend on beside the weight, a function that finds the scales of the weight) and returns
            these; called where they depend on nothing else.
    Raises:
        InputError: a layer of which the scales are calibrated was not.
    """
    assert arithmetic.low is not None and arithmetic.low.operands is not None
    (a, b), (axes_a, axes_b) = op.operands, op.axes
    roles = [(arithmetic.scalings[role], arithmetic.low.operands[role]) for role in op.roles]
    left = right = np.ones((1, 1, 1), np.float32)
    block = 0
    (first, use), (second, use_b) = roles
    moved = first is not None and first.per == "channel"
    if first is not None:
        known = calibrations.get(op.name)
        if first.when == "calibrated" and known is None:
            raise InputError(
                f"{op.name}: its scales are calibrated, and no samples were given to calibrate; expected them before "
                "the first forward pass; call calibrate(samples), or make the scales dynamic"
            )
        found = first.of(op, 0) if isinstance(first, ModelScales) else scales_of(a, axes_a, use, first, 0, known)
        a = _over(a, found, axes_a, first)
        if moved:
            # No sum can take them out again: they move into the other operand, as in SmoothQuant (arXiv 2211.10438).
            b = b * op.inner_onto_b(found)
        else:
            left = _factors(op.row_factors, found)
        block = first.block
    if second is not None:
        weight, scaling, form = b, second, use_b

        def find() -> Array:
            if isinstance(scaling, ModelScales):
                return scaling.of(op, 1)
            return scales_of(weight, axes_b, form, scaling, 1)

        found = find() if moved else keep((scaling, form), find)
        b = _over(b, found, axes_b, second)
        right = _factors(op.column_factors, found)
        block = block or second.block
    parts: tuple[slice, ...] = (slice(0, op.k),)
    if block:
        width = block * op.inner_positions
        parts = tuple(slice(start, min(start + width, op.k)) for start in range(0, op.k, width))
    return Scaled(op.with_operands(a, b, None), left, right, parts)


def _factors(along: Callable[[Array], Array], scales: Array) -> Array:
    return scales.reshape(1, 1, 1) if scales.size == 1 else along(scales)
