"""emulate: run any torch model with its matrix products on the MAC units of a machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from formats import Use
from simulator.arithmetic.criterion import Criterion
from simulator.arithmetic.engine import Ready, make_ready
from simulator.arithmetic.scores import OF_LOGITS, OF_SAMPLES
from simulator.cost import check_fidelity
from simulator.errors import InputError
from simulator.hardware import Machine, Scaling, load_hardware, read_layers
from simulator.notebook import Shown, Table, View
from simulator.result import MAC_ARRAY, MEMORY, PRICED_MODES, TORCH, VECTOR_UNIT, RunResult

from . import vector
from .batches import fixed_batch, passes
from .calibrated_policy import calibrated
from .consumers import Affine, Consumer, record, record_first_sample
from .execution import MakeReady, Place, execute, zeros_of
from .folding import Folding, folded
from .layer_arithmetic import Arithmetic
from .limits import check_fits
from .model_scales import ModelScales, model_scales
from .operations import Operations
from .ops import FORWARD, Op
from .planned import Planned, check_network, planned
from .record import run_record
from .rules import Rules
from .scaled import Calibration, scaled
from .tally import LayerTally, Tallies
from .tap import IN_BACKWARD, Before, Begin, Ran, Tap
from .weights import Weights, samples_of

Observer = Callable[[Op, NDArray[Any], LayerTally], None]


class Emulation(Shown):
    """A model on a machine; a context manager, within which the model's forward and backward passes are emulated.

    Gradients flow through it: the products of the backward pass are those of torch's formulas, computed on the machine
    like those of the forward pass, of a layer in two passes by the high one. Where the score needs to know what
    consumes a layer, or a batch normalisation is to be folded, the first forward pass begins with one of its first
    sample in torch's own arithmetic (the recording pass), in which the user's hooks run too. For scores of logits every
    pass does, with all of its samples, whose masks are looked at.

    Args:
        model: any torch module on the CPU. machine: the hardware.
        layers: rules of layers, as `hardware.read_layers` takes them; those of the machine hold where none of them
            fits.
        default: mode of all layers of which no rule says one; None for the machine's policy.
        observers: called after each emulated Op with (op, outputs of shape (gemms, M, N), tally of the layer); the
            network goes on with these outputs and may change them, so an observer copies what it keeps. With a static
            plan they are called for each part, see tally.columns.
        seed: key of stochastic roundings. threads: at most so many; None for all processors.
        consumers: of a recording pass made before; None to make one at the first forward pass.
        calibrations: of an earlier emulation of the model with the same rules.
        criteria: of layers in two passes, by name, calibrated by an earlier emulation with the same rules.
        weights: what was made of the model's weights, shared by emulations between which nobody changes them; None to
            make it anew in each block.
        fidelity: of the cycles in the record, as cost.price takes it.
    Raises:
        InputError: a rule that fits nothing, or an arithmetic that the machine does not have; on entering: a model
            that hides its operations or is being emulated already.
    """

    def __init__(
        self,
        model: nn.Module,
        machine: Machine,
        layers: Mapping[str, Any] | None = None,
        default: str | None = None,
        observers: tuple[Observer, ...] = (),
        seed: int = 0,
        threads: int | None = None,
        consumers: Mapping[str, Consumer] | None = None,
        calibrations: dict[str, Calibration] | None = None,
        criteria: Mapping[str, Criterion] | None = None,
        weights: Weights | None = None,
        fidelity: str = "analytic",
    ) -> None:
        check_fidelity(machine, fidelity)
        self.fidelity = fidelity
        self.model, self.machine, self.observers, self.seed, self.threads = model, machine, observers, seed, threads
        mode = default or ("low" if machine.policy is None else "two_pass")
        paths = [path or type(model).__name__ for path, _ in model.named_modules()]
        self.rules = Rules(machine, mode, (*read_layers(layers or {}), *machine.layers), paths, model_scales(model))
        self.consumers: dict[str, Consumer] = dict(consumers or {})
        scored = any(arithmetic.high is not None for arithmetic in self.rules.arithmetics())
        self._needs_recording = (scored or machine.fold_batch_norm) and consumers is None
        self._reads_logits = any(
            arithmetic.criterion is not None and arithmetic.criterion.score in OF_LOGITS
            for arithmetic in self.rules.arithmetics()
        )
        self._recorded: set[nn.Module] = set()
        self._entered = False
        self.tallies = Tallies()
        self.samples = 0
        self._in_pass = 1  # of these, in the forward pass that runs
        self.calibrations = {} if calibrations is None else calibrations
        self.criteria = dict(criteria or {})
        self.plan = None if machine.policy is None else machine.policy.plan
        if self.plan is not None:
            check_network(self.plan, model)
        self._weights, self._shared = weights or Weights(model), weights is not None
        self.operations = Operations(self._weights.has, lambda path: self.rules.vector(path).format)
        self._folding = Folding()
        # Of the operation that runs: what is folded into its weights; whether it is a normalisation done by these.
        self._folds: Affine | None = None
        self._skipped = False
        self._after: Callable[[Ran], None] | None = None
        self._beginning: Begin | None = None
        self._tap = Tap(
            model, self._execute, self._observe, self._begin, self._emulates, self._compute, self._folding.end,
            follows=any(use != vector.FLOAT32 for use in self.rules.vectors()),
        )  # fmt: skip

    def watch(self, before: Before, after: Callable[[Ran], None], begin: Begin) -> None:
        """Have every operation seen before and after it runs, and forward passes as they begin, as the tap has it."""
        self._tap.before, self._after, self._beginning = before, after, begin

    def restart(self, seed: int) -> None:
        """Forget what was counted; stochastic roundings that follow depend on this seed alone, and not on earlier ones.

        The block may be entered again before and after it, but is not open meanwhile.
        """
        self.seed, self.tallies = seed, Tallies()

    def __enter__(self) -> Emulation:
        self._tap.__enter__()
        self._entered = True
        self._weights.look()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._entered = False
        self._tap.__exit__(*exception)
        if not self._shared:
            self._weights.forget()

    @property
    def result(self) -> RunResult:
        """The run so far, without accuracy and errors, which need labels and an exact run."""
        return run_record(self)

    def __repr__(self) -> str:
        ran = sum(1 for _ in self.tallies)
        return f"<Emulation of {self._title}: {f'{ran:,} layers have run' if ran else 'no layer has run yet'}>"

    @property
    def _title(self) -> str:
        return f"{type(self.model).__name__} on {self.machine.name}"

    def _view(self) -> View:
        """Return what is shown of the run so far; before it, what it will be."""
        if any(True for _ in self.tallies):
            return self.result._view()
        facts = [
            f"Layers without a rule of their own are computed in {self.rules.default}.",
            "No layer has run yet: call the model in the block.",
        ]
        settings = [{"of": topic, "setting": words} for topic, words in self.rules.in_words().items()]
        return View(self._title, facts, [Table("Besides the modes of the machine", settings)])

    @property
    def needs_calibration(self) -> bool:
        """Whether a layer's scales are calibrated."""
        scalings = [arithmetic.scalings[0] for arithmetic in self.rules.arithmetics()]
        return any(scaling is not None and scaling.when == "calibrated" for scaling in scalings)

    @property
    def needs_calibrated_policy(self) -> bool:
        """Whether a layer's second pass is decided with what samples say, see calibrated_policy.py."""
        return any(self._is_calibrated(arithmetic) for arithmetic in self.rules.arithmetics())

    def _is_calibrated(self, arithmetic: Arithmetic) -> bool:
        policy, criterion = self.machine.policy, arithmetic.criterion
        if policy is None or criterion is None or arithmetic.high is None or policy.plan is not None:
            return False
        return criterion.score == OF_SAMPLES or policy.budget_over == "network"

    def calibrate(self, *args: Any, **kwargs: Any) -> None:
        """Run the model on samples, and take from them what scales and the two-pass policy are calibrated on.

        Args:
            args, kwargs: of the forward pass, in which any number of samples is; called again it adds more to scales,
                and takes the new ones for the policy.
        Raises:
            InputError: within the block.
        """
        if self._entered:
            raise InputError("calibrate: called within the block; expected before it; calibrate, then enter")
        self.calibrate_scales(*args, **kwargs)
        if self.needs_calibrated_policy:
            self.calibrate_policy(*args, **kwargs)

    def calibrate_scales(self, *args: Any, **kwargs: Any) -> None:
        """Take from samples what scales alone are calibrated on, as `calibrate`."""
        with torch.no_grad(), Tap(self.model, self._calibrate, emulates=self._emulates):
            for part, named in passes(self.model, args, kwargs):
                self.model(*part, **named)

    def calibrate_policy(self, *args: Any, **kwargs: Any) -> None:
        """Take from samples what the two-pass policy alone is calibrated on, as `calibrate`, scales having been."""
        if self._needs_recording or self._reads_logits:
            self.consumers = self.recorded(self.model, args, kwargs)
        self.criteria = calibrated(self.model, self.rules, self.consumers, args, kwargs, self.seed, self.calibrations)

    def recorded(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Consumer]:
        """Make the recording pass of a module on its arguments, and return the consumers of all Ops known by then."""
        if self._reads_logits:  # of these very samples, whose masks may be their own
            if len(passes(self.model, args, kwargs)) > 1:
                raise InputError(
                    f"calibrate: {samples_of(args, kwargs)} samples for a score of the logits; expected "
                    f"{fixed_batch(self.model)}, as many as {type(self.model).__name__} takes at a time; give that many"
                )
            return self.consumers | record(self.model, module, args, dict(kwargs))
        # A layer met before keeps the consumer that it had then.
        return record_first_sample(self.model, module, args, dict(kwargs)) | self.consumers

    @property
    def not_emulated(self) -> Mapping[tuple[str, str], int]:
        """What multiplies and adds and was not emulated: how often, by operation and by where it ran."""
        return self._tap.not_emulated

    def _emulates(self, path: str) -> bool:
        return self.rules.emulates(path)

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Prepare a forward pass of the model, or of a module of it that is called directly."""
        self._folding.clear()
        self.operations.begin()
        if self._reads_logits or (self._needs_recording and module not in self._recorded):
            self._recorded.add(module)
            with _disable_current_modes():
                self.consumers = self.recorded(module, args, kwargs)
        self._in_pass = samples_of(args, kwargs)
        self.samples += self._in_pass
        if self._beginning is not None:
            self._beginning(module, args, kwargs)

    def _calibrate(self, op: Op) -> None:
        scaling = self.rules.forward(op.name).scalings[0]
        if not isinstance(scaling, Scaling) or scaling.when != "calibrated" or op.phase != FORWARD:
            return
        if op.name not in self.calibrations:
            self.calibrations[op.name] = Calibration(op, scaling)
        self.calibrations[op.name].add(op)

    def _execute(self, op: Op) -> Tensor | None:
        if op.macs == 0:
            return None
        forward = op.phase == FORWARD
        self._weights.unstack(op, self._in_pass)
        arithmetic = self.rules.arithmetic(op)
        op.roles = self.rules.roles(op)
        if forward and self._is_calibrated(arithmetic):
            if op.name not in self.criteria:
                raise InputError(
                    f"{op.name}: its second pass is decided with calibration samples, which it has not seen; expected "
                    "`calibrate` before the block, with samples that reach it; simulator.evaluate does so"
                )
            arithmetic = replace(arithmetic, criterion=self.criteria[op.name])
        consumer = self.consumers.get(op.name, Consumer()) if forward else Consumer()
        # Once as the unit gives them, once as the network wants them.
        check_fits(f"{op.name}: outputs {op.gemms} x ({op.m}, {op.n})", op.gemms * op.m * op.n, 16)
        if arithmetic.low is None:
            self.tallies.of(op, arithmetic, consumer).add(op, op.gemm, 0, ())
            return None
        # Weights of which the model has the integers stay these.
        kept = isinstance(arithmetic.scalings[1], ModelScales)
        affine = consumer.affine if self.machine.fold_batch_norm and consumer.foldable and not kept else None
        computed = op
        if affine is not None:
            computed, consumer = folded(op, affine), replace(consumer, normalisation=None)
        scale = b"" if affine is None else affine[0].tobytes()  # that the weights have beside their own values
        parts: list[Planned | None] = [None]
        if forward and self.plan is not None and arithmetic.high is not None:
            parts = list(planned(self.plan, op))
        out, tallies = self._products(op, computed, arithmetic, consumer, scale, parts)
        for tally in tallies:
            for observe in self.observers:
                observe(op, out, tally)
        self._folds = affine
        return op.tensor(out)

    def _products(
        self,
        op: Op,
        computed: Op,
        arithmetic: Arithmetic,
        consumer: Consumer,
        scale: bytes,
        parts: list[Planned | None],
    ) -> tuple[NDArray[Any], list[LayerTally]]:
        """Compute an Op, by a static plan in several parts, and count it; return its outputs and its tallies.

        Args:
            computed: with what is folded into its weights. scale: which is this, in bytes.
        """
        assert arithmetic.low is not None
        divided = None
        if arithmetic.scaled:
            divided = scaled(
                computed, arithmetic, self.calibrations,
                lambda what, find: self._weights.keep(op.operands[1], (what, scale), find),
            )  # fmt: skip
        out: NDArray[Any] | None = None
        tallies = []
        for part in parts:
            own = arithmetic if part is None else arithmetic.in_one_pass(part.mode)
            assert own.low is not None
            tally = self.tallies.of(op, own, consumer, part)
            tallies.append(tally)
            columns = None if part is None else part.columns
            place = Place(self.seed, tally.site, tally.rows, self.threads, tally.accounts)
            ready = self._make_ready(op, own, scale)
            found, overflows, flags = execute(computed, own, consumer, place, divided, ready, columns)
            counts = self.machine.mac.zero_gating and tally.label in PRICED_MODES
            zeros = zeros_of(computed, own.low, place, divided, ready, columns) if counts else 0
            tally.add(op, op.gemm if part is None else part.gemm, overflows, flags, zeros)
            out = found if out is None or columns is None else np.where(columns[:, None], found, out)
        assert out is not None
        return out, tallies

    def _make_ready(self, op: Op, arithmetic: Arithmetic, scale: bytes) -> MakeReady:
        """Return what makes operand b of an Op ready, once as long as the weights that it is made of stay the same."""
        scales = tuple(arithmetic.scalings[role] for role in op.roles)
        moved = scales[0] is not None and scales[0].per == "channel"  # scales that move into the weights

        def ready(b: NDArray[Any], gemm: int, part: int, use: Use) -> Ready:
            if moved:
                return make_ready(b, use)
            what = (gemm, part, use, scales, scale)  # those of both operands: blocks of one cut the other too
            return self._weights.keep(op.operands[1], what, lambda: make_ready(b, use))

        return ready

    def _compute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], path: str) -> Any:
        done = self._folding.skip(func, args)
        self._skipped = done is not None
        return done if self._skipped else vector.compute(self.rules.vector(path), func, args, kwargs)

    def _observe(self, ran: Ran) -> None:
        self._weights.observe(ran)
        self._folding.check(ran)
        if self._folds is not None:
            self._folding.note(ran.ops[0].name, ran.result, self._folds)
            self._folds = None
        self.operations.add(ran, *self._computed_by(ran))
        if self._after is not None:
            self._after(ran)

    def _computed_by(self, ran: Ran) -> tuple[str, str]:
        """Return the unit that computed an operation, and its arithmetic, empty for torch's own."""
        skipped, self._skipped = self._skipped, False
        if ran.executed:
            return MAC_ARRAY, str(self.rules.arithmetic(ran.ops[0]))
        if skipped:
            return MAC_ARRAY, "folded"
        if ran.path and vector.covers(ran.func):
            use = self.rules.vector(ran.path)
            if ran.path != IN_BACKWARD or all(other == vector.FLOAT32 for other in self.rules.vectors()):
                return VECTOR_UNIT, "float32" if use == vector.FLOAT32 else str(use)
        if ran.path and (vector.moves(ran.func) or vector.converts(ran.func)):
            return MEMORY, ""
        return TORCH, ""


def emulate(
    model: nn.Module,
    hw: Machine | str | os.PathLike[str],
    layers: Mapping[str, Any] | None = None,
    seed: int = 0,
    threads: int | None = None,
    vector_unit: str | Use | None = None,
    fold_batch_norm: bool | None = None,
    fidelity: str = "analytic",
) -> Emulation:
    """Emulate a model's forward and backward passes on a machine, within a `with` block.

    Args:
        model: any torch module on the CPU.
        hw: a machine, or what load_hardware takes.
        layers: glob pattern on module paths -> "low", "high", "two_pass", "exact", "float32" or a MAC string, or a
            mapping with the keys of the section `layers` of a machine file; the first pattern that fits counts, layers
            that none fits follow the machine's own rules and policy. The model's own operations go by the name of its
            class; `path#2` is what the second call of a module computes.
        seed: key of stochastic roundings. threads: at most so many; None for all processors available.
        vector_unit: format of what is no product. fold_batch_norm: into the product before it, for inference. None:
            as the machine's file says.
        fidelity: of the cycles in the record: roofline | analytic | event.
    Returns:
        The Emulation; after a forward pass its `result` has one record per layer.
    Raises:
        InputError: a pattern that fits nothing, or an arithmetic that the machine does not have.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"emulate: got {type(model).__name__}; expected a torch.nn.Module; give the network")
    machine = hw if isinstance(hw, Machine) else load_hardware(hw)
    if vector_unit is not None:
        unit = replace(machine.vector_unit, format=vector.unit(vector_unit))
        machine = replace(machine, vector_unit=unit)
    if fold_batch_norm is not None:
        machine = replace(machine, fold_batch_norm=fold_batch_norm)
    return Emulation(model, machine, layers, seed=seed, threads=threads, fidelity=fidelity)
