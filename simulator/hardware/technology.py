"""Energy tables: one data file a process node, one value, class and source an entry."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import as_file, files
from typing import Any

from simulator.errors import InputError

from .document import read_document
from .quantities import parse_quantity

# Uncertainty band of a class as a factor either way.
BANDS = {"user": 1.0, "table": 1.3, "fit": 2.0, "scaled": 4.0, "assumed": 4.0}


@dataclass(frozen=True)
class Entry:
    """One number of a table: value in joules (per bit or squared bit where the name says so) or a plain factor."""

    value: float
    uncertainty: str
    source: str


@dataclass(frozen=True)
class EnergyTable:
    """Energies of one process node.

    Args:
        name: of the data file. node_nm: process node.
        partial_product_j_per_bit2: multiplier array, per product of two bits. adder_j_per_bit: integer add.
        float_adder_j_per_bit: float add, per bit of significand.
        rounded_multiplier_j_per_bit2, rounded_multiplier_j_per_bit: float multiplier that rounds its product.
        shifter_j_per_bit: alignment, per bit and stage. register_j_per_bit: per bit written.
        idle_factor: energy of an idle MAC in parts of a working one. mode_factor: more for each further mode of a PE.
        sram_j_per_bit: (size in bits, energy per bit), ascending, interpolated and continued log-log.
        dram_j_per_bit: of the default memory.
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
    sram_j_per_bit: tuple[tuple[float, Entry], ...]
    dram_j_per_bit: Entry

    def sram_energy(self, size_bits: int) -> Entry:
        """Return the energy per bit of an SRAM of a size (estimate: log-log through the points of the table)."""
        points = self.sram_j_per_bit
        place = next((i for i in range(1, len(points) - 1) if size_bits < points[i][0]), len(points) - 1)
        (size_0, entry_0), (size_1, entry_1) = points[place - 1], points[place]
        slope = math.log(entry_1.value / entry_0.value) / math.log(size_1 / size_0)
        return Entry(entry_0.value * (size_bits / size_0) ** slope, entry_0.uncertainty, entry_0.source)


def table_names() -> list[str]:
    """Return the names of the energy tables that ship with the simulator."""
    # Read as files: importing simulator.cost here would close a circle of imports.
    return sorted(
        f.name.removesuffix(".yaml") for f in (files("simulator") / "cost").iterdir() if f.name.endswith(".yaml")
    )


@cache
def energy_table(name: str) -> EnergyTable:
    """Return an energy table by name; InputError lists the known ones."""
    if name not in table_names():
        raise InputError(f"energy table {name!r} is unknown; expected one of {', '.join(table_names())}")
    with as_file(files("simulator") / "cost" / f"{name}.yaml") as path:
        data = read_document(path, path.name).data
    known = {"node", *(field.name for field in fields(EnergyTable) if field.name not in ("name", "node_nm"))}
    if data.keys() != known:
        raise InputError(
            f"{name}.yaml: got the keys {', '.join(sorted(data))}; expected exactly {', '.join(sorted(known))}"
        )
    node = parse_quantity(data.pop("node"), ("length",), "7 nm")
    points = tuple(
        (float(parse_quantity(point["size"], ("size",), "8 KiB").value), _entry("energy per bit", point))
        for point in data.pop("sram_j_per_bit")
    )
    entries = {key: _entry(dimension_of(key), form) for key, form in data.items()}
    return EnergyTable(name=name, node_nm=float(node.value * 10**9), sram_j_per_bit=points, **entries)


def dimension_of(key: str) -> str | None:
    """Return the dimension of an entry, which its name ends in; None for a plain factor."""
    if key.endswith("_bit2"):
        return "energy per square bit"
    return "energy per bit" if key.endswith("_bit") else None


def _entry(dimension: str | None, form: dict[str, Any]) -> Entry:
    value = form["value"] if dimension is None else parse_quantity(form["value"], (dimension,), "1.0 fJ/bit").value
    if form["class"] not in BANDS:
        raise InputError(f"class {form['class']!r} is unknown; expected one of {', '.join(BANDS)}")
    return Entry(float(value), form["class"], form["source"])
