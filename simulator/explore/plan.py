"""A sweep as a file or in Python, and the tasks that it consists of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from simulator.cost import Gemm
from simulator.errors import InputError
from simulator.hardware import Machine
from simulator.hardware.document import Document, read_document
from simulator.hardware.quantities import describe
from simulator.hardware.template import Template

from . import identity
from .grid import axes, combinations
from .objectives import Goal
from .places import as_arguments, placed
from .work import Digests, Inputs, Layer, Task, Workload, load

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class _Form(NamedTuple):
    """What a key takes, whether in a file, in Python or among the values that vary."""

    kinds: type | tuple[type, ...]
    expected: str
    example: str
    fits: Callable[[Any], bool] = lambda value: True

    def problem(self, key: str, value: Any) -> str | None:
        """Return what is wrong with a value."""
        if isinstance(value, self.kinds) and not isinstance(value, bool) and self.fits(value):
            return None
        return f"got {describe(value)}; expected {self.expected}; write e.g. {key}: {self.example}"


_PATH = (str, os.PathLike)
_LIST = (list, tuple)
_COUNT = _Form(Integral, "a whole number from 1", "100", lambda value: value >= 1)
# What a network and its samples are named by, as the main job takes them.
_OF_INPUTS = {
    "model": _Form(str, "a network", "mlp"),
    "weights": _Form(_PATH, "a file", "weights.pt"),
    "data": _Form(_PATH, "a file", "samples.npz"),
    "samples": _COUNT,
    "calibration": _COUNT,
    "seed": _Form(Integral, "a whole number from 0 to 2**32 - 1", "0", lambda value: 0 <= value < 1 << 32),
}
_OF_COST = {
    "gemms": _Form(_LIST, "products (M, N, K) or (M, N, K, how many), at least one", "[[64, 64, 64]]", bool),
    "flagged": _Form(Real, "a share from 0 to 1", "0.05", lambda value: 0 <= value <= 1),
}
_OF_GRID = {
    "sweep": _Form(Mapping, "keys with lists", "{array.rows: [8, 16]}"),
    "only": _Form(_LIST, "a list of conditions", "[{array.dataflow: os}]"),
    "exclude": _Form(_LIST, "a list of conditions", "[{array.dataflow: os}]"),
}
_OF_SEARCH = {
    "objectives": _Form((Mapping, *_LIST), "names, at least one", "{accuracy: max, energy_j: min}", bool),
    "constraints": _Form(Mapping, "names with intervals", "{area_mm2: {to: 5}}"),
    "points": _COUNT,
    "seed": _OF_INPUTS["seed"],
    "at_once": _COUNT,
}
_HW = _Form(_PATH, "a machine file or the name of a bundled machine", "npu")
_OF_FILE = {
    "hw": _HW, **_OF_INPUTS, "cost": _Form(Mapping, "a mapping with gemms and flagged, or {}", "{flagged: 0.05}"),
    **_OF_GRID, "search": _Form(Mapping, "a mapping with objectives", "{objectives: [accuracy, energy_j]}"),
}  # fmt: skip
# What calls take in place of a plan.
_ARGUMENTS = ("hw", "varied", "name", "only", "exclude", "cost_only", *_OF_COST, *_OF_INPUTS)
# What varies beside keys of the machine.
_OWN = {"hw": _HW, **_OF_INPUTS, "flagged": _OF_COST["flagged"]}


@dataclass(frozen=True)
class Plan:
    """What a sweep computes.

    Args:
        name: of the sweep. hw: machine file or bundled name. inputs: network, samples and seed.
        varied: values by key, as grid.combinations takes them; keys of the machine's file, and hw, model, data,
            weights, samples, calibration, seed and flagged.
        only, exclude: conditions on them.
        cost_only: whether only the bill is asked for, and nothing is run.
        gemms: in that case the operations, (M, N, K) each, a fourth number says how many, one after another; None:
            those of the network.
        flagged: in that case the share of the outputs that two passes compute again.
        file: that it was read from, for messages about what only its points show.
    Raises:
        InputError: a value that one of these cannot have, or one that has no effect beside the others.
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
    file: Document | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.cost_only, bool):
            raise InputError(f"sweep: cost_only: got {describe(self.cost_only)}; expected true or false; write one")
        if not isinstance(self.name, str) or not self.name:
            raise InputError(f"sweep: name: got {describe(self.name)}; expected a text; write e.g. rows")
        if not isinstance(self.inputs, Inputs):
            raise InputError(f"sweep: inputs: got {describe(self.inputs)}; expected Inputs; make some")
        given: dict[str, Any] = {"sweep": self.varied, "only": self.only, "exclude": self.exclude, "hw": self.hw}
        given |= {name: value for name in _OF_INPUTS if (value := getattr(self.inputs, name)) is not None}
        given |= {"flagged": self.flagged} | ({} if self.gemms is None else {"gemms": self.gemms})
        forms = {**_OF_FILE, **_OF_COST}
        for key, value in given.items():
            name = "varied" if key == "sweep" else key  # as it is called in Python
            if problem := forms[key].problem(name, value):
                raise InputError(f"sweep: {name}: {problem}")
        if not self.cost_only and (self.gemms is not None or self.flagged):
            key = "flagged" if self.gemms is None else "gemms"
            raise InputError(
                f"sweep: {key}: given for a sweep that runs; expected it with cost; remove it, or add cost"
            )
        if self.gemms is not None and self.inputs != Inputs():
            raise _beside_gemms(
                next(key for key, value in vars(self.inputs).items() if value != getattr(Inputs(), key))
            )


def _beside_gemms(key: str) -> InputError:
    return InputError(
        f"sweep: {key}: given beside gemms, which are all that is priced; expected one of the two; remove one"
    )


def plan_of(what: str, plan: Plan | None = None, **given: Any) -> Plan:
    """Return the plan that the arguments of sweep and search make, of which None is as left out.

    Args:
        what: sweep or search, which is called NAME-search: a store has both of one plan. plan, given: the arguments.
    Raises:
        InputError: an argument beside a plan, which says all; a value that a plan cannot have.
    """
    said = {key: value for key, value in given.items() if value is not None}
    unknown = next((key for key in given if key not in _ARGUMENTS), None)
    if unknown is not None:
        raise TypeError(f"got an unexpected keyword argument {unknown!r}")
    if plan is not None and not isinstance(plan, Plan):
        raise InputError(
            f"{what}: plan: got {describe(plan)}; expected a Plan; read one with "
            f"{'read_search' if what == 'search' else 'read_plan'}"
        )
    if plan is None:
        inputs = Inputs(**{key: said.pop(key) for key in _OF_INPUTS if key in said})
        plan = Plan(**{"hw": "npu", "varied": {}, "name": "sweep", **said}, inputs=inputs)
    elif said:
        raise InputError(
            f"{what}: {next(iter(said))}: given beside plan, which says all; expected one of the two; remove one"
        )
    return replace(plan, name=f"{plan.name}-search") if what == "search" else plan


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Read a sweep file, or the sweep of all points among which a search file has some chosen.

    Raises:
        InputError: what is wrong in the file, `path:line:column: key: ...`.
    """
    return _read(path, ("hw", "sweep"))[0]


def read_search(path: str | os.PathLike[str]) -> tuple[Plan, Goal]:
    """Read a search file: the sweep of the points among which is chosen, and what for. Errors as of read_plan."""
    plan, goal = _read(path, ("hw", "sweep", "search"))
    assert goal is not None
    return plan, goal


def _read(path: str | os.PathLike[str], needed: Sequence[str]) -> tuple[Plan, Goal | None]:
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"sweep: got {describe(path)}; expected the path of a sweep file; give one")
    document = read_document(Path(path), os.fspath(path))
    data = document.data
    _check(document, (), _OF_FILE)
    varies = isinstance(data.get("sweep"), Mapping) and any("hw" in keys for keys in axes(data["sweep"]))
    for key in needed:
        if key not in data and not (key == "hw" and varies):
            document.problem(
                (), f"{key}: missing; expected {_OF_FILE[key].expected}; add e.g. '{key}: {_OF_FILE[key].example}'"
            )
    document.check()
    _check(document, ("search",), _OF_SEARCH)
    if "search" in data and "objectives" not in data["search"]:
        form = _OF_SEARCH["objectives"]
        document.problem(
            ("search",), f"objectives: missing; expected {form.expected}; add e.g. 'objectives: {form.example}'"
        )
    cost = data.get("cost")
    _check(document, ("cost",), _OF_COST)
    document.check()
    inputs = Inputs(**{name: data[name] for name in _OF_INPUTS if name in data})
    conditions = {name: data[name] for name in ("only", "exclude") if name in data}
    with placed(document):
        plan = Plan(
            Path(path).stem, data.get("hw", "npu"), data["sweep"], inputs, cost_only=cost is not None, **conditions,
            **(cost or {}), file=document,
        )  # fmt: skip
        if plan.gemms is not None:
            idle = next((name for name in _OF_INPUTS if name in data), None)  # one that is the default too
            if idle is not None:
                raise _beside_gemms(idle)
        goal = Goal(**data["search"]) if "search" in data else None
        if goal is not None and plan.cost_only:
            goal.check_priced()
        return plan, goal


def _check(document: Document, at: tuple[str, ...], forms: Mapping[str, _Form]) -> None:
    """Note which keys of a mapping of the file are unknown, and which have a value that they do not take."""
    inner = document.data if not at else document.data.get(at[0], {})
    for key, value in inner.items():
        if key not in forms:
            document.unknown((*at, key), forms)
        elif problem := forms[key].problem(key, value):
            document.problem((*at, key), problem)


class Planned(NamedTuple):
    """A point of a sweep: its parameters, its identity with the key, and the task; or why it can be none."""

    parameters: Mapping[str, Any]
    key: str | None
    identity: Mapping[str, Any]
    task: Task | None
    error: str | None


def grid(plan: Plan) -> list[dict[str, Any]]:
    """Return the parameters of all points of a plan.

    Raises:
        InputError: what is wrong with what varies.
    """
    with placed(plan.file):
        points = combinations(plan.varied, plan.only, plan.exclude)
        varied = points[0]
        if "flagged" in varied and not plan.cost_only:
            raise InputError(
                "sweep: flagged: varies in a sweep that runs, where flags are measured; expected it with cost; remove "
                "it"
            )
        idle = [key for key in varied if key in _OF_INPUTS or key.partition(".")[0] == "layers"]
        if idle and plan.gemms is not None:
            raise InputError(
                f"sweep: {idle[0]}: varies beside gemms, which are all that is priced; expected one of the two; remove "
                "one"
            )
        return points


class Planner:
    """Plans the points of a plan one by one; machine files, networks and samples are read once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._templates: dict[str, Template | InputError] = {}
        self._contents = _Contents(plan)

    def point(self, parameters: Mapping[str, Any]) -> Planned:
        """Return the point of these parameters, or with them why it can be none."""
        try:
            task, known = self._task(parameters)
        except InputError as error:
            return Planned(parameters, None, {}, None, as_arguments(str(error)))
        return Planned(parameters, task.key, known, task, None)

    def points(self, parameters: Iterable[Mapping[str, Any]]) -> Iterator[Planned]:
        """Return the points of these parameters, in their order.

        Raises:
            InputError: what is wrong with all of them, here and not when the first is asked for; what is wrong with
                some is said with these.
        """
        found = map(self.point, parameters)
        refused: list[Planned] = []
        for point in found:
            if point.error is None:
                return chain(refused, (point,), found)
            refused.append(point)
        with placed(self._plan.file):
            raise InputError(str(refused[0].error))

    def unlabelled(self, point: Planned) -> str | None:
        """Return the source of the samples that a point runs if these have no classes as labels."""
        return None if point.task is None else self._contents.unlabelled.get(point.task.inputs)

    def _task(self, parameters: Mapping[str, Any]) -> tuple[Task, Mapping[str, Any]]:
        """Return the task of a point, and its identity."""
        plan, contents = self._plan, self._contents
        own = {key: value for key, value in parameters.items() if key in _OWN}
        of_machine = {key: value for key, value in parameters.items() if key not in _OWN}
        for name, value in own.items():
            left_out = value is None and name in ("weights", "data", "samples", "calibration")
            if not left_out and (problem := _OWN[name].problem(name, value)):
                raise InputError(f"sweep: {name}: {problem}")
        hw = os.fspath(own.pop("hw", plan.hw))
        flagged = float(own.pop("flagged", plan.flagged))
        inputs = replace(plan.inputs, **own)
        machine = _once(self._templates, hw, partial(Template, hw)).machine(of_machine)
        if plan.cost_only:
            workload, digest = contents.workload(inputs)
            contents.check_rules(inputs, machine)
            machine = machine.described({})  # nothing of its file, of which no bill tells
            known = identity.of_bill(machine, digest, flagged)
            return Task(identity.key(known), machine, inputs, workload=workload, flagged=flagged), known
        digests = contents.digests(inputs)
        contents.check_rules(inputs, machine)
        known = identity.of_run(machine, *digests, inputs.seed)
        return Task(identity.key(known), machine, inputs, digests), known


def _once(found: dict[_Key, _Value | InputError], key: _Key, make: Callable[[], _Value]) -> _Value:
    """Return what was found under a key, made when it is first asked for; or say again why it could not be made."""
    if key not in found:
        try:
            found[key] = make()
        except InputError as error:
            found[key] = error
    value = found[key]
    if isinstance(value, InputError):
        raise InputError(str(value))
    return value


class _Contents:
    """What the points of a plan run or price; each network and its samples are read once.

    Attributes:
        unlabelled: the sources of samples that have no classes as labels.
    """

    def __init__(self, plan: Plan) -> None:
        self.unlabelled: dict[Inputs, str] = {}
        self._plan = plan
        self._digests: dict[Inputs, Digests | InputError] = {}
        self._modules: dict[Inputs, tuple[str, ...]] = {}
        self._workloads: dict[Inputs, tuple[Workload, str] | InputError] = {}

    def digests(self, inputs: Inputs) -> Digests:
        """Return the digests of what runs."""

        def make() -> Digests:
            loaded = load(inputs)
            self._modules[inputs] = _paths(loaded.model)
            if loaded.samples.y is None or loaded.samples.y.is_floating_point():
                self.unlabelled[inputs] = loaded.samples.source
            return loaded.digests

        return _once(self._digests, inputs, make)

    def check_rules(self, inputs: Inputs, machine: Machine) -> None:
        """Refuse rules of layers that fit no module of the network; of gemms nothing is known."""
        if machine.layers and inputs in self._modules:
            from simulator.network.rules import Rules

            Rules(machine, "low", machine.layers, self._modules[inputs])

    def workload(self, inputs: Inputs) -> tuple[Workload, str]:
        """Return what is priced, and its digest."""

        def make() -> tuple[Workload, str]:
            found = self._workload(inputs)
            return found, identity.digest(found)

        return _once(self._workloads, inputs, make)

    def _workload(self, inputs: Inputs) -> Workload:
        if self._plan.gemms is not None:
            gemms = self._plan.gemms
            return Workload(tuple(Layer(f"gemm{i}", "mm", _gemm(f"gemms[{i}]", gemm)) for i, gemm in enumerate(gemms)))
        from simulator.network.products import operations

        model, samples, _, _ = load(inputs)
        self._modules[inputs] = _paths(model)
        return Workload(tuple(Layer(*found) for found in operations(model, samples)), self._modules[inputs])


def _paths(model: Any) -> tuple[str, ...]:
    """Return the paths of all modules of a network, by which rules find them."""
    return tuple(path or type(model).__name__ for path, _ in model.named_modules())


def _gemm(at: str, shape: Any) -> Gemm:
    if not isinstance(shape, list | tuple) or len(shape) not in (3, 4):
        found = f"a list of {len(shape)}" if isinstance(shape, list | tuple) and shape else describe(shape)
        raise InputError(
            f"sweep: {at}: got {found}; expected M, N, K of each product, and how many there are of it if it is not "
            "one; write e.g. [64, 64, 784]"
        )
    try:
        return Gemm(*shape)
    except InputError as error:
        raise InputError(f"sweep: {at}: {str(error).removeprefix('gemm: ')}") from None
