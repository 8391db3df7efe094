"""What a network and its samples are known by: digests of all that decides on what they compute."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .samples import Samples


def network_digest(model: nn.Module) -> str:
    """Return a digest of a network: names, types and values of its state, its layers' settings, and their source."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        _add(digest, name, value)
    for source in _sources(type(module) for module in model.modules()):
        digest.update(source.encode())
    digest.update(repr(model).encode())  # settings of layers, which have no state
    return digest.hexdigest()


def samples_digest(samples: Samples) -> str:
    """Return a digest of inputs and labels."""
    digest = hashlib.sha256()
    inputs = {"x": samples.x} if isinstance(samples.x, Tensor) else samples.x
    for name, value in sorted({**inputs, **({} if samples.y is None else {"y": samples.y})}.items()):
        _add(digest, name, value)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, name: str, value: Tensor) -> None:
    array = value.detach().cpu().contiguous()
    digest.update(f"{name} {array.dtype} {tuple(array.shape)}\n".encode())
    digest.update(array.flatten().view(dtype=torch.uint8).numpy().tobytes())


def _sources(classes: Iterable[type]) -> list[str]:
    """Return the source texts of the files of these classes, but for those of torch, whose version is no numerics."""
    found = {}
    for one in classes:
        if one.__module__.partition(".")[0] == "torch":
            continue
        try:
            found[one.__module__] = inspect.getsource(inspect.getmodule(one) or one)
        except (OSError, TypeError):
            found[one.__module__] = one.__qualname__
    return [found[name] for name in sorted(found)]
