"""The contract of the engine: whatever the accumulator, the bits, flags and counts of the definition.

Every kernel whose condition holds, on every instruction set, dense and listed, for any threads and any split.
"""

from __future__ import annotations

import math
from itertools import pairwise, product

import numpy as np
import pytest

import formats
import native
import simulator
from formats.philox import word
from native import matmul as engine
from simulator.arithmetic import reference
from simulator.arithmetic.engine import Accumulation, random_key
from simulator.arithmetic.kernels import KERNELS
from simulator.arithmetic.places import Place
from simulator.arithmetic.spec import MacSpec
from tests.oracles.bits import assert_same_bits, operands_of
from tests.oracles.operands import KINDS, addend, anything, structured
from tests.oracles.specs import CODEBOOKS, SPECS, STOCHASTIC

SEED = 900
ISAS = native.available_isas()
SLOW = ("definition",)


def runs(spec, a, b, c=None, threads=1, key=None):
    """Yield (accumulation, text) for each kernel of the engine that holds, on each instruction set."""
    for isa in ISAS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ULPSIM_ISA", isa)
            work = Accumulation(spec, a, b, c, threads, key)
            situation = work.situation
            for kernel in KERNELS:
                # Scalar integers are the same code on every set: one of them is enough.
                again = kernel.name == "integer_any" and isa != ISAS[0]
                if kernel.name in SLOW or again or not all(clause.holds for clause in kernel.condition(situation)):
                    continue
                work.kernel = kernel
                yield work, f"{spec} by {kernel.name} on {isa}, seed {SEED}"


def defined(spec, a, b, c, key=None):
    """Return (values, overflow flags) by the reference; the outputs lie where a key of random words has them."""
    m, n = a.shape[0], b.shape[1]
    addends = None if c is None else np.broadcast_to(c, (m, n))
    rows, cols = a.tolist(), b.T.tolist()
    values, flags = np.empty((m, n)), np.empty((m, n), bool)
    for i, j in np.ndindex(m, n):
        place = Place() if key is None else Place(key.first // n + i, j, n, key.seed, key.step, key.site)
        start = None if addends is None else float(addends[i, j])
        values[i, j], flags[i, j] = reference.dot(spec, rows[i], cols[j], start, place)
    return values, flags


def check(spec, a, b, c=None, key=None, threads=1):
    """All kernels, dense and listed, against the definition."""
    values, flags = defined(spec, a, b, c, key)
    of = operands_of(a, b, c)
    m, n = values.shape
    outputs = tuple(np.random.default_rng(SEED).integers(0, (m, n), (m + n, 2)).T) if m and n else None
    for work, note in runs(spec, a, b, c, threads, key):
        y, stats = work.dense("overflows")
        assert_same_bits(y, values, of, note)
        assert_same_bits(stats.overflowed, flags, of, f"overflow flags, {note}")
        if outputs:
            z, listed = work.listed(outputs, overflows=True)
            assert_same_bits(z, values[outputs], note=f"listed, {note}")
            assert_same_bits(listed.overflowed, flags[outputs], note=f"listed overflow flags, {note}")


# --- 8-bit operands, exhaustively ------------------------------------------------------------------------------------

# Sums of single products depend on the product alone, which is why the definition is asked once for each product.
STEPS = {
    "fp8_e4m3": "fma(fp16)  fma(fp8_e4m3)  fma(fp8_e4m3/sat)  seq(fp16)  seq(fp8_e4m3/rz, fp16)  fma(bf16/ru)  "
    "fma(e5m2:ftz)  fma(posit16)  seq(posit8)  tree(fp16)  exact(bf16)  kahan(fp8_e4m3)  neumaier(fp8_e4m3/sat)  "
    "fixed(12, 4, wrap)  fma(fp16/sr:6)",
    "fp8_e5m2": "fma(fp16)  fma(fp8_e5m2)  fma(fp8_e5m2/odd)  seq(fp8_e5m2)  fma(bf16)  fma(posit8)  exact(fp16)  "
    "fma(takum16)  fixed(16, 8, sat, rna)  tree(fp8_e5m2, 2, leaves=exact)  fma(fp32)",
    "posit8": "fma(posit8)  seq(posit8)  fma(fp16)  seq(fp16)  exact(posit16)  fixed(24, 12, wrap, rd)  fma(posit16)",
    "int8": "fixed(16, 0, wrap)  fixed(12, 0, sat)  fixed(12, 0, track)  fma(int16/wrap)  seq(fp16)  fma(fp16)  "
    "exact(int32)  fma(bf16)",
    "binary8p3se": "fma(binary8p3se)  seq(fp16)  fma(fp8_e4m3fnuz/sat)  fma(fp16)",
}


def states_of(spec: MacSpec, many: bool) -> list[float | None]:
    """Addends: every fourth value of formats of 8 bits, or the structured ones."""
    fmt = spec.result.format
    if many and fmt.bits <= 8:
        return [None, *fmt.table()[3::4].tolist()]
    half = fmt.quantize(1 / 3).item()
    ends = [fmt.max, -fmt.max, fmt.smallest_subnormal, -3 * fmt.smallest_subnormal, 1.0, -half, -0.0]
    return [None, *(fmt.quantize(x, overflow="sat").item() if x else x for x in ends), 17.0]


def products_of(name: str):
    """Return all codes' values as a column and a row, one pair for each product, and which of them each pair has."""
    values = formats.get(name).table()
    values = values[:: 1 if values.size <= 256 else values.size // 256]
    a, b = np.meshgrid(values, values, indexing="ij")
    with np.errstate(invalid="ignore"):
        exact = a * b
    exact[np.isnan(exact)] = math.nan
    _, first, which = np.unique(exact.view(np.int64), return_index=True, return_inverse=True)
    return values, a.ravel()[first].tolist(), b.ravel()[first].tolist(), which.reshape(a.shape)


def all_products(name, text, many):
    spec = simulator.mac(text)
    values, a, b, which = products_of(name)
    states = states_of(spec, many)
    if len(a) > 5000 and not many:
        states = states[::4]  # int8 has many different products
    stochastic = any(use.mode.stochastic for use in simulator.arithmetic.accumulators.uses(spec.accumulator))
    for c in states:
        if stochastic:  # every output has words of its own: few of them, by the definition
            some = np.random.default_rng(SEED).permutation(values.size)[:24]
            check(spec, values[some, None], values[None, some], c, random_key(SEED, 1, 2, 3, some.size))
            continue
        results = [reference.dot(spec, [x], [y], c) for x, y in zip(a, b, strict=True)]
        expected = np.array([value for value, _ in results])[which]
        flags = np.array([flag for _, flag in results])[which]
        for work, note in runs(spec, values[:, None], values[None, :], None if c is None else np.array(c)):
            y, stats = work.dense("overflows")
            of = operands_of(values[:, None], values[None, :])
            assert_same_bits(y, expected, of, f"c={c} {name} {note}")
            assert_same_bits(stats.overflowed, flags, of, f"overflow flags, c={c} {name} {note}")


def step_cases():
    return [(name, text.strip()) for name, texts in STEPS.items() for text in texts.split("  ")]


@pytest.mark.parametrize(("name", "text"), step_cases())
def test_all_pairs_of_8_bit_codes_on_structured_states(name, text):
    all_products(name, text, many=False)


@pytest.mark.full
@pytest.mark.parametrize(("name", "text"), step_cases())
def test_full_all_pairs_of_8_bit_codes_on_a_quarter_of_all_states(name, text):
    """4.2 million sums a kernel where the state has 8 bits."""
    all_products(name, text, many=True)


def grid(name: str, count: int) -> list[float]:
    """Values of a format from its smallest to its largest, and what surprises: zeros, ends, neighbours of 1."""
    values = formats.get(name).table()
    finite = np.unique(values[np.isfinite(values)])
    one = int(np.searchsorted(finite, 1.0))
    near = [one, one + 1, finite.size - 1, 0, int(np.searchsorted(finite, 0.0)) + 1]
    spread = np.linspace(0, finite.size - 1, max(0, count - len(near) - 1)).astype(int)
    return [-0.0, *finite[near].tolist(), *finite[spread].tolist()][:count]


PAIRS = [text for text in SPECS if "takum" not in text]


def two_terms(text, count):
    for name in ("fp8_e4m3", "fp8_e5m2") if count > 6 else ("fp8_e4m3",):
        two = np.array(list(product(grid(name, count), repeat=2)))
        check(simulator.mac(text), two, np.ascontiguousarray(two.T))


@pytest.mark.parametrize("text", PAIRS)
def test_sums_of_two_products_on_a_grid(text):
    two_terms(text, 5)


@pytest.mark.full
@pytest.mark.parametrize("text", PAIRS)
def test_full_sums_of_two_products_on_a_grid(text):
    two_terms(text, 10)


# --- structured and random inner products ----------------------------------------------------------------------------


def operand_formats(turn):
    return ["fp8_e4m3", "fp16", "bf16", "fp8_e5m2", "fp32", "posit8"][turn % 6]


def random_products(spec, turn, shape=(2, 5)):
    """Inner products of every kind, lengths around the steps of accumulators, with and without an addend."""
    total = spec.result.format if isinstance(spec.result.format, formats.FloatFormat) else "fp16"
    for i, kind in enumerate(KINDS):
        k = (9, 1, 16, 0, 23, 2, 7, 33)[(turn + i) % 8]
        name = operand_formats(turn + i)
        fmt = formats.get("fp8_e4m3" if name == "posit8" else name)
        a, b = structured(kind, fmt, total, shape[0], shape[1], max(k, 1), SEED + turn)
        if name == "posit8":
            a, b = (formats.get(name).quantize(np.where(np.isfinite(x), x, 0.5)) for x in (a, b))
        c = None if (turn + i) % 3 == 0 else addend(total, shape, SEED + turn + i)
        key = random_key(SEED + turn, i, 5 + i, 3 * i, shape[1])
        yield a[:, :k], b[:k], c, key


@pytest.mark.parametrize("text", [*SPECS, *STOCHASTIC])
def test_inner_products_of_every_kind(text):
    turn = sum(map(ord, text))
    for a, b, c, key in random_products(simulator.mac(text), turn):
        check(simulator.mac(text), a, b, c, key)


@pytest.mark.parametrize("spec", CODEBOOKS, ids=str)
def test_codebooks_are_what_the_definition_says(spec):
    for a, b, c, key in random_products(spec, len(str(spec))):
        values, flags = defined(spec, a, b, c)
        y, stats = Accumulation(spec, a, b, c, 2, key).dense("overflows")
        assert_same_bits(y, values, operands_of(a, b, c), str(spec))
        assert_same_bits(stats.overflowed, flags, note=str(spec))


@pytest.mark.full
@pytest.mark.parametrize("text", [*SPECS, *STOCHASTIC])
def test_full_many_inner_products_of_every_kind(text):
    for turn in range(12):
        for a, b, c, key in random_products(simulator.mac(text), turn, (6, 17)):
            check(simulator.mac(text), a, b, c, key, threads=1 + turn % 3)


@pytest.mark.parametrize("text", [t for t in SPECS if "wrap" in t or t.startswith(("exact", "tree", "fma(fp16, 4)"))])
def test_terms_of_the_ends_of_float32_and_float64(text):
    """Sums whose bits span hundreds of places: the largest beside the smallest, with and without cancellation."""
    rng = np.random.default_rng(SEED)
    for low, high in ((-140, 120), (-500, 500)):
        a = np.ldexp(rng.uniform(1, 2, (4, 9)), rng.integers(low, high, (4, 9))) * rng.choice([-1, 1], (4, 9))
        b = np.ldexp(rng.uniform(1, 2, (9, 3)), rng.integers(low, high, (9, 3)))
        a[:, 4:8], b[4:8] = -a[:, :4], b[:4]  # the last product is left
        check(simulator.mac(text), a, b, None)
        check(simulator.mac(text), np.exp2(rng.integers(low, high, (3, 5))), b[:5] / b[:5] * 2.0**-3, 1.0)


# --- the same bits however the work is cut ---------------------------------------------------------------------------

CUT = [
    "fma(fp16)", "seq(fp16)", "exact(fp16)", "fma(posit8)", "tree(fp16, 3)", "interleave(3, seq(fp16), kahan(bf16))",
    "chunk(5, fma(fp16), seq(fp16))", "neumaier(fp16)", "aligned(4, 8, fp16)", "fixed(12, 2, wrap)", "fma(fp16, 4)",
    "fma(fp16/sr)", "seq(fp8_e4m3/sr:4, fp16/sr)", "exact(fp32/sr:9)", "tree(fp16/sr) -> fp8_e5m2/sr:3",
    "late(fma(fp16/sr:3)) -> fp8_e4m3/sr:2", "fp8_e4m3/sr*fp16 -> fma(fp16/sr)", "fixed(12, 2, sat, sr:3)",
]  # fmt: skip


@pytest.mark.parametrize("text", CUT)
def test_threads_and_splits_of_rows_change_no_bit(text):
    m, n, k = 21, 37, 13
    a, b = structured("random", "fp16", "fp16", m, n, k, SEED)
    c = addend("fp16", (m, n), SEED)
    options = {"c": c, "seed": 7, "step": 3, "site": 11}
    whole, stats = simulator.matmul(a, b, text, threads=1, stats="overflows", first_row=5, **options)
    for threads in (2, 3, 7):
        y, counted = simulator.matmul(a, b, text, threads=threads, stats="overflows", first_row=5, **options)
        assert y.tobytes() == whole.tobytes() and np.array_equal(counted.overflowed, stats.overflowed), (text, threads)
    for cuts in ([0, 1, 8, m], [0, 20, m]):
        parts = [
            simulator.matmul(a[i:j], b, text, threads=2, first_row=5 + i, **{**options, "c": c[i:j]})
            for i, j in pairwise(cuts)
        ]
        assert np.concatenate(parts).tobytes() == whole.tobytes(), (text, cuts)
    if "sr" not in text:
        parts = [
            simulator.matmul(a, b[:, i:j], text, **{**options, "c": c[:, i:j]}) for i, j in pairwise([0, 1, 17, n])
        ]
        assert np.concatenate(parts, axis=1).tobytes() == whole.tobytes(), text


def test_rows_of_a_stack_are_rows_of_one_result():
    a, b = structured("random", "fp16", "fp16", 12, 5, 9, SEED)
    whole = simulator.matmul(a, b, "fma(fp16/sr)", seed=3)
    assert simulator.matmul(a.reshape(3, 4, 9), b, "fma(fp16/sr)", seed=3).reshape(12, 5).tobytes() == whole.tobytes()


# --- counts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*SPECS, *STOCHASTIC])
def test_counts_are_those_of_the_definition(text):
    """Sums of the counts of the outputs of 16 columns, whatever threads add them."""
    spec, turn = simulator.mac(text), sum(map(ord, text))
    segment = engine.COUNTED_COLUMNS
    for i, kind in enumerate(("large", "subnormal", "special", "random")):
        total = spec.result.format if isinstance(spec.result.format, formats.FloatFormat) else "fp16"
        a, b = structured(kind, operand_formats((turn + i) % 4), total, 2, segment + 3, (9, 20, 5, 1)[i], SEED + turn)
        c = None if i % 2 else addend(total, (2, segment + 3), SEED)
        key = random_key(SEED, 0, 1, 2, segment + 3)
        work = Accumulation(spec, a, b, c, 1 + i, key)
        plain = work.dense()[0]
        y, stats = work.dense(stats=True)
        assert y.tobytes() == plain.tobytes(), f"{text}: counting changed the bits"
        expected = np.zeros((2, 2), engine.COUNTS)
        for row, column in np.ndindex(y.shape):
            run = reference.Run(Place(2 + row, column, segment + 3, SEED, 0, 1), spec)
            start = None if c is None or work.late else float(np.broadcast_to(work.c, y.shape)[row, column])
            reference.accumulate(work.a[row].tolist(), work.b[:, column].tolist(), start, run)
            to = expected[row, column // segment]
            for name in ("overflows", "underflows", "swamped"):
                to[name] += getattr(run, name)
            to["largest"] = max(to["largest"], run.largest)
        for name in engine.COUNTS.names:
            assert stats.counts[name].tolist() == expected[name].tolist(), f"{text} {kind} {name}, seed {SEED}"


# --- stochastic rounding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", STOCHASTIC)
def test_no_two_roundings_of_an_output_share_a_random_word(text, monkeypatch):
    """Nor do those of neighbouring outputs, the conversions of operands and addend included."""
    seen = []

    def recorded(*key, real=word):
        seen.append(key)
        return real(*key)

    for module in (reference, reference.run):  # of operands, and of all else
        monkeypatch.setattr(module, "word", recorded)
    a, b = structured("random", "fp16", "fp16", 2, 2, 11, SEED)
    spec = simulator.mac(text)
    for i in (0, 1):  # on the diagonal, where outputs share no operand
        reference.dot(spec, a[i].tolist(), b[:, i].tolist(), 0.7, Place(i, i, 2, 1, 2, 3))
    assert len(seen) >= 2 and len(set(seen)) == len(seen), text


UNBIASED = [
    "fma(fp16/sr)", "fma(fp8_e4m3/sr)", "seq(fp8_e5m2/sr, fp16/sr)", "tree(fp8_e5m2/sr)", "fixed(12, 2, sat, sr)",
    "interleave(2, seq(fp8_e4m3/sr), fma(fp8_e4m3/sr))", "chunk(3, fma(fp8_e5m2/sr), exact(fp8_e5m2/sr))",
    "exact(fp8_e4m3/sr)", "fma(fp8_e4m3/sr, 2)", "aligned(4, 40, fp8_e4m3/sr)",
]  # fmt: skip


@pytest.mark.parametrize("text", UNBIASED)
def test_stochastic_sums_are_unbiased(text):
    """The mean over 4096 outputs of the same inner product lies within 5 standard errors of the exact sum."""
    rng = np.random.default_rng(SEED)
    x, y = (formats.get("fp8_e4m3").quantize(rng.uniform(0.4, 1.6, 8)) for _ in range(2))
    exact = float(np.dot(x, y))
    results = simulator.matmul(np.tile(x, (64, 1)), np.tile(y[:, None], 64), text, seed=SEED).astype(np.float64)
    error = results.mean() - exact
    assert results.std() > 0
    assert abs(error) < 5 * results.std() / math.sqrt(results.size), f"{text}: {error} of {exact}, seed {SEED}"


@pytest.mark.parametrize("bits", [1, 3])
def test_few_random_bits_are_biased_as_their_variants_say(bits):
    """Of a single product: variant a cuts the fraction to N bits, b adds half a unit; so the mean tells them apart."""
    a, b = np.full((128, 1), 1.0 + 2.0**-3), np.full((1, 128), 1.0 + 2.0**-4)  # 1.1953125: in fp8_e5m2 0.78125 of 1/4
    v = (1.1953125 - 1) * 4
    for variant in "ab":
        y = simulator.matmul(a, b, f"fma(fp8_e5m2/sr:{bits}:{variant})", seed=SEED).astype(float)
        if variant == "a":
            share = math.floor(v * 2**bits) / 2**bits
        else:
            share = (
                sum(math.floor(v * 2 ** (bits + 1)) + 2 * r + 1 >= 2 ** (bits + 1) for r in range(2**bits)) / 2**bits
            )
        got = (y > 1).mean()
        assert abs(got - share) <= 5 * math.sqrt(max(share * (1 - share), 1e-9) / y.size), (bits, variant)


# --- every kernel is met ---------------------------------------------------------------------------------------------


def test_this_suite_meets_every_kernel_of_the_engine():
    met = set()
    near = anything("fp4_e2m1", (2, 3), SEED), anything("fp4_e2m1", (3, 2), SEED)
    for text in [*SPECS, "seq(posit8)", "seq(fp32)", "fma(fp32)", "seq(e9m28)"]:
        met |= {work.kernel.name for work, _ in runs(simulator.mac(text), *near)}
    assert met == set(native.kernels())
