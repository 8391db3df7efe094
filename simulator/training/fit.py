"""fit: train any torch model with some of its values in narrow formats."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from simulator.errors import InputError

from .causes import UpdateCounts, Updates
from .observed import Observation, Observer
from .points import (
    ACTIVATION,
    GRADIENT,
    OPTIMIZER_STATE,
    WEIGHT_GRADIENT,
    WEIGHT_STORE,
    WEIGHT_USE,
    Counts,
    Point,
    layers_of,
)  # fmt: skip
from .products import OneThread, Products
from .recipe import Recipe

Loss = Callable[[Tensor, Tensor], Tensor]
MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop,
}  # fmt: skip


@dataclass(frozen=True)
class Epoch:
    """One pass over the samples.

    Args:
        number: from 0. loss: mean over the samples, as seen in training. accuracy: share of right answers among the
            test samples, or the training samples if there are none; None without classes.
        counts: by point and tensor. updates: by parameter. skipped: steps whose gradients were not finite under a
            dynamic loss scale. loss_scale: at the end. observation: of the last batch, if it was asked for.
    """

    number: int
    loss: float
    accuracy: float | None
    counts: dict[str, dict[str, Counts]] = field(default_factory=dict)
    updates: dict[str, UpdateCounts] = field(default_factory=dict)
    skipped: int = 0
    loss_scale: float = 1.0
    observation: Observation | None = None


@dataclass
class History:
    """What a training was and did.

    Args:
        recipe: in force. epochs: in order. steps: of the optimiser, in all.
    """

    recipe: Recipe
    epochs: list[Epoch] = field(default_factory=list)
    steps: int = 0

    @property
    def accuracy(self) -> float | None:
        """That of the last epoch."""
        return self.epochs[-1].accuracy if self.epochs else None


class _Rounding(torch.autograd.Function):
    """Rounds an output forward and its gradient backward, each as if the other were not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, run: _Run, layer: str) -> Tensor:
        ctx.run, ctx.layer = run, layer
        return run.at(ACTIVATION, x, layer)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.run.at(GRADIENT, gradient, ctx.layer), None, None


class _Run:
    """The points of a run, and the step that it is at."""

    def __init__(self, recipe: Recipe, seed: int) -> None:
        self.points = {name: Point(name, use, seed) for name, use in recipe.points.items()}
        self.step = 0

    def part(self, recipe: Recipe) -> _Run:
        """Return a run at the same step with those of the points that a recipe has, whose counts are its own."""
        part = _Run(Recipe(), 0)
        part.points, part.step = {name: self.points[name].apart() for name in recipe.points}, self.step
        return part

    def at(self, point: str, x: Tensor, tensor: str) -> Tensor:
        """Return values as they are after a point: themselves if it is off."""
        found = self.points.get(point)
        return x.clone() if found is None else found.rounded(x, tensor, self.step)

    def store(self, point: str, x: Tensor, tensor: str) -> None:
        """Round values in place, if a point is on."""
        found = self.points.get(point)
        if found is not None:
            x.copy_(found.rounded(x, tensor, self.step))

    @contextmanager
    def in_layers(self, model: nn.Module) -> Iterator[None]:
        """Within it, outputs of layers and their gradients are rounded."""
        with ExitStack() as hooks:
            if ACTIVATION in self.points or GRADIENT in self.points:
                for path, module in layers_of(model):
                    hook = module.register_forward_hook(
                        lambda module, args, out, path=path: (
                            _Rounding.apply(out, self, path)
                            if isinstance(out, Tensor) and out.is_floating_point()
                            else out
                        )
                    )
                    hooks.callback(hook.remove)
            yield

    @contextmanager
    def with_copies(self, parameters: dict[str, nn.Parameter]) -> Iterator[None]:
        """Within it, parameters are rounded copies of the masters, which are there again behind it."""
        if WEIGHT_USE not in self.points:
            yield
            return
        masters = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        with torch.no_grad():
            for name, parameter in parameters.items():
                self.store(WEIGHT_USE, parameter, name)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(masters[name])


def fit(
    model: nn.Module,
    data: tuple[Any, Any],
    storage: str | None = None,
    rounding: str | None = None,
    epochs: int = 10,
    batch_size: int = 32,
    lr: float = 0.1,
    optimizer: str | MakeOptimizer = "sgd",
    seed: int = 0,
    recipe: Recipe | None = None,
    test: tuple[Any, Any] | None = None,
    loss: Loss | None = None,
    observe: Callable[[Epoch], None] | None = None,
    causes: bool = False,
    **options: Any,
) -> History:
    """Train a model in place.

    Args:
        data: samples (N, ...) and their classes, or real targets. storage, rounding: format of the stored parameters
            and its rounding, in place of a recipe: the setting of arXiv 1805.01078. recipe: what is rounded where.
        optimizer: sgd, adam, adamw, rmsprop with `options`, such as momentum, or what makes one of the parameters.
        seed: of the order of the samples and of stochastic roundings. test: samples for the accuracy.
        loss: of outputs and targets; None: cross entropy for classes, mean squares for real targets.
        observe: called after each epoch. causes: whether to look at what each point does to the last batch of an epoch,
            which changes no bit of the training: `Epoch.observation`, read by `training.causes_of`.
    Returns:
        The history. The same arguments on the same kind of processor give the same bits, whatever the threads.
    Raises:
        InputError: what does not fit together.
    """
    recipe = _recipe(storage, rounding, recipe)
    x, y = _tensors(data, "data", model)
    held_out = (x, y) if test is None else _tensors(test, "test", model)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    made = _optimizer(optimizer, list(parameters.values()), lr, options)
    loss = loss or (nn.functional.mse_loss if y.is_floating_point() else nn.functional.cross_entropy)
    run, history = _Run(recipe, seed), History(recipe)
    scale, good = recipe.loss_scale.start, 0
    updates = Updates()
    with torch.no_grad():
        for name, parameter in parameters.items():
            run.store(WEIGHT_STORE, parameter, name)
    generator = torch.Generator().manual_seed(seed)
    emulation = _emulation(model, recipe, seed)
    watching = None
    if causes:
        watching = Observer(
            model, parameters, made, loss, recipe, run, lambda part: _emulation(model, part, seed), seed
        )
    for number in range(epochs):
        model.train()
        total, skipped = 0.0, 0
        for rows in torch.randperm(len(x), generator=generator).split(batch_size):
            run.step += 1
            made.zero_grad(set_to_none=True)
            with emulation, run.in_layers(model), run.with_copies(parameters):
                value = loss(model(x[rows]), y[rows])
                (value * scale if scale != 1.0 else value).backward()
            total += float(value.detach()) * len(rows)
            finite = _unscale(parameters, scale)
            if recipe.loss_scale.dynamic:
                if not finite:
                    scale, good, skipped = scale / 2.0, 0, skipped + 1
                    continue
                good += 1
                if good % recipe.loss_scale.every == 0:
                    scale *= 2.0
            _step(made, parameters, run, updates)
            history.steps += 1
        observation = None if watching is None else watching.look(x[rows], y[rows], scale)
        history.epochs.append(
            Epoch(
                number, total / len(x), accuracy(model, *held_out, run=run, emulation=emulation),
                {name: point.close() for name, point in run.points.items()}, updates.close(), skipped, scale,
                observation,
            )
        )  # fmt: skip
        if observe is not None:
            observe(history.epochs[-1])
    if watching is not None:
        watching.close()
    return history


def _step(made: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], run: _Run, updates: Updates) -> None:
    """Take a step of the optimiser, and round what it wrote."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                run.store(WEIGHT_GRADIENT, parameter.grad, name)
        before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    made.step()
    with torch.no_grad():
        for name, parameter in parameters.items():
            wanted = parameter.detach().clone()
            run.store(WEIGHT_STORE, parameter, name)
            updates.see(name, before[name], wanted, parameter.detach())
            for key, state in made.state.get(parameter, {}).items():
                if isinstance(state, Tensor) and state.is_floating_point() and key != "step":
                    run.store(OPTIMIZER_STATE, state, f"{name}: {key}")


def _unscale(parameters: dict[str, nn.Parameter], scale: float) -> bool:
    """Divide gradients by the loss scale, and return whether all are finite."""
    finite = True
    with torch.no_grad():
        for parameter in parameters.values():
            if parameter.grad is not None:
                if scale != 1.0:
                    parameter.grad.div_(scale)
                finite = finite and bool(torch.isfinite(parameter.grad.sum()))
    return finite


def accuracy(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    batch: int = 1024,
    run: Any = None,
    emulation: AbstractContextManager[Any] | None = None,
) -> float | None:
    """Return the share of right answers; None without classes.

    Args:
        run: whose points hold in the forward pass too; None: none does. emulation: of its products.
    """
    if y.is_floating_point():
        return None
    training = model.training
    model.eval()
    right = 0
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with ExitStack() as points, torch.no_grad():
        if emulation is not None:
            points.enter_context(emulation)
        if run is not None:
            points.enter_context(run.with_copies(parameters))
            points.enter_context(run.in_layers(model))
        for start in range(0, len(x), batch):
            right += int((model(x[start : start + batch]).argmax(-1) == y[start : start + batch]).sum())
    model.train(training)
    return right / y.numel()


def _emulation(model: nn.Module, recipe: Recipe, seed: int) -> AbstractContextManager[Any]:
    """Return the context in which products are those of the recipe's MAC units; torch has one thread in it."""
    return Products(model, recipe.macs, seed) if recipe.macs else OneThread()


def _recipe(storage: str | None, rounding: str | None, recipe: Recipe | None) -> Recipe:
    if recipe is not None:
        if storage is not None or rounding is not None:
            raise InputError("fit: got a recipe with storage or rounding; expected one; write them into the recipe")
        return recipe
    if storage is None:
        if rounding is not None:
            raise InputError("fit: got rounding without storage; expected both; give storage='e8m6'")
        return Recipe()
    return Recipe.storage(storage, rounding or "rz")


def _tensors(data: tuple[Any, Any], name: str, model: nn.Module) -> tuple[Tensor, Tensor]:
    try:
        x, y = data
    except (TypeError, ValueError):
        raise InputError(f"fit: {name}: got {type(data).__name__}; expected two arrays; give (x, y)") from None
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    if len(x) != len(y) or not len(x):
        raise InputError(f"fit: {name}: got {len(x)} samples and {len(y)} targets; expected as many; give (x, y)")
    carrier = next((p.dtype for p in model.parameters()), torch.float32)
    return (x.to(carrier) if x.is_floating_point() else x), (y.to(carrier) if y.is_floating_point() else y.long())


def _optimizer(
    optimizer: str | MakeOptimizer, parameters: list[nn.Parameter], lr: float, options: dict[str, Any]
) -> torch.optim.Optimizer:
    if not isinstance(optimizer, str):
        return optimizer(parameters)
    if optimizer not in OPTIMIZERS:
        raise InputError(f"fit: optimizer: got {optimizer!r}; expected {', '.join(OPTIMIZERS)}; give one of them")
    if not (lr > 0 and math.isfinite(lr)):
        raise InputError(f"fit: lr: got {lr}; expected a positive number; give e.g. 0.1")
    try:
        return OPTIMIZERS[optimizer](parameters, lr=lr, **options)
    except TypeError as error:
        raise InputError(f"fit: {optimizer}: {error}; expected its own options; leave this one out") from None
