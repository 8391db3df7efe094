"""Two reports side by side: what survived in each, tensor by tensor and in all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean, median
from typing import Any

from .labels import GUARANTEES
from .report import Report


def compare(a: Report, b: Report) -> dict[str, Any]:
    """Return what two runs have in common as plain data. Bits and shares are of samples, each row with its label and
    what that guarantees.

    Returns:
        models: of both. tensors: by kind, name and label the median over steps of the median bits of a and b, None
        where one has no such tensor, and `more`, b minus a; those that differ most first. shares: by what and label
        the mean over steps of gradient entries that are noise, of updates below it and of those lost.
    """
    return {
        "models": [a.model, b.model],
        "tensors": sorted(_tensors(a, b), key=lambda row: -abs(row["more"] or 0.0)),
        "shares": list(_shares(a, b)),
    }


def _tensors(a: Report, b: Report) -> Iterable[dict[str, Any]]:
    found = [_medians(of) for of in (a, b)]
    for key in dict.fromkeys([*found[0], *found[1]]):
        kind, name, label = key
        one, other = (of.get(key) for of in found)
        yield {
            "kind": kind, "name": name, "label": label, "guarantee": GUARANTEES[label], "a": one, "b": other,
            "more": None if one is None or other is None else other - one,
        }  # fmt: skip


def _medians(report: Report) -> dict[tuple[str, str, str], float]:
    by_tensor: dict[tuple[str, str, str], list[float]] = {}
    for row in report.tensors:
        by_tensor.setdefault((row["kind"], row["name"], row["label"]), []).append(row["median"])
    return {key: float(median(of)) for key, of in by_tensor.items()}


def _shares(a: Report, b: Report) -> Iterable[dict[str, Any]]:
    for what, table, share in (
        ("gradient entries that are noise", "gradient_noise", "share"),
        ("updates below the noise", "updates", "below_noise"),
        ("updates lost", "updates", "lost"),
    ):
        found = [_means(getattr(of, table), share) for of in (a, b)]
        labels = dict.fromkeys([*found[0], *found[1]])
        for label in list(labels)[:1] if share == "lost" else labels:  # what is lost is lost by every number
            yield {
                "what": what, "label": None if share == "lost" else label,
                "guarantee": "of the sample" if share == "lost" else GUARANTEES[label],
                "a": found[0].get(label), "b": found[1].get(label),
            }  # fmt: skip


def _means(rows: Iterable[Mapping[str, Any]], share: str) -> dict[str, float]:
    """Return by label the mean over steps, tensors of a step counting by their elements."""
    by_step: dict[tuple[str, int], list[tuple[float, int]]] = {}
    for row in rows:
        by_step.setdefault((row["label"], row["step"]), []).append((row[share], row["elements"]))
    by_label: dict[str, list[float]] = {}
    for (label, _), own in by_step.items():
        by_label.setdefault(label, []).append(sum(x * n for x, n in own) / sum(n for _, n in own))
    return {label: fmean(of) for label, of in by_label.items()}
