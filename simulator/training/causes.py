"""The causes report: what rounding did in a training, by epoch, quantisation point and layer."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .ablation import Ablation
from .history import Epoch, History
from .observed import ALL, Effect, GradientNoise, flips_law, forward_law, fraction_bits
from .points import WEIGHT_STORE
from .recipe import Recipe
from .swamping import Swamping
from .updates import C1, HIGH, LOW, PER_BIT, UpdateCounts

CARRIER = "carrier"  # the point of updates that no format but the carrier's own kept
FILES = ("causes.json", "causes.csv")

# Columns beside epoch, point, layer and tensor; docs/howto/training-causes.md has the formula of each.
COLUMNS = (
    "values", "saturated", "overflowed", "vanished", "subnormal",
    "wanted", "lost", "lost_towards", "lost_away", "decay", "decay_law",
    "units", "flips", "flips_law", "forward_error", "forward_law", "gradient_error",
    "additions", "swamped", "sum_overflows", "sum_underflows",
    "batches", "signal", "deviation", "signal_to_noise", "rounding",
)  # fmt: skip

Row = dict[str, Any]


@dataclass(frozen=True)
class CausesReport:
    """What rounding did, as plain data; `print` shows the last epoch.

    Args:
        recipe: in words. rows: one for each epoch, point and tensor, with COLUMNS; None where one does not apply.
        steps: for the updates of each epoch and parameter, how many had which log2(|d| / ulp(w)): pairs of the lower
            edge of a bin, a quarter wide, and a count; of log2|d| - floor(log2|w|) where no float format stores w.
        accuracies: by epoch. ablation: as plain data, None if there was none.
    """

    recipe: dict[str, Any]
    rows: list[Row]
    steps: list[Row]
    accuracies: list[float | None]
    ablation: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, as causes.json holds it."""
        return asdict(self)

    def save(self, directory: str | os.PathLike[str]) -> list[Path]:
        """Write causes.json and causes.csv into a directory, in place of earlier ones, each whole or not at all.

        Raises:
            InputError: they cannot be written.
        """
        from simulator.report.directories import check_enterable, write_file

        check_enterable(directory)
        paths = [Path(directory) / name for name in FILES]
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        table = csv.DictWriter(
            text := io.StringIO(), ("epoch", "point", "layer", "tensor", *COLUMNS), lineterminator="\n"
        )
        table.writeheader()
        table.writerows(self.rows)
        write_file(paths[0], json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")
        write_file(paths[1], text.getvalue())
        return paths

    def __str__(self) -> str:
        from simulator.report.causes import views
        from simulator.report.console import text_of

        return text_of(views(self.to_dict()))


def causes_of(history: History, ablation: Ablation | None = None) -> CausesReport:
    """Return the causes report of a training.

    Args:
        history: of `fit`; without `causes=True` it has counts alone. ablation: of the same recipe, for the verdict.
    """
    rows = [row for epoch in history.epochs for row in _rows(epoch, history.recipe)]
    return CausesReport(
        history.recipe.in_words(), rows, [row for epoch in history.epochs for row in _steps(epoch, history.recipe)],
        [epoch.accuracy for epoch in history.epochs], None if ablation is None else ablation.to_dict(),
    )  # fmt: skip


def _rows(epoch: Epoch, recipe: Recipe) -> list[Row]:
    rows: dict[tuple[str, str], Row] = {}
    for point, tensor, found in _found(epoch, recipe):
        row = rows.setdefault((point, tensor), {
            "epoch": epoch.number, "point": point, "layer": _layer(tensor, epoch), "tensor": tensor,
            **dict.fromkeys(COLUMNS),
        })  # fmt: skip
        row.update({name: _number(value) for name, value in found.items()})
    return list(rows.values())


def _found(epoch: Epoch, recipe: Recipe) -> Iterator[tuple[str, str, Row]]:
    """Yield point, tensor and what is known of them."""
    for point, tensors in epoch.counts.items():
        for tensor, counts in tensors.items():
            shared = point in recipe.points and recipe.points[point].format.has_blocks  # scales: nothing else is known
            yield (
                point,
                tensor,
                {name: count for name, count in asdict(counts).items() if not shared or name in ("values", "vanished")},
            )
    seen = epoch.observation
    for name, updates in epoch.updates.items():
        rate = None if seen is None else seen.rates.get(name)
        yield _keeper(recipe), name, _of_updates(updates, recipe, rate)
    if seen is None:
        return
    for point, layers in seen.effects.items():
        for layer, effect in layers.items():
            yield point, layer, _of_effect(effect, point, recipe)
    for product, counted in seen.swamping.items():
        for layer, swamping in counted.items():
            yield product, layer, _of_sums(swamping)
    for name, noise in seen.gradients.items():
        yield ALL, name, _of_gradient(noise)
        for point, rounding in noise.rounding.items():
            yield point, name, {"rounding": rounding}


def _of_updates(updates: UpdateCounts, recipe: Recipe, rate: float | None) -> Row:
    use = recipe.points.get(WEIGHT_STORE)
    bits = fraction_bits(use)
    lawful = rate and use is not None and bits is not None and use.rounding == "rz"
    return {
        "wanted": updates.wanted, "lost": updates.lost, "lost_towards": updates.lost_towards,
        "lost_away": updates.lost_away, "decay": updates.decay(rate) if rate else None,
        "decay_law": C1 * 2.0 ** -(bits or 0) / rate if rate and lawful else None,
    }  # fmt: skip


def _of_effect(effect: Effect, point: str, recipe: Recipe) -> Row:
    use = recipe.points.get(point) if point.startswith("weight_") and point != "weight_gradient" else None
    return {
        "units": effect.units, "flips": effect.flips, "forward_error": effect.forward_error,
        "gradient_error": effect.gradient_error,
        "flips_law": flips_law(use, effect.depth) if use is not None and effect.units else None,
        "forward_law": forward_law(use, effect.depth) if use is not None else None,
    }  # fmt: skip


def _of_sums(swamping: Swamping) -> Row:
    return {
        "additions": swamping.additions, "swamped": swamping.swamped,
        "sum_overflows": swamping.overflows, "sum_underflows": swamping.underflows,
    }  # fmt: skip


def _of_gradient(noise: GradientNoise) -> Row:
    return {
        "batches": noise.batches,
        "signal": noise.signal,
        "deviation": noise.deviation,
        "signal_to_noise": noise.ratio,
    }


def _steps(epoch: Epoch, recipe: Recipe) -> Iterator[Row]:
    """Yield the histograms of steps in last places: m* is the width at which a step is half a last place."""
    bits = fraction_bits(recipe.points.get(WEIGHT_STORE)) or 0
    for name, updates in epoch.updates.items():
        critical = updates.critical.tolist()
        edges = (bits - 1 - LOW - (place + 1) / PER_BIT for place in range((HIGH - LOW) * PER_BIT))
        bins = [[edge, count] for edge, count in zip(edges, critical, strict=True) if count]
        yield {"epoch": epoch.number, "point": _keeper(recipe), "tensor": name, "log2_in_ulps": bins[::-1]}


def _keeper(recipe: Recipe) -> str:
    return WEIGHT_STORE if WEIGHT_STORE in recipe.points else CARRIER


def _layer(tensor: str, epoch: Epoch) -> str:
    """Return the layer that a tensor belongs to: itself, or what a parameter or its state is named after."""
    name = tensor.split(": ")[0].split("#")[0]
    return name.rpartition(".")[0] if name in epoch.updates else name


def _number(value: float | None) -> float | None:
    """Return what JSON has a number for."""
    return value if value is None or math.isfinite(value) else None
