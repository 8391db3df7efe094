"""Other emulators give the same bits: apytypes for seq, mmaemu for the tensor cores of an H100."""

import numpy as np
import pytest

import formats
import simulator
from tests.oracles.bits import assert_same_bits
from tests.oracles.peers import with_apytypes, with_mmaemu

SEED = 1000


@pytest.mark.parametrize("spread", [0, 6, 12])
@pytest.mark.parametrize(
    ("operands", "accumulator"),
    [((5, 10), (5, 10)), ((4, 3), (5, 10)), ((8, 7), (8, 23)), ((5, 2), (6, 9)), ((5, 10), (8, 3)), ((3, 4), (6, 12))],
)
def test_seq_is_what_apytypes_computes(operands, accumulator, spread):
    pytest.importorskip("apytypes")
    rng = np.random.default_rng([SEED, spread])
    fmt = formats.get("e{}m{}:ieee".format(*operands))
    a, b = (
        fmt.quantize(rng.standard_normal((24, 24)) * np.exp2(rng.integers(-spread, spread + 1, (24, 24))), "rne", "sat")
        for _ in range(2)
    )
    y = simulator.matmul(a, b, "seq(e{}m{}:ieee)".format(*accumulator))
    assert_same_bits(y, with_apytypes(a, b, operands, accumulator), note=f"{operands} {accumulator} seed {SEED}")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("k", [32, 128, 200, 512, 1024])
@pytest.mark.parametrize(("unit", "fast"), [("h100.fp8.wgmma", True), ("cublas.fp8.slow", False)])
def test_an_h100_is_what_mmaemu_says(unit, fast, k):
    pytest.importorskip("mmaemu")
    rng = np.random.default_rng([SEED, k])
    a, b = (
        formats.get("fp8_e4m3").quantize(rng.standard_normal(shape) * np.exp2(rng.integers(-4, 5, shape)), "rne", "sat")
        for shape in ((32, k), (k, 24))
    )
    theirs = with_mmaemu(a.astype(np.float32), b.astype(np.float32), fast)
    assert_same_bits(simulator.matmul(a, b, unit), theirs, note=f"{unit} k={k} seed {SEED}")
