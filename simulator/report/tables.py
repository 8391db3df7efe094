"""Rows as data frames and as .csv and .parquet files; plain data as JSON can hold it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.errors import InputError, first_line, missing
from simulator.report.directories import check_writable, replacing

if TYPE_CHECKING:
    import pandas

WRITERS = {".csv": "to_csv", ".parquet": "to_parquet"}


def as_json(value: Any, nonfinite: Callable[[float], Any] = lambda value: None) -> Any:
    """Return plain data with what JSON has no number for replaced, by null if left out."""
    if isinstance(value, Mapping):
        return {name: as_json(item, nonfinite) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item, nonfinite) for item in value]
    return nonfinite(value) if isinstance(value, float) and not math.isfinite(value) else value


def as_written(value: float) -> str:
    """Return an infinity or NaN as a machine file writes it."""
    return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"


def frame_of(rows: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    """Return rows as a DataFrame; needs pandas."""
    try:
        import pandas
    except ImportError:
        raise missing("export", "pandas", "explore") from None
    return pandas.DataFrame(list(rows))


def check_table(path: str, place: str) -> None:
    """Check, before anything runs for it, that a table can be written to this path; `place` is what asks for it.

    Raises:
        InputError: another ending, or no place where files can be made. MissingLibraryError: what writes it is missing.
    """
    kind = Path(path).suffix
    if kind not in WRITERS:
        raise InputError(f"{place}: got {path}; expected a name with .csv or .parquet; rename it")
    for library in ("pandas", *(("pyarrow",) if kind == ".parquet" else ())):
        if find_spec(library) is None:
            raise missing(f"{place}: {path}", library, "explore")
    check_writable(path)


def write_table(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> int:
    """Write rows to a .csv or .parquet file, in place of one that is there; return how many.

    Raises:
        InputError: another kind of file, or one that cannot be written.
    """
    target = Path(path)
    if target.suffix not in WRITERS:
        raise InputError(f"{target}: got the ending {target.suffix!r}; expected .csv or .parquet; rename it")
    table = frame_of(rows)
    for name in table.columns:
        if not _of_one_type(table[name].dropna()):
            table[name] = table[name].map(str, na_action="ignore")
    with replacing(target) as fresh:
        try:
            getattr(table, WRITERS[target.suffix])(fresh, index=False)
        except ImportError:
            raise missing("export", "pyarrow", "explore") from None
        except ValueError as error:
            raise InputError(
                f"{target}: cannot be written ({first_line(error)}); expected values that such a file can hold; export "
                "to a file of the other kind"
            ) from None
    return len(table)


def _of_one_type(values: Iterable[Any]) -> bool:
    """Whether a column of a Parquet file can hold values as they are: text, booleans or numbers of 64 bits."""
    kinds = {
        "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value) for value in values
    }
    return len(kinds) < 2 and all(not isinstance(value, int) or abs(value) < 2**63 for value in values)
