"""A static plan for a network and samples as the main job names them."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from simulator.explore.work import Inputs, load
from simulator.hardware import load_hardware
from simulator.hardware.static_plan import Agreement, StaticPlan

MOST = 128


def agreement_with_policy(
    hw: str | os.PathLike[str], inputs: Inputs, plan: StaticPlan, checked: int, **rule: Any
) -> list[Agreement]:
    """Return how a plan agrees with flags by the same rule, on so many samples behind those that made it.

    Args:
        rule: budget, over, quantile and tolerance, with which the plan was made.
    Raises:
        InputError: what cannot be run, such as samples that there are not.
    """
    from simulator.network.static_plan import agreement

    made_on = load(inputs, MOST).samples.size
    machine, loaded = load_hardware(hw), load(replace(inputs, samples=checked, calibration=made_on))
    assert machine.policy is not None and loaded.calibration is not None
    if rule["budget"] is not None:
        policy = replace(machine.policy, budget=rule["budget"], budget_over=rule["over"], tolerance=0.0)
    else:
        own = machine.policy.tolerance if rule["tolerance"] is None else rule["tolerance"]
        policy = replace(machine.policy, budget=None, budget_over="layer", tolerance=own)
    # A plan knows one budget or tolerance for all layers.
    machine = replace(machine, layers=tuple(replace(rule, tolerance=None, budget=None) for rule in machine.layers))
    samples, calibration = (one.batch(slice(None)) for one in (loaded.samples, loaded.calibration))
    return agreement(plan, loaded.model, replace(machine, policy=policy), samples, calibration, inputs.seed)


def plan_for(hw: str | os.PathLike[str], inputs: Inputs, **rule: Any) -> StaticPlan:
    """Return the plan of a network on a machine, from its samples, MOST of them if `inputs` does not say how many.

    Args:
        rule: as static_plan takes it.
    Raises:
        InputError: what cannot be planned.
    """
    from simulator.network.static_plan import static_plan

    machine, loaded = load_hardware(hw), load(inputs, MOST)
    args, kwargs = loaded.samples.batch(slice(None))
    return static_plan(loaded.model, machine, *args, seed=inputs.seed, **{**kwargs, **rule})
