"""What is typed and is no command, option or value of one: said in the form of all other refusals."""

from __future__ import annotations

import re
from typing import Any

import typer

from simulator.errors import unknown

# What typer raises for what is typed wrong; it exports no name of it but that of a kind.
UsageError: Any = typer.BadParameter.__mro__[1]

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")
_NO_COMMAND = re.compile(r"No such command '(?P<name>.*?)'\..*", re.DOTALL)
_GOT = "<got>"  # where a message of typer lacks the value
# Other messages of typer, and what was found and expected in them.
_FORMS = (
    (re.compile(r"Option '(.+)' requires (an argument|\d+ arguments)\."), r"\1: got too few values; expected \2"),
    (re.compile(r"Option '(.+)' does not take a value\."), r"\1: got a value; expected none"),
    (re.compile(r"Got unexpected extra argument(?:s|\(s\))? \((.*)\)"), r"got \1 besides; expected nothing more"),
    (re.compile(r"Invalid value for '(.+?)': (?:Value error, )?(.+) is not (.+?)\.?"), r"\1: got \2; expected \3"),
    (
        re.compile(r"Invalid value for '(.+?)': Input should be ((?:less|greater) .+)"),
        rf"\1: {_GOT}expected a number \2",
    ),
    (re.compile(r"Invalid value for '(.+?)': Input should be (.+?)(?:, unable .*)?\.?"), rf"\1: {_GOT}expected \2"),
)


def is_help(error: Any) -> bool:
    """Whether it is no error, but a call of a group without a command, which is answered with its help."""
    return type(error).__name__ == "NoArgsIsHelpError"


def refusal(error: Any) -> str:
    """Return what was found, what was expected and what to do, behind the command that it is about."""
    context = error.ctx
    if context is None:
        return _other(error, "the help of the command")
    _, *words = context.command_path.split()
    where = f"{' '.join(words)}: " if words else ""
    shown = f"`{context.command_path} --help`"
    if (option := getattr(error, "option_name", None)) and type(error).__name__ == "NoSuchOption":
        known = [name for parameter in context.command.get_params(context) for name in parameter.opts if name[0] == "-"]
        return f"{where}{option}: unknown option; {unknown(option, known)}"
    if type(error).__name__ == "MissingParameter" and error.param is not None:
        parameter = error.param
        name = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.metavar or parameter.name
        return f"{where}{name}: missing; expected {_within(getattr(parameter, 'help', None))}; see {shown}"
    if found := _NO_COMMAND.fullmatch(error.format_message()):
        meant = unknown(found["name"], context.command.commands, "give one")
        return f"{where}{found['name']}: unknown command; {meant}"
    return f"{where}{_other(error, shown)}"


def _within(text: str | None) -> str:
    """Return the help of an argument as a part of a sentence."""
    if not text:
        return "a value"
    sentence = text.rstrip(".")
    return sentence if sentence[1:2].isupper() else f"{sentence[0].lower()}{sentence[1:]}"


def _other(error: Any, shown: str) -> str:
    message = error.format_message()
    for form, said in _FORMS:
        if found := form.fullmatch(message):
            return f"{found.expand(said).replace(_GOT, _got(error))}; see {shown}"
    return f"{message[:1].lower()}{message[1:].rstrip('.')}; expected what {shown} lists; see it"


def _got(error: Any) -> str:
    """Return the value that a check of pydantic refused, which typer's message leaves out; numbers without quotes."""
    reasons = getattr(error.__cause__, "errors", None)
    if reasons is None:
        return ""
    text = str(reasons()[0]["input"])
    return f"got {text if _NUMBER.fullmatch(text) else repr(text)}; "
