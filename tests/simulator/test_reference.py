"""The pure Python reference, the definition of every unit, against MPFR and against the rules written down."""

import math

import numpy as np
import pytest

import formats
import simulator
from formats import Use
from simulator.arithmetic import reference
from tests.oracles.mpfr import FORMATS, Mpfr
from tests.oracles.operands import KINDS, addend, structured

SEED = 500
INF, NAN = math.inf, math.nan
OPERANDS = {name: "fp16" if name == "tf32" else name for name in FORMATS}


def same(x, y):
    return (math.isnan(x) and math.isnan(y)) or x.hex() == y.hex()


def hexes(values):
    return [float(v).hex() for v in values]


def chains(name, kind):
    """(a, b, c) of short inner products for one accumulator format."""
    a, b = structured(kind, OPERANDS[name], name, 8, 8, 8, SEED)
    c = formats.get(name).quantize(addend(name, (8, 8), SEED))
    for i in range(8):
        for j in range(8):
            yield a[i].tolist(), b[:, j].tolist(), float(c[i, j])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("saturate", [False, True])
def test_fma_accumulates_as_mpfr_does(name, kind, saturate):
    oracle = Mpfr(name)
    spec = simulator.mac(f"fma({name}/sat)" if saturate else f"fma({name})")
    for a, b, c in chains(name, kind):
        if saturate and any(math.isinf(v) for v in [*a, *b, c]):
            continue  # MPFR has no saturation; the rules for infinities are tested by hand below
        state = c
        for x, y in zip(a, b, strict=True):
            state = oracle.fma(state, x, y, saturate)
            if saturate and math.isinf(state):
                state = math.copysign(formats.get(name).max, state)
        got, _ = reference.dot(spec, a, b, c)
        assert same(got, state), f"{spec}: a={hexes(a)} b={hexes(b)} c={c.hex()}: {got} for {state}, seed {SEED}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("product", "total"), [("fp16", "fp16"), ("bf16", "bf16"), ("fp16", "fp32"), ("fp8_e5m2", "fp16"), ("fp32", "fp32")]
)
def test_seq_rounds_product_and_sum_as_mpfr_does(product, total, kind):
    multiply, sum_up = Mpfr(product), Mpfr(total)
    spec = simulator.mac(f"seq({product}, {total})")
    for a, b, c in chains(total, kind):
        state = c
        for x, y in zip(a, b, strict=True):
            state = sum_up.fma(state, multiply.product(x, y), 1.0)
        got, _ = reference.dot(spec, a, b, c)
        assert same(got, state), f"{spec}: a={hexes(a)} b={hexes(b)} c={c.hex()}: {got} for {state}, seed {SEED}"


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp8_e4m3"])
def test_single_steps_around_subnormals_and_ties_as_in_mpfr(name):
    """State, product and their sum near the smallest values, where a tie is decided by the last bit of the product."""
    oracle = Mpfr(name)
    fmt = formats.get(name)
    use = Use(fmt)
    rng = np.random.default_rng(SEED)
    quantum = fmt.smallest_subnormal
    for _ in range(3000):
        s = fmt.quantize(quantum * rng.integers(-3 << fmt.fraction_bits, 3 << fmt.fraction_bits)).item()
        a = math.ldexp(int(rng.integers(-2047, 2048)), -10)
        b = quantum * math.ldexp(int(rng.integers(-2047, 2048)), -10)
        got = reference.rounded_sum(use, [(s,), (a, b)])
        assert same(got, oracle.fma(s, a, b)), f"{name}: {s.hex()} + {a.hex()} * {b.hex()}, seed {SEED}"


def test_exact_is_one_rounding_of_the_sum_of_fractions():
    from fractions import Fraction

    fmt = formats.get("fp16")
    for kind in ("random", "wide", "cancellation", "subnormal", "large"):
        a, b = structured(kind, "fp16", "fp16", 10, 10, 12, SEED)
        for i in range(10):
            x, y = a[i].tolist(), b[:, i].tolist()
            total = sum((Fraction(p) * Fraction(q) for p, q in zip(x, y, strict=True)), Fraction(0))
            numerator, denominator = total.as_integer_ratio()
            expected = (
                fmt.project_finite(numerator, 1 - denominator.bit_length(), Use(fmt).mode, "ieee") if total else 0.0
            )
            got, _ = reference.dot(simulator.mac("exact(fp16)"), x, y)
            assert same(got, expected), f"a={hexes(x)} b={hexes(y)} seed {SEED}"


# --- rules -----------------------------------------------------------------------------------------------------------

SHAPES = ["fma({0})", "seq({0})", "exact({0})", "chunk(1, fma({0}), seq({0}))", "late(fma({0}))", "late(exact({0}))"]

# a, b, c, result
RULES = {
    "no terms": ([], [], None, 0.0),
    "no terms and an addend": ([], [], 1.5, 1.5),
    "no terms and a minus zero": ([], [], -0.0, -0.0),
    "a minus zero product joins +0": ([-0.0], [1.0], None, 0.0),
    "an exact cancellation is +0": ([1.0, 1.0], [1.0, -1.0], None, 0.0),
    "an addend cancels to +0": ([1.0], [2.0], -2.0, 0.0),
    "NaN in a": ([NAN, 1.0], [0.0, 1.0], None, NAN),
    "NaN in b": ([0.0], [NAN], None, NAN),
    "NaN in c": ([1.0], [1.0], NAN, NAN),
    "zero times infinity": ([0.0, 1.0], [INF, 1.0], None, NAN),
    "infinity minus infinity": ([INF, -INF], [1.0, 1.0], None, NAN),
    "infinity against the addend": ([INF], [1.0], -INF, NAN),
    "infinity stays": ([INF, -1.0], [2.0, 60000.0], None, INF),
    "minus infinity": ([1.0, INF], [1.0, -2.0], None, -INF),
    "an infinite addend stays": ([1.0], [1.0], -INF, -INF),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rule", RULES)
def test_zeros_infinities_and_nan_follow_the_rules(rule, shape):
    a, b, c, expected = RULES[rule]
    if shape.startswith("late") and rule in ("no terms and a minus zero",):
        expected = 0.0  # the accumulation itself is +0, and +0 + -0 is +0
    got, _ = reference.dot(simulator.mac(shape.format("fp16")), a, b, c)
    assert same(got, expected)


@pytest.mark.parametrize("shape", ["fma({0})", "seq({0})", "exact({0})"])
def test_minus_zero_needs_every_term_and_the_addend_to_be_minus_zero(shape):
    spec = simulator.mac(shape.format("fp16"))
    assert same(reference.dot(spec, [-0.0, 0.0], [1.0, -3.0], -0.0)[0], -0.0)
    assert same(reference.dot(spec, [-0.0, 0.0], [1.0, 3.0], -0.0)[0], 0.0)
    assert same(reference.dot(spec, [-0.0], [1.0], None)[0], 0.0)
    unsigned = simulator.mac(shape.format("fp8_e4m3fnuz"))
    assert same(reference.dot(unsigned, [-0.0, 0.0], [1.0, -3.0], -0.0)[0], 0.0)


@pytest.mark.parametrize(
    ("use", "expected", "overflowed"),
    [
        ("fp16", INF, True),  # 80000 overflows, and an infinite state stays
        ("fp16/sat", -14496.0, True),  # 65504, 65504 again, then down by 80000
        ("fp16/nan", NAN, True),
        ("bf16", 384.0, False),  # 79872, 80384, then down by 80000
    ],
)
def test_overflow_follows_the_use_at_every_step(use, expected, overflowed):
    got, flag = reference.dot(simulator.mac(f"fma({use})"), [400.0, 400.0, -400.0], [200.0, 1.0, 200.0])
    assert same(got, expected)
    assert flag == overflowed


def test_saturation_clamps_infinities_of_the_operands():
    spec = simulator.mac("fma(fp16/sat)")
    assert reference.dot(spec, [INF], [1.0]) == (65504.0, True)
    assert reference.dot(spec, [INF, -1.0], [-1.0, 1.0]) == (-65504.0, True)


def test_each_accumulator_rounds_where_it_says():
    """1 + 2^-11 is a tie of fp16; where it is rounded decides which of four results comes out."""
    a, b = [1.0, 2.0**-11, 2.0**-11], [1.0, 1.0, 1.0]
    expected = {
        "fma(fp16)": 1.0,
        "exact(fp16)": 1 + 2.0**-10,
        "chunk(1, fma(fp16), seq(fp32)) -> fp16": 1 + 2.0**-10,
        "chunk(2, fma(fp16), seq(fp16))": 1.0,
        "seq(fp8_e4m3, fp32)": 1.0,
        "fma(fp32)": 1 + 2.0**-10,
    }
    for spec, value in expected.items():
        assert same(reference.dot(simulator.mac(spec), a, b)[0], value), spec


def test_a_run_result_is_a_value_and_skips_the_product_rounding():
    """The outer seq would round 1 + 2^-10 to fp8 if it took the run's result for a product."""
    spec = simulator.mac("chunk(2, fma(fp16), seq(fp8_e4m3, fp16))")
    assert same(reference.dot(spec, [1.0, 2.0**-10], [1.0, 1.0])[0], 1 + 2.0**-10)


def test_one_chunk_is_the_inner_accumulation_and_one_add():
    a, b = structured("random", "fp16", "fp16", 1, 1, 9, SEED)
    x, y = a[0].tolist(), b[:, 0].tolist()
    inner, _ = reference.dot(simulator.mac("fma(bf16)"), x, y)
    joined = reference.rounded_sum(Use.parse("fp16"), [(formats.get("fp16").quantize(0.3).item(),), (inner,)])
    for length in (9, 100):
        spec = simulator.mac(f"chunk({length}, fma(bf16), seq(fp16))")
        assert same(reference.dot(spec, x, y, 0.3)[0], joined), hexes(x)


def test_late_adds_the_addend_once_at_the_end_in_the_output_format():
    """Early, the addend swallows both crumbs; late, they have grown to an ulp before it comes."""
    a, b, c = [2.0**-11, 2.0**-11], [1.0, 1.0], 1.0
    assert reference.dot(simulator.mac("fma(fp16)"), a, b, c)[0] == 1.0
    assert reference.dot(simulator.mac("late(fma(fp16))"), a, b, c)[0] == 1 + 2.0**-10
    assert reference.dot(simulator.mac("late(fma(fp16)) -> bf16"), a, b, c)[0] == 1.0


def test_the_addend_is_rounded_to_the_state_or_to_the_output_when_late():
    c = 1 + 2.0**-12
    assert reference.dot(simulator.mac("fma(fp16)"), [], [], c)[0] == 1.0
    assert reference.dot(simulator.mac("exact(fp16)"), [2.0**-11], [1.0], c)[0] == 1 + 2.0**-10
    assert reference.dot(simulator.mac("late(fma(fp32)) -> fp16"), [2.0**-11], [1.0], c)[0] == 1.0


def test_operands_are_quantised_first():
    spec = simulator.mac("fp8_e4m3*fp16 -> fma(fp32)")
    assert reference.dot(spec, [1.05], [1.05])[0] == float(np.float16(1.05))


def test_the_overflow_flag_does_not_count_conversions_of_the_operands_and_the_addend():
    spec = simulator.mac("fp8_e4m3/sat -> fma(fp16/sat)")
    assert reference.dot(spec, [1000.0], [1.0], 1e9) == (65504.0, True)  # the sum itself overflows here
    assert reference.dot(spec, [1000.0], [-1.0], 1e9) == (65056.0, False)
    assert reference.dot(simulator.mac("late(fma(fp16/sat))"), [-32.0], [1.0], 1e9) == (65472.0, False)


def test_vectors_of_different_length_are_refused():
    with pytest.raises(ValueError):
        reference.dot(simulator.mac("fma(fp16)"), [1.0], [1.0, 2.0])
