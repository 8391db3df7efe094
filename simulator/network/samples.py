"""Samples for a network: of a file, of a directory of images, or the bundled digits."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simulator.errors import InputError

from . import bundled
from .array_inputs import Inputs, classes, float_type, floats, inputs_and_labels
from .arrays import array_names, read_arrays
from .batches import check_samples_first, check_whole, fixed_batch, some
from .fit import check_fit
from .idx_files import FASHION, has_images, read_images
from .image_folders import has_pictures, image_files, read_pictures


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
        samples = _for_bundled(path, model) if own else Samples(*inputs_and_labels(path, model), path)
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
    return x.to(float_type(model)) / 255


def _of_directory(path: str, model: nn.Module, part: str) -> Samples:
    if not isinstance(model, tuple(bundled.NAMES.values())):
        raise InputError(
            f"{path}: is a directory, whose images are normalised for the bundled networks only; expected an .npz file "
            f"for {type(model).__name__}; write one with numpy.savez(path, x=..., y=...)"
        )
    images, labels = read_images(Path(path), part)
    return Samples(bundled.normalise(images), torch.from_numpy(labels.astype(np.int64)), path)


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
        tensor = floats(path, "x", x, float_type(model))
    else:
        raise InputError(f"{path}: x has dtype {x.dtype}; expected floats, or uint8 grey levels; convert it")
    return Samples(tensor, None if y is None else classes(path, y, len(x)), path)
