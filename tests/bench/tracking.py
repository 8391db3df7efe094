"""What tracking costs, and how far its numbers are from the truth.

python -m tests.bench.tracking             times of a tracked step over a plain one, and bytes of noise an element
python -m tests.bench.tracking --honesty   section 8 of the specification: networks trained anew on 8x8 digits

Times are of steps of SGD of the bundled networks, batch 256, on one thread: seconds of the processor, which others on
the machine lengthen less, the best of some, in one run, plain steps before and after. Bytes are of parameters and their
gradients after a step, over the elements of these.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn

from simulator.network import bundled
from simulator.tracking import LABELS, Tracker, calibrate, track
from tests.bench.bounds import NETWORKS, TRAINING, digits, trained

BATCH = 256
NUMBERS = (("safe",), ("safe", "expected"), LABELS)
ROUNDINGS = ("bounded", "measured")
SECONDS = 4.0  # of steps whose best counts; three at least


class Cost(NamedTuple):
    """What tracking costs.

    Args:
        ratio: seconds of a tracked step over those of a plain one. bytes_per_element: of noise.
    """

    ratio: float
    bytes_per_element: float


def steps_of(name: str, batch: int = BATCH) -> tuple[nn.Module, Callable[[], None]]:
    """Return a bundled network and what takes a step of training with it."""
    model = bundled.load(name).requires_grad_(True).train()
    x, y = (part[:batch] for part in bundled.digits())
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> None:
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()

    return model, step


def best(step: Callable[[], None], within: AbstractContextManager[Any], seconds: float = SECONDS) -> float:
    """Return the seconds of the processor of the fastest step within a context."""
    times: list[float] = []
    with within:
        step()
        while len(times) < 3 or sum(times) < seconds:
            begun = time.thread_time()
            step()
            times.append(time.thread_time() - begun)
    return min(times)


def cost(name: str, numbers: tuple[str, ...], roundings: str, batch: int = BATCH, seconds: float = SECONDS) -> Cost:
    """Measure a bundled network."""
    model, step = steps_of(name, batch)
    bits: Tracker = track(model, numbers, roundings=roundings, restart="step")
    plain = best(step, nullcontext(), seconds)
    tracked, noise = best(step, bits, seconds), bits.bytes
    plain = min(plain, best(step, nullcontext(), seconds))
    return Cost(tracked / plain, noise / sum(2 * parameter.numel() for parameter in model.parameters()))


def costs() -> None:
    """Print a table of Markdown."""
    print("| network | roundings | numbers | tracked / plain | bytes an element |\n|---|---|---|---|---|")
    for name in ("mlp", "cnn"):
        for roundings in ROUNDINGS:
            for numbers in NUMBERS:
                found = cost(name, numbers, roundings)
                print(
                    f"| {name} | {roundings} | {', '.join(numbers)} | {found.ratio:.1f} | "
                    f"{found.bytes_per_element:.1f} |",
                    flush=True,
                )


def honesty() -> None:
    """Print tables of Markdown: what each number claims of logits and gradients, beside float64."""
    x, y = digits()
    images, labels = x[:TRAINING], y[:TRAINING]

    def step(model: nn.Module, optimiser: Any, number: int) -> None:
        nn.functional.cross_entropy(model(images), labels).backward()

    for sizes in NETWORKS:
        model = trained(sizes, x, y).train()
        first, last = (f"{place}.weight" for place in (0, 2 * len(sizes) - 4))
        shown = {
            ("value", "0"): "first layer", ("value", "output"): "logits",
            ("gradient of parameter", last): "grad last W", ("gradient of parameter", first): "grad W1",
        }  # fmt: skip
        for roundings in ROUNDINGS:
            print(f"\n{'-'.join(map(str, sizes))}, roundings {roundings}\n")
            print("| of | label | claimed | true | over > 0 | >= 1 | >= 3 | >= 6 | under | 2 sigma | 4 sigma | rms |")
            print("|" + "---|" * 12)
            for row in calibrate(model, step, roundings=roundings).tensors:
                if (row.kind, row.name) not in shown:
                    continue
                over = " | ".join(f"{share:.1%}" for share in row.over)
                sigma = [
                    "" if of is None else f"{of:.3f}" for of in (row.within_2, row.within_4, row.rms)
                ]  # fmt: skip
                under = "" if row.under is None else f"{row.under:.1f}"
                print(
                    f"| {shown[row.kind, str(row.name)]} | {row.label} ({row.guarantee}) | {row.claimed:g} | "
                    f"{row.true:.1f} | {over} | {under} | {' | '.join(sigma)} |",
                    flush=True,
                )


if __name__ == "__main__":
    torch.set_num_threads(1)
    honesty() if sys.argv[1:] == ["--honesty"] else costs()
