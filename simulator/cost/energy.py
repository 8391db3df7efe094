"""Energy of single operations, from the table of the process node (estimates).

A multiplier of floats costs its partial products and the add of exponents; a float adder is proportional to its
significand, a fixed-point one to its width plus the shift that aligns a float product. Coefficients, their sources and
classes are in the tables beside this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from formats import FloatFormat, Format
from simulator.arithmetic.accumulators import Accumulator, Chunk, Exact, Fma, Late, Seq
from simulator.errors import InputError
from simulator.hardware import MacMode
from simulator.hardware.order import innermost
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
    fold_j = factor * _fold_adder_j(table, mode)
    if mode.energy_j is not None:
        return MacEnergy(mode.energy_j, 0.0, fold_j, "user", "user")
    state = innermost(mode.spec.accumulator)
    acc_class = "assumed" if isinstance(state, Exact) else table.float_adder_j_per_bit.uncertainty
    return MacEnergy(
        factor * multiplier_j(table, *mode.operand_formats, state),
        factor * adder_j(table, state, mode.accumulator_bits),
        fold_j,
        table.partial_product_j_per_bit2.uncertainty,
        acc_class,
    )


def multiplier_j(table: EnergyTable, a: Format, b: Format, state: Accumulator) -> float:
    """Return the energy of one product: exact in an array of partial products, or rounded and normalised on its own."""
    a, b = _priced(a), _priced(b)
    products = a.precision * b.precision
    if isinstance(state, Seq):
        return (
            table.rounded_multiplier_j_per_bit2.value * products
            + table.rounded_multiplier_j_per_bit.value * state.product.format.bits
        )
    exponents = max(a.exponent_bits, b.exponent_bits) + 1
    return table.partial_product_j_per_bit2.value * products + table.adder_j_per_bit.value * exponents


def adder_j(table: EnergyTable, state: Accumulator, width: int, *, aligned: bool = True) -> float:
    """Return the energy of adding one product.

    Args:
        state: what adds it. width: bits of a fixed-point state. aligned: whether to count the alignment shift of one.
    """
    if isinstance(state, Exact):
        shift = table.shifter_j_per_bit.value * width * (width - 1).bit_length() if aligned else 0.0
        return table.adder_j_per_bit.value * width + shift
    assert isinstance(state, Fma | Seq)
    return table.float_adder_j_per_bit.value * _priced(state.sum.format).precision


def _fold_adder_j(table: EnergyTable, mode: MacMode) -> float:
    """Energy of adding the result of a fold to a partial sum."""
    outer = mode.spec.accumulator
    while isinstance(outer, Late | Chunk):
        outer = outer.inner if isinstance(outer, Late) else outer.outer
    return adder_j(table, outer, mode.partial_sum_bits, aligned=False)


def _priced(fmt: Format) -> FloatFormat:
    if not isinstance(fmt, FloatFormat):
        raise InputError(
            f"{fmt}: got a format that the energy model does not price; expected a float; give mac energy in pJ"
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
