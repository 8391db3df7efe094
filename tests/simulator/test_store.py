"""The store of runs: what is committed stays, whatever dies; what is asked for is found."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulator.errors import InputError
from simulator.explore import Counts, Point, Store

POINT = Point(
    "ab12", 1, {"machine": {"name": "npu"}}, {"totals": {"low": {"cycles": 7}}}, None, True, 0.5, "2026-01-01"
)


def test_a_point_is_found_as_it_was_added(tmp_path):
    with Store(tmp_path, create=True) as store:
        store.add(POINT)
    with Store(tmp_path) as store:
        assert list(store.points()) == [POINT] == [store.point("ab")]
        assert store.known(["ab12", "cd34"]) == {"ab12": 0.5}


def test_what_failed_for_a_time_is_not_known(tmp_path):
    failed = Point("cd34", 1, {}, None, "its worker died", False, 0.1)
    with Store(tmp_path, create=True) as store:
        store.add(failed)
        assert store.known(["cd34"]) == {}
        store.add(Point("cd34", 1, {}, {"totals": {}}, None, True, 0.2))
        assert store.known(["cd34"]) == {"cd34": 0.2}
        assert store.point("cd34").error is None


def test_a_sweep_is_its_points_in_order_computed_or_not(tmp_path):
    with Store(tmp_path, create=True) as store:
        store.place("s", 0, [({"rows": 8}, "zz"), ({"rows": 16}, "ab12")])
        store.place("s", 2, [({"rows": 0}, "cd34")])
        store.add(POINT)
        store.add(Point("cd34", 1, {}, None, "no", True, 0.0))
        assert list(store.of_sweep("s"))[:2] == [({"rows": 8}, None), ({"rows": 16}, POINT)]
        assert store.sweeps() == {"s": Counts(points=3, done=1, failed=1)}
        store.place("s", 0, [({"rows": 16}, "ab12")])
        store.shorten("s", 1)
        assert (store.sweeps(), [p for p, _ in store.of_sweep("s")]) == ({"s": Counts(1, 1, 0)}, [{"rows": 16}])


def test_removal(tmp_path):
    with Store(tmp_path, create=True) as store:
        store.add(POINT)
        assert (store.remove(["ab12", "none"]), list(store.points())) == (1, [])


@pytest.mark.parametrize(("key", "count"), [("x", "no run"), ("", "several runs")])
def test_a_key_that_is_not_one_is_refused(tmp_path, key, count):
    with Store(tmp_path, create=True) as store:
        store.add(POINT)
        store.add(Point("ab34", 1, {}, None, "no", True, 0.0))
        with pytest.raises(InputError, match=f"got {key!r}, which {count} begin with"):
            store.point(key)


def test_there_is_no_store(tmp_path):
    with pytest.raises(InputError, match=r"holds no store of runs; expected runs.sqlite"):
        Store(tmp_path)
    (tmp_path / "runs.sqlite").write_text("this is no database, but long enough to be read as one " * 100)
    with pytest.raises(InputError, match=r"is no store of runs; expected one"):
        Store(tmp_path)


@pytest.mark.parametrize("version", [0, 1])
def test_a_database_of_others_is_refused_and_left_alone(tmp_path, version):
    path = tmp_path / "runs.sqlite"
    base = sqlite3.connect(path)
    base.execute("CREATE TABLE theirs (a)")
    base.execute(f"PRAGMA user_version = {version}")
    base.close()
    before = path.read_bytes()
    for create in (True, False):
        with pytest.raises(InputError, match=r"is no store of runs; expected one"):
            Store(tmp_path, create=create)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs.sqlite"]


def test_a_directory_may_have_a_dot_in_its_name(tmp_path):
    with Store(tmp_path / "runs.2026", create=True) as store:
        assert store.path == tmp_path / "runs.2026" / "runs.sqlite"


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/out: cannot be made a directory"):
        Store(tmp_path / "file" / "out", create=True)


def test_a_later_version_is_refused(tmp_path):
    Store(tmp_path, create=True)
    sqlite3.connect(tmp_path / "runs.sqlite").execute("PRAGMA user_version = 9")
    with pytest.raises(InputError, match=r"a store of version 9; expected at most 1; install a later ulpsim"):
        Store(tmp_path)


WRITER = """
import sys
from pathlib import Path
from simulator.explore import Counts, Point, Store
store = Store(Path(sys.argv[1]), create=True)
for i in range(100000):
    store.add(Point(f"{i:064d}", 1, {"i": i}, {"text": "x" * 2000}, None, True, 0.0))
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
        check = sqlite3.connect(tmp_path / "runs.sqlite").execute("PRAGMA integrity_check").fetchone()
        assert check == ("ok",)


def _add_many(path: str, first: int) -> None:
    with Store(Path(path), create=True) as store:
        for i in range(first, first + 50):
            store.add(Point(f"{i:04d}", 1, {}, {}, None, True, 0.0))


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
                store.add(Point(f"k{i}", 1, {}, {"text": "x" * 3000}, None, True, 0.0))
    with Store(tmp_path) as store:
        kept = [point.key for point in store.points()]
        assert "ab12" in kept
        store.add(Point("later", 1, {}, {}, None, True, 0.0))
        assert store.known(["later"]) == {"later": 0.0}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match=r"runs.sqlite: cannot be used"):
            Store(tmp_path, create=True)
    finally:
        tmp_path.chmod(0o700)
