"""What a network and its samples are known by: digests of all that decides on what they compute."""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from simulator.errors import InputError

from .samples import Samples


def network_digest(model: nn.Module, name: str) -> str:
    """Return a digest of a network: parameters, buffers, what its modules hold besides, hooks, and their source.

    Args:
        model: as load_model gives it. name: that it goes by there; of module:attribute the module's source counts too.
    Raises:
        InputError: a source that is no longer what was imported.
    """
    digest = hashlib.sha256()
    for key, value in sorted({**dict(model.named_parameters()), **dict(model.named_buffers())}.items()):
        _add(digest, key, value)
    for path, module in model.named_modules():
        digest.update(f"{path} {type(module).__qualname__}\n".encode())
        for key, value in sorted(vars(module).items()):
            if key not in _OF_TORCH:
                digest.update(f"{key} ".encode())
                _add_value(digest, list(value.values()) if key in _HOOKS else value, set())
    modules = {type(module).__module__ for module in model.modules()} | {name.partition(":")[0]}
    for source in _sources(modules):
        digest.update(source.encode())
    digest.update(_ADDRESS.sub("", repr(model)).encode())  # settings of layers, which have no state
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


_HOOKS = {"_forward_hooks", "_forward_pre_hooks"}
# What every module has: parameters, buffers and modules are looked at by themselves, the rest decides on no output.
_OF_TORCH = vars(nn.Module()).keys() - _HOOKS - {"training"}
_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")


def _add_value(digest: hashlib._Hash, value: object, above: set[int]) -> None:
    """Add what a module holds: numbers and arrays by their content, functions by their code, objects by their parts."""
    digest.update(f"{type(value).__qualname__} ".encode())
    if isinstance(value, nn.Module) or id(value) in above:
        return
    above = {*above, id(value)}
    if isinstance(value, Tensor):
        _add(digest, "", value)
    elif isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        digest.update(f"{array.dtype} {array.shape} ".encode())
        digest.update(repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes())
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | torch.device):
        digest.update(f"{value!r}\n".encode())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            digest.update(f"{_ADDRESS.sub('', repr(key))} ".encode())
            _add_value(digest, value[key], above)
    elif isinstance(value, set | frozenset):
        digest.update(f"{sorted(map(repr, value))}\n".encode())
    elif isinstance(value, tuple | list):
        for item in value:
            _add_value(digest, item, above)
    elif isinstance(value, FunctionType):
        _add_code(digest, value.__code__)
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        _add_value(digest, [value.__defaults__, value.__kwdefaults__, cells], above)
    elif isinstance(value, MethodType):
        _add_value(digest, [value.__func__, value.__self__], above)
    elif isinstance(value, partial):
        _add_value(digest, [value.func, value.args, value.keywords], above)
    elif isinstance(value, type) or callable(value):
        digest.update(f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}\n".encode())
        _add_value(digest, {} if isinstance(value, type) else dict(getattr(value, "__dict__", {})), above)
    else:
        _add_value(digest, dict(getattr(value, "__dict__", {})), above)


def _add_code(digest: hashlib._Hash, code: CodeType) -> None:
    digest.update(code.co_code + repr(code.co_names).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _add_code(digest, constant)
        else:
            digest.update(repr(constant).encode())


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
