"""Accumulators of real units by name, each with the evidence for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """A unit of real hardware.

    Args:
        operands: format of both operands where a MAC names none.
        outputs: output format -> string form of the accumulator that ends in it; the first is the default.
    """

    operands: str
    outputs: Mapping[str, str]

    def form(self, output: str | None = None) -> str:
        """Return the string form of the accumulator for an output format; ValueError if the unit lacks it."""
        if output is None:
            return next(iter(self.outputs.values()))
        if output not in self.outputs:
            raise ValueError(f"this unit's outputs are {', '.join(self.outputs)}; got {output!r}")
        return self.outputs[output]


PRESETS: dict[str, Preset] = {
    "h100.fp16": Preset(
        "fp16",
        {
            "fp32": "aligned(16, 25, fp32/rz, e_min=-133)",
            "fp16": "aligned(16, 25, fp16, e_min=-133)",
        },
    ),
    "h100.fp8.wgmma": Preset("fp8_e4m3", {"fp32": "aligned(32, 13, e8m13/rz, e_min=-133)"}),
}
