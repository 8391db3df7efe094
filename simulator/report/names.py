"""What readers call the numbers that points of sweeps and searches have, and how these are written."""

from __future__ import annotations

from collections.abc import Mapping

from simulator.report import figures as signs
from simulator.report.comparison import METRICS
from simulator.result import MODE_LABELS

NAMES = {
    "accuracy": "accuracy", "agreement": "agreement with exact", "forward_error": "logit RMS error", "cycles": "cycles",
    "energy_j": "energy", "latency_s": "latency", "area_mm2": "area", "accumulation_cost": "accumulation cost",
}  # fmt: skip
# What explains a number on a page; of a metric, the entry of all of them.
TERMS = {
    "forward_error": "forward-error", "energy_j": "energy", "latency_s": "latency", "area_mm2": "area",
    "accumulation_cost": "accumulation-cost", **{name: name for name in ("accuracy", "agreement", "cycles")},
}  # fmt: skip
OF_METRICS = "metrics"


def parted(number: str) -> tuple[str, str | None]:
    """Return a number's name without the mode behind it, and the mode; None for that of the machine."""
    for mode in MODE_LABELS:
        stem = number.removesuffix(f"_{mode}")
        if stem != number:
            return stem, mode
    return number, None


def name_of(number: str) -> str:
    """Return what a number is called in a sentence, e.g. `energy` for energy_j, `energy (uniform high)` for
    energy_j_high."""
    stem, mode = parted(number)
    metric = METRICS[stem][0].split(",")[0] if stem in METRICS else stem  # behind the comma is the unit
    name = NAMES.get(stem, metric)
    return name if mode is None else f"{name} ({MODE_LABELS[mode]})"


def heading_of(number: str) -> str:
    """Return what a number is called at the beginning of a line."""
    name = name_of(number)
    return f"{name[0].upper()}{name[1:]}"


def term_of(number: str) -> str | None:
    """Return the entry of a page that explains a number; None where none does."""
    stem, _ = parted(number)
    return TERMS.get(stem) or (OF_METRICS if stem in METRICS else None)


def written(number: str, unit: str, value: float | None) -> str:
    """Return the value of a number with its unit as people read it."""
    if value is None:
        return signs.MISSING
    match unit:
        case "share":
            return signs.score(value)
        case "cycles":
            return signs.count(value)
        case "s" | "J":
            return signs.quantity(value, unit)
    _, show = METRICS.get(parted(number)[0], ("", signs.significant))
    return f"{show(value)} {unit}".rstrip()


def constraint(number: str, unit: str, interval: Mapping[str, float]) -> str:
    """Return in words what a number must keep: an interval {from, to}, either of which may be left out."""
    ends = [f"{word} {written(number, unit, interval[end])}"
            for end, word in (("from", "at least"), ("to", "at most")) if end in interval]  # fmt: skip
    return f"{name_of(number)} {' and '.join(ends)}"
