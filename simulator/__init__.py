"""What an accelerator does to a network: the bits and the bill from one description.

    spec = simulator.mac("fma(fp16)")
    y = simulator.matmul(a, b, mac=spec)
    print(simulator.explain(spec, a=a, b=b))
    twice = simulator.two_pass(a, b, low="fma(fp8_e4m3)", high=spec)
    hw = simulator.load_hardware("npu")
    with simulator.emulate(model, hw) as run:
        logits = model(x)
    record = simulator.evaluate(model, hw, x, labels)
    bill = simulator.estimate(hw, (64, 64, 64), flagged=0.02)

    varied = {"array.rows": [8, 16]}
    simulator.explore.sweep("npu", varied, out="sweep")
    simulator.explore.search("npu", varied, objectives=["energy_j", "accuracy"], out="sweep")
    with simulator.track(model) as bits:
        model(x).sum().backward()
    bits.of(model.weight.grad).safe

    simulator.training.fit(model, (x, y), storage="e8m6", rounding="rz")
    simulator.bounds.certify(model, x, mac="fma(fp16)").certified

torch is imported only when a network is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import InputError

try:
    from .arithmetic import (
        Accumulator,
        Aligned,
        Chunk,
        Exact,
        Fixed,
        Fma,
        Interleave,
        Kahan,
        Late,
        MacSpec,
        Neumaier,
        Reverse,
        Seq,
        Tree,
        dot,
        ladder,
        mac,
        matmul,
        names_of,
        presets,
        two_pass,
    )
except ImportError as error:
    # Without the engine each of these names says so when it is asked for, and `doctor` at any time.
    if error.name != "native._engine":
        raise

if TYPE_CHECKING:
    from .arithmetic.convolution import convolution
    from .arithmetic.explain import explain
    from .cost import estimate
    from .hardware import load_hardware
    from .network import emulate, evaluate
    from .network.static_plan import static_plan
    from .tracking import track

# Public names that few runs need, or behind heavier imports: pydantic for machines, torch for networks.
_LAZY = {
    "convolution": "simulator.arithmetic.convolution",
    "explain": "simulator.arithmetic.explain",
    "estimate": "simulator.cost",
    "load_hardware": "simulator.hardware",
    "emulate": "simulator.network",
    "evaluate": "simulator.network",
    "static_plan": "simulator.network.static_plan",
    "track": "simulator.tracking",
}

__all__ = ["Accumulator", "Aligned", "Chunk", "Exact", "Fixed", "Fma", "InputError", "Interleave", "Kahan", "Late",
           "MacSpec", "Neumaier", "Reverse", "Seq", "Tree", "convolution", "dot", "emulate", "estimate", "evaluate",
           "explain", "ladder", "load_hardware", "mac", "matmul", "names_of", "presets", "static_plan",
           "track", "two_pass"]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in ("bounds", "explore", "report", "tracking", "training"):  # rooms of their own, which few runs need
        return importlib.import_module(f"simulator.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'simulator' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY.get(name, "simulator.arithmetic")), name)
