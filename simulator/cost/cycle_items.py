"""How the cycles of an operation come about: the closed form of each part with its numbers filled in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from simulator.hardware import Array, Machine, MacMode
from simulator.result import CycleItem

from .cycles import Cycles
from .event import STALLS
from .folds import as_streamed, ceil_div, cut, fold_grid, folds_in_turn, run_cycles, streamed_cycles, sums_in_pes
from .gemm import Gemm
from .one_pass import Pass
from .scoring import low_passes
from .second_pass import Work, pass_name


class TileShape(NamedTuple):
    """So many tiles of one shape, as the array streams them; `last`: whether they have the last part of K."""

    times: int
    m: int
    n: int
    k: int
    last: bool


class CycleBill(NamedTuple):
    """An operation as it was priced.

    Args:
        machine, gemm: of the price. mode: of the first pass. works: of the passes after it.
        fidelity, counted: its cycles.
    """

    machine: Machine
    gemm: Gemm
    mode: MacMode
    works: tuple[Work, ...]
    fidelity: str
    counted: Cycles

    @property
    def first(self) -> Pass:
        """The first pass of one GEMM."""
        return self.counted.first

    def items(self) -> tuple[CycleItem, ...]:
        """Return what the cycles of all GEMMs are the sum of."""
        if self.fidelity == "roofline":
            found = [*self._bounds()]
        else:
            stalls = self._causes() if self.fidelity == "event" else self._stalls()
            found = [*self._on_array(), *stalls, *self._other_low_pass(), *self._second()]
        return tuple(item for item in found if item.cycles)

    def _bounds(self) -> Iterator[CycleItem]:
        """Yield what a roofline is made of."""
        array, gemm, parts, low = self.machine.array, self.gemm, self.counted.parts, self.counted.low
        one = f"ceil({gemm.m} x {gemm.n} x {gemm.k} x {self.mode.passes} / {array.pes * self.mode.rate})"
        count = gemm.gemms * (low_passes(self.machine) if self.works else 1)
        yield CycleItem("compute", "MACs at the peak rate of all PEs", f"{_counted(count, 'GEMM')} x {one}",
                        parts["compute"])  # fmt: skip
        yield CycleItem("memory_stall", f"{self.first.bound} takes longer", f"{low} - {parts['compute']}",
                        parts["memory_stall"])  # fmt: skip
        for number, beyond in enumerate(self.counted.further, 2):
            formula = f"{low + beyond} - {low}"
            yield CycleItem("gather", f"{pass_name(number)} takes longer", formula, beyond)
            low += beyond

    def _causes(self) -> Iterator[CycleItem]:
        """Yield the stalls of a walk over the tiles, by cause."""
        for part, what in STALLS.items():
            cycles = self.counted.parts[part]
            yield CycleItem(part, f"the array waits: {what}", f"{cycles}, tile by tile", cycles)

    def _on_array(self) -> Iterator[CycleItem]:
        """Yield the cycles of the array, by part and by shape of the tiles."""
        array, flow = self.machine.array, as_streamed(self.first.dataflow)
        for part, what in (
            ("compute", "operands stream"),
            ("load", "stationary operands are loaded"),
            ("fill", "skewed operands fill the array"),
            ("drain", "results leave it"),
        ):
            for tiles in self._tiles():
                stays = sums_in_pes(flow) and not tiles.last  # sums stay in the PEs: nothing is filled or emptied
                if stays and part != "compute":
                    continue
                rows, columns, length = fold_grid(array, flow, tiles.m, tiles.n, tiles.k, self.mode.rate)
                streamed = length * self.mode.passes
                run = run_cycles(array, flow, [(folds_in_turn(array, flow, rows, columns), streamed)])
                count = self.gemm.gemms * tiles.times
                formula = f"{_counted(count, 'tile')} x ({_closed_form(array, flow, part, (rows, columns), streamed)})"
                shape = f"in tiles of {tiles.m} x {tiles.n} x {tiles.k}"
                yield CycleItem(part, f"{what}, {shape}", formula, count * getattr(run, part))
        if array.like_scalesim:
            formula = f"-1 x {_counted(self.gemm.gemms, 'GEMM')}"
            yield CycleItem("compute", "SCALE-Sim counts up to the index of the last cycle", formula, -self.gemm.gemms)

    def _tiles(self) -> Iterator[TileShape]:
        """Yield the tiles of a pass by shape; of `is` with the operands exchanged, as it is streamed."""
        gemm, tile = self.gemm, self.first.tile
        along_k = ceil_div(gemm.k, tile.k)
        parts_of_k = [(tile.k, along_k - 1, False), (gemm.k - (along_k - 1) * tile.k, 1, True)]
        for m, m_times in cut(gemm.m, tile.m):
            for n, n_times in cut(gemm.n, tile.n):
                for k, k_times, last in parts_of_k:
                    if k_times:
                        sizes = (n, m) if self.first.dataflow == "is" else (m, n)
                        yield TileShape(m_times * n_times * k_times, *sizes, k, last)

    def _stalls(self) -> Iterator[CycleItem]:
        """Yield the cycles in which the array waits for the memory."""
        first, gemms = self.first, self.gemm.gemms
        memory = self.machine.memory
        if self.machine.array.like_scalesim:  # without stalls
            return
        latency = 0 if memory is None else memory.dram.latency_cycles
        between = first.memory_stall - first.start - first.last_store
        part, each = "memory_stall", f"{_counted(gemms, 'GEMM')} x "
        yield CycleItem(part, "the first tile is loaded, after the latency of the DRAM",
                        f"{each}({first.start - latency} + {latency})", gemms * first.start)  # fmt: skip
        yield CycleItem(part, "tiles wait for transfers or ports", f"{each}{between}", gemms * between)
        yield CycleItem(part, "the last tile is stored, after the latency of the DRAM",
                        f"{each}({first.last_store - latency} + {latency})", gemms * first.last_store)  # fmt: skip

    def _other_low_pass(self) -> Iterator[CycleItem]:
        """Yield the cycles of the pass over magnitudes, part by part as long as the first one."""
        if not self.works or low_passes(self.machine) == 1:
            return
        gemms, first = self.gemm.gemms, self.first
        for part in ("compute", "load", "fill", "drain"):
            cycles = getattr(first.run, part)
            formula = f"{_counted(gemms, 'GEMM')} x {cycles}"
            yield CycleItem(part, "pass over magnitudes, as long as the first one", formula, gemms * cycles)
        if self.fidelity == "event":  # its stalls are among those of the walk
            return
        stall = self.counted.low - 2 * gemms * first.cycles + gemms * first.memory_stall
        yield CycleItem("memory_stall", "pass over magnitudes, and its results on their way back", f"{stall}", stall)

    def _second(self) -> Iterator[CycleItem]:
        """Yield the cycles of the passes after the low ones, beyond these."""
        low, engine = self.counted.low, self.machine.recomputing_engine
        for number, (work, beyond) in enumerate(zip(self.works, self.counted.further, strict=True), 2):
            switch = min(work.switch, beyond)
            busy = f"{work.busy} busy cycles of the {'array' if engine is None else 'side engine'}"
            yield CycleItem("switch", "the array is emptied and loaded again", f"{switch}", switch)
            what = f"{pass_name(number)}, with {busy}, ends after {pass_name(number - 1)}"
            yield CycleItem("gather", what, f"{low + beyond} - {low} - {switch}", beyond - switch)
            low += beyond


def _closed_form(array: Array, flow: str, part: str, grid: tuple[int, int], streamed: int) -> str:
    """Return the formula of a part of the cycles of one tile; see `run_cycles`.

    Args:
        grid: folds along the rows and the columns of the array. streamed: cycles in which a fold's operands stream.
    """
    rows, columns, p = array.rows, array.columns, array.latency_cycles
    folds = folds_in_turn(array, flow, *grid)
    exposed, skews = array.drain == "exposed", folds if array.drain in ("exposed", "none") else 1
    length = streamed_cycles(streamed, p, array.interleave) if flow == "os" else streamed
    hidden = f"{rows} + {folds - 1} folds x max({rows} - {length}, 0)"
    match part, flow:
        case "compute", _:
            return f"{_in_turn(array, flow, *grid)} folds x {length}"
        case "load", "ws":
            return f"{folds} folds x {rows}" if array.load == "exposed" else f"{rows}" if exposed else hidden
        case "fill", "ws":
            return f"{skews} x ({p} x {rows} - 1)"
        case "fill", "os":
            return f"{skews} x ({rows} + {columns} - 2)"
        case "fill", _:
            return f"{p} - 1"
        case "drain", "ws":
            return f"{skews} x ({columns} - 1)"
        case "drain", "os":
            return "0" if array.drain == "none" else f"{folds} folds x {rows}" if exposed else hidden
    return "0"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _in_turn(array: Array, flow: str, rows: int, columns: int) -> str:
    """Return the formula of `folds_in_turn`."""
    if array.copies == 1:
        return f"{rows} x {columns}"
    if sums_in_pes(flow):
        return f"ceil({rows} x {columns} / {array.copies})"
    return f"{rows} x ceil({columns} / {array.copies})"
