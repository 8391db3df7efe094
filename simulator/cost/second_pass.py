"""The second pass of the two-pass policy: flagged outputs again in the high mode, on the array or on a side engine.

Of a ladder each further pass is priced as a second one in its own mode, on the array, after the one before.

What is recomputed for a flag: `element` that output alone; `row` its row; `coltile` its row within a band of as many
columns as the array or engine has; `tile` a block of its rows and columns. With overlap `tile` the engine follows the
first pass tile by tile, and groups are formed within its tiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from simulator.hardware import Machine, MacMode, Memory

from .flags import Blocks, Flags, IndependentFlags, MaskFlags
from .folds import ceil_div
from .one_pass import Pass
from .queue import expected_queue, measured_queue
from .recomputing import group_size, group_tiles, recomputing_unit
from .scoring import low_cycles, low_passes, low_traffic
from .traffic import ArrayBits, Traffic, Transfer, memory_bound


@dataclass(frozen=True)
class Work:
    """What the second pass does, over all GEMMs.

    Args:
        mode: of the pass. busy: cycles of the array or engine.
        outputs, macs: recomputed, unflagged neighbours included.
        switch: of these, those that fill the array for the second pass and empty it again.
        steps: sum over the groups of the cycles of each beside others, as an engine takes them.
        array: bits moved on chip, by tensor. transfer: bits moved on and off chip.
        register_bits: written. fold_adds: sums added to each other.
    """

    mode: MacMode
    outputs: int
    macs: int
    busy: int
    switch: int
    steps: int
    array: ArrayBits
    transfer: Transfer
    register_bits: int
    fold_adds: int

    def traffic(self, memory: Memory | None) -> Traffic:
        """Return the bits by level; what comes from the DRAM passes through all staging levels."""
        return Traffic(self.array, () if memory is None else (self.transfer,) * (len(memory.staging) + 1))


def pass_name(number: int) -> str:
    """Return what a pass is called in a bill, the first of which has the number 1."""
    return {1: "the first", 2: "the second pass"}.get(number, f"pass {number}")


def _blocks(machine: Machine, first: Pass, flags: Flags) -> Blocks:
    """Return the groups that hold a flag: rows of one band together."""
    policy, n = machine.policy, flags.shape[2]
    assert policy is not None
    if policy.gather == "element":
        return Blocks([(flags.count(), 1, 1)], flags.rows(), flags.columns())
    (rows, columns), within = group_size(machine, first, n), group_tiles(machine, first)
    return flags.tiles(rows, columns, within) if policy.gather == "tile" else flags.bands(columns, within)


def second_work(
    machine: Machine, shape: tuple[int, int, int, int], first: Pass, flags: Flags, mode: MacMode | None = None
) -> Work:
    """Return the work of the second pass, or of another one after the first.

    Args:
        machine: with a policy and a high mode. shape: (gemms, M, N, K). first: the first pass of one GEMM.
        flags: which outputs. mode: of the pass; None for the high one.
    """
    mode = mode or machine.mac.high
    policy, k = machine.policy, shape[3]
    assert policy is not None and mode is not None
    if not flags.count():
        return Work(mode, 0, 0, 0, 0, 0, ArrayBits(), Transfer(0, 0, 0), 0, 0)
    unit, blocks = recomputing_unit(machine, first, k, mode), _blocks(machine, first, flags)
    busy, moved, registers, fold_adds = unit.busy(blocks), ArrayBits(), 0, 0
    for count, rows, columns in blocks.pieces:
        group = unit.group(rows, columns)
        moved = moved.plus(group.moved, count)
        registers += count * group.register_bits
        fold_adds += count * group.fold_adds
    if policy.gather == "element":
        # Sorted by row, a row of A is fetched once for each tile (or band of all columns) that holds a flag in it.
        rows = sum(count * rows for count, rows, _ in flags.bands(first.tile.n).pieces)
        moved = moved._replace(a_reads=moved.a_reads // flags.count() * rows)
    return Work(
        mode=mode,
        outputs=blocks.outputs,
        macs=blocks.outputs * k,
        busy=busy,
        switch=unit.switch,
        steps=sum(count * unit.cycles(rows, columns) for count, rows, columns in blocks.pieces),
        array=moved,
        transfer=_refetched(machine, shape, first, blocks, mode),
        register_bits=registers,
        fold_adds=fold_adds,
    )


def _refetched(
    machine: Machine, shape: tuple[int, int, int, int], first: Pass, touched: Blocks, high: MacMode
) -> Transfer:
    """Operands that are no longer (or in their second format not yet) on chip, and changed outputs."""
    policy, low = machine.policy, machine.mac.low
    assert policy is not None
    if machine.memory is None:
        return Transfer(0, 0, 0)
    gemms, m, n, k = shape
    tiles = first.tile.counts(m, n, k)
    if policy.overlap == "tile":
        on_chip = tiles[2] == 1
        stores = touched.outputs * max(high.output_bits - low.output_bits, 0)
    else:
        on_chip = tiles == (1, 1, 1) and gemms == 1
        stores = touched.outputs * high.output_bits
    a_bits, w_bits = high.operand_bits
    second_format = high.operand_formats != low.operand_formats
    if on_chip and second_format and policy.weights == "sliced":  # the narrow part is there
        a_bits, w_bits = a_bits - low.operand_bits[0], w_bits - low.operand_bits[1]
    elif on_chip and (not second_format or policy.weights == "high_only"):
        a_bits = w_bits = 0
    return Transfer(
        first.a_passes * math.ceil(touched.rows * k * a_bits * first.a_share),
        first.w_passes * math.ceil(touched.columns * k * w_bits),
        stores,
    )


def total_cycles(machine: Machine, gemms: int, first: Pass, work: Work, flags: Flags, k: int) -> int:
    """Return the cycles of both passes over all GEMMs.

    Without overlap they add. With overlap `tile` an in-order queue, without limit in this analytic count, feeds the
    engine tile by tile:
    T = max_i (sum_{j<=i} low_j + sum_{j>=i} high_j), and the last store follows; the first load of an array, and the
    way of the last result through the engine, count once. In both cases no memory port moves more bits than it can.
    """
    policy = machine.policy
    assert policy is not None
    _, m, n = flags.shape
    period = low_cycles(machine, first, m * n)
    low = gemms * period
    if not work.outputs or policy.overlap == "none":
        return low + alone(machine, work)
    if isinstance(flags, MaskFlags):
        served = measured_queue(machine, first, flags, k, period, work.steps)
    else:
        assert isinstance(flags, IndependentFlags)
        served = expected_queue(machine, first, flags, k, period)
    return beside_low(machine, flags.shape, first, work, low, served + first.last_store)


def alone(machine: Machine, work: Work) -> int:
    """Return the cycles of a second pass that follows the low ones, or of another that follows the one before."""
    return max(work.busy, memory_bound(machine.memory, work.traffic(machine.memory)))


def beside_low(machine: Machine, shape: tuple[int, int, int], first: Pass, work: Work, low: int, served: int) -> int:
    """Return the cycles of a second pass on an engine that follows the low passes tile by tile.

    Args:
        shape: (gemms, M, N). low: cycles of the low passes. served: the cycle at which the engine has begun all that
            it takes, with those of the last store.
    """
    gemms, m, n = shape
    moved = _all_traffic(machine, gemms, first, work, m * n)
    return max(low, served + work.busy - work.steps, memory_bound(machine.memory, moved))


def _all_traffic(machine: Machine, gemms: int, first: Pass, work: Work, outputs: int) -> Traffic:
    return work.traffic(machine.memory).plus(low_traffic(machine, first, outputs), gemms)


def beyond_rooflines(machine: Machine, gemms: int, first: Pass, works: Sequence[Work], outputs: int) -> tuple[int, ...]:
    """Return by how many cycles each pass after the low ones raises their lower bound.

    Args:
        gemms, outputs: so many GEMMs of so many outputs. works: of these passes.
    """
    policy, engine, memory = machine.policy, machine.recomputing_engine, machine.memory
    assert policy is not None
    found = []
    for work in works:
        lanes = machine.array.pes * work.mode.rate if engine is None else engine.lanes
        compute = ceil_div(work.macs * (work.mode.passes if engine is None else 1), lanes)
        if policy.overlap == "none":
            found.append(max(compute, memory_bound(memory, work.traffic(memory))))
            continue
        low = gemms * low_passes(machine) * first.roofline
        moved = memory_bound(memory, _all_traffic(machine, gemms, first, work, outputs))
        found.append(max(low, compute, moved) - low)
    return tuple(found)
