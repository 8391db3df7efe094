"""Cycles, traffic, energy and area of one operation on one machine, the second pass and the vector unit included."""

from .area import Area, area, known_area
from .bill import mode_energy
from .estimate import Estimate, accumulation_cost, break_even, estimate, waste_factor
from .expanded import expanded
from .gemm import Gemm
from .price import Cost, price
from .vector_unit import ELEMENTWISE, KINDS, VectorCost, VectorOperation, vector_price, why_unpriced

__all__ = ["ELEMENTWISE", "KINDS", "Area", "Cost", "Estimate", "Gemm", "VectorCost", "VectorOperation",
           "accumulation_cost", "area", "break_even", "estimate", "expanded", "known_area", "mode_energy", "price",
           "vector_price", "waste_factor", "why_unpriced"]  # fmt: skip
