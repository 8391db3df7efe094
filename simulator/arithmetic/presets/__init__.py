"""Accumulators of real units by name, each with the evidence for it: one table a vendor."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .accelerators import ACCELERATORS
from .amd import AMD
from .nvidia import NVIDIA
from .processors import PROCESSORS
from .record import LABELS, Output, Preset

PRESETS: Mapping[str, Preset] = MappingProxyType(NVIDIA | AMD | PROCESSORS | ACCELERATORS)


def presets() -> Mapping[str, Preset]:
    """Return the units of real hardware by name; a name stands wherever an accumulator does, as in mac("h100.fp16")."""
    return PRESETS


__all__ = ["LABELS", "PRESETS", "Output", "Preset", "presets"]
