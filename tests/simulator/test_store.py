"""The store of runs: what is committed stays, whatever dies; what is asked for is found."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from simulator.errors import InputError
from simulator.explore import Counts, Place, Point, Store

POINT = Point("ab12", 1, {"machine": {"name": "npu"}}, {"totals": {"low": {"cycles": 7}}}, None, 0.5, "2026-01-01")


def test_a_point_is_found_as_it_was_added(tmp_path):
    with Store(tmp_path, create=True) as store:
        store.add(POINT)
    with Store(tmp_path) as store:
        assert list(store.points()) == [POINT] == [store.point("ab")]
        assert store.known(["ab12", "cd34"]) == {"ab12": 0.5}


def test_what_failed_for_a_time_is_not_known(tmp_path):
    failed = Point("cd34", 1, {}, None, "its worker died", 0.1)
    with Store(tmp_path, create=True) as store:
        store.add(failed)
        assert store.known(["cd34"]) == {}
        store.add(Point("cd34", 1, {}, {"totals": {}}, None, 0.2))
        assert store.known(["cd34"]) == {"cd34": 0.2}
        assert store.point("cd34").error is None


def test_a_sweep_is_its_points_in_order_computed_or_not(tmp_path):
    with Store(tmp_path, create=True) as store:
        store.begin("s", [{"rows": 8}, {"rows": 16}, {"rows": 0}, {"rows": -1}, {"rows": 1}])
        store.place("s", 0, [Place({"rows": 8}, "zz"), Place({"rows": 16}, "ab12")])
        store.place("s", 2, [Place({"rows": 0}, "cd34"), Place({"rows": -1}, None, "refused")])
        store.add(POINT)
        store.add(Point("cd34", 1, {}, None, "no", 0.0))
        found = list(store.of_sweep("s"))
        assert found[:2] == [(Place({"rows": 8}, "zz"), None), (Place({"rows": 16}, "ab12"), POINT)]
        assert found[3] == (Place({"rows": -1}, None, "refused"), None)
        assert store.sweeps() == {"s": Counts(points=5, done=1, failed=2)}


def test_a_sweep_that_begins_anew_keeps_the_places_that_it_still_has(tmp_path):
    """However little of the new one is there when it ends, its list has nothing that is not its own."""
    with Store(tmp_path, create=True) as store:
        store.add(POINT)
        store.begin("s", [{"rows": 8}, {"rows": 16}, {"rows": 32}])
        store.place("s", 0, [Place({"rows": 8}, "zz"), Place({"rows": 16}, "ab12"), Place({"rows": 32}, "yy")])
        store.begin("t", [{"rows": 8}])
        store.begin("s", [{"rows": 4}, {"rows": 16}])
        assert list(store.of_sweep("s")) == [(Place({"rows": 16}, "ab12"), POINT)]
        assert store.sweeps() == {"s": Counts(2, 1, 0), "t": Counts(1, 0, 0)}
        store.place("s", 0, [Place({"rows": 4}, "xx")])
        assert [place.parameters for place, _ in store.of_sweep("s")] == [{"rows": 4}, {"rows": 16}]


def test_a_failure_never_takes_the_place_of_a_result(tmp_path):
    with Store(tmp_path, create=True) as store:
        store.add(POINT)
        store.add(Point("ab12", 1, {}, None, "its worker died", 0.0))
        assert list(store.points()) == [POINT]


def test_the_latest_points_come_in_their_order(tmp_path):
    with Store(tmp_path, create=True) as store:
        for day in (3, 1, 2):
            store.add(Point(f"k{day}", day, {}, {}, None, 0.0, f"2026-01-0{day}"))
        assert [point.key for point in store.points()] == ["k1", "k2", "k3"]
        assert [point.key for point in store.points(latest=2)] == ["k2", "k3"]
        assert (len(store), store.outdated(2)) == (3, ["k1", "k3"])


def test_removal(tmp_path):
    with Store(tmp_path, create=True) as store:
        store.add(POINT)
        assert (store.remove(["ab12", "none"]), list(store.points())) == (1, [])


@pytest.mark.parametrize(("key", "count"), [("x", "no point"), ("ab", "several points")])
def test_a_key_that_is_not_one_is_refused(tmp_path, key, count):
    with Store(tmp_path, create=True) as store:
        store.add(POINT)
        store.add(Point("ab34", 1, {}, None, "no", 0.0))
        with pytest.raises(InputError, match=f"got {key!r}, with which the key of {count} begins"):
            store.point(key)
        with pytest.raises(InputError, match="got an empty key"):
            store.point("")


def test_there_is_no_store(tmp_path):
    with pytest.raises(InputError, match=r"holds no store of runs; expected runs.sqlite"):
        Store(tmp_path)
    (tmp_path / "runs.sqlite").write_text("this is no database, but long enough to be read as one " * 100)
    with pytest.raises(InputError, match=r"is no store of runs; expected one"):
        Store(tmp_path)


@pytest.mark.parametrize("version", [0, 1])
def test_a_database_of_others_is_refused_and_left_alone(tmp_path, version):
    path = tmp_path / "runs.sqlite"
    with closing(sqlite3.connect(path)) as base:
        base.execute("CREATE TABLE theirs (a)")
        base.execute(f"PRAGMA user_version = {version}")
    before = path.read_bytes()
    for create in (True, False):
        with pytest.raises(InputError, match=r"is no store of runs; expected one"):
            Store(tmp_path, create=create)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs.sqlite"]


@pytest.mark.parametrize("content", [b"", b"x", b"a file of the user's"])
def test_a_file_of_others_is_no_store_however_short(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)
    for create in (True, False):
        with pytest.raises(InputError, match=r"x: is no store of runs; expected one"):
            Store(path, create=create)
    assert path.read_bytes() == content


@pytest.mark.parametrize("create", [True, False])
def test_a_name_that_no_file_can_have(tmp_path, create):
    with pytest.raises(InputError, match="no path of a store"):
        Store(tmp_path / ("x" * 300), create=create)


def test_what_is_no_text_is_refused(tmp_path):
    with Store(tmp_path, create=True) as store:
        with pytest.raises(InputError, match=r"cannot keep .*udc80.*, which is no text in Unicode"):
            store.begin("\udc80", [{}])
        assert store.sweeps() == {}


VERSION_1 = """
CREATE TABLE points (key TEXT PRIMARY KEY, numerics INTEGER NOT NULL, identity TEXT NOT NULL, record TEXT, error TEXT,
    final INTEGER NOT NULL, seconds REAL NOT NULL, stored TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sweeps (sweep TEXT NOT NULL, place INTEGER NOT NULL, parameters TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (sweep, place)) WITHOUT ROWID;
CREATE INDEX sweeps_by_key ON sweeps (key);
INSERT INTO points VALUES ('ab12', 1, '{"machine": {"name": "npu"}}', '{"totals": {"low": {"cycles": 7}}}', NULL, 1,
    0.5, '2026-01-01');
INSERT INTO points VALUES ('cd34', 1, '{}', NULL, 'refused', 1, 0.0, '2026-01-01');
INSERT INTO sweeps VALUES ('s', 0, '{"rows": 16}', 'ab12'), ('s', 1, '{"rows": 0}', 'cd34');
PRAGMA user_version = 1;
"""


def test_a_store_of_version_1_goes_on(tmp_path):
    with closing(sqlite3.connect(tmp_path / "runs.sqlite")) as base:
        base.executescript(VERSION_1)
    for _ in range(2):
        with Store(tmp_path) as store:
            assert list(store.points()) == [POINT]
            assert store.sweeps() == {"s": Counts(2, 1, 0)}
            store.add(POINT)


def test_a_directory_may_have_a_dot_in_its_name(tmp_path):
    with Store(tmp_path / "runs.2026", create=True) as store:
        assert store.path == tmp_path / "runs.2026" / "runs.sqlite"


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/out: cannot be made a directory"):
        Store(tmp_path / "file" / "out", create=True)


def test_a_later_version_is_refused(tmp_path):
    with Store(tmp_path, create=True) as store:
        store._base.execute("PRAGMA user_version = 9")
    with pytest.raises(InputError, match=r"a store of version 9; expected at most 4; install a later ulpsim"):
        Store(tmp_path)


WRITER = """
import sys
from pathlib import Path
from simulator.explore import Counts, Place, Point, Store
store = Store(Path(sys.argv[1]), create=True)
for i in range(100000):
    store.add(Point(f"{i:064d}", 1, {"i": i}, {"text": "x" * 2000}, None, 0.0))
    print(i, flush=True)
"""


def test_what_was_committed_outlives_a_killed_writer(tmp_path):
    """Killed again and again: each point that the writer had reported is there, and the file is whole."""
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        reported = [writer.stdout.readline() for _ in range(60)][-1]
        time.sleep(0.03)
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.wait()
        last = int(rest[-1] if rest else reported)
        with Store(tmp_path) as store:
            keys = {point.key for point in store.points()}
            assert {f"{i:064d}" for i in range(last + 1)} <= keys
        with closing(sqlite3.connect(tmp_path / "runs.sqlite")) as base:
            assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _add_many(path: str, first: int) -> None:
    with Store(Path(path), create=True) as store:
        for i in range(first, first + 50):
            store.add(Point(f"{i:04d}", 1, {}, {}, None, 0.0))


def test_several_writers_take_turns(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add_many, args=(str(tmp_path), 100 * i)) for i in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    with Store(tmp_path) as store:
        assert len(list(store.points())) == 150


def test_a_full_disk_is_said_and_harms_nothing(tmp_path):
    """SQLite's own limit of pages stands for the disk: it fails with the same error, at the same places."""
    with Store(tmp_path, create=True) as store:
        store.add(POINT)
        pages = store._base.execute("PRAGMA page_count").fetchone()[0]
        store._base.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(InputError, match=r"the disk is full .*; all points before are kept; make room"):
            for i in range(100):
                store.add(Point(f"k{i}", 1, {}, {"text": "x" * 3000}, None, 0.0))
    with Store(tmp_path) as store:
        kept = [point.key for point in store.points()]
        assert "ab12" in kept
        store.add(Point("later", 1, {}, {}, None, 0.0))
        assert store.known(["later"]) == {"later": 0.0}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match=r"runs.sqlite: cannot be used"):
            Store(tmp_path, create=True)
    finally:
        tmp_path.chmod(0o700)
