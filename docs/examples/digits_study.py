"""What number formats do to a multilayer perceptron of scikit-learn on the digits held out, format by format.

python digits_study.py [DIR]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from digits_mlp import digits, parts
from format_study import Task, classes, run


def tasks() -> Iterator[Task]:
    """Yield the network and the digits held out."""
    x, y = parts()[1]
    yield Task("digits", digits(), torch.from_numpy(x).float(), classes(torch.from_numpy(y)))


if __name__ == "__main__":
    run("digits", tasks, sys.argv[1:])
