"""What a MAC is made of, in the coefficients of a technology table: energy and area follow from the same counts.

A multiplier of floats is an array of partial products and an adder of exponents; a float adder is proportional to its
significand, an integer one to its width, one that takes aligned terms to its width plus the shift that aligns them.
Posits and takums are floats with the most significand bits that they have, dearer by a factor, and decoded where they
enter the array. Elements of blocks are what their element format is; a pair of blocks adds its scales' exponents once.
A codebook is the smallest float that holds its values (assumed).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from formats import CodebookFormat, FixedFormat, FloatFormat, Format, PositFormat
from formats.block import BlockFormat
from formats.qtorch import QtorchFormat
from formats.takum import TakumFormat
from simulator.arithmetic.accumulators import (
    Accumulator,
    Aligned,
    Chunk,
    Exact,
    Fma,
    Interleave,
    Kahan,
    Late,
    Neumaier,
    Reverse,
    Seq,
    Tree,
    innermost,
    outermost,
    result_use,
    without_late,
)
from simulator.errors import InputError
from simulator.hardware import MacMode
from simulator.hardware.widths import adder_bits

# Stem of a coefficient -> the entries of a table with its energy and its area.
COEFFICIENTS = {
    "partial product": ("partial_product_j_per_bit2", "partial_product_um2_per_bit2"),
    "rounded product": ("rounded_multiplier_j_per_bit2", "rounded_multiplier_um2_per_bit2"),
    "rounding": ("rounded_multiplier_j_per_bit", "rounded_multiplier_um2_per_bit"),
    "adder": ("adder_j_per_bit", "adder_um2_per_bit"),
    "float adder": ("float_adder_j_per_bit", "float_adder_um2_per_bit"),
    "shifter": ("shifter_j_per_bit", "shifter_um2_per_bit"),
}


class Term(NamedTuple):
    """Bits, or products of bits, that a coefficient is taken times; `shown` says how they are counted."""

    coefficient: str
    amount: int
    shown: str


@dataclass(frozen=True)
class Component:
    """One circuit of a MAC.

    Args:
        part: mul | acc. what: its name. terms: its size.
        times: how often it works for a MAC. units: how many of it there are in a MAC.
        tapered: whether it works on posits or takums.
    """

    part: str
    what: str
    terms: tuple[Term, ...]
    times: Fraction = Fraction(1)
    units: int = 1
    tapered: bool = False


class Number(NamedTuple):
    """What a circuit sees of a format: bits of the significand with the hidden one, and of the exponent, 0 for none."""

    significand: int
    exponent: int
    tapered: bool = False


def number(fmt: Format) -> Number:
    """Return what a circuit sees of a format.

    Raises:
        InputError: a format that the model does not price.
    """
    match fmt:
        case FixedFormat():
            return Number(fmt.bits, 0)
        case FloatFormat():
            return Number(fmt.precision, fmt.exponent_bits)
        case PositFormat() | TakumFormat():
            return Number(fmt.precision, _exponent_bits(fmt.smallest_normal, fmt.max), tapered=True)
        case BlockFormat():
            return number(fmt.element)
        case CodebookFormat():
            return _of_codebook(fmt)
        case QtorchFormat():
            return number(fmt.record)
    raise InputError(
        f"{fmt}: got a format that the cost model does not price; expected a float, posit, takum, fixed-point or "
        "block-scaled format or a codebook; give the MAC's energy, as in 'energy: \"0.4 pJ\"'"
    )


def _exponent_bits(smallest: float, largest: float) -> int:
    """Return the bits that number the binades from one value to another."""
    return max((math.frexp(largest)[1] - math.frexp(smallest)[1]).bit_length(), 1)


def _of_codebook(fmt: CodebookFormat) -> Number:
    magnitudes = [abs(value) for value in fmt.values if value]
    odd = [numerator // (numerator & -numerator) for numerator, _ in map(float.as_integer_ratio, magnitudes)]
    return Number(max(integer.bit_length() for integer in odd), _exponent_bits(min(magnitudes), max(magnitudes)))


def multiplier(
    operands: tuple[Format, Format], state: Accumulator, slices: tuple[Format, Format] | None = None, passes: int = 1
) -> list[Component]:
    """Return the circuits that form a product: exact in an array of partial products, or rounded on its own.

    Args:
        operands: formats. state: what takes the products.
        slices: formats of a narrower multiplier, which forms the product in several passes, each a slice of one operand
            by one of the other; None for a multiplier as wide as the operands. passes: how many.
    Raises:
        InputError: a format that the model does not price.
    """
    a, w = (number(fmt) for fmt in operands)
    tapered = a.tapered or w.tapered
    rounded = _rounded_product(state)
    exponent = max(a.exponent, w.exponent)
    add = [Term("adder", exponent + 1, f"({exponent} + 1)")] if exponent else []
    if slices is not None:
        narrow, width = [number(fmt).significand for fmt in slices], a.significand + w.significand
        found = [
            Component("mul", "multiplier of slices", (_products("partial product", *narrow),), Fraction(passes)),
            Component("mul", "adder of slices", (Term("adder", width, f"({a.significand} + {w.significand})"),),
                      Fraction(passes - 1)),
        ]  # fmt: skip
        found += [Component("mul", "exponents", tuple(add))] if add else []
        found += [Component("mul", "rounding", (Term("rounding", rounded, f"{rounded}"),))] if rounded else []
    elif rounded is not None:
        rounding = Term("rounding", rounded, f"{rounded}")
        whole = _products("rounded product", a.significand, w.significand)
        found = [Component("mul", "multiplier, rounded", (whole, rounding), tapered=tapered)]
    else:
        whole = _products("partial product", a.significand, w.significand)
        found = [Component("mul", "multiplier", (whole, *add), tapered=tapered)]
    return found + _scales(operands)


def _products(coefficient: str, a: int, w: int) -> Term:
    return Term(coefficient, a * w, f"{a} x {w}")


def _scales(operands: tuple[Format, Format]) -> list[Component]:
    """Return what multiplies the scales of a pair of blocks, once for all their products."""
    blocks = [fmt for fmt in operands if isinstance(fmt, BlockFormat)]
    if not blocks:
        return []
    exponent = max(fmt.scale.exponent_bits for fmt in blocks)
    terms = [Term("adder", exponent + 1, f"({exponent} + 1)")]
    significands = [fmt.scale.precision for fmt in blocks]
    if len(blocks) == 2 and max(significands) > 1:
        terms.insert(0, _products("partial product", *significands))
    return [Component("mul", "scales of blocks", tuple(terms), Fraction(1, min(fmt.size for fmt in blocks)))]


def _rounded_product(state: Accumulator) -> int | None:
    """Return the bits of the format into which a product is rounded before the sum, None where it stays exact."""
    match state:
        case Seq(use, _) | Tree(use, _, "rounded") | Kahan(use) | Neumaier(use):
            return None if isinstance(use.format, FixedFormat) else use.format.bits
    return None


def summation(accumulator: Accumulator, operands: tuple[Format, Format]) -> list[Component]:
    """Return the circuits that add a product, with the joins of what the accumulator is composed of.

    Raises:
        InputError: a format that the model does not price.
    """
    floats = any(isinstance(fmt, BlockFormat) or number(fmt).exponent for fmt in operands)
    return list(_summed(accumulator, operands, floats, Fraction(1)))


def _summed(
    accumulator: Accumulator, operands: tuple[Format, Format], floats: bool, times: Fraction
) -> Iterator[Component]:
    """Yield the circuits that add a term; `floats`: it has an exponent, by which a fixed-point sum shifts it."""
    match accumulator:
        case Chunk(length, inner, outer):
            yield from _summed(inner, operands, floats, times)
            of_runs = not isinstance(result_use(inner).format, FixedFormat)
            yield from _summed(outer, operands, of_runs, times / length)
        case Interleave(_, inner, _):  # the lanes are joined once an output
            yield from _summed(inner, operands, floats, times)
        case Late(inner) | Reverse(_, inner):
            yield from _summed(inner, operands, floats, times)
        case Kahan() | Neumaier():
            yield _adder(accumulator.sum.format, 4 * times, 4)
        case _:
            fmt, width = result_use(accumulator).format, adder_bits(accumulator, operands)
            if width is None and isinstance(fmt, FixedFormat):
                width = fmt.bits
            if width is None:
                yield _adder(fmt, times)
                return
            yield Component("acc", "adder", (Term("adder", width, f"{width}"),), times)
            if floats:
                yield alignment(width, times)
            if isinstance(accumulator, Aligned | Fma) and not isinstance(fmt, FixedFormat):
                products = accumulator.n if isinstance(accumulator, Aligned) else accumulator.products
                yield _normalisation(fmt, width, times / products)


def _normalisation(fmt: Format, width: int, times: Fraction) -> Component:
    """Return what shifts a fixed-point sum of so many bits to its leading one and rounds it to a float."""
    significand, stages = number(fmt).significand, (width - 1).bit_length()
    shift = Term("shifter", width * stages, f"{width} x {stages}")
    return Component("acc", "normalisation", (shift, Term("adder", significand, f"{significand}")), times)


def alignment(width: int, times: Fraction = Fraction(1)) -> Component:
    """Return the shifter that aligns a term with a fixed-point sum of so many bits."""
    stages = (width - 1).bit_length()
    return Component("acc", "alignment shift", (Term("shifter", width * stages, f"{width} x {stages}"),), times)


def _adder(fmt: Format, times: Fraction = Fraction(1), units: int = 1) -> Component:
    """Return the adder of a format: of floats by their significand, of integers by their width."""
    seen = number(fmt)
    coefficient = "float adder" if seen.exponent else "adder"
    term = Term(coefficient, seen.significand, f"{seen.significand}")
    return Component("acc", "adder", (term,), times, units, seen.tapered)


def components(mode: MacMode, slices: MacMode | None = None) -> list[Component]:
    """Return the circuits of a MAC; the outermost join of its sums is that of folds, and none of its own.

    Args:
        slices: the mode whose multiplier forms the products of this one; None for one of its own.
    Raises:
        InputError: a format that the model does not price.
    """
    accumulator, operands = mode.spec.accumulator, mode.operand_formats
    inner = without_late(accumulator)
    within = inner.inner if isinstance(inner, Chunk) else inner
    narrow = None if slices is None else slices.operand_formats
    return [*multiplier(operands, innermost(accumulator), narrow, mode.passes), *summation(within, operands)]


def fold_components(mode: MacMode) -> list[Component]:
    """Return the circuits that add a run's result to a partial sum: without a shift where that is fixed point.

    Raises:
        InputError: a format that the model does not price.
    """
    final = outermost(mode.spec.accumulator)
    if isinstance(final, Exact):
        width = mode.partial_sum_bits
        return [Component("acc", "adder", (Term("adder", width, f"{width}"),))]
    floats = not isinstance(result_use(final).format, FixedFormat)
    return list(_summed(final, mode.operand_formats, floats, Fraction(1)))


def lane_components(fmt: Format) -> tuple[Component, Component]:
    """Return the adder and the multiplier of a lane of a vector unit, each with results in its format.

    Raises:
        InputError: a format that the model does not price.
    """
    seen = number(fmt)
    if seen.exponent:
        whole = _products("rounded product", seen.significand, seen.significand)
        terms: tuple[Term, ...] = (whole, Term("rounding", fmt.bits, f"{fmt.bits}"))
    else:
        terms = (_products("partial product", seen.significand, seen.significand),)
    return _adder(fmt), Component("mul", "multiplier", terms, tapered=seen.tapered)


def decoder(fmt: Format) -> Component | None:
    """Return what decodes a posit or takum where it enters the array: its run counted, its fraction shifted (assumed).

    None for formats whose fields lie where they lie.
    """
    if not number(fmt).tapered:
        return None
    bits, stages = fmt.bits, (fmt.bits - 1).bit_length()
    terms = (Term("adder", bits, f"{bits}"), Term("shifter", bits * stages, f"{bits} x {stages}"))
    return Component("mul", "decoder", terms)
