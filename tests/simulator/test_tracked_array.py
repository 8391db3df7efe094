"""Arrays of numpy with noise: values are numpy's, bounds hold against exact arithmetic, nothing is lost unsaid."""

import copy
import math
import pickle
import random
from fractions import Fraction

import mpmath
import numpy as np
import pytest

pytest.importorskip("torch")

from simulator.errors import InputError
from simulator.tracking import LABELS, Tracked, track, tracked

TYPES = [np.float32, np.float64]
in_both_types = pytest.mark.parametrize("dtype", TYPES, ids=["float32", "float64"])


def numbers(*shape, seed=0, dtype=np.float64, positive=False):
    found = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    return np.abs(found) + dtype(0.1) if positive else found


def is_covered(x, exact):
    """Whether values of an array are within their bounds of exact ones, in order, and have no more bits than is so."""
    for value, bound, bits, e in zip(x.values.ravel(), x.bound.ravel(), x.safe.ravel(), exact, strict=True):
        off = abs(mpmath.mpf(float(value)) - e)
        if not (off <= float(bound) and (bits == 0 or off <= mpmath.mpf(2) ** -int(bits) * abs(e))):
            return False
    return True


def exactly(x):
    return [mpmath.mpf(float(v)) for v in np.ravel(x)]


@pytest.fixture(autouse=True)
def precise():
    with mpmath.workprec(400):
        yield


# --- values are those of numpy ----------------------------------------------------------------------------------------

UNARY = (np.negative, np.positive, np.absolute, np.fabs, np.square, np.exp, np.exp2, np.expm1, np.tanh, np.sin, np.cos,
         np.arctan, np.reciprocal, np.floor, np.ceil, np.rint, np.trunc, np.sign)  # fmt: skip
OF_POSITIVE = (np.sqrt, np.log, np.log2, np.log10, np.log1p)
BINARY = (np.add, np.subtract, np.multiply, np.divide, np.power, np.maximum, np.minimum)
FUNCTIONS = {
    "sum": lambda x: np.sum(x, axis=0), "sum of all": np.sum, "sum, kept": lambda x: x.sum((0, 1), keepdims=True),
    "sum of none": lambda x: x.sum(axis=()), "mean": lambda x: np.mean(x, axis=-1), "var": lambda x: np.var(x, axis=1),
    "std": lambda x: np.std(x, axis=0, ddof=1), "max": lambda x: np.max(x, axis=0), "min": lambda x: x.min(),
    "prod": lambda x: np.prod(x, axis=(0, 1)), "cumsum": lambda x: np.cumsum(x, axis=1), "running": np.cumsum,
    "reduce": np.add.reduce, "products": np.multiply.reduce, "accumulate": np.add.accumulate,
    "matmul": lambda x: x @ x.T, "vectors": lambda x: x[0] @ x[1], "dot": lambda x: np.dot(x, x[0]),
    "outer": lambda x: np.outer(x[0], x[1]), "index": lambda x: x[1:, ::-2], "mask": lambda x: x[np.eye(4, 6) > 0],
    "gather": lambda x: x[[1, 1, 0]], "new axis": lambda x: x[:, None, 2], "reshape": lambda x: np.reshape(x, (6, 4)),
    "shape": lambda x: x.reshape(2, -1), "transpose": np.transpose, "swap": lambda x: np.swapaxes(x, 0, 1),
    "concatenate": lambda x: np.concatenate([x, x * 2], axis=1), "stack": lambda x: np.stack([x, x]),
    "mixed": lambda x: np.concatenate([np.ones_like(x[0]), x[1]]), "flip": np.flip, "tile": lambda x: np.tile(x, 2),
    "clip": lambda x: np.clip(x, -0.5, 0.7), "clip below": lambda x: np.clip(x, 0.0, None), "triangle": np.tril,
    "power 2": lambda x: x**2, "power 3": lambda x: x**3, "power -1": lambda x: x**-1.0,
    "root": lambda x: abs(x) ** 0.5, "base": lambda x: 2.0**x, "zeros": np.zeros_like,
    "scaled": lambda x: 0.1 * x - 1 / (x + 3.3),
}  # fmt: skip


def same(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


@in_both_types
@pytest.mark.parametrize("function", [*UNARY, *OF_POSITIVE], ids=lambda f: f.__name__)
def test_functions_of_one_operand_have_the_bits_of_numpy(function, dtype):
    x = numbers(4, 6, dtype=dtype, positive=function in OF_POSITIVE)
    y = function(tracked(x, bits=12))
    assert isinstance(y, Tracked) and same(y.values, function(x))


@in_both_types
@pytest.mark.parametrize("function", BINARY, ids=lambda f: f.__name__)
def test_functions_of_two_operands_have_the_bits_of_numpy(function, dtype):
    x, y = numbers(4, 6, dtype=dtype, positive=True), numbers(6, seed=1, dtype=dtype)
    for one, other in ((tracked(x), tracked(y)), (tracked(x), y), (x, tracked(y, bits=9)), (tracked(x), 1.3)):
        plain = [part.values if isinstance(part, Tracked) else part for part in (one, other)]
        assert same(function(one, other).values, function(*plain))
    wide = function(tracked(x), y.astype(np.float64))
    assert same(wide.values, function(x, y.astype(np.float64)))


@in_both_types
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_other_functions_have_the_bits_of_numpy(function, dtype):
    x = numbers(4, 6, dtype=dtype)
    y = function(tracked(x, bits=12))
    assert isinstance(y, Tracked) and same(y.values, np.asarray(function(x)))


@in_both_types
def test_operands_that_are_no_tracked_arrays(dtype):
    x = numbers(3, dtype=dtype)
    t = tracked(x)
    for make in (lambda a: 2 * a, lambda a: np.float64(2) * a, lambda a: np.float32(0.1) + a, lambda a: a - [1, 2, 3],
                 lambda a: np.arange(3) / a, lambda a: True * a,
                 lambda a: np.where([True, False, True], a, 0)):  # fmt: skip
        assert same(make(t).values, np.asarray(make(x)))


@in_both_types
def test_comparisons_look_at_values_alone_and_are_plain(dtype):
    x = numbers(5, dtype=dtype)
    t = tracked(x, bits=1)
    for compare in (np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal):
        assert type(compare(t, 0.1)) is np.ndarray and np.array_equal(compare(t, 0.1), compare(x, 0.1))
    assert np.array_equal(np.isfinite(t), np.isfinite(x)) and np.argmax(t) == np.argmax(x) and np.shape(t) == (5,)
    assert bool(t[0]) is True and bool(t[0] * 0) is False and len(t) == 5 and (t.ndim, t.size, t.dtype) == (1, 5, dtype)


@in_both_types
def test_assignment_writes_values_and_noise_of_a_part(dtype):
    x = numbers(4, 3, dtype=dtype)
    t, u = tracked(x), x.copy()
    part = t[0]
    t[0] = tracked(u[1], bits=5)
    t[2:, 1] = 0.5
    t += 1.5
    t[3] *= t[3]
    u[0], u[2:, 1] = u[1], 0.5
    u += dtype(1.5)
    u[3] *= u[3]
    assert same(t.values, u) and same(part.values, x[0])
    assert (t.bound[0] >= 0.9 * 2.0**-5 * abs(x[1])).all() and (t.bound[1:] < 1e-5).all() and (part.bound == 0).all()
    t **= 2
    assert same(t.values, u**2)
    np.add(x, 1, out=t)
    assert same(t.values, x + 1) and (t.safe >= t.reading.most - 1).all()


def test_values_cannot_be_written_behind_its_back():
    x = numbers(3)
    t = tracked(x)
    x[:] = 7.0
    assert not (t.values == 7.0).any()
    with pytest.raises(ValueError, match="read-only"):
        t.values[0] = 1.0


@pytest.mark.parametrize("layout", [
    lambda x: x.T, lambda x: x[::-1], lambda x: x[:, ::2], np.asfortranarray, lambda x: x.astype(">f8"),
    lambda x: np.broadcast_to(x[0], (3, 6)), lambda x: x.tolist(), lambda x: x[0, 0],
], ids=range(8))  # fmt: skip
def test_arrays_of_any_layout_are_taken(layout):
    x = layout(numbers(4, 6))
    assert np.array_equal((tracked(x) * 2).values, np.asarray(x) * 2)


# --- bounds hold ------------------------------------------------------------------------------------------------------

EXACT = {
    np.negative: lambda x: -x, np.absolute: abs, np.square: lambda x: x * x, np.sqrt: mpmath.sqrt, np.exp: mpmath.exp,
    np.exp2: lambda x: mpmath.mpf(2) ** x, np.expm1: mpmath.expm1, np.log: mpmath.log,
    np.log2: lambda x: mpmath.log(x, 2), np.log10: mpmath.log10, np.log1p: mpmath.log1p, np.tanh: mpmath.tanh,
    np.sin: mpmath.sin, np.cos: mpmath.cos, np.arctan: mpmath.atan, np.reciprocal: lambda x: 1 / x,
    np.floor: mpmath.floor, np.ceil: mpmath.ceil, np.rint: mpmath.nint, np.sign: mpmath.sign,
}  # fmt: skip


@in_both_types
@pytest.mark.parametrize("function", EXACT, ids=lambda f: f.__name__)
def test_functions_of_one_operand_are_within_their_bounds(function, dtype):
    x = numbers(300, dtype=dtype, positive=function in OF_POSITIVE) * dtype(3)
    y = function(tracked(x))
    assert is_covered(y, map(EXACT[function], exactly(x)))
    most = np.finfo(dtype).nmant + 1
    if function not in (np.sin, np.cos, np.log, np.log2, np.log10):
        assert y.safe.min() >= most - 5
    # and with operands that are off, by up to what is said, either way
    bits = 9
    for side in (-1, 1):
        moved = [v + side * abs(v) * mpmath.mpf(2) ** -bits for v in exactly(x)]
        assert is_covered(function(tracked(x, bits=bits)), map(EXACT[function], moved))


def expression(rng, depth):
    """A random expression as (function of leaves and a namespace, how it reads)."""
    if depth == 0:
        i = rng.randrange(4)
        return (lambda leaves, of: leaves[i]), f"x{i}"
    kind = rng.randrange(7)
    one, shown = expression(rng, depth - 1)
    if kind < 4:
        other, second = expression(rng, depth - 1)
        operation = "+-*/"[kind]
        run = {
            "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
        }[operation]  # fmt: skip
        return (lambda leaves, of: run(one(leaves, of), other(leaves, of))), f"({shown} {operation} {second})"
    name = rng.choice(["exp", "log", "sqrt", "sin", "tanh", "square", "atan"])
    if name in ("log", "sqrt"):
        return (lambda leaves, of: of[name](of["square"](one(leaves, of)) + of["one"])), f"{name}(1 + {shown}^2)"
    if name == "exp":
        return (lambda leaves, of: of[name](of["sin"](one(leaves, of)))), f"exp(sin({shown}))"
    return (lambda leaves, of: of[name](one(leaves, of))), f"{name}({shown})"


NUMPY = {"exp": np.exp, "log": np.log, "sqrt": np.sqrt, "sin": np.sin, "tanh": np.tanh, "square": np.square,
         "atan": np.arctan, "one": 1}  # fmt: skip
MPMATH = {"exp": mpmath.exp, "log": mpmath.log, "sqrt": mpmath.sqrt, "sin": mpmath.sin, "tanh": mpmath.tanh,
          "square": lambda x: x * x, "atan": mpmath.atan, "one": 1}  # fmt: skip


@in_both_types
@pytest.mark.parametrize("seeds", [range(120), pytest.param(range(120, 3000), marks=pytest.mark.full)], ids=len)
def test_random_expressions_never_claim_too_much(seeds, dtype):
    checked = claimed = 0
    for seed in seeds:
        rng = random.Random(seed)
        run, shown = expression(rng, rng.randrange(2, 6))
        x = np.array([rng.uniform(-3, 3) for _ in range(4)], dtype)
        bits = rng.choice([None, 6, 15])
        sides = [rng.choice([-1, 0, 1]) for _ in x]
        off = [0 if bits is None else s * mpmath.mpf(2) ** -bits for s in sides]
        with np.errstate(all="ignore"):
            found = run([tracked(v, bits=bits) for v in x], NUMPY)
        if not isinstance(found, Tracked) or not math.isfinite(found.values):
            continue
        try:
            exact = run([v + abs(v) * o for v, o in zip(exactly(x), off, strict=True)], MPMATH)
        except (ZeroDivisionError, OverflowError):
            continue
        assert is_covered(found, [mpmath.mpf(exact)]), f"seed {seed}: {shown} of {x.tolist()}, bits {bits}"
        checked, claimed = checked + 1, claimed + (found.safe > 0)
    assert checked > 0.8 * len(seeds) and claimed > 0.5 * len(seeds)


@in_both_types
def test_reductions_and_products_are_within_their_bounds_of_fractions(dtype):
    for seed in range(10):
        x = numbers(6, 40, seed=seed, dtype=dtype)
        t = tracked(x)
        exact = [[Fraction(float(v)) for v in row] for row in x]

        def real(fractions):
            return [mpmath.mpf(f.numerator) / f.denominator for f in fractions]

        mean = [sum(row) / 40 for row in exact]
        variance = [sum((v - m) ** 2 for v in row) / 39 for row, m in zip(exact, mean, strict=True)]
        running = [sum(row[: i + 1]) for row in exact for i in range(40)]
        gram = [sum(a * b for a, b in zip(one, other, strict=True)) for one in exact for other in exact]
        assert is_covered(t.sum(1), real(sum(row) for row in exact))
        assert is_covered(t.mean(1), real(mean))
        assert is_covered(t.var(1, ddof=1), real(variance))
        assert is_covered(t.std(1, ddof=1), [mpmath.sqrt(v) for v in real(variance)])
        assert is_covered(np.cumsum(t, 1), real(running))
        assert is_covered(t.prod(1), real(math.prod(row) for row in exact))
        assert is_covered(t @ t.T, real(gram))
        assert is_covered(t.max(1), real(max(row) for row in exact)) and (t.max(1).bound == 0).all()


def test_conversions_lose_what_they_lose():
    x = numbers(50)
    narrow = tracked(x).astype(np.float32)
    assert same(narrow.values, x.astype(np.float32)) and is_covered(narrow, exactly(x)) and narrow.safe.min() >= 23
    assert narrow.astype(np.float64).safe.min() >= 23
    held = tracked(np.ones(2, np.float32))
    held[0] = 0.1
    held += 0.1
    assert is_covered(held, [mpmath.mpf(0.1) + mpmath.mpf(0.1), 1 + mpmath.mpf(0.1)]) and held.safe.min() >= 22
    assert is_covered(np.concatenate([narrow, tracked(x)]), exactly(x) * 2)
    assert is_covered(tracked(np.array([2**53, 3])) + 1, [mpmath.mpf(2**53 + 1), 4])


def test_what_is_in_doubt_counts_both_ways():
    x = tracked([1.0, 1.001, 3.0], bits=6)
    assert x.max().bound < 0.1 and np.maximum(x, x[::-1]).bound[1] >= x.bound[1]
    assert (np.floor(tracked([0.999, 2.5], bits=6)).bound == 0).tolist() == [False, True]
    assert np.sign(tracked(1e-3, error=0.01)).bound >= 1 and np.clip(x, 0, 1).bound[2] == 0


# --- the numbers of the specification ---------------------------------------------------------------------------------


@pytest.mark.parametrize("log", [np.log, np.log2, np.log10], ids=lambda f: f.__name__)
def test_a_logarithm_near_one_has_few_bits(log):
    y = log(tracked(1.0001, bits=30))
    assert y.certain_noise in (16, 17) and y.safe in (15, 16)


def test_what_is_zero_keeps_its_absolute_noise():
    x = tracked([3.7, 1.0], bits=20)
    for same_one, value in ((x - x, 0.0), (x / x, 1.0)):
        assert (same_one.values == value).all() and (same_one.bound == 0).all() and (same_one.certain_noise == 53).all()
    assert ((x * 0).bound == 0).all()
    apart = x - tracked([3.7, 1.0], bits=20)
    assert (apart.values == 0).all() and (apart.safe == 0).all() and (apart.bound >= 2 * 2.0**-20).all()
    logarithm = np.log(x)
    assert logarithm.values[1] == 0 and 2.0**-20 <= logarithm.bound[1] < 2.0**-19
    assert (x * x).certain_noise.tolist() == [19, 19]


def test_a_sum_of_many_terms_claims_no_more_than_is_so():
    x = np.random.default_rng(0).random(100_000)
    exact = sum(map(Fraction, x.tolist()))
    running = np.cumsum(tracked(x))[-1]
    assert is_covered(running, [mpmath.mpf(exact.numerator) / exact.denominator]) and 30 <= running.safe <= 45
    assert running.safe <= running.expected <= 46 and running.certain_noise == 53
    total = tracked(x).sum()
    assert is_covered(total, [mpmath.mpf(exact.numerator) / exact.denominator]) and total.safe >= 30


@pytest.mark.parametrize("count", [2000, pytest.param(100_000, marks=pytest.mark.full)])
def test_a_naive_loop_claims_no_more_than_is_so(count):
    x = np.random.default_rng(0).random(count)
    exact = sum(map(Fraction, x.tolist()))
    total = tracked(0.0)
    for term in x:
        total = total + term
    assert total.values == np.cumsum(x)[-1]
    assert is_covered(total, [mpmath.mpf(exact.numerator) / exact.denominator])
    assert 30 <= total.safe <= (45 if count == 100_000 else 50) and total.safe <= total.expected


def test_errors_are_mostly_within_what_is_expected():
    inside = 0
    for seed in range(40):
        x = numbers(200, seed=seed, dtype=np.float32)
        y = np.exp(tracked(x) * 0.7).sum() / 3.1
        exact = sum(mpmath.exp(v * mpmath.mpf(np.float32(0.7).item())) for v in exactly(x))
        exact /= mpmath.mpf(3.1)
        inside += abs(mpmath.mpf(float(y.values)) - exact) <= mpmath.mpf(2) ** -int(y.expected) * abs(exact)
    assert inside >= 0.85 * 40


@in_both_types
@pytest.mark.parametrize("axis", [0, 1])
def test_sums_are_within_what_is_expected_however_numpy_adds(axis, dtype):
    x = np.random.default_rng(0).random((4000, 40) if axis == 0 else (40, 4000)).astype(dtype)
    y = tracked(x).sum(axis)
    rows = x.T if axis == 0 else x
    exact = [sum(map(Fraction, row.tolist())) for row in rows]
    off = [abs(Fraction(float(v)) - e) / e for v, e in zip(y.values, exact, strict=True)]
    assert sum(o <= Fraction(1, 2 ** int(b)) for o, b in zip(off, y.expected, strict=True)) >= 0.85 * 40


# --- what it refuses, keeps and prints --------------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "name"), [
    (np.fft.fft, "numpy.fft.fft"), (np.sinh, "numpy.sinh"), (np.linalg.inv, "numpy.linalg.inv"),
    (lambda x: np.einsum("i,i", x, x), "numpy.einsum"), (np.subtract.reduce, "subtract.reduce"),
    (lambda x: np.add(x, 1, where=[True] * 3), "numpy.add with where"), (lambda x: x[x], "index"),
    (lambda x: np.sum(x, dtype=np.float32), "numpy.sum with dtype"), (np.asarray, "conversion to a plain array"),
    (lambda x: float(x[0]), "conversion to a plain number"),
    (lambda x: np.hypot(x, x), "numpy.hypot"), (np.median, "numpy.median"),
    (lambda x: np.concatenate([x, x], dtype=np.float32), "numpy.concatenate with dtype"),
    (lambda x: np.add.at(np.ones(3), [0], x), "add.at"), (lambda x: np.where(x, 1, 2), "plain array"),
], ids=range(15))  # fmt: skip
def test_what_has_no_rule_is_refused_by_name(call, name):
    with pytest.raises(InputError, match=rf"tracked: .*{name}.*: no rule, the noise would be lost; .* give \.values"):
        call(tracked([1.0, 2.0, 3.0]))


@pytest.mark.parametrize(("make", "message"), [
    (lambda: tracked(["a"]), "expected real numbers"), (lambda: tracked([1j]), "expected real numbers"),
    (lambda: tracked(np.array([2**63 + 1], np.uint64)), "expected real numbers that float64 holds"),
    (lambda: tracked([1.0], bits=3, error=1.0), "neither or both"), (lambda: tracked([1.0], error=-1.0), "negative"),
    (lambda: tracked([1.0, 2.0], bits=[1, 2, 3]), "of shape"), (lambda: tracked([1.0], numbers=("sure",)), "'sure'"),
    (lambda: tracked([1.0]) + tracked([1.0], numbers=("safe",)), "give both the same numbers="),
    (lambda: tracked([1.0]).astype(int), "expected float32 or float64"),
    (lambda: tracked([1.0]) + 1j, "got a result of complex128"),
], ids=range(10))  # fmt: skip
def test_bad_input_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@in_both_types
@pytest.mark.parametrize("kept", [LABELS, ("safe",), ("expected", "certain_noise")], ids=len)
def test_files_and_copies_keep_noise(kept, dtype, tmp_path):
    x = np.exp(tracked(numbers(3, 4, dtype=dtype), bits=11, numbers=kept))
    x.save(tmp_path / "x.npz")
    exact = tracked(2.0, numbers=kept)
    exact.save(tmp_path / "exact.npz")
    for again in (Tracked.load(tmp_path / "x.npz"), copy.deepcopy(x), pickle.loads(pickle.dumps(x)), x.copy()):
        assert same(again.values, x.values) and again.numbers == kept
        for label in kept:
            assert np.array_equal(getattr(again, label), getattr(x, label))
        assert same((again * 2).values, (x * 2).values)
    assert Tracked.load(tmp_path / "exact.npz").reading.noise == dict.fromkeys(kept)
    with pytest.raises(AttributeError, match="was not tracked"):
        x.reading.bits(next(label for label in (*LABELS, "none") if label not in kept))


@pytest.mark.parametrize("damage", [
    lambda parts: parts.pop("values"), lambda parts: parts.update(numbers=np.array(["sure"])),
    lambda parts: parts.update(noise_safe=-parts["noise_safe"]), lambda parts: parts.update(noise_safe=np.ones(7)),
    lambda parts: parts.update(values=np.array(["a"])),
], ids=range(5))  # fmt: skip
def test_a_damaged_file_is_refused(damage, tmp_path):
    path = tmp_path / "x.npz"
    tracked([1.0, 2.0], bits=3).save(path)
    parts = dict(np.load(path))
    damage(parts)
    np.savez(path, **parts)
    with pytest.raises(InputError, match=r"x\.npz: got .*; expected an \.npz of Tracked\.save; write it again"):
        Tracked.load(path)
    path.write_bytes(b"no file of numpy")
    with pytest.raises(InputError, match="got no tracked array"):
        Tracked.load(path)


def test_printed_digits_that_are_not_claimed_are_question_marks():
    text = repr(tracked([1 / 3, 2.0], bits=[10, 20]))
    assert text.splitlines() == [
        "digits claimed by safe (upper bound of the error); ? is not claimed",
        "[3.3??????????????e-01, 2.0000???????????e+00]",
    ]
    assert "expected" in tracked([1.0]).reading.shown("expected")


@in_both_types
def test_an_array_full_of_a_number_is_off_by_its_conversion(dtype):
    x = tracked(numbers(2, 3, dtype=dtype), bits=10)
    found = np.full_like(x, 0.1)
    assert found.values.dtype == dtype and same(found.values, np.full_like(x.values, 0.1))
    assert is_covered(found, [mpmath.mpf(0.1)] * 6) and np.all(found.bound < 1e-8)
    assert np.all((found.bound > 0) == (dtype is np.float32))
    assert is_covered(found + found, [2 * mpmath.mpf(0.1)] * 6)
    assert np.all(np.full_like(x, 2).bound == 0) and np.all(np.full_like(x, dtype(0.1)).bound == 0)


def test_it_does_not_mix_with_tracking_around_it():
    x = tracked(numbers(5), bits=11)
    alone = np.log(x * x + 1).sum()
    with track() as bits:
        within = np.log(x * x + 1).sum()
        assert bits.entries == 0 and not bits.shadowed
    assert same(within.values, alone.values) and within.bound == alone.bound
