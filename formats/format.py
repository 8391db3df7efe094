"""What every number format offers: arrays around one exact scalar definition.

A Format is a finite set of values with a code for each. It carries no rounding of its own; rounding and overflow
belong to the *use* of a format (see use.py), and a format only names its defaults.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import dyadic
from .environment import in_default_environment
from .notebook import Shown, View, frame
from .philox import check_offset, check_seed, word
from .rounding import Rounding, parse_rounding

if TYPE_CHECKING:
    from .notebook import DataFrame

OVERFLOWS = ("ieee", "sat", "satprop", "nan", "wrap")


class Format(Shown, ABC):
    """A number system: a finite set of values, a code for each, and how a real number is projected onto it."""

    # Fast twins by family and operation, installed by the package `native`; each is equal to the definition here.
    fast_twins: ClassVar[dict[tuple[str, str], Callable[..., Any]]] = {}

    name: str

    # --- what a family defines -------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def bits(self) -> int:
        """Width of a code in bits."""

    @property
    @abstractmethod
    def max(self) -> float:
        """Largest finite value."""

    @property
    @abstractmethod
    def smallest_normal(self) -> float:
        """Smallest positive value with full precision."""

    @property
    @abstractmethod
    def smallest_subnormal(self) -> float:
        """Smallest positive value of all."""

    @property
    @abstractmethod
    def default_overflow(self) -> str:
        """Overflow mode of a use that names none."""

    @abstractmethod
    def project_finite(self, integer: int, exponent: int, rounding: Rounding, overflow: str, word: int = 0) -> float:
        """Round integer * 2**exponent (integer not zero), then apply the overflow mode. Correctly rounded.

        `word` holds the 64 random bits of a stochastic rounding.
        """

    @abstractmethod
    def overflows(self, integer: int, exponent: int, rounding: Rounding, word: int = 0) -> bool:
        """Whether integer * 2**exponent (not zero), once rounded, lies beyond the finite values."""

    @abstractmethod
    def project_special(self, x: float, overflow: str) -> float:
        """What a zero, an infinity or a NaN becomes in this format."""

    @abstractmethod
    def code_of(self, value: float) -> int:
        """Code of a value of this format; ValueError if it is none."""

    @abstractmethod
    def value_of(self, code: int) -> float:
        """Value of a code, as float64. Exact."""

    # --- what all families share -----------------------------------------------------------------------------------

    def project(self, x: float, rounding: str | Rounding, overflow: str, word: int = 0) -> float:
        """Quantise one float64: the definition to which everything faster must be equal. Correctly rounded."""
        if x == 0.0 or not math.isfinite(x):
            return self.project_special(x, overflow)
        mode = parse_rounding(rounding) if isinstance(rounding, str) else rounding
        return self.project_finite(*dyadic.from_float(x), mode, overflow, word)

    def project_code(self, x: float, rounding: Rounding, overflow: str, word: int = 0) -> int:
        """Encode one float64: the code of what `project` gives."""
        return self.code_of(self.project(x, rounding, overflow, word))

    @in_default_environment
    def quantize(
        self,
        x: ArrayLike,
        rounding: str | None = None,
        overflow: str | None = None,
        seed: int | None = None,
        axis: int = -1,
        offset: int = 0,
    ) -> NDArray[np.float64]:
        """Round an array to values of this format.

        Args:
            x: array of any shape, of a floating-point or integer type that float64 holds exactly.
            rounding: of the grammar in formats.rounding; None for round to nearest, ties to even.
            overflow: one of formats.OVERFLOWS; None for the format's default.
            seed: key of the random words of stochastic roundings, 32 bits; has no effect on the others.
            axis: axis along which blocks lie in block-scaled formats; has no effect on the others.
            offset: index of the first element in the array that x is a part of, in C order: parts of an array rounded
                stochastically with their offsets give what the whole gives.
        Returns:
            float64 array of the shape of x holding representable values. Correctly rounded, in one rounding.
        Raises:
            TypeError: x is not numeric, or masked; an option of the wrong type. ValueError: an unknown mode, a seed or
            an offset out of range, a NaN for a format that has none, or a result that float64 does not hold.
        """
        return self._rounded("quantize", self.project, np.float64, x, rounding, overflow, seed, offset)

    @in_default_environment
    def encode(
        self,
        x: ArrayLike,
        rounding: str | None = None,
        overflow: str | None = None,
        seed: int | None = None,
        offset: int = 0,
    ) -> NDArray[Any]:
        """Quantise an array and return the codes, in the smallest unsigned integer type that holds them.

        Arguments and errors as for `quantize`; every result has a code, whether or not float64 holds its value.
        """
        return self._rounded("encode", self.project_code, self.code_dtype, x, rounding, overflow, seed, offset)

    def _rounded(
        self,
        operation: str,
        definition: Callable[..., Any],
        dtype: Any,
        x: ArrayLike,
        rounding: str | None,
        overflow: str | None,
        seed: int | None,
        offset: int,
    ) -> NDArray[Any]:
        """Apply the fast twin of an operation to an array, or its definition to every element."""
        mode, overflow = self.modes(rounding, overflow)
        seed, offset = check_seed(seed), check_offset(offset)
        values = as_floats(x)
        if not self.has_nan and np.isnan(values).any():
            raise ValueError(f"{self.name} has no NaN, and the array holds one; replace it before quantising")
        twin = self.twin(operation)
        if twin:
            return twin(self, values, mode, overflow, seed, offset)
        flat = values.ravel().tolist()
        words = (word(seed, offset + i) if mode.stochastic else 0 for i in range(len(flat)))
        results = [definition(v, mode, overflow, w) for v, w in zip(flat, words, strict=True)]
        return np.array(results, dtype).reshape(values.shape)

    @in_default_environment
    def decode(self, codes: ArrayLike) -> NDArray[np.float64]:
        """Return the values of an integer array of codes, as float64. Exact.

        Raises:
            TypeError: codes are not integers.
            ValueError: a code outside 0 .. code_count - 1, or of a value that float64 does not hold.
        """
        array = as_array(codes)
        if array.size and array.dtype.kind not in "ui":
            raise TypeError(f"codes of {self.name}: got {array.dtype}; expected integers; convert them")
        every_code_fits = array.dtype == self.code_dtype and self.code_count == 1 << 8 * array.itemsize
        if array.size and not every_code_fits and not 0 <= int(array.min()) <= int(array.max()) < self.code_count:
            raise ValueError(
                f"codes of {self.name}: got {array.min()} .. {array.max()}; expected 0 .. {self.code_count - 1}; give "
                "codes as encode returns them"
            )
        twin = self.twin("decode")
        if twin:
            return twin(self, array)
        if self.bits <= 16 and array.size > self.code_count and self.fits_float64:  # once a code, not once an element
            return self.table()[array]
        return np.array([self.value_of(code) for code in array.ravel().tolist()], np.float64).reshape(array.shape)

    def table(self) -> NDArray[np.float64]:
        """Return the value of every code, in code order, as float64. Exact.

        Raises:
            ValueError: codes of more than 16 bits, or a value that float64 does not hold.
        """
        if self.bits > 16:
            raise ValueError(f"{self.name} has 2**{self.bits} codes; tables are made for at most 16 bits")
        return self.decode(np.arange(self.code_count))

    def to_frame(self) -> DataFrame:
        """Return the value table as a DataFrame: of every code its fields, its value and what it means; needs pandas.

        Raises:
            ValueError: codes of more than 16 bits, or of blocks, whose elements have such a table.
        """
        from .shown import value_rows

        return frame(value_rows(self))

    def _view(self) -> View:
        from .shown import format_view

        return format_view(self)

    @property
    def has_nan(self) -> bool:
        """Whether some code means NaN."""
        return True

    @property
    def code_count(self) -> int:
        """How many codes there are, from 0 on."""
        return 1 << self.bits

    @property
    def code_dtype(self) -> np.dtype[Any]:
        """Smallest unsigned integer type that holds a code."""
        return np.dtype(next(f"u{n}" for n in (1, 2, 4, 8) if self.bits <= 8 * n))

    def modes(self, rounding: str | None, overflow: str | None) -> tuple[Rounding, str]:
        """Fill in the defaults of a use and check it; ValueError names what is wrong."""
        if not isinstance(rounding, str | None):
            raise TypeError(f"rounding: got {rounding!r} ({type(rounding).__name__}); expected a name such as 'rne'")
        mode = parse_rounding("rne" if rounding is None else rounding)
        overflow = self.default_overflow if overflow is None else overflow
        if overflow not in OVERFLOWS:
            raise ValueError(f"overflow {overflow!r} is unknown; expected one of {', '.join(OVERFLOWS)}")
        if overflow == "nan" and not self.has_nan:
            raise ValueError(f"overflow 'nan' needs a NaN, and {self.name} has none; use 'sat'")
        if overflow == "wrap" and not self.wraps:
            raise ValueError(f"overflow 'wrap' is for fixed point and integers, and {self.name} is neither; use 'sat'")
        return mode, overflow

    @property
    def fits_float64(self) -> bool:
        """Whether float64 holds every value."""
        return True

    @property
    def has_blocks(self) -> bool:
        """Whether values along an axis share a scale, so that none can be rounded alone."""
        return False

    @property
    def wraps(self) -> bool:
        """Whether values beyond the range can wrap around."""
        return False

    @property
    def family(self) -> str:
        """Name of the class with its module. A subclass is another family: it may mean something else."""
        return f"{type(self).__module__}.{type(self).__qualname__}"

    def twin(self, operation: str) -> Callable[..., Any] | None:
        """Return the fast twin of a method, None if there is none: twins compute in float64."""
        return self.fast_twins.get((self.family, operation)) if self.fits_float64 else None

    def __str__(self) -> str:
        return self.name


def as_array(x: ArrayLike) -> NDArray[Any]:
    """Return what numpy takes for an array, or say why that is impossible."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            "got a masked array, whose mask would be lost; expected an array without one; fill it, as with x.filled(0)"
        )
    try:
        return np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(
            f"got {type(x).__name__}, of which numpy says: {error}; expected an array of numbers; make one of it"
        ) from None


def as_floats(x: ArrayLike) -> NDArray[Any]:
    """Return an array as native, aligned float32 or float64, exactly, or say why that is impossible.

    float32 stays float32: what widens it later does so whatever the caller's floating-point environment.
    """
    array = as_array(x)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind in "iu" and size == 8 and array.size:
        if max(abs(int(array.min())), abs(int(array.max()))) > 1 << 53:
            raise TypeError(
                "got 64-bit integers beyond 2**53; expected ones that float64 holds exactly; convert them yourself"
            )
    elif kind not in "iub" and not (kind == "f" and size <= 8):
        raise TypeError(
            f"got an array of dtype {array.dtype}; expected floats of at most 64 bits, or integers; convert it, with "
            "astype(np.float64) if that is what you mean"
        )
    if kind == "f" and size >= 4:
        return np.require(array, array.dtype.newbyteorder("="), "A")
    return array.astype(np.float64)


def as_float64(x: ArrayLike) -> NDArray[np.float64]:
    """Return an array as float64, exactly, or say why that is impossible."""
    return as_floats(x).astype(np.float64)
