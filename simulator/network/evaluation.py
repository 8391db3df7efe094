"""evaluate: a model in every mode of a machine side by side, over batches, against its exact run and its labels."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simulator.cost import mode_energy
from simulator.errors import InputError
from simulator.hardware import Machine, load_hardware
from simulator.result import MODES, RunResult

from .batches import Batch, Batches
from .consumers import Consumer, record_first_sample
from .emulation import Emulation
from .interruption import Interruption
from .metrics import Function, Metrics, are_classes
from .ops import Op
from .scaled import Calibration
from .tally import LayerTally

# Samples run together: as many as keep the outputs of all layers below this, so that memory stays bounded.
OUTPUTS_PER_BATCH = 1 << 22
# From which scales are calibrated where no samples are given for it.
CALIBRATION_SAMPLES = 32

Progress = Callable[[float, int | None], None]


def evaluate(
    model: nn.Module,
    hw: Machine | str | os.PathLike[str],
    x: Tensor | tuple[Tensor, ...] | Mapping[str, Tensor] | Iterable[Any],
    y: Tensor | None = None,
    *,
    layers: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Function] | None = None,
    batch: int | None = None,
    calibration: Tensor | tuple[Tensor, ...] | Mapping[str, Tensor] | Iterable[Any] | None = None,
    tolerance: float | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
    keep_partial: bool = False,
) -> RunResult:
    """Run any torch model on a machine in every mode: exact, uniform low, uniform high and two-pass.

    Each batch runs in all modes before the next is read, in evaluation mode (no dropout, batch normalisation with its
    running statistics) whatever mode the model is in, without gradients, and with the same random numbers in each mode
    where the model draws some. Beside inputs, weights and one batch's outputs of all layers nothing is held that grows
    with the samples but a bit for each output of the two-pass mode.

    Of a model that returns more than a tensor the outputs are `.logits` or "logits", as in transformers, or else the
    first tensor in its tuple, list or mapping.

    Args:
        model: any torch module on the CPU. hw: a machine, or what load_hardware takes.
        x: a tensor (samples, ...); a tuple of tensors, positional arguments; a mapping of tensors, keyword arguments;
            or an iterable of batches, e.g. a DataLoader, each x or (x, y), which is read once and never held whole.
        y: labels (samples, ...): classes for the metrics of network.metrics, or whatever your own metrics take.
        layers: rules by pattern, as emulate takes them, in all modes; in the exact one such a layer has its own
            operands and exact products. Scales that a rule takes from the tensor at hand make the bits depend on
            `batch`.
        metrics: your own, name -> function of (outputs, labels) of a batch, which returns one number for each sample,
            shape (samples,); the metric is their mean over all samples, whatever the batches.
        batch: at most so many samples at a time; None for as many as keep the outputs of all layers below 4 million.
        calibration: inputs like x, labels aside, for the scales that a rule wants calibrated; None for the first 32
            samples of x (of its first batch).
        tolerance: of the two-pass policy; None for the machine's.
        seed: of every random choice. threads: at most so many; None for all processors available.
        progress: called with (samples done, samples in all or None if that is not known), of a batch in parts as its
            modes are done.
        keep_partial: what Ctrl-C (SIGINT) and SIGTERM do, in the main thread, once there is a batch to keep. False:
            they raise, as always, and nothing is returned. True: the batch that runs is finished in all modes, and the
            record so far returned, with `complete` False; asked a second time, they raise.
    Returns:
        The record; its layers are those of the two-pass mode, or of low on a machine without one.
    Raises:
        InputError: input that the user can put right. KeyboardInterrupt: see keep_partial.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"evaluate: expected a torch.nn.Module, got {type(model).__name__}")
    check_choices(threads, seed)
    if batch is not None and batch < 1:
        raise InputError(f"batch: got {batch}; expected at least 1; give more, or leave it out")
    machine = hw if isinstance(hw, Machine) else load_hardware(hw)
    if tolerance is not None:
        machine = machine.with_tolerance(tolerance)
    for unit in (machine.mac.low, machine.mac.high):
        if unit is not None:
            mode_energy(machine, unit)  # what cannot be priced is refused before anything runs
    data = Batches(x, y)
    with _evaluation_mode(model), torch.no_grad(), Interruption(keep_partial) as interruption:
        consumers = _consumers(model, data.head(batch or 1))
        modes = ("exact", "low") if machine.mac.high is None else MODES if machine.policy else ("exact", "low", "high")
        size = batch or _batch_size(consumers)
        calibrations: dict[str, Calibration] = {}
        passes = {
            mode: _Pass(model, machine, mode, layers, metrics, consumers, calibrations, seed, threads) for mode in modes
        }
        done, notes = 0, dict.fromkeys(_notes(machine))
        if passes["exact"].emulation.needs_calibration:
            first = data.head(CALIBRATION_SAMPLES)
            for part in first.parts(size) if calibration is None else Batches(calibration).parts(size):
                passes["exact"].emulation.calibrate(*part.args, **part.kwargs)
        for part in data.parts(size):
            exact: dict[str, NDArray[Any]] = {}
            wanted: Tensor | None = None
            for i, one in enumerate(passes.values()):
                outputs = one.forward(part, exact)
                wanted = outputs if wanted is None else wanted
                one.metrics.add(outputs, wanted, part.labels)
                if progress is not None:
                    progress(done + part.samples * (i + 1) / len(modes), data.expected)
            done += part.samples
            notes.update(dict.fromkeys(_note_of_labels(outputs, part.labels)))
            interruption.may_wait = True
            if interruption.requested:
                break
    complete = not interruption.requested or done == data.total
    if not complete:
        of = "" if data.total is None else f" of {data.total:,}"
        notes = {f"interrupted after {done:,}{of} samples: all figures are of these": None, **notes}
    return _record(type(model).__name__, done, passes, tuple(notes), complete)


def check_choices(threads: int | None, seed: int, prefix: str = "") -> None:
    """Refuse a number of threads or a seed that is none; `prefix` stands before their names in the message."""
    if threads is not None and threads < 1:
        raise InputError(
            f"{prefix}threads: got {threads}; expected at least 1; give more, or leave it out for all processors"
        )
    if not 0 <= seed < 1 << 32:
        raise InputError(
            f"{prefix}seed: got {seed}; expected 0 to {(1 << 32) - 1}; give such a number, or leave it out"
        )


class _Pass:
    """The model in one mode: its emulation and its metrics."""

    def __init__(
        self, model: nn.Module, machine: Machine, mode: str, layers: Mapping[str, Any] | None,
        metrics: Mapping[str, Function] | None, consumers: Mapping[str, Consumer],
        calibrations: dict[str, Calibration], seed: int, threads: int | None,
    ) -> None:  # fmt: skip
        self.mode, self.seed = mode, seed
        self.emulation = Emulation(
            model, machine, layers, default=mode,
            observers=(self._observe,), seed=seed, threads=threads, consumers=consumers, calibrations=calibrations,
        )  # fmt: skip
        self.metrics = Metrics(metrics)
        self.not_compared: dict[str, None] = {}
        self._exact: dict[str, NDArray[Any]] = {}

    def forward(self, batch: Batch, exact: dict[str, NDArray[Any]]) -> Tensor:
        """Run a batch and return its outputs.

        `exact` receives the outputs of the exact mode's Ops, the other modes are compared with it.
        """
        self._exact = exact
        with torch.random.fork_rng(devices=[]), self.emulation:
            torch.default_generator.manual_seed(self.seed)  # what a model draws, it draws in every mode
            result = self.emulation.model(*batch.args, **batch.kwargs)
        outputs = output_of(result)
        if not outputs.dim() or len(outputs) != batch.samples:
            raise InputError(
                f"the model returned shape {tuple(outputs.shape)} for {batch.samples} samples; expected samples along "
                "the first axis of its inputs and outputs; wrap it in a module that has them there"
            )
        return outputs

    def _observe(self, op: Op, outputs: NDArray[Any], tally: LayerTally) -> None:
        if self.mode == "exact":
            self._exact[op.name] = outputs.copy()
        elif (exact := self._exact.get(op.name)) is not None and exact.shape == outputs.shape:
            tally.errors.add(outputs, exact)
        else:
            self.not_compared[
                f"{op.name}: not compared with the exact run throughout, which took another way there"
            ] = None


def output_of(result: Any) -> Tensor:
    """Return the outputs within what a model returned: `.logits`, "logits", or the first tensor.

    Raises:
        InputError: there is no tensor.
    """
    logits = result.get("logits") if isinstance(result, Mapping) else getattr(result, "logits", None)
    for value in (result, logits, *(result.values() if isinstance(result, Mapping) else ())):
        if isinstance(value, Tensor):
            return value
    if isinstance(result, tuple | list):
        for value in result:
            if isinstance(value, Tensor):
                return value
    raise InputError(
        f"the model returned {type(result).__name__}; expected a tensor, something with .logits, or a tuple, list or "
        "mapping with a tensor in it; wrap it in a module that returns its outputs"
    )


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _consumers(model: nn.Module, head: Batch) -> dict[str, Consumer]:
    return record_first_sample(model, model, head.args, dict(head.kwargs))


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


def _note_of_labels(outputs: Tensor, labels: Tensor | None) -> tuple[str, ...]:
    if labels is None or labels.is_floating_point() or are_classes(outputs.shape, labels):
        return ()
    return (
        f"labels of shape (samples{''.join(f', {n}' for n in labels.shape[1:])}) are no classes of outputs (samples"
        f"{''.join(f', {n}' for n in outputs.shape[1:])}): no accuracy, only metrics of your own see them",
    )


def _record(model: str, samples: int, passes: Mapping[str, _Pass], notes: tuple[str, ...], complete: bool) -> RunResult:
    """Bring the modes together in one record; its layers are those of the most advanced mode."""
    results = {mode: one.emulation.result for mode, one in passes.items()}
    values = {mode: one.metrics.values for mode, one in passes.items()}
    main = results["two_pass" if "two_pass" in results else "low"]
    by_name = {
        name: {mode: values[mode][name] if mode in values else None for mode in MODES} for name in values["exact"]
    }
    metrics = {name: by_mode for name, by_mode in by_name.items() if any(v is not None for v in by_mode.values())}
    warnings = (text for mode in passes for text in (*results[mode].warnings, *passes[mode].not_compared))
    return replace(
        main,
        model=model,
        samples=samples,
        accuracy=metrics.get("top1"),
        agreement=by_name["agreement"],
        forward_error={mode: None if mse is None else math.sqrt(mse) for mode, mse in by_name["mse"].items()},
        totals={mode: results[mode].totals[mode] if mode in results else None for mode in MODES if mode != "exact"},
        baseline_layers={mode: results[mode].layers for mode in ("low", "high") if mode in results},
        warnings=(*notes, *dict.fromkeys(warnings)),
        metrics=metrics,
        complete=complete,
    )
