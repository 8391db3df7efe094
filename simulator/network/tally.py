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
from .layer_arithmetic import Arithmetic
from .ops import Op
from .packed import PackedFlags
from .planned import Planned
from .relative_errors import RelativeErrors


class LayerTally:
    """One layer in one phase and shape over all passes of a run.

    Args:
        op: the layer's first Op; later ones add rows, products where these count samples, or terms of the sums where
            they run over samples.
        gemm: what of it is priced: all, or those columns that a static plan gives one MAC.
        label: of the arithmetic; "low", "high" and "two_pass" are priced.
        mac: the arithmetic in words. activation: that the score used. site: number of the layer in the run.
        scales: of the operands in words, empty for none. policy: of its two passes, if it is its own.
        planned: "low" or "high" where a static plan gives it that MAC, else empty.
        columns: which columns of the layer's products it has, (gemms, N); None for all.
    """

    def __init__(
        self,
        op: Op,
        gemm: Gemm,
        label: str,
        mac: str,
        activation: str,
        site: int,
        scales: str = "",
        policy: Policy | None = None,
        planned: str = "",
        columns: NDArray[np.bool_] | None = None,
    ) -> None:
        self.policy, self.planned, self.columns = policy, planned, columns
        self.name, self.phase, self.kind, self.batched = op.name, op.phase, op.kind, op.batched
        self.m, self.n, self.k, self.gemms = gemm.m, gemm.n, gemm.k, gemm.gemms
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

    def add(self, op: Op, gemm: Gemm, overflows: int, flags: Sequence[NDArray[np.bool_]], zeros: int = 0) -> None:
        """Count one more Op of this layer.

        Args:
            gemm: what of it is priced. flags: of each pass after the first, of shape (gemms, M, N).
            zeros: MACs with a zero operand.
        """
        if self._begun:
            self.gemms += gemm.gemms if self.batched else 0
            self.k += gemm.k if self.summed else 0
            self.m += 0 if self.batched or self.summed else gemm.m
        self._begun = True
        self.rows += op.gemms * op.m if self.batched else op.m
        self.overflows += overflows
        self.zeros += zeros
        self.a_words += gemm.a_words or 0
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

    def flagged_by_column(self) -> NDArray[np.int64] | None:
        """Return how many outputs of each column were flagged, (gemms, N); None without a second pass."""
        if len(self._flags) != 1:
            return None
        parts = (mask.sum(axis=1) for masks in self._flags[0] for mask in masks)
        if self.batched:
            return np.concatenate(list(parts))
        return np.asarray(sum(parts))

    def flags(self) -> MaskFlags | tuple[MaskFlags, ...] | None:
        """Return the counts of all flags as price takes them, all samples in one batch; None without a second pass."""
        found = tuple(packed.counts() for packed in self._flags)
        return found if len(found) > 1 else next(iter(found), None)


class Tallies:
    """The tallies of a run, in the order in which layers were met; iterates over them."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[object, ...], LayerTally] = {}
        self._sites: dict[tuple[object, ...], int] = {}

    def __iter__(self) -> Iterator[LayerTally]:
        return iter(self._tallies.values())

    def of(self, op: Op, arithmetic: Arithmetic, consumer: Consumer, planned: Planned | None = None) -> LayerTally:
        """Return the tally of an Op: a layer has one for each shape, but for the number of samples.

        Of a layer with a static plan it is that of one of its parts, all of which are one site.
        """
        counted = (op.gemms if not op.batched else None, op.m if op.batched or op.summed else None)
        layer = (op.name, op.phase, op.kind, op.n, None if op.summed else op.k, op.batched, *counted)
        gemm, mode, columns = (op.gemm, "", None) if planned is None else (planned.gemm, planned.mode, planned.columns)
        words = str(arithmetic)
        key = (*layer, words, mode, gemm.n)
        if key not in self._tallies:
            site = self._sites.setdefault((*layer, "" if mode else words), len(self._sites))
            self._tallies[key] = LayerTally(
                op, gemm, arithmetic.label, words, consumer.activation, site, arithmetic.scales_in_words(op.roles),
                arithmetic.policy, mode, columns,
            )  # fmt: skip
        return self._tallies[key]
