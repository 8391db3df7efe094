"""The price of one operation on one machine: cycles, latency, traffic, energy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from simulator.arithmetic.accumulators import Exact
from simulator.errors import InputError
from simulator.hardware import Machine, MacMode
from simulator.hardware.order import GUARD_BITS, innermost
from simulator.hardware.technology import Entry
from simulator.result import CycleItem, EnergyItem

from .bill import first_pass_energy, idle_neighbours, scoring_energy, second_pass_energy
from .energy import Ledger, basis
from .flags import Flags, MaskFlags, read_flags
from .gemm import Gemm
from .pipeline import Pass, uniform_pass
from .scalesim import scalesim_artefacts, scalesim_pass
from .schedule import Schedule
from .scoring import low_cycles, low_passes, numerators, scoring_warnings, side_bits
from .second_pass import Work, combined_roofline, second_work, total_cycles
from .tiling import Problem, Widths
from .traffic import level_bits

MODES = ("low", "high", "two_pass")


@dataclass(frozen=True)
class Cost:
    """What one operation costs on one machine. Estimates of a stated model, not measurements.

    Args:
        mode: low | high | two_pass. dataflow: that ran.
        cycles: an integer count. cycle_parts: compute, load (stationary operands), fill (skew in), drain (results out),
            memory_stall (waiting for DRAM or SRAM ports), gather and switch (second pass beyond the first, and the
            refill of the array for it); they sum to cycles.
        utilisation: MACs of the first pass over those that the arrays could do in all cycles at the rate of its mode.
        latency_s: cycles over the clock.
        energy_j: sum of energy_parts_j: mul, acc, side (scoring), register, idle, sram (with the accumulator buffer),
            dram, gather (on-chip operands of the second pass), leak.
        energy_low_j, energy_high_j: bounds by the bands of the classes, all parts off in the same direction.
        energy_basis: class and band of each part, in words.
        roofline_cycles: lower bound of cycles from peak MACs and bits moved by this schedule.
        traffic_bits: bits per level: dram, and NAME_reads, NAME_writes of each on-chip level.
        flagged_outputs, recomputed_outputs: outputs flagged, and those recomputed for them.
        zero_macs: MACs of the first pass with a zero operand; None without zero gating.
        warnings: assumptions that this figure rests on beyond those of the model.
        ledger, schedule: of which energy_items and cycle_items are made.
    """

    mode: str
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
    traffic_bits: Mapping[str, int]
    flagged_outputs: int
    recomputed_outputs: int
    zero_macs: int | None
    warnings: tuple[str, ...]
    ledger: Ledger = field(repr=False, compare=False)
    schedule: Schedule = field(repr=False, compare=False)

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
        return self.schedule.items(self.cycles)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain dicts, lists and numbers."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("ledger", "schedule")}
        energy, cycles = ([asdict(item) for item in self.energy_items], [asdict(item) for item in self.cycle_items])
        return plain | {"energy_items": energy, "cycle_items": cycles}


def price(
    machine: Machine,
    gemm: Gemm,
    mode: str,
    flags: NDArray[Any] | float | MaskFlags | None = None,
    zeros: int | float | None = None,
) -> Cost:
    """Price one operation in one mode.

    Args:
        machine: the accelerator. gemm: the operation. mode: low | high (uniform) | two_pass.
        flags: for two_pass, a bool array of shape (gemms, M, N), or (M, N) for one GEMM (the measured mask), or its
            counts, or the fraction of outputs flagged, 0..1, taken as independent.
        zeros: for a machine with zero gating, how many MACs of the first pass have a zero operand (measured), or as a
            float which fraction of them; None counts all MACs as working.
    Returns:
        The cost; estimates. Cycles are exact for the array as modelled.
    Raises:
        InputError: a mode that the machine lacks, flags or zeros of the wrong kind, or a memory too small for one fold.
    """
    _check_mode(machine, mode, flags)
    zero_macs = _zero_macs(machine, gemm, zeros)
    two_pass = mode == "two_pass"
    chosen = machine.mac.high if mode == "high" else machine.mac.low
    assert chosen is not None
    if machine.array.compat == "scalesim3":
        machine = replace(machine, memory=None)  # of its own, which never stalls
    array, outputs, first = machine.array, gemm.m * gemm.n, first_pass(machine, gemm, mode)
    work: Work | None = None
    found: Flags | None = None
    cycles, roofline = gemm.gemms * first.cycles, gemm.gemms * first.roofline
    low = cycles  # of the passes in the mode of the first one
    if two_pass:
        assert flags is not None
        found = read_flags(flags, gemm.gemms, gemm.m, gemm.n)
        work = second_work(machine, (gemm.gemms, gemm.m, gemm.n, gemm.k), first, found)
        low = gemm.gemms * low_cycles(machine, first, outputs)
        cycles = total_cycles(machine, gemm.gemms, first, work, found, gemm.k)
        roofline = combined_roofline(machine, gemm.gemms, first, work, outputs)
    parts = _cycle_parts(machine, gemm, first, work, low, cycles)
    ledger, resting, operand_bits = Ledger(), zero_macs or 0, moved_bits(machine, mode)
    if work is None:
        first_pass_energy(machine, gemm, chosen, first, ledger, cycles, operand_bits, resting)
    else:
        of_score = (low_passes(machine) - 1) * gemm.gemms * first.cycles
        in_low = cycles if machine.recomputing_engine else low
        first_pass_energy(machine, gemm, chosen, first, ledger, in_low - of_score, operand_bits, resting)
        scoring_energy(machine, gemm, first, ledger, operand_bits, resting)
        # Which MACs of flagged outputs rest is not known: as many of them as of all.
        second_pass_energy(machine, work, cycles - low, ledger, work.macs * resting // gemm.macs)
    idle_neighbours(machine, mode, cycles, work, ledger)
    technology = machine.technology
    latency_s = cycles / technology.frequency_hz
    ledger.add("leak", "static power", latency_s, Entry(technology.leakage_w, "user", "machine file", "s"))
    sums = ledger.totals()
    return Cost(
        mode=mode,
        dataflow=first.dataflow,
        cycles=cycles,
        cycle_parts=parts,
        utilisation=gemm.macs * chosen.passes / (array.pes * chosen.rate * cycles) if cycles else 0.0,
        latency_s=latency_s,
        energy_j=sum(sums.parts_j.values()),
        energy_parts_j=sums.parts_j,
        energy_low_j=sums.low_j,
        energy_high_j=sums.high_j,
        energy_basis=basis(tuple(sums.classes.items()), technology.table, bool(technology.leakage_w)),
        roofline_cycles=roofline,
        traffic_bits=_traffic(machine, gemm, first, work),
        flagged_outputs=0 if found is None else found.count(),
        recomputed_outputs=0 if work is None else work.outputs,
        zero_macs=zero_macs,
        warnings=_warnings(machine, gemm, chosen, found, zeros),
        ledger=ledger,
        schedule=Schedule(machine, gemm, chosen, first, work),
    )


def first_pass(machine: Machine, gemm: Gemm, mode: str) -> Pass:
    """Return the pass over one GEMM in the mode low or high, or the first one of two.

    Raises:
        InputError: a memory too small for one fold.
    """
    chosen = machine.mac.high if mode == "high" else machine.mac.low
    assert chosen is not None
    widths = _widths(machine, chosen, mode == "two_pass")
    problem = Problem(gemm.m, gemm.n, gemm.k, chosen.rate, widths, chosen.passes)
    if machine.array.compat == "scalesim3":
        return scalesim_pass(machine.array, problem)
    try:
        return uniform_pass(machine.array, machine.memory, machine.array.dataflow, problem)
    except InputError as error:
        raise InputError(f"{machine.source}: {error}") from None


def moved_bits(machine: Machine, mode: str) -> tuple[int | Fraction, int | Fraction]:
    """Return the bits of an activation and of a weight that such a pass moves."""
    chosen = machine.mac.high if mode == "high" else machine.mac.low
    assert chosen is not None
    widths = _widths(machine, chosen, mode == "two_pass")
    return widths.a, widths.w


def _check_mode(machine: Machine, mode: str, flags: object) -> None:
    if mode not in MODES:
        raise InputError(f"mode: got {mode!r}; expected one of {', '.join(MODES)}; choose one")
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
        if high.operand_formats != mode.operand_formats:
            a_high, w_high = high.operand_bits
            match machine.policy.weights:
                case "high_only":
                    a, w, a_held, w_held = a_high, w_high, a_high, w_high
                case "both":
                    a_held, w_held = a + a_high, w + w_high
                case "sliced":
                    a_held, w_held = a_high, w_high
    return Widths(a, w, mode.accumulator_bits + side, mode.partial_sum_bits + side, mode.output_bits, a_held, w_held)


def _cycle_parts(machine: Machine, gemm: Gemm, first: Pass, work: Work | None, low: int, cycles: int) -> dict[str, int]:
    passes = gemm.gemms if work is None else gemm.gemms * low_passes(machine)
    parts = {name: passes * getattr(first.run, name) for name in ("compute", "load", "fill", "drain")}
    parts["memory_stall"] = low - sum(parts.values())
    if work is not None:
        parts["switch"] = min(work.switch, cycles - low)
        parts["gather"] = cycles - low - parts["switch"]
    return parts


def _traffic(machine: Machine, gemm: Gemm, first: Pass, work: Work | None) -> dict[str, int]:
    memory = machine.memory
    passes = gemm.gemms * (1 if work is None else low_passes(machine))
    bits = {"dram": passes * first.traffic.dram}
    for name, (reads, writes) in first.level_bits.items():
        bits[f"{name}_reads"], bits[f"{name}_writes"] = passes * reads, passes * writes
    if work is not None:
        moved, outputs = work.traffic(memory), gemm.m * gemm.n
        if low_passes(machine) == 2:
            moved = moved.plus(numerators(machine, outputs), gemm.gemms)
        bits["dram"] += moved.dram
        for name, (reads, writes) in level_bits(memory, moved).items():
            bits[f"{name}_reads"] += reads
            bits[f"{name}_writes"] += writes
        name = "sram" if memory is None else memory.buffer("o").name
        for way in ("reads", "writes"):  # the mask
            bits[f"{name}_{way}"] += gemm.gemms * outputs
    return bits


def _warnings(
    machine: Machine, gemm: Gemm, mode: MacMode, flags: Flags | None, zeros: int | float | None
) -> tuple[str, ...]:
    found = [machine.technology.table.warning] if machine.technology.table.warning else []
    if mode.spec.operands is None:
        found.append("the MAC names no operand formats: operands are priced as fp32, 32 bit each")
    if machine.array.compat == "scalesim3":
        found.append(scalesim_artefacts(machine.array.dataflow))
    elif machine.memory is None:
        found.append("no memory described: operands are on chip, no stalls, no memory energy")
    if gemm.k > 2**GUARD_BITS and isinstance(innermost(mode.spec.accumulator), Exact):
        found.append(f"the exact accumulator is priced with room for 2**{GUARD_BITS} products, and K is {gemm.k}")
    if flags is not None and flags.independent:
        found.append("flags given as a fraction are taken as independent of each other")
    if flags is not None:
        found += scoring_warnings(machine, gemm.k)
    if machine.mac.zero_gating and zeros is None:
        found.append("mac.zero_gating: no zeros known, all MACs are counted as working")
    elif isinstance(zeros, float):
        found.append("zeros given as a fraction of the MACs are taken as given, not measured")
    return tuple(found)
