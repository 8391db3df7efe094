"""emulate: run any torch model with its matrix products on the MAC units of a machine."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

from formats import Use
from simulator.arithmetic.accumulators import Exact
from simulator.arithmetic.engine import Accumulation, random_key
from simulator.arithmetic.spec import MacSpec, mac
from simulator.arithmetic.two_pass import Criterion, two_pass
from simulator.cost import Cost, Gemm, accumulation_cost, price
from simulator.errors import InputError
from simulator.hardware import Machine, load_hardware
from simulator.result import MODES, LayerResult, RunResult
from simulator.versions import versions

from .consumers import Consumer, record_first_sample
from .ops import Op
from .tally import LayerTally
from .tap import Tap

Observer = Callable[[Op, NDArray[Any], LayerTally], None]


@dataclass(frozen=True)
class Arithmetic:
    """How the products of a layer are computed.

    Args:
        label: "low", "high", "two_pass", "exact", "float32", or "custom" for a spec of the user's.
        low: the MAC unit, of the first pass if there are two; None for float32.
        high: the MAC unit of the second pass. criterion: what it recomputes.
    """

    label: str
    low: MacSpec | None = None
    high: MacSpec | None = None
    criterion: Criterion | None = None

    def __str__(self) -> str:
        if self.high is not None:
            return f"{self.low}; {self.high}"
        return self.label if self.low is None else str(self.low)


def arithmetic(machine: Machine, name: str) -> Arithmetic:
    """Return the arithmetic that a name means on a machine: a mode of it, "exact", "float32", or a MAC string.

    "exact" takes the operands of the low mode and rounds each exact inner product once, to float32.

    Raises:
        InputError: the machine has no such mode, or the string is no MAC.
    """
    low, high, policy = machine.mac.low, machine.mac.high, machine.policy
    if name == "float32":
        return Arithmetic(name)
    if name == "exact":
        return Arithmetic(name, MacSpec(Exact(Use.parse("fp32")), low.spec.operands))
    if name == "low":
        return Arithmetic(name, low.spec)
    if name == "high" and high is not None:
        return Arithmetic(name, high.spec)
    if name == "two_pass" and high is not None and policy is not None:
        criterion = Criterion(policy.tolerance, policy.score, policy.recompute_nonfinite, policy.recompute_saturated)
        return Arithmetic(name, low.spec, high.spec, criterion)
    if name in ("high", "two_pass"):
        raise InputError(f"{machine.source}: mode {name!r}: the machine has one MAC; use low, exact or float32")
    try:
        return Arithmetic("custom", mac(name))
    except ValueError as error:
        raise InputError(f"arithmetic {name!r}: {error}; or use low, high, two_pass, exact or float32") from None


class Emulation:
    """A model on a machine; a context manager, within which the model's forward passes are emulated.

    Gradients flow through it: the backward pass follows torch's formulas in torch's own arithmetic, at the emulated
    values. Where the score needs to know what consumes a layer, the first forward pass begins with one of its first
    sample in torch's own arithmetic (the recording pass), in which the user's hooks run too.

    Args:
        model: any torch module on the CPU. machine: the hardware.
        layers: which arithmetic a layer has, by glob pattern on its name; the first pattern that fits counts.
        default: arithmetic of all other layers; None for the machine's policy.
        observers: called after each Op with (op, outputs of shape (gemms, M, N), tally of the layer); the network goes
            on with these outputs and may change them, so an observer copies what it keeps.
        seed: key of stochastic roundings. threads: at most so many; None for all processors.
        consumers: of a recording pass made before; None to make one at the first forward pass.
    Raises:
        InputError: a pattern that fits nothing, or an arithmetic that the machine does not have; on entering: a model
            that hides its operations or is being emulated already.
    """

    def __init__(
        self,
        model: nn.Module,
        machine: Machine,
        layers: Mapping[str, str] | None = None,
        default: str | None = None,
        observers: tuple[Observer, ...] = (),
        seed: int = 0,
        threads: int | None = None,
        consumers: Mapping[str, Consumer] | None = None,
    ) -> None:
        self.model, self.machine, self.observers, self.seed, self.threads = model, machine, observers, seed, threads
        if default is None:
            default = "low" if machine.policy is None else "two_pass"
        paths = [path or type(model).__name__ for path, _ in model.named_modules()]
        if layers is not None and not isinstance(layers, Mapping):
            raise InputError(f"layers: got {layers!r}; expected a mapping; give e.g. {{'*': 'exact'}}")
        for pattern in layers or {}:
            if not any(fnmatch.fnmatchcase(path, pattern.split("#")[0]) for path in paths):
                known = ", ".join(paths[:6]) + (", ..." if len(paths) > 6 else "")
                raise InputError(f"layers: pattern {pattern!r} fits no module; expected a glob on {known}; correct it")
        self._rules = [(pattern, arithmetic(machine, name)) for pattern, name in (layers or {}).items()]
        self._default = arithmetic(machine, default)
        self.consumers: dict[str, Consumer] = dict(consumers or {})
        scored = any(rule.label == "two_pass" for rule in (self._default, *(rule for _, rule in self._rules)))
        self._records = scored and consumers is None
        self._recorded: set[nn.Module] = set()
        self.tallies: dict[str, LayerTally] = {}
        self.samples = 0
        self._tap = Tap(
            model, self._execute, begin=self._begin, emulates=lambda path: self._arithmetic(path).low is not None
        )

    def __enter__(self) -> Emulation:
        self._tap.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._tap.__exit__(*exception)

    @property
    def result(self) -> RunResult:
        """The run so far, without accuracy and errors, which need labels and an exact run."""
        priced = [self._layer(name, tally) for name, tally in self.tallies.items()]
        layers = tuple(layer for layer, _ in priced)
        costs = [cost for _, cost in priced if cost is not None]
        label = self._default.label
        totals: dict[str, Any] = dict.fromkeys(("low", "high", "two_pass"))
        if label in totals and len(costs) == len(layers):
            totals[label] = self._total(layers, costs)
        criterion = self._default.criterion
        return RunResult(
            hardware=self.machine.name, model=type(self.model).__name__, samples=self.samples, accuracy=None,
            agreement=dict.fromkeys(MODES), forward_error=dict.fromkeys(MODES), totals=totals, layers=layers,
            baseline_layers={}, tolerance=criterion.tolerance if criterion else None,
            energy_basis=costs[0].energy_basis if costs else "", versions=versions(), seed=self.seed,
            warnings=(*self.warnings(), *dict.fromkeys(text for cost in costs for text in cost.warnings)),
        )  # fmt: skip

    def warnings(self) -> tuple[str, ...]:
        """Return what was not emulated, and where the score had no rule."""
        where: dict[str, list[str]] = {}
        for (operation, place), _ in sorted(self._tap.not_emulated.items()):
            where.setdefault(operation, []).append(place)
        listed = [
            f"{operation} in {', '.join(places[:4])}{f' and {len(places) - 4} more' if len(places) > 4 else ''}: not "
            "emulated and not priced; torch computed it"
            for operation, places in where.items()
        ]
        notes = [self.consumers[n].note for n in self.tallies if n in self.consumers and self.consumers[n].note]
        return (*notes, *listed)

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Prepare a forward pass of the model, or of a module of it that is called directly."""
        if self._records and module not in self._recorded:
            self._recorded.add(module)
            with _disable_current_modes():
                # A layer met before keeps the consumer that it had then.
                self.consumers = record_first_sample(self.model, module, args, kwargs) | self.consumers
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim()]
        self.samples += tensors[0].shape[0] if tensors else 1

    def _arithmetic(self, name: str) -> Arithmetic:
        parts = name.split("#")[0].split(".")
        # The operation's own name and path, then the modules around it: a pattern on a container holds for all in it.
        paths = [name, *(".".join(parts[:end]) for end in range(len(parts), 0, -1))]
        for pattern, rule in self._rules:
            if any(fnmatch.fnmatchcase(path, pattern) for path in paths):
                return rule
        return self._default

    def _execute(self, op: Op) -> Tensor | None:
        if op.macs == 0:
            return None
        rule = self._arithmetic(op.name)
        consumer = self.consumers.get(op.name, Consumer())
        tally = self.tallies.get(op.name)
        if tally is None:
            tally = self.tallies[op.name] = LayerTally(op, rule.label, str(rule), consumer.activation)
        elif not tally.accepts(op):
            raise InputError(
                f"{op.name}: its shape changed between forward passes, to {op.gemms} x ({op.m}, {op.k}) x "
                f"({op.k}, {op.n}); expected the same shape but for the number of samples; emulate each shape in a "
                "run of its own"
            )
        if rule.low is None:
            tally.add(op, 0, None)
            return None
        out, overflows, flags = self._compute(op, rule.low, rule, consumer)
        tally.add(op, overflows, flags)
        for observe in self.observers:
            observe(op, out, tally)
        return op.tensor(out)

    def _compute(
        self, op: Op, low: MacSpec, rule: Arithmetic, consumer: Consumer
    ) -> tuple[NDArray[Any], int, NDArray[np.bool_] | None]:
        """Run an Op: outputs (gemms, M, N), how many overflowed in the first pass, flags of the second."""
        dtype = low.dtype if rule.high is None else np.result_type(low.dtype, rule.high.dtype)
        out = np.empty((op.gemms, op.m, op.n), dtype)
        flags = None if rule.high is None else np.zeros(out.shape, np.bool_)
        overflows = 0
        site, first_row = list(self.tallies).index(op.name), self.tallies[op.name].rows
        for gemm, rows, a, b, c in op.blocks(low):
            # Rows of samples to come are counted on, so that random words do not depend on how samples are batched.
            row = first_row + (gemm * op.m if op.batched else gemm << 32) + rows.start
            matrix = row // op.m if op.batched else gemm
            if rule.high is None or flags is None:
                key = random_key(self.seed, 0, 2 * site, row, op.n, matrix)
                out[gemm, rows], stats = Accumulation(low, a, b, c, self.threads, key).dense("overflows")
                overflows += stats.overflows if stats else 0
                continue
            affine = consumer.affine
            r = two_pass(
                a, b, low, rule.high, activation=consumer.activation, c=c, seed=self.seed, threads=self.threads,
                criterion=rule.criterion, scale=op.columns(affine[0], gemm) if affine else 1.0,
                shift=op.columns(affine[1], gemm) if affine else 0.0, site=site, first_row=row,
                matrix=matrix,
            )  # fmt: skip
            out[gemm, rows], flags[gemm, rows] = r.output, r.recomputed
            overflows += int(np.count_nonzero(r.saturated))
        return out, overflows, flags

    def _total(self, layers: tuple[LayerResult, ...], costs: list[Cost]) -> dict[str, float]:
        """Sum the bill; the accumulation cost is the mean over all MACs, of each layer's in its own mode."""
        macs = sum(layer.macs for layer in layers)
        accumulation = 0.0
        for mode in dict.fromkeys(cost.mode for cost in costs):
            own = [layer for layer, cost in zip(layers, costs, strict=True) if cost.mode == mode]
            own_macs = sum(layer.macs for layer in own)
            share = sum(layer.recomputed_macs for layer in own) / own_macs
            relative = accumulation_cost(self.machine, share)[mode]
            assert relative is not None  # the machine has the mode, or it would not have been priced
            accumulation += own_macs / macs * relative
        return {
            "cycles": sum(cost.cycles for cost in costs),
            "latency_s": sum(cost.latency_s for cost in costs),
            "energy_j": sum(cost.energy_j for cost in costs),
            "energy_low_j": sum(cost.energy_low_j for cost in costs),
            "energy_high_j": sum(cost.energy_high_j for cost in costs),
            "accumulation_cost": accumulation,
        }

    def _layer(self, name: str, tally: LayerTally) -> tuple[LayerResult, Cost | None]:
        flags = tally.flags()
        recomputed = 0 if flags is None else int(np.count_nonzero(flags))
        largest, mean, median = tally.errors.summary()
        gemm = Gemm(tally.m, tally.n, tally.k, tally.gemms)
        priced = tally.label in ("low", "high", "two_pass")
        cost = price(self.machine, gemm, tally.label, flags) if priced else None
        layer = LayerResult(
            name=name, op=tally.kind, m=tally.m, n=tally.n, k=tally.k, gemms=tally.gemms, mac=tally.mac,
            activation=tally.activation, macs=gemm.macs,
            recomputed_outputs=recomputed, recomputed_macs=recomputed * tally.k,
            cycles=cost.cycles if cost else None, utilisation=cost.utilisation if cost else None,
            latency_s=cost.latency_s if cost else None,
            energy_j=cost.energy_j if cost else None, energy_parts_j=dict(cost.energy_parts_j) if cost else {},
            cycle_parts=dict(cost.cycle_parts) if cost else {}, roofline_cycles=cost.roofline_cycles if cost else None,
            max_rel_error=largest, mean_rel_error=mean, median_rel_error=median, overflows=tally.overflows,
        )  # fmt: skip
        return layer, cost


def emulate(
    model: nn.Module,
    hw: Machine | str | os.PathLike[str],
    layers: Mapping[str, str] | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> Emulation:
    """Emulate a model's forward passes on a machine, within a `with` block.

    Args:
        model: any torch module on the CPU.
        hw: a machine, or what load_hardware takes.
        layers: glob pattern on module paths -> "low", "high", "two_pass", "exact", "float32" or a MAC string; the first
            pattern that fits counts, layers that none fits follow the machine's policy. The model's own operations go
            by the name of its class; `path#2` is what the second call of a module computes.
        seed: key of stochastic roundings. threads: at most so many; None for all processors available.
    Returns:
        The Emulation; after a forward pass its `result` has one record per layer.
    Raises:
        InputError: a pattern that fits nothing, or an arithmetic that the machine does not have.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"emulate: expected a torch.nn.Module, got {type(model).__name__}")
    machine = hw if isinstance(hw, Machine) else load_hardware(hw)
    return Emulation(model, machine, layers, seed=seed, threads=threads)
