"""Operands on which a kernel outside its condition gives a wrong bit: each clause is there for a reason.

The chosen kernel must give the right bits on every instruction set, and the forced one must still be wrong: if it is
not, the clause is too strict and the case belongs elsewhere.
"""

import math

import numpy as np
import pytest

import simulator
from simulator.arithmetic.engine import Accumulation
from tests.oracles.bits import assert_same_bits
from tests.oracles.kernel_cases import definition, forced, kernel_named

SEED = 300


def vectors(a, b):
    return np.array([a], np.float64), np.array([b], np.float64).T


# id: kernel outside its condition, accumulator, a, b, c, right result, what the kernel makes of it
HARD = {
    "fp16 into fp16, product bits on a tie": (
        "float32_fma", "fma(fp16)", [(1 + 2**-10) * 2**-11], [1 - 2**-10], 1 + 2**-10, 1.0009765625, 1.001953125,
    ),
    "e5m2 into e5m2, a tiny addend decides": (
        "float32_fma", "fma(fp8_e5m2)", [96.0], [96.0], 2.0**-16, 10240.0, 8192.0,
    ),
    "a product of p + 1 bits sits on a tie": (
        "float32_fma", "fma(fp16)", [3.0], [683 * 2.0**-11], 2.0**-24, 1 + 2.0**-10, 1.0,
    ),
    "p = 12, fused": (
        "float32_fma", "fma(e8m11)", [4095.0], [2.0**-24], 1 + 2.0**-11, 1 + 2.0**-11, 1 + 2.0**-10,
    ),
    "p = 12, product rounded": (
        "float32_seq", "seq(e8m11)", [4095.0], [2.0**-24], 1 + 2.0**-11, 1 + 2.0**-11, 1 + 2.0**-10,
    ),
    "p = 27 in float64, fused": (
        "float64_fma", "fma(e8m26)", [2.0**27 - 1], [2.0**-54], 1 + 2.0**-26, 1 + 2.0**-26, 1 + 2.0**-25,
    ),
    "p = 27 in float64, product rounded": (
        "float64_seq", "seq(e8m26)", [2.0**27 - 1], [2.0**-54], 1 + 2.0**-26, 1 + 2.0**-26, 1 + 2.0**-25,
    ),
    "a saturated product has more bits than the sum": (
        "float32_seq", "seq(fp8_e4m3/sat, e8m1)", [32.0], [32.0], -(2.0**-20), 384.0, 512.0,
    ),
    "a saturated product makes the sum inexact": (
        "float32_seq", "seq(fp8_e4m3/sat, e8m21)", [2.0**10], [2.0**10], 2.0**31 + 2.0**10, 2.0**31 + 2.0**10,
        2.0**31 + 2.0**11,
    ),
    "the rounding constant overflows": (
        "float32_fma", "fma(bf16)", [2.0**60 * (1 + 2.0**-7)], [2.0**60 * (1 + 2.0**-7)], 0.0,
        2.0**120 * (1 + 2.0**-6), 2.0**120 * (1 + 2.0**-7) ** 2,
    ),
    "the rounding constant overflows to NaN": (
        "float32_seq", "seq(e8m1, e7m7:b15)", [2.0**51 * 1.96875], [2.0**51 * 1.96875], 2.0**112 - 2.0**104,
        math.inf, math.nan,
    ),
    "the largest value is beyond float32": (
        "float32_fma", "fma(e9m5:b127/sat)", [math.inf], [1.0], None, (2 - 2.0**-5) * 2.0**383, math.inf,
    ),
    "flushed subnormals": ("float32_fma", "fma(fp16:ftz)", [2.0**-8], [2.0**-8], None, 0.0, 2.0**-16),
    "no negative zero": ("float32_fma", "fma(fp8_e4m3fnuz)", [-(2.0**-8)], [2.0**-8], None, 0.0, -0.0),
    "ties of a single significand bit": ("float32_fma", "fma(e5m0)", [3.0], [1.0], None, 2.0, 4.0),
    "a saturated infinity is beyond where the rounding constant works": (
        "float32_fma", "fma(bf16/sat)", [math.inf, 2.0**55], [1.0, -(2.0**55)], None, (2 - 2.0**-7) * 2.0**127,
        (2 - 2.0**-7) * 2.0**127 - 2.0**110,
    ),
    "a run that overflows saturates where the rounding constant does not work": (
        "float32_fma", "chunk(2, fma(fp16), seq(bf16/sat))", [60000.0, 60000.0, -3.0, 1.0], [1.0, 1.0, 1.0, 1.0], None,
        (2 - 2.0**-7) * 2.0**127, (2 - 2.0**-7) * 2.0**127 - 2.0**104,
    ),
    "infinities that saturate in many runs": (
        "float32_fma", "chunk(1, fma(e7m7:b22/sat), seq(e8m7))", [math.inf] * 250, [1.0] * 250, None,
        1.9453125 * 2.0**112, math.nan,
    ),
    "a group whose sum float64 does not hold": (
        "float64_any", "fma(fp16, 64)", [2.0**510] * 32 + [-(2.0**510)] * 32, [2.0**510] * 64, None, 0.0, math.inf,
    ),
    "a small state behind a product that looks like a tie": (
        "float32_fma", "fma(bf16)", [2.0**-20, 1 + 2.0**-4], [2.0**-20, 1 + 2.0**-4], None, 1 + 2.0**-3 + 2.0**-7,
        1 + 2.0**-3,
    ),
    "float64 loses the last bits of a long exact sum": (
        "float64_exact", "exact(fp64)", [2.0**27, 2.0**-27, 2.0**-27, -(2.0**27)], [2.0**27, 1, 1, 2.0**27], None,
        2.0**-26, 0.0,
    ),
}  # fmt: skip


def results(name):
    kernel, accumulator, a, b, c, right, wrong = HARD[name]
    a, b = vectors(a, b)
    addend = None if c is None else np.array([[c]], np.float64)
    return kernel, accumulator, a, b, addend, right, wrong


@pytest.mark.parametrize("name", HARD)
def test_the_definition_gives_the_right_result(name):
    _, accumulator, a, b, c, right, _ = results(name)
    assert_same_bits(definition(accumulator, a, b, c)[0], [[right]], note=name)


@pytest.mark.parametrize("name", HARD)
def test_the_chosen_kernel_gives_the_right_result(name, isa):
    kernel, accumulator, a, b, c, right, _ = results(name)
    work = Accumulation(simulator.mac(accumulator), a, b, c, 1)
    assert work.kernel.name != kernel
    assert_same_bits(work.dense()[0], [[right]], note=f"{name} {isa} {work.kernel.name}")
    place = np.zeros(1, np.int64)
    assert_same_bits(work.listed((place, place))[0], [right], note=f"{name} {isa} {work.kernel.name}")


@pytest.mark.parametrize("name", HARD)
def test_the_refused_kernel_gives_a_wrong_bit(name, isa):
    kernel, accumulator, a, b, c, right, wrong = results(name)
    work = forced(kernel, accumulator, a, b, c, check=False)
    assert not all(clause.holds for clause in kernel_named(kernel).condition(work.situation))
    assert_same_bits(work.dense()[0], [[wrong]], note=f"{name} {isa}")
    assert not np.array_equal([[right]], [[wrong]]) or math.copysign(1, right) != math.copysign(1, wrong)


def test_round_to_odd_at_24_bits_does_not_reach_p_23(isa):
    """p = 22 is the last precision that float32 lanes round rightly; at 23 random operands give wrong results."""
    rng = np.random.default_rng(SEED)
    significands = np.rint(rng.uniform(2048, 4096, (2, 12, 3))) * 2.0**-11
    a, b = significands[0], significands[1].T
    c = 1 + np.rint(rng.uniform(0, 2**20, (12, 12))) * 2.0**-20
    for accumulator, right in (("fma(e8m21)", True), ("fma(e8m22)", False)):
        y = forced("float32_fma_odd", accumulator, a, b, c, check=right).dense()[0]
        same = y == definition(accumulator, a, b, c)[0]
        assert same.all() == right, f"{accumulator} {isa} seed {SEED}"


def test_float64_is_exact_for_e4m3_up_to_k_2_to_17_and_wrong_beyond():
    """The largest products fill the top of 53 bits, the smallest ones come last and fall off."""
    k = 2**18
    a, b = np.full((1, k), 448.0), np.full((k, 1), 448.0)
    a[0, -2:], b[-2:, 0] = 2.0**-9, 2.0**-9
    right = (k - 2) * 448.0**2 + 2.0**-17
    work = forced("float64_exact", "exact(fp64)", a, b, check=False)
    assert not all(clause.holds for clause in work.kernel.condition(work.situation))
    assert float(work.dense()[0][0, 0]) != right
    assert float(simulator.matmul(a, b, "exact(fp64)")[0, 0]) == right
    inside = simulator.matmul(a[:, 2**17 :], b[2**17 :], "exact(fp64)")
    assert float(inside[0, 0]) == (2**17 - 2) * 448.0**2 + 2.0**-17


def test_a_product_and_a_sum_are_never_contracted(isa):
    """Two roundings give 0 where one fused rounding keeps the small difference."""
    for scale, use in ((13, "fp32"), (8, "fp16"), (5, "bf16")):
        a, b = vectors([1 + 2.0**-scale], [1 - 2.0**-scale])
        c = np.array([[-1.0]])
        separate = simulator.matmul(a, b, f"seq({use})", c=c)
        fused = simulator.matmul(a, b, f"fma({use})", c=c)
        assert_same_bits(separate, [[0.0]], note=f"seq({use}) {isa}")
        assert_same_bits(fused, [[-(2.0 ** (-2 * scale))]], note=f"fma({use}) {isa}")


SEPARATE = ["float32_seq", "float64_seq", "float64_seq_odd", "integer_any"]


@pytest.mark.parametrize("kernel", SEPARATE)
def test_no_kernel_contracts(kernel, isa):
    a, b = vectors([1 + 2.0**-8], [1 - 2.0**-8])
    y = forced(kernel, "seq(fp16)", a, b, np.array([[-1.0]])).dense()[0]
    assert_same_bits(y, [[0.0]], note=f"{kernel} {isa}")


def test_an_exact_cancellation_is_plus_zero_in_every_kernel(isa):
    """Rounding to odd from two directed sums must not let the downward -0 through."""
    a, b = vectors([1.5, -1.5], [2.0, 2.0])
    for kernel, accumulator in (
        ("float32_fma", "fma(fp16)"), ("float32_fma_odd", "fma(fp16)"), ("float64_fma", "fma(fp16)"),
        ("float64_fma_odd", "fma(fp16)"), ("float32_seq", "seq(fp16)"), ("float64_seq_odd", "seq(fp16)"),
        ("float64_exact", "exact(fp16)"), ("integer_any", "exact(fp16)"), ("integer_any", "fma(fp16)"),
    ):  # fmt: skip
        assert_same_bits(forced(kernel, accumulator, a, b).dense()[0], [[0.0]], note=f"{kernel} {isa}")
        minus = forced(kernel, accumulator, -0.0 * np.abs(a), b, np.array([[-0.0]])).dense()[0]
        assert_same_bits(minus, [[-0.0]], note=f"{kernel} {isa}")
