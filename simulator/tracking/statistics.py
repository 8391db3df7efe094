"""What a run keeps of the bits of every tensor: histograms by step, of a sample of its elements."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .algebra import Noise
from .elements import copy_runs
from .labels import bits_of, precision, reach, working

SAMPLE = 256  # elements of a tensor that are looked at, evenly spread
_RUN = 32
_IN_BLOCK = 256  # samples for which memory is taken at once
_TOGETHER = 8  # steps of which histograms are made at once
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
        return float(np.searchsorted(np.cumsum(self.counts), max(1.0, q * total))) if total else float("nan")

    @property
    def least(self) -> int:
        """Least bits of the sample."""
        return int(np.flatnonzero(self.counts)[0])

    @property
    def sampled(self) -> int:
        """How many elements were looked at."""
        return int(self.counts.sum())

    @property
    def noise(self) -> float:
        """Share of the sample without a bit."""
        return float(self.counts[0] / max(1, self.counts.sum()))


class Update(NamedTuple):
    """What a step did to a parameter, of a sample of its elements.

    Args:
        elements: of the parameter. sampled: how many were looked at. changed_less: by label, of those that changed, by
            less than what the parameter is off by after it. lost: of those whose gradient was not 0, that did not
            change.
    """

    step: int
    name: str
    elements: int
    sampled: int
    changed_less: dict[str, int]
    lost: int


class Step(NamedTuple):
    """What a step took.

    Args:
        seconds: from one forward pass to the next. tracking_seconds: of these, in rules and in what is kept.
        noise_bytes: largest memory of noise that was seen. undecided: elements computed by a branch that the bounds do
            not decide.
    """

    step: int
    seconds: float
    tracking_seconds: float
    noise_bytes: int
    undecided: int


class Samples:
    """Copies of elements of tensors, in memory that is kept: small pieces between large tensors would scatter these."""

    def __init__(self) -> None:
        self._rooms: dict[torch.dtype, list[Tensor]] = {}
        self._used: dict[torch.dtype, int] = {}

    def take(self, x: Tensor) -> Tensor:
        """Return a copy of up to SAMPLE elements, in runs evenly spread over the tensor; all of a small one."""
        used = self._used.get(x.dtype, 0)
        self._used[x.dtype] = used + 1
        rooms = self._rooms.setdefault(x.dtype, [])
        if used == len(rooms):
            rooms += torch.empty(_IN_BLOCK, SAMPLE, dtype=x.dtype).unbind()
        room, count = rooms[used], x.numel()
        if not x.is_contiguous():
            x = x.flatten()
        if count <= SAMPLE:
            room = room[:count]
            if count:
                copy_runs(x, room, 1, 0)
        else:
            runs = SAMPLE // _RUN  # few, since each costs a way to the memory
            copy_runs(x, room, runs, count // runs)
        return room

    def clear(self) -> None:
        """Have the memory for others; what was taken is not valid any more."""
        self._used.clear()


@dataclass
class _Taken:
    kind: str
    name: str
    elements: int
    values: Tensor
    noise: tuple[Noise, ...]


@dataclass
class _Parameter:
    elements: int
    before: Tensor
    after: Tensor
    noise: tuple[Noise, ...]


class _Kept(NamedTuple):
    """What was taken in a step."""

    step: int
    taken: list[_Taken]
    gradients: dict[str, _Taken]
    parameters: dict[str, _Parameter]


@dataclass
class Statistics:
    """Histograms of a run; those of several steps are made at once, which takes less time, or when they are read.

    Args:
        labels: of the numbers. every: steps of which one is kept. samples: of tensors of the steps that wait. spent:
            seconds of tracking in this step, which whoever tracks counts.
    """

    labels: tuple[str, ...]
    every: int = 1
    step: int = -1
    steps: list[Step] = field(default_factory=list)
    samples: Samples = field(default_factory=Samples)
    spent: float = 0.0
    _begun: float = field(default_factory=time.perf_counter)
    _undecided: int = 0
    _noise_bytes: int = 0
    _entries: int = 0
    _taken: list[_Taken] = field(default_factory=list)
    _gradients: dict[str, _Taken] = field(default_factory=dict)
    _parameters: dict[str, _Parameter] = field(default_factory=dict)
    _rows: list[Row] = field(default_factory=list)
    _updates: list[Update] = field(default_factory=list)
    _waiting: list[_Kept] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        """Bits of all tensors, by step and label, in the order in which they were seen."""
        self._work()
        return self._rows

    @property
    def updates(self) -> list[Update]:
        """What the steps did to the parameters."""
        self._work()
        return self._updates

    def begin(self) -> None:
        """Begin the next step."""
        self.step += 1
        self._taken, self._gradients, self._parameters = [], {}, {}
        self._begun, self.spent = time.perf_counter(), 0.0
        self._noise_bytes, self._entries = 0, 0

    @property
    def keeps(self) -> bool:
        """Whether this step is kept."""
        return self.step >= 0 and self.step % self.every == 0

    def take(self, kind: str, name: str, x: Tensor, noise: tuple[Noise, ...]) -> None:
        """Take a sample of a tensor."""
        if not x.numel():
            return
        found = _Taken(
            kind, name, x.numel(), self.samples.take(x),
            tuple(None if n is None else self.samples.take(n.expand(x.shape)) for n in noise),
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
            after.numel(), before if known is None else known.before, self.samples.take(after),
            tuple(None if n is None else self.samples.take(n.expand(after.shape)) for n in noise),
        )  # fmt: skip

    def weigh(self, entries: int, noise_bytes: Callable[[], int]) -> None:
        """Ask for the memory of noise if there are notably more memories with noise than were seen in this step."""
        if entries > 1.1 * self._entries:
            self._entries, self._noise_bytes = entries, max(self._noise_bytes, noise_bytes())

    def close(self, undecided: int) -> None:
        """End a step.

        Args:
            undecided: elements so far.
        """
        if self.step < 0 or (self.steps and self.steps[-1].step == self.step):
            return
        if self.keeps:
            begun = time.perf_counter()
            self._waiting.append(_Kept(self.step, self._taken, self._gradients, self._parameters))
            if len(self._waiting) >= _TOGETHER:
                self._work()
                self.samples.clear()
            self.spent += time.perf_counter() - begun
        self._taken, self._gradients, self._parameters = [], {}, {}
        seconds = time.perf_counter() - self._begun
        self.steps.append(Step(self.step, seconds, self.spent, self._noise_bytes, undecided - self._undecided))
        self._undecided = undecided

    def _work(self) -> None:
        """Make the histograms that are waiting."""
        kept, self._waiting = self._waiting, []
        found = []
        for step in kept:
            written = [_Taken(PARAMETER, name, p.elements, p.after, p.noise) for name, p in step.parameters.items()]
            numbered = _numbered([*step.taken, *step.gradients.values(), *written])
            found += [(step.step, order, t) for order, t in enumerate(numbered)]
        rows = [row for i, label in enumerate(self.labels) for row in _histograms(label, i, found)]
        self._rows += sorted(rows, key=lambda row: (row.step, self.labels.index(row.label), row.order))
        self._updates += _updates(self.labels, kept)


def _histograms(label: str, i: int, taken: list[tuple[int, int, _Taken]]) -> Iterator[Row]:
    """Yield the bits of tensors, of which step and order are given."""
    for dtype in {t.values.dtype for *_, t in taken}:
        same = [(step, order, t) for step, order, t in taken if t.values.dtype == dtype]
        most = precision(dtype)
        assert most is not None
        x = torch.cat([t.values for *_, t in same])
        noise = torch.cat([_filled(t.noise[i], t.values) for *_, t in same]).double()
        bits = bits_of(label, x, noise, most).to(torch.int64)
        place = torch.repeat_interleave(torch.arange(len(same)), torch.tensor([len(t.values) for *_, t in same]))
        counts = torch.bincount(place * BINS + bits, minlength=len(same) * BINS).view(len(same), BINS).numpy()
        for (step, order, t), own in zip(same, counts, strict=True):
            yield Row(step, t.kind, t.name, order, t.elements, label, own, most)


def _updates(labels: tuple[str, ...], kept: list[_Kept]) -> list[Update]:
    """Return what became of all parameters, of the samples of all at once."""
    written = [(step, name, p) for step in kept for name, p in step.parameters.items()]
    if not written:
        return []
    before = torch.cat([p.before for *_, p in written]).double()
    after = torch.cat([p.after for *_, p in written]).double()
    moved = (after - before).abs()
    gradients = []
    for step, name, p in written:
        found = step.gradients.get(name)
        known = found is not None and found.values.shape == p.after.shape
        gradients.append(found.values if found is not None and known else torch.zeros_like(p.after))
    asked = [(moved == 0) & (torch.cat(gradients) != 0)]
    for i, label in enumerate(labels):
        noise = torch.cat([_filled(p.noise[i], p.after) for *_, p in written]).double()
        asked.append((moved < reach(label, noise)) & (moved > 0))
    lost, *less = (_sums(answers, [len(p.after) for *_, p in written]) for answers in asked)
    return [
        Update(
            step.step, name, p.elements, len(p.after), {label: of[k] for label, of in zip(labels, less, strict=True)},
            lost[k],
        )
        for k, (step, name, p) in enumerate(written)
    ]  # fmt: skip


def _sums(x: Tensor, sizes: list[int]) -> list[int]:
    """Return the sums of so many elements each, one after the other."""
    ends = torch.cumsum(x, 0)[torch.cumsum(torch.tensor(sizes), 0) - 1].tolist()
    return [int(end) - int(start) for start, end in zip([0, *ends], ends, strict=False)]


def _numbered(taken: list[_Taken]) -> list[_Taken]:
    """Return tensors with a number behind names that a step has several times."""
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for t in taken:
        seen[t.kind, t.name] += 1
        times = seen[t.kind, t.name]
        found.append(t if times == 1 else replace(t, name=f"{t.name} #{times}"))
    return found


def _filled(noise: Noise, x: Tensor) -> Tensor:
    return torch.zeros(x.shape, dtype=working(x.dtype)) if noise is None else noise
