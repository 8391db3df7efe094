"""`python -m simulator report`: a page made anew from saved runs, or from the points of a sweep or a search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from simulator.errors import InputError
from simulator.explore import Store, compromises
from simulator.explore.store import FILE, is_store
from simulator.explore.table import rows_of
from simulator.report import (
    check_writable,
    holds_run,
    layer_rows,
    read_runs,
    render,
    render_front,
    render_runs,
    write_file,
)
from simulator.report.console import print_view, standard_output
from simulator.report.figures import counted, printable
from simulator.report.files import REPORT, SUMMARY
from simulator.report.front import points_of
from simulator.report.tables import as_json, as_written, check_table, write_table
from simulator.result import RunResult

from .records import print_record


class _Made(NamedTuple):
    """A page, what it shows as plain data, and the rows of its table, which not every call asks for."""

    page: str
    record: dict[str, Any]
    rows: Callable[[], list[dict[str, Any]]]


def run(
    directories: Sequence[str], out: str | None, sweep: str | None, export: str | None = None
) -> tuple[Path, dict[str, Any]]:
    """Write the page of saved runs, or of the sweep in one store; return where it is and what it shows as plain data.

    Args:
        export: a .csv or .parquet file for their layers, or for the points of the sweep, or None.

    Raises:
        InputError: what is wrong with a directory, or with where the page or the table goes.
    """
    if export is not None:
        check_table(export, "report: --export")
    paths = [Path(name) for name in directories]
    store = _store_of(paths)
    if sweep is not None and store is None:
        raise InputError(
            f"report: got --sweep without a store; expected both or none; {paths[0]} is a run, leave --sweep out"
        )
    target = _target(paths, out)
    check_writable(target, ".html")
    made = _of_runs(paths) if store is None else _of_store(store, sweep)
    record = made.record
    if export is not None:
        write_table(made.rows(), export)  # before the page: a table can have values that its file cannot hold
        record = {"table": export, **record}
    write_file(target, made.page)
    return target, record


def _store_of(paths: Sequence[Path]) -> Path | None:
    """Return the store that is given; None of runs.

    Raises:
        InputError: a path that is neither; a store beside others.
    """
    for path in paths:
        if path.suffix == ".html" and path.is_file():
            raise InputError(
                f"report: got {path}, a page; expected directories that hold runs, or a store; give {path.parent}"
            )
        if path.is_dir() and not holds_run(path) and not is_store(path):
            raise InputError(
                f"{path}: has neither {SUMMARY} nor {FILE}; expected a run, or the store of a sweep or a search; give "
                "the directory that one was written to"
            )
        if not path.exists():
            raise InputError(
                f"{path}: no such file or directory; expected a run, or the store of a sweep or a search; check the "
                "path"
            )
    stores = [path for path in paths if path.suffix != ".json" and is_store(path)]
    if stores and len(paths) > 1:
        raise InputError(
            f"report: got the store {stores[0]} beside other directories; expected runs, or one store; give it alone"
        )
    return stores[0] if stores else None


def _of_store(path: Path, sweep: str | None) -> _Made:
    def rows() -> list[dict[str, Any]]:
        with Store(path) as store:
            return rows_of(store, record["name"])

    record = compromises(path, sweep)
    return _Made(render_front(record), record, rows)


def _of_runs(paths: Sequence[Path]) -> _Made:
    runs = read_runs(paths)
    record = {"runs": [{"name": name, "model": one.model, "hardware": one.hardware, "samples": one.samples,
                        "totals": one.totals} for name, one in runs.items()]}  # fmt: skip
    page = render(next(iter(runs.values()))) if len(runs) == 1 else render_runs(runs)
    return _Made(page, record, lambda: _layers_of(runs))


def _layers_of(runs: Mapping[str, RunResult]) -> list[dict[str, Any]]:
    return [{"run": name, **row} for name, one in runs.items() for row in layer_rows(one)]


def export_layers(runs: Mapping[str, RunResult], path: str) -> None:
    """Write every layer of runs in every mode to a .csv or .parquet file, the name of the run in a column before it."""
    write_table(_layers_of(runs), path)


def show(where: Path, record: Mapping[str, Any], json: bool) -> None:
    """Print where the page is, or as a record what it shows."""
    if json:
        whole = as_json({"page": str(where), **record})
        for point, written in zip(record.get("points", ()), whole.get("points", ()), strict=True):
            written["parameters"] = as_json(point["parameters"], as_written)
        print_record(whole)
        return
    what = counted(len(record["runs"]), "run") if "runs" in record else counted(len(points_of(record)), "point")
    table = f"; table in {printable(record['table'])}" if "table" in record else ""
    print_view(standard_output(), f"{printable(str(where))}: {what}{table}")


def _target(paths: Sequence[Path], out: str | None) -> Path:
    """Return where the page goes: into the directory it is of, or here where it is of several."""
    if out is None:
        of_file = paths[0].parent if paths[0].is_file() else paths[0]
        return of_file / REPORT if len(paths) == 1 else Path(REPORT)
    return Path(out)
