"""The store of computed points: one SQLite file, one transaction a point, addressed by what was computed.

A point is found by a key of what decides on its result: see identity.py. Only the process that collects
the results writes, so that a worker may die at any moment; what is committed stays when that process dies too, or the
disk is full. Write-ahead logging: a failure of the whole machine may lose the last points, and never harms the file.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from simulator.errors import InputError
from simulator.hardware.quantities import describe
from simulator.report.files import SUMMARY

from .store_versions import TABLES, UPGRADES, VERSION

FILE = "runs.sqlite"
_HEADER = b"SQLite format 3\0"


@dataclass(frozen=True)
class Point:
    """A computed point.

    Args:
        key: what it is found by. numerics: version of the numerics that computed it.
        identity: what was computed, as plain data. record: the result as plain data; None if it failed.
        error: why it failed; None if it did not. seconds: that it took. stored: when, UTC.
    """

    key: str
    numerics: int
    identity: Mapping[str, Any]
    record: Mapping[str, Any] | None
    error: str | None
    seconds: float
    stored: str = ""


class Place(NamedTuple):
    """A place of a sweep: its parameters, and the key of its point; or why these can be no point."""

    parameters: Mapping[str, Any]
    key: str | None
    error: str | None = None


class Counts(NamedTuple):
    """Points of a sweep: in all, with a result, failed or refused; the others are not computed yet."""

    points: int
    done: int
    failed: int

    @property
    def missing(self) -> int:
        """How many are not computed yet, or were removed."""
        return self.points - self.done - self.failed


def _is_database(path: Path) -> bool:
    """Whether a file begins as those of SQLite do; one that cannot be read is left to SQLite to refuse."""
    try:
        with path.open("rb") as file:
            return file.read(len(_HEADER)) == _HEADER
    except OSError:
        return True


class Store:
    """A file of computed points.

    Args:
        path: of the file, or of the directory in which it is. create: whether to make it where there is none.
    Raises:
        InputError: there is no such file, it is no store, or of a later version.
    """

    def __init__(self, path: str | os.PathLike[str], create: bool = False) -> None:
        path = directory(path)
        there = is_store(path)
        if not create and not there:
            raise InputError(f"{path}: holds no store of runs; expected {FILE}, which a sweep writes; check the path")
        self.path = path if path.is_file() else path / FILE
        if self.path == path and not _is_database(path):  # SQLite would take one of a byte for an empty database
            raise self._no_store()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _no_directory(self.path.parent, error) from None
        with self._failures():
            self._base = sqlite3.connect(self.path, timeout=60.0, isolation_level=None)
            try:
                self._check(create)  # before anything is written
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
        """Return which of these keys have a result, and the seconds that each took."""
        query = "SELECT seconds FROM points WHERE key = ? AND record IS NOT NULL"
        with self._failures():
            found = ((key, self._base.execute(query, (key,)).fetchone()) for key in keys)
            return {key: row[0] for key, row in found if row is not None}

    def add(self, point: Point) -> None:
        """Keep a point, in place of one of the same key; a failure never takes the place of a result."""
        stored = point.stored or datetime.now(UTC).isoformat(timespec="seconds")
        row = (
            point.key, point.numerics, _text(point.identity),
            None if point.record is None else _text(point.record), point.error, point.seconds, stored,
        )  # fmt: skip
        with self._transaction():
            if point.record is None:
                query = "SELECT 1 FROM points WHERE key = ? AND record IS NOT NULL"
                if self._base.execute(query, (point.key,)).fetchone():
                    return
            self._base.execute("INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def begin(self, sweep: str, parameters: Sequence[Mapping[str, Any]]) -> None:
        """Note that a sweep has points of these parameters, and forget those of its places that had others.

        Raises:
            InputError: a search has that name.
        """
        self.check_name(sweep, search=False)
        with self._transaction():
            self._base.execute("INSERT OR REPLACE INTO sweeps VALUES (?, ?)", (sweep, len(parameters)))
            query = "SELECT place, parameters FROM places WHERE sweep = ?"
            others = [
                (sweep, place)
                for place, text in self._base.execute(query, (sweep,))
                if place >= len(parameters) or text != json.dumps(parameters[place])
            ]
            self._base.executemany("DELETE FROM places WHERE sweep = ? AND place = ?", others)

    def begin_search(self, sweep: str, points: int, goal: Mapping[str, Any]) -> None:
        """Note that a search is to compute so many points, which it chooses anew, and what it is for, as plain data.

        Raises:
            InputError: a sweep has that name.
        """
        self.check_name(sweep, search=True)
        with self._transaction():
            self._base.execute("INSERT OR REPLACE INTO sweeps VALUES (?, ?)", (sweep, points))
            self._base.execute("DELETE FROM places WHERE sweep = ?", (sweep,))
            # In its order, which that of the objectives on pages is.
            self._base.execute("INSERT OR REPLACE INTO searches VALUES (?, ?)", (sweep, json.dumps(goal)))

    def check_name(self, sweep: str, search: bool) -> None:
        """Refuse the name of a sweep for a search, and that of a search for a sweep: one would lose the other's points.

        Raises:
            InputError: it is that of another kind.
        """
        if sweep in self._names() and (sweep in self.searches()) != search:
            here, there = ("search", "sweep") if search else ("sweep", "search")
            raise InputError(
                f"{self.path}: got {sweep!r} for a {here}; expected the name of no {there} there; take another name, "
                "or another directory"
            )

    def searches(self) -> list[str]:
        """Return the names of the sweeps that are searches."""
        with self._failures():
            return [name for (name,) in self._base.execute("SELECT sweep FROM searches ORDER BY sweep")]

    def goal(self, sweep: str) -> Mapping[str, Any] | None:
        """Return what a search is for, as plain data; None of what is a sweep alone."""
        with self._failures():
            row = self._base.execute("SELECT goal FROM searches WHERE sweep = ?", (sweep,)).fetchone()
        remedy = "search again in another directory"
        return None if row is None else self._mapping(row[0], f"goal of {sweep}", remedy, ("goal", "grid", "axes"))

    def place(self, sweep: str, first: int, places: Sequence[Place]) -> None:
        """Note a sweep's places from one on."""
        rows = [
            (sweep, first + i, json.dumps(parameters), key, error) for i, (parameters, key, error) in enumerate(places)
        ]
        with self._transaction():
            self._base.executemany("INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?, ?)", rows)

    def point(self, key: str) -> Point:
        """Return the point of a key, or of the only one that begins so.

        Raises:
            InputError: there is none, or several.
        """
        found = self.find(self.key(key))
        assert found is not None
        return found

    def key(self, beginning: str) -> str:
        """Return the key of the only point whose key begins so, be the point damaged or not.

        Raises:
            InputError: there is none, or several.
        """
        if not beginning:
            raise InputError(f"{self.path}: got an empty key; expected that of a point; list them with `runs`")
        with self._failures():
            found = self._base.execute(
                "SELECT key FROM points WHERE substr(key, 1, ?) = ? LIMIT 2", (len(beginning), beginning)
            ).fetchall()
        if len(found) != 1:
            what = "several points" if found else "no point"
            raise InputError(
                f"{self.path}: got {beginning!r}, with which the key of {what} begins; expected that of one; list them "
                "with `runs`"
            )
        (only,) = found[0]
        return str(only)

    def find(self, key: str) -> Point | None:
        """Return the point of a key, if there is one."""
        with self._failures():
            row = self._base.execute("SELECT * FROM points WHERE key = ?", (key,)).fetchone()
        return None if row is None else self._point(row)

    def points(self, latest: int | None = None) -> Iterator[Point]:
        """Yield all points, the oldest first, or so many of the latest."""
        some = "SELECT * FROM points ORDER BY stored DESC, key DESC LIMIT ?"
        with self._failures():
            for row in self._base.execute(
                f"SELECT * FROM ({some}) ORDER BY stored, key", (-1 if latest is None else latest,)
            ):
                yield self._point(row)

    def outdated(self, numerics: int) -> list[str]:
        """Return the keys of the points that other numerics computed."""
        with self._failures():
            return [key for (key,) in self._base.execute("SELECT key FROM points WHERE numerics != ?", (numerics,))]

    def __len__(self) -> int:
        with self._failures():
            count: int = self._base.execute("SELECT count(*) FROM points").fetchone()[0]
            return count

    def sweeps(self) -> dict[str, Counts]:
        """Return the names of the sweeps, with how many points each has.

        What can be no point of a sweep failed. A search takes another in its place, as long as its grid has one, and
        does not count it.
        """
        query = (
            "SELECT sweeps.sweep, min(sweeps.points, coalesce(CASE WHEN json_valid(searches.goal) THEN "
            "json_extract(searches.goal, '$.grid') - sum(places.error IS NOT NULL) END, sweeps.points)), "
            "count(points.record), "
            "sum(places.error IS NOT NULL AND searches.sweep IS NULL) "
            "+ sum(points.key IS NOT NULL AND points.record IS NULL) FROM sweeps "
            "LEFT JOIN searches ON searches.sweep = sweeps.sweep "
            "LEFT JOIN places ON places.sweep = sweeps.sweep LEFT JOIN points ON points.key = places.key "
            "GROUP BY sweeps.sweep ORDER BY sweeps.sweep"
        )
        with self._failures():
            return {name: Counts(*counts) for name, *counts in self._base.execute(query)}

    def only_sweep(self, name: str | None) -> str:
        """Return the name of a sweep that is there: the one that is given, or of the only one.

        Raises:
            InputError: there is none of that name, or none is named and there are several.
        """
        known = self._names()
        if name is None and len(known) == 1:
            return known[0]
        if name is None or name not in known:
            raise InputError(
                f"sweep: got {'no name' if name is None else repr(name)}; expected one of "
                f"{', '.join(known) or 'none, there is none'}, of {self.path}; give the name of one"
            )
        return name

    def of_sweep(self, sweep: str) -> Iterator[tuple[Place, Point | None]]:
        """Yield a sweep's places in its order, and their points as far as they are computed."""
        columns = ", ".join(f"points.{name}" for name in Point.__dataclass_fields__)
        query = (
            f"SELECT places.parameters, places.key, places.error, {columns} FROM places LEFT JOIN points "
            "ON points.key = places.key WHERE places.sweep = ? ORDER BY places.place"
        )
        with self._failures():
            for parameters, key, error, *row in self._base.execute(query, (sweep,)):
                own = self._mapping(parameters, f"parameters of {sweep}", "compute it again")
                yield Place(own, key, error), None if row[0] is None else self._point(row)

    def remove(self, keys: Iterable[str]) -> int:
        """Remove points; return how many there were."""
        with self._transaction():
            return sum(self._base.execute("DELETE FROM points WHERE key = ?", (key,)).rowcount for key in keys)

    def _names(self) -> list[str]:
        with self._failures():
            return [name for (name,) in self._base.execute("SELECT sweep FROM sweeps ORDER BY sweep")]

    def _point(self, row: Sequence[Any]) -> Point:
        key, numerics, identity, record, error, seconds, stored = row
        remedy = f"remove the point with `runs {self.path} --remove {key}`, and sweep again"
        loaded = None if record is None else self._mapping(record, f"record of {key}", remedy)
        return Point(
            key, numerics, self._mapping(identity, f"identity of {key}", remedy), loaded, error, seconds, stored
        )

    def _mapping(self, text: str, what: str, remedy: str, needed: Iterable[str] = ()) -> dict[str, Any]:
        """Return what was stored as JSON, a mapping with some keys at least."""
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict) or not found.keys() >= set(needed):
            raise InputError(f"{self.path}: the {what} is damaged; expected JSON, as a sweep writes it; {remedy}")
        return found

    def _tables(self) -> set[str]:
        return {name for (name,) in self._base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def _version(self) -> int:
        version: int = self._base.execute("PRAGMA user_version").fetchone()[0]
        return version

    def _check(self, create: bool) -> None:
        """Refuse a database of others, and one of a later version."""
        tables, version = self._tables(), self._version()
        if not {"points", "sweeps"} <= tables and not (create and not tables):
            raise self._no_store()
        if version > VERSION:
            raise InputError(
                f"{self.path}: a store of version {version}; expected at most {VERSION}; install a later ulpsim"
            )

    def _open(self) -> None:
        if self._version() < VERSION:
            with self._transaction():
                if not self._tables():  # or another process was first
                    self._execute_all(TABLES)
                else:
                    for version, statements in enumerate(UPGRADES, 1):
                        if self._version() <= version:
                            self._execute_all(statements)
                self._base.execute(f"PRAGMA user_version = {VERSION}")

    def _execute_all(self, statements: str) -> None:
        for statement in filter(str.strip, statements.split(";")):
            self._base.execute(statement)

    def _no_store(self) -> InputError:
        return InputError(f"{self.path}: is no store of runs; expected one; check the path")

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
        except UnicodeEncodeError as error:
            raise InputError(
                f"{self.path}: cannot keep {error.object!a}, which is no text in Unicode; expected one; rename it"
            ) from None
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorname", "")
            if code == "SQLITE_FULL":
                raise InputError(
                    f"{self.path}: the disk is full ({error}); all points before are kept; make room and run the same "
                    "again, it goes on from there"
                ) from None
            if code == "SQLITE_NOTADB":
                raise self._no_store() from None
            raise InputError(
                f"{self.path}: cannot be used ({error}); expected a file that can be read and written; check it"
            ) from None


def directory(out: str | os.PathLike[str]) -> Path:
    """Return the directory that a user names for a store.

    Raises:
        InputError: what names none.
    """
    if not isinstance(out, str | os.PathLike) or not os.fspath(out):
        raise InputError(f"out: got {describe(out)}; expected a directory, which need not exist; name one")
    return Path(out)


def check_place(path: Path) -> None:
    """Refuse a directory in which no store could be opened or made, or that has a run; nothing is written.

    Raises:
        InputError: what Store would say of it.
    """
    if is_store(path):
        with Store(path):
            return
    if (path / SUMMARY).is_file():  # whose page that of the sweep would take the place of
        raise InputError(f"out: {path} has the {SUMMARY} of a run; expected a directory without one; name another")
    try:
        there = next(place for place in (path, *path.absolute().parents) if place.exists())
    except OSError as error:
        raise _no_directory(path, error) from None
    if not there.is_dir():
        raise _no_directory(path, OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(there, os.W_OK | os.X_OK):
        raise _no_directory(path, OSError(errno.EACCES, os.strerror(errno.EACCES)))


def _no_directory(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path}: cannot be made a directory ({error.strerror}); expected one that is there or can be made; give "
        "another"
    )


def is_store(path: Path) -> bool:
    """Return whether a store may be opened there: its directory, or its file.

    Raises:
        InputError: a path that no file can have.
    """
    try:
        return (path / FILE if path.is_dir() else path).is_file()
    except OSError as error:
        raise InputError(f"{path}: no path of a store ({error.strerror}); expected a directory; give another") from None


def _text(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=True)
