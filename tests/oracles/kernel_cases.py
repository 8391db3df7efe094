"""For each kernel accumulators and operands under which its condition holds, and how to make it run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

import simulator
from native import matmul as engine
from simulator.arithmetic import reference
from simulator.arithmetic.engine import Accumulation
from simulator.arithmetic.kernels import kernel_named
from simulator.arithmetic.places import Place
from tests.oracles.operands import addend, structured


@dataclass(frozen=True)
class Case:
    """One accumulator with operands.

    Args:
        kernel: whose condition holds. spec: string form. operands: format of both. kind: of tests.oracles.operands.
        c: format around which the addends lie, or None.
    """

    kernel: str
    spec: str
    operands: str
    kind: str = "random"
    c: str | None = None

    def __str__(self) -> str:
        return f"{self.kernel}: {self.operands} {self.kind} {self.spec}" + (" +c" if self.c else "")

    def arrays(self, m: int, n: int, k: int, seed: int):
        """Return a (m, k), b (k, n) and c (m, n) or None."""
        total = simulator.mac(self.spec).result.format
        a, b = structured(self.kind, self.operands, total, m, n, k, seed)
        c = None if self.c is None else addend(self.c, (m, n), seed + 3)
        if c is not None and self.kernel.startswith("float") and self.spec.startswith("exact"):
            c = simulator.mac(self.spec).result.format.quantize(c)  # 53 random bits would not leave the lanes room
        return a, b, c


CASES = [
    Case("float32_fma", "fma(fp16)", "fp8_e4m3", c="fp16"),
    Case("float32_fma", "fma(fp16/sat)", "fp8_e4m3", "large"),
    Case("float32_fma", "fma(fp16)", "fp8_e4m3", "special", c="fp16"),
    Case("float32_fma", "fma(bf16)", "fp8_e4m3", "cancellation"),
    Case("float32_fma", "chunk(4, fma(fp16), seq(fp16))", "fp8_e4m3", c="fp16"),
    Case("float32_fma", "chunk(6, chunk(2, fma(fp16), seq(bf16)), seq(fp16/sat))", "fp8_e4m3", "large", c="fp16"),
    Case("float32_fma", "fma(fp8_e4m3)", "fp4_e2m1", c="fp8_e4m3"),
    Case("float32_fma", "fma(fp8_e4m3)", "fp8_e4m3"),
    Case("float32_fma", "fma(fp16)", "fp8_e4m3", "zeros"),
    Case("float32_fma", "seq(fp16)", "fp8_e4m3", "cancellation", c="fp16"),
    Case("float32_fma", "seq(bf16, fp16)", "fp8_e4m3", "zeros"),
    Case("float32_fma", "chunk(5, seq(fp16/sat), fma(fp16/sat))", "fp8_e4m3"),
    Case("float32_fma_odd", "fma(fp16)", "fp16", "large", c="fp16"),
    Case("float32_fma_odd", "fma(fp16)", "fp16", "subnormal"),
    Case("float32_fma_odd", "fma(bf16/sat)", "bf16", c="fp16"),
    Case("float32_fma_odd", "fma(fp8_e4m3)", "fp8_e4m3", "large"),
    Case("float32_fma_odd", "fma(fp8_e4m3/sat)", "fp8_e4m3", "large", c="fp8_e4m3"),
    Case("float32_fma_odd", "fma(fp8_e5m2)", "fp8_e5m2", "special"),
    Case("float32_fma_odd", "chunk(3, fma(tf32), seq(e8m20))", "fp16", c="fp16"),
    Case("float32_seq", "seq(fp16)", "fp16", "large", c="fp16"),
    Case("float32_seq", "seq(fp16)", "fp16", "subnormal"),
    Case("float32_seq", "seq(bf16)", "bf16", "special", c="fp16"),
    Case("float32_seq", "seq(fp16/sat)", "fp8_e5m2", "special", c="fp16"),
    Case("float32_seq", "seq(fp8_e5m2, fp16)", "fp8_e4m3", "large"),
    Case("float32_seq", "seq(fp8_e4m3/sat, fp16/sat)", "fp8_e5m2", "large", c="fp16"),
    Case("float32_seq", "chunk(5, seq(fp16), seq(bf16))", "fp16", "cancellation"),
    Case("float32_posit_fma_odd", "fma(posit16)", "posit16", c="posit16"),
    Case("float32_posit_fma_odd", "fma(posit16)", "posit16", "wide", c="posit16"),
    Case("float32_posit_fma_odd", "fma(posit8)", "posit8", "cancellation"),
    Case("float32_posit_fma_odd", "fma(posit8/nan)", "posit8", "large", c="posit8"),
    Case("float32_posit_fma_odd", "fma(posit12e0)", "fp8_e4m3", "special"),
    Case("float32_posit_fma_odd", "fma(posit6e3)", "posit8", "wide"),
    Case("float32_posit_fma_odd", "chunk(4, fma(posit16), seq(posit8))", "fp16"),
    Case("float32_posit_fma_odd", "chunk(6, chunk(2, fma(posit8), seq(posit16)), seq(posit8/nan))", "posit8", "large"),
    Case("float32_posit_seq_odd", "seq(posit16)", "posit16", c="posit16"),
    Case("float32_posit_seq_odd", "seq(posit16)", "posit16", "cancellation"),
    Case("float32_posit_seq_odd", "seq(posit16)", "posit16", "zeros"),
    Case("float32_posit_seq_odd", "seq(posit8)", "posit8", "wide", c="posit8"),
    Case("float32_posit_seq_odd", "seq(posit8, posit16)", "fp8_e4m3", "large"),
    Case("float32_posit_seq_odd", "seq(posit8/nan, posit16e1/nan)", "fp8_e5m2", "special", c="fp16"),
    Case("float32_posit_seq_odd", "chunk(5, seq(posit8), seq(posit16))", "posit8", c="posit16"),
    Case("float32_seq", "seq(fp8_e5m2)", "fp8_e4m3", "zeros"),
    Case("float32_seq", "seq(fp8_e5m2)", "fp8_e4m3", "subnormal", c="fp8_e5m2"),
    Case("float32_seq", "seq(bf16)", "bf16", "cancellation"),
    Case("float32_seq", "seq(bf16, fp8_e4m3)", "fp16", "equal"),
    Case("float32_aligned", "aligned(16, 25, fp32/rz, e_min=-133)", "fp16", c="fp16"),
    Case("float32_aligned", "aligned(4, 23, fp32/rz)", "fp16", "cancellation"),
    Case("float32_aligned", "aligned(8, 6, fp8_e4m3)", "fp8_e4m3", "large", c="fp8_e4m3"),
    Case("float32_aligned", "aligned(5, 9, fp16/rz)", "fp8_e5m2", "subnormal", c="fp16"),
    Case("float32_aligned", "aligned(32, 13, e8m13/rz, e_min=-3)", "fp8_e4m3", "zeros"),
    Case("float32_aligned", "chunk(7, aligned(4, 8, fp16, order=two_of_four), seq(fp16/sat))", "fp16", "large"),
    Case("float32_aligned", "chunk(6, chunk(5, aligned(4, 8, bf16), seq(fp16)), fma(fp32))", "fp8_e4m3"),
    Case("float32_aligned", "aligned(16, 6, bf16, e_min=-3)", "fp8_e5m2", "subnormal", c="fp16"),
    Case("float32_aligned", "aligned(8, 24, fp32, c=late, sum_frac=31, c_frac=24)", "fp16", "cancellation", c="fp32"),
    Case("float32_aligned", "aligned(4, 8, fp16, c=late, sum_frac=6, c_frac=5, c_reach=3)", "fp8_e4m3", c="fp16"),
    Case("float32_exact", "exact(fp16)", "fp4_e2m1", "large"),
    Case("float32_exact", "exact(fp8_e4m3/sat)", "fp4_e2m1", c="fp8_e4m3"),
    Case("float32_exact", "exact(fp32)", "fp4_e2m1", "zeros"),
    Case("float32_exact", "exact(fp4_e2m1)", "fp4_e2m1", "subnormal"),
    Case("float32_exact", "exact(fp4_e2m1)", "fp4_e2m1", "large"),
    Case("float32_exact", "chunk(4, fixed(20, 2, wrap), seq(fix22.4/wrap))", "fp4_e2m1", "large", c="fp4_e2m1"),
    Case("float64_exact", "exact(fp16)", "fp8_e4m3", "large", c="fp16"),
    Case("float64_exact", "exact(fp32)", "fp16"),
    Case("float64_exact", "exact(fp8_e4m3)", "fp16", "subnormal"),
    Case("float64_exact", "exact(fp8_e4m3/sat)", "fp8_e4m3", "special"),
    Case("float64_exact", "fixed(45, 18, sat, rd)", "fp8_e4m3", "cancellation", c="fp8_e4m3"),
    Case("float64_exact", "chunk(6, chunk(2, fixed(44, 18, wrap), fma(fix46.20)), seq(fix45.18/wrap))", "fp8_e4m3"),
    Case("float64_fma", "fma(fp32)", "fp16", "cancellation", c="fp32"),
    Case("float64_fma", "fma(fp32)", "bf16", "special"),
    Case("float64_fma", "fma(fp16)", "tf32", "cancellation"),
    Case("float64_fma", "fma(fp16/sat)", "tf32", "large", c="fp16"),
    Case("float64_fma", "chunk(4, fma(e8m13), seq(fp32))", "fp8_e5m2", "large"),
    Case("float64_seq", "seq(fp32)", "fp32", c="fp32"),
    Case("float64_seq", "seq(fp32/sat)", "fp32", "large"),
    Case("float64_seq", "seq(bf16, fp32)", "fp32", "special"),
    Case("float64_seq", "seq(bf16/sat)", "bf16", "special", c="fp16"),
    Case("float64_seq", "seq(fp32)", "fp16", "zeros"),
    Case("float64_fma_odd", "fma(fp32)", "fp32", c="fp32"),
    Case("float64_fma_odd", "fma(fp32)", "fp32", "cancellation"),
    Case("float64_fma_odd", "fma(fp16)", "fp32", "large"),
    Case("float64_fma_odd", "fma(e11m40)", "fp32", "special"),
    Case("float64_seq_odd", "seq(e11m40)", "fp32", c="fp32"),
    Case("float64_seq_odd", "seq(fp16/sat)", "fp32", "large", c="fp16"),
    Case("float64_seq_odd", "seq(e9m28)", "fp32", "cancellation"),
    Case("float64_any", "fma(fp16/rz)", "fp16", "large", c="fp16"),
    Case("float64_any", "kahan(fp16)", "fp16", "cancellation", c="fp16"),
    Case("float64_any", "neumaier(fp8_e4m3/sat)", "fp8_e4m3", "large", c="fp8_e4m3"),
    Case("float64_any", "tree(fp16)", "fp16", "subnormal"),
    Case("float64_any", "tree(bf16, leaves=exact)", "bf16", c="bf16"),
    Case("float64_any", "interleave(3, tree(fp8_e5m2), kahan(fp16))", "fp8_e5m2", "special"),
    Case("float64_any", "exact(fp16)", "fp8_e5m2", "large", c="fp16"),
    Case("float64_any", "exact(fp32)", "fp16", "cancellation"),
    Case("float64_any", "exact(bf16/rz)", "fp16", "large"),
    Case("float64_any", "fma(fp16, 4)", "fp8_e4m3", "zeros", c="fp16"),
    Case("float64_any", "chunk(5, exact(fp16), tree(fp32))", "fp8_e4m3", "cancellation"),
    Case("float64_any", "chunk(200, seq(fp32/rz), tree(fp16, leaves=exact))", "bf16", c="fp16"),
    Case("float64_any", "chunk(2, seq(fp32:ftz/odd), seq(fp32:ftz/odd))", "bf16", c="fp32"),
    Case("float64_any", "fma(fp8_e4m3fnuz)", "fp8_e4m3fnuz", "large", c="fp8_e4m3fnuz"),
    Case("float64_any", "seq(e5m2:ftz)", "fp16", "subnormal"),
    Case("float64_any", "fma(takum16)", "fp16", "wide", c="fp16"),
    Case("float64_any", "interleave(2, fma(posit16), seq(posit8))", "fp16"),
    Case("float64_any", "fma(fix16.8)", "fp8_e4m3", "large"),
    Case("float64_any", "fixed(9, 3, wrap, rz)", "fp8_e4m3", "equal"),
    Case("float64_any", "chunk(6, fixed(8, 2, sat), seq(fp16))", "fp8_e4m3"),
    Case("float64_any", "fixed(8, 2, track)", "fp8_e4m3", c="fp8_e4m3"),
    Case("float64_any", "seq(fp8_e4m3/sr:4, fp16/sr:7:b)", "fp8_e4m3", c="fp16"),
    Case("float64_any", "chunk(4, kahan(fp16/sr:5:c), tree(posit16/sr:3))", "fp8_e4m3"),
    Case("float64_any", "interleave(3, tree(fp16/sr:4), seq(fp16))", "fp16"),
    Case("integer_any", "exact(fp64)", "fp32", "wide", c="fp32"),
    Case("integer_any", "exact(fp16/sat)", "fp64", "special"),
    Case("integer_any", "exact(bf16)", "fp8_e5m2", "cancellation", c="bf16"),
    Case("integer_any", "fma(fp64)", "fp64", c="fp64"),
    Case("integer_any", "seq(e5m2:ftz)", "fp16", "subnormal"),
    Case("integer_any", "fma(fp8_e4m3fnuz)", "fp8_e4m3fnuz", "large", c="fp8_e4m3fnuz"),
    Case("integer_any", "chunk(6, fma(fp16), chunk(2, seq(bf16), seq(fp32)))", "fp8_e4m3", c="fp32"),
    Case("integer_any", "chunk(2, chunk(3, seq(fp16), fma(bf16)), seq(tf32/sat))", "fp16", "large"),
]


def forced(kernel: str, spec: str, a: NDArray, b: NDArray, c=None, threads: int = 1, check=True) -> Accumulation:
    """Return an accumulation that runs on the named kernel; `check`: whose condition must hold."""
    work = Accumulation(simulator.mac(spec), a, b, c, threads)
    chosen = kernel_named(kernel)
    if check:
        failed = [clause.text for clause in chosen.condition(work.situation) if not clause.holds]
        assert not failed, f"{kernel} does not hold for {spec}: {failed}"
    work.kernel = chosen
    return work


def shortened(work: Accumulation, bounded: bool, on_grid: int, outputs=None, counts=None):
    """Run an accumulation with the shortcuts given, instead of all that are proved; return (values, overflow flags)."""
    shape = work.shape if outputs is None else outputs[0].shape
    y, flags = np.empty(shape), np.zeros(shape, np.bool_)
    lowered = work.lowered
    engine.matmul(
        work.kernel.name, lowered.nodes, lowered.joins or (), lowered.leaf, work.a, work.b, work.c, y, flags, outputs,
        threads=work.threads, bounded=bounded, on_grid=on_grid, counts=counts,
    )  # fmt: skip
    return y, flags


def definition(spec: str, a: NDArray, b: NDArray, c=None):
    """Return (values, overflow flags) of a matrix product by the pure Python reference."""
    mac = simulator.mac(spec)
    m, n = a.shape[0], b.shape[1]
    addends = None if c is None else np.broadcast_to(c, (m, n))
    rows, columns = a.tolist(), b.T.tolist()
    results = [
        reference.dot(mac, rows[i], columns[j], None if addends is None else float(addends[i, j]), Place(i, j, n))
        for i in range(m)
        for j in range(n)
    ]
    values, flags = zip(*results, strict=True) if results else ((), ())
    return np.array(values, float).reshape(m, n), np.array(flags, bool).reshape(m, n)


@cache
def expected(case: Case, m: int, n: int, k: int, seed: int):
    """The definition's values and flags of a case."""
    return definition(case.spec, *case.arrays(m, n, k, seed))
