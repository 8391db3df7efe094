"""Sweeps that are killed: client, workers, scheduler at random moments, a full disk; compared with undisturbed ones."""

import contextlib
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("distributed")

from simulator.explore import Store

ROOT = Path(__file__).parents[2]
POINTS = 12
FILE = """
hw: npu
samples: 60
sweep:
  array.rows: [4, 8, 16]
  policy.tolerance: [0.25, 0.5, 1.0, 2.0]
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
# So often does each test strike, without and with `-m full`.
TIMES = [pytest.param(2, id="2"), pytest.param(25, id="25", marks=pytest.mark.full)]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(FILE)
    return path


def sweep(file, out, *arguments, **options):
    """Start a sweep in a session of its own, which is killed with all of its workers."""
    words = [sys.executable, "-m", "simulator", "sweep", str(file), "--out", str(out), "--threads", "1", *arguments]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen(words, cwd=file.parent, env=ENVIRONMENT, start_new_session=True, **options)


def counted(known):
    """What a sweep prints that had so many points before."""
    of_store = f", {known} from the store" if known else ""
    return f"{POINTS} points, {POINTS - known} computed now{of_store}; in"


def rows(out):
    """The results that the store has, with all columns, by key; nothing where there is no store yet."""
    path = out / "runs.sqlite"
    if not path.exists():
        return {}
    with closing(sqlite3.connect(path)) as base:
        if not base.execute("SELECT 1 FROM sqlite_master WHERE name = 'points'").fetchone():
            return {}
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {row[0]: row for row in base.execute("SELECT * FROM points WHERE record IS NOT NULL")}


def results(out):
    """What was computed, by parameters, without when and how fast."""
    with Store(out) as store:
        return [(dict(place.parameters), point.key, point.record, point.error) for place, point in store.of_sweep("s")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The results of a sweep that nothing disturbs, and the seconds that it took."""
    directory = tmp_path_factory.mktemp("undisturbed")
    path = directory / "s.yaml"
    path.write_text(FILE)
    begun = time.monotonic()
    running = sweep(path, directory / "out", "--workers", "2")
    running.communicate()
    assert running.returncode == 0
    found = results(directory / "out")
    assert len(found) == POINTS and all(record is not None for _, _, record, _ in found)
    return found, time.monotonic() - begun


def wait_for_more(running, out, before):
    """Wait until a sweep has kept one more result, or ended."""
    while running.poll() is None and len(rows(out)) <= len(before):
        time.sleep(0.01)


def kill_all(running):
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()


def workers_of(running):
    """The worker processes of a sweep, which are in its session."""
    found = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "-s", str(running.pid)], capture_output=True, text=True
    ).stdout
    return [int(line.split()[0]) for line in found.splitlines() if "spawn_main" in line]


@pytest.mark.parametrize("times", TIMES)
def test_killed_at_random_moments_it_ends_as_if_undisturbed(file, tmp_path, undisturbed, times):
    """Client and workers die together; what was kept is not computed again, to the byte of its row.

    Every other time as soon as there is one more result, so that there is something to lose.
    """
    expected, seconds = undisturbed
    dice = random.Random(times)
    partial = 0
    for turn in range(-(-times // 5)):
        out, killed = tmp_path / f"out{turn}", 0
        while killed < 5 and killed < times:
            before = rows(out)
            running = sweep(file, out, "--workers", "2")
            if killed % 2 == 0:
                wait_for_more(running, out, before)
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.wait(dice.uniform(0.3, 1.0) * seconds)
            with contextlib.suppress(ProcessLookupError):
                kill_all(running)
            killed += 1
            assert before.items() <= rows(out).items()
            partial += len(before) < len(rows(out)) < POINTS
        before = rows(out)
        running = sweep(file, out, "--workers", "2")
        printed, _ = running.communicate()
        assert running.returncode == 0
        assert counted(len(before)) in printed
        assert before.items() <= rows(out).items()
        assert results(out) == expected
    assert partial


@pytest.mark.parametrize("times", TIMES)
def test_workers_that_are_killed_are_replaced(file, tmp_path, undisturbed, times):
    """One worker at a time dies at a random moment; a point that loses four is kept as failed, and tried again."""
    expected, seconds = undisturbed
    dice = random.Random(times)
    killed = turn = 0
    while killed < times:
        assert turn < 2 * times, "no worker was there to be killed"
        turn += 1
        out = tmp_path / f"out{turn}"
        running = sweep(file, out, "--workers", "2")
        struck = 0
        wait_for_more(running, out, {})  # the next test kills those that start
        while running.poll() is None and struck < 4:
            if workers := workers_of(running):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(dice.choice(workers), signal.SIGKILL)
                    struck += 1
            time.sleep(dice.uniform(0.05, 0.3) * seconds)
        _, said = running.communicate(timeout=120)
        assert running.returncode in (0, 3), said
        killed += struck
        if running.returncode == 3:
            failed = [error for _, _, _, error in results(out) if error is not None]
            assert failed and all("its worker died 4 times" in error for error in failed)
            again = sweep(file, out, "--workers", "2")
            printed, _ = again.communicate()
            assert again.returncode == 0 and counted(POINTS - len(failed)) in printed
        assert results(out) == expected


@pytest.mark.parametrize("times", TIMES)
def test_workers_that_die_as_they_start_are_started_again(file, tmp_path, undisturbed, times):
    expected, _ = undisturbed
    dice = random.Random(times)
    for turn in range(-(-times // 2)):
        out = tmp_path / f"out{turn}"
        running = sweep(file, out, "--workers", "2")
        struck, deadline = 0, time.monotonic() + 60
        while running.poll() is None and struck < 2 and time.monotonic() < deadline:
            time.sleep(dice.uniform(0.05, 0.4))
            if workers := workers_of(running):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(dice.choice(workers), signal.SIGKILL)
                    struck += 1
        _, said = running.communicate(timeout=120)
        assert running.returncode == 0 and struck, said
        assert results(out) == expected


class ByHand:
    """A scheduler and a worker as a user starts them."""

    def __init__(self, directory):
        self.file = directory / "scheduler.json"
        self.file.unlink(missing_ok=True)

    def _address(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):  # it is written while it is looked at
                return json.loads(self.file.read_text())["address"]
            time.sleep(0.1)
        raise TimeoutError("the scheduler says no address")

    def _start(self, kind, *arguments):
        words = [sys.executable, "-m", "dask", kind, "--scheduler-file", str(self.file), "--no-dashboard", *arguments]
        return subprocess.Popen(
            words, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def __enter__(self):
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0")
        self.worker = self._start("worker", "--nworkers", "1", "--nthreads", "1")
        try:
            self.address = self._address()
        except TimeoutError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception):
        for process in (self.worker, self.scheduler):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize("times", [pytest.param(1, id="1"), pytest.param(12, id="12", marks=pytest.mark.full)])
def test_a_scheduler_that_is_killed_is_said(file, tmp_path, undisturbed, times):
    """The sweep ends with one message, keeps what came back, and goes on with another cluster."""
    expected, seconds = undisturbed
    dice = random.Random(times)
    partial = 0
    for turn in range(times):
        out = tmp_path / f"out{turn}"
        with ByHand(tmp_path) as cluster:
            running = sweep(file, out, "--scheduler", cluster.address)
            if turn % 2:
                time.sleep(dice.uniform(0.4, 0.9) * seconds)
            else:
                wait_for_more(running, out, {})
            cluster.scheduler.kill()
            _, said = running.communicate(timeout=120)
        if running.returncode:  # it was not sooner done
            assert running.returncode == 2 and len(said.splitlines()) == 1, said
            assert re.search("the cluster went away .*all points that came back are kept|no cluster answers", said)
        before = rows(out)
        partial += 0 < len(before) < POINTS and running.returncode == 2
        with ByHand(tmp_path) as cluster:
            again = sweep(file, out, "--scheduler", cluster.address)
            again.communicate(timeout=300)
        assert again.returncode == 0
        assert before.items() <= rows(out).items()
        assert results(out) == expected
    assert partial


def test_an_interrupted_sweep_says_how_it_goes_on(file, tmp_path):
    # So many points that it is not done before this process looks, however busy the machine is.
    file.write_text(FILE.replace("[4, 8, 16]", str(list(range(4, 84)))))
    running = sweep(file, tmp_path / "out", "--workers", "1")
    while running.poll() is None and not rows(tmp_path / "out"):
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does, to its workers too
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert said.splitlines() == [
        f"ulpsim: interrupted; the points so far are in {tmp_path / 'out'}, and the same command goes on"
    ]
    assert not workers_of(running)


DISK = """
set -e
mount -t tmpfs -o size={size}k tmpfs {out}
set +e
{python} -m simulator sweep {file} --out {out} --threads 1 --workers 1
echo "exit $?" >&2
cp {out}/* {copy}
"""


FEW, MANY = [120, 320], range(40, 340, 20)


@pytest.mark.parametrize("sizes", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.full)])
def test_a_full_disk_gives_one_error_and_an_intact_store(file, tmp_path, undisturbed, sizes):
    """A file system of its own, of so many KiB, that fills up after some points."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*unshare, f"mount -t tmpfs -o size=64k tmpfs {tmp_path}"], capture_output=True).returncode:
        pytest.skip("no file system may be mounted here, not even in a namespace of its own")
    expected, _ = undisturbed
    out, copy = tmp_path / "small", tmp_path / "copy"
    counts = set()
    for size in sizes:
        out.mkdir(exist_ok=True)
        copy.mkdir()
        script = DISK.format(size=size, out=out, copy=copy, file=file, python=sys.executable)
        done = subprocess.run(
            [*unshare, script], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=300
        )
        *said, code = done.stderr.splitlines()
        assert (code, len(said)) == ("exit 2", 1), done.stderr
        assert "runs.sqlite: the disk is full" in said[0] and "make room and run the same again" in said[0]
        before = rows(copy)
        counts.add(len(before))
        again = sweep(file, copy, "--workers", "1")
        printed, _ = again.communicate()
        assert counted(len(before)) in printed
        assert before.items() <= rows(copy).items()
        assert results(copy) == expected
        for path in copy.iterdir():
            path.unlink()
        copy.rmdir()
    assert len(counts) > 1  # it did fill up at different points
