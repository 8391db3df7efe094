"""The record of a run, from what was counted while it ran and what it costs on the machine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from simulator.cost import (
    Cost,
    Gemm,
    VectorCost,
    accumulation_cost,
    expanded,
    gather_results,
    gathered,
    known_area,
    price,
)
from simulator.cost.flags import MaskFlags
from simulator.errors import InputError
from simulator.hardware import Machine
from simulator.result import MODES, PRICED_MODES, GatherResult, LayerResult, RunResult
from simulator.versions import versions

from .notes import run_notes
from .steps import joined_steps, step_groups
from .tally import LayerTally

if TYPE_CHECKING:
    from .emulation import Emulation


def run_record(run: Emulation) -> RunResult:
    """Return the record of an emulation so far, without what needs labels or an exact run."""
    groups = step_groups(run.tallies)
    priced = [[_layer(_machine_of(run.machine, tally), tally, run.fidelity) for tally in group] for group in groups]
    singles = tuple(layer for group in priced for layer, _ in group)
    costs = [cost for group in priced for _, cost in group if cost is not None]
    by_operation = run.operations.costs(run.machine)
    others = [cost for of_one in by_operation.values() for cost in of_one]
    default = run.rules.default
    totals: dict[str, Any] = dict.fromkeys(PRICED_MODES)
    if default.label in totals and len(costs) == len(singles):
        machines = [_machine_of(run.machine, tally) for group in groups for tally in group]
        totals[default.label] = _total(machines, singles, costs, others)
    warnings = (*run_notes(run), *(text for cost in costs for text in cost.warnings))
    layers = tuple(joined_steps(group, [layer for layer, _ in of]) for group, of in zip(groups, priced, strict=True))
    return RunResult(
        hardware=run.machine.name, model=type(run.model).__name__, samples=run.samples, accuracy=None,
        agreement=dict.fromkeys(MODES), forward_error=dict.fromkeys(MODES), totals=totals,
        layers=layers, gathers=_gathers(run.machine, groups, priced, layers),
        baseline_layers={}, tolerance=default.criterion.tolerance if default.criterion else None,
        energy_basis="; ".join(of[0].energy_basis for of in (costs, others) if of), versions=versions(), seed=run.seed,
        warnings=tuple(dict.fromkeys(warnings)), operations=run.operations.results(by_operation),
        settings=run.rules.in_words(), machine=tuple(expanded(run.machine).values()),
        fidelity=run.fidelity,
        **_area(run.machine), **_peaks(run.machine),
    )  # fmt: skip


def _area(machine: Machine) -> dict[str, Any]:
    found = known_area(machine)
    if found is None:
        return {}
    return {
        "area_um2": found.area_um2, "area_parts_um2": dict(found.area_parts_um2), "area_low_um2": found.area_low_um2,
        "area_high_um2": found.area_high_um2, "area_items": found.items,
    }  # fmt: skip


def _peaks(machine: Machine) -> dict[str, Any]:
    modes = {path.rpartition(".")[2]: mode for path, mode in machine.mac.modes.items()}
    dram = None if machine.memory is None else float(machine.memory.dram.bandwidth_bits_per_cycle)
    return {
        "peak_macs_per_cycle": {name: machine.array.pes * mode.rate / mode.passes for name, mode in modes.items()},
        "dram_bits_per_cycle": dram,
    }


def _machine_of(machine: Machine, tally: LayerTally) -> Machine:
    """Return the machine as a layer sees it, which may have a policy of its own."""
    return machine if tally.policy is None else replace(machine, policy=tally.policy)


def _total(
    machines: list[Machine], layers: tuple[LayerResult, ...], costs: list[Cost], others: list[VectorCost]
) -> dict[str, float]:
    """Sum the bill of the layers, which have these machines and costs, and of all else, one after the other.

    The accumulation cost is the mean over all MACs, of each layer's in its own mode.
    """
    macs = sum(layer.macs for layer in layers)
    accumulation = 0.0
    kinds: dict[tuple[str, Machine], list[LayerResult]] = {}
    for machine, layer, cost in zip(machines, layers, costs, strict=True):
        kinds.setdefault((cost.mode, machine), []).append(layer)
    for (mode, machine), own in kinds.items():
        own_macs = sum(layer.macs for layer in own)
        names = machine.mac.pass_names
        again = (sum(layer.pass_outputs.get(name, 0) * layer.k for layer in own) for name in names)
        relative = accumulation_cost(machine, [macs_again / own_macs for macs_again in again])[mode]
        assert relative is not None  # the machine has the mode, or it would not have been priced
        accumulation += own_macs / macs * relative
    names = ("cycles", "latency_s", "energy_j", "energy_low_j", "energy_high_j")
    return {
        **{name: sum(getattr(cost, name) for cost in (*costs, *others)) for name in names},
        **{f"vector_{name}": sum(getattr(cost, name) for cost in others) for name in names[:3]},
        "accumulation_cost": accumulation,
    }


def _gathers(
    machine: Machine,
    groups: list[list[LayerTally]],
    priced: list[list[tuple[LayerResult, Cost | None]]],
    layers: tuple[LayerResult, ...],
) -> tuple[GatherResult, ...]:
    """Return the ways to gather the flags of what ran in two passes: of all of it, then of each layer.

    None with a ladder, whose passes are priced one by one.
    """
    by_layer = []
    for tallies, of, layer in zip(groups, priced, layers, strict=True):
        kinds = [
            gathered(_machine_of(machine, tally), tally.gemm, flags, cost, cost.zero_macs)
            for tally, (_, cost) in zip(tallies, of, strict=True)
            if cost is not None and isinstance(flags := tally.flags(), MaskFlags)
        ]
        if kinds:
            by_layer.append((layer.title, kinds))
    if not by_layer:
        return ()
    whole = gather_results(machine, [kind for _, kinds in by_layer for kind in kinds])
    return (*whole, *(one for name, kinds in by_layer for one in gather_results(machine, kinds, name)))


def _layer(machine: Machine, tally: LayerTally, fidelity: str) -> tuple[LayerResult, Cost | None]:
    flags, flagged = tally.flags(), tally.recomputed
    largest, mean, median = tally.errors.summary()
    gemm = tally.gemm
    priced = tally.label in PRICED_MODES
    zeros = tally.zeros if machine.mac.zero_gating and priced else None
    cost = _cost(machine, gemm, tally, (flags, zeros), fidelity) if priced else None
    layer = LayerResult(
        name=tally.name, phase=tally.phase, op=tally.kind, m=tally.m, n=tally.n, k=tally.k, gemms=tally.gemms,
        a_words=gemm.a_words,
        mac=tally.mac, activation=tally.activation, macs=gemm.macs,
        recomputed_outputs=flagged, recomputed_macs=flagged * tally.k,
        cycles=cost.cycles if cost else None, utilisation=cost.utilisation if cost else None,
        latency_s=cost.latency_s if cost else None,
        energy_j=cost.energy_j if cost else None, energy_low_j=cost.energy_low_j if cost else None,
        energy_high_j=cost.energy_high_j if cost else None, energy_parts_j=dict(cost.energy_parts_j) if cost else {},
        cycle_parts=dict(cost.cycle_parts) if cost else {}, roofline_cycles=cost.roofline_cycles if cost else None,
        max_rel_error=largest, mean_rel_error=mean, median_rel_error=median, overflows=tally.overflows,
        scales=tally.scales, zero_macs=zeros,
        energy_items=cost.energy_items if cost else (), cycle_items=cost.cycle_items if cost else (),
        rms_error=tally.errors.rms, sqnr_db=tally.errors.sqnr_db,
        waste_factor=cost.waste_factor if cost and flags is not None else None,
        traffic_bits=dict(cost.traffic_bits) if cost else {},
        pass_outputs=dict(zip(machine.mac.pass_names if tally.pass_outputs else (), tally.pass_outputs, strict=True)),
        planned=tally.planned,
    )  # fmt: skip
    return layer, cost


def _cost(
    machine: Machine,
    gemm: Gemm,
    tally: LayerTally,
    measured: tuple[MaskFlags | tuple[MaskFlags, ...] | None, int | None],
    fidelity: str,
) -> Cost:
    """Price a layer; one that is too large for a walk over its tiles by closed forms, with a warning."""
    try:
        return price(machine, gemm, tally.label, *measured, fidelity)
    except InputError as error:
        if fidelity != "event":
            raise
        cost = price(machine, gemm, tally.label, *measured)
        return replace(cost, warnings=(*cost.warnings, f"{tally.name}: {error}; its cycles here are analytic"))
