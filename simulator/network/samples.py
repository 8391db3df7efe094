"""Samples for a network: what the arrays of a file mean to it, or the bundled digits."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simulator.errors import InputError

from . import bundled
from .arrays import array_names, read_arrays
from .batches import check_samples_first, check_whole, fixed_batch, some
from .fit import check_fit
from .idx_files import FASHION, has_images, read_images
from .image_folders import has_pictures, image_files, read_pictures
from .input_types import input_types, type_name
from .named_forward import argument_of

IGNORED = -100  # the label that torch.nn.functional.cross_entropy ignores

Inputs = Tensor | dict[str, Tensor]


class Samples(NamedTuple):
    """Inputs and labels.

    Args:
        x: (N, ...) inputs, or several by the names that the network's forward has for them, beside which those without
            axes are the same for all samples.
        y: (N, ...) int64 classes, e.g. (N,) of samples or (N, T) of tokens, or floats to regress on; or None.
        source: where they come from.
    """

    x: Inputs
    y: Tensor | None
    source: str

    @property
    def size(self) -> int:
        """How many samples there are."""
        return next(len(x) for x in ((self.x,) if isinstance(self.x, Tensor) else self.x.values()) if x.dim())

    def part(self, rows: slice | Tensor) -> Samples:
        """Return some of the samples."""
        x = self.x[rows] if isinstance(self.x, Tensor) else {name: some(x, rows) for name, x in self.x.items()}
        return Samples(x, None if self.y is None else self.y[rows], self.source)

    def batch(self, rows: slice | Tensor) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Return some samples as the arguments and keyword arguments of a forward pass."""
        if isinstance(self.x, Tensor):
            return (self.x[rows],), {}
        return (), {name: some(x, rows) for name, x in self.x.items()}


def load_samples(
    path: str | None,
    count: int | None,
    model: nn.Module,
    part: str = "test",
    whole: bool = True,
    most: int | None = None,
) -> Samples:
    """Return samples that fit a network, on which it is run once.

    Args:
        path: directory with the IDX files of MNIST or Fashion-MNIST, of which `part` is taken, train or test; directory
            of PNG or JPEG images, as image_files takes them, of which the network gets grey levels or colours between 0
            and 1, channels first or last, whichever it takes; or `.npz` file with `x`, or with several inputs under the
            names that the network's forward has for them, those without axes the same for all samples, and `y` if there
            are labels; None for the bundled digits, which only the bundled networks take, and for cnn_fashion the
            images that Debian's dataset-fashion-mnist installs. For the bundled networks, grey levels (uint8) are
            normalised as they were trained. For any network floats are converted to the type of its parameters; for
            others than the bundled ones, integers become int64, or stay in the very type that the network declares,
            uint8 only where it declares integers, and bools stay.
        count: how many, from the first; None for all. whole: whether they must fill the batches of a network that takes
            a fixed number of samples at a time; otherwise whoever divides them sees to that. most: how many where no
            count is given and there are more; of such a network in whole batches.
    Raises:
        InputError: a file that is missing, of the wrong kind or with contents that do not fit; a bad count.
    """
    check_samples_first(model, path or "--data")
    own = isinstance(model, tuple(bundled.NAMES.values()))
    if path is None and not own:
        raise InputError(
            f"--data: not given, and the bundled digits are for the bundled networks only; expected samples for "
            f"{type(model).__name__}; give --data FILE.npz, as numpy.savez(path, x=..., y=...) writes it, samples "
            "along the first axis"
        )
    if path is None and isinstance(model, bundled.LeNet5Fashion):
        samples = _of_directory(str(FASHION), model, part)
    elif path is None:
        samples = Samples(*bundled.digits(), "bundled digits")
    elif has_images(Path(path)):
        samples = _of_directory(path, model, part)
    elif has_pictures(Path(path)):
        samples = _of_pictures(path, count, model, own)
    else:
        samples = _for_bundled(path, model) if own else _for_any(path, model)
    _check_count(count, samples.size, samples.source)
    at_once = fixed_batch(model) or 1
    if count is None and most is not None and most < samples.size:
        count = max(1, most // at_once) * at_once
    samples = samples.part(slice(count))
    if whole or samples.size < at_once:
        check_whole(model, samples.size, samples.source, "--samples")
    check_fit(model, *samples.batch(slice(0, at_once)), samples.y, samples.source, _remedy(own))
    return samples


def _check_count(count: int | None, size: int, source: str) -> None:
    if count is not None and not 1 <= count <= size:
        raise InputError(
            f"--samples: got {count}; expected 1 to {size}, the samples of {source}; give such a number, or leave it "
            "out for all"
        )


def _of_pictures(path: str, count: int | None, model: nn.Module, own: bool) -> Samples:
    files = image_files(Path(path))
    _check_count(count, len(files), path)
    files = files[:count]  # before they are read, since they may be many
    y = None if files[0].label is None else torch.tensor([file.label for file in files])
    if own:
        return Samples(bundled.normalise(read_pictures(files, colour=False)), y, path)
    tried = files[: fixed_batch(model) or 1]
    first = read_pictures(tried)
    height, width = first.shape[1:3]
    remedy = f"expected images that it takes, which these of {width} x {height} are not; resize them, or write an .npz"
    refused: list[InputError] = []
    # In grey what the network does not take in colour, and the other way round.
    for colour in (first.ndim == 4, first.ndim != 4):
        for last in (False, True):
            try:
                check_fit(model, (_pixels(read_pictures(tried, colour), last, model),), {}, None, path, remedy)
            except InputError as error:
                refused.append(error)
            else:
                return Samples(_pixels(read_pictures(files, colour), last, model), y, path)
    raise refused[0]


def _pixels(levels: NDArray[np.uint8], last: bool, model: nn.Module) -> Tensor:
    """Return images between 0 and 1, (N, channels, height, width), or with the channels last."""
    x = torch.from_numpy(levels)
    x = x if x.dim() == 4 else x.unsqueeze(-1)
    x = x if last else x.movedim(-1, 1).contiguous()
    return x.to(_float_type(model)) / 255


def _of_directory(path: str, model: nn.Module, part: str) -> Samples:
    if not isinstance(model, tuple(bundled.NAMES.values())):
        raise InputError(
            f"{path}: is a directory, whose images are normalised for the bundled networks only; expected an .npz file "
            f"for {type(model).__name__}; write one with numpy.savez(path, x=..., y=...)"
        )
    images, classes = read_images(Path(path), part)
    return Samples(bundled.normalise(images), torch.from_numpy(classes.astype(np.int64)), path)


def _remedy(own: bool) -> str:
    if own:
        return "expected grey levels (N, 28, 28) in uint8 or normalised floats (N, 1, 28, 28); reshape the data"
    return "expected what its forward takes, samples along the first axis; reshape or convert the data"


def _for_bundled(path: str, model: nn.Module) -> Samples:
    names = array_names(path)
    if "x" not in names:
        held = ", ".join(names) or "nothing"
        raise InputError(f"{path}: holds {held}; expected x (and y, if there are labels); rename the arrays")
    arrays = read_arrays(path, [name for name in names if name in ("x", "y")])
    x, y = arrays["x"], arrays.get("y")
    if x.ndim < 2 or x.size == 0:
        raise InputError(
            f"{path}: x has shape {x.shape}; expected (N, ...) with at least one sample; put samples along the "
            "first axis"
        )
    if x.dtype == np.uint8:
        images = x[:, 0] if x.ndim == 4 and x.shape[1] == 1 else x
        if images.ndim != 3:
            raise InputError(
                f"{path}: x of uint8 has shape {x.shape}; expected grey images (N, height, width); reshape it, or give "
                "normalised floats"
            )
        tensor = bundled.normalise(np.ascontiguousarray(images))
    elif x.dtype.kind == "f":
        tensor = _floats(path, "x", x, _float_type(model))
    else:
        raise InputError(f"{path}: x has dtype {x.dtype}; expected floats, or uint8 grey levels; convert it")
    return Samples(tensor, None if y is None else _labels(path, y, len(x)), path)


def _for_any(path: str, model: nn.Module) -> Samples:
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
        return Samples(x, _floats(path, "y", y, _float_type(model)), path)
    return Samples(x, None if y is None else _labels(path, y, count), path)


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
        return _floats(path, name, x, _float_type(model))
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


def _floats(path: str, name: str, x: NDArray[Any], dtype: torch.dtype) -> Tensor:
    with np.errstate(over="ignore"):
        single = np.asarray(x, np.float64 if dtype == torch.float64 else np.float32, order="C")
    tensor = torch.from_numpy(single).to(dtype)
    if not bool(tensor.isfinite().all()):
        kind = str(dtype).removeprefix("torch.")
        raise InputError(
            f"{path}: {name} holds NaN, infinities or numbers beyond {kind}; expected finite ones; clean the data"
        )
    return tensor


def _float_type(model: nn.Module) -> torch.dtype:
    """The type of a network's first parameter of floats."""
    return next((value.dtype for value in model.parameters() if value.is_floating_point()), torch.float32)


def _labels(path: str, y: NDArray[Any], samples: int) -> Tensor:
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
