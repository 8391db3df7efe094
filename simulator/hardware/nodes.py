"""Nodes without a technology table: scaled from the one next to them, or taken as another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.resources import as_file, files
from typing import Any

from .document import read_document
from .quantities import parse_quantity
from .technology import BANDS, ENTRIES, SRAM, Entry, TechnologyTable, unit_of


@dataclass(frozen=True)
class Curve:
    """Energy of logic at one node against supply voltage V, c2*V^2 + c1*V + c0, and its area against that at 45 nm."""

    node_nm: float
    c2: float
    c1: float
    c0: float
    area: float
    doubt: str

    def energy(self, voltage: float) -> float:
        """Return the energy at a supply voltage, in the unit of all curves."""
        return self.c2 * voltage**2 + self.c1 * voltage + self.c0


@cache
def scaling_curves() -> tuple[float, tuple[Curve, ...]]:
    """Return the supply voltage at which nodes are compared, and their curves from the largest on."""
    with as_file(files("simulator") / "hardware" / "stillmaker2017.yaml") as path:
        data = read_document(path, path.name).data
    curves = [
        Curve(
            float(parse_quantity(form["node"], ("length",), "7 nm").value * 10**9),
            float(form["c2"]),
            float(form["c1"]),
            float(form["c0"]),
            float(form["area"]),
            form.get("doubt", ""),
        )
        for form in data["nodes"]
    ]
    return float(data["voltage"]), tuple(curves)


def neighbours(table: TechnologyTable) -> list[float]:
    """Return the nodes in nm to which a table is scaled: those next to its own, but for one with a doubtful curve."""
    _, curves = scaling_curves()
    places = [place for place, curve in enumerate(curves) if curve.node_nm == table.node_nm]
    near = [curves[i] for place in places for i in (place - 1, place + 1) if 0 <= i < len(curves)]
    return [curve.node_nm for curve in near if not curve.doubt]


@lru_cache(maxsize=64)
def scaled_table(table: TechnologyTable, node_nm: float) -> TechnologyTable:
    """Return a table scaled to a neighbouring node; energies off the chip and factors stay (estimate).

    Args:
        table: of a node. node_nm: one of its `neighbours`.
    Source: Stillmaker and Baas 2017.
    """
    voltage, curves = scaling_curves()
    here, there = (next(c for c in curves if c.node_nm == node) for node in (table.node_nm, node_nm))
    energy, area = there.energy(voltage) / here.energy(voltage), there.area / here.area
    warning = (
        f"{node_nm:g} nm has no table of its own: energies on the chip are those of {table.name} x {energy:.3g}, areas "
        f"x {area:.3g}, of class scaled, by the curves of Stillmaker and Baas 2017 at {voltage:g} V, which over many "
        "nodes are 3 to 6 times too optimistic"
    )
    found = _transferred(table, (energy, area), f"from {table.node_nm:g} nm, Stillmaker and Baas 2017")
    return replace(found, node_nm=node_nm, warning=warning, transfer="scaled")


@lru_cache(maxsize=64)
def unscaled_table(table: TechnologyTable, node_nm: float) -> TechnologyTable:
    """Return a table whose numbers are taken as they are for another node, of class scaled (estimate)."""
    warning = (
        f"technology.node is {node_nm:g} nm, technology.table: {table.name} is of {table.node_nm:g} nm: energies and "
        "areas on the chip are taken from it as they are, of class scaled"
    )
    found = _transferred(table, (1.0, 1.0), f"at {table.node_nm:g} nm, taken for {node_nm:g} nm")
    return replace(found, node_nm=node_nm, warning=warning, transfer="unscaled")


def _transferred(table: TechnologyTable, factors: tuple[float, float], how: str) -> TechnologyTable:
    """Return a table with energies and areas on the chip times a factor each, of class scaled at least."""

    def entry_of(name: str, entry: Entry) -> Entry:
        if name == "dram_j_per_bit" or not unit_of(name):
            return entry
        factor = factors[0 if "_j_per_" in name else 1]
        kind = entry.uncertainty if entry.band >= BANDS["scaled"] else "scaled"
        times = "" if factor == 1 else f"x {factor:.3g} "
        return replace(entry, value=entry.value * factor, uncertainty=kind, source=f"{entry.source}; {times}{how}")

    found: dict[str, Any] = {name: entry_of(name, getattr(table, name)) for name in ENTRIES if name != SRAM}
    found[SRAM] = tuple((size, entry_of(SRAM, entry)) for size, entry in table.sram_j_per_bit)
    return replace(table, **found)
