"""Bounded: a tensor of exact values, enclosed, with how far the computed ones are off."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from .outward import above, below, grown


class Bounded:
    """Exact values x within [lo, hi], and computed ones x_hat with |x_hat - x| <= d and |x_hat - x| <= e |x|.

    All are float64 of one shape. d and e are absolute numbers; in units of u, as the theory has them, they are delta =
    d / u and eps = e / u, which hold for every smaller u as well where no underflow is in them. Rule (B1): e is made
    smaller by d over the least magnitude, d by e times the largest.

    Args:
        lo, hi: of the exact values. d: absolute bound. e: relative bound, None or infinite where none is known.
    """

    def __init__(self, lo: Tensor, hi: Tensor, d: Tensor, e: Tensor | None = None) -> None:
        self.lo, self.hi, self.given = lo, hi, e  # by a rule; None where only d says something
        self.d = torch.nan_to_num(d, nan=torch.inf, posinf=torch.inf)
        if e is not None:
            self.given = e = torch.nan_to_num(e, nan=torch.inf, posinf=torch.inf)
            known, most = ~e.isinf(), self.magnitude
            by_e = torch.where(known, grown(e * most), torch.inf)
            self.d = torch.where((e == 0) | ((most == 0) & known), 0.0, torch.minimum(self.d, by_e))

    @cached_property
    def e(self) -> Tensor:
        """Relative bound, infinite where none is known; made only where a rule asks for it."""
        least = torch.where((self.lo <= 0) & (self.hi >= 0), 0.0, torch.minimum(self.lo.abs(), self.hi.abs()))
        by_d = torch.where(least > 0, grown(self.d / least), torch.inf)
        return torch.where(self.d == 0, 0.0, by_d if self.given is None else torch.minimum(self.given, by_d))

    @classmethod
    def exactly(cls, x: Tensor) -> Bounded:
        """Return values that are computed as they are."""
        wide = x.detach().to(torch.float64)
        return cls(wide, wide, torch.zeros_like(wide))

    @property
    def magnitude(self) -> Tensor:
        """Largest magnitude of the exact values."""
        return torch.maximum(self.lo.abs(), self.hi.abs())

    @property
    def computed(self) -> Tensor:
        """Largest magnitude of exact and computed values."""
        return grown(self.magnitude + self.d)

    @property
    def box(self) -> tuple[Tensor, Tensor]:
        """Ends of what holds exact and computed values, and all between."""
        return below(self.lo - self.d), above(self.hi + self.d)

    @property
    def is_exact(self) -> bool:
        """Whether all values are known, and computed as they are."""
        return bool((self.d == 0).all() and (self.lo == self.hi).all())

    def map(self, moved: Callable[[Tensor], Tensor]) -> Bounded:
        """Return values that are only moved."""
        e = None if self.given is None else moved(self.e)
        return Bounded(moved(self.lo), moved(self.hi), moved(self.d), e)
