"""A validator of the part of JSON schema (draft 7) that the schema of machine files is written in.

Written from the specification, json-schema.org/draft-07/draft-handrews-json-schema-validation-01.html; a word that it does
not know is an error, so that no rule is passed over.
"""  # noqa: E501 - an address

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

NOTES = {"$schema", "title", "description", "default", "examples", "definitions"}
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}


def problems(schema: dict[str, Any], data: Any, root: dict[str, Any] | None = None, at: str = "") -> Iterator[str]:
    """Yield what is wrong with data, by its path."""
    root = schema if root is None else root
    for word, rule in schema.items():
        if word not in NOTES and not _RULES[word](rule, data, schema, root):
            yield f"{at or '.'}: {word}"
    for word in ("$ref", "allOf"):
        for inner in _inner(schema, word, root):
            yield from problems(inner, data, root, at)
    if isinstance(data, dict):
        for key, value in data.items():
            below = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if isinstance(below, dict):
                yield from problems(below, value, root, f"{at}.{key}")
    if isinstance(data, list) and "items" in schema:
        for index, value in enumerate(data):
            yield from problems(schema["items"], value, root, f"{at}[{index}]")


def _inner(schema: dict[str, Any], word: str, root: dict[str, Any]) -> list[dict[str, Any]]:
    if word not in schema:
        return []
    return schema[word] if word != "$ref" else [root["definitions"][schema["$ref"].removeprefix("#/definitions/")]]


def _is(data: Any, name: str) -> bool:
    whole = isinstance(data, float) and data.is_integer() and name == "integer"
    return whole or (isinstance(data, TYPES[name]) and (name == "boolean" or not isinstance(data, bool)))


def _same(a: Any, b: Any) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _number(data: Any) -> bool:
    return _is(data, "number")


_RULES = {
    "type": lambda rule, data, *_: any(_is(data, name) for name in (rule if isinstance(rule, list) else [rule])),
    "enum": lambda rule, data, *_: any(_same(data, one) for one in rule),
    "const": lambda rule, data, *_: _same(data, rule),
    "pattern": lambda rule, data, *_: not isinstance(data, str) or re.search(rule, data) is not None,
    "minLength": lambda rule, data, *_: not isinstance(data, str) or len(data) >= rule,
    "maxLength": lambda rule, data, *_: not isinstance(data, str) or len(data) <= rule,
    "minimum": lambda rule, data, *_: not _number(data) or data >= rule,
    "maximum": lambda rule, data, *_: not _number(data) or data <= rule,
    "exclusiveMinimum": lambda rule, data, *_: not _number(data) or data > rule,
    "minItems": lambda rule, data, *_: not isinstance(data, list) or len(data) >= rule,
    "maxItems": lambda rule, data, *_: not isinstance(data, list) or len(data) <= rule,
    "uniqueItems": lambda rule, data, *_: not isinstance(data, list) or len(set(map(repr, data))) == len(data),
    "required": lambda rule, data, *_: not isinstance(data, dict) or all(key in data for key in rule),
    "anyOf": lambda rule, data, _, root: any(not list(problems(one, data, root)) for one in rule),
    "additionalProperties": lambda rule, data, schema, _: (
        rule is not False or not isinstance(data, dict) or not data.keys() - schema.get("properties", {}).keys()
    ),
    "propertyNames": lambda rule, data, _, root: (
        not isinstance(data, dict) or not any(list(problems(rule, key, root)) for key in data)
    ),
    # Looked into by `problems` itself.
    "properties": lambda *_: True,
    "items": lambda *_: True,
    "$ref": lambda *_: True,
    "allOf": lambda *_: True,
}
