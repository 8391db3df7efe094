"""How sweeps grow: points that are only priced, from a hundred upwards, and what one point of a large network costs.

python -m tests.bench.scale [LARGEST]    number of points of the largest sweep, 100,000 if left out
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from simulator.explore import Plan, sweep

WORKERS = 2
# A decoder of 7 billion parameters over 2,048 tokens: Touvron et al., arXiv 2302.13971, table 2 (dimension 4,096, 32
# heads, 32 layers) and its code (hidden size 11,008, vocabulary 32,000). Heads are products of their own.
_TOKENS, _WIDTH, _HIDDEN, _HEADS, _LAYERS, _WORDS = 2048, 4096, 11008, 32, 32, 32000
DECODER = [
    (_TOKENS, _WIDTH, _WIDTH, 4 * _LAYERS),
    (_TOKENS, _TOKENS, _WIDTH // _HEADS, _HEADS * _LAYERS),
    (_TOKENS, _WIDTH // _HEADS, _TOKENS, _HEADS * _LAYERS),
    (_TOKENS, _HIDDEN, _WIDTH, 2 * _LAYERS),
    (_TOKENS, _WIDTH, _HIDDEN, _LAYERS),
    (_TOKENS, _WORDS, _WIDTH, 1),
]
SMALL = [(1500, 784, 784, 1), (1500, 128, 784, 1), (1500, 10, 128, 1)]


def plan(points: int, gemms: list[tuple[int, int, int, int]]) -> Plan:
    """Return arrays of up to 10 x 100 and shares of flagged outputs, so many together, on which products are priced."""
    varied = {
        "flagged": [share / 1000 for share in range(1, max(points // 1000, 1) + 1)],
        "array.rows": range(1, min(points // 100, 10) + 1),
        "array.columns": range(1, 101),
    }
    return Plan("scale", "npu", varied, cost_only=True, gemms=gemms)


def measured(points: int, gemms: list[tuple[int, int, int, int]], directory: Path) -> dict[str, Any]:
    """Return what a sweep takes, and takes again when all is known, and leaves, measured in this process."""
    asked = plan(points, gemms)
    took = []
    for _ in range(2):
        begun = time.perf_counter()
        found = sweep(plan=asked, out=directory, workers=WORKERS, threads=1)
        took.append(time.perf_counter() - begun)
    assert len(found.places) == points and not found.computed and not found.failed
    return {
        "points": points,
        "seconds": took[0],
        "again_s": took[1],
        "store_bytes": sum(path.stat().st_size for path in directory.iterdir()),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def apart(points: int, large: bool) -> dict[str, Any]:
    """Return the same, measured in a process of its own, whose peak of memory is that of this sweep."""
    with TemporaryDirectory() as directory:
        command = [
            sys.executable,
            "-m",
            __spec__.name,
            str(points),
            "--one",
            directory,
            *(["--large"] if large else []),
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def _row(name: str, found: dict[str, Any]) -> str:
    points = found["points"]
    return (
        f"| {name} | {points:,} | {found['seconds']:.1f} s | {found['seconds'] / points * 1e3:.2f} ms "
        f"| {found['again_s'] / points * 1e3:.2f} ms | {found['store_bytes'] / points / 1e3:.1f} kB "
        f"| {found['peak_bytes'] / 2**20:.0f} MiB |"
    )


def _main(largest: int) -> None:
    print("| products | points | takes | a point | known again, a point | store, a point | peak memory |")
    print("|---|---|---|---|---|---|---|")
    points = 100
    while points <= largest:
        print(_row(f"{len(SMALL)}", apart(points, False)), flush=True)
        points *= 10
    for points in (100, 1000, 10_000):
        print(_row(f"{sum(gemm[3] for gemm in DECODER):,} of {len(DECODER)} shapes", apart(points, True)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("largest", type=int, nargs="?", default=100_000, help="points of the largest sweep")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--large", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        gemms = DECODER if arguments.large else SMALL
        print(json.dumps(measured(arguments.largest, gemms, arguments.one)))
    else:
        _main(arguments.largest)
