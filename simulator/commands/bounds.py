"""`python -m simulator bounds`: what is proved of a network's answers on a unit, and how many bits it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from simulator.bounds import Certified, RequiredPrecision, certify, required_precision
from simulator.bounds.radii import around, radii_of
from simulator.errors import InputError
from simulator.explore.work import Inputs, load
from simulator.hardware import load_hardware
from simulator.report.bounds import render_bounds
from simulator.report.console import plain_table, print_view, standard_output
from simulator.report.directories import check_enterable, check_writable, write_file
from simulator.report.figures import counted, percent, printable, significant

from .records import json_text, print_record

MOST = 100  # samples that are analysed, if nothing says how many
NONE = "none sufficed"  # in place of a method
FILES = ("bounds.json", "bounds.html")
_SHOWN = 20  # problems of a certificate
if TYPE_CHECKING:
    from simulator.bounds.check import Verdict

_LEGEND = (
    "margin: by how much the top class is ahead in exact arithmetic, at least; bound: by how much computing may change "
    "that, at most. Certified: the top class cannot change."
)


@dataclass(frozen=True)
class Proved:
    """What a call of the command found.

    Args:
        model: its name. certified: of each sample. required: the bits, if they were asked for. labels: of the samples.
        statistical: whether bounds hold with a probability only.
    """

    model: str
    certified: Certified
    required: RequiredPrecision | None
    labels: Sequence[int] | None
    statistical: bool

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        found, required = self.certified, self.required
        right = None
        if self.labels is not None:
            hits = [bool(c) and t == y for c, t, y in zip(found.certified, found.top, self.labels, strict=True)]
            right = sum(hits) / len(hits)
        bits = None
        if required is not None:
            bits = {
                "bits": required.bits.tolist(),
                "confidence_bits": None if required.confidence_bits is None else required.confidence_bits.tolist(),
                "quantiles": _by_share(required.quantiles()),
                "confidence_quantiles": _by_share(required.confidence_quantiles()),
            }
        return {
            "model": self.model, "guarantee": "statistical" if self.statistical else "proved", **found.to_dict(),
            "certified_accuracy": right, "required_precision": bits,
            "methods": dict(Counter(
                name if certified else NONE for name, certified in zip(found.method, found.certified, strict=True)
            )),
        }  # fmt: skip


def _by_share(bits: Mapping[float, int | None] | None) -> dict[str, int | None] | None:
    return None if bits is None else {f"{share:g}": of for share, of in bits.items()}


def check_options(
    hw: str | None,
    mode: str | None,
    required: bool,
    confidence: float | None,
    failure: float | None,
    certificate: str | None,
    out: str | None,
) -> None:
    """Refuse options that would say nothing, and places that cannot be written to, before anything is computed.

    Raises:
        InputError: such an option or place.
    """
    if mode is not None and hw is None:
        raise InputError(f"bounds: --mode: got {mode} without --hw; expected it beside one, which has modes; give both")
    if confidence is not None and not required:
        raise InputError("bounds: --confidence: got it without --required; expected it beside that; give both")
    if certificate is not None and failure is not None:
        raise InputError(
            "bounds: --certificate: got it beside --failure, whose bounds are no proofs; expected one of both; leave "
            "one out"
        )
    if certificate is not None:
        check_writable(certificate)
    if out is not None:
        check_enterable(out)


def run(
    inputs: Inputs,
    hw: str | None,
    mac: str | None,
    mode: str,
    precision: int | None,
    required: bool,
    confidence: float | None,
    radius: Sequence[str],
    failure: float | None,
    progress: Callable[[float, int | None], None],
) -> Proved:
    """Prove what can be proved of the samples.

    Raises:
        InputError: what cannot be analysed, or does not go together.
    """
    if hw is not None and (mac is not None or precision is not None or required):
        raise InputError(
            "bounds: --hw: got it beside --mac, --precision or --required, whose formats are not the machine's; "
            "expected one of both; leave one out"
        )
    if required and (precision is not None or failure is not None):
        raise InputError("bounds: --required: got --precision or --failure beside it; expected it alone; leave one out")
    radii = radii_of(radius)
    loaded = load(inputs, MOST)
    x = around(loaded.samples, radii)
    labels = None if loaded.samples.y is None or loaded.samples.y.dim() != 1 else loaded.samples.y.tolist()
    model = loaded.model.eval()
    found: RequiredPrecision | None = None
    if required:
        found = required_precision(model, x, mac, confidence, progress=progress)
        certified = found.certified
    else:
        unit = mac if hw is None else load_hardware(hw)
        certified = certify(model, x, unit, precision, mode, failure=failure, progress=progress)
    return Proved(inputs.model, certified, found, labels, failure is not None)


def save_files(found: Proved, out: str) -> list[Path]:
    """Write the record as JSON and as a page, each whole or not at all."""
    record, paths = found.to_dict(), [Path(out) / name for name in FILES]
    Path(out).mkdir(parents=True, exist_ok=True)
    write_file(paths[0], json_text(record))
    write_file(paths[1], render_bounds(record))
    return paths


def checked(path: str, inputs: Inputs | None = None, with_samples: bool = False, radius: Sequence[str] = ()) -> Verdict:
    """Verify a certificate.

    Args:
        inputs: a network whose weights must be those of the certificate; None: nothing is compared. with_samples:
            whether its samples, or the boxes of these radii around them, must be the inputs.
    Raises:
        InputError: what is no certificate, or cannot be compared. MissingLibraryError: python-flint is not installed.
    """
    from simulator.bounds.certificate import digests
    from simulator.bounds.check import check_file
    from simulator.bounds.subject import boxes

    radii = radii_of(radius)
    if inputs is None:
        return check_file(path)
    loaded = load(inputs)
    weights, samples = digests(loaded.model, boxes(loaded.model, around(loaded.samples, radii)))
    return check_file(path, weights, samples if with_samples else None)


def show_verdict(found: Verdict, path: str, json: bool) -> None:
    """Print what the checker says."""
    if json:
        print_record(asdict(found))
        return
    if found.ok:
        facts = (
            f"{printable(path)} holds: {counted(found.certified, 'sample')} of {found.samples:,} certified by the "
            f"method {found.method}; {found.values:,} bounds and {found.derivatives:,} derivatives were followed"
        )
        units = f"  products on {printable(found.unit)}; all else in {printable(found.vector)}"
        machine = [] if found.machine is None else [f"  machine: {printable(found.machine)} (stated, not checked)"]
        shown = {name: "the same" if name in found.compared else "not compared" for name in ("weights", "inputs")}
        network = (
            f"  network: {printable(found.network)} (stated, not checked), weights {found.weights[:16]} "
            f"({shown['weights']}), inputs {found.inputs[:16]} ({shown['inputs']})"
        )
        print_view(standard_output(), facts, units, *machine, network)
        return
    first = [f"  {printable(text)}" for text in found.problems[:_SHOWN]]
    more = len(found.problems) - len(first)
    tail = [f"  and {more:,} more"] if more else []
    verdict = "does not hold:" if found.followed else "was not followed to its end, and may hold:"
    print_view(standard_output(), f"{printable(path)} {verdict}", *first, *tail)


def show(found: Proved, paths: Sequence[Path], json: bool) -> None:
    """Print what was found."""
    record = found.to_dict()
    if json:
        print_record(record)
        return
    samples = len(record["samples"])
    facts = f"{printable(found.model)} on {printable(record['unit'])}, {counted(samples, 'sample')}"
    share = f"certified {percent(record['certified_share'])}"
    if record["certified_accuracy"] is not None:
        share += f", certified and right {percent(record['certified_accuracy'])}"
    share += " (statistical, no proof)" if found.statistical else ""
    parts: list[Any] = [facts, share]
    if (required := record["required_precision"]) is not None:
        parts.append(f"significand bits that suffice: {_shares(required['quantiles'])}")
        if required["confidence_quantiles"] is not None:
            parts.append(
                f"significand bits that suffice for the confidence: {_shares(required['confidence_quantiles'])}"
            )
    table = plain_table(("method",), ("samples", "median margin", "median bound"))
    for method, count in record["methods"].items():
        own = [one for one in record["samples"] if method == (one["method"] if one["certified"] else NONE)]
        table.add_row(method, f"{count:,}", *(_median(own, name) for name in ("margin", "bound")))
    parts.append(table)
    if not record["certified_share"]:
        parts.append(_why_none(record))
    if record["contributions"]:
        ranked = plain_table(("operation",), ("median part of the bound",))
        for name, part in list(record["contributions"].items())[:12]:
            ranked.add_row(printable(name), significant(part))
        parts += ["", ranked]
    parts.append(_LEGEND)
    if paths:
        parts.append(f"Results in {', '.join(map(str, paths))}")
    print_view(standard_output(), *parts)


def _shares(quantiles: Mapping[str, int | None]) -> str:
    return ", ".join(
        f"{percent(float(at))} of the samples {'not proved' if of is None else of}" for at, of in quantiles.items()
    )


def _why_none(record: Mapping[str, Any]) -> str:
    """Return why no sample is certified: no bound at all, or what most of it comes from."""
    if all(one["bound"] is None for one in record["samples"]):
        return "None is certified: no bound is finite, as a state may overflow or saturate, or a value has no bound."
    largest = next(iter(record["contributions"]), None)
    cause = "" if largest is None else f" Most of the bound comes from {printable(largest)}."
    return f"None is certified: the bounds are above the margins.{cause}"


def _median(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [row[name] if row[name] is not None else float("inf") for row in rows]
    return significant(median(values))
