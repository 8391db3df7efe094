"""Codebooks: up to 65,536 values of any choice, given as a list; the code of a value is its place in the list.

Source: reference definition of this project. Between two neighbours the roundings do what `formats.rounding` says of
two neighbouring multiples, the one nearer to zero taking the place of the floor, and the parity of a value is that of
its place. The boundary at which the nearest modes change over is the exact mean of the two unless the codebook names
another; the directed modes, `odd` and `sr` go by the neighbours and their distances alone.
"""

from __future__ import annotations

import csv
import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import dyadic
from .arguments import code_of_format
from .format import Format
from .rounding import RANDOM_BITS, Rounding, parse_rounding, round_magnitude

MOST_VALUES = 1 << 16
_NEAREST = ("rne", "rna", "rnz")
_JAM = 2 * RANDOM_BITS  # bits of a distance ratio that are kept apart from its sticky bit; no mode asks for more


@dataclass(frozen=True)
class CodebookFormat(Format):
    """A finite list of values.

    There are no infinities and no NaN, so "ieee" and "satprop" do what "sat" does: beyond the ends, the end. A zero of
    either sign is rounded as a positive value if zero is not in the list.

    Args:
        name: canonical name; not part of the identity.
        values: 2 to 65,536 finite numbers that float64 holds, strictly increasing.
        boundaries: between each two neighbours, where rounding to nearest changes over, itself a tie; one fewer than
            values, each within its neighbours. None for the exact means.
    """

    name: str = field(compare=False)
    values: tuple[float, ...]
    boundaries: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        values = _floats(self.name, "values", self.values)
        object.__setattr__(self, "values", values)
        problem = problem_of_values(values)
        if problem:
            raise ValueError(f"{self.name}: values[{problem[0]}]: {problem[1]}")
        if not 2 <= len(values) <= MOST_VALUES:
            raise ValueError(f"{self.name}: got {len(values)} values; a codebook has 2 to {MOST_VALUES}")
        if self.boundaries is None:
            return
        boundaries = _floats(self.name, "boundaries", self.boundaries)
        object.__setattr__(self, "boundaries", boundaries)
        if len(boundaries) != len(values) - 1:
            raise ValueError(
                f"{self.name}: got {len(boundaries)} boundaries for {len(values)} values; "
                f"expected one between each two neighbours, {len(values) - 1}, or none at all"
            )
        problem = problem_of_boundaries(values, boundaries)
        if problem:
            raise ValueError(f"{self.name}: boundaries[{problem[0]}]: {problem[1]}")

    @classmethod
    def from_csv(cls, path: str | Path, name: str) -> CodebookFormat:
        """Read a codebook from a comma-separated file.

        Args:
            path: file with a line for each value, in ascending order: the value, and optionally the boundary to the
                next one (in every line but the last, or in none). A first line "value" or "value,boundary", empty
                lines and lines that begin with # are skipped.
            name: name of the format.
        Raises:
            ValueError: file and line, what was found there, what was expected.
        """
        values: list[float] = []
        boundaries: list[float | None] = []
        lines: list[int] = []
        for line, cells in _rows(path):
            if not any(cells) or cells[0].startswith("#") or (not values and _is_title(cells)):
                continue
            where = f"{path}:{line}"
            if len(cells) > 2:
                raise ValueError(f"{where}: got {len(cells)} columns; expected a value and, optionally, a boundary")
            values.append(_number(where, "value", cells[0]))
            boundaries.append(_number(where, "boundary", cells[1]) if len(cells) == 2 and cells[1] else None)
            lines.append(line)
        if len(values) < 2:
            raise ValueError(f"{path}: got {len(values)} values; expected at least 2, one a line")
        problem = problem_of_values(values)
        if problem:
            raise ValueError(f"{path}:{lines[problem[0]]}: value: {problem[1]}")
        if all(boundary is None for boundary in boundaries):
            return cls(name, tuple(values))
        if boundaries[-1] is not None:
            raise ValueError(f"{path}:{lines[-1]}: boundary: got {boundaries[-1]!r} after the last value; leave it out")
        given = [boundary for boundary in boundaries if boundary is not None]
        if len(given) != len(values) - 1:
            line = lines[boundaries.index(None)]
            raise ValueError(f"{path}:{line}: boundary: none, but other lines have one; give all but the last or none")
        problem = problem_of_boundaries(values, given)
        if problem:
            raise ValueError(f"{path}:{lines[problem[0]]}: boundary: {problem[1]}")
        return cls(name, tuple(values), tuple(given))

    def __hash__(self) -> int:
        return self._hash

    # --- derived numbers -------------------------------------------------------------------------------------------

    @property
    def bits(self) -> int:
        return (len(self.values) - 1).bit_length()

    @property
    def code_count(self) -> int:
        return len(self.values)

    @property
    def max(self) -> float:
        return self.values[-1]

    @property
    def min(self) -> float:
        """Smallest value."""
        return self.values[0]

    @property
    def smallest_normal(self) -> float:
        """Smallest magnitude other than zero: a list has no subnormals."""
        return min(abs(v) for v in self.values if v)

    @property
    def smallest_subnormal(self) -> float:
        return self.smallest_normal

    @property
    def has_nan(self) -> bool:
        return False

    @property
    def default_overflow(self) -> str:
        return "sat"

    @cached_property
    def _hash(self) -> int:
        return hash((self.values, self.boundaries))

    @cached_property
    def _array(self) -> NDArray[np.float64]:
        return np.array(self.values)

    @cached_property
    def changeovers(self) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        """Each boundary as the float64 nearest to it and the sign of boundary minus float64. Exact.

        A float64 below that nearest one lies below the boundary, one above lies above, and for itself the sign decides.
        """
        if self.boundaries is not None:
            return np.array(self.boundaries), np.zeros(len(self.boundaries), np.int8)
        nearest, signs = [], []
        for low, high in itertools.pairwise(self.values):
            (a, b), unit = _as_integers(low, high)
            near = (a + b) / (2 * unit)  # a quotient of integers: correctly rounded
            numerator, denominator = near.as_integer_ratio()
            beyond = (a + b) * denominator - 2 * unit * numerator
            nearest.append(near)
            signs.append((beyond > 0) - (beyond < 0))
        return np.array(nearest), np.array(signs, np.int8)

    # --- the definition --------------------------------------------------------------------------------------------

    def project(self, x: float, rounding: str | Rounding, overflow: str, word: int = 0) -> float:
        if x == 0.0:  # needs rounding like any other value where it is not in the list
            return self.values[self.index_of(0.0, parse_rounding(str(rounding)), word)]
        return super().project(x, rounding, overflow, word)

    def project_finite(self, integer: int, exponent: int, rounding: Rounding, overflow: str, word: int = 0) -> float:
        return self.values[self.index_of(_exact(integer, exponent), rounding, word)]

    def overflows(self, integer: int, exponent: int, rounding: Rounding, word: int = 0) -> bool:
        return not self.values[0] <= _exact(integer, exponent) <= self.values[-1]

    def project_special(self, x: float, overflow: str) -> float:
        if math.isnan(x):
            raise ValueError(f"{self.name} has no NaN; replace it before quantising")
        if x == 0.0:
            return self.values[self.index_of(0.0, Rounding("rne"))]
        return self.max if x > 0 else self.min

    def index_of(self, x: float | Fraction, rounding: Rounding, word: int = 0) -> int:
        """Return the code to which an exact number is rounded. Correctly rounded."""
        low = bisect_right(self.values, x) - 1
        if low < 0:
            return 0
        if low == len(self.values) - 1 or self.values[low] == x:
            return low
        toward_zero, away = (low, low + 1) if x >= 0 else (low + 1, low)
        given = [] if self.boundaries is None else [self.boundaries[low]]
        (position, here, there, *boundary), _ = _as_integers(x, self.values[toward_zero], self.values[away], *given)
        if rounding.mode in _NEAREST:
            # Before, at or past the boundary, as seen from zero: a quarter, a half or three quarters of the way.
            excess = 2 * position - (2 * boundary[0] if boundary else here + there)
            past = ((excess > 0) - (excess < 0)) * (1 if x >= 0 else -1)
            part, shift = 2 + past, 2
        else:
            quotient, rest = divmod(abs(position - here) << _JAM, abs(there - here))
            part, shift = quotient << 1 | bool(rest), _JAM + 1
        up = round_magnitude(part, shift, rounding, x < 0, word, odd=bool(toward_zero & 1))
        return away if up else toward_zero

    # --- the same as thresholds, for searching ---------------------------------------------------------------------

    def is_monotone(self, rounding: Rounding) -> bool:
        """Whether larger numbers never get smaller codes: not where "rz" has no zero to round to."""
        return rounding.mode != "rz" or 0.0 in self.values or self.min > 0 or self.max < 0

    def thresholds(self, rounding: Rounding) -> NDArray[np.float64]:
        """Return for each code but the first the smallest float64 that is rounded to it or beyond, ascending. Exact.

        For "sr" that is the value itself, below which the code is left to chance.

        Raises:
            ValueError: the mode is not monotone for these values.
        """
        if not self.is_monotone(rounding):
            raise ValueError(f"{self.name}: {rounding} is not monotone where values of both signs have no zero between")
        low, high = self._array[:-1], self._array[1:]
        above_low = np.nextafter(low, np.inf)
        odd = np.arange(low.size) % 2 == 1
        if rounding.mode in _NEAREST:
            nearest, signs = self.changeovers
            tie_up = {"rne": odd, "rna": nearest >= 0, "rnz": nearest < 0}[rounding.mode]
            from_nearest = (signs < 0) | ((signs == 0) & tie_up)
            found = np.where(from_nearest, nearest, np.nextafter(nearest, np.inf))
            return np.clip(found, above_low, high) + 0.0  # values of the list stay
        first = {"rz": high <= 0, "ru": True, "rd": False, "odd": ~odd, "sr": False}[rounding.mode]
        return np.where(first, above_low, high) + 0.0

    def table(self) -> NDArray[np.float64]:
        """Return the values, in code order; their number need not be a power of two."""
        return self._array.copy()

    # --- codes -----------------------------------------------------------------------------------------------------

    def value_of(self, code: int) -> float:
        return self.values[code_of_format(self.name, code, len(self.values))]

    def code_of(self, value: float) -> int:
        code = bisect_left(self.values, value)
        negative_zero = value == 0.0 and math.copysign(1.0, value) < 0
        if code == len(self.values) or self.values[code] != value or negative_zero:
            raise ValueError(f"{value!r} is not a value of {self.name}")
        return code


def problem_of_values(values: Sequence[float]) -> tuple[int, str] | None:
    """Return the place of the first value that does not exceed the one before and what is wrong with it, if any."""
    for i in range(1, len(values)):
        if not values[i] > values[i - 1]:
            return i, f"got {values[i]!r} after {values[i - 1]!r}; list each value once, in ascending order"
    return None


def problem_of_boundaries(values: Sequence[float], boundaries: Sequence[float]) -> tuple[int, str] | None:
    """Return the place of the first boundary outside its neighbours and what is wrong with it, if any."""
    for i, ((low, high), boundary) in enumerate(zip(itertools.pairwise(values), boundaries, strict=True)):
        if not low <= boundary <= high:
            return i, f"got {boundary!r}; expected one from {low!r} to {high!r}, the values that it separates"
    return None


def _floats(name: str, what: str, given: Iterable[float]) -> tuple[float, ...]:
    """Convert numbers to float64, exactly, zeros to +0."""
    converted = []
    for i, number in enumerate(given):
        try:
            value = float(number) + 0.0
            exact = math.isfinite(value) and value == number
        except (TypeError, ValueError, OverflowError):
            exact = False
        if not exact:
            raise ValueError(f"{name}: {what}[{i}]: got {number!r}; expected a finite number that float64 holds")
        converted.append(value)
    return tuple(converted)


def _as_integers(*numbers: float | Fraction) -> tuple[list[int], int]:
    """Return dyadic numbers as integers over a common denominator, and that. Exact."""
    ratios = [number.as_integer_ratio() for number in numbers]
    unit = max(denominator for _, denominator in ratios)  # powers of two: the largest is a multiple of all
    return [numerator * (unit // denominator) for numerator, denominator in ratios], unit


def _exact(integer: int, exponent: int) -> float | Fraction:
    """Return integer * 2**exponent as something that compares exactly with floats."""
    try:
        return dyadic.to_float(integer, exponent)
    except (OverflowError, ValueError):
        return integer * Fraction(2) ** exponent


def _rows(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Read the rows of a comma-separated file, each with the number of its line; ValueError if it is none."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        try:
            for row in reader:
                yield reader.line_num, [cell.strip() for cell in row]
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not text in UTF-8 ({error.reason}); save it as UTF-8") from None
        except csv.Error as error:
            raise ValueError(f"{path}:{reader.line_num}: not comma-separated: {error}") from None


def _is_title(cells: list[str]) -> bool:
    return [cell.lower() for cell in cells] in (["value"], ["value", "boundary"])


def _number(where: str, what: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{where}: {what}: got {text!r}; expected a finite number such as 0.125")
    return number + 0.0
