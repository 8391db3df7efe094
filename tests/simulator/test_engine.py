"""The engine equals the reference, bit for bit: every accumulator, operand and state format, on hard operands."""

import numpy as np
import pytest

import formats
import native
import simulator
from simulator.arithmetic.engine import Accumulation
from tests.oracles.bits import assert_same_bits, digest, operands_of
from tests.oracles.kernel_cases import definition, forced
from tests.oracles.operands import KINDS, addend, anything, finite, structured

SEED = 700
OPERANDS = ["fp8_e4m3", "fp8_e5m2", "fp16", "bf16", "fp32", "fp64"]
STATES = [
    "fp8_e4m3", "fp8_e4m3/sat", "fp8_e5m2", "fp8_e5m2/sat", "fp16", "fp16/sat", "bf16", "tf32", "fp32", "e4m13",
    "e5m10:ftz", "e4m3:fnuz", "fp64", "fp4_e2m1",
    "fp16/rz", "fp8_e4m3/rna/sat", "fp16/odd", "bf16/ru", "fp8_e5m2/rd/satprop",
]  # fmt: skip
SHAPES = [
    "fma({0})",
    "seq({0})",
    "seq(fp16, {0})",
    "chunk(3, fma({0}), seq({0}))",
    "chunk(4, chunk(2, fma(fp16), seq(bf16)), seq({0}))",
    "chunk(2, seq({0}), chunk(2, fma(bf16), seq({0})))",
    "late(seq({0}))",
    "late(chunk(2, fma({0}), fma(fp32))) -> {0}",
    "exact({0})",
    "{1} -> fma({0}) -> fp8_e5m2/sat",
]

met: set[str] = set()


def compare(spec, operands, total, kind, isa, shape=(2, 3, 7)):
    a, b = structured(kind, operands, total, *shape, SEED)
    c = addend(total, shape[:2], SEED) if kind not in ("zeros", "equal") else None
    values, flags = definition(spec, a, b, c)
    y, stats = simulator.matmul(a, b, spec, c=c, stats="overflows", threads=1)
    note = f"{spec}, {operands} {kind}, {stats.kernel} on {isa}, seed {SEED}"
    assert_same_bits(y, values, operands_of(a, b, c), note)
    assert_same_bits(stats.overflowed, flags, operands_of(a, b, c), f"overflow flags of {note}")
    met.add(stats.kernel)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("shape", SHAPES)
def test_engine_equals_the_reference(shape, state, monkeypatch):
    """All operand formats and situations; the instruction sets take turns (tests/native has all of them)."""
    isas = native.available_isas()
    total, turn = state.split("/")[0], SHAPES.index(shape)
    for i, operands in enumerate(OPERANDS):
        spec = shape.format(state, operands)
        for j, kind in enumerate(KINDS):
            if (turn + i + j) % 3:
                continue  # every situation meets every state and operand format, by turns of the accumulators
            isa = isas[(i + j // 3) % len(isas)]
            monkeypatch.setenv("ULPSIM_ISA", isa)
            compare(spec, operands, total, kind, isa)


def test_the_comparison_above_meets_every_kernel():
    """Runs its own few situations, so that it stands without the test above."""
    met.clear()
    for spec, operands in [
        ("fma(fp16)", "fp8_e4m3"), ("seq(fp16)", "fp16"), ("fma(fp16)", "fp16"), ("exact(fp16)", "fp8_e4m3"),
        ("fma(fp32)", "fp16"), ("seq(fp32)", "fp32"), ("fma(fp32)", "fp32"), ("seq(e9m28)", "fp32"),
        ("exact(fp16)", "fp16"), ("exact(fp16)", "fp64"), ("fma(fp64)", "fp64"), ("fma(posit16)", "fp16"),
        ("seq(posit16)", "fp16"), ("aligned(4, 23, fp32/rz)", "fp16"),
        ("kahan(fp16)", "fp16"),
    ]:  # fmt: skip
        compare(spec, operands, "fp16", "equal", native.isa())
    assert met == set(native.kernels())


@pytest.mark.parametrize("spec", ["fma(fp8_e4m3/sat)", "fma(fp8_e4m3)", "seq(fp8_e5m2)", "fma(fp8_e4m3fnuz)"])
def test_every_pair_of_fp8_values_is_one_right_step(spec, monkeypatch):
    """All 65,536 products of an 8-bit format with three addends, against the scalar kernel; a part of them against
    the reference."""
    name = spec.split("(")[1].rstrip(")").split("/")[0]
    table = formats.get(name).table()
    values = table[np.isfinite(table)]
    a, b = values.reshape(-1, 1), values.reshape(1, -1)
    for c in (None, values[37], -values[90]):
        scalar = forced("integer_any", spec, a, b, c).dense("overflows")
        for isa in native.available_isas():
            monkeypatch.setenv("ULPSIM_ISA", isa)
            y, stats = simulator.matmul(a, b, spec, c=c, stats="overflows")
            assert_same_bits(y, scalar[0], operands_of(a, b, None), f"{spec} + {c} on {isa}")
            assert_same_bits(stats.overflowed, scalar[1].overflowed, note=f"{spec} + {c} on {isa}")
        some = np.random.default_rng(SEED).permutation(values.size)[:20]
        expected, _ = definition(spec, a[some], b[:, some], c)
        assert_same_bits(scalar[0][np.ix_(some, some)], expected, operands_of(a[some], b[:, some]), f"{spec} + {c}")


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp8_e5m2"])
def test_fma_on_hard_random_cases(name):
    """Any exponents: where double rounding bites most (accumulators into their own operand format)."""
    rng = np.random.default_rng(SEED)
    fmt = formats.get(name)
    m = 400
    a, b = finite(fmt, (m, 1), SEED, 8), finite(fmt, (1, 1), SEED + 1, 4)
    # Addends near a tie of the sum: the product's leading bit, shifted by about the precision.
    shift = rng.integers(-fmt.precision - 14, fmt.precision + 3, (m, 1))
    c = np.ldexp(np.abs(a * b), shift) * rng.uniform(1, 2, (m, 1)) * rng.choice([-1, 1], (m, 1))
    c = fmt.quantize(c, overflow="sat")
    expected, flags = definition(f"fma({name})", a, b, c)
    y, stats = simulator.matmul(a, b, f"fma({name})", c=c, stats="overflows")
    assert_same_bits(y, expected, operands_of(a, b, c), f"fma({name}) {stats.kernel} seed {SEED}")
    assert_same_bits(stats.overflowed, flags)


@pytest.mark.parametrize("k", [1, 63, 64, 65, 127, 200])
def test_long_inner_products_and_runs_that_do_not_divide_them(k):
    for spec, operands in [
        ("chunk(64, fma(fp16), seq(fp32))", "fp8_e4m3"), ("chunk(7, seq(bf16), fma(bf16))", "fp16"),
        ("chunk(1000, fma(fp16/sat), seq(fp16))", "fp8_e4m3"), ("exact(fp16)", "fp8_e4m3"),
    ]:  # fmt: skip
        compare(spec, operands, "fp16", "random", native.isa(), (2, 2, k))


# --- a million outputs per accumulator and format --------------------------------------------------------------------

FULL_STATES = {
    "fp8_e4m3/sat": "fp8_e4m3",
    "fp8_e4m3": "fp8_e4m3",
    "fp8_e5m2": "fp8_e5m2",
    "fp16": "fp16",
    "fp16/sat": "fp16",
    "bf16": "bf16",
}
FULL_KINDS = {"fma": "fma({0})", "seq": "seq({0})", "chunk": "chunk(5, fma({0}), seq({0}))", "late": "late(fma({0}))"}


def million(state, operands, far):
    """Operands of 1000 x 700 outputs, K = 12; near: values around 1 and special rows; far: any exponents that the
    fast kernels take."""
    total, fmt = formats.get(state.split("/")[0]), formats.get(operands)
    if far:
        # A state of 8 exponent bits cannot take products of any size in lanes; 2^-60 .. 2^50 still can.
        a, b = anything(fmt, (1000, 12), SEED), anything(fmt, (12, 700), SEED + 1)
        if fmt.exponent_bits == 8:
            rng = np.random.default_rng(SEED + 9)
            a = fmt.quantize(np.ldexp(rng.standard_normal(a.shape), rng.integers(-60, 50, a.shape)))
            b = fmt.quantize(np.ldexp(rng.standard_normal(b.shape), rng.integers(-60, 50, b.shape)))
    else:
        blocks = [structured(kind, fmt, total, 125, 700, 12, SEED + i) for i, kind in enumerate(KINDS)]
        a = np.concatenate([block[0] for block in blocks])
        b = np.concatenate([block[1][:, 100 * i : 100 * i + 100] for i, block in enumerate(blocks[:7])], axis=1)
        if fmt.exponent_bits == 8:
            near = np.abs(a) < 2.0**50
            a = np.where(near & (np.abs(a) > 2.0**-60) | ~np.isfinite(a), a, 0.0)
            b = np.where((np.abs(b) < 2.0**50) & (np.abs(b) > 2.0**-60) | ~np.isfinite(b), b, 0.0)
    c = addend(total, (1000, 700), SEED)
    if total.exponent_bits == 8:
        c = np.where(np.abs(c) > 2.0**100, 1.0, c)
    return a, b, c


@pytest.mark.full
@pytest.mark.parametrize("state", FULL_STATES)
@pytest.mark.parametrize("kind", FULL_KINDS)
def test_full_a_million_outputs_equal_the_scalar_kernel(kind, state, monkeypatch):
    """Fast kernels on every instruction set and 1, 2 and 4 threads against the scalar integers, two times 700,000."""
    spec = FULL_KINDS[kind].format(state)
    compared = 0
    for far in (False, True):
        a, b, c = million(state, FULL_STATES[state], far)
        expected, counted = forced("integer_any", spec, a, b, c, threads=2).dense("overflows")
        hashes = set()
        for isa in native.available_isas():
            monkeypatch.setenv("ULPSIM_ISA", isa)
            for threads in (1, 2, 4):
                work = Accumulation(simulator.mac(spec), a, b, c, threads)
                assert work.kernel.name != "integer_any", f"{spec} far={far}: no fast kernel is compared"
                y, stats = work.dense("overflows")
                hashes.add((digest(y), digest(stats.overflowed)))
            note = f"{spec} far={far} {work.kernel.name} on {isa}, seed {SEED}"
            assert_same_bits(y, expected, operands_of(a, b, c), note)
            assert_same_bits(stats.overflowed, counted.overflowed, operands_of(a, b, c), f"overflow flags of {note}")
        assert len(hashes) == 1, f"{spec}: results depend on threads or instruction set"
        compared += y.size
    assert compared >= 1_000_000


@pytest.mark.full
@pytest.mark.parametrize("state", FULL_STATES)
@pytest.mark.parametrize("kind", FULL_KINDS)
def test_full_twenty_thousand_outputs_of_the_scalar_kernel_equal_the_reference(kind, state):
    spec = FULL_KINDS[kind].format(state)
    for far in (False, True):
        a, b, c = million(state, FULL_STATES[state], far)
        a, b, c = a[::10, :6], b[:6, ::7], c[::10, ::7]
        values, flags = definition(spec, a, b, c)
        y, stats = forced("integer_any", spec, a, b, c).dense("overflows")
        assert_same_bits(y, values, operands_of(a, b, c), f"{spec} far={far} seed {SEED}")
        assert_same_bits(stats.overflowed, flags, operands_of(a, b, c), f"overflow flags {spec} far={far} seed {SEED}")
        assert y.size == 10_000


@pytest.mark.parametrize(
    "spec", ["fixed(8, 2, sat)", "fixed(9, 0, track)", "aligned(4, 8, fp16)", "aligned(2, 12, fp8_e4m3/sat)"]
)
def test_products_beyond_float64(spec):
    a, b = np.array([[1e200, 3.0, -1e300], [-1e200, 1e-200, 2.0]]), np.array([[1e200, 1.0], [1e300, 5.0], [2.0, -1e9]])
    assert_same_bits(simulator.matmul(a, b, spec), definition(spec, a, b)[0], operands_of(a, b), spec)
