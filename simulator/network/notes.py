"""What the reader of a record must know of the run: rules without effect, what has no price, layers that overflow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from formats import FixedFormat
from simulator.arithmetic.scores import OF_LOGITS, OF_SAMPLES, Sensitivity

from .ops import FORWARD

if TYPE_CHECKING:
    from .emulation import Emulation

_OFTEN = 0.01  # share of a layer's outputs that may overflow before the record warns


def run_notes(run: Emulation) -> Iterator[str]:
    """Yield what is to be said of an emulation so far, beside what its prices rest on."""
    yield from _of_rules(run)
    yield from _of_plan(run)
    yield from _of_budget(run)
    yield from _of_running_sums(run)
    yield from _not_emulated(run)
    yield from _not_priced(run)
    yield from _overflows(run)
    yield from _own_scales(run)


def _of_rules(run: Emulation) -> list[str]:
    """Return where the score had no rule, and rules that no operation had."""
    names: dict[str, dict[str, None]] = {}
    for tally in run.tallies:
        consumer = run.consumers.get(tally.name)
        if consumer is None or tally.phase != FORWARD or tally.planned:
            continue
        criterion = run.rules.forward(tally.name).criterion
        note = consumer.note
        if criterion is not None and criterion.score in OF_LOGITS:
            note = "" if consumer.logits is not None else "no softmax over its columns reads it; scored by kappa_prime"
        if note:
            names.setdefault(note, {})[tally.name] = None
    notes = [f"{_listed(list(places))}: {note}" for note, places in names.items()]
    if run.samples:
        notes += [
            f"layers: no operation had the rule of the pattern {pattern!r}: what it fits computes nothing that the "
            "rule is for, or an earlier pattern fits that too; a product belongs to the module that computes it"
            for pattern in run.rules.unused()
        ]
    return notes


def _of_plan(run: Emulation) -> list[str]:
    """Return whether a static plan was made for other MACs."""
    plan, mac = run.plan, run.machine.mac
    if plan is None or mac.high is None:
        return []
    own = str(mac.low.spec), str(mac.high.spec)
    if plan.units == own:
        return []
    return [
        f"policy.plan: was made for {' and '.join(plan.units)}, and the machine has {' and '.join(own)}, with which "
        "other columns may deserve the high one"
    ]


def _of_budget(run: Emulation) -> Iterator[str]:
    """Yield what is not as the samples for calibration said."""
    none = [name for name, one in run.criteria.items() if _has_no_effect(one.score)]
    if none:
        yield (
            f"{_listed(none)}: no gradient of the outputs reached them, so that the score {OF_SAMPLES} recomputes none "
            "of their outputs"
        )
    policy = run.machine.policy
    if policy is None or policy.plan is not None or policy.budget is None or policy.budget_over != "network":
        return
    tallies = [tally for tally in run.tallies if tally.label == "two_pass" and tally.phase == FORWARD]
    macs = sum(tally.gemm.macs for tally in tallies)
    share = sum(tally.recomputed * tally.k for tally in tallies) / max(1, macs)
    if share > policy.budget * (1 + 1e-9):
        yield (
            f"policy.budget: {share:.3%} of the MACs ran again, above the {policy.budget:.3%} that were shared out "
            "among layers of other shapes; calibrate on samples of the shape that runs"
        )


def _has_no_effect(score: Any) -> bool:
    return isinstance(score, Sensitivity) and not np.any(score.effect)


def _of_running_sums(run: Emulation) -> list[str]:
    """Return whether whole numbers are to add up what has fractions."""
    policy, low = run.machine.policy, run.machine.mac.low.spec
    if policy is None or policy.side_format is None or not any(t.label == "two_pass" for t in run.tallies):
        return []
    fmt = policy.side_format.format
    whole = isinstance(fmt, FixedFormat) and fmt.fraction_bits == 0
    if not whole or (low.operands is not None and all(isinstance(use.format, FixedFormat) for use in low.operands)):
        return []
    return [
        f"policy.side_format: {policy.side_format} rounds each magnitude of a product to a whole number, so that "
        "scores of small operands are too low; take a float such as fp16, or policy.side_metric: second_pass"
    ]


def _not_emulated(run: Emulation) -> list[str]:
    where: dict[str, list[str]] = {}
    for operation, place in sorted(run.not_emulated):
        where.setdefault(operation, []).append(place)
    return [
        f"{operation} in {_listed(places)}: not emulated and not priced; torch computed it"
        for operation, places in where.items()
    ]


def _not_priced(run: Emulation) -> list[str]:
    return [
        f"{_listed(list(names))}: not priced: {reason}"
        for reason, names in run.operations.unpriced(run.machine).items()
    ]


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"


def _overflows(run: Emulation) -> list[str]:
    """Return which layers with scaled operands overflow often: scaled too far for their accumulator."""
    return [
        f"{tally.name}: {share:.0%} of its outputs overflowed with operands scaled {tally.scales}; a narrow "
        "accumulator needs room for its sums: give the scales a smaller `to`"
        for tally in run.tallies
        if tally.scales and (share := tally.overflows / max(1, tally.gemms * tally.m * tally.n)) > _OFTEN
    ]


def _own_scales(run: Emulation) -> list[str]:
    """Return which operands do not have the scales that the model has for them."""
    names: dict[tuple[str, str], list[str]] = {}
    for (name, operand), why in run.rules.own_refused.items():
        names.setdefault((operand, why), []).append(name)
    return [
        f"{_listed(places)}: {operand} are not scaled as the model has it, but from the values at hand: {why}"
        for (operand, why), places in names.items()
    ]
