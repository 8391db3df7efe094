"""The products of a network, by shape: what a bill can be made of without running anything on a machine."""

from __future__ import annotations

import torch
from torch import nn

from simulator.cost import Gemm

from .batches import fixed_batch
from .ops import Op
from .samples import Samples
from .tap import Tap


def operations(model: nn.Module, samples: Samples) -> list[tuple[str, str, Gemm]]:
    """Return name, kind and shape of each product of a forward pass over all samples in one batch.

    The network runs once, on the first sample, or on as many as it takes at a time, in torch's own arithmetic; products
    that count samples along their rows, or one for each, grow with them.
    """
    found: list[tuple[str, str, Gemm]] = []
    at_once = fixed_batch(model) or 1
    times = samples.size // at_once

    def note(op: Op) -> None:
        if op.macs:
            rows, gemms = (1, times) if op.batched else (times, 1)
            elements = op.gemms * op.m * op.k * times
            words = min(op.operands[0].size * times, elements)
            found.append((op.name, op.kind, Gemm(op.m * rows, op.n, op.k, op.gemms * gemms, words)))

    args, kwargs = samples.batch(slice(0, at_once))
    with torch.no_grad(), torch.random.fork_rng(devices=[]), Tap(model, note):
        model(*args, **kwargs)
    return found
