"""What the main job runs: a network by name and samples from a file or the bundled ones."""

from __future__ import annotations

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
            normalised as the bundled networks were trained; floats are taken as given, in float32.
        count: how many, from the first; None for all.
    Raises:
        InputError: a file that is missing, of the wrong kind or with contents that do not fit; a bad count.
    """
    x, y = bundled.digits() if path is None else _read(path)
    source = "bundled digits" if path is None else path
    if count is not None and not 1 <= count <= len(x):
        raise InputError(
            f"--samples: got {count}; expected 1 to {len(x)}, the samples of {source}; give such a number, or "
            "leave it out for all"
        )
    samples = Samples(x[:count], None if y is None else y[:count], source)
    _check_fit(samples, model)
    return samples


def _read(path: str) -> tuple[Tensor, Tensor | None]:
    if not Path(path).is_file():
        what = "a directory" if Path(path).is_dir() else "no such file"
        raise InputError(f"{path}: {what}; expected an .npz file with x and y; check the path")
    # Broken bytes make numpy, zipfile and zlib raise a dozen types of exceptions; all mean the same to the user.
    # All but archives and single arrays numpy takes for a pickle, and says how to load it unsafely.
    try:
        with open(path, "rb") as file:
            known = file.read(2) in (b"PK", b"\x93N")
        data: Any = np.load(path, allow_pickle=False) if known else None
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read ({_first_line(error)}); expected an .npz file as numpy.savez(path, x=..., y=...) "
            "writes it; write the file anew"
        ) from None
    if not known:
        raise InputError(
            f"{path}: cannot be read as .npz; expected a file as numpy.savez(path, x=..., y=...) writes it; write the "
            "file anew"
        )
    if not isinstance(data, np.lib.npyio.NpzFile):
        raise InputError(
            f"{path}: a single array; expected an .npz file with x and y; write it with numpy.savez(path, x=..., y=...)"
        )
    with data:
        if "x" not in data:
            raise InputError(
                f"{path}: holds {', '.join(data) or 'nothing'}; expected x (and y, if there are labels); rename the "
                "arrays"
            )
        try:
            x, y = np.asarray(data["x"]), data.get("y")
        except Exception as error:
            raise InputError(
                f"{path}: x or y cannot be read ({_first_line(error)}); expected plain numeric arrays; write the "
                "file anew"
            ) from None
    return _inputs(path, x), None if y is None else _labels(path, np.asarray(y), len(x))


def _inputs(path: str, x: NDArray[Any]) -> Tensor:
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
        return bundled.normalise(np.ascontiguousarray(images))
    if x.dtype.kind != "f":
        raise InputError(f"{path}: x has dtype {x.dtype}; expected floats, or uint8 grey levels; convert it")
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(x, np.float32)
    if not np.isfinite(single).all():
        raise InputError(
            f"{path}: x holds NaN, infinities or numbers beyond float32; expected finite ones; clean the data"
        )
    return torch.from_numpy(single)


def _labels(path: str, y: NDArray[Any], samples: int) -> Tensor:
    if y.dtype.kind not in "iu" or y.shape != (samples,):
        raise InputError(
            f"{path}: y is {y.dtype} of shape {y.shape}; expected integer classes of shape ({samples},), one for each "
            "sample of x; correct the labels, or leave y out"
        )
    for value in (int(y.min()), int(y.max())):
        if not 0 <= value <= np.iinfo(np.int64).max:
            raise InputError(f"{path}: y holds {value}; expected classes from 0; relabel the data")
    return torch.from_numpy(y.astype(np.int64))


def _check_fit(samples: Samples, model: nn.Module) -> None:
    name = type(model).__name__
    try:
        with torch.no_grad():
            logits = model(samples.x[:1])
    except RuntimeError as error:
        raise InputError(
            f"{samples.source}: x of shape {tuple(samples.x.shape)} does not fit the network {name} "
            f"({_first_line(error)}); expected grey levels (N, 28, 28) in uint8 or normalised floats (N, 1, 28, 28); "
            "reshape the data"
        ) from None
    if samples.y is not None and int(samples.y.max()) >= logits.shape[1]:
        raise InputError(
            f"{samples.source}: y holds class {int(samples.y.max())}, and {name} has {logits.shape[1]} outputs; "
            f"expected classes 0 to {logits.shape[1] - 1}; use the labels that the network was trained on"
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
