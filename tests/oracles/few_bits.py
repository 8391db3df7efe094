"""Few significand bits and any exponent, over long doubles: roundings as they are, or as bad as allowed."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Wide = np.longdouble
Array = NDArray[np.longdouble]


def wide(x: ArrayLike) -> Array:
    """x as long doubles."""
    return np.asarray(x, Wide)


class FewBits:
    """Roundings to k bits.

    Args:
        bits: k. nearest: to nearest even, else toward zero. c: error of functions in units of u.
        how: "real", as the format rounds; "worst", off by u either way; "away", off by u away from `exact`, which the
            caller sets; sums are real in any case, since their bounds ask for more than an error of u.
    """

    def __init__(self, bits: int, nearest: bool, c: float, how: str, rng: np.random.Generator) -> None:
        self.bits, self.nearest, self.c, self.how, self.rng = bits, nearest, c, how, rng
        self.u = Wide(2) ** (-bits if nearest else 1 - bits)
        self.exact: Array = wide(0)

    def to_format(self, x: ArrayLike) -> Array:
        """x rounded to k bits."""
        significand, exponent = np.frexp(wide(x))
        whole = np.ldexp(significand, self.bits)
        return np.ldexp((np.rint if self.nearest else np.trunc)(whole), exponent - self.bits)

    def r(self, x: ArrayLike) -> Array:
        """The rounding of an operation's exact result."""
        return self.to_format(x) if self.how == "real" else self._off(wide(x), Wide(1))

    def f(self, x: ArrayLike) -> Array:
        """What a function of the library gives whose exact value is x."""
        return self.to_format(x) if self.how == "real" else self._off(wide(x), Wide(self.c))

    def _off(self, x: Array, times: np.longdouble) -> Array:
        sign = self.rng.choice([-1.0, 1.0], x.shape)
        if self.how == "away" and self.exact.shape == x.shape:
            sign = np.where(x == self.exact, sign, np.sign(x - self.exact) * np.where(x < 0, -1, 1))
        return x * (1 + times * self.u * wide(sign))

    def dot(self, a: Array, b: Array, c: ArrayLike, fused: bool) -> Array:
        """Products along the last axis, added to the addend one after the other, each rounded by itself or not."""
        s = self.to_format(np.broadcast_to(wide(c), np.broadcast_shapes(a.shape, b.shape)[:-1]))
        for k in range(a.shape[-1]):
            product = a[..., k] * b[..., k]
            s = self.to_format(s + (product if fused else self.to_format(product)))
        return s

    def sum(self, x: Array, axis: int) -> Array:
        """A sum in a random order: one after the other, or in pairs."""
        terms = list(np.moveaxis(x, axis, 0)[self.rng.permutation(x.shape[axis])])
        pairs = bool(self.rng.integers(2))
        while len(terms) > 1:
            first = self.to_format(terms[0] + terms[1])
            terms = [*terms[2:], first] if pairs else [first, *terms[2:]]
        return np.expand_dims(terms[0], axis)
