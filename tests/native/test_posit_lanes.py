"""Single steps of the posit kernels against posits that are looked up, on every instruction set.

Strings decide how posits are rounded near minpos and maxpos, and lanes round them as numbers; so every regime counts.
"""

import functools

import numpy as np
import pytest

from formats import PositFormat, Use
from native.matmul import matmul
from simulator.arithmetic.accumulators import Fma, Seq
from simulator.arithmetic.lowering import lower
from tests.oracles.bits import assert_same_bits
from tests.oracles.kernel_cases import definition, forced
from tests.oracles.posit_strings import Magnitudes

SEED = 700
FORMATS = [(n, es) for n in range(3, 17) for es in range(5) if (n - 2) << es <= 126]
# Products of 2, 3, 5 and 11 bits put sums on ties and beside them.
FACTORS = [1.0, -1.0, 0.75, -1.5, 0.625, 1 + 2.0**-10, 1 - 2.0**-10, 2.0**-9, -(2.0**-20), 0.0, -0.0]


def posit(n, es):
    return PositFormat.from_name(f"posit{n}e{es}" if es != 2 else f"posit{n}")


magnitudes = functools.cache(Magnitudes)


def sums(s, t):
    """s + t in float64, rounded to odd: on the same side of everything that decides between two posits."""
    x = s + t
    part = x - s
    error = (s - (x - part)) + (t - part)
    even = x.view(np.int64) % 2 == 0
    return np.where((error != 0) & even, np.nextafter(x, np.where(error > 0, np.inf, -np.inf)), x)


def rounded(x, fmt, table, overflow):
    """Return (values, whether they overflow) of finite x by the table of a posit format."""
    beyond = np.abs(x) >= fmt.maxpos * fmt.useed
    return np.where(beyond & (overflow == "nan"), np.nan, table.quantized(x, "rne") + 0.0), beyond


def nodes(kernel, use):
    return lower(Seq(use, use) if "seq" in kernel else Fma(use)).nodes


def step(kernel, use, s, a, b, isa):
    """Return values and flags of one step from every s[i] with a[i] * b[j], as [i, j]."""
    y, flags = np.empty((s.size, b.size)), np.zeros((s.size, b.size), bool)
    c = np.broadcast_to(s[:, None], y.shape)
    a, b = np.broadcast_to(a, s.shape).astype(np.float32)[:, None], b.astype(np.float32)[None, :]
    matmul(kernel, nodes(kernel, use), [], 0, a, b, c, y, flags, isa=isa)
    return y, flags


def check(kernel, n, es, overflow, s, a, b, isa):
    fmt, table = posit(n, es), magnitudes(n, es)
    t = np.broadcast_to(a, s.shape)[:, None] * b[None, :]  # exact in float64
    early = np.zeros(t.shape, bool)
    if "seq" in kernel:
        t, early = rounded(t, fmt, table, overflow)
    lost = np.isnan(t)
    values, late = rounded(sums(s[:, None] + 0 * t, np.where(lost, 0.0, t)), fmt, table, overflow)
    y, flags = step(kernel, Use(fmt, overflow=overflow), s, a, b, isa)

    def of(place):
        return f"s={s[place[0]].hex()} a={float(np.broadcast_to(a, s.shape)[place[0]]).hex()} b={b[place[1]].hex()}"

    note = f"{kernel} {fmt.name}/{overflow} {isa} seed {SEED}"
    assert_same_bits(y, np.where(lost, np.nan, values), of, note)
    assert_same_bits(flags, early | (late & ~lost), of, note + " overflow flags")


def finite_values(n, es):
    codes = np.arange(1 << n, dtype=np.uint64)
    return np.delete(posit(n, es).decode(codes), 1 << (n - 1))


KERNELS = ["float32_posit_fma_odd", "float32_posit_seq_odd"]


@pytest.mark.parametrize("overflow", ["sat", "nan"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_sum_of_posit8(kernel, overflow, isa):
    """All states and all operands, times factors that make ties and near ties."""
    every = finite_values(8, 2)
    for factor in FACTORS:
        check(kernel, 8, 2, overflow, every, np.array(factor), every, isa)


def sweep(kernel, n, es, overflow, isa, states, operands):
    """States of all regimes with operands of all magnitudes, equal ones, and ones that cancel up to a few bits."""
    rng = np.random.default_rng([SEED, n, es])
    every = finite_values(n, es)
    s = every if every.size <= states else rng.choice(every, states)
    near = rng.choice(s, operands // 2)
    wide = np.ldexp(rng.integers(-255, 256, operands // 2).astype(float), rng.integers(-90, 90, operands // 2))
    b = np.concatenate([near, -near, wide])
    b = b[(np.abs(b) < 2.0**110) & ((np.abs(b) > 2.0**-90) | (b == 0))]
    check(kernel, n, es, overflow, s, rng.choice(FACTORS, s.size), b, isa)


@pytest.mark.parametrize("kernel", KERNELS)
def test_posits_of_every_size(kernel, isa):
    for n, es in FORMATS:
        sweep(kernel, n, es, "nan" if n % 2 else "sat", isa, 60, 60)


@pytest.mark.full
@pytest.mark.parametrize("overflow", ["sat", "nan"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("n", "es"), FORMATS)
def test_many_steps_of_posits_of_every_size(kernel, n, es, overflow, isa):
    sweep(kernel, n, es, overflow, isa, 2000, 200)


@pytest.mark.full
@pytest.mark.parametrize("kernel", KERNELS)
def test_millions_of_steps_of_posit16(kernel, isa):
    sweep(kernel, 16, 2, "sat", isa, 1 << 16, 60)


@pytest.mark.parametrize("kernel", KERNELS)
def test_zeros_and_what_is_not_real(kernel, isa):
    """An exact cancellation is +0, no product underflows to zero, and NaR stays; infinities count as overflow."""
    use, tiny, inf, nan = Use(posit(16, 2)), 2.0**-60, np.inf, np.nan
    s = np.array([0.0, 1.5, -1.5, nan])
    b = np.array([0.0, -0.0, 1.5, -1.5, tiny, -tiny, inf, -inf, nan])
    y, flags = step(kernel, use, s, np.array(1.0), b, isa)
    least = 2.0**-56
    right = [
        [0.0, 0.0, 1.5, -1.5, least, -least, nan, nan, nan],
        [1.5, 1.5, 3.0, 0.0, 1.5, 1.5, nan, nan, nan],
        [-1.5, -1.5, 0.0, -3.0, -1.5, -1.5, nan, nan, nan],
        [nan] * 9,
    ]
    assert_same_bits(y, right, note=f"{kernel} {isa}")
    infinite = np.isinf(b)[None, :] & ~np.isnan(s)[:, None]
    early = infinite if "fma" in kernel else np.broadcast_to(np.isinf(b), y.shape)  # the product alone overflows
    assert_same_bits(flags, early, note=f"{kernel} {isa} overflow flags")


@pytest.mark.parametrize(("kernel", "mac"), [(KERNELS[0], "fma(posit16)"), (KERNELS[1], "seq(posit24, posit16)")])
def test_a_last_bit_that_a_lane_cannot_hold_decides(kernel, mac, isa):
    """1 + 2^-12 is a tie, and the term exceeds it by 2^-25."""
    for sign in (1.0, -1.0):
        a, b, c = np.array([[sign * (2.0**-12 + 2.0**-25)]]), np.array([[1.0]]), np.array([[sign]])
        right = [[sign * (1 + 2.0**-11)]]
        assert_same_bits(definition(mac, a, b, c)[0], right, note=mac)
        assert_same_bits(forced(kernel, mac, a, b, c).dense()[0], right, note=f"{kernel} {mac} {isa}")


def test_lanes_and_integers_agree_over_long_inner_products(isa):
    """Sums of operands of all regimes, which round far from 1, cancel and saturate on the way."""
    rng = np.random.default_rng(SEED)
    for n, es in ((8, 2), (16, 2), (16, 1), (10, 3)):
        use = Use(posit(n, es))
        every = finite_values(n, es)
        every = every[(np.abs(every) <= 2.0**50) & ((np.abs(every) >= 2.0**-50) | (every == 0))]
        a, b = rng.choice(every, (20, 400)).astype(np.float32), rng.choice(every, (400, 50)).astype(np.float32)
        for kernel in KERNELS:
            results = []
            for one in (kernel, "integer_any"):
                y, flags = np.empty((20, 50)), np.zeros((20, 50), bool)
                matmul(one, nodes(kernel, use), [], 0, a, b, None, y, flags, isa=isa)
                results.append((y, flags))
            note = f"{kernel} posit{n} es {es} {isa} seed {SEED}"
            assert_same_bits(results[0][0], results[1][0], note=note)
            assert_same_bits(results[0][1], results[1][1], note=note)
