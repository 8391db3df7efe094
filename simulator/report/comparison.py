"""What a run says: its modes side by side, the arithmetic of each, and sentences made from the numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from simulator.report.figures import (
    counted,
    decibels,
    five_digits,
    near_one,
    percent,
    printable,
    quantity,
    score,
    shorten,
    significant,
)
from simulator.result import (
    FLOAT32,
    MAC_ARRAY,
    MODE_LABELS,
    MODES,
    VECTOR_UNIT,
    Conditions,
    GatherResult,
    LayerResult,
    RunResult,
    in_mm2,
)

# Metrics of ours: what they are called, and how their figures are written.
METRICS = {
    "top1": ("top-1 accuracy", score),
    "top5": ("top-5 accuracy", score),
    "agreement": ("agrees with exact", score),
    "cosine": ("cosine similarity", near_one),
    "kl": ("KL divergence, nats", significant),
    "perplexity": ("perplexity", five_digits),
    "mse": ("mean squared error", significant),
    "sqnr_db": ("SQNR, dB", decibels),
}
# What cycles are that are not analytic.
FIDELITIES = {"roofline": "cycles are lower bounds", "event": "cycles tile by tile"}


@dataclass(frozen=True)
class ModeRow:
    """One mode of a run.

    Args:
        mode, label: key of the mode, or of torch's own run, and its name for readers.
        accuracy, agreement: shares of 1; forward_error: logit RMS error.
        cycles, latency_s, energy_j, accumulation_cost: totals of the mode. None wherever the run does not know.
    """

    mode: str
    label: str
    accuracy: float | None
    agreement: float | None
    forward_error: float | None
    cycles: float | None
    latency_s: float | None
    energy_j: float | None
    accumulation_cost: float | None


def run_facts(run: RunResult) -> list[str]:
    """Return what a reader must know first: samples, tolerance, seed, and how cycles are counted, if not analytic."""
    facts = [counted(run.samples, "sample")]
    if run.tolerance is not None:
        facts.append(f"tolerance {run.tolerance:g}")
    facts.append(f"seed {run.seed}")
    if run.fidelity != "analytic":
        facts.append(f"fidelity {run.fidelity} ({FIDELITIES[run.fidelity]})")
    return facts


def mode_rows(run: RunResult) -> list[ModeRow]:
    """Return one row for each mode of which the run knows anything, in the order exact, low, high, two-pass.

    Before them stands torch's own run, if it was measured, with its metrics and without a bill.
    """
    rows = []
    plain = {name: by_mode.get(FLOAT32) for name, by_mode in run.metrics.items()}
    if any(value is not None for value in plain.values()):
        mse = plain.get("mse")
        scores = plain.get("top1"), plain.get("agreement"), None if mse is None else math.sqrt(mse)
        rows.append(ModeRow(FLOAT32, MODE_LABELS[FLOAT32], *scores, None, None, None, None))
    for mode in MODES:
        totals = run.totals.get(mode) or {}
        accuracy = run.accuracy.get(mode) if run.accuracy else None
        costs = [totals.get(name) for name in ("cycles", "latency_s", "energy_j", "accumulation_cost")]
        figures = [accuracy, run.agreement.get(mode), run.forward_error.get(mode), *costs]
        if any(figure is not None for figure in figures):
            rows.append(ModeRow(mode, MODE_LABELS[mode], *figures))
    return rows


def shown_mode(run: RunResult) -> str:
    """Return the mode that `run.layers` describes: two_pass, or low on a machine with one MAC."""
    return "two_pass" if run.tolerance is not None or run.totals.get("two_pass") is not None else "low"


def layers_by_mode(run: RunResult) -> dict[str, tuple[LayerResult, ...]]:
    """Return the layer records of every priced mode, in the order low, high, two-pass."""
    known = {**run.baseline_layers, shown_mode(run): run.layers}
    return {mode: known[mode] for mode in MODES if known.get(mode)}


def conditions_by_layer(run: RunResult) -> dict[str, Conditions]:
    """Return the condition numbers of layers by their names; of the steps of a recurrent layer, each has its own."""
    return {one.layer: one for one in run.conditions}


def metric_rows(run: RunResult, but: tuple[str, ...] = ()) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the labels of the modes that the metrics know, and (metric, a figure for each of these modes) in words.

    Args:
        run: the record. but: metrics to leave out.
    """
    modes = [mode for mode in (FLOAT32, *MODES) if any(values.get(mode) is not None for values in run.metrics.values())]
    rows = []
    for name, values in run.metrics.items():
        if name not in but:
            label, show = METRICS.get(name, (printable(name), significant))
            rows.append((label, [show(values.get(mode)) for mode in modes]))
    return [MODE_LABELS[mode] for mode in modes], rows


@dataclass(frozen=True)
class OperationRow:
    """Operations that the MAC array does not perform: of one kind, in one phase, on one unit.

    Args:
        name, phase, unit: what it is, where, and what computed it in which arithmetic.
        count: how often it ran. share: of the work of all operations, in 0..1. places: paths of the modules it ran in.
        cycles, energy_j: what it costs; None where it has no price.
    """

    name: str
    phase: str
    unit: str
    count: int
    share: float
    places: tuple[str, ...]
    cycles: int | None
    energy_j: float | None

    def where(self, most: int) -> str:
        """Return the places, at most so many by name."""
        more = f" and {len(self.places) - most:,} more" if len(self.places) > most else ""
        return ", ".join(shorten(place, 24) for place in self.places[:most]) + more


def other_operations(run: RunResult) -> list[OperationRow]:
    """Return what ran outside of the MAC array, the largest share of the work first."""
    others = sorted((one for one in run.operations if one.unit != MAC_ARRAY), key=lambda one: -one.share)
    return [
        OperationRow(
            one.name, one.phase, f"{one.unit} ({one.arithmetic})", one.count, one.share, one.places, one.cycles,
            one.energy_j,
        )
        for one in others
    ]  # fmt: skip


def operations_total(rows: Iterable[OperationRow]) -> tuple[int, float] | None:
    """Return the cycles and the energy of operations, those that have a price; None if none has one."""
    priced = [(row.cycles, row.energy_j) for row in rows if row.cycles is not None and row.energy_j is not None]
    return (sum(cycles for cycles, _ in priced), sum(energy for _, energy in priced)) if priced else None


def layers_total(run: RunResult) -> dict[str, float]:
    """Return cycles, latency_s and energy_j of all layers, without what the totals of a mode have beside them.

    Empty where the mode has no totals.
    """
    if run.totals.get(shown_mode(run)) is None:
        return {}
    names = ("cycles", "latency_s", "energy_j")
    return {name: sum(getattr(layer, name) or 0 for layer in run.layers) for name in names}


def energy_by_part(run: RunResult, mode: str) -> dict[str, float]:
    """Return the energy of a mode by part: the parts of its layers, and all that is no layer as "vector unit"."""
    parts = sum_parts(layer.energy_parts_j for layer in layers_by_mode(run).get(mode, ()))
    beside = (run.totals.get(mode) or {}).get("vector_energy_j")
    return {**parts, VECTOR_UNIT: beside} if beside else parts


def sum_parts(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the sums by name of several splits of a quantity, names in the order of their first appearance."""
    sums: dict[str, float] = {}
    for split in parts:
        for name, value in split.items():
            sums[name] = sums.get(name, 0) + value
    return sums


def arithmetic(run: RunResult) -> list[tuple[str, str]]:
    """Return (mode, MAC) pairs that name each MAC of the run once.

    Where the layers of a mode differ, a MAC is followed by the names of its layers, at most three of them.
    """
    uniform = {mode: layers for mode, layers in layers_by_mode(run).items() if mode in ("low", "high")}
    modes = {
        MODE_LABELS[mode].removeprefix("uniform "): [(layer.name, layer.mac) for layer in layers]
        for mode, layers in (uniform or {shown_mode(run): run.layers}).items()
    }
    if uniform:  # the passes between, of which there is no uniform run
        high = modes.popitem()
        for layer in run.layers:
            for name, mac in list(zip(layer.pass_outputs, layer.mac.split("; ")[1:], strict=False))[:-1]:
                modes.setdefault(printable(name), []).append((layer.name, mac))
        modes.update([high])
    pairs = []
    for label, macs in modes.items():
        users: dict[str, list[str]] = {}
        for name, mac in macs:
            users.setdefault(mac, []).append(shorten(name, 32))
        for mac, names in users.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            where = f"  in {', '.join(names[:3])}{more}" if len(users) > 1 else ""
            pairs.append((label, f"{mac}{where}"))
    return pairs


def one_mac(run: RunResult) -> bool:
    """Whether all layers of the run use the same arithmetic."""
    return len({layer.mac for layer in run.layers}) <= 1


def flagged_share(layers: Iterable[LayerResult]) -> float | None:
    """Return the share of the multiply-accumulates of layers that are those of flagged outputs; None without any."""
    macs = flagged = 0
    for layer in layers:
        macs += layer.macs
        flagged += layer.flagged_macs
    return flagged / macs if macs else None


def mean_utilisation(layers: Iterable[LayerResult]) -> float | None:
    """Return the utilisation of a run of layers one after the other: the mean weighted by cycles; None if unpriced."""
    priced = [(layer.cycles, layer.utilisation) for layer in layers if layer.cycles and layer.utilisation is not None]
    cycles = sum(weight for weight, _ in priced)
    return sum(weight * use for weight, use in priced) / cycles if cycles else None


def summary(run: RunResult) -> list[str]:
    """Return one to three plain sentences about the run, each written from its comparison and true either way."""
    rows = {row.mode: row for row in mode_rows(run)}
    shown = rows.get(shown_mode(run))
    if shown is None:
        return [f"{run.model} ran on {run.hardware} over {counted(run.samples, 'sample')}."]
    sentences = [_scores(run, rows, shown)]
    if shown.mode == "two_pass":
        sentences += [_against(shown, rows[mode]) for mode in ("low", "high") if mode in rows]
    elif "high" in run.totals and run.totals["high"] is None:
        sentences.append(f"{run.hardware} has one MAC, so there is no uniform high or two-pass run to compare with.")
    return [sentence for sentence in sentences if sentence]


def largest_energy(run: RunResult) -> str:
    """Return a sentence that names the largest part of the energy; an empty text where nothing is priced."""
    parts = energy_by_part(run, shown_mode(run))
    energy = sum(parts.values())
    if not (math.isfinite(energy) and energy > 0):
        return ""
    largest = max(parts, key=lambda name: parts[name])
    share = f"{100 * parts[largest] / energy:.0f} % of {quantity(energy, 'J')}"
    return f"The largest part of the {MODE_LABELS[shown_mode(run)]} energy is {largest}: {share} (estimate)."


def _scores(run: RunResult, rows: Mapping[str, ModeRow], shown: ModeRow) -> str:
    tolerance = f" at tolerance {run.tolerance:g}" if shown.mode == "two_pass" and run.tolerance is not None else ""
    opening = f"Over {counted(run.samples, 'sample')}, {shown.label}{tolerance}"
    others = [row for mode, row in rows.items() if mode != shown.mode]
    if shown.accuracy is not None:
        rest = [f"{row.label} {score(row.accuracy)}" for row in others if row.accuracy is not None]
        return f"{opening} reaches a top-1 accuracy of {score(shown.accuracy)}{_bracket(rest)}."
    if shown.agreement is not None:
        rest = [f"{row.label} {score(row.agreement)}" for row in others if row.agreement not in (None, 1.0)]
        return f"{opening} gives the top-1 answer of the exact run on {score(shown.agreement)}{_bracket(rest)}."
    return f"{opening} ran {run.model} on {run.hardware}."


def _bracket(items: list[str]) -> str:
    return f" ({', '.join(items)})" if items else ""


def _against(row: ModeRow, base: ModeRow) -> str:
    """Say how `row` differs from `base` in error and cost; an empty text where the two share no figure."""
    phrases = [
        _relation(row.forward_error, base.forward_error, "logit RMS error"),
        _relation(row.energy_j, base.energy_j, "energy"),
        _relation(row.latency_s, base.latency_s, "latency"),
        _relation(row.accumulation_cost, base.accumulation_cost, "accumulation cost"),
    ]
    known = [phrase for phrase in phrases if phrase]
    if not known:
        return ""
    listed = f"{', '.join(known[:-1])} and {known[-1]}" if len(known) > 1 else known[0]
    what = "accuracy" if row.accuracy is not None else "agreement"
    verdict = (
        f"; {base.label} is at least as good in {what}, error, energy and latency" if _no_better(row, base) else ""
    )
    return f"Against {base.label}, {listed}{verdict}."


def _relation(value: float | None, base: float | None, what: str) -> str:
    if value is None or base is None or not (math.isfinite(value) and math.isfinite(base)):
        return ""
    if base == 0:
        return f"the {what} is 0 as well" if value == 0 else f"the {what} is {significant(value)} and not 0"
    ratio = value / base
    if abs(ratio - 1) < 0.0005:
        return f"the {what} is the same"
    if ratio >= 2 or ratio <= 0.1:
        return f"the {what} is {significant(ratio)} times as large"
    return f"the {what} is {significant(100 * abs(ratio - 1))} % {'higher' if ratio > 1 else 'lower'}"


def _no_better(row: ModeRow, base: ModeRow) -> bool:
    """Whether `base` is at least as good as `row` in score, error, energy and latency, all four known."""
    at_least = [
        (base.accuracy, row.accuracy) if row.accuracy is not None else (base.agreement, row.agreement),
        (row.forward_error, base.forward_error),
        (row.energy_j, base.energy_j),
        (row.latency_s, base.latency_s),
    ]
    return all(left is not None and right is not None and left >= right for left, right in at_least)


def area(run: RunResult) -> str:
    """Return a sentence with the machine's area, its bounds, and its parts with their classes; empty if not known."""
    if run.area_um2 is None:
        return ""
    classes: dict[str, dict[str, None]] = {}
    for item in run.area_items:
        classes.setdefault(item.part, {})[f"{item.uncertainty} x/÷ {item.band:g}"] = None
    whole, low, high = (significant(in_mm2(um2)) for um2 in (run.area_um2, run.area_low_um2, run.area_high_um2))
    parts = [
        f"{part} {percent(um2 / run.area_um2)}{_bracket(list(classes.get(part, ())))}"
        for part, um2 in sorted(run.area_parts_um2.items(), key=lambda item: -item[1])
        if um2
    ]
    return f"Its area is {whole} mm², {low} to {high} mm² by the bands of the sources (estimate): {', '.join(parts)}."


def gathers_by_layer(gathers: Iterable[GatherResult]) -> dict[str | None, list[GatherResult]]:
    """Return the ways to gather by the name of the layer, those of all layers together under None."""
    found: dict[str | None, list[GatherResult]] = {}
    for one in gathers:
        found.setdefault(one.layer, []).append(one)
    return found


def gather_sentences(gathers: Sequence[GatherResult]) -> list[str]:
    """Return which ways to gather take less than uniform high, and why the machine lacks others."""
    known = [one for one in gathers if not one.obstacle]
    less = [
        f"less energy than uniform high: {_named_of(one.gather for one in known if below_one(one.energy_vs_high))}",
        f"fewer cycles: {_named_of(one.gather for one in known if below_one(one.cycles_vs_high))}",
    ]
    obstacles: dict[str, list[str]] = {}
    for one in gathers:
        if one.obstacle:
            obstacles.setdefault(one.obstacle, []).append(one.gather)
    sentences = [f"{'; '.join(less)}."] if known else []
    sentences += [f"{_named_of(names)} {why}." for why, names in obstacles.items()]
    return [sentence[:1].upper() + sentence[1:] for sentence in sentences]


def below_one(ratio: float | None) -> bool:
    """Whether a known ratio is below 1."""
    return ratio is not None and ratio < 1.0


def _named_of(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
