"""The products of a network, by shape: what a bill can be made of without running anything on a machine."""

from __future__ import annotations

import torch
from torch import nn

from simulator.cost import Gemm

from .ops import Op
from .samples import Samples
from .tap import Tap


def operations(model: nn.Module, samples: Samples) -> list[tuple[str, str, Gemm]]:
    """Return name, kind and shape of each product of a forward pass over all samples in one batch.

    The network runs once, on the first sample, in torch's own arithmetic; products that count samples along their rows,
    or one for each, grow with them.
    """
    found: list[tuple[str, str, Gemm]] = []

    def note(op: Op) -> None:
        if op.macs:
            rows, gemms = (1, samples.size) if op.batched else (samples.size, 1)
            elements = op.gemms * op.m * op.k * samples.size
            words = min(op.operands[0].size * samples.size, elements)
            found.append((op.name, op.kind, Gemm(op.m * rows, op.n, op.k, op.gemms * gemms, words)))

    args, kwargs = samples.batch(slice(0, 1))
    with torch.no_grad(), torch.random.fork_rng(devices=[]), Tap(model, note):
        model(*args, **kwargs)
    return found
