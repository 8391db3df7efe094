"""The area of a machine from the technology table (estimate): what its circuits are, and what each takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

from simulator.errors import InputError
from simulator.hardware import Array, Mac, Machine, MacMode
from simulator.hardware.technology import Entry, TechnologyTable
from simulator.result import AreaItem

from .datapath import Component, components, decoder, fold_components, lane_components
from .energy import component_area
from .folds import sums_in_pes

AREA_PARTS = ("mul", "acc", "register", "side", "engine", "sram")


@dataclass(frozen=True)
class Area:
    """What a machine's circuits take: estimates of a stated model.

    Args:
        area_um2: sum of area_parts_um2: mul, acc (adders and what aligns terms), register, side (scoring), engine
            (beside the array) and sram (all on-chip levels). Wires, control, vector unit and pads are not in it.
        area_low_um2, area_high_um2: bounds by the bands of the classes, all off in the same direction.
        items: what the area is the sum of.
    """

    area_um2: float
    area_parts_um2: Mapping[str, float]
    area_low_um2: float
    area_high_um2: float
    items: tuple[AreaItem, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain dicts, lists and numbers."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "items"}
        return plain | {"items": [asdict(item) for item in self.items]}


@lru_cache(maxsize=256)
def area(machine: Machine) -> Area:
    """Return the area of a machine.

    Raises:
        InputError: a format that the model does not price, whose circuits it does not know either.
    """
    try:
        items = (*_array(machine), *_beside(machine), *_memory(machine))
    except InputError as error:
        raise InputError(f"{machine.source}: area: {error}") from None
    parts = dict.fromkeys(AREA_PARTS, 0.0)
    for item in items:
        parts[item.part] += item.area_um2
    return Area(
        area_um2=sum(parts.values()),
        area_parts_um2=parts,
        area_low_um2=sum(item.area_um2 / item.band for item in items),
        area_high_um2=sum(item.area_um2 * item.band for item in items),
        items=items,
    )


def known_area(machine: Machine) -> Area | None:
    """Return the area of a machine, None where a format of its MACs has no circuits in the model."""
    try:
        return area(machine)
    except InputError:
        return None


def _item(part: str, what: str, count: int, entry: Entry) -> AreaItem:
    return AreaItem(
        part, what, count, entry.value, count * entry.value, entry.uncertainty, entry.band, entry.formula, entry.source
    )


def _array(machine: Machine) -> Iterator[AreaItem]:
    """Yield what the PEs take, and what stands at the edges of the arrays."""
    unit, array, table = machine.mac, machine.array, machine.technology.table
    modes = unit.modes
    further = len(unit.further) if unit.datapath == "multi_mode" else 0
    circuits = {name: components(mode, unit.low if mode.passes > 1 else None) for name, mode in modes.items()}
    for part in ("mul", "acc"):
        yield from _shared(unit, {
            name: [
                _item(part, f"{name}: {circuit.what}", array.pes * _in_pe(mode, circuit),
                      component_area(table, circuit, further))
                for circuit in circuits[name] if circuit.part == part
            ]
            for name, mode in modes.items()
        })  # fmt: skip
    yield from _shared(unit, {
        name: [_item("register", f"{name}: registers of a PE", array.pes, _registers(table, array, mode))]
        for name, mode in modes.items()
    })  # fmt: skip
    yield from _shared(unit, {name: _edges(table, array, name, mode) for name, mode in modes.items()})


def _in_pe(mode: MacMode, circuit: Component) -> int:
    """Return how many of a circuit a PE has: what works once for several products is there for as many."""
    return max(math.ceil(mode.rate * min(circuit.times, Fraction(1))), 1) * circuit.units


def _shared(unit: Mac, found: Mapping[str, list[AreaItem]]) -> list[AreaItem]:
    """Return the circuits of all modes where each has its own, else those of the mode that needs the larger ones."""
    if unit.datapath == "pair":
        return [item for items in found.values() for item in items]
    return max(found.values(), key=lambda items: sum(item.area_um2 for item in items))


def _registers(table: TechnologyTable, array: Array, mode: MacMode) -> Entry:
    """Return what the registers of one PE take: operands that stream, what is stationary (twice, if its load or drain
    is overlapped), and the sum; in turns (os) as many of them as there are turns."""
    a, w = (mode.rate * fmt.bits for fmt in mode.operand_formats)
    state = mode.accumulator_bits
    loads, drains = (2 if way == "overlapped" else 1 for way in (array.load, array.drain))
    sums = array.interleave + drains - 1  # one leaves while the others are formed
    terms = {
        "ws": (a + loads * w + state, f"({a} + {loads} x {w} + {state})"),
        "is": (w + loads * a + state, f"({w} + {loads} x {a} + {state})"),
        "os": (a + w + sums * state, f"({a} + {w} + {sums} x {state})"),
        "dot": (a + w + state, f"({a} + {w} + {state})"),
    }
    best = max((terms[flow] for flow in ("ws", "is", "os")), key=lambda term: term[0])
    return _bits(table.register_um2_per_bit, *(best if array.dataflow == "best" else terms[array.dataflow]))


def _bits(each: Entry, bits: int, shown: str) -> Entry:
    return replace(each, value=each.value * bits, formula=f"{each.value:g} µm²/bit x {shown}")


def _edges(table: TechnologyTable, array: Array, name: str, mode: MacMode) -> list[AreaItem]:
    """Return the adders of partial sums, one a column, and the decoders of operands, one a lane of an edge."""
    found = []
    if not sums_in_pes(array.dataflow):
        for circuit in fold_components(mode):
            count = array.columns * array.copies * circuit.units
            found.append(_item("acc", f"{name}: {circuit.what} of partial sums", count, component_area(table, circuit)))
    edges = (array.columns, array.rows) if array.dataflow == "is" else (array.rows, array.columns)
    for operand, lanes, fmt in zip(("activations", "weights"), edges, mode.operand_formats, strict=True):
        decoding = decoder(fmt)
        if decoding is not None:
            count = lanes * mode.rate * array.copies
            found.append(_item("mul", f"{name}: decoders of {operand}", count, component_area(table, decoding)))
    return found


def _beside(machine: Machine) -> Iterator[AreaItem]:
    """Yield what scores the outputs, one comparator a column, and the side engine."""
    unit, array, table, engine = machine.mac, machine.array, machine.technology.table, machine.side_engine
    if machine.policy is not None:
        bits = unit.low.output_bits
        yield _item("side", "comparators of scores", array.columns * array.copies,
                    _bits(table.adder_um2_per_bit, bits, f"{bits}"))  # fmt: skip
        yield from _side_metric(machine)
    if engine is None or unit.high is None:
        return
    for circuit in components(unit.high):
        what = f"side engine: {circuit.what}"
        yield _item("engine", what, engine.lanes * circuit.units, component_area(table, circuit))
    if engine.array is not None:
        for item in _second_array(table, engine.array, unit.high):
            yield replace(item, part="engine", what=item.what.replace("mac.high", "side engine"))
        return
    a, w = (fmt.bits for fmt in unit.high.operand_formats)
    state = unit.high.accumulator_bits
    registers = _bits(table.register_um2_per_bit, a + w + state, f"({a} + {w} + {state})")
    yield _item("engine", "side engine: registers of a lane", engine.lanes, registers)


def _second_array(table: TechnologyTable, array: Array, high: MacMode) -> list[AreaItem]:
    """Return what an array has beside the circuits of its MACs."""
    registers = _item("register", "mac.high: registers of a PE", array.pes, _registers(table, array, high))
    return [registers, *_edges(table, array, "mac.high", high)]


def _side_metric(machine: Machine) -> Iterator[AreaItem]:
    """Yield the second running sum of each PE, or the MACs at the edges that take norms."""
    policy, array, low, table = machine.policy, machine.array, machine.mac.low, machine.technology.table
    assert policy is not None
    if policy.side_format is not None:
        adder, bits = lane_components(policy.side_format.format)[0], policy.side_format.format.bits
        sums = array.pes * low.rate
        yield _item("side", "adders of magnitudes", sums, component_area(table, adder))
        yield _item("side", "running sums of magnitudes", array.pes, _bits(table.register_um2_per_bit, bits, f"{bits}"))
    if policy.side_metric == "norm_bound":
        lanes = (array.rows + array.columns) * array.copies * low.rate
        for circuit in components(low):
            what = f"norms of rows and columns: {circuit.what}"
            yield _item("side", what, lanes * circuit.units, component_area(table, circuit))


def _memory(machine: Machine) -> Iterator[AreaItem]:
    """Yield what each on-chip level takes: its bit cells over the share of the area that cells have."""
    memory, table = machine.memory, machine.technology.table
    if memory is None or machine.array.like_scalesim:  # of which SCALE-Sim's counts take no part
        return
    cell, share = table.sram_cell_um2_per_bit, table.sram_efficiency
    widest = max((cell, share), key=lambda entry: entry.band)
    formula = f"{cell.value:g} µm²/bit / {share.value:g}"
    each = Entry(cell.value / share.value, widest.uncertainty, f"{cell.source}; {share.source}", "bit", formula)
    for level in (*memory.levels, *(() if memory.accumulators is None else (memory.accumulators,))):
        yield _item("sram", level.name, level.size_bits, each)
