"""Messages of ours for what the schema of machine files finds wrong."""

from __future__ import annotations

from typing import Any

from . import schema
from .document import Document, Keys
from .quantities import describe
from .sections import Section, fields_of, has_names, named_section, section_of


def explain(document: Document, problem: Any) -> None:
    """Turn a problem of the schema into a message of ours."""
    at: Keys = tuple(problem["loc"])
    *parents, last = at or ("",)
    match problem["type"]:
        case "value_error":
            document.problem(at, str(problem["ctx"]["error"]))
        case "missing":
            field = fields_of(_section(tuple(parents)))[str(last)]
            document.problem(
                at, f"missing; expected {field.description}; add e.g. '{last}: {(field.examples or [''])[0]}'"
            )
        case "extra_forbidden":
            document.unknown(at, fields_of(_section(tuple(parents))))
        case _:
            keys = ", ".join(fields_of(_section(at)))
            document.problem(
                at, f"got {describe(problem['input'])}; expected a mapping with keys out of {keys}; indent them below"
            )


def _section(at: Keys) -> Section:
    """Return the model of a section by its path of keys."""
    model: Section = schema.MachineFile
    by_name = False
    for key in at:
        if by_name:  # the key is one of the user's, and the model that of all of them
            by_name = False
            continue
        field = fields_of(model).get(str(key))
        by_name = field is not None and has_names(field)
        below = named_section(model) if field is None else section_of(field)
        assert below is not None  # the schema has found a problem in it
        model = below
    return model
