"""Points as tables: a row each, a column for each parameter and each number of the results."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.errors import InputError, MissingLibraryError, first_line

from .store import Point

if TYPE_CHECKING:
    import pandas

WRITERS = {".csv": "to_csv", ".parquet": "to_parquet"}


def columns(parameters: Mapping[str, Any], point: Point | None) -> dict[str, Any]:
    """Return a point as flat columns: its parameters, then NAME_MODE of what a record says by mode."""
    found: dict[str, Any] = {key: value if _scalar(value) else json.dumps(value) for key, value in parameters.items()}
    found["key"] = None if point is None else point.key
    found["error"] = None if point is None else point.error
    found["seconds"] = None if point is None else point.seconds
    record = {} if point is None or point.record is None else point.record
    for name in ("accuracy", "agreement", "forward_error"):
        for mode, value in (record.get(name) or {}).items():
            found[f"{name}_{mode}"] = value
    for metric, by_mode in record.get("metrics", {}).items():
        for mode, value in by_mode.items():
            found[f"{metric}_{mode}"] = value
    for mode, totals in record.get("totals", {}).items():
        for name, value in (totals or {}).items():
            found[f"{name}_{mode}"] = value
    return found


def frame(points: Iterable[tuple[Mapping[str, Any], Point | None]]) -> pandas.DataFrame:
    """Return points as a DataFrame; needs pandas."""
    try:
        import pandas
    except ImportError:
        raise _missing("pandas") from None
    return pandas.DataFrame([columns(parameters, point) for parameters, point in points])


def export(points: Iterable[tuple[Mapping[str, Any], Point | None]], path: str | os.PathLike[str]) -> int:
    """Write points to a .csv or .parquet file, in place of one that is there; return how many.

    Raises:
        InputError: another kind of file, or one that cannot be written.
    """
    target = Path(path)
    if target.suffix not in WRITERS:
        raise InputError(f"{target}: got the ending {target.suffix!r}; expected .csv or .parquet; rename it")
    table = frame(points)
    for name in table.columns:
        values = table[name].dropna()
        if len(set(map(type, values))) > 1 and not all(isinstance(value, int | float) for value in values):
            table[name] = values.map(str)  # a Parquet column has one type
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        getattr(table, WRITERS[target.suffix])(beside, index=False)
        beside.replace(target)
    except ImportError:
        raise _missing("pyarrow") from None
    except OSError as error:
        raise InputError(
            f"{target}: cannot be written ({first_line(error)}); expected a writable path; check it"
        ) from None
    finally:
        beside.unlink(missing_ok=True)
    return len(table)


def _missing(library: str) -> MissingLibraryError:
    return MissingLibraryError(
        f"export: needs {library}, which is not installed; expected the extra explore; install it with "
        "pip install 'ulpsim[explore]'"
    )


def _scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
