"""How large a graph is once its functions are expanded, found out before any of them is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from simulator.errors import InputError

from .onnx_functions import Functions, opset_versions, plain_domain
from .onnx_scope import GRAPH, Scope

# What one file may ask for: nodes after functions are expanded, which may call each other twice and again, and
# subgraphs and functions within each other.
MAX_NODES = 200_000
MAX_DEPTH = 50


class _Extent(NamedTuple):
    """How many nodes there are, those within them included, and how many graphs and functions within each other."""

    nodes: int
    depth: int


class Expansion:
    """Measures a graph; each function of the file is gone through once, however often it is called.

    Args:
        path: of the file, for messages. functions: by which operators are defined.
    """

    def __init__(self, path: str, functions: Functions) -> None:
        self._path = path
        self._functions = functions
        self._measured: dict[tuple[Any, ...], _Extent] = {}
        self._open: set[tuple[str, str]] = set()  # functions that are being measured

    def check(self, nodes: Iterable[Any], scope: Scope) -> None:
        """Refuse the graph of a file that has no end, or is too large.

        Raises:
            InputError: too many nodes, or within each other; a function that calls itself.
        """
        self._of_nodes(nodes, scope, 0)

    def _of_nodes(self, nodes: Iterable[Any], scope: Scope, depth: int) -> _Extent:
        """Return the extent of nodes that lie in so many graphs and functions."""
        self._check_depth(scope.where, depth)
        count = deepest = 0
        for number, node in enumerate(nodes):
            place = scope.place(number, node)
            if self._functions.operator(node, scope.versions) is None:
                inside = [self._of_function(node, scope, place, depth + 1)]
            else:
                graphs = [(one.name, one.g) for one in node.attribute if one.type == GRAPH]
                inside = [
                    self._of_nodes(graph.node, Scope(scope.versions, f"{place}, {name}"), depth + 1)
                    for name, graph in graphs
                ]
            count += 1 + sum(one.nodes for one in inside)
            deepest = max([deepest, *(1 + one.depth for one in inside)])
            if count > MAX_NODES:
                self._refuse("too many nodes, functions expanded", f"at most {MAX_NODES:,}", "take a smaller network")
        return _Extent(count, deepest)

    def _of_function(self, node: Any, scope: Scope, place: str, depth: int) -> _Extent:
        """Return the extent of the function of a node's operator."""
        key = plain_domain(node.domain), node.op_type
        if key in self._open:
            self._refuse(f"{place}: a function that calls itself", "one that ends", "export the network without it")
        function = self._functions.function(node, scope.versions, outermost=not scope.where)
        if function is None:  # whoever expands it says so
            return _Extent(0, 0)
        versions = {**scope.versions, **opset_versions(self._path, function.opset_import)}
        known = (*key, frozenset(versions.items()))
        if known in self._measured:
            self._check_depth(place, depth + self._measured[known].depth)
            return self._measured[known]
        self._open.add(key)
        extent = self._of_nodes(function.node, Scope(versions, place), depth)
        self._open.remove(key)
        if self._functions.defines(*key):  # those of ONNX may differ from node to node
            self._measured[known] = extent
        return extent

    def _check_depth(self, where: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            self._refuse(f"{where}: lies in {depth} others", f"at most {MAX_DEPTH}", "simplify it")

    def _refuse(self, found: str, expected: str, remedy: str) -> None:
        raise InputError(f"{self._path}: {found}; expected {expected}; {remedy}")
