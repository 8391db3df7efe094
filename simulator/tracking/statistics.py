"""What a run keeps of the bits of every tensor: histograms by step, of a sample of its elements."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .algebra import Noise
from .labels import bits_of, precision

SAMPLE = 512  # elements of a tensor that are looked at, evenly spread
_RUN = 32
BINS = 54  # from 0 to 53 bits

VALUE, GRADIENT, OF_PARAMETER, PARAMETER = "value", "gradient", "gradient of parameter", "parameter"


class Row(NamedTuple):
    """Bits of a tensor at a step.

    Args:
        step: forward passes before, from 0. kind: value | gradient | gradient of parameter | parameter. name: layer and
            operation, or parameter. order: within the step. elements: of the tensor. label: of the number.
        counts: sampled elements by bits, from 0 to 53. most: bits of its type.
    """

    step: int
    kind: str
    name: str
    order: int
    elements: int
    label: str
    counts: NDArray[np.int64]
    most: int

    @property
    def median(self) -> float:
        """Median bits of the sample."""
        return self.quantile(0.5)

    def quantile(self, q: float) -> float:
        """Return the least bits that a share q of the sample does not exceed."""
        total = self.counts.sum()
        return float(np.searchsorted(np.cumsum(self.counts), q * total)) if total else float("nan")

    @property
    def noise(self) -> float:
        """Share of the sample without a bit."""
        return float(self.counts[0] / max(1, self.counts.sum()))


class Update(NamedTuple):
    """What a step did to a parameter, of a sample of its elements.

    Args:
        elements: sampled. changed_less: by label, of those moved by less than the noise of the parameter. lost: of
            those whose gradient was not 0 and that did not change.
    """

    step: int
    name: str
    elements: int
    changed_less: dict[str, int]
    lost: int


def sampled(x: Tensor) -> Tensor:
    """Return up to SAMPLE elements, in runs that are evenly spread over the tensor; all of a small one."""
    flat = x.reshape(-1)
    if len(flat) <= SAMPLE:
        return flat
    runs = SAMPLE // _RUN  # few, since each costs a way to the memory
    return flat.as_strided((runs, _RUN), (len(flat) // runs, 1), flat.storage_offset()).reshape(-1)


@dataclass
class _Taken:
    kind: str
    name: str
    elements: int
    values: Tensor
    noise: tuple[Noise, ...]


@dataclass
class _Parameter:
    before: Tensor
    after: Tensor
    noise: tuple[Noise, ...]


@dataclass
class Statistics:
    """Histograms of a run; those of a step are made at its end, all at once.

    Args:
        labels: of the numbers. every: steps of which one is kept.
    """

    labels: tuple[str, ...]
    every: int = 1
    step: int = -1
    rows: list[Row] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    _taken: list[_Taken] = field(default_factory=list)
    _gradients: dict[str, _Taken] = field(default_factory=dict)
    _parameters: dict[str, _Parameter] = field(default_factory=dict)

    @property
    def keeps(self) -> bool:
        """Whether this step is kept."""
        return self.step >= 0 and self.step % self.every == 0

    def take(self, kind: str, name: str, x: Tensor, noise: tuple[Noise, ...]) -> None:
        """Take a sample of a tensor."""
        if not x.numel():
            return
        found = _Taken(
            kind, name, x.numel(), sampled(x).clone(),
            tuple(None if n is None else sampled(n.expand(x.shape)).clone() for n in noise),
        )  # fmt: skip
        if kind == OF_PARAMETER:
            self._gradients[name] = found
        else:
            self._taken.append(found)

    def parameter(self, name: str, before: Tensor, after: Tensor, noise: tuple[Noise, ...]) -> None:
        """Take what a write made of a parameter; several of a step count as one.

        Args:
            before: sample of it.
        """
        known = self._parameters.get(name)
        self._parameters[name] = _Parameter(
            before if known is None else known.before, sampled(after).clone(),
            tuple(None if n is None else sampled(n.expand(after.shape)).clone() for n in noise),
        )  # fmt: skip

    def close(self) -> None:
        """End a step."""
        if self.keeps:
            taken = [*self._taken, *self._gradients.values()]
            for i, label in enumerate(self.labels):
                self.rows += self._rows(label, i, taken)
            for name, parameter in self._parameters.items():
                self.updates.append(self._update(name, parameter))
        self._taken, self._gradients, self._parameters = [], {}, {}

    def _rows(self, label: str, i: int, taken: list[_Taken]) -> list[Row]:
        rows = []
        for dtype in {t.values.dtype for t in taken}:
            same = [(order, t) for order, t in enumerate(taken) if t.values.dtype == dtype]
            most = precision(dtype)
            assert most is not None
            x = torch.cat([t.values for _, t in same])
            noise = torch.cat([_filled(t.noise[i], t.values, label, most) for _, t in same])
            bits = bits_of(label, x, noise, most).to(torch.int64)
            place = torch.repeat_interleave(torch.arange(len(same)), torch.tensor([len(t.values) for _, t in same]))
            counts = torch.bincount(place * BINS + bits, minlength=len(same) * BINS).view(len(same), BINS).numpy()
            rows += [
                Row(self.step, t.kind, t.name, order, t.elements, label, counts[k].copy(), most)
                for k, (order, t) in enumerate(same)
            ]
        return sorted(rows, key=lambda row: row.order)

    def _update(self, name: str, parameter: _Parameter) -> Update:
        moved = (parameter.after.double() - parameter.before.double()).abs()
        less = {
            label: 0 if noise is None else int(((moved < noise) & (moved > 0)).sum())
            for label, noise in zip(self.labels, parameter.noise, strict=True)
        }
        gradient = self._gradients.get(name)
        lost = 0
        if gradient is not None and gradient.values.shape == moved.shape:
            lost = int(((moved == 0) & (gradient.values != 0)).sum())
        return Update(self.step, name, len(moved), less, lost)


def _filled(noise: Noise, x: Tensor, label: str, most: int) -> Tensor:
    if noise is not None:
        return noise.double()
    return torch.zeros(x.shape, dtype=torch.float64)
