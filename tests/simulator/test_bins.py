"""Bins: to the last value what np.searchsorted says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from simulator.arithmetic.bins import Bins

NUMBERS = st.floats(allow_nan=False)


def neighbours(edges):
    with np.errstate(over="ignore"):
        return np.concatenate([edges, np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf)])


@given(st.lists(NUMBERS, max_size=70), arrays(np.float64, st.integers(0, 50), elements=NUMBERS))
def test_bins_are_those_of_searchsorted(edges, v):
    edges = np.sort(np.array(edges, np.float64))
    v = np.concatenate([v, neighbours(edges), [0.0, -0.0, np.inf, -np.inf, 5e-324, -5e-324]])
    assert np.array_equal(Bins(edges).of(v), np.searchsorted(edges, v))


@pytest.mark.parametrize("spread", [1e-9, 1.0, 1e9])
def test_many_edges_in_one_cell_and_values_in_two_dimensions(spread):
    rng = np.random.default_rng(0)
    edges = np.sort(1.0 + spread * rng.standard_normal(300))
    v = np.asfortranarray(1.0 + spread * rng.standard_normal((40, 50)))
    found = Bins(edges).of(v)
    assert found.shape == v.shape and np.array_equal(found, np.searchsorted(edges, v))


def test_nan_is_in_some_bin():
    assert Bins(np.array([0.0, 1.0])).of(np.array([np.nan, -np.nan])).max() <= 2
