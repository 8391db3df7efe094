"""Laws of rounding to nearest, with hypothesis looking for a counterexample."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import formats
from tests.oracles.nearest import CATALOGUE

# The fixture `path` is set once per test and not changed by the examples.
lawful = settings(
    derandomize=True, deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

MODIFIED = ["e5m2:ftz", "e4m3:ieee", "e4m3:fnuz:b3", "e5m0:ieee", "e3m3:finite", "e8m21", "e11m40", "e2m5"]
FORMATS = st.sampled_from([*CATALOGUE, *map(formats.get, MODIFIED)])
NUMBERS = st.one_of(
    st.floats(allow_nan=False),
    st.floats(-600, 600),
    st.builds(math.ldexp, st.integers(-4096, 4096), st.integers(-40, 20)),
)


def quantized(fmt, x, overflow="sat"):
    return float(fmt.quantize(x, overflow=overflow))


@lawful
@given(fmt=FORMATS, x=NUMBERS, overflow=st.sampled_from(["ieee", "sat"]))
def test_quantize_is_idempotent(path, fmt, x, overflow):
    once = quantized(fmt, x, overflow)
    again = quantized(fmt, once, overflow)
    assert again.hex() == once.hex(), f"{fmt.name}/{overflow} {x.hex()}"


@lawful
@given(fmt=FORMATS, x=NUMBERS, y=NUMBERS)
def test_quantize_is_monotone(path, fmt, x, y):
    x, y = min(x, y), max(x, y)
    assert quantized(fmt, x) <= quantized(fmt, y), f"{fmt.name} {x.hex()} {y.hex()}"


@lawful
@given(fmt=FORMATS, x=NUMBERS, overflow=st.sampled_from(["ieee", "sat"]))
def test_quantize_is_odd(path, fmt, x, overflow):
    plus, minus = quantized(fmt, x, overflow), quantized(fmt, -x, overflow)
    if math.isnan(plus) or (plus == 0 and not fmt.has_negative_zero):
        assert math.isnan(minus) or minus.hex() == "0x0.0p+0", f"{fmt.name} {x.hex()}"
    else:
        assert minus.hex() == (-plus).hex(), f"{fmt.name}/{overflow} {x.hex()}"


@lawful
@given(fmt=FORMATS, x=NUMBERS)
def test_the_error_is_at_most_half_an_ulp_or_half_the_smallest_subnormal(path, fmt, x):
    y = quantized(fmt, x)
    if abs(x) <= fmt.max and fmt.subnormals:
        # Exact in float64 for formats of moderate precision: x - y has at most 53 bits by Sterbenz or by size.
        bound = max(abs(x) * 2.0**-fmt.precision, fmt.smallest_subnormal / 2)
        assert abs(x - y) <= bound, f"{fmt.name} {x.hex()} -> {y.hex()}"


@lawful
@given(fmt=FORMATS, x=NUMBERS)
def test_results_are_values_of_the_format(path, fmt, x):
    y = quantized(fmt, x)
    assert fmt.value_of(fmt.code_of(y)) == y, f"{fmt.name} {x.hex()} -> {y.hex()}"


@lawful
@given(fmt=FORMATS, codes=st.lists(st.integers(0, (1 << 64) - 1), max_size=8))
def test_encode_inverts_decode_up_to_nan(path, fmt, codes):
    codes = np.array([code % (1 << fmt.bits) for code in codes], fmt.code_dtype)
    values = fmt.decode(codes)
    kept = ~np.isnan(values) & (fmt.subnormals | (values != 0))
    assert fmt.encode(values[kept]).tolist() == codes[kept].tolist(), fmt.name


@pytest.mark.parametrize("fmt", [f for f in CATALOGUE if f.bits <= 8], ids=str)
def test_every_pair_of_values_is_ordered_as_its_quantized_halves(fmt, path):
    """Monotone on a dense grid: all values and all middles, sorted."""
    values = np.sort(fmt.table()[np.isfinite(fmt.table())])
    dense = np.sort(np.concatenate([values, (values[1:] + values[:-1]) / 2]))
    assert (np.diff(fmt.quantize(dense)) >= 0).all()
