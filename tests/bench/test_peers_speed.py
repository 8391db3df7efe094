"""Other emulators of accumulation, as context: the same product of 64 x 64 matrices, one thread, the same bits."""

from __future__ import annotations

import numpy as np
import pytest

import formats
from simulator.arithmetic import Accumulation, mac
from tests.oracles.peers import with_apytypes, with_mmaemu

SIZE = 64


def _operands(name: str):
    rng = np.random.default_rng(0)
    return [formats.get(name).quantize(rng.standard_normal((SIZE, SIZE))) for _ in range(2)]


@pytest.mark.parametrize(
    ("spec", "operands", "accumulator"),
    [("seq(fp16)", (5, 10), (5, 10)), ("seq(fp32)", (8, 7), (8, 23)), ("seq(e6m9)", (5, 2), (6, 9))],
)
def test_apytypes(against, spec, operands, accumulator):
    pytest.importorskip("apytypes")
    a, b = _operands("e{}m{}:ieee".format(*operands))
    work = Accumulation(mac(spec), a, b, None, threads=1)
    against(
        f"{spec} of e{operands[0]}m{operands[1]} ({work.kernel.name})", work.dense,
        "apytypes", lambda: with_apytypes(a, b, operands, accumulator), "context",
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("unit", "fast"), [("h100.fp8.wgmma", True), ("cublas.fp8.slow", False)])
def test_mmaemu(against, unit, fast):
    pytest.importorskip("mmaemu")
    a, b = (x.astype(np.float32) for x in _operands("fp8_e4m3"))
    work = Accumulation(mac(unit), a, b, None, threads=1)
    against(f"{unit} ({work.kernel.name})", work.dense, "mmaemu", lambda: with_mmaemu(a, b, fast), "context")
