"""Block scales for whole arrays, on significands and exponents: MX's five modes and NVFP4, blocks along the last axis.

Source: OCP Microscaling Formats 1.0, section 6.3; the words of the other modes as in tests/oracles/blocks.py, which
holds them in fractions.
"""

from __future__ import annotations

import math

import numpy as np

from .float_rules import FixedRules, float_rules
from .integers import Floats, Integers, Words

# name -> element, its p at the top, block size
MX = {
    "mxfp8_e4m3": ("fp8_e4m3", 4, 32), "mxfp8_e5m2": ("fp8_e5m2", 3, 32), "mxfp6_e3m2": ("fp6_e3m2", 3, 32),
    "mxfp6_e2m3": ("fp6_e2m3", 4, 32), "mxfp4": ("fp4_e2m1", 2, 32), "mxint8": ("fix8.6", 7, 32),
}  # fmt: skip


def blocks_amax(x: Floats, size: int) -> Floats:
    """Largest magnitude of each block of a (rows, columns) array whose columns are whole blocks, for each element."""
    rows, columns = x.shape
    return np.repeat(np.abs(x).reshape(rows, columns // size, size).max(axis=2), size, axis=1)


def mx_quantized(name: str, x: Floats, mode: str, random: Words | None) -> Floats:
    """What an MX format makes of finite x, saturating; `name` may end in ":" and a scale mode."""
    base, _, scale_mode = name.partition(":")
    element, precision, size = MX[base]
    rules = FixedRules(8, 6, True) if base == "mxint8" else float_rules(element)
    largest = float(rules.values()[-1])
    k = exponents(blocks_amax(x, size), largest, precision, scale_mode or "floor")
    flat = np.ldexp(x, -k).ravel()
    y = np.maximum(rules.quantized(flat, mode, "sat", random), -largest).reshape(x.shape)
    return np.ldexp(y, k)


def exponents(amax: Floats, largest: float, precision: int, mode: str) -> Integers:
    """Exponents of the scales, clamped to those of E8M0."""
    fraction, above = np.frexp(amax)
    m, g = 2 * fraction, above.astype(np.int64) - 1
    top, emax = 2 * math.frexp(largest)[0], math.frexp(largest)[1] - 1
    k = {
        "floor": g - emax,
        "ceil": g - emax + (m > 1),
        "rceil": g - emax + (m > top),
        "even": g - emax + (m >= 2 - 2.0**-precision),
        # amax / largest = (m / top) * 2**(g - emax): the next power from one and a half times the last one on.
        "rne": g - emax + np.where(m >= top, 2 * m >= 3 * top, -1 + (4 * m >= 3 * top).astype(int)),
    }[mode]
    return np.where(amax == 0, -127, np.clip(k, -127, 127))


def nvfp4_quantized(x: Floats, mode: str, random: Words | None) -> Floats:
    """What NVFP4 makes of float32 values, in its float32 operations one after the other."""
    e2m1, ue4m3 = float_rules("fp4_e2m1"), float_rules("ue4m3")
    narrow, amax = x.astype(np.float32), blocks_amax(x, 16).astype(np.float32)
    s = np.float32(2688) / amax.max()
    scale = ue4m3.quantized(((amax / np.float32(6)) * s).astype(np.float64), "rne", "sat")
    scale = np.maximum(scale, 2.0**-9)
    elements = e2m1.quantized(((narrow * s) / scale.astype(np.float32)).astype(np.float64).ravel(), mode, "sat", random)
    return elements.reshape(x.shape) * scale * np.float64(np.float32(1) / s)
