"""The price of one operation on one machine: cycles, latency, traffic, energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from simulator.arithmetic.accumulators import Exact, innermost
from simulator.errors import InputError
from simulator.hardware import Machine, MacMode
from simulator.hardware.widths import GUARD_BITS
from simulator.notebook import Bill
from simulator.result import PRICED_MODES, CycleItem, EnergyItem

from .cycle_items import CycleBill
from .cycles import Cycles, count_cycles
from .energy import Ledger, basis
from .energy_items import first_pass_energy, idle_neighbours, scoring_energy, second_pass_energy
from .event import Event
from .flags import Flags, MaskFlags, read_flags
from .gemm import Gemm
from .one_pass import Pass, uniform_pass
from .problem import Problem, Widths
from .scalesim import scalesim_artefacts, scalesim_pass
from .scoring import low_passes, mask_bits, numerators, scoring_warnings, side_bits
from .second_pass import Work, second_work
from .traffic import level_bits

OfPass = NDArray[Any] | float | MaskFlags  # flags of a pass after the first


@dataclass(frozen=True)
class Cost(Bill):
    """What one operation costs on one machine, by a stated model: energies are estimates, for cycles see `price`.

    Args:
        mode: low | high | two_pass. fidelity: of the cycles, and of the energy that follows from them: roofline (the
            lower bound) | analytic | event (tile by tile).
        dataflow: that ran.
        cycles: an integer count. cycle_parts: compute, load (stationary operands), fill (skew in), drain (results out),
            memory_stall (waiting for the DRAM or a port of a level), gather and switch (second pass beyond the first,
            and the refill of the array for it); they sum to cycles. In fidelity event the causes of stalls (see
            `event.STALLS`) stand in place of memory_stall; in roofline compute is what the MACs take at the peak rate.
        utilisation: MACs of the first pass over those that the arrays could do in all cycles at the rate of its mode.
        latency_s: cycles over the clock.
        energy_j: sum of energy_parts_j: mul, acc, side (scoring), register, idle, sram (all on-chip levels),
            dram, gather (on-chip operands of the second pass), leak.
        energy_low_j, energy_high_j: bounds by the bands of the classes, all parts off in the same direction.
        energy_basis: class and band of each part, in words.
        roofline_cycles: lower bound of cycles from peak MACs and bits moved by this schedule. roofline_bound: what
            binds it in the first pass: compute, or a port of the memory by the name of its level.
        traffic_bits: bits per level: dram, and NAME_reads, NAME_writes of each on-chip level.
        flagged_outputs, recomputed_outputs: outputs flagged, and those recomputed for them; of a ladder of all passes
            after the first together. flagged_by_pass: the same, of each.
        zero_macs: MACs of the first pass with a zero operand; None without zero gating.
        warnings: assumptions that this figure rests on beyond those of the model.
        ledger, cycle_bill: of which energy_items and cycle_items are made.
    """

    mode: str
    fidelity: str
    dataflow: str
    cycles: int
    cycle_parts: Mapping[str, int]
    utilisation: float
    latency_s: float
    energy_j: float
    energy_parts_j: Mapping[str, float]
    energy_low_j: float
    energy_high_j: float
    energy_basis: str
    roofline_cycles: int
    roofline_bound: str
    traffic_bits: Mapping[str, int]
    flagged_outputs: int
    recomputed_outputs: int
    flagged_by_pass: tuple[int, ...]
    zero_macs: int | None
    warnings: tuple[str, ...]
    ledger: Ledger = field(repr=False, compare=False)
    cycle_bill: CycleBill = field(repr=False, compare=False)

    @property
    def waste_factor(self) -> float:
        """gamma: outputs recomputed over outputs flagged; 1 without flags."""
        return self.recomputed_outputs / self.flagged_outputs if self.flagged_outputs else 1.0

    @property
    def energy_items(self) -> tuple[EnergyItem, ...]:
        """What energy_j is the sum of: how many of what, and what one costs, with formula, class and source."""
        return self.ledger.items()

    @property
    def cycle_items(self) -> tuple[CycleItem, ...]:
        """What cycles is the sum of, with formulas."""
        return self.cycle_bill.items()

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain dicts, lists and numbers."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("ledger", "cycle_bill")}
        energy, cycles = ([asdict(item) for item in self.energy_items], [asdict(item) for item in self.cycle_items])
        return plain | {"energy_items": energy, "cycle_items": cycles}


def price(
    machine: Machine,
    gemm: Gemm,
    mode: str,
    flags: OfPass | Sequence[OfPass] | None = None,
    zeros: int | float | None = None,
    fidelity: str = "analytic",
) -> Cost:
    """Price one operation in one mode.

    Args:
        machine: the accelerator. gemm: the operation. mode: low | high (uniform) | two_pass.
        flags: for two_pass, a bool array of shape (gemms, M, N), or (M, N) for one GEMM (the measured mask), or its
            counts, or the fraction of outputs flagged, 0..1, taken as independent. On a machine with mac.middle one of
            these for each pass after the first, or one fraction for all of them.
        zeros: for a machine with zero gating, how many MACs of the first pass have a zero operand (measured), or as a
            float which fraction of them; None counts all MACs as working.
        fidelity: of the cycles: roofline (a lower bound) | analytic | event (tile by tile).
    Returns:
        The cost. Energies are estimates. Cycles, of the machine as modelled: roofline, a lower bound of the others;
        analytic, exact with at most two copies of a tile, if each brings an operand, and without staging levels, banks
        and a full queue, else an upper bound of event without the last two; event, exact, with banks an estimate.
    Raises:
        InputError: a mode that the machine lacks, flags or zeros of the wrong kind, a memory too small for one fold, or
            too many tiles for event.
    """
    return _priced(machine, gemm, mode, flags, zeros, fidelity)[0]


def timeline(
    machine: Machine, gemm: Gemm, mode: str, flags: OfPass | Sequence[OfPass] | None = None
) -> tuple[Event, ...]:
    """Return what happens when, where and to which tile: the events behind a price of fidelity event.

    Args:
        machine, gemm, mode, flags: as price takes them. Of several GEMMs that are all alike, the events of the first.
    Raises:
        InputError: as price does.
    """
    return _priced(machine, gemm, mode, flags, None, "event", trace=True)[1].events


def _priced(
    machine: Machine,
    gemm: Gemm,
    mode: str,
    flags: OfPass | Sequence[OfPass] | None,
    zeros: int | float | None,
    fidelity: str,
    trace: bool = False,
) -> tuple[Cost, Cycles]:
    _check_mode(machine, mode, flags)
    zero_macs = _zero_macs(machine, gemm, zeros)
    chosen = machine.mac.first(mode)
    if machine.array.like_scalesim:
        machine = replace(machine, memory=None)  # of its own, which never stalls
    array, problem = machine.array, problem_of(machine, gemm, mode)
    first = _first_pass(machine, problem)
    shape = gemm.gemms, gemm.m, gemm.n
    flagged = [read_flags(own, *shape) for own in _by_pass(machine, flags)]
    works = tuple(
        second_work(machine, (*shape, gemm.k), first, own, mode_of)
        for own, mode_of in zip(flagged, machine.mac.further if flagged else (), strict=True)
    )
    counted = count_cycles(machine, gemm, problem, first, tuple(zip(works, flagged, strict=True)), fidelity, trace)
    first, low, cycles = counted.first, counted.low, counted.total
    ledger, resting, operand_bits = Ledger(), zero_macs or 0, (problem.widths.a, problem.widths.w)
    if not works:
        first_pass_energy(machine, gemm, chosen, first, ledger, cycles, operand_bits, resting)
    else:
        of_score = (low_passes(machine) - 1) * gemm.gemms * first.cycles
        in_low = cycles if machine.recomputing_engine else low
        first_pass_energy(machine, gemm, chosen, first, ledger, in_low - of_score, operand_bits, resting)
        climbs = machine.policy is not None and machine.policy.ladder == "climb"
        again = sum(own.count() for own in flagged[:-1]) if climbs else 0
        scoring_energy(machine, gemm, first, ledger, operand_bits, resting, again)
        # Which MACs of flagged outputs rest is not known: as many of them as of all.
        for number, (work, beyond) in enumerate(zip(works, counted.further, strict=True), 2):
            second_pass_energy(machine, work, beyond, ledger, work.macs * resting // gemm.macs, number)
    idle_neighbours(machine, mode, cycles, works, ledger)
    technology = machine.technology
    latency_s = cycles / technology.frequency_hz
    ledger.add("leak", "static power", latency_s, technology.given(technology.leakage_w, "s"))
    sums = ledger.totals()
    cost = Cost(
        mode=mode,
        fidelity=fidelity,
        dataflow=first.dataflow,
        cycles=cycles,
        cycle_parts=counted.parts,
        utilisation=gemm.macs * chosen.passes / (array.pes * chosen.rate * cycles) if cycles else 0.0,
        latency_s=latency_s,
        energy_j=sum(sums.parts_j.values()),
        energy_parts_j=sums.parts_j,
        energy_low_j=sums.low_j,
        energy_high_j=sums.high_j,
        energy_basis=basis(tuple(sums.classes.items()), technology.table, bool(technology.leakage_w)),
        roofline_cycles=counted.roofline,
        roofline_bound=first.bound,
        traffic_bits=_traffic(machine, gemm, first, works),
        flagged_outputs=sum(own.count() for own in flagged),
        flagged_by_pass=tuple(own.count() for own in flagged),
        recomputed_outputs=sum(work.outputs for work in works),
        zero_macs=zero_macs,
        warnings=_warnings(machine, gemm, chosen, flagged, zeros),
        ledger=ledger,
        cycle_bill=CycleBill(machine, gemm, chosen, works, fidelity, counted),
    )
    return cost, counted


def _by_pass(machine: Machine, flags: OfPass | Sequence[OfPass] | None) -> Sequence[OfPass]:
    """Return the flags of each pass after the first."""
    if flags is None:
        return ()
    passes = len(machine.mac.further)
    if passes == 1:
        return (flags,)  # type: ignore[return-value]  # read_flags refuses what is none
    if isinstance(flags, float):
        return (flags,) * passes
    if not isinstance(flags, list | tuple) or len(flags) != passes:
        found = f"{len(flags)}" if isinstance(flags, list | tuple) else f"one {type(flags).__name__}"
        raise InputError(
            f"flags: got {found} for the ladder of {machine.source}; expected those of each of the {passes} passes "
            "after the first, or one fraction for all of them; give a list"
        )
    return flags


def first_pass(machine: Machine, gemm: Gemm, mode: str) -> Pass:
    """Return the pass over one GEMM in the mode low or high, or the first one of two.

    Raises:
        InputError: a memory too small for one fold.
    """
    return _first_pass(machine, problem_of(machine, gemm, mode))


def _first_pass(machine: Machine, problem: Problem) -> Pass:
    if machine.array.like_scalesim:
        return scalesim_pass(machine.array, problem)
    try:
        return uniform_pass(machine.array, machine.memory, machine.array.dataflow, problem)
    except InputError as error:
        raise InputError(f"{machine.source}: {error}") from None


def moved_bits(machine: Machine, mode: str) -> tuple[int | Fraction, int | Fraction]:
    """Return the bits of an activation and of a weight that such a pass moves."""
    chosen = machine.mac.first(mode)
    widths = _widths(machine, chosen, mode == "two_pass")
    return widths.a, widths.w


def problem_of(machine: Machine, gemm: Gemm, mode: str) -> Problem:
    """Return one GEMM as the array sees it."""
    chosen = machine.mac.first(mode)
    widths = _widths(machine, chosen, mode == "two_pass")
    if gemm.a_words is not None and (share := gemm.a_share) != 1:
        widths = widths._replace(a_share=share)
    return Problem(gemm.m, gemm.n, gemm.k, chosen.rate, widths, chosen.passes)


def _check_mode(machine: Machine, mode: str, flags: object) -> None:
    if mode not in PRICED_MODES:
        raise InputError(f"mode: got {mode!r}; expected one of {', '.join(PRICED_MODES)}; choose one")
    if mode == "high" and machine.mac.high is None:
        raise InputError(
            f"{machine.source}: mac.high: missing; expected a second MAC to price mode high; add it, or use low"
        )
    if mode == "two_pass" and machine.policy is None:
        raise InputError(
            f"{machine.source}: policy: got none; expected a two-pass policy to price two_pass; add one, or use low"
        )
    if (mode == "two_pass") != (flags is not None):
        raise InputError(
            f"flags: got {'some' if flags is not None else 'none'} for mode {mode}; expected them with two_pass only"
        )


def _zero_macs(machine: Machine, gemm: Gemm, zeros: int | float | None) -> int | None:
    """Return how many MACs rest because an operand is zero; None on a machine without zero gating."""
    if not machine.mac.zero_gating:
        if zeros is not None:
            raise InputError(
                f"zeros: got {zeros!r} for a machine without mac.zero_gating ({machine.source}); expected none; leave "
                "them out, or set mac.zero_gating: true"
            )
        return None
    if zeros is None:
        return 0
    most = 1.0 if isinstance(zeros, float) else gemm.macs
    if isinstance(zeros, bool) or not isinstance(zeros, int | float) or not 0 <= zeros <= most:
        raise InputError(
            f"zeros: got {zeros!r}; expected a count of MACs from 0 to {gemm.macs}, or a fraction from 0.0 to 1.0; "
            "give e.g. 0.5"
        )
    return round(zeros * gemm.macs) if isinstance(zeros, float) else zeros


@lru_cache(maxsize=1024)
def _widths(machine: Machine, mode: MacMode, two_pass: bool) -> Widths:
    a, w = mode.operand_bits
    a_held, w_held = a, w
    high, side = machine.mac.high, 0
    if two_pass:
        assert machine.policy is not None and high is not None
        side = side_bits(machine)
        if any(own.operand_formats != mode.operand_formats for own in machine.mac.further):
            a_high, w_high = high.operand_bits
            match machine.policy.weights:
                case "high_only":
                    a, w, a_held, w_held = a_high, w_high, a_high, w_high
                case "both":
                    held = {own.operand_formats: own.operand_bits for own in machine.mac.modes.values()}
                    a_held, w_held = (sum(bits) for bits in zip(*held.values(), strict=True))
                case "sliced":
                    a_held, w_held = a_high, w_high
    return Widths(a, w, mode.accumulator_bits + side, mode.partial_sum_bits + side, mode.output_bits, a_held, w_held)


def _traffic(machine: Machine, gemm: Gemm, first: Pass, works: Sequence[Work]) -> dict[str, int]:
    memory = machine.memory
    passes = gemm.gemms * (low_passes(machine) if works else 1)
    bits = {"dram": passes * first.traffic.dram}
    for name, (reads, writes) in first.level_bits.items():
        bits[f"{name}_reads"], bits[f"{name}_writes"] = passes * reads, passes * writes
    if works:
        moved, outputs = works[0].traffic(memory), gemm.m * gemm.n
        for work in works[1:]:
            moved = moved.plus(work.traffic(memory))
        if low_passes(machine) == 2:
            moved = moved.plus(numerators(machine, outputs), gemm.gemms)
        bits["dram"] += moved.dram
        for name, (reads, writes) in level_bits(memory, moved).items():
            bits[f"{name}_reads"] += reads
            bits[f"{name}_writes"] += writes
        name = "sram" if memory is None else memory.buffer("o").name
        for way in ("reads", "writes"):  # the mask
            bits[f"{name}_{way}"] += gemm.gemms * outputs * mask_bits(machine)
    return bits


def _warnings(
    machine: Machine, gemm: Gemm, mode: MacMode, flags: Sequence[Flags], zeros: int | float | None
) -> tuple[str, ...]:
    found = [machine.technology.table.warning] if machine.technology.table.warning else []
    if mode.spec.operands is None:
        found.append("the MAC names no operand formats: operands are priced as fp32, 32 bit each")
    if machine.array.like_scalesim:
        found.append(scalesim_artefacts(machine.array.dataflow))
    elif machine.memory is None:
        found.append("no memory described: operands are on chip, no stalls, no memory energy")
    if gemm.k > 2**GUARD_BITS and isinstance(innermost(mode.spec.accumulator), Exact):
        found.append(f"the exact accumulator is priced with room for 2**{GUARD_BITS} products, and K is {gemm.k}")
    if any(own.independent for own in flags):
        found.append("flags given as a fraction are taken as independent of each other")
    if flags:
        found += scoring_warnings(machine, gemm.k)
    if machine.mac.zero_gating and zeros is None:
        found.append("mac.zero_gating: no zeros known, all MACs are counted as working")
    elif isinstance(zeros, float):
        found.append("zeros given as a fraction of the MACs are taken as given, not measured")
    return tuple(found)
