"""The arrays of a file as a network takes them: inputs by the names of its forward, in types of its own, and labels."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simulator.errors import InputError

from .arrays import array_names, read_arrays
from .input_types import input_types, type_name
from .metrics import IGNORED
from .named_forward import argument_of

Inputs = Tensor | dict[str, Tensor]


def inputs_and_labels(path: str, model: nn.Module) -> tuple[Inputs, Tensor | None]:
    """Return the inputs that a file has for a network, by the names of its forward, and labels, if there are any.

    Args:
        path: of an `.npz` file.
    Raises:
        InputError: arrays that are no inputs of the network, or no labels of as many samples.
    """
    arrays = read_arrays(path, array_names(path))
    parameters = _forward_parameters(model)
    # A network that has an input of that name is run without labels.
    y = arrays.pop("y", None) if "y" not in parameters else None
    if not arrays:
        raise InputError(
            f"{path}: holds {'y' if y is not None else 'nothing'}; expected x, or the inputs of "
            f"{type(model).__name__}: {', '.join(parameters) or 'x'}; add them"
        )
    types = input_types(model)
    if list(arrays) == ["x"] and len(types) == 1:
        types = {"x": next(iter(types.values()))}
    inputs = {}
    for name, array in arrays.items():
        argument = argument_of(name, parameters)
        if argument in inputs:
            raise InputError(f"{path}: {name} is there under another name too; expected one of both; remove one")
        inputs[argument] = _input(path, name, array, model, types.get(argument))
    lengths = {name: len(value) for name, value in inputs.items() if value.dim()}
    if not lengths:
        _refuse_shape(path, *next(iter(arrays.items())))
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} of {length}" for name, length in lengths.items())
        raise InputError(f"{path}: {shown} samples; expected the same number in all; correct the arrays")
    count = next(iter(lengths.values()))
    # The usual case: one input, called x in the file and whatever in the network.
    x = inputs["x"] if list(inputs) == ["x"] and "x" not in parameters else _named(path, model, inputs, parameters)
    if y is not None and y.dtype.kind == "f" and y.shape[:1] == (count,) and y.size:
        return x, floats(path, "y", y, float_type(model))
    return x, None if y is None else classes(path, y, count)


def _named(
    path: str, model: nn.Module, inputs: dict[str, Tensor], parameters: Mapping[str, inspect.Parameter]
) -> Inputs:
    """Return inputs under the names of the network's forward."""
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named = {
        name: p for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }  # fmt: skip
    unknown = [] if anything else [name for name in inputs if name not in named]
    missing = [name for name, parameter in named.items() if parameter.default is parameter.empty and name not in inputs]
    if unknown or missing:
        in_file: Mapping[str, str] = getattr(model, "input_names", {})  # where they are not Python's
        lists = [[in_file.get(name, name) for name in names] for names in (missing, unknown, named)]
        parts = zip(("lacks", "has besides"), lists[:2], strict=True)
        found = " and ".join(f"{verb} {', '.join(names)}" for verb, names in parts if names)
        raise InputError(
            f"{path}: {found}; expected the inputs of {type(model).__name__}: {', '.join(lists[2]) or 'x alone'} (and "
            "y, if there are labels); rename the arrays"
        )
    # The only one, if it is the first argument of the forward, is one tensor, whatever it is called.
    first = next((name for name, p in named.items() if p.kind is p.POSITIONAL_OR_KEYWORD), "x")
    return inputs[first] if list(inputs) == [first] else inputs


def _forward_parameters(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(model.forward).parameters
    except (TypeError, ValueError):  # of a forward in C
        return {}


def _input(path: str, name: str, x: NDArray[Any], model: nn.Module, declared: torch.dtype | None) -> Tensor:
    """Return an array as an input of the network, which may have declared a type for it."""
    if x.size == 0:
        _refuse_shape(path, name, x)
    if x.dtype == np.uint8 and (declared is None or declared.is_floating_point):
        raise InputError(
            f"{path}: {name} has dtype uint8, which is normalised for the bundled networks only; expected numbers as "
            f"{type(model).__name__} was trained on; give floats, such as {name}.astype(numpy.float32) / 255, or int64 "
            "for indices"
        )
    if x.dtype.kind == "f":
        return floats(path, name, x, float_type(model))
    if x.dtype.kind == "b":
        return torch.from_numpy(np.asarray(x, order="C"))
    if x.dtype.kind not in "iu":
        raise InputError(f"{path}: {name} has dtype {x.dtype}; expected floats, integers or bools; convert it")
    if x.dtype == np.uint64 and int(x.max()) > np.iinfo(np.int64).max:
        raise InputError(f"{path}: {name} holds {int(x.max())}; expected integers within int64; correct the data")
    declared_so = declared is not None and type_name(declared) == x.dtype.name
    return torch.from_numpy(np.asarray(x, x.dtype.name if declared_so else np.int64, order="C"))


def _refuse_shape(path: str, name: str, x: NDArray[Any]) -> NoReturn:
    raise InputError(
        f"{path}: {name} has shape {x.shape}; expected (N, ...) with at least one sample; put samples along the first "
        "axis"
    )


def floats(path: str, name: str, x: NDArray[Any], dtype: torch.dtype) -> Tensor:
    """Return an array as floats of a type; InputError unless all are finite in it."""
    with np.errstate(over="ignore"):
        single = np.asarray(x, np.float64 if dtype == torch.float64 else np.float32, order="C")
    tensor = torch.from_numpy(single).to(dtype)
    if not bool(tensor.isfinite().all()):
        kind = type_name(dtype)
        raise InputError(
            f"{path}: {name} holds NaN, infinities or numbers beyond {kind}; expected finite ones; clean the data"
        )
    return tensor


def float_type(model: nn.Module) -> torch.dtype:
    """The type of a network's first parameter of floats."""
    return next((value.dtype for value in model.parameters() if value.is_floating_point()), torch.float32)


def classes(path: str, y: NDArray[Any], samples: int) -> Tensor:
    """Return an array as classes of so many samples or their tokens; InputError if it is none."""
    if y.dtype.kind not in "iu" or y.shape[:1] != (samples,) or y.size == 0:
        raise InputError(
            f"{path}: y is {y.dtype} of shape {y.shape}; expected integer classes of shape ({samples},), one for each "
            f"sample of x, or ({samples}, T), one for each token, or floats to regress on for networks of your own; "
            "correct the labels, or leave y out"
        )
    beyond = y[(y < 0) & (y != IGNORED)] if y.dtype.kind == "i" else y[y > np.iinfo(np.int64).max]
    if beyond.size:
        raise InputError(
            f"{path}: y holds {beyond.flat[0]}; expected classes from 0, or {IGNORED} for what is not to count; "
            "relabel the data"
        )
    return torch.from_numpy(y.astype(np.int64))
