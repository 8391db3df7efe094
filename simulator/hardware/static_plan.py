"""A static plan: which columns of which products have the high MAC, decided before a run and kept in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.errors import InputError

from .quantities import describe

_KIND = "ulpsim static plan 1"
_KEYS = ("kind", "network", "made_by", "layers")


@dataclass(frozen=True)
class ColumnPlan:
    """Of one layer: how many columns its products have (outputs of a linear layer, channels of a convolution; 1 for all
    of a stack of products), and which of them have the high MAC, ascending.
    """

    columns: int
    high: tuple[int, ...]


@dataclass(frozen=True)
class StaticPlan:
    """Which columns have the high MAC; all others have the low one, and nothing is decided while a network runs.

    Args:
        layers: by name. network: digest of the weights that it was made for. made_by: how, in words.
    """

    layers: Mapping[str, ColumnPlan]
    network: str
    made_by: str = ""

    def __hash__(self) -> int:
        return hash((tuple(self.layers.items()), self.network))

    def to_json(self) -> str:
        """Return the text of its file."""
        layers = {name: {"columns": one.columns, "high": list(one.high)} for name, one in self.layers.items()}
        lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(of)}" for name, of in layers.items())
        head = {"kind": _KIND, "network": self.network, "made_by": self.made_by}
        return json.dumps(head, indent=2)[:-2] + f',\n  "layers": {{\n{lines}\n  }}\n}}\n'


def read_static_plan(path: str | os.PathLike[str]) -> StaticPlan:
    """Read a plan.

    Raises:
        InputError: there is no such file, or it is no plan.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _no_plan(path, "no such file") from None
    except (OSError, ValueError) as error:
        raise _no_plan(path, f"cannot be read ({str(error).splitlines()[0]})") from None
    if not isinstance(data, dict) or data.get("kind") != _KIND or sorted(data) != sorted(_KEYS):
        raise _no_plan(path, f"holds {describe(data)} without the keys {', '.join(_KEYS)} and the kind {_KIND!r}")
    if not isinstance(data["layers"], dict) or not all(isinstance(data[key], str) for key in ("network", "made_by")):
        raise _no_plan(path, "has layers, network or made_by of another type")
    return StaticPlan(
        {name: _columns(path, name, form) for name, form in data["layers"].items()}, data["network"], data["made_by"]
    )


def _columns(path: object, name: str, form: Any) -> ColumnPlan:
    fits = (
        isinstance(form, dict)
        and sorted(form) == ["columns", "high"]
        and _is_count(form["columns"])
        and isinstance(form["high"], list)
        and all(_is_count(one) and one < form["columns"] for one in form["high"])
        and form["high"] == sorted(set(form["high"]))
    )
    if not fits:
        raise _no_plan(path, f"has of {name} other than columns and the numbers of those that are high, ascending")
    return ColumnPlan(form["columns"], tuple(form["high"]))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _no_plan(path: object, found: str) -> InputError:
    return InputError(f"{path}: {found}; expected a static plan; make one with `python -m simulator plan`")
