"""How accuracy falls with the bits of stored parameters: the tables of the study, a network trained for every cell.

One hidden layer of 32 ReLU on 8x8 digits, SGD, and one setting changed in each row; parameters are rounded after every
batch, everything else is in float64. Source of the method: arXiv 1805.01078. Every run is one line of a file, so that a
study that was stopped goes on from there, with the same numbers.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from simulator.training.trial import CARRIER, Outcome, Setting, trial

from .trainings import Trainings

BITS = (CARRIER, 23, 16, 12, 10, 8, 7, 6, 5, 4, 3, 2, 1)

SETTINGS: dict[str, Setting] = {
    "rz": Setting(),
    "rne": Setting("rne"),
    "sr": Setting("sr"),
    "width 8": Setting(hidden=(8,)),
    "width 128": Setting(hidden=(128,)),
    "3 hidden": Setting(hidden=(32, 32, 32)),
    "batch 8": Setting(batch=8),
    "batch 256": Setting(batch=256),
    "lr 0.01": Setting(lr=0.01),
    "lr 0.5": Setting(lr=0.5),
    "tanh": Setting(activation="tanh"),
    "sigmoid": Setting(activation="sigmoid"),
    "adam": Setting(optimizer="adam", lr=1e-3),
    "momentum": Setting(momentum=0.9, lr=0.02),
}


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        setting: name of the row. bits: stored significand bits, CARRIER for float64. seed: of weights and order.
    """

    setting: str
    bits: int
    seed: int


@dataclass(frozen=True)
class TruncationStudy:
    """Runs with their outcomes. computed: how many of them this call computed."""

    outcomes: Mapping[Run, Outcome]
    computed: int

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each setting and width: mean and standard deviation over the seeds."""
        found = []
        for setting, bits in dict.fromkeys((run.setting, run.bits) for run in self.outcomes):
            these = [o for run, o in self.outcomes.items() if (run.setting, run.bits) == (setting, bits)]
            accuracies = [o.accuracy for o in these]
            found.append({
                "setting": setting, "bits": bits, "seeds": len(these), "accuracy": statistics.fmean(accuracies),
                "deviation": statistics.stdev(accuracies) if len(these) > 1 else None,
                "mean_weight": statistics.fmean(o.mean_weight for o in these),
                "lost": statistics.fmean(o.lost for o in these), "decay": statistics.fmean(o.decay for o in these),
            })  # fmt: skip
        return found


def truncation_study(
    settings: Sequence[str] = tuple(SETTINGS),
    bits: Sequence[int] = BITS,
    seeds: int = 2,
    base_seeds: int = 8,
    out: str | Path | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> TruncationStudy:
    """Train a network for every setting, width and seed.

    Args:
        settings: names of SETTINGS. bits: stored significand bits, CARRIER for float64. seeds: of each row;
            base_seeds: of rz, rne and sr. out: directory whose runs.jsonl has the runs that are known; None: none are.
        workers: processes. progress: called with how many of how many are known.
    Raises:
        InputError: an unknown setting, or what is no number of bits or seeds.
    """
    unknown = [name for name in settings if name not in SETTINGS]
    if unknown:
        raise InputError(f"study: settings: {unknown[0]!r} is unknown; expected some of {', '.join(SETTINGS)}")
    if any(not 0 <= m <= 23 for m in bits) or min(seeds, base_seeds, workers) < 1:
        raise InputError("study: bits from 1 to 23, 0 for float64, and at least one seed and worker are expected")
    base = ("rz", "rne", "sr")
    wanted = [
        Run(name, m, seed) for name in settings for m in bits for seed in range(base_seeds if name in base else seeds)
    ]
    path = None if out is None else Path(out) / "runs.jsonl"
    outcomes, computed = _TRAININGS.all(wanted, path, workers, progress)
    return TruncationStudy(outcomes, computed)


def _outcome(run: Run) -> Outcome:
    return trial(SETTINGS[run.setting], run.bits, run.seed)


_TRAININGS = Trainings(_outcome, Run, Outcome)
