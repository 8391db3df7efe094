"""A machine file as a template: the machines that it becomes with other values at some of its keys."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml
from pydantic import BaseModel

from simulator.errors import InputError

from .document import Document, Keys
from .load import machine_of, read_machine
from .quantities import describe
from .records import Machine
from .schema import LayerPolicySection, ScalingSection


class Template:
    """A machine file whose values can be varied.

    Args:
        path_or_name: as load_hardware takes it.
    Raises:
        InputError: there is no such file, or it is no YAML mapping.
    """

    def __init__(self, path_or_name: str | os.PathLike[str]) -> None:
        self._source = read_machine(path_or_name)

    def machine(self, values: Mapping[str, Any]) -> Machine:
        """Return the machine with these values, by dotted key as in messages: array.rows, mac.low.accumulator.

        Its configuration says of them that they are "varied".
        The key of a layer's rule has its pattern in the middle, dots and all: layers.fc*.mac.

        Raises:
            InputError: what is wrong with the machine, and the values that it has.
        """
        known = self._source.document
        document = replace(
            known, data=copy.deepcopy(known.data), keys=dict(known.keys), values=dict(known.values),
            varied=frozenset(map(_keys, values)), problems=[],
        )  # fmt: skip
        for key, value in values.items():
            self._set(document, key, value)
        try:
            return machine_of(self._source._replace(document=document))
        except InputError as error:
            if not values:
                raise
            shown = yaml.safe_dump(dict(values), default_flow_style=True, sort_keys=False, width=math.inf)[1:-2]
            raise InputError(f"{error} (with {shown})") from None

    def _set(self, document: Document, key: str, value: Any) -> None:
        keys = _keys(key)
        inner, place = document.data, document.values.get((), (1, 1))
        for depth, name in enumerate(keys[:-1]):
            inner = inner.setdefault(name, {})
            place = document.values.get(keys[: depth + 1], place)
            if not isinstance(inner, dict):
                raise InputError(
                    f"{document.path}: {key}: {'.'.join(map(str, keys[: depth + 1]))} is {describe(inner)} there; "
                    "expected a mapping to set a key of; write it as a mapping, or vary all of it"
                )
        if isinstance(inner.get(keys[-1]), dict | list):
            for places in (document.keys, document.values):
                for at in [at for at in places if at[: len(keys)] == keys and at != keys]:
                    del places[at]  # of what stood there
        inner[keys[-1]] = copy.deepcopy(value)
        _place(document, keys, value, place)


def _place(document: Document, at: Keys, value: Any, place: tuple[int, int]) -> None:
    """Say of a value, and of all below it, that it stands at a place, or where the file has its key."""
    place = document.keys.setdefault(at, place)
    document.values.setdefault(at, place)
    if isinstance(value, dict):
        for name, below in value.items():
            _place(document, (*at, name), below, place)


def _keys(dotted: str) -> Keys:
    first, _, rest = dotted.partition(".")
    if first != "layers" or not rest:
        return tuple(dotted.split("."))
    # Behind the pattern, which may have dots, stands a key of its rule, or one of a section of the rule.
    parts = rest.split(".")
    sections: dict[str, type[BaseModel]] = {
        "policy": LayerPolicySection,
        "activations": ScalingSection,
        "weights": ScalingSection,
    }
    section = sections.get(parts[-2]) if len(parts) > 2 else None
    inner = 2 if section is not None and parts[-1] in section.model_fields else 1
    return (first, ".".join(parts[:-inner]), *parts[-inner:])
