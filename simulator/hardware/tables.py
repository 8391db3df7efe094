"""Tables of technologies: strict YAML files to records, and single entries replaced."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from simulator.errors import InputError, unknown

from .document import Document, Keys, Report, read_document
from .nodes import neighbours, scaled_table, unscaled_table
from .quantities import describe, parse_quantity
from .technology import BANDS, ENTRIES, SRAM, Entry, TechnologyTable, dimension_of, unit_of

# What a message proposes, by dimension.
_EXAMPLES = {
    "energy per square bit": "1.1 fJ/bit²",
    "energy per bit": "0.9 fJ/bit",
    "area per square bit": "3.9 µm²/bit²",
    "area per bit": "4.3 µm²/bit",
}
# By dimension: beyond this a number is a slip of the unit.
_LARGEST = {"energy per square bit": 1e-6, "energy per bit": 1e-6, "area per square bit": 1e6, "area per bit": 1e6}
_LARGEST_SHOWN = {
    "energy per square bit": "1 µJ/bit²",
    "energy per bit": "1 µJ/bit",
    "area per square bit": "1 mm²/bit²",
    "area per bit": "1 mm²/bit",
}
# Plain factors, by their largest: parts of a working MAC, of an area, and factors over a simpler circuit.
_LARGEST_FACTORS = {"idle_factor": 1.0, "sram_efficiency": 1.0, "mode_factor": 10.0, "posit_factor": 10.0}
_FOLDER = files("simulator") / "hardware"
_ENTRY_KEYS = ("value", "class", "source")


@cache
def table_names() -> tuple[str, ...]:
    """Return the names of the tables that ship with the simulator."""
    suffix = "nm.yaml"  # a table is named after its node, which stillmaker2017.yaml beside them is not
    return tuple(sorted(f.name.removesuffix(".yaml") for f in _FOLDER.iterdir() if f.name.endswith(suffix)))


@cache
def bundled_table(name: str) -> TechnologyTable:
    """Return a table by name; InputError lists the known ones."""
    if name not in table_names():
        raise InputError(f"technology table {name!r} is unknown; expected one of {', '.join(table_names())}")
    with as_file(_FOLDER / f"{name}.yaml") as path:
        return read_table(path, path.name)


def is_path(name: str) -> bool:
    """Whether the name of a table is the path of a file."""
    return "/" in name or name.endswith((".yaml", ".yml"))


def find_table(name: str | None, node_nm: float | None, directory: Path, shown: str) -> TechnologyTable:
    """Return the table that a machine file means.

    Args:
        name: of a table, or its path from the machine file on; None for that of the node.
        node_nm: process node; None for that of the table, or 7 nm. A node next to that of the table is scaled from it;
            for any other the numbers of a table that is named are taken as they are.
        directory: of the machine file. shown: the name of that file in messages.
    Raises:
        ValueError: none is named, and none is of the node or next to it. InputError: a file that is no table.
    """
    if name is None:
        tables = [bundled_table(known) for known in table_names()]
        node_nm = 7.0 if node_nm is None else node_nm
    elif is_path(name):
        tables = [_own_table(directory / name, os.path.join(os.path.dirname(shown), name), shown)]
    else:
        tables = [bundled_table(name)]
    for table in tables:
        if node_nm in (None, table.node_nm):
            return table
    assert node_nm is not None
    for table in tables:
        if node_nm in neighbours(table):
            return scaled_table(table, node_nm)
    if name is not None:
        return unscaled_table(tables[0], node_nm)
    known = ", ".join(f"{table.node_nm:g} nm ({table.name})" for table in tables)
    near = ", ".join(f"{node:g} nm" for table in tables for node in neighbours(table))
    raise ValueError(
        f"got {node_nm:g} nm; expected a node with a technology table: {known}, or one next to it, scaled: {near}; "
        "write one of them, or name the table whose numbers to take as they are as technology.table"
    )


def _own_table(path: Path, path_shown: str, machine: str) -> TechnologyTable:
    """Return a table of the user's own, with the machine file that names it in what is wrong with it."""
    try:
        return read_table(path, path_shown)
    except InputError as error:
        raise InputError(
            f"{error}\n{machine}: technology.table: names that file; expected a technology table, or the name of a "
            f"bundled one: {', '.join(table_names())}"
        ) from None


def read_table(path: Path, shown: str) -> TechnologyTable:
    """Read a table.

    Args:
        path: of a YAML file. shown: its name in messages.
    Raises:
        InputError: everything that is wrong in the file, one line a problem:
            `path:line:column: dotted.key: what was found; expected; what to do`.
    """
    document = read_document(path, shown)
    data = document.data
    for key in data:
        if key not in ("node", *ENTRIES):
            document.unknown((key,), ("node", *ENTRIES))
    for key in ("node", *ENTRIES):
        if key not in data:
            document.problem((), f"{key}: missing; expected all of {', '.join(('node', *ENTRIES))}; add it")
    document.check()
    node_nm = 0.0
    try:
        node_nm = float(parse_quantity(data["node"], ("length",), "7 nm").value * 10**9)
    except ValueError as error:
        document.problem(("node",), str(error))
    points = _points(document, data[SRAM])
    entries: dict[str, Any] = {key: _entry(document, (key,), key, data[key]) for key in ENTRIES if key != SRAM}
    document.check()
    return TechnologyTable(name=path.stem, node_nm=node_nm, sram_j_per_bit=points, **entries)


def _points(document: Document, form: object) -> tuple[tuple[float, Entry], ...]:
    """Read the energies of SRAMs of several sizes."""
    if not isinstance(form, list) or not form:
        document.problem(
            (SRAM,), f"got {describe(form)}; expected a list of sizes with their energies; write '- {{size: ...}}'"
        )
        return ()
    points: list[tuple[float, Entry]] = []
    for index, point in enumerate(form):
        at = (SRAM, index)
        entry = _entry(document, at, SRAM, point, ("size", *_ENTRY_KEYS))
        try:
            size = float(parse_quantity(point["size"] if isinstance(point, dict) else None, ("size",), "8 KiB").value)
        except (ValueError, KeyError) as error:
            document.problem((*at, "size"), f"{'missing; expected a size' if isinstance(error, KeyError) else error}")
            continue
        if size <= (points[-1][0] if points else 0.0):
            document.problem((*at, "size"), "got a size that is not above the one before it; expected them ascending")
        points.append((size, entry))
    return tuple(points)


def _entry(document: Document, at: Keys, name: str, form: object, keys: tuple[str, ...] = _ENTRY_KEYS) -> Entry:
    if not isinstance(form, dict):
        document.problem(at, f"got {describe(form)}; expected a mapping of {', '.join(keys)}; indent them below")
        return Entry(1.0, "assumed", "")
    for key in form:
        if key not in keys:
            document.unknown((*at, key), keys)
    kind, source = form.get("class"), form.get("source")
    if kind not in BANDS:
        document.problem((*at, "class"), f"got {describe(kind)}; expected one of {', '.join(BANDS)}; write one of them")
    if not isinstance(source, str) or not source.strip():
        document.problem((*at, "source"), f"got {describe(source)}; expected where the number is from; say it")
    try:
        value = entry_value(name, form.get("value"))
    except ValueError as error:
        document.problem((*at, "value"), str(error))
        value = 1.0
    return Entry(value, str(kind), str(source), unit_of(name))


def entry_value(name: str, form: object) -> float:
    """Return the value of an entry in the base unit of its name.

    Raises:
        ValueError: what was found, what was expected and what to do.
    """
    dimension = dimension_of(name)
    if dimension is not None:
        value = float(parse_quantity(form, (dimension,), _EXAMPLES[dimension]).value)
        if not 0 < value <= _LARGEST[dimension]:
            raise ValueError(
                f"got {form!r}; expected a value above 0, at most {_LARGEST_SHOWN[dimension]}; write e.g. "
                f'"{_EXAMPLES[dimension]}"'
            )
        return value
    if isinstance(form, bool) or not isinstance(form, int | float) or not 0 < form < math.inf:
        raise ValueError(f"got {describe(form)}; expected a plain number above 0; write e.g. 0.1")
    if form > _LARGEST_FACTORS[name]:
        raise ValueError(f"got {form}; expected at most {_LARGEST_FACTORS[name]:g}; write e.g. 0.1")
    return float(form)


def overridden(table: TechnologyTable, values: dict[str, Any], given_class: str, report: Report) -> TechnologyTable:
    """Return a table with single entries of a machine file.

    Args:
        values: by name of the entry; `sram_j_per_bit` holds for all sizes. given_class: theirs.
        report: takes (the keys of a wrong value from `values` on, what is wrong with it).
    """
    found: dict[str, Any] = {}
    for name, form in values.items():
        if name not in ENTRIES:
            report((name,), f"got no entry of a technology table; {unknown(name, ENTRIES)}")
            continue
        try:
            source = f"machine file: technology.overrides.{name}"
            entry = Entry(entry_value(name, form), given_class, source, unit_of(name))
        except ValueError as error:
            report((name,), str(error))
            continue
        found[name] = ((8.0, entry),) if name == SRAM else entry
    return replace(table, **found) if found else table
