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

_KIND = "ulpsim static plan 2"
_KEYS = ("kind", "network", "low", "high", "made_by", "layers")


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
        layers: by name. network: digest of the weights that it was made for. units: the low and the high MAC that it
            was made for, in string form. made_by: how, in words.
    """

    layers: Mapping[str, ColumnPlan]
    network: str
    units: tuple[str, str]
    made_by: str = ""

    def __hash__(self) -> int:
        return hash((tuple(self.layers.items()), self.network, self.units))

    def to_json(self) -> str:
        """Return the text of its file."""
        layers = {name: {"columns": one.columns, "high": list(one.high)} for name, one in self.layers.items()}
        lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(of)}" for name, of in layers.items())
        low, high = self.units
        head = {"kind": _KIND, "network": self.network, "low": low, "high": high, "made_by": self.made_by}
        return json.dumps(head, indent=2)[:-2] + f',\n  "layers": {{\n{lines}\n  }}\n}}\n'


@dataclass(frozen=True)
class Agreement:
    """How the columns of a plan agree with the flags of a policy, of a layer.

    Args:
        layer: its name. outputs: how many there were. planned: those in high columns. flagged: those that the policy
            flags. both: those that are both.
    """

    layer: str
    outputs: int
    planned: int
    flagged: int
    both: int

    @property
    def precision(self) -> float | None:
        """Share of what is planned that the policy flags; None if nothing is."""
        return self.both / self.planned if self.planned else None

    @property
    def recall(self) -> float | None:
        """Share of what the policy flags that is planned; None if it flags nothing."""
        return self.both / self.flagged if self.flagged else None


def read_static_plan(path: str | os.PathLike[str]) -> StaticPlan:
    """Read a plan.

    Raises:
        InputError: there is no such file, or it is no plan.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_mapping)
    except FileNotFoundError:
        raise _no_plan(path, "no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise _no_plan(path, f"cannot be read ({str(error).splitlines()[0]})") from None
    if not isinstance(data, dict) or data.get("kind") != _KIND or sorted(data) != sorted(_KEYS):
        raise _no_plan(path, f"holds {describe(data)} without the keys {', '.join(_KEYS)} and the kind {_KIND!r}")
    words = ("network", "low", "high", "made_by")
    if not isinstance(data["layers"], dict) or not all(isinstance(data[key], str) for key in words):
        raise _no_plan(path, f"has layers, {', '.join(words[:-1])} or {words[-1]} of another type")
    layers = {name: _columns(path, name, form) for name, form in data["layers"].items()}
    return StaticPlan(layers, data["network"], (data["low"], data["high"]), data["made_by"])


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} twice")
    return found


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
