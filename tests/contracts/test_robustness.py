"""The engine under odd demands: empty and huge products, any strides, no memory, forks and many callers at once."""

import math
import os
import threading
from pathlib import Path

import numpy as np
import pytest

import simulator
from native import _engine, ffi, lib
from native.matmul import Node, matmul
from native.twins import EngineError
from simulator.arithmetic.engine import Accumulation
from tests.contracts.test_accumulators import defined, runs
from tests.oracles.bits import assert_same_bits, bits
from tests.oracles.operands import addend, structured
from tests.oracles.specs import SPECS, STOCHASTIC

SEED = 950


@pytest.mark.parametrize("text", [*SPECS, *STOCHASTIC])
def test_empty_products_and_single_ones(text):
    spec = simulator.mac(text)
    for m, n, k in ((0, 3, 2), (3, 0, 2), (0, 0, 0), (2, 3, 0), (1, 1, 1), (1, 1, 0)):
        a, b = np.full((m, k), 0.75), np.full((k, n), -1.25)
        for c in (None, 0.375):
            values, flags = defined(spec, a, b, c)
            y, stats = simulator.matmul(a, b, spec, c=c, stats=True)
            assert y.shape == (m, n) and y.dtype == spec.dtype
            assert_same_bits(y, values, note=text)
            assert_same_bits(stats.overflowed, flags, note=text)


@pytest.mark.skipif("ULPSIM_SANITIZE" not in os.environ, reason="for `make sanitize`")
def test_the_engine_under_test_is_the_sanitized_one():
    assert b"__asan_init" in Path(_engine.__file__).read_bytes()


K = 1 << 20

# Of K products 2^-10 * 1: 1024 where nothing is lost, the place where sums stand still, or what stays of them; None:
# all kernels agree.
HUGE = {
    "fma(fp32)": 1024.0, "seq(fp32)": 1024.0, "fma(fp16)": 2.0, "seq(fp16)": 2.0, "exact(fp16)": 1024.0,
    "tree(fp16)": 1024.0, "tree(fp16, 4, leaves=exact)": 1024.0, "fma(fp16, 4)": 8.0, "fma(fp16, 4096)": 1024.0,
    "chunk(1024, fma(fp16), fma(fp16))": 1024.0, "interleave(1024, fma(fp16), tree(fp16))": 1024.0,
    "interleave(1024, chunk(64, fma(fp16), seq(fp16)), exact(fp16))": 1024.0, "kahan(fp16)": 1024.0,
    "neumaier(fp32)": 1024.0, "fixed(12, 10, wrap)": 0.0, "fixed(12, 10, sat)": 2.0 - 2.0**-10,
    "fixed(22, 10, sat)": 1024.0, "fixed(12, 10, track)": 1024.0, "aligned(16, 25, fp32/rz)": 1024.0,
    "fma(posit16)": None, "late(fma(fp32)) -> bf16": 1024.0,
}  # fmt: skip


@pytest.mark.parametrize("text", HUGE)
def test_a_million_products_of_one_element_repeated(text):
    """K = 2^20 with strides 0: no memory but that of two numbers."""
    a, b = np.broadcast_to(np.float32(2.0**-10), (1, K)), np.broadcast_to(np.float32(1.0), (K, 2))
    results = {note: work.dense()[0].tolist() for work, note in runs(simulator.mac(text), a, b)}
    expected = HUGE[text]
    if expected is None:
        assert len({str(y) for y in results.values()}) == 1, results
        return
    for note, y in results.items():
        assert y == [[expected, expected]], note


def test_runs_longer_than_any_product():
    for text in (f"chunk({2**63 - 1}, fma(fp16), seq(fp16))", f"chunk({2**62}, tree(fp16), kahan(fp16))"):
        assert simulator.matmul(np.ones((1, 5)), np.ones((5, 1)), text).tolist() == [[5.0]]


LAYOUTS = [
    "fma(fp16)",
    "seq(fp32)",
    "exact(fp16)",
    "fma(posit8)",
    "kahan(fp16)",
    "tree(fp16, 3)",
    "aligned(4, 8, fp16)",
]


@pytest.mark.parametrize("text", LAYOUTS)
def test_views_of_any_stride_and_unaligned_memory(text):
    m, n, k = 5, 19, 11
    a, b = structured("random", "fp16", "fp16", m, n, k, SEED)
    c = addend("fp16", (m, n), SEED)
    whole = simulator.matmul(a, b, text, c=c)

    def views(x):
        yield "reversed", np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1]
        yield "transposed", np.ascontiguousarray(x.T).T
        wide = np.full((2 * x.shape[0], 3 * x.shape[1]), np.nan)
        wide[1::2, ::3] = x
        yield "sparse", wide[1::2, ::3]
        for dtype in (np.float32, np.float64):
            if dtype is np.float32 and not np.array_equal(x.astype(np.float32), x):
                continue
            record = np.zeros(x.shape, [("x", dtype), ("pad", "i2")])
            record["x"] = x
            yield "field of packed records", record["x"]
            bytes_ = np.frombuffer(b"0" + x.astype(dtype).tobytes(), np.uint8)[1:]
            yield "one byte off", bytes_.view(dtype).reshape(x.shape)
        yield "other byte order", x.astype(">f8")
        locked = x.copy()
        locked.flags.writeable = False
        yield "read-only", locked

    for what, x in views(a):
        assert_same_bits(simulator.matmul(x, b, text, c=c), whole, note=f"a {what}")
    for what, x in views(b):
        assert_same_bits(simulator.matmul(a, x, text, c=c), whole, note=f"b {what}")
    for what, x in views(c):
        assert_same_bits(simulator.matmul(a, b, text, c=x), whole, note=f"c {what}")
    for broadcast in (c[:1], c[:, :1], c[0, 0]):
        full = np.broadcast_to(broadcast, (m, n)).copy()
        assert_same_bits(simulator.matmul(a, b, text, c=broadcast), simulator.matmul(a, b, text, c=full))


def test_memory_beyond_measure_is_refused_and_the_next_product_works():
    greedy = "interleave(4096, interleave(16, tree(fp64, 4096), fma(fp64)), fma(fp64))"
    with pytest.raises(EngineError, match="out of memory; use fewer threads"):
        simulator.matmul(np.ones((2, 3)), np.ones((3, 40)), greedy, threads=2)
    large = "interleave(4096, interleave(16, exact(fp64), fma(fp64)), fma(fp64))"
    assert simulator.matmul(np.ones((2, 3)), np.ones((3, 4)), large, threads=2).tolist() == [[3.0] * 4] * 2
    with pytest.raises(ValueError, match="69632 lanes; the engine takes at most 65536"):
        simulator.matmul(np.ones((2, 3)), np.ones((3, 4)), large.replace("16", "17"))
    deep = "fma(fp16)"
    for _ in range(8):
        deep = f"chunk(2, {deep}, fma(fp16))"
    with pytest.raises(ValueError, match="17 parts; the engine takes at most 15"):
        simulator.matmul(np.ones((2, 3)), np.ones((3, 4)), deep)


def test_as_many_nodes_as_the_engine_takes():
    deep = "fma(fp16)"
    for _ in range(7):
        deep = f"chunk(2, {deep}, tree(fp16))"
    a, b = structured("random", "fp16", "fp16", 2, 3, 200, SEED)
    values, _ = defined(simulator.mac(deep), a, b, None)
    assert_same_bits(simulator.matmul(a, b, deep), values, note=deep)


@pytest.mark.parametrize("ways", [2, 33, 4096])
@pytest.mark.parametrize("k", [0, 1, 2, 70])
def test_trees_have_room_for_more_lanes_than_products(ways, k):
    for tree in ("tree(fp16)", "tree(fp16, 3)", "tree(fp16, 40)"):
        text = f"chunk(40, interleave({ways}, fma(fp16), {tree}), {tree})"
        a, b = structured("random", "fp16", "fp16", 1, 2, max(k, 1), SEED)
        a, b = a[:, :k], b[:k]
        values, _ = defined(simulator.mac(text), a, b, None)
        assert_same_bits(simulator.matmul(a, b, text), values, note=f"{text} k={k}")


BAD = [
    ({"threads": 0}, ValueError, r"threads: got \S+; expected a whole number from 1"),
    ({"threads": -3}, ValueError, r"threads: got \S+; expected a whole number from 1"),
    ({"threads": 2.0}, ValueError, r"threads: got \S+; expected a whole number from 1"),
    ({"seed": -1}, ValueError, "seed"),
    ({"seed": 1 << 32}, ValueError, "seed"),
    ({"step": 1 << 32}, ValueError, "step"),
    ({"site": 1 << 24}, ValueError, "site"),
    ({"first_row": -1}, ValueError, "first_row"),
    ({"first_row": 1 << 64}, ValueError, "first_row"),
    ({"seed": "1"}, TypeError, "seed"),
    ({"c": np.ones((3, 3))}, ValueError, r"c \(3, 3\) does not broadcast to the output's shape \(2, 2\)"),
    ({"c": "x"}, TypeError, "c: "),
    ({"stats": "all"}, ValueError, "stats: got .all.; expected"),
    ({"alpha": math.nan}, ValueError, "alpha: got nan; expected a finite number"),
]


@pytest.mark.parametrize(("options", "error", "text"), BAD, ids=str)
def test_arguments_out_of_range_are_named(options, error, text):
    with pytest.raises(error, match=text):
        simulator.matmul(np.ones((2, 2)), np.ones((2, 2)), "tree(fp16/sr)", **options)


def test_operands_that_are_no_numbers_are_refused():
    for wrong in (np.ones((2, 2), complex), np.array([["a", "b"]] * 2), np.ones((2, 2), "M8[s]"), object()):
        with pytest.raises(TypeError, match="a: "):
            simulator.matmul(wrong, np.ones((2, 2)), "kahan(fp16)")


def test_the_engine_refuses_kernels_and_sets_that_it_lacks():
    job = ffi.new("ulp_job *")
    assert lib.ulp_matmul(-1, 0, job) == lib.ULP_BAD_KERNEL
    assert lib.ulp_matmul(lib.ulp_kernel_count(), 0, job) == lib.ULP_BAD_KERNEL
    assert lib.ulp_matmul(0, 99, job) == lib.ULP_BAD_ISA
    assert lib.ulp_matmul(0, 0, job) == lib.ULP_OK  # nothing to do
    one = np.ones((1, 1), np.float32)
    with pytest.raises(ValueError):
        matmul("no_such", [Node("fma")], [], 0, one, one, None, one.copy())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_after_threads_have_run_computes_the_same():
    a, b = structured("random", "fp16", "fp16", 40, 60, 30, SEED)
    texts = ("fma(fp16)", "interleave(4, seq(fp16/sr), tree(fp16))")
    before = [simulator.matmul(a, b, text, threads=4).tobytes() for text in texts]
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        same = [simulator.matmul(a, b, text, threads=4).tobytes() for text in texts] == before
        os.write(writer, b"same" if same else b"other")
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"same"
    assert os.waitpid(child, 0)[1] == 0
    assert [simulator.matmul(a, b, text, threads=4).tobytes() for text in texts] == before


def test_many_callers_at_once_get_their_own_results():
    """Twelve Python threads with different accumulators and shapes, each call with threads of its own."""
    jobs = []
    for i, text in enumerate([*SPECS[::5], *STOCHASTIC[::4]]):
        a, b = structured("random", "fp16", "fp16", 5 + i, 40 - i, 17 + i, SEED + i)
        jobs.append((a, b, text, simulator.matmul(a, b, text, seed=i, threads=1)))
    wrong, start = [], threading.Barrier(12)

    def call(first):
        start.wait()
        for turn in range(2 * len(jobs)):
            i = (first + turn) % len(jobs)
            a, b, text, expected = jobs[i]
            y = simulator.matmul(a, b, text, seed=i, threads=1 + turn % 3)
            if y.tobytes() != expected.tobytes():
                wrong.append(text)

    callers = [threading.Thread(target=call, args=(first,)) for first in range(12)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_operands_and_addend_are_left_alone():
    for text in [*SPECS, *STOCHASTIC]:
        a, b = structured("special", "fp16", "fp16", 3, 4, 6, SEED)
        c = addend("fp16", (3, 4), SEED)
        kept = [bits(x).copy() for x in (a, b, c)]
        Accumulation(simulator.mac(text), a, b, c, 2).dense()
        assert all(np.array_equal(bits(x), y) for x, y in zip((a, b, c), kept, strict=True)), text
