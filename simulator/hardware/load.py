"""From a machine file to the Machine: find it, read it, say what is wrong with it."""

from __future__ import annotations

import difflib
import os
from importlib.resources import as_file, files
from pathlib import Path

from pydantic import ValidationError

from simulator.errors import InputError

from . import schema
from .build import Builder
from .configuration import configuration
from .document import read_document, too_deep
from .messages import explain
from .quantities import describe
from .records import Machine


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
    shown = os.fspath(path_or_name) if isinstance(path_or_name, os.PathLike) else path_or_name
    if not isinstance(shown, str) or not shown.strip():
        raise InputError(f"hardware: got {describe(shown)}; expected a path or a name; give e.g. npu")
    if Path(shown).name == shown and not Path(shown).suffix and not Path(shown).is_file():
        return _load_bundled(shown)
    path = Path(shown)
    if path.stem in bundled_names() and not os.path.lexists(shown):
        raise InputError(
            f"{shown}: no such file; expected a YAML file; write {path.stem} for the bundled machine of that name"
        )
    return _load(path, shown)


def bundled_names() -> list[str]:
    """Return the names of the machines that ship with the simulator."""
    return sorted(f.name.removesuffix(".yaml") for f in files("hwconfigs").iterdir() if f.name.endswith(".yaml"))


def _load_bundled(name: str) -> Machine:
    known = bundled_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f'did you mean "{near[0]}"?' if near else "name one of them, or give the path of a YAML file"
        raise InputError(
            f"hardware: got {name!r}, no file and no bundled machine; expected one of {', '.join(known)}; {hint}"
        )
    with as_file(files("hwconfigs") / f"{name}.yaml") as path:
        return _load(path, f"hwconfigs/{name}.yaml")


def _load(path: Path, shown: str) -> Machine:
    document = read_document(path, shown)
    try:
        form = schema.MachineFile.model_validate(document.data)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            explain(document, problem)
        document.check()
        raise
    except RecursionError:
        raise too_deep(shown) from None
    machine = Builder(document, form, path.parent).machine(path.stem)
    document.check()
    return machine.described(configuration(document, form, machine))
