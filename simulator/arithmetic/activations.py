"""How activations magnify relative errors: the rule of each that a score may look at.

kappa'(v) = |phi'(v) / phi(v)| is the condition number kappa_phi(v) = |v phi'(v) / phi(v)| over |v|. The forms are those
that lose no digits where a difference of nearly equal numbers would: sinh(2v) in place of 1 - tanh(v)**2, the logistic
function at -v in place of 1 less itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_SCALE_OF_PDF = 1.0 / math.sqrt(2.0 * math.pi)
# (x + 5) times Mills' ratio at x >= 0 as a polynomial in (x - 5) / (x + 5), the highest power first: its Chebyshev
# series, cut where the rest is below 1e-16. Form: Shepherd and Laframboise, Math. Comp. 36 (1981), 249.
_MILLS = (
    -3.336850487923168e-10, -1.968820796668673e-09, 3.1868668438665133e-09, 2.324918339616538e-08,
    -1.7398124277679196e-08, -1.6898908396071304e-07, 9.668428357216325e-08, 1.0865648093633823e-06,
    -8.360675980181407e-07, -6.9405498481783575e-06, 9.974780085542733e-06, 4.181269707272043e-05,
    -0.00012473565818721082, -0.00014883252854029768, 0.0013658591609424361, -0.0019999620670556138,
    -0.007503282820678759, 0.05212550242182693, -0.17325473408715042, 0.41364471573217226,
    -0.7859110755465453, 1.241547061573877, -1.66786659518896, 1.9280810471531575,
)  # fmt: skip
# Elements that a polynomial is evaluated of at once, to stay in the cache.
_AT_ONCE = 1 << 13
# gelu in its form with tanh: phi(v) = v s(2u), u = _TANH_1 * (v + _TANH_3 * v * v * v).
_TANH_1, _TANH_3 = math.sqrt(2.0 / math.pi), 0.044715
# Below this v, 1 + exp(v) is 1 in float64.
_NOTHING = -37.0


def _inverse(v: Values) -> Values:
    return np.divide(1.0, np.abs(v, out=v), out=v)


def _inverse_if_positive(v: Values) -> Values:
    negative = v < 0  # a NaN is not, and stays NaN
    inverse = _inverse(v)  # written over v
    np.copyto(inverse, 0.0, where=negative)
    return inverse


def _tanh(v: Values) -> Values:
    return np.divide(2.0, np.abs(np.sinh(np.multiply(2.0, v, out=v), out=v), out=v), out=v)


def _logistic(v: Values) -> Values:
    """1 / (1 + exp(-v))."""
    return 1.0 / (1.0 + np.exp(-v))


def _sigmoid(v: Values) -> Values:
    return _logistic(-v)


def _silu(v: Values) -> Values:
    return np.abs(1.0 / v + _logistic(-v))


def _mills(x: Values) -> Values:
    """Mills' ratio (1 - cdf) / pdf of the normal distribution at x >= 0, infinity too; relative error below 1e-15."""
    x, found = x.ravel(), np.empty(x.shape)
    parts = found.reshape(-1)
    for first in range(0, x.size, _AT_ONCE):
        inverse = 1.0 / (x[first : first + _AT_ONCE] + 5.0)
        t = 1.0 - 10.0 * inverse
        value = np.full_like(t, _MILLS[0])
        for coefficient in _MILLS[1:]:
            value *= t
            value += coefficient
        np.multiply(value, inverse, out=parts[first : first + _AT_ONCE])
    return found


def _pdf(v: Values) -> Values:
    return _SCALE_OF_PDF * np.exp(-0.5 * v * v)


def _gelu(v: Values) -> Values:
    """|1/v + pdf(v) / cdf(v)|, of the normal distribution: Mills' ratio at -v is the inverse of the quotient."""
    ratio, pdf = _mills(np.abs(v)), _pdf(v)
    return np.abs(1.0 / v + np.where(v < 0, 1.0 / ratio, pdf / (1.0 - pdf * ratio)))


def _gelu_tanh(v: Values) -> Values:
    u, slope = _TANH_1 * (v + _TANH_3 * v * v * v), _TANH_1 * (1.0 + 3.0 * _TANH_3 * v * v)
    inner = 2.0 * slope * _logistic(-2.0 * u)
    np.copyto(inner, 0.0, where=v > 100.0)  # of infinity times 0
    return np.abs(1.0 / v + inner)


def _elu(v: Values) -> Values:
    return np.where(v < 0, 1.0 / np.expm1(-v), 1.0 / np.abs(v))


def _softplus(v: Values) -> Values:
    return np.where(v < _NOTHING, 1.0, _logistic(v) / np.logaddexp(0.0, v))


def _exp(v: Values) -> Values:
    return np.where(np.isnan(v), v, 1.0)


# kappa' of each activation, on float64 v of any sign, which it may write over; +inf at a zero that the activation does
# not forgive, NaN of a NaN. An estimate: formulas in float64. The slope of leaky_relu, if it is not 0, and the alpha of
# elu do not matter.
KAPPA_PRIME: Mapping[str, Callable[[Values], Values]] = {
    "identity": _inverse,
    "relu": _inverse_if_positive,
    "leaky_relu": _inverse,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "elu": _elu,
    "softplus": _softplus,
    "exp": _exp,
}


def _identity_slope(v: Values) -> Values:
    return np.ones_like(v)


def _relu_slope(v: Values) -> Values:
    return (v >= 0).astype(np.float64)  # at 0 that of what is right of it, as its score does not forgive it either


def _tanh_slope(v: Values) -> Values:
    inverse = 1.0 / np.cosh(v)
    return inverse * inverse


def _sigmoid_slope(v: Values) -> Values:
    return _logistic(v) * _logistic(-v)


def _silu_slope(v: Values) -> Values:
    s = _logistic(v)
    return s + v * s * _logistic(-v)


def _gelu_slope(v: Values) -> Values:
    pdf = _pdf(v)
    beyond = pdf * _mills(np.abs(v))  # |v|
    return np.where(v < 0, beyond, 1.0 - beyond) + v * pdf


def _gelu_tanh_slope(v: Values) -> Values:
    u, slope = _TANH_1 * (v + _TANH_3 * v * v * v), _TANH_1 * (1.0 + 3.0 * _TANH_3 * v * v)
    s = _logistic(2.0 * u)
    return s + 2.0 * v * slope * s * _logistic(-2.0 * u)


def _elu_slope(v: Values) -> Values:
    return np.exp(np.minimum(v, 0.0))


# phi'(v) of each activation, on float64 v. Of leaky_relu that of the identity: an upper bound below 0.
SLOPE: Mapping[str, Callable[[Values], Values]] = {
    "identity": _identity_slope,
    "relu": _relu_slope,
    "leaky_relu": _identity_slope,
    "tanh": _tanh_slope,
    "sigmoid": _sigmoid_slope,
    "silu": _silu_slope,
    "gelu": _gelu_slope,
    "gelu_tanh": _gelu_tanh_slope,
    "elu": _elu_slope,
    "softplus": _logistic,
    "exp": np.exp,
}
