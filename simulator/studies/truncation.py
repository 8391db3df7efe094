"""How accuracy falls with the bits of stored parameters: the tables of the study, a network trained for every cell.

One hidden layer of 32 ReLU on 8x8 digits, or of 100 on those of a file, SGD, and one setting changed in each row;
parameters are rounded after every batch, everything else is in float64. Source of the method: arXiv 1805.01078. Every
run is one line of a file, so that a study that was stopped goes on from there, with the same numbers.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from simulator.progress import Progress
from simulator.training.trial import CARRIER, DECAY, Outcome, Setting, digits, trial

from .directory import check_study_directory
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
    "decay": Setting(DECAY),
    **{f"exponent {e}": Setting(exponent=e) for e in (8, 6, 5, 4, 3, 2)},
}
# Widths of the rows that have not all of them unless they are named.
OWN_BITS = {"decay": (CARRIER, 10, 8, 7, 6, 5, 4), **dict.fromkeys([n for n in SETTINGS if "exponent" in n], (10,))}
BASE = ("rz", "rne", "sr", "decay")
# Rows of digits of a file, whose network is that of the paper: 784-100-10 on MNIST.
OF_FILES = ("rz", "rne", "sr", *[name for name in SETTINGS if "exponent" in name])
HIDDEN, EPOCHS = 100, 5
SMALL_DIGITS = "digits8x8"
# What counts as a loss of accuracy.
POINTS = 0.02
# By what is varied: rows that stand side by side, by the value that they have of it.
PANELS: dict[str, dict[str, str]] = {
    "rounding": {"toward zero": "rz", "to nearest": "rne", "stochastic": "sr", "float64 with the decay": "decay"},
    "width": {"8": "width 8", "32": "rz", "128": "width 128"},
    "hidden layers": {"1": "rz", "3": "3 hidden"},
    "batch size": {"8": "batch 8", "32": "rz", "256": "batch 256"},
    "learning rate": {"0.01": "lr 0.01", "0.1": "rz", "0.5": "lr 0.5"},
    "activation": {"ReLU": "rz", "tanh": "tanh", "sigmoid": "sigmoid"},
    "optimiser": {"SGD": "rz", "with momentum": "momentum", "Adam": "adam"},
}


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        setting: name of the row. bits: stored significand bits, CARRIER for float64. seed: of weights and order.
        data: SMALL_DIGITS, or a digest of the file of digits.
    """

    setting: str
    bits: int
    seed: int
    data: str = SMALL_DIGITS


@dataclass(frozen=True)
class TruncationStudy:
    """Runs with their outcomes.

    Args:
        computed: how many of them this call computed. data: name of the digits. train, test: how many of them.
        base: setting of the row rz.
    """

    outcomes: Mapping[Run, Outcome]
    computed: int
    data: str
    train: int
    test: int
    base: Setting

    def to_dict(self) -> dict[str, Any]:
        """Return the study as plain data."""
        return {
            "study": "truncation", "data": self.data, "train": self.train, "test": self.test, "base": asdict(self.base),
            "rows": self.rows(), "critical": self.critical(), "panels": PANELS,
        }  # fmt: skip

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
                "lost_predicted": self._predicted(setting, bits),
            })  # fmt: skip
        return found

    def _carriers(self, setting: str) -> list[Outcome]:
        return [o for run, o in self.outcomes.items() if (run.setting, run.bits) == (setting, CARRIER)]

    def _predicted(self, setting: str, bits: int) -> float | None:
        """Return the share of updates lost to nearest that the runs in the carrier predict, None of other roundings."""
        if SETTINGS[setting].rounding != "rne":
            return None
        found = [o.predicted[str(bits)] for o in self._carriers(setting) if str(bits) in o.predicted]
        return statistics.fmean(found) if found else None

    def critical(self) -> list[dict[str, Any]]:
        """Return for each setting whose carrier ran: the bits below which it predicts that nothing is learned, by the
        rule of its rounding, and the most bits with which POINTS of accuracy or more are lost, None if none are.
        """
        found = []
        rows = self.rows()
        for setting in dict.fromkeys(run.setting for run in self.outcomes):
            rounding, carriers = SETTINGS[setting].rounding, self._carriers(setting)
            known = [o.critical[rounding] for o in carriers if rounding in o.critical]
            if known:
                best = statistics.fmean(o.accuracy for o in carriers)
                loses = [row["bits"] for row in rows if row["setting"] == setting and row["bits"] != CARRIER
                         and row["accuracy"] <= best - POINTS]  # fmt: skip
                found.append({
                    "setting": setting, "rounding": rounding, "predicted_bits": statistics.fmean(known),
                    "first_losing_bits": max(loses, default=None),
                })  # fmt: skip
        return found


def truncation_study(
    settings: Sequence[str] | None = None,
    bits: Sequence[int] | None = None,
    seeds: int = 2,
    base_seeds: int | None = None,
    data: str | None = None,
    out: str | Path | None = None,
    workers: int | None = 1,
    progress: Progress = lambda done, of: None,
) -> TruncationStudy:
    """Train a network for every setting, width and seed.

    Args:
        settings: names of SETTINGS; None: all, or those of OF_FILES for a file. bits: stored significand bits, CARRIER
            for float64; None: BITS, or those of OWN_BITS. seeds: of each row; base_seeds: of those in BASE, None for 8,
            or as many as the others for a file.
        data: `.npz` file of digits, as training.trial takes it; None: 8x8 ones.
        out: directory whose runs.jsonl has the runs that are known; None: none are.
        workers: processes to spawn, 1: none, None: one a processor.
        progress: called with how many of how many are known.
    Raises:
        InputError: an unknown setting, what is no number of bits, seeds or workers, a file without digits, or a
            directory that the study cannot go into.
    """
    if settings is None:
        settings = tuple(SETTINGS) if data is None else OF_FILES
    if base_seeds is None:
        base_seeds = 8 if data is None else seeds
    unknown = [name for name in settings if name not in SETTINGS]
    if unknown:
        raise InputError(f"study: settings: got {unknown[0]!r}; expected some of {', '.join(SETTINGS)}; correct it")
    beyond = [m for m in bits or () if not 0 <= m <= 23]
    if beyond:
        raise InputError(
            f"study: bits: got {beyond[0]}; expected bits from 1 to 23, or 0 for float64; leave it out or give such a "
            "number"
        )
    if min(seeds, base_seeds) < 1:
        raise InputError(
            f"study: got {seeds} seeds and {base_seeds} base seeds; expected at least one of each; give more"
        )
    if out is not None:
        check_study_directory(out, "truncation")
    samples = digits(data)  # a file that cannot be read is refused before anything is written
    known_as = SMALL_DIGITS if data is None else hashlib.sha256(Path(data).read_bytes()).hexdigest()[:16]
    wanted = [
        Run(name, m, seed, known_as)
        for name in settings
        for m in (OWN_BITS.get(name, BITS) if bits is None else bits)
        for seed in range(base_seeds if name in BASE else seeds)
    ]
    path = None if out is None else Path(out) / "runs.jsonl"
    # A partial function of a module is found by other processes.
    outcomes, computed = Trainings(partial(_outcome, data=data), Run, Outcome).all(wanted, path, workers, progress)
    return TruncationStudy(
        outcomes, computed, "8x8 digits" if data is None else Path(data).name,
        len(samples.train[0]), len(samples.test[0]), _of(SETTINGS["rz"], data),
    )  # fmt: skip


def _outcome(run: Run, data: str | None) -> Outcome:
    return trial(_of(SETTINGS[run.setting], data), run.bits, run.seed, data)


def _of(setting: Setting, data: str | None) -> Setting:
    """Return a setting as it is with digits of a file, which are larger and more."""
    if data is None:
        return setting
    return replace(setting, hidden=(HIDDEN,) if setting.hidden == Setting.hidden else setting.hidden, epochs=EPOCHS)
