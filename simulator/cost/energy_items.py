"""The energy of one operation on one machine: what is counted times what the table says of one of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

from simulator.errors import InputError
from simulator.hardware import Machine, MacMode
from simulator.hardware.technology import Entry

from .energy import Ledger, MacEnergy, mac_energy
from .gemm import Gemm
from .one_pass import Pass
from .scoring import low_passes, mask_bits, numerators, side_add
from .second_pass import Work, pass_name
from .traffic import ArrayBits, level_bits


@lru_cache(maxsize=1024)
def mode_energy(machine: Machine, mode: MacMode, *, on_engine: bool = False) -> MacEnergy:
    """Return the energy of a mode's MACs on the array, or of those of the side engine, which have one mode.

    Raises:
        InputError: a format that the model does not price, of a mode without an energy of its own.
    """
    unit = machine.mac
    further_modes = len(unit.further) if unit.datapath == "multi_mode" and not on_engine else 0
    slices = unit.low if mode.passes > 1 and not on_engine else None
    try:
        return mac_energy(machine.technology.table, mode, further_modes, slices, machine.technology.given_class)
    except InputError as error:
        key = next(key for key, own in unit.modes.items() if own == mode)
        raise InputError(f"{machine.source}: {key}: {error}") from None


def first_pass_energy(
    machine: Machine,
    gemm: Gemm,
    mode: MacMode,
    first: Pass,
    ledger: Ledger,
    cycles: int | None,
    operand_bits: tuple[int | Fraction, int | Fraction],
    zeros: int = 0,
) -> None:
    """Add the first pass over all GEMMs to a ledger, in joules (estimates).

    Args:
        mode: of the MAC. first: the pass over one GEMM.
        cycles: those in which the array is in this mode, None for its own.
        operand_bits: of an activation and a weight as they are moved.
        zeros: MACs with a zero operand, in which nothing switches.
    Raises:
        InputError: a format that the model does not price, of a mode without an energy of its own.
    """
    table, energy, gemms = machine.technology.table, mode_energy(machine, mode), gemm.gemms
    _macs(energy, gemm.macs - zeros, zeros, gemms * first.fold_adds, ledger)
    _decoding(energy, operand_bits, first.traffic.array, gemms, ledger)
    ledger.add("register", "registers of the array", gemms * first.register_bits, table.register_j_per_bit)
    slots = machine.array.pes * mode.rate * (gemms * first.cycles if cycles is None else cycles) // mode.passes
    idle = max(slots - gemm.macs, 0)  # SCALE-Sim's count of cycles leaves the last one out
    ledger.add("idle", "idle PEs", idle, energy.idle)
    _memory_energy(machine, first.level_bits, first.traffic.dram, gemms, "sram", ledger)


def scoring_energy(
    machine: Machine,
    gemm: Gemm,
    first: Pass,
    ledger: Ledger,
    operand_bits: tuple[int | Fraction, int | Fraction],
    zeros: int = 0,
    again: int = 0,
) -> None:
    """Add what decides which outputs are recomputed: the side metric of the score, a compare and a bit an output.

    Args:
        operand_bits, zeros: of the first pass. again: outputs of later passes that are scored.
    """
    policy, table, low, gemms = machine.policy, machine.technology.table, machine.mac.low, gemm.gemms
    assert policy is not None
    outputs = gemms * gemm.m * gemm.n
    ledger.add("side", "scores", outputs + again, compare_energy(machine))
    if policy.side_format is not None:
        what = f"running sums of magnitudes in {policy.side_format}"
        ledger.add("side", what, gemm.macs - zeros, side_add(table, policy.side_format))
    if policy.side_metric == "norm_bound":
        for _, what, entry in mode_energy(machine, low).mac:
            ledger.add("side", f"norms of rows and columns: {what}", gemms * (gemm.m + gemm.n) * gemm.k, entry)
    if low_passes(machine) == 2:
        other = Ledger()
        first_pass_energy(machine, gemm, low, first, other, None, operand_bits, zeros)
        for part, what, count, entry in other.charges:
            scored = "side" if part in ("mul", "acc") else part
            ledger.add(scored, f"pass over magnitudes: {what}", count, entry)
        back, fetched = numerators(machine, gemm.m * gemm.n), Ledger()
        _memory_energy(machine, level_bits(machine.memory, back), back.dram, gemms, "sram", fetched)
        ledger.join(fetched, "results of the pass over magnitudes: ")
    if machine.memory is not None:
        bits = outputs * mask_bits(machine)
        (_, read), (_, write) = memory_charges(machine)[0][machine.memory.buffer("o").name]
        ledger.add("sram", "reads of the mask", bits, read)
        ledger.add("sram", "writes of the mask", bits, write)


def _macs(energy: MacEnergy, working: int, zeros: int, fold_adds: int, ledger: Ledger) -> None:
    for part, what, entry in energy.mac:
        ledger.add(part, what, working, entry)
    ledger.add("idle", "MACs with a zero operand", zeros, energy.idle)
    for part, what, entry in energy.fold:
        ledger.add(part, what, fold_adds, entry)


def _decoding(
    energy: MacEnergy, operand_bits: tuple[int | Fraction, int | Fraction], moved: ArrayBits, times: int, ledger: Ledger
) -> None:
    """Add the decoding of operands that enter the array, of which so many bits are read."""
    a, w = energy.decode
    if a is not None:
        ledger.add("mul", "decoding of activations", times * (moved.a_reads // operand_bits[0]), a)
    if w is not None:
        ledger.add("mul", "decoding of weights", times * (moved.w_reads // operand_bits[1]), w)


def _memory_energy(
    machine: Machine, levels: Mapping[str, tuple[int, int]], dram_bits: int, times: int, part: str, ledger: Ledger
) -> None:
    """Add so many times what is read and written, on chip under the name of a part."""
    if machine.memory is None:
        return
    on_chip, dram = memory_charges(machine)
    for name, (reads, writes) in levels.items():
        (read_what, read), (write_what, write) = on_chip[name]
        ledger.add(part, read_what, times * reads, read)
        ledger.add(part, write_what, times * writes, write)
    ledger.add("dram", "dram reads and writes", times * dram_bits, dram)


def second_pass_energy(
    machine: Machine, work: Work, beyond: int, ledger: Ledger, zeros: int = 0, number: int = 2
) -> None:
    """Add the second pass over all GEMMs, or another one after the first, to a ledger, in joules (estimates).

    Args:
        work: what it does. number: of the pass.
        beyond: cycles after the passes before. zeros: MACs of the pass with a zero operand.
    """
    table, high = machine.technology.table, work.mode
    second = Ledger()
    on_array = machine.recomputing_engine is None
    energy = mode_energy(machine, high, on_engine=not on_array)
    _macs(energy, work.macs - zeros, zeros, work.fold_adds, second)
    _decoding(energy, high.operand_bits, work.array, 1, second)
    second.add("register", "registers", work.register_bits, table.register_j_per_bit)
    if on_array:
        slots = machine.array.pes * high.rate * beyond // high.passes
        second.add("idle", "idle PEs", slots - work.macs, energy.idle)
    moved = work.traffic(machine.memory)
    _memory_energy(machine, level_bits(machine.memory, moved), moved.dram, 1, "gather", second)
    ledger.join(second, f"{pass_name(number).removeprefix('the ')}: ")


@lru_cache(maxsize=256)
def compare_energy(machine: Machine) -> Entry:
    """Return the energy of the score of one output, an integer compare of its stored width."""
    adder, bits = machine.technology.table.adder_j_per_bit, machine.mac.low.output_bits
    return replace(adder, value=adder.value * bits, unit="output", formula=f"{adder.value * 1e15:g} fJ/bit x {bits}")


def idle_neighbours(machine: Machine, mode: str, cycles: int, works: Sequence[Work], ledger: Ledger) -> None:
    """Add what stands beside the active datapath: a side engine between its MACs, the other of two datapaths."""
    high = machine.mac.high
    if high is None:
        return
    if machine.side_engine is not None:
        recomputed = 0 if machine.recomputing_engine is None else sum(work.macs for work in works)
        slots = machine.side_engine.lanes * cycles - recomputed
        ledger.add("idle", "idle lanes of the side engine", slots, mode_energy(machine, high, on_engine=True).idle)
    if machine.mac.datapath == "pair":
        unused = machine.mac.low if mode == "high" else high
        slots = machine.array.pes * unused.rate * cycles
        ledger.add("idle", "the datapath that is not in use", slots, mode_energy(machine, unused).idle)


@lru_cache(maxsize=256)
def memory_charges(machine: Machine) -> tuple[dict[str, tuple[tuple[str, Entry], tuple[str, Entry]]], Entry]:
    """Return what a bit costs.

    Returns:
        (by name of an on-chip level: (what a read is called, its energy), (the same of a write); that of the DRAM).
    """
    memory, technology = machine.memory, machine.technology
    assert memory is not None

    def energy(given: float | None, auto: Entry) -> Entry:
        return auto if given is None else technology.given(given, "bit")

    found = {}
    for level in (*memory.levels, *(() if memory.accumulators is None else (memory.accumulators,))):
        auto = technology.table.sram_energy(level.size_bits)
        read, write = energy(level.read_j_per_bit, auto), energy(level.write_j_per_bit, auto)
        found[level.name] = (f"{level.name} reads", read), (f"{level.name} writes", write)
    return found, energy(memory.dram.energy_j_per_bit, technology.table.dram_j_per_bit)
