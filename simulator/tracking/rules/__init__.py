"""What each operation of torch does to noise: RULES by name, MOVES, MAKES, and FUSED steps of optimisers."""

from __future__ import annotations

from . import (
    activations,
    attention,
    branches,
    elementwise,
    losses,
    normal,
    orders,
    pools,
    products,
    reductions,
    resampling,
)
from .moves import MAKES, MOVES, moved
from .optimisers import FUSED
from .registry import RULES, Choice, Rule

__all__ = ["FUSED", "MAKES", "MOVES", "RULES", "Choice", "Rule", "activations", "attention", "branches", "elementwise",
           "losses", "moved", "normal", "orders", "pools", "products", "reductions", "resampling"]  # fmt: skip
