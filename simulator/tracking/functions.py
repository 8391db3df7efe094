"""Functions of one real variable: how steep they are, and how far they move within a distance, rule (S7).

A smooth function with |f''| <= c moves by at most |f'(x)| d + c d^2 / 2 within d of x. Slopes are computed too, and
off by a few units u of the largest slope, which is added. Functions with no such c have their own form.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .algebra import Function, Rounded

# Torch's libraries are off by at most 2 ulp, which is 4 u; one expects about half an ulp.
LIBRARY = Rounded(4.0, 1.0)


def curved(
    slope: Callable[[Tensor, Tensor], Tensor],
    steepest: float,
    curvature: float,
    rounded: Rounded = LIBRARY,
    beside: Callable[[Tensor, Tensor], Tensor] | None = None,
    span: float = math.inf,
) -> Function:
    """Return a function whose slope is nowhere above `steepest`, whose second derivative is nowhere above `curvature`,
    and whose values are nowhere further apart than `span`.
    """

    def reach(x: Tensor, z: Tensor, d: Tensor) -> Tensor:
        off = 32.0 * steepest * float(torch.finfo(x.dtype).eps)
        found = (slope(x, z).abs() + off + d * (curvature / 2.0)).clamp(max=steepest) * d
        return found if span == math.inf else found.clamp(max=span)

    return Function(slope, reach, rounded, beside)


def _inside(x: Tensor, d: Tensor, found: Tensor) -> Tensor:
    """Return it where the interval has none but positive numbers; else infinity."""
    return torch.where(x > d, found, math.inf)


def _below(x: Tensor, d: Tensor) -> Tensor:
    """Return -log(1 - d / x) for d < x: how far log moves towards 0. The quotient is rounded up, being close to 1."""
    return -torch.log1p(-torch.clamp(d / x * (1.0 + 4.0 * float(torch.finfo(x.dtype).eps)), max=1.0))


def _at_least_tiny(z: Tensor) -> Tensor:
    """Return a positive result, which may have been flushed to 0 (S0)."""
    return z + float(torch.finfo(z.dtype).tiny)


def _normal(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x * x) * (1.0 / math.sqrt(2.0 * math.pi))


def gelu_slope(x: Tensor, z: Tensor) -> Tensor:
    """Return the derivative of x Phi(x)."""
    return 0.5 * (1.0 + torch.erf(x * math.sqrt(0.5))) + x * _normal(x)


def silu_slope(x: Tensor, z: Tensor) -> Tensor:
    """Return the derivative of x sigmoid(x)."""
    s = torch.sigmoid(x)
    return s * (1.0 + x * (1.0 - s))


_TANH_CURVATURE = 4.0 / (3.0 * math.sqrt(3.0))
_SIGMOID_CURVATURE = 1.0 / (6.0 * math.sqrt(3.0))

FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Function]] = {
    "exp": (torch.exp, Function(lambda x, z: z, lambda x, z, d: _at_least_tiny(z) * torch.expm1(d), LIBRARY)),
    "exp2": (
        torch.exp2,
        Function(
            lambda x, z: z * math.log(2.0), lambda x, z, d: _at_least_tiny(z) * torch.expm1(d * 0.693148), LIBRARY,
        ),
    ),
    "expm1": (
        torch.expm1,
        Function(lambda x, z: z + 1.0, lambda x, z, d: _at_least_tiny(torch.exp(x)) * torch.expm1(d), LIBRARY),
    ),
    "log": (torch.log, Function(lambda x, z: 1.0 / x, lambda x, z, d: _inside(x, d, _below(x, d)), LIBRARY)),
    "log2": (
        torch.log2,
        Function(
            lambda x, z: 1.0 / (x * math.log(2.0)),
            lambda x, z, d: _inside(x, d, _below(x, d)) * (1.0 / math.log(2.0)), LIBRARY,
        ),
    ),
    "log10": (
        torch.log10,
        Function(
            lambda x, z: 1.0 / (x * math.log(10.0)),
            lambda x, z, d: _inside(x, d, _below(x, d)) * (1.0 / math.log(10.0)), LIBRARY,
        ),
    ),
    "log1p": (
        torch.log1p,
        Function(
            lambda x, z: 1.0 / (1.0 + x),
            lambda x, z, d: _inside(_down(1.0 + x), d, _below(_down(1.0 + x), d)), LIBRARY,
        ),
    ),
    "sqrt": (
        torch.sqrt,
        Function(
            lambda x, z: 0.5 / z,
            # Where 0 is within the interval: at most sqrt(x + d) away, and at most sqrt(x).
            lambda x, z, d: torch.where(x > d, d / (z + torch.sqrt((x - d).clamp(min=0.0))), torch.sqrt(x + d)),
            LIBRARY,
        ),
    ),
    "rsqrt": (
        torch.rsqrt,
        Function(
            lambda x, z: 0.5 * z / x,
            lambda x, z, d: _inside(x, d, _rsqrt_reach(x, d)), LIBRARY,
        ),
    ),
    "reciprocal": (
        torch.reciprocal,
        Function(lambda x, z: z * z, lambda x, z, d: _inside(x.abs(), d, d / x.abs() / _down(x.abs() - d)),
                 Rounded(1.0, 1.0)),
    ),
    "tanh": (torch.tanh, curved(lambda x, z: 1.0 - z * z, 1.0, _TANH_CURVATURE, span=2.0)),
    "sigmoid": (
        torch.sigmoid, curved(lambda x, z: z * (1.0 - z), 0.25, _SIGMOID_CURVATURE, Rounded(8.0, 2.0), span=1.0),
    ),
    "erf": (torch.erf, curved(lambda x, z: 2.0 / math.sqrt(math.pi) * torch.exp(-x * x), 1.129, 0.968)),
    "erfc": (torch.erfc, curved(lambda x, z: 2.0 / math.sqrt(math.pi) * torch.exp(-x * x), 1.129, 0.968)),
    "sin": (torch.sin, curved(lambda x, z: torch.cos(x), 1.0, 1.0)),
    "cos": (torch.cos, curved(lambda x, z: torch.sin(x), 1.0, 1.0)),
    "atan": (torch.atan, curved(lambda x, z: 1.0 / (1.0 + x * x), 1.0, 0.6496)),
    "asinh": (torch.asinh, curved(lambda x, z: torch.rsqrt(1.0 + x * x), 1.0, 0.385)),
    "sinh": (torch.sinh, Function(lambda x, z: torch.cosh(x), lambda x, z, d: torch.cosh(x.abs() + d) * d, LIBRARY)),
    "cosh": (
        torch.cosh, Function(lambda x, z: torch.sinh(x).abs(), lambda x, z, d: torch.sinh(x.abs() + d) * d, LIBRARY),
    ),
    # Derivatives that grow towards an end of the domain: the slope there counts, as far as the interval reaches.
    "asin": (torch.asin, Function(lambda x, z: torch.rsqrt(_to_one(x)), lambda x, z, d: _to_end(x, d), LIBRARY)),
    "acos": (torch.acos, Function(lambda x, z: torch.rsqrt(_to_one(x)), lambda x, z, d: _to_end(x, d), LIBRARY)),
    "atanh": (
        torch.atanh,
        Function(
            lambda x, z: 1.0 / _to_one(x),
            lambda x, z, d: torch.where(_down(1.0 - x.abs()) > d, d / _down(_to_one(x.abs() + d)), math.inf), LIBRARY,
        ),
    ),
    "acosh": (
        torch.acosh,
        Function(
            lambda x, z: torch.rsqrt((x - 1.0) * (x + 1.0)),
            lambda x, z, d: _inside(_down(x - 1.0), d, d * torch.rsqrt(_down(x - d - 1.0)) * torch.rsqrt(x - d + 1.0)),
            LIBRARY,
        ),
    ),
    # exp(-x) overflows where the result is still a normal number.
    "silu": (
        torch.nn.functional.silu,
        curved(silu_slope, 1.1, 0.5001, Rounded(12.0, 3.0), lambda x, z: (x < -80.0) * 2.0**-90),
    ),
    # 1 + erf, of a number near -1, is off by a few units whatever is left.
    "gelu": (
        torch.nn.functional.gelu,
        curved(gelu_slope, 1.13, 0.7979, Rounded(16.0, 3.0), lambda x, z: 8.0 * (-x).clamp(min=0.0)),
    ),
    "softplus": (torch.nn.functional.softplus, curved(lambda x, z: torch.sigmoid(x), 1.0, 0.2501, Rounded(12.0, 2.0))),
    "log_sigmoid": (
        torch.nn.functional.logsigmoid, curved(lambda x, z: torch.sigmoid(-x), 1.0, 0.2501, Rounded(12.0, 2.0)),
    ),
}  # fmt: skip


def _down(x: Tensor) -> Tensor:
    return x * (1.0 - 8.0 * float(torch.finfo(x.dtype).eps))


def _rsqrt_reach(x: Tensor, d: Tensor) -> Tensor:
    """Return 1 / sqrt(x - d) - 1 / sqrt(x) = d / (sqrt(x (x - d)) (sqrt(x) + sqrt(x - d))), without overflow."""
    root, low = torch.sqrt(x), torch.sqrt(_down(x - d))
    return d / root / low / (root + low)


def _to_one(x: Tensor) -> Tensor:
    return (1.0 - x) * (1.0 + x)


def _to_end(x: Tensor, d: Tensor) -> Tensor:
    """Return how far arcsine and arccosine move: d times the slope at the far end, pi beyond the domain."""
    return torch.where(_down(1.0 - x.abs()) > d, d * torch.rsqrt(_down(_to_one(x.abs() + d))), math.pi)


def power(exponent: float) -> Function:
    """Return x**exponent for x > 0; where 0 may be within, only positive exponents have a reach."""

    def slope(x: Tensor, z: Tensor) -> Tensor:
        return exponent * torch.pow(x, exponent - 1.0)

    def reach(x: Tensor, z: Tensor, d: Tensor) -> Tensor:
        if float(exponent).is_integer():
            if exponent >= 1.0:
                return exponent * torch.pow(x.abs() + d, exponent - 1.0) * d
            x = x.abs()  # whole powers are even or odd
        # |(1 + s)^e - 1| <= exp(|e| l) - 1 for |s| <= d / x, with l = -log(1 - d / x); where 0 is within, and e > 0,
        # what is off is at most the result at the far end.
        most = _at_least_tiny(z.abs()) * torch.expm1(abs(exponent) * _below(x, d) * (1.0 + 2.0**-16))
        return torch.where(x > d, most, torch.pow(x.abs() + d, exponent) if exponent > 0 else math.inf)

    return Function(slope, reach, LIBRARY)


# Second derivatives of activations, which are slopes of their slopes, with bounds of the third.
def second_of_gelu(x: Tensor) -> Tensor:
    """Return (2 - x^2) phi(x)."""
    return (2.0 - x * x) * _normal(x)


def second_of_silu(x: Tensor) -> Tensor:
    """Return s (1 - s) (2 + x (1 - 2 s))."""
    s = torch.sigmoid(x)
    return s * (1.0 - s) * (2.0 + x * (1.0 - 2.0 * s))


def slope_of(second: Callable[[Tensor], Tensor], steepest: float, curvature: float) -> Function:
    """Return the slope of an activation as a function itself, computed in a few operations.

    Args:
        second: second derivative of the activation, nowhere above `steepest`. curvature: bound of the third one.
    """
    return curved(lambda x, z: second(x), steepest, curvature, Rounded(24.0, 4.0))
