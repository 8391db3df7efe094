"""A matrix product, or several of one shape, as what is priced."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

from simulator.errors import InputError

LARGEST_DIMENSION = 2**30


@dataclass(frozen=True)
class Gemm:
    """`gemms` matrix products O[MxN] = A[MxK] W[KxN] of one shape (groups or batch entries), one after another.

    All four are from 1 to 2**30.
    """

    m: int
    n: int
    k: int
    gemms: int = 1

    def __post_init__(self) -> None:
        for name in ("m", "n", "k", "gemms"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or not 1 <= int(value) <= LARGEST_DIMENSION:
                raise InputError(
                    f"gemm: {name}: got {value!r}; expected a whole number from 1 to {LARGEST_DIMENSION}; give e.g. 64"
                )
            object.__setattr__(self, name, int(value))  # a numpy integer would overflow in products

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one pass."""
        return self.gemms * self.m * self.n * self.k
