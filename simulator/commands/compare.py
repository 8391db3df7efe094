"""`python -m simulator compare`: two machines on one network, the bits and the bill side by side."""

from __future__ import annotations

import json as json_module
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Literal

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from simulator.hardware import Machine
from simulator.hardware.quantities import UNITS, Quantity, parse_quantity
from simulator.report.comparison import MODE_LABELS, flagged_share, shown_mode
from simulator.report.console import print_view, standard_output
from simulator.report.figures import (
    MISSING,
    counted,
    printable,
    quantity,
    score,
    setting,
    short_count,
    shorten,
    significant,
)
from simulator.result import PRICED_MODES, RunResult, Setting

OWN = "own"  # the way a machine runs by its policy: two passes, or its one MAC


@dataclass(frozen=True)
class Pair:
    """A figure of both machines; the ratio is b over a, None where one is unknown or a is 0."""

    a: float | None
    b: float | None
    ratio: float | None


@dataclass(frozen=True)
class LayerPair:
    """A layer as each machine runs it.

    Args:
        name, phase, op, m, n, k, gemms: as in LayerResult. figures: by field of LayerResult, and flagged, the share of its
            MACs that are those of flagged outputs.
    """

    name: str
    phase: str
    op: str
    m: int
    n: int
    k: int
    gemms: int
    figures: Mapping[str, Pair]


@dataclass(frozen=True)
class Difference:
    """A key whose values differ; None where a machine has no such key, or no value."""

    key: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Comparison:
    """Two machines, a and b, on the same samples of one network.

    Args:
        a, b: names of the machines, or their files where the names are the same. model, samples, seed: of both runs.
        runs: in which mode each runs by its policy: "low" or "two_pass".
        machines: peak_macs_per_s in the low and the high mode, on_chip_bits.
        modes: figures of the modes that one of them has, "own" being that of `runs`. Accuracy is against the labels;
            agreement and forward_error of each machine are against its own exact run. Energies are estimates, between
            energy_low_j and energy_high_j.
        layers: of the own mode. configuration: keys of the expanded files whose values differ.
        energy_basis, warnings: of a and of b.
    """

    a: str
    b: str
    model: str
    samples: int
    seed: int
    runs: tuple[str, str]
    machines: Mapping[str, Pair]
    modes: Mapping[str, Mapping[str, Pair]]
    layers: tuple[LayerPair, ...]
    configuration: tuple[Difference, ...]
    energy_basis: tuple[str, str]
    warnings: tuple[tuple[str, ...], tuple[str, ...]]


COSTS = ("cycles", "latency_s", "energy_j", "energy_low_j", "energy_high_j")
OF_LAYER = (*COSTS, "utilisation", "roofline_cycles", "median_rel_error", "max_rel_error", "sqnr_db", "overflows")
TABLE_ENTRIES = "technology.table."  # keys of the entries of technology tables: --json has them


def run(machines: tuple[Machine, Machine], runs: tuple[RunResult, RunResult], json: bool) -> None:
    """Print two runs of one network on the same samples side by side, as tables or as a record."""
    found = compared(machines, runs)
    if json:
        sys.stdout.write(json_module.dumps(asdict(found), indent=2) + "\n")
    else:
        _print(found)


def compared(machines: tuple[Machine, Machine], runs: tuple[RunResult, RunResult]) -> Comparison:
    """Return the comparison of two runs of one network on the same samples."""
    a, b = runs
    names = [one.name for one in machines] if machines[0].name != machines[1].name else [one.source for one in machines]
    own = shown_mode(a), shown_mode(b)
    modes = {OWN: _figures(runs, own)}
    modes |= {mode: _figures(runs, (mode, mode)) for mode in PRICED_MODES if any(one.totals.get(mode) for one in runs)}
    return Comparison(
        a=names[0], b=names[1], model=a.model, samples=a.samples, seed=a.seed, runs=own,
        machines=_peaks(machines), modes=modes, layers=_layers(runs),
        configuration=tuple(differences(a.machine, b.machine)),
        energy_basis=(a.energy_basis, b.energy_basis), warnings=(a.warnings, b.warnings),
    )  # fmt: skip


def differences(a: Iterable[Setting], b: Iterable[Setting]) -> Iterator[Difference]:
    """Yield the keys whose values in effect differ, in the order of a's file, then of b's; origins do not count."""
    values = {setting.key: setting.value for setting in a}, {setting.key: setting.value for setting in b}
    for key in dict.fromkeys((*values[0], *values[1])):
        one, other = values[0].get(key), values[1].get(key)
        if _meant(one) != _meant(other):
            yield Difference(key, one, other)


def _meant(value: Any) -> Any:
    """Return a quantity for a text that is one, so that 100 ns is 0.1 µs; a mapping has no value of its own."""
    if isinstance(value, str):
        try:
            return parse_quantity(value, tuple(UNITS), "")
        except ValueError:
            return value
    return None if value == {} else value


def _pair(a: float | None, b: float | None) -> Pair:
    a, b = (one if one is not None and math.isfinite(one) else None for one in (a, b))
    return Pair(a, b, b / a if a and b is not None else None)


def _peaks(machines: tuple[Machine, Machine]) -> dict[str, Pair]:
    def peaks(mode: str) -> Pair:
        units = [getattr(one.mac, mode) for one in machines]
        a, b = (None if unit is None else one.peak_macs_per_s(unit) for one, unit in zip(machines, units, strict=True))
        return _pair(a, b)

    memory = [None if one.memory is None else one.memory.on_chip_bits for one in machines]
    return {
        "peak_macs_per_s_low": peaks("low"),
        "peak_macs_per_s_high": peaks("high"),
        "on_chip_bits": _pair(*memory),
    }


def _figures(runs: tuple[RunResult, RunResult], modes: tuple[str, str]) -> dict[str, Pair]:
    """Return the figures of a mode of each run by name."""
    found = []
    for one, mode in zip(runs, modes, strict=True):
        totals = one.totals.get(mode) or {}
        scores = {"accuracy": (one.accuracy or {}).get(mode), "agreement": one.agreement.get(mode)}
        scores["forward_error"] = one.forward_error.get(mode)
        found.append(scores | {name: totals.get(name) for name in COSTS})
    return {name: _pair(found[0][name], found[1][name]) for name in found[0]}


def _layers(runs: tuple[RunResult, RunResult]) -> tuple[LayerPair, ...]:
    a, b = ({(layer.name, layer.phase): layer for layer in one.layers} for one in runs)
    pairs = []
    for at in dict.fromkeys((*a, *b)):
        of = a.get(at), b.get(at)
        one = of[0] or of[1]
        assert one is not None
        figures = {name: _pair(*(None if layer is None else getattr(layer, name) for layer in of)) for name in OF_LAYER}
        figures["flagged"] = _pair(*(None if layer is None else flagged_share([layer]) for layer in of))
        pairs.append(LayerPair(one.name, one.phase, one.op, one.m, one.n, one.k, one.gemms, figures))
    return tuple(pairs)


# --- tables ---------------------------------------------------------------------------------------------------------

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
}
PEAKS: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "peak_macs_per_s_low": ("peak MAC/s, low mode", lambda value: quantity(value, "MAC/s")),
    "peak_macs_per_s_high": ("peak MAC/s, high mode", lambda value: quantity(value, "MAC/s")),
    "on_chip_bits": ("on-chip memory", lambda bits: MISSING if bits is None else str(Quantity(Fraction(bits), "size"))),
}


def _print(found: Comparison) -> None:
    title = f"{found.model}: {found.a} and {found.b} · {counted(found.samples, 'sample')} · seed {found.seed}"
    parts: list[RenderableType] = [Text(printable(title), style="bold"), Text()]
    ways = tuple(MODE_LABELS[mode] for mode in found.runs)
    parts += [
        _figure_table(found, f"as each runs: {ways[0]}, {ways[1]}", {**found.modes[OWN], **found.machines}),
        Text(),
    ]
    for mode, figures in found.modes.items():
        if mode != OWN and found.runs != (mode, mode):
            parts += [_figure_table(found, MODE_LABELS[mode], figures), Text()]
    parts += [_layer_table(found), Text(), _difference_table(found), Text(), *_notes(found)]
    print_view(standard_output(), *parts)


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
            shorten(layer.name, 16) + ("" if layer.phase == "forward" else f", {layer.phase}"),
            shape if layer.gemms == 1 else f"{layer.gemms} of {shape}",
            short_count(cycles.a), short_count(cycles.b), significant(cycles.ratio),
            quantity(energy.a, "J"), quantity(energy.b, "J"), significant(energy.ratio),
            significant(error.a), significant(error.b),
        )  # fmt: skip
    return table


def _difference_table(found: Comparison) -> Table | Text:
    shown = [one for one in found.configuration if not one.key.startswith(TABLE_ENTRIES)]
    if not shown:
        return Text("The two machines do not differ in any key.")
    table = _table("key that differs", "A", "B", justify="left")
    for one in shown:
        table.add_row(*(Text(printable(text)) for text in (one.key, setting(one.a), setting(one.b))))
    return table


def _notes(found: Comparison) -> Iterator[Text]:
    yield Text(
        f"A: {printable(found.a)}; B: {printable(found.b)}; ratio: B over A. Agreement and errors: of each machine "
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
    table = Table(box=None, pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index == 0 else justify, overflow="fold", vertical="bottom")
    return table
