"""Cycles, traffic and energy of one operation on one machine, the second pass included."""

from .estimate import Estimate, accumulation_cost, break_even, estimate, waste_factor
from .price import Cost, Gemm, mode_energy, price

__all__ = ["Cost", "Estimate", "Gemm", "accumulation_cost", "break_even", "estimate", "mode_energy", "price",
           "waste_factor"]  # fmt: skip
