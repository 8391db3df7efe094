"""A static plan for a network and samples as the main job names them."""

from __future__ import annotations

import os
from typing import Any

from simulator.explore.work import Inputs, load
from simulator.hardware import load_hardware
from simulator.hardware.static_plan import StaticPlan


def plan_for(hw: str | os.PathLike[str], inputs: Inputs, **rule: Any) -> StaticPlan:
    """Return the plan of a network on a machine, from all of the samples; `rule` as static_plan takes it.

    Raises:
        InputError: what cannot be planned.
    """
    from simulator.network.static_plan import static_plan

    machine, loaded = load_hardware(hw), load(inputs)
    args, kwargs = loaded.samples.batch(slice(None))
    return static_plan(loaded.model, machine, *args, seed=inputs.seed, **{**kwargs, **rule})
