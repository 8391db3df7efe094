"""The expected number: standard deviations of errors that are independent and have mean zero. Statistical.

Amplitude s: the standard deviation. Rules: reference model of rounding to nearest with a significand that is spread
like that of measured data, deviation 0.4247 u |result| (E1); sums by the mean over random orders (E2). Computed in
float64, since squares of small noise would vanish.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .algebra import Algebra, Bilinear, Both, Function, Linear, Noise, Rounded, plain_sum, through_gate
from .labels import EXPECTED

_MANY = 64  # elements from which on their mean says something

# (E1) The deviation of a rounding, in units of u |result|: 1 / sqrt(8 ln 2).
RHO = 1.0 / math.sqrt(8.0 * math.log(2.0))


def _rho(dtype: torch.dtype) -> float:
    return RHO * float(torch.finfo(dtype).eps) / 2.0


def _squared(noise: Noise) -> Tensor | None:
    return None if noise is None else noise.double().square()


def _root(variance: Tensor | None, like: Tensor) -> Noise:
    if variance is None:
        return None
    return variance.sqrt().to(like.dtype)


class Expected(Algebra):
    """Standard deviations."""

    label = EXPECTED

    def __init__(self) -> None:
        # (E6) Which share of a deviation errors have in common, towards 0 or away from it; 0 of roundings to nearest.
        self.together = 0.0

    def magnitude(self, x: Tensor) -> Tensor:
        """Return |x|."""
        return x.abs()

    def given(self, x: Tensor, noise: Noise) -> Noise:
        """Return it as it is."""
        return noise

    def own(self, z: Tensor, rounded: Rounded) -> Tensor | None:
        """Return the variance of independent roundings of z, (E1)."""
        if not rounded.independent:
            return None
        return z.double().square() * (rounded.independent * _rho(z.dtype) ** 2)

    def combined(self, z: Tensor, terms: list[tuple[Tensor | float, Noise]], rounded: Rounded) -> Noise:
        """Return the root of the sum of squares."""
        variance = self.own(z, rounded)
        for factor, noise in terms:
            if noise is None:
                continue
            part = (factor * noise.double()).square()
            variance = part if variance is None else variance + part
        return _root(variance, z)

    def added(self, z: Tensor, x: Tensor, y: Tensor, noise_x: Noise, noise_y: Noise) -> Noise:
        """Return (E3): that of a sum rounded once; of one that two_sum finds exact, without its rounding."""
        behind = z - x
        inexact = (x - (z - behind)) + (y - behind) != 0
        own = self.own(z, Rounded(1.0, 1.0))
        assert own is not None
        variance = torch.where(inexact & z.isfinite(), own, 0.0)
        for noise in (noise_x, noise_y):
            if noise is not None:
                variance = variance + noise.double().square()
        return _root(variance, z)

    def multiple_added(self, z: Tensor, y: Tensor, factor: float, off: float, noise_x: Noise, noise_y: Noise) -> Noise:
        """Return that of the sum and of the product, each rounded once."""
        size = abs(factor)
        terms: list[tuple[Tensor | float, Noise]] = [(1.0, noise_x), (size, noise_y), (off + size * _rho(z.dtype), y)]
        return self.combined(z, terms, Rounded(1.0, 1.0))

    def product(self, z: Tensor, x: Tensor, y: Tensor, noise_x: Noise, noise_y: Noise, rounded: Rounded) -> Noise:
        """Return (E3): y^2 V_x + x^2 V_y + V_x V_y."""
        variance = self.own(z, rounded)
        a, b = _squared(noise_x), _squared(noise_y)
        parts = []
        if a is not None:
            parts.append(a * (y.double().square() if b is None else y.double().square() + b))
        if b is not None:
            parts.append(b * x.double().square())
        for part in parts:
            variance = part if variance is None else variance + part
        return _root(variance, z)

    def quotient(self, z: Tensor, x: Tensor, y: Tensor, noise_x: Noise, noise_y: Noise) -> Noise:
        """Return (E3): (V_x + z^2 V_y) / y^2."""
        y = y.double()
        of_y = None if noise_y is None else z.double() / y
        return self.combined(z, [(1.0 / y, noise_x), (1.0 if of_y is None else of_y, noise_y)], Rounded(1.0, 1.0))

    def square(self, z: Tensor, x: Tensor, noise: Noise) -> Noise:
        """Return (E3): 4 x^2 V, and 2 V^2 (as of normal errors)."""
        terms: list[tuple[Tensor | float, Noise]] = [(2.0 * x.double(), noise)]
        if noise is not None:
            terms.append((math.sqrt(2.0), noise.double().square()))
        return self.combined(z, terms, Rounded(1.0, 1.0))

    def function(self, z: Tensor, x: Tensor, noise: Noise, function: Function) -> Noise:
        """Return (E4): f'(x)^2 V; no more than f moves within a deviation, which counts where the slope is infinite."""
        if noise is None:
            return self.combined(z, [], function.rounded)
        noise = noise.expand(x.shape)
        moved = torch.fmin(function.slope(x, z).abs() * noise, function.reach(x, z, noise))
        return self.combined(z, [(1.0, torch.where(noise == 0, 0.0, moved))], function.rounded)

    def kept(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return that of x where it is positive."""
        return through_gate(noise, x)

    def gated(self, g: Tensor, noise_g: Noise, x: Tensor, noise_x: Noise) -> tuple[Noise, int]:
        """Return that of the gradient where the gate is open."""
        return (None if noise_g is None else through_gate(noise_g.expand(g.shape), x)), 0

    def linear(self, f: Linear, x: Tensor, noise: Noise, terms: int, z: Tensor) -> Noise:
        """Return that of sums of so many terms; f is applied to variances, so its coefficients count as 0 or 1."""
        own = f(x.double().square())
        variance = self._pairwise(own, z, terms)
        if noise is not None:
            apart = f(noise.double().square())
            variance = variance + self._shared(apart, lambda: f(noise.double() * x.double().sign()))
        return _root(variance, z)

    def _shared(self, apart: Tensor, towards: Callable[[], Tensor]) -> Tensor:
        """Return the variance of a sum of errors, given that of independent ones, and their sum if all were towards 0
        or away from it (E6).
        """
        if not self.together:
            return apart
        return (1.0 - self.together**2) * apart + (self.together * towards()).square()

    def total(self, x: Tensor, noise: Noise, axes: list[int], keep: bool, z: Tensor) -> Noise:
        """Return that of a sum, in which torch adds pairs of partial sums."""
        terms = x.numel() // max(1, z.numel())
        if terms <= 1 and noise is None:
            return None
        return self.linear(lambda part: plain_sum(part, axes, keep), x, noise, terms, z)

    def _pairwise(self, squares: Tensor, z: Tensor, terms: int) -> Tensor:
        """Return (E2) for sums of pairs of partial sums: rho^2 (Q log2 n + 2 z^2), Q the sum of squares."""
        levels = math.log2(max(1, terms))
        return (squares * levels + 2.0 * z.double().square() * (terms > 1)) * _rho(z.dtype) ** 2

    def running(self, x: Tensor, noise: Noise, axis: int, z: Tensor) -> Noise:
        """Return that of all sums up to each, of which the first is no sum, each rounded once."""
        rounded = self.own(z, Rounded(1.0, 1.0))
        assert rounded is not None
        rounded.narrow(axis, 0, 1).zero_()
        variance = rounded if noise is None else rounded + noise.double().expand(x.shape).square()
        return _root(torch.cumsum(variance, axis), z)

    def bilinear(
        self, f: Bilinear, x: Tensor, y: Tensor, noise_x: Noise, noise_y: Noise, terms: int, z: Tensor,
        matrix: bool, both: Both | None,
    ) -> Noise:  # fmt: skip
        """Return (E2) for fused sums in order: y^2 V_x + x^2 V_y + V_x V_y, and rho^2 times the mean of all s_k^2."""
        a, b = _squared(noise_x), _squared(noise_y)
        one, other = x.double(), y.double()
        x, y = one.square(), other.square()
        n = max(1, terms)
        squares = f(x, y)
        total = z.double().square()
        # Sums s_1 to s_n: n z^2 / 3 and n / 6 of what the squares have beyond z^2 / n.
        partial = (n + 1) * (2 * n + 1) / (6.0 * n) * total + (n + 1) / 6.0 * (squares - total / n).clamp_(min=0.0)
        variance = partial * _rho(z.dtype) ** 2
        if a is not None and noise_x is not None:
            towards_x = noise_x.double() * one.sign()
            variance += self._shared(f(a, y if b is None else y + b), lambda: f(towards_x, other))
        if b is not None and noise_y is not None:
            towards_y = noise_y.double() * other.sign()
            variance += self._shared(f(x, b), lambda: f(one, towards_y))
        return _root(variance, z)

    def biased(self, product: Noise, bias: Tensor, noise: Noise, terms: int, z: Tensor) -> Noise:
        """Return that of one more rounding, of the result, and of the bias."""
        return self.combined(z, [(1.0, product), (1.0, noise)], Rounded(1.0, 1.0))

    def shares(self, y: Tensor, own: Noise, noise: Noise, axis: int) -> Noise:
        """Return (E5): y^2 ((1 - y)^2 V_i + sum over the others of y_j^2 V_j)."""
        if noise is None:
            return own
        return self.combined(y, [(1.0, own), (y.double().abs(), self._apart(y.double(), noise, axis))], Rounded())

    def log_shares(self, y: Tensor, own: Noise, noise: Noise, axis: int) -> Noise:
        """Return (E5) of the logarithm: (1 - y)^2 V_i + sum over the others of y_j^2 V_j, y the shares."""
        if noise is None:
            return own
        return self.combined(y, [(1.0, own), (1.0, self._apart(y.double().exp(), noise, axis))], Rounded())

    def _apart(self, shares: Tensor, noise: Tensor, axis: int) -> Tensor:
        """Return the deviation of what an operand moves from what the shares of all move."""
        variance = noise.double().square()
        each = shares.square() * variance
        rest = (each.sum(axis, keepdim=True) - each).clamp_(min=0.0)
        return ((1.0 - shares).square() * variance + rest).sqrt()

    def either(self, noise: Noise, jump: Tensor) -> Noise:
        """Return the noise as it is: the branch that was taken is expected."""
        return noise

    def departed(self, noise: Noise, distance: Tensor, z: Tensor | None) -> Noise:
        """Return the root of the sum of squares; learn from it whether roundings go one way (E6)."""
        if z is not None and z.numel() >= _MANY:
            d = distance.double()
            size = float(d.square().mean().sqrt())
            share = abs(float((d * z.sign()).mean())) / size if size else 0.0
            if math.isfinite(share) and share > 4.0 / math.sqrt(z.numel()):
                self.together = max(self.together, share)
        return self.combined(distance, [(1.0, noise), (1.0, distance.abs())], Rounded())

    def unknown(self, z: Tensor) -> Noise:
        """Return infinity; the shadow says more, see shadow.py."""
        return torch.full_like(z, math.inf)
