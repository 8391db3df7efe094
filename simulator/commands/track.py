"""`python -m simulator track`: which bits of a network's values and gradients are real; two such runs side by side."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from simulator.explore.work import Inputs, load
from simulator.report.bits import calibration_views, comparison_views, views
from simulator.report.console import print_view, standard_output
from simulator.report.figures import significant
from simulator.report.tables import check_table, write_table
from simulator.report.tracking import check_directory, save_tracking, to_json
from simulator.tracking import Calibration, Report, calibrate, compare, read, track
from simulator.tracking.program import Program, follow, step_size
from simulator.tracking.report import flat

from .lists import words


@dataclass(frozen=True)
class Tracked:
    """What a call of the command found.

    Args:
        report: of the run. training: how it was trained, with the losses; None in inference. calibration: if asked for.
    """

    model: str
    report: Report
    training: Mapping[str, Any] | None
    calibration: Calibration | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            **self.report.to_dict(), "model": self.model, "training": self.training,
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
        }  # fmt: skip


def run(
    inputs: Inputs,
    hw: str | None,
    numbers: str,
    train: int | None,
    batch: int | None,
    optimizer: str | None,
    lr: float | None,
    every: int,
    roundings: str,
    restart: str,
    bits: float,
    calibrated: bool,
    out: str | None,
    export: str | None,
    progress: Callable[[float, int | None], None],
) -> Tracked:
    """Track a network in training or inference.

    Raises:
        InputError: what cannot be run, or does not go together; before anything is run, if that can be told.
    """
    if not 0 < bits < float("inf"):
        raise InputError(f"track: --bits: got {bits:g}; expected a number above 0; give e.g. 8")
    if out is not None:
        check_directory(out)
    if export is not None:
        check_table(export, "track: --export")
    labels = words(numbers)
    loaded = load(inputs)
    size = step_size(loaded.model, loaded.samples, batch)
    program = Program(loaded.samples, size, train, optimizer, lr, inputs.seed)
    model = program.prepare(loaded.model)
    tracker = track(
        model, labels, hw, seed=inputs.seed, every=every, restart=restart, roundings=roundings
    )  # fmt: skip
    calibration = None
    if calibrated:
        calibration = calibrate(
            model, program.step, program.steps, None if train is None else program.optimiser_of, labels, hw,
            seed=inputs.seed, roundings=roundings, restart=restart,
        )  # fmt: skip
    losses = follow(program, model, tracker, progress)
    settings = program.settings()
    return Tracked(
        inputs.model, tracker.report(bits), None if settings is None else {**settings, "losses": losses}, calibration
    )


def save(found: Tracked, out: str | None, export: str | None) -> list[Path]:
    """Write the files of a directory, all or none, and a table of the bits of every tensor as CSV or Parquet."""
    paths = []
    if out is not None:
        paths.append(save_tracking(found.to_dict(), out))
    if export is not None:
        write_table(flat(found.report.rows()), export)
        paths.append(Path(export))
    return paths


def show(found: Tracked, paths: Sequence[Path], json: bool) -> None:
    """Print what was found."""
    record = found.to_dict()
    if json:
        sys.stdout.write(to_json(record))
        return
    parts = views(record)
    if (training := record["training"]) is not None:
        first, last = training["losses"][0], training["losses"][-1]
        trained = f"{training['optimizer']}, learning rate {training['lr']:g}, batches of {training['batch']}; loss "
        parts.insert(1, f"{trained}{significant(first)} in the first step, {significant(last)} in the last.")
    if record["calibration"] is not None:
        parts += ["", *calibration_views(record["calibration"])]
    if paths:
        parts.append(f"Results in {', '.join(map(str, paths))}")
    print_view(standard_output(), *parts)


def show_comparison(a: str, b: str, json: bool) -> None:
    """Print two runs side by side.

    Raises:
        InputError: a file that holds no report.
    """
    found = compare(read(a), read(b))
    if json:
        sys.stdout.write(to_json(found))
        return
    print_view(standard_output(), *comparison_views(found, (a, b)))
