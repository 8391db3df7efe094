"""What a network and its samples are known by: digests of all that decides on what they compute."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from simulator.errors import InputError

from .samples import Samples


def network_digest(model: nn.Module, name: str) -> str:
    """Return a digest of a network: parameters, buffers, its modules' settings and plain attributes, their source.

    Args:
        model: as load_model gives it. name: that it goes by there; of module:attribute the module's source counts too.
    Raises:
        InputError: a source that is no longer what was imported.
    """
    digest = hashlib.sha256()
    for key, value in sorted({**dict(model.named_parameters()), **dict(model.named_buffers())}.items()):
        _add(digest, key, value)
    for path, module in model.named_modules():
        plain = {key: value for key, value in vars(module).items() if _is_plain(value)}
        digest.update(f"{path} {sorted(plain.items())}\n".encode())
    modules = {type(module).__module__ for module in model.modules()} | {name.partition(":")[0]}
    for source in _sources(modules):
        digest.update(source.encode())
    digest.update(repr(model).encode())  # settings of layers, which have no state
    return digest.hexdigest()


def weights_digest(model: nn.Module) -> str:
    """Return a digest of the parameters of a network alone, whatever its code."""
    digest = hashlib.sha256()
    for key, value in sorted(model.named_parameters()):
        _add(digest, key, value)
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


def _sources(names: Iterable[str]) -> Iterator[str]:
    """Yield the source texts of modules, but for those of torch, whose version is no numerics."""
    for name in sorted(names):
        module = sys.modules.get(name)
        if module is None or name.partition(".")[0] == "torch":
            continue
        try:
            source = inspect.getsource(module)
        except (OSError, TypeError):  # made without a file
            yield name
            continue
        _check_imported(module, source)
        yield source


# By name the spec of a module, which a reload renews, and the source that was seen with it.
_seen: dict[str, tuple[Any, str]] = {}


def _check_imported(module: ModuleType, source: str) -> None:
    """Refuse a file that was edited after this process imported it, which computes with what it was then.

    What was seen before is compared whole; of what is seen for the first time the functions are, as they were compiled.
    """
    file = module.__file__ or ""
    spec, before = _seen.get(module.__name__, (None, ""))
    if spec is not module.__spec__:
        _check_functions(module, source, file)
        _seen[module.__name__] = module.__spec__, source
    elif source != before:
        raise _changed(file)


def _check_functions(module: ModuleType, source: str, file: str) -> None:
    try:
        there = set(_codes(compile(source, file, "exec", dont_inherit=True)))
    except SyntaxError:
        there = set()
    own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
    classes = [value for value in own if isinstance(value, type)]
    functions = [value for holder in (module, *classes) for value in vars(holder).values()]
    for function in functions:
        code = function.__code__ if isinstance(function, FunctionType) else None
        if code is not None and code.co_filename == file and code not in there:
            raise _changed(file)


def _changed(file: str) -> InputError:
    return InputError(
        f"{file}: has changed since this process imported it; expected the file as it was; start the process anew, be "
        "it a notebook or a worker of a cluster"
    )


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
