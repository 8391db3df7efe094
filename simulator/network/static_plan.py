"""Static plans: columns that deserve the high MAC, chosen on samples before a run, in place of flags within one.

A run by a plan makes no low pass over high columns and no decision: C/C_high = a (1 - rho) + rho. Source: arXiv
2503.15568, whose public code names static configurations as future work; the two rules are the project's own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from simulator.arithmetic.scores import OF_SAMPLES
from simulator.errors import InputError
from simulator.hardware import Machine, load_hardware
from simulator.hardware.static_plan import Agreement, ColumnPlan, StaticPlan

from .batches import passes
from .calibrated_policy import Scored, scored
from .digests import weights_digest
from .emulation import Emulation
from .ops import FORWARD
from .planned import check_network, high_columns
from .weights import samples_of


def static_plan(
    model: nn.Module,
    hw: Machine | str | os.PathLike[str],
    *args: Any,
    budget: float | None = None,
    over: str = "network",
    quantile: float | None = None,
    tolerance: float | None = None,
    seed: int = 0,
    **kwargs: Any,
) -> StaticPlan:
    """Return the columns that have the high MAC, from what samples say. Statistical.

    Args:
        model: in the mode in which it runs. hw: machine with a two-pass policy, whose score decides.
        args, kwargs: samples, as of a forward pass.
        budget: largest share of the MACs that are high, of the network or of each layer (over): the columns with the
            largest mean square of the score sensitivity, which lowers the error of the outputs most, or mean rank of
            another score among all outputs, since a few near zero would decide on its squares.
        quantile, tolerance: in its place, of each layer by itself: a column is high if that quantile of its scores is
            above the tolerance (None: that of the policy).
        seed: of the signs with which sensitivities are estimated.
    Raises:
        InputError: a machine without two passes, or neither or both of budget and quantile.
    """
    machine = hw if isinstance(hw, Machine) else load_hardware(hw)
    if machine.policy is None:
        raise InputError(f"plan: {machine.name} runs in one pass; expected a machine with mac.high and a policy")
    if (budget is None) == (quantile is None):
        raise InputError("plan: expected a budget or a quantile; give one of the two, e.g. a budget of 0.2")
    for name, share in (("budget", budget), ("quantile", quantile)):
        number = isinstance(share, int | float) and not isinstance(share, bool)
        if share is not None and not (number and 0 <= share <= 1):
            raise InputError(f"plan: {name}: got {share!r}; expected 0 to 1; give e.g. 0.2")
    if over not in ("network", "layer"):
        raise InputError(f"plan: over: got {over!r}; expected network or layer; choose one")
    if machine.mac.middle:
        raise InputError(f"plan: {machine.name} has mac.middle; expected a machine with low and high; leave it out")
    if budget is not None and tolerance is not None:
        raise InputError("plan: tolerance: given beside a budget, which decides alone; expected one; remove one")
    if tolerance is not None and not tolerance >= 0:
        raise InputError(f"plan: tolerance: got {tolerance!r}; expected a number from 0; give e.g. 0.5")
    plain = replace(machine, policy=replace(machine.policy, plan=None, budget=None))
    run = Emulation(model, plain)
    if run.needs_calibration:
        run.calibrate_scales(*args, **kwargs)
    layers = scored(model, run.rules, run.recorded(model, args, kwargs), args, kwargs, seed, run.calibrations)
    if not layers:
        raise InputError("plan: no product of the network runs in two passes; expected some; correct its rules")
    if budget is not None:
        value_of = _mean_squares if machine.policy.score == OF_SAMPLES else _mean_ranks
        groups = [layers] if over == "network" else [{name: layer} for name, layer in layers.items()]
        high = {name: mask for group in groups for name, mask in _within(budget, group, value_of(group)).items()}
        how = f"budget {budget:g} over {over}"
    else:
        assert quantile is not None
        most = machine.policy.tolerance if tolerance is None else tolerance
        high = {
            name: layer.by_column(lambda s: np.quantile(s, quantile, method="lower")) > most
            for name, layer in layers.items()
        }
        how = f"quantile {quantile:g} above {most:g}"
    made_by = f"{machine.policy.score}, {how}, on {samples_of(args, kwargs)} samples"
    columns = {name: ColumnPlan(mask.size, tuple(map(int, np.flatnonzero(mask)))) for name, mask in high.items()}
    assert machine.mac.high is not None
    units = str(machine.mac.low.spec), str(machine.mac.high.spec)
    return StaticPlan(columns, weights_digest(model), units, made_by)


def agreement(
    plan: StaticPlan,
    model: nn.Module,
    hw: Machine | str | os.PathLike[str],
    samples: tuple[tuple[Any, ...], Mapping[str, Any]],
    calibration: tuple[tuple[Any, ...], Mapping[str, Any]],
    seed: int = 0,
) -> list[Agreement]:
    """Return how a plan agrees, layer by layer, with what the policy of a machine flags while the network runs. Exact.

    Args:
        plan: made for the model. model: in the mode in which it runs. hw: machine in two passes, whose own plan counts
            not. samples: (args, kwargs) of the forward pass that is run, best not those on which the plan was made.
        calibration: (args, kwargs) of what the policy is calibrated on, where it is. seed: of the run.
    Raises:
        InputError: a plan for another network, or a machine in one pass.
    """
    machine = hw if isinstance(hw, Machine) else load_hardware(hw)
    if machine.policy is None:
        raise InputError(f"plan: {machine.name} runs in one pass; expected a machine with mac.high and a policy")
    check_network(plan, model)
    run = Emulation(model, replace(machine, policy=replace(machine.policy, plan=None)), seed=seed)
    if run.needs_calibration or run.needs_calibrated_policy:
        run.calibrate(*calibration[0], **calibration[1])
    with torch.no_grad(), run:
        for args, kwargs in passes(model, *samples):
            model(*args, **kwargs)
    found = []
    for tally in run.tallies:
        flagged = tally.flagged_by_column()
        if flagged is None or tally.phase != FORWARD:
            continue
        high = high_columns(plan, tally.name, tally.gemms, tally.n, tally.batched)
        outputs = tally.gemms * tally.m * tally.n
        found.append(
            Agreement(
                tally.name, outputs, int(np.count_nonzero(high)) * tally.m, int(flagged.sum()),
                int(flagged[high].sum()),
            )
        )  # fmt: skip
    return found


def _mean_squares(group: Mapping[str, Scored]) -> dict[str, NDArray[np.float64]]:
    """Return the mean square of the scores of each column."""
    return {name: layer.by_column(lambda scores: np.square(scores).mean()) for name, layer in group.items()}


def _mean_ranks(group: Mapping[str, Scored]) -> dict[str, NDArray[np.float64]]:
    """Return of each column the mean share of outputs of the group that have a smaller score."""
    every = np.sort(np.concatenate([scores.ravel() for layer in group.values() for scores in layer.scores]))
    every[np.isnan(every)] = np.inf
    return {
        name: layer.by_column(lambda scores: np.searchsorted(every, scores).mean() / every.size)
        for name, layer in group.items()
    }


def _within(
    budget: float, group: Mapping[str, Scored], values: Mapping[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.bool_]]:
    """Return the columns of some layers with the largest values that together have at most that share of the MACs."""
    of_column = {name: layer.macs * layer.outputs / values[name].size for name, layer in group.items()}
    every = np.concatenate([values[name] for name in group])
    cost = np.concatenate([np.full(values[name].size, of_column[name]) for name in group])
    order = np.argsort(-every, kind="stable")
    left = budget * cost.sum() * (1 + 2**-40)  # the sum is rounded
    chosen = np.zeros(every.size, np.bool_)
    for place in order:
        if every[place] > 0 and cost[place] <= left:
            chosen[place], left = True, left - cost[place]
    ends = np.cumsum([values[name].size for name in group])
    return dict(zip(group, np.split(chosen, ends[:-1]), strict=True))
