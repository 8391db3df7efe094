"""A timeline as a file that Perfetto (ui.perfetto.dev) and chrome://tracing show: a row for each resource."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from .directories import replacing


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


def write_trace(path: str, processes: Mapping[str, Iterable[Happening]], about: Mapping[str, Any]) -> None:
    """Write a trace, in place of an earlier one whole or not at all.

    Args:
        path: of the file. processes: events by what the trace calls a process. about: said of all of it.
    Raises:
        InputError: the file cannot be written.
    """
    records = _records(processes)
    head = {"displayTimeUnit": "ms", "otherData": {"unit": "a microsecond of the trace is one cycle", **about}}
    with replacing(Path(path)) as fresh, fresh.open("w", encoding="utf-8") as file:
        # Record by record: a walk may have hundreds of thousands.
        file.write(json.dumps(head)[:-1] + ', "traceEvents": [\n')
        file.write(",\n".join(map(json.dumps, records)) + "\n]}\n")


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
