"""`python -m simulator show`: a machine with every value in effect, and where each is from."""

from __future__ import annotations

import json as json_module
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from simulator.cost import expanded
from simulator.errors import InputError
from simulator.hardware import Machine, load_hardware
from simulator.hardware.document import Keys
from simulator.hardware.json_schema import json_schema
from simulator.report.figures import priced, printable
from simulator.result import Setting

from .records import print_record

# What needs no quotes in YAML, and words that some readers of it take for something else than text.
_PLAIN = re.compile(r"[A-Za-z_][\w./-]*|\.inf")
_NO_TEXT = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
_WIDEST = 44  # column of the comments, at most


def run(hw: str | None, schema: bool = False, json: bool = False) -> None:
    """Print the expanded configuration of a machine, as a machine file or as records; or the schema of machine files.

    Raises:
        InputError: no machine, or one that is wrong; arguments that do not go together.
    """
    if schema and (hw is not None or json):
        raise InputError(
            "show: --schema: got it beside others; expected it alone, as it is JSON, and of all machine files; leave "
            "the rest out"
        )
    if schema:
        print_record(json_schema())
        return
    if hw is None:
        raise InputError("show: got no machine; expected a YAML file or the name of a bundled machine; give e.g. npu")
    machine = load_hardware(hw)
    if json:
        print_record([asdict(setting) for setting in expanded(machine).values()])
    else:
        sys.stdout.write(as_yaml(machine))


def as_yaml(machine: Machine) -> str:
    """Return the expanded configuration of a machine from a file as a machine file, with origins and sources behind #.

    Loaded again it gives an equal machine: energies that are auto stay so, with their numbers in the comments.
    """
    found = expanded(machine)
    head = found[()]
    lines = [f"# {printable(text)}".rstrip() for text in (head.origin, *head.source.splitlines())]
    written = list(_lines(machine.configuration, found))
    column = min(_WIDEST, max(len(text) for text, _ in written))
    lines += [f"{text:{column}}  # {comment}" if comment else text for text, comment in written]
    return "\n".join(lines) + "\n"


def _lines(configuration: Mapping[Keys, Setting], found: Mapping[Keys, Setting]) -> Iterator[tuple[str, str]]:
    """Yield each line with its comment; what has no value, and what no file has, is a comment as a whole."""
    written = [keys for keys, setting in configuration.items() if setting.value not in (None, {})]
    filled = {keys[:depth] for keys in written for depth in range(len(keys))}
    opened: Keys = ()
    for keys, setting in found.items():
        if keys not in configuration:
            yield f"{_indent(keys[:-1])}# {keys[-1]}: {_scalar(setting.value)}", _comment(setting)
            continue
        is_section = setting.value == {}
        section = keys if is_section else keys[:-1]
        for depth in range(1, len(section) + 1):
            at = section[:depth]
            if at != opened[:depth]:
                nothing = "" if at in filled else " {}"
                yield f"{_indent(at)}{_scalar(at[-1])}:{nothing}", _comment(setting) if at == keys else ""
        opened = section
        if is_section:
            continue
        value = configuration[keys].value
        if value is None:
            yield f"{_indent(keys)}# {_scalar(keys[-1])}: {setting.source or 'none'}", printable(setting.origin)
            continue
        resolved = [] if setting.value == value else [priced(setting.value)]
        yield f"{_indent(keys)}{_scalar(keys[-1])}: {_scalar(value)}", "; ".join([*resolved, _comment(setting)])


def _indent(keys: Keys) -> str:
    return "  " * (len(keys) - 1)


def _comment(setting: Setting) -> str:
    return printable("; ".join(text for text in (setting.origin, setting.source) if text))


def _scalar(value: Any) -> str:
    """Return a value in YAML that every reader takes for the same."""
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _NO_TEXT:
        return value
    return json_module.dumps(value, ensure_ascii=False)  # whose texts, numbers, true and false are YAML too
