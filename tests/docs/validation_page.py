"""The page docs/validation.md, measured by running the model: `python -m tests.docs.validation_page`."""

from __future__ import annotations

import csv
import itertools
import math
import re
import tempfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from simulator.cost import Cost, Gemm, price
from simulator.cost.folds import run_cycles
from simulator.cost.scalesim import ScaleSimLayer, scalesim_convolution, scalesim_input_words, scalesim_layer
from simulator.hardware import Array, Machine, bundled_names, load_hardware
from tests.docs.published import HOROWITZ, JOUPPI, OPERATIONS, UNITS, WORK, Unit, Work
from tests.oracles.wavefront import output_stationary_wavefront, weight_stationary_wavefront

VECTORS = Path(__file__).parents[1] / "vectors"
SIZES = ("ifmap_height", "ifmap_width", "filter_height", "filter_width", "channels", "num_filter", "strides")
SRAM = ("sram_a_reads", "sram_w_reads", "sram_o_writes")
INT8 = 'mac: {low: "int8 -> fixed(32, 0, wrap)"}\n'

HEAD = """# Validation

What of the cost model was compared with what, and how it came out; disagreements are shown like the rest. This page is
generated: the model's figures are what it computes now, and a test holds the page to that. Recorded figures of other
tools are in `tests/vectors`, published ones in `tests/docs/published.py`, each with its source. Status of a published
number: *reprint* (a peer-reviewed paper quotes it), *secondary* (public documents or code quote it, the original was
not checked), *unconfirmed* (neither).

| section | rows | rows with a disagreement, in bold |
|---|---|---|
"""
SCALESIM = """## SCALE-Sim 3.0.0, row by row

`array.compat: scalesim3` and `estimate --scalesim-cfg` against recorded results of the tool, artefacts included:
cycles, reads of A and W and writes of O of its SRAM, in bold `tool / model` where they differ. *All figures* are these,
DRAM reads and the three percentages to 1e-9. *Own cycles* are those of the model itself with exposed load and drain
(os: without drain), one more: the tool reports the index of the last one.
"""
STALLED = """With stalls (64 x 64 x 64 on 16x16): the tool's total less its stalls is the figure without them. The
stalled total is no closed form; it lies between B, the longer of computation and the busiest port, and 1.16 B.
"""
OTHERS = """Input-stationary arrays and convolutions, all figures of every layer of a run:
"""
NOT_IMITATED = """Not imitated: the first and last cycle of every access, DRAM words written (the tool counts up to
`cols - 1` too many), mean DRAM bandwidths, the cycles with the first prefetch, and with `InterfaceBandwidth: USER` the
stalled total and what follows from it
([which columns of its reports that leaves](howto/compare-with-scalesim.md)).
"""
WAVEFRONT = """## Closed forms, cycle by cycle

One fold of every array up to 4x4 and one of 6x3, streamed lengths 1 to 9 and 40, latencies 1 to 4, interleaves up to
the latency, simulated PE by PE (`tests/oracles/wavefront.py`). The tests do the same on random arrays.
"""
EXAMPLE = """Of these, 40 operands through 6x3:
"""
CONVENTIONS = """## Conventions of other tools

The default weight-stationary array (load and drain overlapped) on 16x16 beside ONNXim's convention: first load 2R - 1
in place of R, folds of at least 4 cycles. Its figures here follow from that convention, not from a run.
"""
LLMCOMPASS = """LLMCompass takes small tiles from tables of an output-stationary array, made with SCALE-Sim: {} of {}
recorded rows are the index of the last cycle of the model's array without drain. Large tiles it takes at 98 or 99 % of
the peak; the model's own figure depends on the array and the product:
"""
OPERATION = """## Energy of one operation

45 nm at 0.9 V: Horowitz, ISSCC 2014. 7 nm: Jouppi et al., ISCA 2021, table 2. Most of these numbers are what the
coefficients were fitted to, so that agreement says how well one coefficient fits several operations, and no more.
"""
UNIT = """## Energy of one MAC

Nothing was fitted to these. The model's MAC is multiplier and adder: no registers, no alignment, no control, no memory.
At nodes without a table the model is shown at 7 and at 45 nm, and the band is around both.
"""
CHIPS = """## Real chips

Whole chips beside the machine files that describe them; each file says what it approximates and leaves out. Cycles have
no band: they are exact for the machine as modelled, from which a chip and its software differ. Ratios beyond 1.25
either way are in bold.
"""


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    columns = list(columns)
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return [*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows), ""]


def yes(agrees: bool) -> str:
    return "yes" if agrees else "**no**"


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}" if value else "0"


@cache
def machine(text: str) -> Machine:
    """The machine of a file with this text."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "machine.yaml"
        path.write_text(text, encoding="utf-8")
        return load_hardware(path)


# --- SCALE-Sim --------------------------------------------------------------------------------------------------------


def recorded(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((VECTORS / f"{name}.csv").read_text().splitlines()))


def product_layer(row: dict[str, str]) -> ScaleSimLayer:
    m, n, k, rows, columns = (int(row[name]) for name in ("M", "N", "K", "rows", "cols"))
    return scalesim_layer(row["layer"], m, n, k, row["dataflow"], rows, columns)


def convolution_layer(row: dict[str, str]) -> ScaleSimLayer:
    sizes = tuple(int(row[name]) for name in SIZES)
    rows, columns, words = int(row["rows"]), int(row["cols"]), scalesim_input_words(*sizes)
    return scalesim_layer(row["layer"], *scalesim_convolution(*sizes), row["dataflow"], rows, columns, None, words)


def agrees(row: dict[str, str], layer: ScaleSimLayer) -> bool:
    """Whether all figures without stalls are the tool's: counts the same, shares to 1e-9."""
    counts = all(int(row[name]) == getattr(layer, name) for name in ("total_cycles", *SRAM))
    dram = all(int(row[name]) == getattr(layer, name) for name in ("dram_a_reads", "dram_w_reads"))
    names = ("overall_util_pct", "mapping_eff_pct", "compute_util_pct")
    return counts and dram and all(math.isclose(float(row[n]), getattr(layer, n), rel_tol=1e-9) for n in names)


def on_the_array(row: dict[str, str]) -> Cost:
    """The same product in the words of the model: exposed load and drain, no drain for os."""
    modes = "drain: none" if row["dataflow"] == "os" else "load: exposed, drain: exposed"
    array = f"{{rows: {row['rows']}, columns: {row['cols']}, dataflow: {row['dataflow']}, {modes}}}"
    gemm = Gemm(*(int(row[name]) for name in "MNK"))
    return price(machine(f"array: {array}\n{INT8}"), gemm, "low")


def scalesim() -> Iterator[str]:
    stationary, stalled = recorded("scalesim/scalesim_gemm"), recorded("scalesim/scalesim_stall_64")
    exchanged, convolutions = recorded("scalesim/scalesim_is"), recorded("scalesim/scalesim_conv")
    yield SCALESIM
    rows = []
    for row in stationary:
        layer = product_layer(row)
        counts = (shown(int(row[name]), getattr(layer, name)) for name in ("total_cycles", *SRAM))
        own = on_the_array(row).cycles
        differs = "" if own == int(row["total_cycles"]) + 1 else " **differs**"
        rows.append([row["run"], row["layer"], *counts, yes(agrees(row, layer)), f"{own}{differs}"])
    yield from table(["run", "layer", "cycles", "A", "W", "O", "all figures", "own cycles"], rows)
    yield STALLED
    rows = []
    for row in stalled:
        layer = product_layer(row)
        total, stalls, bandwidth = (int(row[name]) for name in ("total_cycles", "stall_cycles", "bw_words_per_cycle"))
        busiest = max(int(row[name]) for name in ("dram_a_reads", "dram_w_reads", "dram_o_writes"))
        least = max(layer.total_cycles, math.ceil(busiest / bandwidth))
        counts = all(int(row[name]) == getattr(layer, name) for name in SRAM)
        rows.append([
            row["run"], shown(total - stalls, layer.total_cycles), yes(counts), total, least,
            f"{yes(least <= total <= 1.16 * least)}, {total / least:.3f} B",
        ])  # fmt: skip
    yield from table(["run", "total less stalls", "SRAM counts", "stalled total", "B", "within the band"], rows)
    yield OTHERS
    rows = []
    for found, layer_of in ((exchanged, product_layer), (convolutions, convolution_layer)):
        for run, group in itertools.groupby(found, key=lambda row: row["run"]):
            layers = [agrees(row, layer_of(row)) for row in group]
            found_all = f"{sum(layers)} of {len(layers)}"
            rows.append([run, found_all if all(layers) else f"**{found_all}**"])
    yield from table(["run", "layers that agree"], rows)
    yield NOT_IMITATED


def shown(tool: int, model: int) -> str:
    return str(model) if tool == model else f"**{tool} / {model}**"


# --- closed forms -----------------------------------------------------------------------------------------------------


def wavefront() -> Iterator[str]:
    yield WAVEFRONT
    grids = [*itertools.product(range(1, 5), repeat=2), (6, 3)]
    lengths = (*range(1, 10), 40)
    stationary, outputs, example = [], [], []
    for (rows, columns), length, latency in itertools.product(grids, lengths, range(1, 5)):
        run = run_cycles(Array(rows, columns, latency_cycles=latency), "ws", [(1, length)])
        simulated = weight_stationary_wavefront(rows, columns, length, latency)
        stationary.append(run.total - run.load == simulated)
        case = (rows, columns, length) == (6, 3, 40)
        if case:
            example.append(["ws, without load", latency, 1, simulated, run.total - run.load])
        for interleave in range(1, latency + 1):
            array = Array(rows, columns, "os", latency_cycles=latency, interleave=interleave)
            total = output_stationary_wavefront(rows, columns, length, latency, interleave)[1]
            modelled = run_cycles(array, "os", [(1, length)]).total
            outputs.append(total == modelled)
            if case:
                example.append(["os, with drain", latency, interleave, total, modelled])
    yield from table(["dataflow", "folds simulated", "cycles equal"], [
        [flow, len(equal), sum(equal) if all(equal) else f"**{sum(equal)}**"]
        for flow, equal in (("ws (is by exchange)", stationary), ("os", outputs))
    ])  # fmt: skip
    yield EXAMPLE
    yield from table(["fold", "latency p", "interleave q", "simulated", "closed form"], example)


# --- conventions of other tools ---------------------------------------------------------------------------------------


def conventions() -> Iterator[str]:
    yield CONVENTIONS
    rows = []
    for m, n, k in ((64, 64, 64), (100, 50, 70)):
        own = price(machine(f"array: {{rows: 16, columns: 16}}\n{INT8}"), Gemm(m, n, k), "low")
        folds = math.ceil(k / 16) * math.ceil(n / 16)
        onnxim = 2 * 16 - 1 + (folds - 1) * max(m, 4, 16) + max(m, 4) + 16 + 16 - 2
        rows.append([f"{m}x{n}x{k}", own.cycles, onnxim, f"**{100 * (onnxim / own.cycles - 1):+.1f} %**"])
    yield from table(["M x N x K", "model", "ONNXim's convention", "difference"], rows)
    found = recorded("llmcompass/os_tables")
    same = 0
    for row in found:
        m, n, k, height, width = (int(row[name]) for name in ("M", "N", "K", "rows", "cols"))
        same += scalesim_layer("", m, n, k, "os", height, width).total_cycles == int(row["cycles"])
    yield LLMCOMPASS.format(same, len(found))
    rows = []
    for side, size in itertools.product((16, 128), (512, 4096)):
        for dataflow in ("ws", "os"):
            text = f"array: {{rows: {side}, columns: {side}, dataflow: {dataflow}}}\n{INT8}"
            share = price(machine(text), Gemm(size, size, size), "low").utilisation
            own = f"{100 * share:.1f} %" if 0.98 <= share <= 0.99 else f"**{100 * share:.1f} %**"
            rows.append([f"{side}x{side}", dataflow, f"{size}x{size}x{size}", own, "98 to 99 %"])
    yield from table(["array", "dataflow", "M x N x K", "model", "LLMCompass"], rows)


# --- energy -----------------------------------------------------------------------------------------------------------


@cache
def mac_parts(mac: str, energies: str) -> dict[str, tuple[float, float]]:
    """Energy in pJ and band of a MAC's parts, mul and acc."""
    text = f'technology: {{table: {energies}}}\narray: {{rows: 1, columns: 1, dataflow: os}}\nmac: {{low: "{mac}"}}\n'
    cost = price(machine(text), Gemm(1, 1, 1), "low")
    bands = {part: float(band) for part, band in re.findall(r"(\w+) \w+ x/÷ ([\d.]+)", cost.energy_basis)}
    return {part: (cost.energy_parts_j[part] * 1e12, bands[part]) for part in ("mul", "acc")}


def energies() -> Iterator[str]:
    yield OPERATION
    rows = []
    for one in OPERATIONS:
        model, band = mac_parts(one.mac, one.table)[one.part]
        inside = model / band <= one.published_pj <= model * band
        rows.append([
            one.name, "45 nm" if one.table == HOROWITZ else "7 nm", f"{one.published_pj:g}", one.status, digits(model),
            f"{model / one.published_pj:.2f}", f"{'inside' if inside else '**outside**'}, x/÷ {band:g}",
            "yes" if one.fitted else "no",
        ])  # fmt: skip
    columns = ["operation", "node", "published, pJ", "status", "model, pJ", "model / published", "band", "fitted to it"]
    yield from table(columns, rows)
    yield UNIT
    columns = ["unit", "node", "published, pJ", "model, pJ", "MAC of the model", "band", "published is of", "source"]
    yield from table(columns, map(unit_row, UNITS))


def unit_row(unit: Unit) -> list[str]:
    both = [mac_parts(unit.mac, energies) for energies in ((JOUPPI,) if unit.node_nm == 7 else (JOUPPI, HOROWITZ))]
    totals = [sum(value for value, _ in parts.values()) for parts in both]
    band = max(band for parts in both for _, band in parts.values())
    least, most = totals[0] / band, totals[-1] * band
    where = "inside"
    if not least <= unit.published_pj <= most:
        where = f"**outside**, {'above' if unit.published_pj > most else 'below'}"
    model = " to ".join(digits(total) for total in totals)
    published = digits(unit.published_pj)
    node, inside = f"{unit.node_nm} nm", f"{where}, x/÷ {band:g}"
    return [unit.what, node, published, model, f"`{unit.mac}`", inside, unit.scope, unit.source]


# --- chips ------------------------------------------------------------------------------------------------------------


def modelled(work: Work) -> float:
    chip = load_hardware(work.machine)
    gemms = [Gemm(*product) for product in work.products]
    costs = [price(chip, gemm, work.mode) for gemm in gemms]
    seconds, macs = sum(cost.latency_s for cost in costs), sum(gemm.macs for gemm in gemms)
    match work.unit:
        case "%":
            return 100 * sum(cost.utilisation * cost.cycles for cost in costs) / sum(cost.cycles for cost in costs)
        case "TFLOPS":
            return 2e-12 * macs / seconds
        case "ms":
            return 1e3 * seconds
        case "MB":
            return 1e-6 / 8 * sum(cost.traffic_bits["dram"] for cost in costs)
        case "mJ":
            return 1e3 * sum(cost.energy_j - cost.energy_parts_j["dram"] for cost in costs)
    raise ValueError(work.unit)


def chips() -> Iterator[str]:
    yield CHIPS
    bundled = bundled_names()
    found = [work for work in WORK if work.machine in bundled]
    if not found:
        yield "No machine with published figures is bundled.\n"
        return
    rows = []
    for work in found:
        model = modelled(work)
        published, own = (f"{digits(value)} {work.unit}" for value in (work.published, model))
        ratio = f"{model / work.published:.2f}"
        close = 1 / 1.25 <= model / work.published <= 1.25
        rows.append([f"`{work.machine}`", work.what, published, own, ratio if close else f"**{ratio}**", work.source])
    yield from table(["machine", "work", "published", "model", "model / published", "source"], rows)


def page() -> str:
    text = "\n".join(itertools.chain(scalesim(), wavefront(), conventions(), energies(), chips()))
    return HEAD + "\n".join((*summary(text), "", text.rstrip(), ""))


def summary(text: str) -> Iterator[str]:
    """Yield a row a section: how many rows its tables have, and how many of these show a disagreement."""
    for section in text.split("## ")[1:]:
        rows = [line for line in section.split("\n") if line.startswith("| ")]
        heads = section.count("\n|---")
        yield f"| {section.splitlines()[0]} | {len(rows) - heads} | {sum('**' in row for row in rows)} |"


if __name__ == "__main__":
    print(page(), end="")
