"""A network run or trained on samples, batch by batch, as the command line tracks it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from simulator.errors import InputError, first_line
from simulator.network.batches import batch_of
from simulator.network.fit import is_ours
from simulator.network.outputs import output_of
from simulator.network.samples import Samples

from .track import Tracker

OPTIMISERS: Mapping[str, tuple[type[torch.optim.Optimizer], float]] = {
    "sgd": (torch.optim.SGD, 0.1), "adam": (torch.optim.Adam, 1e-3), "adamw": (torch.optim.AdamW, 1e-3),
}  # fmt: skip


BATCH = 64  # samples of a step, if nothing says how many


@dataclass(frozen=True)
class Program:
    """What is run: steps of training, or forward passes over all samples.

    Args:
        samples: with labels, if it trains: classes, or floats to regress on. batch: samples of a step. train: steps of
            training; None: inference. optimiser: one of OPTIMISERS. lr: learning rate; None: that of OPTIMISERS.
            seed: of the order of samples.
    Raises:
        InputError: what does not go together.
    """

    samples: Samples
    batch: int = BATCH
    train: int | None = None
    optimiser: str | None = None
    lr: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= self.samples.size:
            raise InputError(
                f"track: --batch-size: got {self.batch}; expected 1 to {self.samples.size}, the samples of "
                f"{self.samples.source}; give fewer"
            )
        if self.train is None:
            for option, value in (("--optimizer", self.optimiser), ("--lr", self.lr)):
                if value is not None:
                    raise InputError(
                        f"track: {option}: got {value} without --train, and inference has no optimiser; expected both "
                        "or none; give --train N"
                    )
            return
        if self.train < 1:
            raise InputError(f"track: --train: got {self.train}; expected a number of steps from 1; give e.g. 100")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise InputError(f"track: --lr: got {self.lr:g}; expected a number above 0; give e.g. 0.1")
        if self.samples.y is None:
            raise InputError(
                f"track: --train: {self.samples.source} has no labels; expected y beside x; add it, or leave "
                "--train out"
            )

    @property
    def steps(self) -> int:
        """How many there are."""
        return self.train if self.train is not None else math.ceil(self.samples.size / self.batch)

    def settings(self) -> dict[str, Any] | None:
        """Return how it trains as plain data; None in inference."""
        if self.train is None:
            return None
        name = self.optimiser or "sgd"
        lr = OPTIMISERS[name][1] if self.lr is None else self.lr
        return {"optimizer": name, "lr": lr, "batch": self.batch, "steps": self.train, "seed": self.seed}

    def prepare(self, model: nn.Module) -> nn.Module:
        """Set a network to train, or to run."""
        training = self.train is not None
        return model.train(training).requires_grad_(training)

    def optimiser_of(self, parameters: Any) -> torch.optim.Optimizer:
        """Make the optimiser of parameters."""
        settings = self.settings()
        assert settings is not None
        return OPTIMISERS[settings["optimizer"]][0](parameters, lr=settings["lr"])  # type: ignore[call-arg]

    def step(self, model: nn.Module, optimiser: torch.optim.Optimizer | None, number: int) -> Tensor | None:
        """Take a step; return its loss, None in inference.

        Raises:
            InputError: the network fails, or returns no tensor to train on.
        """
        rows = self._rows(number)
        args, kwargs = self.samples.batch(rows)
        y = self.samples.y
        if optimiser is None:
            with torch.no_grad():
                self._forward(model, args, kwargs, number)
            return None
        assert y is not None
        optimiser.zero_grad()
        loss = _loss(self._logits(self._forward(model, args, kwargs, number), model), y[rows])
        loss.backward()
        optimiser.step()
        return loss.detach()

    def _logits(self, output: Any, model: nn.Module) -> Tensor:
        """Return what is trained on: of several outputs the one that metrics see."""
        try:
            logits = output_of(output)
        except InputError as none:
            raise InputError(f"track: --train: {type(model).__name__}: {none}") from None
        if not logits.is_floating_point():
            raise InputError(
                f"track: --train: {type(model).__name__} returns {str(logits.dtype).removeprefix('torch.')}; expected "
                "floats, such as logits, to train on; wrap it in a module that returns them"
            )
        return logits

    def _rows(self, number: int) -> Tensor:
        if self.train is None:
            return torch.arange(number * self.batch, min(self.samples.size, (number + 1) * self.batch))
        epoch, place = divmod(number * self.batch, self.samples.size)
        orders = [
            torch.randperm(self.samples.size, generator=torch.Generator().manual_seed(self.seed + e))
            for e in (epoch, epoch + 1)
        ]
        return torch.cat(orders)[place : place + self.batch]

    def _forward(self, model: nn.Module, args: Any, kwargs: Any, number: int) -> Any:
        try:
            output = model(*args, **kwargs)
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            if is_ours(error):
                raise
            raise InputError(
                f"track: the network {type(model).__name__} fails in step {number} ({type(error).__name__}: "
                f"{first_line(error)}); expected what its forward takes; correct the samples, "
                "--batch-size or the network"
            ) from error
        return output


def step_size(model: nn.Module, samples: Samples, asked: int | None) -> int:
    """Return how many samples a step takes, as batch_of does; BATCH, or all of fewer, where nothing says it."""
    return batch_of(model, asked, "track: --batch-size", min(BATCH, samples.size))


def _loss(output: Tensor, y: Tensor) -> Tensor:
    """Return the mean cross entropy of classes, which may stand for every place of a sequence, or the mean square."""
    if y.is_floating_point():
        return functional.mse_loss(output, y.to(output.dtype))
    if output.dim() > 2 and output.shape[:-1] == y.shape:
        return functional.cross_entropy(output.flatten(0, -2), y.flatten())
    return functional.cross_entropy(output, y)


def follow(
    program: Program, model: nn.Module, tracker: Tracker, progress: Callable[[float, int | None], None]
) -> list[float]:
    """Run a program within a tracker; return the losses of its steps, none in inference.

    Args:
        model: of the tracker, prepared. progress: called with (steps done, all steps).
    """
    optimiser = None if program.train is None else program.optimiser_of(model.parameters())
    losses = []
    with tracker:
        for number in range(program.steps):
            loss = program.step(model, optimiser, number)
            losses += [] if loss is None else [loss]
            progress(number + 1, program.steps)
    return [float(loss) for loss in losses]  # outside: within, they would count as read by the program
