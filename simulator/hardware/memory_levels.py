"""The section `memory` of a machine file: the DRAM, the levels on the chip and their places."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from . import schema
from .document import Document
from .quantities import Quantity, optional_float
from .records import TENSORS, AccumulatorBuffer, Dram, Level, Memory

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class MemoryLevels:
    """Builds the memory of one file.

    Args:
        document: which collects problems. frequency_hz: of the clock. dataflow: of the array.
    """

    document: Document
    frequency_hz: Fraction
    dataflow: str

    def memory(self, form: schema.MemorySection) -> Memory:
        """Return the records of the section."""
        latency = form.dram.latency
        cycles = latency.value if latency.dimension == "cycles" else latency.value * self.frequency_hz
        dram = Dram(self._per_cycle(form.dram.bandwidth), math.ceil(cycles), optional_float(form.dram.energy))
        for name in form.levels:
            if not _NAME.fullmatch(name):
                self.document.problem(
                    ("memory", name),
                    f"got a level named {name!r}; expected a name of letters, digits and _; write e.g. l2",
                )
        levels = [level for name, one in form.levels.items() if (level := self._level(name, one)) is not None]
        found = [self._sums(name, one) for name, one in form.levels.items() if _holds(name, one) == ["psum"]]
        if len(found) > 1:
            self.document.problem(
                ("memory", found[1].name),
                f"got a second level of partial sums; expected one; remove it, or memory.{found[0].name}",
            )
        buffers, staging = self._places(levels)
        return Memory(dram, buffers, found[0] if found else None, staging)

    def _level(self, name: str, form: schema.LevelSection) -> Level | None:
        """Return a level of operands and outputs; None for one of partial sums, or with a problem."""
        holds = _holds(name, form)
        if holds is None:
            self._missing(name, "holds", "which of a, w and o it holds, or psum", "holds: [a, w, o]")
        if holds is None or holds == ["psum"]:
            return None
        if form.read is None:
            self._missing(name, "read", "bandwidth to the array", "read: 1024 bit/cycle")
        if form.write is None:
            self._missing(name, "write", "bandwidth from the array", "write: 512 bit/cycle")
        if form.read is None or form.write is None:
            return None
        return Level(
            name,
            int(form.size.value),
            tuple(tensor for tensor in TENSORS if tensor in holds),
            form.buffers or 2,
            self._per_cycle(form.read),
            self._per_cycle(form.write),
            form.banks,
            form.ports or 1,
            optional_float(form.read_energy),
            optional_float(form.write_energy),
        )

    def _missing(self, name: str, key: str, what: str, example: str) -> None:
        self.document.problem(("memory", name, key), f"missing; expected {what}; add e.g. '{example}'")

    def _sums(self, name: str, form: schema.LevelSection) -> AccumulatorBuffer:
        """Return the level of partial sums."""
        for key in ("read", "write", "buffers", "banks", "ports"):
            if ("memory", name, key) in self.document.keys:
                self.document.problem(
                    ("memory", name, key),
                    "got a key of operands and outputs in a level of partial sums, which is as wide as the array; "
                    "expected size and energies; remove it",
                )
        if self.dataflow == "os":
            self.document.problem(
                ("memory", name),
                "got a buffer of partial sums with array.dataflow: os, which sums in the PEs; expected none; remove it",
            )
        return AccumulatorBuffer(
            int(form.size.value), optional_float(form.read_energy), optional_float(form.write_energy), name
        )

    def _places(self, levels: list[Level]) -> tuple[tuple[Level, ...], tuple[Level, ...]]:
        """Return the innermost levels, each of a, w and o in one of them, and those between them and the DRAM."""
        innermost = {tensor: level.name for level in levels for tensor in level.holds}
        missing = [tensor for tensor in TENSORS if tensor not in innermost]
        if missing and not self.document.problems:
            self.document.problem(
                ("memory",),
                f"got no on-chip level that holds {', '.join(missing)}; expected one for each of a, w and o; add e.g. "
                "'sram: {size: 256 KiB, read: ..., write: ...}'",
            )
        buffers = tuple(level for level in levels if level.name in innermost.values())
        staging = tuple(level for level in levels if level.name not in innermost.values())
        for level in buffers:
            further_in = [tensor for tensor in level.holds if innermost[tensor] != level.name]
            if further_in:
                self.document.problem(
                    ("memory", level.name, "holds"),
                    f"got {', '.join(level.holds)}, of which memory.{innermost[further_in[0]]} holds {further_in[0]} "
                    "further in, and none the others; expected a level further in for all of them or for none; "
                    "change one of the two",
                )
        for level in staging:
            if level.holds != TENSORS:
                self.document.problem(
                    ("memory", level.name, "holds"),
                    f"got {', '.join(level.holds)} in a level that others lie within; expected a, w and o; "
                    "write [a, w, o]",
                )
        for level in staging:
            # What passes through it waits there for a cycle, in each of its copies.
            least = math.ceil(level.buffers * max(level.read_bits_per_cycle, level.write_bits_per_cycle))
            if level.size_bits < least:
                self.document.problem(
                    ("memory", level.name, "size"),
                    f"got {level.size_bits} bit for a level whose ports move {least} bit a cycle and {level.buffers} "
                    f"buffers; expected at least these; raise memory.{level.name}.size, or remove the level",
                )
        return buffers, staging

    def _per_cycle(self, bandwidth: Quantity) -> Fraction:
        return bandwidth.value if bandwidth.dimension == "bandwidth per cycle" else bandwidth.value / self.frequency_hz


def _holds(name: str, form: schema.LevelSection) -> list[str] | None:
    return form.holds or {"sram": list(TENSORS), "accumulators": ["psum"]}.get(name)
