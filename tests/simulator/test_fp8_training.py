"""Training LeNet-5 in fp8, by the bundled recipe: e4m3 forward, e5m2 backward, sums in chunks; beside float32."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from simulator.network.bundled import LeNet5, normalise  # noqa: E402
from simulator.training import Recipe, fit, load_recipe  # noqa: E402

MNIST = Path(__file__).resolve().parents[1] / "data" / "mnist8k.npz"
FP8 = load_recipe("fp8_hybrid")


def lenet5(recipe, seed, train, test, epochs):
    torch.manual_seed(seed)
    model = LeNet5()
    return model, fit(
        model, train, recipe=recipe, epochs=epochs, batch_size=64, lr=0.05, momentum=0.9, seed=seed, test=test
    )


def digits():
    """Pixels and classes: the first 6,500 digits, and the last 1,500."""
    with np.load(MNIST) as data:
        x, y = normalise(data["x"]), data["y"]
    return (x[:6500], y[:6500]), (x[6500:], y[6500:])


def test_steps_in_fp8_learn_and_are_not_those_of_float32():
    (x, y), _ = digits()
    few = (x[:256], y[:256])
    (exact, plain), (rounded, narrow) = (lenet5(recipe, 0, few, few, epochs=1) for recipe in (Recipe(), FP8))
    assert plain.steps == narrow.steps == 4 and narrow.epochs[0].loss == pytest.approx(plain.epochs[0].loss, rel=0.02)
    pairs = zip(exact.parameters(), rounded.parameters(), strict=True)
    assert all(not torch.equal(a, b) for a, b in pairs)
    counts = narrow.epochs[0].counts
    assert set(counts) == {"gradient"} and not any(count.overflowed for count in counts["gradient"].values())


@pytest.mark.full
def test_lenet5_in_fp8_is_within_a_point_of_float32():
    """Mean over two seeds and the last three of six epochs, whose accuracies go up and down by half a point."""
    train, test = digits()

    def reached(recipe):
        histories = [lenet5(recipe, seed, train, test, epochs=6)[1] for seed in (0, 1)]
        return np.mean([epoch.accuracy for history in histories for epoch in history.epochs[-3:]])

    exact, narrow = reached(Recipe()), reached(FP8)
    assert exact > 0.95 and narrow > exact - 0.01, (exact, narrow)
