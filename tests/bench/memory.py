"""Peak memory of networks, emulated and in torch's float32, each in a process of its own.

python -m tests.bench.memory [NETWORK ...]
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn

ROOT = Path(__file__).parents[2]
THREADS = 2
ARITHMETICS = ("low", "two_pass", "mxfp8_e4m3 -> fma(fp32)")
MEGABYTE = 1 << 20
ALLOWED = 200 * MEGABYTE  # beside twice the peak of torch


class Peaks(NamedTuple):
    """Largest resident memory of two processes, in bytes, imports and weights included."""

    torch: int
    emulated: int

    @property
    def bound(self) -> int:
        """What the emulation may take."""
        return 2 * self.torch + ALLOWED


def networks() -> dict[str, Callable[[], tuple[nn.Module, Tensor]]]:
    """Return by name what builds a network and its input."""
    import torch
    from torch import nn

    from tests.oracles.networks import Recurrent, Transformer, resnet18

    def rand(*shape: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(1))

    return {
        "resnet18": lambda: (resnet18(), rand(1, 3, 224, 224)),
        "resnet18, batch of 8": lambda: (resnet18(), rand(8, 3, 224, 224)),
        "transformer": lambda: (Transformer(1000, 512, 8), torch.arange(4 * 512).reshape(4, 512) % 1000),
        "lstm": lambda: (Recurrent(64, 256, 10), rand(16, 64, 64)),
        "linear": lambda: (nn.Linear(8192, 8192), rand(64, 8192)),
        "linear of many rows": lambda: (nn.Linear(64, 512), rand(65536, 64)),
        "convolution": lambda: (nn.Conv2d(3, 64, 3, padding=1), rand(1, 3, 1024, 1024)),
        "convolution, few channels out": lambda: (nn.Conv2d(64, 4, 3, padding=1), rand(1, 64, 1024, 1024)),
        "transposed convolution": lambda: (nn.ConvTranspose2d(64, 32, 2, 2), rand(1, 64, 512, 512)),
    }


def peaks(network: str, arithmetic: str) -> Peaks:
    """Measure a network of `networks`, in torch and in an arithmetic that `emulate` takes."""
    return Peaks(_peak(network, ""), _peak(network, arithmetic))


def _peak(network: str, arithmetic: str) -> int:
    command = [
        sys.executable,
        "-m",
        __name__ if __name__ != "__main__" else "tests.bench.memory",
        "--one",
        network,
        arithmetic,
    ]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return int(done.stdout)


def _one(network: str, arithmetic: str) -> int:
    """Run a network in this process, in torch if the arithmetic is empty; return its peak."""
    import torch

    import simulator

    torch.set_num_threads(THREADS)
    model, x = networks()[network]()
    with torch.no_grad():
        if not arithmetic:
            model(x)
        else:
            with simulator.emulate(model, "npu", layers={"*": arithmetic}, threads=THREADS) as run:
                model(x)
            assert run.result.layers
    # The largest memory of getrusage would include that of the process that started this one.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def main(names: list[str]) -> None:
    """Print a table of Markdown."""
    print("| network | arithmetic | torch, MB | emulated, MB | allowed, MB |\n|---|---|---|---|---|")
    for name in names or networks():
        baseline = _peak(name, "")
        for arithmetic in ARITHMETICS:
            found = Peaks(baseline, _peak(name, arithmetic))
            numbers = " | ".join(f"{size / MEGABYTE:.0f}" for size in (*found, found.bound))
            print(f"| {name} | `{arithmetic}` | {numbers} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(_one(*sys.argv[2:4]))
    else:
        main(sys.argv[1:])
