"""Cycles and traffic against closed forms, a wavefront simulation and SCALE-Sim; the choice of tiles."""

import csv
import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.cost import Gemm, price
from simulator.cost.folds import array_words, run_cycles, streamed_cycles
from simulator.cost.one_pass import tiled_pass, uniform_pass
from simulator.cost.problem import Problem, Widths
from simulator.cost.tile_choice import choose_tile
from simulator.cost.tiling import Tile
from simulator.errors import InputError
from simulator.hardware import AccumulatorBuffer, Array, Memory
from tests.oracles.machines import NPU, level_of, memory_of
from tests.oracles.wavefront import output_stationary_wavefront, weight_stationary_wavefront

VECTORS = Path(__file__).parent.parent / "vectors"
GOLDEN = list(csv.DictReader((VECTORS / "scalesim" / "scalesim_gemm.csv").read_text().splitlines()))
LLMCOMPASS = list(csv.DictReader((VECTORS / "llmcompass" / "os_tables.csv").read_text().splitlines()))
BYTES = Widths(8, 8, 8, 8, 8, 8, 8)


def cycles(array: Array, m: int, n: int, k: int) -> int:
    return uniform_pass(array, None, array.dataflow, Problem(m, n, k, 1, BYTES)).cycles


# --- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "first", "second"),
    [
        (Array(16, 16, "ws", "exposed", "exposed"), 1760, 2920),
        (Array(16, 16, "ws", "exposed", "overlapped"), 1310, 2350),
        (Array(16, 16, "ws", "overlapped", "exposed"), 1520, 2616),
        (Array(16, 16, "ws", "overlapped", "overlapped"), 1070, 2046),
        (Array(16, 16, "os", drain="none"), 1504, 2800),
        (Array(16, 16, "os", drain="exposed"), 1760, 3248),
        (Array(16, 16, "os", drain="overlapped"), 1070, 2006),
        (Array(16, 16, "ws", latency_cycles=4), 1118, 2094),
        (Array(16, 16, "os", latency_cycles=4), 4142, 7886),
        (Array(16, 16, "os", latency_cycles=4, interleave=4), 1246, 2314),
    ],
    ids=str,
)
def test_worked_values_of_the_closed_forms(array, first, second):
    assert cycles(array, 64, 64, 64) == first
    assert cycles(array, 100, 50, 70) == second


def test_best_takes_the_least_cycles_and_names_the_dataflow():
    chosen = uniform_pass(Array(16, 16, "best"), None, "best", Problem(100, 50, 70, 1, BYTES))
    # ws 2046, os 2006; is has ceil(70/16) * ceil(100/16) folds of 50 cycles, and 16 + 30 at its ends
    assert (chosen.dataflow, chosen.cycles) == ("is", 35 * 50 + 46)


def test_rate_shortens_the_inner_dimension():
    assert uniform_pass(Array(16, 16), None, "ws", Problem(64, 64, 256, 4, BYTES)).cycles == cycles(
        Array(16, 16), 64, 64, 64
    )


@pytest.mark.parametrize("row", GOLDEN, ids=lambda r: f"{r['run']}-{r['layer']}")
def test_cycles_and_sram_words_are_those_of_scalesim(row):
    m, n, k, rows, columns = (int(row[name]) for name in ("M", "N", "K", "rows", "cols"))
    flow = row["dataflow"]
    array = Array(rows, columns, flow, "exposed", "none" if flow == "os" else "exposed")
    assert cycles(array, m, n, k) == int(row["total_cycles"]) + 1
    words = array_words(array, flow, m, n, k, 1)
    # SCALE-Sim counts rows + columns words too many in each output-stationary fold.
    surplus = math.ceil(m / rows) * math.ceil(n / columns) * (rows + columns) if flow == "os" else 0
    assert words.a_reads == int(row["sram_a_reads"])
    assert words.w_reads == int(row["sram_w_reads"])
    assert words.psum_writes + surplus == int(row["sram_o_writes"])


@pytest.mark.parametrize("row", LLMCOMPASS, ids=lambda r: "x".join(r[name] for name in ("M", "N", "K", "rows", "cols")))
def test_an_os_array_without_drain_is_that_of_llmcompass(row):
    m, n, k, rows, columns, index = (int(row[name]) for name in ("M", "N", "K", "rows", "cols", "cycles"))
    assert cycles(Array(rows, columns, "os", drain="none"), m, n, k) - 1 == index
    folds = math.ceil(m / rows) * math.ceil(n / columns)
    assert folds * (rows + columns + k - 2) - 1 == index  # which is all 55,172 rows of its tables


# --- wavefront simulation of one fold, cycle by cycle -----------------------------------------------------------------

SMALL = st.integers(1, 6)
DIMENSION = st.one_of(st.integers(1, 40), st.integers(41, 500))


@settings(deadline=None)
@given(SMALL, SMALL, st.integers(1, 20), st.integers(1, 4))
def test_skew_of_a_weight_stationary_fold_is_that_of_the_wavefront(rows, columns, length, latency):
    run = run_cycles(Array(rows, columns, latency_cycles=latency), "ws", [(1, length)])
    assert run.compute + run.fill + run.drain == weight_stationary_wavefront(rows, columns, length, latency)
    assert run.load == rows


@settings(deadline=None)
@given(SMALL, SMALL, st.integers(1, 40), st.integers(1, 4), st.integers(1, 6))
def test_an_output_stationary_fold_is_that_of_the_wavefront(rows, columns, length, latency, interleave):
    pe, total = output_stationary_wavefront(rows, columns, length, latency, interleave)
    array = Array(rows, columns, "os", latency_cycles=latency, interleave=interleave)
    if interleave <= latency:
        assert streamed_cycles(length, latency, interleave) == pe
        assert run_cycles(array, "os", [(1, length)]).total == total
    else:  # more turns than stages bring nothing
        assert pe == length - 1 + latency + latency * (interleave - 1).bit_length()
        assert streamed_cycles(length, latency, interleave) == pe


# --- tiles and the pipeline over memory -------------------------------------------------------------------------------


def walk(array: Array, level: Memory, m: int, n: int, k: int, rate: int, widths: Widths, tile: Tile) -> int:
    """Formula 4 of docs/cost-model.md, tile by tile (ws with an accumulator buffer)."""
    starts_m, starts_n = range(0, m, tile.m), range(0, n, tile.n)
    outer, inner = (starts_m, starts_n) if tile.outer == "m" else (starts_n, starts_m)
    loads, computes, stores, held = [], [], [], {}
    for x, y, z in itertools.product(outer, inner, range(0, k, tile.k)):
        i, j = (x, y) if tile.outer == "m" else (y, x)
        mt, nt, kt = min(tile.m, m - i), min(tile.n, n - j), min(tile.k, k - z)
        load = 0
        for name, key, bits in (("a", (i, z), mt * kt * widths.a), ("w", (j, z), kt * nt * widths.w)):
            if held.get(name) != key or tile.k < k:
                load += bits
            held[name] = key
        words = array_words(array, "ws", mt, nt, kt, rate)
        run = run_cycles(
            array, "ws", [(math.ceil(math.ceil(kt / rate) / array.rows) * math.ceil(nt / array.columns), mt)]
        )
        last = z + tile.k >= k
        reads = words.a_reads * widths.a + words.w_reads * widths.w
        port = level.buffers[0].read_bits_per_cycle
        computes.append(max(run.total, math.ceil(reads / port), math.ceil(mt * nt * widths.out * last / port)))
        channel = min(level.dram.bandwidth_bits_per_cycle, port)
        loads.append(math.ceil(load / channel))
        stores.append(math.ceil(mt * nt * widths.out / channel) if last else 0)
    middle = sum(
        max(c, (loads[t + 1] if t + 1 < len(loads) else 0) + (stores[t - 1] if t else 0))
        for t, c in enumerate(computes)
    )
    return loads[0] + middle + stores[-1] + 2 * level.dram.latency_cycles


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from("mn"),
    st.integers(1, 2),
)
def test_the_pipeline_is_the_sum_over_its_tiles(m, n, k, mt, nt, kt, outer, rate):
    array, level = Array(4, 4), memory_of(level_of("sram", 32), sums_kib=4, bandwidth="37.5", latency=7)
    tile = Tile(min(4 * mt, m), min(4 * nt, n), min(4 * rate * kt, k), outer)
    widths = Widths(8, 4, 16, 16, 8, 8, 4)
    found = tiled_pass(array, level, "ws", Problem(m, n, k, rate, widths), tile)
    assert found.cycles == walk(array, level, m, n, k, rate, widths, tile)
    finish = found.finish()
    assert finish.size == math.ceil(m / tile.m) * math.ceil(n / tile.n)
    assert finish[-1, -1] <= found.cycles


def test_a_tensor_that_fits_is_read_once():
    found = uniform_pass(
        Array(16, 16), memory_of(level_of("sram", 1024), sums_kib=64), "ws", Problem(64, 64, 64, 1, BYTES)
    )
    assert found.traffic.dram == 3 * 64 * 64 * 8
    assert found.tile == Tile(64, 64, 64, "m")


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 150), st.integers(1, 150), st.integers(1, 400), st.sampled_from([2, 4, 16]), st.sampled_from([1, 4])
)
def test_the_tile_has_the_least_dram_bits_of_all_tiles_that_fit(m, n, k, size_kib, accumulators_kib):
    array, level = Array(8, 8), memory_of(level_of("sram", size_kib), sums_kib=accumulators_kib)
    tile = choose_tile(array, level, "ws", Problem(m, n, k, 1, BYTES))

    def bits(t: Tile) -> int:
        (a, w), *_ = t.crossings(Problem(m, n, k, 1, BYTES), level)
        return a * m * k * 8 + w * k * n * 8

    def fits(t: Tile) -> bool:
        held = 2 * 8 * (t.m * t.k + t.k * t.n + t.m * t.n)
        return held <= level.buffers[0].size_bits and t.m * t.n * 8 <= level.accumulators.size_bits

    assert fits(tile)
    sizes = [[min(g * 8, x) for g in range(1, math.ceil(x / 8) + 1)] for x in (m, n, k)]
    best = min(bits(t) for t in (Tile(*s, o) for s in itertools.product(*sizes) for o in "mn") if fits(t))
    assert bits(tile) == best


@settings(max_examples=100, deadline=None)
@given(
    DIMENSION, DIMENSION, DIMENSION, st.sampled_from([1, 4, 16]), st.sampled_from([0, 1, 4]), st.sampled_from([1, 4])
)
@pytest.mark.parametrize("dataflow", ["ws", "os"])
def test_the_tile_is_the_first_of_all_by_the_documented_rule(dataflow, m, n, k, size_kib, accumulators_kib, rate):
    array, level, widths = (
        Array(8, 4),
        memory_of(level_of("sram", size_kib), sums_kib=accumulators_kib),
        Widths(8, 4, 16, 16, 8, 8, 12),
    )
    fold = (min(8, m), min(4, n), min(8 * rate, k))

    def sizes(length, grain):  # the balanced ones
        units = math.ceil(length / grain)
        return {min(math.ceil(units / parts) * grain, length) for parts in range(1, units + 1)}

    def fits(mt, nt, kt):
        on_chip = accumulators_kib and dataflow == "ws"
        output = 16 if not accumulators_kib and dataflow == "ws" else 8
        if on_chip and mt * nt * 16 > level.accumulators.size_bits:
            return False
        return 2 * (8 * mt * kt + 12 * kt * nt + output * mt * nt) <= level.buffers[0].size_bits

    def key(tile):
        (a, w), *_ = tile.crossings(Problem(m, n, k, rate, widths), level)
        return a * m * k * 8 + w * k * n * 4, -tile.k, -tile.n, -tile.m, tile.outer

    grains = zip((m, n, k), (8, 4, 8 * rate), strict=True)
    tiles = [t for t in itertools.product(*(sizes(*x) for x in grains)) if fits(*t)]
    if dataflow == "os":
        tiles = [t for t in tiles if t[2] == k or (t[0] <= fold[0] and t[1] <= fold[1])]
    if not tiles:
        with pytest.raises(InputError, match="expected at most"):
            choose_tile(array, level, dataflow, Problem(m, n, k, rate, widths))
        return
    best = min((Tile(*t, outer) for t in tiles for outer in "mn"), key=key)
    assert choose_tile(array, level, dataflow, Problem(m, n, k, rate, widths)) == best


def test_a_memory_too_small_for_one_fold_is_named_with_tensors_and_bits():
    small = replace(NPU, memory=memory_of(level_of("sram", 1), sums_kib=4), source="tiny.yaml")
    with pytest.raises(InputError) as caught:
        price(small, Gemm(64, 64, 64), "low")
    assert str(caught.value) == (
        "tiny.yaml: memory.sram: one 16x16x64 fold of the 64x64x64 GEMM needs 36864 bit (a 8192 bit, w 8192 bit, "
        "outputs 2048 bit, times 2 buffers); expected at most the 8192 bit of the level; raise memory.sram.size "
        "or lower memory.sram.buffers"
    )


def test_partial_sums_too_wide_for_their_buffer_are_named():
    level = replace(memory_of(level_of("sram", 32)), accumulators=AccumulatorBuffer(1000))
    with pytest.raises(
        InputError, match=r"memory.accumulators: the partial sums of one 16x16x64 fold .* need 2048 bit"
    ):
        price(replace(NPU, memory=level), Gemm(64, 64, 64), "low")
