"""The aligned step in lanes against the scalar kernel: real units and small ones, hard inputs, all instruction sets."""

import numpy as np
import pytest

import formats
import simulator
from simulator.arithmetic.engine import Accumulation
from simulator.arithmetic.kernels import kernel_named
from tests.oracles.bits import assert_same_bits
from tests.oracles.kernel_cases import forced

SEED = 600
UNITS = [
    "aligned(4, 23, fp32/rz)", "aligned(8, 24, fp32/rz, e_min=-132)", "aligned(16, 25, fp32/rz, e_min=-133)",
    "aligned(32, 13, e8m13/rz, e_min=-133)", "aligned(16, 25, fp16, e_min=-133)", "aligned(8, 24, fp16, e_min=-132)",
    "aligned(16, 6, fp8_e4m3)", "aligned(16, 6, fp8_e4m3/sat)", "aligned(4, 9, bf16)", "aligned(8, 10, fp16/rz)",
    "aligned(8, 10, bf16/rz, e_min=-3)", "aligned(5, 9, fp16, order=two_of_four)",
    "aligned(4, 8, fp32/rz, c=late)", "aligned(8, 24, fp32, c=late, sum_frac=31, c_frac=24)",
    "aligned(4, 9, fp16, c=late, sum_frac=5, c_frac=7, c_reach=3)",
    "aligned(4, 9, bf16/rz, e_min=-4, c=late, c_reach=12)",
    "chunk(128, aligned(32, 13, e8m13/rz, e_min=-133), seq(fp32))",
    "chunk(32, aligned(16, 25, fp16, e_min=-133, order=two_of_four), seq(fp16))",
    "chunk(20, chunk(6, aligned(4, 10, fp16), seq(bf16)), fma(fp16/rz))",
]  # fmt: skip
SHAPES = [(1, 1, 5), (9, 37, 33), (17, 150, 130), (3, 16, 0)]


def spread(rng, shape, low, high):
    return rng.standard_normal(shape) * np.exp2(rng.integers(low, high, shape))


def opposite(rng, shape):
    """Few significands, both signs: products cancel and leave what lies around the last bit kept."""
    return np.exp2(rng.integers(-6, 7, shape)) * rng.choice([1, 1 + 2.0**-3, -1, -1 - 2.0**-3], shape)


KINDS = {
    "near one": lambda rng, shape: rng.standard_normal(shape),
    "far apart": lambda rng, shape: spread(rng, shape, -12, 12),
    "tiny": lambda rng, shape: spread(rng, shape, -26, -10),
    "large": lambda rng, shape: spread(rng, shape, 5, 15),
    "cancelling": lambda rng, shape: rng.integers(-3, 4, shape) * np.exp2(rng.integers(-4, 4, shape)),
    "opposite": opposite,
    "mostly zero": lambda rng, shape: (
        rng.standard_normal(shape) * (rng.random(shape) < 0.2) * rng.choice([-1, 1], shape)
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", UNITS)
def test_lanes_give_what_the_scalar_kernel_gives(unit, kind, isa):
    """With and without the formats of the operands, with addends far above and below, dense and listed, two threads."""
    for i, (operands, shape) in enumerate(zip(["fp16", "fp8_e4m3", "fp8_e5m2", "bf16"], SHAPES, strict=True)):
        rng = np.random.default_rng([SEED, i])
        m, n, k = shape
        a, b = (formats.get(operands).quantize(KINDS[kind](rng, size), overflow="sat") for size in ((m, k), (k, n)))
        top = simulator.mac(unit).result.format.max
        c = None if i == 1 else np.clip(KINDS[kind](rng, (m, n)) * np.exp2(rng.integers(-20, 20, (m, n))), -top, top)
        for spec in (unit, f"{operands}/sat -> {unit}"):
            lanes = forced("float32_aligned", spec, a, b, c, threads=2)
            y, stats = lanes.dense("overflows")
            scalar = forced("integer_any", spec, a, b, c)
            expected, counted = scalar.dense("overflows")
            note = f"{spec} {kind} {shape} on {isa} seed {SEED}"
            assert_same_bits(y, expected, note=note)
            assert np.array_equal(stats.overflowed, counted.overflowed), note
            picked = rng.integers(0, m, 50), rng.integers(0, n, 50)
            z, listed = lanes.listed(picked, overflows=True)
            assert_same_bits(z, expected[picked], note=f"listed {note}")
            assert np.array_equal(listed.overflowed, counted.overflowed[picked]), note


@pytest.mark.parametrize(
    "unit", ["aligned(16, 25, fp32/rz, e_min=-133)", "aligned(16, 25, e8m20)", "aligned(16, 25, fp32)"]
)
def test_sums_of_products_and_state_beyond_32_bits(unit, isa):
    """The largest significands: 16 products near 4 * 2^25 and a state near 2 * 2^25, next to lanes that stay below."""
    a = np.full((3, 32), 2 - 2.0**-10) * np.array([[1], [-1], [0.5]])
    b = np.full((32, 40), 2 - 2.0**-10)
    c = np.full((3, 40), 2 - 2.0**-9) * np.array([[1], [-1], [1]])
    expected, _ = forced("integer_any", unit, a, b, c).dense()
    assert np.abs(expected[0, 0]) > 127
    assert_same_bits(forced("float32_aligned", unit, a, b, c).dense()[0], expected, note=isa)


@pytest.mark.parametrize("e_min", [-1100, -1023, -133, -126, 0, 4, 20, 100, 149])
def test_any_floor_of_the_exponent(e_min, isa):
    """Zeros alone too: their sum is +0, however low or high the floor is."""
    rng = np.random.default_rng(SEED)
    a, b = (formats.get("fp8_e4m3").quantize(rng.standard_normal(size)) for size in ((5, 40), (40, 35)))
    a[0] = b[:, 0] = 0.0
    for c in (None, np.full((5, 35), -0.0), rng.integers(-9, 9, (5, 35)) * 2.0**e_min):
        if c is not None and e_min < -100 and c.any():
            continue
        unit = f"aligned(4, 23, fp32/rz, e_min={e_min})"
        expected = forced("integer_any", unit, a, b, c).dense()[0]
        assert_same_bits(forced("float32_aligned", unit, a, b, c).dense()[0], expected, note=f"{e_min} on {isa}")


def test_what_overflowed_stays(isa):
    """Infinities, NaNs of formats without infinities, and saturated states, whatever follows in this run and later."""
    a, b = np.ones((9, 24)), np.full((24, 36), 2.0**-9)
    a[1:5, 0], a[2:6, 9], a[3:4, 1] = 448.0, -448.0, 448.0
    b[[0, 1, 9], 1:30] = 448.0
    for out in ("fp8_e4m3", "fp8_e4m3/sat", "fp16", "fp16/rz", "fp16/sat", "fp8_e5m2/rz"):
        for unit in (f"aligned(4, 12, {out})", f"chunk(8, aligned(4, 12, {out}), seq({out}))",
                     f"chunk(8, aligned(4, 12, {out}), seq(fp16))"):  # fmt: skip
            expected, counted = forced("integer_any", unit, a, b).dense("overflows")
            y, stats = forced("float32_aligned", unit, a, b).dense("overflows")
            assert_same_bits(y, expected, note=f"{unit} on {isa}")
            assert np.array_equal(stats.overflowed, counted.overflowed), unit
            assert stats.overflowed.any()


def test_runs_too_large_for_the_constants_of_the_next_join(isa):
    a, b = np.ones((2, 12)), np.ones((12, 20))
    a[1, :3], b[:3, 3:] = 60000.0, 2.0
    unit = "chunk(6, chunk(3, aligned(4, 12, fp16), seq(e11m18/sat)), seq(e3m49))"
    expected, counted = forced("integer_any", unit, a, b).dense("overflows")
    assert np.isinf(expected[1, 3])
    y, stats = forced("float32_aligned", unit, a, b).dense("overflows")
    assert_same_bits(y, expected, note=isa)
    assert np.array_equal(stats.overflowed, counted.overflowed)


def test_a_long_sum_has_panels_one_after_the_other(isa):
    """Of more products than a tile packs panels for at once."""
    rng = np.random.default_rng(SEED)
    k = (1 << 16) + 40
    a, b = (rng.integers(-8, 9, shape).astype(np.float32) for shape in ((2, k), (k, 70)))
    (y, stats), (z, wanted) = (
        forced(kernel, "aligned(8, 6, bf16)", a, b).dense("overflows") for kernel in ("float32_aligned", "integer_any")
    )
    assert_same_bits(y, z, note=f"{isa} seed {SEED}")
    assert_same_bits(stats.overflowed, wanted.overflowed, note=f"{isa} seed {SEED}")


def test_real_units_run_in_lanes():
    rng = np.random.default_rng(SEED)
    a, b = rng.standard_normal((20, 96)), rng.standard_normal((96, 20))
    for unit in ("v100.fp16", "a100.bf16", "a100.tf32", "h100.fp16", "h100.bf16", "h100.tf32", "h100.fp8.wgmma",
                 "h100.fp8.mma_sync", "cublas.fp8.slow", "ada.fp8", "b200.fp16"):  # fmt: skip
        work = Accumulation(simulator.mac(unit), a, b, None)
        assert work.kernel.name == "float32_aligned", unit


def test_what_lanes_do_not_do_is_refused():
    a = b = np.ones((4, 4))
    for unit, text in [
        ("aligned(4, 8, fp32/rz, c=late, parts=2)", "in one part"),
        ("aligned(4, 8, fp32/rz, align=rne)", "cut toward zero"),
        ("aligned(4, 8, fp32/rz, zero=keep)", "zeros dropped"),
        ("aligned(4, 8, fp32/rz, group=2)", "one by one"),
        ("aligned(32, 25, fp32/rz)", "32 products below 2^27 sum up to at most 2^31"),
        ("aligned(4, 23, fp32/rz, e_min=150)", "2^(F - E) is a normal float32: E is at most 150 <= 149"),
        ("e5m2:b-74 -> aligned(4, 9, fp32/rz)", "E is at most 150 <= 135"),
        ("aligned(4, 8, fp32/ru)", "rounds toward zero, or to nearest even"),
        ("aligned(4, 8, posit16)", "posit16 keeps a sign"),
        ("chunk(2, aligned(4, 8, fp16), seq(fp16/sr))", "fp16/sr joins runs without random words"),
    ]:
        work = Accumulation(simulator.mac(unit), a, b, None)
        failed = [
            clause.text for clause in kernel_named("float32_aligned").condition(work.situation) if not clause.holds
        ]
        assert len(failed) == 1 and text in failed[0], (unit, failed)
        assert work.kernel.name == "integer_any"
    work = Accumulation(simulator.mac("aligned(4, 8, fp32/rz)"), np.array([[np.inf]]), np.ones((1, 1)), None)
    assert work.kernel.name == "integer_any"
