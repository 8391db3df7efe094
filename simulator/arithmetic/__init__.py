"""MAC units: what they are (spec), what they mean (reference), how they run (engine)."""

from .accumulators import (
    Accumulator,
    Aligned,
    Chunk,
    Exact,
    Fixed,
    Fma,
    Interleave,
    Kahan,
    Late,
    Neumaier,
    Reverse,
    Seq,
    Tree,
)
from .criterion import Criterion
from .engine import Accumulation
from .grammar import Named, accumulator, names_of
from .ladder import LadderResult, ladder
from .presets import LABELS, Output, Preset, presets
from .products import dot, matmul
from .spec import MacSpec, mac
from .stats import Stats
from .two_pass import TwoPassResult, two_pass

__all__ = [
    "LABELS",
    "Accumulation",
    "Accumulator",
    "Aligned",
    "Chunk",
    "Criterion",
    "Exact",
    "Fixed",
    "Fma",
    "Interleave",
    "Kahan",
    "LadderResult",
    "Late",
    "MacSpec",
    "Named",
    "Neumaier",
    "Output",
    "Preset",
    "Reverse",
    "Seq",
    "Stats",
    "Tree",
    "TwoPassResult",
    "accumulator",
    "dot",
    "ladder",
    "mac",
    "matmul",
    "names_of",
    "presets",
    "two_pass",
]
