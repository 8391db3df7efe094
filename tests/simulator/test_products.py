"""Stacks of matrices, transposed views, alpha and beta: what matmul does beside one product."""

import numpy as np
import pytest

import formats
import simulator
from simulator.arithmetic import reference
from simulator.arithmetic.places import Place
from tests.oracles.bits import assert_same_bits
from tests.oracles.operands import structured

SEED = 800
STOCHASTIC = "fp8_e5m2/sr:5 -> fma(fp8_e5m2/sr:3) -> fp8_e4m3/sr:2"


def operands(shape_a, shape_b):
    rng = np.random.default_rng(SEED)
    return (formats.get("fp8_e4m3").quantize(rng.standard_normal(shape)) for shape in (shape_a, shape_b))


@pytest.mark.parametrize("spec", ["fma(fp16)", "tree(bf16)", "aligned(4, 8, fp16)"])
def test_a_stack_is_its_products_one_by_one_with_axes_broadcast(spec):
    a, b = operands((2, 1, 3, 5), (4, 5, 6))
    c = np.random.default_rng(SEED).standard_normal((4, 1, 6))
    y = simulator.matmul(a, b, spec, c=c)
    assert y.shape == (2, 4, 3, 6)
    for i, j in np.ndindex(2, 4):
        assert_same_bits(y[i, j], simulator.matmul(a[i, 0], b[j], spec, c=c[j]))


def test_a_vector_of_matrices_against_one_matrix_and_empty_stacks():
    a, b = operands((3, 2, 5), (5, 4))
    assert_same_bits(simulator.matmul(a, b, "fma(fp16)")[1], simulator.matmul(a[1], b, "fma(fp16)"))
    assert simulator.matmul(a[:0], b, "fma(fp16)").shape == (0, 2, 4)


def test_transposed_views_are_the_matrices_they_show():
    a, b = operands((7, 4), (9, 7))
    got = simulator.matmul(a.T, b.T, "fma(bf16)")
    assert_same_bits(got, simulator.matmul(a.T.copy(), b.T.copy(), "fma(bf16)"))


@pytest.mark.parametrize("spec", ["fma(fp16/sr:4)", "tree(fp8_e5m2/sr:4)", "late(fma(fp16)) -> fp8_e4m3/sr:2"])
def test_the_addends_of_inner_products_take_the_random_words_of_their_outputs(spec):
    a, b = operands((9, 5), (9, 5))
    c = np.random.default_rng(SEED).standard_normal(9)
    expected = [
        reference.dot(simulator.mac(spec), a[i].tolist(), b[i].tolist(), float(c[i]), Place(i, seed=SEED))[0]
        for i in range(9)
    ]
    assert_same_bits(simulator.dot(a, b, spec, c=c, seed=SEED), expected)


def test_random_words_of_a_stack_and_of_parts_are_those_of_the_whole():
    a, b = operands((3, 4, 6), (6, 5))
    whole = simulator.matmul(a.reshape(12, 6), b, STOCHASTIC, seed=3, step=2, site=9)
    assert_same_bits(simulator.matmul(a, b, STOCHASTIC, seed=3, step=2, site=9), whole.reshape(3, 4, 5))
    part = simulator.matmul(a[1], b, STOCHASTIC, seed=3, step=2, site=9, first_row=4)
    assert_same_bits(part, whole[4:8])
    for other in ({"seed": 4}, {"step": 1}, {"site": 8}):
        assert not np.array_equal(
            whole, simulator.matmul(a.reshape(12, 6), b, STOCHASTIC, **{"seed": 3, "step": 2, "site": 9} | other)
        )


def test_each_matrix_of_a_stack_is_rounded_with_random_words_of_its_own():
    spec = simulator.mac(STOCHASTIC)
    a, b = operands((2, 1, 4, 6), (3, 6, 5))
    stack = simulator.matmul(a, b, spec, seed=3, site=9)
    for row, (i, j) in enumerate(np.ndindex(2, 3)):
        part = simulator.matmul(a[i, 0], b[j], spec, seed=3, site=9, first_row=row * 4, matrix=j)
        assert_same_bits(part, stack[i, j])
        place = Place(row * 4 + 1, 2, 5, seed=3, site=9, matrix=j)
        expected, _ = reference.dot(spec, a[i, 0, 1].tolist(), b[j, :, 2].tolist(), place=place)
        assert part[1, 2] == expected
    same = simulator.matmul(np.eye(6), np.stack([b[0]] * 3), "fp8_e4m3*fp8_e5m2/sr:5 -> fma(fp32)")
    assert not np.array_equal(same[0], same[1])


def epilogue(spec, a, b, c, alpha, beta):
    """alpha and beta by the definition of single roundings."""
    mac = simulator.mac(spec)
    state, out = simulator.mac(spec.split(" -> ")[0]).result, mac.result
    results = np.empty((a.shape[0], b.shape[1]))
    for i, j in np.ndindex(*results.shape):
        total, _ = reference.dot(simulator.mac(spec.split(" -> ")[0]), a[i].tolist(), b[:, j].tolist())
        first = reference.rounded_sum(state, [(total, alpha)])
        addend = reference.rounded_sum(state, [(reference.rounded_sum(state, [(float(c[i, j]),)]), beta)])
        results[i, j] = reference.rounded_sum(out, [(first,), (addend,)])
    return results


@pytest.mark.parametrize("spec", ["fma(fp16)", "seq(fp16) -> fp8_e4m3/sat", "tree(bf16)", "fma(posit16)"])
@pytest.mark.parametrize(("alpha", "beta"), [(0.1, 1.0), (1.0, -0.5), (2.0**-20, 3.0), (0.0, 0.0)])
def test_alpha_and_beta_are_one_rounding_each(spec, alpha, beta):
    a, b = structured("random", "fp8_e4m3", "fp16", 3, 4, 9, SEED)
    c = np.random.default_rng(SEED).standard_normal((3, 4))
    got = simulator.matmul(a, b, spec, c=c, alpha=alpha, beta=beta)
    assert_same_bits(got, epilogue(spec, a, b, c, alpha, beta))


def test_alpha_without_an_addend_and_ones_for_nothing():
    a, b = structured("random", "fp8_e4m3", "fp16", 3, 4, 9, SEED)
    plain = simulator.matmul(a, b, "fma(fp32)")
    assert_same_bits(simulator.matmul(a, b, "fma(fp32)", alpha=0.5), plain * np.float32(0.5))
    assert_same_bits(simulator.matmul(a, b, "fma(fp32)", alpha=1, beta=1), plain)
    _, stats = simulator.matmul(a, b, "fma(fp16)", alpha=2.0**17, stats=True)
    assert stats.overflowed.all()
    assert np.array_equal(stats.exact, 2.0**17 * (a.astype(float) @ b.astype(float)))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 3, 4), (5, 6)), "expected (..., M, K) and (..., K, N)"),
        (((2, 3, 4), (3, 4, 6)), "leading axes of a (2, 3, 4) and b (3, 4, 6) do not broadcast"),
        (((4,), (4, 2)), "expected (..., M, K) and (..., K, N)"),
    ],
)
def test_stacks_that_do_not_fit_are_refused(shapes, message):
    with pytest.raises(ValueError) as caught:
        simulator.matmul(np.ones(shapes[0]), np.ones(shapes[1]), "fma(fp16)")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": np.inf}, "alpha: got inf; expected a finite number"),
        ({"alpha": 10**400}, f"alpha: got {10**400}; expected a finite number"),
        ({"alpha": 2**60 + 1}, f"alpha: got {2**60 + 1}; expected a number that float64 holds; give the float"),
        (
            {"beta": np.int64(2**60 + 1)},
            "beta: got np.int64(1152921504606846977); expected a number that float64 holds",
        ),
        ({"stats": np.ones(3)}, 'stats: got array([1., 1., 1.]); expected False, True or "overflows"'),
        ({"stats": np.True_}, 'stats: got np.True_; expected False, True or "overflows"'),
        ({"threads": 0}, "threads: got 0; expected a whole number from 1"),
        ({"beta": "2"}, "beta: got '2'; expected a finite number"),
        ({"seed": -1}, "seed: got -1"),
        ({"site": 1 << 24}, "site: got 16777216; expected a whole number from 0 to 2**24 - 1"),
        ({"first_row": -2}, "first_row: got -2"),
        ({"c": np.ones((4, 4)), "alpha": 2.0}, "c (4, 4) does not broadcast to the output's shape (2, 2)"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError) as caught:
        simulator.matmul(np.ones((2, 3)), np.ones((3, 2)), "fma(fp16)", **options)
    assert message in str(caught.value)


def test_an_addend_that_fits_no_inner_products_is_refused():
    with pytest.raises(ValueError) as caught:
        simulator.dot(np.ones((2, 3)), np.ones((2, 3)), "fma(fp16)", c=np.ones(5))
    assert str(caught.value) == "c (5,) does not broadcast to the output's shape (2,)"


def test_numbers_of_numpys_are_numbers():
    a, b = np.ones((2, 3)), np.ones((3, 2))
    expected = simulator.matmul(a, b, "fma(fp16)", alpha=2.0, threads=1)
    assert_same_bits(simulator.matmul(a, b, "fma(fp16)", alpha=np.int64(2), threads=np.int64(1)), expected)
