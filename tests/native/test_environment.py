"""The caller's floating-point environment changes no bit: flush-to-zero, denormals-are-zero, directed rounding."""

import ctypes
import ctypes.util
import platform

import numpy as np
import pytest

import formats
import simulator
from tests.oracles.operands import addend, structured

SEED = 200
torch = pytest.importorskip("torch")

# Accumulators in which subnormals of float32 occur as operands, states, addends and results.
SPECS = [
    "fma(e8m13)",
    "fma(e8m13) -> fp64",
    "seq(bf16)",
    "exact(bf16)",
    "exact(fp32)",
    "late(fma(e8m13))",
    "late(seq(bf16)) -> fp32",
    "fma(fp32)",
    "bf16 -> fma(bf16) -> tf32",
    "chunk(3, fma(e8m13), seq(fp32))",
]


@pytest.fixture
def operands_in_default_mode():
    """The operands themselves are made before the mode changes, by numpy, which obeys the mode."""
    a, b = structured("subnormal", "bf16", "bf16", 5, 6, 7, SEED)
    return {(kind, np.dtype(t)): x.astype(t) for kind, x in (("a", a), ("b", b)) for t in (np.float32, np.float64)}


def computed(operands, c):
    seen = []
    for spec in SPECS:
        for left in (np.float32, np.float64):
            for right in (np.float32, np.float64):
                a, b = operands["a", np.dtype(left)], operands["b", np.dtype(right)]
                seen.append(simulator.matmul(a, b, spec, c=c[np.dtype(left)], threads=2).tobytes())
                seen.append(simulator.dot(a[:, :6], b[:5], spec, c=c[np.dtype(right)][:, 0]).tobytes())
    a, b = operands["a", np.dtype("f4")], operands["b", np.dtype("f4")]
    result = simulator.two_pass(a, b, "fma(e8m13)", "fma(fp64)", activation="relu", tolerance=np.inf)
    seen.append(result.output.tobytes())
    for name in ("bf16", "e8m13", "fp32", "fp16"):
        seen.append(formats.get(name).quantize(a).tobytes())
    for name in ("fp32", "bf16", "fix16.140", "posit32e5", "takum32"):
        codes = formats.get(name).encode(a)
        seen += [codes.tobytes(), formats.get(name).decode(codes).tobytes()]
    # A scale of e8m0 reaches down to float32's subnormals, and 2**-149 is one of this fixed point.
    for name in ("mxfp8_e5m2", "block(fix16.149,4,scale=e8m0,mode=ceil)"):
        codes = formats.get(name).encode(a)
        seen += [codes.scales.tobytes(), codes.elements.tobytes(), formats.get(name).quantize(a, axis=0).tobytes()]
    return seen + computed_in_python(a)


def computed_in_python(a):
    """What Python and numpy compute: NVFP4's float32 operations, formats without a twin, and the definitions."""
    normal = np.arange(1, 65, dtype=np.float32).reshape(4, 16) / np.float32(7)
    seen = []
    for x in (a, normal):
        codes = formats.get("nvfp4").encode(x)
        seen += [codes.scales.tobytes(), codes.elements.tobytes(), codes.tensor_scale.tobytes()]
        seen += [formats.get("nvfp4").quantize(x).tobytes(), formats.get("nvfp4").decode(codes).tobytes()]
    subnormal = np.array([1, 1 << 63 | 1 << 40, 1 << 51], np.uint64).view(np.float64)
    seen += [formats.get(name).encode(subnormal).tobytes() for name in ("binary16p3se", "e11m52:b1025", "fp64")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats.Format, "fast_twins", {})
        for name in ("fp64", "e11m40", "fp32", "mxfp8_e5m2", "nvfp4"):
            seen.append(formats.get(name).quantize(subnormal).tobytes())
    return seen


@pytest.fixture
def addends():
    c = addend("bf16", (5, 6), SEED)
    with np.errstate(under="ignore"):
        return {np.dtype(t): formats.get("fp32").quantize(c).astype(t) for t in (np.float32, np.float64)}


def subnormal_share(operands):
    y = simulator.matmul(operands["a", np.dtype("f8")], operands["b", np.dtype("f8")], "fma(e8m13)")
    return float(((y != 0) & (np.abs(y) < 2.0**-126)).mean())


def test_flush_to_zero_changes_no_bit(isa, operands_in_default_mode, addends):
    assert subnormal_share(operands_in_default_mode) > 0.2, "the operands no longer give subnormal results"
    before = computed(operands_in_default_mode, addends)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no flush-to-zero mode")
    try:
        assert np.float32(2.0**-140) * np.float32(1) == 0, "flush-to-zero is not in force"
        during = computed(operands_in_default_mode, addends)
    finally:
        torch.set_flush_denormal(False)
    differing = [i for i, (x, y) in enumerate(zip(before, during, strict=True)) if x != y]
    assert not differing, f"results {differing} of {len(before)} changed on {isa}, seed {SEED}"


UPWARD = {"x86_64": 0x800, "aarch64": 0x400000}


@pytest.mark.skipif(platform.machine() not in UPWARD, reason="the C library's number of FE_UPWARD is not known here")
def test_a_directed_rounding_mode_of_the_caller_changes_no_bit(isa, operands_in_default_mode, addends):
    fenv = ctypes.CDLL(ctypes.util.find_library("m"))
    before = computed(operands_in_default_mode, addends)
    assert fenv.fesetround(UPWARD[platform.machine()]) == 0
    try:
        during = computed(operands_in_default_mode, addends)
        mode = fenv.fegetround()
    finally:
        fenv.fesetround(0)
    assert mode == UPWARD[platform.machine()], "the engine did not restore the caller's rounding mode"
    differing = [i for i, (x, y) in enumerate(zip(before, during, strict=True)) if x != y]
    assert not differing, f"results {differing} of {len(before)} changed on {isa}, seed {SEED}"


def test_the_flush_mode_of_the_caller_is_restored(isa):
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no flush-to-zero mode")
    try:
        simulator.matmul(np.ones((2, 2)), np.ones((2, 2)), "fma(fp16)")
        formats.get("fp16").quantize(np.ones(3))
        still = float(np.float32(2.0**-140) * np.float32(1))
    finally:
        torch.set_flush_denormal(False)
    assert still == 0.0
