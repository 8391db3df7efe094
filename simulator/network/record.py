"""The record of a run, from what was counted while it ran and what it costs on the machine."""

from __future__ import annotations

from collections.abc import Iterable
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
from simulator.result import MODES, GatherResult, LayerResult, RunResult, summed
from simulator.versions import versions

from .ops import FORWARD
from .tally import LayerTally, RelativeErrors

if TYPE_CHECKING:
    from .emulation import Emulation

PRICED = ("low", "high", "two_pass")  # labels of the arithmetics that a machine has
_OFTEN = 0.01  # share of a layer's outputs that may overflow before the record warns


def run_record(run: Emulation) -> RunResult:
    """Return the record of an emulation so far, without what needs labels or an exact run."""
    groups = _groups(run.tallies)
    priced = [[_layer(run.machine, tally, run.fidelity) for tally in group] for group in groups]
    singles = tuple(layer for group in priced for layer, _ in group)
    costs = [cost for group in priced for _, cost in group if cost is not None]
    by_operation = run.operations.costs(run.machine)
    others = [cost for of_one in by_operation.values() for cost in of_one]
    default = run.rules.default
    totals: dict[str, Any] = dict.fromkeys(PRICED)
    if default.label in totals and len(costs) == len(singles):
        totals[default.label] = _total(run.machine, singles, costs, others)
    warnings = (
        *_of_fidelity(run.fidelity),
        *_notes(run),
        *_not_emulated(run),
        *_not_priced(run),
        *_overflows(run),
        *(text for cost in costs for text in cost.warnings),
    )
    layers = tuple(_together(group, [layer for layer, _ in of]) for group, of in zip(groups, priced, strict=True))
    return RunResult(
        hardware=run.machine.name, model=type(run.model).__name__, samples=run.samples, accuracy=None,
        agreement=dict.fromkeys(MODES), forward_error=dict.fromkeys(MODES), totals=totals,
        layers=layers, gathers=_gathers(run.machine, groups, priced, layers),
        baseline_layers={}, tolerance=default.criterion.tolerance if default.criterion else None,
        energy_basis="; ".join(of[0].energy_basis for of in (costs, others) if of), versions=versions(), seed=run.seed,
        warnings=tuple(dict.fromkeys(warnings)), operations=run.operations.results(by_operation),
        settings=run.rules.in_words(), machine=tuple(expanded(run.machine).values()),
        fidelity=run.fidelity,
        **_area(run.machine),
    )  # fmt: skip


def _area(machine: Machine) -> dict[str, Any]:
    found = known_area(machine)
    if found is None:
        return {}
    return {
        "area_um2": found.area_um2, "area_parts_um2": dict(found.area_parts_um2), "area_low_um2": found.area_low_um2,
        "area_high_um2": found.area_high_um2, "area_items": found.items,
    }  # fmt: skip


def _of_fidelity(fidelity: str) -> list[str]:
    words = {
        "roofline": "fidelity roofline: cycles are lower bounds, and what is paid by the cycle follows from them",
        "event": "fidelity event: cycles are counted tile by tile, their stalls by cause",
    }
    return [words[fidelity]] if fidelity in words else []


def _notes(run: Emulation) -> list[str]:
    """Return where the score had no rule, and rules that no operation had."""
    names: dict[str, list[str]] = {}
    for tally in run.tallies:
        consumer = run.consumers.get(tally.name)
        if consumer is not None and consumer.note and tally.phase == FORWARD:
            names.setdefault(consumer.note, []).append(tally.name)
    notes = [f"{_listed(places)}: {note}" for note, places in names.items()]
    if run.samples:
        notes += [
            f"layers: no operation had the rule of the pattern {pattern!r}: what it fits computes nothing that the "
            "rule is for, or an earlier pattern fits that too; a product belongs to the module that computes it"
            for pattern in run.rules.unused()
        ]
    return notes


def _not_emulated(run: Emulation) -> list[str]:
    where: dict[str, list[str]] = {}
    for operation, place in sorted(run.not_emulated):
        where.setdefault(operation, []).append(place)
    return [
        f"{operation} in {_listed(places)}: not emulated and not priced; torch computed it"
        for operation, places in where.items()
    ]


def _not_priced(run: Emulation) -> list[str]:
    return [
        f"{_listed(list(names))}: not priced: {reason}"
        for reason, names in run.operations.unpriced(run.machine).items()
    ]


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"


def _overflows(run: Emulation) -> list[str]:
    """Return which layers with scaled operands overflow often: scaled too far for their accumulator."""
    return [
        f"{tally.name}: {share:.0%} of its outputs overflowed with operands scaled {tally.scales}; a narrow "
        "accumulator needs room for its sums: give the scales a smaller `to`"
        for tally in run.tallies
        if tally.scales and (share := tally.overflows / max(1, tally.gemms * tally.m * tally.n)) > _OFTEN
    ]


def _groups(tallies: Iterable[LayerTally]) -> list[list[LayerTally]]:
    """Return tallies one by one, but those of the steps of a recurrent layer together, which differ in nothing else."""
    groups: list[list[LayerTally]] = []
    last: dict[tuple[str, str], list[LayerTally]] = {}  # by path and phase: the phases of a step take turns
    for tally in tallies:
        at = tally.name.split("#")[0], tally.phase
        before = last.get(at)
        if before is not None and _follows(tally, before[-1]):
            before.append(tally)
        else:
            last[at] = [tally]
            groups.append(last[at])
    return groups


def _follows(tally: LayerTally, before: LayerTally) -> bool:
    """Whether a tally is that of the next step of the same products; another direction or layer begins behind a gap."""
    steps = tally.step and before.step and _kind(tally) == _kind(before)
    return steps and abs(_call(tally) - _call(before)) == 1


def _call(tally: LayerTally) -> int:
    return int(tally.name.partition("#")[2] or 1)


def _kind(tally: LayerTally) -> tuple[object, ...]:
    return tally.kind, tally.gemms, tally.m, tally.n, tally.k, tally.mac, tally.activation, tally.scales


def _together(tallies: list[LayerTally], layers: list[LayerResult]) -> LayerResult:
    """Return one record for the steps of a recurrent layer, which run one after the other."""
    first, last = layers[0], layers[-1]
    if len(layers) == 1:
        return first
    errors = RelativeErrors()
    for tally in tallies:
        errors.join(tally.errors)
    largest, mean, median = errors.summary()
    cycles = sum(layer.cycles or 0 for layer in layers)
    whole: dict[str, Any] = {}
    for name in ("cycles", "latency_s", "energy_j", "energy_low_j", "energy_high_j", "roofline_cycles"):
        values = [getattr(layer, name) for layer in layers]
        whole[name] = None if None in values else sum(values)
    for name in ("energy_parts_j", "cycle_parts"):
        parts = [getattr(layer, name) for layer in layers]
        whole[name] = {part: sum(of[part] for of in parts) for part in parts[0]}
    for name in ("gemms", "a_words", "macs", "recomputed_outputs", "recomputed_macs", "overflows"):
        whole[name] = sum(getattr(layer, name) for layer in layers)
    if first.zero_macs is not None:
        whole["zero_macs"] = sum(layer.zero_macs or 0 for layer in layers)
    whole["energy_items"] = summed([item for layer in layers for item in layer.energy_items], "count", "energy_j")
    whole["cycle_items"] = summed([item for layer in layers for item in layer.cycle_items], "cycles")
    if first.waste_factor is not None:
        flagged = whole["recomputed_outputs"]
        gathered_outputs = sum(layer.recomputed_outputs * (layer.waste_factor or 1.0) for layer in layers)
        whole["waste_factor"] = gathered_outputs / flagged if flagged else 1.0
    if first.utilisation is not None:
        whole["utilisation"] = sum((layer.utilisation or 0.0) * (layer.cycles or 0) for layer in layers) / cycles
    return replace(
        first, name=f"{first.name} to {last.name.removeprefix(last.name.split('#')[0]) or last.name}", **whole,
        max_rel_error=largest, mean_rel_error=mean, median_rel_error=median, sqnr_db=errors.sqnr_db,
    )  # fmt: skip


def _total(
    machine: Machine, layers: tuple[LayerResult, ...], costs: list[Cost], others: list[VectorCost]
) -> dict[str, float]:
    """Sum the bill of the layers, which have these costs, and of all else, one after the other.

    The accumulation cost is the mean over all MACs, of each layer's in its own mode.
    """
    macs = sum(layer.macs for layer in layers)
    accumulation = 0.0
    for mode in dict.fromkeys(cost.mode for cost in costs):
        own = [layer for layer, cost in zip(layers, costs, strict=True) if cost.mode == mode]
        own_macs = sum(layer.macs for layer in own)
        share = sum(layer.recomputed_macs for layer in own) / own_macs
        relative = accumulation_cost(machine, share)[mode]
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
    """Return the ways to gather the flags of what ran in two passes: of all of it, then of each layer."""
    by_layer = []
    for tallies, of, layer in zip(groups, priced, layers, strict=True):
        name = layer.name if layer.phase == FORWARD else f"{layer.name}, {layer.phase}"
        kinds = [
            gathered(machine, tally.gemm, flags, cost, cost.zero_macs)
            for tally, (_, cost) in zip(tallies, of, strict=True)
            if cost is not None and (flags := tally.flags()) is not None
        ]
        if kinds:
            by_layer.append((name, kinds))
    if not by_layer:
        return ()
    whole = gather_results(machine, [kind for _, kinds in by_layer for kind in kinds])
    return (*whole, *(one for name, kinds in by_layer for one in gather_results(machine, kinds, name)))


def _layer(machine: Machine, tally: LayerTally, fidelity: str) -> tuple[LayerResult, Cost | None]:
    flags = tally.flags()
    recomputed = 0 if flags is None else flags.count()
    largest, mean, median = tally.errors.summary()
    gemm = tally.gemm
    priced = tally.label in PRICED
    zeros = tally.zeros if machine.mac.zero_gating and priced else None
    cost = _cost(machine, gemm, tally, (flags, zeros), fidelity) if priced else None
    layer = LayerResult(
        name=tally.name, phase=tally.phase, op=tally.kind, m=tally.m, n=tally.n, k=tally.k, gemms=tally.gemms,
        a_words=gemm.a_words,
        mac=tally.mac, activation=tally.activation, macs=gemm.macs,
        recomputed_outputs=recomputed, recomputed_macs=recomputed * tally.k,
        cycles=cost.cycles if cost else None, utilisation=cost.utilisation if cost else None,
        latency_s=cost.latency_s if cost else None,
        energy_j=cost.energy_j if cost else None, energy_low_j=cost.energy_low_j if cost else None,
        energy_high_j=cost.energy_high_j if cost else None, energy_parts_j=dict(cost.energy_parts_j) if cost else {},
        cycle_parts=dict(cost.cycle_parts) if cost else {}, roofline_cycles=cost.roofline_cycles if cost else None,
        max_rel_error=largest, mean_rel_error=mean, median_rel_error=median, overflows=tally.overflows,
        scales=tally.scales, zero_macs=zeros,
        energy_items=cost.energy_items if cost else (), cycle_items=cost.cycle_items if cost else (),
        sqnr_db=tally.errors.sqnr_db, waste_factor=cost.waste_factor if cost and flags is not None else None,
    )  # fmt: skip
    return layer, cost


def _cost(
    machine: Machine, gemm: Gemm, tally: LayerTally, measured: tuple[MaskFlags | None, int | None], fidelity: str
) -> Cost:
    """Price a layer; one that is too large for a walk over its tiles by closed forms, with a warning."""
    try:
        return price(machine, gemm, tally.label, *measured, fidelity)
    except InputError as error:
        if fidelity != "event":
            raise
        cost = price(machine, gemm, tally.label, *measured)
        return replace(cost, warnings=(*cost.warnings, f"{tally.name}: {error}; its cycles here are analytic"))
