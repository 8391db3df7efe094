"""Statistics of a product: counts against the reference, errors against exact fractions, tiles against their parts."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

import formats
import simulator
from simulator.arithmetic import reference
from simulator.arithmetic.kernels import choose
from simulator.arithmetic.places import Place
from tests.oracles.operands import structured

SEED = 700
SPECS = [
    "fma(fp8_e4m3/sat)", "fma(fp16)", "seq(fp8_e5m2)", "fma(fp16, 4)", "tree(fp8_e4m3)", "kahan(fp8_e5m2)",
    "interleave(2, seq(fp8_e5m2), fma(fp16))", "chunk(4, fma(fp8_e4m3), seq(fp16))", "fixed(8, 2, wrap)",
    "aligned(4, 6, fp16)", "exact(fp8_e4m3)", "fma(posit8)", "late(fma(fp16/sat))",
]  # fmt: skip
KINDS = ["random", "large", "subnormal", "cancellation", "special"]


def counted_by_the_reference(spec, a, b, c):
    """Return the run of the reference of every output."""
    mac = simulator.mac(spec)
    late = spec.startswith(("late", "tree"))
    runs = []
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            run = reference.Run(Place(i, j, b.shape[1]), mac)
            reference.accumulate(a[i].tolist(), b[:, j].tolist(), None if late else float(c[i, j]), run)
            runs.append(run)
    return runs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spec", SPECS)
def test_counts_are_those_of_the_definition_and_change_no_bit(spec, kind):
    a, b = structured(kind, "fp8_e4m3", "fp16", 3, 18, 9, SEED)
    c = formats.get("fp8_e4m3").quantize(np.random.default_rng(SEED).standard_normal((3, 18)))
    y, stats = simulator.matmul(a, b, spec, c=c, stats=True)
    runs = counted_by_the_reference(spec, a, b, c)
    total = stats.total
    for name in ("overflows", "underflows", "swamped"):
        assert total[name] == sum(getattr(run, name) for run in runs), (spec, kind, name)
    assert total["largest"] == max(run.largest for run in runs), (spec, kind)
    plain = simulator.matmul(a, b, spec, c=c)
    assert y.tobytes() == plain.tobytes()
    flagged, only = simulator.matmul(a, b, spec, c=c, stats="overflows")
    assert flagged.tobytes() == plain.tobytes()
    assert np.array_equal(only.overflowed, stats.overflowed)


def test_errors_are_those_against_exact_fractions():
    a, b = structured("random", "fp16", "fp16", 4, 5, 30, SEED)
    y, stats = simulator.matmul(a, b, "fma(fp16)", stats=True)
    for i in range(4):
        for j in range(5):
            exact = sum(Fraction(x) * Fraction(z) for x, z in zip(a[i].tolist(), b[:, j].tolist(), strict=True))
            assert abs(Fraction(float(stats.exact[i, j])) - exact) <= Fraction(stats.error_bound)
            assert stats.errors[i, j] == float(y[i, j]) - stats.exact[i, j]
    # With fp8 operands float64 holds every partial sum.
    a, b = structured("random", "fp8_e4m3", "fp16", 4, 5, 30, SEED)
    _, stats = simulator.matmul(a, b, "fma(fp16)", stats=True)
    assert stats.error_bound == 0.0
    exact = [
        [sum(Fraction(x) * Fraction(z) for x, z in zip(r, s, strict=True)) for s in b.T.tolist()] for r in a.tolist()
    ]
    assert [[Fraction(v) for v in row] for row in stats.exact.tolist()] == exact


def test_tiles_add_up_to_the_whole_and_hold_their_own_outputs():
    a, b = structured("large", "fp8_e4m3", "fp8_e4m3", 7, 45, 12, SEED)
    _, stats = simulator.matmul(a, b, "fma(fp8_e4m3/sat)", stats=True)
    tiles = stats.tiles(3, 16)
    assert tiles.shape == (3, 3)
    for name in ("overflows", "underflows", "swamped"):
        assert tiles[name].sum() == stats.total[name] > 0 or name == "underflows"
    for name in ("largest", "max_error", "max_relative_error"):
        assert tiles[name].max() == stats.total[name]
    _, part = simulator.matmul(a[3:6], b[:, 16:32], "fma(fp8_e4m3/sat)", stats=True)
    assert part.total == {name: tiles[name][1, 1].item() for name in tiles.dtype.names}


def test_swamped_underflowing_and_overflowing_steps_by_hand():
    _, stats = simulator.matmul([[256.0, 1.0, 1.0, 0.0, -4.0]], [[1.0]] * 5, "fp16 -> fma(e8m3)", stats=True)
    assert stats.total["swamped"] == 3  # 256 + 1 twice, 256 - 4 between 240 and 256; a product of 0 swamps nothing
    assert stats.total["largest"] == 256.0
    _, stats = simulator.matmul([[2.0**-20, 1.0]], [[2.0**-20], [1.0]], "seq(fp16)", stats=True)
    assert stats.total["underflows"] == 1
    _, stats = simulator.matmul([[300.0] * 3], [[300.0]] * 3, "fma(fp16/sat)", stats=True)
    assert (stats.total["overflows"], stats.overflows) == (3, 1)
    _, stats = simulator.matmul([[1.0, 2.0**-9]], [[1.0], [1.0]], "aligned(2, 5, fp32/rz)", stats=True)
    assert stats.total["swamped"] == 1  # 2^-9 is cut to zero below 2^0


def test_counting_runs_in_the_kernel_that_runs_without_but_for_sums_too_long_for_its_counters():
    a, b = structured("random", "fp8_e4m3", "fp16", 3, 18, 9, SEED)
    for spec in ("fma(fp16)", "fma(posit16)", "chunk(4, fma(fp16), seq(fp16))", "seq(fp8_e5m2)"):
        work = simulator.arithmetic.Accumulation(simulator.mac(spec), a, b, None)
        assert work.kernel.name.startswith("float32")
        assert work.dense(True)[1].kernel == work.kernel.name
        assert choose(replace(work.situation, k=1 << 30), counts=True)[0].name[:7] in ("float64", "integer")


def test_empty_products_have_empty_statistics():
    for m, n, k in ((0, 3, 2), (3, 0, 2), (2, 3, 0)):
        _, stats = simulator.matmul(np.zeros((m, k)), np.zeros((k, n)), "fma(fp16)", stats=True)
        assert set(stats.total.values()) == {0.0}


def test_tiles_that_cut_counts_and_statistics_that_were_not_asked_for_are_refused():
    a, b = np.ones((2, 3)), np.ones((3, 40))
    _, stats = simulator.matmul(a, b, "fma(fp16)", stats=True)
    with pytest.raises(ValueError, match="in multiples of 16 or all 40"):
        stats.tiles(1, 8)
    with pytest.raises(ValueError, match="at least one row"):
        stats.tiles(0, 16)
    _, stats = simulator.matmul(a, b, "fma(fp16)", stats="overflows")
    with pytest.raises(ValueError, match="ask for stats=True"):
        stats.tiles()
    with pytest.raises(ValueError, match='expected False, True or "overflows"'):
        simulator.matmul(a, b, "fma(fp16)", stats="all")


def test_products_below_float64_are_not_called_exact():
    _, stats = simulator.matmul([[1e-170]], [[1e-170]], "fma(fp64)", stats=True)
    assert stats.exact[0, 0] == 0.0 < stats.error_bound
