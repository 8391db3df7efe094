"""Models run under the tap, to see their Ops, or emulated, to see what comes out."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

from simulator.network.emulation import Emulation
from simulator.network.tap import Tap
from tests.oracles.layers import NPU

CONTEXTS = {"grad": contextlib.nullcontext, "no_grad": torch.no_grad, "inference": torch.inference_mode}

in_each_grad_mode = pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)


class Ops(list):
    """Collects Ops and lets torch compute them."""

    def __call__(self, op):
        self.append(op)

    @property
    def seen(self):
        return [(op.name, op.kind, op.gemms, op.m, op.n, op.k) for op in self]


def tapped(model, *args, **kwargs):
    """Run a model under the tap: (Ops as tuples, what was listed as (operation, place), output)."""
    found = Ops()
    tap = Tap(model, found)
    with tap:
        output = model(*args, **kwargs)
    return found.seen, sorted(tap.not_emulated), output


def emulated(model, *args, name=None, machine=NPU, **options):
    """Run a model emulated: (output, result)."""
    with Emulation(model, machine, default=name, **options) as run:
        output = model(*args)
    return output, run.result


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def same(tensor, values, dtype=torch.float32):
    return torch.equal(tensor, torch.from_numpy(np.ascontiguousarray(values)).to(dtype).reshape(tensor.shape))
