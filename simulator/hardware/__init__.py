"""Machines: strict YAML files to frozen records, and the order of summation that follows from the array."""

from .layer_rules import LayerRule, Scaling
from .layers import read_layers
from .load import bundled_names, load_hardware
from .records import (
    AccumulatorBuffer,
    Array,
    Dram,
    Level,
    Mac,
    Machine,
    MacMode,
    Memory,
    Policy,
    SideEngine,
    Technology,
    VectorUnit,
)

__all__ = [
    "AccumulatorBuffer",
    "Array",
    "Dram",
    "LayerRule",
    "Level",
    "Mac",
    "MacMode",
    "Machine",
    "Memory",
    "Policy",
    "Scaling",
    "SideEngine",
    "Technology",
    "VectorUnit",
    "bundled_names",
    "load_hardware",
    "read_layers",
]
