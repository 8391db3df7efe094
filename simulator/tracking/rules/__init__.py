"""What each operation of torch does to noise: `find` gives its rule."""

from __future__ import annotations

from . import elementwise, losses, normal, pools, products, reductions
from .moves import MAKES, MOVES, moved
from .registry import RULES, Choice, Rule

__all__ = ["MAKES", "MOVES", "RULES", "Choice", "Rule", "elementwise", "losses", "moved", "normal", "pools", "products",
           "reductions"]  # fmt: skip
