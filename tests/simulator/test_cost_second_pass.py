"""The second pass: waste, break-even, gather kinds, overlap and traffic."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.arithmetic.spec import mac
from simulator.cost import Gemm, break_even, price, waste_factor
from simulator.cost.flags import IndependentFlags, read_flags
from simulator.cost.folds import run_cycles
from simulator.cost.one_pass import uniform_pass
from simulator.cost.problem import Problem, Widths
from simulator.cost.queue import expected_queue
from simulator.cost.second_pass import second_work, total_cycles
from simulator.hardware import AccumulatorBuffer, Array, load_hardware

NPU = load_hardware("npu")
BYTES = Widths(8, 8, 8, 8, 8, 8, 8)


def test_waste_factors_of_independent_flags():
    expected = {
        256: (226, 92, 20, 10),
        64: (62, 47, 19, 10),
        16: (15.9, 14.9, 11.2, 8.1),
        8: (8.0, 7.7, 6.7, 5.7),
        4: (4.0, 3.9, 3.7, 3.4),
    }
    for group, row in expected.items():
        for flagged, gamma in zip((0.001, 0.01, 0.05, 0.1), row, strict=True):
            assert waste_factor(flagged, group) == pytest.approx(gamma, abs=0.06 if group <= 16 else 0.8)
    assert [waste_factor(f, 16) for f in (0.0, 1.0)] == [16, 1]


def test_energy_and_break_even_of_the_worked_example():
    macs, low, side, high, flagged = 2**24, 0.10e-12, 0.015e-12, 0.72e-12, 0.02
    assert macs * high * 1e6 == pytest.approx(12.08, abs=0.005)
    for group, microjoules, even in ((1, 2.17, 0.84), (16, 5.27, 0.108)):
        energy = macs * (low + side + waste_factor(flagged, group) * flagged * high)
        assert energy * 1e6 == pytest.approx(microjoules, abs=0.005)
        assert break_even(low, side, high, group) == pytest.approx(even, abs=0.0005)
    assert [round(break_even(low, side, 0.49e-12, g), 3) for g in (1, 16)] == [0.765, 0.087]
    assert break_even(1.0, 0.0, 0.5) == 0.0


@settings(deadline=None)
@given(
    st.integers(1, 20), st.integers(1, 20), st.integers(1, 7), st.integers(1, 7), st.floats(0, 1), st.integers(0, 99)
)
def test_counts_of_a_mask_are_those_of_its_elements(m, n, height, width, fraction, seed):
    mask = np.random.default_rng(seed).random((2, m, n)) < fraction
    flags = read_flags(mask, 2, m, n)
    assert flags.count() == mask.sum()
    bands = [
        (g, i, j) for g in range(2) for i in range(m) for j in range(0, n, width) if mask[g, i, j : j + width].any()
    ]
    assert flags.bands(width).outputs == sum(min(width, n - j) for _, _, j in bands)
    tiles = [
        (g, i, j)
        for g in range(2)
        for i in range(0, m, height)
        for j in range(0, n, width)
        if mask[g, i : i + height, j : j + width].any()
    ]
    found = flags.tiles(height, width)
    assert found.outputs == sum(min(height, m - i) * min(width, n - j) for _, i, j in tiles)
    assert found.rows == sum(min(height, m - i) for _, i in {(g, i) for g, i, _ in tiles})
    assert found.columns == sum(min(width, n - j) for _, j in {(g, j) for g, _, j in tiles})
    assert sum(counts.sum() for counts in flags.per_tile(height, width)) == flags.count()


def test_expected_counts_are_near_those_of_random_masks():
    mask = np.random.default_rng(1).random((4, 200, 96)) < 0.02
    measured, expected = read_flags(mask, 4, 200, 96), IndependentFlags(0.02, 4, 200, 96)
    for call in (
        lambda f: f.count(),
        lambda f: f.rows(),
        lambda f: f.bands(16).outputs,
        lambda f: f.tiles(16, 16).outputs,
    ):
        assert call(expected) == pytest.approx(call(measured), rel=0.08)


@given(st.floats(0, 1, exclude_min=True), st.integers(1, 3), st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_fraction_above_zero_is_at_least_one_flag_of_whatever_holds_it(fraction, gemms, m, n):
    flags = IndependentFlags(fraction, gemms, m, n)
    assert 1 <= flags.rows() <= flags.count() <= gemms * m * n
    assert 1 <= flags.columns() <= flags.count()
    assert flags.bands(16).outputs >= 1 and flags.tiles(16, 16).outputs >= 1


def test_expected_counts_are_rounded_up_and_products_are_not():
    assert [IndependentFlags(f, 1, 10, 10).count() for f in (0.0, 1e-9, 0.07, 0.071, 1.0)] == [0, 1, 7, 8, 100]
    tiny = price(NPU, Gemm(64, 64, 64), "two_pass", 1e-9)
    assert (tiny.flagged_outputs, tiny.recomputed_outputs) == (1, 1)
    assert tiny.cycles > price(NPU, Gemm(64, 64, 64), "two_pass", 0.0).cycles


@settings(deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 90), st.integers(1, 3), st.floats(1e-6, 1))
def test_the_queue_of_expected_flags_is_that_over_all_tiles(m, n, k, gemms, fraction):
    sram = replace(NPU.memory.buffers[0], size_bits=8 * 8192)
    level = replace(NPU.memory, buffers=(sram,), accumulators=AccumulatorBuffer(2048))
    machine = replace(NPU, array=Array(4, 4, "best"), memory=level, side_engine=replace(NPU.side_engine, lanes=16))
    first = uniform_pass(machine.array, level, "best", Problem(m, n, k, 4, BYTES))
    tile, per_output = first.tile, math.ceil(k / 16)
    sizes = np.outer(*(np.minimum(size, x - np.arange(0, x, size)) for x, size in ((m, tile.m), (n, tile.n))))
    high = np.tile((sizes if tile.outer == "m" else sizes.T).ravel() * fraction * per_output, gemms)
    done = (np.arange(gemms)[:, None] * first.cycles + first.finish().ravel()).ravel()
    expected = (done + np.cumsum(high[::-1])[::-1]).max()
    served = expected_queue(machine, first, IndependentFlags(fraction, gemms, m, n), k, first.cycles)
    assert served - expected in (pytest.approx(0, abs=1e-6), pytest.approx(0.5, abs=0.5 + 1e-6))
    assert first.last_store == first.cycles - first.finish()[-1, -1]


def test_overlap_by_tile_is_the_longest_path_through_the_queue():
    ports = {"read_bits_per_cycle": Fraction(10**6), "write_bits_per_cycle": Fraction(10**6)}
    sram = replace(NPU.memory.buffers[0], size_bits=24 * 8192, **ports)
    level = replace(NPU.memory, buffers=(sram,), accumulators=AccumulatorBuffer(2 * 8192))
    machine = replace(NPU, memory=level, array=Array(8, 8))
    m, n, k, gemms = 70, 50, 90, 2
    mask = np.random.default_rng(3).random((gemms, m, n)) < np.linspace(0, 0.6, n)
    first = uniform_pass(machine.array, machine.memory, "ws", Problem(m, n, k, 4, BYTES))
    assert first.tile.counts(m, n, k)[:2] != (1, 1)
    work = second_work(machine, (gemms, m, n, k), first, read_flags(mask, gemms, m, n))
    free, per_output = 0.0, math.ceil(k / 64)
    tile, finish = first.tile, first.finish()
    outer, inner = range(0, m, tile.m), range(0, n, tile.n)
    if tile.outer == "n":
        outer, inner = inner, outer
    for g, (x, i), (y, j) in itertools.product(range(gemms), enumerate(outer), enumerate(inner)):
        r, c = (i, j) if tile.outer == "m" else (j, i)
        flags = int(mask[g, r : r + tile.m, c : c + tile.n].sum())
        ready = g * first.cycles + int(finish[x, y])
        free = max(free, ready) + flags * per_output if flags else free  # in order, each tile when it is ready
    expected = max(gemms * first.cycles, int(free) + 6 + first.cycles - int(finish[-1, -1]))
    assert total_cycles(machine, gemms, first, work, read_flags(mask, gemms, m, n), k) == expected


def test_flags_up_to_the_ratio_of_lanes_to_peak_stay_hidden():
    level = replace(NPU.memory, buffers=(replace(NPU.memory.buffers[0], read_bits_per_cycle=Fraction(10**6)),))
    machine = replace(NPU, memory=level)
    gemm, ratio = Gemm(2048, 1024, 1024), 64 / (16 * 16 * 4)
    low = price(machine, gemm, "low").cycles
    assert price(machine, gemm, "two_pass", 0.9 * ratio).cycles < 1.01 * low
    assert price(machine, gemm, "two_pass", 1.3 * ratio).cycles > 1.1 * low


def test_the_array_recomputes_rows_bands_and_tiles_in_the_high_mode():
    mask = np.zeros((64, 64), bool)
    mask[3, 5] = mask[40, 60] = True
    recomputed, high_folds = {}, {"row": (16, 2), "coltile": (8, 1), "tile": (8, 16)}
    for gather, (folds, streamed) in high_folds.items():
        policy = replace(NPU.policy, gather=gather, overlap="none")
        machine = replace(NPU, policy=policy, side_engine=None, memory=None)
        cost = price(machine, Gemm(64, 64, 64), "two_pass", mask)
        recomputed[gather] = cost.recomputed_outputs
        run = run_cycles(machine.array, "ws", [(folds, streamed)])
        assert cost.cycles - price(machine, Gemm(64, 64, 64), "low").cycles == run.total
        assert cost.cycle_parts["switch"] == 16 + 16 + 16 - 2  # the first load, then p*R + C - 2
    assert recomputed == {"row": 128, "coltile": 32, "tile": 512}


def test_weights_in_two_formats_are_moved_as_the_policy_says():
    low = replace(NPU.mac.low, spec=mac("fp8_e4m3 -> chunk(64, fma(fp8_e4m3), seq(fp8_e4m3))"))
    high = replace(NPU.mac.high, spec=mac("fp16 -> chunk(16, fma(fp16), seq(fp16))"))
    base = replace(NPU, mac=replace(NPU.mac, low=low, high=high))
    gemm, mask = Gemm(32, 32, 64), np.zeros((32, 32), bool)
    mask[1, 2] = mask[1, 3] = True
    moved = {}
    for weights in ("both", "high_only"):
        machine = replace(base, policy=replace(NPU.policy, weights=weights))
        moved[weights] = price(machine, gemm, "two_pass", mask).traffic_bits["dram"]
    outputs = 32 * 32 * 8 + 2 * 8  # two of them are stored in 16 bits
    assert moved["both"] == 2 * 32 * 64 * 8 + (1 + 2) * 64 * 16 + outputs
    assert moved["high_only"] == 2 * 32 * 64 * 16 + outputs


def test_scattered_flags_cost_more_than_clustered_ones_on_the_array():
    machine = replace(NPU, policy=replace(NPU.policy, gather="tile", overlap="none"), side_engine=None)
    clustered, scattered = np.zeros((2, 128, 128), bool)
    clustered[:16, :16] = True
    scattered[::8, ::8] = True
    assert clustered.sum() == scattered.sum()
    one, other = (price(machine, Gemm(128, 128, 128), "two_pass", flags) for flags in (clustered, scattered))
    assert one.waste_factor == 1 and other.waste_factor == 64
    assert one.cycles < other.cycles and one.energy_j < other.energy_j
