"""The bill of one operation in words: every cycle and every joule with its formula and its source."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Protocol

from simulator.errors import InputError
from simulator.report.comparison import layers_by_mode
from simulator.report.figures import PREFIXES, prefix_of, printable
from simulator.result import MODE_LABELS, CycleItem, EnergyItem, RunResult


class Billed(Protocol):
    """What has a bill: the cost of an operation, or the record of a layer."""

    @property
    def cycles(self) -> int | None: ...
    @property
    def energy_j(self) -> float | None: ...
    @property
    def cycle_items(self) -> tuple[CycleItem, ...]: ...
    @property
    def energy_items(self) -> tuple[EnergyItem, ...]: ...


def bill(name: str, modes: Mapping[str, Billed]) -> str:
    """Return the text of what an operation costs in each mode; the items of a mode sum to its totals as printed.

    Args:
        name: of the operation. modes: by mode of the machine.
    """
    return "\n\n".join("\n".join(_lines(name, mode, of)) for mode, of in modes.items()) + "\n"


def layer_bill(run: RunResult, name: str) -> str:
    """Return the bill of a layer of a run in every mode of the machine, in each phase that it ran in.

    Args:
        name: of the layer, as the record has it.
    Raises:
        InputError: no layer has this name; lists those that there are.
    """
    known = dict.fromkeys(layer.name for layer in run.layers)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f'did you mean "{near[0]}"?' if near else "name one of them"
        raise InputError(
            f"--explain-cost: got {name!r}, no layer of this run; expected one of {', '.join(known)}; {hint}"
        )
    texts = []
    for title in dict.fromkeys(layer.title for layer in run.layers if layer.name == name):
        alike = {
            mode: [layer for layer in layers if layer.title == title] for mode, layers in layers_by_mode(run).items()
        }
        for i in range(max(map(len, alike.values()))):
            texts.append(bill(title, {mode: found[i] for mode, found in alike.items() if i < len(found)}))
    return "\n".join(texts)


def _lines(name: str, mode: str, of: Billed) -> Iterator[str]:
    yield f"{printable(name)}, {MODE_LABELS.get(mode, mode)}"
    if of.cycles is None or of.energy_j is None:
        yield "  nothing prices this layer in this mode"
        return
    yield f"  cycles {of.cycles:>{_WIDTH}}"
    for cycles in of.cycle_items:
        yield f"    {cycles.part:<{_PART}}{cycles.cycles:>{_NUMBER}}  {cycles.what}: {cycles.formula}"
    power = prefix_of(of.energy_j)
    unit = f"{PREFIXES[power]}J"
    scale = 10.0**-power
    yield f"  energy {of.energy_j * scale:>{_WIDTH}.4f} {unit}, an estimate"
    for item in of.energy_items:
        each = f"{item.count:.6g}" if isinstance(item.count, float) else f"{item.count}"
        formula = f" [{item.formula}]" if item.formula else ""
        yield (
            f"    {item.part:<{_PART}}{item.energy_j * scale:>{_NUMBER}.6f} {unit}  {item.what}: {each} {item.unit} x "
            f"{_each(item)}{formula}; {item.uncertainty} x/÷ {item.band:g}, {item.source}"
        )


def _each(item: EnergyItem) -> str:
    """Return the energy of one, with more digits than a total needs; static power in watts."""
    unit = "W" if item.unit == "s" else "J"
    power = prefix_of(item.each_j)
    return f"{item.each_j * 10.0**-power:.7g} {PREFIXES[power]}{unit}"


_PART, _NUMBER = 14, 14
_WIDTH = _PART + _NUMBER - 5
