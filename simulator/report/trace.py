"""A timeline as a file that Perfetto (ui.perfetto.dev) and chrome://tracing show: a row for each resource."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from simulator.errors import InputError


class Happening(Protocol):
    """What happened where, to which tile (GEMM, along M, along N, along K), from one cycle to another."""

    @property
    def what(self) -> str: ...
    @property
    def tile(self) -> tuple[int, ...]: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def resource(self) -> str: ...


def check_trace(path: str) -> None:
    """Refuse a file that cannot be a trace.

    Raises:
        InputError: it does not end in .json, or is a directory.
    """
    target = Path(path)
    if target.suffix != ".json" or target.is_dir():
        raise InputError(f"--trace: got {path!r}; traces are JSON files, name it {target.stem or 'trace'}.json")


def write_trace(path: str, processes: Mapping[str, Iterable[Happening]], about: Mapping[str, Any]) -> None:
    """Write a trace, in place of an earlier one whole or not at all.

    Args:
        path: of the file. processes: events by what the trace calls a process. about: said of all of it.
    Raises:
        InputError: the file cannot be written.
    """
    target, records = Path(path).absolute(), _records(processes)
    fresh = target.with_name(f".{target.name}.new-{secrets.token_hex(4)}")
    head = {"displayTimeUnit": "ms", "otherData": {"unit": "a microsecond of the trace is one cycle", **about}}
    try:
        with fresh.open("w", encoding="utf-8") as file:
            # Record by record: a walk may have hundreds of thousands.
            file.write(json.dumps(head)[:-1] + ', "traceEvents": [\n')
            file.write(",\n".join(map(json.dumps, records)) + "\n]}\n")
        os.replace(fresh, target)
    except OSError as error:
        raise InputError(f"{path}: the trace cannot be written there ({error.strerror}); name another place") from error
    finally:
        fresh.unlink(missing_ok=True)


def _records(processes: Mapping[str, Iterable[Happening]]) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for process, (name, events) in enumerate(processes.items()):
        records.append({"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}})
        rows: dict[str, int] = {}
        for event in events:
            if event.resource not in rows:
                rows[event.resource] = row = len(rows)
                named = {"ph": "M", "name": "thread_name", "pid": process, "tid": row}
                records.append({**named, "args": {"name": event.resource}})
            records.append(
                {
                    "ph": "X", "name": event.what, "pid": process, "tid": rows[event.resource],
                    "ts": event.start, "dur": event.end - event.start,
                    "args": dict(zip(("gemm", "m", "n", "k"), event.tile, strict=False)),
                }
            )  # fmt: skip
    return records
