"""What notebooks show of a machine: its array and its modes, and what its file says with the sources of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulator.notebook import Table, View

if TYPE_CHECKING:
    from .records import Machine

SETTING = ("key", "value", "origin", "source")


def setting_rows(machine: Machine) -> list[dict[str, Any]]:
    """Return every key of a machine's file with the columns SETTING; none where no file tells of it."""
    return [{name: getattr(setting, name) for name in SETTING} for setting in machine.configuration.values()]


def machine_view(machine: Machine) -> View:
    """Return what is shown of a machine."""
    array, memory = machine.array, machine.memory
    copies = f"{array.copies} arrays" if array.copies > 1 else "an array"
    facts = [
        f"{copies[:1].upper()}{copies[1:]} of {array.rows} x {array.columns} PEs, dataflow {array.dataflow}.",
        f"Process: {machine.technology.table}.",
        "Its file describes no memory: operands are on chip."
        if memory is None
        else f"On chip: {', '.join(f'{level.name} {level.size_bits / 8192:g} KiB' for level in memory.levels)}.",
    ]
    if machine.policy is not None:
        facts.append(f"Two passes at tolerance {machine.policy.tolerance:g}, recomputed by {machine.policy.gather}.")
    modes = [
        {
            "mode": name,
            "arithmetic": str(mode.spec),
            "accumulator_bits": mode.accumulator_bits,
            "clock_hz": machine.technology.frequency_hz,
            "peak_macs_per_cycle": machine.peak_macs_per_s(mode) / machine.technology.frequency_hz,
        }
        for name, mode in machine.mac.modes.items()
    ]
    written = [{**row, "value": _words(row["value"])} for row in setting_rows(machine) if row["origin"] != "default"]
    return View(machine.name, facts, [Table("Modes", modes), Table("What its file says", written)])


def _words(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case list():
            return ", ".join(map(str, value))
    return "" if value in (None, {}) else str(value)
