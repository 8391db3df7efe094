"""alpha * (a b) + beta * c: what a unit's epilogue does to the accumulated sum."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from native.twins import add, convert, quantize, scale
from native.uses import CODEBOOKS

from .accumulators import result_use, without_late
from .engine import Accumulation, RandomKey, Ready, random_words
from .places import ALPHA, BETA, OUTPUT, C
from .spec import MacSpec
from .stats import Stats


def scaled(
    spec: MacSpec,
    a: NDArray[Any],
    b: NDArray[Any] | Ready,
    c: NDArray[Any] | None,
    threads: int | None,
    key: RandomKey,
    stats: bool | str,
    alpha: float,
    beta: float,
) -> tuple[NDArray[Any], Stats | None]:
    """Return R(R_s(alpha * sum) + R_s(beta * R_s(c))), the sum accumulated from +0; correctly rounded each time.

    a (M, K), b (K, N) and c (M, N). R_s is the rounding of the accumulator's state, R that of the output, or of the
    state again where there is none. Without c the second rounding is there only if the MAC names an output.

    Raises:
        ValueError: a state or output that is a codebook, for which the engine has no such functions.
    """
    state = result_use(spec.accumulator)
    for use in (state, spec.result):
        if use.format.family == CODEBOOKS:
            raise ValueError(f"{use}: alpha and beta are for floats, posits, takums and fixed point")
    sums = replace(spec, accumulator=without_late(spec.accumulator), output=None)
    y, counted = Accumulation(sums, a, b, None, threads, key).dense(stats)
    flags = None if counted is None else counted.overflowed

    def words(node: int) -> dict[str, Any]:
        return random_words(key, node, key.first)

    y = scale(y, alpha, state, flags, **words(ALPHA))
    if c is not None:
        addend = scale(quantize(np.ascontiguousarray(c), state, **words(C)), beta, state, flags, **words(BETA))
        y = add(y, addend, spec.result, flags, **words(OUTPUT))
    elif spec.output is not None:
        y = quantize(y, spec.output, overflow=flags, **words(OUTPUT))
    if counted is not None and counted.exact is not None:
        exact = alpha * counted.exact + (0.0 if c is None else beta * convert(c, np.float64))
        counted = replace(counted, exact=exact, errors=convert(y, np.float64) - exact)
    return convert(y, spec.dtype), counted
