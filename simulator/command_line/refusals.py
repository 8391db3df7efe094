"""What a library refuses by the name of an argument, a command refuses by that of its option."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from simulator.errors import InputError

# Where a message says what is wrong: the call, if it names one, and the arguments, as in "sweep: workers: ".
_ARGUMENTS = re.compile(r"(?:[a-z]+: )?([a-z_]+(?:, [a-z_]+)*): ")


@contextmanager
def by_option(context: typer.Context) -> Iterator[None]:
    """Let messages about arguments that are options of the command name these, and the command."""
    try:
        yield
    except InputError as error:
        options = {parameter.name: parameter.opts[0] for parameter in context.command.params}
        found = _ARGUMENTS.match(str(error))
        names = found[1].split(", ") if found else []
        if found is None or not options.keys() >= set(names):
            raise
        command = context.command_path.split()[1]
        said = ", ".join(options[name] for name in names)
        raise InputError(f"{command}: {said}: {str(error)[found.end() :]}") from None
