"""What a static plan says of a network and of its products."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from simulator.cost import Gemm
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


class Planned(NamedTuple):
    """Columns of a layer's products that one MAC computes.

    Args:
        mode: "low" or "high". columns: which, (gemms, N); None for all.
        gemm: what is priced: the products that have such columns, which have equally many.
    """

    mode: str
    columns: NDArray[np.bool_] | None
    gemm: Gemm


def planned(plan: StaticPlan, op: Op) -> list[Planned]:
    """Return which MAC computes which columns of an Op; each column is in exactly one part.

    Groups of a convolution of which a different number of columns is high are different parts, since they are products
    of different shapes.
    """
    high, parts = high_columns(plan, op.name, op.gemms, op.n, op.batched), []
    for mode, columns in (("low", ~high), ("high", high)):
        counts = columns.sum(axis=1)
        for n in np.unique(counts[counts > 0]):
            own = columns & (counts == n)[:, None]
            gemms = int(np.count_nonzero(counts == n))
            words = -(-op.operands[0].size * gemms // op.gemms)
            gemm = replace(op.gemm, n=int(n), gemms=gemms, a_words=min(words, gemms * op.m * op.k))
            parts.append(Planned(mode, None if own.all() else own, gemm))
    return parts


def high_columns(plan: StaticPlan, name: str, gemms: int, n: int, batched: bool) -> NDArray[np.bool_]:
    """Return which columns of a layer's products are high, (gemms, N).

    A plan says it of each output or channel; of a stack of products, which count samples, of all columns at once, since
    these are places that mean another thing in each.
    """
    found = plan.layers.get(name)
    if found is None:
        raise InputError(
            f"policy.plan: says nothing of {name}, which would run in two passes; expected all of these; make the plan "
            "with the same rules of layers, on samples that reach it"
        )
    expected = 1 if batched else gemms * n
    if found.columns != expected:
        raise InputError(
            f"policy.plan: {name}: has {found.columns} columns; expected {expected}; make the plan for this network"
        )
    high = np.zeros(expected, np.bool_)
    high[list(found.high)] = True
    return np.broadcast_to(high.reshape((1, 1) if batched else (gemms, n)), (gemms, n))
