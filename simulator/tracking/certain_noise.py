"""The certain-noise number: what is lost even by an optimistic count.

Source: arXiv 2509.24607, with the logarithm set right. Amplitude N = 2**(e(x) - b), e(x) = floor(log2 |x|), b the exact
bits; what is exact has as many as its type, and no result has more. Of sums the largest noise counts, of products the
fewest bits; roundings of operations are not added. Conditions of functions keep their fraction, so that long chains do
not lose up to a bit at each step; where z or x is 0, noise is absolute.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import elements
from .algebra import Algebra, Bilinear, Both, Function, Linear, Noise, Rounded, through_gate
from .labels import CERTAIN_NOISE, binade


class CertainNoise(Algebra):
    """Optimistic noise."""

    label = CERTAIN_NOISE

    def magnitude(self, x: Tensor) -> Tensor:
        """Return 2**e(x)."""
        return binade(x)

    def given(self, x: Tensor, noise: Noise) -> Tensor:
        """Return it; of what is exact, that of as many bits as its type has."""
        least = self._least(x)
        return least if noise is None else torch.maximum(noise, least)

    def _least(self, x: Tensor) -> Tensor:
        return torch.nan_to_num(binade(x), nan=math.inf) * float(torch.finfo(x.dtype).eps / 2.0)

    def combined(self, z: Tensor, terms: list[tuple[Tensor | float, Noise]], rounded: Rounded) -> Tensor:
        """Return the largest of all."""
        found = self._least(z)
        for factor, noise in terms:
            if noise is not None:
                found = torch.maximum(found, factor * noise)
        return found

    def added(self, z: Tensor, x: Tensor, y: Tensor, noise_x: Noise, noise_y: Noise) -> Noise:
        """Return (C1): the larger one."""
        return self.combined(z, [(1.0, noise_x), (1.0, noise_y)], Rounded())

    def multiple_added(self, z: Tensor, y: Tensor, factor: float, off: float, noise_x: Noise, noise_y: Noise) -> Noise:
        """Return the larger one."""
        by = 2.0 ** math.floor(math.log2(abs(factor))) if factor else 0.0
        return self.combined(z, [(1.0, noise_x), (by, noise_y)], Rounded())

    def product(self, z: Tensor, x: Tensor, y: Tensor, noise_x: Noise, noise_y: Noise, rounded: Rounded) -> Noise:
        """Return (C2): 2**(e(x) + e(y) - min(p, q)); a factor without a bit leaves none, whatever the carry."""
        found: Tensor = self.combined(z, [(binade(y), noise_x), (binade(x), noise_y)], rounded)
        for factor, noise in ((x, noise_x), (y, noise_y)):
            if noise is not None:
                found = torch.where(noise >= binade(factor), torch.maximum(found, binade(z)), found)
        return found

    def quotient(self, z: Tensor, x: Tensor, y: Tensor, noise_x: Noise, noise_y: Noise) -> Noise:
        """Return (C2): 2**(e(x) - e(y) - min(p, q))."""
        over = 1.0 / binade(y)
        return self.combined(z, [(over, noise_x), (binade(x) * over * over, noise_y)], Rounded())

    def square(self, z: Tensor, x: Tensor, noise: Noise) -> Noise:
        """Return (C3): one bit less than the operand has, the condition being 2."""
        return self._conditioned(z, x, noise, torch.full_like(z, 2.0), 2.0 * binade(x))

    def function(self, z: Tensor, x: Tensor, noise: Noise, function: Function) -> Noise:
        """Return (C3): p - log2 C bits, C = |x f'(x) / f(x)|."""
        slope = function.slope(x, z).abs()
        return self._conditioned(z, x, noise, slope * x.abs() / z.abs(), slope)

    def _conditioned(self, z: Tensor, x: Tensor, noise: Noise, condition: Tensor, slope: Tensor) -> Noise:
        if noise is None:
            return None
        relative = (x != 0) & (z != 0)
        # A condition that is a power of two but for its rounding counts as one.
        condition = condition * (1.0 + 2.0**-20)
        found = torch.where(relative, binade(z) / binade(x) * condition * noise, slope * noise)
        found = torch.where(noise == 0, 0.0, found)  # where the slope is infinite too
        return torch.maximum(found, self._least(z))

    def kept(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return that of x where it is positive."""
        return through_gate(noise, x)

    def gated(self, g: Tensor, noise_g: Noise, x: Tensor, noise_x: Noise) -> tuple[Noise, int]:
        """Return that of the gradient where the gate is open."""
        return (None if noise_g is None else through_gate(noise_g.expand(g.shape), x)), 0

    def linear(self, f: Linear, x: Tensor, noise: Noise, terms: int, z: Tensor) -> Noise:
        """Return the root of the sum of squares: f has no form that takes maxima."""
        if noise is None:
            return None
        return torch.maximum(f(noise.square()).sqrt(), self._least(z))

    def total(self, x: Tensor, noise: Noise, axes: list[int], keep: bool, z: Tensor) -> Noise:
        """Return (C1): the largest noise of all terms."""
        if noise is None or not x.numel():
            return None
        return torch.maximum(torch.amax(noise.expand(x.shape), axes, keepdim=keep), self._least(z))

    def running(self, x: Tensor, noise: Noise, axis: int, z: Tensor) -> Noise:
        """Return the largest noise of all terms up to each."""
        if noise is None:
            return None
        return torch.maximum(torch.cummax(noise.expand(x.shape), axis).values, self._least(z))

    def bilinear(
        self, f: Bilinear, x: Tensor, y: Tensor, noise_x: Noise, noise_y: Noise, terms: int, z: Tensor,
        matrix: bool, both: Both | None,
    ) -> Noise:  # fmt: skip
        """Return (C4): the largest 2**(e(x_k) + e(y_k) - min(p_k, q_k)); of convolutions, the root
        of the sum of squares."""
        if noise_x is None or noise_y is None:
            return None
        x, y = binade(x), binade(y)
        if matrix:
            found = torch.maximum(elements.max_product(x, noise_y), elements.max_product(noise_x, y))
        else:
            found = (f(x.square(), noise_y.square()) + f(noise_x.square(), y.square())).sqrt()
        return torch.maximum(found, self._least(z))

    def biased(self, product: Noise, bias: Tensor, noise: Noise, terms: int, z: Tensor) -> Noise:
        """Return the larger one."""
        return self.combined(z, [(1.0, product), (1.0, noise)], Rounded())

    def shares(self, y: Tensor, own: Noise, noise: Noise, axis: int) -> Noise:
        """Return that of the computation, which was given the noise of the operands."""
        return own

    def log_shares(self, y: Tensor, own: Noise, noise: Noise, axis: int) -> Noise:
        """Return that of the computation, which was given the noise of the operands."""
        return own

    def either(self, noise: Noise, jump: Tensor) -> Noise:
        """Return the noise as it is."""
        return noise

    def departed(self, noise: Noise, distance: Tensor, z: Tensor | None) -> Noise:
        """Return the noise as it is: own roundings are not counted."""
        return noise

    def unknown(self, z: Tensor) -> Noise:
        """Return the noise of what is exact, being certain of none."""
        return self._least(z)
