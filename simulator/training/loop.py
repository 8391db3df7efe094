"""The loop of a training: batch, step of the optimiser, rounding; and all that decides on what follows, as a state."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from simulator.network.array_inputs import Inputs
from simulator.network.batches import Batch, Batches, as_batch, fixed_batch
from simulator.network.emulation import Emulation
from simulator.network.outputs import output_of

from .history import Epoch, History, from_plain, to_plain
from .observed import Observer
from .points import OPTIMIZER_STATE, WEIGHT_GRADIENT, WEIGHT_STORE, layers_of, mixed_key, parameters_of
from .products import OneThread, Products
from .recipe import Recipe
from .rounds import Rounds, UnroundedLayer
from .updates import Updates

Loss = Callable[[Any, Any], Tensor]
Data = tuple[Inputs, Tensor]


class Training:
    """A model in training, which can be stopped after every epoch and taken up again with the same bits.

    Args:
        model: trained in place. data: samples, or several inputs by name, and targets, of the model's types.
        recipe: what is rounded where. optimizer: of the parameters of the model that require gradients.
        loss: of what the model returns and targets.
        batch_size: of the steps. seed: of the order of the samples, of random numbers that the model draws from torch,
            and of stochastic roundings. test: samples for the accuracy.
        causes: whether the last batch of each epoch is looked at; until `close`.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        recipe: Recipe,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        batch_size: int,
        seed: int,
        test: Data,
        causes: bool = False,
    ) -> None:
        self.model, self.data, self.test, self.recipe = model, data, test, recipe
        self.optimizer, self.loss, self.batch_size, self.seed = optimizer, loss, batch_size, seed
        self.parameters = trainable(model)
        self.rounds, self.history = Rounds(recipe, seed), History(recipe)
        self.scale, self.good = float(recipe.loss_scale.start), 0  # good: steps since the last that was skipped
        self._order = torch.Generator().manual_seed(seed)
        self._random = torch.Generator().manual_seed(_OF_MODEL + seed).get_state()
        self._emulation = _emulation(model, recipe, seed)
        self._updates = Updates()
        self._told: set[str] = set()  # layers that were warned of
        self.causes, self._watching = causes, None
        if causes:
            self._watching = Observer(
                model, self.parameters, optimizer, loss, recipe, self.rounds,
                lambda part: _emulation(model, part, seed), seed,
            )  # fmt: skip

    def close(self) -> None:
        """Follow the optimiser no longer."""
        if self._watching is not None:
            self._watching.close()

    @property
    def steps_of_epoch(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.data[1]) // self.batch_size)

    def begin(self) -> None:
        """Round the parameters that a model has before its first step; the counts of epochs leave that out."""
        with torch.no_grad():
            for name, parameter in parameters_of(self.model):
                self.rounds.store(WEIGHT_STORE, parameter, name)
        for point in self.rounds.points.values():
            point.close()

    def epoch(self, progress: Callable[[int], None] = lambda steps: None) -> Epoch:
        """Pass over the samples once.

        Args:
            progress: called after each step with how many there were in all.
        """
        data = as_batch(*self.data)
        total, skipped = 0.0, 0
        # torch's global generator, from which models draw, is the caller's again behind it.
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random)
            self.model.train()
            for rows in torch.randperm(data.samples, generator=self._order).split(self.batch_size):
                batch = data.rows(rows)
                total += self._backward(batch) * len(rows)
                if self._accepts():
                    self._step()
                else:
                    skipped += 1
                progress(self.rounds.step)
            observation = None if self._watching is None else self._watching.look(batch, self.scale)
            right = accuracy(self.model, *self.test, run=self.rounds, emulation=self._emulation)
            self._random = torch.get_rng_state()
        counts = {name: point.close() for name, point in self.rounds.points.items()}
        found = Epoch(
            len(self.history.epochs),
            total / data.samples,
            right,
            counts,
            self._updates.close(),
            skipped,
            self.scale,
            observation,
        )
        self._warn(found)
        self.history.epochs.append(found)
        return found

    def _warn(self, epoch: Epoch) -> None:
        """Tell of an epoch that went wrong, if no earlier one did likewise."""
        before = self.history.epochs
        if not math.isfinite(epoch.loss) and all(math.isfinite(each.loss) for each in before):
            warnings.warn(
                f"epoch {epoch.number}: the loss is {epoch.loss}; give a smaller lr, or formats of a wider range",
                DivergedTraining,
                stacklevel=5,
            )
        steps = self.steps_of_epoch
        if epoch.skipped == steps and all(each.skipped < steps for each in before):
            warnings.warn(
                f"epoch {epoch.number}: all {steps} steps were skipped, as gradients were not finite under the dynamic "
                f"loss scale, {epoch.loss_scale:g} by now; give a smaller one, or formats of a wider range",
                DivergedTraining,
                stacklevel=5,
            )

    def _backward(self, batch: Batch) -> float:
        """Compute the gradients of a batch, and return its loss."""
        self.rounds.step += 1
        self.optimizer.zero_grad(set_to_none=True)
        if isinstance(self._emulation, Emulation):
            self._emulation.restart(mixed_key(self.seed, self.rounds.step, _OF_PRODUCTS))
        with self._emulation, self.rounds.in_layers(self.model) as unmet, self.rounds.with_copies(self.model):
            value = self.loss(self.model(*batch.args, **batch.kwargs), batch.labels)
            (value * self.scale if self.scale != 1.0 else value).backward()
        new = [path for path, _ in layers_of(self.model) if path in unmet - self._told]
        if new:
            self._told.update(new)
            warnings.warn(
                f"{', '.join(new)}: no output met activation and gradient in step {self.rounds.step}; the layer did "
                "not run as a module, or handed on no tensor",
                UnroundedLayer,
                stacklevel=5,
            )
        return float(value.detach())

    def _accepts(self) -> bool:
        """Round the gradients of the scaled loss, divide them by its scale, and tell whether they may be stepped with.

        The scale adapts to what they are after rounding, whose overflow counts.
        """
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if parameter.grad is not None:
                    self.rounds.store(WEIGHT_GRADIENT, parameter.grad, name)
        dynamic = self.recipe.loss_scale.dynamic
        if self.scale == 1.0 and not dynamic:
            return True
        finite = _unscale(self.parameters, self.scale)
        if not dynamic:
            return True
        if not finite:
            self.scale, self.good = max(self.scale / 2.0, min(self.scale, _LEAST)), 0
            return False
        self.good += 1
        if self.good % self.recipe.loss_scale.every == 0:
            self.scale = min(self.scale * 2.0, max(self.scale, _MOST))
        return True

    def _step(self) -> None:
        """Take a step of the optimiser, and round what it wrote."""
        before = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.optimizer.step()
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                after = wanted = parameter.detach()
                if WEIGHT_STORE in self.rounds.points:
                    wanted = after.clone()
                    self.rounds.store(WEIGHT_STORE, parameter, name)
                self._updates.see(name, before[name], wanted, after)
                for key, state in self.optimizer.state.get(parameter, {}).items():
                    if isinstance(state, Tensor) and state.is_floating_point() and key != "step":
                        self.rounds.store(OPTIMIZER_STATE, state, f"{name}: {key}")
        self.history.steps += 1

    def state(self) -> dict[str, Any]:
        """Return all that decides on what follows, between two epochs: tensors, numbers and texts.

        The tensors are those of the training, which go on changing.
        """
        state = self.optimizer.state
        return {
            "tensors": dict(self._tensors()),
            "optimizer": [dict(state.get(parameter, {})) for parameter in self._optimised()],
            "groups": self.optimizer.state_dict()["param_groups"],
            "order": self._order.get_state(),
            "random": self._random,
            "scale": self.scale,
            "good": self.good,
            "step": self.rounds.step,
            "numbers": {name: point.numbers for name, point in self.rounds.points.items()},
            "steps": self.history.steps,
            "epochs": [json.dumps(to_plain(epoch)) for epoch in self.history.epochs],  # a text is fast to write
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; where it is refused, nothing has changed.

        Raises:
            KeyError, TypeError, ValueError, RuntimeError: no state of such a training.
        """
        own = dict(self._tensors())
        tensors = {name: state["tensors"][name] for name in own}
        for name, tensor in own.items():
            if (tensors[name].shape, tensors[name].dtype) != (tensor.shape, tensor.dtype):
                raise ValueError(f"{name}: another shape or type")
        orders = [torch.Generator().set_state(state[name]) for name in ("order", "random")]
        epochs = [from_plain(Epoch, json.loads(epoch)) for epoch in state["epochs"]]
        numbers = {name: {str(tensor): int(n) for tensor, n in state["numbers"][name].items()}
                   for name in self.rounds.points}  # fmt: skip
        steps, step, good, scale = int(state["steps"]), int(state["step"]), int(state["good"]), float(state["scale"])
        by_parameter = [dict(entries) for entries in state["optimizer"]]
        self.optimizer.load_state_dict({"state": {}, "param_groups": state["groups"]})
        # Not load_state_dict of the state, which converts it to the types of the parameters.
        for parameter, entries in zip(self._optimised(), by_parameter, strict=True):
            if entries:
                self.optimizer.state[parameter] = {
                    key: value.clone() if isinstance(value, Tensor) else value for key, value in entries.items()
                }
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(tensors[name])
        self._order, self._random = orders[0], orders[1].get_state()
        self.scale, self.good, self.rounds.step = scale, good, step
        for name, point in self.rounds.points.items():
            point.numbers = numbers[name]
        self.history.steps, self.history.epochs = steps, epochs

    def _tensors(self) -> dict[str, Tensor]:
        return {
            name: tensor.detach()
            for named in (self.model.named_parameters(), self.model.named_buffers()) for name, tensor in named
        }  # fmt: skip

    def _optimised(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


# Keys of random numbers apart from others of the same seed: of those that the model draws, and of those within MACs.
_OF_MODEL, _OF_PRODUCTS = 1 << 32, (1 << 32) - 1


# Dynamic loss scales: the normal powers of two of float32.
_LEAST, _MOST = 2.0**-126, 2.0**127


class DivergedTraining(UserWarning):
    """A training whose loss is not finite, or an epoch of which took no step."""


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a model that require gradients, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _unscale(parameters: dict[str, nn.Parameter], scale: float) -> bool:
    """Divide gradients by the loss scale, and return whether all are finite."""
    finite = True
    with torch.no_grad():
        for parameter in parameters.values():
            if parameter.grad is not None:
                if scale != 1.0:
                    parameter.grad.div_(scale)
                finite = finite and bool(torch.isfinite(parameter.grad).all())
    return finite


def accuracy(
    model: nn.Module,
    x: Inputs,
    y: Tensor,
    batch: int = 1024,
    run: Rounds | None = None,
    emulation: AbstractContextManager[Any] | None = None,
) -> float | None:
    """Return the share of right answers; None without classes.

    Args:
        x: samples (N, ...), or several inputs by name. y: their classes.
        batch: samples of a pass, unless the model takes a fixed number. run: whose points hold in the forward pass too;
            None: none does. emulation: of its products.
    """
    if y.is_floating_point():
        return None
    training = model.training
    model.eval()
    right, batch = 0, fixed_batch(model) or batch
    with ExitStack() as points, torch.no_grad():
        if emulation is not None:
            points.enter_context(emulation)
        if run is not None:
            points.enter_context(run.with_copies(model))
            points.enter_context(run.in_layers(model))
        for part in Batches(x, y).parts(batch):
            assert part.labels is not None
            right += int((output_of(model(*part.args, **part.kwargs)).argmax(-1) == part.labels).sum())
    model.train(training)
    return right / y.numel()


def _emulation(model: nn.Module, recipe: Recipe, seed: int) -> AbstractContextManager[Any]:
    """Return the context in which products are those of the recipe's MAC units; torch has one thread in it."""
    return Products(model, recipe.macs, seed) if recipe.macs else OneThread()
