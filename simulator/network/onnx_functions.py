"""Versions of opsets, functions by which operators are defined, and operators that nothing defines here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import onnx

from simulator.errors import InputError

from .onnx_operators.registry import find
from .onnx_scope import GRAPH

OLDEST_OPSET = 11


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


def schema_function(domain: str, op: str, version: int) -> Any:
    """Return the function by which ONNX itself defines an operator, a FunctionProto; None if it does not."""
    try:
        schema: Any = onnx.defs.get_schema(op, version, domain)
    except onnx.defs.SchemaError:
        return None
    since = max((one for one in schema.function_opset_versions if one <= version), default=None)
    if since is None:
        return None
    function = onnx.FunctionProto()
    function.ParseFromString(schema.get_function_with_opset_version(since))
    return function


def unsupported(
    nodes: Iterable[Any], versions: Mapping[str, int], functions: Mapping[tuple[str, str], Any]
) -> Counter[str]:
    """Count the nodes whose operators are neither ours nor functions of such, those of each function once."""
    counts: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    waiting = [(node, versions) for node in nodes]
    while waiting:
        node, opsets = waiting.pop()
        key = plain_domain(node.domain), node.op_type
        waiting += [(inner, opsets) for one in node.attribute if one.type == GRAPH for inner in one.g.node]
        function = functions.get(key)
        if function is None:
            if find(*key, opsets.get(key[0], 0)) is not None:
                continue
            function = schema_function(*key, opsets.get(key[0], 0))
        if function is None:
            counts[".".join(filter(None, key))] += 1
        elif key not in seen:
            seen.add(key)
            inner_versions = {plain_domain(one.domain): one.version for one in function.opset_import}
            waiting += [(inner, {**opsets, **inner_versions}) for inner in function.node]
    return counts
