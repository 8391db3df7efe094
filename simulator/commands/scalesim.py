"""`estimate --scalesim-cfg`: SCALE-Sim's own files, counted and reported as SCALE-Sim 3.0.0 does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from rich.console import RenderableType
from rich.table import Table

from simulator.cost.scalesim import ScaleSimLayer, scalesim_convolution, scalesim_input_words, scalesim_layer
from simulator.errors import InputError
from simulator.hardware.scalesim_files import CONVOLUTION, GEMM, TopologyLayer, read_config, read_topology
from simulator.report import print_view, standard_output
from simulator.report.console import plain_table
from simulator.report.directories import Contents, check_replaceable, replace_directory
from simulator.report.figures import printable

from .records import print_records

COMPUTE, BANDWIDTH, ACCESSES = "COMPUTE_REPORT.csv", "BANDWIDTH_REPORT.csv", "DETAILED_ACCESS_REPORT.csv"
LARGEST_DEPTHWISE = 1 << 16
REPORTS = Contents("an earlier report", (COMPUTE, ACCESSES), (BANDWIDTH,))


def like_scalesim(config: str, topology: str, kind: str, json: bool, out: str | None) -> None:
    """Print what SCALE-Sim 3.0.0 reports for its own files; with `out` write its reports there too.

    Raises:
        InputError: files that are missing or none of SCALE-Sim's, or a directory that must not be replaced.
    """
    if out is not None:
        check_replaceable(out, REPORTS)
    machine = read_config(config)
    layers = [
        scalesim_layer(name, m, n, k, machine.dataflow, machine.rows, machine.columns, machine.bandwidth, words)
        for line in read_topology(topology, CONVOLUTION if kind == "conv" else GEMM)
        for name, (m, n, k), words in _products(line)
    ]
    if out is not None:
        files = reports(layers, stalls=machine.bandwidth is not None)
        replace_directory(out, REPORTS, files)
    if json:
        print_records(asdict(layer) for layer in layers)
        return
    parts: list[RenderableType] = [f"{printable(machine.run)}, as SCALE-Sim 3.0.0 counts", _table(layers)]
    if out is not None:
        parts += ["", f"Reports in {printable(out)}: {', '.join(sorted(files))}"]
    print_view(standard_output(), *parts)


def _products(line: TopologyLayer) -> Iterator[tuple[str, tuple[int, int, int], int | None]]:
    """Yield name, (M, N, K) and words of the image of what a line runs: a depthwise one, its channels one by one."""
    if len(line.sizes) == len(GEMM):
        m, n, k = line.sizes
        yield line.name, (m, n, k), None
        return
    names = [line.name]
    height, width, kernel_height, kernel_width, channels, filters, stride = line.sizes
    if line.depthwise:
        if channels > LARGEST_DEPTHWISE:
            raise InputError(
                f"{printable(line.name)}: got {channels} channels, each of which SCALE-Sim runs for itself; expected "
                f"at most {LARGEST_DEPTHWISE}; take DP out of the name if it is no depthwise convolution"
            )
        names, channels = [f"{line.name}Channel_{i}" for i in range(channels)], 1
    sizes = height, width, kernel_height, kernel_width, channels, filters, stride
    for name in names:
        yield name, scalesim_convolution(*sizes), scalesim_input_words(*sizes)


def reports(layers: list[ScaleSimLayer], stalls: bool) -> dict[str, str]:
    """Return the text of SCALE-Sim's reports by file name, with those of its columns that are closed forms.

    Without stalls the first and last cycle of each access, DRAM words written, mean DRAM bandwidths and the cycles with
    the first prefetch are left out; with stalls also the total and what depends on it.
    """
    compute: list[dict[str, float]] = []
    bandwidth: list[dict[str, float]] = []
    accesses: list[dict[str, float]] = []
    for layer in layers:
        cycles = layer.total_cycles
        timed = {"Total Cycles": cycles, "Stall Cycles": 0, "Overall Util %": layer.overall_util_pct}
        compute.append({
            **({} if stalls else timed), "Mapping Efficiency %": layer.mapping_eff_pct,
            "Compute Util %": layer.compute_util_pct,
        })  # fmt: skip
        words = {"IFMAP": layer.sram_a_reads, "FILTER": layer.sram_w_reads, "OFMAP": layer.sram_o_writes}
        if not stalls:
            bandwidth.append({f"Avg {name} SRAM BW": count / max(cycles, 1) for name, count in words.items()})
        dram = {"DRAM IFMAP Reads": layer.dram_a_reads, "DRAM Filter Reads": layer.dram_w_reads}
        accesses.append({
            "SRAM IFMAP Reads": layer.sram_a_reads, "SRAM Filter Reads": layer.sram_w_reads,
            "SRAM OFMAP Writes": layer.sram_o_writes, **({} if stalls else dram),
        })  # fmt: skip
    tables = {COMPUTE: compute, BANDWIDTH: bandwidth, ACCESSES: accesses}
    return {name: _report(rows) for name, rows in tables.items() if rows}


def _report(rows: list[dict[str, float]]) -> str:
    """Return a report as the tool writes it: a blank after each comma, and one at the end of a line."""
    lines = [["LayerID", *rows[0]], *([str(i), *map(str, row.values())] for i, row in enumerate(rows))]
    return "".join(", ".join(line) + ",\n" for line in lines)


def _table(layers: list[ScaleSimLayer]) -> Table:
    numbers = ("M x N x K", "total cycles", "of these stalls", "overall util. %", "mapping eff. %")
    table = plain_table(("layer",), numbers)
    for layer in layers:
        table.add_row(
            printable(layer.layer), f"{layer.M} x {layer.N} x {layer.K}", f"{layer.total_cycles:,}",
            f"{layer.stall_cycles:,}", f"{layer.overall_util_pct:.2f}", f"{layer.mapping_eff_pct:.2f}",
        )  # fmt: skip
    return table
