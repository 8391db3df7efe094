"""The steps of a recurrent layer: many products of one shape, which stand in the record as one layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from simulator.result import LayerResult, summed

from .relative_errors import RelativeErrors
from .tally import LayerTally


def step_groups(tallies: Iterable[LayerTally]) -> list[list[LayerTally]]:
    """Return tallies one by one, but those of the steps of a recurrent layer together, which differ in nothing else."""
    groups: dict[object, list[LayerTally]] = {}
    for number, tally in enumerate(tallies):
        groups.setdefault(number if tally.step is None else _same(tally), []).append(tally)
    return list(groups.values())


def _same(tally: LayerTally) -> tuple[object, ...]:
    """Return what the tallies of all steps of a product have in common."""
    path = tally.name.split("#")[0]
    kind = tally.kind, tally.gemms, tally.m, tally.n, tally.k, tally.mac, tally.activation, tally.scales, tally.planned
    return (path, tally.phase, tally.step, *kind)


def joined_steps(tallies: list[LayerTally], layers: list[LayerResult]) -> LayerResult:
    """Return one record for the steps of a recurrent layer, which run one after the other."""
    first, last = layers[0], layers[-1]
    if len(layers) == 1:
        return first
    errors = RelativeErrors()
    for tally in tallies:
        errors.join(tally.errors)
    largest, mean, median = errors.summary()
    cycles = sum(layer.cycles or 0 for layer in layers)
    whole: dict[str, Any] = {}
    for name in ("cycles", "latency_s", "energy_j", "energy_low_j", "energy_high_j", "roofline_cycles"):
        values = [getattr(layer, name) for layer in layers]
        whole[name] = None if None in values else sum(values)
    for name in ("energy_parts_j", "cycle_parts", "traffic_bits", "pass_outputs"):
        parts = [getattr(layer, name) for layer in layers]
        whole[name] = {part: sum(of[part] for of in parts) for part in parts[0]}
    for name in ("gemms", "a_words", "macs", "recomputed_outputs", "recomputed_macs", "overflows"):
        whole[name] = sum(getattr(layer, name) for layer in layers)
    if first.zero_macs is not None:
        whole["zero_macs"] = sum(layer.zero_macs or 0 for layer in layers)
    whole["energy_items"] = summed([item for layer in layers for item in layer.energy_items], "count", "energy_j")
    whole["cycle_items"] = summed([item for layer in layers for item in layer.cycle_items], "cycles")
    if first.waste_factor is not None:
        flagged = sum(whole["pass_outputs"].values())
        recomputed = sum(sum(layer.pass_outputs.values()) * (layer.waste_factor or 1.0) for layer in layers)
        whole["waste_factor"] = recomputed / flagged if flagged else 1.0
    if first.utilisation is not None:
        whole["utilisation"] = sum((layer.utilisation or 0.0) * (layer.cycles or 0) for layer in layers) / cycles
    return replace(
        first, name=f"{first.name} to {last.name.removeprefix(last.name.split('#')[0]) or last.name}", **whole,
        max_rel_error=largest, mean_rel_error=mean, median_rel_error=median, sqnr_db=errors.sqnr_db,
        rms_error=errors.rms,
    )  # fmt: skip
