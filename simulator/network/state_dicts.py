"""Weights from files that nobody has to trust: tensors and only tensors, put into a model if they are its own."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from simulator.errors import InputError, MissingLibraryError, first_line

from .files import check_file
from .input_types import type_name

# What archives contain that torch itself writes, but not by torch.save of tensors or modules.
_OTHER_ARCHIVES = {
    "constants.pkl": "a TorchScript archive; its compiled operations are hidden from the tap",
    "archive_format": "an archive of torch.export; it holds a graph, not a state dict",
}
_NAMES_SHOWN = 4

# Type -> wider ones that hold all of its values, so that these need not be looked at.
_HOLDS = {
    torch.float32: (torch.float64,),
    torch.float16: (torch.float32, torch.float64),
    torch.bfloat16: (torch.float32, torch.float64),
}


class NeedsCodeError(Exception):
    """A file holds more than tensors: loading it would call the functions and classes named in the exception."""


def load_weights(model: nn.Module, path: str) -> None:
    """Put the weights of a file into a model; parameters without memory (device meta) share the file's.

    Args:
        model: whose state dict has the same names and shapes. path: what read_state_dict takes.
    Raises:
        InputError: the file cannot be read, or holds other weights than the model's.
    """
    state = read_state_dict(path)
    own = model.state_dict(keep_vars=True)
    on_meta = any(isinstance(value, Tensor) and value.is_meta for value in own.values())
    for name, value in state.items():
        _check_type(path, name, value, own.get(name))
        if on_meta and name in own:  # elsewhere copying converts, one tensor at a time
            state[name] = value.to(own[name].dtype)
    network = type(model).__name__
    try:
        missing, unexpected = model.load_state_dict(state, strict=False, assign=on_meta)
    except Exception as error:  # a RuntimeError for shapes; whatever hooks of the model raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        found = lines[1] if len(lines) > 1 else first_line(error)
        raise InputError(
            f"{path}: does not fit the network {network} ({found.rstrip('.')}); expected tensors of the network's "
            "shapes; give the weights of this very network"
        ) from None
    if missing or unexpected:
        raise InputError(
            f"{path}: holds other weights than the network {network}: {_difference(missing, unexpected)}; expected "
            f"the {len(own)} of its state dict; {_naming_remedy(missing, unexpected)}"
        )


def read_state_dict(path: str) -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the CPU; nothing in the file is ever run.

    Args:
        path: `.safetensors`, or else as torch.save writes a state dict.
    Raises:
        InputError: the file is missing, damaged, or holds anything but a state dict.
    """
    if Path(path).suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        found = read_torch_file(path)
    except NeedsCodeError as error:
        raise InputError(
            f"{path}: holds more than tensors, and loading it would run {error} (nothing was run); expected a state "
            "dict; write it with torch.save(model.state_dict(), path)"
        ) from None
    if not is_state_dict(found):
        raise InputError(f"{path}: holds {described(found)}; expected a state dict; {_state_dict_remedy(found)}")
    return dict(found)


def is_state_dict(found: Any) -> bool:
    """Whether a file's content is names with tensors, and at least one."""
    if not isinstance(found, Mapping) or not found:
        return False
    return all(isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items())


def described(found: Any) -> str:
    """Say what a file holds."""
    if isinstance(found, Mapping):
        return f"a dict of {_shown(str(key) for key in found)}" if found else "an empty dict"
    return f"a {type(found).__name__}"


def read_torch_file(path: str, allow_code: bool = False) -> Any:
    """Return what torch.save wrote, with tensors on the CPU and mapped from the file where its form allows it.

    Args:
        path: of the file. allow_code: whether the file may run code of its own; without it, nothing in it is run.
    Raises:
        InputError: the file is missing, damaged, or of another kind.
        NeedsCodeError: it holds more than tensors, and code is not allowed.
    """
    check_file(path, "a file that torch.save wrote")
    with open(path, "rb") as file:
        archive = file.read(4) == b"PK\x03\x04"  # as torch tells its forms apart
    stored = _check_archive(path) if archive else 0
    # A damaged file raises whatever torch, pickle and zip readers come to; and so does code from within the file.
    try:
        with warnings.catch_warnings(action="ignore"):  # of old forms, which only the file's author can change
            found = torch.load(path, map_location="cpu", weights_only=not allow_code, mmap=archive)
    except Exception as error:
        named = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if named and not allow_code:
            raise NeedsCodeError(named[1]) from None
        # What torch refuses to unpickle it explains to users of weights_only; noise fails as a look-up in its tables.
        refused = isinstance(error, pickle.UnpicklingError | LookupError) and not allow_code
        reason = "" if refused else f" ({type(error).__name__}: {first_line(error)})"
        remedy = (
            "make the modules it names importable here, or " if isinstance(error, ImportError | AttributeError) else ""
        )
        raise InputError(
            f"{path}: cannot be read{reason}; expected a whole file that torch.save wrote; {remedy}write or copy it "
            "anew"
        ) from None
    if archive and _bytes(found) > stored:
        raise InputError(
            f"{path}: an archive that is damaged (tensors of {_bytes(found):,} bytes, of which it holds {stored:,}); "
            "expected a whole file that torch.save wrote; write or copy it anew"
        )
    return found


def _bytes(found: Any) -> int:
    """How much memory the tensors in the content of a file have; what several share counts once."""
    tensors = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor) and leaf.layout is torch.strided]
    storages = [tensor.untyped_storage() for tensor in tensors if not tensor.is_meta]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _check_archive(path: str) -> int:
    """Refuse archives that torch.save did not write, and return how many bytes its tensors have in all.

    Mapped into memory, compressed ones would be read as noise, and so would what follows a tensor that is too short.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:
        raise InputError(
            f"{path}: an archive that is truncated or damaged ({first_line(error)}); expected a whole file that "
            "torch.save wrote; write or copy it anew"
        ) from None
    names = [member.filename.split("/")[-1] for member in members]
    for name, kind in _OTHER_ARCHIVES.items():
        if name in names:
            raise InputError(
                f"{path}: {kind}; expected what torch.save wrote; save the weights with torch.save(model.state_dict(), "
                "path), and give --model module:attribute --weights FILE"
            )
    if "data.pkl" not in names or any(member.compress_type != zipfile.ZIP_STORED for member in members):
        shown = _shown(member.filename for member in members) or "nothing"
        raise InputError(
            f"{path}: an archive of another kind, or a compressed one (of {shown}); expected a file as torch.save "
            "writes it; write it anew"
        )
    return sum(member.file_size for member in members if "/data/" in member.filename)


def _read_safetensors(path: str) -> dict[str, Tensor]:
    check_file(path, "a .safetensors file")
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise MissingLibraryError(
            f"{path}: needs the library safetensors; install it with: pip install 'ulpsim[torch]'"
        ) from None
    try:
        return load_file(path, device="cpu")
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read ({first_line(error)}); expected a whole .safetensors file; write or copy it anew"
        ) from None


def _check_type(path: str, name: str, value: Tensor, own: Any) -> None:
    """Refuse a tensor that the type of the model's own does not hold as it is."""
    if value.layout is not torch.strided:
        raise InputError(f"{path}: {name} is sparse; expected a dense tensor; save value.to_dense()")
    if value.is_quantized:
        raise InputError(f"{path}: {name} is quantised; expected plain numbers; save value.dequantize()")
    if value.is_meta:
        raise InputError(f"{path}: {name} has no values (device meta); expected numbers; save a model that has some")
    if not isinstance(own, Tensor) or value.dtype == own.dtype:
        return
    both_floats = value.is_floating_point() and own.is_floating_point()
    if both_floats and (own.dtype in _HOLDS.get(value.dtype, ()) or _equal(value.to(own.dtype), value)):
        return
    wanted = type_name(own.dtype)
    raise InputError(
        f"{path}: {name} is {type_name(value.dtype)} and the network's is {wanted}; expected that type, or values of "
        f"another that it holds exactly; convert the tensor yourself, as in value.to(torch.{wanted}), and save that"
    )


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether tensors of two float types hold the same numbers; NaN, which is found later, counts as one."""
    wide = torch.float64 if torch.float64 in (a.dtype, b.dtype) else torch.float32
    return torch.equal(a.to(wide).nan_to_num(), b.to(wide).nan_to_num())


def _difference(missing: Iterable[str], unexpected: Iterable[str]) -> str:
    parts = [("lacks", _shown(missing)), ("has besides", _shown(unexpected))]
    return " and ".join(f"{verb} {names}" for verb, names in parts if names)


def _naming_remedy(missing: list[str], unexpected: list[str]) -> str:
    """Say what to do; a wrapper around the network that was saved shows in the names."""
    prefix = unexpected[0].split(".")[0] + "." if unexpected else ""
    if missing and {f"{prefix}{name}" for name in missing} <= set(unexpected):
        return f"names begin with {prefix!r}, as of a wrapper: save the state dict of the network inside it"
    return "give the weights of this very network"


def _shown(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMES_SHOWN} more" if len(listed) > _NAMES_SHOWN else ""
    return ", ".join(listed[:_NAMES_SHOWN]) + more


def _state_dict_remedy(found: Any) -> str:
    """Say how to write a state dict; in a checkpoint, it is one of the entries."""
    if isinstance(found, Mapping):
        for key, value in found.items():
            if is_state_dict(value):
                return f"write the one inside with torch.save(torch.load(path)[{key!r}], new_path)"
    return "write it with torch.save(model.state_dict(), path)"
