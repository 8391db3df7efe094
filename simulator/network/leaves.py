"""The tensors among the arguments and results of an operation of torch's dispatcher."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def tensors_in(tree: Any) -> list[Tensor]:
    """Return the tensors in tuples, lists and dictionaries, whatever is in which, in order.

    An operation of the dispatcher has no other containers; to know that makes this many times faster than torch's
    pytree, and it runs several times for each operation of a model.
    """
    found: list[Tensor] = []
    _gather(tree, found)
    return found


def _gather(tree: Any, found: list[Tensor]) -> None:
    if isinstance(tree, Tensor):
        found.append(tree)
    elif isinstance(tree, tuple | list):
        for part in tree:
            _gather(part, found)
    elif isinstance(tree, dict):
        for part in tree.values():
            _gather(part, found)
