"""A network and samples by name, trained with the files of a directory: what `python -m simulator train` does."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simulator.errors import InputError, first_line
from simulator.network import bundled
from simulator.network.batches import batch_of, fixed_batch
from simulator.network.fit import is_ours
from simulator.network.idx_files import has_images
from simulator.network.model_files import load_model
from simulator.network.samples import Samples, load_samples
from simulator.network.state_dicts import load_weights
from simulator.network.threads import torch_threads
from simulator.report.directories import Contents, check_replaceable, write_file
from simulator.versions import versions

from .causes import FILES as CAUSES
from .causes import causes_of
from .fit import BATCH, fit
from .history import Epoch, History, to_plain
from .points import Counts
from .recipe import Recipe
from .recipe_files import load_recipe
from .updates import UpdateCounts

CHECKPOINT, HISTORY, TABLE, WEIGHTS = "checkpoint.pt", "history.json", "history.csv", "weights.pt"
CONTENTS = Contents("a training", (), (CHECKPOINT, HISTORY, TABLE, WEIGHTS, *CAUSES), replaced=False)
TEST_SHARE = 0.2
RATES = {"sgd": 0.1}  # of the others torch's own
_RATE = 1e-3


@dataclass(frozen=True)
class Job:
    """What is trained on what, and how.

    Args:
        model: a bundled network, which begins with weights drawn anew, or what the main job takes. weights: file of
            those that it begins with. data: as the main job takes it; of a directory of images those for training.
        test: file of samples for the accuracy, or the share of `data` that is held out for it, drawn by the seed; None:
            the test images of a directory, else TEST_SHARE. recipe: name or path; storage, rounding: in its place.
        batch_size: samples of a step; None for that of `fit`. lr: None for that of RATES. options: of the optimiser.
        allow_code: as the main job has it. threads: at most. causes: whether to look for what each rounding did.
    """

    model: str = "mlp"
    weights: str | None = None
    data: str | None = None
    test: str | None = None
    recipe: str | None = None
    storage: str | None = None
    rounding: str | None = None
    epochs: int = 10
    batch_size: int | None = None
    lr: float | None = None
    optimizer: str = "sgd"
    options: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    allow_code: bool = False
    threads: int | None = None
    causes: bool = False

    @property
    def rate(self) -> float:
        """The learning rate in force."""
        return RATES.get(self.optimizer, _RATE) if self.lr is None else self.lr


@dataclass(frozen=True)
class Trained:
    """What a job came to.

    Args:
        history: of all epochs. samples, tested: how many it was trained on, and its accuracy is of. out: absolute path
            of the directory.
    """

    job: Job
    history: History
    samples: int
    tested: int
    out: Path

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        job, recipe = self.job, self.history.recipe
        return {
            "model": job.model, "weights": job.weights, "data": job.data, "test": job.test, "samples": self.samples,
            "tested": self.tested, "recipe": {"name": recipe.name, **recipe.in_words()},
            "optimizer": {"name": job.optimizer, "lr": job.rate, **job.options}, "batch_size": job.batch_size,
            "seed": job.seed, "steps": self.history.steps, "accuracy": self.history.accuracy,
            "epochs": [{**to_plain(epoch), "lost_share": lost_share(epoch)} for epoch in self.history.epochs],
            "versions": versions(),
        }  # fmt: skip


def lost_share(epoch: Epoch) -> float:
    """Return the share of all updates of an epoch that were without effect."""
    return _updates(epoch).lost_share


def _updates(epoch: Epoch) -> UpdateCounts:
    """Return the counts of an epoch over all parameters."""
    return UpdateCounts.total(epoch.updates.values())


def train(
    job: Job,
    out: str | os.PathLike[str],
    resume: bool = False,
    observe: Callable[[Epoch], None] | None = None,
    progress: Callable[[int, int], None] = lambda steps, of: None,
) -> tuple[Trained, dict[str, Any]]:
    """Train a network; its state is in a directory after every epoch.

    Args:
        out: the directory, with CHECKPOINT from the beginning and WEIGHTS at the end, and what `save` writes.
        resume: whether to go on from the checkpoint in it. observe, progress: as `fit` has them.
    Returns:
        What it came to, and the state dict of the network.
    Raises:
        InputError: what cannot be trained, or does not go together; a directory with something else, or with a training
            that is not to be resumed. Nothing was written then, unless an epoch had ended.
    """
    _check_together(job, resume)
    checkpoint = _checked(out, resume)
    recipe = None if job.recipe is None else load_recipe(job.recipe)
    model = _network(job)
    job = replace(job, batch_size=batch_of(model, job.batch_size, "--batch-size", BATCH))
    data, test = _samples(job, model)
    missing = [place for place in checkpoint.parents if not place.exists()]
    begun = resume

    def ended(epoch: Epoch) -> None:
        nonlocal begun
        begun = True
        if observe is not None:
            observe(epoch)

    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    try:
        with torch_threads(job.threads):
            history = _fit(job, model, data, test, recipe, checkpoint, resume, ended, progress)
    except BaseException as error:
        if isinstance(error, InputError) and not begun:
            checkpoint.unlink(missing_ok=True)
        for place in missing:
            if any(place.iterdir()):
                break
            place.rmdir()
        raise
    return Trained(job, history, data.size, test.size, checkpoint.parent), model.state_dict()


def save(found: Trained, weights: Mapping[str, Tensor], record: str) -> None:
    """Write the history as JSON and as a table, the weights, and the causes if they were looked for, each whole or not
    at all.
    """
    buffer = io.BytesIO()
    torch.save(dict(weights), buffer)
    for name, content in ((HISTORY, record), (TABLE, _csv(found.history)), (WEIGHTS, buffer.getvalue())):
        write_file(found.out / name, content)
    if found.job.causes:
        causes_of(found.history).save(found.out)


def _check_together(job: Job, resume: bool) -> None:
    """Refuse options that do not go together, in the words of the command."""
    if job.epochs < 1:
        raise InputError(f"--epochs: got {job.epochs}; expected at least 1; give more")
    if job.recipe is not None and (job.storage is not None or job.rounding is not None):
        raise InputError(
            f"--recipe: got {job.recipe} beside --storage or --rounding; expected one; write them into the recipe"
        )
    if job.rounding is not None and job.storage is None:
        raise InputError(
            f"--rounding: got {job.rounding} without --storage; expected the format that it rounds to; give e.g. "
            "--storage e8m6, or leave it out"
        )
    if resume and job.weights is not None:
        raise InputError(
            f"--weights: got {job.weights} beside --resume; expected one: a training goes on with the weights of its "
            "checkpoint; leave --weights out"
        )


def _checked(out: str | os.PathLike[str], resume: bool) -> Path:
    checkpoint = Path(out).resolve() / CHECKPOINT
    if resume:
        if not checkpoint.is_file():
            raise InputError(
                f"--resume: {out}: holds no {CHECKPOINT}; expected the directory of a training; leave --resume out to "
                "begin one"
            )
        return checkpoint
    target = check_replaceable(out, CONTENTS)
    if target.is_dir() and any(target.iterdir()):
        go_on = "--resume to go on with it, or " if checkpoint.is_file() else ""
        raise InputError(f"{out}: holds a training; expected a new or empty directory; give {go_on}another name")
    return checkpoint


def _network(job: Job) -> nn.Module:
    if job.model in bundled.NAMES and not job.allow_code:
        model = bundled.fresh(job.model, job.seed)
        if job.weights is not None:
            load_weights(model, job.weights)
    else:
        model = load_model(job.model, job.weights, job.allow_code, job.seed)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return model.eval()


def _samples(job: Job, model: nn.Module) -> tuple[Samples, Samples]:
    """Return the samples for training and those for the accuracy."""
    share = _share(job.test)
    images = job.data is not None and has_images(Path(job.data))
    data = _labelled(load_samples(job.data, None, model, "train"), "--data")
    if share is None and (images or job.test is not None):
        return data, _labelled(load_samples(job.test or job.data, None, model), "--test")
    count, at_once = data.size, fixed_batch(model) or 1
    held_out = round(count * (TEST_SHARE if share is None else share) / at_once) * at_once
    if not 0 < held_out < count:
        raise InputError(
            f"--test: got {job.test or TEST_SHARE} of {count} samples, which is {held_out}; expected some to be held "
            "out and some to be left; give more samples, another share, or a file"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(job.seed))
    kept, tested = order[held_out:].sort().values, order[:held_out].sort().values
    return data.part(kept), data.part(tested)


def _share(text: str | None) -> float | None:
    """Return the share that --test names; None if it is a file."""
    try:
        share = float(text or "")
    except ValueError:
        return None
    if not 0.0 < share < 1.0:
        raise InputError(f"--test: got {text}; expected a share between 0 and 1, or a file; give e.g. 0.2")
    return share


def _labelled(samples: Samples, option: str) -> Samples:
    if samples.y is None:
        raise InputError(f"{option}: {samples.source}: holds no y; expected labels to train on; add them")
    return samples


def _fit(
    job: Job,
    model: nn.Module,
    data: Samples,
    test: Samples,
    recipe: Recipe | None,
    checkpoint: Path,
    resume: bool,
    observe: Callable[[Epoch], None],
    progress: Callable[[int, int], None],
) -> History:
    options: dict[str, Any] = dict(job.options)
    try:
        return fit(
            model, (data.x, data.y), job.storage, job.rounding, job.epochs, job.batch_size, job.rate, job.optimizer,
            job.seed, recipe, (test.x, test.y), observe=observe, checkpoint=checkpoint, resume=resume,
            progress=progress, causes=job.causes, **options,
        )  # fmt: skip
    except InputError:
        raise
    except Exception as error:
        if is_ours(error):
            raise
        raise InputError(
            f"train: the network {type(model).__name__} fails in training ({type(error).__name__}: "
            f"{first_line(error)}); expected what takes batches of {job.batch_size} and their gradients; correct the "
            "samples, --batch-size or the network"
        ) from error


def _csv(history: History) -> str:
    """Return a row for each epoch: its figures, and the counts of every point over all tensors; what is no finite
    number is left empty, as it is null in JSON.
    """
    text = io.StringIO()
    points = list(history.recipe.points)
    kinds = [each.name for each in fields(Counts)]
    names = ["epoch", "loss", "accuracy", "loss_scale", "skipped", "updates", "lost", "lost_share"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *(f"{point}_{kind}" for point in points for kind in kinds)])
    for epoch in history.epochs:
        total = _updates(epoch)
        met = [
            sum(getattr(counts, kind) for counts in epoch.counts.get(point, {}).values())
            for point in points for kind in kinds
        ]  # fmt: skip
        figures = (
            epoch.number, epoch.loss, epoch.accuracy, epoch.loss_scale, epoch.skipped, total.wanted, total.lost,
            total.lost_share, *met,
        )  # fmt: skip
        writer.writerow("" if x is None or not math.isfinite(x) else x for x in figures)
    return text.getvalue()
