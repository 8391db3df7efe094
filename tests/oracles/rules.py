"""From a format's name (or a codebook's values) to the integer oracle of its family, and numbers to try it on."""

from __future__ import annotations

import math
import re
from typing import Protocol

import numpy as np

from .float_rules import CodebookRules, FixedRules, float_rules
from .integers import Floats, Words
from .tapered_rules import PositRules, TakumRules

STOCHASTIC = ("sr", "sr:1", "sr:3:b", "sr:5:c", "sr:20", "sr:63:b", "sr:63:c")


class Rules(Protocol):
    """An oracle: what a format makes of an array, its values, and boundaries near given numbers."""

    def quantized(self, x: Floats, mode: str, overflow: str, random: Words | None = None) -> Floats: ...
    def values(self) -> Floats: ...
    def ties(self, x: Floats) -> Floats: ...


def rules_of(name: str) -> Rules:
    """Return the oracle of a float, posit, takum, fixed-point or integer format by its name."""
    floats = float_rules(name)
    if floats is not None:
        return floats
    if match := re.fullmatch(r"posit(\d+)(?:e(\d+))?", name):
        return PositRules(int(match[1]), 2 if match[2] is None else int(match[2]))
    if match := re.fullmatch(r"takum(\d+)", name):
        return TakumRules(int(match[1]))
    match = re.fullmatch(r"(u?)(?:int(\d+)|fix(\d+)\.(\d+))", name)
    assert match, f"no oracle for {name}"
    return FixedRules(int(match[2] or match[3]), int(match[4] or 0), not match[1])


def rules_of_codebook(values: tuple[float, ...], boundaries: tuple[float, ...] | None) -> Rules:
    """Return the oracle of a codebook."""
    return CodebookRules(values, boundaries)


def beside(x: Floats) -> Floats:
    """Numbers and their float64 neighbours."""
    with np.errstate(over="ignore"):
        x = np.concatenate([x, np.nextafter(x, math.inf), np.nextafter(x, -math.inf)])
    return x[np.isfinite(x)]


def exhaustive(rules: Rules) -> Floats:
    """All values and boundaries and their float64 neighbours, and numbers beyond both ends, for small formats."""
    values = rules.values()
    up = np.nextafter(values, math.inf)
    ties = rules.ties(np.concatenate([values, up, np.nextafter(values, -math.inf)]))
    return np.unique(np.concatenate([beside(values), beside(ties), ends(values)]))


def ends(values: Floats) -> Floats:
    """Half an ulp, one ulp and twice the largest beyond each end; fractions of the smallest; the ends of float64."""
    with np.errstate(over="ignore"):
        out = [
            end + factor * (end - inner)
            for end, inner in ((values[-1], values[-2]), (values[0], values[1]))
            for factor in (0.25, 0.5, 1.0, 1.5, 2.0, 4.0)
        ]
        small = np.abs(values[values != 0]).min()
        out += [2 * values[-1], 2 * values[0], 3 * values[-1], *(small * np.array([2.0**-60, 0.25, 0.5, 0.75, 1.5]))]
    x = np.array([*out, 5e-324, 1e-310, 2.0**-1022, 1e300, 1.7976931348623157e308, 2.0**52 + 1, 2.0**63, 2.0**64])
    x = beside(x[np.isfinite(x)])
    return np.concatenate([x, -x])


def specials(has_nan: bool, infinities: bool = True) -> Floats:
    """Zeros of both signs, infinities, NaN."""
    return np.array([0.0, -0.0, *([math.inf, -math.inf] if infinities else []), *([math.nan] if has_nan else [])])


def mixture(rules: Rules, low: float, high: float, count: int, seed: int) -> Floats:
    """Numbers of all exponents of a format and some beyond, a third of them on and next to boundaries; both signs.

    Args:
        low, high: the smallest and the largest positive value.
    """
    rng = np.random.default_rng(seed)
    first, last = max(math.frexp(low)[1] - 4, -1073), min(math.frexp(high)[1] + 3, 1024)
    exponents = rng.integers(first, last + 1, count)
    exponents[: count // 8] = rng.integers(last - 4, last + 1, count // 8)
    exponents[count // 8 : 2 * (count // 8)] = rng.integers(first, first + 10, count // 8)
    x = np.ldexp(rng.uniform(0.5, 1.0, count), exponents) * rng.choice([-1.0, 1.0], count)
    third = slice(count // 3, 2 * (count // 3))
    near = rules.ties(x[third])
    with np.errstate(over="ignore"):
        for _ in range(2):
            step = rng.integers(-1, 2, near.size)
            near = np.where(step == 0, near, np.nextafter(near, np.where(step > 0, math.inf, -math.inf)))
    x[third] = np.where(np.isfinite(near), near, x[third])
    return rng.permutation(x)
