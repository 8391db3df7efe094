"""What computed each operation of the network: the MAC array, the vector unit, or torch because nothing emulates it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from simulator.result import OperationResult

from .aten_ops import TORCH_NAMESPACES
from .tap import Ran

MAC_ARRAY, VECTOR_UNIT, TORCH = "MAC array", "vector unit", "torch"


@dataclass
class _Count:
    runs: int = 0
    work: int = 0
    places: dict[str, None] = field(default_factory=dict)


class Operations:
    """Counts the operations of a model's forward and backward passes, but for views, which compute nothing."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str, str], _Count] = {}

    def add(self, ran: Ran, unit: str, arithmetic: str) -> None:
        """Count an operation with the unit that computed it, and that unit's arithmetic."""
        if not ran.path and not ran.unknown:
            return  # a loss or an optimiser
        if getattr(ran.func, "is_view", False):
            return
        work = _work(ran)
        if not work:
            return
        key = _name(ran.func), ran.phase, unit, arithmetic or _dtype(ran.result)
        count = self._counts.setdefault(key, _Count())
        count.runs += 1
        count.work += work
        count.places[ran.path or "outside of the model"] = None

    def results(self) -> tuple[OperationResult, ...]:
        """Return the records, the most work first."""
        total = sum(count.work for count in self._counts.values())
        found = []
        for (name, phase, unit, arithmetic), count in self._counts.items():
            places = tuple(count.places)
            found.append(
                OperationResult(name, phase, unit, arithmetic, count.runs, places, count.work, count.work / total)
            )
        return tuple(sorted(found, key=lambda operation: -operation.work))


def _name(func: Any) -> str:
    if not isinstance(func, torch._ops.OpOverload):
        return str(func.__name__)
    name = func.overloadpacket.__name__
    return name if func.namespace in TORCH_NAMESPACES else f"{func.namespace}.{name}"


def _dtype(result: Any) -> str:
    types = [leaf.dtype for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    return str(types[0]).removeprefix("torch.") if types else ""


def _work(ran: Ran) -> int:
    """Return elementary operations: two for a MAC; else one for each element of the largest tensor read or written."""
    if ran.ops:
        return 2 * sum(op.macs for op in ran.ops)
    if ran.unknown and isinstance(ran.func, torch._ops.OpOverload):
        flops = _flops(ran)
        if flops is not None:
            return flops
    tensors = [leaf for leaf in tree_leaves((ran.args, ran.kwargs, ran.result)) if isinstance(leaf, Tensor)]
    return max((tensor.numel() for tensor in tensors), default=0)


def _flops(ran: Ran) -> int | None:
    """Return what torch's own counter says of an operation that it knows."""
    known = flop_registry.get(ran.func.overloadpacket)
    return None if known is None else int(known(*ran.args, **ran.kwargs, out_val=ran.result))
