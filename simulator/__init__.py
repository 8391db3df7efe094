"""What an accelerator does to a network: the bits and the bill from one description.

    spec = simulator.mac("fma(fp16)")
    y = simulator.matmul(a, b, mac=spec)
    hw = simulator.load_hardware("npu")
    with simulator.emulate(model, hw) as run:
        logits = model(x)

torch is imported only when a network is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .arithmetic import Accumulator, Chunk, Exact, Fma, Late, MacSpec, Seq, dot, mac, matmul, two_pass
from .errors import InputError

if TYPE_CHECKING:
    from .cost import estimate
    from .hardware import load_hardware
    from .network import emulate

# Public names behind heavier imports: pydantic for machines, torch for networks.
_LAZY = {
    "estimate": "simulator.cost",
    "load_hardware": "simulator.hardware",
    "emulate": "simulator.network",
}

__all__ = ["Accumulator", "Chunk", "Exact", "Fma", "InputError", "Late", "MacSpec", "Seq", "dot", "emulate", "estimate",
           "load_hardware", "mac", "matmul", "two_pass"]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'simulator' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
