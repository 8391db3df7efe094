"""The bundled networks and digits: what the main job runs when no model and no data are named, and what studies use.

All networks have fp8_e4m3 weights and biases, trained by `train_bundled.py` and shipped as codes in `data/`.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import formats

DATA = Path(__file__).with_name("data")
PIXEL_MEAN, PIXEL_STD = 0.1307, 0.3081  # of MNIST's training set, after division by 255; the usual constants


class Mlp(nn.Module):
    """Multilayer perceptron 784-784-128-10 with ReLU: (N, 1, 28, 28) or (N, 28, 28) pixels to (N, 10) logits."""

    weights_file: ClassVar[str] = "mlp.npz"

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 784)
        self.fc2 = nn.Linear(784, 128)
        self.fc3 = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = torch.relu(self.fc1(x.flatten(1)))
        x = torch.relu(self.fc2(x))
        return self.fc3(x)


class MlpPaper(Mlp):
    """The same layers with weights of the set-up of arXiv 2503.15568: none above 240, the largest of e4m3:ieee."""

    weights_file: ClassVar[str] = "mlp_paper.npz"


class MlpTanh(Mlp):
    """The same layers with tanh."""

    weights_file: ClassVar[str] = "mlp_tanh.npz"

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = torch.tanh(self.fc1(x.flatten(1)))
        x = torch.tanh(self.fc2(x))
        return self.fc3(x)


class MlpDeep(nn.Module):
    """Multilayer perceptron 784-192-192-192-192-192-96-10 with ReLU: as Mlp, deeper and narrower."""

    weights_file: ClassVar[str] = "mlp_deep.npz"

    def __init__(self) -> None:
        super().__init__()
        widths = (784, 192, 192, 192, 192, 192, 96, 10)
        self.fc = nn.ModuleList(nn.Linear(n, m) for n, m in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = x.flatten(1)
        for layer in self.fc[:-1]:
            x = torch.relu(layer(x))
        return self.fc[-1](x)


class LeNet5(nn.Module):
    """LeNet-5 with ReLU and max pooling: (N, 1, 28, 28) pixels to (N, 10) logits.

    The original has tanh-like units and trained average pooling; ReLU and max pooling are today's usual reading of it.

    Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proceedings of
    the IEEE 86(11), 1998, section II.B.
    """

    weights_file: ClassVar[str] = "lenet5.npz"

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, kernel_size=5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = nn.functional.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = torch.relu(self.fc1(x.flatten(1)))
        x = torch.relu(self.fc2(x))
        return self.fc3(x)


class LeNet5Fashion(LeNet5):
    """The same layers, trained on the 60,000 training images of Fashion-MNIST (Xiao, Rasul, Vollgraf 2017)."""

    weights_file: ClassVar[str] = "lenet5_fashion.npz"


class Block(nn.Module):
    """A block of a transformer: attention, then two layers with GELU, each on what LayerNorm gives and added to it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.project = nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, tokens, width) from the same."""
        y = self.norm1(x)
        q, k, v = (
            layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.project(attended.transpose(1, 2).flatten(2))
        return x + self.contract(nn.functional.gelu(self.expand(self.norm2(x))))


class Transformer(nn.Module):
    """Transformer on the rows of a digit, of width 48 with 4 heads and 2 blocks: (N, 1, 28, 28) to (N, 10) logits."""

    weights_file: ClassVar[str] = "transformer.npz"

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(28, 48)
        self.place = nn.Embedding(28, 48)
        self.blocks = nn.ModuleList(Block(48, 4) for _ in range(2))
        self.norm = nn.LayerNorm(48)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.embed(x.reshape(-1, 28, 28)) + self.place.weight
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


NAMES: dict[str, Any] = {
    "mlp": Mlp,
    "cnn": LeNet5,
    "mlp_paper": MlpPaper,
    "mlp_tanh": MlpTanh,
    "mlp_deep": MlpDeep,
    "transformer": Transformer,
    "cnn_fashion": LeNet5Fashion,
}


def load(name: str) -> nn.Module:
    """Return a bundled network with its trained weights, in eval mode and without gradients.

    Args:
        name: one of NAMES.
    Returns:
        The module; every parameter is float32 and exactly a value of fp8_e4m3.
    Raises:
        ValueError: the name is unknown.
    """
    if name not in NAMES:
        raise ValueError(f"bundled network {name!r} is unknown; expected one of {', '.join(NAMES)}")
    # Built on the meta device: initialising weights that are replaced at once would cost time and draw from torch's
    # random generator, whose state belongs to the caller.
    with torch.device("meta"):
        model = NAMES[name]()
    fp8 = formats.get("fp8_e4m3")
    with np.load(DATA / NAMES[name].weights_file) as codes:
        state = {key: torch.from_numpy(fp8.decode(codes[key]).astype(np.float32)) for key in codes}
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def fresh(name: str, seed: int) -> nn.Module:
    """Return a bundled network to train: float32 weights that torch's layers draw, the same ones for a seed.

    Args:
        name: one of NAMES.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = NAMES[name]()
    return model


def digits() -> tuple[Tensor, Tensor]:
    """Return the 1,500 test digits: pixels as float32 (1500, 1, 28, 28), normalised, and classes as int64 (1500,)."""
    with np.load(DATA / "digits1500.npz") as data:
        return normalise(data["x"]), torch.from_numpy(data["y"].astype(np.int64))


def digits8x8() -> tuple[Tensor, Tensor]:
    """Return the 1,797 small digits: pixels from 0 to 1 as float64 (1797, 64), and classes as int64 (1797,)."""
    with np.load(DATA / "digits8x8.npz") as data:
        return torch.from_numpy(data["x"].reshape(-1, 64) / 16.0), torch.from_numpy(data["y"].astype(np.int64))


def normalise(pixels: NDArray[np.uint8]) -> Tensor:
    """Turn grey levels 0..255 of shape (N, 28, 28) into the networks' input, float32 of shape (N, 1, 28, 28)."""
    return (torch.from_numpy(pixels).unsqueeze(1).float() / 255 - PIXEL_MEAN) / PIXEL_STD


def parameter_codes(model: nn.Module) -> dict[str, NDArray[np.uint8]]:
    """Return the fp8_e4m3 codes of all parameters by name. Exact.

    Raises:
        ValueError: a parameter holds a value that is not in fp8_e4m3.
    """
    fp8 = formats.get("fp8_e4m3")
    codes = {}
    for name, parameter in model.named_parameters():
        values = parameter.detach()
        codes[name] = values.to(torch.float8_e4m3fn).view(torch.uint8).numpy()
        if not np.array_equal(fp8.decode(codes[name]), values.double().numpy()):
            raise ValueError(f"parameter {name} holds values that are not in {fp8.name}; quantise it first")
    return codes


def weights_hash(weights: nn.Module | Mapping[str, NDArray[np.uint8]]) -> str:
    """Return the SHA-256, in hexadecimal, of the codes of all parameters in the order of their sorted names.

    Args:
        weights: a network whose parameters are values of fp8_e4m3, or its codes by parameter name.
    """
    codes = parameter_codes(weights) if isinstance(weights, nn.Module) else weights
    digest = hashlib.sha256()
    for name in sorted(codes):
        digest.update(np.ascontiguousarray(codes[name]).tobytes())
    return digest.hexdigest()
