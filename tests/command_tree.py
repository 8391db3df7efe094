"""The commands as the command line has them, for what holds of all of them and for the page that lists them."""

from __future__ import annotations

import shlex
from typing import Any

import typer.main

from simulator.__main__ import app

MAIN_JOB = ""
COMPLETION = ("--install-completion", "--show-completion")  # which typer gives the program as a whole


def _found(command: Any, path: tuple[str, ...] = ()) -> dict[str, Any]:
    below = getattr(command, "commands", {})
    runs = not below or command.invoke_without_command
    found = {" ".join(path): command} if runs else {}
    for name, one in below.items():
        found |= _found(one, (*path, name))
    return found


COMMANDS: dict[str, Any] = _found(typer.main.get_command(app))  # by name, such as "study two-pass", in order of --help


def options(name: str) -> dict[str, Any]:
    """Return the options of a command by their names, `--help` and what concerns the shell left out."""
    return {
        param.opts[0]: param
        for param in COMMANDS[name].params
        if param.opts[0].startswith("--") and param.opts[0] not in COMPLETION
    }


def arguments(name: str) -> list[Any]:
    """Return the arguments of a command in their order."""
    return [param for param in COMMANDS[name].params if not param.opts[0].startswith("--")]


def words(name: str, *more: Any) -> list[str]:
    """Return what is typed behind `ulpsim` for a command."""
    return [*shlex.split(name), *map(str, more)]
