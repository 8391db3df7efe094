"""Grids of sweeps: lists, ranges, keys that vary together, conditions; and what is refused."""

import itertools
import math
from pathlib import Path

import numpy as np
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
        ({"from": 8, "to": 64, "step": 24}, [8, 32, 56]),
        ({"from": 0.1, "to": 0.5, "step": 0.1}, [0.1, 0.2, 0.3, 0.4, 0.5]),
        ({"from": np.float64(0.1), "to": 0.3, "steps": 3}, [0.1, 0.2, 0.3]),
        ({"from": 8, "to": 64, "steps": 4, "scale": "log"}, [8, 16, 32, 64]),
        ({"from": 0.001, "to": 1.0, "steps": 4, "scale": "log"}, [0.001, 0.01, 0.1, 1.0]),
        ({"from": 1, "to": 8, "steps": 3, "scale": "log"}, [1, pytest.approx(8**0.5), 8]),
        ({"from": 0, "to": 1, "steps": 5}, [0, 0.25, 0.5, 0.75, 1]),
        ({"from": 1, "to": 100, "steps": 3, "scale": "log"}, [1, pytest.approx(10.0), 100]),
        ({"from": 5, "to": 1, "steps": 3}, [5, 3.0, 1]),
    ],
    ids=str,
)
def test_ranges(form, values):
    found = [point["k"] for point in combinations({"k": form})]
    assert found == values
    whole = isinstance(form["from"], int) and isinstance(form["to"], int)
    assert [type(value) is int for value in found] == [whole and value == int(value) for value in found]


def test_true_is_not_one():
    assert combinations({"k": [1, True, 0]}, only=[{"k": [True]}]) == [{"k": True}]


def test_minus_zero_is_zero():
    (point,) = combinations({"k": [-0.0]})
    assert str(point["k"]) == "0.0"


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.integers(2, 30), st.sampled_from(["linear", "log"]))
def test_the_ends_of_a_range_are_exact_and_it_is_monotonic(first, last, steps, scale):
    found = [point["k"] for point in combinations({"k": {"from": first, "to": last, "steps": steps, "scale": scale}})]
    assert len(found) == steps
    assert (found[0], found[-1]) == (first, last)
    steps = itertools.pairwise(found)
    assert all(a <= b * (1 + 1e-14) if first <= last else b <= a * (1 + 1e-14) for a, b in steps)


def test_conditions_keep_what_fits_one_of_them():
    varied = {"array.dataflow": ["ws", "os"], "array.interleave": [1, 2]}
    only = [{"array": {"dataflow": "os"}}, {"array.dataflow": "ws", "array.interleave": [1]}]
    assert [tuple(point.values()) for point in combinations(varied, only)] == [("ws", 1), ("os", 1), ("os", 2)]


def test_excluded_points_are_left_out_of_those_that_fit():
    varied = {"array.rows": [8, 16, 32], "array.dataflow": ["ws", "os"]}
    found = combinations(varied, [{"array.rows": [8, 16]}], [{"array.rows": 16, "array.dataflow": "os"}])
    assert [tuple(point.values()) for point in found] == [(8, "ws"), (8, "os"), (16, "ws")]


@pytest.mark.parametrize(
    ("interval", "kept"),
    [
        ({"from": 0.3, "to": 3}, [0.5, 1, 2]),
        ({"from": 2}, [2, 4]),
        ({"to": 0.5}, [0.25, 0.5]),
        ({"from": 3, "to": 3.5}, None),
    ],
    ids=str,
)
def test_an_interval_keeps_numbers_within_it(interval, kept):
    varied = {"policy.tolerance": [0.25, 0.5, 1, 2, 4, "off"]}
    if kept is None:
        with pytest.raises(InputError, match="got conditions that leave no point"):
            combinations(varied, [{"policy.tolerance": interval}])
    else:
        found = combinations(varied, [{"policy.tolerance": interval}])
        assert [point["policy.tolerance"] for point in found] == kept


def test_arrays_ranges_and_paths_become_what_a_file_has():
    varied = {
        "a": np.array([1, 2]),
        "b": range(3, 5),
        "c": [np.float64(0.5)],
        "d, e": np.array([[1, 2]]),
        "hw": [Path("x")],
    }
    found = combinations(varied)
    assert found[3] == {"a": 2, "b": 4, "c": 0.5, "d": 1, "e": 2, "hw": "x"}
    assert {type(value) for value in found[3].values()} == {int, float, str}


def test_whole_numbers_at_equal_distances_stay_whole():
    (first, second, third) = (point["k"] for point in combinations({"k": {"from": 8, "to": 16, "steps": 3}}))
    assert (first, second, third) == (8, 12, 16) and type(second) is int


@pytest.mark.parametrize(
    ("varied", "only", "message"),
    [
        ({}, None, "sweep: got nothing that varies; expected keys with lists; write e.g. 'array.rows: [8, 16]'"),
        ({"a": 3}, None, "sweep: a: got 3; expected a list of values, or a range"),
        ({"a": []}, None, "sweep: a: got an empty list; expected a list of values"),
        ({"a": [1], "b, a": [[1, 2]]}, None, "sweep: a: varies twice; expected it once; remove one"),
        ({"a, b": [1]}, None, "sweep: a, b: got 1 among the values of 2 keys that vary together; expected lists of 2"),
        ({"a": {"from": 1, "to": 2}}, None, r"sweep: a: got the range {from: 1, to: 2}; expected {from, to, step}"),
        ({"a": {"from": 1, "to": 2, "step": 0}}, None, "got the range"),
        ({"a": {"from": 1, "to": 2, "step": -1}}, None, "got the range"),
        ({"a": {"from": 1, "to": 2, "steps": 1}}, None, "got the range"),
        ({"a": {"from": 0, "to": 2, "steps": 3, "scale": "log"}}, None, "got the range"),
        ({"a": {"from": 1, "to": "2", "steps": 3}}, None, "got the range"),
        (
            {"a": {"from": 1, "to": 2, "by": 3}},
            None,
            "sweep: a: by: unknown key; expected one of from, to, step, steps",
        ),
        ({"a": {"form": 1, "to": 2, "step": 3}}, None, 'sweep: a: form: unknown key; did you mean "from"?'),
        (
            {"a": {"from": 64, "to": 8, "step": 8}},
            None,
            "sweep: a: got a range by steps from 64 down to 8; expected from",
        ),
        (
            {"a": {"from": 10**5000, "to": 8, "steps": "x"}},
            None,
            "{from: an integer of 16,610 bits, to: 8, steps: 'x'}",
        ),
        ({"a": {"from": 0, "to": 1e308, "step": 1e-10}}, None, "sweep: a: got a range of more than 1,000,000 values"),
        ({"a": {"from": 0, "to": 1e7, "step": 1}}, None, "sweep: a: got a range of more than 1,000,000 values"),
        ({"a": {"from": 0, "to": 1, "steps": 10**7}}, None, "sweep: a: got a range of more than 1,000,000 values"),
        (
            {"a": range(1001), "b": range(1000)},
            None,
            "sweep: got a grid of 1,001,000 points; expected at most",
        ),
        ({"a": [1]}, ["x"], "sweep: only[0]: got 'x'; expected mappings of keys to values"),
        ({"a": [1]}, [{"b": 1}], "sweep: only[0]: b: does not vary; expected one of a; remove it or let it vary"),
        ({"a": [1]}, [{"a": {"from": "x"}}], "sweep: only[0]: a: got a mapping; expected a value, a list of values or"),
        ({"a": [1]}, [{"a": {"from": 1, "step": 1}}], "sweep: only[0]: a: step: unknown key; expected one of from, to"),
        ({"a": [1]}, [{"a": 1}, {"a": {"from": 2, "to": 1}}], "only[1]: a: got an interval from 2 to 1; expected from"),
        ({"a": [object()]}, None, "among its values; expected what a file could have"),
        ({"a": {}}, None, "sweep: a: got the range {}; expected {from, to, step}"),
        ({"a": [1]}, [{"a": 2}], "sweep: got conditions that leave no point; expected some; correct `only`"),
    ],
)
def test_what_is_refused(varied, only, message):
    with pytest.raises(InputError) as caught:
        combinations(varied, only)
    assert message in str(caught.value)


def test_a_range_with_infinite_ends_is_refused():
    with pytest.raises(InputError, match="got the range"):
        combinations({"a": {"from": 0, "to": math.inf, "step": 1}})


def test_conditions_take_what_lists_of_values_may_be():
    rows = {"array.rows": np.array([4, 8, 16])}
    for some in ([8], np.array([8]), range(8, 9)):
        assert combinations(rows, exclude=[{"array.rows": some}]) == [{"array.rows": 4}, {"array.rows": 16}]
