"""How an operator of ONNX is written, and found for a node: by its domain, its name and the version of its opset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

# What flows along an edge: a tensor; a list, which is a sequence; or None, an optional without value or an input that
# was left out.
Value = Any


class Graph(Protocol):
    """A subgraph among the attributes of a node, which sees the values around it."""

    def __call__(self, *inputs: Value) -> list[Value]:
        """Return the outputs for some inputs, in the order of the graph."""


@dataclass(frozen=True)
class Node:
    """What an operator knows of the node that it computes.

    Args:
        op, domain: its name, and the domain that defines it, "" for ONNX's own.
        version: of that domain's opset, as the file imports it.
        attributes: by name: int, float, str, a list of these, Tensor, Graph, or a list of tensors or graphs.
        outputs: the names of those asked for, in order; "" for one between them that is left out.
        where: it stands in the file, for messages: node 12 /conv1/Conv (Conv).
    """

    op: str
    domain: str
    version: int
    attributes: Mapping[str, Any]
    outputs: tuple[str, ...]
    where: str

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or what stands for one that is not given."""
        return self.attributes.get(name, default)


class Declined(Exception):
    """An operator does not take these operands or attributes; the reason in words, as in "axes given as a tensor"."""


# A function of (node, *inputs), which returns its only output, or a tuple of several, in order. Inputs that are left
# out in the middle are None, at the end they are not passed. A list that is returned is one output, a sequence.
Operator = Callable[..., Any]

_OPERATORS: dict[tuple[str, str], dict[int, Operator]] = {}


def operator(*names: str, since: int = 1, domain: str = "") -> Callable[[Operator], Operator]:
    """Register a function for operators, from a version of their opset on until a later one is registered.

    Raises:
        ValueError: there is a function for one of them and this version already.
    """

    def register(function: Operator) -> Operator:
        for name in names:
            versions = _OPERATORS.setdefault((domain, name), {})
            if since in versions:
                raise ValueError(f"{name}: two functions since version {since}")
            versions[since] = function
        return function

    return register


def find(domain: str, op: str, version: int) -> Operator | None:
    """Return the function with the largest `since` of at most a version; None if there is none."""
    versions = _OPERATORS.get((domain, op), {})
    since = max((one for one in versions if one <= version), default=None)
    return None if since is None else versions[since]


def versions(name: str) -> list[int]:
    """Return since which versions there are functions for an operator, by a name of `supported`."""
    domain, _, op = name.rpartition(".")
    return sorted(_OPERATORS[domain, op])


def supported() -> list[str]:
    """Return the names of all operators that have a function, those of other domains as domain.name.

    The page of the documentation that lists them is made of these and `versions`.
    """
    return sorted(f"{domain}.{name}" if domain else name for domain, name in _OPERATORS)
