"""The definition of every accumulator against a second one in Fractions, and closed facts about them."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest

import formats
import simulator
from simulator.arithmetic import reference
from tests.oracles import accumulators as oracle
from tests.oracles.bits import bits
from tests.oracles.mpfr import Mpfr
from tests.oracles.operands import KINDS, addend, finite, structured
from tests.oracles.specs import SPECS

SEED = 800
INF, NAN = math.inf, math.nan
OPERANDS = ["fp8_e4m3", "fp16", "bf16", "fp8_e5m2"]
LENGTHS = [9, 1, 0, 2, 16, 23]


def hexes(values):
    return [float(v).hex() for v in values]


def same(x, y):
    return bits(x) == bits(y)


def check(spec, a, b, c, note=""):
    got, _ = reference.dot(spec, a, b, c)
    expected = oracle.dot(spec, a, b, c)
    assert same(got, expected), f"{spec}: a={hexes(a)} b={hexes(b)} c={c}: {got} for {expected} {note}"


@pytest.mark.parametrize("text", SPECS)
def test_the_reference_equals_a_second_definition(text):
    """Hard situations of the state's format, lengths around the steps, addends of every kind, with and without operand
    formats, which aligned steps ask for the exponents of subnormals."""
    turn = sum(map(ord, text))
    for i, kind in enumerate(KINDS):
        for j, k in enumerate(LENGTHS):
            operands = OPERANDS[(turn + i + j) % 4]
            spec = simulator.mac(f"{operands} -> {text}" if (i + j) % 2 else text)
            total = spec.result.format if isinstance(spec.result.format, formats.FloatFormat) else "fp16"
            a, b = structured(kind, operands, total, 2, 2, max(k, 1), SEED + turn + j)
            c = addend(total, (2,), SEED + turn + i).tolist()
            for row, start in ((0, None if (i + j) % 3 else c[0]), (1, c[1])):
                check(spec, a[row, :k].tolist(), b[:k, row].tolist(), start, f"{kind}, seed {SEED}")


SPECIAL = [0.0, -0.0, 1.0, -1.5, INF, -INF, NAN, 2.0**-20, -(2.0**12)]


@pytest.mark.parametrize("text", SPECS)
def test_zeros_infinities_and_nan_in_any_place(text):
    spec = simulator.mac(text)
    rng = random.Random(SEED)
    for _ in range(150):
        k = rng.randrange(5)
        a, b = rng.choices(SPECIAL, k=k), rng.choices([1.0, -1.0, 0.0, -0.0, INF], [8, 8, 2, 2, 1], k=k)
        check(spec, a, b, rng.choice([None, *SPECIAL]), f"seed {SEED}")


# --- closed facts ----------------------------------------------------------------------------------------------------

NOTHING_ROUNDS = [
    "fma({0})", "fma({0}, 3)", "fma({0}, 4096)", "seq({0})", "tree({0})", "tree({0}, 3)", "tree({0}, 16)",
    "tree({0}, 2, leaves=exact)", "interleave(2, fma({0}), seq({0}))", "interleave(7, tree({0}), fma({0}, 2))",
    "chunk(4, seq({0}), tree({0}, 3))", "chunk(3, interleave(2, fma({0}), fma({0})), kahan({0}))", "kahan({0})",
    "neumaier({0})", "aligned(4, 20, {0})", "aligned(8, 20, {0}, c=late)", "late(fma({0}))", "fixed(24, 2, sat)",
    "fixed(24, 2, wrap)", "fixed(24, 2, track)",
]  # fmt: skip


@pytest.mark.parametrize("total", ["fp32", "e5m17", "posit32", "fix32.8"])
@pytest.mark.parametrize("shape", NOTHING_ROUNDS)
def test_everything_is_exact_when_nothing_rounds(shape, total):
    rng = np.random.default_rng(SEED)
    spec, exact = simulator.mac(shape.format(total)), simulator.mac(f"exact({total})")
    for k in (0, 1, 2, 3, 7, 16, 40):
        a, b = (rng.integers(-6, 7, k) / 2).tolist(), (rng.integers(-6, 7, k) / 2).tolist()
        for c in (None, 0.0, 3.5, -17.25):
            got, expected = reference.dot(spec, a, b, c), reference.dot(exact, a, b, c)
            assert got[0] == expected[0] and not got[1], f"{spec} a={a} b={b} c={c}: {got} for {expected}"


@pytest.mark.parametrize("inner", ["fma(fp16)", "kahan(bf16)", "tree(fp16, 3)", "fixed(8, 2, wrap)", "fma(fp16, 4)"])
@pytest.mark.parametrize("outer", ["seq(fp16)", "fma(bf16)", "exact(fp16)", "kahan(fp16)"])
def test_one_chunk_and_one_lane_are_the_inner_accumulation_and_one_add(inner, outer):
    a, b = (x.ravel().tolist() for x in structured("random", "fp16", "fp16", 1, 1, 11, SEED))
    run, _ = reference.dot(simulator.mac(inner), a, b)
    for c in (None, 0.3):
        joined, _ = reference.dot(simulator.mac(outer.replace("seq(", "seq(exact, ")), [run], [1.0], c)
        for text in (
            f"chunk(11, {inner}, {outer})",
            f"chunk(99, {inner}, {outer})",
            f"interleave(1, {inner}, {outer})",
        ):
            assert same(reference.dot(simulator.mac(text), a, b, c)[0], joined), text


def test_compensation_keeps_what_plain_sums_lose():
    """1 + n * 2^-12: each term is under half an ulp of fp16. Kahan keeps them, Neumaier also under cancellation."""
    k = 1024
    ones, small = [1.0] * (k + 1), [1.0] + [2.0**-12] * k
    assert reference.dot(simulator.mac("fma(fp16)"), small, ones)[0] == 1.0
    assert reference.dot(simulator.mac("kahan(fp16)"), small, ones)[0] == 1.25
    assert reference.dot(simulator.mac("neumaier(fp16)"), small, ones)[0] == 1.25
    kahan, neumaier = simulator.mac("kahan(fp16)"), simulator.mac("neumaier(fp16)")
    peters = [1.0, 2048.0 * 4, 1.0, -2048.0 * 4]  # the example for which Neumaier improved Kahan's
    assert reference.dot(kahan, peters, [1.0] * 4)[0] == 0.0
    assert reference.dot(neumaier, peters, [1.0] * 4)[0] == 2.0


def test_kahan_is_within_two_ulps_of_the_exact_sum():
    """|error| <= (2u + O(K u^2)) sum|x| (Higham, section 4.3), for values of the format itself."""
    u = 2.0**-11
    for seed in range(40):
        x = finite("fp16", (300,), SEED + seed).tolist()
        got, _ = reference.dot(simulator.mac("kahan(fp16)"), x, [1.0] * len(x))
        error = abs(Fraction(got) - sum(map(Fraction, x)))
        assert error <= (2 * u + 600 * u * u) * sum(map(abs, x)), f"seed {SEED + seed}"


@pytest.mark.parametrize("width", [2, 8, 12, 31, 53])
def test_wrapping_sums_are_integers_modulo_a_power_of_two_in_any_order(width):
    rng = random.Random(SEED)
    spec = simulator.mac(f"fixed({width}, 0, wrap)")
    for _ in range(40):
        k = rng.randrange(12)
        a, b = ([rng.randrange(-(1 << 26), 1 << 26) for _ in range(k)] for _ in range(2))
        c = rng.randrange(-(1 << (width - 1)), 1 << (width - 1))
        expected = (c + sum(x * y for x, y in zip(a, b, strict=True)) + (1 << (width - 1))) % (1 << width)
        for _ in range(3):
            order = rng.sample(range(k), k)
            got, _ = reference.dot(spec, [float(a[i]) for i in order], [float(b[i]) for i in order], float(c))
            assert got == expected - (1 << (width - 1)), f"{width} a={a} b={b} c={c} {order}"


def test_track_counts_the_steps_that_would_have_left_the_range():
    spec = simulator.mac("fixed(8, 0, track)")
    run = reference.Run(reference.Place(), spec)
    # 100, 200 (out), 100, -100, -200 (out), -129 (out), -128
    value = reference.accumulate([100.0, 100, -100, -200, -100, 71, 1], [1.0] * 7, None, run)
    assert (value, run.overflows) == (-128.0, 3)


def test_saturation_after_every_step_depends_on_the_order():
    spec = simulator.mac("fixed(8, 0, sat)")
    assert reference.dot(spec, [100.0, 100.0, -100.0], [1.0] * 3) == (27.0, True)
    assert reference.dot(spec, [100.0, -100.0, 100.0], [1.0] * 3) == (100.0, False)


def test_low_bits_of_a_wrapping_sum_survive_any_large_term():
    for text in ("exact(fix12.4/wrap)", "fma(fix12.4/wrap, 2)", "tree(fix12.4/wrap, leaves=exact)"):
        spec = simulator.mac(text)
        assert reference.dot(spec, [2.0**100, 1.0], [2.0**100, 1.0]) == (1.0, True), text
        assert reference.dot(spec, [2.0**100, -1.0625], [-(2.0**100), 1.0]) == (-1.0625, True), text


# --- the addend ------------------------------------------------------------------------------------------------------


def test_where_the_addend_joins():
    """c = 1 swallows two crumbs of half an ulp one by one, not their sum."""
    a, b = [2.0**-11, 2.0**-11], [1.0, 1.0]
    early = ["fma(fp16)", "seq(fp16)", "chunk(1, seq(fp16), seq(fp16))", "interleave(2, seq(fp16), seq(fp16))"]
    late = ["fma(fp16, 2)", "tree(fp16)", "late(fma(fp16))", "late(seq(fp16))", "exact(fp16)", "kahan(fp16)",
            "chunk(2, seq(fp16), seq(fp16))", "chunk(1, seq(fp16), tree(fp16))", "aligned(2, 13, fp16)"]  # fmt: skip
    for texts, expected in ((early, 1.0), (late, 1 + 2.0**-10)):
        for text in texts:
            assert reference.dot(simulator.mac(text), a, b, 1.0)[0] == expected, text


def test_the_addend_of_a_tree_is_rounded_in_the_output_and_so_is_the_sum():
    spec = simulator.mac("tree(fp32) -> fp8_e4m3")
    assert reference.dot(spec, [1.0], [2.0**-6], 1.0 + 2.0**-4 + 2.0**-7)[0] == 1.125  # c becomes 1.125, the sum too
    assert reference.dot(spec, [], [], 1.0 + 2.0**-4)[0] == 1.0


@pytest.mark.parametrize("text", ["fma(fp16, 3)", "tree(fp16, 2, leaves=exact)", "tree(fp16)", "kahan(fp16)",
                                  "neumaier(fp16)", "exact(fp16)"])  # fmt: skip
def test_sums_of_minus_zeros(text):
    spec = simulator.mac(text)
    minus = [-0.0] * 3, [1.0] * 3
    alone = reference.dot(spec, *minus)[0]
    # A tree has no state that starts at +0; everything else does.
    assert same(alone, -0.0 if text.startswith("tree") else 0.0)
    if text != "kahan(fp16)" and not text.startswith("neumaier"):
        assert same(reference.dot(spec, *minus, -0.0)[0], -0.0)
    assert same(reference.dot(spec, *minus, 0.0)[0], 0.0)
    assert same(reference.dot(spec, [-0.0, 0.0], [1.0, 1.0], -0.0)[0], 0.0)


# --- fma where double rounding bites ---------------------------------------------------------------------------------

HARD = (("fp16", "fp16"), ("bf16", "bf16"), ("fp8_e5m2", "fp8_e5m2"))  # 2 p_in > p


@pytest.mark.parametrize(
    ("operands", "total"),
    [*HARD, ("fp8_e4m3", "fp16"), ("bf16", "fp16"), ("fp16", "fp32")],
)
def test_fma_is_that_of_mpfr_on_ties_that_a_crumb_decides(operands, total):
    """A large product, often on a tie of the sum's format, and an addend so far below that float32 drops it."""
    fmt, single = formats.get(total), Mpfr(total)
    rng = np.random.default_rng(SEED)
    spec, wrong = simulator.mac(f"fma({total})"), 0
    scale = 2.0 ** min(6, math.frexp(fmt.max)[1] // 2 - 2)
    a = (finite(operands, (1500,), SEED, 1) * scale).tolist()
    b = (rng.choice([1.25, 1.5, 1.75, 1.0], 1500) * scale).tolist()
    for x, y in zip(a, b, strict=True):
        c = fmt.quantize(math.ldexp(rng.choice([-1.0, 1.0]) * scale * scale, -int(rng.integers(20, 30)))).item()
        expected = single.fma(c, x, y)
        assert same(reference.dot(spec, [x], [y], c)[0], expected), f"{total}: {x.hex()} * {y.hex()} + {c.hex()}"
        wrong += fmt.quantize(float(np.float32(x * y + c))).item() != expected
    assert wrong or (operands, total) not in HARD, "no case where rounding to float32 first would have been wrong"
