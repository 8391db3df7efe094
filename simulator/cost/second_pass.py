"""The second pass of the two-pass policy: flagged outputs again in the high mode, on the array or on a side engine.

`element` recomputes exactly the flagged outputs on a dot engine of L lanes, ceil(K/L) cycles each. `row`, `coltile` and
`tile` recompute every output of a row, of a row within a band of C columns, or of a tile of R x C, on the array.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from simulator.hardware import Machine, MacMode, Memory, Policy, SideEngine

from .flags import Blocks, Flags, IndependentFlags, MaskFlags
from .folds import array_words, as_streamed, ceil_div, fold_grid, folds_in_turn, register_bits, run_cycles, sums_in_pes
from .pipeline import Pass
from .traffic import ArrayBits, Traffic, Transfer, memory_bound


@dataclass(frozen=True)
class Work:
    """What the second pass does, over all GEMMs.

    Args:
        outputs, macs: recomputed, unflagged neighbours included. busy: cycles of the array or engine.
        switch: of these, those that fill and empty the array again.
        array: bits moved on chip, by tensor. transfer: bits moved on and off chip.
        register_bits: written. fold_adds: sums added to partial sums.
    """

    outputs: int
    macs: int
    busy: int
    switch: int
    array: ArrayBits
    transfer: Transfer
    register_bits: int
    fold_adds: int

    def traffic(self, memory: Memory | None) -> Traffic:
        """Return the bits by level; what comes from the DRAM passes through all staging levels."""
        return Traffic(self.array, () if memory is None else (self.transfer,) * (len(memory.staging) + 1))


def second_work(machine: Machine, shape: tuple[int, int, int, int], first: Pass, flags: Flags) -> Work:
    """Return the work of the second pass.

    Args:
        machine: with a policy and a high mode. shape: (gemms, M, N, K). first: the first pass of one GEMM.
        flags: which outputs.
    """
    policy, high = machine.policy, machine.mac.high
    assert policy is not None and high is not None
    if not flags.count():
        return Work(0, 0, 0, 0, ArrayBits(), Transfer(0, 0, 0), 0, 0)
    if policy.gather == "element":
        assert machine.side_engine is not None
        return _on_engine(machine, policy, high, machine.side_engine, shape, first, flags)
    return _on_array(machine, policy, high, shape, first, flags)


def _on_engine(
    machine: Machine,
    policy: Policy,
    high: MacMode,
    engine: SideEngine,
    shape: tuple[int, int, int, int],
    first: Pass,
    flags: Flags,
) -> Work:
    k = shape[3]
    count = flags.count()
    a_bits, w_bits = high.operand_bits
    # Sorted by row, a row of A is fetched once for each tile (or band of all columns) that holds a flag in it.
    bands = flags.bands(first.tile.n)
    a_rows = sum(times * rows for times, rows, _ in bands.pieces)
    runs = 1 if sums_in_pes(first.dataflow) else ceil_div(k, machine.array.rows * high.rate)
    return Work(
        outputs=count,
        macs=count * k,
        busy=count * ceil_div(k, engine.lanes) + engine_fill(machine, engine),
        switch=0,
        array=ArrayBits(math.ceil(a_rows * k * a_bits), math.ceil(count * k * w_bits), count * high.output_bits),
        transfer=_refetched(machine, policy, high, shape, first, Blocks([], flags.rows(), flags.columns()), count),
        register_bits=math.ceil(count * k * (a_bits + w_bits + high.accumulator_bits)),
        fold_adds=count * (runs - 1),
    )


def engine_fill(machine: Machine, engine: SideEngine) -> int:
    """Return the cycles from the last operands to the last result of the dot engine: its tree of adders."""
    return machine.array.latency_cycles * (engine.lanes - 1).bit_length()


def _on_array(
    machine: Machine,
    policy: Policy,
    high: MacMode,
    shape: tuple[int, int, int, int],
    first: Pass,
    flags: Flags,
) -> Work:
    _, _, n, k = shape
    array = machine.array
    blocks = {"row": lambda: flags.bands(n), "coltile": lambda: flags.bands(array.columns)}.get(
        policy.gather, lambda: _tiles(flags, machine, first.dataflow)
    )()
    a_bits, w_bits = high.operand_bits
    folds, bits, registers, fold_adds = [], ArrayBits(), 0, 0
    exchanged, flow = first.dataflow == "is", as_streamed(first.dataflow)
    for times, rows, columns in blocks.pieces:
        m, n = (columns, rows) if exchanged else (rows, columns)
        a, w = (w_bits, a_bits) if exchanged else (a_bits, w_bits)
        down, across, t = fold_grid(array, flow, m, n, k, high.rate)
        folds.append((folds_in_turn(array, flow, down, times * across), t * high.passes))
        words = array_words(array, flow, m, n, k, high.rate)
        psum_bits = words.psum_reads * high.partial_sum_bits
        operands = math.ceil(words.a_reads * a), math.ceil(words.w_reads * w)
        moved = ArrayBits(*operands, m * n * high.output_bits, psum_bits, psum_bits)
        bits = bits.plus(moved.exchanged() if exchanged else moved, times)
        if not sums_in_pes(flow):
            fold_adds += times * (down - 1) * m * n
        registers += times * register_bits(array, flow, m, n, k, high.rate, a, w, high.accumulator_bits)
    run = run_cycles(array, flow, folds)
    return Work(
        outputs=blocks.outputs,
        macs=blocks.outputs * k,
        busy=run.total,
        switch=run.load + run.fill + run.drain,
        array=bits,
        transfer=_refetched(machine, policy, high, shape, first, blocks, blocks.outputs),
        register_bits=registers,
        fold_adds=fold_adds,
    )


def _tiles(flags: Flags, machine: Machine, dataflow: str) -> Blocks:
    array = machine.array
    return flags.tiles(array.columns, array.rows) if dataflow == "is" else flags.tiles(array.rows, array.columns)


def _refetched(
    machine: Machine,
    policy: Policy,
    high: MacMode,
    shape: tuple[int, int, int, int],
    first: Pass,
    touched: Blocks,
    outputs: int,
) -> Transfer:
    """Operands that are no longer (or in their second format not yet) on chip, and changed outputs."""
    if machine.memory is None:
        return Transfer(0, 0, 0)
    gemms, m, n, k = shape
    a_bits, w_bits = high.operand_bits
    low = machine.mac.low
    second_format = policy.weights == "both" and high.operand_formats != low.operand_formats
    tiles = first.tile.counts(m, n, k)
    if policy.overlap == "tile":
        on_chip = tiles[2] == 1
        stores = outputs * max(high.output_bits - low.output_bits, 0)
    else:
        on_chip = tiles == (1, 1, 1) and gemms == 1
        stores = outputs * high.output_bits
    if on_chip and not second_format:
        return Transfer(0, 0, stores)
    a_moved = first.a_passes * math.ceil(touched.rows * k * a_bits)
    w_moved = first.w_passes * math.ceil(touched.columns * k * w_bits)
    return Transfer(a_moved, w_moved, stores)


def total_cycles(machine: Machine, gemms: int, first: Pass, work: Work, flags: Flags, k: int) -> int:
    """Return the cycles of both passes over all GEMMs.

    Without overlap they add. With overlap `tile` an in-order queue without limit feeds the engine tile by tile:
    T = max_i (sum_{j<=i} low_j + sum_{j>=i} high_j), and the last store follows. In both cases no memory port moves
    more bits than it can.
    """
    policy, engine = machine.policy, machine.side_engine
    assert policy is not None
    low = gemms * first.cycles
    if not work.outputs:
        return low
    memory = machine.memory
    if policy.overlap == "none":
        return low + max(work.busy, memory_bound(memory, work.traffic(memory)))
    assert engine is not None
    per_output = ceil_div(k, engine.lanes)
    if isinstance(flags, MaskFlags):
        served = _measured_queue(first, flags, per_output)
    else:
        assert isinstance(flags, IndependentFlags)
        served = _expected_queue(first, flags, per_output)
    return max(
        low,
        served + engine_fill(machine, engine) + first.last_store,
        memory_bound(memory, both_passes(memory, gemms, first, work)),
    )


def both_passes(memory: Memory | None, gemms: int, first: Pass, work: Work | None) -> Traffic:
    """Return the bits that so many first passes and the second one move together."""
    of_first = first.traffic
    array = ArrayBits().plus(of_first.array, gemms)
    transfers = tuple(Transfer(*(gemms * bits for bits in transfer)) for transfer in of_first.transfers)
    if work is None:
        return Traffic(array, transfers)
    more = work.traffic(memory)
    both = zip(transfers, more.transfers, strict=True)
    return Traffic(
        array.plus(more.array), tuple(Transfer(*map(sum, zip(one, other, strict=True))) for one, other in both)
    )


def _measured_queue(first: Pass, flags: MaskFlags, per_output: int) -> int:
    """Return the cycle at which the engine has taken the last flag of a mask, `per_output` cycles each."""
    finish, waiting = first.finish().reshape(-1), flags.count() * per_output
    latest = gemm = 0
    for per_tile in flags.per_tile(first.tile.m, first.tile.n):
        if first.tile.outer == "n":
            per_tile = per_tile.swapaxes(1, 2)
        high = per_tile.reshape(-1) * per_output
        done = ((np.arange(len(per_tile)) + gemm)[:, None] * first.cycles + finish).reshape(-1)
        left = waiting - (np.cumsum(high) - high)  # by this tile and those behind it
        latest = max(latest, int((done + left)[left > 0].max(initial=0)))
        waiting -= int(high.sum())
        gemm += len(per_tile)
    return latest


def _expected_queue(first: Pass, flags: IndependentFlags, per_output: int) -> int:
    """Return the same for independent flags, from the classes of tiles.

    Over the tiles of a class, over its rows of tiles and over the GEMMs, what is done and what waits change linearly:
    the maximum is at a first or last one.
    """
    outer, inner = first.step_counts
    per_tile = flags.expected_per_tile(first.tile.m, first.tile.n, first.tile.outer)
    gemm_high = flags.fraction * flags.m * flags.n * per_output
    latest, row_done, row_high = 0.0, first.start, 0.0  # when a class of rows begins, and what came before it
    for x, rows in enumerate(outer):
        steps = first.steps[x]
        high = [per_tile(x == len(outer) - 1, y == len(inner) - 1) * per_output for y in range(len(inner))]
        row_steps = sum(times * step for times, step in zip(inner, steps, strict=True))
        row_flags = sum(times * one for times, one in zip(inner, high, strict=True))
        done, before = row_done, row_high
        for times, step, one in zip(inner, steps, high, strict=True):
            for gemm, row, tile in itertools.product({0, flags.gemms - 1}, {0, rows - 1}, {0, times - 1}):
                at = gemm * first.cycles + row * row_steps + done + (tile + 1) * step
                waiting = (flags.gemms - gemm) * gemm_high - (row * row_flags + before + tile * one)
                latest = max(latest, at + waiting)
            done, before = done + times * step, before + times * one
        row_done, row_high = row_done + rows * row_steps, row_high + rows * row_flags
    return math.ceil(latest - 1e-9)


def combined_roofline(machine: Machine, gemms: int, first: Pass, work: Work) -> int:
    """Return a lower bound of the cycles of both passes."""
    policy, array, high, engine = machine.policy, machine.array, machine.mac.high, machine.side_engine
    assert policy is not None and high is not None
    lanes = array.pes * high.rate if engine is None else engine.lanes
    compute, memory = ceil_div(work.macs * (high.passes if engine is None else 1), lanes), machine.memory
    if policy.overlap == "none":
        return gemms * first.roofline + max(compute, memory_bound(memory, work.traffic(memory)))
    return max(gemms * first.roofline, compute, memory_bound(memory, both_passes(memory, gemms, first, work)))
