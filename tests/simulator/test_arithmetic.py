"""MAC specs and the front doors matmul and dot: grammar, shapes, addends, types, error texts."""

import numpy as np
import pytest

import simulator
from simulator.arithmetic import Chunk, Exact, Fma, Late, Seq
from simulator.arithmetic.lowering import lower
from simulator.arithmetic.spec import float32_holds
from tests.oracles.bits import assert_same_bits, operands_of
from tests.oracles.kernel_cases import definition
from tests.oracles.operands import addend, finite

SEED = 600

CANONICAL = {
    "fma(fp16)": "fma(fp16)",
    " fma( fp16 ) ": "fma(fp16)",
    "fma(e5m10/rne/ieee)": "fma(fp16)",
    "seq(fp16)": "seq(fp16)",
    "seq(fp16,fp16)": "seq(fp16)",
    "seq(fp8_e5m2, fp16)": "seq(fp8_e5m2, fp16)",
    "seq(exact, fp16)": "fma(fp16)",
    "exact(fp32)": "exact(fp32)",
    "chunk(8,fma(fp8_e4m3/sat),seq(fp16))": "chunk(8, fma(fp8_e4m3/sat), seq(fp16))",
    "late(chunk(8, fma(fp16), seq(fp16)))": "late(chunk(8, fma(fp16), seq(fp16)))",
    "chunk(64, chunk(8, fma(fp16), seq(fp16)), chunk(2, seq(bf16), seq(fp32)))": None,
    "fp8_e4m3 -> fma(fp16)": "fp8_e4m3 -> fma(fp16)",
    "fp8_e4m3*fp8_e4m3 -> fma(fp16)": "fp8_e4m3 -> fma(fp16)",
    "fp8_e4m3/sat * fp8_e5m2 -> fma(fp16) -> bf16/sat": "fp8_e4m3/sat*fp8_e5m2 -> fma(fp16) -> bf16/sat",
    "fma(fp16) -> fp16": "fma(fp16) -> fp16",
    "late(exact(fp16)) -> fp32": "late(exact(fp16)) -> fp32",
}


@pytest.mark.parametrize(("text", "printed"), CANONICAL.items())
def test_a_spec_prints_in_its_canonical_form_and_reads_back(text, printed):
    spec = simulator.mac(text)
    assert str(spec) == (printed or text)
    assert simulator.mac(str(spec)) == spec
    assert hash(simulator.mac(str(spec))) == hash(spec)


YAML = {
    "fma(fp16)": {"accumulator": {"fma": "fp16"}},
    "seq(fp16)": {"accumulator": {"seq": "fp16"}},
    "seq(fp8_e5m2, fp16)": {"accumulator": {"seq": "fp16", "product": "fp8_e5m2"}},
    "exact(fp32) -> bf16": {"accumulator": "exact(fp32)", "output": "bf16"},
    "chunk(128, fma(fp16), seq(fp32))": {"accumulator": {"chunk": 128, "inner": "fma(fp16)", "outer": {"seq": "fp32"}}},
    "late(chunk(8, fma(fp16), seq(fp16)))": {
        "accumulator": {"late": {"chunk": "8", "inner": {"fma": "fp16"}, "outer": "seq(fp16)"}}
    },
    "fp8_e4m3*fp8_e5m2 -> fma(fp16) -> bf16": {
        "operands": ["fp8_e4m3", "fp8_e5m2"], "accumulator": "fma(fp16)", "output": "bf16",
    },
    "fp8_e4m3 -> fma(fp16)": {"operands": "fp8_e4m3", "accumulator": "fma(fp16)", "output": None},
}  # fmt: skip


@pytest.mark.parametrize("text", YAML)
def test_the_yaml_form_means_the_same_as_the_string(text):
    assert simulator.mac(YAML[text]) == simulator.mac(text)


def test_records_are_specs_too():
    use = simulator.mac("fma(fp16)").result
    assert simulator.mac(Fma(use)) == simulator.mac("fma(fp16)")
    nested = Late(Chunk(2, Seq(use, use), Fma(use)))
    assert simulator.mac(nested) == simulator.mac("late(chunk(2, seq(fp16), fma(fp16)))")
    spec = simulator.mac("exact(fp16)")
    assert simulator.mac(spec) is spec
    assert isinstance(spec.accumulator, Exact)


WRONG = {
    "fna(fp16)": "accumulator 'fna' is unknown; did you mean fma?",
    "quire(fp16)": "accumulator 'quire' is unknown; expected one of fma, seq, tree, interleave, chunk, reverse,",
    "fma": "'fma': expected fma(sum, products?)",
    "fma(fp16": "'fma(fp16': expected fma(sum, products?)",
    "fma(fp16))": "unbalanced parentheses",
    "chunk(2, fma(fp16, seq(fp16))": "unbalanced parentheses",
    "fma(fp16, fp16)": "fma: products: got 'fp16'; expected a whole number",
    "kahan(fp16, fp16)": "'kahan(fp16, fp16)': expected kahan(sum); 'fp16' is too much",
    "kahan()": "'kahan()': an argument is empty; expected kahan(sum)",
    "seq(fp16, fp16, fp16)": "expected seq(product?, sum); 'fp16' is too much",
    "chunk(8, fma(fp16))": "chunk: outer is missing; expected chunk(length, inner, outer)",
    "chunk(x, fma(fp16), seq(fp16))": "chunk: length: got 'x'; expected a whole number",
    "chunk(0, fma(fp16), seq(fp16))": "chunk: the length of a run: got 0; expected a whole number from 1 to 2**63 - 1",
    "chunk(-1, fma(fp16), seq(fp16))": "chunk: the length of a run: got -1; expected a whole number from 1 to 2**63 -",
    "chunk(2, late(fma(fp16)), seq(fp16))": "chunk: write late(chunk(...))",
    "interleave(2, fma(fp16), late(fma(fp16)))": "interleave: write late(interleave(...))",
    "fma(mxfp8_e4m3)": "mxfp8_e4m3: accumulators and outputs are single values",
    "mxfp8_e4m3/sr -> fma(fp32)": "mxfp8_e4m3/sr: values that share scales are not rounded stochastically in a MAC",
    "late(late(fma(fp16)))": "late(late(...)) says the same thing twice; write late once",
    "fma(e4m3)": "format 'e4m3' is ambiguous",
    "fma(fp16/up)": "'up' is not expected there",
    "fp16 -> fp16": "accumulator 'fp16' is unknown",
    "fp16*fp16*fp16 -> fma(fp16)": "operands: got 'fp16*fp16*fp16'; expected one format, or two for a and b",
    "fp16 -> fma(fp16) -> fp16 -> fp16": "is no MAC; write [OPERANDS ->] ACCUMULATOR [-> OUTPUT]",
    "": "is no MAC",
    "fp17 -> fma(fp16)": "format 'fp17' is unknown; did you mean fp16",
    **dict.fromkeys(
        (
            "fma(binary16p1se)", "seq(binary16p1se, fp32)", "chunk(2, fma(fp16), seq(binary16p1se/sat))",
            "exact(binary16p1se)", "binary16p1se -> fma(fp32)", "fp16*binary16p1se -> fma(fp32)",
            "fma(fp32) -> binary16p1se",
        ),
        "binary16p1se has values that float64, in which arrays are kept, does not hold; take a format of a narrower",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), WRONG.items())
def test_a_wrong_spec_is_refused_with_the_part_that_is_wrong(text, message):
    with pytest.raises(ValueError) as caught:
        simulator.mac(text)
    assert message in str(caught.value)


WRONG_YAML = [
    ({"acumulator": "fma(fp16)"}, 'acumulator: unknown key; did you mean "accumulator"?'),
    ({"zzz": 1, "accumulator": "fma(fp16)"}, "zzz: unknown key; expected operands, accumulator, output"),
    ({"output": "fp16"}, "accumulator: missing; a MAC needs one, e.g. fma(fp16)"),
    ({"accumulator": {"chunk": 8, "inner": "fma(fp16)"}}, "chunk: outer is missing"),
    ({"accumulator": {"fma": "fp16", "product": "fp16"}}, "fma: unknown key 'product'; expected products"),
    ({"accumulator": {"chunk": 8, "iner": 1}}, "chunk: unknown key 'iner'; expected inner, outer"),
    ({"accumulator": {"sum": "fp16"}}, "accumulator: got sum; expected one of the keys fma, seq, tree, interleave"),
    ({"accumulator": {"chunk": True, "inner": "fma(fp16)", "outer": "fma(fp16)"}}, "got True; expected a whole number"),
    ({"accumulator": {"chunk": 2.5, "inner": "fma(fp16)", "outer": "fma(fp16)"}}, "got 2.5; expected a whole number"),
    (
        {"accumulator": "fma(fp16)", "operands": ["fp16"] * 3},
        "operands: got ['fp16', 'fp16', 'fp16']; expected one format, or two for a and b",
    ),
]


@pytest.mark.parametrize(("form", "message"), WRONG_YAML, ids=lambda v: str(v)[:40])
def test_a_wrong_mapping_is_refused_with_the_key_that_is_wrong(form, message):
    with pytest.raises(ValueError) as caught:
        simulator.mac(form)
    assert message in str(caught.value)


def test_other_types_are_refused_by_name():
    with pytest.raises(TypeError, match="got int; expected a MAC as string or mapping"):
        simulator.mac(16)
    with pytest.raises(TypeError, match="got list; expected an accumulator as string or mapping"):
        simulator.mac({"accumulator": ["fma"]})


def test_too_many_parts_for_the_engine_are_refused_with_the_count():
    text = "fma(fp16)"
    for _ in range(8):
        text = f"chunk(2, {text}, seq(fp16))"
    with pytest.raises(ValueError, match="17 parts; the engine takes at most 15"):
        lower(simulator.mac(text).accumulator)


# --- matmul ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small():
    return finite("fp16", (4, 6), SEED), finite("fp16", (6, 5), SEED + 1), addend("fp16", (4, 5), SEED + 2)


@pytest.mark.parametrize(
    ("spec", "dtype"),
    [
        ("fma(fp16)", np.float32), ("fma(fp32)", np.float32), ("fma(fp64)", np.float64), ("exact(fp16)", np.float32),
        ("fma(fp64) -> fp16", np.float32), ("fma(fp16) -> fp64", np.float64), ("late(fma(bf16)) -> fp64", np.float64),
        ("fma(e9m5)", np.float64), ("fma(e8m24)", np.float64), ("seq(fp8_e4m3fnuz)", np.float32),
        ("fma(fp32:ftz)", np.float32), ("exact(fp64)", np.float64),
    ],
)  # fmt: skip
def test_the_result_is_float32_if_that_holds_the_output_format(spec, dtype, small):
    a, b, c = small
    y = simulator.matmul(a, b, mac=spec, c=c)
    assert y.dtype == dtype
    assert float32_holds(simulator.mac(spec).result.format) == (dtype == np.float32)
    assert_same_bits(y, definition(spec, a, b, c)[0], operands_of(a, b, c), f"{spec} seed {SEED}")


@pytest.mark.parametrize("spec", ["fma(fp16)", "late(seq(bf16))", "exact(fp32)", "chunk(2, fma(fp16), seq(fp32))"])
def test_the_addend_broadcasts_to_the_output(spec, small):
    a, b, _ = small
    for c in (0.3, np.array(0.3), np.arange(5) / 7, np.arange(4).reshape(4, 1) / 7, np.ones((1, 5), np.float32) / 3):
        wide = np.broadcast_to(np.asarray(c, np.float64), (4, 5))
        assert_same_bits(simulator.matmul(a, b, spec, c=c), definition(spec, a, b, wide)[0], note=f"{spec} {c}")


def test_early_and_late_addends_differ_where_they_should():
    a, b = np.full((1, 2), 2.0**-11), np.ones((2, 1))
    assert simulator.matmul(a, b, "fma(fp16)", c=1.0).item() == 1.0
    assert simulator.matmul(a, b, "late(fma(fp16))", c=1.0).item() == 1 + 2.0**-10
    y, stats = simulator.matmul(a, b * 2.0**30, "late(fma(fp16/sat))", c=-65504.0, stats=True)
    assert (y.item(), stats.overflows) == (0.0, 1)


def test_an_empty_inner_product_is_the_addend_or_plus_zero():
    a, b = np.zeros((3, 0)), np.zeros((0, 2))
    c = np.array([[-0.0, 1.1], [np.inf, 1e9], [0.0, -3.3]])
    for spec in ("fma(fp16)", "seq(fp16/sat)", "exact(fp16)", "chunk(3, fma(fp16), seq(bf16))", "late(fma(bf16))"):
        assert_same_bits(simulator.matmul(a, b, spec), np.zeros((3, 2)), note=spec)
        assert_same_bits(simulator.matmul(a, b, spec, c=c), definition(spec, a, b, c)[0], note=spec)


@pytest.mark.parametrize(("m", "k", "n"), [(0, 3, 4), (4, 3, 0), (0, 0, 0), (0, 3, 0), (2, 0, 0)])
def test_empty_outputs_keep_their_shape(m, k, n):
    for spec in ("fma(fp16)", "exact(fp16)", "late(seq(fp16)) -> fp64", "fp8_e4m3 -> fma(fp64)"):
        y, stats = simulator.matmul(np.zeros((m, k)), np.zeros((k, n)), spec, c=np.zeros(n), stats=True)
        assert y.shape == stats.overflowed.shape == (m, n)
        assert y.dtype == simulator.mac(spec).dtype


def test_integers_and_narrow_floats_are_taken_exactly():
    rng = np.random.default_rng(SEED)
    a, b = rng.integers(-9, 9, (3, 4)), rng.integers(0, 9, (4, 2))
    expected = definition("fma(fp16)", a.astype(float), b.astype(float))[0]
    for left, right in (("i1", "u1"), ("i8", "i4"), ("f2", "f8"), ("f4", "u2"), (">f4", ">f8"), (">i4", "f4")):
        y = simulator.matmul(a.astype(left), b.astype(right), "fma(fp16)")
        assert_same_bits(y, expected, note=f"{left} {right}")
    assert_same_bits(simulator.matmul(a.tolist(), b.tolist(), "fma(fp16)"), expected)
    assert_same_bits(simulator.matmul(a, b, "fma(fp16)", c=np.arange(2)), expected + np.arange(2))


@pytest.mark.parametrize("x", [2.0**-150, 3 * 2.0**-151, 2.0**128, 1 + 2.0**-24, 2.0**24 + 1, 2.0**-149, 2.0**127])
def test_doubles_that_float32_cannot_hold_are_taken_exactly(x):
    """One step below, above and finer than float32, which narrows operands only where that is exact."""
    for a, b in ((x, 1.0), (1.0, x)):
        assert_same_bits(simulator.matmul([[a]], [[b]], "fma(fp64)"), [[x]])
        assert_same_bits(simulator.matmul([[a, 0.5]], [[b], [2.0]], "exact(fp64)", c=-1.0), [[x]])


def test_strides_of_operands_and_addend_do_not_matter(small):
    a, b, c = small
    expected = simulator.matmul(a, b, "fma(fp16)", c=c)
    views = [
        (np.asfortranarray(a), np.asfortranarray(b), np.asfortranarray(c)),
        (a[::-1][::-1], b[:, ::-1][:, ::-1], c[::-1, ::-1][::-1, ::-1]),
        (np.repeat(a, 2, 1)[:, ::2], np.repeat(b, 3, 0)[::3], np.repeat(c, 2, 0)[::2]),
        (a.astype(np.float32).T.copy().T, b, c),
    ]
    for x, y, z in views:
        assert_same_bits(simulator.matmul(x, y, "fma(fp16)", c=z), expected)
        assert_same_bits(simulator.matmul(x, y, "fp16 -> fma(fp16)", c=z), expected)
    unaligned = np.frombuffer(b"\0" + a.astype(np.float32).tobytes(), np.float32, offset=1).reshape(a.shape)
    assert not unaligned.flags.aligned
    assert_same_bits(simulator.matmul(unaligned, b, "fma(fp16)", c=c), expected)


def test_operands_are_quantised_to_the_formats_named():
    rng = np.random.default_rng(SEED)
    a, b = rng.standard_normal((3, 5)), rng.standard_normal((5, 4))
    spec = "fp8_e4m3*fp8_e5m2 -> fma(fp16)"
    assert_same_bits(simulator.matmul(a, b, spec), definition(spec, a, b)[0], operands_of(a, b), f"seed {SEED}")
    assert_same_bits(simulator.matmul(a.T.copy().T, np.asfortranarray(b), spec), definition(spec, a, b)[0])


def test_stats_count_outputs_that_overflowed_and_change_no_bit(small):
    a, b, c = small
    y = simulator.matmul(a * 300, b, "fma(fp8_e4m3/sat)", c=c)
    z, stats = simulator.matmul(a * 300, b, "fma(fp8_e4m3/sat)", c=c, stats=True)
    flags = definition("fma(fp8_e4m3/sat)", a * 300, b, c)[1]
    assert_same_bits(z, y)
    assert stats.overflowed.tolist() == flags.tolist()
    assert stats.overflows == int(flags.sum()) > 0
    assert stats.kernel


BAD_CALLS = [
    (lambda: simulator.matmul(np.ones((2, 3)), np.ones((2, 3)), "fma(fp16)"), ValueError,
     r"matmul: a \(2, 3\) and b \(2, 3\) do not fit; expected \(M, K\) and \(K, N\)"),
    (lambda: simulator.matmul(np.ones(3), np.ones((3, 1)), "fma(fp16)"), ValueError, r"a \(3,\) and b \(3, 1\)"),
    (lambda: simulator.matmul(np.ones((2, 3)), np.ones((3, 2)), "fma(fp16)", c=np.ones(3)), ValueError,
     r"c \(3,\) does not broadcast to the output's shape \(2, 2\)"),
    (lambda: simulator.matmul(np.ones((1, 1)), np.ones((1, 1)), "fma(fp16)", threads=0), ValueError,
     "threads: got 0; expected a whole number from 1"),
    (lambda: simulator.matmul([["x"]], np.ones((1, 1)), "fma(fp16)"), TypeError,
     "a: got an array of dtype <U1; expected floats"),
    (lambda: simulator.matmul(np.ones((1, 1)), [[1j]], "fma(fp16)"), TypeError,
     "b: got an array of dtype complex128; expected floats"),
    (lambda: simulator.matmul(np.ones((1, 1)), np.ones((1, 1)), "fma(fp16)", c="x"), TypeError,
     "c: got an array of dtype <U1; expected"),
    (lambda: simulator.matmul([[np.nan]], [[1.0]], "fp4_e2m1 -> fma(fp16)"), ValueError,
     "fp4_e2m1 has no NaN, and an operand holds one"),
    (lambda: simulator.matmul([[2**60 + 1]], [[1]], "fma(fp16)"), TypeError, r"a: got 64-bit integers beyond 2\*\*53"),
    (lambda: simulator.dot(1.0, 2.0, "fma(fp16)"), ValueError, r"dot: a \(\) and b \(\) do not fit"),
    (lambda: simulator.dot(np.ones((3, 1)), np.ones((3, 4)), "fma(fp16)"), ValueError,
     r"dot: a \(3, 1\) and b \(3, 4\) do not fit; expected \(\.\.\., K\) and \(\.\.\., K\)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS, ids=[message[:30] for _, _, message in BAD_CALLS])
def test_operands_that_do_not_fit_are_refused_with_what_was_found(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- dot -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["fma(fp16)", "late(seq(bf16))", "exact(fp32)", "chunk(2, fma(fp16), seq(fp32))"])
def test_dot_is_the_diagonal_of_matmul(spec):
    a, b, c = finite("fp16", (2, 3, 7), SEED), finite("fp16", (2, 3, 7), SEED + 1), addend("fp16", (2, 3), SEED)
    y = simulator.dot(a, b, spec, c=c)
    flat = definition(spec, a.reshape(6, 7), b.reshape(6, 7).T, c.reshape(6, 1))[0]
    assert_same_bits(y, np.diagonal(flat).reshape(2, 3), note=f"{spec} seed {SEED}")


def test_dot_broadcasts_leading_axes():
    a, b = finite("fp16", (4, 1, 5), SEED), finite("fp16", (3, 5), SEED + 1)
    y = simulator.dot(a, b, "fma(fp16)", c=np.arange(3))
    assert y.shape == (4, 3)
    for i in range(4):
        for j in range(3):
            one = simulator.dot(a[i, 0], b[j], "fma(fp16)", c=float(j))
            assert_same_bits(y[i, j], one, note=f"{i} {j} seed {SEED}")


def test_dot_of_vectors_is_a_scalar_array():
    y = simulator.dot([1.0, 2.0], [3.0, 4.0], "fma(fp16)", c=0.5)
    assert (y.shape, y.dtype, float(y)) == ((), np.float32, 11.5)


def test_dot_takes_empty_inner_and_leading_axes():
    assert_same_bits(simulator.dot(np.zeros((3, 0)), np.zeros((3, 0)), "fma(fp16)", c=[1.0, -0.0, 2.1]),
                     [1.0, -0.0, float(np.float16(2.1))])  # fmt: skip
    assert simulator.dot(np.zeros(0), np.zeros(0), "seq(fp16)").shape == ()
    assert simulator.dot(np.zeros((0, 4)), np.zeros((0, 4)), "exact(fp16)", c=0.0).shape == (0,)
    assert simulator.dot(np.zeros((2, 0, 4)), np.zeros((0, 4)), "late(fma(fp16))", c=np.zeros(0)).shape == (2, 0)


def test_dot_of_many_rows_does_not_build_a_square():
    """The addend of n rows is n values, not n * n of them."""
    n = 300_000
    a = np.broadcast_to(np.array([1.0, 2.0]), (n, 2))
    y = simulator.dot(a, a, "fma(fp16)", c=np.arange(n) % 16)
    assert_same_bits(y[:16], 5.0 + np.arange(16))
    assert y.shape == (n,)
