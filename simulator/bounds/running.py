"""Bounds of sums from their partial sums: tighter than any factor, since partial sums cancel.

Rule (B7): a rounding of a computed state s_hat is off by at most u |s_hat| + eta, and to nearest by no more than the
term that was added, since the state before was one of the candidates, plus what is flushed of small ones. |s_hat| is
at most the exact partial sum of what the unit holds and the errors so far. No state may overflow, and no product that
is rounded by itself: partial sums say nothing of these. Sequential states and runs of these; see sums.py for the
others.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from simulator.arithmetic.accumulators import Accumulator, Chunk, Fma, Late, Seq, outermost

from .roundings import EXACT, Roundings


class Term(NamedTuple):
    """Something that is added up: exactly within center +- radius, and computed within `error` of that.

    Args:
        product: whether it is a product, which a Seq rounds first.
    """

    center: Tensor
    radius: Tensor
    error: Tensor | float
    product: bool


class Total(NamedTuple):
    """A sum of terms, likewise; `largest` is the largest magnitude that any state on the way may have."""

    center: Tensor
    radius: Tensor
    error: Tensor
    largest: Tensor


def applies(accumulator: Accumulator) -> bool:
    """Whether the rule is for an accumulator."""
    match accumulator:
        case Fma():
            return accumulator.products == 1
        case Seq():
            return True
        case Chunk():
            return applies(accumulator.inner) and applies(accumulator.outer)
        case Late():
            return applies(accumulator.inner)
    return False


def running(accumulator: Accumulator, terms: Iterator[Term], start: Term | None, roundings: Roundings) -> Total:
    """Return the sum of terms in the order in which they come, from an addend that has been rounded, or from 0."""
    match accumulator:
        case Late():
            return running(accumulator.inner, terms, start, roundings)
        case Chunk():
            return running(accumulator.outer, _runs(accumulator, terms, roundings), start, roundings)
    assert isinstance(accumulator, Fma | Seq)
    return _sequential(accumulator, terms, start, roundings)


def _runs(chunk: Chunk, terms: Iterator[Term], roundings: Roundings) -> Iterator[Term]:
    for first in terms:
        total = running(chunk.inner, _some(first, terms, chunk.length), None, roundings)
        over = total.largest > roundings(outermost(chunk.inner).sum).largest  # type: ignore[union-attr]
        yield Term(total.center, total.radius, torch.where(over, torch.inf, total.error), False)


def _some(first: Term, rest: Iterator[Term], length: int) -> Iterator[Term]:
    yield first
    for _ in range(length - 1):
        term = next(rest, None)
        if term is None:
            return
        yield term


def _sequential(accumulator: Fma | Seq, terms: Iterator[Term], start: Term | None, roundings: Roundings) -> Total:
    r = roundings(accumulator.sum)
    product = roundings(accumulator.product) if isinstance(accumulator, Seq) else EXACT
    first = next(terms) if start is None else start
    begun = torch.zeros_like(first.center)
    center, radius, error = begun.clone(), begun + first.radius * 0.0, begun.clone()
    largest = begun.clone()
    if start is not None:
        center, radius, error = center + start.center, radius + start.radius, error + start.error
        largest = center.abs() + radius + error
    else:
        terms = chain((first,), terms)
    for term in terms:
        added = term.center.abs() + term.radius + term.error
        own = term.error
        if term.product and (product.u or product.eta):
            off = added * product.u + product.eta
            largest = torch.where(added > product.largest, torch.inf, largest)
            own, added = own + off, added + off
        center += term.center
        radius += term.radius
        error += own
        state = center.abs() + radius + error
        off = state * r.u + r.eta
        if r.nearest:
            off = torch.minimum(off, added + r.flushed)
        error += off
        largest = torch.maximum(largest, state + off)
    return Total(center, radius, error, largest)
