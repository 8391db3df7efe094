"""The three numbers that an element has, what each of them claims, and how amplitudes of noise become bits."""

from __future__ import annotations

import torch
from torch import Tensor

SAFE, EXPECTED, CERTAIN_NOISE = "safe", "expected", "certain_noise"
LABELS = (SAFE, EXPECTED, CERTAIN_NOISE)

MEANINGS = {
    SAFE: "upper bound of the error: |value - exact| <= 2**-bits |exact|, always",
    EXPECTED: "statistical: |error| <= two standard deviations; roundings taken as independent, so that deep gradients "
    "are under-estimated; not a bound",
    CERTAIN_NOISE: "optimistic: bits beyond it are noise if the errors of operands are independent; own roundings are "
    "not counted",
}

# The word that stands beside every number of a label.
GUARANTEES = {SAFE: "upper bound", EXPECTED: "statistical", CERTAIN_NOISE: "estimate"}

# Significand bits, the leading one included (IEEE 754-2019 table 3.5; OCP 8-bit formats, revision 1.0, table 1).
_PRECISION = {
    torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8, torch.float8_e4m3fn: 4,
    torch.float8_e4m3fnuz: 4, torch.float8_e5m2: 3, torch.float8_e5m2fnuz: 3,
}  # fmt: skip


def precision(dtype: torch.dtype) -> int | None:
    """Return the significand bits of a type of torch; None if its values are no real numbers in floating point."""
    return _PRECISION.get(dtype)


def working(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which rules compute, and noise is kept: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def safe_bits(x: Tensor, bound: Tensor | None, most: int) -> Tensor:
    """Return the bits of values that are off by at most `bound`; a bound that is NaN is infinite. Never too many."""
    x = x.double().abs()
    if bound is None:
        return _unless_finite(x, torch.full(x.shape, float(most)), most)
    bound = bound.double().expand(x.shape)
    # Rounded in float64, a quotient and a logarithm are off by less than this.
    bits = torch.floor(torch.log2((x - bound) / bound) - 2.0**-40)
    bits = torch.where(x > bound, bits, 0.0)
    return _unless_finite(x, torch.where(bound == 0, float(most), bits), most)


def expected_bits(x: Tensor, deviation: Tensor | None, most: int) -> Tensor:
    """Return the bits of values whose errors have this standard deviation: those beyond two of them. Statistical."""
    x = x.double().abs()
    if deviation is None:
        return _unless_finite(x, torch.full(x.shape, float(most)), most)
    deviation = deviation.double().expand(x.shape)
    bits = torch.floor(torch.log2(x / (2.0 * deviation)))
    return _unless_finite(x, torch.where(deviation == 0, float(most), bits), most)


def certain_noise_bits(x: Tensor, noise: Tensor | None, most: int) -> Tensor:
    """Return e(x) less the exponent of the noise, up to a whole number. Optimistic."""
    if noise is None:
        return _unless_finite(x.double(), torch.full(x.shape, float(most)), most)
    noise = noise.double().expand(x.shape)
    bits = torch.ceil(torch.log2(binade(x.double())) - torch.log2(noise))
    return _unless_finite(x.double(), torch.where(noise == 0, float(most), bits), most)


def binade(x: Tensor) -> Tensor:
    """Return 2**floor(log2|x|); 0 of 0, infinity and NaN as they are."""
    exponent = torch.frexp(x).exponent
    found = torch.ldexp(torch.ones_like(x), exponent - 1)
    return torch.where((x == 0) | ~torch.isfinite(x), x.abs(), found)


def _unless_finite(x: Tensor, bits: Tensor, most: int) -> Tensor:
    """Return whole bits from 0 to `most`, none of values that are infinite or NaN."""
    bits = torch.nan_to_num(bits, nan=0.0, posinf=float(most), neginf=0.0).clamp(0, most)
    return torch.where(torch.isfinite(x), bits, 0.0).to(torch.uint8)


def reach(label: str, noise: Tensor) -> Tensor:
    """Return how far off a label says that values are, in float64: two deviations, of the expected number; NaN is
    infinite."""
    size = noise.double() * (2.0 if label == EXPECTED else 1.0)
    return torch.nan_to_num(size, nan=torch.inf, posinf=torch.inf)


def bits_of(label: str, x: Tensor, noise: Tensor | None, most: int) -> Tensor:
    """Return the bits that a number of this label claims, from its amplitudes of noise."""
    return {SAFE: safe_bits, EXPECTED: expected_bits, CERTAIN_NOISE: certain_noise_bits}[label](x, noise, most)
