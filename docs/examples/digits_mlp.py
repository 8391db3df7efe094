"""Multilayer perceptrons that scikit-learn trained on its digits, as torch modules.

python -m simulator --hw nvidia_h100 --model digits_mlp:digits --data digits.npz       # x: pixels (N, 64)
python digits_mlp.py digits.npz                                                        # writes these samples
"""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from simulator.errors import InputError, missing

HIDDEN = (64, 32)


def from_scikit_learn(classifier) -> nn.Sequential:
    """Return the torch module of a trained MLPClassifier with ReLU: (N, features) to (N, classes) logits, in float32.

    Raises:
        InputError: another activation, or two classes, whose logits are one.
    """
    if classifier.activation != "relu" or classifier.out_activation_ != "softmax":
        raise InputError(
            f"MLPClassifier: has {classifier.activation} and {classifier.out_activation_}; expected relu and softmax; "
            "train such a one"
        )
    layers: list[nn.Module] = []
    for weight, bias in zip(classifier.coefs_, classifier.intercepts_, strict=True):
        layer = nn.Linear(*weight.shape, device="meta")
        layer.weight = nn.Parameter(torch.tensor(weight.T, dtype=torch.float32))
        layer.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float32))
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def classifier():
    """Return scikit-learn's MLPClassifier, trained on three quarters of the digits; the same one in every run."""
    from sklearn.neural_network import MLPClassifier

    (x, y), _ = parts()
    return MLPClassifier(HIDDEN, max_iter=300, random_state=0).fit(x, y)


def digits() -> nn.Sequential:
    """Return its torch module; InputError if scikit-learn is not installed."""
    return from_scikit_learn(classifier())


def parts() -> list[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Return the digits, pixels (N, 64) from 0 to 1 and classes (N,): those for training, and those held out."""
    if importlib.util.find_spec("sklearn") is None:
        raise missing("the digits", "scikit-learn", "examples")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x / 16, y, random_state=0, stratify=y)
    return [(x_train, y_train), (x_test, y_test)]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python digits_mlp.py SAMPLES.npz")
    try:
        x, y = parts()[1]
        np.savez(sys.argv[1], x=x.astype(np.float32), y=y)
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
