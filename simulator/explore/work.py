"""What a worker computes: one point, from its machine to its record."""

from __future__ import annotations

import copy
import platform
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from simulator.cost import Gemm, known_area, price
from simulator.errors import InputError, first_line
from simulator.hardware import Machine
from simulator.result import PRICED_MODES
from simulator.versions import NUMERICS

if TYPE_CHECKING:
    from simulator.network.samples import Samples


@dataclass(frozen=True)
class Inputs:
    """A network and its samples, as the main job names them; the first `calibration` of these do not run."""

    model: str = "mlp"
    weights: str | None = None
    data: str | None = None
    samples: int | None = None
    seed: int = 0
    calibration: int | None = None
    allow_code: bool = False


class Layer(NamedTuple):
    """A product of which only the bill is asked for."""

    name: str
    op: str
    gemm: Gemm


class Workload(NamedTuple):
    """What is priced without being run: products, and the paths of all modules of the network if they are of one."""

    layers: tuple[Layer, ...]
    modules: tuple[str, ...] = ()


class Digests(NamedTuple):
    """What a network and its samples are known by, see simulator.network.digests."""

    network: str
    samples: str
    calibration: str | None = None


@dataclass(frozen=True)
class Task:
    """A point to compute.

    Args:
        key: of the point. machine: on which. inputs: network and samples.
        digests: of these, where the network runs; a worker that finds others refuses the task.
        workload: of a point that is only priced; None: the network runs.
        flagged: share of the outputs that two passes compute again where a point is only priced.
        numerics: version that the key stands for.
    """

    key: str
    machine: Machine
    inputs: Inputs
    digests: Digests | None = None
    workload: Workload | None = None
    flagged: float = 0.0
    numerics: int = NUMERICS


@dataclass(frozen=True)
class Outcome:
    """What became of a task: its record as plain data, or why there is none; and the seconds that it took."""

    key: str
    record: Mapping[str, Any] | None
    error: str | None
    seconds: float


def compute(tasks: Sequence[Task], threads: int | None = None) -> list[Outcome]:
    """Compute tasks one after the other; what fails does not stop the others."""
    return [_compute(task, threads) for task in tasks]


def _compute(task: Task, threads: int | None) -> Outcome:
    begun = time.perf_counter()
    record: dict[str, Any] | None = None
    error = None
    try:
        if task.numerics != NUMERICS:
            raise _Elsewhere(f"numerics of version {NUMERICS}, expected {task.numerics}; install the same ulpsim there")
        record = _run(task, threads) if task.workload is None else _priced(task, task.workload)
    except _Elsewhere as other:
        error = f"the worker on {platform.node()} has {other}"
    except InputError as refused:
        error = str(refused)
    except Exception as fault:  # of ours, or of the user's code
        where = traceback.extract_tb(fault.__traceback__)[-1]
        error = f"{type(fault).__name__}: {first_line(fault)} ({where.filename}:{where.lineno})"
    if error is not None:
        error = error.encode("utf-8", "backslashreplace").decode()  # a text that a store can keep
    return Outcome(task.key, record, error, time.perf_counter() - begun)


def _run(task: Task, threads: int | None) -> dict[str, Any]:
    from simulator.network.evaluation import evaluate
    from simulator.network.threads import torch_threads

    with torch_threads(threads):
        model, samples, calibration, _ = _as_planned(task)
        result = evaluate(
            model, task.machine, samples.x, samples.y, calibration=None if calibration is None else calibration.x,
            seed=task.inputs.seed, threads=threads,
        )  # fmt: skip
    return {**result.to_dict(), "model": task.inputs.model}


class _Elsewhere(Exception):
    """A worker has something else than the sweep was planned with."""


class Loaded(NamedTuple):
    """A network, a torch module, its samples, those for calibration and what they are known by."""

    model: Any
    samples: Samples
    calibration: Samples | None
    digests: Digests


def load(inputs: Inputs, most: int | None = None) -> Loaded:
    """Read a network and its samples, at most so many where `inputs` does not say how many."""
    from simulator.network.batches import check_whole
    from simulator.network.digests import network_digest, samples_digest
    from simulator.network.model_files import load_model
    from simulator.network.samples import load_samples

    # A copy: a name in a module of the user's may be a network that other weights are read into later.
    model = copy.deepcopy(load_model(inputs.model, inputs.weights, inputs.allow_code, inputs.seed))
    network = network_digest(model, inputs.model)
    if inputs.calibration is None:
        samples = load_samples(inputs.data, inputs.samples, model, most=most)
        return Loaded(model, samples, None, Digests(network, samples_digest(samples)))
    samples = load_samples(inputs.data, None, model, whole=False)
    left = samples.size - inputs.calibration
    if left < (inputs.samples or 1):
        raise InputError(
            f"calibration: got {inputs.calibration} of the {samples.size} samples of {samples.source}; expected "
            f"{inputs.samples or 1} to be left that run; give fewer"
        )
    end = None if inputs.samples is None else inputs.calibration + inputs.samples
    first, rest = samples.part(slice(inputs.calibration)), samples.part(slice(inputs.calibration, end))
    check_whole(model, first.size, "calibration", "--calibration")
    check_whole(model, rest.size, f"{samples.source} behind those for calibration", "--samples")
    return Loaded(model, rest, first, Digests(network, samples_digest(rest), samples_digest(first)))


_recent = lru_cache(maxsize=4)(load)


def _as_planned(task: Task) -> Loaded:
    """Return the network and samples of a task; those of the last tasks stay, as long as they are what is asked for."""
    try:
        found = _recent(task.inputs)
        if found.digests != task.digests:  # the files changed, since a sweep before or since this one was planned
            _recent.cache_clear()
            found = _recent(task.inputs)
    except InputError as missing:
        raise _Elsewhere(f"no such network or samples: {missing}") from None
    if found.digests != task.digests:
        raise _Elsewhere(
            "another network or other samples than the sweep was planned with; run it again, with the same files there"
        )
    return found._replace(model=copy.deepcopy(found.model))  # what a run leaves in it the next one must not see


def _priced(task: Task, workload: Workload) -> dict[str, Any]:
    """Return the bill of a point's products in every mode that its machine has, each layer's as its rules say."""
    machine = task.machine
    modes = ["low"]
    if machine.mac.high is not None:
        modes.append("high")
    if machine.policy is not None:
        modes.append("two_pass")
    totals: dict[str, Any] = dict.fromkeys(PRICED_MODES)
    warnings: dict[str, None] = {}
    for mode in modes:
        ways = _ways(machine, mode, workload)
        others = [f"{name} ({way.label})" for name, way in ways.items() if way.label not in totals]
        if others:
            warnings[f"{mode}: no totals, since these layers have no price: {', '.join(others)}"] = None
            continue
        known: dict[Any, Any] = {}  # deep networks repeat their layers; machines, which have no hash, by identity
        costs = []
        for layer in workload.layers:
            label, own = ways[layer.name]
            key = label, id(own), layer.gemm
            if key not in known:
                known[key] = price(own, layer.gemm, label, task.flagged if label == "two_pass" else None)
            costs.append(known[key])
        names = ("cycles", "latency_s", "energy_j", "energy_low_j", "energy_high_j", "roofline_cycles")
        totals[mode] = {name: sum(getattr(cost, name) for cost in costs) for name in names}
        warnings.update(dict.fromkeys(text for cost in costs for text in cost.warnings))
    area = known_area(machine)
    return {
        "hardware": machine.name,
        "totals": totals,
        "area_um2": None if area is None else area.area_um2,
        "layers": [{"name": layer.name, "op": layer.op, **asdict(layer.gemm)} for layer in workload.layers],
        "warnings": list(warnings),
    }


class _Way(NamedTuple):
    """How a layer is computed: its mode, and the machine as it sees it."""

    label: str
    machine: Machine


def _ways(machine: Machine, mode: str, workload: Workload) -> dict[str, _Way]:
    """Return how each layer is computed, by its name; rules of layers hold for those of networks."""
    if not machine.layers or not workload.modules:
        return {layer.name: _Way(mode, machine) for layer in workload.layers}
    from simulator.network.rules import Rules

    rules = Rules(machine, mode, machine.layers, workload.modules)
    forward = {layer.name: rules.forward(layer.name) for layer in workload.layers}
    return {
        name: _Way(one.label, machine if one.policy is None else replace(machine, policy=one.policy))
        for name, one in forward.items()
    }
