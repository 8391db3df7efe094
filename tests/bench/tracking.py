"""What tracking costs, and how far its numbers are from the truth.

python -m tests.bench.tracking             times of a tracked step over a plain one, and bytes of noise an element
python -m tests.bench.tracking --honesty   section 8 of the specification: networks trained anew on 8x8 digits

Times are of runs of so many steps of SGD of the bundled networks, batch 256, on one thread, the histograms of every
step among them, each run in a process of its own; the shortest of three. Bytes are of parameters and their gradients
after a step, over the elements of these.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn

from simulator.network import bundled
from simulator.tracking import LABELS, calibrate, track
from tests.bench.bounds import NETWORKS, TRAINING, digits, trained

BATCH = 256
NUMBERS = (("safe",), ("safe", "expected"), LABELS)
ROUNDINGS = ("bounded", "measured")
STEPS, REPEATED = 96, 3  # of a run; a fourth of them with several numbers


class Cost(NamedTuple):
    """What tracking costs.

    Args:
        ratio: seconds of a tracked run over those of a plain one. bytes_per_element: of noise.
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


def run(name: str, numbers: tuple[str, ...], roundings: str, steps: int) -> tuple[float, float]:
    """Train in this process; return seconds of all steps, and the bytes of noise an element.

    Args:
        numbers: to be tracked; none: a plain run.
    """
    model, step = steps_of(name)
    bits = track(model, numbers, roundings=roundings, restart="step") if numbers else None
    begun = time.perf_counter()
    with bits or nullcontext():
        for _ in range(steps):
            step()
    seconds = time.perf_counter() - begun
    elements = sum(2 * parameter.numel() for parameter in model.parameters())
    return seconds, bits.bytes / elements if bits is not None else 0.0


def apart(name: str, numbers: tuple[str, ...], roundings: str, steps: int) -> tuple[float, float]:
    """Do the same in a process of its own, whose memory no other run has shaped."""
    args = [sys.executable, "-m", "tests.bench.tracking", "--run", name, ",".join(numbers), roundings, str(steps)]
    seconds, noise = subprocess.run(args, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), float(noise)


def cost(name: str, numbers: tuple[str, ...], roundings: str, steps: int = STEPS, repeated: int = REPEATED) -> Cost:
    """Measure a bundled network: the shortest of some runs each, plain and tracked ones in turn."""
    runs = [(apart(name, (), roundings, steps), apart(name, numbers, roundings, steps)) for _ in range(repeated)]
    (plain, _), (tracked, noise) = (min(kind) for kind in zip(*runs, strict=True))
    return Cost(tracked / plain, noise)


def costs() -> None:
    """Print a table of Markdown."""
    print("| network | roundings | numbers | tracked / plain | bytes an element |\n|---|---|---|---|---|")
    for name in ("mlp", "cnn"):
        for roundings in ROUNDINGS:
            for numbers in NUMBERS:
                found = cost(name, numbers, roundings, STEPS if len(numbers) == 1 else STEPS // 4)
                print(
                    f"| {name} | {roundings} | {', '.join(numbers)} | {found.ratio:.2f} | "
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


def main(arguments: list[str]) -> None:
    """Do what the command line asks for."""
    torch.set_num_threads(1)
    if arguments[:1] == ["--run"]:
        name, numbers, roundings, steps = arguments[1:]
        print(*run(name, tuple(filter(None, numbers.split(","))), roundings, int(steps)))
    elif arguments == ["--honesty"]:
        honesty()
    else:
        costs()


if __name__ == "__main__":
    main(sys.argv[1:])
