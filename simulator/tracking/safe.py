"""The safe number: a rigorous bound of the error, by running error analysis around the computed values.

Amplitude D: |value - exact| <= D. Rules (S0) to (S13) are derived in docs/theory/tracking.md. Everything here is itself
rounded, in the type of the noise with unit roundoff w: a bound made by a few operations grows by (1 + 64 w), one that
is a sum of n terms by (1 + 2 (n + 64) w), and none that is not exactly 0 is left below the smallest normal, under which
products of small bounds would vanish (S0).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import elements
from .algebra import Algebra, Bilinear, Both, Function, Linear, Noise, Rounded, plain_sum, through_gate
from .labels import SAFE


def _unit(dtype: torch.dtype) -> float:
    return float(torch.finfo(dtype).eps) / 2.0


def grown(bound: Tensor, terms: int = 0) -> Tensor:
    """Return a bound, sums of so many terms, rounded up in place; 0 of a few operations stays 0 (S0)."""
    return elements.grow(bound, growth(bound, terms), terms * _tiny(bound))


def growth(bound: Tensor, terms: int = 0) -> float:
    """Return the factor by which a bound grows that is sums of so many terms (S0)."""
    return 1.0 + 2.0 * (terms + 64) * _unit(bound.dtype)


def gamma(terms: int, unit: float) -> float:
    """Return by how much a value that is rounded so many times may be off, relative to it (S2)."""
    exponent = terms * math.log1p(unit)
    return math.expm1(exponent) if exponent < 700.0 else math.inf


class Safe(Algebra):
    """Upper bounds."""

    label = SAFE

    def magnitude(self, x: Tensor) -> Tensor:
        """Return |x|."""
        return x.abs()

    def given(self, x: Tensor, noise: Noise) -> Noise:
        """Return it as it is."""
        return noise

    def own(self, z: Tensor, rounded: Rounded) -> Noise:
        """Return (S1): units u |z|, and the smallest normal where a result that is not 0 or exact may be flushed."""
        if not rounded.units:
            return None
        return z.abs().mul_(rounded.units * _unit(z.dtype) * (1.0 + 2.0**-20)).add_(_tiny(z))

    def combined(self, z: Tensor, terms: list[tuple[Tensor | float, Noise]], rounded: Rounded) -> Noise:
        """Return the sum of all, (S3)."""
        found = self.own(z, rounded)
        for factor, noise in terms:
            if noise is None:
                continue
            whole = isinstance(factor, float) and factor == 1.0
            part = noise if whole else factor * noise + _vanished(noise)
            found = part if found is None else found + part
        return None if found is None else grown(found + 0.0 if _is_one_of(found, terms) else found)

    def added(self, z: Tensor, x: Tensor, y: Tensor, noise_x: Noise, noise_y: Noise) -> Noise:
        """Return (S4): the error of the addition itself is known exactly, as two_sum gives it (Knuth 1969)."""
        behind = z - x
        own = ((x - (z - behind)) + (y - behind)).abs_()
        endless = math.isnan(float(own.sum()))
        for noise in (noise_x, noise_y):
            if noise is not None:
                own = own + noise
        return grown(torch.where(_absorbed(z, x, y, noise_x, noise_y), 0.0, own) if endless else own)

    def product(self, z: Tensor, x: Tensor, y: Tensor, noise_x: Noise, noise_y: Noise, rounded: Rounded) -> Noise:
        """Return (S5): |x| D_y + |y| D_x + D_x D_y; a factor 0 gives exactly 0."""
        found = self.own(z, rounded)
        if found is not None:
            found = found * _one_unless_zero(x) * _one_unless_zero(y)
        if noise_x is not None:
            over = y.abs() if noise_y is None else y.abs() + noise_y
            found = _sum(found, over * noise_x + _vanished(over, noise_x))
        if noise_y is not None:
            over = x.abs()
            found = _sum(found, over * noise_y + _vanished(over, noise_y))
        return None if found is None else grown(found)

    def quotient(self, z: Tensor, x: Tensor, y: Tensor, noise_x: Noise, noise_y: Noise) -> Noise:
        """Return (S6): (D_x + |z| D_y) / (|y| - D_y) where that is positive."""
        found = self.own(z, Rounded(1.0, 1.0))
        assert found is not None
        found = found * _one_unless_zero(x)
        over = y.abs()
        if noise_y is not None:
            over = (over * (1.0 - 4.0 * _unit(z.dtype)) - noise_y).clamp_(min=0.0)  # where it is 0 all is infinite
            found = found + ((z.abs() + _tiny(z)) * (noise_y / over + _vanished(noise_y)) + _vanished(noise_y))
        if noise_x is not None:
            found = found + (noise_x / over + _vanished(noise_x))
        return grown(found)

    def square(self, z: Tensor, x: Tensor, noise: Noise) -> Noise:
        """Return (S5) for equal factors: (2 |x| + D) D."""
        found = self.own(z, Rounded(1.0, 1.0))
        assert found is not None
        found = found * _one_unless_zero(x)
        if noise is not None:
            found = found + ((2.0 * x.abs() + noise) * noise + _vanished(noise))
        return grown(found)

    def multiple_added(self, z: Tensor, y: Tensor, factor: float, off: float, noise_x: Noise, noise_y: Noise) -> Noise:
        """Return (S3) with a product by a number that is itself off, and two roundings."""
        unit = _unit(z.dtype) * (1.0 + 2.0**-20)
        of_y, of_noise = abs(factor) * unit + off, (abs(factor) + off) * (1.0 + 2.0**-20)
        return elements.multiple_added(z, y, noise_x, noise_y, of_y, unit, of_noise, growth(z))

    def function(self, z: Tensor, x: Tensor, noise: Noise, function: Function) -> Noise:
        """Return (S7): how far the function moves over the interval, and the error of the library."""
        found = self.own(z, function.rounded)
        if function.beside is not None:
            found = _sum(found, function.beside(x, z) * (_unit(z.dtype) * (1.0 + 2.0**-18)))
        if noise is not None:
            found = _sum(found, function.reach(x, z, noise) * (1.0 + 2.0**-18) + _vanished(noise))
        return None if found is None else grown(found)

    def kept(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return the noise of max(x, 0): that of x, and none where x is surely negative."""
        return elements.kept(x, noise)

    def gated(self, g: Tensor, noise_g: Noise, x: Tensor, noise_x: Noise) -> tuple[Noise, int]:
        """Return (S10): where x > 0 is not decided, the gradient may be let through or not."""
        if noise_x is None:
            return (None if noise_g is None else through_gate(noise_g, x)), 0
        # Above 0 where the bound reaches down to 0, from an x above it.
        within = 1.0 - 4.0 * float(torch.finfo(x.dtype).eps)
        return elements.gated(g, noise_g, x, noise_x, within, growth(g))

    def linear(self, f: Linear, x: Tensor, noise: Noise, terms: int, z: Tensor) -> Noise:
        """Return (S8): f(D) and the roundings of sums of so many terms in any order."""
        factor = gamma(terms, _unit(x.dtype)) * (1.0 + 2.0**-20)
        return grown(f(elements.weighted(x, noise, factor)), terms)

    def total(self, x: Tensor, noise: Noise, axes: list[int], keep: bool, z: Tensor) -> Noise:
        """Return (S8); sums of whole numbers that stay in range are exact."""
        terms = x.numel() // max(1, z.numel())
        if terms <= 1 or _exact_sum(x, axes, keep):
            return None if noise is None else grown(plain_sum(noise, axes, keep) + 0.0, terms)
        return self.linear(lambda part: plain_sum(part, axes, keep), x, noise, terms, z)

    def running(self, x: Tensor, noise: Noise, axis: int, z: Tensor) -> Noise:
        """Return (S8): sums of at most so many terms as the axis has."""
        return self.linear(lambda part: torch.cumsum(part, axis), x, noise, x.shape[axis], z)

    def bilinear(
        self, f: Bilinear, x: Tensor, y: Tensor, noise_x: Noise, noise_y: Noise, terms: int, z: Tensor,
        matrix: bool, both: Both | None,
    ) -> Noise:  # fmt: skip
        """Return (S9): D_x |y| + |x| D_y + D_x D_y and gamma |x| |y|, as one or two products."""
        factor = gamma(terms + 1, _unit(x.dtype)) * (1.0 + 2.0**-20)
        if noise_x is None and noise_y is None:
            one, other = (x, y) if x.numel() < y.numel() else (y, x)
            less = elements.weighted(one, None, factor)
            found = f(less, other.abs()) if one is x else f(other.abs(), less)
        elif noise_y is None:
            found = f(elements.weighted(x, noise_x, factor), y.abs())
        elif noise_x is None:
            found = f(x.abs(), elements.weighted(y, noise_y, factor))
        else:
            first = (x.abs(), elements.weighted(y, noise_y, factor))
            second = (noise_x, elements.weighted(y, noise_y, 1.0))
            found = f(*first).add_(f(*second)) if both is None else both(first, second)
        return grown(found, terms)

    def biased(self, product: Noise, bias: Tensor, noise: Noise, terms: int, z: Tensor) -> Noise:
        """Return (S9) with the bias among the terms, of which each is rounded at most terms + 1 times."""
        assert product is not None
        own = bias.abs() * (gamma(terms + 1, _unit(bias.dtype)) * (1.0 + 2.0**-20))
        return product.add_(grown(own if noise is None else own + noise))

    def shares(self, y: Tensor, own: Noise, noise: Noise, axis: int) -> Noise:
        """Return (S11): with M = D_i + max D, a share moves by at most y (1 - y) (exp(M) - 1), and within 0 and 1.

        Its logit is -log(sum over the others of exp(x_j - x_i)), which moves by at most M.
        """
        assert own is not None
        if noise is None:
            return own
        most = y + own
        rest = (1.0 - y) + own + _unit(y.dtype)
        moved = most * rest * torch.expm1(self._most(noise, axis)) + _vanished(noise)
        return grown(own + moved.clamp_(max=1.0))

    def log_shares(self, y: Tensor, own: Noise, noise: Noise, axis: int) -> Noise:
        """Return (S11): a logarithm of a share moves by at most log(1 + (1 - share) (exp(M) - 1))."""
        assert own is not None
        if noise is None:
            return own
        rest = (-torch.expm1(y - own)).clamp_(min=0.0) * (1.0 + 2.0**-18) + _unit(y.dtype)
        moved = torch.log1p(rest * torch.expm1(self._most(noise, axis))) * (1.0 + 2.0**-18)
        return grown(own + torch.where(moved.isnan(), math.inf, moved) + _vanished(noise))

    def _most(self, noise: Tensor, axis: int) -> Tensor:
        """Return M, up to a few roundings that what is made of it is rounded up by."""
        return (noise + noise.amax(axis, keepdim=True)) * (1.0 + 2.0**-18)

    def either(self, noise: Noise, jump: Tensor) -> Noise:
        """Return the sum."""
        return grown(jump + 0.0 if noise is None else noise + jump)

    def departed(self, noise: Noise, distance: Tensor, z: Tensor | None) -> Noise:
        """Return the sum."""
        distance = grown(distance.abs())
        return distance if noise is None else grown(distance.add_(noise))

    def unknown(self, z: Tensor) -> Noise:
        """Return infinity: no bound."""
        return torch.full_like(z, math.inf)


def _tiny(x: Tensor) -> float:
    return float(torch.finfo(x.dtype).tiny)


def _absorbed(z: Tensor, x: Tensor, y: Tensor, noise_x: Noise, noise_y: Noise) -> Tensor:
    """Return where an exact infinity has absorbed what was added to it, as far off as that may be."""
    found = torch.zeros(z.shape, dtype=torch.bool)
    for one, own, other, its in ((x, noise_x, y, noise_y), (y, noise_y, x, noise_x)):
        exactly = one.isinf() if own is None else one.isinf() & (own == 0)
        found = found | (exactly & other.isfinite() & (True if its is None else its.isfinite()))
    return found


def _one_unless_zero(x: Tensor) -> Tensor:
    return x.sign().abs_()


def _vanished(*factors: Tensor) -> Tensor:
    """Return what a product of non-negative factors may have lost to underflow: nothing where one is 0."""
    found = factors[0].sign()
    for factor in factors[1:]:
        found = found * factor.sign()
    return found * _tiny(factors[0])


def _sum(found: Noise, part: Tensor) -> Tensor:
    return part if found is None else found + part


def _is_one_of(found: Tensor, terms: list[tuple[Tensor | float, Noise]]) -> bool:
    return any(found is noise for _, noise in terms)


def _exact_sum(x: Tensor, axes: list[int], keep: bool) -> bool:
    """Whether all partial sums are whole numbers below 2**p."""
    if not x.numel() or not torch.equal(first := x.flatten()[:64], first.trunc()) or not torch.equal(x, x.trunc()):
        return False
    return bool(plain_sum(x.abs(), axes, keep).max() * 1.01 < 1.0 / torch.finfo(x.dtype).eps)
