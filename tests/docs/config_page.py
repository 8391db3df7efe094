"""The page docs/reference/config.md: `python -m tests.docs.config_page` prints it, from the schema of machine files."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from pydantic.fields import FieldInfo

from simulator.hardware.quantities import UNITS
from simulator.hardware.schema import MachineFile
from simulator.hardware.sections import (
    Section,
    check_of,
    default_words,
    fields_of,
    has_names,
    named_section,
    section_of,
)

HEAD = """# The machine file

Every key, generated from the schema. `hwconfigs/README.md` explains how values are written, which order of summation follows
from the array, and the levels of the memory. `NAME` stands for names of your own. `python -m simulator show FILE` prints what is
in effect for a file, key by key, with its origin; `hwconfigs/schema.json` is the same schema for editors.
"""  # noqa: E501 - the page has wider lines
TABLE = "| key | what it is | takes | default | example |\n|---|---|---|---|---|"


def page() -> str:
    parts, shown = [HEAD], dict[Section, str]()
    for path, section in _sections(MachineFile, ""):
        name = path.removesuffix(".")
        title = f"`{name}`" if name else "Top level"
        if section in shown:
            parts.append(f"## {title}\n\nThe keys of `{shown[section]}`.\n")
            continue
        shown[section] = name
        own = inspect.cleandoc(section.__doc__ or "")
        rows = "\n".join(_row(f"{path}{key}", field) for key, field in fields_of(section).items())
        parts.append(f"## {title}\n{f'{chr(10)}{own}{chr(10)}' if own else ''}\n{TABLE}\n{rows}\n")
    return "\n".join([*parts, _units()])


def _sections(section: Section, path: str) -> Iterator[tuple[str, Section]]:
    yield path, section
    for key, field in fields_of(section).items():
        below = section_of(field)
        if below is not None:
            yield from _sections(below, f"{path}{key}.{'NAME.' if has_names(field) else ''}")
    named = named_section(section)
    if named is not None:
        yield from _sections(named, f"{path}NAME.")


def _row(key: str, field: FieldInfo) -> str:
    default = "**required**" if field.is_required() else default_words(field)
    cells = [f"`{key}`", field.description or "", _taken(field), default, f"`{(field.examples or [''])[0]}`"]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _taken(field: FieldInfo) -> str:
    """Return what a key takes, in words."""
    words = [check.words] if (check := check_of(field)) else []
    taken = ", or ".join(["mapping", *words] if section_of(field) else words)
    return f"by name: {taken}" if has_names(field) else taken


def _units() -> str:
    rows = [f"| {dimension} | {', '.join(f'`{unit}`' for unit in units)} |" for dimension, units in UNITS.items()]
    return "\n".join(["## Units\n", "| dimension | units |\n|---|---|", *rows, ""])


if __name__ == "__main__":
    print(page(), end="")
