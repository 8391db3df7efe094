"""What a training step costs whose three products of every layer run on MAC units.

python -m tests.bench.training

Times of a step of SGD of the bundled LeNet-5, batch 256, over those of a step in torch's float32, on as many threads:
the best of many of each, taken in turns, in one run. On one thread they are seconds of the processor, which others that
use the machine disturb less; on two they are seconds of the clock, and mean something where two processors are free.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch

from simulator.training import Recipe
from simulator.training.products import Products
from simulator.training.recipe import PRODUCTS
from simulator.training.recipe_files import load_recipe
from tests.bench.tracking import steps_of

UNITS = {
    "none named but the forward one, fma(fp32)": ("fma(fp32)",),
    "fma(fp32)": ("fma(fp32)",) * 3,
    "fma(fp16)": ("fma(fp16)",) * 3,
    "seq(bf16)": ("seq(bf16)",) * 3,
    "fp8_e4m3 -> fma(fp16)": ("fp8_e4m3 -> fma(fp16)",) * 3,
    "those of the recipe fp8_hybrid": tuple(load_recipe("fp8_hybrid").macs[product] for product in PRODUCTS),
    "h100.fp8.wgmma": ("h100.fp8.wgmma",) * 3,
}  # fmt: skip
ROUNDS, SECONDS = 6, 1.0  # turns, and seconds of steps in each, of emulated and of plain ones


class Cost(NamedTuple):
    """Seconds of the best step, of torch and on the MAC units."""

    plain: float
    emulated: float

    @property
    def ratio(self) -> float:
        """How many times as long the emulated one takes."""
        return self.emulated / self.plain


def best(
    step: Callable[[], None], within: AbstractContextManager[Any], clock: Callable[[], float], seconds: float
) -> float:
    """Return the seconds of the fastest step, each within a context, which is entered anew as `fit` does."""
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < 2 or time.perf_counter() - start < seconds:
        begun = clock()
        with within:
            step()
        times.append(clock() - begun)
    return min(times)


def cost(units: tuple[str, ...], threads: int, rounds: int = ROUNDS, seconds: float = SECONDS) -> Cost:
    """Measure steps with these units of forward, input gradient and weight gradient; those not named are torch's."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    try:
        model, step = steps_of("cnn")
        macs = Recipe.of({}, macs=dict(zip(PRODUCTS, units, strict=False))).macs
        products = Products(model, macs, seed=0)
        turns = [
            (best(step, nullcontext(), clock, seconds), best(step, products, clock, seconds)) for _ in range(rounds)
        ]
    finally:
        torch.set_num_threads(before)
    return Cost(min(plain for plain, _ in turns), min(emulated for _, emulated in turns))


def main() -> None:
    """Print the table of docs/performance.md."""
    print("| units of the three products | threads | torch, ms | emulated, ms | ratio |")
    print("|---|---|---|---|---|")
    for name, units in UNITS.items():
        for threads in (1, 2):
            found = cost(units, threads)
            print(
                f"| {name} | {threads} | {found.plain * 1e3:.1f} | {found.emulated * 1e3:.1f} | {found.ratio:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
