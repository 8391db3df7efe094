"""What is known of an operation of torch before it runs: its rule, what it overwrites, what it reads of that."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .rules import RULES, Rule
from .rules.nested import leaves

# In place these change how a tensor looks at its memory, and nothing in it.
_LOOKS = frozenset({"transpose", "t", "squeeze", "unsqueeze", "swapaxes", "swapdims", "as_strided", "detach", "set",
                    "rename", "requires_grad"})  # fmt: skip


class Known(NamedTuple):
    """What is known of an operation.

    Args:
        name: without overload and the _ of operations in place. idle: whether it does nothing to values, being a view
            or no operation on tensors. writes: places of arguments that it overwrites. named: keyword arguments that
            it overwrites. each: whether it is a rule for each of a list.
    """

    name: str
    idle: bool
    writes: tuple[int, ...]
    named: tuple[str, ...]
    rule: Rule | None
    each: bool


@functools.cache
def known_of(func: Any) -> Known:
    """Return what is known of an operation."""
    if not isinstance(func, torch._ops.OpOverload) or func.namespace in ("profiler", "prim"):
        idle = isinstance(func, torch._ops.OpOverload)
        return Known(str(getattr(func, "__name__", func)), idle, (), (), None, False)
    name = func.overloadpacket.__name__.removesuffix("_")
    if func.namespace != "aten":
        name = f"{func.namespace}::{name}"  # of another library, whatever its name
    each = name.startswith("_foreach_")
    name = name.removeprefix("_foreach_")
    arguments = func._schema.arguments
    writes = tuple(i for i, a in enumerate(arguments) if a.is_write and not a.kwarg_only)
    named = tuple(a.name for a in arguments if a.is_write and a.kwarg_only)
    idle = (bool(func.is_view) and not writes) or (func.namespace == "aten" and name in _LOOKS)
    return Known(name, idle, writes, named, RULES.get(name), each)


def read_again(written: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return operands of an operation whose memory it overwrites, but for those that it overwrites themselves unless
    they are operands twice.
    """
    targets = [x for x in leaves(written) if isinstance(x, Tensor) and x.layout is torch.strided]
    memories = {x.untyped_storage()._cdata for x in targets}
    seen: list[Tensor] = []
    given = [x for x in leaves((args, kwargs)) if isinstance(x, Tensor) and x.layout is torch.strided]
    once = {id(x) for x in targets}
    for x in given:
        if x.untyped_storage()._cdata not in memories:
            continue
        if id(x) in once:
            once.discard(id(x))
        else:
            seen.append(x)
    return seen


def silent(known: Known, args: tuple[Any, ...], kwargs: dict[str, Any], results: list[Tensor | None]) -> list[Tensor]:
    """Return tensors that an operation has overwritten and does not return."""
    if not known.writes and not known.named:
        return []
    written = [args[i] for i in known.writes if i < len(args)]
    written += [kwargs[name] for name in known.named if name in kwargs]
    targets = [x for x in leaves(written) if isinstance(x, Tensor) and x.layout is torch.strided and not x.is_meta]
    returned = {x.untyped_storage()._cdata for x in results if x is not None}
    return [x for x in targets if x.untyped_storage()._cdata not in returned]


def each_of(name: str) -> Any:
    """Return the operation on one tensor of an operation on each of a list."""
    packet = getattr(torch.ops.aten, name, None)
    return None if packet is None else getattr(packet, packet.overloads()[0])


def without_out(kwargs: dict[str, Any], written: tuple[str, ...]) -> dict[str, Any]:
    """Return keyword arguments without those that say where a result goes, or of what kind it is."""
    dropped = (*written, "dtype", "layout", "device", "pin_memory", "memory_format", "non_blocking", "generator")
    return {key: value for key, value in kwargs.items() if key not in dropped}
