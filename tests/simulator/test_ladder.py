"""Ladders of precisions: which level each output has, that its bits are those of the level, and what it costs."""

import math
from itertools import pairwise

import numpy as np
import pytest

import simulator
from simulator.arithmetic import Criterion
from simulator.arithmetic.ladder import LadderCost, site_of_level
from tests.oracles.bits import assert_same_bits
from tests.oracles.operands import finite

SEED = 900
INF = math.inf
LEVELS = ("fma(fp8_e4m3)", "fma(fp16)", "fma(fp32)")
KINDS = ("climb", "jump")
# Unit roundoff of the first level over that of each below the last: precisions 4, 11 and 24; 3, 8, 11 and 24.
LADDERS = [
    (LEVELS, (1.0, 2.0**7)),
    (("fma(fp8_e4m3/sat)", "seq(fp16/sat)", "fma(fp32)"), (1.0, 2.0**7)),
    (("fma(fp8_e5m2)", "fma(bf16)", "fma(fp16/sat)", "exact(fp32)"), (1.0, 2.0**5, 2.0**8)),
    (("fp8_e5m2 -> fma(fp8_e4m3/sat)", "fp8_e5m2 -> fma(fp16/sr)", "fma(fp32/sr)"), (1.0, 2.0**7)),
]


@pytest.fixture
def matrices():
    return finite("fp8_e4m3", (17, 40), SEED), finite("fp8_e4m3", (40, 23), SEED + 1), finite("fp16", (23,), SEED + 2)


def uniform(a, b, levels, c, seed, site):
    """The uniform run of each level with the random words that it has in a ladder, and its overflows."""
    runs = []
    for number, level in enumerate(levels):
        y, stats = simulator.matmul(
            a, b, level, c=c, seed=seed, site=site_of_level(site, number), stats=True, threads=1
        )
        runs.append((y.astype(np.float64), stats.overflowed))
    return runs


def score(v, activation):
    """The condition number of an output, apart from its numerator."""
    if activation == "relu" and v < 0:
        return 0.0
    return INF if v == 0 else 1 / abs(v)


def level_by_definition(runs, row, column, kind, activation, taus, allowed):
    """The level of one output, from the uniform runs; `allowed` says whether the budget lets it leave the first."""

    def must(k):
        v, overflowed = (of[row, column] for of in runs[k])
        return bool(overflowed) or not math.isfinite(v)

    def above(k, tau):
        s = score(float(runs[k][0][row, column]), activation)
        return not math.isnan(s) and s > tau

    last = len(runs) - 1
    if not allowed or not (must(0) or above(0, taus[0])):
        return 0
    level = 1
    if kind == "jump":
        while level < last and above(0, taus[level]):
            level += 1
        while level < last and must(level):
            level += 1
        return level
    while level < last and (must(level) or above(level, taus[level])):
        level += 1
    return level


def levels_by_definition(runs, kind, activation, taus, budget):
    """The level of each output, row by row; what is spent of a budget is at most its share of the rows so far."""
    rows, columns = runs[0][0].shape
    found, spent = np.zeros((rows, columns), int), 0
    for row in range(rows):
        order = []
        for column in range(columns):
            level = level_by_definition(runs, row, column, kind, activation, taus, True)
            if level:
                v, overflowed = (float(of[row, column]) for of in runs[0])
                urgent = overflowed or not math.isfinite(v)
                order.append((-INF if urgent else -score(v, activation), column, level))
        most = columns if budget is None else math.floor(budget * columns * (row + 1)) - spent
        for _, column, level in sorted(order)[: max(0, most)]:
            found[row, column] = level
        spent += min(len(order), max(0, most))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("levels", "ratios"), LADDERS)
@pytest.mark.parametrize("activation", ["relu", "identity"])
def test_levels_and_bits_are_those_of_the_definition(levels, ratios, kind, activation):
    seen = set()
    for case in range(12):
        rng = np.random.default_rng([SEED, case])
        m, k, n = (int(x) for x in rng.integers(1, 20, 3))
        spread = 2.0 ** rng.integers(-2, 7)  # up to sums beyond the range of the lower levels
        a, b = rng.normal(size=(m, k)) * spread, rng.normal(size=(k, n)) * spread
        c = rng.normal(size=n) if case % 2 else None
        tau = float(rng.choice([0.0, 0.01, 0.1, 1.0, INF])) / spread
        budget = [None, 0.3, 0.05][case % 3]
        rule = Criterion(tau, budget=budget, kind=kind)
        found = simulator.ladder(a, b, levels, activation=activation, c=c, criterion=rule, seed=case, site=3)
        runs = uniform(a, b, levels, c, case, 3)
        taus = [tau * ratio if tau else 0.0 for ratio in ratios]
        expected = levels_by_definition(runs, kind, activation, taus, budget)
        note = f"seed {[SEED, case]}, tau {tau}, budget {budget}"
        assert found.level.tolist() == expected.tolist(), note
        values = np.choose(expected, [y for y, _ in runs])
        assert_same_bits(found.output.astype(np.float64), values, note=note)
        seen |= set(expected.ravel().tolist())
    assert seen == set(range(len(levels))), "some level was never reached"


@pytest.mark.parametrize("options", [{}, {"score": "kappa_full"}, {"score": "norm_inf"}, {"score": "random"}])
def test_two_levels_are_two_passes_bit_for_bit(options, matrices):
    a, b, c = matrices
    for units in (("fma(fp8_e4m3)", "fma(fp16)"), ("fma(fp8_e4m3/sr)", "seq(fp16/sr)")):
        for kind in KINDS:
            for budget in (None, 0.2):
                rule = Criterion(0.3, budget=budget, kind=kind, **options)
                two = simulator.two_pass(a, b, *units, activation="relu", c=c, criterion=rule, seed=5, site=7)
                found = simulator.ladder(a, b, units, activation="relu", c=c, criterion=rule, seed=5, site=7)
                assert_same_bits(found.output, two.output)
                assert found.level.astype(bool).tolist() == two.recomputed.tolist()
                assert found.computed[0].tolist() == two.recomputed.tolist()
                assert_same_bits(found.scores, two.scores)
                assert found.cost.relative_to_high == two.cost.relative_to_high
                assert two.recomputed.any()
                assert not two.recomputed.all()


def test_the_first_two_levels_are_two_passes_whatever_is_above_them(matrices):
    """What is flagged in the first pass, and the bits of the second, do not depend on further levels."""
    a, b, c = matrices
    units = ("fma(fp8_e4m3/sr)", "fma(fp16/sr)", "fma(fp32/sr)")
    two = simulator.two_pass(a, b, *units[:2], 0.3, "relu", c=c, seed=2, site=9)
    found = simulator.ladder(a, b, units, 0.3, "relu", c=c, seed=2, site=9)
    assert (found.level > 0).tolist() == two.recomputed.tolist()
    low = found.level < 2
    assert (found.level == 1).any()
    assert_same_bits(found.output[low], two.output[low])


def test_levels_draw_random_words_of_their_own():
    sites = {site_of_level(site, number) for site in range(50) for number in range(32)}
    assert len(sites) == 50 * 32
    assert max(sites) < 1 << 24
    assert [site_of_level(7, number) for number in (0, 1)] == [14, 15]
    last = (1 << 19) - 1
    assert site_of_level(last, 31) == (1 << 24) - 1
    with pytest.raises(ValueError, match="site"):
        simulator.ladder([[1.0]], [[1.0]], LEVELS, site=last + 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_zero_tolerance_is_the_last_level_and_an_infinite_one_the_first(kind, matrices):
    a, b, c = (x / 16 for x in matrices)
    zero = simulator.ladder(a, b, LEVELS, 0.0, c=c, kind=kind)
    assert (zero.level == 2).all()
    assert_same_bits(zero.output, simulator.matmul(a, b, LEVELS[2], c=c))
    infinite = simulator.ladder(a / 8, b / 8, LEVELS, INF, c=c / 64, kind=kind)
    assert not infinite.level.any()
    assert_same_bits(infinite.output, simulator.matmul(a / 8, b / 8, LEVELS[0], c=c / 64))
    relu = simulator.ladder(a, b, LEVELS, 0.0, "relu", c=c, kind=kind)
    negative = simulator.matmul(a, b, LEVELS[0], c=c) < 0
    assert negative.any()
    assert not relu.level[negative].any(), "relu keeps what is below zero"


@pytest.mark.parametrize("kind", KINDS)
def test_levels_fall_where_the_tolerance_rises(kind, matrices):
    a, b, c = (x / 16 for x in matrices)
    taus = (0.0, 0.05, 0.1, 0.3, 1.0, 5.0, INF)
    levels = [simulator.ladder(a, b, LEVELS, tau, c=c, kind=kind).level for tau in taus]
    for tight, loose in pairwise(levels):
        assert (tight >= loose).all()
    assert {0, 1, 2} == {level for of_one in levels[1:-1] for level in of_one.ravel().tolist()}


def test_a_jump_visits_the_level_of_its_score_and_a_climb_all_below(matrices):
    a, b, c = (x / 16 for x in matrices)
    jump, climb = (simulator.ladder(a, b, LEVELS, 0.1, c=c, kind=kind) for kind in ("jump", "climb"))
    assert not (jump.computed[0] & jump.computed[1]).any()
    assert (climb.computed[0] >= climb.computed[1]).all()
    assert climb.computed[0].tolist() == (jump.computed[0] | jump.computed[1]).tolist()
    assert jump.computed[1].any()
    assert climb.computed[1].any()


@pytest.mark.parametrize("kind", KINDS)
def test_what_overflows_goes_to_the_next_level_and_on_if_it_does_so_again(kind):
    a, b = np.array([[400.0], [400.0], [4.0]]), np.array([[4.0, 400.0]])
    levels = ("fma(fp8_e4m3/sat)", "fma(fp16/sat)", "fma(fp32)")
    found = simulator.ladder(a, b, levels, 0.5, kind=kind)
    assert found.level.tolist() == [[1, 2], [1, 2], [0, 1]]
    assert found.output.tolist() == [[1600.0, 160000.0]] * 2 + [[16.0, 1600.0]]
    rule = Criterion(0.5, recompute_saturated=False, kind=kind)
    assert not simulator.ladder(a, b, levels, criterion=rule).level.any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("score", ["kappa_full", "norm2", "random", "largest"])
def test_neither_threads_nor_the_division_of_rows_change_a_level(kind, score, matrices):
    a, b, c = matrices
    levels = ("fma(fp8_e4m3/sat)", "fma(fp16/sr)", "fma(fp32/sr)")
    rule = Criterion(0.6 if score == "random" else 8.0, score, kind=kind, further=(0.9,) if score == "random" else None)
    options = {"activation": "relu", "c": c, "criterion": rule, "seed": 4, "site": 2}
    whole = simulator.ladder(a, b, levels, threads=1, **options)
    assert len(set(whole.level.ravel().tolist())) > 1
    again = simulator.ladder(a, b, levels, threads=3, **options)
    parts = [
        simulator.ladder(a[rows], b, levels, first_row=rows.start, **options) for rows in (slice(0, 5), slice(5, 17))
    ]
    for output, level in (
        (again.output, again.level),
        (np.concatenate([p.output for p in parts]), np.concatenate([p.level for p in parts])),
    ):
        assert_same_bits(output, whole.output)
        assert level.tolist() == whole.level.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_budget_holds_for_all_that_leaves_the_first_level(kind, matrices):
    a, b, c = matrices
    for budget in (0.0, 0.013, 0.1, 0.5):
        rule = Criterion(0.0, budget=budget, kind=kind)
        found = simulator.ladder(a, b, LEVELS, c=c, criterion=rule)
        beyond = np.cumsum((found.level > 0).sum(axis=1))
        assert (beyond <= np.floor(budget * 23 * np.arange(1, 18))).all()
        assert beyond[-1] == math.floor(budget * 23 * 17)


def test_tolerances_may_be_given_for_each_level(matrices):
    a, b, c = (x / 16 for x in matrices)
    given = simulator.ladder(a, b, LEVELS, (0.1, 0.1 * 2**7), c=c)
    usual = simulator.ladder(a, b, LEVELS, 0.1, c=c)
    assert given.level.tolist() == usual.level.tolist()
    assert not (simulator.ladder(a, b, LEVELS, (0.1, INF), c=c).level == 2).any()
    jump = simulator.ladder(a, b, LEVELS, (0.1, 0.1), c=c, kind="jump")
    assert not (jump.level == 1).any(), "equal tolerances leave nothing between"


def test_a_sign_is_safe_at_each_level(matrices):
    a, b, _ = (x / 16 for x in matrices)
    rule = Criterion(INF, sign_safe=0.05)
    found = simulator.ladder(a, b, LEVELS, activation="relu", criterion=rule)
    runs = [simulator.matmul(a, b, level).astype(np.float64) for level in LEVELS]
    rows, columns = np.abs(a), np.abs(b)
    bound = np.minimum(
        np.sqrt((rows**2).sum(1))[:, None] * np.sqrt((columns**2).sum(0)),
        np.minimum(rows.max(1)[:, None] * columns.sum(0), rows.sum(1)[:, None] * columns.max(0)),
    )
    safe = [(v > 0) | (np.abs(v) > beta * bound) for v, beta in zip(runs, (0.05, 0.05 / 2**7), strict=False)]
    expected = np.where(safe[0], 0, np.where(safe[1], 1, 2))
    assert found.level.tolist() == expected.tolist()
    assert {0, 1} <= set(expected.ravel().tolist())


def test_the_cost_counts_what_each_level_computed(matrices):
    a, b, c = (x / 16 for x in matrices)
    for kind in KINDS:
        for score, extra in (("kappa_prime", 0.0), ("kappa_full", 1.0)):
            found = simulator.ladder(a, b, LEVELS, 0.1 if score == "kappa_prime" else 5.0, c=c, score=score, kind=kind)
            second, third = (one.mean() for one in found.computed)
            assert found.cost.ratios == (8 / 32, 16 / 32)
            assert found.cost.relative_to_high == pytest.approx(0.25 * (1 + extra) + 0.5 * second + third, rel=1e-15)
            assert found.cost.relative_to_low == pytest.approx(found.cost.relative_to_high * 4, rel=1e-15)
    assert simulator.ladder(a, b, LEVELS, score="kappa_exact").cost is None
    assert LadderCost((0.25, 0.5), (0.4, 0.1)).relative_to_high == 0.25 + 0.5 * 0.4 + 0.1
    assert simulator.ladder(np.zeros((0, 3)), np.zeros((3, 2)), LEVELS).cost.shares == (0.0, 0.0)


@pytest.mark.parametrize(
    ("levels", "options", "message"),
    [
        (("fma(fp16)",), {}, "levels: got 1; expected 2 to 32 MAC units; give so many"),
        (("fma(fp16)",) * 33, {}, "levels: got 33; expected 2 to 32 MAC units; give so many"),
        (LEVELS, {"tolerance": (0.1, 0.2, 0.3)},
         "tolerance: got 3; expected one, or one for each level below the last, 2; give so many"),
        (LEVELS, {"tolerance": (0.2, 0.1)}, "tolerance: got (0.2, 0.1); expected rising ones; sort them"),
        (LEVELS, {"tolerance": (0.2, -1)}, "tolerance: got -1; expected a number in [0, inf]; give e.g. 0.5"),
        (LEVELS, {"kind": "leap"}, "kind: got 'leap'; expected climb or jump; give one of them"),
        (("fma(fp16)", "fma(fp8_e4m3)", "fma(fp32)"), {},
         "levels: got fma(fp16), fma(fp8_e4m3), fma(fp32); expected rising precisions; sort them"),
        (("fma(fp8_e4m3)", "fma(posit16)", "fma(fp32)"), {},
         "levels: got fma(fp8_e4m3), fma(posit16), fma(fp32); expected accumulators of floats, whose unit roundoffs "
         "give the tolerances between; give one tolerance for each level below the last, and no sign_safe"),
    ],
)  # fmt: skip
def test_what_makes_no_ladder_is_refused(levels, options, message):
    with pytest.raises(ValueError) as caught:
        simulator.ladder([[1.0]], [[1.0]], levels, **options)
    assert str(caught.value) == message


def test_levels_without_a_unit_roundoff_take_tolerances_of_their_own():
    levels = ("fma(fp8_e4m3)", "fma(posit16)", "fma(fp32)")
    found = simulator.ladder([[0.5], [4.0]], [[1.0]], levels, (1.0, 3.0))
    assert found.level.tolist() == [[1], [0]]
