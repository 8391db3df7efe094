"""certify: whether the top class of a network can change on a MAC unit, for given inputs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simulator.arithmetic.spec import MacSpec
from simulator.errors import InputError
from simulator.hardware import Machine
from simulator.network.batches import Batch, fixed_batch, in_whole_batches
from simulator.notebook import Shown, View, frame
from simulator.progress import Progress

from .analysis import Forward, check, forward, margins
from .graph import Graph, record
from .outward import below, grown
from .products import RULES as PRODUCTS
from .rule import Unit
from .subject import Boxes, Subject, subject

if TYPE_CHECKING:
    from formats.notebook import DataFrame

# The methods, the cheapest first; the first one that suffices for a sample is used for it, and named.
METHODS = ("forward", "forward, running sums", "adjoint", "adjoint, running sums")
_BATCH = 64

Ends = Tensor | NDArray[Any] | tuple[Any, Any]
Samples = Ends | Mapping[str, Ends] | Boxes


@dataclass(frozen=True)
class Certified(Shown):
    """What was proved of each sample. Upper bounds, but for `margin`, a lower one.

    Args:
        certified: whether the top class is that of exact arithmetic, whatever the roundings, for all inputs of its box.
        top: class with the largest exact output. margin: by how much it is above the class that comes closest to
            changing places, at least. bound: by how much computing may change that margin, at most.
        margins, bounds: (samples, classes), the same of each class; of the top one infinity and 0.
        logit_bounds: (samples, classes), by how much each output may be off. logits: exact outputs, to float64.
        range_effect: (samples,), by how much the margin may change within the box of inputs; 0 for points.
        method: of METHODS, the cheapest that certified the sample; where none did, the one of the margin and bound.
        contributions: by name of an operation, (samples,), its part of the bound of the adjoint; NaN where a sample did
            not need that.
        unit: what computes, in words. bits: of a precision, or None. subject: what `save` makes the certificate of.
    """

    certified: NDArray[np.bool_]
    top: NDArray[np.int64]
    margin: NDArray[np.float64]
    bound: NDArray[np.float64]
    margins: NDArray[np.float64]
    bounds: NDArray[np.float64]
    logit_bounds: NDArray[np.float64]
    logits: NDArray[np.float64]
    range_effect: NDArray[np.float64]
    method: Sequence[str]
    contributions: Mapping[str, NDArray[np.float64]]
    unit: str
    bits: int | None
    subject: Subject | None = field(default=None, repr=False, compare=False)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the certificate of the samples, which `bounds check` verifies without this analysis, and return where.

        It is made now, of the network as it is now, by the tightest method that a sample needed.

        Raises:
            InputError: statistical bounds, of which there is no proof, or a file that cannot be written.
        """
        from .certificate import write_certificate

        if self.subject is None:
            raise InputError("bounds: save: got statistical bounds; expected proved ones; certify without failure")
        method = max(self.method, key=METHODS.index)
        return write_certificate(path, self.subject, method)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data; what is infinite as None."""
        return {
            "unit": self.unit, "precision": self.bits, "certified_share": float(self.certified.mean()),
            "samples": [
                {
                    "certified": bool(self.certified[i]), "top": int(self.top[i]), "margin": _finite(self.margin[i]),
                    "bound": _finite(self.bound[i]), "range_effect": _finite(self.range_effect[i]),
                    "method": self.method[i], "logit_bounds": [_finite(x) for x in self.logit_bounds[i]],
                }
                for i in range(len(self.certified))
            ],
            "contributions": {name: _finite(_median(part)) for name, part in self.ranked().items()},
        }  # fmt: skip

    def to_frame(self) -> DataFrame:
        """Return what was proved as a DataFrame, a row for each sample; needs pandas."""
        from .shown import certified_rows

        return frame(certified_rows(self))

    def _view(self) -> View:
        from .shown import certified_view

        return certified_view(self)

    def ranked(self) -> dict[str, NDArray[np.float64]]:
        """Return the contributions, the largest median first: which operation deserves bits."""
        return dict(sorted(self.contributions.items(), key=lambda item: -_median(item[1])))


def _median(part: NDArray[np.float64]) -> float:
    """Return the median of what is known."""
    known = part[~np.isnan(part)]
    return float(np.median(known)) if known.size else 0.0


def _finite(x: float) -> float | None:
    return float(x) if math.isfinite(x) else None


def certify(
    model: nn.Module,
    x: Samples,
    mac: str | MacSpec | Machine | None = None,
    precision: int | None = None,
    mode: str = "low",
    methods: Sequence[str] = METHODS,
    every: bool = False,
    failure: float | None = None,
    progress: Progress | None = None,
) -> Certified:
    """Prove for each sample, where it can be proved, that the top class does not change. Rigorous.

    The reference is the network in real arithmetic with its weights as they are; what computes it is a MAC unit for
    every product with torch's float32 beside it, a machine, or any unit of a precision.

    Args:
        model: in eval mode; its outputs are (samples, classes).
        x: samples, or a pair (lo, hi) of samples: boxes, of which every point counts. Several inputs in a mapping by
            the names of the model's forward, each of them samples or a pair; those without axes are the same for all
            samples.
        mac: a MAC, or a machine, whose `mode` runs; None for products and sums both rounded, in order.
        precision: significand bits, in place of the formats of the MAC; exponents have no limit then.
        methods: some of METHODS. every: whether to go on to the tightest one for all samples.
        failure: in place of proofs statistical bounds of sums (B7'), which hold for all products of a sample together
            but for this probability, if roundings are independent with mean zero. What is "certified" then is no proof.
        progress: called with the number of samples done, and of all.
    Raises:
        InputError: an operation, a format or an accumulator without a rule, or what is no classifier.
    """
    methods = known_methods(methods)
    if failure is not None:
        failure = between(failure, 0.0, "failure", "1e-6")
        methods = [name for name in methods if "running" not in name]
        if not methods:
            raise InputError(
                "bounds: failure: got it beside methods of running sums alone, which have no statistical bounds; "
                "expected forward or adjoint among them; give one"
            )
    of = subject(model, x, mac, precision, mode)
    unit, samples = of.unit(), of.x.lo.samples
    if failure is not None:
        spread = _spread(model, of.x.lo.part(0, fixed_batch(model) or 1), failure)
        unit = replace(unit, spread=spread, words=f"{unit.words}; statistical, {failure:g}")
    found, size = [], fixed_batch(model) or _BATCH
    for first in range(0, samples, size):
        some = of.x.rows(slice(first, first + size))
        found.append(_of_batch(model, some, unit, methods, every, of.precision))
        if progress is not None:
            progress(min(first + size, samples), samples)
    return replace(_joined(found), subject=of if failure is None else None)


def known_methods(methods: Sequence[str]) -> Sequence[str]:
    """Return methods that there are; InputError that names the others."""
    unknown = [methods] if isinstance(methods, str) else [name for name in methods if name not in METHODS]
    if unknown or not methods:
        raise InputError(
            f"bounds: methods: got {unknown or methods!r}; expected some of {', '.join(METHODS)}, as a tuple"
        )
    return methods


def between(value: Any, least: float, name: str, example: str) -> float:
    """Return a number above `least` and below 1; InputError that names it if it is none."""
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not least < number < 1:
        raise InputError(
            f"bounds: {name}: got {value!r}; expected a probability above {least:g} and below 1; give e.g. {example}"
        )
    return number


def _spread(model: nn.Module, x: Batch, failure: float) -> float:
    """Return l so that all products of a sample keep to (B7') but for a probability of 2 sum n exp(-l**2 / 2).

    Args:
        x: a sample, or as many as the network takes at a time, whose products then count together.
    """
    graph, total = record(model, *x.args, **x.kwargs), 0
    for node in graph.nodes:
        if node.kind in PRODUCTS:
            total += node.shapes[0].numel() * node.terms
    return math.sqrt(2.0 * math.log(2.0 * max(1, total) / failure))


def _of_batch(
    model: nn.Module, x: Boxes, unit: Unit, methods: Sequence[str], every: bool, bits: int | None
) -> Certified:
    graph = recorded(model, x)
    names = [name for name in METHODS if name in methods]
    samples = x.lo.samples
    result: dict[str, Any] | None = None
    open_ = torch.arange(samples)
    for name in names:
        rows = in_whole_batches(model, open_)
        some = x.rows(rows)
        part = graph if len(rows) == samples else recorded(model, some)
        found = forward(part, some.bounded(), replace(unit, running="running" in name))
        own = _of_rows(decision(found, "adjoint" in name), torch.isin(rows, open_))
        if result is None:
            result = {**own, "method": [name] * samples, "parts": {}}
        else:
            _update(result, own, open_, name)
        open_ = torch.arange(samples) if every else torch.nonzero(~result["certified"])[:, 0]
        if not len(open_):
            break
    assert result is not None
    parts = {key: value.numpy() for key, value in result["parts"].items()}
    arrays: dict[str, Any] = {key: value.numpy() for key, value in result.items() if isinstance(value, Tensor)}
    return Certified(**arrays, method=tuple(result["method"]), contributions=parts, unit=unit.words, bits=bits)


def recorded(model: nn.Module, x: Boxes) -> Graph:
    """Return the graph of a pass on the lower ends of boxes, all of whose operations have rules.

    Raises:
        InputError: one that has none.
    """
    graph = record(model, *x.lo.args, **x.lo.kwargs)
    check(graph)
    return graph


def decision(found: Forward, adjoint: bool) -> dict[str, Any]:
    """Return by name what bounds of a batch say of its samples; margins and bounds of every class besides.

    Args:
        adjoint: whether margins are bounded by the adjoint, or by the sum of both outputs' bounds.
    Raises:
        InputError: no outputs of samples by classes, or samples that are mixed.
    """
    z, samples = found.output, found.values[found.graph.inputs[0]].lo.shape[0]
    if z.lo.dim() != 2 or z.lo.shape[0] != samples or z.lo.shape[1] < 2:
        raise InputError(
            f"bounds: of {samples} samples the output has the shape {tuple(z.lo.shape)}; expected (samples, classes), "
            "at least two of these; give a classifier"
        )
    assert found.owners  # or an InputError: whatever mixes samples computes something else for each batch
    at, classes = torch.arange(z.lo.shape[0]), z.lo.shape[1]
    top = (z.lo + z.hi).argmax(1)
    margin = below(z.lo[at, top][:, None] - z.hi)
    width = (z.hi - z.lo) + (z.hi - z.lo)[at, top][:, None]
    parts: dict[str, Tensor] = {}
    if adjoint:
        changed = margins(found, top)
        bound, parts = changed.bound, dict(changed.parts)
    else:
        bound = grown(z.d + z.d[at, top][:, None])
    others = torch.nn.functional.one_hot(top, classes) == 0
    slack = torch.where(others, margin - bound, torch.inf)
    closest = slack.argmin(1)
    return {
        "certified": (slack > 0).all(1), "top": top, "margin": margin[at, closest], "bound": bound[at, closest],
        "margins": torch.where(others, margin, torch.inf), "bounds": torch.where(others, bound, 0.0),
        "logit_bounds": z.d, "logits": (z.lo + z.hi) / 2, "range_effect": width[at, closest],
        "parts": {name: part[at, closest] for name, part in parts.items()},
    }  # fmt: skip


def _of_rows(decided: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """Return what `decision` says of some of its samples."""
    parts = {name: part[rows] for name, part in decided["parts"].items()}
    return {name: value[rows] if isinstance(value, Tensor) else parts for name, value in decided.items()}


def _update(result: dict[str, Any], own: dict[str, Any], at: Tensor, name: str) -> None:
    """Take what a tighter method says of some samples, where it is tighter."""
    better = (own["margin"] - own["bound"]) > (result["margin"] - result["bound"])[at]
    better |= own["certified"]
    for key, value in own.items():
        if isinstance(value, Tensor) and key != "logit_bounds":
            result[key][at[better]] = value[better]
    result["logit_bounds"][at] = torch.minimum(result["logit_bounds"][at], own["logit_bounds"])
    for i in at[better].tolist():
        result["method"][i] = name
    for part, value in own["parts"].items():
        every = result["parts"].setdefault(part, torch.full((len(result["top"]),), torch.nan, dtype=torch.float64))
        every[at] = value


def _joined(found: Sequence[Certified]) -> Certified:
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(one, name) for one in found])
        for name in (
            "certified",
            "top",
            "margin",
            "bound",
            "margins",
            "bounds",
            "logit_bounds",
            "logits",
            "range_effect",
        )
    }
    names = dict.fromkeys(name for one in found for name in one.contributions)
    parts = {
        name: np.concatenate([one.contributions.get(name, np.full(len(one.top), np.nan)) for one in found])
        for name in names
    }
    method = tuple(name for one in found for name in one.method)
    return Certified(**arrays, method=method, contributions=parts, unit=found[0].unit, bits=found[0].bits)
