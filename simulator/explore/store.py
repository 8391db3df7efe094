"""The store of computed points: one SQLite file, one transaction a point, addressed by what was computed.

A point is found by a key of what decides on its result: see identity.py. Only the process that collects
the results writes, so that a worker may die at any moment; what is committed stays when that process dies too, or the
disk is full. Write-ahead logging: a failure of the whole machine may lose the last points, and never harms the file.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from simulator.errors import InputError

FILE = "runs.sqlite"
_VERSION = 1
_TABLES = """
CREATE TABLE points (
    key TEXT PRIMARY KEY,
    numerics INTEGER NOT NULL,
    identity TEXT NOT NULL,
    record TEXT,
    error TEXT,
    final INTEGER NOT NULL,
    seconds REAL NOT NULL,
    stored TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE sweeps (
    sweep TEXT NOT NULL,
    place INTEGER NOT NULL,
    parameters TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (sweep, place)
) WITHOUT ROWID;
CREATE INDEX sweeps_by_key ON sweeps (key);
"""


@dataclass(frozen=True)
class Point:
    """A computed point.

    Args:
        key: what it is found by. numerics: version of the numerics that computed it.
        identity: what was computed, as plain data. record: the result as plain data; None if it failed.
        error: why it failed; None if it did not. final: whether it would fail again, or need not be computed again.
        seconds: that it took. stored: when, UTC.
    """

    key: str
    numerics: int
    identity: Mapping[str, Any]
    record: Mapping[str, Any] | None
    error: str | None
    final: bool
    seconds: float
    stored: str = ""


class Counts(NamedTuple):
    """Points of a sweep: in all, with a result, failed; the others are not computed yet."""

    points: int
    done: int
    failed: int


class Store:
    """A file of computed points.

    Args:
        path: of the file, or of the directory in which it is. create: whether to make it where there is none.
    Raises:
        InputError: there is no such file, it is no store, or of a later version.
    """

    def __init__(self, path: Path, create: bool = False) -> None:
        self.path = path / FILE if path.is_dir() or (create and not path.is_file()) else path
        if not create and not is_store(path):
            raise InputError(f"{path}: holds no store of runs; expected {FILE}, which a sweep writes; check the path")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.path.parent}: cannot be made a directory ({error.strerror}); expected one that is there or can "
                "be made; give another"
            ) from None
        with self._failures():
            self._base = sqlite3.connect(self.path, timeout=60.0, isolation_level=None)
            try:
                self._check()  # before anything is written
                self._base.execute("PRAGMA journal_mode=WAL")
                self._base.execute("PRAGMA synchronous=NORMAL")
                self._open()
            except BaseException:
                self._base.close()
                raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._base.close()

    def known(self, keys: Iterable[str]) -> dict[str, float]:
        """Return which of these keys need not be computed, and the seconds that each took; 0 for a refused one."""
        query = "SELECT CASE WHEN record IS NULL THEN 0 ELSE seconds END FROM points WHERE key = ? AND final"
        with self._failures():
            found = ((key, self._base.execute(query, (key,)).fetchone()) for key in keys)
            return {key: row[0] for key, row in found if row is not None}

    def add(self, point: Point) -> None:
        """Keep a point, in place of one of the same key."""
        stored = point.stored or datetime.now(UTC).isoformat(timespec="seconds")
        row = (
            point.key, point.numerics, _text(point.identity),
            None if point.record is None else _text(point.record), point.error, point.final, point.seconds, stored,
        )  # fmt: skip
        with self._transaction():
            self._base.execute("INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def place(self, sweep: str, first: int, points: Sequence[tuple[Mapping[str, Any], str]]) -> None:
        """Note parameters and keys of a sweep's points from one on, in place of what was noted of these before."""
        rows = [(sweep, first + i, json.dumps(parameters), key) for i, (parameters, key) in enumerate(points)]
        with self._transaction():
            self._base.executemany("INSERT OR REPLACE INTO sweeps VALUES (?, ?, ?, ?)", rows)

    def shorten(self, sweep: str, size: int) -> None:
        """Forget what was noted of a sweep's points beyond so many."""
        with self._transaction():
            self._base.execute("DELETE FROM sweeps WHERE sweep = ? AND place >= ?", (sweep, size))

    def point(self, key: str) -> Point:
        """Return the point of a key, or of the only one that begins so.

        Raises:
            InputError: there is none, or several.
        """
        with self._failures():
            found = self._base.execute(
                "SELECT * FROM points WHERE substr(key, 1, ?) = ? LIMIT 2", (len(key), key)
            ).fetchall()
        if len(found) != 1:
            what = "several runs" if found else "no run"
            raise InputError(f"{self.path}: got {key!r}, which {what} begin with; expected one; list them with `runs`")
        return _point(found[0])

    def find(self, key: str) -> Point | None:
        """Return the point of a key, if there is one."""
        with self._failures():
            row = self._base.execute("SELECT * FROM points WHERE key = ?", (key,)).fetchone()
        return None if row is None else _point(row)

    def points(self) -> Iterator[Point]:
        """Yield all points, the oldest first."""
        with self._failures():
            for row in self._base.execute("SELECT * FROM points ORDER BY stored, key"):
                yield _point(row)

    def sweeps(self) -> dict[str, Counts]:
        """Return the names of the sweeps, with how many points each has."""
        query = (
            "SELECT sweep, count(*), count(points.record), sum(points.key IS NOT NULL AND points.record IS NULL) "
            "FROM sweeps LEFT JOIN points ON points.key = sweeps.key GROUP BY sweep ORDER BY sweep"
        )
        with self._failures():
            return {name: Counts(*counts) for name, *counts in self._base.execute(query)}

    def of_sweep(self, sweep: str) -> Iterator[tuple[Mapping[str, Any], Point | None]]:
        """Yield the parameters of a sweep's points, in its order, and the points as far as they are computed."""
        columns = ", ".join(f"points.{name}" for name in Point.__dataclass_fields__)
        query = (
            f"SELECT sweeps.parameters, {columns} FROM sweeps LEFT JOIN points ON points.key = sweeps.key "
            "WHERE sweeps.sweep = ? ORDER BY sweeps.place"
        )
        with self._failures():
            for parameters, *row in self._base.execute(query, (sweep,)):
                yield json.loads(parameters), None if row[0] is None else _point(row)

    def remove(self, keys: Iterable[str]) -> int:
        """Remove points; return how many there were."""
        with self._transaction():
            return sum(self._base.execute("DELETE FROM points WHERE key = ?", (key,)).rowcount for key in keys)

    def _tables(self) -> set[str]:
        return {name for (name,) in self._base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def _check(self) -> None:
        """Refuse a database of others, and one of a later version."""
        version, tables = self._base.execute("PRAGMA user_version").fetchone()[0], self._tables()
        if tables and not {"points", "sweeps"} <= tables:
            raise InputError(f"{self.path}: is no store of runs; expected one; check the path")
        if version > _VERSION:
            raise InputError(
                f"{self.path}: a store of version {version}; expected at most {_VERSION}; install a later ulpsim"
            )

    def _open(self) -> None:
        if self._base.execute("PRAGMA user_version").fetchone()[0] == 0:
            with self._transaction():
                if not self._tables():  # or another process was first
                    for statement in filter(str.strip, _TABLES.split(";")):
                        self._base.execute(statement)
                self._base.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._failures():
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._base.in_transaction:  # a full disk has already undone it
                    self._base.execute("ROLLBACK")
                raise
            self._base.execute("COMMIT")

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorname", "")
            if code == "SQLITE_FULL":
                raise InputError(
                    f"{self.path}: the disk is full ({error}); all points before are kept; make room and run the same "
                    "again, it goes on from there"
                ) from None
            if code == "SQLITE_NOTADB":
                raise InputError(f"{self.path}: is no store of runs; expected one; check the path") from None
            raise InputError(
                f"{self.path}: cannot be used ({error}); expected a file that can be read and written; check it"
            ) from None


def is_store(path: Path) -> bool:
    """Return whether a store may be opened there: its directory, or its file."""
    return (path / FILE if path.is_dir() else path).is_file()


def _text(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=True)


def _point(row: Sequence[Any]) -> Point:
    key, numerics, identity, record, error, final, seconds, stored = row
    loaded = None if record is None else json.loads(record)
    return Point(key, numerics, json.loads(identity), loaded, error, bool(final), seconds, stored)
