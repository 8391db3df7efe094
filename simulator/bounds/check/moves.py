"""Rules of what moves values, joins them, pads them, and rounds them into other formats.

(C40) Moves round nothing. (C43) What is joined keeps its bounds; constants are exact, and a value that pads is rounded
unless the arithmetic holds it. Constants among values are said to belong to the sample along whose side they lie: any
share-out will do in which no later operation mixes samples and the rows of the output are the samples, which is
checked. (C44) A conversion to another type, or into the format of a vector unit, is one rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .balls import ZERO, Balls, Ends, Places, arb, summed_into, taken
from .document import Fault, Node, NoRule
from .formats import use
from .places import Shape, all_of, fits, shared
from .rule import Found, Gradients, Operand, Parts, Reader, Rule, number, plain

# What a conversion rounds to; nothing of what holds all values.
_TYPES = {
    "torch.float16": "fp16", "torch.bfloat16": "bf16", "torch.float32": "fp32", "torch.float64": None, None: None,
}  # fmt: skip


class Moves(Rule):
    """Values are moved."""

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        x, places = self._read(node, at)
        lo, hi, d, e = (taken(part, places) for part in (x.lo, x.hi, x.d, x.e))
        return Found(places.shape, lo, hi, d, e, [ZERO] * len(lo), x.owner[places].ravel())

    def backward(self, node: Node, at: Reader, grads: Gradients) -> Parts:
        x, places = self._read(node, at)
        assert x.number is not None
        return [(x.number, [Ends(*(summed_into(len(x.lo), places, end) for end in g)) for g in grads])]

    def _read(self, node: Node, at: Reader) -> tuple[Operand, Places]:
        plain(node, "memory_format", "implicit")
        x = at.operand(node.args[0] if node.args else None, node)
        places = _moved(node, x.shape)
        fits(node, places.shape)
        return x, places


class Converts(Moves):
    """A conversion to another type."""

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        found, kind = super().forward(node, at, stated), node.kwargs.get("dtype")
        if kind not in _TYPES:
            raise NoRule(f"{node}: no rule for a conversion to {kind}")
        name = _TYPES[kind]
        return found if name is None else _rounded(found, name)

    def _read(self, node: Node, at: Reader) -> tuple[Operand, Places]:
        plain(node, "dtype", "layout", "device", "memory_format")
        x = at.operand(node.args[0] if node.args else None, node)
        return x, all_of(x.shape)


class Rounds(Converts):
    """A value is rounded into the format of a vector unit."""

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        return _rounded(Moves.forward(self, node, at, stated), node.use)


def _rounded(x: Found, name: str) -> Found:
    """Return a value after one rounding."""
    rounding = use(name).rounded(None)
    most = Operand(x.shape, x.lo, x.hi, x.d, x.d, x.owner).computed
    off = [rounding.off(size) for size in most]
    return x._replace(d=[a + b for a, b in zip(x.d, off, strict=True)], relative=None, local=off)


class Joins(Rule):
    """Values and constants are joined along an axis, `cat`, or along a new one, `stack`."""

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        parts, places, axis = self._read(node, at)
        joined = (
            [one for each in ends for one in each]
            for ends in zip(*((x.lo, x.hi, x.d, x.e) for x in parts), strict=True)
        )
        lo, hi, d, e = (taken(part, places) for part in joined)
        owner = np.concatenate([x.owner.ravel() for x in parts])[places]
        return Found(places.shape, lo, hi, d, e, [ZERO] * len(lo), shared(owner, (axis,)).ravel())

    def backward(self, node: Node, at: Reader, grads: Gradients) -> Parts:
        parts, places, _ = self._read(node, at)
        found: Parts = []
        first = 0
        for x in parts:
            size = len(x.lo)
            own = np.where((places >= first) & (places < first + size), places - first, -1)
            if x.number is not None:
                found.append((x.number, [Ends(*(summed_into(size, own, end) for end in g)) for g in grads]))
            first += size
        return found

    @staticmethod
    def _read(node: Node, at: Reader) -> tuple[list[Operand], Places, int]:
        """Return what is joined, the places of it one behind the other in the result, and the axis."""
        plain(node)
        given, axis = [*node.args, 0][:2]
        if not isinstance(given, list) or not given or len(node.args) > 2 or not isinstance(axis, int):
            raise NoRule(f"{node}: no rule for these arguments")
        parts = [at.operand(form, node) for form in given]
        parts = [x for x in parts if x.shape != (0,)]
        first, each = 0, []
        for x in parts:
            each.append(all_of(x.shape) + first)
            first += len(x.lo)
        try:
            places = (np.concatenate if node.kind == "cat" else np.stack)(each, axis)
        except ValueError as error:
            raise Fault(f"{node}: its arguments do not fit each other: {error}") from None
        fits(node, places.shape)
        return parts, places, axis % places.ndim


class Pads(Rule):
    """A constant around values; negative widths cut these."""

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        x, places, axes = self._read(node, at)
        form = node.args[2] if len(node.args) > 2 else node.kwargs.get("value")
        value = 0.0 if form is None else number(form, node)
        off = at.premises.constant_error(value, node)
        there = arb(value)
        around = there, there, off, (ZERO if off == 0 else off / abs(there))
        lo, hi, d, e = (
            taken([*part, own], np.where(places >= 0, places, len(part)))
            for part, own in zip((x.lo, x.hi, x.d, x.e), around, strict=True)
        )
        local = taken([*([ZERO] * len(x.lo)), off], np.where(places >= 0, places, len(x.lo)))
        owner = np.where(places >= 0, x.owner.ravel()[places], -1)
        return Found(places.shape, lo, hi, d, e, local, shared(owner, axes).ravel())

    def backward(self, node: Node, at: Reader, grads: Gradients) -> Parts:
        x, places, _ = self._read(node, at)
        assert x.number is not None
        return [(x.number, [Ends(*(summed_into(len(x.lo), places, end) for end in g)) for g in grads])]

    @staticmethod
    def _read(node: Node, at: Reader) -> tuple[Operand, Places, Sequence[int]]:
        """Return the operand, its places in the result, -1 around it, and the axes that are padded."""
        plain(node, "value")
        x, widths = at.operand(node.args[0] if node.args else None, node), node.args[1] if len(node.args) > 1 else None
        dims = len(x.shape)
        if (
            not isinstance(widths, list) or len(widths) % 2 or len(widths) > 2 * dims or len(node.args) > 3
            or not all(isinstance(n, int) for n in widths)
        ):  # fmt: skip
            raise NoRule(f"{node}: no rule for the widths {widths!r}")
        pairs = [(0, 0)] * dims
        for i in range(len(widths) // 2):
            pairs[dims - 1 - i] = widths[2 * i], widths[2 * i + 1]
        cut = tuple(slice(max(0, -a), n - max(0, -b)) for n, (a, b) in zip(x.shape, pairs, strict=True))
        wide = [(max(0, a), max(0, b)) for a, b in pairs]
        places = np.pad(all_of(x.shape)[cut], wide, constant_values=-1)
        fits(node, places.shape)
        return x, places, [axis for axis, pair in enumerate(pairs) if pair != (0, 0)]


def _moved(node: Node, shape: Shape) -> Places:
    """Return where the results of an operation that only moves values come from."""
    here, rest = all_of(shape), [*node.args[1:]]
    try:
        match node.kind, rest:
            case (("view" | "_unsafe_view" | "reshape" | "_reshape_alias"), [size, *_]):
                return here.reshape(size)
            case (("clone" | "detach" | "alias" | "lift_fresh"), _):
                return here
            case "t", []:
                return here.transpose()
            case "transpose", [first, second]:
                return here.swapaxes(first, second)
            case "permute", [order]:
                return here.transpose(order)
            case "unsqueeze", [axis]:
                return np.expand_dims(here, axis)
            case "squeeze", []:
                return here.squeeze()
            case "squeeze", [axes]:
                given = axes if isinstance(axes, list) else [axes]
                each = [axis % len(shape) for axis in given] if shape else []  # a single value has no axes
                return here.squeeze(tuple(axis for axis in each if shape[axis] == 1))
            case "expand", [size]:
                padded = (*(1,) * (len(size) - len(shape)), *shape)
                to = [n if wanted == -1 else wanted for n, wanted in zip(padded, size, strict=True)]
                return np.broadcast_to(here.reshape(padded), to)
            case "slice", [axis, *ends]:
                return _cut(here, axis, slice(*(ends or [None])))
            case "select", [axis, place]:
                return np.asarray(here.take(place, axis))
            case (("split" | "unsafe_split"), [int(size), *_]):
                return _cut(here, [*rest, 0][1], slice(node.part * size, (node.part + 1) * size))
            case (("split" | "split_with_sizes"), [list(sizes), *_]):
                first = sum(sizes[: node.part])
                return _cut(here, [*rest, 0][1], slice(first, first + sizes[node.part]))
            case "unbind", _:
                return np.asarray(here.take(node.part, [*rest, 0][0]))
            case "index_select", [axis, which]:
                return here.take(_whole(which, node), axis)
            case "gather", [axis, which]:
                at = _whole(which, node)
                inside = [slice(None) if i == axis % here.ndim else slice(n) for i, n in enumerate(at.shape)]
                return np.take_along_axis(here[tuple(inside)], at, axis)
            case "index", [list(which)]:
                return here[tuple(slice(None) if one is None else _whole(one, node) for one in which)]
            case "flip", [axes]:
                return np.flip(here, axes)
            case "roll", [by, *axes]:
                return np.roll(here, by, axes[0] if axes and axes[0] else None)
            case "repeat", [times]:
                return np.tile(here, times)
            case "pixel_shuffle", [r]:
                *first, channels, rows, columns = shape
                apart = here.reshape(-1, channels // r**2, r, r, rows, columns).transpose(0, 1, 4, 2, 5, 3)
                return apart.reshape(*first, channels // r**2, rows * r, columns * r)
            case "diagonal", _:
                return here.diagonal(*rest)
    except (ValueError, TypeError, IndexError) as error:
        raise Fault(f"{node}: its arguments do not fit the shape {list(shape)}: {error}") from None
    raise NoRule(f"{node}: no rule for these arguments")


def _cut(here: Places, axis: int, some: slice) -> Places:
    return here[(*(slice(None),) * (axis % here.ndim), some)]


def _whole(form: Any, node: Node) -> Places:
    """Return whole numbers, or decisions, that are constants."""
    if not isinstance(form, dict) or "integers" not in form:
        raise Fault(f"{node}: got the places {form!r}; expected constants")
    found = np.asarray(form["integers"])
    return found.astype(np.int64) if not found.size else found


_PARTED = ("split", "split_with_sizes", "unsafe_split", "unbind")
_MOVED = (
    "view", "_unsafe_view", "reshape", "_reshape_alias", "t", "transpose", "permute", "squeeze", "unsqueeze", "slice",
    "select", "expand", "clone", "detach", "alias", "lift_fresh", "index_select", "gather", "index", "flip", "roll",
    "repeat", "pixel_shuffle", "diagonal",
)  # fmt: skip
PARTED = frozenset(_PARTED)  # of which every output is a value
RULES: dict[str, Rule] = {
    **dict.fromkeys((*_MOVED, *_PARTED), Moves()), "_to_copy": Converts(), "round to format": Rounds(), "cat": Joins(),
    "stack": Joins(), "constant_pad_nd": Pads(),
}  # fmt: skip
