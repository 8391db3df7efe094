"""What one inner product draws and counts on its way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from formats import Use
from formats.philox import word

from ..places import SUM, C, Place, site_of
from ..spec import MacSpec
from .sums import rounded_sum


@dataclass
class Run:
    """What one inner product leaves behind beside its value.

    Args:
        place: of the output. spec: of the MAC.
        overflows: roundings that met a value beyond the largest finite one. underflows: finite values other than zero
            that were rounded to zero. swamped: additions of something, not overflowing, that left the sum as it was; in
            an aligned step terms cut to zero, in a group of a tree sums equal to the largest of several terms.
        largest: largest finite magnitude of a sum.
        used: random words used, by node and kind of rounding.
    """

    place: Place
    spec: MacSpec
    overflows: int = 0
    underflows: int = 0
    swamped: int = 0
    largest: float = 0.0
    used: dict[tuple[int, int], int] = field(default_factory=dict)

    def word(self, node: int, which: int) -> int:
        """Return the random word of the next rounding of a kind in a node."""
        k = self.used.get((node, which), 0)
        self.used[node, which] = k + 1
        p = self.place
        return word(p.seed, p.index, k & 0xFFFFFFFF, site_of(node, p.site), which, p.step)

    def addend(self, use: Use, c: float) -> float:
        """Return the addend in the format that it joins; not counted as an overflow."""
        random = self.word(C, SUM) if use.mode.stochastic else 0
        return rounded_sum(use, [(c,)], None, random)

    def held(self, value: float, unchanged: bool) -> float:
        """Note a sum that is held, and whether what was added left it unchanged."""
        self.swamped += unchanged
        if math.isfinite(value):
            self.largest = max(self.largest, abs(value))
        return value
