"""fit: train any torch model with some of its values in narrow formats."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from simulator.errors import InputError, first_line
from simulator.hardware.quantities import describe
from simulator.network.batches import batch_of, check_samples_first, check_whole
from simulator.network.fit import unbound
from simulator.network.metrics import IGNORED
from simulator.network.outputs import output_of

from .checkpoint import Checkpoint
from .history import Epoch, History
from .loop import Data, Loss, Training, trainable
from .recipe import Recipe
from .recipe_files import load_recipe

_CARRIERS = (torch.float32, torch.float64)
BATCH = 32  # samples of a step, if nothing says how many
_LR = 0.1  # of a named optimiser, if none is given

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop,
}  # fmt: skip


def fit(
    model: nn.Module,
    data: tuple[Any, Any],
    storage: str | None = None,
    rounding: str | None = None,
    epochs: int = 10,
    batch_size: int | None = None,
    lr: float | None = None,
    optimizer: str | MakeOptimizer = "sgd",
    seed: int = 0,
    recipe: Recipe | str | os.PathLike[str] | None = None,
    test: tuple[Any, Any] | None = None,
    loss: Loss | None = None,
    observe: Callable[[Epoch], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Callable[[int, int], None] = lambda steps, of: None,
    causes: bool = False,
    **options: Any,
) -> History:
    """Train a model in place.

    Args:
        model: whose parameters are float32 or float64.
        data: samples (N, ...), or several inputs in a mapping by the names of the model's forward, of which those
            without axes are the same for all samples; and their classes, or real targets.
        storage, rounding: format of the stored parameters and its rounding, in place of a recipe: the setting of arXiv
            1805.01078. recipe: what is rounded where, or the name or path of its file, as `load_recipe` takes it.
        batch_size: samples of a step; None: as many as the model takes at a time if that is fixed, else 32.
        optimizer: sgd, adam, adamw, rmsprop with `options`, such as momentum, or what makes one of the parameters,
            which goes with neither these nor lr. lr: of a named one; None: 0.1.
        seed: of the order of the samples, of random numbers that the model draws from torch (dropout), whose global
            generator stays as it is, and of stochastic roundings. test: samples for the accuracy.
        loss: of what the model returns and targets; None: cross entropy for classes, mean squares for real targets, of
            its logits or its first output of floats.
        observe: called after each epoch. progress: called after each step with how many of how many are done.
        checkpoint: file that the state of the training is written to, at first and after each epoch, whole or not at
            all; an earlier one is replaced. resume: whether to go on from what is there, to `epochs` in all; the
            parameters and the history then end with the same bits as those of a training that was never stopped, on
            the same kind of processor. Settings that differ are refused: the network as torch prints it, a loss of
            one's own by its name only. causes: whether to look at what each point does to the last batch of an epoch,
            which changes no bit of the training: `Epoch.observation`, read by `training.causes_of`.
    Returns:
        The history. The same arguments on the same kind of processor give the same bits, whatever the threads.
    Warns:
        DivergedTraining: once each, of the first loss that is not finite, and of the first epoch without a step.
        UnroundedLayer: once by name, of layers whose outputs are not where `activation` and `gradient` round.
    Raises:
        InputError: what does not fit together, or a checkpoint that is damaged, or of other settings, each of them
            named: nothing has changed then; classes beyond the first outputs; a checkpoint that can no longer be
            written.
    """
    recipe = _recipe(storage, rounding, recipe)
    _check_carrier(model)
    check_samples_first(model, "fit: data")
    batch_size = batch_of(model, batch_size, "fit: batch_size", BATCH)
    _check_counts(epochs, batch_size, seed)
    samples = _tensors(data, "data", model)
    held_out = samples if test is None else _tensors(test, "test", model)
    for name, given in (("data", samples), ("test", held_out)):
        check_whole(model, len(given[1]), f"fit: {name}")
    parameters = list(trainable(model).values())
    if not parameters:
        raise InputError(
            f"fit: {type(model).__name__} has no parameter that requires a gradient; expected at least one; call "
            "model.requires_grad_(True)"
        )
    made = _optimizer(optimizer, parameters, lr, options)
    own_loss = loss is not None
    if loss is None:
        loss = _of_logits(nn.functional.mse_loss if samples[1].is_floating_point() else nn.functional.cross_entropy)
    training = Training(model, samples, recipe, made, loss, batch_size, seed, held_out, causes)
    try:
        file = None if checkpoint is None else Checkpoint(training, checkpoint)
        with _classes_within(model, None if own_loss else samples[1]):
            _run(training, file, epochs, resume, observe, progress)
    finally:
        training.close()
    return training.history


def _of_logits(loss: Loss) -> Loss:
    """Return a loss, under its name, of the one among several outputs that metrics see."""

    @wraps(loss)
    def found(outputs: Any, targets: Any) -> Tensor:
        return loss(output_of(outputs), targets)

    return found


@contextmanager
def _classes_within(model: nn.Module, targets: Tensor | None) -> Iterator[None]:
    """Within it, the first outputs of a model tell whether there is one for each of the classes."""
    if targets is None or targets.is_floating_point() or bool((targets == IGNORED).all()):
        yield
        return
    wanted = targets[targets != IGNORED]
    least, most = int(wanted.min()), int(wanted.max())

    def check(module: nn.Module, args: Any, out: Any) -> None:
        hook.remove()
        out = output_of(out)
        if out.ndim > 1 and not 0 <= least <= most < out.shape[1]:
            raise InputError(
                f"fit: data: got classes from {least} to {most}; expected them from 0 to {out.shape[1] - 1}, the "
                f"outputs of {type(model).__name__}; correct them, or widen its last layer"
            )

    hook = model.register_forward_hook(check)
    try:
        yield
    finally:
        hook.remove()


def _run(
    training: Training,
    file: Checkpoint | None,
    epochs: int,
    resume: bool,
    observe: Callable[[Epoch], None] | None,
    progress: Callable[[int, int], None],
) -> None:
    """Train from the beginning or from a checkpoint to so many epochs in all."""
    if not resume:
        training.begin()
        if file is not None:
            file.write()
    elif file is None:
        raise InputError("fit: got resume without a checkpoint; expected its file; give checkpoint=PATH")
    else:
        file.restore(epochs)
    steps = epochs * training.steps_of_epoch
    for _ in range(len(training.history.epochs), epochs):
        epoch = training.epoch(lambda done: progress(done, steps))
        if file is not None:
            file.write()
        if observe is not None:
            observe(epoch)


def _check_carrier(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dtype not in _CARRIERS:
            found = str(parameter.dtype).removeprefix("torch.")
            raise InputError(
                f"fit: {type(model).__name__}: {name} is {found}; expected float32 or float64, in which values of a "
                "narrower format are carried; call model.float() and write the format into the recipe"
            )


def _check_counts(epochs: int, batch_size: int, seed: int) -> None:
    for name, value, least, most in (
        ("epochs", epochs, 0, 1 << 31), ("batch_size", batch_size, 1, 1 << 31), ("seed", seed, 0, (1 << 32) - 1),
    ):  # fmt: skip
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise InputError(
                f"fit: {name}: got {describe(value)}; expected a whole number from {least} to {most}; give e.g. 1"
            )


def _recipe(storage: str | None, rounding: str | None, recipe: Recipe | str | os.PathLike[str] | None) -> Recipe:
    if recipe is not None:
        if storage is not None or rounding is not None:
            raise InputError("fit: got a recipe with storage or rounding; expected one; write them into the recipe")
        return recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if storage is None:
        if rounding is not None:
            raise InputError("fit: got rounding without storage; expected both; give storage='e8m6'")
        return Recipe()
    return Recipe.storage(storage, rounding or "rz")


def _tensors(data: tuple[Any, Any], name: str, model: nn.Module) -> Data:
    try:
        x, y = data
    except (TypeError, ValueError):
        raise InputError(f"fit: {name}: got {type(data).__name__}; expected two arrays; give (x, y)") from None
    try:
        inputs = {key: torch.as_tensor(value) for key, value in (x if isinstance(x, Mapping) else {"x": x}).items()}
        y = torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"fit: {name}: {first_line(error)}; expected two arrays of numbers; give (x, y)") from None
    lengths = {key: len(value) for key, value in inputs.items() if value.ndim}
    if not (lengths and y.ndim):
        raise InputError(f"fit: {name}: got a single number; expected two arrays, one row a sample; give (x, y)")
    samples = " and ".join(map(str, dict.fromkeys(lengths.values())))
    if set(lengths.values()) != {len(y)} or not len(y):
        raise InputError(f"fit: {name}: got {samples} samples and {len(y)} targets; expected as many; give (x, y)")
    carrier = next((p.dtype for p in model.parameters()), torch.float32)
    carried = {key: value.to(carrier) if value.is_floating_point() else value for key, value in inputs.items()}
    y = y.to(carrier) if y.is_floating_point() else y.long()
    if not isinstance(x, Mapping):
        return carried["x"], y
    if unknown := unbound(model, (), carried):
        raise InputError(
            f"fit: {name}: {unknown}; expected the inputs of {type(model).__name__}; name them as its forward does"
        )
    return carried, y


def _optimizer(
    optimizer: str | MakeOptimizer, parameters: list[nn.Parameter], lr: float | None, options: dict[str, Any]
) -> torch.optim.Optimizer:
    if not isinstance(optimizer, str):
        given = [*([] if lr is None else ["lr"]), *options]
        if given:
            raise InputError(
                f"fit: got {', '.join(given)} beside what makes an optimizer; expected none; give them to the optimizer"
            )
        return optimizer(parameters)
    if optimizer not in OPTIMIZERS:
        raise InputError(f"fit: optimizer: got {optimizer!r}; expected {', '.join(OPTIMIZERS)}; give one of them")
    lr = _LR if lr is None else lr
    if not (_is_finite(lr) and lr > 0):
        raise InputError(f"fit: lr: got {describe(lr)}; expected a positive number; give e.g. {_LR}")
    for option, value in options.items():
        if isinstance(value, Real) and not isinstance(value, bool) and not _is_finite(value):
            raise InputError(f"fit: {option}: got {describe(value)}; expected a finite number; give e.g. 0.9")
    try:
        return OPTIMIZERS[optimizer](parameters, lr=lr, **options)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"fit: {optimizer}: {first_line(error)}; expected its own options, with values that it takes; correct this "
            "one or leave it out"
        ) from None


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False
