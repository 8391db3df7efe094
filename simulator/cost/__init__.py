"""Cycles, traffic and energy of one operation on one machine, the second pass included."""

from .bill import mode_energy
from .estimate import Estimate, accumulation_cost, break_even, estimate, waste_factor
from .expanded import expanded
from .gemm import Gemm
from .price import Cost, price

__all__ = ["Cost", "Estimate", "Gemm", "accumulation_cost", "break_even", "estimate", "expanded", "mode_energy",
           "price", "waste_factor"]  # fmt: skip
