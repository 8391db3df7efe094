"""A machine that works off tiles, advanced cycle by cycle: queues of transfers, copies of tiles, an array, an engine.

Each transfer, computation and recomputation is a job with so many cycles to go; in every cycle those that may begin
begin. Nothing here knows a sum or a maximum over tiles.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class TileJob:
    """What a tile takes: cycles on the array, and at each boundary in and out (outermost first); what it brings."""

    compute: int
    loads: list[int]
    stores: list[int]
    brings: tuple[bool, bool]
    flagged: int = 0


@dataclass
class _Job:
    """`kind` and `tile`, cycles left, whether it has begun and is done."""

    kind: str
    tile: int
    left: int
    begun: bool = False
    done: bool = False


@dataclass
class TileQueues:
    """Tiles in order on boundaries with queues.

    Args:
        gemms: the tiles of each. One begins when the last output of the one before has reached the DRAM; the engine
            goes on with what it has.
        copies: of tiles of A, W and outputs in the buffers. staged: of tiles in each staging level, outermost first.
        latency: of the DRAM. per_output, queue: cycles of the engine for a flagged output, and its room; None: any.
    """

    gemms: list[list[TileJob]]
    copies: tuple[int, int, int]
    staged: list[int]
    latency: int
    per_output: int = 0
    queue: int | None = None
    now: int = 0
    engine_done: int = 0
    _tiles: list[TileJob] = field(default_factory=list)  # of the GEMM under way, which began at a cycle
    _began: int = 0
    _jobs: dict[tuple[str, int, int], _Job] = field(default_factory=dict)
    _pending: list[int] = field(default_factory=list)  # cycles left of each flagged output in the engine or before it

    def run(self) -> int:
        """Return the cycle at which the last output has reached the DRAM; `engine_done`: that of the last result."""
        for tiles in self.gemms:
            self._tiles, self._began, self._jobs = tiles, self.now, {}
            self._gemm()
            for _ in range(self.latency):
                self._advance([])
        end = self.now
        while self._pending:
            self._advance([])
        return end

    def _gemm(self) -> None:
        boundaries, last = len(self.staged) + 1, len(self._tiles) - 1
        order = [("load", 0)]
        for t in range(last + 1):
            pair = [("load", t + 1), ("store", t - 1)]
            order += [job for job in (pair if min(self.copies) > 1 else pair[::-1]) if 0 <= job[1] <= last]
        order.append(("store", last))
        queues: list[list[_Job]] = [[] for _ in range(boundaries)]
        for kind, t in order:
            tile = self._tiles[t]
            for b, cycles in enumerate(tile.loads if kind == "load" else tile.stores):
                if cycles or (kind == "store" and b == boundaries - 1):  # nothing to store takes its turn all the same
                    self._jobs[kind, t, b] = job = _Job(kind, t, cycles)
                    queues[b].append(job)
        computing = [_Job("compute", t, tile.compute) for t, tile in enumerate(self._tiles)]
        emitted = dict.fromkeys(range(last + 1), 0)
        while True:
            changed = True
            while changed:
                changed = False
                for b, queue in enumerate(queues):
                    job = next((job for job in queue if not job.done), None)
                    if job is None:
                        continue
                    if not job.begun and self._may_begin(job, b, computing):
                        job.begun = changed = True
                    if job.begun and job.left == 0 and self._nearer_is(job, b, "done"):
                        job.done = changed = True
                job = next((job for job in computing if not job.done), None)
                if job is None:
                    continue
                if not job.begun and self._may_compute(job.tile):
                    job.begun = changed = True
                tile, out = self._tiles[job.tile], emitted[job.tile]
                if self._due(tile, job, out) and (self.queue is None or len(self._pending) < self.queue):
                    self._pending.append(self.per_output)
                    emitted[job.tile] += 1
                    changed = True
                elif job.begun and job.left == 0 and out == tile.flagged:
                    job.done = changed = True
            everything = [*computing, *(job for queue in queues for job in queue)]
            if all(job.done for job in everything):
                break
            now = next((job for job in computing if not job.done), None)
            waits = now is not None and self._due(self._tiles[now.tile], now, emitted[now.tile])
            self._advance([job for job in everything if not (waits and job is now)])

    def _advance(self, jobs: list[_Job]) -> None:
        for job in jobs:
            job.left -= job.begun and job.left > 0
        self.now += 1
        if self._pending:
            self._pending[0] -= 1
            if not self._pending[0]:
                self._pending.pop(0)
                self.engine_done = self.now

    def _of(self, kind: str, tile: int, boundary: int) -> _Job | None:
        return self._jobs.get((kind, tile, boundary))

    def _nearer_is(self, job: _Job, boundary: int, state: str) -> bool:
        """Whether the same transfer has begun, or is done, at the boundary that it crosses before this one."""
        along = range(boundary - 1, -1, -1) if job.kind == "load" else range(boundary + 1, len(self.staged) + 1)
        before = next((one for b in along if (one := self._of(job.kind, job.tile, b)) is not None), None)
        return before is None or getattr(before, state)

    def _may_begin(self, job: _Job, boundary: int, computing: list[_Job]) -> bool:
        innermost = boundary == len(self.staged)
        if not self._nearer_is(job, boundary, "begun"):
            return False
        if job.kind == "store":
            if innermost and not computing[job.tile].done:
                return False
            nothing = not self._tiles[job.tile].stores[boundary]
            return boundary == 0 or nothing or self._room_in(boundary - 1, "store", boundary, boundary - 1)
        if boundary == 0 and self.now < self._began + self.latency:
            return False
        if not innermost:
            return self._room_in(boundary, "load", boundary, boundary + 1)
        return all(self._copy_is_free(which, job.tile, computing) for which in (0, 1))

    def _room_in(self, level: int, kind: str, inwards: int, outwards: int) -> bool:
        """Whether a staging level has a free copy: fewer tiles than copies have begun to come and not left."""
        come = [job.tile for (k, _, b), job in self._jobs.items() if k == kind and b == inwards and job.begun]
        left = [self._of(kind, tile, outwards) for tile in come]
        return sum(job is not None and not job.done for job in left) < self.staged[level]

    def _copy_is_free(self, which: int, tile: int, computing: list[_Job]) -> bool:
        if not self._tiles[tile].brings[which]:
            return True
        bringing = [t for t in range(tile + 1) if self._tiles[t].brings[which]]
        used = sum(not computing[following - 1].done for following in bringing[1:])  # by tiles up to the next bringing
        return used < self.copies[which]

    def _due(self, tile: TileJob, job: _Job, emitted: int) -> bool:
        """Whether a flagged output has been computed that is not in the queue: they come evenly."""
        progress = tile.compute - job.left
        return job.begun and emitted < tile.flagged and progress * tile.flagged >= (emitted + 1) * tile.compute

    def _may_compute(self, tile: int) -> bool:
        load = self._of("load", tile, len(self.staged))
        if load is not None and not load.done:  # a tile whose operands are there brings nothing
            return False
        unstored = sum(not self._of("store", t, len(self.staged)).done for t in range(tile))
        return unstored < self.copies[2]
