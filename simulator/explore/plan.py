"""A sweep as a file or in Python, and the tasks that it consists of."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from simulator.cost import Gemm
from simulator.errors import InputError
from simulator.hardware.document import Document, read_document
from simulator.hardware.quantities import describe
from simulator.hardware.template import Template
from simulator.versions import NUMERICS

from . import identity
from .grid import OWN_KEYS, combinations
from .work import Digests, Inputs, Layer, Task, Workload, load


class _Form(NamedTuple):
    """What a key takes."""

    kinds: type | tuple[type, ...]
    expected: str
    example: str

    def problem(self, key: str, value: Any) -> str | None:
        """Return what is wrong with a value."""
        if isinstance(value, self.kinds) and not isinstance(value, bool):
            return None
        return f"got {describe(value)}; expected {self.expected}; write e.g. {key}: {self.example}"


_FORMS = {
    "hw": _Form(str, "a machine file or the name of a bundled machine", "npu"),
    "model": _Form(str, "a network", "mlp"),
    "weights": _Form(str, "a file", "weights.pt"),
    "data": _Form(str, "a file", "samples.npz"),
    "samples": _Form(int, "a whole number", "100"),
    "seed": _Form(int, "a whole number", "0"),
    "cost": _Form(dict, "a mapping with gemms and flagged", "{gemms: [[64, 64, 64]], flagged: 0.05}"),
    "sweep": _Form(dict, "keys with lists", "{array.rows: [8, 16]}"),
    "only": _Form(list, "a list of conditions", "[{array.dataflow: os}]"),
    "exclude": _Form(list, "a list of conditions", "[{array.dataflow: os}]"),
}
_COST_FORMS = {
    "gemms": _Form(list, "a list of products (M, N, K)", "[[64, 64, 64]]"),
    "flagged": _Form((int, float), "a share from 0 to 1", "0.05"),
}


@dataclass(frozen=True)
class Plan:
    """What a sweep computes.

    Args:
        name: of the sweep. hw: machine file or bundled name. inputs: network, samples and seed.
        varied: values by key, as grid.combinations takes them; keys of the machine's file, and hw, model, data,
            weights, samples, seed and flagged.
        only, exclude: conditions on them.
        cost_only: whether only the bill is asked for, and nothing is run.
        gemms: in that case the operations, (M, N, K) each; None: those of the network.
        flagged: in that case the share of the outputs that two passes compute again.
    """

    name: str
    hw: str
    varied: Mapping[str, Any]
    inputs: Inputs = field(default_factory=Inputs)
    only: Sequence[Mapping[str, Any]] = ()
    exclude: Sequence[Mapping[str, Any]] = ()
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
        if key not in _FORMS:
            document.problem((key,), f"unknown key; expected one of {', '.join(_FORMS)}; remove it", on_key=True)
    for key, form in _FORMS.items():
        if key in data and (problem := form.problem(key, data[key])):
            document.problem((key,), problem)
    for key in ("hw", "sweep"):
        if key not in data:
            document.problem((), f"{key}: missing; expected it in every sweep; add e.g. '{key}: ...'")
    document.check()
    cost = _cost(document)
    given = {name: data[name] for name in ("model", "weights", "data", "samples", "seed") if name in data}
    return Plan(
        Path(path).stem, data["hw"], data["sweep"], Inputs(**given), data.get("only", ()), data.get("exclude", ()),
        cost is not None, (cost or {}).get("gemms"), (cost or {}).get("flagged", 0.0),
    )  # fmt: skip


def _cost(document: Document) -> Mapping[str, Any] | None:
    cost: Mapping[str, Any] | None = document.data.get("cost")
    for key, value in (cost or {}).items():
        if key not in _COST_FORMS:
            document.problem(("cost", key), f"unknown key; expected {' or '.join(_COST_FORMS)}; remove it", on_key=True)
        elif problem := _COST_FORMS[key].problem(key, value):
            document.problem(("cost", key), problem)
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
    contents = _Contents(plan)
    points = grid(plan)
    if "flagged" in points[0] and not plan.cost_only:
        raise InputError(
            "sweep: flagged: varies in a sweep that runs, where flags are measured; expected it with cost; remove it"
        )
    idle = [key for key in points[0] if key in OWN_KEYS and key not in ("hw", "flagged")]
    if idle and plan.cost_only and plan.gemms is not None:
        raise InputError(
            f"sweep: {idle[0]}: varies beside gemms, which are all that is priced; expected one of the two; remove one"
        )
    # What all points share is the plan's own.
    if "hw" not in points[0]:
        templates[plan.hw] = Template(plan.hw)
    if not set(points[0]) & set(OWN_KEYS):
        contents.of(plan.inputs, plan.flagged)
    for parameters in points:
        own = {key: value for key, value in parameters.items() if key in OWN_KEYS}
        of_machine = {key: value for key, value in parameters.items() if key not in OWN_KEYS}
        try:
            for name, value in own.items():
                if problem := {**_FORMS, **_COST_FORMS}[name].problem(name, value):
                    raise InputError(f"sweep: {name}: {problem}")
            hw = own.pop("hw", plan.hw)
            flagged = own.pop("flagged", plan.flagged)
            inputs = replace(plan.inputs, **own)
            if hw not in templates:
                templates[hw] = Template(hw)
            machine = templates[hw].machine(of_machine)
            what, digests, workload = contents.of(inputs, flagged)
        except InputError as error:
            refused = {"plan": plan.name, "parameters": identity.plain(parameters), "numerics": NUMERICS}
            yield Planned(parameters, identity.key(refused), refused, None, str(error))
            continue
        known = {"machine": identity.of_machine(machine), **what, "numerics": NUMERICS}
        key = identity.key(known)
        if plan.cost_only:
            machine = replace(machine)  # without the configuration of its file, of which no bill tells
        yield Planned(parameters, key, known, Task(key, NUMERICS, machine, inputs, digests, workload, flagged), None)


def grid(plan: Plan) -> list[dict[str, Any]]:
    """Return the parameters of all points of a plan."""
    return combinations(plan.varied, plan.only, plan.exclude)


class _Contents:
    """What the points of a plan run or price; each network and its samples are read once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._digests: dict[Inputs, Digests] = {}
        self._workloads: dict[Inputs, tuple[Workload, dict[str, Any]]] = {}

    def of(self, inputs: Inputs, flagged: float) -> tuple[dict[str, Any], Digests | None, Workload | None]:
        """Return what belongs to the identity of a point, with digests if it runs, and the workload if not."""
        if self._plan.cost_only:
            if inputs not in self._workloads:
                found = self._workload(inputs)
                self._workloads[inputs] = found, {"workload": identity.digest(found)}
            workload, what = self._workloads[inputs]
            return {**what, "flagged": identity.plain(flagged)}, None, workload
        if inputs not in self._digests:
            self._digests[inputs] = load(inputs).digests
        digests = self._digests[inputs]
        return {**digests._asdict(), "seed": inputs.seed}, digests, None

    def _workload(self, inputs: Inputs) -> Workload:
        if self._plan.gemms is not None:
            if not self._plan.gemms:
                raise InputError("gemms: got none; expected some; write e.g. [[64, 64, 784]]")
            return Workload(tuple(Layer(f"gemm{i}", "mm", _gemm(gemm)) for i, gemm in enumerate(self._plan.gemms)))
        from simulator.network.shapes import operations

        model, samples, _ = load(inputs)
        modules = tuple(path or type(model).__name__ for path, _ in model.named_modules())
        return Workload(tuple(Layer(*found) for found in operations(model, samples)), modules)


def _gemm(shape: Any) -> Gemm:
    if not isinstance(shape, list | tuple) or len(shape) != 3:
        raise InputError(f"gemms: got {describe(shape)}; expected M, N, K of each product; write e.g. [64, 64, 784]")
    return Gemm(*shape)
