"""Ratios against a peer measured in the same run; `make bench` prints them. Nothing here asserts a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import pytest

ROUNDS = 7


class Ratio(NamedTuple):
    """One line of the table: what was measured, against what, the ratio of the best times, what is to be reached."""

    work: str
    peer: str
    ratio: float
    reach: str


ROWS = pytest.StashKey[list[Ratio]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


def best(function: Callable[[], object]) -> float:
    """Return the shortest of ROUNDS times in seconds, after one run that is not counted."""
    function()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.fixture
def against(benchmark, request):
    """Measure `ours` with pytest-benchmark and `theirs` beside it, and add the ratio to the table."""

    def measure(work: str, ours: Callable[[], object], peer: str, theirs: Callable[[], object], reach: str) -> None:
        benchmark.pedantic(ours, rounds=ROUNDS, warmup_rounds=1)
        if benchmark.stats is None:
            pytest.skip("benchmarks are disabled; use `make bench`")
        ratio = benchmark.stats.stats.min / best(theirs)
        benchmark.extra_info["ratio"] = ratio
        request.config.stash[ROWS].append(Ratio(work, peer, ratio, reach))

    return measure


@pytest.fixture
def row(request):
    """Add a line that is no ratio of two times of this run: (work, peer, number, what is to be reached)."""
    return lambda *fields: request.config.stash[ROWS].append(Ratio(*fields))


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    import native

    rows = config.stash[ROWS]
    if not rows:
        return
    terminalreporter.section(f"ratios, best of {ROUNDS}, instruction set {native.isa()}")
    width, peers = max(len(r.work) for r in rows), max(len(r.peer) for r in rows)
    for r in rows:
        terminalreporter.line(f"{r.work:{width}}  / {r.peer:{peers}}  {r.ratio:8.2f}   to reach: {r.reach}")
