"""One fold of a systolic array, simulated cycle by cycle."""

from __future__ import annotations

import itertools
from collections import deque


def weight_stationary_wavefront(rows: int, columns: int, length: int, latency: int) -> int:
    """Cycles from the first operand to the last sum at the foot of the last column; every meeting is checked."""
    moving = [[None] * columns for _ in range(rows)]  # the activation held in each PE, as its index
    pipes = [[deque([None] * latency) for _ in range(columns)] for _ in range(rows)]
    done, cycle = 0, 0
    while done < length * columns:
        leaving = [[pipes[r][c][0] for c in range(columns)] for r in range(rows)]
        for r in range(rows):
            entering = cycle - r * latency  # each row starts when the sum of the row above reaches it
            moving[r] = [entering if 0 <= entering < length else None, *moving[r][:-1]]
            for c in range(columns):
                above = leaving[r - 1][c] if r else moving[r][c]
                assert above == moving[r][c], "a sum met another activation than its own"
                pipes[r][c].popleft()
                pipes[r][c].append(moving[r][c])
        cycle += 1
        done += sum(pipes[rows - 1][c][0] is not None for c in range(columns))
    return cycle


def output_stationary_wavefront(rows: int, columns: int, length: int, latency: int, interleave: int) -> tuple[int, int]:
    """Cycles until one PE has its sum, and until the last result has left the array downwards."""
    lanes_ready = [0] * interleave
    issue, cycle = [], 0
    for index in range(length):  # the corner PE sets the pace: a lane takes a product once its last sum is there
        cycle = max(cycle, lanes_ready[index % interleave])
        issue.append(cycle)
        lanes_ready[index % interleave] = cycle + latency
        cycle += 1
    sums, merge = interleave, 0
    while sums > 1:
        sums, merge = (sums + 1) // 2, merge + latency
    finished = issue[-1] + latency + merge
    # operands move one PE a cycle, so PE (r, c) runs r + c cycles late; then sums shift down a row a cycle
    ready = {(r, c): finished + r + c for r, c in itertools.product(range(rows), range(columns))}
    cycle, left = max(ready.values()), 0
    held = [rows] * columns
    while left < rows * columns:
        cycle += 1
        for c in range(columns):
            if held[c]:
                held[c] -= 1
                left += 1
    return finished, cycle
