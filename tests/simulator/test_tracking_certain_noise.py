"""The certain-noise number: the rules of arXiv 2509.24607 in whole numbers, with the logarithm set right."""

import math

import pytest
import torch

import simulator

DTYPES = (torch.float32, torch.float64)
PRECISION = {torch.float32: 24, torch.float64: 53}


def exponent(x):
    """floor(log2 |x|), exactly."""
    return math.frexp(x)[1] - 1


def clipped(bits, dtype):
    return min(max(bits, 0), PRECISION[dtype])


def operands(dtype, count, seed, exponents=(-8, 9)):
    """Values, and how many of their bits are right."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(count, generator=g, dtype=dtype)
    x = x * 2.0 ** torch.randint(*exponents, (count,), generator=g)
    return x, torch.randint(0, PRECISION[dtype] + 1, (count,), generator=g)


def claimed(run, *given):
    """The bits that are claimed of the results of a program, given its operands and their bits."""
    with simulator.track(None, numbers=("certain_noise",)) as bits:
        for x, p in given:
            bits.declare(x, bits=p)
        z = run(*(x for x, _ in given))
    return z, bits.of(z).certain_noise


SCALAR = {
    "add": (lambda x, y: x + y, lambda x, y, z, p, q: exponent(z) - max(exponent(x) - p, exponent(y) - q)),
    "sub": (lambda x, y: x - y, lambda x, y, z, p, q: exponent(z) - max(exponent(x) - p, exponent(y) - q)),
    "mul": (
        lambda x, y: x * y,
        lambda x, y, z, p, q: min(p, q) + exponent(z) - exponent(x) - exponent(y) if min(p, q) else 0,
    ),
    "div": (
        lambda x, y: x / y,
        lambda x, y, z, p, q: min(p, q) + exponent(z) - exponent(x) + exponent(y) if min(p, q) else 0,
    ),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SCALAR)
def test_arithmetic_has_the_bits_of_the_rules(name, dtype):
    run, rule = SCALAR[name]
    (x, p), (y, q) = operands(dtype, 20000, 1), operands(dtype, 20000, 2)
    if name in ("add", "sub"):
        y[:5000] = x[:5000] * (1 + torch.randn(5000).to(dtype) * 2.0**-12)  # cancellation
    z, found = claimed(run, (x, p), (y, q))
    columns = zip(x.tolist(), y.tolist(), z.tolist(), p.tolist(), q.tolist(), found.tolist(), strict=True)
    wrong = [
        (a, b, c, i, j, k)
        for a, b, c, i, j, k in columns
        if c != 0 and k != clipped(rule(a, b, c, i, j), dtype)
    ]  # fmt: skip
    assert not wrong, f"{len(wrong)} of {len(x)}: {wrong[:3]}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_noise_of_its_terms_is_that_of_a_sum(dtype):
    x, p = operands(dtype, 300 * 40, 3)
    x, p = x.view(300, 40), p.view(300, 40)
    z, found = claimed(lambda v: v.sum(1), (x, p))
    for row, bits, total, k in zip(x.tolist(), p.tolist(), z.tolist(), found.tolist(), strict=True):
        assert k == clipped(exponent(total) - max(exponent(v) - b for v, b in zip(row, bits, strict=True)), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [((7, 9), (9, 5)), ((2, 7, 9), (2, 9, 5))])
def test_the_noisiest_product_is_that_of_a_product_of_matrices(shape, dtype):
    (a, p), (b, q) = (operands(dtype, math.prod(s), 4 + i) for i, s in enumerate(shape))
    (a, p), (b, q) = ((v.view(s), n.view(s)) for (v, n), s in zip(((a, p), (b, q)), shape, strict=True))
    z, found = claimed(torch.matmul, (a, p), (b, q))
    for at in torch.cartesian_prod(*(torch.arange(n) for n in z.shape)).tolist():
        *batch, m, n = at
        rows, columns = a[tuple(batch)][m], b[tuple(batch)][:, n]
        known, other = p[tuple(batch)][m], q[tuple(batch)][:, n]
        noise = max(
            exponent(float(x)) + exponent(float(y)) - min(int(i), int(j))
            for x, y, i, j in zip(rows, columns, known, other, strict=True)
        )
        assert int(found[tuple(at)]) == clipped(exponent(float(z[tuple(at)])) - noise, dtype), at


CONDITIONS = {
    "exp": (torch.exp, lambda x: abs(x)),
    "sqrt": (torch.sqrt, lambda x: 0.5),
    "tanh": (torch.tanh, lambda x: 2 * abs(x) / abs(math.sinh(2 * x))),
    "log": (torch.log, lambda x: 1 / abs(math.log(x))),
    "log2": (torch.log2, lambda x: 1 / abs(math.log(x))),
    "log10": (torch.log10, lambda x: 1 / abs(math.log(x))),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CONDITIONS)
def test_a_function_loses_the_bits_of_its_condition(name, dtype):
    run, condition = CONDITIONS[name]
    x, p = operands(dtype, 4000, 6, (-6, 3))
    x = x.abs() if name in ("log", "log2", "log10", "sqrt") else x.clamp(-3, 3)  # beyond, 1 - tanh^2 is rounded away
    p = p.clamp(min=1)
    _, found = claimed(run, (x, p))
    for v, b, k in zip(x.tolist(), p.tolist(), found.tolist(), strict=True):
        c = math.log2(condition(v))
        # The condition is computed too: next to a power of two both neighbours are right.
        right = {clipped(b - math.floor(c + d), dtype) for d in (-1e-4, 0.0, 1e-4)}
        assert k in right, (v, b, k, right)


def test_the_logarithm_loses_bits_next_to_one():
    _, found = claimed(torch.log, (torch.tensor(1.0001, dtype=torch.float64), 30))
    assert int(found) in (16, 17)  # 44 by the inverse of the condition


def test_where_the_result_is_zero_noise_is_absolute():
    x, one = torch.tensor([1.5, -3.0], dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    with simulator.track(None, numbers=("certain_noise",)) as bits:
        for v in (x, one):
            bits.declare(v, bits=20)
        copy = x.clone()
        same, equal, ratio, nothing, log = x - x, x - copy, x / x, x * 0, torch.log(one)
        square = x * x
        back = log + 1.0

    def noise(z):
        return bits.of(z).noise["certain_noise"]

    assert noise(same) is None
    assert noise(ratio) is None and bool((bits.of(ratio).certain_noise == 53).all())
    assert bits.of(nothing).certain_noise.tolist() == [53, 53]
    assert noise(equal).tolist() == [2.0**-20, 2.0**-19] and bits.of(equal).certain_noise.tolist() == [0, 0]
    assert noise(log).tolist() == pytest.approx([2.0**-20] * 2)
    assert bits.of(back).certain_noise.tolist() == [20, 20]
    assert bits.of(square).certain_noise.tolist() == [19, 19]


def test_the_larger_of_two_that_noise_does_not_tell_apart_has_the_fewer_bits():
    x, y = torch.tensor([1.0, 1.0], dtype=torch.float64), torch.tensor([1.0001, 2.0], dtype=torch.float64)
    with simulator.track(None, numbers=("certain_noise",)) as bits:
        bits.declare(x, bits=10)
        bits.declare(y, bits=30)
        z = torch.maximum(x, y)
        w = torch.stack([x, y]).amax(0)
    assert bits.of(z).certain_noise.tolist() == [10, 30]
    assert bits.of(w).certain_noise.tolist() == [10, 30]
