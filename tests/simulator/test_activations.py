"""kappa' of each activation against its definition |phi'(v) / phi(v)|, differentiated in 60 digits."""

import math

import numpy as np
import pytest

from simulator.arithmetic.activations import KAPPA_PRIME, SLOPE, _mills

mp = pytest.importorskip("mpmath")

SEED = 810
# As definitions, each in a form that 60 digits suffice for.
ACTIVATIONS = {
    "identity": lambda v: v,
    "relu": lambda v: max(v, mp.mpf(0)),
    "leaky_relu": lambda v: v if v >= 0 else v / 100,
    "tanh": mp.tanh,
    "sigmoid": lambda v: 1 / (1 + mp.exp(-v)),
    "silu": lambda v: v / (1 + mp.exp(-v)),
    "gelu": lambda v: v * mp.ncdf(v),
    # 1 + tanh(u) = 2 / (1 + exp(-2u))
    "gelu_tanh": lambda v: v / (1 + mp.exp(-2 * mp.sqrt(2 / mp.pi) * (v + mp.mpf(0.044715) * v**3))),
    "elu": lambda v: v if v > 0 else mp.expm1(v),
    "softplus": lambda v: mp.log1p(mp.exp(v)),
    "exp": mp.exp,
}


def test_each_activation_has_its_definition_here():
    assert KAPPA_PRIME.keys() == ACTIVATIONS.keys()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_kappa_prime_is_the_derivative_over_the_value(name):
    rng = np.random.default_rng(SEED)
    edges = [-36.9, -37.1, -8.01, -7.99, -30.0, -3.0, 3.0, 30.0]
    v = np.concatenate([3 * rng.normal(size=40), 1e-3 * rng.normal(size=20), edges])
    with mp.workdps(60), np.errstate(all="ignore"):
        found = KAPPA_PRIME[name](v.copy())
        for x, got in zip(map(float, v), map(float, found), strict=True):
            at = mp.mpf(x)
            phi = ACTIVATIONS[name](at)
            expected = abs(mp.diff(ACTIVATIONS[name], at, h=mp.mpf(10) ** -25) / phi) if phi else mp.mpf(0)
            assert abs(mp.mpf(got) - expected) <= 2e-14 * expected, (x, got, float(expected))


def test_mills_ratio_is_within_its_error_from_zero_to_infinity():
    rng = np.random.default_rng(SEED + 2)
    x = np.concatenate([3 * np.abs(rng.normal(size=500)), 40 * rng.random(500), 10.0 ** rng.uniform(-300, 6, 500), [0]])
    with mp.workdps(60):
        for at, got in zip(map(float, x), map(float, _mills(x)), strict=True):
            expected = mp.sqrt(mp.pi / 2) * mp.exp(mp.mpf(at) ** 2 / 2) * mp.erfc(mp.mpf(at) / mp.sqrt(2))
            assert abs(got / expected - 1) < 1e-15, (at, got)
    far = np.array([1e9, 1e200, 1.7e308])
    np.testing.assert_allclose(_mills(far) * far, 1.0, rtol=1e-8)
    assert _mills(np.array([math.inf]))[0] == 0
    wide = np.abs(rng.normal(size=(3, 10_000)))  # more than are evaluated at once
    assert np.array_equal(_mills(wide), np.stack([[_mills(row[i : i + 1])[0] for i in range(10_000)] for row in wide]))


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"leaky_relu"}))
def test_slopes_are_the_derivatives(name):
    rng = np.random.default_rng(SEED + 1)
    v = np.concatenate([3 * rng.normal(size=40), 1e-3 * rng.normal(size=20), [-30.0, -8.0, 8.0, 30.0]])
    with mp.workdps(60), np.errstate(all="ignore"):
        for x, got in zip(map(float, v), map(float, SLOPE[name](v.copy())), strict=True):
            expected = mp.diff(ACTIVATIONS[name], mp.mpf(x), h=mp.mpf(10) ** -25)
            assert abs(mp.mpf(got) - expected) <= 1e-14 * max(1, abs(expected)), (x, got, float(expected))


def test_each_activation_has_a_slope():
    assert SLOPE.keys() == KAPPA_PRIME.keys()
    assert SLOPE["relu"](np.array([-1.0, -0.0, 0.0, 2.0])).tolist() == [0, 1, 1, 1]
    assert (np.abs(SLOPE["leaky_relu"](np.array([-1.0, 2.0]))) >= [0.01, 1]).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_special_values(name):
    """A NaN stays one; zeros are forgiven by what is not zero there; far out nothing overflows into a NaN."""
    limits = {
        "sigmoid": (0.5, 0.0, 1.0), "softplus": (0.5 / math.log(2), 0.0, 1.0), "exp": (1.0, 1.0, 1.0),
        "silu": (math.inf, 0.0, 1.0), "gelu": (math.inf, 0.0, math.inf), "gelu_tanh": (math.inf, 0.0, math.inf),
    }  # fmt: skip
    at_zero, at_infinity, at_minus_infinity = limits.get(name, (math.inf, 0.0, 0.0))
    with np.errstate(all="ignore"):
        found = KAPPA_PRIME[name](np.array([0.0, -0.0, math.inf, -math.inf, math.nan]))
        assert list(found[:4]) == [pytest.approx(at_zero)] * 2 + [at_infinity, at_minus_infinity]
        assert math.isnan(found[4])
        far = KAPPA_PRIME[name](np.array([-1e308, -1e4, -800.0, 800.0, 1e4, 1e308]))
    assert not np.isnan(far).any()
