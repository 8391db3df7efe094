"""What noise is made of noise, for one of the three numbers: the interface; see safe.py, expected.py, certain_noise.py.

Noise is an amplitude for each element: 0 or more, in the type in which rules compute, of a shape that broadcasts to
that of the values; None stands for exact. NaN is as good as infinite.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Noise = Tensor | None
# A map that is linear in its argument and has no negative coefficients.
Linear = Callable[[Tensor], Tensor]
# A map that is linear in each of two arguments, sums of products of their elements.
Bilinear = Callable[[Tensor, Tensor], Tensor]
# Such a map of two pairs of arguments, summed.
Both = Callable[[tuple[Tensor, Tensor], tuple[Tensor, Tensor]], Tensor]


class Rounded(NamedTuple):
    """How often a result is rounded by its own operation.

    Args:
        units: upper bound of the error, in units of the unit roundoff times |result|.
        independent: roundings, each by at most one such unit, that one expects.
    """

    units: float = 0.0
    independent: float = 0.0


EXACTLY = Rounded()
ONCE = Rounded(1.0, 1.0)


class Function(NamedTuple):
    """A function of one real variable, for noise.

    Args:
        slope: |f'| at (x, f(x)).
        reach: (x, f(x), d) -> upper bound of |f(x') - f(x)| over |x' - x| <= d, up to a few roundings of its own.
        rounded: by the library that computes it. beside: (x, f(x)) -> what its error has besides, in units of u.
    """

    slope: Callable[[Tensor, Tensor], Tensor]
    reach: Callable[[Tensor, Tensor, Tensor], Tensor]
    rounded: Rounded
    beside: Callable[[Tensor, Tensor], Tensor] | None = None


class Algebra(ABC):
    """One of the three numbers.

    Args:
        label: its name.
    """

    label: str

    @abstractmethod
    def magnitude(self, x: Tensor) -> Tensor:
        """Return by how much noise grows that is multiplied by x."""

    @abstractmethod
    def given(self, x: Tensor, noise: Noise) -> Noise:
        """Return the noise of an operand as it enters an operation."""

    @abstractmethod
    def combined(self, z: Tensor, terms: list[tuple[Tensor | float, Noise]], rounded: Rounded) -> Noise:
        """Return the noise of z from terms (factor, noise of an operand), with z's own rounding."""

    @abstractmethod
    def added(self, z: Tensor, x: Tensor, y: Tensor, noise_x: Noise, noise_y: Noise) -> Noise:
        """Return the noise of z, which is x + y rounded once."""

    @abstractmethod
    def multiple_added(self, z: Tensor, y: Tensor, factor: float, off: float, noise_x: Noise, noise_y: Noise) -> Noise:
        """Return the noise of z = x + factor y, the factor being off by `off` from that of the program."""

    @abstractmethod
    def product(self, z: Tensor, x: Tensor, y: Tensor, noise_x: Noise, noise_y: Noise, rounded: Rounded) -> Noise:
        """Return the noise of z = x y, the operands being independent."""

    @abstractmethod
    def quotient(self, z: Tensor, x: Tensor, y: Tensor, noise_x: Noise, noise_y: Noise) -> Noise:
        """Return the noise of z = x / y."""

    @abstractmethod
    def square(self, z: Tensor, x: Tensor, noise: Noise) -> Noise:
        """Return the noise of z = x x."""

    @abstractmethod
    def function(self, z: Tensor, x: Tensor, noise: Noise, function: Function) -> Noise:
        """Return the noise of z = f(x)."""

    @abstractmethod
    def kept(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return the noise of max(x, 0)."""

    @abstractmethod
    def gated(self, g: Tensor, noise_g: Noise, x: Tensor, noise_x: Noise) -> tuple[Noise, int]:
        """Return the noise of a gradient g that is let through where x > 0, and at how many elements, g being none of
        0, that is not decided.
        """

    @abstractmethod
    def linear(self, f: Linear, x: Tensor, noise: Noise, terms: int, z: Tensor) -> Noise:
        """Return the noise of z = f(x), sums of so many terms, each rounded."""

    @abstractmethod
    def total(self, x: Tensor, noise: Noise, axes: list[int], keep: bool, z: Tensor) -> Noise:
        """Return the noise of z, the sum of x over axes."""

    @abstractmethod
    def running(self, x: Tensor, noise: Noise, axis: int, z: Tensor) -> Noise:
        """Return the noise of z, the running sums of x over an axis, each made of the one before."""

    @abstractmethod
    def bilinear(
        self, f: Bilinear, x: Tensor, y: Tensor, noise_x: Noise, noise_y: Noise, terms: int, z: Tensor,
        matrix: bool, both: Both | None,
    ) -> Noise:  # fmt: skip
        """Return the noise of z = f(x, y), sums of so many products in any order.

        Args:
            matrix: whether f is the product of two matrices, or of stacks of them. both: f of two pairs and summed,
                where that is faster at once.
        """

    @abstractmethod
    def biased(self, product: Noise, bias: Tensor, noise: Noise, terms: int, z: Tensor) -> Noise:
        """Return the noise of z, a sum of so many products that has a bias as one more term, given that of the product
        alone as `bilinear` gives it.
        """

    @abstractmethod
    def shares(self, y: Tensor, own: Noise, noise: Noise, axis: int) -> Noise:
        """Return the noise of shares y, a softmax over an axis, given that of its computation and of its operands."""

    @abstractmethod
    def log_shares(self, y: Tensor, own: Noise, noise: Noise, axis: int) -> Noise:
        """Return the noise of y, logarithms of shares, given that of their computation and of the operands."""

    @abstractmethod
    def either(self, noise: Noise, jump: Tensor) -> Noise:
        """Return the noise of a result that would be off by `jump` more had a branch gone the other way; 0 where the
        branch is decided.
        """

    @abstractmethod
    def departed(self, noise: Noise, distance: Tensor, z: Tensor | None) -> Noise:
        """Return the noise of values that are so far from those that a composition of rules computed.

        Args:
            z: the values, if how far they are from it are all roundings of their operation; else None.
        """

    @abstractmethod
    def unknown(self, z: Tensor) -> Noise:
        """Return the noise of values of which no rule says anything."""


def plain_sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Return the sum over axes, all of them if there is none."""
    return torch.sum(x, axes, keepdim=keep) if axes else x


def through_gate(noise: Tensor, x: Tensor) -> Tensor:
    """Return noise where x is above 0, or NaN, else 0."""
    found: Tensor = torch.ops.aten.threshold_backward(noise, x, 0)
    return found
