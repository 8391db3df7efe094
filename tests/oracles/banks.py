"""Accesses to the banks of a memory, granted cycle by cycle."""

from __future__ import annotations


def arbitrated(streams: list[list[int]], banks: int, ports: int, waiting: int = 2) -> int:
    """Return the cycles in which streams of accesses, each the banks that it wants one after the other, are done.

    A stream asks for one access a cycle while fewer than `waiting` of its accesses wait; each bank grants `ports` of
    them a cycle, in the order in which they came.
    """
    asked, pending = [0] * len(streams), [0] * len(streams)
    queues: list[list[int]] = [[] for _ in range(banks)]
    cycles, left = 0, sum(map(len, streams))
    while left:
        for turn in range(len(streams)):
            one = (turn + cycles) % len(streams)
            if asked[one] < len(streams[one]) and pending[one] < waiting:
                queues[streams[one][asked[one]]].append(one)
                asked[one] += 1
                pending[one] += 1
        for queue in queues:
            for one in queue[:ports]:
                pending[one] -= 1
                left -= 1
            del queue[:ports]
        cycles += 1
    return cycles
