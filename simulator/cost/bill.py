"""The energy of one operation on one machine: what is counted times what the table says of one of it."""

from __future__ import annotations

from simulator.errors import InputError
from simulator.hardware import Machine, MacMode, Memory
from simulator.hardware.technology import EnergyTable, Entry

from .energy import Ledger, MacEnergy, mac_energy
from .gemm import Gemm
from .pipeline import Pass
from .second_pass import Work, both_passes, recompute_j
from .traffic import Traffic, level_bits


def mode_energy(machine: Machine, mode: MacMode, *, on_engine: bool = False) -> MacEnergy:
    """Return the energy of a mode's MACs on the array, or of those of the side engine, which have one mode.

    Raises:
        InputError: a format that the model does not price, of a mode without an energy of its own.
    """
    shared = machine.mac.datapath == "multi_mode" and not on_engine
    try:
        return mac_energy(machine.technology.table, mode, 1 if shared else 0)
    except InputError as error:
        key = "mac.low" if mode is machine.mac.low else "mac.high"
        raise InputError(f"{machine.source}: {key}: {error}") from None


def first_pass_energy(
    machine: Machine, gemm: Gemm, mode: MacMode, first: Pass, ledger: Ledger, cycles: int | None
) -> None:
    """Add the first pass; `cycles` are those in which the array is in this mode, None for its own."""
    table, energy, gemms = machine.technology.table, mode_energy(machine, mode), gemm.gemms
    ledger.add("mul", gemm.macs * energy.mul_j, energy.mul_class)
    ledger.add("acc", gemm.macs * energy.acc_j + gemms * first.fold_adds * energy.fold_j, energy.acc_class)
    ledger.add(
        "register", gemms * first.register_bits * table.register_j_per_bit.value, table.register_j_per_bit.uncertainty
    )
    slots = machine.array.pes * mode.rate * (gemms * first.cycles if cycles is None else cycles)
    idle = max(slots - gemm.macs, 0)  # SCALE-Sim's count of cycles leaves the last one out
    ledger.add("idle", idle * table.idle_factor.value * energy.mac_j, table.idle_factor.uncertainty)
    _memory_energy(machine, both_passes(machine.memory, gemms, first, None), "sram", ledger)


def _memory_energy(machine: Machine, moved: Traffic, part: str, ledger: Ledger) -> None:
    """Add what is moved, on chip under the name of a part."""
    if machine.memory is None:
        return
    energies = level_energies(machine)
    for name, (reads, writes) in level_bits(machine.memory, moved).items():
        read, write = energies[name]
        ledger.add(part, reads * read.value, read.uncertainty)
        ledger.add(part, writes * write.value, write.uncertainty)
    dram = dram_energy(machine.memory, machine.technology.table)
    ledger.add("dram", moved.dram * dram.value, dram.uncertainty)


def second_pass_energy(machine: Machine, gemm: Gemm, work: Work, beyond: int, ledger: Ledger) -> None:
    """Add scoring and the second pass; `beyond` are the cycles after the first pass."""
    table, high = machine.technology.table, machine.mac.high
    assert high is not None
    outputs = gemm.gemms * gemm.m * gemm.n
    compare_j = table.adder_j_per_bit.value * machine.mac.low.output_bits
    ledger.add("side", outputs * compare_j, table.adder_j_per_bit.uncertainty)
    on_array = machine.side_engine is None
    energy = mode_energy(machine, high, on_engine=not on_array)
    mul_j, acc_j = recompute_j(work, energy)
    ledger.add("mul", mul_j, energy.mul_class)
    ledger.add("acc", acc_j, energy.acc_class)
    ledger.add("register", work.register_bits * table.register_j_per_bit.value, table.register_j_per_bit.uncertainty)
    if on_array:
        slots = machine.array.pes * high.rate * beyond
        ledger.add("idle", (slots - work.macs) * table.idle_factor.value * energy.mac_j, table.idle_factor.uncertainty)
    _memory_energy(machine, work.traffic(machine.memory), "gather", ledger)
    if machine.memory is not None:  # the mask, one bit an output
        read, write = level_energies(machine)[machine.memory.buffer("o").name]
        ledger.add("sram", outputs * read.value, read.uncertainty)
        ledger.add("sram", outputs * write.value, write.uncertainty)


def idle_neighbours(machine: Machine, mode: str, cycles: int, work: Work | None, ledger: Ledger) -> None:
    """Add what stands beside the active datapath: a side engine between its MACs, the other of two datapaths."""
    table, high = machine.technology.table, machine.mac.high
    if high is None:
        return
    if machine.side_engine is not None:
        slots = machine.side_engine.lanes * cycles - (0 if work is None else work.macs)
        engine_j = mode_energy(machine, high, on_engine=True).mac_j
        ledger.add("idle", slots * table.idle_factor.value * engine_j, table.idle_factor.uncertainty)
    if machine.mac.datapath == "pair":
        unused = machine.mac.low if mode == "high" else high
        slots = machine.array.pes * unused.rate * cycles
        unused_j = mode_energy(machine, unused).mac_j
        ledger.add("idle", slots * table.idle_factor.value * unused_j, table.idle_factor.uncertainty)


def level_energies(machine: Machine) -> dict[str, tuple[Entry, Entry]]:
    """Return the energies per bit read and written of each on-chip level, by its name."""
    if machine.memory is None:
        return {}
    buffer, table = machine.memory.accumulators, machine.technology.table
    found = {}
    for level in (*machine.memory.levels, *(() if buffer is None else (buffer,))):
        auto = table.sram_energy(level.size_bits)
        found[level.name] = _or_given(level.read_j_per_bit, auto), _or_given(level.write_j_per_bit, auto)
    return found


def dram_energy(memory: Memory, table: EnergyTable) -> Entry:
    """Return the energy per bit moved in or out of the DRAM."""
    return _or_given(memory.dram.energy_j_per_bit, table.dram_j_per_bit)


def _or_given(given: float | None, auto: Entry) -> Entry:
    return auto if given is None else Entry(given, "user", "machine file")
