"""The schema of machine files as a tree of keys, for whatever walks over it in place of lists of keys by hand."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from .checks import Check
from .quantities import Quantity

Section = type[BaseModel]


def fields_of(section: Section) -> dict[str, FieldInfo]:
    """Return the fields of a section by the key in the file."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def section_of(field: FieldInfo) -> Section | None:
    """Return the section that a key holds, or that each of the user's names below it does; None for a plain value."""
    return _section(field.annotation)


def has_names(field: FieldInfo) -> bool:
    """Whether a key holds a mapping with names of the user's own, as `layers` does, each with a section below it."""
    return get_origin(field.annotation) is dict and section_of(field) is not None


def named_section(section: Section) -> Section | None:
    """Return the section of names of the user's own beside the fields, as `memory` has; None where there are none."""
    return _section(inspect.get_annotations(section, eval_str=True).get("__pydantic_extra__"))


@cache
def check_of(field: FieldInfo) -> Check | None:
    """Return what a key takes, or each of the user's names below it; None for a section without a short form."""
    marks = [
        *field.metadata,
        *(mark for part in _parts(field.annotation) for mark in getattr(part, "__metadata__", ())),
    ]
    found = (mark.func for mark in marks if isinstance(mark, BeforeValidator))
    return next((check for check in found if isinstance(check, Check)), None)


def default_of(field: FieldInfo) -> Any:
    """Return the value of a key that is left out, as a file would write it; None where it is no plain value."""
    check = check_of(field)
    if field.default is None and check is not None and check.auto:
        return "auto"
    if isinstance(field.default, Quantity):
        return str(field.default)
    return field.default if isinstance(field.default, str | int | float) else None


def default_words(field: FieldInfo) -> str:
    """Return the same for readers: what holds where a key is left out, as `without` in schema.py says it."""
    extra, value = field.json_schema_extra, default_of(field)
    if isinstance(extra, dict) and "without" in extra:
        return str(extra["without"])
    if value is not None:
        return str(value).lower() if isinstance(value, bool) else str(value)
    return "required" if field.is_required() else "the defaults below"


def example_of(field: FieldInfo) -> Any:
    """Return the example of a key as data."""
    (example,) = field.examples or (None,)
    return yaml.safe_load(example) if isinstance(example, str) else example


def _section(annotation: Any) -> Section | None:
    return next((part for part in _parts(annotation) if isinstance(part, type) and issubclass(part, BaseModel)), None)


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in get_args(annotation):
        yield from _parts(inner)
