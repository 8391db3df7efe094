"""Additions without effect: products of a layer that were too small for the running sum they were added to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.arithmetic.convolution import Rows
from simulator.arithmetic.engine import Accumulation, random_key
from simulator.arithmetic.zeros import zero_macs
from simulator.network.emulation import Emulation
from simulator.network.ops import Op

# Multiply-accumulates that are counted of one operation; beyond them a sample of its rows stands for all.
MOST_MACS = 1 << 22


@dataclass
class Swamping:
    """What became of the additions of a product, on the batch observed.

    Args:
        additions: of products with no operand 0. swamped: of these, that left the sum as it was, nothing overflowing;
            what counts as one addition in a unit that adds several terms at once: simulator.arithmetic.Stats.
        overflows, underflows: roundings of sums beyond the largest finite value, and of what is not 0 to 0.
    """

    additions: int = 0
    swamped: int = 0
    overflows: int = 0
    underflows: int = 0

    @property
    def share(self) -> float:
        """Share of the additions that were swamped."""
        return self.swamped / self.additions if self.additions else 0.0


class Swamped:
    """An observer of an emulation, which counts again what each operation adds, with the operands that it had.

    Args:
        emulation: of a training. products: that have a MAC unit of their own, by the names of `recipe.PRODUCTS`.
        seed: of stochastic roundings. most: multiply-accumulates of an operation, in evenly spaced rows; at least one
            row of each part is counted.
    """

    def __init__(self, emulation: Emulation, products: Iterable[str], seed: int = 0, most: int = MOST_MACS) -> None:
        self.found: dict[str, dict[str, Swamping]] = {product: {} for product in products}
        self._rules, self._seed, self._most = emulation.rules, seed, most

    def __call__(self, op: Op, out: NDArray[Any], tally: Any) -> None:
        """Count an operation."""
        layers = self.found.get(op.phase.replace(" ", "_"))
        arithmetic = self._rules.arithmetic(op)
        if layers is None or arithmetic.low is None:
            return
        spec, counts = op.on(arithmetic.low), layers.setdefault(op.name, Swamping())
        every = max(1, -(-op.macs // self._most))
        key = random_key(self._seed, 0, 0, 0, op.n)
        for block in op.blocks(spec):
            a = _rows(block.a, every)
            c = op.addend_of(block) if op.factors == (1.0, 1.0) else None
            sums = Accumulation(spec, a, block.b, None if c is None else c[::every], None, key)
            _, stats = sums.dense(stats=True)
            assert stats is not None
            total = stats.total
            counts.additions += a.shape[0] * op.k * op.n - zero_macs(sums.a, sums.b)
            for name in ("swamped", "overflows", "underflows"):
                setattr(counts, name, getattr(counts, name) + int(total[name]))


def _rows(a: Rows, every: int) -> NDArray[Any]:
    """Return rows of an operand, evenly spaced."""
    if isinstance(a, np.ndarray):
        return a[::every]
    return np.stack([a.row(i) for i in range(0, a.shape[0], every)])
