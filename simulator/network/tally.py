"""What is counted per layer while a network runs: shapes, flags, overflows, errors against the exact run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from simulator.arithmetic.criterion import Account
from simulator.cost import Gemm
from simulator.cost.flags import MaskFlags
from simulator.hardware.records import Policy

from .consumers import Consumer
from .ops import Op
from .packed import PackedFlags
from .relative_errors import RelativeErrors
from .rules import Arithmetic


class LayerTally:
    """One layer in one phase and shape over all passes of a run.

    Args:
        op: the layer's first Op; later ones add rows, products where these count samples, or terms of the sums where
            they run over samples.
        label: of the arithmetic; "low", "high" and "two_pass" are priced.
        mac: the arithmetic in words. activation: that the score used. site: number of the layer in the run.
        scales: of the operands in words, empty for none. policy: of its two passes, if it is its own.
    """

    def __init__(
        self, op: Op, label: str, mac: str, activation: str, site: int, scales: str = "", policy: Policy | None = None
    ) -> None:
        self.policy = policy
        self.name, self.phase, self.kind, self.batched, self.n = op.name, op.phase, op.kind, op.batched, op.n
        self.m, self.k, self.gemms = op.m, op.k, op.gemms
        self.summed = op.summed
        self.step = op.step
        self.label, self.mac, self.activation, self.site, self.scales = label, mac, activation, site, scales
        self.rows = 0  # computed so far, of each product, or of all products together where these count samples
        self.overflows = 0
        self.zeros = 0  # MACs with a zero operand, where they are counted
        self.a_words = 0  # elements of the first operand, of a convolution those of its image
        self.errors = RelativeErrors()
        self.accounts: dict[int, Account] = {}  # of the budget of a second pass, by product
        self._begun = False
        self.recomputed = 0  # outputs that some pass after the first computed
        self.pass_outputs: tuple[int, ...] = ()  # that each of them did
        self._flags: tuple[PackedFlags, ...] = ()  # of each pass after the first

    def add(self, op: Op, overflows: int, flags: Sequence[NDArray[np.bool_]], zeros: int = 0) -> None:
        """Count one more Op of this layer.

        Args:
            flags: of each pass after the first, of shape (gemms, M, N). zeros: MACs with a zero operand.
        """
        if self._begun:
            self.gemms += op.gemms if self.batched else 0
            self.k += op.k if self.summed else 0
            self.m += 0 if self.batched or self.summed else op.m
        self._begun = True
        self.rows += op.gemms * op.m if self.batched else op.m
        self.overflows += overflows
        self.zeros += zeros
        self.a_words += op.operands[0].size
        self._flags = self._flags or tuple(PackedFlags(op.gemms, op.m, op.n, op.batched) for _ in flags)
        for packed, own in zip(self._flags, flags, strict=True):
            packed.add(own)
        if flags:
            computed = [int(np.count_nonzero(own)) for own in flags]
            self.pass_outputs = tuple(map(sum, zip(self.pass_outputs or [0] * len(flags), computed, strict=True)))
            self.recomputed += int(np.count_nonzero(np.logical_or.reduce(flags)))

    @property
    def gemm(self) -> Gemm:
        """What is priced, all samples in one batch."""
        return Gemm(self.m, self.n, self.k, self.gemms, max(1, min(self.a_words, self.gemms * self.m * self.k)))

    def flags(self) -> MaskFlags | tuple[MaskFlags, ...] | None:
        """Return the counts of all flags as price takes them, all samples in one batch; None without a second pass."""
        found = tuple(packed.counts() for packed in self._flags)
        return found if len(found) > 1 else next(iter(found), None)


class Tallies:
    """The tallies of a run, in the order in which layers were met; iterates over them."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[object, ...], LayerTally] = {}

    def __iter__(self) -> Iterator[LayerTally]:
        return iter(self._tallies.values())

    def of(self, op: Op, arithmetic: Arithmetic, consumer: Consumer) -> LayerTally:
        """Return the tally of an Op: a layer has one for each shape, but for the number of samples."""
        counted = (op.gemms if not op.batched else None, op.m if op.batched or op.summed else None)
        key = (op.name, op.phase, op.kind, op.n, None if op.summed else op.k, op.batched, str(arithmetic), *counted)
        if key not in self._tallies:
            site, scales = len(self._tallies), arithmetic.scales_in_words(op.roles)
            self._tallies[key] = LayerTally(
                op, arithmetic.label, str(arithmetic), consumer.activation, site, scales, arithmetic.policy
            )
        return self._tallies[key]
