"""Memories of several levels, several arrays, dot-product units, composed products: against walks written out."""
# ruff: noqa: E501 - messages are asserted whole, one a line

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator.cost import Gemm, area, price
from simulator.cost.one_pass import tiled_pass, uniform_pass
from simulator.cost.pipeline import pipeline_cycles
from simulator.cost.problem import Problem, Widths
from simulator.cost.tile_choice import choose_tile
from simulator.cost.tile_costs import TileCosts
from simulator.cost.tiling import Tile, fits, widest_tiles
from simulator.cost.traffic import level_bits
from simulator.errors import InputError
from simulator.hardware import Array, Dram, Memory, load_hardware
from tests.oracles.machines import NPU, level_of, memories, memory_of

WIDTHS = Widths(8, 12, 16, 16, 8, 8, 12)
DIMENSION = st.integers(1, 90)


# --- levels -----------------------------------------------------------------------------------------------------------


def walked(tile: Tile, m: int, n: int, k: int, keeps_strip: bool, keeps_whole: bool) -> tuple[int, int]:
    """Return the bits of A and W that come, tile by tile, where a level may keep what came before.

    Args:
        keeps_strip: the parts of the outer operand, for a row of tiles. keeps_whole: those of the inner one.
    """
    counts = [math.ceil(size / part) for size, part in ((m, tile.m), (n, tile.n), (k, tile.k))]
    outer, inner = (0, 1) if tile.outer == "m" else (1, 0)
    seen: set[tuple[int, int, int]] = set()
    held: dict[int, object] = {0: None, 1: None}  # the tile of each operand that is there in any case
    bits = [0, 0]
    for x in range(counts[outer]):
        for y in range(counts[inner]):
            for z in range(counts[2]):
                i, j = (x, y) if outer == 0 else (y, x)
                for operand, block in ((0, (0, i, z)), (1, (1, j, z))):
                    if held[operand] == block:
                        continue
                    held[operand] = block
                    if block in seen and (keeps_strip if operand == outer else keeps_whole):
                        continue
                    seen.add(block)
                    rows = min(tile.m, m - i * tile.m) if operand == 0 else min(tile.n, n - j * tile.n)
                    bits[operand] += rows * min(tile.k, k - z * tile.k) * (8 if operand == 0 else 12)
    return bits[0], bits[1]


def read_again(tile: Tile, m: int, n: int, k: int) -> tuple[int, int]:
    """Return the bits of the strip of the outer operand and of all of the inner one, 0 for what is read but once."""
    along_m, along_n, along_k = math.ceil(m / tile.m), math.ceil(n / tile.n), math.ceil(k / tile.k)
    outer, inner = (along_m, along_n) if tile.outer == "m" else (along_n, along_m)
    strip = k * (tile.m * 8 if tile.outer == "m" else tile.n * 12)
    whole = k * (n * 12 if tile.outer == "m" else m * 8)
    return strip * (along_k > 1 and inner > 1), whole * (outer > 1 and (inner > 1 or along_k > 1))


TILES = st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.sampled_from("mn")
KIB = st.sampled_from([0.1, 0.5, 2, 8, 64])


@settings(max_examples=200, deadline=None)
@given(DIMENSION, DIMENSION, DIMENSION, *TILES, KIB)
def test_a_staging_level_keeps_what_fits_of_what_is_read_again(m, n, k, mt, nt, kt, outer, kib):
    array = Array(8, 8)
    tile = Tile(min(8 * mt, m), min(8 * nt, n), min(8 * kt, k), outer)
    problem = Problem(m, n, k, 1, WIDTHS)
    l2 = level_of("l2", kib)
    found = tiled_pass(array, memory_of(level_of("sram", 64), staging=(l2,), sums_kib=16), "ws", problem, tile)
    plain = tiled_pass(array, memory_of(level_of("sram", 64), sums_kib=16), "ws", problem, tile)
    outside, inside = found.traffic.transfers
    strip, whole = read_again(tile, m, n, k)
    keeps_strip = 0 < strip <= l2.size_bits // 2
    keeps_whole = 0 < whole <= l2.size_bits // 2 - (strip if keeps_strip else 0)
    assert (outside.a, outside.w) == walked(tile, m, n, k, keeps_strip, keeps_whole)
    assert (inside,) == plain.traffic.transfers
    assert outside.a <= inside.a
    assert outside.w <= inside.w
    bits = level_bits(memory_of(level_of("sram", 64), staging=(l2,), sums_kib=16), found.traffic)
    assert bits["l2"] == (inside.a + inside.w + outside.o, outside.a + outside.w + inside.o)
    assert found.cycles >= found.roofline


@settings(max_examples=200, deadline=None)
@given(DIMENSION, DIMENSION, DIMENSION, *TILES, KIB, KIB, st.booleans())
def test_a_buffer_of_one_operand_keeps_what_fits_of_what_is_read_again(
    m, n, k, mt, nt, kt, outer, a_kib, w_kib, outputs_beside_a
):
    tile, problem = Tile(min(8 * mt, m), min(8 * nt, n), min(8 * kt, k), outer), Problem(m, n, k, 1, WIDTHS)
    x, y = (("a", "o"), ("w",)) if outputs_beside_a else (("a",), ("w", "o"))
    split = memory_of(level_of("x", a_kib, x), level_of("y", w_kib, y), sums_kib=16)
    found = tiled_pass(Array(8, 8), split, "ws", problem, tile)
    sums = tile.m * tile.n * 16
    free = [split.buffers[0].size_bits // 2 - sums * outputs_beside_a]
    free.append(split.buffers[1].size_bits // 2 - sums * (not outputs_beside_a))
    strip, whole = read_again(tile, m, n, k)
    of_outer, of_inner = free if outer == "m" else free[::-1]
    bits = walked(tile, m, n, k, 0 < strip <= of_outer, 0 < whole <= of_inner)
    assert (found.traffic.transfers[0].a, found.traffic.transfers[0].w) == bits
    assert found.cycles >= found.roofline


@settings(max_examples=60, deadline=None)
@given(DIMENSION, DIMENSION, DIMENSION, st.sampled_from(["ws", "is"]))
def test_wide_staging_changes_no_cycles_where_nothing_is_read_again(m, n, k, flow):
    problem = Problem(m, n, k, 1, WIDTHS)
    wide = level_of("l2", 1024, ports=1 << 20)
    whole = Tile(m, n, k, "m")
    for staging in ((), (wide,), (level_of("l3", 4096, ports=1 << 20), wide)):
        found = tiled_pass(
            Array(8, 8), memory_of(level_of("sram", 1024), staging=staging, sums_kib=16), flow, problem, whole
        )
        assert found.traffic.dram == 8 * m * k + 12 * n * k + 8 * m * n
        assert (
            found.cycles
            == tiled_pass(Array(8, 8), memory_of(level_of("sram", 1024), sums_kib=16), flow, problem, whole).cycles
        )


@settings(max_examples=80, deadline=None)
@given(DIMENSION, DIMENSION, DIMENSION, st.sampled_from(["ws", "is", "os"]))
def test_buffers_of_single_tensors_have_ports_and_bits_of_their_own(m, n, k, flow):
    sums_kib = 0 if flow == "os" else 64
    one = memory_of(level_of("sram", 192, ports=1 << 20), sums_kib=sums_kib)
    split = memory_of(
        level_of("x", 64, ("a",), 1 << 20), level_of("y", 64, ("w",), 1 << 20), level_of("z", 64, ("o",), 1 << 20),
        sums_kib=sums_kib,
    )  # fmt: skip
    problem = Problem(m, n, k, 1, WIDTHS)
    found, plain = (uniform_pass(Array(8, 8), where, flow, problem) for where in (split, one))
    assert (found.cycles, found.traffic) == (plain.cycles, plain.traffic)
    bits = level_bits(split, found.traffic)
    moved = found.traffic.array
    assert bits["x"] == (moved.a_reads, 8 * m * k)
    assert bits["y"] == (moved.w_reads, 12 * n * k)
    assert bits["z"] == (8 * m * n, moved.o_writes)
    # A port of one bit a cycle for the weights alone is what all wait for.
    slow = replace(
        split, buffers=(split.buffers[0], replace(split.buffers[1], read_bits_per_cycle=Fraction(1)), split.buffers[2])
    )
    assert uniform_pass(Array(8, 8), slow, flow, problem).roofline >= moved.w_reads


def test_an_image_comes_from_outside_as_it_lies():
    shape = (4 * 30 * 30, 16, 9 * 8)  # four images of 32 x 32 and 8 channels, under 16 filters of 3 x 3
    unfolded, image = Gemm(*shape), Gemm(*shape, a_words=4 * 32 * 32 * 8)
    whole, lying = (price(NPU, gemm, "low") for gemm in (unfolded, image))
    assert whole.traffic_bits["dram"] - lying.traffic_bits["dram"] == 8 * (shape[0] * shape[2] - 4 * 32 * 32 * 8)
    assert whole.traffic_bits["accumulators_reads"] == lying.traffic_bits["accumulators_reads"]
    # What the array reads is unfolded all the same; the SRAM is filled with so much less.
    assert whole.traffic_bits["sram_reads"] == lying.traffic_bits["sram_reads"]
    assert whole.traffic_bits["sram_writes"] - lying.traffic_bits["sram_writes"] == 8 * (shape[0] * shape[2] - 32768)
    for words in (0, shape[0] * shape[2] + 1, 2.5):
        with pytest.raises(
            InputError, match=r"gemm: a_words: got .*; expected a whole number from 1 to gemms \* M \* K"
        ):
            Gemm(*shape, a_words=words)


def test_the_level_that_is_too_small_is_named():
    split = memory_of(level_of("x", 64, ("a", "o")), level_of("y", 0.01, ("w",)), sums_kib=16)
    with pytest.raises(InputError, match=r"memory.y: one 8x8x8 fold .* needs 1536 bit \(w 768 bit, times 2 buffers\)"):
        uniform_pass(Array(8, 8), split, "ws", Problem(64, 64, 64, 1, WIDTHS))


LEVELS = """
array: {rows: 16, columns: 16}
mac: {low: "int8 -> fixed(32, 0, wrap)"}
memory:
  dram: {bandwidth: "64 bit/cycle"}
"""
PORTS = 'size: "64 KiB", read: "128 bit/cycle", write: "128 bit/cycle"'


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (f"  x: {{{PORTS}}}", "5:6: memory.x.holds: missing; expected which of a, w and o it holds, or psum; add e.g. 'holds: [a, w, o]'"),
        (f"  x: {{{PORTS}, holds: [a, o]}}", "4:3: memory: got no on-chip level that holds w; expected one for each of a, w and o; add e.g. 'sram: {size: 256 KiB, read: ..., write: ...}'"),
        (f"  sram: {{{PORTS}}}\n  x: {{{PORTS}, holds: [a]}}", "5:9: memory.sram.holds: got a, w, o, of which memory.x holds a further in, and none the others; expected a level further in for all of them or for none; change one of the two"),
        (f"  l2: {{{PORTS}, holds: [a]}}\n  sram: {{{PORTS}}}", "5:78: memory.l2.holds: got a in a level that others lie within; expected a, w and o; write [a, w, o]"),
        (f"  sram: {{{PORTS}, holds: [psum, a]}}", "5:80: memory.sram.holds: got psum, a; expected psum in a level of its own, or in none (then they live where o does); write [psum]"),
        (f"  sram: {{{PORTS}}}\n  accumulators: {{size: \"1 KiB\", banks: 4}}", "6:40: memory.accumulators.banks: got a key of operands and outputs in a level of partial sums, which is as wide as the array; expected size and energies; remove it"),
        (f"  sram: {{{PORTS}}}\n  accumulators: {{size: \"1 KiB\", ports: 2}}", "6:40: memory.accumulators.ports: got a key of operands and outputs in a level of partial sums, which is as wide as the array; expected size and energies; remove it"),
        ('  sram: {size: "64 KiB"}', "5:9: memory.sram.read: missing; expected bandwidth to the array; add e.g. 'read: 1024 bit/cycle'"),
        ('  "a b": {size: "64 KiB", read: "128 bit/cycle", write: "128 bit/cycle", holds: [a, w, o]}', "5:10: memory.a b: got a level named 'a b'; expected a name of letters, digits and _; write e.g. l2"),
        (f"  l2: {{size: 8 bit, read: 128 bit/cycle, write: 64 bit/cycle, holds: [a, w, o]}}\n  sram: {{{PORTS}}}", "5:14: memory.l2.size: got 8 bit for a level whose ports move 256 bit a cycle and 2 buffers; expected at least these; raise memory.l2.size, or remove the level"),
        (f"  sram: {{{PORTS}, hold: [a]}}", "5:73: memory.sram.hold: unknown key; did you mean \"holds\"?"),
    ],
)  # fmt: skip
def test_levels_that_do_not_fit_together_are_named(lines, message, tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text(LEVELS.lstrip() + lines + "\n")
    with pytest.raises(InputError) as caught:
        load_hardware(path)
    assert str(caught.value).split("\n")[0] == f"{path}:{message}"


# --- several arrays, dot-product units, composed products ------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(DIMENSION, DIMENSION, DIMENSION, st.integers(1, 5), st.sampled_from(["ws", "is", "os", "dot"]))
def test_copies_share_the_folds(m, n, k, copies, flow):
    one, many = Array(8, 8, flow), Array(8, 8, flow, copies=copies)
    problem = Problem(m, n, k, 1, WIDTHS)
    single, shared = (uniform_pass(array, None, flow, problem) for array in (one, many))
    m, n = (n, m) if flow == "is" else (m, n)
    if flow in ("os", "dot"):
        folds, streamed = math.ceil(math.ceil(m / 8) * math.ceil(n / 8) / copies), k
    else:  # the sums of a column stay with one array
        folds, streamed = math.ceil(k / 8) * math.ceil(math.ceil(n / 8) / copies), m
    assert shared.run.compute == folds * streamed
    assert shared.traffic == single.traffic
    assert shared.cycles <= single.cycles
    assert shared.roofline >= math.ceil(m * n * k / (64 * copies))


def test_dot_product_units_have_no_skew_and_show_their_latency_once():
    found = uniform_pass(Array(4, 4, "dot", latency_cycles=6, copies=2), None, "dot", Problem(16, 16, 64, 4, WIDTHS))
    assert found.run == (8 * 16, 0, 5, 0)  # 16 folds on 2 arrays, 64/4 steps each
    assert found.fold_adds == 0
    assert found.traffic.array == (4 * 16 * 64 * 8, 4 * 64 * 16 * 12, 16 * 16 * 8, 0, 0)


@settings(max_examples=100, deadline=None)
@given(DIMENSION, DIMENSION, DIMENSION, st.integers(2, 6), st.sampled_from([2, 4, 8]), st.sampled_from([4, 64, 1024]))
def test_the_tile_of_several_arrays_is_not_slower_than_that_of_least_traffic(m, n, k, copies, kib, bandwidth):
    where = replace(memory_of(level_of("sram", kib), sums_kib=16), dram=Dram(Fraction(bandwidth), 0, None))
    problem = Problem(m, n, k, 1, WIDTHS)
    arrays = Array(8, 8, copies=copies)

    least_traffic = choose_tile(Array(8, 8), where, "ws", problem)
    chosen = uniform_pass(arrays, where, "ws", problem)
    assert chosen.cycles <= tiled_pass(arrays, where, "ws", problem, least_traffic).cycles


@settings(max_examples=200, deadline=None)
@given(memories("ws", staging=False), DIMENSION, DIMENSION, DIMENSION, st.sampled_from(["ws", "os", "dot"]))
def test_the_tile_of_one_array_has_the_least_bits_of_those_that_are_left_out_too(where, m, n, k, dataflow):
    array, problem = Array(4, 4), Problem(m, n, k, 1, WIDTHS)
    tiles = list(widest_tiles(array, where, dataflow, problem, {k, min(k, 4)}))
    assume(tiles)
    ranks = [(*tile.crossing_bits(problem, where), -tile.k, -tile.n, -tile.m) for tile in tiles]
    assert choose_tile(array, where, dataflow, problem) == tiles[ranks.index(min(ranks))]


def shared(bandwidth: int, kib: float, l2_kib: float, sums_kib: float = 0) -> Memory:
    """A buffer with fast ports behind a DRAM, and a level between them with a port twice as fast as that."""
    between = (level_of("l2", l2_kib, ports=2 * bandwidth),) if l2_kib else ()
    buffer = level_of("sram", kib, ports=8192)
    return memory_of(buffer, staging=between, sums_kib=sums_kib, bandwidth=bandwidth, latency=20)


# Small versions of machines: array, memory, MACs that a PE takes together.
SHARED = {
    "tensor cores": (Array(4, 4, "dot", copies=12), shared(96, 24, 24, 12), 4),
    "tensor cores that keep their sums": (Array(4, 4, "dot", copies=12), shared(96, 12, 0), 4),
    "matrix units and a staging level": (Array(8, 8, copies=4), shared(96, 16, 96), 1),
    "matrix units": (Array(8, 8, copies=3), shared(64, 16, 0, 8), 1),
    "one array and a staging level": (Array(8, 8), shared(16, 8, 48, 4), 1),
    "output-stationary arrays": (Array(8, 8, "os", copies=4), shared(64, 16, 64), 1),
}
PRODUCTS = [(28, 120, 96), (200, 40, 160), (64, 64, 600), (1, 250, 250), (160, 16, 16), (97, 103, 71)]


@pytest.mark.parametrize("machine", SHARED)
def test_the_tile_of_shared_memory_is_next_to_the_fastest_of_all_and_none_is_better_in_both(machine):
    array, where, rate = SHARED[machine]

    def sizes(length: int, grain: int) -> set[int]:  # the balanced ones
        units = math.ceil(length / grain)
        return {min(math.ceil(units / parts) * grain, length) for parts in range(1, units + 1)}

    total = least = 0
    for m, n, k in PRODUCTS:
        problem = Problem(m, n, k * rate, rate, Widths(8, 8, 32, 32, 16, 8, 8))

        def measured(tile: Tile, problem: Problem = problem) -> tuple[int, int]:
            tiles = TileCosts(array, where, array.dataflow, problem, tile)
            return pipeline_cycles(tiles), tile.crossing_bits(problem, where)[0]

        grains = zip((m, n, k * rate), (array.rows, array.columns, array.rows * rate), strict=True)
        every = (Tile(*size, o) for size in itertools.product(*(sizes(*x) for x in grains)) for o in "mn")
        found = [measured(tile) for tile in every if fits(array, where, array.dataflow, problem, tile)]
        cycles, bits = measured(choose_tile(array, where, array.dataflow, problem))
        assert not [one for one in found if one[0] < cycles and one[1] < bits]
        total, least = total + cycles, least + min(found)[0]
    assert total <= 1.02 * least


def test_many_small_arrays_all_get_folds():
    # The least DRAM bits, 8x4 outputs with all of K, are 2 folds for 16 arrays.
    arrays, where = Array(4, 4, "dot", copies=16), memory_of(level_of("sram", 8), sums_kib=0)
    found = uniform_pass(arrays, where, "dot", Problem(256, 256, 256, 4, WIDTHS))
    assert found.run.compute == 64 * 64 // 16 * 256 // 4


def test_folds_whose_sums_stay_in_many_arrays_are_of_several_rows_and_columns():
    arrays, where = Array(4, 4, "dot", copies=10), memory_of(level_of("sram", 4), sums_kib=0)
    tile = uniform_pass(arrays, where, "dot", Problem(80, 80, 4096, 4, WIDTHS)).tile
    assert (tile.m, tile.n) == (20, 8)  # 5 x 2 arrays share more operands than 1 x 10


@settings(max_examples=60, deadline=None)
@given(DIMENSION, DIMENSION, DIMENSION, st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))
def test_dot_product_units_put_sums_away_between_tiles_along_k(m, n, k, mt, nt, kt):
    tile = Tile(min(4 * mt, m), min(4 * nt, n), min(16 * kt, k), "m")
    problem, array = Problem(m, n, k, 4, WIDTHS), Array(4, 4, "dot", copies=3)
    kept, away = (memory_of(level_of("sram", 64), sums_kib=sums_kib) for sums_kib in (0, 16))
    found, plain = (tiled_pass(array, where, "dot", problem, tile) for where in (away, kept))
    again = (math.ceil(k / tile.k) - 1) * m * n * WIDTHS.psum
    assert found.traffic.array == plain.traffic.array._replace(psum_reads=again, psum_writes=again)
    assert (found.cycles, found.traffic.transfers) == (plain.cycles, plain.traffic.transfers)


def test_a_level_of_sums_lets_units_take_more_of_them_than_they_keep():
    # With K in parts, 2 units of 16 sums allow tiles of 32 outputs; a level of 1024 sums of 16 bits, of as many.
    problem, array = Problem(64, 64, 4096, 4, WIDTHS), Array(4, 4, "dot", copies=2)
    few, many = (uniform_pass(array, memory_of(level_of("sram", 2), sums_kib=kib), "dot", problem) for kib in (0, 2))
    assert few.tile.m * few.tile.n <= 32 or few.tile.k == 4096
    assert few.tile.m * few.tile.n < many.tile.m * many.tile.n <= 1024
    assert many.traffic.dram < few.traffic.dram


MACHINE = """
array: {rows: 4, columns: 4, dataflow: FLOW}
mac:
  low: {accumulator: "fma(fp16)", operands: fp8_e4m3, rate: "2 MAC/cycle"}
  high: {accumulator: "fma(fp32)", operands: fp16}
  datapath: composed
policy: {kind: uniform}
"""


@pytest.mark.parametrize(("flow", "compute"), [("ws", 2 * 2 * 10 * 9), ("os", 3 * 2 * 8 * 9)])
def test_a_composed_product_takes_as_many_passes_as_it_has_slices(flow, compute, tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text(MACHINE.replace("FLOW", flow))
    machine = load_hardware(path)
    assert (machine.mac.high.passes, machine.mac.high.rate) == (9, 2)  # 11 bits of significand from slices of 4
    cost = price(machine, Gemm(10, 8, 16), "high")
    assert cost.cycle_parts["compute"] == compute
    assert cost.roofline_cycles == math.ceil(10 * 8 * 16 * 9 / (16 * 2))


def test_the_bits_follow_the_interleaving_of_the_array(tmp_path):
    path = tmp_path / "m.yaml"
    text = 'array: {rows: 4, columns: 4, dataflow: os, latency: "4 cycles", interleave: 4}\nmac: {low: ACCUMULATOR}\n'
    path.write_text(text.replace("ACCUMULATOR", "fma(fp16)"))
    machine = load_hardware(path)
    assert str(machine.mac.low.spec) == "interleave(4, fma(fp16), seq(fp16))"
    # K = 64 products in turns of 4, then 4 * log2(4) cycles to join the sums.
    cost = price(machine, Gemm(4, 4, 64), "low")
    assert cost.cycle_parts["compute"] == 15 * 4 + 3 + 4 + 8
    (joined,) = (item for item in cost.energy_items if item.what.startswith("partial sums"))
    assert joined.count == 3 * 16
    # Of an fp16 sum one register a turn, and one for the drain, beside two fp32 operands.
    (registers,) = (item for item in area(machine).items if item.what == "mac.low: registers of a PE")
    one = machine.technology.table.register_um2_per_bit.value
    assert registers.each_um2 == pytest.approx(one * (2 * 32 + (4 + 1) * 16))
    path.write_text(text.replace("ACCUMULATOR", '"interleave(2, fma(fp16), seq(fp16))"'))
    with pytest.raises(InputError, match=r"mac.low.*got 2 lanes; expected 4 = array.interleave"):
        load_hardware(path)
    path.write_text(text.replace("ACCUMULATOR", '{accumulator: "fma(fp16)", rate: "2 MAC/cycle"}'))
    with pytest.raises(InputError, match=r"mac.low.accumulator: got a rate of 2 with array.interleave"):
        load_hardware(path)
