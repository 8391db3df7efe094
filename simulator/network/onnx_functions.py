"""Versions of opsets, functions by which operators are defined, and operators that nothing defines here."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import onnx

from simulator.errors import InputError

from .onnx_operators.registry import Operator, find
from .onnx_scope import GRAPH

OLDEST_OPSET = 11


class Functions:
    """The functions by which operators of one file are defined, in the file or by ONNX itself.

    Args:
        model: the file's ModelProto. path: of the file, for messages.
    Raises:
        InputError: two functions of one name.
    """

    def __init__(self, model: Any, path: str) -> None:
        self._model = model
        self._of_file: dict[tuple[str, str], Any] = {}
        for function in model.functions:
            key = plain_domain(function.domain), function.name
            if key in self._of_file:
                raise InputError(
                    f"{path}: two functions {'.'.join(key)}; expected one; export the network without overloads"
                )
            self._of_file[key] = function

    def defines(self, domain: str, op: str) -> bool:
        """Whether the file itself defines an operator, whatever else that name may mean."""
        return (domain, op) in self._of_file

    def operator(self, node: Any, versions: Mapping[str, int]) -> Operator | None:
        """Return what computes a node here; None where a function, of the file or of ONNX, is to be expanded."""
        domain, op = plain_domain(node.domain), node.op_type
        return None if self.defines(domain, op) else find(domain, op, versions.get(domain, 0))

    def function(self, node: Any, versions: Mapping[str, int], outermost: bool) -> Any:
        """Return the function of a node's operator, a FunctionProto; None if it has none.

        Args:
            versions: of the opsets, by domain.
            outermost: whether the node stands in the graph of the file itself, which declares the types on which some
                functions of ONNX depend.
        """
        domain, op = plain_domain(node.domain), node.op_type
        version = versions.get(domain, 0)
        if self.defines(domain, op):
            return self._of_file[domain, op]
        try:
            schema: Any = onnx.defs.get_schema(op, version, domain)
        except onnx.defs.SchemaError:
            return None
        written = b""
        since = _latest(schema.function_opset_versions, version)
        if since is not None:
            written = schema.get_function_with_opset_version(since)
        elif outermost and not domain and all(name in self._types for name in node.input if name):
            since = _latest(schema.context_dependent_function_opset_versions, version)
            types = [self._types.get(name, b"") for name in node.input]
            if since is not None:
                written = _dependent(schema, since, node, types)
        function = onnx.FunctionProto()
        function.ParseFromString(written)
        # What a call leaves out has the value that the operator gives it.
        defaults = (one.default_value for one in schema.attributes.values())
        function.attribute_proto.extend(value for value in defaults if value.type)
        return function if function.node else None

    def unsupported(self, nodes: Iterable[Any], versions: Mapping[str, int], outermost: bool = True) -> Counter[str]:
        """Count the nodes whose operators are neither ours nor functions of such.

        The nodes in a function of the file count once, those in a function of ONNX as the operator that it defines.
        """
        counts: Counter[str] = Counter()
        seen: set[tuple[str, str]] = set()
        waiting = [(node, versions, outermost) for node in nodes]
        while waiting:
            node, opsets, outer = waiting.pop()
            key = plain_domain(node.domain), node.op_type
            waiting += [(inner, opsets, False) for one in node.attribute if one.type == GRAPH for inner in one.g.node]
            if self.operator(node, opsets) is not None:
                continue
            own = self.defines(*key)
            function = self.function(node, opsets, outer)
            imports = () if function is None else function.opset_import
            inside = {**opsets, **{plain_domain(one.domain): one.version for one in imports}}
            if own and key not in seen:
                seen.add(key)
                waiting += [(inner, inside, False) for inner in function.node]
            if not own and (function is None or self.unsupported(function.node, inside, outermost=False)):
                counts[".".join(filter(None, key))] += 1
        return counts

    @functools.cached_property
    def _types(self) -> dict[str, bytes]:
        """The types that the file declares of values in its graph, by name.

        The library could infer the others, but is brought down by files that were made for it.
        """
        graph = self._model.graph
        values = (*graph.input, *graph.value_info, *graph.output)
        types = {value.name: value.type.SerializeToString() for value in values}
        for tensor in graph.initializer:
            own = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
            types[tensor.name] = own.SerializeToString()
        return types


def _dependent(schema: Any, since: int, node: Any, types: list[bytes]) -> bytes:
    """Return the function that ONNX makes for a node whose inputs have some types; nothing if it makes none."""
    try:
        return bytes(schema.get_context_dependent_function_with_opset_version(since, node.SerializeToString(), types))
    except Exception:  # of a node with attributes that it does not take
        return b""


def _latest(versions: Iterable[int], version: int) -> int | None:
    return max((one for one in versions if one <= version), default=None)


def plain_domain(domain: str) -> str:
    """Return the name of a domain; ONNX's own has two."""
    return "" if domain == "ai.onnx" else domain


def opset_versions(path: str, imports: Iterable[Any]) -> dict[str, int]:
    """Return the version of each opset that a file, or a function in it, imports.

    Raises:
        InputError: ONNX's own is one that is not supported.
    """
    versions = {plain_domain(one.domain): one.version for one in imports}
    for domain, version in versions.items():
        if not 0 < version < 1 << 31:
            raise InputError(
                f"{path}: imports version {version} of the opset {domain or 'ai.onnx'}; expected a positive number; "
                "export the network anew"
            )
    newest = onnx.defs.onnx_opset_version()
    if "" in versions and not OLDEST_OPSET <= versions[""] <= newest:
        remedy = (
            f"convert it with onnx.version_converter.convert_version(onnx.load(path), {OLDEST_OPSET + 2})"
            if versions[""] < OLDEST_OPSET
            else "install a newer onnx, or export the network for an older opset"
        )
        raise InputError(f"{path}: of opset {versions['']}; expected {OLDEST_OPSET} to {newest}; {remedy}")
    return versions
