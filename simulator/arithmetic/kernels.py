"""Which kernel runs: the cheapest whose condition holds for the accumulator and the operands at hand.

A kernel equals the definition only under its condition (conditions.py); that of the integer kernel holds for nearly
everything, that of the definition always.
"""

from __future__ import annotations

from dataclasses import dataclass

from formats import FloatFormat, PositFormat

from . import conditions
from .conditions import Shortcuts
from .situation import FLOAT32, FLOAT64, Clause, Situation, uses_of

MAX_COUNTED = 1 << 29  # products of an output whose roundings, of the runs too, lanes of 32 bits can count


@dataclass(frozen=True)
class Kernel:
    """A kernel of the engine with its condition.

    Args:
        name: as in native/src/kernels.def, or "definition": the Python reference, element by element.
        leaf: kind of leaf it runs, or None for any; "fma" also runs a seq whose products need no rounding, "exact"
            a fixed-point sum that provably stays exact and in range.
        rounds: whether its results are values of the accumulator's use; if not, they are exact and still to be rounded.
        counts: whether it counts what roundings meet, beyond flags of overflow; exact sums are counted where they are
            rounded, so that those of fixed point, whose every step counts, are not.
    """

    name: str
    leaf: str | None
    rounds: bool = True
    counts: bool = False

    def runs(self, kind: str) -> bool:
        """Whether this kernel may run leaves of this kind."""
        also = (("fma", "seq"), ("exact", "fixed_point"))
        return self.leaf in (None, kind) or ((self.leaf, kind) in also and not self.posits)

    def condition(self, situation: Situation) -> list[Clause]:
        """Return the clauses of the condition; the kernel equals the definition if all hold."""
        if self.name == "definition":
            return [Clause("the definition itself: always", True)]
        if self.name == "integer_any":
            return conditions.integers(situation)
        if self.name == "float64_any":
            return conditions.any_lanes(situation)
        kind = situation.leaf.kind
        if not self.runs(kind):
            return [Clause(f"this kernel runs {self.leaf}, and the accumulator's leaf is {kind}", False)]
        if kind == "fma" and situation.leaf.length > 1:
            return [Clause(f"this kernel takes one product a step, and the accumulator {situation.leaf.length}", False)]
        lane = FLOAT32 if self.name.startswith("float32") else FLOAT64
        if self.leaf == "exact":
            return conditions.exact_lanes(lane, situation)
        if self.leaf == "aligned":
            return conditions.aligned_lanes(situation)
        family = PositFormat if self.posits else FloatFormat
        strange = [str(use) for use in uses_of(situation) if not isinstance(use.format, family)]
        if strange:
            return [Clause(f"sums are {'posits' if self.posits else 'floats'}; {strange[0]} is none", False)]
        if self.posits:
            return conditions.posit_lanes(lane, situation)
        assert self.leaf is not None
        return conditions.float_lanes(lane, self.leaf, self.name.endswith("odd"), situation)

    @property
    def posits(self) -> bool:
        """Whether its roundings are into posits."""
        return "posit" in self.name

    def can_count(self, situation: Situation) -> bool:
        """Whether it counts what the roundings of these inner products meet."""
        if not self.rounds:
            return self.counts and situation.leaf.kind == self.leaf
        return self.counts and (situation.k <= MAX_COUNTED or not self.name.startswith("float32"))

    def shortcuts(self, situation: Situation) -> Shortcuts | None:
        """Return what may be left out of each step, or None for a kernel whose steps leave nothing out."""
        if self.leaf in ("fma", "seq") and not self.posits:
            return conditions.shortcuts(situation)
        return None


# Cheapest first.
KERNELS = (
    Kernel("float32_fma", "fma", counts=True),
    Kernel("float32_seq", "seq", counts=True),
    Kernel("float32_fma_odd", "fma", counts=True),
    Kernel("float32_posit_fma_odd", "fma", counts=True),
    Kernel("float32_posit_seq_odd", "seq", counts=True),
    Kernel("float32_aligned", "aligned", counts=True),
    Kernel("float32_exact", "exact", rounds=False, counts=True),
    Kernel("float64_exact", "exact", rounds=False, counts=True),
    Kernel("float64_fma", "fma", counts=True),
    Kernel("float64_seq", "seq", counts=True),
    Kernel("float64_fma_odd", "fma", counts=True),
    Kernel("float64_seq_odd", "seq", counts=True),
    Kernel("float64_any", None, counts=True),
    Kernel("integer_any", None, counts=True),
    Kernel("definition", None, counts=True),
)


def kernel_named(name: str) -> Kernel:
    """Return a kernel by its name."""
    return next(kernel for kernel in KERNELS if kernel.name == name)


def choose(situation: Situation, counts: bool = False) -> tuple[Kernel, list[tuple[Kernel, list[Clause]]]]:
    """Return the cheapest kernel whose condition holds, and every kernel up to it with its clauses.

    Args:
        counts: only of the kernels that count.
    """
    tried: list[tuple[Kernel, list[Clause]]] = []
    for kernel in KERNELS:
        if counts and not kernel.can_count(situation):
            continue
        clauses = kernel.condition(situation)
        tried.append((kernel, clauses))
        if all(clause.holds for clause in clauses):
            return kernel, tried
    raise AssertionError("the definition holds always")
