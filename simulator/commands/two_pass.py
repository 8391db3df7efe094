"""`python -m simulator study two-pass`: scores and how much they recompute, side by side, with controls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from simulator.report.console import plain_table, print_view, standard_output
from simulator.report.directories import write_file
from simulator.report.figures import MISSING, counted, percent, printable, score, significant
from simulator.report.tables import as_json, write_table
from simulator.report.two_pass import render_two_pass
from simulator.studies import TwoPassStudy, two_pass_study
from simulator.studies.directory import RESULTS
from simulator.studies.two_pass import CONTROLS, STATIC, mean_of

from .lists import numbers, words
from .records import json_text, print_record

Row = Mapping[str, Any]
_LEGEND = (
    "again: share of the MACs; error: RMS of the logits, and half of its 95 % interval; random, largest: errors of "
    "controls that recompute as much of each layer; static: of a static plan that costs as much; changed: answers that "
    "differ from those of exact accumulation."
)
FILES = (RESULTS, "study.parquet", "study.html")


def run(
    hw: str, out: str, scores: str | None, tolerances: str | None, budgets: str | None, **settings: Any
) -> TwoPassStudy:
    """Run a study; lists come as texts with commas.

    Raises:
        InputError: what cannot be run.
    """
    lists: dict[str, Any] = {}
    if scores is not None:
        lists["scores"] = words(scores)
    for name, text in (("tolerances", tolerances), ("budgets", budgets)):
        if text is not None:
            lists[name] = numbers(f"study: --{name}", text, float, "0.05,0.2")
    return two_pass_study(hw, out=out, **lists, **settings)


def save(found: TwoPassStudy, out: str) -> list[Path]:
    """Write the study beside its store: as JSON, as Parquet and as a page, each whole or not at all."""
    record, directory = _record(found), Path(out)
    paths = [directory / name for name in FILES]
    write_file(paths[0], json_text(record))
    write_table([flat(row) for row in found.points], paths[1])
    write_file(paths[2], render_two_pass(found.to_dict()))
    return paths


def _record(found: TwoPassStudy) -> Any:
    """Return the study as JSON has it; an infinite tolerance as a machine file writes it."""
    plain = found.to_dict()
    for row in plain["points"]:
        row["tolerance"] = ".inf" if math.isinf(row["tolerance"]) else row["tolerance"]
    return as_json(plain)


def flat(row: Row) -> dict[str, Any]:
    """Return a row with one value a column: ends of intervals, and figures of layers as NAME_LAYER."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if name.endswith("_interval"):
            found[f"{name}_from"], found[f"{name}_to"] = value or (None, None)
        elif name == "layers":
            found |= {f"{key}_{of['name']}": x for of in value for key, x in of.items() if key != "name"}
        else:
            found[name] = value
    return found


def show(found: TwoPassStudy, paths: Sequence[Path], json: bool) -> None:
    """Print a study."""
    if json:
        print_record(_record(found))
        return
    low, high = (found.baselines[mode] for mode in ("low", "high"))
    facts = (
        f"{printable(found.model)} on {printable(found.hardware)}, {counted(found.samples, 'sample')}; logit RMS error "
        f"of uniform low {significant(low['logit_error_rms'])}, of uniform high {significant(high['logit_error_rms'])}"
    )
    accuracy = f"accuracy exact {score(found.baselines['exact']['accuracy'])}, low {score(low['accuracy'])}"
    accuracy += f", high {score(high['accuracy'])}"
    where = f"{counted(found.computed, 'point')} computed now; in {', '.join(map(str, paths))}"
    notes = [f"note: {printable(text)}" for text in found.warnings]
    shown = [accuracy] if low["accuracy"] is not None else []
    print_view(standard_output(), facts, *shown, _table(found), _LEGEND, *notes, where)


def _table(found: TwoPassStudy) -> Table:
    controls = [name for name in (*CONTROLS, STATIC) if any(row["score"] == name for row in found.points)]
    numbers = (found.by, "again", "error", "±", *controls, "changed", "accuracy", "C/C_high")
    table = plain_table(("score",), numbers, gap=1, no_wrap=True)
    for row in found.own:
        ends = row["logit_error_interval"]
        level = f"{row['tolerance']:g}"
        if found.by == "budget":
            level = "all" if row["budget"] is None else percent(row["budget"])
        table.add_row(
            row["score"], level, percent(row["recomputed_macs_fraction"]),
            significant(row["logit_error_rms"]), MISSING if ends is None else significant((ends[1] - ends[0]) / 2),
            *(significant(mean_of(found.control(row, name), "logit_error_rms")) for name in controls),
            percent(row["changed_decisions"]), score(row["accuracy"]), significant(row["accumulation_cost"]),
        )  # fmt: skip
    return table
