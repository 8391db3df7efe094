"""A YAML file as plain data, with the place of every key and value, and the comment behind it; strict where PyYAML is
not.

Only the part of YAML 1.2 that a configuration needs is read: mappings, lists, true, false, decimal integers, decimal
numbers and text. `off`, `012`, `0x10` and `1:30` are text, `1e-3` is a number; anchors, aliases and tags are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from simulator.errors import InputError, unknown

from .quantities import describe

Keys = tuple[str | int, ...]
Report = Callable[[Keys, str], None]  # takes the keys of what is wrong, and a message: found; expected; what to do

_INTEGER = re.compile(r"[-+]?(0|[1-9]\d{0,17})")
_DECIMAL = re.compile(r"[-+]?(\d{1,30}\.\d{0,30}|\.\d{1,30}|\d{1,30}(?=[eE]))([eE][-+]?\d{1,3})?")
_SPECIAL = {".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan")}
_COMMENT = re.compile(r"[\s\]},:]*\s#(?P<text>.*)")  # behind the last value of a line, and brackets
_LARGEST_FILE = 1 << 20


@dataclass
class Document:
    """One YAML file: its data, the place of each key and value, and the messages collected about it.

    Args:
        path: name of the file as shown in messages.
        data: nested dicts, lists and scalars.
        keys, values: (line, column) of a key and of its value, by the path of keys from the top; both count from 1.
        comments: what stands behind the '#' of the line in which a value ends, or in which a key has its value below;
            at the empty path the lines of comment that the file begins with, but for those to editors.
        varied: keys whose values came from elsewhere than the file, see template.py.
        problems: one line each, `path:line:column: dotted.key: what was found; expected; what to do`.
    """

    path: str
    data: Any = None
    keys: dict[Keys, tuple[int, int]] = field(default_factory=dict)
    values: dict[Keys, tuple[int, int]] = field(default_factory=dict)
    comments: dict[Keys, str] = field(default_factory=dict)
    varied: frozenset[Keys] = frozenset()
    problems: list[tuple[tuple[int, int], str]] = field(default_factory=list)

    def problem(self, at: Keys, message: str, *, on_key: bool = False) -> None:
        """Note a problem with a value (or its key); a value that is not there is shown at its nearest parent."""
        self._note(self.place(at, on_key=on_key), f"{dotted(at)}: {message}" if at else message)

    def place(self, at: Keys, *, on_key: bool = False) -> tuple[int, int]:
        """Return line and column of a value (or of its key); of one that is not there those of its nearest parent."""
        where = self.keys.get(at) if on_key else None
        for depth in range(len(at), -1, -1):
            where = where or self.values.get(at[:depth])
        return where or (1, 1)

    def unknown(self, at: Keys, known: Iterable[str]) -> None:
        """Note a key that is none of those known, with the one that it may be meant to be."""
        self.problem(at, f"unknown key; {unknown(str(at[-1]), known)}", on_key=True)

    def at(self, keys: Keys) -> Any:
        """Return the data below a path of keys."""
        data = self.data
        for key in keys:
            data = data[key]
        return data

    def check(self) -> None:
        """Raise all problems at once, in the order of the file."""
        if self.problems:
            lines = dict.fromkeys(message for _, message in sorted(self.problems, key=lambda problem: problem[0]))
            raise InputError("\n".join(lines))

    def _note(self, where: tuple[int, int], message: str) -> None:
        self.problems.append((where, f"{self.path}:{where[0]}:{where[1]}: {message}"))


def dotted(keys: Keys) -> str:
    """Return a path of keys as written in messages: memory.sram.size, mac.low.operands[1]."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}"
    return text.removeprefix(".")


def read_document(path: Path, shown: str) -> Document:
    """Read a file that holds one YAML mapping.

    Args:
        path: the file. shown: its name in messages.
    Raises:
        InputError: the file cannot be read, is no UTF-8, no YAML or no mapping.
    """
    document, text = Document(shown), _text(path, shown)
    loader: Any = None
    try:
        loader = _Composer(text, document)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        document._note(_place(error.problem_mark or error.context_mark), _syntax(error))
        document.check()
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        where = before.count("\n") + 1, error.position - before.rfind("\n")
        found = f"U+{ord(text[error.position]):04X}"
        document._note(where, f"got the character {found}, which YAML forbids; expected plain text; remove it")
        document.check()
    except RecursionError:
        raise too_deep(shown) from None
    except (ValueError, OverflowError) as error:  # an escape such as \UFFFFFFFF in a quoted text
        where = (loader.line + 1, loader.column + 1) if loader else (1, 1)
        document._note(where, f"got what YAML cannot read ({error}); expected plain text; write the characters out")
        document.check()
    if node is None:
        raise InputError(f"{shown}:1:1: the file is empty; expected a mapping; write 'key: value' lines")
    document.data = _plain(node, (), document)
    _keep_comments(text, node, document)
    if not isinstance(document.data, dict):
        document.problem((), f"got {describe(document.data)} at the top; expected a mapping; write 'key: value' lines")
    document.check()
    return document


def too_deep(shown: str) -> InputError:
    """Return the error of a file whose nesting exhausts the stack."""
    return InputError(f"{shown}: nested too deeply; expected a few levels; flatten it")


def _text(path: Path, shown: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except IsADirectoryError:
        raise InputError(f"{shown}: is a directory; expected a YAML file; name a file in it") from None
    except FileNotFoundError:
        raise InputError(f"{shown}: no such file; expected a YAML file; check the path") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"{shown}: cannot be read ({reason}); expected a readable YAML file; check it") from None
    if len(content) > _LARGEST_FILE:
        raise InputError(f"{shown}: got more than 1 MiB; expected a short YAML file; check that it is the right one")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        raise InputError(
            f"{shown}:{line}:{column}: got byte 0x{content[error.start]:02x}; expected UTF-8; save the file as UTF-8"
        ) from None


class _Composer(yaml.SafeLoader):
    """PyYAML's composer, without anchors, aliases and tags."""

    def __init__(self, text: str, document: Document) -> None:
        super().__init__(text)
        self._document = document

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            self.get_event()
            self._refuse(event, f"alias *{event.anchor}")
            mark: Any = event.start_mark
            return yaml.ScalarNode("", "", mark, mark, style='"')
        if event.anchor is not None:
            self._refuse(event, f"anchor &{event.anchor}")
            event.anchor = None
        if event.tag is not None:
            self._refuse(event, f"tag {event.tag}")
        return super().compose_node(parent, index)

    def _refuse(self, event: Any, what: str) -> None:
        self._document._note(_place(event.start_mark), f"got the {what}; expected plain values; write the value out")


def _plain(node: Any, at: Keys, document: Document) -> Any:
    document.values[at] = _place(node.start_mark)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                document._note(
                    _place(key_node.start_mark), "got a list or mapping as key; expected a name; write 'name: value'"
                )
                continue
            here = (*at, key_node.value)
            if key_node.value in mapping:
                first = document.keys[here]
                place = _place(key_node.start_mark)
                message = f"duplicate key; expected it once, and line {first[0]} has it already; remove one"
                document._note(place, f"{dotted(here)}: {message}")
                continue
            document.keys[here] = _place(key_node.start_mark)
            mapping[key_node.value] = _plain(value_node, here, document)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*at, index), document) for index, item in enumerate(node.value)]
    value = _scalar(node)
    if value is None and at:
        document.problem(at, "got nothing; expected a value; write one, or remove the key")
    return value


def _keep_comments(text: str, root: Any, document: Document) -> None:
    """Keep the comment of each line, which PyYAML drops, with the values that the line is about."""
    ends: dict[int, int] = {}  # by line: the column behind its last key or value
    about: dict[int, list[Keys]] = {}

    def visit(node: Any, at: Keys, key: Any) -> None:
        if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
            return  # its lines, and what looks like a comment in them, are text
        if isinstance(node, yaml.ScalarNode):
            ends[node.end_mark.line] = max(ends.get(node.end_mark.line, 0), node.end_mark.column)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                visit(item, (*at, index), item)
        else:
            for key_node, value in node.value:
                visit(key_node, (), None)
                if isinstance(key_node, yaml.ScalarNode):
                    visit(value, (*at, key_node.value), key_node)
        if key is not None:
            below = not isinstance(node, yaml.ScalarNode) and not node.flow_style
            about.setdefault((key if below else node).end_mark.line, []).append(at)

    visit(root, (), None)
    lines = text.splitlines()
    head = [line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines)]
    if any(head := [line for line in head if not line.startswith("yaml-language-server:")]):
        document.comments[()] = "\n".join(head)
    for line, paths in about.items():
        rest = lines[line][ends.get(line, 0) :] if line < len(lines) else ""
        found = _COMMENT.fullmatch(rest)
        if found and found["text"].strip():
            document.comments.update(dict.fromkeys(paths, found["text"].strip()))


def _scalar(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    if node.style is not None:  # quoted or block text
        return text
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if text.lower() in _SPECIAL:
        return _SPECIAL[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    # A number beyond float64 stays text, lest it becomes an infinity that nobody wrote.
    return float(text) if _DECIMAL.fullmatch(text) and math.isfinite(float(text)) else text


def _place(mark: Any) -> tuple[int, int]:
    return (1, 1) if mark is None else (mark.line + 1, mark.column + 1)


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "something that is no YAML"
    if "'\\t'" in problem:
        return "got a tab; expected spaces as indentation; replace it by spaces"
    if "single document" in (error.context or ""):
        return "got a second document; expected one per file; remove the '---'"
    context = f" {error.context}" if error.context else ""
    return f"YAML syntax{context}: {problem}; expected 'key: value' lines; check indentation, quotes and brackets"
