"""What one operation costs in a process: energies, areas and factors, each with its class and source."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from .hashing import remembers_hash

# Uncertainty band of a class as a factor either way.
BANDS = {"user": 1.0, "table": 1.3, "fit": 2.0, "scaled": 4.0, "assumed": 4.0}

# By the end of an entry's name: dimension of its quantity, and of what it is per one.
_KINDS = {
    "_j_per_bit2": ("energy per square bit", "bit²"),
    "_j_per_bit": ("energy per bit", "bit"),
    "_um2_per_bit2": ("area per square bit", "bit²"),
    "_um2_per_bit": ("area per bit", "bit"),
}


def dimension_of(name: str) -> str | None:
    """Return the dimension of an entry; None for a plain factor."""
    return next((dimension for end, (dimension, _) in _KINDS.items() if name.endswith(end)), None)


def unit_of(name: str) -> str:
    """Return of what an entry is per one, as Entry.unit has it."""
    return next((unit for end, (_, unit) in _KINDS.items() if name.endswith(end)), "")


@dataclass(frozen=True)
class Entry:
    """One number of the cost model.

    Args:
        value: in joules or square micrometres per `unit`, or a plain factor.
        uncertainty: class, a key of BANDS. source: of the number.
        unit: what it is of one of, "bit", "MAC", "" for a plain factor.
        formula: how it follows from other numbers, with these; empty for a number that stands for itself.
    """

    value: float
    uncertainty: str
    source: str
    unit: str = ""
    formula: str = ""

    @property
    def band(self) -> float:
        """Factor either way within which the true value is taken to lie."""
        return BANDS[self.uncertainty]


@remembers_hash
@dataclass(frozen=True)
class TechnologyTable:
    """Energies and areas of one process node. Names end in their unit; bit2 is a bit times a bit.

    Args:
        name: of the data file. node_nm: process node, to which the file's numbers are scaled if it is another's.
        partial_product_j_per_bit2: multiplier array, per product of two bits. adder_j_per_bit: integer add.
        float_adder_j_per_bit: float add, per bit of significand.
        rounded_multiplier_j_per_bit2, rounded_multiplier_j_per_bit: float multiplier that rounds its product, per
            product of two bits of significand and per bit of the result.
        shifter_j_per_bit: alignment, per bit and stage. register_j_per_bit: per bit written.
        idle_factor: energy of an idle MAC in parts of a working one.
        mode_factor: energy and area more for each further mode of a PE.
        posit_factor: energy and area of a multiplier or adder of posits or takums in parts of that of floats.
        sram_j_per_bit: (size in bits, energy per bit), ascending, interpolated and continued log-log; one point holds
            for all sizes.
        dram_j_per_bit: of the default memory.
        partial_product_um2_per_bit2, adder_um2_per_bit, float_adder_um2_per_bit, rounded_multiplier_um2_per_bit2,
            rounded_multiplier_um2_per_bit, shifter_um2_per_bit, register_um2_per_bit: area of the same.
        sram_cell_um2_per_bit: a bit cell. sram_efficiency: share of an SRAM's area that its cells take.
        warning: what a reader of any result must know of the table, empty for nothing.
        transfer: how its numbers came to the node from another: scaled | unscaled; empty: they are its own.
    """

    name: str
    node_nm: float
    partial_product_j_per_bit2: Entry
    adder_j_per_bit: Entry
    float_adder_j_per_bit: Entry
    rounded_multiplier_j_per_bit2: Entry
    rounded_multiplier_j_per_bit: Entry
    shifter_j_per_bit: Entry
    register_j_per_bit: Entry
    idle_factor: Entry
    mode_factor: Entry
    posit_factor: Entry
    sram_j_per_bit: tuple[tuple[float, Entry], ...]
    dram_j_per_bit: Entry
    partial_product_um2_per_bit2: Entry
    adder_um2_per_bit: Entry
    float_adder_um2_per_bit: Entry
    rounded_multiplier_um2_per_bit2: Entry
    rounded_multiplier_um2_per_bit: Entry
    shifter_um2_per_bit: Entry
    register_um2_per_bit: Entry
    sram_cell_um2_per_bit: Entry
    sram_efficiency: Entry
    warning: str = ""
    transfer: str = ""

    def __str__(self) -> str:
        return f"{self.name}{', ' if self.transfer else ''}{self.transfer} ({self.node_nm:g} nm)"

    def sram_energy(self, size_bits: int) -> Entry:
        """Return the energy per bit of an SRAM of a size (estimate: log-log through the points of the table)."""
        points = self.sram_j_per_bit
        if len(points) == 1:
            return points[0][1]
        place = next((i for i in range(1, len(points) - 1) if size_bits < points[i][0]), len(points) - 1)
        (size_0, entry_0), (size_1, entry_1) = points[place - 1], points[place]
        slope = math.log(entry_1.value / entry_0.value) / math.log(size_1 / size_0)
        widest = max((entry_0, entry_1), key=lambda entry: entry.band)
        formula = (
            f"{entry_0.value * 1e15:g} fJ/bit x ({size_bits / 8192:g} KiB / {size_0 / 8192:g} KiB)^{slope:.6g}, "
            f"through {entry_1.value * 1e15:g} fJ/bit at {size_1 / 8192:g} KiB"
        )
        return replace(widest, value=entry_0.value * (size_bits / size_0) ** slope, formula=formula)


_NO_ENTRIES = ("name", "node_nm", "warning", "transfer")
ENTRIES = tuple(field.name for field in fields(TechnologyTable) if field.name not in _NO_ENTRIES)
SRAM = "sram_j_per_bit"  # the entry with a value for each of several sizes
