"""Cycles, traffic, energy and area of one operation on one machine, the second pass and the vector unit included.

`price` gives the Cost of a Gemm in one mode, `vector_price` that of what is no product; `area` is of the machine.
"""

from .area import Area, area, known_area
from .break_even import break_even, waste_factor
from .cycles import FIDELITIES, check_fidelity
from .energy_items import mode_energy
from .estimate import Estimate, accumulation_cost, estimate
from .event import Event
from .expanded import expanded
from .gathers import gather_results, gathered
from .gemm import Gemm
from .price import Cost, price, timeline
from .vector_unit import ELEMENTWISE, KINDS, VectorCost, VectorOperation, vector_price, why_unpriced

__all__ = [
    "ELEMENTWISE", "FIDELITIES", "KINDS", "Area", "Cost", "Estimate", "Event", "Gemm", "VectorCost", "VectorOperation",
    "accumulation_cost", "area", "break_even", "check_fidelity", "estimate", "expanded", "gather_results", "gathered",
    "known_area", "mode_energy", "price", "timeline", "vector_price", "waste_factor", "why_unpriced",
]  # fmt: skip
