"""Noise element by element, in one pass of the engine: each function against its definition, bit for bit."""

import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from simulator.tracking import elements  # noqa: E402

SPECIAL = (0.0, -0.0, math.inf, -math.inf, math.nan, 1e-38, -1e-38, 1e-45, 3e38, 1.0, -1.0)


def values(random, shape, dtype, special=0.2):
    x = random.standard_normal(shape) * 10.0 ** random.integers(-6, 7, shape)
    x = np.where(random.random(shape) < special, random.choice(SPECIAL, shape), x)
    return torch.from_numpy(x).to(dtype)


def noises(random, shape, dtype):
    return values(random, shape, dtype).abs()


def same(found, expected):
    return (
        found.shape == expected.shape
        and torch.equal(found.isnan(), expected.isnan())
        and torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))
    )


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture
def random():
    return np.random.default_rng(0)


# As they lie in memory: in order, transposed, every second one, one row for all, and a single element.
def layouts(make):
    yield make((37, 65))
    yield make((65, 37)).t()
    yield make((37, 130))[:, ::2]
    yield make((1, 65)).expand(37, 65)
    yield make((1, 1))
    yield make((3000,))


def test_weighted(random, dtype):
    tiny = torch.finfo(dtype).tiny
    for x in layouts(lambda shape: values(random, shape, dtype)):
        for noise in (None, noises(random, x.shape, dtype), noises(random, (1,) * x.dim(), dtype).expand(x.shape)):
            factor = 2.0**-20
            own = torch.where(x == 0, 0.0, (x.abs() * factor).clamp(min=tiny))
            assert same(elements.weighted(x, noise, factor), own if noise is None else noise + own)


def test_what_is_so_small_that_its_share_would_vanish_counts_as_the_smallest_normal(dtype):
    tiny = torch.finfo(dtype).tiny
    found = elements.weighted(torch.tensor([tiny, -tiny, 0.0], dtype=dtype), None, 2.0**-60)
    assert found.tolist() == [tiny, tiny, 0.0]


def test_grow(random, dtype):
    for x in layouts(lambda shape: values(random, shape, dtype)):
        x = x.clone(memory_format=torch.preserve_format)
        expected = x * 1.0009765625 + 2.0**-100
        assert elements.grow(x, 1.0009765625, 2.0**-100) is x and same(x, expected)
    wide = torch.ones(4, 10, dtype=dtype)
    elements.grow(wide[:, ::2], 2.0, 1.0)  # between others, which stay
    assert wide[:, ::2].eq(3.0).all() and wide[:, 1::2].eq(1.0).all()


def test_kept(random, dtype):
    for x in layouts(lambda shape: values(random, shape, dtype)):
        noise = noises(random, x.shape, dtype)
        expected = torch.where(x + noise <= 0, 0.0, noise)
        assert same(elements.kept(x, noise), expected)
    assert elements.kept(torch.tensor([math.nan]), torch.tensor([1.0])).tolist() == [1.0]


@pytest.mark.parametrize("exact", [False, True])
def test_gated(random, dtype, exact):
    within, growth = 1.0 - 2.0**-20, 1.0 + 2.0**-16
    for g in layouts(lambda shape: values(random, shape, dtype)):
        x, noise_x = values(random, g.shape, dtype), noises(random, g.shape, dtype)
        noise_g = None if exact else noises(random, g.shape, dtype)
        found, undecided = elements.gated(g, noise_g, x, noise_x, within, growth)
        closed = x + noise_x <= 0
        jump = torch.where(closed | (noise_x - x * within <= 0), 0.0, g.abs())
        own = torch.zeros_like(g) if noise_g is None else torch.where(closed, 0.0, noise_g)
        assert same(found, torch.where(jump == 0, own, (own + jump) * growth))
        assert undecided == int((jump != 0).sum()) and (undecided > 0 or g.numel() == 1)


def test_multiple_added(random, dtype):
    of_y, of_z, of_noise, growth = 2.0**-20, 2.0**-24, 0.125, 1.0 + 2.0**-16
    tiny = torch.finfo(dtype).tiny
    for z in layouts(lambda shape: values(random, shape, dtype)):
        y = values(random, (1,) * z.dim(), dtype) if z.dim() == 2 else values(random, z.shape, dtype)
        kinds = (None, noises(random, z.shape, dtype)), (None, noises(random, y.shape, dtype))
        for noise_x, noise_y in itertools.product(*kinds):
            expected = y.abs() * of_y + z.abs() * of_z + torch.where(y == 0, 0.0, tiny).to(dtype)
            if noise_x is not None:
                expected = expected + noise_x
            if noise_y is not None:
                expected = expected + (noise_y + torch.where(noise_y == 0, 0.0, tiny).to(dtype)) * of_noise
            args = of_y, of_z, of_noise, growth
            assert same(elements.multiple_added(z, y, noise_x, noise_y, *args), expected * growth)


@pytest.mark.parametrize("shapes", [((5, 7), (7, 19)), ((4, 1), (1, 8)), ((3, 0), (0, 2)), ((2, 3, 6, 5), (3, 5, 9))])
@pytest.mark.parametrize("special", [0.0, 0.05])
def test_max_product(random, dtype, shapes, special):
    a, b = (values(random, shape, dtype, special).abs() for shape in shapes)
    products = a[..., None] * b[..., None, :, :]
    expected = products.amax(-2) if a.shape[-1] else torch.zeros(3, 2, dtype=dtype)
    assert same(elements.max_product(a, b), expected)
    assert same(elements.max_product(a.mT.contiguous().mT, b), expected)


# Kernel, stride, padding and dilation of each axis.
POOLS = [
    [(2, 2, 0, 1), (2, 2, 0, 1)],
    [(3, 2, 1, 1), (2, 1, 1, 1)],
    [(2, 3, 1, 2), (3, 1, 0, 2)],
    [(1, 1, 0, 1), (4, 4, 2, 1)],
    [(2, 2, 0, 1), (2, 2, 0, 1), (2, 2, 0, 1)],
    [(3, 2, 1, 1), (1, 1, 0, 1), (2, 2, 1, 1)],
]


def windows_of(shape, pool):
    """Yield the place of each result and those of the elements in its window."""
    sizes = [(n + 2 * p - (k - 1) * d - 1) // s + 1 for n, (k, s, p, d) in zip(shape[-len(pool) :], pool, strict=True)]
    for lead in itertools.product(*map(range, shape[: -len(pool)])):
        for at in itertools.product(*map(range, sizes)):
            axes = [
                [i for i in (a * s - p + j * d for j in range(k)) if 0 <= i < n]
                for a, n, (k, s, p, d) in zip(at, shape[-len(pool) :], pool, strict=True)
            ]
            yield (*lead, *at), [(*lead, *place) for place in itertools.product(*axes)]


@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("special", [0.0, 0.1])
def test_windows(random, dtype, pool, special):
    shape = (2, 3, *((7, 9, 6)[: len(pool)]))
    x = values(random, shape, dtype, special).round() if not special else values(random, shape, dtype, special)
    noise = torch.where(torch.from_numpy(random.random(shape) < 0.5), 0.0, noises(random, shape, dtype) * 1e-3)
    listed = list(windows_of(shape, pool))
    out = torch.Size(max(at[i] for at, _ in listed) + 1 for i in range(len(shape)))
    jump = values(random, out, dtype, 0.0).abs()
    largest, open_ = torch.empty(out, dtype=dtype), torch.empty(out, dtype=dtype)
    spread, touched = torch.ones(shape, dtype=dtype), set()
    growth = 1.0 + 2.0**-16
    for at, inside in listed:
        own, off = [float(x[i]) for i in inside], [float(noise[i]) for i in inside]
        most = math.nan if any(map(math.isnan, off)) else max(off, default=-math.inf)
        largest[at] = most
        first, second = ([*sorted(own, reverse=True), -math.inf, -math.inf])[:2]
        scale = torch.tensor(most, dtype=dtype) * (2.0 + 2.0**-18)
        reach = math.nan if any(map(math.isnan, own)) else float(scale - (torch.tensor(first, dtype=dtype) - second))
        closed = most <= 0 or reach <= -torch.finfo(dtype).tiny
        open_[at] = 0.0 if closed else jump[at]
        if open_[at] != 0:
            for i in inside:
                spread[i] = (spread[i] + jump[at]) * growth
            touched.update(inside)
    found = elements.Windows(x, out, pool)
    assert same(found.largest(noise), largest)
    undecided, count = found.undecided(x, noise, jump)
    assert same(undecided, open_) and count == int((open_ != 0).sum()) and 0 < count < out.numel()
    to = torch.ones(shape, dtype=dtype)
    assert found.spread(undecided, to, growth) == len(touched)
    assert torch.equal(to, spread)


# Wider than the blocks in which the engine takes windows, and higher; the last row and column are in no window.
@pytest.mark.parametrize("shape", [(2, 5, 2103), (3, 811, 7), (1, 3, 2050), (4, 28, 28)])
@pytest.mark.parametrize("special", [0.0, 0.05])
def test_quarters_in_blocks(random, dtype, shape, special):
    x = values(random, shape, dtype, special)
    noise = torch.where(torch.from_numpy(random.random(shape) < 0.5), 0.0, noises(random, shape, dtype) * 1e-3)
    each_x, each_noise = (part.unfold(-2, 2, 2).unfold(-2, 2, 2).flatten(-2) for part in (x, noise))
    jump = values(random, each_x.shape[:-1], dtype, 0.0).abs()
    largest, second = each_x.topk(2).values.unbind(-1)
    most = each_noise.amax(-1)
    reach = most * (2.0 + 2.0**-18) - (largest - second)
    open_ = ~(reach <= -torch.finfo(dtype).tiny) & (most != 0)
    unordered = each_x.isnan().any(-1) & (most != 0)
    expected = torch.where(open_ | unordered, jump, 0.0)
    pooled = elements.Windows(x, jump.shape, [(2, 2, 0, 1)] * 2)
    found, count = pooled.undecided(x, noise, jump)
    assert torch.equal(found, expected) and count == int((expected != 0).sum()) and 0 < count < found.numel()
    assert same(pooled.largest(x), each_x.amax(-1))
