"""Energy of single operations from the technology table (estimates), and the ledger of what an operation costs.

Coefficients, their sources and classes are in the tables of simulator/hardware; what is counted in datapath.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from formats import Format
from simulator.errors import InputError
from simulator.hardware import MacMode
from simulator.hardware.technology import BANDS, Entry, TechnologyTable
from simulator.result import EnergyItem

from .datapath import COEFFICIENTS, Component, components, decoder, fold_components, lane_components

ENERGY_PARTS = ("mul", "acc", "side", "register", "idle", "sram", "dram", "gather", "leak")

# What a MAC, an addition to a partial sum or the like costs: (part, what, energy of one).
Charges = tuple[tuple[str, str, Entry], ...]


@dataclass(frozen=True, eq=False)
class MacEnergy:
    """Energies of one mode of a MAC.

    Args:
        mac: of one MAC. fold: of one addition to a partial sum. idle: of a MAC that rests for a cycle.
        decode: of one activation and one weight that enter the array; None where nothing is decoded.
    """

    mac: Charges
    fold: Charges
    idle: Entry
    decode: tuple[Entry | None, Entry | None]

    @property
    def mac_j(self) -> float:
        """Energy of one MAC."""
        return sum(entry.value for _, _, entry in self.mac)


@lru_cache(maxsize=1024)
def mac_energy(
    table: TechnologyTable,
    mode: MacMode,
    further_modes: int,
    slices: MacMode | None = None,
    given_class: str = "user",
) -> MacEnergy:
    """Return the energy of a MAC mode; an energy given in the machine file counts as multiplier, without split.

    Args:
        table: of the node. mode: arithmetic. further_modes: that the same datapath has.
        slices: the mode whose multiplier forms the products, in several passes; None for one of this mode's own.
        given_class: of an energy that the mode is given with.
    Raises:
        InputError: a format that the model does not price.
    """
    given = mode.energy_j
    if given is not None:
        each = Entry(given, given_class, "machine file", "MAC")
        mac: Charges = (("mul", "MACs, as the machine file gives them", each),)
        try:
            fold = _charges(table, fold_components(mode), further_modes, "add", "partial sums: ")
        except InputError:  # bounded by that of a MAC
            fold = (("acc", "partial sums: as a MAC", replace(each, unit="add")),)
        return MacEnergy(mac, fold, idle_energy(table, mac), (None, None))
    mac = _charges(table, components(mode, slices), further_modes, "MAC")
    fold = _charges(table, fold_components(mode), further_modes, "add", "partial sums: ")
    a, w = (decoder(fmt) for fmt in mode.operand_formats)
    decode = (
        None if a is None else component_energy(table, a, "operand"),
        None if w is None else component_energy(table, w, "operand"),
    )
    return MacEnergy(mac, fold, idle_energy(table, mac), decode)


def _charges(
    table: TechnologyTable, circuits: Iterable[Component], further_modes: int, unit: str, prefix: str = ""
) -> Charges:
    return tuple(
        (circuit.part, prefix + circuit.what, component_energy(table, circuit, unit, further_modes))
        for circuit in circuits
    )


@lru_cache(maxsize=1024)
def component_energy(table: TechnologyTable, circuit: Component, unit: str, further_modes: int = 0) -> Entry:
    """Return the energy of a circuit for one MAC, or for one of what `unit` says."""
    return replace(_sized(table, circuit, further_modes, _ENERGY, circuit.times), unit=unit)


@lru_cache(maxsize=256)
def lane_energies(table: TechnologyTable, fmt: Format) -> tuple[Entry, Entry] | None:
    """Return the energies of an addition and of a multiplication that stand alone, each with a result in the format.

    None for a format that the model does not price.
    """
    try:
        adder, multiplier = lane_components(fmt)
    except InputError:
        return None
    return component_energy(table, adder, "step"), component_energy(table, multiplier, "step")


def component_area(table: TechnologyTable, circuit: Component, further_modes: int = 0) -> Entry:
    """Return the area of one of a circuit."""
    return _sized(table, circuit, further_modes, _AREA)


_ENERGY, _AREA = 0, 1  # columns of COEFFICIENTS


def _sized(
    table: TechnologyTable, circuit: Component, further_modes: int, column: int, times: Fraction = Fraction(1)
) -> Entry:
    """Return so many times the energy or the area of a circuit, with the formula in numbers."""
    unit, scale = ("fJ", 1e15) if column == _ENERGY else ("µm²", 1.0)
    used: list[Entry] = [getattr(table, COEFFICIENTS[term.coefficient][column]) for term in circuit.terms]
    pairs = list(zip(used, circuit.terms, strict=True))
    value = sum(entry.value * term.amount for entry, term in pairs)
    formula = " + ".join(f"{entry.value * scale:g} {unit}/{entry.unit} x {term.shown}" for entry, term in pairs)
    factors = []
    if circuit.tapered:
        used.append(table.posit_factor)
        factors.append((table.posit_factor.value, " (posit or takum)"))
    if further_modes:
        factors.append((1.0 + further_modes * table.mode_factor.value, " (further mode)"))
    if times.numerator != 1:
        factors.append((times.numerator, ""))
    if len(pairs) > 1 and (factors or times != 1):
        formula = f"({formula})"
    for factor, why in factors:
        value, formula = value * factor, f"{formula} x {factor:g}{why}"
    if times.denominator != 1:
        value, formula = value / times.denominator, f"{formula} / {times.denominator}"
    widest = max(used, key=lambda entry: entry.band)
    return Entry(value, widest.uncertainty, "; ".join(dict.fromkeys(entry.source for entry in used)), formula=formula)


def idle_energy(table: TechnologyTable, mac: Charges) -> Entry:
    """Return the energy of a MAC that rests for a cycle."""
    factor, mac_j = table.idle_factor, sum(entry.value for _, _, entry in mac)
    formula = f"{factor.value:g} x {mac_j * 1e15:g} fJ of a MAC"
    return Entry(factor.value * mac_j, factor.uncertainty, factor.source, "MAC and cycle", formula)


class Totals(NamedTuple):
    """Sums of a ledger.

    Args:
        parts_j: by part, all of the ledger. low_j, high_j: bounds of their sum, as if all entries were off in the same
            direction by their bands. classes: of each part that costs something, the widest of its entries.
    """

    parts_j: dict[str, float]
    low_j: float
    high_j: float
    classes: dict[str, str]


class Ledger:
    """Energies as they are counted: how many of what, and what one of it costs.

    Args:
        parts: names that may be charged.
    """

    def __init__(self, parts: tuple[str, ...] = ENERGY_PARTS) -> None:
        self.parts = parts
        self.charges: list[tuple[str, str, float, Entry]] = []

    def add(self, part: str, what: str, count: float, entry: Entry) -> None:
        """Add so many of something to a part; nothing for none of it, or for what is free."""
        if count and entry.value:
            self.charges.append((part, what, count, entry))

    def join(self, other: Ledger, before: str) -> None:
        """Add all of another ledger, with some words before what it is."""
        self.charges += [(part, before + what, count, entry) for part, what, count, entry in other.charges]

    def totals(self) -> Totals:
        """Return the sums so far."""
        parts, low_j, high_j = dict.fromkeys(self.parts, 0.0), 0.0, 0.0
        classes: dict[str, str] = {}
        for part, _, count, entry in self.charges:
            joules, kind = count * entry.value, entry.uncertainty
            band = BANDS[kind]
            parts[part] += joules
            low_j += joules / band
            high_j += joules * band
            if part not in classes or BANDS[classes[part]] < band:
                classes[part] = kind
        return Totals(parts, low_j, high_j, classes)

    def items(self) -> tuple[EnergyItem, ...]:
        """Return what was counted, one record each."""
        return tuple(energy_item(*charge) for charge in self.charges)


def energy_item(part: str, what: str, count: float, entry: Entry) -> EnergyItem:
    """Return one charge as a record."""
    return EnergyItem(
        part, what, count, entry.unit, entry.value, count * entry.value, entry.uncertainty, entry.band, entry.formula,
        entry.source,
    )  # fmt: skip


@lru_cache(maxsize=256)
def basis(classes: tuple[tuple[str, str], ...], table: TechnologyTable, static: bool) -> str:
    """Return class and band of each part in words; `static`: whether there is static power."""
    parts = [f"{part} {kind} x/÷ {BANDS[kind]:g}" for part, kind in classes]
    missing = "" if static else "; static power not given, counted as 0"
    return f"estimate, table {table}: {', '.join(parts)}{missing}"
