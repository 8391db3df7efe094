"""What the main job runs: a network by name and samples from a file or the bundled ones."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simulator.errors import InputError

from . import bundled


class Samples(NamedTuple):
    """Inputs and labels.

    Args:
        x: (N, ...) inputs. y: (N,) int64 classes, or None. source: where they come from.
    """

    x: Tensor
    y: Tensor | None
    source: str


def load_model(name: str) -> nn.Module:
    """Return the network of a name, in eval mode; InputError if there is none."""
    if name not in bundled.NAMES:
        raise InputError(f"--model: got {name!r}; expected one of {', '.join(bundled.NAMES)}; choose one")
    return bundled.load(name)


def load_samples(path: str | None, count: int | None, model: nn.Module) -> Samples:
    """Return samples that fit a model.

    Args:
        path: `.npz` file with `x` and, if there are labels, `y`; None for the bundled digits. Grey levels (uint8) are
            normalised as the bundled networks were trained; floats are taken as given.
        count: how many, from the first; None for all.
    Raises:
        InputError: a file that is missing, of the wrong kind or with contents that do not fit; a bad count.
    """
    x, y = bundled.digits() if path is None else _read(path)
    source = "bundled digits" if path is None else path
    if count is not None and not 1 <= count <= len(x):
        raise InputError(f"--samples: got {count}; expected 1 to {len(x)}, the samples of {source}; give fewer or leave it out")
    samples = Samples(x[:count], None if y is None else y[:count], source)
    _check_fit(samples, model)
    return samples


def _read(path: str) -> tuple[Tensor, Tensor | None]:
    if not Path(path).is_file():
        what = "a directory" if Path(path).is_dir() else "no such file"
        raise InputError(f"{path}: {what}; expected an .npz file with x and y; check the path")
    try:
        data: Any = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as .npz ({error}); expected what numpy.savez(path, x=..., y=...) writes") from None
    if not isinstance(data, np.lib.npyio.NpzFile):
        raise InputError(f"{path}: holds a single array; expected an .npz file with x and y, as numpy.savez writes it")
    with data:
        if "x" not in data:
            raise InputError(f"{path}: holds {', '.join(data) or 'nothing'}; expected x (and y, if there are labels); rename the arrays")
        try:
            x, y = data["x"], data["y"] if "y" in data else None
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: x or y cannot be read ({error}); expected plain numeric arrays; write the file anew") from None
    return _inputs(path, x), None if y is None else _labels(path, y, len(x) if x.ndim else 0)


def _inputs(path: str, x: NDArray[Any]) -> Tensor:
    if x.ndim < 2 or len(x) == 0:
        raise InputError(f"{path}: x has shape {x.shape}; expected (N, ...) with at least one sample")
    if x.dtype == np.uint8:
        images = x[:, 0] if x.ndim == 4 and x.shape[1] == 1 else x
        if images.ndim != 3:
            raise InputError(f"{path}: x of uint8 has shape {x.shape}; expected grey images (N, height, width); give floats otherwise")
        return bundled.normalise(np.ascontiguousarray(images))
    if x.dtype.kind != "f":
        raise InputError(f"{path}: x has dtype {x.dtype}; expected floats, or uint8 grey levels; convert it")
    if not np.isfinite(x).all():
        raise InputError(f"{path}: x holds NaN or infinities; expected finite numbers; clean the data")
    return torch.from_numpy(np.ascontiguousarray(x, np.float32))


def _labels(path: str, y: NDArray[Any], samples: int) -> Tensor:
    if y.dtype.kind not in "iu" or y.shape != (samples,):
        raise InputError(f"{path}: y is {y.dtype} of shape {y.shape}; expected integer classes of shape ({samples},), one for each x")
    if y.size and int(y.min()) < 0:
        raise InputError(f"{path}: y holds {y.min()}; expected classes from 0; relabel the data")
    return torch.from_numpy(y.astype(np.int64))


def _check_fit(samples: Samples, model: nn.Module) -> None:
    try:
        with torch.no_grad():
            logits = model(samples.x[:1])
    except RuntimeError as error:
        found = tuple(samples.x.shape)
        raise InputError(
            f"{samples.source}: x of shape {found} does not fit the network {type(model).__name__} "
            f"({str(error).splitlines()[0]}); expected the input shape of the network, for the bundled ones (N, 28, 28) grey levels "
            "or (N, 1, 28, 28) floats"
        ) from None
    if samples.y is not None and logits.dim() == 2 and int(samples.y.max()) >= logits.shape[1]:
        raise InputError(
            f"{samples.source}: y holds class {int(samples.y.max())}, and {type(model).__name__} has {logits.shape[1]} outputs; "
            f"expected classes 0 to {logits.shape[1] - 1}; use the labels that the network was trained on"
        )
