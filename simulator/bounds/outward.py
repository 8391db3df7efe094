"""Outward rounding: the analysis runs in float64, and every bound that it gives holds for the real numbers.

Rules (B0): a float64 operation is off by at most 2**-53 of its result and 2**-1075; a sum of n terms in any order by
at most (n - 1) 2**-53 (1 + 2**-40) of the sum of magnitudes, n below 2**12; more terms have the factor of `grown`.
A bound that is NaN is infinite.
"""

from __future__ import annotations

import torch
from torch import Tensor

# What a bound of a few operations grows by, and the least that any of them may have lost.
_GROWTH = 1.0 + 2.0**-40
TINY = 2.0**-1000
# What the magnitude of an exact zero may become by outward rounding.
ZERO = 2.0**-990
# Of the elementary functions of torch in float64, relative, many times their documented error of a few ulp.
_FUNCTION = 2.0**-44


def grown(bound: Tensor, terms: int = 1) -> Tensor:
    """Return a bound (a sum of so many products of non-negative numbers), rounded up; NaN becomes infinity."""
    factor = _GROWTH + 2.0 * (terms + 2) * 2.0**-53
    return torch.nan_to_num(bound * factor + TINY, nan=torch.inf, posinf=torch.inf)


def below(x: Tensor) -> Tensor:
    """Return x, the result of a few operations of one sign or of a function, rounded down; NaN becomes -infinity."""
    return torch.nan_to_num(x - x.abs() * _FUNCTION - TINY, nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)


def above(x: Tensor) -> Tensor:
    """Return x, likewise, rounded up; NaN becomes infinity."""
    return torch.nan_to_num(x + x.abs() * _FUNCTION + TINY, nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)


def radius_of_sum(magnitudes: Tensor, terms: int) -> Tensor:
    """Return how far a float64 sum of so many products may be off, from the same sum of their magnitudes."""
    return magnitudes * ((terms + 2) * 2.0**-53 * 1.001) + TINY
