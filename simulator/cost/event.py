"""The event fidelity: the tiles of a pass one by one, through queues, buffers, ports and banks.

Every boundary between two levels has a queue of transfers, done in order: load t+1, then store t-1, or the store first
where a buffer has one copy of a tile. A load waits for a free copy of each operand that it brings; a computation for
its load and for a free copy of the outputs, with two of them for store t-2. A transfer through a staging level passes
on what has arrived, and is not done further on before it is done here. With one or two copies, tiles that each bring an
operand, no banks and no staging level this is the sum of `pipeline`, cycle for cycle; more copies, tiles that bring
nothing and staging levels make it shorter.

The DRAM is asked for data ahead of the time at which there is room for them: its latency shows before the first load
and with the last store of a GEMM, as there.

A bank takes `ports` accesses in a cycle; `bank_cycles` counts those of the busiest one. The side engine takes flagged
outputs in order as they come; a full queue holds up the array.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from simulator.errors import InputError
from simulator.hardware import Memory

from .banks import accesses_per_cycle, bank_cycles
from .folds import RunCycles
from .queue import Engine
from .tile_costs import Place, TileCosts

LARGEST_WALK = 100_000

# Why the array stands still.
STALLS = {
    "port_stall": "its ports to the buffers take longer than its folds",
    "bank_stall": "accesses wait for a bank",
    "buffer_stall": "a load began late for want of a free copy",
    "transfer_stall": "transfers take their time",
    "latency_stall": "the DRAM answers late",
    "queue_stall": "the queue of the side engine is full",
}


class Event(NamedTuple):
    """What happened where, to which tile, from one cycle to another.

    Args:
        what: load | compute | store | recompute | score, or one of STALLS.
        tile: its place (GEMM, along M, along N, along K); shorter where it is about more than a tile.
        start, end: cycles. resource: array, side engine, or the outer level of a boundary: dram, or a staging level.
    """

    what: str
    tile: tuple[int, ...]
    start: int
    end: int
    resource: str


@dataclass(frozen=True)
class Walk:
    """A walk over all tiles.

    Args:
        cycles: of all. parts: compute, load (of stationary operands), fill, drain and STALLS; they sum to cycles.
        recomputed: the cycle at which the side engine has taken all flagged outputs, 0 without.
        last_store: cycles of the last tile's store, with the latency of the DRAM.
        events: in the order in which they are decided; empty if not asked for.
    """

    cycles: int
    parts: Mapping[str, int]
    recomputed: int
    last_store: int
    events: tuple[Event, ...]


def walk(
    tiles: TileCosts,
    gemms: int = 1,
    flagged: Iterable[tuple[int, int]] | None = None,
    queue: int | None = None,
    before: Mapping[str, int] | None = None,
    trace: bool = False,
) -> Walk:
    """Walk over the tiles of GEMMs that follow one another. Exact for the machine as modelled, banks aside: estimate.

    Args:
        tiles: of a pass. gemms: of one shape.
        flagged: for a side engine that follows tile by tile, of each output tile of each GEMM in the order of the loops
            the flagged outputs and the cycles that the engine takes for them.
        queue: flagged outputs that find room in its queue, those under way included; None for any number.
        before: parts of what the array does before each GEMM.
        trace: whether to keep the events, of one GEMM where they are all alike.
    Raises:
        InputError: more than LARGEST_WALK tiles.
    """
    walked = 1 if flagged is None else gemms  # without an engine they are all alike
    count = tiles.outer_count * tiles.inner_count * tiles.along_k * walked
    if count > LARGEST_WALK:
        tile = tiles.tile.exchanged() if tiles.dataflow == "is" else tiles.tile
        raise InputError(
            f"fidelity: got event for {count} tiles of {tile.m}x{tile.n}x{tile.k}; expected at most {LARGEST_WALK}, "
            "which it walks over one by one; use analytic"
        )
    found = _Walker(tiles, None if flagged is None else Engine(iter(flagged), queue), [] if trace else None)
    end = 0
    for gemm in range(walked):
        end = found.gemm(gemm, found.begin(gemm, end, before or {}))
    times = gemms // walked
    return Walk(
        times * end,
        {part: times * cycles for part, cycles in found.parts.items()},
        0 if found.engine is None else found.engine.free,
        found.last_store,
        tuple(found.events or ()),
    )


class _Costs(NamedTuple):
    """Of a tile: its run, that with the array's ports, loads and stores at each boundary, whether it brings A and W."""

    run: RunCycles
    busy: int
    loads: tuple[int, ...]
    stores: tuple[int, ...]
    comes: tuple[bool, bool]


class _Walker:
    def __init__(self, tiles: TileCosts, engine: Engine | None, events: list[Event] | None) -> None:
        self.tiles, self.engine, self.events = tiles, engine, events
        self.parts = dict.fromkeys((*RunCycles._fields, *STALLS), 0)
        self.last_store = 0
        memory = tiles.memory
        staging = () if memory is None else memory.staging
        self.names = () if memory is None else ("dram", *(level.name for level in staging))
        self.staged = [level.buffers for level in staging]
        copies = (2, 2, 2) if memory is None else tuple(memory.buffer(tensor).buffers for tensor in "awo")
        self.operand_copies, self.output_copies = copies[:2], copies[2]
        self.store_first = bool(tiles.single)
        self._costs: dict[Place, _Costs] = {}
        self._banked: dict[tuple[Place, Place | None, Place | None], int] = {}

    def begin(self, index: int, origin: int, before: Mapping[str, int]) -> int:
        """Spend what comes before a GEMM; return the cycle at which that is over."""
        for part, cycles in before.items():
            self.parts[part] += cycles
        end = origin + sum(before.values())
        self._event("score", (index,), origin, end, "MAC array")
        return end

    def gemm(self, index: int, origin: int) -> int:
        """Walk over one GEMM from a cycle on; return the cycle at which its last output has arrived."""
        self.index, self.origin = index, origin
        self.channel = [origin] * len(self.names)  # when each boundary has done what it was asked for
        self.brought: tuple[list[int], list[int]] = ([], [])  # the tiles that brought A, and W
        self.passed: list[list[int]] = [[] for _ in self.staged]  # when a load has left a staging level inwards
        self.left: list[list[int]] = [[] for _ in self.staged]  # when a store has left it outwards
        self.loaded: list[int] = []
        self.late: list[int] = []  # how much later a load began than it could with a free copy
        self.computed: list[int] = []
        self.stored: list[int] = []
        places = list(self._places())
        kinds = [self.tiles.kind(*place) for place in places]
        last = len(places) - 1
        self._load(places[0], kinds[0])
        for t, (place, kind) in enumerate(zip(places, kinds, strict=True)):
            following = kinds[t + 1] if t < last else None
            preceding = kinds[t - 1] if t else None
            if following and not self.store_first:
                self._load(places[t + 1], following)
            if preceding:
                self._store(t - 1, places[t - 1], preceding)
            self._compute(t, place, kind, following, preceding)
            if following and self.store_first:
                self._load(places[t + 1], following)
        self._store(last, places[last], kinds[last])
        computed, latency = self.computed[-1], self.tiles.latency
        end = self.channel[0] + latency if self.names else computed
        self.last_store = self.tiles.costs(*places[last]).store + latency
        self._stall("transfer_stall", places[last], computed, end - latency)
        self._stall("latency_stall", places[last], end - latency, end)
        return end

    def _places(self) -> Iterator[Place]:
        tiles = self.tiles
        for x in range(tiles.outer_count):
            for y in range(tiles.inner_count):
                for z in range(tiles.along_k):
                    yield x, y, z

    def _load(self, place: Place, kind: Place) -> None:
        t, costs = len(self.loaded), self._costs_of(kind)
        ready = self.origin
        for tiles, comes, copies in zip(self.brought, costs.comes, self.operand_copies, strict=True):
            if comes:
                tiles.append(t)
                if len(tiles) > copies:  # the copy is that of so many before, which the next one after it ended
                    ready = max(ready, self.computed[tiles[-copies] - 1])
        start, end, late = self.origin + self.tiles.latency, self.origin, 0
        for at, cycles in enumerate(costs.loads):
            if not cycles:
                continue
            start = max(start, self.channel[at])
            if at < len(self.staged):
                passed = self.passed[at]
                if len(passed) >= self.staged[at]:
                    start = max(start, passed[-self.staged[at]])
            else:
                start, late = max(start, ready), max(ready - start, 0)
            end = self.channel[at] = max(start + cycles, end)
            if at and costs.loads[at - 1]:
                self.passed[at - 1].append(end)
            self._event("load", self._tile(place), start, end, self.names[at])
        self.loaded.append(end)
        self.late.append(late)

    def _compute(self, t: int, place: Place, kind: Place, following: Place | None, preceding: Place | None) -> None:
        costs, before = self._costs_of(kind), self.computed[-1] if t else self.origin
        arrived = self.loaded[t]
        if t >= self.output_copies:
            arrived = max(arrived, self.stored[t - self.output_copies])
        answered = min(arrived, before + self.tiles.latency) if t == 0 else before
        start = max(before, arrived)
        in_time = max(answered, start - self.late[t])
        self._stall("latency_stall", place, before, answered)
        self._stall("transfer_stall", place, answered, in_time)
        self._stall("buffer_stall", place, in_time, start)
        for part, cycles in zip(RunCycles._fields, costs.run, strict=True):
            self.parts[part] += cycles
        ported = start + costs.busy
        end = start + self._busy_with_banks(kind, following, preceding)
        self._event("compute", self._tile(place), start, start + costs.run.total, "MAC array")
        self._stall("port_stall", place, start + costs.run.total, ported)
        self._stall("bank_stall", place, ported, end)
        if self.engine is not None and place[2] == self.tiles.along_k - 1:
            queued, (begun, done) = self.engine.take(start, end)
            self._stall("queue_stall", place, end, queued)
            self._event("recompute", self._tile(place), begun, done, "side engine")
            end = queued
        self.computed.append(end)

    def _store(self, t: int, place: Place, kind: Place) -> None:
        start = self.computed[t]
        if not self.names or place[2] < self.tiles.along_k - 1:  # nothing, but it takes its turn
            self.channel[-1:] = [max(start, turn) for turn in self.channel[-1:]]
            self.stored.append(max([start, *self.channel[-1:]]))
            return
        end = 0
        for at, cycles in reversed(list(enumerate(self._costs_of(kind).stores))):
            start = max(start, self.channel[at])
            if at:
                left, copies = self.left[at - 1], self.staged[at - 1]
                if len(left) >= copies:
                    start = max(start, left[-copies])
            end = self.channel[at] = max(start + cycles, end)
            if at == len(self.staged):
                self.stored.append(end)
            else:
                self.left[at].append(end)
            self._event("store", self._tile(place), start, end, self.names[at])

    def _stall(self, what: str, place: Place, start: int, end: int) -> None:
        self.parts[what] += end - start
        self._event(what, self._tile(place), start, end, "MAC array")

    def _tile(self, place: Place) -> tuple[int, ...]:
        x, y, z = place
        along_m = (self.tiles.tile.outer == "m") != (self.tiles.dataflow == "is")
        return (self.index, x, y, z) if along_m else (self.index, y, x, z)

    def _event(self, what: str, tile: tuple[int, ...], start: int, end: int, resource: str) -> None:
        if self.events is not None and end > start:
            self.events.append(Event(what, tile, start, end, resource))

    def _costs_of(self, kind: Place) -> _Costs:
        if kind not in self._costs:
            tiles = self.tiles
            run, busy, _ = tiles.compute(*kind)
            loads: tuple[int, ...] = ()
            stores: tuple[int, ...] = ()
            if tiles.memory is not None:
                loads, stores = self._transfers(tiles.memory, kind)
            self._costs[kind] = _Costs(run, busy, loads, stores, tiles.comes(*kind[:2]))
        return self._costs[kind]

    def _transfers(self, memory: Memory, kind: Place) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the cycles of loads and stores at each boundary, outermost first, with the banks of staging levels."""
        loads = self.tiles.loads(memory, *kind)[::-1]
        stored, ports = self.tiles.stored_bits(*kind), self.tiles.outward_bits_per_cycle[::-1]
        load_cycles = [cycles if bits else 0 for bits, cycles in loads]
        store_cycles = [math.ceil(stored / port) for port in ports]
        for at, level in enumerate(memory.staging):
            if level.banks is not None:
                (outside, _), (inside, _) = loads[at : at + 2]
                write, read, spread = level.write_bits_per_cycle, level.read_bits_per_cycle, accesses_per_cycle(level)
                load_cycles[at + 1] = max(load_cycles[at + 1], math.ceil((outside / write + inside / read) / spread))
                store_cycles[at + 1] = max(store_cycles[at + 1], math.ceil((stored / write + stored / read) / spread))
        return tuple(load_cycles), tuple(store_cycles)

    def _busy_with_banks(self, kind: Place, following: Place | None, preceding: Place | None) -> int:
        memory = self.tiles.memory
        busy = self._costs_of(kind).busy
        if memory is None or all(level.banks is None for level in memory.buffers):
            return busy
        key = kind, following, preceding
        if key not in self._banked:
            cycles = [bank_cycles(self.tiles, memory, level, *key) for level in memory.buffers if level.banks]
            self._banked[key] = max(busy, *cycles)
        return self._banked[key]
