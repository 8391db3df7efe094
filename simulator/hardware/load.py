"""From a machine file to the Machine: find it, read it, say what is wrong with it."""

from __future__ import annotations

import os

from pydantic import ValidationError

from . import schema
from .build import Builder
from .configuration import Configuration
from .document import too_deep
from .find import Found, Shelf
from .messages import explain
from .records import Machine

MACHINES = Shelf("hardware", "machine", "npu")


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


def read_machine(path_or_name: str | os.PathLike[str]) -> Found:
    """Find a machine file and read it as plain data; arguments and errors as of load_hardware."""
    return MACHINES.read(path_or_name, bundled_names())


def bundled_names() -> list[str]:
    """Return the names of the machines that ship with the simulator."""
    return MACHINES.names


def machine_of(source: Found) -> Machine:
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
