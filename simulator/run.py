"""The main job: a network on a machine, from a YAML file to a record, as one list of steps."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .cost import mode_energy
from .errors import InputError
from .hardware import Machine, load_hardware
from .network.consumers import Consumer, record_first_sample
from .network.emulation import Emulation
from .network.ops import Op
from .network.samples import Samples, load_model, load_samples
from .network.tally import LayerTally
from .result import MODES, RunResult

# Samples run together: as many as keep the outputs of all layers below this, so that memory stays bounded.
OUTPUTS_PER_BATCH = 1 << 22

Progress = Callable[[int, int], None]


def run(
    hw: str | os.PathLike[str],
    model: str = "mlp",
    data: str | None = None,
    samples: int | None = None,
    tolerance: float | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Run a network on a machine in every mode: exact, uniform low, uniform high and two-pass.

    Args:
        hw: hardware YAML file, or the name of a bundled one.
        model: mlp or cnn. data: `.npz` file with x and y; None for the bundled digits. samples: how many; None for all.
        tolerance: of the two-pass policy; None for the file's.
        seed: of every random choice. threads: at most so many; None for all processors available.
        progress: called with (samples done, samples in all), counted over all modes.
    Raises:
        InputError: input that the user can put right.
    """
    if threads is not None and threads < 1:
        raise InputError(
            f"--threads: got {threads}; expected at least 1; give more, or leave it out for all processors"
        )
    if not 0 <= seed < 1 << 32:
        raise InputError(f"--seed: got {seed}; expected 0 to {(1 << 32) - 1}; give such a number, or leave it out")
    machine = load_hardware(hw)
    if tolerance is not None:
        machine = machine.with_tolerance(tolerance)
    for unit in (machine.mac.low, machine.mac.high):
        if unit is not None:
            mode_energy(machine, unit)  # what cannot be priced is refused before anything runs
    network = load_model(model)
    inputs = load_samples(data, samples, network)
    with torch.no_grad():
        consumers = record_first_sample(network, network, (inputs.x[:1],), {})
    modes = ("exact", "low") if machine.mac.high is None else MODES if machine.policy else ("exact", "low", "high")
    passes = {mode: _Pass(machine, network, mode, consumers, seed, threads) for mode in modes}
    size = _batch_size(consumers)
    for first in range(0, len(inputs.x), size):
        batch = inputs.x[first : first + size]
        exact: dict[str, NDArray[Any]] = {}
        for i, mode in enumerate(modes):
            passes[mode].forward(batch, exact)
            if progress is not None:
                progress(first * len(modes) + (i + 1) * len(batch), len(inputs.x) * len(modes))
    return _summary(model, inputs, passes, _notes(machine))


class _Pass:
    """The network in one mode: its emulation and its logits."""

    def __init__(
        self, machine: Machine, network: nn.Module, mode: str, consumers: Mapping[str, Consumer], seed: int,
        threads: int | None,
    ) -> None:  # fmt: skip
        self.network, self.mode = network, mode
        self.emulation = Emulation(
            network, machine, default=mode, observers=(self._observe,), seed=seed, threads=threads, consumers=consumers
        )
        self.logits: list[Tensor] = []
        self._exact: dict[str, NDArray[Any]] = {}

    def forward(self, batch: Tensor, exact: dict[str, NDArray[Any]]) -> None:
        """Run a batch; `exact` receives the outputs of the exact mode's Ops, the other modes are compared with it."""
        self._exact = exact
        with torch.no_grad(), self.emulation:
            self.logits.append(self.network(batch))

    def _observe(self, op: Op, outputs: NDArray[Any], tally: LayerTally) -> None:
        if self.mode == "exact":
            self._exact[op.name] = outputs.copy()
        else:
            tally.errors.add(outputs, self._exact[op.name])


def _batch_size(consumers: Mapping[str, Consumer]) -> int:
    per_sample = sum(consumer.outputs for consumer in consumers.values())
    return max(1, min(256, OUTPUTS_PER_BATCH // max(1, per_sample)))


def _notes(machine: Machine) -> tuple[str, ...]:
    """What a reader must know of the comparison itself."""
    low, high = machine.mac.low.spec, machine.mac.high.spec if machine.mac.high else None
    if high is None or high.operands == low.operands:
        return ()
    return (
        "exact has the operands of the low mode, and those of the high mode differ: "
        "its errors include the difference of the operands",
    )


def _summary(model: str, inputs: Samples, passes: Mapping[str, _Pass], notes: tuple[str, ...]) -> RunResult:
    """Bring the modes together in one record; its layers are those of the most advanced mode."""
    results = {mode: p.emulation.result for mode, p in passes.items()}
    logits = {mode: torch.cat(p.logits).double() for mode, p in passes.items()}
    main = results["two_pass" if "two_pass" in results else "low"]
    top1 = {mode: values.flatten(1).argmax(1) for mode, values in logits.items()}
    accuracy = None
    if inputs.y is not None:
        accuracy = {mode: _share(top1[mode] == inputs.y) if mode in top1 else None for mode in MODES}
    errors = {mode: float((values - logits["exact"]).square().mean().sqrt()) for mode, values in logits.items()}
    totals = {mode: results[mode].totals[mode] if mode in results else None for mode in MODES if mode != "exact"}
    return replace(
        main,
        model=model,
        samples=len(inputs.x),
        accuracy=accuracy,
        agreement={mode: _share(top1[mode] == top1["exact"]) if mode in top1 else None for mode in MODES},
        forward_error={mode: errors.get(mode) for mode in MODES},
        totals=totals,
        baseline_layers={mode: results[mode].layers for mode in ("low", "high") if mode in results},
        warnings=(*notes, *dict.fromkeys(text for result in results.values() for text in result.warnings)),
    )


def _share(right: Tensor) -> float:
    return float(np.mean(right.numpy()))
