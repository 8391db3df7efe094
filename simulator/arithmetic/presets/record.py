"""What is known of a unit of real hardware, and how well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# From the best evidence to the least: what each word means.
LABELS: dict[str, str] = {
    "verified": "0 mismatches with recorded results of the unit that the repository holds",
    "reported": "the same, on recordings not held here",
    "modelled": "independent sources agree",
    "documented": "the vendor's text, or one source",
    "assumed": "a guess that may be wrong",
}

# What units of several vendors rest on, or leave open.
MMA_SIM = "MMA-Sim, arXiv 2511.10909"
FLUSH = "whether a result is flushed before or after it is rounded; read as after"


@dataclass(frozen=True)
class Output:
    """A mode of a unit.

    Args:
        accumulator: string form of the accumulator that ends in the output format.
        label: one of LABELS. but: what of it is less certain than the label says.
    """

    accumulator: str
    label: str
    but: str = ""


@dataclass(frozen=True)
class Preset:
    """A unit of real hardware.

    Args:
        unit: in words.
        operands: format of both operands where a MAC names none. fits: other formats that the unit takes.
        outputs: output format -> the unit in the mode that ends in it; the first is the default.
        sources: where it is described.
        notes: how open points of the sources are read here. untested: what no recording settles.
    """

    unit: str
    operands: str
    outputs: Mapping[str, Output]
    sources: tuple[str, ...]
    fits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    untested: tuple[str, ...] = ()

    def form(self, output: str | None = None) -> str:
        """Return the string form of the accumulator for an output format; ValueError if the unit lacks it."""
        if output is None:
            return next(iter(self.outputs.values())).accumulator
        if output not in self.outputs:
            raise ValueError(f"this unit's outputs are {', '.join(self.outputs)}; got {output!r}")
        return self.outputs[output].accumulator
