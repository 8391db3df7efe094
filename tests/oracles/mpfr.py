"""Accumulation steps by MPFR (through gmpy2), which shares neither code nor representation with the project."""

from __future__ import annotations

import math

import gmpy2

# precision, emin, emax of IEEE-like formats; emax None: unbounded, for formats whose largest value is given apart.
FORMATS = {
    "fp16": (11, -14, 15, None),
    "bf16": (8, -126, 127, None),
    "tf32": (11, -126, 127, None),
    "fp32": (24, -126, 127, None),
    "fp8_e5m2": (3, -14, 15, None),
    "fp8_e4m3": (4, -6, None, 448.0),
}


class Mpfr:
    """Correctly rounded operations in one format, subnormals included."""

    def __init__(self, name: str) -> None:
        precision, emin, emax, self.largest = FORMATS[name]
        # MPFR's significand lies in [1/2, 1), so its exponents are one more than IEEE's; its emin counts the last bit.
        self.context = gmpy2.context(
            precision=precision,
            emin=emin - precision + 2,
            emax=5000 if emax is None else emax + 1,
            subnormalize=True,
            round=gmpy2.RoundToNearest,
        )

    def fma(self, s: float, a: float, b: float, saturate: bool = False) -> float:
        """Return R(s + a*b); beyond a largest value given apart NaN, and the largest value if `saturate`."""
        exact = [gmpy2.mpfr(v, 53) for v in (a, b, s)]
        with self.context:
            result = float(gmpy2.fma(*exact))
        largest = self.largest
        if saturate and largest is None:
            precision, emax = self.context.precision, self.context.emax - 1
            largest = math.ldexp(2 - 2.0 ** (1 - precision), emax)
        if largest is not None and abs(result) > largest:
            return math.copysign(largest, result) if saturate else math.nan
        return result

    def product(self, a: float, b: float) -> float:
        """Return R(a*b), the sign of a zero product kept."""
        return self.fma(-0.0, a, b)
