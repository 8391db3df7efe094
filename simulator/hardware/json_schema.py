"""The JSON schema of machine files, from their pydantic models: what editors complete, explain and mark."""

from __future__ import annotations

from typing import Any

from pydantic.fields import FieldInfo

from .schema import MachineFile
from .sections import (
    Section,
    check_of,
    default_of,
    default_words,
    example_of,
    fields_of,
    has_names,
    named_section,
    section_of,
)

DRAFT = "http://json-schema.org/draft-07/schema#"  # which editors know best


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a machine file.

    It looks at one key at a time: which keys there are, their types, words and units. Bounds of quantities, names of
    formats, and what concerns several keys are left to load_hardware, so that what it refuses load_hardware refuses.
    """
    definitions: dict[str, Any] = {}
    machine = _object(MachineFile, definitions)
    return {"$schema": DRAFT, "title": "Machine file of ulpsim", **machine, "definitions": definitions}


def _object(section: Section, definitions: dict[str, Any]) -> dict[str, Any]:
    fields, named = fields_of(section), named_section(section)
    found = {
        "type": "object",
        "properties": {key: _property(field, definitions) for key, field in fields.items()},
        "additionalProperties": _reference(named, definitions) if named else False,
        "required": [key for key, field in fields.items() if field.is_required()],
    }
    return found if found["required"] else {key: part for key, part in found.items() if key != "required"}


def _property(field: FieldInfo, definitions: dict[str, Any]) -> dict[str, Any]:
    check, section, value = check_of(field), section_of(field), default_of(field)
    words = f" Takes: {check.words}." if check and not section else ""
    found: dict[str, Any] = {"description": f"{field.description}.{words} Default: {default_words(field)}."}
    if value is not None:
        found["default"] = value
    if section is None:
        found["examples"] = [example_of(field)]
    form = dict(check.form) if check else {}
    if section is not None:
        below = _reference(section, definitions)
        form = {"anyOf": [form, below]} if check else {"allOf": [below]}  # draft 7 reads nothing beside a reference
    return found | ({"type": "object", "additionalProperties": form} if has_names(field) else form)


def _reference(section: Section, definitions: dict[str, Any]) -> dict[str, Any]:
    name = section.__name__.removesuffix("Section")
    if name not in definitions:
        definitions[name] = {}  # keeps its place while the sections below it are written
        definitions[name] = _object(section, definitions)
    return {"$ref": f"#/definitions/{name}"}
