"""`python -m simulator estimate`: cycles and energy of operations without running anything."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from simulator.cost import Area, Estimate, Gemm, estimate, gather_results, timeline
from simulator.errors import InputError
from simulator.hardware import Machine, load_hardware
from simulator.hardware.scalesim_files import CONVOLUTION, GEMM, TopologyLayer, read_topology
from simulator.report import check_writable, print_view, standard_output
from simulator.report.bill import bill
from simulator.report.comparison import sum_parts
from simulator.report.console import plain_table
from simulator.report.figures import counted, percent, printable, quantity, short_count
from simulator.report.terminal import gathers_view, warnings_view
from simulator.report.trace import write_trace
from simulator.result import MODE_LABELS, in_mm2

from .records import print_record, print_records


def of_product(
    hw: str,
    gemm: tuple[int, int, int],
    flagged: float | None,
    zeros: float | None,
    explain: bool,
    json: bool,
    fidelity: str = "analytic",
    trace: str | None = None,
) -> None:
    """Print what a product costs on a machine in every mode, with `explain` item by item.

    With `trace` what happens when is written to that file.

    Raises:
        InputError: bad machine, shape, fraction or file, or a trace of another fidelity than event.
    """
    if trace is not None:
        if fidelity != "event":
            raise InputError(
                f"--trace: got fidelity {fidelity}, which knows no events; expected event; add --fidelity event"
            )
        check_writable(trace, ".json", "--trace")
    machine = _machine(hw, flagged)
    found = estimate(machine, gemm, flagged or 0.0, zeros, fidelity)
    if trace is not None:
        _trace(trace, machine, found)
    if json:
        print_record(found.to_dict())
        return
    if explain:
        sys.stdout.write(bill(_shape(found.gemm), found.modes))
        return
    title = f"{printable(found.hardware)}: {_shape(found.gemm)}{_flags(flagged)}{_named(fidelity)}"
    view = (title, _modes_table([found]), Text(_area(found.area)), *_parts_view([found]), *_gathers([found]))
    print_view(standard_output(), *view, *warnings_view(_warnings([found])))
    if trace is not None:
        print(f"\nTrace in {trace}")


def _machine(hw: str, flagged: float | None) -> Machine:
    """Return a machine; flags are refused on one that computes nothing a second time."""
    machine = load_hardware(hw)
    if flagged is not None and machine.policy is None:
        raise InputError(
            f"--flagged: got {flagged:g} for {machine.source}, which has no two-pass policy; expected none; leave it "
            "out, or take a machine with mac.high and policy"
        )
    if flagged is not None and not 0.0 <= flagged <= 1.0:
        raise InputError(f"--flagged: got {flagged:g}; expected a fraction from 0 to 1; give e.g. 0.02")
    return machine


def _flags(flagged: float | None) -> str:
    return "" if flagged is None else f", {100 * flagged:.3g} % flagged"


def _trace(path: str, machine: Machine, found: Estimate) -> None:
    flags = {"two_pass": found.flagged}
    processes = {mode: timeline(machine, found.gemm, mode, flags.get(mode)) for mode in found.modes}
    about = {"hardware": machine.name, "gemm": _shape(found.gemm), "frequency_hz": machine.technology.frequency_hz}
    write_trace(path, processes, about)


def _area(area: Area | None) -> str:
    if area is None:
        return "area not known: the model has no circuits of a format of this machine"
    whole, low, high = (in_mm2(um2) for um2 in (area.area_um2, area.area_low_um2, area.area_high_um2))
    parts = ", ".join(f"{part} {in_mm2(um2):.3g}" for part, um2 in area.area_parts_um2.items() if um2)
    return f"area {whole:.3g} mm², {low:.3g} to {high:.3g} (estimate): {parts}"


def of_topology(
    hw: str,
    topology: str,
    kind: str,
    flagged: float | None,
    zeros: float | None,
    explain: bool,
    json: bool,
    fidelity: str = "analytic",
) -> None:
    """Print what the layers of a topology of SCALE-Sim cost on a machine in every mode, with `explain` item by item.

    Convolutions have floor((H - FH)/stride) + 1 outputs along an axis.

    Raises:
        InputError: bad machine, topology or fraction.
    """
    machine = _machine(hw, flagged)
    lines = read_topology(topology, CONVOLUTION if kind == "conv" else GEMM)
    layers = []
    for line in lines:
        try:
            layers.append((line.name, estimate(machine, _gemm(line), flagged or 0.0, zeros, fidelity)))
        except InputError as error:
            raise InputError(f"{topology}: {line.name}: {error}") from None
    if json:
        print_records({"layer": name, **found.to_dict()} for name, found in layers)
        return
    if explain:
        sys.stdout.write("\n".join(bill(name, one.modes) for name, one in layers))
        return
    found = [one for _, one in layers]
    mode = "low" if found[0].two_pass is None else "two_pass"
    table = _table("layer", "M x N x K")
    for name, one in layers:
        table.add_row(printable(name), _shape(one.gemm), *_figures([one], mode))
    title = f"{printable(machine.name)}: {printable(Path(topology).name)}, {counted(len(layers), 'layer')}"
    title += f"{_flags(flagged)}{_named(fidelity)}; layers in the mode {MODE_LABELS[mode]}"
    view = (title, table, "", _modes_table(found), Text(_area(found[0].area)), *_parts_view(found), *_gathers(found))
    print_view(standard_output(), *view, *warnings_view(_warnings(found)))


def _gemm(line: TopologyLayer) -> Gemm:
    if len(line.sizes) == len(GEMM):
        return Gemm(*line.sizes)
    height, width, kernel_height, kernel_width, channels, filters, stride = line.sizes
    outputs = ((height - kernel_height) // stride + 1) * ((width - kernel_width) // stride + 1)
    window, image = kernel_height * kernel_width, height * width * channels
    image = min(image, outputs * window * channels)  # where windows leave gaps
    if line.depthwise:
        return Gemm(outputs, filters, window, channels, image)
    return Gemm(outputs, filters, window * channels, a_words=image)


def _modes_table(layers: Sequence[Estimate]) -> Table:
    table = _table("mode")
    for mode in layers[0].modes:
        table.add_row(MODE_LABELS[mode], *_figures(layers, mode))
    return table


def _table(*names: str) -> Table:
    first, *others = names
    return plain_table((first,), (*others, "cycles", "roofline", "util.", "latency", "energy", "band"))


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
    if not layers[0].gathers:
        return []
    whole = gather_results(layers[0].machine, [found.gathered for found in layers])
    return [Text(), *gathers_view(whole, standard_output().width, layers[0].low.fidelity)]


def _named(fidelity: str) -> str:
    return "" if fidelity == "analytic" else f", fidelity {fidelity}"


def _parts_view(layers: Sequence[Estimate]) -> list[Table | Text]:
    """Return what the cycles are spent on, by mode, and what binds a roofline; nothing for analytic ones."""
    costs = {mode: [found.modes[mode] for found in layers] for mode in layers[0].modes}
    fidelity = layers[0].low.fidelity
    if fidelity == "analytic":
        return []
    spent = {mode: sum_parts(cost.cycle_parts for cost in of) for mode, of in costs.items()}
    table = plain_table(("cycles of",), [MODE_LABELS[mode] for mode in costs])
    for part in dict.fromkeys(part for parts in spent.values() for part, cycles in parts.items() if cycles):
        table.add_row(part, *(f"{parts.get(part, 0):,}" for parts in spent.values()))
    if fidelity == "roofline":
        bounds = ({cost.roofline_bound for cost in of} for of in costs.values())
        table.add_row("bound by", *(printable(", ".join(sorted(names))) for names in bounds))
    return [Text(), table]


def _warnings(layers: Sequence[Estimate]) -> list[str]:
    return list(dict.fromkeys(text for one in layers for cost in one.modes.values() for text in cost.warnings))


def _shape(gemm: Gemm) -> str:
    shape = f"{gemm.m} x {gemm.n} x {gemm.k}"
    return shape if gemm.gemms == 1 else f"{gemm.gemms} of {shape}"
