"""A run as files: `summary.json`, `layers.csv` and `report.html`."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formats.notebook import frame
from simulator.report.comparison import conditions_by_layer, layers_by_mode, sum_parts
from simulator.report.directories import Contents, check_replaceable, replace_directory
from simulator.report.html import render
from simulator.result import LayerResult, RunResult

if TYPE_CHECKING:
    import pandas

SUMMARY = "summary.json"
LAYERS = "layers.csv"
REPORT = "report.html"
EARLIER_RUN = Contents("an earlier run", (SUMMARY, LAYERS), (REPORT,))


def save(run: RunResult, directory: str | os.PathLike[str]) -> Path:
    """Write `summary.json`, `layers.csv` and `report.html`, replacing an earlier run in `directory` whole.

    Returns:
        The absolute path of the directory.

    Raises:
        InputError: `directory` must not be replaced or could not be written; see `replace_directory`.
    """
    check_directory(directory)
    files = {SUMMARY: to_json(run), LAYERS: _layers_csv(run), REPORT: render(run)}
    return replace_directory(directory, EARLIER_RUN, files)


def check_directory(directory: str | os.PathLike[str]) -> Path:
    """Return the absolute path of `directory` if a run may be saved there, without changing anything.

    Raises:
        InputError: any other path; see `check_replaceable`.
    """
    return check_replaceable(directory, EARLIER_RUN)


def to_json(run: RunResult) -> str:
    """Return the run as strict JSON in ASCII, ending in a newline: what `summary.json` holds and `--json` prints.

    JSON has no NaN and no infinity: such a number becomes null and is named in `warnings`.
    """
    replaced: list[str] = []
    record = _plain(run.to_dict(), "", replaced)
    record["warnings"] += replaced
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


def layers_frame(run: RunResult) -> pandas.DataFrame:
    """Return the layers as a data frame with the columns of `layers.csv`.

    Raises:
        ImportError: pandas is not installed.
    """
    columns, rows = _layer_rows(run, run.layers)
    return frame(rows, columns)


def layer_rows(run: RunResult) -> list[dict[str, Any]]:
    """Return every layer in every mode as a row: the mode, low, high or two_pass, and the columns of `layers.csv`."""
    found = []
    for mode, layers in layers_by_mode(run).items():
        columns, rows = _layer_rows(run, layers)
        found += [{"mode": mode, **dict(zip(columns, row, strict=True))} for row in rows]
    return found


def _plain(value: Any, path: str, replaced: list[str]) -> Any:
    """Return `value` as JSON can hold it; the place of each number that is not finite is added to `replaced`."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{path}.{key}" if path else str(key), replaced) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{path}[{index}]", replaced) for index, item in enumerate(value)]
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        if math.isfinite(number):
            return number
        replaced.append(f"{path} is {number} and was written as null: JSON has only finite numbers")
        return None
    raise TypeError(f"{path}: a run record holds numbers, texts, lists and mappings, not {type(value).__name__}")


def _layer_rows(run: RunResult, layers: Sequence[LayerResult]) -> tuple[list[str], list[list[Any]]]:
    """Return the columns of `layers.csv` and one row for each of these layers, with what a layer lacks as None.

    Percentiles of condition numbers come last, where the run has some.
    """
    spread = {
        "energy_parts_j": ("energy_{}_j", sum_parts(layer.energy_parts_j for layer in layers)),
        "cycle_parts": ("cycles_{}", sum_parts(layer.cycle_parts for layer in layers)),
        "pass_outputs": ("pass_{}_outputs", sum_parts(layer.pass_outputs for layer in layers)),
        "traffic_bits": ("traffic_{}_bits", sum_parts(layer.traffic_bits for layer in layers)),
    }
    columns: list[str] = []
    rows: list[list[Any]] = [[] for _ in layers]
    for name in (field.name for field in fields(LayerResult)):
        if name in ("energy_items", "cycle_items"):  # tables of their own, which a row cannot hold
            continue
        if name not in spread:
            columns.append(name)
            for row, layer in zip(rows, layers, strict=True):
                row.append(getattr(layer, name))
            continue
        pattern, parts = spread[name]
        for part in parts:
            columns.append(pattern.format(part))
            for row, layer in zip(rows, layers, strict=True):
                row.append(getattr(layer, name).get(part))
    known = conditions_by_layer(run)
    conditions = [known.get(layer.name) if layer.phase == "forward" else None for layer in layers]
    for name in ("kappa", "kappa_v"):
        for percent in sorted({percent for one in run.conditions for percent in getattr(one, name)}):
            columns.append(f"{name}_{percent}")
            for row, one in zip(rows, conditions, strict=True):
                own = {} if one is None else getattr(one, name)
                row.append(math.inf if percent in own and own[percent] is None else own.get(percent))
    return columns, rows


def _layers_csv(run: RunResult) -> str:
    columns, rows = _layer_rows(run, run.layers)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
