"""The ways to gather flagged outputs side by side: one machine, one mask, four policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from simulator.hardware import Machine
from simulator.hardware.policy import usual_overlap, usual_place
from simulator.result import GatherResult

from .break_even import common_break_even
from .energy import Ledger
from .energy_items import first_pass_energy, scoring_energy, second_pass_energy
from .flags import IndependentFlags, MaskFlags
from .gemm import Gemm
from .price import Cost, first_pass, moved_bits, price
from .recomputing import group_sizes
from .second_pass import second_work

GATHERS = ("element", "row", "coltile", "tile")


@dataclass(frozen=True)
class Gathered:
    """One operation in two passes with one kind of gather.

    Args:
        cost: None where the machine cannot gather so. high: of one pass in the high mode.
        saved_j, groups: as common_break_even takes them.
    """

    outputs: int
    flagged: int
    cost: Cost | None
    high: Cost
    saved_j: float = 0.0
    groups: tuple[tuple[float, int], ...] = ()


def with_gather(machine: Machine, gather: str) -> Machine | None:
    """Return a machine with another gather in its policy, None where it cannot gather so.

    A gather that is not the machine's own runs on a side engine that is an array, or else on the array, with the
    overlap of the policy where that is possible. A dot-product engine takes elements.
    """
    policy, engine = machine.policy, machine.side_engine
    assert policy is not None
    if gather == policy.gather:
        return machine
    kind = None if engine is None else engine.kind
    if gather == "element" and kind != "dot":
        return None
    runs_on = usual_place(gather, kind)
    overlap = policy.overlap if runs_on == policy.runs_on else usual_overlap(runs_on)
    return replace(machine, policy=replace(policy, gather=gather, runs_on=runs_on, overlap=overlap))


def gathered(
    machine: Machine,
    gemm: Gemm,
    flags: MaskFlags | float,
    own: Cost | None = None,
    zeros: int | float | None = None,
) -> dict[str, Gathered]:
    """Price an operation with each kind of gather.

    Args:
        machine: with a two-pass policy. gemm: the operation. flags: those measured, or a fraction.
        own: its cost with the machine's own policy, if known; side by side all are analytic, so that no other is taken.
        zeros: as price takes them.
    """
    policy = machine.policy
    assert policy is not None
    high = price(machine, gemm, "high", zeros=zeros)
    if own is None or own.fidelity != "analytic":
        own = price(machine, gemm, "two_pass", flags, zeros)
    found = {}
    for gather in GATHERS:
        other = with_gather(machine, gather)
        outputs, flagged = gemm.gemms * gemm.m * gemm.n, own.flagged_outputs
        if other is None:
            found[gather] = Gathered(outputs, flagged, None, high)
        else:
            cost = own if gather == policy.gather else price(other, gemm, "two_pass", flags, zeros)
            found[gather] = Gathered(outputs, flagged, cost, high, *energy_balance(other, gemm))
    return found


def energy_balance(machine: Machine, gemm: Gemm) -> tuple[float, tuple[tuple[float, int], ...]]:
    """Return what common_break_even takes: what the first pass saves, and what recomputing all outputs takes.

    The energy of MACs and scores; memory, registers and idle MACs are not counted.
    """
    low, high = machine.mac.low, machine.mac.high
    assert high is not None
    first, uniform = first_pass(machine, gemm, "two_pass"), first_pass(machine, gemm, "high")
    in_high, before, again = Ledger(), Ledger(), Ledger()
    first_pass_energy(machine, gemm, high, uniform, in_high, None, moved_bits(machine, "high"))
    first_pass_energy(machine, gemm, low, first, before, None, moved_bits(machine, "two_pass"))
    scoring_energy(machine, gemm, first, before, moved_bits(machine, "two_pass"))
    all_outputs = IndependentFlags(1.0, gemm.gemms, gemm.m, gemm.n)
    work = second_work(machine, (gemm.gemms, gemm.m, gemm.n, gemm.k), first, all_outputs)
    second_pass_energy(machine, work, work.busy, again)
    again_j, sizes = _macs_j(again), group_sizes(machine, first, gemm.m, gemm.n)
    return _macs_j(in_high) - _macs_j(before), tuple(
        (again_j * outputs / (gemm.m * gemm.n), size) for outputs, size in sizes
    )


def _macs_j(ledger: Ledger) -> float:
    parts_j = ledger.totals().parts_j
    return sum(parts_j[part] for part in ("mul", "acc", "side"))


def gather_results(
    machine: Machine, operations: Sequence[dict[str, Gathered]], layer: str | None = None
) -> tuple[GatherResult, ...]:
    """Return the kinds of gather for some operations together, one after the other.

    Args:
        machine: that they were priced on. operations: at least one. layer: its name, None for a whole run.
    """
    return tuple(_result(machine, gather, [of[gather] for of in operations], layer) for gather in GATHERS)


def _result(machine: Machine, gather: str, operations: list[Gathered], layer: str | None) -> GatherResult:
    assert machine.policy is not None
    outputs, flagged = sum(one.outputs for one in operations), sum(one.flagged for one in operations)
    own = gather == machine.policy.gather
    other = with_gather(machine, gather)
    costs = [one.cost for one in operations if one.cost is not None]
    if other is None or len(costs) < len(operations):
        return GatherResult(
            layer, gather, own, "", "", outputs, flagged, None, None, None, None, None, None, None,
            "needs a side engine of kind dot",
        )  # fmt: skip
    assert other.policy is not None
    recomputed = sum(cost.recomputed_outputs for cost in costs)
    cycles, energy_j = sum(cost.cycles for cost in costs), sum(cost.energy_j for cost in costs)
    high_cycles, high_j = sum(one.high.cycles for one in operations), sum(one.high.energy_j for one in operations)
    return GatherResult(
        layer=layer,
        gather=gather,
        own=own,
        runs_on="array" if other.recomputing_engine is None else "side_engine",
        overlap=other.policy.overlap,
        outputs=outputs,
        flagged_outputs=flagged,
        recomputed_outputs=recomputed,
        waste_factor=recomputed / flagged if flagged else 1.0,
        cycles=cycles,
        energy_j=energy_j,
        cycles_vs_high=cycles / high_cycles,
        energy_vs_high=energy_j / high_j if high_j else None,
        break_even_flagged=common_break_even(
            sum(one.saved_j for one in operations), [group for one in operations for group in one.groups]
        ),
    )
