"""MAC units: what they are (spec), what they mean (reference), how they run (engine)."""

from .accumulators import Accumulator, Chunk, Exact, Fma, Late, Seq
from .engine import Accumulation, Stats, dot, matmul
from .spec import MacSpec, accumulator, mac

__all__ = ["Accumulation", "Accumulator", "Chunk", "Exact", "Fma", "Late", "MacSpec", "Seq", "Stats", "accumulator",
           "dot", "mac", "matmul"]  # fmt: skip
