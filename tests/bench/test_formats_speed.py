"""quantize, encode and decode of large arrays against a numpy copy of the same number of float64, one thread."""

from __future__ import annotations

import numpy as np
import pytest

import formats
import native  # noqa: F401  (installs the fast twins)

COUNT = 1 << 22
FLOATS = ["fp8_e4m3", "fp8_e4m3fnuz", "binary8p4se", "fp16", "bf16", "fp32", "dlfloat16", "e5m2:ftz"]
# What is to be reached: 3 copies for rounding floats, 10 for everything that posits and codebooks do.
CASES = [
    *((name, "quantize", "rne", "3") for name in FLOATS),
    *((name, operation, "rne", "10") for name in ("posit8", "posit16", "posit32", "takum16") for operation in (
        "quantize", "encode", "decode")),
    *((f"codebook of {n}", operation, "rne", "10") for n in (16, 256, 65536) for operation in (
        "quantize", "encode", "decode")),
    ("fp16", "quantize", "rz", "-"), ("fp16", "quantize", "sr", "-"), ("fp16", "encode", "rne", "-"),
    ("fp16", "decode", "rne", "-"), ("posit16", "quantize", "rz", "10"), ("posit16", "quantize", "sr", "10"),
    ("fix16.8", "quantize", "rne", "-"), ("fix16.8", "encode", "rne", "-"), ("int8", "decode", "rne", "-"),
    ("mxfp8_e4m3", "quantize", "rne", "-"), ("mxfp4", "encode", "rne", "-"), ("mxfp4", "decode", "rne", "-"),
    ("nvfp4", "quantize", "rne", "-"),
]  # fmt: skip


def _format(name: str) -> formats.Format:
    if not name.startswith("codebook of "):
        return formats.get(name)
    values = np.random.default_rng(1).standard_normal(int(name.split()[-1]))
    return formats.CodebookFormat(name, tuple(np.unique(values).tolist()))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case[:3]).replace(" ", "_"))
def test_large_array(against, case):
    name, operation, rounding, reach = case
    x = np.random.default_rng(0).standard_normal(COUNT)
    fmt = _format(name)
    codes = fmt.encode(x)
    work = {
        "quantize": lambda: fmt.quantize(x, rounding),
        "encode": lambda: fmt.encode(x, rounding),
        "decode": lambda: fmt.decode(codes),
    }[operation]
    against(f"{operation} {name} {rounding}", work, "numpy copy of float64", x.copy, reach)


@pytest.mark.parametrize("fmt", ["fp8_e4m3", "fp16"])
def test_float32(against, fmt):
    x = np.random.default_rng(0).standard_normal(COUNT).astype(np.float32)
    wide = x.astype(np.float64)  # what comes out is float64
    f = formats.get(fmt)
    against(f"quantize {fmt} rne from float32", lambda: f.quantize(x), "numpy copy of float64", wide.copy, "3")
