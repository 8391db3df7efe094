"""Bits moved, by tensor and by level of the memory, and the cycles that the ports of a level take for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from simulator.hardware import Level, Memory

from .folds import ceil_div


class ArrayBits(NamedTuple):
    """Bits between the array (or an engine) and on-chip memory, by tensor."""

    a_reads: int = 0
    w_reads: int = 0
    o_writes: int = 0
    psum_reads: int = 0
    psum_writes: int = 0

    def exchanged(self) -> ArrayBits:
        """Return the same with the operands exchanged."""
        return self._replace(a_reads=self.w_reads, w_reads=self.a_reads)

    def plus(self, other: ArrayBits, times: int = 1) -> ArrayBits:
        """Return the sum with so many times another."""
        return ArrayBits(*[mine + times * its for mine, its in zip(self, other, strict=True)])


class Transfer(NamedTuple):
    """Bits across the boundary between two levels: operands inwards, outputs outwards."""

    a: int
    w: int
    o: int

    @property
    def total(self) -> int:
        return sum(self)

    def exchanged(self) -> Transfer:
        """Return the same with the operands exchanged."""
        return Transfer(self.w, self.a, self.o)


@dataclass(frozen=True)
class Traffic:
    """Bits moved by one pass over one GEMM.

    Args:
        array: between the array and the buffers.
        transfers: between levels, outermost first: the DRAM and the first level, ..., the last one and the buffers.
            Empty without a memory.
    """

    array: ArrayBits
    transfers: tuple[Transfer, ...]

    @property
    def dram(self) -> int:
        """Bits in and out of the DRAM."""
        return self.transfers[0].total if self.transfers else 0

    def exchanged(self) -> Traffic:
        """Return the same with the operands exchanged."""
        return Traffic(self.array.exchanged(), tuple(transfer.exchanged() for transfer in self.transfers))

    def plus(self, other: Traffic, times: int = 1) -> Traffic:
        """Return the sum with so many times another."""
        transfers = zip(self.transfers, other.transfers, strict=True)
        return Traffic(
            self.array.plus(other.array, times),
            tuple(Transfer(*(x + times * y for x, y in zip(mine, its, strict=True))) for mine, its in transfers),
        )


def transfer_cycles(bits: int, bits_per_cycle: Fraction) -> int:
    """Return the cycles of a transfer, rounded up."""
    return ceil_div(bits * bits_per_cycle.denominator, bits_per_cycle.numerator)


def port_bits(memory: Memory, moved: ArrayBits, level: Level) -> tuple[int, int]:
    """Return the bits read and written at the ports of a buffer to the array."""
    reads = (moved.a_reads if "a" in level.holds else 0) + (moved.w_reads if "w" in level.holds else 0)
    if "o" not in level.holds:
        return reads, 0
    if memory.accumulators is not None:
        return reads, moved.o_writes
    return reads + moved.psum_reads, moved.o_writes + moved.psum_writes


def port_cycles(memory: Memory, moved: ArrayBits) -> int:
    """Return the cycles in which the slowest port of a buffer to the array moves its bits."""
    return max([max(read, write) for _, read, write in _array_ports(memory, moved)])


def _array_ports(memory: Memory, moved: ArrayBits) -> Iterator[tuple[str, int, int]]:
    """Yield name, read and write cycles of each buffer at its ports to the array."""
    for level in memory.buffers:
        reads, writes = port_bits(memory, moved, level)
        yield (
            level.name,
            transfer_cycles(reads, level.read_bits_per_cycle),
            transfer_cycles(writes, level.write_bits_per_cycle),
        )


def memory_bounds(memory: Memory | None, traffic: Traffic) -> dict[str, int]:
    """Return the cycles in which each memory port moves its bits, by its name: lower bounds of any schedule."""
    if memory is None:
        return {}
    found = {"dram": transfer_cycles(traffic.dram, memory.dram.bandwidth_bits_per_cycle)}
    for level, outer, inner in zip(memory.staging, traffic.transfers[:-1], traffic.transfers[1:], strict=True):
        read, write = level.read_bits_per_cycle, level.write_bits_per_cycle
        found[f"{level.name} read"] = max(transfer_cycles(inner.a + inner.w, read), transfer_cycles(outer.o, read))
        found[f"{level.name} write"] = max(transfer_cycles(inner.o, write), transfer_cycles(outer.a + outer.w, write))
    for name, reads, writes in _array_ports(memory, traffic.array):
        found[f"{name} read"], found[f"{name} write"] = reads, writes
    return found


def memory_bound(memory: Memory | None, traffic: Traffic) -> int:
    """Return the cycles in which the slowest memory port moves its bits: a lower bound of any schedule."""
    return max(memory_bounds(memory, traffic).values(), default=0)


def level_bits(memory: Memory | None, traffic: Traffic) -> Mapping[str, tuple[int, int]]:
    """Return the bits read from and written to each on-chip level, ports on both sides together, by its name.

    Without a memory all tensors are in one level "sram" without size.
    """
    moved = traffic.array
    if memory is None:
        reads, writes = moved.a_reads + moved.w_reads, moved.o_writes
        return {"sram": (reads + moved.psum_reads, writes + moved.psum_writes)}
    found = {}
    for place, level in enumerate(memory.staging):
        outer, inner = traffic.transfers[place : place + 2]
        found[level.name] = inner.a + inner.w + outer.o, outer.a + outer.w + inner.o
    last = traffic.transfers[-1]
    for level in memory.buffers:
        reads, writes = port_bits(memory, moved, level)
        reads += last.o if "o" in level.holds else 0
        writes += sum(bits for tensor, bits in (("a", last.a), ("w", last.w)) if tensor in level.holds)
        found[level.name] = reads, writes
    if memory.accumulators is not None:
        found[memory.accumulators.name] = moved.psum_reads, moved.psum_writes
    return found
