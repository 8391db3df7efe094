"""What a static plan says of a network and of its products."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from simulator.errors import InputError
from simulator.hardware.static_plan import StaticPlan

from .digests import weights_digest
from .ops import Op


def check_network(plan: StaticPlan, model: nn.Module) -> None:
    """Refuse a plan that was made for other weights."""
    if weights_digest(model) != plan.network:
        raise InputError(
            "policy.plan: was made for another network or other weights; expected one for these; make it anew with "
            "`python -m simulator plan`"
        )


def planned_columns(plan: StaticPlan, op: Op) -> NDArray[np.bool_]:
    """Return which columns of an Op are high, (N,)."""
    found = plan.layers.get(op.name)
    if found is None:
        raise InputError(
            f"policy.plan: says nothing of {op.name}, which would run in two passes; expected all of these; make the "
            "plan with the same rules of layers, on samples that reach it"
        )
    if found.columns == 1 and op.n != 1:
        return np.full(op.n, bool(found.high))
    if found.columns != op.n or op.gemms != 1:
        raise InputError(
            f"policy.plan: {op.name}: has {found.columns} columns, and the product {op.gemms} x {op.n}; expected as "
            "many; make the plan for this network"
        )
    high = np.zeros(op.n, np.bool_)
    high[list(found.high)] = True
    return high
