"""A run as files, `summary.json`, `layers.csv` and `report.html`, in a directory replaced whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import secrets
import shutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.errors import InputError
from simulator.report.comparison import sum_parts
from simulator.report.html import render
from simulator.result import LayerResult, RunResult

if TYPE_CHECKING:
    import pandas

SUMMARY = "summary.json"
LAYERS = "layers.csv"
REPORT = "report.html"


def save(run: RunResult, directory: str | os.PathLike[str]) -> Path:
    """Write `summary.json`, `layers.csv` and `report.html`, replacing an earlier run in `directory` whole.

    The files are written to a new directory beside the target, which then takes its place; parents are created where
    missing. Whatever fails before that leaves the earlier results as they were and nothing else behind; a process that
    is killed may leave more, see `_take_place`.

    Returns:
        The absolute path of the directory.

    Raises:
        InputError: `directory` must not be replaced (see `check_directory`) or could not be written.
    """
    target = check_directory(directory)
    tag = secrets.token_hex(4)
    fresh = target.with_name(f".{target.name}.new-{tag}")
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        fresh.mkdir(parents=True)
        _write(fresh / SUMMARY, to_json(run))
        _write(fresh / LAYERS, _layers_csv(run))
        _write(fresh / REPORT, render(run))
        _take_place(fresh, target, target.with_name(f".{target.name}.previous-{tag}"))
    except BaseException as error:
        shutil.rmtree(fresh, ignore_errors=True)
        for parent in missing:
            # Only parents made above and still empty go; another process may have begun to use one of them.
            try:
                parent.rmdir()
            except OSError:
                break
        if isinstance(error, OSError):
            raise InputError(
                f"{directory}: results could not be written there ({error.strerror or error}); expected a place where "
                "a directory can be made and renamed. Nothing was changed; free some space or choose another directory."
            ) from error
        raise
    return target


def check_directory(directory: str | os.PathLike[str]) -> Path:
    """Return the absolute path of `directory` if results may be saved there, without changing anything.

    That is so for a path that does not exist, an empty directory, and a directory with earlier results (one that holds
    `summary.json` and `layers.csv` and nothing that `save` does not write), in a parent that can be written to.

    Raises:
        InputError: any other path.
    """
    target = Path(directory).resolve()
    if target.exists() and not target.is_dir():
        raise InputError(
            f"{directory}: found a file; expected a directory for results or a new name. Choose another name."
        )
    if target == Path.cwd() or target in Path.cwd().parents:
        raise InputError(
            f"{directory}: found the current directory or one above it; expected one that can be replaced whole. "
            "Choose a new name below it."
        )
    parent = next(place for place in target.parents if place.exists())
    if not parent.is_dir():
        raise InputError(f"{directory}: {parent} is a file; expected a directory. Choose another place.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(
            f"{directory}: {parent} cannot be written to; expected a directory in which results can be made. "
            "Choose another place or change its permissions."
        )
    if target.is_dir():
        found = {entry.name for entry in target.iterdir()}
        strangers = sorted(found - {SUMMARY, LAYERS, REPORT})
        if strangers or (found and not {SUMMARY, LAYERS} <= found):
            listed = strangers or sorted(found)
            shown = ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
            raise InputError(
                f"{directory}: found {shown}, which is not an earlier run; expected a new or empty directory, or one "
                f"with {SUMMARY}, {LAYERS} and {REPORT} alone, which is replaced whole. Move what is yours out of it, "
                "or choose another name."
            )
    return target


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
    try:
        import pandas
    except ImportError as error:
        raise ImportError('a data frame needs pandas; install it with: pip install "ulpsim[report]"') from error
    columns, rows = _layer_rows(run.layers)
    return pandas.DataFrame(rows, columns=columns)


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


def _layer_rows(layers: Iterable[LayerResult]) -> tuple[list[str], list[list[Any]]]:
    """Return the columns of `layers.csv` and one row a layer, with parts that a layer lacks as None."""
    layers = list(layers)
    spread = {
        "energy_parts_j": ("energy_{}_j", sum_parts(layer.energy_parts_j for layer in layers)),
        "cycle_parts": ("cycles_{}", sum_parts(layer.cycle_parts for layer in layers)),
    }
    columns: list[str] = []
    rows: list[list[Any]] = [[] for _ in layers]
    for name in (field.name for field in fields(LayerResult)):
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
    return columns, rows


def _layers_csv(run: RunResult) -> str:
    columns, rows = _layer_rows(run.layers)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    """Write a file through to the disk, so that a full disk shows here and not after the earlier results are gone.

    Half of a surrogate pair, which UTF-8 cannot hold, is written as its escape.
    """
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _take_place(fresh: Path, target: Path, previous: Path) -> None:
    """Rename `fresh` to `target`; what was there goes to `previous` until then, and back if that fails.

    A process killed outright (SIGKILL, loss of power) between the two renames leaves no `target`: the earlier results
    are whole in `.<name>.previous-<tag>` and the new ones whole in `.<name>.new-<tag>`, to be renamed by hand. Killed
    before, it leaves the earlier results in place and an unfinished `.new-<tag>`; after, the new ones in place and some
    of `.previous-<tag>`.
    """
    if not target.exists():
        fresh.rename(target)
        return
    target.rename(previous)
    try:
        fresh.rename(target)
    except BaseException:
        previous.rename(target)
        raise
    shutil.rmtree(previous, ignore_errors=True)
    if previous.exists():
        warnings.warn(
            f"{previous}: the earlier results could not be removed; the new ones are in {target}", stacklevel=3
        )
