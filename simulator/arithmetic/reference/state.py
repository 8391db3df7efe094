"""What a unit holds while products come in: the interface of all accumulators, and which class means which."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from formats import Use

from ..accumulators import Accumulator
from ..places import PRODUCT, SUM
from .run import Run
from .sums import Term, rounded_sum, special_product

_MEANINGS: dict[type[Accumulator], type[State]] = {}


class State(ABC):
    """What a unit holds for one output while products, or values of an inner accumulator, come in."""

    def __init__(self, accumulator: Accumulator, c: float | None, run: Run, node: int) -> None:
        self.accumulator, self.run, self.node = accumulator, run, node
        self.start(c)

    def start(self, c: float | None) -> None:
        """Hold the addend, converted to the state's format; +0 without one."""
        use = self.accumulator.sum  # type: ignore[union-attr]
        self.value = 0.0 if c is None else self.run.addend(use, c)

    @abstractmethod
    def push(self, term: Term) -> None:
        """Take one more product (two factors) or value (one factor)."""

    def finish(self) -> float:
        """Return the accumulated value."""
        return self.value

    def rounded(self, use: Use, terms: Sequence[Term], which: int) -> float:
        """Return one rounding of the sum of terms, with this node's next random word."""
        random = self.run.word(self.node, which) if use.mode.stochastic else 0
        return rounded_sum(use, terms, self.run, random)

    def step(self, use: Use, s: float, terms: Sequence[Term]) -> float:
        """Return R(s + terms), the next value of a sum."""
        overflows = self.run.overflows
        value = self.rounded(use, [(s,), *terms], SUM)
        added = any(special_product(term) != 0.0 for term in terms)
        return self.run.held(value, value == s and added and self.run.overflows == overflows)

    def rounded_product(self, use: Use, term: Term) -> Term:
        """Return a product rounded; a value is none and stays."""
        return (self.rounded(use, [term], PRODUCT),) if len(term) == 2 else term


def means(accumulator: type[Accumulator]) -> Callable[[type[State]], type[State]]:
    """Make a class the meaning of an accumulator."""

    def known(state: type[State]) -> type[State]:
        _MEANINGS[accumulator] = state
        return state

    return known


def state_of(accumulator: Accumulator, c: float | None, run: Run, node: int = 0) -> State:
    """Return the state of an accumulator, whose number in the order of `numbered` is `node`."""
    return _MEANINGS[type(accumulator)](accumulator, c, run, node)
