"""The record of a run, from what was counted while it ran and what it costs on the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulator.cost import Cost, Gemm, accumulation_cost, price
from simulator.hardware import Machine
from simulator.result import MODES, LayerResult, RunResult
from simulator.versions import versions

from .tally import LayerTally

if TYPE_CHECKING:
    from .emulation import Emulation


def run_record(run: Emulation) -> RunResult:
    """Return the record of an emulation so far, without what needs labels or an exact run."""
    priced = [_layer(run.machine, tally) for tally in run.tallies]
    layers = tuple(layer for layer, _ in priced)
    costs = [cost for _, cost in priced if cost is not None]
    default = run.rules.default
    totals: dict[str, Any] = dict.fromkeys(("low", "high", "two_pass"))
    if default.label in totals and len(costs) == len(layers):
        totals[default.label] = _total(run.machine, layers, costs)
    notes = [run.consumers[tally.name].note for tally in run.tallies if tally.name in run.consumers]
    return RunResult(
        hardware=run.machine.name, model=type(run.model).__name__, samples=run.samples, accuracy=None,
        agreement=dict.fromkeys(MODES), forward_error=dict.fromkeys(MODES), totals=totals, layers=layers,
        baseline_layers={}, tolerance=default.criterion.tolerance if default.criterion else None,
        energy_basis=costs[0].energy_basis if costs else "", versions=versions(), seed=run.seed,
        warnings=tuple(dict.fromkeys(
            (*filter(None, notes), *run.not_emulated(), *(text for cost in costs for text in cost.warnings))
        )),
        operations=run.operations.results(),
    )  # fmt: skip


def _total(machine: Machine, layers: tuple[LayerResult, ...], costs: list[Cost]) -> dict[str, float]:
    """Sum the bill; the accumulation cost is the mean over all MACs, of each layer's in its own mode."""
    macs = sum(layer.macs for layer in layers)
    accumulation = 0.0
    for mode in dict.fromkeys(cost.mode for cost in costs):
        own = [layer for layer, cost in zip(layers, costs, strict=True) if cost.mode == mode]
        own_macs = sum(layer.macs for layer in own)
        share = sum(layer.recomputed_macs for layer in own) / own_macs
        relative = accumulation_cost(machine, share)[mode]
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


def _layer(machine: Machine, tally: LayerTally) -> tuple[LayerResult, Cost | None]:
    flags = tally.flags()
    recomputed = 0 if flags is None else flags.count()
    largest, mean, median = tally.errors.summary()
    gemm = Gemm(tally.m, tally.n, tally.k, tally.gemms)
    priced = tally.label in ("low", "high", "two_pass")
    cost = price(machine, gemm, tally.label, flags) if priced else None
    layer = LayerResult(
        name=tally.name, phase=tally.phase, op=tally.kind, m=tally.m, n=tally.n, k=tally.k, gemms=tally.gemms,
        mac=tally.mac, activation=tally.activation, macs=gemm.macs,
        recomputed_outputs=recomputed, recomputed_macs=recomputed * tally.k,
        cycles=cost.cycles if cost else None, utilisation=cost.utilisation if cost else None,
        latency_s=cost.latency_s if cost else None,
        energy_j=cost.energy_j if cost else None, energy_parts_j=dict(cost.energy_parts_j) if cost else {},
        cycle_parts=dict(cost.cycle_parts) if cost else {}, roofline_cycles=cost.roofline_cycles if cost else None,
        max_rel_error=largest, mean_rel_error=mean, median_rel_error=median, overflows=tally.overflows,
        sqnr_db=tally.errors.sqnr_db,
    )  # fmt: skip
    return layer, cost
