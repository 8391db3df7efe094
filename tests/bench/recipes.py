"""What recipes of training cost: seconds of a step of `fit` over those of a plain one of torch.

python -m tests.bench.recipes

Steps of SGD of bundled networks, batch 256, float32, on one thread: the best of some, plain ones and those of each
recipe in turn, in one run. The first row rounds nothing.
"""

from __future__ import annotations

import itertools
import time

import torch
from torch import nn

from simulator.network import bundled
from simulator.training import Recipe, fit, load_recipe, recipe_names

BATCH, STEPS, ROUNDS = 256, 4, 3
NETWORKS = ("cnn", "mlp")


def plain(name: str) -> float:
    """Return the seconds of the fastest step of torch."""
    model = bundled.fresh(name, 0)
    x, y = (part[:BATCH] for part in bundled.digits())
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    times = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def rounded(name: str, recipe: Recipe) -> float:
    """Return the seconds of the fastest step of `fit`, from the end of one step to that of the next."""
    model = bundled.fresh(name, 0)
    x, y = (part[: BATCH * (STEPS + 1)] for part in bundled.digits())
    ends: list[float] = []
    fit(
        model, (x, y), epochs=1, batch_size=BATCH, lr=0.01, recipe=recipe, test=(x[:1], y[:1]),
        progress=lambda done, of: ends.append(time.perf_counter()),
    )  # fmt: skip
    return min(b - a for a, b in itertools.pairwise(ends))


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    recipes = {"nothing": Recipe(), **{name: load_recipe(name) for name in recipe_names()}}
    print(f"{'recipe':<14}" + "".join(f"{name:>8}" for name in NETWORKS))
    for recipe, found in recipes.items():
        ratios = []
        for name in NETWORKS:
            pairs = [(plain(name), rounded(name, found)) for _ in range(ROUNDS)]
            ratios.append(min(b for _, b in pairs) / min(a for a, _ in pairs))
        print(f"{recipe:<14}" + "".join(f"{ratio:8.2f}" for ratio in ratios))


if __name__ == "__main__":
    main()
