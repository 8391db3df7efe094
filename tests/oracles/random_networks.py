"""Random networks: graphs of layers with branches, residual sums and joins, over features, images or tokens."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .networks import Function

Shape = tuple[int, ...]  # of a value of one sample

KINDS = ("features", "images", "tokens")
_SHAPES: dict[str, Shape] = {"features": (12,), "images": (2, 8, 8), "tokens": (5, 12)}


class Attention(nn.Module):
    """Attention of several heads over (samples, places, width), written out, or as torch's one function."""

    def __init__(self, width: int, heads: int, whole: bool) -> None:
        super().__init__()
        self.heads, self.whole = heads, whole
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, places, width = x.shape
        parts = self.qkv(x).reshape(n, places, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = parts[0], parts[1], parts[2]
        if self.whole:
            y = functional.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-1, -2) * (1 / math.sqrt(q.shape[-1]))).softmax(-1) @ v
        return self.out(y.transpose(1, 2).reshape(n, places, width))


class Placed(nn.Module):
    """An embedding of each place, added."""

    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.place = nn.Embedding(places, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.place.weight


# Of one value, its shape kept.
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "gelu": functional.gelu, "silu": functional.silu,
    "leaky_relu": functional.leaky_relu, "relu6": functional.relu6, "clamp": lambda x: x.clamp(-0.7, 1.3),
    "abs": torch.abs, "softmax": lambda x: x.softmax(-1), "log_softmax": lambda x: x.log_softmax(-1),
    "scaled": lambda x: x * 0.7, "shifted": lambda x: x + 0.1, "third": lambda x: x / 3, "square": lambda x: x * x,
    "bell": lambda x: torch.exp(-x.abs()), "root": lambda x: torch.sqrt(x.abs() + 1),
    "log": lambda x: torch.log(x.abs() + 1), "in_place": lambda x: functional.relu(x * 2, inplace=True),
    "halves": lambda x: torch.cat([part.neg() for part in x.split(x.shape[1] // 2, 1)], 1),
    "rolled": lambda x: torch.stack([x.flip(1), x.roll(1, 1)]).mean(0),
}  # fmt: skip
# Of two values of one shape, which is that of the result.
_PAIRS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "maximum": torch.maximum, "minimum": torch.minimum,
    "gate": lambda x, y: x * torch.sigmoid(y), "ratio": lambda x, y: x / (y.abs() + 1),
}  # fmt: skip


def draw_statistics(model: nn.Module) -> None:
    """Draw what torch begins with as ones and zeros: statistics of batch normalisations, scales of all."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.05, 2.0)
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm):
                module.weight.normal_(1.0, 0.3)
                module.bias.normal_(0.0, 0.3)


class RandomNetwork(nn.Module):
    """A classifier with a random graph, in eval mode.

    Args:
        kind: one of KINDS, what its input is. steps: how many operations it has before the last layer, about.
        classes: of the output.
    """

    def __init__(self, kind: str, seed: int, steps: int = 8, classes: int = 4) -> None:
        super().__init__()
        self._rng = np.random.default_rng([seed, *kind.encode()])
        self.shape = _SHAPES[kind]
        self.parts = nn.ModuleList()
        self.reads: list[tuple[int, ...]] = []  # the values that each part reads, by number; 0 is the input
        self._shapes = [self.shape]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            # At least one layer with weights at the beginning.
            self._add(self._layer(self.shape), 0)
            for _ in range(steps):
                self._step()
            if len(self._shapes[-1]) > 1:
                self._add(self._reduced(self._shapes[-1]), -1)
                for _ in range(2):
                    self._step(first=len(self._shapes) - 1)
            self._add(nn.Linear(self._shapes[-1][0], classes), -1)
            draw_statistics(self)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for part, reads in zip(self.parts, self.reads, strict=True):
            values.append(part(*(values[i] for i in reads)))
        return values[-1]

    def samples(self, count: int, seed: int = 0) -> Tensor:
        """Return inputs (count, ...): plain, large, small, of few bits, and with many zeros."""
        rng = np.random.default_rng([seed, count])
        x = rng.normal(size=(count, *self.shape))
        one = (count, *(1,) * len(self.shape))
        x *= rng.choice([1.0, 1.0, 0.01, 8.0], one)
        x = np.where(rng.random(one) < 0.2, np.round(x * 4) / 4, x)
        return torch.from_numpy(np.where(rng.random(one) < 0.2, np.maximum(x, 0), x)).float()

    def _add(self, part: nn.Module | Callable[..., Tensor], *reads: int) -> None:
        """Append an operation on some of the values so far."""
        last = len(self._shapes)
        module = part if isinstance(part, nn.Module) else Function(part)
        self.parts.append(module)
        self.reads.append(tuple(i % last for i in reads))
        with torch.no_grad():
            y = module.eval()(*(torch.zeros(2, *self._shapes[i]) for i in reads))
        self._shapes.append(tuple(y.shape[1:]))

    def _step(self, first: int = 0) -> None:
        """Append a function, a layer, a residual layer, or what joins two values, those before `first` left out."""
        rng, last = self._rng, len(self._shapes) - 1
        at = last if rng.random() < 0.75 else int(rng.integers(first, last + 1))
        shape, way = self._shapes[at], rng.random()
        others = [i for i in range(first, last + 1) if i != at and len(self._shapes[i]) == len(shape)]
        same = [i for i in others if self._shapes[i] == shape]
        alike = [i for i in others if self._shapes[i][1:] == shape[1:] and self._shapes[i][0] + shape[0] <= 32]
        if way < 0.25:
            self._add(_FUNCTIONS[str(rng.choice(list(_FUNCTIONS)))], at)
        elif way < 0.4 and same:
            self._add(_PAIRS[str(rng.choice(list(_PAIRS)))], at, int(rng.choice(same)))
        elif way < 0.5 and alike and len(shape) != 2:
            self._add(lambda x, y: torch.cat([x, y], 1), at, int(rng.choice(alike)))
        else:
            self._add(self._layer(shape), at)
            if self._shapes[-1] == shape and rng.random() < 0.5:
                self._add(torch.add, -1, at)

    def _layer(self, shape: Shape) -> nn.Module:
        """Return a layer with weights, or a pool."""
        rng = self._rng
        pick = int(rng.integers(4))
        bias = bool(rng.integers(2))
        if len(shape) == 1:
            width = shape[0] if rng.integers(2) else int(rng.integers(4, 24))
            layer = nn.Linear(shape[0], width, bias=bias)
            return (layer, layer, nn.BatchNorm1d(shape[0]), nn.LayerNorm(shape[0]))[pick]
        if len(shape) == 2:
            width = shape[1]
            heads = int(rng.choice([1, 2, 4])) if width % 4 == 0 else 1
            wide = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width, bias=bias))
            attention = Attention(width, heads, whole=bias)
            return (attention, nn.LayerNorm(width), wide, Placed(*shape))[pick]
        channels, size = shape[0], shape[1]
        if pick == 1:
            return nn.BatchNorm2d(channels)
        if pick == 2 and size >= 4:
            pools = nn.MaxPool2d(2), nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(2), nn.AvgPool2d(3, 1, 1)
            return (*pools, nn.ConstantPad2d(1, 0.1))[rng.integers(5)]
        outputs = channels if rng.integers(2) else int(rng.integers(1, 5)) * 2
        groups = 2 if rng.integers(3) == 0 and channels % 2 == 0 and outputs % 2 == 0 else 1
        step = 2 if rng.integers(3) == 0 and size >= 4 else 1
        if pick == 3 and step == 1 and rng.integers(3) == 0:
            return nn.ConvTranspose2d(channels, outputs, 3, 1, 1, groups=groups, bias=bias)
        wide = int(rng.integers(1, 3))  # the dilation
        return nn.Conv2d(channels, outputs, 3, step, wide, wide, groups, bias)

    def _reduced(self, shape: Shape) -> Callable[[Tensor], Tensor]:
        """Return what makes features of a value."""
        if len(shape) == 2:
            return (lambda x: x.mean(1), lambda x: x[:, 0], lambda x: x.flatten(1))[self._rng.integers(3)]
        pool = nn.AdaptiveAvgPool2d(int(self._rng.integers(1, 3)))
        return (lambda x: pool(x).flatten(1), lambda x: x.flatten(1))[self._rng.integers(2)]
