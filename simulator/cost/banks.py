"""Accesses of the array and of transfers to the banks of a level: what the fidelity event alone looks at."""

from __future__ import annotations

import math
from fractions import Fraction

from simulator.hardware import Level, Memory

from .folds import fold_grid
from .tile_costs import Place, TileCosts


def bank_cycles(
    tiles: TileCosts, memory: Memory, level: Level, at: Place, following: Place | None, preceding: Place | None
) -> int:
    """Return the cycles of a buffer's busiest bank, with what the array and the transfers beside it want: estimate.

    A word is as wide as the port, and word i is in bank i mod banks. Transfers go from word to word. The array takes
    the words of a fold one after the other; they lie as far apart as a row of the tile has words, which is as many as
    there are folds along it. With stride s it meets banks/gcd(s, banks) of the banks, taken to be the same ones for
    all. A bank is picked by bits of the address: a number of banks that is no power of two counts as the next smaller.
    """
    mt, nt, kt = tiles.sizes(*at)
    rows, columns, _ = fold_grid(tiles.array, tiles.flow, mt, nt, kt, tiles.rate)
    moved = tiles.compute(*at).moved
    banks, read, write = bank_count(level), level.read_bits_per_cycle, level.write_bits_per_cycle
    a_share, w_share, o_share = (Fraction(math.gcd(stride, banks), banks) for stride in (rows, columns, columns))
    accesses = Fraction(0)
    if "a" in level.holds:
        accesses += moved.a_reads * a_share / read
    if "w" in level.holds:
        accesses += moved.w_reads * w_share / read
    if "o" in level.holds:
        accesses += moved.o_writes * o_share / write
        if memory.accumulators is None:
            accesses += moved.psum_reads * o_share / read + moved.psum_writes * o_share / write
        if preceding is not None and level.buffers > 1:
            accesses += tiles.stored_bits(*preceding) / (read * banks)
    if following is not None and not tiles.waits_for_copy(following):
        for tensor, bits in zip("aw", tiles.operand_bits(*following), strict=True):
            accesses += bits / (write * banks) if tensor in level.holds else 0
    return math.ceil(accesses / level.ports)


def bank_count(level: Level) -> int:
    """Return the banks that an address picks by its bits."""
    assert level.banks is not None
    return 1 << level.banks.bit_length() - 1


def accesses_per_cycle(level: Level) -> int:
    """Accesses that all banks of a level take in a cycle."""
    return bank_count(level) * level.ports
