"""Sweeps: two workers against one, and what a priced point takes beside its price."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("distributed")

from . import sweeps


def test_two_workers(benchmark, row, tmp_path):
    """Start and end of the workers included, which 200 points hide."""
    plan = sweeps.run(60)
    one = sweeps.whole(plan, 1, tmp_path / "one")
    benchmark.pedantic(lambda: sweeps.whole(plan, 2, tmp_path / "two"), rounds=1)
    row(
        "60 points of 1,500 digits, two workers, times as fast as one",
        "-",
        one / benchmark.stats.stats.min,
        "1.7 or more",
    )


def test_priced_points(benchmark, row, tmp_path):
    plan = sweeps.priced(2000)
    benchmark.pedantic(lambda: sweeps.whole(plan, 2, tmp_path / "out"), rounds=1)
    row("a priced point of a sweep on two workers, milliseconds", "-", benchmark.stats.stats.min / 2000 * 1e3, "6")
