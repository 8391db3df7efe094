"""A matrix product, or several of one shape, as what is priced."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral

from simulator.errors import InputError

LARGEST_DIMENSION = 2**30


@dataclass(frozen=True)
class Gemm:
    """`gemms` matrix products O[MxN] = A[MxK] W[KxN] of one shape (groups or batch entries), one after another.

    Args:
        m, n, k, gemms: from 1 to 2**30.
        a_words: distinct elements of all A together, of a convolution those of its image, which is read as it lies and
            unfolded on the chip; None: all of gemms * M * K.
    """

    m: int
    n: int
    k: int
    gemms: int = 1
    a_words: int | None = None

    def __post_init__(self) -> None:
        for name in ("m", "n", "k", "gemms"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or not 1 <= int(value) <= LARGEST_DIMENSION:
                raise InputError(
                    f"gemm: {name}: got {value!r}; expected a whole number from 1 to {LARGEST_DIMENSION}; give e.g. 64"
                )
            object.__setattr__(self, name, int(value))  # a numpy integer would overflow in products
        words, most = self.a_words, self.gemms * self.m * self.k
        if words is not None and (not isinstance(words, Integral) or not 1 <= words <= most):
            raise InputError(f"gemm: a_words: got {words!r}; expected a whole number from 1 to gemms * M * K = {most}")

    @property
    def a_share(self) -> Fraction:
        """Distinct elements of A in parts of all."""
        return Fraction(1) if self.a_words is None else Fraction(int(self.a_words), self.gemms * self.m * self.k)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one pass."""
        return self.gemms * self.m * self.n * self.k
