"""How the documentation site reads docstrings: sections follow one another, arguments and errors share lines."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(r"^(Args|Attributes|Raises):\n((?: .*\n?|\n)+)", re.MULTILINE)
_HEADING = re.compile(r"(?<=\S\n)(?=(?:Args|Attributes|Returns|Yields|Raises|Warns):\n)")
_NEXT = re.compile(r"(?<=[.;]) ((?:\w+, )*\w+)(?=: )")


class OneArgumentALine(griffe.Extension):
    """Puts a blank line before each section, and each argument and error on its own line, as the parser expects.

    In the code it is `seed: key. threads: how many.`, and `Raises:` directly below that.
    """

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if not obj.docstring:
            return
        named = set(obj.members) | {x.name for x in getattr(obj, "parameters", ())}

        def split(found: re.Match[str]) -> str:
            apart = found[1].endswith("Error") or set(found[1].split(", ")) <= named
            return f"\n    {found[1]}" if apart else found[0]

        text = _HEADING.sub("\n", obj.docstring.value)
        obj.docstring.value = _SECTION.sub(lambda found: f"{found[1]}:\n{_NEXT.sub(split, found[2])}", text)
