"""Block-scaled formats: elements of a narrow format that share one scale per block.

A block is `size` neighbours along an axis; the last one along the axis may be shorter. Its value at i is
element[i] * scale, an exact product. How the scale is found stands in block_scales.py; the elements are the exact
quotients x / scale, rounded once into the element's format and saturating by default. A NaN or an infinity in a block
makes the whole block NaN: its scale is the NaN of the scale's format, its elements are zeros.

Source: OCP Microscaling Formats (MX) Specification 1.0, sections 5 and 6.
NVFP4, whose published descriptions leave the order of operations open, is defined by BlockFormat.two_level.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arguments import held_by_float64, whole
from .block_scales import modes_of, scales_of, scales_under, tensor_scale, tensor_unscale, top_precision
from .environment import in_default_environment
from .floats import FloatFormat
from .format import Format, as_floats
from .philox import check_offset, check_seed
from .rounding import Rounding
from .scaling import Array, exact_product, quantize_quotient

MOST_ELEMENTS = 1 << 32  # of a block: its ends along an axis stay integers of 64 bits


@dataclass(frozen=True, eq=False)
class BlockCodes:
    """An array in a block-scaled format.

    Args:
        scales: codes of the scales; the shape of the array, but for the number of blocks along the axis.
        elements: codes of the elements, in the shape of the array.
        axis: axis along which blocks lie, counted from the front.
        tensor_scale: the float32 s of a two-level format, else None.
    """

    scales: NDArray[Any]
    elements: NDArray[Any]
    axis: int
    tensor_scale: np.float32 | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.elements.shape


@dataclass(frozen=True, eq=False)
class Scaled:
    """An array on its way into a block-scaled format: the scales of its blocks are found.

    Args:
        values: float32 or float64; zeros in blocks that are broken.
        scales: one a block, finite and positive. broken: whether the block holds a NaN or an infinity.
        axis: counted from the front. tensor_scale: as in BlockCodes.
    """

    values: NDArray[Any]
    scales: Array
    broken: NDArray[np.bool_]
    axis: int
    tensor_scale: np.float32 | None


@dataclass(frozen=True)
class BlockFormat(Format):
    """A block-scaled format as a record.

    Args:
        name: canonical name; not part of the identity.
        element: format of the elements.
        size: elements of a block, 1 to 2**32.
        scale: format of the scales; with one significand bit (e8m0) they are powers of two.
        mode: how the scale is found, one of block_scales.POWER_MODES or SIGNIFICAND_MODES.
        amax: format to which the largest magnitude of a block is first rounded (to nearest even, saturating), as
            pipelines that compute in bf16 do; None for no such rounding.
        symmetric: elements below -max become -max; for two's complement, whose lowest code has no positive twin.
        two_level: NVFP4's scaling by a float32 of the whole array besides. In order, every operation in float32 and
            rounded to nearest even:

            1. x is narrowed to float32; what overflows counts as an infinity.
            2. s = (M * largest scale) / amax of the array, not counting blocks with a NaN or an infinity; at most the
               largest float32, and 1 where amax is zero.
            3. scale = R((amax of the block / M) * s), two float32 operations, then R to nearest even into the scale's
               format, saturating; where R gives zero, the smallest positive scale.
            4. element = R((x * s) / scale), two float32 operations, then one rounding into the element's format.
            5. value = element * scale * d, exactly, with d = 1 / s in float32.

            s depends on all blocks: an array quantised in parts is not the array quantised as a whole.
    """

    name: str = field(compare=False)
    element: Format
    size: int
    scale: FloatFormat
    mode: str
    amax: FloatFormat | None = None
    symmetric: bool = False
    two_level: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.element, Format):
            raise TypeError(f"{self.name}: got {self.element!r} as the format of elements; expected a format")
        if isinstance(self.element, BlockFormat):
            raise ValueError(
                f"{self.name}: got {self.element.name} as the format of elements; expected one without blocks; give "
                "that of its elements"
            )
        object.__setattr__(self, "size", whole(f"{self.name}: size", self.size))
        if not 1 <= self.size <= MOST_ELEMENTS:
            raise ValueError(f"{self.name}: got a block size of {self.size}; expected 1 to 2**32")
        for role, fmt in (("scale", self.scale), ("amax", self.amax)):
            if not isinstance(fmt, FloatFormat) and not (role == "amax" and fmt is None):
                raise ValueError(f"{self.name}: got {fmt} as the format of {role}; expected a float; give e.g. e8m0")
        for part in (self.element, self.scale, self.amax or self.scale):
            held_by_float64(part, self.name)
        if self.two_level:
            self._check_two_level()
        if self.mode not in modes_of(self.scale):
            bits = f"{self.scale.precision} significand bit{'s' if self.scale.precision > 1 else ''}"
            raise ValueError(
                f"{self.name}: mode {self.mode!r} is unknown for scales in {self.scale.name}, of {bits}; "
                f"expected {', '.join(modes_of(self.scale))}"
            )
        if not self.element.max > 0:
            raise ValueError(f"{self.name}: {self.element.name} has no positive value to scale by")
        if self.mode == "even":
            top_precision(self.element)
        for value in (self._exact_max, self._smallest(self.element.smallest_subnormal)):
            if not _is_float64(value):
                raise ValueError(
                    f"{self.name}: the largest or the smallest element times scale is not a float64, in which arrays "
                    "are kept; use an element or a scale of fewer significand or exponent bits"
                )

    def _check_two_level(self) -> None:
        if self.scale.precision == 1 or self.mode != "rne" or self.amax is not None:
            amax = f" and amax={self.amax.name}" if self.amax is not None else ""
            raise ValueError(
                f"{self.name}: two levels take scales with a significand, mode rne and no narrowed amax; "
                f"got scales in {self.scale.name} and mode {self.mode!r}{amax}"
            )
        largest = self.element.max * self.scale.max
        if not all(float(np.float32(v)) == v for v in (self.element.max, largest)):
            raise ValueError(
                f"{self.name}: got {largest!r} as the largest value of two levels; expected one that is float32, as "
                "that of the elements; take narrower formats"
            )

    # --- derived numbers -------------------------------------------------------------------------------------------

    @property
    def bits(self) -> int:
        """Width of an element's code, without its share of the scale."""
        return self.element.bits

    @property
    def bits_per_element(self) -> float:
        """Bits of an element and its share of the scale in a full block.

        Scales count whole bytes, as they are stored; the 32 bits of a second level do not count.
        """
        return self.element.bits + 8 * self.scale.code_dtype.itemsize / self.size

    @property
    def max(self) -> float:
        return float(self._exact_max)

    @property
    def smallest_normal(self) -> float:
        return float(self._smallest(self.element.smallest_normal))

    @property
    def smallest_subnormal(self) -> float:
        return float(self._smallest(self.element.smallest_subnormal))

    @property
    def _exact_max(self) -> Fraction:
        return Fraction(self.element.max) * Fraction(self.scale.max) * self._unscale(np.finfo(np.float32).max)

    def _smallest(self, element: float) -> Fraction:
        return Fraction(element) * Fraction(self.scale.smallest_subnormal) * self._unscale(np.finfo(np.float32).tiny)

    def _unscale(self, amax: np.float32) -> Fraction:
        """Factor d of an array with this amax, 1 where there is one level only."""
        if not self.two_level:
            return Fraction(1)
        return Fraction(float(tensor_unscale(tensor_scale(np.array([amax]), self.element, self.scale))))

    @property
    def default_overflow(self) -> str:
        return "sat"

    @property
    def has_nan(self) -> bool:
        return self.scale.has_nan

    @property
    def has_blocks(self) -> bool:
        return True

    @property
    def wraps(self) -> bool:
        return self.element.wraps

    def modes(self, rounding: str | None, overflow: str | None) -> tuple[Rounding, str]:
        """Fill in the defaults of a use and check it for the elements, whose rounding and overflow they are."""
        return self.element.modes(rounding, self.default_overflow if overflow is None else overflow)

    # --- arrays ----------------------------------------------------------------------------------------------------

    @in_default_environment
    def quantize(
        self,
        x: ArrayLike,
        rounding: str | None = None,
        overflow: str | None = None,
        seed: int | None = None,
        axis: int = -1,
        offset: int = 0,
    ) -> Array:
        """Round an array to values of this format; arguments as for Format.quantize.

        Rounding, overflow and seed are those of the elements; scales are found as the format says. An array of one
        level split at block borders gives what the whole gives, under stochastic roundings with the offsets of the
        parts.

        Returns:
            float64 array of the shape of x, element times scale. Exact products of correctly rounded elements.
        Raises:
            TypeError: x is not numeric. ValueError: x has no axes, or an unknown mode, or a NaN or an infinity where
            the scale's format has no NaN, or a product that is not a float64.
        """
        mode, overflow = self.modes(rounding, overflow)
        seed, offset = check_seed(seed), check_offset(offset)
        blocks = self._scaled(x, axis)
        twin = self.twin("quantize")
        if twin:
            values = twin(self, blocks, mode, overflow, seed, offset)
            if values is not None:
                return values
        return self._values(self._elements(blocks, mode, overflow, seed, offset), blocks)

    @in_default_environment
    def encode(  # type: ignore[override]  # codes come in two arrays, and need the axis
        self,
        x: ArrayLike,
        rounding: str | None = None,
        overflow: str | None = None,
        seed: int | None = None,
        axis: int = -1,
        offset: int = 0,
    ) -> BlockCodes:
        """Quantise an array and return the codes of its elements and of its scales.

        Arguments and errors as for `quantize`; products that are not float64 do not matter here.
        """
        mode, overflow = self.modes(rounding, overflow)
        seed, offset = check_seed(seed), check_offset(offset)
        blocks = self._scaled(x, axis)
        twin = self.twin("encode")
        codes = twin(self, blocks, mode, overflow, seed, offset) if twin else None
        if codes is None:
            codes = self.element.encode(self._elements(blocks, mode, overflow, seed, offset))
        scales = np.where(blocks.broken, np.nan, blocks.scales)
        return BlockCodes(self.scale.encode(scales), codes, blocks.axis, blocks.tensor_scale)

    @in_default_environment
    def decode(self, codes: BlockCodes) -> Array:  # type: ignore[override]  # see encode
        """Return the values of an array's codes, element times scale as float64. Exact.

        Raises:
            TypeError: not BlockCodes.
            ValueError: shapes, codes or levels that do not belong together, or a product that is not a float64.
        """
        if not isinstance(codes, BlockCodes):
            raise TypeError(
                f"codes of {self.name}: got {type(codes).__name__}; expected BlockCodes; give what encode returns"
            )
        axis = _checked_axis(codes.shape, codes.axis, self.name)
        expected = self._shape_of_scales(codes.shape, axis)
        if codes.scales.shape != expected:
            raise ValueError(f"{self.name}: got scales of shape {codes.scales.shape}; expected {expected}")
        if (codes.tensor_scale is not None) != self.two_level:
            raise ValueError(
                f"{self.name}: got tensor_scale={codes.tensor_scale}; it belongs to two-level formats only"
            )
        scales = self.scale.decode(codes.scales)
        broken = np.isnan(scales)
        elements = self.element.decode(codes.elements)
        return self._values(elements, Scaled(elements, np.where(broken, 1.0, scales), broken, axis, codes.tensor_scale))

    def table(self) -> Array:
        """Refuse: the values of a code depend on the scale of its block."""
        raise ValueError(
            f"{self.name} has no table of values, which depend on the scale of a block; "
            f"its elements have one, that of {self.element.name}, and its scales, that of {self.scale.name}"
        )

    def _scaled(self, x: ArrayLike, axis: int) -> Scaled:
        """Find the scales of an array's blocks."""
        values = as_floats(x)
        axis = _checked_axis(values.shape, axis, self.name)
        if self.two_level:
            with np.errstate(over="ignore"):
                values = values.astype(np.float32)
        twin = self.twin("amax")
        amax = twin(self, values, axis) if twin else self._amax(values, axis)
        broken = ~np.isfinite(amax)
        if broken.any():
            if not self.has_nan:
                raise ValueError(
                    f"{self.name}: a block holds a NaN or an infinity, and scales in {self.scale.name} have no NaN; "
                    "replace it before quantising"
                )
            amax[broken] = 0.0
            values = np.where(self.spread(broken, values.shape, axis), values.dtype.type(0), values)
        s = None
        if self.two_level:
            s = tensor_scale(amax, self.element, self.scale)
            scales = scales_under(s, amax, self.element, self.scale)
        else:
            if self.amax is not None:
                amax = self.amax.quantize(amax, "rne", "sat")
            scales = scales_of(amax, self.element, self.scale, self.mode)
        return Scaled(values, scales, broken, axis, s)

    def dividends(self, blocks: Scaled) -> tuple[NDArray[Any], Array | None]:
        """Return the array whose quotients by the divisors of their blocks are rounded to elements; None: as it is."""
        if blocks.tensor_scale is None:
            return blocks.values, blocks.scales
        divisor = self.spread(blocks.scales, blocks.values.shape, blocks.axis).astype(np.float32)
        return (blocks.values * blocks.tensor_scale) / divisor, None

    def factors(self, blocks: Scaled) -> Array:
        """Return what elements are multiplied by, block by block. Exact."""
        if blocks.tensor_scale is None:
            return blocks.scales
        return blocks.scales * np.float64(tensor_unscale(blocks.tensor_scale))  # 24 significand bits and a scale's

    def _elements(self, blocks: Scaled, mode: Rounding, overflow: str, seed: int, offset: int) -> Array:
        """Return the values of the elements."""
        x, divisors = self.dividends(blocks)
        if divisors is None:
            elements = self.element.quantize(x, str(mode), overflow, seed, offset=offset)
        else:
            divisor = self.spread(divisors, x.shape, blocks.axis)
            x = x.astype(np.float64)
            elements = quantize_quotient(self.element, x, divisor, str(mode), overflow, seed, offset)
        if self.symmetric and overflow != "wrap":
            elements = np.maximum(elements, -self.element.max)
        return elements

    def _values(self, elements: Array, blocks: Scaled) -> Array:
        """Return elements times scales, NaN in blocks that are NaN."""
        twin = self.twin("values")
        values = twin(self, elements, blocks) if twin else None
        if values is None:
            factor = self.spread(self.factors(blocks), elements.shape, blocks.axis)
            values = exact_product(elements, factor, self.name)
            if blocks.broken.any():
                values[self.spread(blocks.broken, elements.shape, blocks.axis)] = np.nan
        return values

    def _shape_of_scales(self, shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
        return (*shape[:axis], -(-shape[axis] // self.size), *shape[axis + 1 :])

    def _amax(self, values: Array, axis: int) -> Array:
        """Return the largest magnitude of each block; NaN where it holds one."""
        if values.size == 0:
            return np.zeros(self._shape_of_scales(values.shape, axis))
        magnitudes = np.abs(values).astype(np.float64)
        return np.maximum.reduceat(magnitudes, np.arange(0, values.shape[axis], self.size), axis=axis)

    def spread(self, blocks: NDArray[Any], shape: tuple[int, ...], axis: int) -> NDArray[Any]:
        """Repeat what blocks have for each of their elements."""
        lengths = np.full(blocks.shape[axis], self.size)
        if lengths.size:
            lengths[-1] = shape[axis] - self.size * (lengths.size - 1)
        return np.repeat(blocks, lengths, axis=axis)

    # --- single numbers, which have no block -----------------------------------------------------------------------

    def _no_scalar(self, what: str) -> NoReturn:
        raise TypeError(
            f"{self.name} has no {what} of a single number: its scale belongs to a block; use quantize, encode and "
            f"decode on arrays, or the element's format {self.element.name}"
        )

    def project_finite(self, integer: int, exponent: int, rounding: Rounding, overflow: str, word: int = 0) -> float:
        """Refuse; so do all scalar operations."""
        self._no_scalar("rounding")

    def overflows(self, integer: int, exponent: int, rounding: Rounding, word: int = 0) -> bool:
        self._no_scalar("overflow")

    def project_special(self, x: float, overflow: str) -> float:
        self._no_scalar("rounding")

    def code_of(self, value: float) -> int:
        self._no_scalar("code")

    def value_of(self, code: int) -> float:
        self._no_scalar("code")


def _is_float64(value: Fraction) -> bool:
    try:
        return Fraction(float(value)) == value
    except OverflowError:
        return False


def _checked_axis(shape: tuple[int, ...], axis: int, name: str) -> int:
    """Return the axis counted from the front."""
    if not shape:
        raise ValueError(
            f"{name}: got a single number; expected an array with an axis that blocks lie along; give it an axis"
        )
    axis = whole(f"{name}: axis", axis)
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"{name}: got axis {axis}; expected {-len(shape)} to {len(shape) - 1} for shape {shape}")
    return axis % len(shape)
