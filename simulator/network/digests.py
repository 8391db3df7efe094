"""What a network and its samples are known by: digests of all that decides on what they compute."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .samples import Samples


def network_digest(model: nn.Module) -> str:
    """Return a digest of a network: parameters, buffers, its modules' settings and plain attributes, their source."""
    digest = hashlib.sha256()
    for name, value in sorted({**dict(model.named_parameters()), **dict(model.named_buffers())}.items()):
        _add(digest, name, value)
    for path, module in model.named_modules():
        plain = {name: value for name, value in vars(module).items() if _is_plain(value)}
        digest.update(f"{path} {sorted(plain.items())}\n".encode())
    for source in _sources(type(module) for module in model.modules()):
        digest.update(source.encode())
    digest.update(repr(model).encode())  # settings of layers, which have no state
    return digest.hexdigest()


def samples_digest(samples: Samples) -> str:
    """Return a digest of inputs and labels."""
    digest = hashlib.sha256()
    inputs = {"x": samples.x} if isinstance(samples.x, Tensor) else samples.x
    for name, value in sorted(inputs.items()):
        _add(digest, f"input {name}", value)
    if samples.y is not None:
        _add(digest, "labels", samples.y)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, name: str, value: Tensor) -> None:
    array = value.detach().cpu().contiguous()
    digest.update(f"{name} {array.dtype} {tuple(array.shape)}\n".encode())
    digest.update(array.flatten().view(dtype=torch.uint8).numpy().tobytes())


def _is_plain(value: object) -> bool:
    """Whether the text of a value says all of it."""
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | complex | str | torch.dtype)


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
