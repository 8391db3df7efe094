"""How much of a sweep's hypervolume a search reaches with a share of its points, beside points drawn at random.

python -m tests.bench.search [SHARE ...]    shares as 1/SHARE of the points: 4, 8 and 16 if left out
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from simulator.explore import Goal, Plan, search, sweep
from simulator.explore.pareto import hypervolume
from simulator.explore.work import Inputs

SEEDS = range(5)


class Case(NamedTuple):
    """A grid, and what is looked for in it."""

    plan: Plan
    objectives: Mapping[str, str]


def formats(samples: int = 40) -> Plan:
    """Return 576 machines on which the bundled network runs: formats, accumulators, array shapes and tolerances."""
    operands = [[name, name] for name in ("fp8_e4m3/sat", "fp8_e5m2/sat", "fp6_e3m2")]
    varied: dict[str, Any] = {
        "mac.low.operands, mac.high.operands": operands,
        "mac.low.accumulator": ["fma(fp8_e4m3/sat)", "fma(fp8_e5m2/sat)", "fma(e5m4/sat)"],
        "mac.high.accumulator": ["fma(fp16/sat)", "fma(bf16)"],
        "array.rows, array.columns": [[8, 8], [16, 16], [32, 32], [64, 64]],
        "policy.tolerance": {"from": 0.0625, "to": 8.0, "steps": 8, "scale": "log"},
    }
    return Plan("formats", "npu", varied, Inputs(samples=samples))


def bills() -> Plan:
    """Return 1,024 machines on which the bundled network is priced."""
    varied: dict[str, Any] = {
        "array.rows": [4, 8, 12, 16, 24, 32, 48, 64],
        "array.columns": [4, 8, 12, 16, 24, 32, 48, 64],
        "mac.high.accumulator": ["fma(fp16/sat)", "fma(bf16)"],
        "side_engine.lanes": [16, 32, 64, 128],
        "memory.sram.size": ["128 KiB", "256 KiB"],
    }
    return Plan("bills", "npu", varied, Inputs(samples=100), cost_only=True, flagged=0.05)


def engines() -> Plan:
    """Return 400 machines to price among 768 combinations: the engine's rows divide those of the array."""
    varied: dict[str, Any] = {
        "array.rows": [4, 8, 12, 16, 24, 32, 48, 64],
        "array.columns": [4, 8, 12, 16, 24, 32, 48, 64],
        "side_engine": [
            {"kind": "array", "rows": rows, "columns": columns}
            for rows in (4, 8, 12, 16, 24, 32)
            for columns in (4, 16)
        ],
        "policy.gather": ["tile"],
    }
    return Plan("engines", "npu", varied, Inputs(samples=100), cost_only=True, flagged=0.05)


CASES = (
    Case(formats(), {"accuracy": "max", "energy_j": "min"}),
    Case(formats(), {"forward_error": "min", "energy_j": "min"}),
    Case(formats(), {"forward_error": "min", "energy_j": "min", "latency_s": "min"}),
    Case(formats(), {"forward_error": "min", "energy_j": "min", "area_mm2": "min"}),
    Case(bills(), {"latency_s": "min", "energy_j": "min", "area_mm2": "min"}),
    Case(engines(), {"latency_s": "min", "energy_j": "min", "area_mm2": "min"}),
)


class Reached(NamedTuple):
    """Shares of the sweep's hypervolume by seed, of searches and of points at random, and the seconds of a search."""

    searched: list[float]
    at_random: list[float]
    seconds: float


def points_of(case: Case, store: Path) -> int:
    """Return how many points the sweep of a case has, without the combinations that can be none; compute them."""
    return sum(place.key is not None for place in sweep(plan=case.plan, out=store).places)


def reached(case: Case, points: int, store: Path) -> Reached:
    """Return what searches of so many points reach; the sweep is in the store, or is computed.

    The reference point is the worst of all points of the sweep in each objective.
    """
    goal = Goal(case.objectives, points=points)
    records = [point.record for _, point in sweep(plan=case.plan, out=store).points if point is not None]
    known = [values for record in records if record is not None and (values := goal.values(record)) is not None]
    losses = np.array([goal.losses(values) for values in known])
    best, worst = losses.min(axis=0), losses.max(axis=0)

    def share(some: Sequence[Sequence[float]]) -> float:
        return hypervolume((np.array(some) - best) / (worst - best)) / whole

    whole = hypervolume((losses - best) / (worst - best))
    begun = time.perf_counter()
    found = [
        search(plan=case.plan, goal=Goal(case.objectives, points=points, seed=seed), out=store) for seed in SEEDS
    ]  # fmt: skip
    seconds = (time.perf_counter() - begun) / len(SEEDS)
    assert all(one.computed == 0 and len(one.points) == points for one in found)
    searched = [share([goal.losses(point.values) for point in one.points if point.values]) for one in found]
    drawn = [share(random.Random(seed).sample(losses.tolist(), points)) for seed in SEEDS]
    return Reached(searched, drawn, seconds)


def _main(shares: Sequence[int]) -> None:
    with TemporaryDirectory() as directory:
        for case in CASES:
            store = Path(directory) / case.plan.name
            size = points_of(case, store)
            for part in shares:
                found = reached(case, size // part, store)
                shown = (
                    f"median {statistics.median(of):.4f} ({', '.join(f'{one:.4f}' for one in of)})"
                    for of in (found.searched, found.at_random)
                )
                names = ", ".join(case.objectives)
                print(f"{case.plan.name}, {names}: {size // part} of {size}: {' at random '.join(shown)}; "
                      f"{found.seconds:.1f} s a search", flush=True)  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shares", type=int, nargs="*", default=[4, 8, 16], help="parts of the grid")
    _main(parser.parse_args().shares)
