"""Random words for stochastic rounding: Philox4x32-10, a function of a key and a counter and of nothing else.

key = (seed, training step); counter = (index of the output in C order, 64 bits; k; site). So a result does not depend
on threads, tiles or the order of work. Each call gives 128 bits, two 64-bit words: word 0 for the first rounding of a
step (the product's, or that of a quantisation), word 1 for the second (the sum's).

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from typing import Any

from .arguments import whole_of_bits

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_ROUNDS = 10


def philox(key: tuple[int, int], counter: tuple[Any, Any, int, int]) -> tuple[Any, Any, Any, Any]:
    """Return four random 32-bit words of a key and a counter of 32-bit words, or arrays of uint64 with such words."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(_ROUNDS):
        first, second = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (second >> 32) ^ c1 ^ k0, second & _MASK, (first >> 32) ^ c3 ^ k1, first & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def word(seed: int, index: int, k: int = 0, site: int = 0, which: int = 0, step: int = 0) -> int:
    """Return the 64-bit word `which` (0 or 1) of output `index`.

    Args:
        seed, step: 32 bits each. index: modulo 2**64. k, site: 32 bits each.
    """
    words = philox((seed, step), (index & _MASK, index >> 32 & _MASK, k, site))
    return int(words[2 * which]) << 32 | int(words[2 * which + 1])


def check_seed(seed: int | None) -> int:
    """Return a seed of 32 bits, 0 for None; TypeError or ValueError otherwise."""
    return 0 if seed is None else whole_of_bits("seed", seed, 32)


def check_offset(offset: int) -> int:
    """Return the index of a first element, 64 bits; TypeError or ValueError otherwise."""
    return whole_of_bits("offset", offset, 64)
