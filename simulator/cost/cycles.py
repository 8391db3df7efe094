"""The cycles of one operation in one of three fidelities, and what they are spent on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from .second_pass import Work, alone, beside_low, beyond_rooflines, total_cycles

FIDELITIES = ("roofline", "analytic", "event")


@dataclass(frozen=True)
class Cycles:
    """Cycles of one operation.

    Args:
        first: the pass over one GEMM in the mode low or high, with the cycles of the fidelity.
        low: of all low passes, or of those of a uniform mode. further: of each pass after them, beyond the one before.
        roofline: lower bound of all together.
        parts: what they are spent on; they sum to total.
        events: of a walk that was to keep them.
    """

    first: Pass
    low: int
    further: tuple[int, ...]
    roofline: int
    parts: Mapping[str, int]
    events: tuple[Event, ...] = ()

    @property
    def total(self) -> int:
        """Of all passes."""
        return self.low + sum(self.further)


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
    later: Sequence[tuple[Work, Flags]],
    fidelity: str,
    trace: bool = False,
) -> Cycles:
    """Count the cycles of an operation.

    Args:
        machine: the accelerator. gemm: the operation. problem: one of its GEMMs, and first: the pass over it, in the
            mode low or high. later: the passes after it with their flags; none in a uniform mode.
        fidelity: one of FIDELITIES. trace: whether a walk keeps its events.
    Raises:
        InputError: another fidelity, or one that the machine or the size of the operation rules out.
    """
    check_fidelity(machine, fidelity)
    works, outputs = [work for work, _ in later], gemm.m * gemm.n
    passes = gemm.gemms * (low_passes(machine) if later else 1)
    bounds = beyond_rooflines(machine, gemm.gemms, first, works, outputs) if later else ()
    roofline = passes * first.roofline + sum(bounds)
    if fidelity == "event":
        return _walked(machine, gemm, problem, first, later, roofline, trace)
    if fidelity == "roofline":
        first = replace(first, memory_stall=first.roofline - first.run.total)
        low, peak = passes * first.roofline, passes * min(first.peak, first.roofline)
        parts = {"compute": peak, "memory_stall": low - peak}
        return Cycles(first, low, bounds, roofline, parts | ({"gather": sum(bounds)} if later else {}))
    further: tuple[int, ...] = ()
    low = gemm.gemms * (low_cycles(machine, first, outputs) if later else first.cycles)
    if later:
        second = total_cycles(machine, gemm.gemms, first, *later[0], gemm.k) - low
        further = (second, *(alone(machine, work) for work in works[1:]))
    parts = {name: passes * cycles for name, cycles in first.run._asdict().items()}
    parts["memory_stall"] = low - sum(parts.values())
    return Cycles(first, low, further, roofline, parts | _beyond(works, further))


def _beyond(works: Sequence[Work], further: Sequence[int]) -> dict[str, int]:
    """Return what the cycles after the low passes are spent on."""
    if not works:
        return {}
    switch = sum(min(work.switch, cycles) for work, cycles in zip(works, further, strict=True))
    return {"switch": switch, "gather": sum(further) - switch}


def _walked(
    machine: Machine,
    gemm: Gemm,
    problem: Problem,
    first: Pass,
    later: Sequence[tuple[Work, Flags]],
    roofline: int,
    trace: bool,
) -> Cycles:
    """Count cycles tile by tile; a low pass of the score's own takes as long as the first pass by itself."""
    pipeline, gemms = tile_costs_of(machine.array, machine.memory, problem, first), gemm.gemms
    uniform = walk(pipeline, trace=trace)
    first = replace(first, memory_stall=uniform.cycles - first.run.total)
    if not later:
        parts = {part: gemms * cycles for part, cycles in uniform.parts.items()}
        return Cycles(first, gemms * uniform.cycles, (), roofline, parts, uniform.events)
    scored = _scoring(machine, first, uniform, gemm.m * gemm.n)
    policy, engine = machine.policy, machine.recomputing_engine
    assert policy is not None
    works = [work for work, _ in later]
    if policy.overlap == "tile" and engine is not None and works[0].outputs:
        ((work, flags),) = later
        flagged = flagged_tiles(machine, first, flags, gemm.k, work.steps)
        found = walk(pipeline, gemms, flagged, engine.queue, scored, trace)
        served = found.recomputed + found.last_store
        further = [beside_low(machine, flags.shape, first, work, found.cycles, served) - found.cycles]
        what, unit = "gather", "side engine"
    else:
        found = walk(pipeline, gemms, before=scored, trace=trace)
        further = [alone(machine, work) for work in works]
        what, unit = "recompute", "MAC array" if engine is None else "side engine"
    events, begun = list(found.events), found.cycles
    for cycles in further:
        if trace and cycles:
            events.append(Event(what, (), begun, begun + cycles, unit))
        begun += cycles
    parts = {**found.parts, **_beyond(works, further)}
    return Cycles(first, found.cycles, tuple(further), roofline, parts, tuple(events))


def _scoring(machine: Machine, first: Pass, uniform: Walk, outputs: int) -> dict[str, int]:
    """Return what the cycles of the score's own low pass over a GEMM are spent on; nothing without one."""
    cycles = low_cycles(machine, first, outputs) - first.cycles
    if not cycles:
        return {}
    return {**uniform.parts, "transfer_stall": uniform.parts["transfer_stall"] + cycles - uniform.cycles}
