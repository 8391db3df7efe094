"""The safe number never claims too much: every rule, on operands that are hard, with errors that are really applied.

Operands are moved within their declared errors, to corners and at random, and the program is computed in float64 (those
in float64 by numpy in extended precision). The run itself has the bits that it has without tracking.
"""

import warnings

import mpmath
import numpy as np
import pytest
import torch

import simulator
from simulator.tracking import operation
from simulator.tracking.rules import FUSED, MOVES, RULES, optimisers
from tests.simulator.tracked_cases import KINDS, check
from tests.simulator.tracked_programs import PROGRAMS

# Programs of whose operations some have no rule, or whose derivative torch computes otherwise under a dispatch mode.
SHADOWED = {
    "sinc", "digamma", "lgamma", "erfinv", "heaviside", "logcumsumexp", "dist_0", "renorm", "bicubic",
}  # fmt: skip
OTHER_BITS = {"prod", "prod_all", "cumprod", "max", "min", "median_all"}
# Ties share a gradient by their number, which is a decision: without a bound where it is not decided.
LOOSE = {
    "median_all",
    "largest_by_place",
    "smallest_by_place",
    "cummin",
    "cummax",
    "amax",
    "amin",
    "aminmax",
    "norm_inf",
    "max",
    "min",
    "norm_3",
}


def verify(program, dtype, kind, seed):
    found = check(program, dtype, kind, seed)
    where = f"{program.name} of {dtype}, {kind}, seed {seed}"
    assert not found.wrong, f"{where}: {found.wrong} of {found.elements} above their bound; {found.note}"
    assert found.same or program.name in OTHER_BITS, f"{where}: tracking changed the run"
    assert not found.shadowed or program.name in SHADOWED, f"{where}: no rule of {found.shadowed}"
    return found


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
def test_bounds_hold(program):
    found = [verify(program, torch.float32, kind, seed=7) for kind in KINDS[::2]]
    found.append(verify(program, torch.bfloat16, "wild", seed=7))
    if program.name not in SHADOWED | LOOSE:
        assert found[0].finite > 0.9, f"{program.name}: {found[0].finite:.0%} of the elements have a bound"


@pytest.mark.parametrize("name", ["add", "mul", "div", "exp", "log", "sqrt", "tanh", "relu", "sum", "maximum", "neg"])
def test_bounds_are_nearly_reached(name):
    """So that one which is half of what it must be is seen."""
    program = next(p for p in PROGRAMS if p.name == name)
    assert max(verify(program, torch.float32, "normal", seed).closest for seed in range(5)) > 0.5


@pytest.mark.full
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_bounds_hold_in_every_format_on_every_kind_of_operand(program, dtype):
    elements = sum(verify(program, dtype, kind, seed).elements for kind in KINDS for seed in (1, 2, 3))
    print(f"{program.name} {dtype}: {elements} elements, 0 over-claims")


def test_every_rule_is_run_by_a_program():
    """A rule that no program reaches is not tested."""
    seen = set()

    class Names(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.add(func.overloadpacket.__name__.removesuffix("_").removeprefix("_foreach_"))
            return func(*args, **(kwargs or {}))

    for program in PROGRAMS:
        with Names(), torch.enable_grad():
            xs = [torch.rand(shape).requires_grad_(program.gradients) for shape in program.shapes]
            out = program.run(*xs)
            outs = [y for y in (out if isinstance(out, tuple | list) else (out,)) if y.requires_grad]
            if outs:
                torch.autograd.grad(outs, xs, [torch.ones_like(y) for y in outs], allow_unused=True)
    elsewhere = ELSEWHERE - seen
    missing = set(RULES) - seen - elsewhere
    assert not missing, f"no program runs {sorted(missing)}"
    assert len(MOVES) > 50 and len(FUSED) == 4


# Rules of operations that torch runs in other circumstances: kernels of other builds, and those of other tests.
ELSEWHERE = {
    "_convolution", "mkldnn_convolution", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "linear", "matmul", "softmax",
    "log_softmax", "to", "type_as", "_fused_rms_norm", "_fused_rms_norm_backward", "native_dropout",
    "isnan", "isinf", "isposinf", "isneginf",
    "scalar_tensor", "arange", "linspace", "_native_multi_head_attention", "_transformer_encoder_layer_fwd",
}  # fmt: skip


EXACTLY = {
    "add": (lambda x, y: x + y, lambda x, y: x + y), "sub": (lambda x, y: x - y, lambda x, y: x - y),
    "mul": (lambda x, y: x * y, lambda x, y: x * y), "div": (lambda x, y: x / y, lambda x, y: x / y),
    "fused": (lambda x, y: torch.add(x, y, alpha=0.3), lambda x, y: x + np.longdouble(0.3) * y),
    "sum": (lambda x, y: x.sum(1), lambda x, y: x.sum(1)), "mean": (lambda x, y: y.mean(0), lambda x, y: y.mean(0)),
    "mm": (lambda x, y: x @ y.T, lambda x, y: (x[:, None, :] * y[None, :, :]).sum(-1)),
    "exp": (lambda x, y: x.exp(), lambda x, y: np.exp(x)), "log": (lambda x, y: y.log(), lambda x, y: np.log(y)),
    "log1p": (lambda x, y: y.log1p(), lambda x, y: np.log1p(y)),
    "expm1": (lambda x, y: x.expm1(), lambda x, y: np.expm1(x)),
    "sqrt": (lambda x, y: y.sqrt(), lambda x, y: np.sqrt(y)),
    "rsqrt": (lambda x, y: y.rsqrt(), lambda x, y: 1 / np.sqrt(y)),
    "tanh": (lambda x, y: x.tanh(), lambda x, y: np.tanh(x)), "sin": (lambda x, y: x.sin(), lambda x, y: np.sin(x)),
    "sigmoid": (lambda x, y: x.sigmoid(), lambda x, y: 1 / (1 + np.exp(-x))),
    "silu": (lambda x, y: torch.nn.functional.silu(x), lambda x, y: x / (1 + np.exp(-x))),
    "power": (lambda x, y: y**1.7, lambda x, y: y ** np.longdouble(1.7)),
    "norm": (lambda x, y: x.norm(), lambda x, y: np.sqrt((x * x).sum())),
    "softmax": (lambda x, y: x.softmax(1), lambda x, y: _softmax(x)),
    "log_softmax": (lambda x, y: x.log_softmax(1), lambda x, y: np.log(_softmax(x))),
    "layer_norm": (lambda x, y: torch.nn.functional.layer_norm(x, (7,)), lambda x, y: _normalised(x)),
    "relu": (lambda x, y: x.relu(), lambda x, y: np.maximum(x, 0)),
    "maximum": (lambda x, y: torch.maximum(x, y), lambda x, y: np.maximum(x, y)),
    "var": (lambda x, y: x.var(1), lambda x, y: x.var(1, ddof=1)),
}  # fmt: skip


def _softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def _normalised(x):
    middle = x - x.mean(1, keepdims=True)
    return middle / np.sqrt((middle * middle).mean(1, keepdims=True) + np.longdouble(1e-5))


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="numpy has no extended precision here")
@pytest.mark.parametrize("name", EXACTLY)
def test_bounds_of_float64_hold(name):
    run, exactly = EXACTLY[name]
    g = torch.Generator().manual_seed(3)
    for exponents in ((0, 1), (-40, 5), (-12, 3)):
        x, y = (torch.randn(40, 7, generator=g, dtype=torch.float64) for _ in range(2))
        x, y = (v * 2.0 ** torch.randint(*exponents, v.shape, generator=g) for v in (x, y))
        y = y.abs() + 2.0**-30
        sizes = [v.abs() * 2.0 ** -torch.randint(5, 50, v.shape, generator=g).double() for v in (x, y)]
        sizes = [torch.where(torch.rand(e.shape, generator=g) < 0.3, 0.0, e) for e in sizes]
        with simulator.track(None, numbers=("safe",)) as bits:
            for v, e in zip((x, y), sizes, strict=True):
                bits.declare(v, error=e)
            z = run(x, y)
        bound, computed = bits.of(z).bound.numpy().astype(np.longdouble), z.numpy().astype(np.longdouble)
        for trial in range(8):
            moved = []
            for v, e in zip((x, y), sizes, strict=True):
                shift = torch.rand(v.shape, generator=g, dtype=torch.float64) * 2 - 1 if trial > 3 else trial - 1.0
                shift = torch.as_tensor(shift).clamp(-1, 1).numpy().astype(np.longdouble)
                moved.append(v.numpy().astype(np.longdouble) + e.numpy().astype(np.longdouble) * shift)
            exact = exactly(*moved)
            off = np.abs(computed - exact)
            # Extended precision has eleven bits more, and rounds too.
            assert np.all(off <= bound * (1 + 2.0**-8) + np.abs(exact) * 2.0**-62), (name, exponents, trial)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,)])
def test_scalars_and_nothing_at_all_have_bounds(shape):
    x = torch.full(shape, 0.7)
    with simulator.track(None, numbers=("safe", "expected", "certain_noise")) as bits:
        bits.declare(x, error=0.25)
        results = [
            x + 1, x * x, x.exp(), x / 3, x.relu(), x.sum(), x.abs(), torch.where(x > 0, x, -x), x.clamp(0, 1),
            x.reshape(-1), torch.cat([x.reshape(-1)] * 2), x.mean(), x.sigmoid(), x.to(torch.float64), x**3,
            torch.nn.functional.gelu(x), x - x, x.cumsum(0),
        ]  # fmt: skip
        if shape == (3, 0):
            results += [x.softmax(1), x.log_softmax(0), x @ x.T, torch.nn.functional.linear(x, torch.zeros(2, 0))]
    for z in results:
        assert bits.of(z).bound.shape == z.shape and not bits.of(z).bound.isnan().any()
    assert not bits.shadowed


FOREACH = {
    "add": lambda x, y: torch._foreach_add(x, y, alpha=0.3), "add_number": lambda x, y: torch._foreach_add(x, 0.3),
    "sub": torch._foreach_sub, "mul": torch._foreach_mul, "mul_numbers": lambda x, y: torch._foreach_mul(x, [0.3, 2.0]),
    "mul_tensor": lambda x, y: torch._foreach_mul(x, torch.tensor(0.3)), "div": torch._foreach_div,
    "sqrt": lambda x, y: torch._foreach_sqrt(y), "exp": lambda x, y: torch._foreach_exp(x),
    "neg": lambda x, y: torch._foreach_neg(x), "abs": lambda x, y: torch._foreach_abs(x),
    "addcmul": lambda x, y: torch._foreach_addcmul(x, x, y, 0.3), "lerp": lambda x, y: torch._foreach_lerp(x, y, 0.3),
    "addcdiv": lambda x, y: torch._foreach_addcdiv(x, x, y, [0.3, -1.7]), "maximum": torch._foreach_maximum,
    "norm": lambda x, y: torch._foreach_norm(x), "pow": lambda x, y: torch._foreach_pow(x, 2.0),
    "reciprocal": lambda x, y: torch._foreach_reciprocal(y), "sign": lambda x, y: torch._foreach_sign(x),
    "clamp": lambda x, y: torch._foreach_clamp_max(x, 0.3), "copy": lambda x, y: _copied(x, y),
    "zero": lambda x, y: _zeroed(x), "in_place": lambda x, y: _in_place(x, y),
}  # fmt: skip


def _copied(x, y):
    found = [torch.empty_like(v) for v in x]
    torch._foreach_copy_(found, y)
    return found


def _zeroed(x):
    found = [v * 3 for v in x]
    torch._foreach_zero_(found)
    return found


def _in_place(x, y):
    found = [v * 3 for v in x]
    torch._foreach_mul_(found, y)
    torch._foreach_add_(found, x, alpha=-0.7)
    torch._foreach_lerp_(found, y, 0.1)
    torch._foreach_addcdiv_(found, x, y, 0.3)
    torch._foreach_sqrt_(torch._foreach_abs(found))
    return found


OUT = {
    "add": lambda x, y, out: torch.add(x, y, alpha=0.3, out=out), "mul": lambda x, y, out: torch.mul(x, y, out=out),
    "sum": lambda x, y, out: torch.sum(x, 0, out=out), "mm": lambda x, y, out: torch.mm(x, y.T, out=out),
    "cat": lambda x, y, out: torch.cat([x, y], out=out), "stack": lambda x, y, out: torch.stack([x, y], out=out),
    "exp": lambda x, y, out: torch.exp(x, out=out), "where": lambda x, y, out: torch.where(x > 0, x, y, out=out),
    "index_select": lambda x, y, out: torch.index_select(x, 0, torch.tensor([1, 0]), out=out),
    "gather": lambda x, y, out: torch.gather(x, 0, torch.tensor([[1, 0, 2]]), out=out),
    "onto_itself": lambda x, y, out: _onto_itself(x, y), "softmax": lambda x, y, out: torch.softmax(x, 1, out=out),
    "clamp": lambda x, y, out: torch.clamp(x, -0.1, 0.2, out=out), "tril": lambda x, y, out: torch.tril(x, out=out),
    "take": lambda x, y, out: torch.take(x, torch.tensor([3, 1]), out=out),
    "sort": lambda x, y, out: torch.sort(x, 1, out=(out, torch.empty(0, dtype=torch.long)))[0],
}  # fmt: skip


def _onto_itself(x, y):
    z = x * 3
    torch.mul(z, y, out=z)
    torch.sub(y, z, out=z)
    return torch.add(z, z, alpha=-0.99, out=z)


def moved_within(x, size, trial, g):
    shift = torch.rand(x.shape, generator=g, dtype=torch.float64) * 2 - 1
    return x.double() + size.double() * (shift if trial > 2 else float(trial - 1))


def bounded(run, x, y):
    """Check a program of two lists of tensors against float64."""
    g = torch.Generator().manual_seed(5)
    sizes = [v.abs() * 2.0 ** -torch.randint(4, 20, v.shape, generator=g).float() for v in (*x, *y)]
    plain = run(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", simulator.tracking.UntrackedOperation)
        with simulator.track(None, numbers=("safe",)) as bits:
            for v, e in zip((*x, *y), sizes, strict=True):
                bits.declare(v, error=e)
            found = run(x, y)
    for trial in range(6):
        moved = [moved_within(v, e, trial, g) for v, e in zip((*x, *y), sizes, strict=True)]
        for z, same, exact in zip(found, plain, run(moved[: len(x)], moved[len(x) :]), strict=True):
            assert torch.equal(z, same)
            assert bool(((z.double() - exact).abs() <= bits.of(z).bound.double() * (1 + 2.0**-20)).all())


def lists():
    g = torch.Generator().manual_seed(1)
    x = [torch.randn(3, 3, generator=g), torch.randn(4, generator=g)]
    return x, [torch.rand(3, 3, generator=g) + 0.1, torch.rand(4, generator=g) + 0.1]


@pytest.mark.parametrize("name", FOREACH)
def test_bounds_of_operations_on_lists_hold(name):
    bounded(FOREACH[name], *lists())


@pytest.mark.parametrize("name", OUT)
def test_bounds_of_results_in_given_memory_hold(name):
    x, y = lists()
    bounded(lambda a, b: [OUT[name](a[0], b[0], torch.empty(0, dtype=a[0].dtype))], x[:1], y[:1])


def test_a_long_sum_claims_no_more_than_it_has():
    x = torch.rand(100_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with simulator.track(None) as bits:
        total = x.sum()
        one_by_one = torch.zeros((), dtype=torch.float64)
        for part in x[:2000]:
            one_by_one = one_by_one + part
    assert int(bits.of(total).safe) <= 45
    exact = sum(map(int, (x * 2.0**53).tolist()))
    assert abs(int(float(total) * 2**53) - exact) <= float(bits.of(total).bound) * 2.0**53
    assert int(bits.of(one_by_one).safe) <= int(bits.of(one_by_one).expected) <= 53


def test_what_cancels_exactly_is_exact():
    x = torch.randn(100, generator=torch.Generator().manual_seed(0))
    with simulator.track(None) as bits:
        bits.declare(x, bits=10)
        for z in (x - x, x * 0):
            assert bool((bits.of(z).bound == 0).all()) and bool((bits.of(z).safe == 24).all())
        assert bool((bits.of(x / x).bound == 0).all())
        log = torch.log(torch.ones(3))
        assert bool((bits.of(log).bound < 1e-37).all())
        difference = (x + 1) - 1 - x
        assert bool((difference.abs() <= bits.of(difference).bound).all())


@pytest.mark.parametrize("run", [
    lambda d: (d > 0) & True, lambda d: True | (d > 0), lambda d: (d > 0).logical_xor(d < 0),
    lambda d: d.argmax() & 1, lambda d: (d > 0) ^ torch.tensor([True, False, True]),
], ids=["mask_and_number", "number_or_mask", "masks", "place_and_number", "mask_and_tensor"])  # fmt: skip
def test_what_is_not_decided_stays_so_through_logic(run):
    x = torch.tensor([1e-9, 1e-9, -1e-9])
    with simulator.track(None, numbers=("safe",)) as bits:
        bits.declare(x, error=1e-3)
        found = torch.where(run(x) == 1, 1.0, 2.0)
    assert torch.equal(found, torch.where(run(x) == 1, 1.0, 2.0))
    assert bool((bits.of(found).bound >= 1).all())


FUNCTIONAL = torch.nn.functional
# Programs of a tensor that computes with numbers of the code: where they decide, and where they are values.
OF_NUMBERS = {
    "mean of a negative number": lambda x: _mean_of_less(x), "its gradient": lambda x: _gradient(_mean_of_less, x),
    "threshold": lambda x: FUNCTIONAL.threshold(x, 0.1, 5.0), "hardshrink": lambda x: FUNCTIONAL.hardshrink(x, 0.1),
    "threshold, on the way back": lambda x: _gradient(lambda y: FUNCTIONAL.threshold(y, 0.1, 5.0), x),
    "hardshrink, on the way back": lambda x: _gradient(lambda y: FUNCTIONAL.hardshrink(y, 0.1), x),
    "softshrink, on the way back": lambda x: _gradient(lambda y: FUNCTIONAL.softshrink(y, 0.1), x),
    "logit, on the way back": lambda x: _gradient(lambda y: y.logit(0.35), x),
    "softplus": lambda x: FUNCTIONAL.softplus(x, 1.0, 0.1), "where": lambda x: torch.where(x > 0.05, 0.1, x),
    "scalar": lambda x: torch.scalar_tensor(0.1, dtype=x.dtype), "mask": lambda x: x.masked_fill(x > 0.05, 0.7),
    "arange": lambda x: torch.arange(0.3, 1, 0.1, dtype=x.dtype), "linspace": lambda x: _spaced(0.1, 1, 11, x),
    "arange, one number": lambda x: torch.arange(7.5, dtype=x.dtype), "linspace, thirds": lambda x: _spaced(0, 1, 4, x),
    "linspace of one": lambda x: _spaced(0.1, 1, 1, x), "linspace of none": lambda x: _spaced(0, 1, 0, x),
}  # fmt: skip


def _mean_of_less(x):
    return FUNCTIONAL.avg_pool2d((x * 0.7)[None, None], (1, 2), divisor_override=-3)


def _gradient(f, x):
    with torch.enable_grad():
        y = x.detach().clone().requires_grad_(True)
        f(y).sum().backward()
        return y.grad


def _spaced(start, end, steps, x):
    return torch.linspace(start, end, steps, dtype=x.dtype)


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_numbers_of_the_code_are_off_by_their_conversion(name):
    x = torch.tensor([0.1, -0.1, 0.5, 0.9, 0.02, 0.35])
    with simulator.track(None, numbers=("safe",)) as bits:
        found = OF_NUMBERS[name](x)
    assert not bits.shadowed
    off = (found.double() - OF_NUMBERS[name](x.double())).abs()
    bound = bits.of(found).bound.double()
    assert bool((off <= bound).all()) and bool((bound < 1e-6).any() or not bound.numel())


def test_whole_steps_are_exact():
    with simulator.track(None, numbers=("safe",)) as bits:
        for z in (torch.arange(5.0), torch.arange(9, 1, -2, dtype=torch.float32), torch.linspace(0, 10, 11)):
            assert bool((bits.of(z).bound == 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_whether_a_tensor_is_finite_is_decided(dtype):
    x = torch.tensor([1.0, torch.inf, torch.nan], dtype=dtype)
    with simulator.track(None, numbers=("safe",)) as bits:
        bits.declare(x, error=0.25)
        for decision in (x.isfinite(), x.isinf(), x.isposinf(), x.isneginf(), x.isnan(), x == x):
            undecided = bits.of(torch.where(decision, 1.0, 2.0)).bound >= 1
            assert not undecided[0] and not (undecided[1] and decision[1])
        assert bool(bits.of(torch.where(x.isnan(), 0.0, 1.0)).bound[2] >= 1)  # a number, had it not overflowed


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW], ids=["adam", "adamw"])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.3, 0.4)])
def test_bounds_of_a_fused_optimiser_in_float64_hold(make, betas):
    start = torch.tensor([1 / 3, -0.7, 1e-3], dtype=torch.float64)
    gradients = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    settings = {"lr": 0.1, "betas": betas, "eps": 1e-8, "weight_decay": 0.01}
    w = torch.nn.Parameter(start.clone())
    optimiser = make([w], fused=True, **settings)
    with mpmath.workprec(200):
        (beta1, beta2), lr, decay, eps = map(mpmath.mpf, betas), *(mpmath.mpf(x) for x in (0.1, 0.01, 1e-8))
        exact = [[mpmath.mpf(x), mpmath.mpf(0), mpmath.mpf(0)] for x in start.tolist()]
        with simulator.track(None, numbers=("safe",)) as bits:
            for n, gradient in enumerate(gradients, 1):
                w.grad = gradient.clone()
                optimiser.step()
                for state, computed in zip(exact, gradient.tolist(), strict=True):
                    x, m, v = state
                    g = mpmath.mpf(computed)
                    x, g = (x - lr * decay * x, g) if make is torch.optim.AdamW else (x, g + decay * x)
                    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
                    x -= lr / (1 - beta1**n) * m / (mpmath.sqrt(v) / mpmath.sqrt(1 - beta2**n) + eps)
                    state[:] = x, m, v
                bound = bits.of(w).bound
                assert bool((bound < 1e-12).all())
                for state, found, most in zip(exact, w.tolist(), bound.tolist(), strict=True):
                    assert abs(state[0] - mpmath.mpf(found)) <= most


def test_corrections_of_an_optimiser_are_off_by_no_more_than_is_said():
    with mpmath.workprec(300):
        for beta in (0.9, 0.999, 0.3, 1 - 2.0**-30):
            for n in (1, 2, 7, 1000, 10**6):
                found, relative = optimisers._corrected(beta, float(n))
                exact = 1 - mpmath.mpf(beta) ** n
                assert abs(found / exact - 1) <= relative


def _fails(*args, **kwargs):
    raise AttributeError("a rule with a mistake")


@pytest.mark.filterwarnings("ignore::simulator.tracking.UntrackedOperation")
def test_a_rule_that_fails_leaves_the_run_alone(monkeypatch):
    monkeypatch.setitem(RULES, "exp", RULES["exp"]._replace(make=_fails))
    monkeypatch.setitem(FUSED, "_fused_sgd", _fails)
    monkeypatch.setattr("simulator.tracking.interpret.running", _fails)
    operation.known_of.cache_clear()
    model = torch.nn.BatchNorm1d(3)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    with simulator.track(model, numbers=("safe",)) as bits:
        model(x.exp()).square().sum().backward()
        optimiser.step()
    monkeypatch.undo()
    operation.known_of.cache_clear()
    assert {name.split()[0] for name in bits.shadowed} == {"exp", "native_batch_norm", "_fused_sgd"}
    assert bool(bits.of(model.weight).bound.isinf().all()) and bool(bits.of(model.running_mean).bound.isinf().all())


def test_minus_infinity_shuts_and_is_exact():
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.full((4, 4), -torch.inf).triu(1)
    with simulator.track(None) as bits:
        bits.declare(x, bits=12)
        y = (x + mask).softmax(1)
    assert bool((bits.of(y).safe >= 8)[mask == 0].all())
    assert bool((bits.of(y).bound[mask != 0] < 1e-30).all())
