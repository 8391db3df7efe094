"""How tight the bounds are, and how fast: networks of section 11 of the specification, trained anew on 8x8 digits.

python -m tests.bench.bounds    a table for each network, then samples per second

Each product and each sum is rounded to k bits, in order. "seen" is the largest change of a margin that the engine
computes, of all samples and classes, in units of u; the others are medians over samples of what is proved, and the
share of samples that are certified.
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

import simulator
from simulator.bounds import certify
from simulator.bounds.analysis import forward, margins
from simulator.bounds.bounded import Bounded
from simulator.bounds.graph import record
from simulator.bounds.units import of_mac
from simulator.network import bundled

NETWORKS = ((64, 32, 10), (64, 128, 64, 10), (64, 32, 32, 32, 32, 10))
BITS = (11, 12, 16, 24)
TRAINING = 1400


def digits() -> tuple[Tensor, Tensor]:
    """Return the 8x8 digits of scikit-learn, shuffled, from 0 to 1, and their classes."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = torch.randperm(len(found.data), generator=torch.Generator().manual_seed(0))
    return torch.tensor(found.data / 16, dtype=torch.float32)[order], torch.tensor(found.target)[order]


def trained(sizes: tuple[int, ...], x: Tensor, y: Tensor) -> nn.Module:
    """Return a network with ReLU between its layers, trained by Adam."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(60):
        for some in torch.randperm(TRAINING).split(32):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[some]), y[some]).backward()
            optimiser.step()
    return model.eval()


def seen(model: nn.Module, x: Tensor, bits: int) -> tuple[float, int]:
    """Return the largest change of a margin in units of u, and how many top classes changed."""
    with torch.no_grad(), simulator.emulate(model, "npu", layers={"*": f"seq(e11m{bits - 1})"}) as run:
        computed = run.model(x).double()
    exact = model.double()(x.double()).detach()
    model.float()
    top, at = exact.argmax(1), torch.arange(len(x))
    off = computed - exact
    return float((off[at, top][:, None] - off).abs().max() * 2.0**bits), int((computed.argmax(1) != top).sum())


def proved(model: nn.Module, x: Tensor, bits: int, running: bool, adjoint: bool) -> tuple[float, float]:
    """Return the median bound of the margin to the closest class in units of u, and the share of samples certified."""
    found = forward(record(model, x), [Bounded.exactly(x)], replace(of_mac(None, bits), running=running))
    z, at = found.output, torch.arange(len(x))
    top = z.lo.argmax(1)
    margin = z.lo[at, top][:, None] - z.hi
    bound = margins(found, top).bound if adjoint else z.d + z.d[at, top][:, None]
    margin[at, top] = torch.inf
    closest = bound[at, margin.argmin(1)] * 2.0**bits
    return float(closest.median()), float((margin > bound).all(1).double().mean())


def main() -> None:
    """Print the tables."""
    x, y = digits()
    test = x[TRAINING:]
    for sizes in NETWORKS:
        model = trained(sizes, x, y)
        right = float((model(test).argmax(1) == y[TRAINING:]).double().mean())
        print(f"{'-'.join(map(str, sizes))} ReLU, accuracy {right:.3f}")
        print(f"{'k':>3}{'seen, flips':>16}{'naive, N':>18}{'naive, running':>18}{'adjoint + running':>20}")
        for bits in BITS:
            off, flips = seen(model, test, bits)
            cells = [proved(model, test, bits, *way) for way in ((False, False), (True, False), (True, True))]
            shown = [f"{bound:,.0f}, {share:.3f}" for bound, share in cells]
            print(f"{bits:>3}{f'{off:,.0f}, {flips}':>16}{shown[0]:>18}{shown[1]:>18}{shown[2]:>20}")
    images, _ = bundled.digits()
    mlp, lenet = bundled.load("mlp"), bundled.load("cnn")
    certify(mlp, images[:64], precision=24, methods=("forward",))
    start = time.perf_counter()
    certify(mlp, images, precision=24, methods=("forward",))
    print(f"forward bound of the bundled MLP: {len(images) / (time.perf_counter() - start):,.0f} samples a second")
    start = time.perf_counter()
    certify(lenet, images[:1], precision=24, every=True)
    print(f"LeNet-5 on one digit, every method: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
