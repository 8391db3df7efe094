"""What notebooks show of proofs: how many samples are certified, and each with its margin and its bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulator.notebook import Table, View
from simulator.report.figures import counted, percent

if TYPE_CHECKING:
    from .certify import Certified
    from .required import RequiredPrecision

_RANKED = 10  # operations that are shown


def certified_rows(found: Certified) -> list[dict[str, Any]]:
    """Return a row for each sample."""
    columns = {name: getattr(found, name).tolist() for name in ("certified", "top", "margin", "bound", "range_effect")}
    columns["method"] = list(found.method)
    return [
        {"sample": place, **dict(zip(columns, row, strict=True))}
        for place, row in enumerate(zip(*columns.values(), strict=True))
    ]


def certified_view(found: Certified) -> View:
    """Return what is shown of certified samples, and of the operations that cost the median sample most."""
    facts = [
        f"Of {counted(len(found.certified), 'sample')} {percent(float(found.certified.mean()))} are certified: their "
        "top class is that of exact arithmetic.",
        f"{'Proved bounds' if found.subject is not None else 'Statistical bounds'}, of {found.unit}.",
    ]
    rows = certified_rows(found)
    tables = [Table("Samples; the bound is that of the margin's change", rows)]
    return View("Bounds", facts, [*tables, Table("Parts of the bound, largest first", _ranked(found))])


def required_rows(found: RequiredPrecision) -> list[dict[str, Any]]:
    """Return a row for each sample; bits are None where no number of them is proved to suffice."""
    of = {"bits": found.bits, "confidence_bits": found.confidence_bits}
    bits = {name: [int(one) or None for one in values] for name, values in of.items() if values is not None}
    return [
        {"sample": row["sample"], **{name: values[row["sample"]] for name, values in bits.items()}, **row}
        for row in certified_rows(found.certified)
    ]


def required_view(found: RequiredPrecision) -> View:
    """Return what is shown of the bits that samples need."""
    shares = [{"share_of_samples": f"{share:.0%}", "bits": bits} for share, bits in found.quantiles().items()]
    title = "Significand bits that provably suffice"
    return View(
        title,
        [f"Of {found.unit}."],
        [Table("So many bits suffice for", shares), Table("Samples", required_rows(found))],
    )


def _ranked(found: Certified) -> list[dict[str, Any]]:
    parts = list(found.to_dict()["contributions"].items())
    return [{"operation": name, "median_part": part} for name, part in parts[:_RANKED]]
