"""Where in a sweep file stands what a message is about, which names it as arguments of Python are named."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from simulator.errors import InputError
from simulator.hardware.document import Document, Keys, dotted

# What messages about networks and samples call the arguments that are keys of a file, besides their own names.
_OPTIONS = re.compile(r"--(model|weights|data|samples|calibration|seed)\b")
_CALLED = {"hardware": "hw"}
# Below which keys of a file the arguments of a call are; what varies first, which stands in their place.
_CALLS: dict[str, tuple[Keys, ...]] = {
    "sweep": (("sweep",), (), ("cost",)),
    "search": (("search",), ("search", "objectives"), ("search", "constraints")),
}
_OF_KEYS = ("unknown", "does not vary", "given", "varies")  # messages that are about a key and not its value


def as_arguments(message: str) -> str:
    """Return a message that names options of the main job with the names of the arguments of a sweep, and keys."""
    return _OPTIONS.sub(r"\1", message)


@contextmanager
def placed(document: Document | None) -> Iterator[None]:
    """Let messages about what a file says begin with the file, line and column of what they name."""
    try:
        yield
    except InputError as error:
        if document is None or type(error) is not InputError:  # what is missing is no fault of the file
            raise
        raise InputError("\n".join(_placed(document, line) for line in str(error).splitlines())) from None


def _placed(document: Document, message: str) -> str:
    call, _, rest = message.partition(": ")
    at, said = _found(document.data, call, rest) if call in _CALLS else _named(document.data, message)
    if not at:
        return f"{document.path}: {said}"
    line, column = document.place(at, on_key=said.startswith(_OF_KEYS))
    return f"{document.path}:{line}:{column}: {dotted(at)}: {said}"


def _found(data: Mapping[str, Any], call: str, rest: str) -> tuple[Keys, str]:
    """Return the keys that a message of a call names, from the top of the file, and what it says of them."""
    name, _, behind = rest.partition(": ")
    for above in _CALLS[call]:
        found = _step(_at(data, above), name)
        if found and behind:
            break
    else:
        return ((call,) if call in data else ()), rest
    at: Keys = above
    while found and behind:
        at = (*at, *found)
        if isinstance(found[-1], int) and not name.endswith("]"):  # an item of a list, which its place does not name
            return at, rest
        rest = behind
        name, _, behind = rest.partition(": ")
        found = _step(_at(data, at), name)
    return at, rest


def _named(data: Mapping[str, Any], message: str) -> tuple[Keys, str]:
    """Return the keys of what a message of another part of the house is about, and the message.

    It begins with a key, with the value of one, or with a place in the machine's file and a key that varies.
    """
    first, _, behind = message.partition(": ")
    for above in _CALLS["sweep"]:
        if found := _step(_at(data, above), _CALLED.get(first, first)):
            return (*above, *found), behind
    for above in ((), ("sweep",)):
        for name, value in (_at(data, above) or {}).items():
            if value == first:
                return (*above, name), message
            if isinstance(value, list) and first in value:
                return (*above, name, value.index(first)), message
    found = _step(_at(data, ("sweep",)), behind.partition(": ")[0])
    return (("sweep", *found) if found else ()), message


def _step(inner: Any, name: str) -> Keys:
    """Return the keys below a mapping or list that a name stands for: dotted, or one of several that vary together."""
    if isinstance(inner, list):
        return (inner.index(name),) if name in inner else ()
    if not isinstance(inner, Mapping):
        return ()
    if name in inner:
        return (name,)
    stem, _, index = name.removesuffix("]").partition("[")
    if index.isdecimal() and isinstance(inner.get(stem), list) and int(index) < len(inner[stem]):
        return (stem, int(index))
    for key, value in inner.items():
        if name in (part.strip() for part in key.split(",")):
            return (key,)
        if name.startswith(f"{key}."):
            return (key, *_step(value, name[len(key) + 1 :]))
    return ()


def _at(inner: Any, keys: Keys) -> Any:
    """Return what is below keys; None where one is not there."""
    for key in keys:
        if isinstance(inner, Mapping):
            inner = inner.get(key)
        else:
            inner = inner[key] if isinstance(inner, list) and isinstance(key, int) else None
    return inner
