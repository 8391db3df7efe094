"""The step of tensor cores: terms aligned to the largest exponent, cut there, and summed as integers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from formats import dyadic
from formats.rounding import parse_rounding

from ..accumulators import Aligned
from ..places import SUM
from .state import State, means
from .sums import Dyadic, Term, cut, exact_sum, exponent_of, project_special, rounded_down, special_sum, total_of

STATE_MIN_EXPONENT = -126  # the least exponent of a state in an aligned step


@means(Aligned)
class _Aligned(State):
    accumulator: Aligned

    def start(self, c: float | None) -> None:
        super().start(c)
        self.terms: list[Term] = []

    def push(self, term: Term) -> None:
        self.terms.append(term)
        if len(self.terms) == self.accumulator.n * (2 if self.accumulator.order == "two_of_four" else 1):
            self.steps()

    def finish(self) -> float:
        if self.terms:
            self.steps()
        return self.value

    def steps(self) -> None:
        n, terms = self.accumulator.n, self.terms
        self.terms = []
        if self.accumulator.order == "two_of_four":
            terms = terms + [(0.0, 0.0)] * (2 * n - len(terms))
            terms = [terms[k] for k in range(2 * n) if k % 4 < 2] + [terms[k] for k in range(2 * n) if k % 4 >= 2]
            self.instruction(terms[:n])
            self.instruction(terms[n:])
        else:
            self.instruction(terms + [(0.0, 0.0)] * (n - len(terms)))

    def instruction(self, products: list[Term]) -> None:
        """Take one step: n products and the state."""
        spec = self.accumulator
        random = self.run.word(self.node, SUM) if spec.out.mode.stochastic else 0
        special = special_sum([(self.value,), *products])
        if special is not None:
            self.value = project_special(spec.out, special, self.run)
            return
        c = dyadic.from_float(self.value)
        state = [(c, max(exponent_of(c), STATE_MIN_EXPONENT))] if c[0] else []  # a zero state is no term
        early, late = (state, []) if spec.c == "early" else ([], state)
        floor = [] if spec.e_min is None else [spec.e_min]
        sums, exponents = [], []
        for part in range(spec.parts):
            terms = [*self.product_terms(products[part :: spec.parts]), *early]
            exponent = max([e for _, e in terms] + floor, default=None)
            if exponent is not None:
                exponents.append(exponent)
                kept = [cut(v, exponent - spec.frac, parse_rounding(spec.align)) for v, _ in terms]
                self.run.swamped += sum(v[0] != 0 and k[0] == 0 for (v, _), k in zip(terms, kept, strict=True))
                sums.append(total_of(kept))
        sums = [rounded_down(s, max(exponents), spec.part_frac) for s in sums]
        top = max([*exponents, *(e for _, e in late)], default=0)  # without any there are no sums
        sums = [rounded_down(s, top, spec.sum_frac) for s in sums]
        for _, exponent in late:
            if spec.c_reach is None or not exponents or exponent >= max(exponents) - spec.c_reach:
                sums.append(rounded_down(c, top, spec.c_frac))
        self.value = self.result(total_of(sums), random)

    def product_terms(self, products: Sequence[Term]) -> Iterable[tuple[Dyadic, int]]:
        """Yield (value, exponent) of each term of a part that has an exponent."""
        spec = self.accumulator
        for first in range(0, len(products), spec.group):
            group = products[first : first + spec.group]
            value = exact_sum(group)
            if spec.group > 1:
                if value[0]:
                    yield value, exponent_of(value)
                continue
            exponent = self.nominal_exponent(group[0])
            if exponent is not None and (value[0] or spec.zero == "keep"):
                yield value, exponent

    def nominal_exponent(self, term: Term) -> int | None:
        """Return the exponent of a product as the sum of its operands', None for a zero operand without format."""
        if len(term) == 1:  # a value
            return max(exponent_of(dyadic.from_float(term[0])), STATE_MIN_EXPONENT) if term[0] else None
        total = 0
        for x, use in zip(term, self.run.spec.operands or (None, None), strict=True):
            least = None if use is None else exponent_of(dyadic.from_float(use.format.smallest_normal))
            if x == 0.0 and least is None:
                return None
            own = [] if x == 0.0 else [exponent_of(dyadic.from_float(x))]
            total += max(own + ([] if least is None else [least]))
        return total

    def result(self, total: Dyadic, random: int) -> float:
        """Round into the state; what overflows becomes what an infinity becomes, whatever the rounding."""
        use = self.accumulator.out
        if total[0] == 0:
            return use.format.project_special(0.0, use.overflow)
        if use.format.overflows(*total, use.mode, random):
            value = project_special(use, math.inf if total[0] > 0 else -math.inf, self.run)
        else:
            value = use.format.project_finite(*total, use.mode, use.overflow, random)
        self.run.underflows += value == 0.0
        return self.run.held(value, False)
