"""Reverse, and parts that join with fewer bits: the order and the joins of real units, against the definition."""

from __future__ import annotations

import numpy as np
import pytest

import simulator
from simulator.arithmetic import reference
from simulator.arithmetic.lowering import taken
from simulator.arithmetic.places import Place

FORMS = [
    "reverse(2, fma(fp16))",
    "reverse(3, seq(fp16/sr:4))",
    "chunk(5, reverse(2, fma(bf16/sr:8)), seq(fp16/sr:3))",
    "interleave(3, reverse(2, seq(fp16)), seq(fp16/sr:5))",
    "late(reverse(4, chunk(3, reverse(2, fma(e5m4)), seq(e5m5))))",
    "reverse(7, aligned(4, 10, fp16/rz))",
    "reverse(2, interleave(2, reverse(3, kahan(e5m3)), fma(e5m4)))",
    "reverse(3, tree(e5m6))",
    "aligned(16, 24, fp32, c=late, parts=2, part_frac=24, sum_frac=31, c_frac=24, c_reach=25)",
    "aligned(6, 9, e8m12, c=late, parts=2, part_frac=5, sum_frac=8, c_frac=6, c_reach=7)",
    "aligned(6, 9, e8m12, c=late, parts=2, part_frac=5)",
]


def operands(m, k, n, seed):
    rng = np.random.default_rng(seed)

    def spread(*shape):
        return rng.standard_normal(shape) * 2.0 ** rng.integers(-6, 7, shape)

    return spread(m, k), spread(k, n), spread(m, n)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("k", [0, 1, 2, 5, 7, 12, 33])
def test_the_engine_is_the_definition(form, k):
    spec = simulator.mac(f"fp16 -> {form}")
    a, b, c = operands(4, k, 3, seed=k)
    for addend in (None, c):
        y = simulator.matmul(a, b, spec, c=addend, seed=3)
        for i, j in np.ndindex(4, 3):
            start = None if addend is None else float(c[i, j])
            want, _ = reference.dot(spec, a[i].tolist(), b[:, j].tolist(), start, Place(i, j, 3, seed=3))
            assert float(y[i, j]).hex() == want.hex(), (form, k, i, j)


@pytest.mark.parametrize("form", FORMS)
def test_the_string_form_is_read_back(form):
    spec = simulator.mac(form)
    assert simulator.mac(str(spec)) == spec


def test_what_is_reversed_is_each_run():
    assert taken(simulator.mac("reverse(2, fma(fp16))").accumulator, 5).tolist() == [1, 0, 3, 2, 4]
    assert taken(simulator.mac("chunk(3, reverse(2, fma(fp16)), seq(fp16))").accumulator, 7).tolist() == [
        1, 0, 2, 4, 3, 5, 6]  # fmt: skip
    assert taken(simulator.mac("fma(fp16)").accumulator, 5) is None


def test_reversing_the_operands_is_the_same():
    a, b, c = operands(3, 12, 4, seed=1)
    backwards = simulator.matmul(a[:, ::-1], b[::-1], "chunk(4, seq(e5m4), seq(e5m4))", c=c)
    runs = simulator.matmul(a, b, "reverse(12, chunk(4, seq(e5m4), seq(e5m4)))", c=c)
    np.testing.assert_array_equal(runs, backwards)


def test_a_convolution_takes_its_products_in_that_order_too():
    rng = np.random.default_rng(2)
    x, weight = rng.standard_normal((1, 2, 5, 5)), rng.standard_normal((3, 2, 3, 3))
    spec = simulator.mac("bf16:ftz -> reverse(2, fma(e5m4))")
    y = simulator.convolution(x, weight, spec)
    windows = np.lib.stride_tricks.sliding_window_view(x[0], (3, 3), axis=(1, 2)).transpose(1, 2, 0, 3, 4)
    want = simulator.matmul(windows.reshape(9, 18), weight.reshape(3, 18).T, spec)
    np.testing.assert_array_equal(y[0].reshape(3, 9).T, want)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("reverse(0, fma(fp16))", "reverse: the length of a run: got 0; expected a whole number from 1"),
        ("reverse(2, late(fma(fp16)))", r"write late\(reverse\(\.\.\.\)\)"),
        ("chunk(2, fma(fp16), reverse(2, seq(fp16)))", "chunk: reverse is for products"),
        ("aligned(4, 9, fp16, part_frac=5)", "aligned: part_frac is for parts=2"),
    ],
)
def test_what_makes_no_sense_is_refused(form, message):
    with pytest.raises(ValueError, match=message):
        simulator.mac(form)


# More products than the engine packs at once: the same as in two parts, of which the second goes on from the first.
@pytest.mark.parametrize(
    "form",
    [
        "h100.fp8.wgmma",
        "aligned(4, 22, fp32/rz)",
        "aligned(6, 9, fp32)",
        "chunk(640, aligned(16, 25, fp32), fma(fp32))",
    ],
)
def test_very_many_products_are_taken_in_windows(form):
    spec = simulator.mac(form)
    k, part = 71_003, 640 * 60
    rng = np.random.default_rng(0)
    a, b = rng.integers(-8, 9, (11, k)) / 8, rng.integers(-8, 9, (k, 35)) / 8
    whole = simulator.matmul(a, b, spec)
    first = simulator.matmul(a[:, :part], b[:part], spec)
    assert np.array_equal(whole, simulator.matmul(a[:, part:], b[part:], spec, c=first))
    assert len(np.unique(whole)) > 99
    assert np.array_equal(whole, simulator.matmul(a, b, spec, stats=True)[0])
    again = simulator.two_pass(a, b, low="fma(fp8_e4m3)", high=form, tolerance=0.5, activation="relu")
    assert 0 < again.recomputed.sum() < whole.size
    assert np.array_equal(again.output[again.recomputed], whole[again.recomputed])
