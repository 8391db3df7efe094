"""One sum that takes products as they come: fma, seq, kahan, neumaier, exact, fixed."""

from __future__ import annotations

from formats import dyadic

from ..accumulators import Exact, Fixed, Fma, Kahan, Neumaier, Seq
from ..places import PRODUCT, SUM
from .state import State, means
from .sums import Term, exact_sum, project, project_special, special_sum


@means(Fma)
class _Fma(State):
    accumulator: Fma

    def start(self, c: float | None) -> None:
        super().start(c)
        self.terms: list[Term] = []

    def push(self, term: Term) -> None:
        self.terms.append(term)
        if len(self.terms) == self.accumulator.products:
            self.end_step()

    def end_step(self) -> None:
        self.value = self.step(self.accumulator.sum, self.value, self.terms)
        self.terms = []

    def finish(self) -> float:
        if self.terms:
            self.end_step()
        return self.value


@means(Seq)
class _Seq(State):
    accumulator: Seq

    def push(self, term: Term) -> None:
        term = self.rounded_product(self.accumulator.product, term)
        self.value = self.step(self.accumulator.sum, self.value, [term])


@means(Kahan)
class _Kahan(State):
    accumulator: Kahan

    def start(self, c: float | None) -> None:
        super().start(c)
        self.error = 0.0

    def push(self, term: Term) -> None:
        use, s = self.accumulator.sum, self.value
        (t,) = self.rounded_product(use, term)
        y = self.rounded(use, [(t,), (-self.error,)], SUM)
        z = self.step(use, s, [(y,)])
        moved = self.rounded(use, [(z,), (-s,)], SUM)
        self.error = self.rounded(use, [(moved,), (-y,)], SUM)
        self.value = z


@means(Neumaier)
class _Neumaier(State):
    accumulator: Neumaier

    def start(self, c: float | None) -> None:
        super().start(c)
        self.error = 0.0

    def push(self, term: Term) -> None:
        use, s = self.accumulator.sum, self.value
        (t,) = self.rounded_product(use, term)
        z = self.step(use, s, [(t,)])
        larger, smaller = (s, t) if abs(s) >= abs(t) else (t, s)
        lost = self.rounded(use, [(larger,), (-z,)], SUM)
        lost = self.rounded(use, [(lost,), (smaller,)], SUM)
        self.error = self.rounded(use, [(self.error,), (lost,)], SUM)
        self.value = z

    def finish(self) -> float:
        return self.rounded(self.accumulator.sum, [(self.value,), (self.error,)], SUM)


@means(Exact)
class _Exact(State):
    accumulator: Exact

    def start(self, c: float | None) -> None:
        # Without an addend the state starts at +0, as everywhere.
        self.terms: list[Term] = [(0.0 if c is None else c,)]

    def push(self, term: Term) -> None:
        self.terms.append(term)

    def finish(self) -> float:
        return self.run.held(self.rounded(self.accumulator.sum, self.terms, SUM), False)


@means(Fixed)
class _Fixed(State):
    accumulator: Fixed

    def push(self, term: Term) -> None:
        accumulator, use = self.accumulator, self.accumulator.sum
        special = special_sum([(self.value,), term])
        random = self.run.word(self.node, PRODUCT) if use.mode.stochastic else 0
        if special is not None:
            self.value = project_special(use, special, self.run)
            return
        integer, exponent = exact_sum([term])
        t = use.format.round_unbounded(integer, exponent, use.mode, random)  # type: ignore[attr-defined]
        total = dyadic.add(dyadic.from_float(self.value), (t, -accumulator.frac))
        before, self.value = self.value, project(use, total, None, 0)
        overflowed = total[0] != 0 and accumulator.range.overflows(*total, use.mode)
        self.run.overflows += overflowed
        self.run.underflows += integer != 0 and t == 0
        self.run.held(self.value, integer != 0 and self.value == before and not overflowed)
