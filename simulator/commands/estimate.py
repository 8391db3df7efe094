"""`python -m simulator estimate`: cycles and energy of operations without running anything."""

from __future__ import annotations

import json as json_module
import sys
from dataclasses import asdict
from typing import Any

from rich.table import Table

from simulator.cost import Estimate, estimate
from simulator.cost.scalesim import ScaleSimLayer, scalesim_convolution, scalesim_layer
from simulator.errors import InputError
from simulator.hardware.scalesim_files import CONVOLUTION, GEMM, read_config, read_topology
from simulator.report.console import print_view, standard_output
from simulator.report.figures import percent, printable, quantity, short_count


def of_product(hw: str, gemm: tuple[int, int, int], flagged: float, json: bool) -> None:
    """Print what a product costs on a machine in every mode.

    Raises:
        InputError: bad machine, shape or fraction.
    """
    found = estimate(hw, gemm=gemm, flagged=flagged)
    if json:
        sys.stdout.write(json_module.dumps(asdict(found), indent=2) + "\n")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("mode", "cycles", "roofline", "util.", "latency", "energy", "band"):
        table.add_column(heading, justify="left" if heading == "mode" else "right")
    for mode, cost in _modes(found).items():
        table.add_row(
            mode, short_count(cost.cycles), short_count(cost.roofline_cycles), percent(cost.utilisation),
            quantity(cost.latency_s, "s"), quantity(cost.energy_j, "J"),
            f"{quantity(cost.energy_low_j, 'J')} to {quantity(cost.energy_high_j, 'J')}",
        )  # fmt: skip
    m, n, k = gemm
    print_view(standard_output(), f"{printable(found.hardware)}: {m} x {n} x {k}, {flagged:.2%} flagged", table)


def _modes(found: Estimate) -> dict[str, Any]:
    modes = {"low": found.low, "high": found.high, "two-pass": found.two_pass}
    return {mode: cost for mode, cost in modes.items() if cost is not None}


def like_scalesim(config: str, topology: str, kind: str, json: bool) -> None:
    """Print what SCALE-Sim 3.0.0 reports for its own files.

    Raises:
        InputError: files that are missing or none of SCALE-Sim's.
    """
    machine = read_config(config)
    layers = []
    for layer in read_topology(topology, CONVOLUTION if kind == "conv" else GEMM):
        if kind == "conv":
            height, width, kernel_height, kernel_width, *_ = layer.sizes
            if kernel_height > height or kernel_width > width:
                raise InputError(
                    f"{topology}: {layer.name}: a filter of {kernel_height} x {kernel_width} on {height} x {width}; "
                    "expected one that fits; correct the line"
                )
        m, n, k = scalesim_convolution(*layer.sizes) if kind == "conv" else layer.sizes
        layers.append(
            scalesim_layer(layer.name, m, n, k, machine.dataflow, machine.rows, machine.columns, machine.bandwidth)
        )
    if json:
        sys.stdout.write("[\n" + ",\n".join(json_module.dumps(asdict(layer)) for layer in layers) + "\n]\n")
        return
    print_view(standard_output(), f"{printable(machine.run)}, as SCALE-Sim 3.0.0 counts", _table(layers))


def _table(layers: list[ScaleSimLayer]) -> Table:
    table = Table(box=None, pad_edge=False)
    headings = ("layer", "M x N x K", "total cycles", "of these stalls", "overall util. %", "mapping eff. %")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for layer in layers:
        table.add_row(
            printable(layer.layer), f"{layer.M} x {layer.N} x {layer.K}", f"{layer.total_cycles:,}",
            f"{layer.stall_cycles:,}", f"{layer.overall_util_pct:.2f}", f"{layer.mapping_eff_pct:.2f}",
        )  # fmt: skip
    return table
