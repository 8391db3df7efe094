"""The formats whose arrays are rounded by the packages: posits by qtorch-plus, floats by qtorch."""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import dyadic
from ..floats import FloatFormat
from ..format import Format, as_float64
from ..posit import PositFormat
from ..rounding import Rounding, parse_rounding
from .extension import extension, run

PREFIX = "qtorch_"


class QtorchFormat(Format):
    """A format whose arrays are rounded by one of the packages: one rounding mode, one overflow mode."""

    package: ClassVar[str]
    function: ClassVar[str]  # of its extension
    infinity_is_nan: ClassVar[bool]
    no_stochastic: ClassVar[str]  # why there is no stochastic rounding

    @property
    @abstractmethod
    def record(self) -> Format:
        """Native format that gives the codes their values."""

    @property
    @abstractmethod
    def native_name(self) -> str:
        """Name of the native format to use for what the package does not offer."""

    @property
    @abstractmethod
    def parameters(self) -> tuple[float, ...]:
        """Arguments of the function after the tensor."""

    @abstractmethod
    def narrow(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return what the package is given for these values, none of which is NaN."""

    def known(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return inputs and the results that they must have, by which an extension is checked before its first use.

        Here each value of the format, which must stay; of more than 2**16 codes, 2**16 spread over all.
        """
        count = 1 << min(self.bits, 16)
        values = self.decode(np.arange(count, dtype=np.int64) * ((1 << self.bits) - 1) // (count - 1))
        numbers = values[~np.isnan(values)]
        return numbers, numbers

    # --- what the package computes ---------------------------------------------------------------------------------

    def quantize(
        self,
        x: ArrayLike,
        rounding: str | None = None,
        overflow: str | None = None,
        seed: int | None = None,
        axis: int = -1,
        offset: int = 0,
    ) -> NDArray[np.float64]:
        """Round an array with the package; arguments and errors as for Format.quantize.

        Raises:
            ValueError: also for any rounding but None and "rne", which both stand for the package's own nearest.
            ImportError: something that the package needs to be compiled is missing.
            RuntimeError: the package, as compiled here, is wrong.
        """
        self.modes(rounding, overflow)
        with np.errstate(invalid="ignore"):  # signalling NaN
            values = as_float64(x)
        if not self.has_nan and np.isnan(values).any():
            raise ValueError(f"{self.name} has no NaN, and the array holds one; replace it before quantising")
        return self.rounded_by(_checked(self), values)

    def rounded_by(self, function: Callable[..., Any], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Round values with a function of an extension.

        What the package takes for a number and is none never reaches it. Nor do zeros, of which it counts the leading
        zero bits, undefined in C++.
        """
        nan = np.isnan(values)
        if self.infinity_is_nan:
            nan |= np.isinf(values)
        zero = values == 0.0
        given = self.narrow(np.where(nan | zero, 1.0, values))
        return np.where(nan, np.nan, np.where(zero, 0.0, run(function, given, self.parameters)))

    def modes(self, rounding: str | None, overflow: str | None) -> tuple[Rounding, str]:
        mode = parse_rounding("rne" if rounding is None else rounding)
        if mode.stochastic:
            raise ValueError(
                f"{self.name}: rounding {rounding!r} is refused: {self.no_stochastic}; "
                f"use {self.native_name}/{rounding}"
            )
        if mode.mode != "rne":
            raise ValueError(
                f"{self.name}: rounding {rounding!r} is refused: {self.package} has one rounding, its own nearest, "
                f"written 'rne' here; use {self.native_name}/{rounding}"
            )
        if overflow not in (None, self.default_overflow):
            raise ValueError(
                f"{self.name}: overflow {overflow!r} is refused: {self.package} has one way with overflow, "
                f"{self.default_overflow!r}; use {self.native_name}"
            )
        return mode, self.default_overflow

    # --- what the native record says -------------------------------------------------------------------------------

    @property
    def bits(self) -> int:
        return self.record.bits

    @property
    def max(self) -> float:
        return self.record.max

    @property
    def smallest_normal(self) -> float:
        return self.record.smallest_normal

    @property
    def smallest_subnormal(self) -> float:
        return self.record.smallest_subnormal

    @property
    def default_overflow(self) -> str:
        return self.record.default_overflow

    @property
    def has_nan(self) -> bool:
        return self.record.has_nan

    def encode(
        self,
        x: ArrayLike,
        rounding: str | None = None,
        overflow: str | None = None,
        seed: int | None = None,
        offset: int = 0,
    ) -> NDArray[Any]:
        return self.record.encode(self.quantize(x, rounding, overflow))  # which changes none of these values

    def code_of(self, value: float) -> int:
        if value == 0.0 and math.copysign(1.0, value) < 0:
            raise ValueError(f"{self.name} has no negative zero")
        return self.record.code_of(value)

    def value_of(self, code: int) -> float:
        return self.record.value_of(code) + 0.0  # -0, which the packages do not have, becomes +0

    def decode(self, codes: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(self.record.decode(codes) + 0.0)

    def table(self) -> NDArray[np.float64]:
        return self.record.table() + 0.0


@dataclass(frozen=True)
class QtorchPosit(QtorchFormat):
    """A posit of n bits with es exponent bits, rounded by qtorch-plus. Equal to the native posit for every input.

    Args:
        name: canonical name; not part of the identity.
        n: width, 2 to 16. es: exponent bits, such that (1 << es) * (n - 2) <= 126.
    """

    name: str = field(compare=False)
    n: int
    es: int

    package: ClassVar[str] = "qtorch-plus"
    function: ClassVar[str] = "posit_quantize_nearest"
    infinity_is_nan: ClassVar[bool] = True
    no_stochastic: ClassVar[str] = "qtorch-plus rounds to nearest under that name"

    def __post_init__(self) -> None:
        if not 2 <= self.n <= 16:
            raise ValueError(
                f"{self.name}: n = {self.n}; qtorch-plus has posits of 2 to 16 bits, and ends the Python process for "
                "wider ones; use native posits such as posit32"
            )
        # n = 2 is held to the limit of n = 3: its values do not depend on es, but the package's constants do.
        if not (0 <= self.es <= 6 and (1 << self.es) * max(self.n - 2, 1) <= 126):
            raise ValueError(
                f"{self.name}: n = {self.n}, es = {self.es}; qtorch-plus holds posits in float32, and is silently "
                f"wrong unless (1 << es) * (n - 2) <= 126; use {self.native_name}"
            )

    @functools.cached_property
    def record(self) -> PositFormat:
        return PositFormat(self.native_name, self.n, self.es)

    @property
    def native_name(self) -> str:
        return self.name.removeprefix(PREFIX)

    @property
    def parameters(self) -> tuple[float, ...]:
        return self.n, self.es, 1.0

    def narrow(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        return odd_float32(values)

    def known(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Besides the values, the boundaries between them, each of which goes to the even code of its neighbours."""
        numbers, _ = super().known()
        values, boundaries = self.record.boundaries()
        ties = boundaries[1:]
        lower = np.arange(1, ties.size + 1)
        even = values[lower + lower % 2]
        return np.concatenate([numbers, ties, -ties]), np.concatenate([numbers, even, -even])

    def project_finite(self, integer: int, exponent: int, rounding: Rounding, overflow: str, word: int = 0) -> float:
        """Round as the native posit does: the packages have no exact numbers."""
        return self.record.project_finite(integer, exponent, *self.modes(str(rounding), overflow))

    def overflows(self, integer: int, exponent: int, rounding: Rounding, word: int = 0) -> bool:
        return self.record.overflows(integer, exponent, self.modes(str(rounding), None)[0])

    def project_special(self, x: float, overflow: str) -> float:
        return self.record.project_special(x, overflow)


@dataclass(frozen=True)
class QtorchFloat(QtorchFormat):
    """A float as qtorch rounds it, deviations included; its input must be exact in float32.

    Ties go away from zero. Below the smallest normal a value is first rounded at 2**-23 of it, ties to even, then to
    the subnormals. The top exponent holds numbers, and what exceeds them becomes the largest; but with 8 exponent bits
    it holds infinity and NaN as in IEEE 754. There is one zero.

    Args:
        name: canonical name; not part of the identity.
        exponent_bits: X, 1 to 8. fraction_bits: Y, 0 to 22.
    """

    name: str = field(compare=False)
    exponent_bits: int
    fraction_bits: int

    package: ClassVar[str] = "qtorch"
    function: ClassVar[str] = "float_quantize_nearest"
    infinity_is_nan: ClassVar[bool] = False
    no_stochastic: ClassVar[str] = (
        "qtorch seeds its random numbers from the operating system, so that no result could be repeated"
    )

    def __post_init__(self) -> None:
        if not 1 <= self.exponent_bits <= 8:
            raise ValueError(
                f"{self.name}: {self.exponent_bits} exponent bits; qtorch holds values in float32, and is silently "
                f"wrong unless they are 1 to 8; use {self.native_name}"
            )
        if not 0 <= self.fraction_bits <= 22:
            raise ValueError(
                f"{self.name}: {self.fraction_bits} fraction bits; qtorch has 0 to 22, and flips signs with 23; "
                f"use {self.native_name}"
            )

    @functools.cached_property
    def record(self) -> FloatFormat:
        dialect = "ieee" if self.exponent_bits == 8 else "finite"
        return FloatFormat(self.name, self.exponent_bits, self.fraction_bits, dialect=dialect)

    @property
    def native_name(self) -> str:
        return f"e{self.exponent_bits}m{self.fraction_bits}:ieee"

    @property
    def parameters(self) -> tuple[float, ...]:
        return self.fraction_bits, self.exponent_bits

    def narrow(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        with np.errstate(all="ignore"):
            narrowed = values.astype(np.float32)
        inexact = values[narrowed != values]
        if inexact.size:
            raise ValueError(
                f"{self.name}: {float(inexact[0])!r} is not exact in float32, which qtorch takes, and would be rounded "
                f"twice; convert the array to float32 yourself, or use {self.native_name}"
            )
        return narrowed

    def project_finite(self, integer: int, exponent: int, rounding: Rounding, overflow: str, word: int = 0) -> float:
        """Round by the package; ValueError unless float32 holds the value."""
        try:
            value = dyadic.to_float(integer, exponent)
        except (OverflowError, ValueError) as error:
            raise ValueError(
                f"{self.name}: {integer} * 2**{exponent} is not exact in float32, which qtorch takes; "
                f"use {self.native_name}"
            ) from error
        return float(self.quantize(value, str(rounding), overflow))

    def overflows(self, integer: int, exponent: int, rounding: Rounding, word: int = 0) -> bool:
        self.modes(str(rounding), None)
        return self.record.overflows(integer, exponent, Rounding("rna"))

    def project_special(self, x: float, overflow: str) -> float:
        return float(self.quantize(x, None, overflow))


def odd_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Round values to float32, to odd: what float32 does not hold becomes the neighbour whose last bit is odd.

    That neighbour and the value lie on the same side of every number of up to 23 significant bits in the normal range.
    The boundaries between posits of up to 16 bits are such numbers, so that rounding the neighbour to a posit is one
    rounding of the value. Beyond the range of float32 it is the smallest or the largest, hence minpos or maxpos.

    Source: Boldo and Melquiond 2008.
    """
    with np.errstate(all="ignore"):
        nearest = values.astype(np.float32)
    bits = np.array(nearest).view(np.uint32)
    wide = nearest.astype(np.float64)
    bits -= np.abs(wide) > np.abs(values)  # toward zero
    bits |= wide != values
    return bits.view(np.float32)


@functools.cache
def _checked(fmt: QtorchFormat) -> Callable[..., Any]:
    """Return the function that rounds to a format, after a check of what must come out of it.

    Raises:
        RuntimeError: something else did.
    """
    function = getattr(extension(fmt.package, fmt.name), fmt.function)
    inputs, expected = fmt.known()
    results = fmt.rounded_by(function, inputs)
    wrong = np.flatnonzero(results.view(np.uint64) != expected.view(np.uint64))
    if wrong.size:
        at = wrong[0]
        raise RuntimeError(
            f"{fmt.name}: {fmt.package} as compiled here is wrong for {wrong.size} of {inputs.size} inputs, "
            f"the first being {float(inputs[at])!r}, which gives {float(results[at])!r} instead of "
            f"{float(expected[at])!r}; use {fmt.native_name}"
        )
    return function
