"""evaluate: a model in every mode of a machine side by side, over batches, against its exact run and its labels."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simulator.cost import mode_energy
from simulator.errors import InputError
from simulator.hardware import Machine, load_hardware
from simulator.progress import OpenProgress
from simulator.result import FLOAT32, MODES, PRICED_MODES, Conditions, RunResult

from .batches import Batch, Batches, batch_of, check_samples_first, fixed_batch
from .buffers import Buffers
from .condition_numbers import conditions_of_first
from .consumers import Consumer, record_first_sample
from .emulation import Emulation
from .fit import named_failures
from .input_types import type_name
from .interruption import Interruption
from .metrics import Function, Metrics, are_classes
from .ops import Op
from .outputs import further_outputs, output_of
from .scaled import Calibration
from .tally import LayerTally
from .weights import Weights

# Samples run together: as many as keep the outputs of all layers below this, so that memory stays bounded.
OUTPUTS_PER_BATCH = 1 << 22
# From which scales are calibrated where no samples are given for it.
CALIBRATION_SAMPLES = 32
# Share of the answers of torch's own float32 run that the exact run must give, lest a warning says what differs.
FAITHFUL = 0.9


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
    progress: OpenProgress | None = None,
    keep_partial: bool = False,
    fidelity: str = "analytic",
    conditions: bool = False,
) -> RunResult:
    """Run any torch model on a machine in every mode: exact, uniform low, uniform high and two-pass.

    Beside these runs there is one without the machine, in torch's own arithmetic (float32, or the type that the model
    has): of it there are metrics, under the key float32, which show what the formats cost that all modes share. Their
    last digits are torch's, and may depend on the batch, the threads and the processor; those of the modes do not.

    Each batch runs in all modes before the next is read, in evaluation mode (no dropout, batch normalisation with its
    running statistics) whatever mode the model is in, without gradients, and with the same random numbers in each mode
    where the model draws some. Beside inputs, weights and one batch's outputs of all layers nothing is held that grows
    with the samples but a bit for each output of the two-pass mode.

    Each mode has its own copy of the model's buffers from batch to batch, and of the inputs, so that what a model
    changes in them reaches neither another mode nor the caller. What it keeps in attributes of Python, such as a hidden
    state from one call to the next, does.

    Of a model that returns more than a tensor the outputs are `.logits` or "logits", as in transformers, or else the
    first tensor in its tuple, list or mapping, of floats if one is. Of each other tensor of floats there, with samples
    first, there is the mean squared error against the exact run, as the metric "mse of NAME", after its key or its
    place.

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
        batch: at most so many samples at a time; None for as many as keep the outputs of all layers below 4 million, or
            for exactly as many as a model's attribute `fixed_batch` says.
        calibration: inputs like x, labels aside, for the scales that a rule wants calibrated and for a two-pass policy
            with the score sensitivity or a budget of the network; None for the first 32 samples of x (of its first
            batch). The policy takes as many of them as keep the outputs of all layers below 4 million, at most 256.
        tolerance: of the two-pass policy; None for the machine's.
        seed: of every random choice. threads: at most so many; None for all processors available.
        progress: called with (samples done, samples in all or None if that is not known), of a batch in parts as its
            modes are done.
        keep_partial: what Ctrl-C (SIGINT) and SIGTERM do, in the main thread, once there is a batch to keep. False:
            they raise, as always, and nothing is returned. True: the batch that runs is finished in all modes, and the
            record so far returned, with `complete` False; asked a second time, they raise.
        fidelity: of the cycles: roofline (a lower bound) | analytic | event (tile by tile, with the flags as measured).
        conditions: whether the record has the condition numbers of the layers, along an exact run of the first 64
            samples, of an eighth of all if that is less.
    Returns:
        The record; its layers are those of the two-pass mode, or of low on a machine without one.
    Raises:
        InputError: input that the user can put right. KeyboardInterrupt: see keep_partial.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"evaluate: got {type(model).__name__}; expected a torch.nn.Module; give the network")
    check_choices(threads, seed)
    if batch is not None and (not isinstance(batch, int) or isinstance(batch, bool) or batch < 1):
        raise InputError(f"batch: got {batch!r}; expected an integer of at least 1; give one, or leave it out")
    machine = hw if isinstance(hw, Machine) else load_hardware(hw)
    if tolerance is not None:
        machine = machine.with_tolerance(tolerance)
    for unit in machine.mac.modes.values():
        mode_energy(machine, unit)  # what cannot be priced is refused before anything runs
    data = Batches(x, y)
    check_samples_first(model, "x")
    fixed = fixed_batch(model)
    if fixed is not None or batch is not None:
        batch = batch_of(model, batch, "batch", 1)
    with _evaluation_mode(model), torch.no_grad(), Interruption(keep_partial) as interruption:
        consumers = _consumers(model, data.head(batch or 1))
        modes = ("exact", "low") if machine.mac.high is None else MODES if machine.policy else ("exact", "low", "high")
        size = batch or _batch_size(consumers)
        calibrations: dict[str, Calibration] = {}
        weights = Weights(model)
        plain = _Pass(model, metrics, seed)
        passes = {
            mode: _Emulated(
                model, metrics, seed, machine, mode, layers, consumers, calibrations, weights, threads, fidelity
            )
            for mode in modes
        }
        done, notes, odd = 0, dict.fromkeys(_notes(machine)), _NotFinite()
        scales = passes["exact"].emulation.needs_calibration
        # Rules of layers may ask for two passes in every mode.
        policy = [one.emulation for one in reversed(passes.values()) if one.emulation.needs_calibrated_policy]
        if scales or policy:
            given = data if calibration is None else Batches(calibration)
            at_once = fixed or 1
            first, buffers = given.head(max(1, CALIBRATION_SAMPLES // at_once) * at_once), Buffers(model)
            head = (first if calibration is None or not policy else given.head(_batch_size(consumers))).copy()
            if fixed is not None:
                head = head.part(0, fixed)
            if scales:
                for part in first.parts(size) if calibration is None else given.parts(size):
                    own = part.copy()
                    with buffers:
                        passes["exact"].emulation.calibrate(*own.args, **own.kwargs)
            if policy:
                with buffers:
                    policy[0].calibrate_policy(*head.args, **head.kwargs)
                for emulation in policy[1:]:
                    emulation.criteria, emulation.consumers = policy[0].criteria, policy[0].consumers
        taken: tuple[tuple[Conditions, ...], int] = (), 0
        if conditions:
            at_once = _batch_size(consumers)  # whatever the batches of the run
            taken = conditions_of_first(model, machine, layers, data, at_once, seed, threads)
        for part in data.parts(size):
            # First torch's own run: what it cannot take is no fault of the emulation.
            unemulated = plain.forward(part, done)
            weights.forget()  # quantised ones are shared by the modes of a batch, all of which are watched
            exact: dict[str, NDArray[Any]] = {}
            further: dict[str, Tensor] = {}
            wanted: Tensor | None = None
            for i, one in enumerate(passes.values()):
                outputs = one.forward(part, done, exact)
                if wanted is None:
                    wanted = outputs
                    odd.add(wanted)
                    further = one.further
                    plain.metrics.add(unemulated, wanted, part.labels)
                    plain.add_further(further)
                    del unemulated
                one.metrics.add(outputs, wanted, part.labels)
                one.add_further(further)
                if progress is not None:
                    progress(done + part.samples * (i + 1) / len(modes), data.expected)
            done += part.samples
            notes.update(dict.fromkeys(_note_of_labels(outputs, part.labels, bool(metrics))))
            interruption.may_wait = True
            if interruption.requested:
                break
    complete = not interruption.requested or done == data.total
    if not complete:
        of = "" if data.total is None else f" of {data.total:,}"
        samples = "sample" if done == 1 and not of else "samples"
        notes = {f"interrupted after {done:,}{of} {samples}: all figures are of these": None, **notes}
    notes.update(dict.fromkeys((*odd.note(), *_note_of_formats(machine, plain.metrics), *_note_of_no_product(passes))))
    record = _record(type(model).__name__, done, plain, passes, tuple(notes), complete)
    return replace(record, conditions=taken[0], condition_samples=taken[1])


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
    """The model in one mode: its own buffers, and its metrics. This one is in torch's own arithmetic."""

    mode = FLOAT32

    def __init__(self, model: nn.Module, metrics: Mapping[str, Function] | None, seed: int) -> None:
        self.model, self.seed = model, seed
        self.metrics = Metrics(metrics)
        self.further: dict[str, Tensor] = {}  # the other outputs of the last batch
        self._of_further: dict[str, Metrics] = {}
        self._buffers = Buffers(model)

    def forward(self, batch: Batch, done: int) -> Tensor:
        """Run a batch, before which `done` samples have run, and return its outputs."""
        own = batch.copy()  # in which a model may write
        with (
            torch.random.fork_rng(devices=[]),
            self._buffers,
            named_failures(self.model, batch.args, dict(batch.kwargs), done, done + batch.samples, self.mode),
        ):
            torch.default_generator.manual_seed(self.seed)  # what a model draws, it draws in every mode
            # A copy: what a model returns it may keep, and change later.
            result = self._run(own.args, dict(own.kwargs))
            outputs = output_of(result).clone()
            self.further = {
                name: x.clone() for name, x in further_outputs(result).items() if x.shape[:1] == (batch.samples,)
            }
        if not outputs.dim() or len(outputs) != batch.samples:
            raise InputError(
                f"the model returned shape {tuple(outputs.shape)} for {batch.samples} samples; expected samples along "
                "the first axis of its inputs and outputs; wrap it in a module that has them there"
            )
        if outputs.is_complex():
            kind = type_name(outputs.dtype)
            raise InputError(
                f"the model returned {kind}; expected real outputs; wrap it in a module that returns their real part, "
                "or both parts as torch.view_as_real gives them"
            )
        return outputs

    def add_further(self, exact: Mapping[str, Tensor]) -> None:
        """Compare the other outputs of the last batch with those of the exact run."""
        for name, outputs in self.further.items():
            if name in exact and exact[name].shape == outputs.shape:
                self._of_further.setdefault(name, Metrics()).add(outputs, exact[name])

    @property
    def values(self) -> dict[str, float | None]:
        """The metrics of the outputs, and the errors of the others."""
        errors = {f"mse of {name}": metrics.values["mse"] for name, metrics in self._of_further.items()}
        return {**self.metrics.values, **errors}

    def _run(self, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> Any:
        # Its fused path for transformers drops padding, so that shapes would differ from those of the modes.
        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            return self.model(*args, **kwargs)
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)


class _Emulated(_Pass):
    """The model in one mode of a machine."""

    def __init__(
        self, model: nn.Module, metrics: Mapping[str, Function] | None, seed: int, machine: Machine, mode: str,
        layers: Mapping[str, Any] | None, consumers: Mapping[str, Consumer], calibrations: dict[str, Calibration],
        weights: Weights, threads: int | None, fidelity: str,
    ) -> None:  # fmt: skip
        super().__init__(model, metrics, seed)
        self.mode = mode
        self.emulation = Emulation(
            model, machine, layers, default=mode,
            observers=(self._observe,), seed=seed, threads=threads, consumers=consumers, calibrations=calibrations,
            weights=weights, fidelity=fidelity,
        )  # fmt: skip
        self.not_compared: dict[str, None] = {}
        self._exact: dict[str, NDArray[Any]] = {}

    def forward(self, batch: Batch, done: int, exact: dict[str, NDArray[Any]] | None = None) -> Tensor:
        """Run a batch and return its outputs.

        `exact` receives the outputs of the exact mode's Ops, the other modes are compared with it.
        """
        self._exact = {} if exact is None else exact
        return super().forward(batch, done)

    def _run(self, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> Any:
        with self.emulation:
            return self.model(*args, **kwargs)

    def _observe(self, op: Op, outputs: NDArray[Any], tally: LayerTally) -> None:
        if self.mode == "exact":
            self._exact[op.name] = outputs.copy()
            return
        exact = self._exact.get(op.name)
        if exact is not None and exact.shape == outputs.shape:
            if tally.columns is not None:  # one output after the other, by product and row
                outputs, exact = (x.swapaxes(1, 2)[tally.columns] for x in (outputs, exact))
            tally.errors.add(outputs, exact)
        else:
            self.not_compared[
                f"{op.name}: not compared with the exact run throughout, which took another way there"
            ] = None


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
    # The recording pass on copies of the inputs, in which a model may write.
    first = head.copy()
    with Buffers(model), named_failures(model, head.args, dict(head.kwargs), 0, head.samples, FLOAT32):
        return record_first_sample(model, model, first.args, dict(first.kwargs))


def _batch_size(consumers: Mapping[str, Consumer]) -> int:
    per_sample = sum(consumer.outputs for consumer in consumers.values())
    return max(1, min(256, OUTPUTS_PER_BATCH // max(1, per_sample)))


def _notes(machine: Machine) -> tuple[str, ...]:
    """What a reader must know of the comparison itself."""
    others = ", ".join(
        name
        for name, mode in zip(machine.mac.pass_names, machine.mac.further, strict=True)
        if mode.spec.operands != machine.mac.low.spec.operands
    )
    if not others:
        return ()
    return (
        f"exact has the operands of the low mode, and those of the {others} mode differ: "
        "its errors include the difference of the operands",
    )


def _note_of_labels(outputs: Tensor, labels: Tensor | None, seen: bool) -> tuple[str, ...]:
    """Say which labels no metric of ours takes; `seen` says whether there are others."""
    if labels is None or are_classes(outputs.shape, labels):
        return ()
    if labels.is_floating_point():
        if seen:
            return ()
        return (
            "labels are real numbers and no classes: no metric here looks at them, and all errors are against the "
            "exact run; give classes as integers, or a metric of your own",
        )
    return (
        f"labels of shape (samples{''.join(f', {n}' for n in labels.shape[1:])}) are no classes of outputs (samples"
        f"{''.join(f', {n}' for n in outputs.shape[1:])}): no accuracy, only metrics of your own see them",
    )


class _NotFinite:
    """Counts the outputs of the exact run that are no finite numbers."""

    def __init__(self) -> None:
        self.count = self.total = 0

    def add(self, outputs: Tensor) -> None:
        self.count += outputs.numel() - int(outputs.isfinite().count_nonzero())
        self.total += outputs.numel()

    def note(self) -> tuple[str, ...]:
        if not self.count:
            return ()
        return (
            f"exact: {self.count:,} of {self.total:,} outputs are NaN or infinite, of which no error can be told; "
            "network.metrics says what becomes of them",
        )


def _note_of_formats(machine: Machine, plain: Metrics) -> tuple[str, ...]:
    agreement = plain.values["agreement"]
    if agreement is None or agreement >= FAITHFUL:
        return ()
    unit = machine.vector_unit.format
    vector = "" if unit.format.name == "fp32" else f", or of the vector unit ({unit}),"
    return (
        f"float32 and exact give the same top-1 answer on {agreement:.2%} only: it is the formats of the operands"
        f"{vector} that change the answers, in all modes, and not the accumulators; give layers other operands, or "
        "scales: docs/howto/arithmetic-by-layer.md",
    )


def _note_of_no_product(passes: Mapping[str, _Emulated]) -> tuple[str, ...]:
    if list(passes["exact"].emulation.tallies):
        return ()
    return (
        "no product of the network was seen: nothing ran on the MAC array, and the modes have no totals and do not "
        "differ in it",
    )


def _record(
    model: str, samples: int, plain: _Pass, passes: Mapping[str, _Emulated], notes: tuple[str, ...], complete: bool
) -> RunResult:
    """Bring the modes together in one record; its layers are those of the most advanced mode."""
    results = {mode: one.emulation.result for mode, one in passes.items()}
    values = {FLOAT32: plain.values, **{mode: one.values for mode, one in passes.items()}}
    main = results["two_pass" if "two_pass" in results else "low"]
    by_name = {
        name: {mode: values[mode].get(name) if mode in values else None for mode in (FLOAT32, *MODES)}
        for name in values["exact"]
    }
    metrics = {name: by_mode for name, by_mode in by_name.items() if any(v is not None for v in by_mode.values())}
    in_modes = {name: {mode: by_mode[mode] for mode in MODES} for name, by_mode in by_name.items()}
    warnings = (text for mode in passes for text in (*results[mode].warnings, *passes[mode].not_compared))
    uniform = [layer for mode in ("low", "high") if mode in results for layer in results[mode].layers]
    again = dict.fromkeys(layer.name for layer in uniform if layer.pass_outputs)
    if again:
        notes = (*notes, f"{', '.join(again)}: two passes by a rule of their own, in the low and the high mode too")
    return replace(
        main,
        model=model,
        samples=samples,
        accuracy=in_modes["top1"] if "top1" in metrics else None,
        agreement=in_modes["agreement"],
        forward_error={mode: None if mse is None else math.sqrt(mse) for mode, mse in in_modes["mse"].items()},
        forward_error_interval={mode: passes[mode].metrics.rms_interval if mode in passes else None for mode in MODES},
        totals={mode: results[mode].totals[mode] if mode in results and main.layers else None for mode in PRICED_MODES},
        baseline_layers={mode: results[mode].layers for mode in ("low", "high") if mode in results},
        warnings=(*notes, *dict.fromkeys(warnings)),
        metrics=metrics,
        complete=complete,
    )
