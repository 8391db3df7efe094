"""Recipes as YAML files: hwconfigs/recipes has those that ship with the simulator."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from simulator.hardware.document import Document, Keys
from simulator.hardware.find import Shelf
from simulator.hardware.quantities import describe

from .points import MEANINGS, parse_use
from .recipe import PRODUCTS, LossScale, Recipe, is_power_of_two, parse_mac

VERSION = 1

_RECIPES = Shelf("recipe", "recipe", "fp8_hybrid", "recipes")

Read = Callable[[Any], Any]  # returns what a value means; ValueError: what was found, expected and is to be done


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with the simulator."""
    return _RECIPES.names


def load_recipe(path_or_name: str | os.PathLike[str]) -> Recipe:
    """Read a recipe file.

    Args:
        path_or_name: path of a YAML file, or the bare name of a bundled recipe such as "fp8_hybrid". Of its keys
            `schema` is the version, 1; `name` that of the recipe, or the file's; `points` has a format in use by
            quantisation point; `macs` a MAC unit by product; `loss_scale` a power of two, or `start`, `dynamic` and
            `every`. What is left out is not rounded.
    Raises:
        InputError: no such file or name, or everything that is wrong in the file, one line a problem:
            `path:line:column: dotted.key: what was found; expected; what to do`.
    """
    document, _, stem = _RECIPES.read(path_or_name)
    keys: dict[str, Read] = {
        "schema": _version, "name": _name, "points": _mapping("weight_store: e8m6/rz"),
        "macs": _mapping("forward: fma(fp16)"), "loss_scale": _scale_or_mapping,
    }  # fmt: skip
    found = _section(document, (), keys)
    points = _section(document, ("points",), {point: _as_point(point) for point in MEANINGS})
    macs = _section(document, ("macs",), dict.fromkeys(PRODUCTS, _mac))
    scale = _section(document, ("loss_scale",), {"start": _power_of_two, "dynamic": _switch, "every": _count})
    if isinstance(found.get("loss_scale"), float):
        scale = {"start": found["loss_scale"]}
    if "schema" not in document.data:
        document.problem(
            ("schema",), f"missing; expected the version of the schema, {VERSION}; add 'schema: {VERSION}'"
        )
    document.check()
    return Recipe(points, LossScale(**scale), found.get("name", stem), macs)


def _section(document: Document, at: Keys, keys: Mapping[str, Read]) -> dict[str, Any]:
    """Return what the keys of a mapping mean; what is wrong with them is noted in the document."""
    given = document.data if not at else document.data.get(at[0])
    found = {}
    for key, value in given.items() if isinstance(given, Mapping) else ():
        if key not in keys:
            document.unknown((*at, key), keys)
            continue
        if value is None:  # the reader has noted it
            continue
        try:
            found[key] = keys[key](value)
        except ValueError as error:
            document.problem((*at, key), str(error))
    return found


def _version(value: Any) -> int:
    if isinstance(value, bool) or value != VERSION:
        raise ValueError(f"got {describe(value)}; expected {VERSION}, the version of the schema; write {VERSION}")
    return VERSION


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"got {describe(value)}; expected the name of the recipe; write e.g. fp8_hybrid")
    return value


def _mapping(example: str) -> Read:
    def read(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError(f"got {describe(value)}; expected a mapping; write e.g. {{{example}}}")
        return value

    return read


def _as_point(point: str) -> Read:
    def read(value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError(f"got {describe(value)}; expected the format of {MEANINGS[point]}; write e.g. 'e8m6/rz'")
        return parse_use(value)

    return read


def _mac(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"got {describe(value)}; expected a MAC unit; write e.g. 'fp8_e4m3 -> fma(fp16)'")
    return parse_mac(value)


def _scale_or_mapping(value: Any) -> Any:
    return value if isinstance(value, Mapping) else _power_of_two(value)


def _power_of_two(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not is_power_of_two(value):
        raise ValueError(f"got {describe(value)}; expected a power of two; write e.g. 1024")
    return float(value)


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"got {describe(value)}; expected true or false; write one")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"got {describe(value)}; expected a whole number from 1; write e.g. 2000")
    return value
