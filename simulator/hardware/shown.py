"""What notebooks show of a machine: its array and its modes, and what its file says with the sources of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from formats.notebook import MISSING
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
    settings = setting_rows(machine)
    facts = [
        *(row["source"] for row in settings if not row["key"]),  # the file says what it describes
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
            "peak_macs_per_cycle": _whole(machine.peak_macs_per_s(mode) / machine.technology.frequency_hz),
        }
        for name, mode in machine.mac.modes.items()
    ]
    written = [{**row, "value": _words(row["value"])} for row in settings if row["key"] and row["origin"] != "default"]
    return View(machine.name, facts, [Table("Modes", modes), Table("What its file says", written)])


def _whole(number: float) -> float:
    return int(number) if number.is_integer() else number


def _words(value: Any) -> str:
    match value:
        case None:
            return MISSING
        case bool():
            return "true" if value else "false"
        case list():
            return ", ".join(map(str, value))
    return "" if value == {} else str(value)
