"""The meaning of a MacSpec: inner products in exact Python integers, one rounding where the spec has one.

Slow and obvious on purpose. Kernels only have to agree with it, bit for bit.

Rules that hold for every accumulator: NaN in, NaN out; +Inf and -Inf together, and 0 * Inf, give NaN; other infinities
stay, as far as the use of the state lets them; an exact zero sum is +0 unless every term is -0, and under rd -0 unless
every term is +0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from formats import Use
from formats.philox import word

from ..accumulators import joins_late, without_late
from ..places import OUTPUT, SUM, A, B, Place, site_of
from ..spec import MacSpec
from . import aligned, chains, joins  # noqa: F401  (each says what some accumulators mean)
from .run import Run
from .state import state_of
from .sums import rounded_sum

__all__ = ["Place", "Run", "accumulate", "dot", "rounded_sum"]


def dot(
    spec: MacSpec, a: Sequence[float], b: Sequence[float], c: float | None = None, place: Place | None = None
) -> tuple[float, bool]:
    """Accumulate one inner product as a MacSpec prescribes.

    Args:
        a, b: K operands each, quantised to the operand formats first if the spec names any.
        c: addend, or None.
        place: of the output, for stochastic roundings; None for output 0 of a 1 x 1 result with seed 0.
    Returns:
        (value, whether a rounding on the way met a result beyond the largest finite value of its format,
        the conversions of a, b and c not counted). Exact definition.
    """
    run = Run(place or Place(), spec)
    if spec.operands:
        a = _quantized(spec.operands[0], a, run.place, A, run.place.row * len(a), 1)
        first_b = run.place.matrix * len(b) * run.place.columns + run.place.column
        b = _quantized(spec.operands[1], b, run.place, B, first_b, run.place.columns)
    late = joins_late(spec.accumulator)
    result = accumulate(a, b, None if late else c, run)
    final = run.word(OUTPUT, SUM) if spec.result.mode.stochastic else 0
    if late and c is not None:
        result = rounded_sum(spec.result, [(result,), (run.addend(spec.result, c),)], run, final)
    elif spec.output:
        result = rounded_sum(spec.output, [(result,)], run, final)
    return result, run.overflows > 0


def accumulate(a: Sequence[float], b: Sequence[float], c: float | None, run: Run) -> float:
    """Return the final state of the accumulator of `run.spec`, without its Late and before the output, and count.

    Args:
        a, b: K operands each, as the unit takes them. c: addend that starts the state, or None.
    """
    state = state_of(without_late(run.spec.accumulator), c, run)
    for x, y in zip(a, b, strict=True):
        state.push((x, y))
    return state.finish()


def _quantized(use: Use, values: Sequence[float], place: Place, node: int, first: int, stride: int) -> list[float]:
    """Round operands by the definition of the format, not by its fast twin."""
    if use.format.has_blocks:
        return use.quantize(list(values)).tolist()  # a block's values depend on each other
    if not use.format.has_nan and any(math.isnan(x) for x in values):
        raise ValueError(f"{use.format.name} has no NaN, and an operand holds one")

    def random(i: int) -> int:
        index = first + i * stride
        return word(place.seed, index, 0, site_of(node, place.site), 0, place.step) if use.mode.stochastic else 0

    return [use.format.project(float(x), use.mode, use.overflow, random(i)) for i, x in enumerate(values)]
