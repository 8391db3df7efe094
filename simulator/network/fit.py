"""Whether samples fit a network: it runs, and what fails is named by samples and layer."""

from __future__ import annotations

import inspect
import os
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from simulator.errors import InputError, first_line

from .buffers import Buffers
from .input_types import type_name
from .weights import samples_of

_HOUSE = Path(__file__).parents[2]
OURS = tuple(str(_HOUSE / package) + os.sep for package in ("simulator", "formats", "native"))
NUMPY = str(Path(np.__file__).parent) + os.sep


def check_fit(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], y: Tensor | None, source: str, remedy: str
) -> None:
    """Run a network on its first samples, without gradients, and refuse what it cannot take or what it returns.

    Args:
        model: in eval mode. args, kwargs: of a forward pass on one sample, or on as many as it takes at a time.
        y: labels of all samples, or None. source: where the samples come from.
        remedy: what was expected and what to do, as the message ends.
    Raises:
        InputError: the forward pass fails, returns a tensor without samples first, or has other classes than y.
    """
    network = type(model).__name__
    try:
        with torch.no_grad(), Buffers(model):
            output = model(*args, **kwargs)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # whatever a network raises at what it was not made for
        raise InputError(
            f"{source}: {_inputs(args, kwargs)} does not fit the network {network} "
            f"({failing_layer(model, args, kwargs)}{type(error).__name__}: {first_line(error)}); {remedy}"
        ) from None
    if not isinstance(output, Tensor):
        return
    count = samples_of(args, kwargs)
    if not output.dim() or output.shape[0] != count:
        given = "one sample" if count == 1 else f"{count} samples"
        raise InputError(
            f"{source}: {network} returns shape {tuple(output.shape)} for {given}; expected samples along the first "
            "axis; wrap it in a module that returns them there"
        )
    if y is not None and not y.is_floating_point():
        _check_labels(y, output, source, network)


@contextmanager
def named_failures(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], first: int, end: int, mode: str
) -> Iterator[None]:
    """Around a forward pass of a network: what it raises is refused, with the samples, the mode and the layer.

    What the emulation itself raises, a fault of ours, goes on as it is, with a note of the samples and the mode.

    Args:
        args, kwargs: of the forward pass. first, end: numbers of its samples, from the first to before the last.
    Raises:
        InputError: the network raised; from the exception itself, which has its traceback.
    """
    samples = f"sample {first}" if end - first == 1 else f"samples {first} to {end - 1}"
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        if is_ours(error):
            error.add_note(f"simulator.evaluate: in the mode {mode}, with {samples} of x (counted from 0)")
            raise
        network = type(model).__name__
        wrong = unbound(model, args, kwargs) if isinstance(error, TypeError) else ""
        if wrong:
            inputs = ", ".join(inspect.signature(model.forward).parameters)
            raise InputError(
                f"x: {wrong}; expected the inputs of {network}: {inputs}; name them as its forward does, and give "
                "labels beside them, as in (inputs, labels)"
            ) from error
        raise InputError(
            f"x: the network {network} fails with {samples} (counted from 0) in the mode {mode} "
            f"({failing_layer(model, args, kwargs)}{type(error).__name__}: {first_line(error)}); expected what its "
            "forward takes, samples along the first axis; correct these samples, or the network"
        ) from error


@contextmanager
def refused_failures(who: str, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Around a pass of a network on some of its samples: what it raises is refused, with the layer.

    Args:
        who: runs it, as the message begins. args, kwargs: of the forward pass.
    Raises:
        InputError: the network raised.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if is_ours(error):
            raise
        raise InputError(
            f"{who}: the network {type(model).__name__} fails ({failing_layer(model, args, dict(kwargs))}"
            f"{type(error).__name__}: {first_line(error)}); expected samples that its forward takes; correct these "
            "samples, or the network"
        ) from None


def is_ours(error: BaseException) -> bool:
    """Whether an exception arose in our own code, or in numpy's for it, and not in the network's or in torch's."""
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return next((name.startswith(OURS) for name in reversed(frames) if not name.startswith(NUMPY)), False)


def unbound(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return what of the arguments a network's forward does not take, or lacks; empty if it takes them."""
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    except ValueError:  # of a forward in C
        pass
    return ""


def _check_labels(y: Tensor, output: Tensor, source: str, network: str) -> None:
    """Refuse labels that are no classes of an output of one sample, (1, ..., classes) or (1, classes, ...)."""
    shapes = {tuple(output.shape[1:-1]): -1, tuple(output.shape[2:]): 1} if output.dim() > 1 else {}
    axis = shapes.get(tuple(y.shape[1:]))
    if axis is None:
        expected = " or ".join(str((len(y), *shape)) for shape in shapes) or "none"
        raise InputError(
            f"{source}: y has shape {tuple(y.shape)}, and {network} returns {tuple(output.shape)} for one sample; "
            f"expected y of shape {expected}, a class for each vector of logits; correct the labels, or leave y out"
        )
    classes = output.shape[axis]
    if int(y.max()) >= classes:
        raise InputError(
            f"{source}: y holds class {int(y.max())}, and {network} has {classes} outputs; expected classes 0 to "
            f"{classes - 1}; use the labels that the network was trained on"
        )


def _inputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    given = {"x": args[0]} if args else kwargs
    return ", ".join(f"{name} of shape {_shape(value)} and {type_name(value.dtype)}" for name, value in given.items())


def failing_layer(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Run a failing forward pass again and name the innermost module that does not come to its end."""
    names = {module: path for path, module in model.named_modules()}
    entered: list[tuple[nn.Module, str]] = []

    def enter(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        shapes = [_shape(leaf, one=True) for leaf in tree_leaves((given, named)) if isinstance(leaf, Tensor)]
        entered.append((module, " and ".join(shapes)))

    def leave(module: nn.Module, given: Any, output: Any) -> None:
        entered.pop()

    handles = [
        handle
        for module in names
        for handle in (
            module.register_forward_pre_hook(enter, with_kwargs=True),
            module.register_forward_hook(leave),
        )
    ]
    try:
        with torch.no_grad(), Buffers(model):
            model(*args, **kwargs)
    except (Exception, SystemExit):
        pass
    finally:
        for handle in handles:
            handle.remove()
    if not entered or entered[-1][0] is model:
        return ""
    module, shapes = entered[-1]
    described = type(module).__name__ if any(module.children()) else repr(module)
    return f"{names[module]}, {described}, is given {shapes}: "


def _shape(value: Tensor, one: bool = False) -> str:
    """The shape of a tensor; of all samples it has N for their number."""
    return str(tuple(value.shape)) if one or not value.dim() else f"({', '.join(['N', *map(str, value.shape[1:])])})"
