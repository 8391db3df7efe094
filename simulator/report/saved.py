"""A saved run read again: from `summary.json` to the record that was saved."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from simulator.errors import InputError
from simulator.report.files import SUMMARY
from simulator.result import RunResult


def holds_run(path: str | Path) -> bool:
    """Whether a path is for `read_run`: a directory with a `summary.json`, or a JSON file."""
    file = Path(path)
    return (file / SUMMARY).is_file() if file.is_dir() else file.suffix == ".json" and file.is_file()


def read_runs(paths: Sequence[Path]) -> dict[str, RunResult]:
    """Return saved runs by the shortest end of their directories' paths that tells them apart.

    Raises:
        InputError: one is given twice, or as of read_run.
    """
    whole = [path.resolve() for path in paths]
    parts = [(path.parent if path.is_file() else path).parts for path in whole]
    twice = [path for path, own in zip(paths, parts, strict=True) if parts.count(own) > 1]
    if twice:
        raise InputError(f"{twice[0]}: got this run twice; expected each run once; leave one out")
    lengths = range(1, max(map(len, parts)) + 1)
    length = next(n for n in lengths if len({own[-n:] for own in parts}) == len(parts))
    return {"/".join(own[-length:]): read_run(path) for own, path in zip(parts, paths, strict=True)}


def read_run(path: str | Path) -> RunResult:
    """Return the run that `save` wrote to a directory, or whose `summary.json` this is.

    A number that JSON could not hold, null in the file, is None where the record allows it, and else NaN. Fields that
    an earlier ulpsim did not write have their defaults; those of a later one are left out.

    Raises:
        InputError: there is no such file, or it is no record of a run.
    """
    file = Path(path)
    file = file / SUMMARY if file.is_dir() else file
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read ({error.strerror}); expected the {SUMMARY} of a run; give the directory that "
            "a run was saved in"
        ) from None
    except ValueError:  # no UTF-8, or no JSON
        raise _no_run(str(file), "is no JSON") from None
    run: RunResult = _read(RunResult, record, str(file), "")
    return run


def _read(kind: Any, value: Any, file: str, at: str) -> Any:
    """Return a value of a record as its field has it, given as JSON has it."""
    if kind is Any:
        return value
    if get_origin(kind) in (Union, types.UnionType):
        known = [one for one in get_args(kind) if one is not types.NoneType]
        return None if value is None else _read(known[0], value, file, at)
    if is_dataclass(kind):
        return _record(kind, value, file, at)
    if get_origin(kind) is tuple:
        return _tuple(get_args(kind), value, file, at)
    if get_origin(kind) is Mapping:
        _expect(isinstance(value, dict), value, "a mapping", file, at)
        of, what = get_args(kind)
        names = {name: int(name) if of is int and name.isdecimal() else name for name in value}
        return {names[name]: _read(what, item, file, f"{at}.{name}") for name, item in value.items()}
    if kind is float:
        value = math.nan if value is None else value
        _expect(isinstance(value, int | float) and not isinstance(value, bool), value, "a number", file, at)
        return value  # whole numbers stay whole
    _expect(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)), value, NAMES[kind], file, at)
    return value


_NAMED = 3  # of the fields that a record lacks
NAMES = {str: "a text", int: "a whole number", bool: "true or false"}


def _record(kind: Any, value: Any, file: str, at: str) -> Any:
    _expect(isinstance(value, dict), value, "a record", file, at)
    own = [field for field in fields(kind) if field.init]
    hints = _hints(kind)
    given = {field.name: value[field.name] for field in own if field.name in value}
    lacking = [
        field.name for field in own if field.name not in given and field.default is field.default_factory is MISSING
    ]
    if lacking:
        more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
        raise _no_run(file, f"{_place(at)} lacks {', '.join(lacking[:_NAMED])}{more}")
    return kind(**{name: _read(hints[name], item, file, f"{at}.{name}") for name, item in given.items()})


def _tuple(kinds: tuple[Any, ...], value: Any, file: str, at: str) -> tuple[Any, ...]:
    _expect(isinstance(value, list), value, "a list", file, at)
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    _expect(len(value) == len(kinds), value, f"{len(kinds)} of them", file, at)
    return tuple(_read(kind, item, file, f"{at}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _expect(right: bool, value: Any, what: str, file: str, at: str) -> None:
    if not right:
        text = json.dumps(value)
        shown = text if len(text) <= 40 else f"{text[:39]}…"
        raise _no_run(file, f"{_place(at)} is {shown} and not {what}")


def _place(at: str) -> str:
    return at.lstrip(".") or "the whole"


def _no_run(file: str, why: str) -> InputError:
    return InputError(
        f"{file}: is no record of a run: {why}; expected {SUMMARY} as a run writes it; run it again, or give another"
    )
