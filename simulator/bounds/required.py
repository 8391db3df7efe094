"""required_precision: the significand bits with which the top class of a network provably cannot change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simulator.arithmetic.spec import MacSpec
from simulator.errors import InputError
from simulator.hardware import Machine
from simulator.network.batches import fixed_batch, in_whole_batches
from simulator.notebook import Shown, View, frame

from .analysis import forward
from .certify import METHODS, Certified, Progress, Samples, between, certify, known_methods, recorded
from .normal import probabilities, softmax_bounds
from .roundings import MOST_BITS
from .rule import Unit
from .subject import Boxes, subject
from .units import of_mac

if TYPE_CHECKING:
    from formats.notebook import DataFrame

# Of the samples, for which the bits are told.
SHARES = (0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True)
class RequiredPrecision(Shown):
    """How many significand bits each sample needs. Upper bounds of the least number: so many suffice, provably.

    Args:
        bits: (samples,), by the margins of the outputs; 0 where not even MOST_BITS are proved to suffice.
        confidence_bits: (samples,), so that softmax of the outputs is off by less than p - 1/2, 0 likewise;
            None if no p was given.
        certified: what was proved with the largest of these numbers. unit: in words.
    """

    bits: NDArray[np.int64]
    confidence_bits: NDArray[np.int64] | None
    certified: Certified
    unit: str

    def to_frame(self) -> DataFrame:
        """Return the bits as a DataFrame, a row for each sample, with what was proved of it; needs pandas."""
        from .shown import required_rows

        return frame(required_rows(self))

    def _view(self) -> View:
        from .shown import required_view

        return required_view(self)

    def quantiles(self, shares: Sequence[float] = SHARES) -> dict[float, int | None]:
        """Return the bits that suffice for a share of the samples; None where that is not proved for so many.

        Raises:
            InputError: a share below 0 or above 1.
        """
        return {share: _quantile(self.bits, share) for share in shares}

    def confidence_quantiles(self, shares: Sequence[float] = SHARES) -> dict[float, int | None] | None:
        """Return those that suffice for the confidence, likewise; None if no p was given."""
        of = self.confidence_bits
        return None if of is None else {share: _quantile(of, share) for share in shares}


def _quantile(bits: NDArray[np.int64], share: float) -> int | None:
    if not isinstance(share, Real) or not 0 <= float(share) <= 1:
        raise InputError(f"bounds: quantiles: got {share!r}; expected shares from 0 to 1; give e.g. 0.9")
    ordered = np.sort(np.where(bits == 0, MOST_BITS + 1, bits))
    value = int(ordered[max(0, math.ceil(float(share) * len(ordered)) - 1)])
    return value if value <= MOST_BITS else None


def required_precision(
    model: nn.Module,
    x: Samples,
    mac: str | MacSpec | None = None,
    confidence: float | None = None,
    methods: Sequence[str] = METHODS,
    progress: Progress | None = None,
) -> RequiredPrecision:
    """Return the least significand bits with which each sample is certified. Rigorous; found by bisection.

    Args:
        model, x, methods, progress: as of certify. mac: the unit, whose formats are taken to have so many bits and any
            exponent. confidence: p, above 1/2: besides, the bits with which every softmax output is off by less than
            p - 1/2, so that a class with at least p stays the top one (equation 10 of arXiv 2002.03869 as derived).
    Raises:
        InputError: as certify; a confidence that is none.
    """
    if confidence is not None:
        confidence = between(confidence, 0.5, "confidence", "0.6")
    if isinstance(mac, Machine):
        raise InputError(
            "bounds: mac: got a machine, whose formats are known; expected a MAC, of any precision; give one"
        )
    methods = known_methods(methods)
    inputs, done = subject(model, x, mac, MOST_BITS, "low").x, 0

    def certified_with(bits: int, rows: Tensor) -> NDArray[np.bool_]:
        return certify(model, inputs.rows(rows), mac, bits, methods=methods).certified

    def confident_with(bits: int, rows: Tensor) -> NDArray[np.bool_]:
        assert confidence is not None
        parts = rows.split(fixed_batch(model) or len(rows))
        found = [_softmax_bound(model, inputs.rows(part), of_mac(mac, bits)) for part in parts]
        return np.concatenate(found) < confidence - 0.5

    def least(suffices: Callable[[int, Tensor], NDArray[np.bool_]]) -> NDArray[np.int64]:
        nonlocal done
        samples = inputs.lo.samples
        low, high = np.full(samples, 1), np.full(samples, MOST_BITS + 1)  # not enough; enough
        while (pending := np.flatnonzero(high - low > 1)).size:
            middle = (low + high)[pending] // 2
            for bits in np.unique(middle):
                at = pending[middle == bits]
                rows = in_whole_batches(model, torch.from_numpy(at))
                enough = suffices(int(bits), rows)[np.isin(rows.numpy(), at)]
                high[at[enough]], low[at[~enough]] = bits, bits
            done += 1
            if progress is not None:
                progress(done, max(done, 6 if confidence is None else 12))
        return np.where(high > MOST_BITS, 0, high)

    bits = least(certified_with)
    by_confidence = None if confidence is None else least(confident_with)
    most = int(bits.max()) or MOST_BITS
    proved = certify(model, inputs, mac, most, methods=methods, every="adjoint" in methods)
    return RequiredPrecision(bits, by_confidence, proved, proved.unit)


def _softmax_bound(model: nn.Module, x: Boxes, unit: Unit) -> NDArray[np.float64]:
    """Return by how much the softmax of the outputs may be off, the largest of each sample."""
    z = forward(recorded(model, x), x.bounded(), unit).output
    r = unit.vector("")
    d, _ = softmax_bounds(z, z.d, *probabilities(z.lo, z.hi, 1), 1, r, unit.library)
    found: NDArray[np.float64] = d.amax(1).numpy()
    return found
