"""A quick check of the compiled engine on this machine: every kernel against the definition, on a small product."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import reference
from .engine import Accumulation
from .spec import mac

# One unit for each kernel; the operands below are what makes it the cheapest that holds.
UNITS = (
    "fp8_e4m3 -> fma(fp16)",
    "fp16 -> fma(fp16)",
    "fp16 -> seq(fp16)",
    "posit16 -> fma(posit16)",
    "posit16 -> seq(posit16)",
    "h100.fp16",
    "int8 -> exact(fp32)",
    "fp8_e4m3 -> exact(fp32)",
    "bf16 -> fma(fp32)",
    "fp32 -> fma(fp32)",
    "fp32 -> seq(fp32)",
    "fp32 -> seq(e8m30)",
    "fp8_e5m2 -> kahan(bf16)",
    "fma(takum16)",
)
_SHAPE = (3, 4, 16)  # M, N, K


@dataclass(frozen=True)
class Checked:
    """A unit on the kernel that was chosen for it, and of its outputs how many are not the bits of the definition."""

    unit: str
    kernel: str
    outputs: int
    wrong: int


def self_check() -> list[Checked]:
    """Return for one unit of each kernel how many of its outputs differ from the exact definition."""
    m, n, k = _SHAPE
    rng = np.random.default_rng(0)
    a = rng.standard_normal((m, k)) * 2.0 ** rng.integers(-3, 4, (m, k))
    b = rng.standard_normal((k, n))
    return [_checked(unit, a, b) for unit in UNITS]


def _checked(unit: str, a: np.ndarray, b: np.ndarray) -> Checked:
    spec = mac(unit)
    product = Accumulation(spec, a, b, None)
    found, _ = product.dense()
    wanted = np.array([[reference.dot(spec, row, column)[0] for column in b.T] for row in a])
    wrong = np.asarray(found, np.float64).view(np.int64) != wanted.view(np.int64)
    return Checked(unit, product.kernel.name, wrong.size, int(wrong.sum()))
