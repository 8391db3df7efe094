"""Errors of rounded weights on their way forward and backward, measured beside the laws that predict them.

Random networks by depth, stored bits, width and activation, and networks trained on 8x8 digits by what they were
trained with: batch size, learning rate, optimiser, activation, width, depth. The laws are for ReLU: of other
activations only what was measured is shown. Everything is seeded; the same call gives the same numbers.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from simulator.errors import InputError
from simulator.progress import Progress
from simulator.training.errors import Errors, after_training, at_initialisation
from simulator.training.laws import flip_probability, forward_error, gradient_error

from .truncation import SETTINGS

ROUNDINGS = ("rz", "rne", "sr")
DEPTH, WIDTH, SAMPLES = 8, 128, 256
DEPTHS, BITS, WIDTHS = (1, 2, 4, 8, 16, 32), (4, 6, 8, 10, 12), (32, 64, 128, 256, 512)
ACTIVATIONS = ("tanh", "sigmoid")
# Rows of the study of truncation, by how their networks are trained.
TRAINED = tuple(
    name for name, setting in SETTINGS.items() if setting.rounding == "rz" and not name.startswith("exponent")
)


@dataclass(frozen=True)
class Row:
    """One measurement beside its prediction.

    Args:
        networks: random, or trained. varied: by what they differ from the others. value: of that.
        rounding, bits: of the weights. depth: layers with weights. forward, gradient: relative errors of outputs and
            of the gradient of the inputs, root mean square. flips: share of the units with ReLU that open or close;
            None without any.
        *_predicted: by the laws, None where they do not hold.
    """

    networks: str
    varied: str
    value: str
    rounding: str
    bits: int
    depth: int
    forward: float
    forward_predicted: float | None
    gradient: float
    gradient_predicted: float | None
    flips: float | None
    flips_predicted: float | None


@dataclass(frozen=True)
class LawsStudy:
    """Rows, in the order of the tables; seeds: networks of each."""

    seeds: int
    found: tuple[Row, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows as plain data."""
        return [asdict(row) for row in self.found]


@dataclass(frozen=True)
class _Case:
    varied: str
    value: str
    bits: int
    depth: int = DEPTH
    width: int = WIDTH
    activation: str = "relu"


def laws_study(
    bits: int = 8, seeds: int = 4, trained: bool = True, progress: Progress = lambda done, of: None
) -> LawsStudy:
    """Measure errors of rounded weights.

    Args:
        bits: stored significand bits where they are not varied. seeds: networks of each row. trained: whether networks
            are trained too. progress: called with how many of how many networks are done.
    Raises:
        InputError: what is no number of bits or seeds.
    """
    if not 1 <= bits <= 23:
        raise InputError(f"study: bits: got {bits}; expected 1 to 23; give such a number")
    if seeds < 1:
        raise InputError(f"study: seeds: got {seeds}; expected at least one; give more")
    cases = [
        *(_Case("depth", str(depth), bits, depth=depth) for depth in DEPTHS),
        *(_Case("bits", str(m), m) for m in BITS),
        *(_Case("width", str(width), bits, width=width) for width in WIDTHS),
        *(_Case("activation", name, bits, activation=name) for name in ACTIVATIONS),
    ]
    names = TRAINED if trained else ()
    found: list[Row] = []
    jobs: list[Callable[[], Iterator[Row]]] = [
        *(partial(_random, case, seeds) for case in cases), *(partial(_trained, name, bits, seeds) for name in names)
    ]  # fmt: skip
    for done, job in enumerate(jobs):
        progress(done, len(jobs))
        found += job()
    progress(len(jobs), len(jobs))
    return LawsStudy(seeds, tuple(found))


def _random(case: _Case, seeds: int) -> Iterator[Row]:
    for rounding in ROUNDINGS:
        measured = at_initialisation(
            rounding, case.bits, case.depth, case.width, case.activation, samples=SAMPLES, networks=seeds
        )
        masks = case.depth if case.activation == "relu" else 0
        yield _row("random", case.varied, case.value, rounding, case.bits, case.depth, masks, measured)


def _trained(name: str, bits: int, seeds: int) -> Iterator[Row]:
    setting = SETTINGS[name]
    masks = len(setting.hidden) if setting.activation == "relu" else 0
    by_seed = [after_training(setting, [(rounding, bits) for rounding in ROUNDINGS], seed) for seed in range(seeds)]
    for rounding, measured in zip(ROUNDINGS, zip(*by_seed, strict=True), strict=True):
        value = "as the others" if name == "rz" else name
        row = _row("trained", "training", value, rounding, bits, len(setting.hidden) + 1, masks, Errors.mean(measured))
        yield row


def _row(
    networks: str, varied: str, value: str, rounding: str, bits: int, depth: int, masks: int, measured: Errors
) -> Row:
    """Return what was measured beside what is predicted; without masks, of another activation, nothing is."""
    units = sum(measured.units)
    predicted: tuple[float | None, ...] = (None, None, None)
    if masks:
        flips = [flip_probability(rounding, bits, layer) for layer in range(1, masks + 1)]
        predicted = (
            forward_error(rounding, bits, depth), gradient_error(rounding, bits, masks), statistics.fmean(flips)
        )  # fmt: skip
    return Row(
        networks, varied, value, rounding, bits, depth, measured.forward, predicted[0], measured.gradient, predicted[1],
        measured.flipped / units if units else None, predicted[2],
    )  # fmt: skip
