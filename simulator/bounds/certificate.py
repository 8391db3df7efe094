"""Certificates: what was proved of some samples, as a file that a checker follows step by step without searching.

A certificate holds the graph with its constants, the inputs, what computes each operation, the bounds of every value,
and for each pair of classes the intervals of derivatives. Everything that the claim rests on is in it; digests of the
weights and of the inputs tie it to a network. docs/theory/bounds.md describes the file; the room `check`, which shares
no code with the analysis, verifies it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from simulator.arithmetic.spec import MacSpec
from simulator.errors import InputError
from simulator.hardware import Machine
from simulator.network.batches import fixed_batch
from simulator.network.digests import weights_digest
from simulator.report.directories import check_writable, write_file
from simulator.versions import versions

from .analysis import Forward, adjoints, forward
from .certify import METHODS, decision, recorded
from .graph import Node, Ref
from .products import RULES as PRODUCTS
from .products import unit_of
from .roundings import Rounding
from .rule import Unit
from .subject import Boxes, Subject, subject

KIND = "ulpsim bounds certificate 3"


def certificate(
    model: nn.Module,
    x: Any,
    mac: str | MacSpec | Machine | None = None,
    precision: int | None = None,
    mode: str = "low",
    method: str = METHODS[-1],
) -> dict[str, Any]:
    """Return the certificate of some samples, as data for a JSON file. Arguments and errors as of certify.

    Args:
        method: one of METHODS, used for all samples.
    """
    if method not in METHODS:
        raise InputError(f"bounds: method: got {method!r}; expected one of {', '.join(METHODS)}")
    of = subject(model, x, mac, precision, mode)
    samples, precision = of.x.lo.samples, of.precision
    at_once = fixed_batch(model) or samples
    if samples != at_once:
        raise InputError(
            f"bounds: certificate: got {samples} samples, which are one pass of the network in it; expected {at_once}, "
            f"as many as {type(model).__name__} takes at a time; give that many, e.g. --samples {at_once}"
        )
    unit = replace(of.unit(), running="running" in method)
    found = forward(recorded(model, of.x), of.x.bounded(), unit)
    decided = decision(found, "adjoint" in method)
    top = decided["top"]
    pairs = adjoints(found, top) if "adjoint" in method else {}
    constants: dict[str, Any] = {}
    graph = found.graph
    nodes = [_node(node, unit, constants) for node in graph.nodes if any(n in found.values for n in node.outputs)]
    body = {
        "kind": KIND,
        "versions": versions(),
        "network": {"name": type(model).__name__, "weights": weights_digest(model)},
        "inputs": {"arrays": _inputs(of.x, graph.inputs), "digest": _digest(of.x)},
        "unit": {
            "machine": unit.words if isinstance(mac, Machine) else None, "precision": precision, "fixed": unit.fixed,
            "running": unit.running, "library": unit.library,
        },
        "graph": {"output": graph.output, "nodes": nodes, "constants": constants},
        "values": {str(number): _value(found, number) for number in found.values},
        "gradients": {
            str(j): {str(number): {"lo": packed(g.lo), "hi": packed(g.hi)} for number, g in grads.items()}
            for j, grads in pairs.items()
        },
        "claim": {
            "method": method, "top": top.tolist(), "certified": decided["certified"].tolist(),
            "margins": packed(decided["margins"]), "bounds": packed(decided["bounds"]),
        },
    }  # fmt: skip
    return {**body, "digest": digest_of(body)}


def write_certificate(path: str | os.PathLike[str], of: Subject, method: str) -> Path:
    """Write the certificate of what was certified, whole or not at all, and return where.

    Raises:
        InputError: it cannot be made, or written.
    """
    where = Path(path)
    check_writable(where)
    write_file(where, text_of(certificate(*of, method)))
    return where


def text_of(found: Mapping[str, Any]) -> str:
    """Return the text of the file."""
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def digest_of(body: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a certificate without its own digest."""
    plain = {name: value for name, value in body.items() if name != "digest"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def packed(x: Tensor) -> dict[str, Any]:
    """Return an array as data: its shape, and its float64 values, little-endian in C order, compressed, in base64."""
    raw = x.detach().to(torch.float64).contiguous().numpy().astype("<f8").tobytes()
    return {"shape": list(x.shape), "data": base64.b64encode(zlib.compress(raw, 6)).decode()}


def digests(model: nn.Module, x: Boxes) -> tuple[str, str]:
    """Return the SHA-256 of weights, and of inputs or the ends of boxes, as a certificate has them."""
    return weights_digest(model), _digest(x)


def _inputs(x: Boxes, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Return both ends of every input as data, with its number in the graph; None of what has no axes."""
    left = iter(numbers)
    return [
        {"name": name, "value": next(left) if lo.dim() else None, "lo": packed(lo), "hi": packed(hi)}
        for name, (lo, hi) in x.named().items()
    ]


def _digest(x: Boxes) -> str:
    digest = hashlib.sha256()
    for _, ends in sorted(x.named().items()):
        for end in ends:
            digest.update(str(list(end.shape)).encode())
            digest.update(end.double().contiguous().numpy().astype("<f8").tobytes())
    return digest.hexdigest()


def _value(found: Forward, number: int) -> dict[str, Any]:
    x = found.values[number]
    parts = {"lo": x.lo, "hi": x.hi, "d": x.d, "e": x.e, "local": found.locals[number]}
    return {name: packed(part) for name, part in parts.items()}


def _node(node: Node, unit: Unit, constants: dict[str, Any]) -> dict[str, Any]:
    """Return an operation as data; constants of it are put by, each once."""

    def plain(leaf: Any) -> Any:
        if isinstance(leaf, Ref):
            return {"value": leaf.number}
        if isinstance(leaf, Tensor):
            if not leaf.is_floating_point():
                return {"integers": leaf.tolist()}
            key = hashlib.sha256(leaf.detach().double().contiguous().numpy().tobytes() + str(leaf.shape).encode())
            constants.setdefault(key.hexdigest()[:16], packed(leaf))
            return {"constant": key.hexdigest()[:16]}
        if leaf is None or isinstance(leaf, bool | int | float | str):
            return leaf
        return str(leaf)

    args, kwargs = tree_map(plain, (list(node.args), dict(node.kwargs)), is_leaf=lambda x: isinstance(x, Ref))
    computed: dict[str, Any] = {"vector": _rounding(unit.vector(node.path))}
    if node.kind in PRODUCTS:
        spec = unit_of(node, unit)
        computed = {"mac": str(spec), "ordered": unit.mac(node.layer) is not None, **computed}
        second = unit.second(node.layer)
        if second is not None:
            computed["second"] = {**second._asdict(), "mac": str(second.mac)}
    if node.use is not None:
        computed["use"] = str(node.use)
    return {
        "kind": node.kind, "path": node.path, "layer": node.layer, "args": args, "kwargs": kwargs,
        "outputs": list(node.outputs), "shapes": [list(shape) for shape in node.shapes], **computed,
    }  # fmt: skip


def _rounding(r: Rounding) -> dict[str, Any]:
    return {"u": r.u, "eta": r.eta, "largest": None if r.largest == float("inf") else r.largest, "nearest": r.nearest}
