"""The cycles of one operation in one of three fidelities, and what they are spent on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from simulator.errors import InputError
from simulator.hardware import Machine

from .event import Event, Walk, walk
from .flags import Flags
from .gemm import Gemm
from .one_pass import Pass, tile_costs_of
from .problem import Problem
from .queue import flagged_tiles
from .scoring import low_cycles, low_passes
from .second_pass import Work, after_low, beside_low, combined_roofline, total_cycles

FIDELITIES = ("roofline", "analytic", "event")


@dataclass(frozen=True)
class Cycles:
    """Cycles of one operation.

    Args:
        first: the pass over one GEMM in the mode low or high, with the cycles of the fidelity.
        low: of all low passes, or of those of a uniform mode. total: of the second pass too. roofline: lower bound.
        parts: what they are spent on; they sum to total.
        events: of a walk that was to keep them.
    """

    first: Pass
    low: int
    total: int
    roofline: int
    parts: Mapping[str, int]
    events: tuple[Event, ...] = ()


def check_fidelity(machine: Machine, fidelity: str) -> None:
    """Refuse a fidelity that is none, or that the machine does not have.

    Raises:
        InputError: see above.
    """
    if fidelity not in FIDELITIES:
        raise InputError(f"fidelity: got {fidelity!r}; expected one of {', '.join(FIDELITIES)}; choose one")
    if fidelity != "analytic" and machine.array.like_scalesim:
        raise InputError(
            f"{machine.source}: array.compat: {machine.array.compat}: got fidelity {fidelity}, which SCALE-Sim's "
            "counts do not have; expected analytic; choose it, or remove array.compat"
        )


def count_cycles(
    machine: Machine,
    gemm: Gemm,
    problem: Problem,
    first: Pass,
    second: tuple[Work, Flags] | None,
    fidelity: str,
    trace: bool = False,
) -> Cycles:
    """Count the cycles of an operation.

    Args:
        machine: the accelerator. gemm: the operation. problem: one of its GEMMs, and first: the pass over it, in the
            mode low or high. second: the second pass and its flags, None for a uniform mode.
        fidelity: one of FIDELITIES. trace: whether a walk keeps its events.
    Raises:
        InputError: another fidelity, or one that the machine or the size of the operation rules out.
    """
    check_fidelity(machine, fidelity)
    outputs = gemm.m * gemm.n
    roofline = gemm.gemms * first.roofline
    if second is not None:
        roofline = combined_roofline(machine, gemm.gemms, first, second[0], outputs)
    if fidelity == "event":
        return _walked(machine, gemm, problem, first, second, roofline, trace)
    if fidelity == "roofline":
        first = replace(first, memory_stall=first.roofline - first.run.total)
        passes = gemm.gemms * (1 if second is None else low_passes(machine))
        low, total = passes * first.roofline, roofline
        peak = passes * min(first.peak, first.roofline)
        parts = {"compute": peak, "memory_stall": low - peak}
        return Cycles(first, low, total, roofline, parts if second is None else parts | {"gather": total - low})
    if second is None:
        low = total = gemm.gemms * first.cycles
    else:
        low = gemm.gemms * low_cycles(machine, first, outputs)
        total = total_cycles(machine, gemm.gemms, first, *second, gemm.k)
    passes = gemm.gemms * (1 if second is None else low_passes(machine))
    parts = {name: passes * cycles for name, cycles in first.run._asdict().items()}
    parts["memory_stall"] = low - sum(parts.values())
    return Cycles(first, low, total, roofline, parts | _beyond(second, total - low))


def _beyond(second: tuple[Work, Flags] | None, cycles: int) -> dict[str, int]:
    """Return what the cycles after the low passes are spent on."""
    if second is None:
        return {}
    switch = min(second[0].switch, cycles)
    return {"switch": switch, "gather": cycles - switch}


def _walked(
    machine: Machine,
    gemm: Gemm,
    problem: Problem,
    first: Pass,
    second: tuple[Work, Flags] | None,
    roofline: int,
    trace: bool,
) -> Cycles:
    """Count cycles tile by tile; a low pass of the score's own takes as long as the first pass by itself."""
    pipeline, gemms = tile_costs_of(machine.array, machine.memory, problem, first), gemm.gemms
    alone = walk(pipeline, trace=trace)
    first = replace(first, memory_stall=alone.cycles - first.run.total)
    if second is None:
        total = gemms * alone.cycles
        parts = {part: gemms * cycles for part, cycles in alone.parts.items()}
        return Cycles(first, total, total, roofline, parts, alone.events)
    work, flags = second
    scored = _scoring(machine, first, alone, gemm.m * gemm.n)
    policy, engine = machine.policy, machine.recomputing_engine
    assert policy is not None
    if policy.overlap == "tile" and engine is not None and work.outputs:
        flagged = flagged_tiles(machine, first, flags, gemm.k, work.steps)
        found = walk(pipeline, gemms, flagged, engine.queue, scored, trace)
        served = found.recomputed + found.last_store
        total = beside_low(machine, flags.shape, first, work, found.cycles, served)
        if trace and total > found.cycles:
            found = replace(found, events=(*found.events, Event("gather", (), found.cycles, total, "side engine")))
    else:
        found = walk(pipeline, gemms, before=scored, trace=trace)
        total = after_low(machine, work, found.cycles)
        if trace and total > found.cycles:
            unit = "MAC array" if engine is None else "side engine"
            found = replace(found, events=(*found.events, Event("recompute", (), found.cycles, total, unit)))
    return Cycles(
        first, found.cycles, total, roofline, {**found.parts, **_beyond(second, total - found.cycles)}, found.events
    )


def _scoring(machine: Machine, first: Pass, alone: Walk, outputs: int) -> dict[str, int]:
    """Return what the cycles of the score's own low pass over a GEMM are spent on; nothing without one."""
    cycles = low_cycles(machine, first, outputs) - first.cycles
    if not cycles:
        return {}
    return {**alone.parts, "transfer_stall": alone.parts["transfer_stall"] + cycles - alone.cycles}
