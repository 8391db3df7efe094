"""Every kernel equals the definition on every instruction set, dense and listed, with and without counting."""

import hashlib
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

import formats
import native
from native.matmul import Gathered, profile
from simulator.arithmetic import mac
from simulator.arithmetic.engine import Accumulation
from simulator.arithmetic.kernels import kernel_named
from tests.oracles.bits import assert_same_bits, digest, operands_of
from tests.oracles.kernel_cases import CASES, Case, definition, expected, forced, shortened

SEED = 100
# Beyond a tile in every direction; a long inner product, longer than the blocks in which listed operands are gathered;
# so few columns that they become rows.
SHAPES = [(3, 37, 9), (2, 3, 130), (5, 1, 1), (71, 3, 9)]

ids = {"ids": str}


def note(case, *rest):
    return f"{case} seed {SEED} {rest}"


def test_there_are_cases_for_every_kernel():
    assert {case.kernel for case in CASES} == set(native.kernels())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", CASES, **ids)
def test_dense_equals_the_definition(case, shape, isa):
    a, b, c = case.arrays(*shape, SEED)
    values, flags = expected(case, *shape, SEED)
    work = forced(case.kernel, case.spec, a, b, c)
    plain, none = work.dense()
    counted, stats = work.dense("overflows")
    of = operands_of(a, b, c)
    assert none is None
    assert_same_bits(plain, values, of, note(case, isa))
    assert_same_bits(counted, values, of, note(case, isa, "stats"))
    assert_same_bits(stats.overflowed, flags, of, note(case, isa, "overflow flags"))
    assert stats.kernel == case.kernel
    assert stats.overflows == int(flags.sum())


@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
@pytest.mark.parametrize("case", CASES, **ids)
def test_listed_equals_the_definition(case, shape, isa):
    """Outputs in a random order, some of them twice, in runs of one row and scattered."""
    a, b, c = case.arrays(*shape, SEED)
    values, flags = expected(case, *shape, SEED)
    rng = np.random.default_rng(SEED)
    picked = np.concatenate([rng.integers(0, values.size, 150), np.arange(values.size)])
    outputs = rows, columns = np.unravel_index(picked, values.shape)
    work = forced(case.kernel, case.spec, a, b, c)
    plain, none = work.listed(outputs)
    counted, stats = work.listed(outputs, overflows=True)
    text = operands_of(a, b, c)

    def of(place):
        return text((rows[place[0]], columns[place[0]]))

    assert none is None
    assert_same_bits(plain, values[outputs], of, note(case, isa))
    assert_same_bits(counted, values[outputs], of, note(case, isa, "stats"))
    assert_same_bits(stats.overflowed, flags[outputs], of, note(case, isa, "overflow flags"))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("case", [case for case in CASES if case.kernel.startswith("float")], **ids)
def test_listed_outputs_are_those_of_a_dense_product_however_many_there_are(case, threads, isa):
    """From scattered ones to nearly all, in order and out of it, over panels' edges; and longer than a panel of k's."""
    rng = np.random.default_rng(SEED)
    for shape, shares in (((45, 300, 20), (0.004, 0.1, 0.9)), ((3, 70, (1 << 13) + 19), (0.5,))):
        a, b, c = case.arrays(*shape, SEED)
        work = forced(case.kernel, case.spec, a, b, c, threads, check=False)
        if not all(clause.holds for clause in kernel_named(case.kernel).condition(work.situation)):
            continue  # of long sums
        values, stats = work.dense("overflows")
        for share in shares:
            ordered = np.nonzero(rng.random(values.shape) < share)
            shuffled = tuple(index[rng.permutation(ordered[0].size)] for index in ordered)
            for outputs in (ordered, shuffled):
                some, counted = work.listed(outputs, overflows=True)
                assert_same_bits(some, values[outputs], note=note(case, isa, shape, share))
                assert (counted.overflowed == stats.overflowed[outputs]).all(), note(case, isa, shape, share)


# --- counts ---------------------------------------------------------------------------------------------------------


def can_count(case):
    """Whether the kernel counts: exact lanes take fixed point, but do not see its steps, each of which counts."""
    blind = case.kernel.endswith("exact") and "fixed" in case.spec
    return kernel_named(case.kernel).counts and case.kernel != "integer_any" and not blind


COUNTED = [case for case in CASES if can_count(case)]
COUNTED_SHAPES = [*SHAPES, (21, 67, 33)]


@cache
def counted(case, shape):
    """Counts of a case by the integer kernel, over segments of 16 columns."""
    return forced("integer_any", case.spec, *case.arrays(*shape, SEED), check=False).dense(True)[1].counts


@pytest.mark.parametrize("shape", COUNTED_SHAPES, ids=str)
@pytest.mark.parametrize("case", COUNTED, **ids)
def test_lanes_count_what_the_integer_kernel_counts(case, shape, isa):
    a, b, c = case.arrays(*shape, SEED)
    for threads in (1, 3):
        work = forced(case.kernel, case.spec, a, b, c, threads)
        plain, _ = work.dense()
        y, stats = work.dense(True)
        assert stats.kernel == case.kernel
        assert_same_bits(y, plain, operands_of(a, b, c), note(case, isa, threads, "counting"))
        assert np.array_equal(stats.counts, counted(case, shape)), note(case, isa, threads)


def test_the_cases_count_everything():
    """Underflows only where they can be: posits have none, nor do sums in formats as wide as these operands allow; and
    exact sums swamp nothing."""
    never = {name: set() for name in ("overflows", "underflows", "swamped", "largest")}
    for name, kernels in never.items():
        met = {case.kernel for case in COUNTED if any(counted(case, shape)[name].any() for shape in COUNTED_SHAPES)}
        kernels.update({case.kernel for case in COUNTED} - met)
    wide = {"float64_fma", "float64_seq", "float64_fma_odd", "float64_seq_odd"}
    assert never.pop("underflows") <= wide | {"float32_posit_fma_odd", "float32_posit_seq_odd"}
    assert never == {"overflows": set(), "swamped": {"float32_exact", "float64_exact"}, "largest": set()}


# --- what a kernel leaves out where it is proved not to be needed ----------------------------------------------------

SHORTENED = [case for case in CASES if (k := kernel_named(case.kernel)).leaf in ("fma", "seq") and not k.posits]


def proved(case, shape):
    work = forced(case.kernel, case.spec, *case.arrays(*shape, SEED))
    return work, work.kernel.shortcuts(work.situation)


@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
@pytest.mark.parametrize("case", SHORTENED, **ids)
def test_shortcuts_change_no_bit(case, shape, isa):
    """Each of those proved, and every weaker one: tiles bounded, watched and quiet, watched and done again."""
    values, flags = expected(case, *shape, SEED)
    work, shortcuts = proved(case, shape)
    every = tuple(np.indices(values.shape).reshape(2, -1))
    for bounded in {False, shortcuts.bounded.holds}:
        for on_grid in range(shortcuts.on_grid + 1):
            text = note(case, isa, bounded, on_grid)
            counts = np.zeros_like(counted(case, shape))
            y, overflowed = shortened(work, bounded, on_grid, counts=counts)
            assert np.array_equal(counts, counted(case, shape)), text
            assert_same_bits(y, values, note=text)
            assert_same_bits(overflowed, flags, note=text)
            y, overflowed = shortened(work, bounded, on_grid)
            assert_same_bits(y, values, note=text)
            assert_same_bits(overflowed, flags, note=text)
            y, overflowed = shortened(work, bounded, on_grid, every)
            assert_same_bits(y, values.ravel(), note=text)
            assert_same_bits(overflowed, flags.ravel(), note=text)


def test_every_lane_kernel_is_tried_with_all_its_shortcuts_and_with_overflow():
    all_hold, overflow = set(), set()
    for case in SHORTENED:
        _, shortcuts = proved(case, SHAPES[0])
        if all(clause.holds for clause in shortcuts):
            all_hold.add(case.kernel)
        if expected(case, *SHAPES[0], SEED)[1].any():
            overflow.add(case.kernel)
    names = {case.kernel for case in SHORTENED}
    assert all_hold == names
    assert overflow == names


@pytest.mark.parametrize(
    "spec", ["fma(fp16)", "fma(fp16/sat)", "seq(fp16)", "chunk(3, fma(fp16/sat), seq(fp16/sat))", "fma(fp8_e5m2)"]
)
def test_tiles_that_overflow_and_tiles_that_do_not_follow_each_other(spec, isa):
    """Overflow in some rows only, early or late, hidden behind a NaN or an infinity of its own or of a neighbour."""
    m, n, k = 100, 5, 7
    rng = np.random.default_rng(SEED)
    a = formats.get("fp8_e4m3").quantize(rng.standard_normal((m, k)))
    b = formats.get("fp8_e4m3").quantize(rng.standard_normal((k, n)))
    b[:2] = 448.0
    a[rng.random(m) < 0.15, 0] = 448.0  # overflows and stays
    a[rng.random(m) < 0.1, :2] = [[448.0, -448.0]]  # overflows and comes back, or not, as the format has it
    a[rng.random(m) < 0.05, k - 1] = np.nan
    a[rng.random(m) < 0.05, k - 2] = np.inf
    a[rng.random(m) < 0.05, 1] = np.nan
    values, flags = definition(spec, a, b)
    assert flags.any()
    assert not flags.all()
    work = Accumulation(mac(spec), a, b, None, 1)
    y, stats = work.dense("overflows")
    assert_same_bits(y, values, note=f"{spec} {isa} {work.kernel.name} seed {SEED}")
    assert_same_bits(stats.overflowed, flags, note=f"{spec} {isa} {work.kernel.name} seed {SEED}")
    counts = work.dense(True)[1].counts
    assert np.array_equal(counts, forced("integer_any", spec, a, b).dense(True)[1].counts), f"{spec} {isa} seed {SEED}"
    z, stats = work.listed(tuple(np.indices(values.shape).reshape(2, -1)), overflows=True)
    assert_same_bits(z, values.ravel(), note=f"{spec} {isa} {work.kernel.name} seed {SEED}")
    assert_same_bits(stats.overflowed, flags.ravel(), note=f"{spec} {isa} {work.kernel.name} seed {SEED}")


@pytest.mark.parametrize("m, n", [(19, 37), (71, 3)])
@pytest.mark.parametrize("case", CASES, **ids)
def test_a_gathered_operand_gives_the_bits_of_the_matrix_that_it_reads(case, m, n, isa):
    """Rows and k's in any order out of a larger array, some twice, as a convolution reads its input."""
    k = 21
    a, b, c = case.arrays(m, n, k, SEED)
    rng = np.random.default_rng(SEED)
    where = rng.permutation(3 * m)[:m] * (2 * k), rng.permutation(2 * k)[:k]
    work = forced(case.kernel, case.spec, a, b, c)
    data = np.full(6 * m * k, np.nan, work.a.dtype)
    data[np.add.outer(*where)] = work.a
    for rows, ks in ((slice(None), slice(None)), (rng.integers(0, m, m), rng.integers(0, k, k))):
        work.a = data[np.add.outer(where[0][rows], where[1][ks])]
        plain, flags = shortened(work, False, 0)
        every = tuple(np.indices(plain.shape).reshape(2, -1))
        gathered = Gathered(data, where[0][rows], where[1][ks])
        assert profile(gathered) == profile(work.a)
        work.a = gathered
        for y, overflowed in (shortened(work, False, 0), shortened(work, False, 0, every)):
            assert_same_bits(y.ravel(), plain.ravel(), note=note(case, isa))
            assert_same_bits(overflowed.ravel(), flags.ravel(), note=note(case, isa))


WIDE = [case for case in CASES if case.kernel.startswith(("float64", "integer"))]


@pytest.mark.parametrize("case", WIDE, **ids)
def test_double_and_float_storage_of_the_operands_give_the_same_bits(case, isa):
    a, b, c = case.arrays(*SHAPES[0], SEED)
    values, _ = expected(case, *SHAPES[0], SEED)
    every = np.indices(values.shape).reshape(2, -1)
    for wide_a, wide_b in ((True, False), (False, True), (True, True)):
        work = forced(case.kernel, case.spec, a, b, c)
        work.a = work.a.astype(np.float64) if wide_a else work.a
        work.b = work.b.astype(np.float64) if wide_b else work.b
        assert_same_bits(work.dense()[0], values, operands_of(a, b, c), note(case, isa, wide_a, wide_b))
        assert_same_bits(work.listed(tuple(every))[0], values.ravel(), note=note(case, isa, wide_a, wide_b))


@pytest.mark.parametrize("case", CASES, **ids)
def test_strides_of_the_operands_do_not_matter(case, isa):
    """Transposed, reversed, sparse and repeated views against the same values in memory order."""
    m, n, k = SHAPES[0]
    a, b, c = case.arrays(m, n, k, SEED)
    values, _ = expected(case, m, n, k, SEED)
    padded = np.full((2 * m, 3 * k), np.nan)
    padded[::2, ::3] = a
    work = forced(case.kernel, case.spec, a, b, c)
    work.a = padded.astype(work.a.dtype)[::2, ::3]
    work.b = np.ascontiguousarray(work.b[::-1, ::-1])[::-1, ::-1]
    assert_same_bits(work.dense()[0], values, note=note(case, isa))
    work.b = np.asfortranarray(work.b)
    work.a = np.asfortranarray(work.a)
    assert_same_bits(work.dense()[0], values, note=note(case, isa))
    every = np.indices(values.shape).reshape(2, -1)
    assert_same_bits(work.listed(tuple(every))[0], values.ravel(), note=note(case, isa))


# --- the same bits everywhere ----------------------------------------------------------------------------------------

FIRST = {case.kernel: case for case in reversed(CASES)}  # the first case of each kernel

# SHA-256 of the results and of the overflow flags. A change of one of these is a change of numerics, to be announced.
PINS = {
    "float32_aligned": "40d3e4ed72f82afdad03e2e603a24459d5b41740b31ec0617be06220bb7a355f",
    "float32_exact": "d3cd135b17c7936d2ae23baf7c3af4a41298292908cafcb75abd14af78fc04a1",
    "float32_fma": "09f9cfd8d33658e4ecec25c3ff5625bb19cbc5f7ab51ed547bbaf1c4512c0564",
    "float32_fma_odd": "d6baafc8e6f5644fd745c2f5d647f26dd0d2be643229f86c1ce3e3a4f4e3c728",
    "float32_posit_fma_odd": "5153d6d9f866bbec3e3208e6359d3a34d3b4c0fdf39a879521c37c43ded26061",
    "float32_posit_seq_odd": "55072155abc61fb50652941ac2de278382ec150e3e6353a885df49e0dd0b4882",
    "float32_seq": "cd88de4918bf402b67ef761608f8d0fa39b66eeb983c075203b18bc6d001bac8",
    "float64_exact": "8575a2042fba94a11f91738fde19b04292e2833c951538f18e824e0090b89ec5",
    "float64_fma": "09cd7bc8c9cf26cd9bef9ccbe5b590f886cdd20939d4884f4bdf84060ee18dcd",
    "float64_fma_odd": "09cd7bc8c9cf26cd9bef9ccbe5b590f886cdd20939d4884f4bdf84060ee18dcd",
    "float64_seq": "09cd7bc8c9cf26cd9bef9ccbe5b590f886cdd20939d4884f4bdf84060ee18dcd",
    "float64_seq_odd": "b6c1c888c1bfe90c5cfcd20b3cf50f170c20ab33a7a0d42421af57c8bda6e22e",
    "float64_any": "196370b9bdd96f0211bf27295d2695350bf6d0b3ada5e2aa713b8529c67cdb79",
    "integer_any": "b6c1c888c1bfe90c5cfcd20b3cf50f170c20ab33a7a0d42421af57c8bda6e22e",
}


def pinned_operands(shape, seed):
    """Numbers of 9 bits around 1 from the raw words of a bit generator, whose streams numpy promises to keep."""
    raw = np.random.PCG64(seed).random_raw(int(np.prod(shape))).reshape(shape)
    significands = 256 + (raw & 255).astype(np.float64)
    exponents = ((raw >> 8) % 7).astype(np.int64) - 11
    return np.ldexp(significands, exponents) * np.where(raw >> 63, -1.0, 1.0)


@pytest.mark.parametrize("kernel", sorted(FIRST))
def test_result_bytes_are_those_pinned(kernel, isa):
    case = FIRST[kernel]
    quantize = formats.get(case.operands).quantize
    a, b = quantize(pinned_operands((33, 77), SEED)), quantize(pinned_operands((77, 41), SEED + 1))
    c = None if case.c is None else pinned_operands((33, 41), SEED + 2)
    y, stats = forced(kernel, case.spec, a, b, c).dense("overflows")
    both = hashlib.sha256((digest(y) + digest(stats.overflowed)).encode()).hexdigest()
    assert both == PINS[kernel], f"{case} on {isa} seed {SEED}"


@pytest.mark.parametrize("case", [FIRST[name] for name in sorted(FIRST)], **ids)
def test_threads_change_no_bit(case, isa):
    a, b, c = case.arrays(45, 150, 30, SEED)
    every = np.indices((45, 150)).reshape(2, -1)
    results = []
    for threads in (1, 2, 3, 7):
        work = forced(case.kernel, case.spec, a, b, c, threads)
        y, stats = work.dense("overflows")
        z, listed = work.listed(tuple(every), overflows=True)
        assert_same_bits(z.reshape(y.shape), y, note=note(case, isa, threads))
        results.append((digest(y), digest(stats.overflowed), digest(z), digest(listed.overflowed)))
    assert len(set(results)) == 1, note(case, isa)


@pytest.mark.parametrize("case", [FIRST[name] for name in sorted(FIRST)], **ids)
def test_splitting_rows_and_columns_changes_no_bit(case, isa):
    m, n, k = 23, 71, 20
    a, b, c = case.arrays(m, n, k, SEED)
    whole, stats = forced(case.kernel, case.spec, a, b, c).dense("overflows")
    for rows, columns in (([0, 1, 7, m], [0, n]), ([0, m], [0, 1, 33, 70, n]), ([0, 11, m], [0, 32, n])):
        parts, flags = np.empty((m, n)), np.empty((m, n), bool)
        for top, bottom in pairwise(rows):
            for left, right in pairwise(columns):
                addend = None if c is None else c[top:bottom, left:right]
                work = forced(case.kernel, case.spec, a[top:bottom], b[:, left:right], addend)
                y, counted = work.dense("overflows")
                parts[top:bottom, left:right], flags[top:bottom, left:right] = y, counted.overflowed
        assert_same_bits(parts, whole, note=note(case, isa, rows, columns))
        assert_same_bits(flags, stats.overflowed, note=note(case, isa, rows, columns))


def test_no_nan_leaves_with_a_sign_or_a_payload(isa):
    """NaNs come out as the positive quiet NaN, so that bytes can be compared."""
    case = Case("float32_fma", "fma(fp16)", "fp8_e4m3")
    quiet = np.array([np.nan], np.float32).tobytes()
    a, b = np.array([[-np.nan, 1.0]]), np.array([[1.0], [2.0]])
    for kernel in ("float32_fma", "float32_fma_odd", "integer_any"):
        assert forced(kernel, case.spec, a, b).dense()[0].tobytes() == quiet, f"{kernel} {isa}"
    a, b = np.array([[np.inf, -np.inf]]), np.array([[1.0], [1.0]])
    for kernel in ("float32_fma", "float32_fma_odd", "integer_any"):
        assert forced(kernel, case.spec, a, b).dense()[0].tobytes() == quiet, f"{kernel} {isa}"
    x = np.array([0xFFF8000000000001, 0x7FF8000000000123], np.uint64).view(np.float64)
    assert formats.get("fp16").quantize(x).tobytes() == np.array([np.nan, np.nan]).tobytes()


def test_pins_cover_every_kernel():
    assert sorted(PINS) == sorted(native.kernels())


# Stretches of rows that lie side by side, shorter and longer than a vector; the last bits and the square among them.
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lengths", [(1, 1, 1), (7, 8, 9), (28, 28, 28), (64, 3, 17, 1), (5,)])
def test_a_gathered_operand_is_looked_at_like_a_copy(isa, dtype, lengths):
    rng = np.random.default_rng(sum(lengths))
    data = (rng.standard_normal(4000) * 2.0 ** rng.integers(-20, 20, 4000)).astype(dtype)
    data[rng.random(4000) < 0.3] = 0.0
    starts = rng.integers(0, 1000, len(lengths)) * 3
    rows = np.concatenate([start + np.arange(length) for start, length in zip(starts, lengths, strict=True)])
    for taps in (rng.integers(0, 900, 25), np.arange(13), np.array([5])):
        gathered = Gathered(data, rows.astype(np.int64), taps.astype(np.int64))
        whole = np.stack([gathered.row(i) for i in range(len(rows))])
        found, expected = profile(gathered), profile(whole)
        assert found._replace(square=0.0) == expected._replace(square=0.0)
        exact = float((whole.astype(np.float64) ** 2).sum(1).max())
        assert exact <= found.square <= exact * (1 + 2.0**-40) and exact <= expected.square
