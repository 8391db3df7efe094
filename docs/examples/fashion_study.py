"""What number formats do to LeNet-5 on Fashion-MNIST, format by format: the bundled cnn_fashion on 500 test images.

    apt install dataset-fashion-mnist
    python fashion_study.py [DIR]

Its weights are values of fp8_e4m3 already, so that rounding operands to fp8 changes activations alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from format_study import Task, classes, run

from simulator.network import bundled
from simulator.network.idx_files import FASHION, read_images

IMAGES = 500


def tasks() -> Iterator[Task]:
    """Yield the network and the first IMAGES test images; InputError if they are not installed."""
    pixels, labels = (part[:IMAGES] for part in read_images(FASHION, "test"))
    yield Task(
        "cnn_fashion", bundled.load("cnn_fashion"), bundled.normalise(pixels), classes(torch.from_numpy(labels).long())
    )


if __name__ == "__main__":
    run("fashion", tasks, sys.argv[1:])
