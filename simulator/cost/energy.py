"""Energy of single operations, from the table of the process node (estimates).

A multiplier of floats costs its partial products and the add of exponents; a float adder is proportional to its
significand, an integer one to its width, one that takes aligned terms to its width plus the shift that aligns them.
Coefficients, their sources and classes are in the tables beside this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from formats import FixedFormat, FloatFormat, Format
from simulator.arithmetic.accumulators import (
    Accumulator,
    Chunk,
    Exact,
    Fixed,
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
)
from simulator.errors import InputError
from simulator.hardware import MacMode
from simulator.hardware.order import adder_bits
from simulator.hardware.technology import BANDS, EnergyTable

PARTS = ("mul", "acc", "side", "register", "idle", "sram", "dram", "gather", "leak")


@dataclass(frozen=True)
class MacEnergy:
    """Energies of one mode of a MAC, in joules, with the class of each: product, sum, add to a partial sum."""

    mul_j: float
    acc_j: float
    fold_j: float
    mul_class: str
    acc_class: str

    @property
    def mac_j(self) -> float:
        return self.mul_j + self.acc_j


@lru_cache(maxsize=1024)
def mac_energy(table: EnergyTable, mode: MacMode, further_modes: int) -> MacEnergy:
    """Return the energy of a MAC mode; an energy given in the machine file counts as multiplier, without split.

    Args:
        table: of the node. mode: arithmetic. further_modes: that the same datapath has.
    Raises:
        InputError: a format that the model does not price.
    """
    factor = 1.0 + further_modes * table.mode_factor.value
    accumulator, operands = mode.spec.accumulator, mode.operand_formats
    if mode.energy_j is not None:
        return MacEnergy(mode.energy_j, 0.0, _fold_beside_given_j(table, mode, factor), "user", "user")
    fold_j = factor * _fold_j(table, mode)
    state = innermost(accumulator)
    assumed = adder_bits(state, operands) is not None or isinstance(state, Fixed)
    inner = accumulator.inner if isinstance(accumulator, Late) else accumulator
    within = inner.inner if isinstance(inner, Chunk) else inner  # the outermost joins are priced as folds
    return MacEnergy(
        factor * multiplier_j(table, *operands, state),
        factor * adder_j(table, within, operands),
        fold_j,
        table.partial_product_j_per_bit2.uncertainty,
        "assumed" if assumed else table.float_adder_j_per_bit.uncertainty,
    )


def _fold_j(table: EnergyTable, mode: MacMode) -> float:
    """Return the energy of adding a run's result to a partial sum: without a shift where that is fixed point."""
    final = outermost(mode.spec.accumulator)
    if isinstance(final, Exact):
        return fixed_adder_j(table, mode.partial_sum_bits, aligned=False)
    return adder_j(table, final, mode.operand_formats)


def _fold_beside_given_j(table: EnergyTable, mode: MacMode, factor: float) -> float:
    """Return the same where the file gives the energy of a MAC, which bounds that of a sum without a price."""
    assert mode.energy_j is not None
    try:
        return factor * _fold_j(table, mode)
    except InputError:
        return mode.energy_j


def multiplier_j(table: EnergyTable, a: Format, b: Format, state: Accumulator) -> float:
    """Return the energy of one product: exact in an array of partial products, or rounded and normalised on its own."""
    a_bits, b_bits = _significand_bits(a), _significand_bits(b)
    products = a_bits * b_bits
    rounded = _rounded_product(state)
    if rounded is not None:
        return table.rounded_multiplier_j_per_bit2.value * products + table.rounded_multiplier_j_per_bit.value * rounded
    exponents = max(f.exponent_bits if isinstance(f, FloatFormat) else 0 for f in (a, b))
    return table.partial_product_j_per_bit2.value * products + (
        table.adder_j_per_bit.value * (exponents + 1) if exponents else 0.0
    )


def _rounded_product(state: Accumulator) -> int | None:
    """Return the bits of the format into which a float product is rounded before the sum, None where it is exact."""
    match state:
        case Seq(product, _):
            return product.format.bits if isinstance(product.format, FloatFormat) else None
        case Tree(total, _, "rounded") | Kahan(total) | Neumaier(total):
            return total.format.bits
    return None


def adder_j(table: EnergyTable, accumulator: Accumulator, operands: tuple[Format, Format]) -> float:
    """Return the energy of adding one product, with its share of the joins of what it is composed of."""
    match accumulator:
        case Chunk(length, inner, outer):
            return adder_j(table, inner, operands) + adder_j(table, outer, operands) / length
        case Interleave(_, inner, _):
            return adder_j(table, inner, operands)  # the lanes are joined once an output
        case Late(inner) | Reverse(_, inner):
            return adder_j(table, inner, operands)
        case Kahan() | Neumaier():
            return 4 * _plain_adder_j(table, accumulator.sum.format)
    width = adder_bits(accumulator, operands)
    if width is not None:
        return fixed_adder_j(table, width, aligned=True)
    return _plain_adder_j(table, result_use(accumulator).format)


def fixed_adder_j(table: EnergyTable, width: int, *, aligned: bool) -> float:
    """Return the energy of a fixed-point sum of so many bits, with the shift that aligns a term or without."""
    shift = table.shifter_j_per_bit.value * width * (width - 1).bit_length() if aligned else 0.0
    return table.adder_j_per_bit.value * width + shift


def _plain_adder_j(table: EnergyTable, fmt: Format) -> float:
    """Energy of one sum in a format: a float adder by its significand, an integer one by its width."""
    if isinstance(fmt, FixedFormat):
        return table.adder_j_per_bit.value * fmt.bits
    return table.float_adder_j_per_bit.value * _priced(fmt).precision


def arithmetic_j(table: EnergyTable, fmt: Format) -> tuple[float, float] | None:
    """Return the energies of an addition and of a multiplication that stand alone, each with a result in the format.

    None for a format that the model does not price.
    """
    if isinstance(fmt, FixedFormat):
        return _plain_adder_j(table, fmt), table.partial_product_j_per_bit2.value * fmt.bits**2
    if isinstance(fmt, FloatFormat):
        rounding_j = table.rounded_multiplier_j_per_bit.value * fmt.bits
        return (
            _plain_adder_j(table, fmt),
            table.rounded_multiplier_j_per_bit2.value * fmt.precision**2 + rounding_j,
        )
    return None


def _significand_bits(fmt: Format) -> int:
    return fmt.bits if isinstance(fmt, FixedFormat) else _priced(fmt).precision


def _priced(fmt: Format) -> FloatFormat:
    if not isinstance(fmt, FloatFormat):
        raise InputError(
            f"{fmt}: got a format that the energy model does not price; expected a float or an integer; "
            "give the MAC's energy, as in 'energy: \"0.4 pJ\"'"
        )
    return fmt


@dataclass
class Ledger:
    """Energy by part, with the uncertainty of each entry; bounds add up as if all were off in the same direction."""

    parts_j: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    classes: dict[str, str] = field(default_factory=dict)
    low_j: float = 0.0
    high_j: float = 0.0

    def add(self, part: str, joules: float, uncertainty: str) -> None:
        """Add energy to a part; its class is shown as the widest of its entries."""
        if joules == 0.0:
            return
        band = BANDS[uncertainty]
        self.parts_j[part] += joules
        self.low_j += joules / band
        self.high_j += joules * band
        known = self.classes.get(part)
        if known is None or BANDS[known] < band:
            self.classes[part] = uncertainty

    def basis(self, table: EnergyTable, leakage_w: float) -> str:
        """Return class and band of each part in words."""
        parts = [f"{part} {kind} x/÷ {BANDS[kind]:g}" for part, kind in self.classes.items()]
        static = "" if leakage_w else "; static power not given, counted as 0"
        return f"estimate, table {table.name} ({table.node_nm:g} nm): {', '.join(parts)}{static}"
