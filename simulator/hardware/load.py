"""From a machine file to the Machine: find it, read it, say what is wrong with it."""

from __future__ import annotations

import difflib
import os
from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from simulator.errors import InputError

from . import schema
from .build import Builder
from .configuration import Configuration
from .document import Document, read_document, too_deep
from .messages import explain
from .quantities import describe
from .records import Machine


class MachineSource(NamedTuple):
    """A machine file as it was read: its document, the directory it is in and its name without ending."""

    document: Document
    folder: Path
    stem: str


def load_hardware(path_or_name: str | os.PathLike[str]) -> Machine:
    """Read a machine file.

    Args:
        path_or_name: path of a YAML file, or the bare name of a bundled machine such as "npu".
    Returns:
        The machine as frozen records; the order of summation of its MACs is that of its array. Its configuration tells
        of each key where its value is from.
    Raises:
        InputError: no such file or name, or everything that is wrong in the file, one line a problem:
            `path:line:column: dotted.key: what was found; expected; what to do`.
    """
    return machine_of(read_machine(path_or_name))


def read_machine(path_or_name: str | os.PathLike[str]) -> MachineSource:
    """Find a machine file and read it as plain data; arguments and errors as of load_hardware."""
    shown = os.fspath(path_or_name) if isinstance(path_or_name, os.PathLike) else path_or_name
    if not isinstance(shown, str) or not shown.strip():
        raise InputError(f"hardware: got {describe(shown)}; expected a path or a name; give e.g. npu")
    if Path(shown).name == shown and not Path(shown).suffix and not Path(shown).is_file():
        return _read_bundled(shown)
    path = Path(shown)
    if path.stem in bundled_names() and not os.path.lexists(shown):
        raise InputError(
            f"{shown}: no such file; expected a YAML file; write {path.stem} for the bundled machine of that name"
        )
    return MachineSource(read_document(path, shown), path.parent, path.stem)


def bundled_names() -> list[str]:
    """Return the names of the machines that ship with the simulator."""
    return sorted(f.name.removesuffix(".yaml") for f in files("hwconfigs").iterdir() if f.name.endswith(".yaml"))


def _read_bundled(name: str) -> MachineSource:
    known = bundled_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f'did you mean "{near[0]}"?' if near else "name one of them, or give the path of a YAML file"
        raise InputError(
            f"hardware: got {name!r}, no file and no bundled machine; expected one of {', '.join(known)}; {hint}"
        )
    with as_file(files("hwconfigs") / f"{name}.yaml") as path:
        return MachineSource(read_document(path, f"hwconfigs/{name}.yaml"), path.parent, name)


def machine_of(source: MachineSource) -> Machine:
    """Return the machine that a file describes; InputError says everything that is wrong in it."""
    document = source.document
    try:
        form = schema.MachineFile.model_validate(document.data)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            explain(document, problem)
        document.check()
        raise
    except RecursionError:
        raise too_deep(document.path) from None
    machine = Builder(document, form, source.folder).machine(source.stem)
    document.check()
    return machine.described(Configuration(document, form, machine))
