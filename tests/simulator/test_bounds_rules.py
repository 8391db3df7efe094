"""Every rule of the bounds alone: whatever the roundings, the computed values of one operation keep to them.

Inputs are points and boxes, computed inputs lie at the corners of what their bounds allow, and results are compared in
long doubles.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import formats  # noqa: E402  (needs torch)
import simulator  # noqa: E402
from simulator.bounds.analysis import forward  # noqa: E402
from simulator.bounds.bounded import Bounded  # noqa: E402
from simulator.bounds.graph import record  # noqa: E402
from simulator.bounds.roundings import Rounding  # noqa: E402
from simulator.bounds.units import of_mac  # noqa: E402
from tests.oracles.few_bits import FewBits, wide  # noqa: E402
from tests.oracles.networks import Function  # noqa: E402

BITS = (3, 5, 8, 11, 16, 24)
functional = torch.nn.functional


@dataclass(frozen=True)
class Case:
    """An operation.

    Args:
        f: on torch's tensors (samples, *shape). exact, computed: the same on long doubles, the latter in an arithmetic.
        shape: of a sample. size: (least, largest) magnitude of inputs, as powers of ten.
        positive: whether they are, but for some boxes. tight: least share of a bound that is reached.
        mac: of a product.
    """

    f: Callable
    exact: Callable
    computed: Callable
    shape: tuple = ()
    size: tuple = (-3.0, 3.0)
    positive: bool = False
    tight: float = 0.3
    mac: str | None = None


def function(f, exact, **settings):
    """A function of one value that the library has."""
    return Case(f, exact, lambda a, x: a.f(exact(x)), **settings)


def pair(f, exact, **settings):
    """An operation on two values that is rounded once."""
    return Case(
        lambda x: f(x[:, 0], x[:, 1]), lambda x: exact(x[:, 0], x[:, 1]),
        lambda a, x: a.r(exact(x[:, 0], x[:, 1])), (2,), **settings,
    )  # fmt: skip


def picks(f, exact, **settings):
    """An operation that is not rounded."""
    return Case(f, exact, lambda a, x: exact(x), tight=0.9, **settings)


def product(f, operands, addend=0.0, fused=False, **settings):
    """Inner products in order.

    Args:
        operands: (..., K) and (..., K) of an input.
    """

    def exact(x):
        a, b = operands(x)
        return (a * b).sum(-1) + addend

    def computed(a, x):
        return a.dot(*operands(x), addend, fused)

    return Case(f, exact, computed, tight=0.05, mac="fma(fp32{})" if fused else "seq(fp32{})", **settings)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def erf(x):
    rest = np.vectorize(math.erfc, otypes=[float])(np.abs(x.astype(float)))
    near = np.vectorize(math.erf, otypes=[float])(x.astype(float))
    return np.where(np.abs(x) > 0.5, np.sign(x) * (1 - wide(rest)), wide(near))


def gelu(x):
    halves = np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)), otypes=[float])
    return x * halves(x.astype(float))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_computed(a, x):
    e = a.f(np.exp(a.r(x - x.max(-1, keepdims=True))))
    return a.r(e / a.sum(e, -1))


def log_softmax_computed(a, x):
    t = a.r(x - x.max(-1, keepdims=True))
    return a.r(t - a.f(np.log(a.sum(a.f(np.exp(t)), -1))))


def mean_computed(a, x):
    n = wide(x.shape[-1])
    total = a.sum(x, -1)[..., 0]
    if np.frexp(n)[0] == 0.5:
        return total / n  # exact
    return a.r(total / n) if a.rng.integers(2) else a.r(total * a.r(1 / n))


def windows(x, size=2, step=2):
    """Windows (samples, rows, columns, places) of images (samples, 1, H, W)."""
    found = np.lib.stride_tricks.sliding_window_view(x[:, 0], (size, size), (1, 2))[:, ::step, ::step]
    return found.reshape(*found.shape[:3], -1)


def adaptive(x, pooled):
    """A pool (samples, 1, 5, 6) -> (samples, 1, 3, 3), windows of which have 2 x 2 or 3 x 2 values."""
    rows, columns = [(0, 2), (1, 4), (3, 5)], [(0, 2), (2, 4), (4, 6)]
    parts = [pooled(x[:, 0, r[0] : r[1], c[0] : c[1]].reshape(len(x), -1)) for r in rows for c in columns]
    return np.stack(parts, -1).reshape(len(x), 1, 3, 3)


_EPS = 1e-5
_G, _B = np.float32([0.7, -1.3, 2.0, 0.01, 1.0]), np.float32([0.3, 0.0, -1.7, 5.0, 0.1])
_MEAN, _VAR = np.float32([0.3, -2.0, 0.0, 7.0, 0.1]), np.float32([0.5, 3.0, 0.01, 1.0, 0.0])


def layer_norm(x):
    deviation = x - x.mean(-1, keepdims=True)
    return deviation / np.sqrt(np.square(deviation).mean(-1, keepdims=True) + wide(_EPS)) * _G + _B


def layer_norm_computed(a, x):
    n = wide(x.shape[-1])
    mean = a.r(a.sum(x, -1) / n)
    deviation = a.r(x - mean)
    inverse = a.r(1 / a.r(np.sqrt(a.r(a.r(a.sum(a.r(np.square(deviation)), -1) / n) + wide(_EPS)))))
    before = a.rng.integers(2)
    y = a.r(deviation * inverse) if before else a.r(a.r(x * inverse) - a.r(mean * inverse))
    return a.r(a.r(y * _G) + _B)


def batch_norm(x):
    return (x - _MEAN) / np.sqrt(wide(_VAR) + wide(_EPS)) * _G + _B


def batch_norm_computed(a, x):
    g = a.r(_G * a.r(1 / a.r(np.sqrt(a.r(wide(_VAR) + wide(_EPS))))))
    return a.r(a.r(x * g) + a.r(_B - a.r(_MEAN * g))) if a.rng.integers(2) else a.r(a.r(a.r(x - _MEAN) * g) + _B)


def padded(x, value):
    return np.pad(x, ((0, 0), (1, 0)), constant_values=value)


def tensors(*arrays):
    return [torch.from_numpy(x).double() for x in arrays]


_IMAGE = (1, 4, 4)
_WEIGHTS = np.random.default_rng(4).normal(size=(3, 9)) * np.float64([1.0, 1e-3, 30.0])[:, None]
_BIAS = np.float64([0.1, -3.0, 0.0])


def linear(x):
    return x[:, None], wide(_WEIGHTS)


def convolution(x):
    # (samples, outputs, rows, columns, K)
    return windows(x, 3, 1)[:, None], wide(_WEIGHTS)[:, None, None]


def matrices(x):
    return x[:, 0][:, :, None], x[:, 1].swapaxes(1, 2)[:, None]


CASES = {
    "add": pair(torch.add, np.add), "sub": pair(torch.sub, np.subtract), "mul": pair(torch.mul, np.multiply),
    "div": pair(torch.div, np.divide), "maximum": picks(lambda x: x[:, 0].maximum(x[:, 1]), lambda x: x.max(-1),
    shape=(2,)), "minimum": picks(lambda x: x[:, 0].minimum(x[:, 1]), lambda x: x.min(-1), shape=(2,)),
    "square": Case(lambda x: x * x, np.square, lambda a, x: a.r(np.square(x))),
    "times_tenth": Case(lambda x: x * 0.1, lambda x: x * wide(0.1), lambda a, x: a.r(x * a.to_format(wide(0.1)))),
    "plus_tenth": Case(lambda x: 0.1 + x, lambda x: x + wide(0.1), lambda a, x: a.r(x + a.to_format(wide(0.1)))),
    "over_three": Case(lambda x: x / 3, lambda x: x / 3, lambda a, x: a.r(x / 3)),
    "times_eighth": picks(lambda x: x * 0.125, lambda x: x / 8),
    "sqrt": Case(torch.sqrt, np.sqrt, lambda a, x: a.r(np.sqrt(x)), positive=True),
    "log": function(torch.log, np.log, positive=True), "exp": function(torch.exp, np.exp, size=(-3.0, 1.5)),
    "sigmoid": function(torch.sigmoid, sigmoid, size=(-3.0, 1.5)),
    "tanh": function(torch.tanh, np.tanh, size=(-3.0, 1.3)),
    "erf": function(torch.erf, erf, size=(-3.0, 1.0), tight=0.1),
    "gelu": function(functional.gelu, gelu, size=(-3.0, 0.75), tight=0.1),
    "silu": function(functional.silu, lambda x: x * sigmoid(x), size=(-3.0, 1.5)),
    "relu": picks(torch.relu, lambda x: np.maximum(x, 0)), "abs": picks(torch.abs, np.abs),
    "neg": picks(torch.neg, np.negative),
    "leaky_relu": Case(
        lambda x: functional.leaky_relu(x, 0.1), lambda x: np.where(x > 0, x, x * wide(0.1)),
        lambda a, x: np.where(x > 0, x, a.r(x * a.to_format(wide(0.1)))),
    ),
    "clamp": Case(
        lambda x: x.clamp(-0.7, 6), lambda x: x.clip(wide(-0.7), 6), lambda a, x: x.clip(a.to_format(wide(-0.7)), 6)
    ),
    "relu6": picks(functional.relu6, lambda x: x.clip(0, 6)),
    "pad": Case(
        lambda x: functional.pad(x, (1, 0), value=0.1), lambda x: padded(x, wide(0.1)),
        lambda a, x: padded(x, a.to_format(wide(0.1))), (3,),
    ),
    "max_pool": picks(lambda x: functional.max_pool2d(x, 2, 2), lambda x: windows(x).max(-1)[:, None], shape=_IMAGE),
    "mean_pool": Case(
        lambda x: functional.avg_pool2d(x, 3, 1), lambda x: windows(x, 3, 1).mean(-1)[:, None],
        lambda a, x: mean_computed(a, windows(x, 3, 1))[:, None], _IMAGE, tight=0.1,
    ),
    "mean_pool_by_three": Case(
        lambda x: functional.avg_pool2d(x, 2, 2, divisor_override=3), lambda x: windows(x).sum(-1)[:, None] / 3,
        lambda a, x: a.r(a.sum(windows(x), -1)[..., 0] / 3)[:, None], _IMAGE, tight=0.1,
    ),
    "adaptive_pool": Case(
        lambda x: functional.adaptive_avg_pool2d(x, 3), lambda x: adaptive(x, lambda part: part.mean(-1)),
        lambda a, x: adaptive(x, lambda part: mean_computed(a, part)), (1, 5, 6), tight=0.1,
    ),
    "sum": Case(lambda x: x.sum(1), lambda x: x.sum(-1), lambda a, x: a.sum(x, -1)[..., 0], (7,), tight=0.1),
    "mean": Case(lambda x: x.mean(1), lambda x: x.mean(-1), mean_computed, (10,), tight=0.1),
    "mean_of_four": Case(lambda x: x.mean(1), lambda x: x.mean(-1), mean_computed, (4,), tight=0.1),
    "softmax": Case(lambda x: x.softmax(1), softmax, softmax_computed, (7,), (-1.0, 1.5), tight=0.05),
    "softmax_of_many": Case(lambda x: x.softmax(1), softmax, softmax_computed, (31,), (-1.0, 0.5), tight=0.01),
    "log_softmax": Case(
        lambda x: x.log_softmax(1), lambda x: np.log(softmax(x)), log_softmax_computed, (7,), (-1.0, 1.0), tight=0.05
    ),
    "layer_norm": Case(
        lambda x: functional.layer_norm(x, (5,), *tensors(_G, _B), _EPS), layer_norm, layer_norm_computed, (5,),
        (-1.0, 1.0), tight=0.01,
    ),
    "batch_norm": Case(
        lambda x: functional.batch_norm(x, *tensors(_MEAN, _VAR, _G, _B), False, 0.1, _EPS), batch_norm,
        batch_norm_computed, (5,), tight=0.1,
    ),
    "linear": product(lambda x: functional.linear(x, *tensors(_WEIGHTS, _BIAS)), linear, _BIAS, shape=(9,)),
    "linear_without_bias": product(
        lambda x: functional.linear(x, *tensors(_WEIGHTS)), linear, shape=(9,), size=(-1.0, 1.0)
    ),
    "linear_fused": product(
        lambda x: functional.linear(x, *tensors(_WEIGHTS, _BIAS)), linear, _BIAS, True, shape=(9,)
    ),
    "convolution": product(
        lambda x: functional.conv2d(x, *tensors(_WEIGHTS.reshape(3, 1, 3, 3), _BIAS)), convolution,
        _BIAS[:, None, None], shape=_IMAGE,
    ),
    "convolution_fused": product(
        lambda x: functional.conv2d(x, *tensors(_WEIGHTS.reshape(3, 1, 3, 3))), convolution, fused=True, shape=_IMAGE
    ),
    "matrices": product(lambda x: torch.bmm(x[:, 0], x[:, 1]), matrices, shape=(2, 3, 3)),
}  # fmt: skip


def drawn(case, samples, u, rng):
    """Boxes of exact inputs, with bounds of computed ones: absolute ones, relative ones, or both."""
    shape = (samples, *case.shape)
    one = (samples, *(1,) * len(case.shape))
    middle = 10.0 ** rng.uniform(*case.size, shape)
    same = 10.0 ** rng.uniform(*case.size, one)  # all of one size
    middle = np.where(rng.random(one) < 0.5, middle, same * rng.uniform(0.5, 1.5, shape))
    if not case.positive:
        middle *= rng.choice([-1.0, 1.0], shape)
    if case.shape == (2,):  # both almost the same, or almost opposite
        almost = middle[:, :1] * rng.choice([-1.0, 1.0], (samples, 1)) * (1 + u * rng.normal(size=(samples, 1)))
        middle[:, 1:] = np.where(rng.random((samples, 1)) < 0.3, almost, middle[:, 1:])
    width = np.abs(middle) * rng.choice([0.0, 0.0, 1e-6, 0.1, 2.0], one)
    lo, hi = middle - width * rng.random(shape), middle + width * rng.random(shape)
    size = np.maximum(np.abs(lo), np.abs(hi))
    d = size * u * rng.choice([0.0, 0.5, 1.0, 3.0, 100.0], one)
    e = np.broadcast_to(u * rng.choice([0.5, 2.0, 30.0], one), shape).copy()
    d, e = np.where(rng.random(one) < 0.3, np.inf, d), np.where(rng.random(one) < 0.5, np.inf, e)
    d = np.where(np.isinf(d) & np.isinf(e), 0.0, d)
    return Bounded(*map(torch.from_numpy, (lo, hi, d, e)))


def points(x, rng):
    """Exact inputs in a box: its ends, zero where that is within, and others."""
    lo, hi = wide(x.lo.numpy()), wide(x.hi.numpy())
    inner = lo + (hi - lo) * wide(rng.random(lo.shape))
    yield lo
    yield hi
    yield np.clip(inner, lo, hi)
    yield np.clip(wide(0), lo, hi)


def corners(x, exact, rng):
    """Computed inputs as far off as they may be: all up, all down, one against the others, and at random."""
    allowed = np.minimum(wide(x.d.numpy()), wide(x.e.numpy()) * np.abs(exact), where=np.isfinite(x.e.numpy()),
                         out=wide(x.d.numpy()).copy())  # fmt: skip
    other = np.full(exact.shape, wide(-1))
    other.reshape(len(exact), -1)[:, 0] = 1
    # So that sums, rounded, are allowed too.
    allowed = (allowed * (1 - wide(2.0**-60)) - np.abs(exact) * wide(2.0**-62)).clip(0)
    for sign in (1, -1, other, wide(rng.choice([-1.0, 1.0], exact.shape)), wide(rng.uniform(-1, 1, exact.shape))):
        yield exact + sign * allowed


def unit_of(case, bits, nearest, c, running):
    rounding = Rounding(2.0 ** (-bits if nearest else 1 - bits), nearest=nearest)
    mac = None if case.mac is None else case.mac.format("" if nearest else "/rz")
    return replace(of_mac(mac, bits), vector=lambda path: rounding, library=c, running=running)


class Checked(NamedTuple):
    """The largest share of a bound that was reached, the share of finite bounds, and how many scalars were compared."""

    reached: float
    finite: float
    scalars: int


def check(case, bits, nearest, running, samples, seed):
    """Compare samples of a case with its bounds."""
    rng = np.random.default_rng([seed, bits, nearest])
    c = float(rng.integers(1, 3))
    u = 2.0 ** (-bits if nearest else 1 - bits)
    x = drawn(case, samples, u, rng)
    model = Function(case.f).eval()
    found = forward(record(model, x.lo), [x], unit_of(case, bits, nearest, c, running))
    z, local = found.output, wide(found.locals[found.graph.output].numpy())
    lo, hi, d, e = (wide(part.numpy()) for part in (z.lo, z.hi, z.d, z.e))
    reached, scalars = 0.0, 0
    with np.errstate(all="ignore"):
        for exact in points(x, rng):
            true = case.exact(exact)
            known = np.isfinite(true)  # of what has no value, such as the root of a negative one, nothing is said
            assert ((lo <= true) & (true <= hi))[known].all()
            for inputs in corners(x, exact, rng):
                there = case.exact(inputs)
                for how in ("real", "worst", "away"):
                    arithmetic = FewBits(bits, nearest, c, how, rng)
                    arithmetic.exact = true
                    computed = case.computed(arithmetic, inputs)
                    off = np.where(np.isnan(computed), np.inf, np.abs(computed - true))
                    given = np.where(np.isnan(computed), np.inf, np.abs(computed - there))
                    relative = np.where(np.isinf(e), np.inf, e * np.abs(true))
                    for error, bound in ((off, d), (off, relative), (given, local)):
                        # Where something is rounded, what long doubles lose is no violation; where nothing is, all is.
                        bound = bound + np.where(bound > 0, np.abs(true) * wide(2.0**-60), 0)
                        keeps = (error <= bound) | ~known
                        assert keeps.all(), worst(x, exact, inputs, computed, true, error, bound, keeps)
                    some = known & np.isfinite(d) & (d > 0)
                    reached = max(reached, float((off[some] / d[some]).max(initial=0)))
                    scalars += off.size
    return Checked(reached, float(torch.isfinite(z.d).double().mean()), scalars)


def worst(x, exact, inputs, computed, true, error, bound, keeps):
    """What the worst violation is of."""
    over = np.where(keeps, 0, np.nan_to_num(error / bound, nan=np.inf))
    at = np.unravel_index(over.argmax(), over.shape)[0]
    parts = {"lo": x.lo[at], "hi": x.hi[at], "d": x.d[at], "e": x.e[at], "exact": exact[at], "given": inputs[at],
             "computed": computed[at], "true": true[at], "error": error[at], "bound": bound[at]}  # fmt: skip
    return "\n".join(f"{name}: {part}" for name, part in parts.items())


def given(lo, hi=None, d=None, e=math.inf):
    """One bounded value, exact unless d or e is given."""
    d = (0.0 if math.isinf(e) else math.inf) if d is None else d
    ends = (torch.tensor([float(end)], dtype=torch.float64) for end in (lo, lo if hi is None else hi, d, e))
    return Bounded(*ends)


def result(f, x, bits=11, nearest=True, c=1.0):
    """Bounds of an operation on a bounded value, or on a row of them."""
    return forward(record(Function(f).eval(), x.lo), [x], unit_of(CASES["add"], bits, nearest, c, False)).output


def test_relative_errors_above_one_say_nothing_of_tanh():
    assert result(torch.tanh, given(1e-3, e=1.5)).e >= 1.5  # 1.5 (1 + u) + u would need signs to stay
    y = result(torch.tanh, given(1e-3, e=1.0))
    assert 1.0 <= y.e < 1.01 and y.d >= math.tanh(1e-3)  # it may be computed as 0


def test_roots_of_what_is_off_by_all_of_itself_truncated():
    y = result(torch.sqrt, given(1.0, e=1.0), nearest=False)
    assert math.sqrt(2) - 1 <= y.e < math.inf and y.d >= 1  # of 2, and of 0
    assert math.isinf(result(torch.sqrt, given(1.0, e=1.001)).d)


def test_sigmoids_of_what_is_far_off_in_a_library_off_by_two_u():
    for bits in (3, 8):
        u = 2.0**-bits
        y = result(torch.sigmoid, given(-3.0, d=4.0), bits, c=2.0)
        exact, most = (float(sigmoid(wide(x))) for x in (-3.0, 1.0))
        assert most * (1 + 2 * u) - exact <= y.d and most * (1 + 2 * u) - exact <= y.e * exact


def test_leaky_relu_across_zero():
    y = result(lambda x: functional.leaky_relu(x, 0.75), given(0.01, d=1.0), 3)
    assert 0.01 + 0.99 * 0.75 * (1 + 2.0**-3) <= y.d < math.inf  # of -0.99, the product rounded
    assert result(lambda x: functional.leaky_relu(x, 3.0), given(-0.5, d=1.0), 3).d >= 3 * (1 - 2.0**-3)


@pytest.mark.parametrize(("n", "finite"), [(32, True), (33, False)])
def test_softmax_where_the_sum_may_be_off_by_almost_all_of_itself(n, finite):
    x = Bounded.exactly(torch.zeros(1, n))
    y = result(lambda x: x.softmax(1), x, 5)
    assert bool(y.e.isfinite().all()) == finite  # (n - 1) u is 31/32, or 1
    assert not finite or bool((y.e >= 31).all())


@pytest.mark.parametrize(
    "f", [lambda x: torch.ones(1, dtype=torch.float64) / x, torch.sqrt, torch.log], ids=["reciprocal", "sqrt", "log"]
)
@pytest.mark.parametrize("x", [given(0.0, 1.0, 0.01), given(-0.001, 1.0, 0.01), given(0.5, d=0.6)])
def test_no_bound_where_zero_is_within(f, x):
    assert math.isinf(result(f, x).d)


def test_an_inactive_relu_that_may_be_computed_as_an_active_one():
    assert result(torch.relu, given(-0.01, d=0.02)).d >= 0.01
    assert result(torch.relu, given(-0.01, d=0.005)).d == 0


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_conversions_to_other_types(kind):
    name = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}[kind]
    rng = np.random.default_rng(9)
    lo = rng.choice([-1.0, 1.0], 2000) * 2.0 ** rng.uniform(-160, 128, 2000)
    lo[::2] = rng.normal(size=1000) * 2.0 ** rng.uniform(-26, 17, 1000)
    d = np.abs(lo) * rng.choice([0.0, 1e-8, 1e-3, 0.5], 2000)
    x = Bounded(*map(torch.from_numpy, (lo, lo, d)))
    y = forward(record(Function(lambda x: x.to(kind).to(torch.float32)).eval(), x.lo), [x], of_mac()).output
    for sign in (-1, 0, 1, rng.uniform(-1, 1, 2000)):
        computed = formats.get(name).quantize(lo + sign * d * (1 - 2.0**-50))
        assert (np.abs(computed - lo) <= y.d.numpy()).all()
    assert 0.2 < float(y.d.isfinite().double().mean()) < 1  # some overflow


def decides(x):
    return x if x.sum() > 0 else -x


def takes_a_number(x):
    return x * x.sum().item()


def writes_into_a_buffer(x):
    buffer = torch.zeros(x.shape[0], 3)
    buffer[:, :2] = x
    return x.sum(1, keepdim=True) + buffer


def writes_in_place_into_another(x):
    sums = torch.zeros(x.shape[0], 2)
    part = sums[:, :1]
    part += x[:, :1]
    return x + sums


REFUSED = {
    "decides": (decides, "a number or a decision is taken from values"),
    "takes_a_number": (takes_a_number, "a number or a decision is taken from values"),
    "writes_into_a_buffer": (writes_into_a_buffer, "copy_ writes into a part of a tensor"),
    "writes_in_place_into_another": (writes_in_place_into_another, "add_ writes into a part of a tensor"),
    "half": (lambda x: (x.half() * x.half()).float(), "mul computes in half precision"),
    "integers": (lambda x: x.to(torch.int32).float(), "a conversion to torch.int32"),
    "gelu_by_tanh": (lambda x: functional.gelu(x, approximate="tanh"), "gelu with the form with tanh"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_rule_is_sound_for_is_refused(name):
    f, message = REFUSED[name]
    x = torch.tensor([[1.5, -2.5]])
    with pytest.raises(simulator.InputError, match=message):
        forward(record(Function(f).eval(), x), [Bounded.exactly(x)], of_mac())


def float32s(count, rng, size):
    """Numbers of float32 of all sizes, those where functions end among them."""
    x = rng.choice([-1.0, 1.0], count) * 2.0 ** rng.uniform(-149, math.log2(size), count)
    x[::3] = rng.uniform(-105, 105, len(x[::3])) * min(1.0, size / 105)
    return np.float32(x)


_ROWS = {
    "softmax": (lambda x: x.softmax(-1), softmax), "log_softmax": (lambda x: x.log_softmax(-1), None),
    "mean": (lambda x: x.mean(-1), lambda x: x.mean(-1)), "sum": (lambda x: x.sum(-1), lambda x: x.sum(-1)),
    "layer_norm": (lambda x: functional.layer_norm(x, x.shape[-1:]), None),
}  # fmt: skip
_SCALARS = ("exp", "log", "sqrt", "sigmoid", "tanh", "erf", "gelu", "silu", "relu", "leaky_relu", "clamp", "square",
            "times_tenth", "plus_tenth", "over_three")  # fmt: skip


def torch_keeps(f, exact, x):
    """Compare what torch computes in float32 with the bounds for it; return the share of a bound that is reached."""
    x32 = torch.from_numpy(x)
    computed = wide(f(x32).double().numpy())
    y = forward(record(Function(f).eval(), x32), [Bounded.exactly(x32)], of_mac()).output
    with np.errstate(all="ignore"):
        true = exact(wide(x))
        known = np.isfinite(true)
        off = np.where(np.isnan(computed), np.inf, np.abs(computed - true))
        keeps = (off <= wide(y.d.numpy())) | ~known
        assert keeps.all(), (x[np.argwhere(~keeps)[0][0]], computed[~keeps][0], true[~keeps][0])
        assert ((wide(y.lo.numpy()) <= true) & (true <= wide(y.hi.numpy())))[known].all()
        some = known & np.isfinite(y.d.numpy()) & (y.d.numpy() > 0)
        return float((off[some] / y.d.numpy()[some]).max(initial=0))


def of_torch(name, count):
    rng = np.random.default_rng(32)
    if name in _SCALARS:
        case = CASES[name]
        # Of gelu the long doubles are no more than doubles, whose error function ends.
        x = float32s(count, rng, 8.0 if name == "gelu" else 2.0**127)
        assert torch_keeps(case.f, case.exact, np.abs(x) if case.positive else x) > (0.01 if name != "relu" else -1)
        return
    f, exact = _ROWS[name]
    for n in (1, 3, 8, 17, 100, 1000):
        rows = max(2, count // (20 * n))
        for scale in (1e-30, 1e-3, 1.0, 30.0, 1e4):
            for shift in (0.0, 10.0):
                x = np.float32(rng.normal(size=(rows, n)) * scale + shift * scale)
                torch_keeps(f, exact or _EXACTLY[name], x)


_EXACTLY = {
    "log_softmax": lambda x: (
        x - x.max(-1, keepdims=True) - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))
    ),
    "layer_norm": lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + wide(1e-5)),
}


@pytest.mark.parametrize("name", [*_SCALARS, *_ROWS])
def test_torch_itself_keeps_to_the_rules_in_float32(name):
    of_torch(name, 20_000)


@pytest.mark.full
@pytest.mark.parametrize("name", [*_SCALARS, *_ROWS])
def test_torch_itself_keeps_to_the_rules_in_float32_a_million_times(name):
    of_torch(name, 10**6)


def reach(name, scalars):
    """Check a case at all precisions, for so many computed scalars; its bounds are finite and are reached, too."""
    case = CASES[name]
    found, done, seed = [], 0, 0
    while done < scalars:
        for bits in BITS:
            for nearest in (True, False):
                for running in {False, case.mac is not None}:
                    found.append(check(case, bits, nearest, running, 40, seed))
                    done += found[-1].scalars
        seed += 1
    assert max(one.reached for one in found) >= case.tight
    assert max(one.finite for one in found) > 0.5


@pytest.mark.parametrize("name", CASES)
def test_computed_values_keep_to_the_rule(name):
    reach(name, 1)


@pytest.mark.full
@pytest.mark.parametrize("name", CASES)
def test_a_million_computed_values_keep_to_the_rule(name):
    reach(name, 10**6)
