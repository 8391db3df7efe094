"""Codes, values and numbers on which the contract of a format is tried: by its public methods alone, and seeded."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from formats import OVERFLOWS, CodebookFormat, Format
from tests.oracles.neighbours import DETERMINISTIC

SEED = 72
STOCHASTIC = ("sr", "sr:1", "sr:3:b", "sr:5:c", "sr:63:c")
ROUNDINGS = (*DETERMINISTIC, *STOCHASTIC)


@cache
def overflow_modes(fmt: Format) -> tuple[str, ...]:
    """The overflow modes that a format takes."""
    taken = []
    for mode in OVERFLOWS:
        try:
            fmt.modes("rne", mode)
        except ValueError as error:
            assert fmt.name in str(error) and mode in str(error), f"{fmt.name}/{mode}: {error}"
        else:
            taken.append(mode)
    return tuple(taken)


@cache
def codes_of(fmt: Format) -> NDArray[np.uint64]:
    """All codes of formats of at most 16 bits; of wider ones both ends, the middle, the quarters, and random codes."""
    if fmt.bits <= 16:
        return np.arange(fmt.table().size, dtype=np.uint64)
    count = 1 << fmt.bits
    near = [start + i for start in range(0, count, count // 4) for i in range(-30, 30)]
    rng = np.random.default_rng(SEED)
    return np.array([c % count for c in near] + rng.integers(0, count - 1, 400, np.uint64, True).tolist(), np.uint64)


@cache
def values_of(fmt: Format) -> NDArray[np.float64]:
    """The values of `codes_of`, one by one."""
    return np.array([fmt.value_of(int(code)) for code in codes_of(fmt)])


@cache
def finite_of(fmt: Format) -> NDArray[np.float64]:
    """The finite values among them, ascending, without -0."""
    values = values_of(fmt)
    return np.unique(values[np.isfinite(values)] + 0.0)


@cache
def edges_of(fmt: Format) -> NDArray[np.float64]:
    """Numbers at and beyond both ends of the range and around zero; infinities, zeros and (if it has one) NaN."""
    finite = finite_of(fmt)
    ends = []
    with np.errstate(over="ignore"):
        for end, next_inside in ((finite[-1], finite[-2]), (finite[0], finite[1])):
            step = end - next_inside
            ends += [end, end + step / 2, np.nextafter(end + step / 2, 0), end + step, 2 * end]
            ends += [np.nextafter(end, math.inf), np.nextafter(end, -math.inf)]
        half = fmt.smallest_subnormal / 2
        ends += [half, math.nextafter(half, 1), math.nextafter(half, 0), 3 * half, fmt.smallest_subnormal, 5e-324]
        ends += [math.nextafter(fmt.smallest_normal, 0), 1.7976931348623157e308, 2.0**64 + 2.0**12]
        numbers = np.array(ends)
    numbers = np.concatenate([numbers, -numbers])
    specials = [0.0, -0.0, math.inf, -math.inf, *([math.nan] if fmt.has_nan else [])]
    return np.concatenate([numbers[np.isfinite(numbers)], specials])


@cache
def probes_of(fmt: Format) -> NDArray[np.float64]:
    """Values, the means of neighbours and their float64 neighbours, random numbers of all magnitudes, and the edges."""
    rng = np.random.default_rng(SEED)
    finite = finite_of(fmt)
    if finite.size > 32:
        zero = int(np.searchsorted(finite, 0.0))
        places = [*range(4), *range(zero - 5, zero + 5), *range(finite.size - 4, finite.size)]
        places += rng.integers(0, finite.size, 12).tolist()
        finite = finite[np.unique(np.clip(places, 0, finite.size - 1))]
    means = finite[1:] / 2 + finite[:-1] / 2
    if fmt.bits > 16:  # the neighbours in the list are not those in the format
        up = np.array([fmt.project(math.nextafter(v, math.inf), "ru", "sat") for v in finite.tolist()])
        means = finite / 2 + up / 2
    beside = np.concatenate([means, np.nextafter(means, math.inf), np.nextafter(means, -math.inf)])
    low, high = math.log2(fmt.smallest_subnormal) - 2, min(math.log2(abs(finite).max()) + 1, 1023)
    spread = np.exp2(rng.uniform(max(low, -1073), high, 20)) * rng.choice([-1.0, 1.0], 20)
    between = rng.uniform(finite[0] / 2, finite[-1] / 2, 12)
    return np.concatenate([finite, beside, spread, between, edges_of(fmt)])


def without(x: NDArray[np.float64], overflow: str) -> NDArray[np.float64]:
    """Leave out what an overflow mode refuses: infinities do not wrap around."""
    return x[np.isfinite(x)] if overflow == "wrap" else x


@cache
def mirrored_in(fmt: Format) -> bool:
    """Whether every value within +-max has its negative, and a code of the same parity for it, and ties are means.

    Without one of the three, roundings to nearest need not commute with negation.
    """
    finite = finite_of(fmt)
    inside = finite[(np.abs(finite) <= fmt.max) & (finite != 0)]
    if not (inside < 0).any() or (isinstance(fmt, CodebookFormat) and fmt.boundaries is not None):
        return False
    try:
        return all((fmt.code_of(v) - fmt.code_of(-v)) % 2 == 0 for v in inside[:: max(inside.size // 300, 1)].tolist())
    except ValueError:
        return False
