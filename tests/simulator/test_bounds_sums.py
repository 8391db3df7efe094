"""The models of accumulators against the engine: what it computes on adversarial operands keeps to every bound."""

import math
from fractions import Fraction

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import simulator  # noqa: E402  (needs torch)
from formats import FloatFormat  # noqa: E402
from simulator.arithmetic.accumulators import result_use  # noqa: E402
from simulator.arithmetic.presets import PRESETS  # noqa: E402
from simulator.bounds.analysis import forward  # noqa: E402
from simulator.bounds.bounded import Bounded  # noqa: E402
from simulator.bounds.graph import record  # noqa: E402
from simulator.bounds.units import of_mac  # noqa: E402
from tests.oracles.networks import Function  # noqa: E402

FORMATS = ("fp16", "bf16", "fp8_e4m3", "fp8_e5m2", "e5m10:ftz", "e5m10:finite", "dlfloat16", "e11m2")
ROUNDINGS = ("", "/rz", "/ru", "/rd", "/odd", "/rna", "/sr", "/sr:3:b")
ORDERS = (
    "fma({f})", "fma({f}, 4)", "seq({f})", "seq(fp16, {f})", "seq({f}, fp32)", "chunk(8, fma({f}), seq({f}))",
    "chunk(5, seq({f}), tree({f}))", "chunk(3, chunk(2, seq({f}), fma({f})), seq({f}))",
    "chunk(1, tree({f}, leaves=exact), seq({f}))", "tree({f})", "tree({f}, 3)", "tree({f}, leaves=exact)",
    "interleave(4, fma({f}), seq({f}))", "interleave(3, tree({f}, leaves=exact), tree({f}))", "late(fma({f}))",
    "late(seq({f}))", "late(exact({f}))", "late(chunk(4, exact({f}), seq({f})))", "reverse(8, seq({f}))",
    "reverse(3, exact({f}))", "exact({f})", "fma(fp32) -> {f}", "exact(fp32) -> {f}", "late(seq(fp32)) -> {f}",
    "{f} -> fma({f})", "fp8_e4m3*fp8_e5m2 -> seq({f}) -> fp8_e5m2", "aligned(4, 12, {f})", "aligned(8, 9, {f}, c=late)",
    "aligned(4, 11, {f}, order=two_of_four)", "aligned(4, 6, {f}, align=rd)", "aligned(3, 6, {f}, align=rne)",
    "fp8_e5m2 -> aligned(4, 7, {f}, zero=keep)", "aligned(8, 9, {f}, group=4, e_min=-3)",
    "chunk(6, seq({f}), aligned(4, 10, {f}))",
    "aligned(8, 12, {f}, c=late, parts=2, part_frac=9, sum_frac=11, c_frac=9, c_reach=9)",
)  # fmt: skip
INTEGERS = ("fixed(32, 16, sat)", "fixed(16, 8, wrap)", "fixed(12, 4, track, rz)", "fixed(20, 10, sat, ru) -> fp16",
            "chunk(4, fixed(24, 9, sat, rna), seq(fp16))")  # fmt: skip
UNITS = tuple(
    f"{name} -> {output}" for name, preset in PRESETS.items() for output in preset.outputs if "mxfp" not in name
    and "nvfp" not in name
)  # fmt: skip
# Blocks share scales, which no rule is for.
assert len(UNITS) > 40


def rows_of(k, state, rng):
    """Rows of adversarial operands (9, K) for a state of a format."""
    fmt = state.format
    u = 2.0 ** -(fmt.precision if isinstance(fmt, FloatFormat) else 10)
    top, least = min(float(fmt.max), 2.0**100), max(float(fmt.smallest_subnormal), 2.0**-130)
    sign = rng.choice([-1.0, 1.0], k)
    pairs = np.repeat(rng.normal(size=-(-k // 2)), 2)[:k] * np.tile([1.0, -1.0], k)[:k] * (1 + u * rng.normal(size=k))
    stagnating = np.full(k, u * rng.choice([0.4999, 0.5, 0.50001, 1.5]))
    stagnating[0] = 1.0
    single = np.zeros(k)
    single[rng.integers(k)] = rng.normal()
    return np.stack([
        np.full(k, rng.uniform(1, 2)), sign * np.where(np.arange(k) % 2, 2.0**9, 2.0**-9) * rng.uniform(1, 2, k),
        pairs, stagnating, sign * least * rng.uniform(0.1, 3, k), rng.uniform(-1, 1) * top * rng.uniform(0, 2, k) / k,
        np.where(np.arange(k) % 2, -1.0, 1.0) * top * rng.uniform(0.3, 0.7, k), single,
        rng.normal(size=k) * 2.0 ** rng.integers(-3, 4),
    ])  # fmt: skip


def columns_of(k, rng):
    return np.stack([np.ones(k), rng.choice([-1.0, 1.0], k), 2.0 ** rng.integers(-3, 4, k), rng.normal(size=k)], 1)


def addends(exact, rng):
    """None; small and large ones; ones that cancel the sum, or almost."""
    yield None
    yield np.float32(rng.normal(size=exact.shape) * np.abs(exact).clip(1e-30, 1e30) * 10.0 ** rng.integers(-4, 3))
    yield np.float32(-exact * (1 + rng.choice([0.0, 1e-3, 1e-2], exact.shape)))


def differences(computed, a, b, c):
    """computed - (a @ b + c), rounded once; infinite where it is none."""
    found = np.full(computed.shape, np.inf)
    for i, j in np.argwhere(np.isfinite(computed)):
        # Products of two float32 are float64.
        terms = (-a[i].astype(float) * b[:, j].astype(float)).tolist()
        found[i, j] = math.fsum([float(computed[i, j]), *terms, -float(c[i, j])])
    return found


def bounded(mac, a, b, c, off, running):
    """Bounds of a @ b + c on a unit, a computed within `off`."""
    right = torch.from_numpy(b).double()
    f = Function(lambda x: x @ right if c is None else torch.addmm(torch.from_numpy(c).double(), x, right))
    x = Bounded(*(torch.from_numpy(part).double() for part in (a, a, off)))
    unit = of_mac(mac)
    unit.__dict__["running"] = running
    return forward(record(f.eval(), x.lo), [x], unit).output


def keeps(mac, ks, rng):
    """Compare a unit with its bounds; return the largest share of a bound that was reached."""
    spec = simulator.mac(mac)
    state = result_use(spec.accumulator)
    reached = 0.0
    for k in ks:
        a, b = np.float32(rows_of(k, state, rng)), np.float32(columns_of(k, rng))
        if spec.operands is not None and rng.integers(2):  # as they are in the unit
            kept = (use.quantize(x) for use, x in zip(spec.operands, (a, b), strict=True))
            a, b = (np.float32(np.where(np.isfinite(x), x, 0)) for x in kept)
        off = np.abs(a) * rng.choice([0.0, 0.0, 1e-3], (len(a), 1))
        given = np.float32(a + off * rng.choice([-1, 1], a.shape))
        off = np.abs(given.astype(float) - a)
        for c in addends(a.astype(float) @ b, rng):
            with np.errstate(all="ignore"):
                computed, stats = simulator.matmul(given, b, mac=mac, c=c, seed=int(rng.integers(99)), stats=True)
            zeros = np.zeros(computed.shape, np.float32)
            error = np.abs(differences(computed, a, b, zeros if c is None else c))
            for running in (False, True):
                y = bounded(mac, a, b, c, off, running)
                d = y.d.numpy()
                assert (error <= d).all(), of(mac, a, b, c, given, computed, error, d, running)
                assert np.isinf(d[stats.overflowed]).all(), (mac, "overflow")
                some = np.isfinite(d) & (d > 0)
                reached = max(reached, float((error[some] / d[some]).max(initial=0)))
    return reached


def of(mac, a, b, c, given, computed, error, d, running):
    """What the worst violation is of."""
    i, j = np.argwhere(~(error <= d))[0]
    return (
        f"{mac}, {'running' if running else 'forward'}: row {i}, a {a[i][:8]}, given {given[i][:8]}, b {b[:, j][:8]}, "
        f"K {len(b)}, c {None if c is None else c[i, j]}: {computed[i, j]}, off by {error[i, j]}, bound {d[i, j]}"
    )


def seeded(text):
    return np.random.default_rng(list(text.encode()))


@pytest.mark.parametrize("order", ORDERS)
def test_what_the_engine_sums_keeps_to_the_bounds(order):
    rng = seeded(order)
    reached = []
    for f in rng.permutation(FORMATS)[:3]:
        reached.append(keeps(order.format(f=f"{f}{rng.choice(ROUNDINGS)}"), (1, 7, 40), rng))
    assert max(reached) > 0.02


@pytest.mark.full
@pytest.mark.parametrize("order", ORDERS)
def test_what_the_engine_sums_keeps_to_the_bounds_in_every_format(order):
    rng = seeded(order)
    for f in FORMATS:
        for mode in ROUNDINGS:
            keeps(order.format(f=f"{f}{mode}"), (1, 2, 5, 16, 90, 700), rng)


@pytest.mark.parametrize("mode", ROUNDINGS)
def test_roundings_of_every_kind(mode):
    rng = seeded(mode)
    for order in ("seq({f})", "fma({f})", "chunk(4, seq({f}), fma({f}))"):
        assert keeps(order.format(f=f"fp16{mode}"), (1, 2, 33), rng) > 0.02


@pytest.mark.parametrize("mode", ["/sat", "/rz/sat"])
def test_saturation_is_no_bound(mode):
    for order in ("seq({f})", "exact({f})", "tree({f})", "aligned(4, 12, {f})", "fma(fp32) -> {f}"):
        keeps(order.format(f=f"fp8_e4m3{mode}"), (1, 5, 20), seeded(order))


@pytest.mark.parametrize("mac", INTEGERS)
def test_integers_keep_to_the_bounds(mac):
    assert keeps(mac, (1, 6, 30), seeded(mac)) > 0.02


@pytest.mark.parametrize("mac", UNITS)
def test_units_that_exist_keep_to_the_bounds(mac):
    keeps(mac, (1, 3, 37), seeded(mac))


def test_products_that_overflow_while_their_sums_cancel_have_no_bound():
    a, b = np.float32([[300, 300]]), np.float32([[200], [-300]])
    for mac in ("seq(fp16)", "chunk(2, seq(fp16), seq(fp32))", "seq(fp16, fp32)"):
        assert not np.isfinite(simulator.matmul(a, b, mac=mac)).any()
        assert bounded(mac, a, b, None, 0.0 * a.astype(float), True).d.isinf().all()


def test_a_late_addend_that_cancels_an_exact_sum():
    a, b, c = np.float32([[512.75]]), np.float32([[1]]), np.float32([[-512.24]])
    computed = simulator.matmul(a, b, mac="late(exact(fp16))", c=c)
    error = abs(float(Fraction(float(computed[0, 0])) - Fraction(512.75) - Fraction(float(c[0, 0]))))
    assert 0.4 < error <= float(bounded("late(exact(fp16))", a, b, c, 0.0 * a.astype(float), False).d)


def test_steps_in_pairs_are_two_roundings():
    mac = "aligned(4, 25, fp16/rz, order=two_of_four)"
    a, b = np.float32([[1, 2.0**-10 * 0.99, 2.0**-10 * 0.99, 0]]), np.ones((4, 1), np.float32)
    error = abs(float(simulator.matmul(a, b, mac=mac)[0, 0]) - float(a.astype(float).sum()))
    assert 2.0**-10 * 1.9 < error <= float(bounded(mac, a, b, None, 0.0 * a.astype(float), False).d)


def floats(bits, exponents):
    """All numbers of k bits with these exponents, and zero."""
    some = [m * 2.0 ** (e - bits + 1) for e in range(-exponents, exponents) for m in range(2 ** (bits - 1), 2**bits)]
    return np.array(sorted({0.0, *some, *(-x for x in some)}))


@pytest.mark.parametrize(("bits", "exponents", "most"), [(2, 4, 7), (3, 3, 6)])
@pytest.mark.parametrize("fused", [False, True])
def test_sums_of_n_terms_to_nearest_are_off_by_n_u_without_exception(bits, exponents, most, fused):
    """(B3), by dynamic programming over all states: the largest error minus n u sum |p|, over all real products p."""
    u, all_ = 2.0**-bits, floats(bits, exponents)
    least = all_[all_ > 0][0]
    middle = (all_[1:] + all_[:-1]) / 2

    def nearest(x):
        """Each nearest number, of which there may be two."""
        at = np.searchsorted(all_, x)
        near = [i for i in (at - 1, at, at + 1) if 0 <= i < len(all_)]
        distance = min(abs(all_[i] - x) for i in near)
        return [i for i in near if abs(all_[i] - x) == distance]

    def in_range(x):
        return x == 0 or least <= abs(x) <= all_[-1]

    # Of real products those at which a rounding changes; (state, product, what is added to the state).
    ends = [x for x in (*all_, *middle) if in_range(x)]
    if fused:
        added = [(i, x - all_[i], x - all_[i]) for i in range(len(all_)) for x in ends]
    else:
        added = [(i, x, all_[t]) for i in range(len(all_)) for x in ends for t in nearest(x)]
    steps = [
        (i, to, all_[to] - all_[i] - x, abs(x))
        for i, x, term in added if in_range(all_[i] + term) for to in nearest(all_[i] + term)
    ]  # fmt: skip
    source, target = (np.array([step[i] for step in steps]) for i in (0, 1))
    off, size = (np.array([step[i] for step in steps]) for i in (2, 3))

    def worst(n, factor):
        best = np.where(all_ == 0, 0.0, -np.inf)
        for _ in range(n):
            after = np.full(len(all_), -np.inf)
            np.maximum.at(after, target, best[source] + off - factor * size)
            best = after
        return best.max()

    for n in range(1, most):
        assert worst(n, n * u) <= 0 < worst(n, 0.4 * n * u)
