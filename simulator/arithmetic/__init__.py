"""MAC units: what they are (spec), what they mean (reference), how they run (engine)."""

from .accumulators import Accumulator, Chunk, Exact, Fma, Late, Seq
from .engine import Accumulation
from .grammar import accumulator
from .products import dot, matmul
from .spec import MacSpec, mac
from .stats import Stats
from .two_pass import Criterion, TwoPassResult, two_pass

__all__ = [
           "Accumulation",
           "Accumulator",
           "Chunk",
           "Criterion",
           "Exact",
           "Fma",
           "Late",
           "MacSpec",
           "Seq",
           "Stats",
           "TwoPassResult",
           "accumulator",
           "dot",
           "mac",
           "matmul",
           "two_pass",
]  # fmt: skip
