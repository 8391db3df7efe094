"""Grids of sweeps: lists, ranges, keys that vary together, conditions; and what is refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import InputError
from simulator.explore.grid import combinations


def test_every_combination_the_last_key_fastest():
    assert combinations({"array.rows": [8, 16], "policy.tolerance": [0.25, 0.5]}) == [
        {"array.rows": 8, "policy.tolerance": 0.25},
        {"array.rows": 8, "policy.tolerance": 0.5},
        {"array.rows": 16, "policy.tolerance": 0.25},
        {"array.rows": 16, "policy.tolerance": 0.5},
    ]


def test_mappings_stand_for_keys_further_down():
    assert combinations({"array": {"rows": [8]}, "layers": {"fc*": {"mac": ["low", "high"]}}}) == [
        {"array.rows": 8, "layers.fc*.mac": "low"},
        {"array.rows": 8, "layers.fc*.mac": "high"},
    ]


def test_keys_with_a_comma_vary_together():
    assert combinations({"array.rows, array.columns": [[8, 8], [16, 4]], "seed": [1, 2]}) == [
        {"array.rows": 8, "array.columns": 8, "seed": 1},
        {"array.rows": 8, "array.columns": 8, "seed": 2},
        {"array.rows": 16, "array.columns": 4, "seed": 1},
        {"array.rows": 16, "array.columns": 4, "seed": 2},
    ]


@pytest.mark.parametrize(
    ("form", "values"),
    [
        ({"from": 8, "to": 20, "step": 4}, [8, 12, 16, 20]),
        ({"from": 8, "to": 19, "step": 4}, [8, 12, 16]),
        ({"from": 0.1, "to": 0.3, "step": 0.1}, [0.1, 0.2, pytest.approx(0.3)]),
        ({"from": 0, "to": 1, "steps": 5}, [0, 0.25, 0.5, 0.75, 1]),
        ({"from": 1, "to": 100, "steps": 3, "scale": "log"}, [1, pytest.approx(10.0), 100]),
        ({"from": 5, "to": 1, "steps": 3}, [5, 3.0, 1]),
    ],
    ids=str,
)
def test_ranges(form, values):
    assert [point["k"] for point in combinations({"k": form})] == values


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.integers(2, 30), st.sampled_from(["linear", "log"]))
def test_the_ends_of_a_range_are_exact_and_it_is_monotonic(first, last, steps, scale):
    found = [point["k"] for point in combinations({"k": {"from": first, "to": last, "steps": steps, "scale": scale}})]
    assert len(found) == steps
    assert (found[0], found[-1]) == (first, last)
    assert all(min(first, last) * (1 - 1e-12) <= value <= max(first, last) * (1 + 1e-12) for value in found)


def test_conditions_keep_what_fits_one_of_them():
    varied = {"array.dataflow": ["ws", "os"], "array.interleave": [1, 2]}
    only = [{"array": {"dataflow": "os"}}, {"array.dataflow": "ws", "array.interleave": [1]}]
    assert [tuple(point.values()) for point in combinations(varied, only)] == [("ws", 1), ("os", 1), ("os", 2)]


@pytest.mark.parametrize(
    ("varied", "only", "message"),
    [
        ({}, None, "sweep: got nothing that varies; expected keys with lists; write e.g. 'array.rows: [8, 16]'"),
        ({"a": 3}, None, "sweep: a: got 3; expected a list of values, or a range"),
        ({"a": []}, None, "sweep: a: got a list; expected a list of values"),
        ({"a": [1], "b, a": [[1, 2]]}, None, "sweep: a: varies twice; expected it once; remove one"),
        ({"a, b": [1]}, None, "sweep: a, b: got 1 among the values of 2 keys that vary together; expected lists of 2"),
        ({"a": {"from": 1, "to": 2}}, None, r"sweep: a: got the range {from: 1, to: 2}; expected {from, to, step}"),
        ({"a": {"from": 1, "to": 2, "step": 0}}, None, "got the range"),
        ({"a": {"from": 1, "to": 2, "step": -1}}, None, "got the range"),
        ({"a": {"from": 1, "to": 2, "steps": 1}}, None, "got the range"),
        ({"a": {"from": 0, "to": 2, "steps": 3, "scale": "log"}}, None, "got the range"),
        ({"a": {"from": 1, "to": "2", "steps": 3}}, None, "got the range"),
        ({"a": {"from": 1, "to": 2, "by": 3}}, None, "got the range"),
        ({"a": {"from": 0, "to": 1e7, "step": 1}}, None, "sweep: got 1,000,001 points; expected at most 1,000,000"),
        ({"a": [1]}, ["x"], "sweep: only: got 'x'; expected mappings of keys to values"),
        ({"a": [1]}, [{"b": 1}], "sweep: only: b: does not vary; expected one of a; remove it or let it vary"),
        ({"a": [1]}, [{"a": 2}], "sweep: only: got conditions that no point fulfils"),
    ],
)
def test_what_is_refused(varied, only, message):
    with pytest.raises(InputError) as caught:
        combinations(varied, only)
    assert message in str(caught.value)


def test_a_range_with_infinite_ends_is_refused():
    with pytest.raises(InputError, match="got the range"):
        combinations({"a": {"from": 0, "to": math.inf, "step": 1}})
