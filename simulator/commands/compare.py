"""`python -m simulator compare`: two machines on one network, or two saved runs, the bits and the bill side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from simulator.errors import InputError
from simulator.explore.store import is_store
from simulator.hardware import Machine, bundled_names, load_hardware
from simulator.report import holds_run, read_runs, render_runs, write_file
from simulator.report.console import plain_table, print_view, standard_output
from simulator.report.figures import (
    MISSING,
    counted,
    percent,
    printable,
    quantity,
    score,
    setting,
    short_count,
    shorten,
    significant,
)
from simulator.report.files import SUMMARY
from simulator.report.side_by_side import TABLE_ENTRIES, Pair
from simulator.report.tables import as_json
from simulator.result import MODE_LABELS, RunResult

from .compared import OWN, Comparison, compared, compared_runs, names_of
from .records import print_record


def _capacity(bits: float | None) -> str:
    """Return a capacity in the units of memories."""
    if bits is None:
        return MISSING
    kib = bits / 8192
    return f"{kib:.4g} KiB" if kib < 1024 else f"{kib / 1024:.4g} MiB"


# How the figures of a mode are shown, a row each.
ROWS: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "accuracy": ("accuracy", score),
    "agreement": ("agrees with its exact run", score),
    "forward_error": ("logit RMS error", significant),
    "cycles": ("cycles", short_count),
    "latency_s": ("latency", lambda value: quantity(value, "s")),
    "energy_j": ("energy", lambda value: quantity(value, "J")),
    "energy_low_j": ("energy, lower bound", lambda value: quantity(value, "J")),
    "energy_high_j": ("energy, upper bound", lambda value: quantity(value, "J")),
    "macs": ("MACs", short_count),
    "flagged": ("flagged MACs", percent),
}
PEAKS: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "peak_macs_per_s_low": ("peak MAC/s, low mode", lambda value: quantity(value, "MAC/s")),
    "peak_macs_per_s_high": ("peak MAC/s, high mode", lambda value: quantity(value, "MAC/s")),
    "on_chip_bits": ("on-chip memory", _capacity),
    "area_mm2": ("area", lambda value: f"{significant(value)} mm²"),
    "area_low_mm2": ("area, lower bound", lambda value: f"{significant(value)} mm²"),
    "area_high_mm2": ("area, upper bound", lambda value: f"{significant(value)} mm²"),
}


def run(machines: tuple[Machine, Machine], runs: tuple[RunResult, RunResult], json: bool, out: str | None) -> None:
    """Print two runs of one network on the same samples side by side, as tables or as a record.

    Args:
        out: where the page of the two is, which is said too; None where there is none.
    """
    _show(compared(machines, runs), json, out)


def of_runs(a: str, b: str) -> dict[str, RunResult] | None:
    """Return the two saved runs that these are, by the names that pages have for them; None of two machines.

    The name of a bundled machine is that machine.

    Raises:
        InputError: one of each kind, a directory without a run, or what is wrong with a run.
    """
    known = set(bundled_names())
    for path in (a, b):
        if path not in known and Path(path).is_dir() and not holds_run(path):
            held, remedy = f"has no {SUMMARY}", "name another"
            if is_store(Path(path)):
                held, remedy = "holds a store of runs", f"see `report {path}`"
            raise InputError(
                f"compare: {path} is a directory that {held}; expected machines, or directories that the main job "
                f"wrote; {remedy}"
            )
    saved = [path for path in (a, b) if path not in known and holds_run(path)]
    if not saved:
        return None
    if len(saved) == 1:
        machine = b if saved == [a] else a
        if not Path(machine).is_dir():
            load_hardware(machine)  # which says what is wrong with it, if it is none
        remedy = f"write ./{machine} for the run of that name" if holds_run(machine) else "give two of a kind"
        raise InputError(
            f"compare: got the machine {machine} and the run {saved[0]}; expected two machines, or two runs; {remedy}"
        )
    return read_runs([Path(a), Path(b)])


def run_saved(saved: Mapping[str, RunResult], json: bool, out: str | None) -> None:
    """Print two saved runs side by side, as tables or as a record, and where their page is, if there is one."""
    _show(compared_runs(saved), json, out)


def _show(found: Comparison, json: bool, out: str | None) -> None:
    if json:
        print_record(({} if out is None else {"page": out}) | as_json(asdict(found)))
    else:
        _print(found, out)


def write_page(out: str, machines: tuple[Machine, Machine], runs: tuple[RunResult, RunResult]) -> None:
    """Write the page of two runs side by side, by the names of their machines."""
    a, b = names_of(machines)
    a, b = (a, b) if a != b else (f"{a}, first", f"{b}, second")
    write_page_of({a: runs[0], b: runs[1]}, out)


def write_page_of(saved: Mapping[str, RunResult], out: str) -> None:
    """Write the page of two runs side by side, by the names that are given."""
    write_file(Path(out), render_runs(saved))


def _print(found: Comparison, out: str | None) -> None:
    parts: list[RenderableType] = [Text(printable(_title(found)), style="bold"), *_differing(found), Text()]
    ways = tuple(MODE_LABELS[mode] for mode in found.runs)
    parts += [
        _figure_table(found, f"as each runs: {ways[0]}, {ways[1]}", {**found.modes[OWN], **found.machines}),
        Text(),
    ]
    for mode, figures in found.modes.items():
        if mode != OWN and found.runs != (mode, mode):
            parts += [_figure_table(found, MODE_LABELS[mode], figures), Text()]
    parts += [_layer_table(found), Text(), _difference_table(found), Text(), *_notes(found)]
    if out is not None:
        parts += [Text(), Text(f"page: {printable(out)}")]
    print_view(standard_output(), *parts)


def _title(found: Comparison) -> str:
    """Return what is compared, with what both runs have in common."""
    names = f"{found.a} and {found.b}"
    facts = [names if found.model is None else f"{found.model}: {names}"]
    facts += [] if found.samples is None else [counted(found.samples, "sample")]
    facts += [] if found.seed is None else [f"seed {found.seed}"]
    return " · ".join(facts)


def _differing(found: Comparison) -> Iterator[Text]:
    """Yield a line for each thing that the runs do not have in common, without which figures mislead."""
    a, b = found.of
    if a.model != b.model:
        yield Text(printable(f"The networks differ: {a.model} and {b.model}."))
    if a.samples != b.samples:
        yield Text(f"The samples differ: {a.samples:,} and {b.samples:,}, of which cycles and energy are the sums.")
    if a.seed != b.seed:
        yield Text(f"The seeds differ: {a.seed} and {b.seed}.")
    if a.fidelity != b.fidelity:
        yield Text(f"Cycles are counted differently: {a.fidelity} and {b.fidelity}.")
    for name, one in (("A", a), ("B", b)):
        if not one.complete:
            yield Text(f"{name} is incomplete: it was interrupted.")


def _figure_table(found: Comparison, heading: str, figures: Mapping[str, Pair]) -> Table:
    table = _table(heading, printable(found.a), printable(found.b), "ratio")
    for name, (label, show) in (ROWS | PEAKS).items():
        pair = figures.get(name)
        if pair is not None and (pair.a is not None or pair.b is not None):
            table.add_row(label, show(pair.a), show(pair.b), significant(pair.ratio))
    return table


def _layer_table(found: Comparison) -> Table:
    headings = [f"{what}\n{of}" for what in ("cycles", "energy") for of in ("A", "B", "B/A")]
    table = _table("layer", "M×N×K", *headings, "median\nerror A", "\nB")
    for layer in found.layers:
        cycles, energy, error = (layer.figures[name] for name in ("cycles", "energy_j", "median_rel_error"))
        shape = f"{layer.m}×{layer.n}×{layer.k}"
        table.add_row(
            shorten(layer.name, 16) + layer.title.removeprefix(layer.name),
            shape if layer.gemms == 1 else f"{layer.gemms} of {shape}",
            short_count(cycles.a), short_count(cycles.b), significant(cycles.ratio),
            quantity(energy.a, "J"), quantity(energy.b, "J"), significant(energy.ratio),
            significant(error.a), significant(error.b),
        )  # fmt: skip
    return table


def _difference_table(found: Comparison) -> Table | Text:
    # The entries of technology tables are many, and --json has them.
    shown = [one for one in found.configuration if not one.key.startswith(TABLE_ENTRIES)]
    if not shown:
        return Text("The two machines do not differ in any key.")
    table = _table("key that differs", "A", "B", justify="left")
    for one in shown:
        table.add_row(*(Text(printable(text)) for text in (one.key, setting(one.a), setting(one.b))))
    return table


def _notes(found: Comparison) -> Iterator[Text]:
    a, b = (
        name if name == one.hardware else f"{name}, on {one.hardware}"
        for name, one in zip((found.a, found.b), found.of, strict=True)
    )
    yield Text(
        f"A: {printable(a)}; B: {printable(b)}; ratio: B over A. Agreement and errors: of each machine "
        "against its own exact run, which has its operands and exact sums.",
        style="dim",
    )
    for name, basis in zip("AB", found.energy_basis, strict=True):
        yield Text(f"Energy of {name}: {basis or 'nothing is priced'}", style="dim")
    low, high = (found.modes[OWN][name] for name in ("energy_low_j", "energy_high_j"))
    if _below(low.a, high.b) and _below(low.b, high.a):
        yield Text("The bounds of the two energies overlap: which is less is not certain.")
    for name, warnings in zip("AB", found.warnings, strict=True):
        yield from (Text(f"{name}: {printable(warning)}") for warning in warnings)


def _below(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and low <= high


def _table(*headings: str, justify: Literal["left", "right"] = "right") -> Table:
    table = plain_table((), headings)
    for place, column in enumerate(table.columns):
        column.justify = "left" if place == 0 else justify
        column.vertical = "bottom" if justify == "right" else "top"  # of texts, which fold, the first lines are level
    return table
