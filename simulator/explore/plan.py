"""A sweep as a file or in Python, and the tasks that it consists of."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

from simulator.cost import Gemm
from simulator.errors import InputError
from simulator.hardware.document import Document, read_document
from simulator.hardware.quantities import describe
from simulator.hardware.template import Template
from simulator.versions import NUMERICS

from . import identity
from .grid import OWN_KEYS, combinations
from .work import Inputs, Layer, Task, load

_KEYS = ("hw", "model", "weights", "data", "samples", "seed", "cost", "sweep", "only")
_COST_KEYS = ("gemms", "flagged")


@dataclass(frozen=True)
class Plan:
    """What a sweep computes.

    Args:
        name: of the sweep. hw: machine file or bundled name. inputs: network, samples and seed.
        varied: values by key, as grid.combinations takes them; keys of the machine's file, and hw, model, data,
            weights, samples, seed and flagged.
        only: conditions on them.
        cost_only: whether only the bill is asked for, and nothing is run.
        gemms: in that case the operations, (M, N, K) each; None: those of the network.
        flagged: in that case the share of the outputs that two passes compute again.
    """

    name: str
    hw: str
    varied: Mapping[str, Any]
    inputs: Inputs = field(default_factory=Inputs)
    only: Sequence[Mapping[str, Any]] = ()
    cost_only: bool = False
    gemms: Sequence[Sequence[int]] | None = None
    flagged: float = 0.0


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Read a sweep file.

    Raises:
        InputError: what is wrong in the file, `path:line:column: key: ...`.
    """
    document = read_document(Path(path), os.fspath(path))
    data = document.data
    for key in data:
        if key not in _KEYS:
            document.problem((key,), f"unknown key; expected one of {', '.join(_KEYS)}; remove it", on_key=True)
    for key, kinds, expected, example in (
        ("hw", str, "a machine file or the name of a bundled machine", "npu"),
        ("model", str, "a network", "mlp"),
        ("weights", str, "a file", "weights.pt"),
        ("data", str, "a file", "samples.npz"),
        ("samples", int, "a whole number", "100"),
        ("seed", int, "a whole number", "0"),
        ("sweep", dict, "keys with lists", "{array.rows: [8, 16]}"),
        ("only", list, "a list of conditions", "[{array.dataflow: os}]"),
        ("cost", dict, "a mapping with gemms and flagged", "{gemms: [[64, 64, 64]], flagged: 0.05}"),
    ):
        if key in data and (not isinstance(data[key], kinds) or isinstance(data[key], bool)):
            document.problem((key,), f"got {describe(data[key])}; expected {expected}; write e.g. {key}: {example}")
    for key in ("hw", "sweep"):
        if key not in data:
            document.problem((), f"{key}: missing; expected it in every sweep; add e.g. '{key}: ...'")
    document.check()
    cost = _cost(document)
    given = {name: data[name] for name in ("model", "weights", "data", "samples", "seed") if name in data}
    return Plan(
        Path(path).stem, data["hw"], data["sweep"], Inputs(**given), data.get("only", ()), cost is not None,
        (cost or {}).get("gemms"), (cost or {}).get("flagged", 0.0),
    )  # fmt: skip


def _cost(document: Document) -> Mapping[str, Any] | None:
    cost: Mapping[str, Any] | None = document.data.get("cost")
    for key in cost or ():
        if key not in _COST_KEYS:
            document.problem(("cost", key), f"unknown key; expected {' or '.join(_COST_KEYS)}; remove it", on_key=True)
    document.check()
    return cost


@dataclass(frozen=True)
class Planned:
    """A point of a sweep: its parameters, what it is addressed by, and the task; or why it cannot be computed."""

    parameters: Mapping[str, Any]
    key: str
    identity: Mapping[str, Any]
    task: Task | None
    error: str | None


def planned(plan: Plan) -> Iterator[Planned]:
    """Yield all points of a plan, in the order of the grid.

    Raises:
        InputError: what is wrong with the plan itself; what is wrong with a point is said with it.
    """
    templates: dict[str, Template] = {}
    for parameters in combinations(plan.varied, plan.only):
        own = {key: value for key, value in parameters.items() if key in OWN_KEYS}
        of_machine = {key: value for key, value in parameters.items() if key not in OWN_KEYS}
        try:
            hw = str(own.pop("hw", plan.hw))
            flagged = own.pop("flagged", plan.flagged)
            inputs = replace(plan.inputs, **own)
            if hw not in templates:
                templates[hw] = Template(hw)
            machine = templates[hw].machine(of_machine)
            what, layers = _what(plan, inputs, flagged)
        except InputError as error:
            refused = {"plan": plan.name, "parameters": identity.plain(parameters), "numerics": NUMERICS}
            yield Planned(parameters, identity.key(refused), refused, None, str(error))
            continue
        known = {"machine": identity.of_machine(machine), **what, "numerics": NUMERICS}
        key = identity.key(known)
        yield Planned(parameters, key, known, Task(key, machine, inputs, layers, flagged), None)


def _what(plan: Plan, inputs: Inputs, flagged: float) -> tuple[dict[str, Any], tuple[Layer, ...] | None]:
    """Return the identity of what runs or is priced, and in the latter case the operations."""
    if plan.cost_only:
        layers = _layers(plan, inputs)
        shapes = [astuple(layer.gemm) for layer in layers]
        return {"layers": shapes, "flagged": identity.plain(flagged)}, layers
    from simulator.network.digests import network_digest, samples_digest

    model, samples = load(inputs)
    return {
        "network": _digest(inputs, network_digest, model),
        "samples": _digest(inputs, samples_digest, samples),
        "seed": inputs.seed,
    }, None


_DIGESTS: dict[tuple[Inputs, Any], str] = {}


def _digest(inputs: Inputs, function: Any, value: Any) -> str:
    """Return a digest, made once a process."""
    if (inputs, function) not in _DIGESTS:
        _DIGESTS[inputs, function] = function(value)
    return _DIGESTS[inputs, function]


def _layers(plan: Plan, inputs: Inputs) -> tuple[Layer, ...]:
    if plan.gemms is not None:
        return tuple(Layer(f"gemm{i}", "mm", Gemm(*gemm)) for i, gemm in enumerate(plan.gemms))
    from simulator.network.shapes import operations

    model, samples = load(inputs)
    return tuple(Layer(name, op, gemm) for name, op, gemm in operations(model, samples))
