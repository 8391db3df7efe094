"""What computed each operation of the network, and what those cost that are no products.

The MAC array computes products, the vector unit all else but what only moves values in the memory; what nothing
emulates is torch's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from formats import Format
from simulator.cost import ELEMENTWISE, VectorCost, VectorOperation, vector_price, why_unpriced
from simulator.hardware import Machine
from simulator.result import MAC_ARRAY, MEMORY, TORCH, VECTOR_UNIT, OperationResult, summed

from . import vector
from .aten_ops import TORCH_NAMESPACES
from .constants import Constants
from .epilogue import Epilogue
from .input_types import type_name
from .leaves import tensors_in
from .tap import Ran
from .vector_work import move, vector_operation

# What constants ask, which are prepared before anything runs, and copies, for which the machine has addresses.
_NOTHING = VectorOperation("move", 0, 0, 0, 0)

_Key = tuple[str, str, str, str]  # name, phase, unit, arithmetic


@dataclass
class _Count:
    """One kind of operation.

    Args:
        asked: what it asks of the vector unit or the memory, by path, how many of its kind were there before in the
            pass, kind, and format of the unit. torch_alone: whether torch computed it, and it is no product.
    """

    runs: int = 0
    work: int = 0
    torch_alone: bool = False
    places: dict[str, None] = field(default_factory=dict)
    asked: dict[tuple[str, int, str, Format], VectorOperation] = field(default_factory=dict)


class Operations:
    """Counts the operations of a model's forward and backward passes, but for views, which compute nothing.

    Args:
        own: whether a tensor is one of the model's own, which all samples share.
        form: format of the vector unit in a module, by its path.
    """

    def __init__(self, own: Callable[[Tensor], bool], form: Callable[[str], Format]) -> None:
        self._constants, self._form = Constants(own), form
        self._counts: dict[_Key, _Count] = {}
        self._before: Counter[tuple[str, str, str]] = Counter()  # in this pass, by name, phase and path
        self._epilogue = Epilogue()

    def begin(self) -> None:
        """Begin a forward pass, whose operations are those of earlier passes on further samples."""
        self._before.clear()
        self._epilogue.clear()
        self._constants.forget_freed()

    def add(self, ran: Ran, unit: str, arithmetic: str) -> None:
        """Count an operation with the unit that computed it, and that unit's arithmetic."""
        if not ran.path and not ran.unknown:
            return  # a loss or an optimiser
        constant = self._constants.note(ran)
        if vector.computes_nothing(ran.func):
            return
        largest = _largest(ran)
        work = _work(ran, largest)
        if not work:
            return
        asked = None
        if unit in (VECTOR_UNIT, MEMORY):
            free = constant or vector.copies(ran.func) or vector.converts(ran.func)
            asked = _NOTHING if free else self._asked(ran, unit, largest)
        if asked is not None and asked.kind in ELEMENTWISE:
            asked = self._epilogue.fused(ran, asked)
        else:
            self._epilogue.note(ran, from_array=bool(ran.ops) or unit == MAC_ARRAY)
        name = _name(ran.func)
        count = self._counts.setdefault((name, ran.phase, unit, arithmetic or _dtype(ran.result)), _Count())
        count.runs += 1
        count.work += work
        count.torch_alone |= unit == TORCH and not (constant or ran.ops or ran.unknown)
        count.places[ran.path or "outside of the model"] = None
        if asked is not None:
            place = name, ran.phase, ran.path
            at = ran.path, self._before[place], asked.kind, self._form(ran.path)
            self._before[place] += 1
            before = count.asked.get(at)
            count.asked[at] = asked if before is None else before.joined(asked)

    def _asked(self, ran: Ran, unit: str, largest: int) -> VectorOperation:
        return move(ran) if unit == MEMORY else vector_operation(ran, largest, self._constants.holds)

    def costs(self, machine: Machine) -> dict[_Key, list[VectorCost]]:
        """Return what the operations of each kind cost that are no products, as far as they have a price."""
        return {
            key: [vector_price(machine, asked, form) for (*_, form), asked in count.asked.items()]
            for key, count in self._counts.items()
            if count.asked and not any(why_unpriced(machine, form) for *_, form in count.asked)
        }

    def unpriced(self, machine: Machine) -> dict[str, dict[str, None]]:
        """Return the names of the operations that have no price and are no products, by the reason."""
        found: dict[str, dict[str, None]] = {}
        for (name, *_), count in self._counts.items():
            reasons = [why_unpriced(machine, form) for *_, form in count.asked]
            if count.torch_alone:
                reasons.append("nothing emulates it, torch computed it")
            for reason in filter(None, reasons):
                found.setdefault(reason, {})[name] = None
        return found

    def results(self, costs: Mapping[_Key, Iterable[VectorCost]]) -> tuple[OperationResult, ...]:
        """Return the records with their costs, the most work first."""
        total = sum(count.work for count in self._counts.values())
        found = [
            OperationResult(
                *key, count.runs, tuple(count.places), count.work, count.work / total, **_sums(costs.get(key))
            )
            for key, count in self._counts.items()
        ]
        return tuple(sorted(found, key=lambda operation: -operation.work))


def _sums(costs: Iterable[VectorCost] | None) -> dict[str, Any]:
    if costs is None:
        return {}
    costs = list(costs)
    sums = {name: sum(getattr(cost, name) for cost in costs) for name in ("cycles", "latency_s", "energy_j")}
    items = (item for cost in costs for item in cost.energy_items)
    return {**sums, "energy_items": summed(items, "count", "energy_j")}


def _name(func: Any) -> str:
    if not isinstance(func, torch._ops.OpOverload):
        return str(func.__name__)
    name = func.overloadpacket.__name__
    return name if func.namespace in TORCH_NAMESPACES else f"{func.namespace}.{name}"


def _dtype(result: Any) -> str:
    found = tensors_in(result)
    return type_name(found[0].dtype) if found else ""


def _largest(ran: Ran) -> int:
    """Return the elements of the largest tensor read or written."""
    return max((x.numel() for x in tensors_in((ran.args, ran.kwargs, ran.result))), default=0)


def _work(ran: Ran, largest: int) -> int:
    """Return elementary operations: two for a MAC; else one for each element of the largest tensor read or written."""
    if ran.ops:
        return 2 * sum(op.macs for op in ran.ops)
    if ran.unknown and isinstance(ran.func, torch._ops.OpOverload):
        flops = _flops(ran)
        if flops is not None:
            return flops
    return largest


def _flops(ran: Ran) -> int | None:
    """Return what torch's own counter says of an operation that it knows."""
    known = flop_registry.get(ran.func.overloadpacket)
    return None if known is None else int(known(*ran.args, **ran.kwargs, out_val=ran.result))
