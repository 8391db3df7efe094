"""The main job as a whole process, the price of one layer and that of a network."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

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


def test_price_of_a_network(benchmark, row):
    """All 54 layers of ResNet-50 in both modes and in two passes, each time as if never seen before."""
    from simulator.cost import estimate
    from simulator.cost.one_pass import uniform_pass
    from simulator.hardware import load_hardware
    from simulator.hardware.scalesim_files import GEMM, read_topology

    machine = load_hardware("npu")
    topology = Path(__file__).parents[1] / "data" / "resnet50_gemm.csv"
    shapes = [line.sizes for line in read_topology(str(topology), GEMM)]

    def price_all():
        return [estimate(machine, shape, 0.02) for shape in shapes]

    benchmark.pedantic(price_all, setup=uniform_pass.cache_clear, rounds=7, warmup_rounds=1)
    row("analytic cost of ResNet-50 in three modes, milliseconds", "-", benchmark.stats.stats.min * 1e3, "50")
