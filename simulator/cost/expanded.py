"""The expanded configuration of a machine with its energies: every number that a bill rests on, with its source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, replace
from fractions import Fraction

from simulator.errors import InputError
from simulator.hardware import Machine
from simulator.hardware.document import Keys
from simulator.hardware.quantities import Quantity
from simulator.hardware.technology import BANDS, Entry, TechnologyTable, dimension_of
from simulator.result import Setting

from .energy import MacEnergy, lane_energies
from .energy_items import memory_charges, mode_energy
from .vector_unit import UNCERTAINTY


def expanded(machine: Machine) -> dict[Keys, Setting]:
    """Return every key of a machine's file with the value in effect, its origin and its source, and its table.

    Args:
        machine: from a file.
    Returns:
        By path of keys, in the order of the schema; energies that the file leaves to the table are numbers here, to six
        digits, and the entries of the table stand below technology.table. An energy of a format without a price stays
        "auto". Empty where no file tells of the machine.
    """
    found: dict[Keys, Setting] = {}
    energies, table = _energies(machine), machine.technology.table
    for at, setting in machine.configuration.items():
        if setting.value != "auto":
            found[at] = setting
        elif at in energies:
            found[at] = _resolved(setting, *energies[at], table)
        else:
            found[at] = replace(setting, origin=f"{setting.origin}: auto, for which table {table.name} has no price")
        if at == ("technology", "table"):
            found |= {(*at, name): entry for name, entry in _entries(table)}
    return found


def _energies(machine: Machine) -> dict[Keys, tuple[Entry, str]]:
    """Return the energy that each key leaves to the table, with its dimension."""
    found: dict[Keys, tuple[Entry, str]] = {}
    for key, mode in machine.mac.modes.items():
        with suppress(InputError):  # a format without a price, which may be of use all the same
            found[(*key.split("."), "energy")] = _mac_entry(mode_energy(machine, mode)), "energy"
    if machine.memory is not None:
        on_chip, dram = memory_charges(machine)
        found["memory", "dram", "energy"] = dram, "energy per bit"
        for level, ((_, read), (_, write)) in on_chip.items():
            found["memory", level, "read_energy"] = read, "energy per bit"
            found["memory", level, "write_energy"] = write, "energy per bit"
    lane = lane_energies(machine.technology.table, machine.vector_unit.format.format)
    if lane is not None:
        found["vector_unit", "energy"] = _vector_entry(*lane), "energy"
    return found


def _mac_entry(energy: MacEnergy) -> Entry:
    """Return the energy of a MAC as one entry, of the widest class of its parts, which the source tells apart."""
    widest = max((entry for _, _, entry in energy.mac), key=lambda entry: entry.band)
    parts = (f"{what} {_shown(entry.value, 'energy', 3)} ({entry.uncertainty})" for _, what, entry in energy.mac)
    fold_j = sum(entry.value for _, _, entry in energy.fold)
    source = f"{', '.join(parts)}; an add to a partial sum {_shown(fold_j, 'energy', 3)}"
    return Entry(energy.mac_j, widest.uncertainty, source, "MAC")


def _vector_entry(add: Entry, multiply: Entry) -> Entry:
    """Return the energy of both fused, with those of the two in the source."""
    add_shown, multiply_shown = (_shown(entry.value, "energy", 3) for entry in (add, multiply))
    parts = f"an addition {add_shown}, a multiplication {multiply_shown}, both when fused"
    return Entry(add.value + multiply.value, UNCERTAINTY, parts, "step")


def _resolved(setting: Setting, entry: Entry, dimension: str, table: TechnologyTable) -> Setting:
    source = "; ".join(text for text in (entry.source, setting.source) if text)
    origin = f"{setting.origin}: auto, {_of_table(entry, table)}"
    return replace(setting, value=_shown(entry.value, dimension), origin=origin, source=source)


def _entries(table: TechnologyTable) -> Iterator[tuple[str, Setting]]:
    """Yield the entries of a table by name."""
    for name in (field.name for field in fields(table)):
        content = getattr(table, name)
        if isinstance(content, Entry):
            yield name, _entry(name, content, table)
        elif isinstance(content, tuple):
            for size_bits, entry in content:
                size = Quantity(Fraction(size_bits), "size")
                yield f"{name}[{size}]", _entry(f"{name}[{size}]", entry, table)


def _entry(name: str, entry: Entry, table: TechnologyTable) -> Setting:
    dimension = dimension_of(name.partition("[")[0])
    value = entry.value if dimension is None else _shown(entry.value, dimension)
    return Setting(f"technology.table.{name}", value, _of_table(entry, table), entry.source)


def _of_table(entry: Entry, table: TechnologyTable) -> str:
    return f"table {table.name} ({entry.uncertainty} x/÷ {BANDS[entry.uncertainty]:g})"


def _shown(value: float, dimension: str, digits: int = 6) -> str:
    return str(Quantity(Fraction(f"{value:.{digits}g}"), dimension))
