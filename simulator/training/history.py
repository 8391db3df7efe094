"""What a training was and did, epoch by epoch, as records and as plain data."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from simulator.notebook import Shown, Table, View, frame

from .observed import Observation
from .points import Counts
from .recipe import Recipe
from .updates import UpdateCounts

if TYPE_CHECKING:
    from formats.notebook import DataFrame


@dataclass(frozen=True)
class Epoch:
    """One pass over the samples.

    Args:
        number: from 0. loss: mean over the samples, as seen in training. accuracy: share of right answers among the
            test samples, or the training samples if there are none; None without classes.
        counts: by point and tensor. updates: by parameter. skipped: steps whose gradients were not finite under a
            dynamic loss scale. loss_scale: at the end. observation: of the last batch, if it was asked for.
    """

    number: int
    loss: float
    accuracy: float | None
    counts: dict[str, dict[str, Counts]] = field(default_factory=dict)
    updates: dict[str, UpdateCounts] = field(default_factory=dict)
    skipped: int = 0
    loss_scale: float = 1.0
    observation: Observation | None = None


_NUMBERS = ("number", "loss", "accuracy", "skipped", "loss_scale")  # of an epoch


@dataclass
class History(Shown):
    """What a training was and did.

    Args:
        recipe: in force. epochs: in order. steps: of the optimiser, in all.
    """

    recipe: Recipe
    epochs: list[Epoch] = field(default_factory=list)
    steps: int = 0

    @property
    def accuracy(self) -> float | None:
        """That of the last epoch."""
        return self.epochs[-1].accuracy if self.epochs else None

    def to_frame(self) -> DataFrame:
        """Return the numbers of the epochs as a DataFrame, a row each; needs pandas."""
        return frame(self._rows(), _NUMBERS)

    def _view(self) -> View:
        parts = ", ".join(self.recipe.parts) or "nothing"
        return View(f"Training, {self.steps:,} steps", [f"Rounded: {parts}."], [Table("Epochs", self._rows())])

    def _rows(self) -> list[dict[str, Any]]:
        return [{name: getattr(epoch, name) for name in _NUMBERS} for epoch in self.epochs]


def to_plain(record: Any) -> Any:
    """Return a record as mappings, lists, numbers and texts."""
    if is_dataclass(record) and not isinstance(record, type):
        return {each.name: to_plain(getattr(record, each.name)) for each in fields(record)}
    if isinstance(record, Mapping):
        return {name: to_plain(value) for name, value in record.items()}
    if isinstance(record, list | tuple):
        return [to_plain(value) for value in record]
    return record.tolist() if isinstance(record, np.ndarray) else record


def from_plain(kind: Any, plain: Any) -> Any:
    """Return the record of a type that `to_plain` made plain.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    if is_dataclass(kind):
        hints, make = get_type_hints(kind), cast("type[Any]", kind)
        return make(**{each.name: from_plain(hints[each.name], plain[each.name]) for each in fields(kind)})
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if plain is None else from_plain(next(one for one in inner if one is not type(None)), plain)
    if origin is dict:
        return {name: from_plain(inner[1], value) for name, value in plain.items()}
    if origin is np.ndarray:
        return np.array(plain, np.int64)
    if not isinstance(plain, kind):
        raise TypeError(f"got {type(plain).__name__}, expected {kind.__name__}")
    return plain
