"""What a sweep costs: points that are only priced, points that run the digits on one worker and on two, and the store.

python -m tests.bench.sweeps [PRICED [RUN]]    numbers of points, 10,000 and 200 if left out
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from simulator.explore import Plan, Point, Store, sweep
from simulator.explore.plan import Planner, grid
from simulator.explore.work import compute
from simulator.versions import NUMERICS

SOME = 500  # points over which parts are measured


def priced(points: int) -> Plan:
    """Return so many arrays on which the bundled network is priced."""
    rows = {"from": 1, "to": points // 100, "step": 1}
    return Plan("priced", "npu", {"array.rows": rows, "array.columns": range(1, 101)}, cost_only=True, flagged=0.05)


def run(points: int) -> Plan:
    """Return so many machines on which the bundled network runs over all 1,500 digits."""
    tolerances = {"from": 0.0625, "to": 8.0, "steps": points // 10, "scale": "log"}
    return Plan(
        "run",
        "npu",
        {"array.rows": [4, 8, 12, 16, 24], "array.columns": [8, 16], "policy.tolerance": tolerances},
    )


def seconds(act: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def whole(plan: Plan, workers: int, directory: Path) -> float:
    """Return how long a sweep takes on workers of one thread, started and stopped in it."""
    return seconds(lambda: sweep(plan=plan, out=directory, workers=workers, threads=1))


def parts(plan: Plan) -> dict[str, float]:
    """Return the seconds that each part of the work takes for a point that is only priced."""
    ahead = Planner(plan).points(grid(plan))
    next(ahead)  # which reads the network
    points: list[Any] = []
    found = {"plan: machine, identity, key": seconds(lambda: points.extend(islice(ahead, SOME)))}
    outcomes: list[Any] = []
    found["price, in every mode"] = seconds(lambda: outcomes.extend(compute([p.task for p in points if p.task])))
    with TemporaryDirectory() as directory, Store(Path(directory), create=True) as store:

        def keep() -> None:
            for point, outcome in zip(points, outcomes, strict=True):
                store.add(Point(point.key, NUMERICS, point.identity, outcome.record, None, 0.0))

        found["store, a transaction each"] = seconds(keep)
    return {name: value / SOME for name, value in found.items()}


def _main(priced_points: int, run_points: int) -> None:
    with TemporaryDirectory() as directory:
        plan, store = priced(priced_points), Path(directory) / "priced"
        took = whole(plan, 2, store)
        size = sum(path.stat().st_size for path in store.iterdir())
        print(f"{priced_points:,} priced points on two workers: {took:.1f} s, {took / priced_points * 1e3:.2f} ms each")
        print(f"the same again, all known: {whole(plan, 2, store):.1f} s")
        print(f"store: {size / priced_points / 1e3:.1f} kB a point")
        for name, value in parts(plan).items():
            print(f"  {name}: {value * 1e3:.2f} ms")
        plan = run(run_points)
        one, two = (whole(plan, workers, Path(directory) / f"run{workers}") for workers in (1, 2))
        print(
            f"{run_points} points of 1,500 digits: {one:.1f} s on one worker, {two:.1f} s on two, {one / two:.2f} times"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("priced", type=int, nargs="?", default=10_000, help="points that are only priced")
    parser.add_argument("run", type=int, nargs="?", default=200, help="points that run the digits")
    arguments = parser.parse_args()
    _main(arguments.priced, arguments.run)
