"""What a library refuses by the name of an argument, a command refuses by that of its option."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from simulator.errors import InputError

# Where a message says what is wrong: the arguments, as in "workers: "; before them may stand the call that it is about.
_ARGUMENTS = re.compile(r"([a-z_]+(?:, [a-z_]+)*): ")
_CALL = re.compile(r"[a-z]+: ")


@contextmanager
def by_option(context: typer.Context) -> Iterator[None]:
    """Let messages about arguments that are options of the command name these, and the command."""
    try:
        yield
    except InputError as error:
        options = {parameter.name: parameter.opts[0] for parameter in context.command.params}
        call = _CALL.match(str(error))
        tried = (_ARGUMENTS.match(str(error), start) for start in (0, *([call.end()] if call else [])))
        found = next((one for one in tried if one and options.keys() >= set(one[1].split(", "))), None)
        # A path that is an argument may be called as an option is.
        arguments = [
            context.params.get(str(one.name)) for one in context.command.params if one.param_type_name == "argument"
        ]
        paths = [path for one in arguments for path in (one if isinstance(one, list | tuple) else [one])]
        if found is None or found[1] in paths:
            raise
        command = context.command_path.split()[1]
        said = ", ".join(options[name] for name in found[1].split(", "))
        raise InputError(f"{command}: {said}: {str(error)[found.end() :]}") from None
