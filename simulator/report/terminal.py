"""A run as tables in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.box import SIMPLE
from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from simulator.report.comparison import (
    arithmetic,
    flagged_share,
    gather_sentences,
    gathers_by_layer,
    layers_total,
    mean_utilisation,
    metric_rows,
    mode_rows,
    operations_total,
    other_operations,
    run_facts,
)
from simulator.report.console import print_view, standard_output
from simulator.report.figures import (
    MISSING,
    decibels,
    percent,
    printable,
    quantity,
    score,
    short_count,
    shorten,
    significant,
)
from simulator.result import GatherResult, LayerResult, RunResult

SHORTEST_NAME = 12
MOST_OPERATIONS = 8
# Left out in this order where the columns do not fit.
DISPENSABLE = (
    "op", "util.", "over-\nflows", "cycles", "max\nerror", "SQNR,\ndB", "latency", "M × N × K", "accumulation\ncost",
    "where", "phase", "runs on",
)  # fmt: skip
DISPENSABLE_OPERATIONS = ("where", "count", "cycles", "phase")
DISPENSABLE_MODES = ("exact", "uniform high", "float32", "uniform low")


@dataclass(frozen=True)
class _Column:
    """A column of text: heading, one cell a row, and the cell of the total."""

    heading: str
    cells: list[str]
    total: str = ""
    left: bool = False

    @property
    def width(self) -> int:
        return max(cell_len(line) for text in (self.heading, self.total, *self.cells) for line in text.split("\n"))


def print_run(run: RunResult, console: Console | None = None) -> None:
    """Print a run: heading, a row a layer with totals, the modes and metrics, what the array left, and the warnings.

    Args:
        run: the record of the run.
        console: where to print; None for standard output, see console.py.
    """
    console = console or standard_output()
    width = console.width
    tables = (
        _layer_table(run, width), *_mode_table(run, width), *_gathers(run, width), *_metric_table(run, width),
        *_operations(run, width),
    )  # fmt: skip
    print_view(console, *_heading(run), *tables, *warnings_view(run.warnings))


def _heading(run: RunResult) -> list[Text | Table]:
    facts = f"{'' if run.complete else 'incomplete: '}{' · '.join(run_facts(run))}"
    title = Text.assemble((printable(f"{run.model} on {run.hardware}"), "bold"), f" · {facts}")
    return [Text(), title, _named([*arithmetic(run), ("energy", run.energy_basis or "nothing is priced")]), Text()]


def _named(pairs: Sequence[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in pairs:
        grid.add_row(Text(name), Text(printable(text)))
    return grid


def _passes(layers: Sequence[LayerResult]) -> list[_Column]:
    """Return the share of the MACs of each pass after the first, where these are several."""
    names = list(dict.fromkeys(name for layer in layers for name in layer.pass_outputs))
    macs = sum(layer.macs for layer in layers)
    again = {name: [layer.pass_outputs.get(name, 0) * layer.k for layer in layers] for name in names}
    return [
        _Column(
            printable(name),
            [percent(own / layer.macs) for own, layer in zip(again[name], layers, strict=True)],
            percent(sum(again[name]) / macs),
        )
        for name in (names if len(names) > 1 else ())
    ]


def _layer_table(run: RunResult, width: int) -> Group:
    layers = run.layers
    if not layers:
        return Group(Text("No layer ran on the MAC array.", style="dim"), Text())
    totals = layers_total(run)
    errors = [layer.max_rel_error for layer in layers if layer.max_rel_error is not None]
    columns = [
        _Column("layer", [printable(layer.name) for layer in layers], "total", left=True),
        _Column("op", [printable(layer.op) for layer in layers], left=True),
        *_phases([layer.phase for layer in layers]),
        *_shown(
            any(layer.planned for layer in layers),
            _Column("planned", [layer.planned for layer in layers], left=True),
        ),
        _Column("M × N × K", [_shape(layer) for layer in layers]),
        _Column("flagged", [percent(flagged_share([layer])) for layer in layers], percent(flagged_share(layers))),
        *_passes(layers),
        _Column("cycles", [short_count(layer.cycles) for layer in layers], short_count(totals.get("cycles"))),
        _Column("util.", [percent(layer.utilisation) for layer in layers], percent(mean_utilisation(layers))),
        _Column(
            "latency", [quantity(layer.latency_s, "s") for layer in layers], quantity(totals.get("latency_s"), "s")
        ),
        _Column("energy", [quantity(layer.energy_j, "J") for layer in layers], quantity(totals.get("energy_j"), "J")),
        _Column("median\nerror", [significant(layer.median_rel_error) for layer in layers]),
        _Column(
            "max\nerror", [significant(layer.max_rel_error) for layer in layers], significant(max(errors, default=None))
        ),
        *_shown(
            any(layer.sqnr_db is not None for layer in layers),
            _Column("SQNR,\ndB", [decibels(layer.sqnr_db) for layer in layers]),
        ),
        _Column(
            "over-\nflows",
            [short_count(layer.overflows) for layer in layers],
            short_count(sum(layer.overflows for layer in layers)),
        ),
    ]
    columns, left_out = _fit(columns, width)
    note = Text("Error: relative to the exact run. Flagged: share of the MACs.", style="dim")
    return Group(_table(columns, width), note, *_left_out(left_out, "layers.csv"), Text())


def _mode_table(run: RunResult, width: int) -> list[Table | Text]:
    rows = mode_rows(run)
    if not rows:
        return []
    if run.accuracy is not None:
        scores = _Column("accuracy", [score(row.accuracy) for row in rows])
    else:
        scores = _Column("agrees\nwith exact", [score(row.agreement) for row in rows])
    columns = [
        _Column("mode", [row.label for row in rows], left=True),
        scores,
        _Column("logit RMS\nerror", [significant(row.forward_error) for row in rows]),
        _Column("cycles", [short_count(row.cycles) for row in rows]),
        _Column("latency", [quantity(row.latency_s, "s") for row in rows]),
        _Column("energy", [quantity(row.energy_j, "J") for row in rows]),
        _Column("accumulation\ncost", [significant(row.accumulation_cost) for row in rows]),
    ]
    columns, left_out = _fit(columns, width)
    return [_table(columns, width), *_left_out(left_out, "summary.json")]


def _metric_table(run: RunResult, width: int) -> list[Table | Text]:
    """Show the metrics of which the modes' table tells nothing, a row each."""
    shown = "top1" if run.accuracy is not None else "agreement"
    modes, rows = metric_rows(run, but=(shown, "mse"))  # of which the logit RMS error is the root
    if not rows:
        return []
    columns = [
        _Column("metric", [label for label, _ in rows], left=True),
        *(_Column(mode, [cells[i] for _, cells in rows]) for i, mode in enumerate(modes)),
    ]
    columns, left_out = _fit(columns, width, dispensable=DISPENSABLE_MODES)
    return [Text(), _table(columns, width), *_left_out(left_out, "summary.json")]


def _gathers(run: RunResult, width: int) -> list[Table | Text]:
    by_layer = gathers_by_layer(run.gathers)
    if None not in by_layer:
        return []
    notes = ["Of products in two passes, without the vector unit."]
    notes += ["By layer: report.html, summary.json."] if len(by_layer) > 2 else []
    return [Text(), *gathers_view(by_layer[None], width, run.fidelity, notes)]


def gathers_view(
    gathers: Sequence[GatherResult], width: int, fidelity: str = "analytic", notes: Sequence[str] = ()
) -> list[Table | Text]:
    """Return ways to gather flagged outputs side by side as parts of a page, with what has to be said of them.

    Args:
        gathers: of the same outputs. width: of the page. fidelity: of what else the page shows. notes: to end with.
    """
    flagged = gathers[0].flagged_outputs / gathers[0].outputs
    columns = [
        _Column("gather", [f"{one.gather}{' *' if one.own else ''}" for one in gathers], left=True),
        _Column("runs on", [one.runs_on.replace("_", " ") or MISSING for one in gathers], left=True),
        _Column(
            "recom-\nputed",
            [
                percent(None if one.recomputed_outputs is None else one.recomputed_outputs / one.outputs)
                for one in gathers
            ],
        ),
        _Column("waste", [significant(one.waste_factor) for one in gathers]),
        _Column("cycles", [short_count(one.cycles) for one in gathers]),
        _Column("energy", [quantity(one.energy_j, "J") for one in gathers]),
        _Column("cycles\nvs high", [significant(one.cycles_vs_high) for one in gathers]),
        _Column("energy\nvs high", [significant(one.energy_vs_high) for one in gathers]),
        _Column("break-\neven", [percent(one.break_even_flagged) for one in gathers]),
    ]
    columns, left_out = _fit(columns, width)
    facts = [
        f"* the machine's own. {percent(flagged)} of the outputs are flagged; recomputed: share of the outputs.",
        *gather_sentences(gathers),
        *([] if fidelity == "analytic" else [f"Cycles here are analytic, not of fidelity {fidelity}."]),
        "Break-even: flags at which MACs and scores take the energy of uniform high's MACs (estimate).",
        *notes,
    ]
    lines = [Text(fact, style="dim") for fact in facts]
    return [_table(columns, width), *lines, *_left_out(left_out, "summary.json")]


def _operations(run: RunResult, width: int) -> list[Table | Text]:
    rows = other_operations(run)
    if not rows:
        return []
    shown, rest = rows[:MOST_OPERATIONS], rows[MOST_OPERATIONS:]
    total = operations_total(rows)
    cycles, energy = total or (None, None)
    columns = [
        _Column("not on the MAC array", [printable(row.name) for row in shown], "total" if total else "", left=True),
        *_phases([row.phase for row in shown]),
        _Column("computed by", [printable(row.unit) for row in shown], left=True),
        _Column("count", [short_count(row.count) for row in shown]),
        _Column("work", [percent(row.share) for row in shown]),
        *_shown(total is not None, _Column("cycles", [short_count(row.cycles) for row in shown], short_count(cycles))),
        *_shown(
            total is not None,
            _Column("energy", [quantity(row.energy_j, "J") for row in shown], quantity(energy, "J")),
        ),
        _Column("where", [row.where(1) for row in shown], left=True),
    ]
    columns, _ = _fit(columns, width, shortest=24, dispensable=DISPENSABLE_OPERATIONS)
    notes = ["Work: share of that of all operations (estimate)."]
    if rest:
        notes.append(f"{len(rest)} more with {percent(sum(row.share for row in rest))}: summary.json has them.")
    return [Text(), _table(columns, width), Text(" ".join(notes), style="dim")]


def _phases(phases: list[str]) -> list[_Column]:
    column = _Column("phase", [phase.replace("gradient", "grad.") for phase in phases], left=True)
    return _shown(any(phase != "forward" for phase in phases), column)


def _shown(wanted: bool, column: _Column) -> list[_Column]:
    return [column] if wanted else []


def warnings_view(warnings: Sequence[str]) -> list[Table | Text]:
    """Return warnings as parts of a page; none without them."""
    if not warnings:
        return []
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="yellow")
    grid.add_column(overflow="fold")
    for warning in warnings:
        grid.add_row(Text("•"), Text(printable(warning)))
    return [Text(), Text("Warnings", style="bold yellow"), grid]


def _left_out(headings: str, file: str) -> list[Text]:
    return [Text(f"Left out for want of width: {headings}; {file} has them.", style="dim")] if headings else []


def _shape(layer: LayerResult) -> str:
    shape = f"{layer.m}×{layer.n}×{layer.k}"
    return shape if layer.gemms == 1 else f"{layer.gemms} of {shape}"


def _fit(
    columns: list[_Column], width: int, shortest: int = SHORTEST_NAME, dispensable: tuple[str, ...] = DISPENSABLE
) -> tuple[list[_Column], str]:
    """Return the columns that fit, the first one (names) shortened, and the headings of those left out."""
    left_out: list[str] = []
    for heading in (None, *dispensable):
        if heading is not None:
            left_out += [column.heading for column in columns if column.heading == heading]
            columns = [column for column in columns if column.heading != heading]
        # Names keep what the others leave, with one blank between columns if two would cut a name.
        space = width - _width(columns[1:], 1) - 1
        names = columns[0]
        if space >= min(shortest, names.width):
            break
    space = max(space, 3)
    columns = [replace(names, cells=[shorten(name, space) for name in names.cells]), *columns[1:]]
    return columns, ", ".join(left_out).replace("-\n", "").replace("\n", " ")


def _width(columns: Sequence[_Column], gap: int) -> int:
    return sum(column.width for column in columns) + gap * (len(columns) - 1)


def _table(columns: list[_Column], width: int) -> Table:
    gap = 2 if _width(columns, 2) <= width else 1
    table = Table(
        box=SIMPLE,
        show_edge=False,
        pad_edge=False,
        padding=(0, gap - 1, 0, 0),
        show_footer=any(column.total for column in columns),
        header_style="bold",
        footer_style="bold",
    )
    for column in columns:
        table.add_column(
            Text(column.heading),
            Text(column.total),
            justify="left" if column.left else "right",
            vertical="bottom",
            no_wrap=True,
            min_width=column.width,
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell) for cell in cells))
    return table
