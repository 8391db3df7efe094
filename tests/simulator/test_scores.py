"""Scores of the two-pass rule: numerators, controls, budgets, and scores of one's own."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator
from formats import Use
from formats.philox import word
from native.twins import quantize
from simulator.arithmetic import Criterion, scores
from simulator.arithmetic.criterion import Account, _first
from simulator.arithmetic.places import SCORE, site_of
from simulator.arithmetic.scores import Seen, kappa_of
from tests.oracles.bits import assert_same_bits
from tests.oracles.operands import finite

SEED = 820
LOW, HIGH = "fma(fp8_e4m3/sat)", "fma(fp16)"


@pytest.fixture
def matrices():
    return (
        finite("fp8_e4m3", (17, 40), SEED) / 16,
        finite("fp8_e4m3", (40, 23), SEED + 1) / 16,
        finite("fp8_e4m3", (23,), SEED + 2),
    )


def scored(matrices, score, activation="relu", low=LOW, **options):
    a, b, c = matrices
    criterion = Criterion(options.pop("tolerance", 0.5), score, **options)
    return simulator.two_pass(a, b, low, HIGH, activation=activation, c=c, criterion=criterion)


# --- numerators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "low", [LOW, "late(chunk(8, fma(fp8_e4m3/sat), seq(fp8_e4m3/sat)))", "fp8_e5m2 -> seq(fp8_e5m2)"]
)
@pytest.mark.parametrize("activation", ["relu", "identity", "tanh"])
def test_kappa_full_is_kappa_prime_times_a_pass_over_the_magnitudes(matrices, low, activation):
    a, b, c = matrices
    found = scored(matrices, "kappa_full", activation, low=low)
    unit = simulator.arithmetic.mac(low)
    operands = (
        [a, b] if unit.operands is None else [quantize(x, use) for x, use in zip((a, b), unit.operands, strict=True)]
    )
    numerator = simulator.matmul(*map(np.abs, operands), str(unit.accumulator), c=np.abs(c))
    first = simulator.matmul(a, b, low, c=c)
    assert_same_bits(found.scores, kappa_of(first.astype(np.float64), activation) * numerator.astype(np.float64))
    assert (found.cost.scoring, found.cost.relative_to_low > 2) == (1.0, True)


def test_a_running_sum_has_a_format_of_its_own_and_its_price(matrices):
    a, b, c = matrices
    found = scored(matrices, "kappa_full", side_format=Use.parse("fp16"))
    numerator = simulator.matmul(np.abs(a), np.abs(b), "fma(fp16)", c=np.abs(c))
    first = simulator.matmul(a, b, LOW, c=c)
    assert_same_bits(found.scores, kappa_of(first.astype(np.float64), "relu") * numerator.astype(np.float64))
    assert found.cost.scoring == 16 / 8


@pytest.mark.parametrize("gathered", [False, True])
def test_norms_bound_the_numerator_or_stand_for_it(matrices, gathered):
    a, b, c = matrices
    exact = np.abs(a) @ np.abs(b) + np.abs(c)
    one, two, largest = (np.linalg.norm(a, p, axis=1)[:, None] for p in (1, 2, np.inf))
    w_one, w_two, w_largest = (np.linalg.norm(b, p, axis=0) for p in (1, 2, np.inf))
    expected = {
        "norm1": one * w_one / len(b) + np.abs(c),
        "norm2": two * w_two + np.abs(c),
        "norm_inf": np.minimum(largest * w_one, one * w_largest) + np.abs(c),
    }
    first = simulator.matmul(a, b, LOW, c=c).astype(np.float64)
    for name, numerator in expected.items():
        if gathered:
            from native.matmul import Gathered

            k = a.shape[1]
            left = Gathered(np.ascontiguousarray(a), np.arange(len(a)) * k, np.arange(k))
            found = simulator.two_pass(left, b, LOW, HIGH, c=c, criterion=Criterion(0.5, name))
        else:
            found = scored(matrices, name, "identity")
        np.testing.assert_allclose(found.scores * np.abs(first), numerator, rtol=1e-13)
        assert name == "norm1" or (numerator >= exact * (1 - 1e-12)).all()
        assert found.cost.scoring == 0.0


def test_the_affine_map_is_one_more_term_of_the_numerator(matrices):
    a, b, c = matrices
    scale, shift = finite("fp16", (23,), SEED + 3), finite("fp16", (23,), SEED + 4)
    rule = Criterion(0.5, "kappa_full")
    found = simulator.two_pass(a, b, "fma(fp16)", "fma(fp32)", c=c, criterion=rule, scale=scale, shift=shift)
    numerator = simulator.matmul(np.abs(a), np.abs(b), "fma(fp16)", c=np.abs(c)).astype(np.float64)
    v = simulator.matmul(a, b, "fma(fp16)", c=c).astype(np.float64) * scale + shift
    assert_same_bits(found.scores, kappa_of(v, "identity") * (np.abs(scale) * numerator + np.abs(shift)))


def test_kappa_exact_is_the_condition_number_and_has_no_price(matrices):
    a, b, c = matrices
    found = scored(matrices, "kappa_exact", "identity")
    exact = (np.abs(a) @ np.abs(b) + np.abs(c)) / np.abs(a @ b + c)
    np.testing.assert_allclose(found.scores, exact, rtol=1e-10)
    assert (found.scores >= 1 - 1e-12).all() and found.cost is None


# --- controls ---------------------------------------------------------------------------------------------------------


def test_random_scores_are_words_of_the_places_of_the_outputs(matrices):
    a, b, _ = matrices
    whole = simulator.two_pass(a, b, LOW, HIGH, criterion=Criterion(0.5, "random"), seed=3, site=5)
    for row, column in ((0, 0), (4, 22), (16, 7)):
        expected = (word(3, row * 23 + column, 0, site_of(SCORE, 10)) >> 11) * 2.0**-53
        assert whole.scores[row, column] == expected
    part = simulator.two_pass(a[5:], b, LOW, HIGH, criterion=Criterion(0.5, "random"), seed=3, site=5, first_row=5)
    assert_same_bits(part.scores, whole.scores[5:])
    assert 0.3 < whole.recomputed.mean() < 0.7


def test_largest_and_smallest_look_at_the_size_alone(matrices):
    first = simulator.matmul(matrices[0], matrices[1], LOW, c=matrices[2]).astype(np.float64)
    assert_same_bits(scored(matrices, "largest").scores, np.abs(first))
    assert_same_bits(scored(matrices, "smallest").scores, 1 / np.abs(first))


# --- budgets ----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0, 1), st.sampled_from(["kappa_prime", "largest", "random", "norm2"]),
    st.sampled_from([0.0, 0.5, math.inf]), st.integers(0, 1000), st.integers(0, 2**40),
)  # fmt: skip
def test_a_budget_is_never_exceeded_and_takes_the_largest_scores(budget, score, tolerance, seed, first_row):
    a, b = finite("fp8_e4m3", (6, 12), seed), finite("fp8_e4m3", (12, 19), seed + 1)
    free = simulator.two_pass(a, b, LOW, HIGH, criterion=Criterion(tolerance, score), first_row=first_row)
    rule = Criterion(tolerance, score, budget=budget)
    found = simulator.two_pass(a, b, LOW, HIGH, criterion=rule, first_row=first_row)
    assert not (found.recomputed & ~free.recomputed).any()
    must = free.saturated | np.isnan(free.scores)
    spent = math.floor(budget * 19 * (first_row % (1 << 20)))  # nothing is left of rows that were not seen
    for i, (flags, wanted) in enumerate(zip(found.recomputed, free.recomputed, strict=True)):
        row = (first_row + i) % (1 << 20)
        spent = spent if row else 0
        most = math.floor(budget * 19 * (row + 1)) - spent
        assert flags.sum() == min(most, wanted.sum())
        spent += flags.sum()
        rank = {j: (0, 0) if must[i, j] else (1, -free.scores[i, j]) for j in np.flatnonzero(wanted)}
        assert sorted(sorted(rank, key=lambda j: (*rank[j], j))[:most]) == list(np.flatnonzero(flags))


@given(st.floats(0, 1), st.integers(1, 8), st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_the_rows_up_to_any_one_keep_to_the_budget(budget, n, rows):
    """Also where a row has so few outputs that its share is less than one."""
    rule = Criterion(0.0, "largest", budget=budget)
    v = np.ones((rows, n))
    flags = ~rule.keep(v, v, np.zeros(v.shape, np.bool_))
    spent = np.cumsum(flags.sum(axis=1))
    assert (spent <= budget * n * np.arange(1, rows + 1) * (1 + 2**-50)).all()
    assert spent[-1] > budget * n * rows - 1 - 1e-9


def test_a_budget_does_not_see_how_rows_are_divided(matrices):
    a, b, c = matrices
    rule = Criterion(0.0, "largest", budget=0.2)
    whole = simulator.two_pass(a, b, LOW, HIGH, c=c, criterion=rule)
    parts = [
        simulator.two_pass(a[i : i + 3], b, LOW, HIGH, c=c, criterion=rule, first_row=i).recomputed
        for i in range(0, 17, 3)
    ]
    assert (np.concatenate(parts) == whole.recomputed).all()
    assert whole.recomputed.sum() == math.floor(0.2 * 23 * 17)
    # Where some rows leave what later ones take, the account goes from call to call.
    rule = Criterion(2.0, "smallest", budget=0.2)
    whole, account = simulator.two_pass(a, b, LOW, HIGH, c=c, criterion=rule), Account()
    parts = [
        simulator.two_pass(a[i : i + 3], b, LOW, HIGH, c=c, criterion=rule, first_row=i, account=account).recomputed
        for i in range(0, 17, 3)
    ]
    assert (np.concatenate(parts) == whole.recomputed).all()
    assert len(set(whole.recomputed.sum(axis=1))) > 2


def test_what_rows_leave_of_a_budget_later_ones_have():
    wanted = np.array([0, 5, 0, 9, 9, 0])
    assert list(Account().allow(2.0, 0, wanted)) == [0, 4, 0, 4, 2, 0]
    account = Account()
    assert [list(account.allow(2.0, i, wanted[i : i + 2])) for i in (0, 2, 4)] == [[0, 4], [0, 4], [2, 0]]
    assert list(account.allow(2.0, 9, wanted)) == [0, 4, 0, 4, 2, 0]  # rows between were not seen
    assert list(Account().allow(0.5, (1 << 20) - 1, np.array([3, 3, 3]))) == [1, 0, 1]  # and begins anew


@pytest.mark.parametrize("budget", [-0.1, 1.1, math.nan, True, "x"])
def test_a_bad_budget_is_refused(budget):
    with pytest.raises(ValueError, match=r"budget: got .*; expected a share in \[0, 1\] or None"):
        Criterion(budget=budget)


# --- scores of one's own ----------------------------------------------------------------------------------------------


def test_a_score_of_ones_own(matrices, monkeypatch):
    monkeypatch.setattr(scores, "_registered", {})
    scores.register("negative", lambda seen: np.where(seen.v < 0, 1.0, 0.0))
    found = scored(matrices, "negative")
    first = simulator.matmul(matrices[0], matrices[1], LOW, c=matrices[2])
    assert ((first < 0) <= found.recomputed).all() and not found.recomputed[first >= 0][
        ~found.saturated[first >= 0]
    ].any()
    for name, message in (
        ("negative", "there is already"),
        ("kappa_prime", "there is already"),
        ("No", "got the name"),
    ):
        with pytest.raises(ValueError, match=message):
            scores.register(name, lambda seen: seen.v)


# --- logits of a softmax ----------------------------------------------------------------------------------------------


def _kappa_of_kept(y, kept):
    """max over i of the sum over kept j of |delta_ij - y_j|: what a unit error of the kept logits does to a softmax."""
    return max(sum(abs((i == j) - y[j]) for j in kept) for i in range(len(y)))


@pytest.mark.parametrize("tolerance", [1.05, 1.3, 1.6, 1.9])
@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_lamp_recomputes_the_fewest_of_the_largest_logits_that_bound_the_softmax(tolerance, factor):
    """Against the definition of the condition number, row by row, with keys masked as in causal attention."""
    rng = np.random.default_rng(11)
    v = rng.normal(size=(12, 12)) * 3 / factor
    addend = np.where(np.arange(12) > np.arange(12)[:, None], -np.inf, rng.normal(size=(12, 12)))
    seen = Seen(v.copy(), "identity", slice(0, 12), logits=(factor, addend))
    flags = scores.SCORES["lamp"](seen) > tolerance
    counts = []
    for row in range(12):
        keys = np.arange(row + 1)
        y = np.exp(v[row, keys] * factor + addend[row, keys])
        y /= y.sum()
        order = np.argsort(-y, kind="stable")
        enough = (k for k in range(len(keys) + 1) if _kappa_of_kept(y, set(order[k:])) <= tolerance)
        count = next(enough)
        assert sorted(order[:count]) == list(np.flatnonzero(flags[row]))
        counts.append(count)
    assert len(set(counts)) > 1


def test_lamp_takes_what_is_no_softmax_by_kappa_prime_and_nan_as_it_is():
    v = np.array([[1.0, -2.0], [np.nan, 1.0]])
    plain = scores.SCORES["lamp"](Seen(v.copy(), "relu", slice(0, 2)))
    assert np.array_equal(plain, scores.SCORES["kappa_prime"](Seen(v.copy(), "relu", slice(0, 2))), equal_nan=True)
    of_softmax = scores.SCORES["lamp"](Seen(v.copy(), "identity", slice(0, 2), logits=(1.0, 0.0)))
    assert np.isnan(of_softmax[1]).all() and np.isfinite(of_softmax[0]).all()


@pytest.mark.parametrize("factor", [1.0, -0.25])
def test_lamp_absolute_bounds_what_the_error_of_one_logit_does_to_its_row(factor):
    """Against a softmax with one logit moved: what all its probabilities change by, for a millionth of N."""
    rng = np.random.default_rng(13)
    a, b, c = rng.normal(size=(6, 16)), rng.normal(size=(16, 6)), rng.normal(size=(6, 6))
    addend = np.where(np.arange(6) > np.arange(6)[:, None], -np.inf, rng.normal(size=(6, 6)))
    rule = Criterion(math.inf, "lamp_absolute")
    found = simulator.two_pass(a, b, "exact(fp64)", "exact(fp64)", c=c, criterion=rule, logits=(factor, addend))
    bound = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=0) + np.abs(c)
    for row in range(6):
        for key in range(6):
            moved = (found.output[row] + 1e-6 * bound[row] * (np.arange(6) == key)) * factor + addend[row]
            before = found.output[row] * factor + addend[row]
            y, after = (np.exp(z) / np.exp(z).sum() for z in (before, moved))
            assert found.scores[row, key] == pytest.approx(np.abs(after - y).sum() * 1e6, rel=1e-3, abs=1e-7)
    assert (found.scores[np.isinf(addend)] == 0).all() and (found.scores[1:, 0] > 0).all()


def test_what_is_masked_is_kept_though_it_is_infinite_or_overflows():
    rng = np.random.default_rng(12)
    a, b = 20 * rng.normal(size=(8, 16)), rng.normal(size=(16, 8))
    for low, out in (("fma(fp16)", -np.inf), ("fma(fp16/sat)", -65504.0)):
        mask = np.where(np.arange(8) > np.arange(8)[:, None], out, 0.0)
        rule = Criterion(1.0, "lamp", budget=0.5)
        found = simulator.two_pass(a, b, low, "fma(fp32)", c=mask, criterion=rule, logits=(0.05, mask))
        plain = simulator.two_pass(a, b, low, "fma(fp32)", c=mask, criterion=rule)
        assert not found.recomputed[mask < 0].any() and plain.recomputed[mask < 0].any()
        assert found.recomputed[mask == 0].mean() > 0.5


@given(
    st.integers(1, 9).flatmap(
        lambda n: st.lists(
            st.tuples(
                st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, math.inf]), min_size=n, max_size=n), st.integers(0, n)
            ),
            min_size=1,
            max_size=4,
        )
    )
)
def test_of_equal_scores_the_first_are_chosen(rows):
    scores, counts = np.array([row for row, _ in rows]), np.array([count for _, count in rows])
    order = np.argsort(-scores, axis=1, kind="stable")
    wanted = np.zeros(scores.shape, np.bool_)
    np.put_along_axis(wanted, order, np.arange(scores.shape[1]) < counts[:, None], axis=1)
    assert np.array_equal(_first(scores, counts), wanted)


def test_what_must_be_recomputed_comes_before_an_output_that_is_zero():
    """Whose score is infinite: to the left of an infinity, with a budget for one of both."""
    b = np.array([[1.0, 3e5], [-1.0, 3e5]])
    for criterion in (Criterion(0.5, budget=0.5), Criterion(0.0, "kappa_prime", budget=0.5)):
        found = simulator.two_pass([[1.0, 1.0]], b, "fma(fp8_e5m2)", "fma(fp32)", criterion=criterion)
        assert found.recomputed.tolist() == [[False, True]] and found.output.tolist() == [[0.0, 6e5]]


def test_a_threshold_holds_for_the_first_pass_alone():
    """Of the budget of a network; what is beyond it goes on by the tolerances."""
    a, b = finite("fp8_e4m3", (20, 30), SEED + 5) / 16, finite("fp8_e4m3", (30, 12), SEED + 6) / 16
    levels = (LOW, "fma(fp16)", "fma(fp32)")
    found = simulator.ladder(a, b, levels, criterion=Criterion(0.0, threshold=1.0))
    first = simulator.ladder(a, b, levels, criterion=Criterion(0.0)).scores > 1.0
    assert 0 < first.mean() < 1
    assert np.array_equal(found.computed[0] | found.computed[1], first)
    assert np.array_equal(found.computed[1], first)  # with a tolerance of 0 all of it ends in the last


def test_a_score_cannot_write_into_the_outputs(monkeypatch):
    monkeypatch.setattr(scores, "_registered", {})

    def writes(seen):
        seen.v[:] = 1.0
        return seen.v

    scores.register("writes", writes)
    with pytest.raises(ValueError, match="read-only"):
        simulator.two_pass(np.eye(3), np.eye(3), "fma(fp64)", "fma(fp64)", score="writes")


@pytest.mark.parametrize(
    ("found", "error", "message"),
    [
        (lambda v: v[0], ValueError, r"score 'mine': got the shape \(3,\); expected \(3, 3\)"),
        (lambda v: v.astype(complex), TypeError, "score 'mine': got ndarray; expected an array of real numbers"),
        (lambda v: 1.0, TypeError, "score 'mine': got float; expected an array of real numbers"),
    ],
)
def test_scores_of_another_shape_or_type_are_refused(monkeypatch, found, error, message):
    monkeypatch.setattr(scores, "_registered", {})
    scores.register("mine", lambda seen: found(seen.v))
    with pytest.raises(error, match=message):
        simulator.two_pass(np.eye(3), np.eye(3), LOW, HIGH, score="mine")


def test_names_of_scores_that_cannot_be_registered():
    with pytest.raises(TypeError, match="got 3 and <built-in function len>; expected a name and a function of a Seen"):
        scores.register(3, len)
    with pytest.raises(ValueError, match="'sensitivity', which there is already"):
        scores.register("sensitivity", len)
    with pytest.raises(ValueError, match=r"score 'sensitivity' is made of samples.*simulator\.evaluate"):
        scores.score_of("sensitivity")
    with pytest.raises(ValueError, match=r"score \['a'\] is unknown"):
        simulator.two_pass(np.eye(3), np.eye(3), LOW, HIGH, score=["a"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": True}, "budget: got True; expected a share"),
        ({"recompute_nonfinite": "no"}, "recompute_nonfinite: got 'no'; expected True or False"),
        ({"further": 0.3}, "further: got 0.3; expected tolerances, one for each level between"),
    ],
)
def test_settings_of_a_criterion_of_another_type_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Criterion(0.5, **settings)


def test_a_budget_may_be_a_number_of_numpy():
    assert Criterion(0.5, budget=np.float32(0.25)).budget == 0.25
