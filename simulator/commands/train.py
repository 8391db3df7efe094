"""`python -m simulator train`: a network trained with roundings, epoch by epoch, and what became of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from simulator.report.console import plain_table, print_view, standard_output
from simulator.report.figures import MISSING, percent, significant
from simulator.report.tables import as_json
from simulator.training.history import Epoch
from simulator.training.job import CAUSES, CHECKPOINT, HISTORY, TABLE, WEIGHTS, Job, Trained, lost_share, save, train

from .records import json_text


def run(
    job: Job, out: str, resume: bool, progress: Callable[[float, int | None], None], quiet: bool = False
) -> Trained:
    """Train a network, say after each epoch on standard error, if not quiet, how far it is, and write the files.

    Raises:
        InputError: what cannot be trained, or does not go together; nothing was written.
    """

    def observe(epoch: Epoch) -> None:
        if not quiet:
            print(f"epoch {epoch.number + 1} of {job.epochs}: {_in_words(epoch)}", file=sys.stderr)

    found, weights = train(job, out, resume, observe, progress)
    save(found, weights, _text(found))
    return found


def left(job: Job, out: str) -> str:
    """Return what is left of a training that was interrupted."""
    if (Path(out) / CHECKPOINT).is_file():
        without = "" if job.weights is None else " and without --weights"
        return f"the last checkpoint is in {out}, and the same command with --resume{without} goes on"
    return "nothing was written"


def show(found: Trained, out: str, json: bool) -> None:
    """Print what a training came to."""
    if json:
        sys.stdout.write(_text(found))
        return
    job, recipe = found.job, found.history.recipe
    rounded = ", ".join([f"{name} {use}" for name, use in recipe.points.items()] + list(recipe.macs))
    named = f"recipe {recipe.name}: " if recipe.name else ""
    what = (
        f"{job.model}: {job.optimizer}, learning rate {job.rate:g}, batches of {job.batch_size}, {found.samples:,} "
        f"samples, {found.tested:,} for the accuracy; {named}{rounded or 'nothing is rounded'}."
    )
    table = plain_table((), ("epoch", "loss", "accuracy", "loss scale", "skipped", "updates lost"))
    for epoch in found.history.epochs:
        table.add_row(
            str(epoch.number + 1), significant(epoch.loss), _accuracy(epoch), f"{epoch.loss_scale:g}",
            str(epoch.skipped), percent(lost_share(epoch)),
        )  # fmt: skip
    names = ", ".join([HISTORY, TABLE, WEIGHTS, *(CAUSES if job.causes else ())])
    files = f"Results in {out}: {names}; {CHECKPOINT} to go on from."
    print_view(standard_output(), what, "", table, "", files)


def _in_words(epoch: Epoch) -> str:
    return (
        f"loss {significant(epoch.loss)}, accuracy {_accuracy(epoch)}, loss scale {epoch.loss_scale:g}, "
        f"{epoch.skipped} skipped, {percent(lost_share(epoch))} of updates lost"
    )


def _accuracy(epoch: Epoch) -> str:
    return MISSING if epoch.accuracy is None else f"{epoch.accuracy:.4f}"


def _text(found: Trained) -> str:
    return json_text(as_json(found.to_dict()))
