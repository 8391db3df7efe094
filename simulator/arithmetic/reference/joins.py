"""Several sums that are joined, and products in another order: chunk, interleave, tree, reverse."""

from __future__ import annotations

import math

from ..accumulators import Chunk, Interleave, Reverse, Tree, numbered
from ..places import SUM
from .state import State, means, state_of
from .sums import Term, special_product


@means(Chunk)
class _Chunk(State):
    accumulator: Chunk

    def start(self, c: float | None) -> None:
        inner = self.accumulator.inner
        self.outer = state_of(self.accumulator.outer, c, self.run, self.node + 1 + len(numbered(inner)))
        self.start_run()

    def start_run(self) -> None:
        self.inner = state_of(self.accumulator.inner, None, self.run, self.node + 1)
        self.count = 0

    def push(self, term: Term) -> None:
        self.inner.push(term)
        self.count += 1
        if self.count == self.accumulator.length:
            self.end_run()

    def end_run(self) -> None:
        self.outer.push((self.inner.finish(),))
        self.start_run()

    def finish(self) -> float:
        if self.count:
            self.end_run()
        return self.outer.finish()


@means(Interleave)
class _Interleave(State):
    accumulator: Interleave

    def start(self, c: float | None) -> None:
        inner = self.accumulator.inner
        self.join = state_of(self.accumulator.join, c, self.run, self.node + 1 + len(numbered(inner)))
        self.start_lanes()

    def start_lanes(self) -> None:
        self.lanes = [
            state_of(self.accumulator.inner, None, self.run, self.node + 1) for _ in range(self.accumulator.ways)
        ]
        self.count = 0

    def push(self, term: Term) -> None:
        self.lanes[self.count % self.accumulator.ways].push(term)
        self.count += 1

    def finish(self) -> float:
        for lane in self.lanes:
            self.join.push((lane.finish(),))
        return self.join.finish()


@means(Reverse)
class _Reverse(State):
    accumulator: Reverse

    def start(self, c: float | None) -> None:
        self.inner = state_of(self.accumulator.inner, c, self.run, self.node)
        self.terms: list[Term] = []

    def push(self, term: Term) -> None:
        self.terms.append(term)
        if len(self.terms) == self.accumulator.length:
            self.end_run()

    def end_run(self) -> None:
        for term in reversed(self.terms):
            self.inner.push(term)
        self.terms = []

    def finish(self) -> float:
        self.end_run()
        return self.inner.finish()


@means(Tree)
class _Tree(State):
    accumulator: Tree

    def start(self, c: float | None) -> None:
        assert c is None, "the addend of a tree joins late"
        self.levels: list[list[Term]] = [[]]  # of each the group that is not complete

    def push(self, term: Term) -> None:
        if self.accumulator.leaves == "rounded":
            term = self.rounded_product(self.accumulator.sum, term)
        self.enter(term, 0)

    def enter(self, term: Term, level: int) -> None:
        """Take a term of a level; a group is summed as soon as it is complete."""
        if level == len(self.levels):
            self.levels.append([])
        self.levels[level].append(term)
        if len(self.levels[level]) == self.accumulator.radix:
            self.close(level)

    def close(self, level: int) -> None:
        group, self.levels[level] = self.levels[level], []
        self.enter(group[0] if len(group) == 1 else (self.group_sum(group),), level + 1)

    def finish(self) -> float:
        """Sum what is left, lowest level first; a term that is alone goes up as it is."""
        level = 0
        while level < len(self.levels):
            if len(self.levels[level]) == 1 and not any(self.levels[level + 1 :]):
                (last,) = self.levels[level]
                return last[0] if len(last) == 1 else self.group_sum([last])
            if self.levels[level]:
                self.close(level)
            level += 1
        return 0.0  # no products

    def group_sum(self, group: list[Term]) -> float:
        """Return R(the exact sum); it swamps the others if it equals the largest of several terms."""
        overflows = self.run.overflows
        value = self.rounded(self.accumulator.sum, group, SUM)
        nearly = [math.prod(term) for term in group]  # a product that is no float64 is not equal to the sum either
        largest = max(nearly, key=abs)
        swamps = sum(special_product(term) != 0.0 for term in group) > 1 and value == largest
        return self.run.held(value, swamps and self.run.overflows == overflows)
