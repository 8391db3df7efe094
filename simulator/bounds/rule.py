"""What a rule of the analysis is: what an operation makes of bounds, and of intervals of gradients on the way back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from formats import Use
from simulator.arithmetic.spec import MacSpec

from .bounded import Bounded
from .graph import Node, Ref
from .outward import above, below
from .roundings import Rounding, Roundings


class Second(NamedTuple):
    """A second pass: its MAC unit, and what flags an output of the first pass, v, whatever else does: kappa', 1 / |v|,
    above the tolerance. Of relu only where v is not negative, of activations that are not named nowhere.
    """

    mac: MacSpec
    tolerance: float
    activation: str

    def flags(self, lo: Tensor, hi: Tensor) -> Tensor:
        """Return which outputs are surely flagged, given the ends of what the first pass may give."""
        found = torch.maximum(lo.abs(), hi.abs()) * self.tolerance < 1.0 - 2.0**-40
        if self.activation == "relu":
            return found & (lo >= 0)
        return found if self.activation in ("identity", "leaky_relu") else torch.zeros_like(found)


@dataclass(frozen=True)
class Unit:
    """What computes a network.

    Args:
        roundings: of a format in use. mac: the MAC unit of a product by its name; None for torch's own float32.
        vector: the rounding of an operation that is no product, by the path of its module.
        held: the format in which a vector unit reads operands and holds results besides, by this path; None as they
            are.
        library: c, error of an elementary function in units of u (1 if correctly rounded). words: what it is.
        fixed: whether the formats are those of hardware, into which operands are converted, or a precision alone.
        running: whether sums are bounded by their partial sums, (B7), where that is known.
        spread: l of the statistical bounds (B7'); None: all bounds are proved.
        second: the second pass of a product by its name; None where there is none.
    """

    roundings: Roundings
    mac: Callable[[str], MacSpec | None]
    vector: Callable[[str], Rounding]
    library: float
    words: str
    fixed: bool
    running: bool = False
    spread: float | None = None
    second: Callable[[str], Second | None] = lambda name: None
    held: Callable[[str], Use | None] = lambda path: None


class Step(NamedTuple):
    """A value, and `local`: how far the operation itself is off, of the values that it was given, whatever these are
    within their boxes.
    """

    value: Bounded
    local: Tensor


class Interval(NamedTuple):
    """Derivatives of a margin with respect to a value, each within [lo, hi]."""

    lo: Tensor
    hi: Tensor

    @property
    def magnitude(self) -> Tensor:
        """Largest magnitude."""
        return torch.maximum(self.lo.abs(), self.hi.abs())

    def known(self) -> Interval:
        """Return it with infinite ends where nothing is known, as of infinity less infinity."""
        lo = torch.nan_to_num(self.lo, nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        return Interval(lo, torch.nan_to_num(self.hi, nan=torch.inf, posinf=torch.inf, neginf=-torch.inf))

    def times(self, lo: Tensor, hi: Tensor) -> Interval:
        """Return the product with another interval, rounded outward."""
        ends = torch.stack([self.lo * lo, self.lo * hi, self.hi * lo, self.hi * hi])
        return Interval(below(ends.amin(0)), above(ends.amax(0)))

    def plus(self, other: Interval) -> Interval:
        """Return the sum, rounded outward."""
        lo, hi = self.lo + other.lo, self.hi + other.hi
        slack = (self.magnitude + other.magnitude) * 2.0**-50
        return Interval(lo - slack, hi + slack)


Read = Callable[[int], Bounded]
Gradients = Mapping[int, Interval]  # by number of the value


class Rule(ABC):
    """What the analysis knows of an operation: of its values on the way forward, of derivatives on the way back."""

    @abstractmethod
    def forward(self, node: Node, read: Read, unit: Unit) -> list[Step | None]:
        """Return the bounds of its outputs; None for what is no value, such as indices."""

    @abstractmethod
    def backward(self, node: Node, read: Read, grads: Gradients) -> list[tuple[int, Interval]]:
        """Return what it adds to the derivatives of its inputs, anywhere in their boxes, given those of its outputs."""


def operand(arg: Any, read: Read, use: Use | None = None) -> Bounded:
    """Return an argument as bounds; a constant is exact, or off by what rounding it to a format does."""
    if isinstance(arg, Ref):
        return read(arg.number)
    x = torch.as_tensor(arg, dtype=torch.float64).detach()
    if use is None or not isinstance(arg, Tensor):
        return Bounded.exactly(x)
    rounded = torch.from_numpy(use.quantize(x.numpy()))
    return Bounded(x, x, (rounded - x).abs() * (1.0 + 2.0**-50))


def filled(tree: Any, read: Read, part: Callable[[Bounded], Tensor], constant: Callable[[Tensor], Tensor]) -> Any:
    """Return arguments with a tensor for each Ref, and one for each constant of real numbers, in float64."""

    def one(leaf: Any) -> Any:
        if isinstance(leaf, Ref):
            return part(read(leaf.number))
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            return constant(leaf.detach().to(torch.float64))
        return leaf

    return tree_map(one, tree, is_leaf=lambda x: isinstance(x, Ref))


def unbroadcast(x: Interval, shape: torch.Size) -> Interval:
    """Return derivatives with respect to a value of this shape that was broadcast."""
    lo, hi = x
    terms = max(1, lo.numel() // max(1, shape.numel()))
    slack = x.magnitude.sum_to_size(shape) * ((terms + 2) * 2.0**-52)
    return Interval(lo.sum_to_size(shape) - slack, hi.sum_to_size(shape) + slack)


def off_by(rounding: Rounding, computed: Tensor, times: float = 1.0) -> Tensor:
    """Return the error of a rounding of values of at most this magnitude, `times` u; infinite if they may overflow."""
    return torch.where(computed > rounding.largest, torch.inf, computed * (times * rounding.u) + rounding.eta)
