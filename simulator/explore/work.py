"""What a worker computes: one point, from its machine to its record."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from simulator.cost import Gemm, price
from simulator.errors import InputError, first_line
from simulator.hardware import Machine

if TYPE_CHECKING:
    from simulator.network.samples import Samples


@dataclass(frozen=True)
class Inputs:
    """A network and its samples, as the main job names them."""

    model: str = "mlp"
    weights: str | None = None
    data: str | None = None
    samples: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Layer:
    """An operation of which only the bill is asked for."""

    name: str
    op: str
    gemm: Gemm


@dataclass(frozen=True)
class Task:
    """A point to compute.

    Args:
        key: of the point. machine: on which. inputs: network and samples.
        layers: of a point that is only priced, its operations; None: the network runs.
        flagged: share of the outputs that two passes compute again where a point is only priced.
    """

    key: str
    machine: Machine
    inputs: Inputs
    layers: tuple[Layer, ...] | None = None
    flagged: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What became of a task: its record as plain data, or why there is none, and whether it would be so again."""

    key: str
    record: Mapping[str, Any] | None
    error: str | None
    final: bool
    seconds: float


def compute(tasks: Sequence[Task], threads: int | None = None) -> list[Outcome]:
    """Compute tasks one after the other; what fails does not stop the others."""
    return [_compute(task, threads) for task in tasks]


def _compute(task: Task, threads: int | None) -> Outcome:
    begun = time.perf_counter()
    record: dict[str, Any] | None = None
    error, final = None, True
    try:
        record = _run(task, threads) if task.layers is None else _priced(task)
    except InputError as refused:
        error = str(refused)
    except Exception as fault:  # a fault of ours, or of the user's code: noted, and tried again the next time
        where = traceback.extract_tb(fault.__traceback__)[-1]
        error, final = f"{type(fault).__name__}: {first_line(fault)} ({where.filename}:{where.lineno})", False
    return Outcome(task.key, record, error, final, time.perf_counter() - begun)


def _run(task: Task, threads: int | None) -> dict[str, Any]:
    from simulator.network.evaluation import evaluate
    from simulator.network.threads import use_threads

    if threads is not None:
        use_threads(threads)
    model, samples = load(task.inputs)
    result = evaluate(model, task.machine, samples.x, samples.y, seed=task.inputs.seed, threads=threads)
    return {**result.to_dict(), "model": task.inputs.model}


@lru_cache(maxsize=4)
def load(inputs: Inputs) -> tuple[Any, Samples]:
    """Return a network, a torch module, and its samples; those of the last points stay."""
    from simulator.network.model_files import load_model
    from simulator.network.samples import load_samples

    model = load_model(inputs.model, inputs.weights, False, inputs.seed)
    return model, load_samples(inputs.data, inputs.samples, model)


def _priced(task: Task) -> dict[str, Any]:
    """Return the bill of a point's operations in every mode that its machine has."""
    machine = task.machine
    modes: dict[str, float | None] = {"low": None}
    if machine.mac.high is not None:
        modes["high"] = None
    if machine.policy is not None:
        modes["two_pass"] = task.flagged
    assert task.layers is not None
    totals: dict[str, Any] = dict.fromkeys(("low", "high", "two_pass"))
    for mode, flags in modes.items():
        costs = [price(machine, layer.gemm, mode, flags) for layer in task.layers]
        totals[mode] = {
            name: sum(getattr(cost, name) for cost in costs)
            for name in ("cycles", "latency_s", "energy_j", "energy_low_j", "energy_high_j", "roofline_cycles")
        }
        warnings = dict.fromkeys(text for cost in costs for text in cost.warnings)
    return {
        "hardware": machine.name,
        "totals": totals,
        "layers": [{"name": layer.name, "op": layer.op, **asdict(layer.gemm)} for layer in task.layers],
        "warnings": list(warnings),
    }
