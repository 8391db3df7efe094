"""The pages docs/reference/library/*.md, one for each package, from what the packages export.

Entries are written for mkdocstrings: the documentation site puts signature and docstring in their place. What users
call first is on top: what the docstring of the package, or of the simulator, names, in its order; then the other
functions, then the records, each by name.
"""

from __future__ import annotations

import importlib
import inspect
import math
import re
from collections.abc import Iterator, Set
from typing import Any, get_args

import simulator

ROOMS = {
    "simulator": "What most programs need: MAC units, networks and prices on machines.",
    "simulator.arithmetic": "What MAC units are made of and return, and what scores of one's own need.",
    "simulator.hardware": "Machines as records.",
    "simulator.cost": "The bill, part by part.",
    "simulator.network": "Networks on machines.",
    "simulator.explore": "Sweeps and searches.",
    "simulator.studies": "Many runs that answer one question.",
    "simulator.bounds": "Rigorous error bounds and certificates.",
    "simulator.tracking": "How many digits of each value are real.",
    "simulator.training": "Training in narrow formats.",
    "simulator.report": "What is printed and written.",
    "formats": "Number formats, without a machine.",
}

HEAD = """# {room}

{what} From the docstrings of the code; the words of the guarantees are those of [Guarantees](../../guarantees.md),
and the [course](../../examples/index.md) shows the names at work.
"""


def pages() -> dict[str, str]:
    """Return the text of each page by the name of its file."""
    return {f"{room.rpartition('.')[2]}.md": "\n".join(_lines(room, what)) for room, what in ROOMS.items()}


def _lines(room: str, what: str) -> Iterator[str]:
    objects = exported(room)
    yield HEAD.format(room=f"`{room}`", what=what)
    yield from _constants({name: x for name, x in objects.items() if not hasattr(x, "__qualname__")})
    yield from (_entry(f"{room}.{name}", x) for name, x in objects.items() if hasattr(x, "__qualname__"))


def exported(room: str) -> dict[str, Any]:
    """Return the public names of a package in their order, without those that are on the page of the simulator."""
    module = importlib.import_module(room)
    elsewhere = [] if room == "simulator" else list(exported("simulator").values())
    objects = {name: getattr(module, name) for name in sorted(module.__all__, key=str.lower)}
    words = f"{inspect.getdoc(module)}\n{inspect.getdoc(simulator)}"

    def place(name: str) -> tuple[float, bool]:
        named = re.search(rf"(\b{room}\.|`){name}\b", words)
        return (named.start() if named else math.inf), inspect.isclass(objects[name])

    own = [name for name, x in objects.items() if not any(x is other for other in elsewhere)]
    return {name: objects[name] for name in sorted(own, key=place)}


def _constants(objects: dict[str, Any]) -> Iterator[str]:
    if objects:
        rows = [f"| `{name}` | {_content(x)} |" for name, x in objects.items()]
        yield "\n".join(["| constant | what it holds |", "|---|---|", *rows, ""])


def _content(x: Any) -> str:
    if inspect.ismodule(x):
        return (inspect.getdoc(x) or "").partition("\n")[0]
    if isinstance(x, int):
        return str(x)
    words = [each.__name__ for each in get_args(x)] or (sorted(x) if isinstance(x, Set) else list(x))
    return ", ".join(f"`{word}`" for word in words)


def _entry(public: str, x: Any) -> str:
    name = public.rpartition(".")[2]
    return f"::: {x.__module__}.{x.__qualname__}\n    options:\n      heading: {public}\n      toc_label: {name}\n"
