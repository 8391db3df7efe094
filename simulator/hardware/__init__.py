"""Machines: strict YAML files to frozen records, and the order of summation that follows from the array."""

from .load import bundled_names, load_hardware
from .records import (
    AccumulatorBuffer,
    Array,
    Dram,
    Mac,
    Machine,
    MacMode,
    Memory,
    Policy,
    SideEngine,
    Sram,
    Technology,
)

__all__ = [
    "AccumulatorBuffer",
    "Array",
    "Dram",
    "Mac",
    "MacMode",
    "Machine",
    "Memory",
    "Policy",
    "SideEngine",
    "Sram",
    "Technology",
    "bundled_names",
    "load_hardware",
]
