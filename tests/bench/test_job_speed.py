"""The main job as a whole process, and the price of one layer."""

from __future__ import annotations

import functools
import subprocess
import sys

import pytest

pytest.importorskip("torch")


def test_main_job(benchmark, row, tmp_path):
    command = [sys.executable, "-m", "simulator", "--hw", "npu", "--out", str(tmp_path / "out")]
    run = functools.partial(subprocess.run, command, check=True, capture_output=True)
    benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    row("main job, 1,500 digits, seconds", "-", benchmark.stats.stats.min, "10")


def test_price_of_a_layer(benchmark, row):
    from simulator.cost import Gemm, price
    from simulator.hardware import load_hardware

    machine = load_hardware("npu")
    shapes = [Gemm(64 * (1 + i % 40), 784, 784) for i in range(200)]
    benchmark.pedantic(lambda: [price(machine, shape, "low") for shape in shapes], rounds=7, warmup_rounds=1)
    row("analytic cost of one layer, microseconds", "-", benchmark.stats.stats.min / len(shapes) * 1e6, "20")
