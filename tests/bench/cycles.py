"""Cycles of the dense kernels beside the operations that they need: `python -m tests.bench.cycles`.

The clock is measured, not asked for: a chain of dependent additions takes a cycle each. The bound is that of a Zen 4
core: four pipes of 256 bits, which take two vector operations of 512 bits a cycle or four of 256; two of them
multiply, the two others add floats. Of aligned steps the operations are those for each product, and the end of a step
comes on top.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import formats
import native
from simulator.arithmetic import Accumulation, mac

from .conftest import best
from .instructions import LANES, leaves

SIZE = 512
CASES = [
    ("fp8_e4m3", "fma(fp16)"),
    ("fp8_e4m3", "fma(fp8_e4m3)"),
    ("fp16", "fma(fp16)"),
    ("fp8_e4m3", "seq(fp16)"),
    ("fp16", "seq(fp16)"),
    ("posit16", "fma(posit16)"),
    ("posit16", "seq(posit16)"),
    ("fp8_e4m3", "exact(fp32)"),
    ("fp16", "v100.fp16"),
    ("fp16", "h100.fp16"),
    ("fp8_e4m3", "h100.fp8.wgmma"),
]
PER_CYCLE = {"avx512": 2, "avx2": 4}
PIPES = (r"vfn?m|vmul", r"v(add|sub)[ps][sd]")  # instructions that only half of the pipes take
CHAIN = """
#include <stdio.h>
#include <time.h>
int main(void)
{
    double fastest = 1e9;
    for (int round = 0; round < 7; round++) {
        struct timespec from, to;
        long x = 0;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
        for (int i = 0; i < 1000000; i++)
            __asm__ volatile(".rept 100\\n add $1, %0\\n .endr" : "+r"(x));
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
        double ns = (double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec);
        fastest = ns < fastest ? ns : fastest;
    }
    printf("%.3f", 1e8 / fastest);
}
"""


def clock_ghz() -> float:
    """Return how many cycles a nanosecond has."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "chain"
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-O2", "-x", "c", "-", "-o", program], input=CHAIN, text=True, check=True)
        return float(subprocess.run([program], capture_output=True, text=True, check=True).stdout)


def leaf_of(work: Accumulation) -> str:
    """Return the name of the function that a dense product runs in."""
    if work.kernel.name == "float32_aligned":
        return "run_leaf"
    shortcuts = work.kernel.shortcuts(work.situation)
    known = "BOUNDED" if shortcuts is not None and shortcuts.bounded.holds else "WATCHED"
    return f"{work.kernel.name}_dense_{known}_{0 if shortcuts is None else shortcuts.on_grid}"


def main() -> None:
    """Print one line a unit: nanoseconds a MAC, operations a vector step, and its cycles, bound and measured."""
    ghz, loops = clock_ghz(), leaves()
    print(f"clock {ghz:.2f} GHz, products of {SIZE} x {SIZE} x {SIZE}, one thread; a step is one vector of lanes")
    print(f"{'':62}  ns/MAC  operations  cycles: bound  measured")
    rng = np.random.default_rng(0)
    for isa in (isa for isa in PER_CYCLE if isa in native.available_isas()):
        os.environ["ULPSIM_ISA"] = isa
        for fmt, spec in CASES:
            a, b = (formats.get(fmt).quantize(rng.standard_normal((SIZE, SIZE)) / scale) for scale in (1, 16))
            work = Accumulation(mac(spec), a.astype(np.float32), b.astype(np.float32), None, threads=1)
            leaf = leaf_of(work)
            loop = loops[leaf, isa]
            lanes = LANES[isa] // (2 if leaf.startswith("float64") else 1)
            ns, operations = best(work.dense) / SIZE**3 * 1e9, loop.operations.total() / loop.steps
            text = f"{isa}: {fmt} {spec} ({leaf})"
            multiply, add = (sum(n for k, n in loop.operations.items() if re.match(kind, k)) for kind in PIPES)
            bound = max(loop.operations.total(), 2 * multiply, 2 * add) / loop.steps / PER_CYCLE[isa]
            print(f"{text:62} {ns:7.4f} {operations:11.2f} {bound:14.2f} {ns * ghz * lanes:9.2f}")


if __name__ == "__main__":
    main()
