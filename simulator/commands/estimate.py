"""`python -m simulator estimate`: cycles and energy of operations without running anything."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from simulator.cost import Area, Estimate, Gemm, estimate, gather_results
from simulator.errors import InputError
from simulator.hardware import load_hardware
from simulator.hardware.scalesim_files import CONVOLUTION, GEMM, TopologyLayer, read_topology
from simulator.report import print_view, standard_output
from simulator.report.bill import bill
from simulator.report.figures import counted, percent, printable, quantity, short_count
from simulator.report.terminal import gathers_view, warnings_view


def of_product(
    hw: str, gemm: tuple[int, int, int], flagged: float, zeros: float | None, explain: bool, json: bool
) -> None:
    """Print what a product costs on a machine in every mode, with `explain` item by item.

    Raises:
        InputError: bad machine, shape or fraction.
    """
    found = estimate(hw, gemm=gemm, flagged=flagged, zeros=zeros)
    if json:
        sys.stdout.write(json_module.dumps(found.to_dict(), indent=2) + "\n")
        return
    if explain:
        sys.stdout.write(bill(_shape(found.gemm), found.modes))
        return
    title = f"{printable(found.hardware)}: {_shape(found.gemm)}, {flagged:.2%} flagged"
    view = (title, _modes_table([found]), Text(_area(found.area)), *_gathers([found]))
    print_view(standard_output(), *view, *warnings_view(_warnings([found])))


def _area(area: Area | None) -> str:
    if area is None:
        return "area not known: the model has no circuits of a format of this machine"
    parts = ", ".join(f"{part} {um2 * 1e-6:.3g}" for part, um2 in area.area_parts_um2.items() if um2)
    low, high = area.area_low_um2 * 1e-6, area.area_high_um2 * 1e-6
    return f"area {area.area_um2 * 1e-6:.3g} mm², {low:.3g} to {high:.3g} (estimate): {parts}"


def of_topology(
    hw: str, topology: str, kind: str, flagged: float, zeros: float | None, explain: bool, json: bool
) -> None:
    """Print what the layers of a topology of SCALE-Sim cost on a machine in every mode, with `explain` item by item.

    Convolutions have floor((H - FH)/stride) + 1 outputs along an axis.

    Raises:
        InputError: bad machine, topology or fraction.
    """
    machine = load_hardware(hw)
    lines = read_topology(topology, CONVOLUTION if kind == "conv" else GEMM)
    layers = []
    for line in lines:
        try:
            layers.append((line.name, estimate(machine, _gemm(line), flagged, zeros)))
        except InputError as error:
            raise InputError(f"{topology}: {line.name}: {error}") from None
    if json:
        objects = (json_module.dumps({"layer": name, **found.to_dict()}) for name, found in layers)
        sys.stdout.write("[\n" + ",\n".join(objects) + "\n]\n")
        return
    if explain:
        sys.stdout.write("\n".join(bill(name, one.modes) for name, one in layers))
        return
    found = [one for _, one in layers]
    mode = "low" if found[0].two_pass is None else "two_pass"
    table = _table("layer", "M x N x K")
    for name, one in layers:
        table.add_row(printable(name), _shape(one.gemm), *_figures([one], mode))
    title = f"{printable(machine.name)}: {printable(Path(topology).name)}, {counted(len(layers), 'layer')}, "
    title += f"{flagged:.2%} flagged; layers in mode {mode.replace('_', '-')}"
    view = (title, table, "", _modes_table(found), Text(_area(found[0].area)), *_gathers(found))
    print_view(standard_output(), *view, *warnings_view(_warnings(found)))


def _gemm(line: TopologyLayer) -> Gemm:
    if len(line.sizes) == len(GEMM):
        return Gemm(*line.sizes)
    height, width, kernel_height, kernel_width, channels, filters, stride = line.sizes
    outputs = ((height - kernel_height) // stride + 1) * ((width - kernel_width) // stride + 1)
    window = kernel_height * kernel_width
    return Gemm(outputs, filters, window, channels) if line.depthwise else Gemm(outputs, filters, window * channels)


def _modes_table(layers: Sequence[Estimate]) -> Table:
    table = _table("mode")
    for mode in layers[0].modes:
        table.add_row(mode.replace("_", "-"), *_figures(layers, mode))
    return table


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in (*names, "cycles", "roofline", "util.", "latency", "energy", "band"):
        table.add_column(heading, justify="left" if heading == names[0] else "right")
    return table


def _figures(layers: Sequence[Estimate], mode: str) -> tuple[str, ...]:
    """Return the figures of layers in a mode, one after the other, for the columns of `_table`."""
    costs = [found.modes[mode] for found in layers]
    cycles = sum(cost.cycles for cost in costs)
    busy = sum(cost.utilisation * cost.cycles for cost in costs)
    low_j, high_j = sum(cost.energy_low_j for cost in costs), sum(cost.energy_high_j for cost in costs)
    return (
        short_count(cycles), short_count(sum(cost.roofline_cycles for cost in costs)),
        percent(busy / cycles if cycles else 0.0), quantity(sum(cost.latency_s for cost in costs), "s"),
        quantity(sum(cost.energy_j for cost in costs), "J"), f"{quantity(low_j, 'J')} to {quantity(high_j, 'J')}",
    )  # fmt: skip


def _gathers(layers: Sequence[Estimate]) -> list[Table | Text]:
    """Return the ways to gather flagged outputs side by side; none on a machine without two passes."""
    if layers[0].two_pass is None:
        return []
    whole = gather_results(layers[0].machine, [found.gathered for found in layers])
    return [Text(), *gathers_view(whole, standard_output().width)]


def _warnings(layers: Sequence[Estimate]) -> list[str]:
    return list(dict.fromkeys(text for one in layers for cost in one.modes.values() for text in cost.warnings))


def _shape(gemm: Gemm) -> str:
    shape = f"{gemm.m} x {gemm.n} x {gemm.k}"
    return shape if gemm.gemms == 1 else f"{gemm.gemms} of {shape}"
