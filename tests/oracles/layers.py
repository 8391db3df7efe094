"""What layers compute on a machine, by definition: operands unfolded by index, products by the arithmetic alone."""

import itertools

import numpy as np
import torch

import simulator
from simulator.arithmetic import Criterion, reference
from simulator.hardware import load_hardware
from simulator.network.layer_arithmetic import arithmetic

NPU = load_hardware("npu")


def product(name, a, b, c=None, activation="identity", scale=1.0, shift=0.0):
    """What a product is in an arithmetic of the bundled NPU: (outputs, mask of the recomputed ones or None)."""
    chosen = arithmetic(NPU, name)
    a, b = np.asarray(a), np.asarray(b)
    if name == "two_pass":
        policy = NPU.policy
        criterion = Criterion(policy.tolerance, policy.score, policy.recompute_nonfinite, policy.recompute_saturated)
        r = simulator.two_pass(
            a, b, chosen.low, chosen.high, activation=activation, c=c, criterion=criterion, scale=scale, shift=shift
        )
        return r.output, r.recomputed
    return simulator.matmul(a, b, mac=chosen.low, c=c), None


def by_definition(mac, a, b, c=None):
    """A product by the exact reference, term by term, in Python's integers; a float32 tensor."""
    spec = simulator.mac(mac)
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    c = np.zeros(b.shape[1]) if c is None else np.asarray(c, np.float64)
    columns = [(b[:, n].tolist(), float(c[n])) for n in range(b.shape[1])]
    rows = [[reference.dot(spec, row, column, addend)[0] for column, addend in columns] for row in a.tolist()]
    return torch.tensor(rows, dtype=torch.float32)


def unfolded(x, kernel, stride, padding, dilation):
    """The operands of every output position, by definition: (samples, positions, channels * kernel positions)."""
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    extents = [s - d * (k - 1) - 1 for s, k, d in zip(x.shape[2:], kernel, dilation, strict=True)]
    rows = []
    for position in itertools.product(*(range(e // s + 1) for e, s in zip(extents, stride, strict=True))):
        taps = [
            x[
                (
                    slice(None),
                    slice(None),
                    *(p * s + t * d for p, s, t, d in zip(position, stride, tap, dilation, strict=True)),
                )
            ]
            for tap in itertools.product(*(range(k) for k in kernel))
        ]
        rows.append(np.stack(taps, axis=2).reshape(len(x), -1))
    return np.stack(rows, axis=1)
