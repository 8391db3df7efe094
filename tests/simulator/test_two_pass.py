"""Two passes: which outputs are kept, that both parts are those of the uniform passes, and what it costs."""

import math
from itertools import pairwise

import numpy as np
import pytest

import formats
import simulator
from simulator.arithmetic import Criterion
from simulator.arithmetic.activations import KAPPA_PRIME
from simulator.arithmetic.engine import Accumulation
from simulator.arithmetic.ladder import mapped
from simulator.arithmetic.scores import kappa_of
from simulator.arithmetic.two_pass import TwoPassCost
from tests.oracles.bits import assert_same_bits
from tests.oracles.operands import finite

SEED = 800
INF, NAN = math.inf, math.nan
LOW, HIGH = "fma(fp8_e4m3)", "fma(fp16)"
RELU, TANH, IDENTITY = "relu", "tanh", "identity"


def one(v, activation, tolerance=0.5, low="fma(fp16)", high="fma(fp32)", **criterion):
    """Two passes over a single output whose low value is v; whether it was recomputed, and its score."""
    rule = Criterion(tolerance, **criterion)
    result = simulator.two_pass([[v]], [[1.0]], low, high, activation=activation, criterion=rule, c=-0.0)
    assert_same_bits(result.output, [[v]])
    return bool(result.recomputed[0, 0]), float(result.scores[0, 0])


# v, activation, tolerance, criterion, recomputed, score
TABLE = {
    "relu, below zero: kept whatever tau": (-0.25, RELU, 0.5, {}, False, 0.0),
    "relu, below zero, tau = 0": (-0.25, RELU, 0.0, {}, False, 0.0),
    "relu, +0": (0.0, RELU, 0.5, {}, True, INF),
    "relu, -0": (-0.0, RELU, 0.5, {}, True, INF),
    "relu, +0, large tau": (0.0, RELU, 1e300, {}, True, INF),
    "relu, +0, tau = inf": (0.0, RELU, INF, {}, False, INF),
    "relu, -0, tau = inf": (-0.0, RELU, INF, {}, False, INF),
    "relu, small": (1.0, RELU, 0.5, {}, True, 1.0),
    "relu, large": (3.0, RELU, 0.5, {}, False, 1 / 3),
    "relu, on the threshold: kept": (2.0, RELU, 0.5, {}, False, 0.5),
    "relu, NaN": (NAN, RELU, 0.5, {}, True, NAN),
    "relu, NaN, tau = inf": (NAN, RELU, INF, {}, True, NAN),
    "relu, NaN, tau = inf, non-finite kept": (NAN, RELU, INF, {"recompute_nonfinite": False}, True, NAN),
    "relu, +inf": (INF, RELU, 0.5, {}, True, 0.0),
    "relu, -inf": (-INF, RELU, 0.5, {}, True, 0.0),
    "relu, +inf, as the authors' code": (
        INF, RELU, 0.5, {"recompute_nonfinite": False, "recompute_saturated": False}, False, 0.0,
    ),
    "relu, +inf, overflow still counts": (INF, RELU, 0.5, {"recompute_nonfinite": False}, True, 0.0),
    "relu, -inf, tau = 0, as the authors' code": (
        -INF, RELU, 0.0, {"recompute_nonfinite": False, "recompute_saturated": False}, False, 0.0,
    ),
    "identity, tau = 0": (3.0, IDENTITY, 0.0, {}, True, 1 / 3),
    "identity, below zero": (-1.0, IDENTITY, 0.5, {}, True, 1.0),
    "identity, on the threshold: kept": (-2.0, IDENTITY, 0.5, {}, False, 0.5),
    "identity, 0": (0.0, IDENTITY, 0.5, {}, True, INF),
    "identity, -0, tau = inf": (-0.0, IDENTITY, INF, {}, False, INF),
    "identity, NaN": (NAN, IDENTITY, INF, {}, True, NAN),
    "identity, inf": (INF, IDENTITY, 0.5, {}, True, 0.0),
    "identity, inf, as the authors' code": (
        -INF, IDENTITY, 0.5, {"recompute_nonfinite": False, "recompute_saturated": False}, False, 0.0,
    ),
    "tanh, 0": (0.0, TANH, 0.5, {}, True, INF),
    "tanh, -0": (-0.0, TANH, 1e300, {}, True, INF),
    "tanh, 0, tau = inf": (0.0, TANH, INF, {}, False, INF),
    "tanh, NaN": (NAN, TANH, 0.5, {}, True, NAN),
    "tanh, inf": (INF, TANH, 0.5, {}, True, 0.0),
    "tanh, -inf, as the authors' code": (
        -INF, TANH, 0.5, {"recompute_nonfinite": False, "recompute_saturated": False}, False, 0.0,
    ),
    "tanh, large": (400.0, TANH, 0.5, {}, False, 0.0),
    # numpy's sinh, not math's: they differ in the last bit.
    "tanh, tau = 0": (1.0, TANH, 0.0, {}, True, 2.0 / np.sinh(np.array([[2.0]])).item()),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_special_cases_follow_the_table(name):
    v, activation, tolerance, criterion, recomputed, expected = TABLE[name]
    got, found = one(v, activation, tolerance, **criterion)
    assert got == recomputed
    assert_same_bits(found, expected, note=name)


@pytest.mark.parametrize("activation", ["identity", "relu", "tanh"])
@pytest.mark.parametrize("v", [65504.0, -65504.0])
def test_a_saturated_output_is_recomputed_unless_the_criterion_says_not(activation, v):
    """Its own score, 1 / max, would keep it."""
    operands = {"low": "fma(fp16/sat)", "tolerance": 0.5}

    def recomputed(**criterion):
        rule = Criterion(0.5, **criterion)
        result = simulator.two_pass([[v]], [[2.0]], operands["low"], "fma(fp32)", activation=activation, criterion=rule)
        assert result.saturated.tolist() == [[True]]
        return bool(result.recomputed[0, 0]), float(result.output[0, 0]), float(result.scores[0, 0])

    assert recomputed()[:2] == (True, 2 * v)
    kept, output, found = recomputed(recompute_saturated=False)
    assert (kept, output) == (False, v)
    assert found <= 1 / 65504
    assert one(v, activation)[0] is False, "the largest value itself is no overflow"


def test_a_sum_that_saturated_on_the_way_and_came_back_is_recomputed():
    a, b = np.array([[448.0, 448.0, -448.0]]), np.array([[1.0], [1.0], [1.0]])
    result = simulator.two_pass(a, b, "fma(fp8_e4m3/sat)", HIGH, activation="relu")
    assert result.saturated.tolist() == result.recomputed.tolist() == [[True]]
    assert float(result.output[0, 0]) == 448.0


# --- thresholds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [1.0, 0.5, 0.3, 0.1, 7.0])
def test_scores_cross_the_tolerance_at_the_closed_form_thresholds(tau):
    """identity and relu: |v| < 1/tau; tanh: |v| < asinh(2/tau)/2. On a grid of neighbouring values around each."""
    thresholds = {IDENTITY: 1 / tau, RELU: 1 / tau, TANH: math.asinh(2 / tau) / 2}
    for activation, threshold in thresholds.items():
        offsets = np.concatenate([np.linspace(-0.9, 3, 200), [-1e-12, 1e-12]])
        v = threshold * (1 + offsets[np.abs(offsets) > 1e-13])
        expected = v < threshold
        assert ((kappa_of(v, activation) > tau) == expected).all(), activation
        negative = np.zeros(v.shape, bool) if activation == RELU else expected
        assert ((kappa_of(-v, activation) > tau) == negative).all(), activation


def test_the_thresholds_of_tanh_are_those_of_the_published_table():
    for tau, threshold in [(1.0, 0.722), (0.5, 1.047), (0.3, 1.298), (0.1, 1.845)]:
        assert round(math.asinh(2 / tau) / 2, 3) == threshold
        assert kappa_of(np.array([threshold - 6e-4]), TANH)[0] > tau > kappa_of(np.array([threshold + 6e-4]), TANH)[0]


def test_scores_are_the_formulas_evaluated_in_float64():
    v = np.random.default_rng(SEED).normal(size=50)
    assert_same_bits(kappa_of(v, IDENTITY), 1.0 / np.abs(v))
    assert_same_bits(kappa_of(v, RELU), np.where(v < 0, 0.0, 1.0 / np.abs(v)))
    assert_same_bits(kappa_of(v, TANH), 2.0 / np.abs(np.sinh(2.0 * v)))
    assert mapped(v.astype(np.float32), 1.0, 0.0).dtype == np.float64


# --- whole matrices --------------------------------------------------------------------------------------------------


@pytest.fixture
def matrices():
    return finite("fp8_e4m3", (17, 40), SEED), finite("fp8_e4m3", (40, 23), SEED + 1), finite("fp16", (23,), SEED + 2)


PASSES = [
    (LOW, HIGH, "relu", 0.5),
    ("fma(fp8_e4m3/sat)", HIGH, "identity", 0.2),
    ("late(chunk(8, fma(fp8_e4m3/sat), seq(fp8_e4m3/sat)))", "late(chunk(8, fma(fp16), seq(fp16)))", "relu", 0.3),
    ("seq(fp8_e5m2)", "exact(fp32)", "tanh", 1.0),
    ("fp8_e5m2 -> fma(fp16) -> bf16", "fp8_e4m3 -> fma(fp64)", "relu", 0.5),
    ("fma(e4m3:fnuz)", "seq(bf16)", "identity", 0.4),
]


@pytest.mark.parametrize(("low", "high", "activation", "tolerance"), PASSES)
def test_kept_outputs_are_the_low_pass_and_the_others_the_high_pass(low, high, activation, tolerance, matrices):
    a, b, c = matrices
    result = simulator.two_pass(a, b, low, high, tolerance, activation, c=c)
    first, stats = simulator.matmul(a, b, low, c=c, stats=True)
    second = simulator.matmul(a, b, high, c=c)
    kept = ~result.recomputed
    assert kept.any()
    assert result.recomputed.any()
    assert_same_bits(result.output[kept], first[kept], note=f"seed {SEED}")
    assert_same_bits(result.output[result.recomputed], second[result.recomputed], note=f"seed {SEED}")
    assert_same_bits(result.scores, kappa_of(first.astype(np.float64), activation))
    assert result.saturated.tolist() == stats.overflowed.tolist()
    with np.errstate(invalid="ignore"):
        expected = ~(result.scores <= tolerance) | ~np.isfinite(first) | stats.overflowed
    assert result.recomputed.tolist() == expected.tolist()
    assert result.output.dtype == np.result_type(first.dtype, second.dtype)


@pytest.mark.parametrize("activation", sorted(KAPPA_PRIME))
def test_an_infinite_tolerance_is_the_uniform_low_pass(activation, matrices):
    a, b, _ = matrices
    result = simulator.two_pass(a / 64, b / 64, "fma(fp16)", "fma(fp32)", INF, activation)
    assert not result.recomputed.any()
    assert_same_bits(result.output, simulator.matmul(a / 64, b / 64, "fma(fp16)"))
    assert result.cost.recomputed == 0.0


def test_a_zero_tolerance_is_the_uniform_high_pass_but_for_what_relu_cuts(matrices):
    a, b, c = matrices
    high = simulator.matmul(a, b, "fma(fp32)", c=c)
    identity = simulator.two_pass(a, b, "fma(fp16)", "fma(fp32)", 0.0, "identity", c=c)
    assert identity.recomputed.all()
    assert_same_bits(identity.output, high)
    relu = simulator.two_pass(a, b, "fma(fp16)", "fma(fp32)", 0.0, "relu", c=c)
    low = simulator.matmul(a, b, "fma(fp16)", c=c)
    assert relu.recomputed.tolist() == (~(low < 0)).tolist()
    assert (low < 0).any()


def test_a_larger_tolerance_keeps_what_a_smaller_one_keeps(matrices):
    a, b, c = matrices
    taus = (0.0, 0.1, 0.3, 0.5, 1.0, INF)
    flags = [simulator.two_pass(a / 16, b / 16, LOW, HIGH, tau, "relu", c=c).recomputed for tau in taus]
    for tight, loose in pairwise(flags):
        assert not (loose & ~tight).any()
    assert flags[0].sum() > flags[2].sum() > flags[-1].sum()


def test_the_second_pass_computes_the_flagged_outputs_only(matrices, monkeypatch):
    a, b, c = matrices
    calls = []

    def spied(name, original):
        def spy(self, *arguments, **options):
            calls.append((name, str(self.spec), arguments))
            return original(self, *arguments, **options)

        return spy

    for name in ("dense", "listed"):
        monkeypatch.setattr(Accumulation, name, spied(name, getattr(Accumulation, name)))
    result = simulator.two_pass(a, b, LOW, HIGH, 0.5, "relu", c=c)
    assert [(name, spec) for name, spec, _ in calls] == [("dense", LOW), ("listed", HIGH)]
    rows, columns = calls[1][2][0]
    computed = sorted(map(list, zip(rows.tolist(), columns.tolist(), strict=True)))
    assert computed == np.argwhere(result.recomputed).tolist()
    calls.clear()
    simulator.two_pass(a / 64, b / 64, "fma(fp16)", "fma(fp32)", INF)
    assert [name for name, _, _ in calls] == ["dense"], "nothing is flagged, and yet a second pass ran"


def test_threads_change_no_bit_of_either_pass(matrices):
    a, b, c = matrices
    results = [simulator.two_pass(a, b, LOW, HIGH, 0.4, "relu", c=c, threads=n) for n in (1, 2, 5)]
    for other in results[1:]:
        assert_same_bits(other.output, results[0].output)
        assert (other.recomputed == results[0].recomputed).all()


def test_a_selection_never_mixes_values_by_multiplication():
    """inf * 0 = NaN would reach a kept neighbour or a recomputed infinity."""
    a, b = np.array([[60000.0, 3.0]]), np.array([[2.0, 0.0], [0.0, 1.0]])
    result = simulator.two_pass(a, b, "fma(fp16)", "fma(fp32)", 0.5, "relu")
    assert result.recomputed.tolist() == [[True, False]]
    assert_same_bits(result.output, [[120000.0, 3.0]])


# --- folded batch normalisation --------------------------------------------------------------------------------------


def test_the_score_is_that_of_the_normalised_output():
    v = np.array([[-1.0, 0.5, 2.0, 4.0]])
    for activation in KAPPA_PRIME:
        scale, shift = np.array([2.0, -4.0, 0.25, 1.0]), np.array([1.0, 0.5, 0.0, -4.0])
        found = simulator.two_pass(
            [[1.0]], v, "fma(fp16)", "fma(fp32)", activation=activation, scale=scale, shift=shift
        )
        assert_same_bits(found.scores, kappa_of(v * scale + shift, activation))


def test_scale_and_shift_move_the_flags_and_not_the_outputs(matrices):
    a, b, c = matrices
    scale, shift = finite("fp16", (23,), SEED + 3), finite("fp16", (23,), SEED + 4)
    result = simulator.two_pass(a, b, "fma(fp16)", "fma(fp32)", 0.5, "relu", c=c, scale=scale, shift=shift)
    low = simulator.matmul(a, b, "fma(fp16)", c=c)
    normalised = low.astype(np.float64) * scale + shift
    with np.errstate(divide="ignore"):
        expected = np.where(normalised < 0, 0.0, 1 / np.abs(normalised)) > 0.5
    assert result.recomputed.tolist() == expected.tolist()
    plain = simulator.two_pass(a, b, "fma(fp16)", "fma(fp32)", 0.5, "relu", c=c)
    assert result.recomputed.tolist() != plain.recomputed.tolist()
    assert_same_bits(result.output[~result.recomputed], low[~result.recomputed])


# --- cost and refusals -----------------------------------------------------------------------------------------------


def test_cost_is_relative_to_the_uniform_passes():
    cost = TwoPassCost(ratio=0.5, recomputed=0.1)
    assert cost.relative_to_high == 0.6
    assert cost.relative_to_low == 1.2


@pytest.mark.parametrize(
    ("low", "high", "ratio"),
    [
        (LOW, HIGH, 8 / 16), ("fma(fp8_e4m3)", "fma(fp32)", 8 / 32), ("fma(bf16) -> fp32", "fma(fp16)", 1.0),
        ("late(chunk(8, fma(fp8_e4m3), seq(fp16)))", "fma(fp32)", 16 / 32), ("seq(tf32)", "exact(fp64)", 19 / 64),
    ],
)  # fmt: skip
def test_the_ratio_is_that_of_the_accumulator_bits(low, high, ratio, matrices):
    a, b, _ = matrices
    result = simulator.two_pass(a, b, low, high, activation="relu")
    assert result.cost.ratio == ratio
    assert result.cost.recomputed == result.recomputed.sum() / result.recomputed.size
    assert result.cost.relative_to_high == ratio + result.cost.recomputed


def test_empty_outputs_cost_nothing_more():
    result = simulator.two_pass(np.zeros((0, 3)), np.zeros((3, 2)), LOW, HIGH)
    assert result.output.shape == result.recomputed.shape == (0, 2)
    assert result.cost.recomputed == 0.0


@pytest.mark.parametrize("tolerance", [-1, -1e-300, NAN, -INF])
def test_a_bad_tolerance_is_refused_with_the_range(tolerance):
    with pytest.raises(ValueError) as caught:
        simulator.two_pass([[1.0]], [[1.0]], LOW, HIGH, tolerance=tolerance)
    assert str(caught.value) == f"tolerance: got {tolerance}; expected a number in [0, inf]; give e.g. 0.5"


def test_unknown_scores_and_activations_and_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="score 'kappa' is unknown; expected one of kappa_prime, kappa_full, norm1"):
        simulator.two_pass([[1.0]], [[1.0]], LOW, HIGH, score="kappa")
    with pytest.raises(ValueError, match="activation 'mish' has no rule; expected one of identity, relu, leaky_relu"):
        simulator.two_pass([[1.0]], [[1.0]], LOW, HIGH, activation="mish")
    with pytest.raises(ValueError, match=r"two_pass: a \(1, 2\) and b \(1, 1\) do not fit; expected \(M, K\) and"):
        simulator.two_pass([[1.0, 2.0]], [[1.0]], LOW, HIGH)
    with pytest.raises(ValueError, match="accumulator 'fmaa' is unknown; did you mean fma"):
        simulator.two_pass([[1.0]], [[1.0]], "fmaa(fp16)", HIGH)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scale": np.ones(7)}, ValueError, "scale (7,) does not broadcast to the output's shape (2, 3)"),
        ({"shift": np.ones((4, 2, 3))}, ValueError, "shift (4, 2, 3) does not broadcast to the output's shape (2, 3)"),
        (
            {"scale": "x"},
            TypeError,
            "scale: got an array of dtype <U1; expected floats of at most 64 bits, or integers",
        ),
        ({"shift": 1j}, TypeError, "shift: got an array of dtype complex128; expected floats of at most 64 bits"),
        ({"tolerance": 10**400}, ValueError, f"tolerance: got {10**400}; expected a number that float64 holds"),
        ({"criterion": "x"}, TypeError, "criterion: got 'x'; expected a Criterion or None"),
        ({"activation": ["relu"]}, ValueError, "activation ['relu'] has no rule; expected one of identity, relu"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, error, message):
    with pytest.raises(error) as caught:
        simulator.two_pass(np.ones((2, 4)), np.ones((4, 3)), LOW, HIGH, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("tolerance", [np.float32(0.5), np.float64(0.5), np.int64(1), INF])
def test_a_tolerance_may_be_any_number(tolerance):
    result = simulator.two_pass([[1.0]], [[1.5]], LOW, HIGH, tolerance=tolerance)
    assert result.recomputed[0, 0] == (tolerance < 1 / 1.5)


def test_a_site_of_which_there_is_no_pair_is_refused():
    with pytest.raises(ValueError) as caught:
        simulator.two_pass([[1.0]], [[1.0]], LOW, HIGH, site=1 << 23)
    assert str(caught.value) == "site: got 8388608; expected a whole number from 0 to 2**23 - 1"


@pytest.mark.parametrize("beta", [0.01, 0.04, 0.2])
@pytest.mark.parametrize("affine", [(1.0, 0.0), (-0.5, 0.25)])
def test_what_relu_cuts_is_kept_only_where_its_sign_is_safe(beta, affine):
    """Against the rule written out, with norms in plain numpy: not positive, and below the bound, is computed again."""
    rng = np.random.default_rng(SEED + 3)
    a, b = rng.normal(size=(40, 60)), rng.normal(size=(60, 30))
    c = rng.normal(size=(40, 30))
    scale, shift = affine
    rule = Criterion(0.5, sign_safe=beta)
    units = "fp8_e4m3 -> fma(fp8_e4m3/sat)", "fp8_e4m3 -> fma(fp16)"
    found = simulator.two_pass(a, b, *units, activation=RELU, c=c, criterion=rule, scale=scale, shift=shift)
    plain = simulator.two_pass(a, b, *units, activation=RELU, c=c, criterion=Criterion(0.5), scale=scale, shift=shift)
    low = simulator.matmul(a, b, units[0], c=c).astype(np.float64)
    v = low * scale + shift
    x, w, z = (np.abs(formats.get("fp8_e4m3").quantize(m)) for m in (a, b, c))
    two = np.sqrt((x**2).sum(1))[:, None] * np.sqrt((w**2).sum(0)) + z
    largest = x.max(1)[:, None] * w.sum(0), x.sum(1)[:, None] * w.max(0)
    bound = abs(scale) * np.minimum(two, np.minimum(*largest) + z) + abs(shift)
    unsafe = (v <= 0) & (np.abs(v) <= beta * bound)
    assert np.array_equal(found.recomputed, plain.recomputed | unsafe)
    assert unsafe[~plain.recomputed].any()
    # Whatever the bound, no sign is wrong among those that are kept, once it holds for the low pass.
    exact = simulator.matmul(a, b, "fp8_e4m3 -> exact(fp64)", c=c) * scale + shift
    if beta == 0.2:
        assert not ((v < 0) & (exact > 0) & ~found.recomputed).any()
    others = simulator.two_pass(a, b, *units, activation=TANH, c=c, criterion=rule, scale=scale, shift=shift)
    assert np.array_equal(
        others.recomputed,
        simulator.two_pass(a, b, *units, activation=TANH, c=c, scale=scale, shift=shift).recomputed,
    )


def test_unsafe_signs_come_first_in_a_budget(matrices):
    a, b, *_ = matrices
    both = Criterion(0.0, sign_safe=1.0, budget=0.3)
    found = simulator.two_pass(a, b, LOW, HIGH, activation=RELU, criterion=both)
    assert found.recomputed.mean() <= 0.3
    free = simulator.two_pass(a, b, LOW, HIGH, activation=RELU, criterion=Criterion(math.inf, sign_safe=1.0))
    full = found.recomputed.sum(axis=1) < free.recomputed.sum(axis=1)
    assert (found.recomputed <= free.recomputed)[full].all() and full.any()


@pytest.mark.parametrize("beta", [0, -0.1, 1.5, math.nan, True, "0.1"])
def test_a_bound_of_signs_that_is_none_is_refused(beta):
    with pytest.raises(ValueError, match=r"sign_safe: got .*; expected a number in \(0, 1\] or None"):
        Criterion(sign_safe=beta)
