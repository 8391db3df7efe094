"""Networks of the shapes that people have, with seeded weights: a ResNet-18, a transformer, an LSTM; any function."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Function(nn.Module):
    """A function as a model."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


class ResidualBlock(nn.Module):
    """Two convolutions of 3 x 3 beside a shortcut (arXiv 1512.03385, figure 5 left)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet18(width: int = 64, classes: int = 1000) -> nn.Sequential:
    """A ResNet-18 for images (samples, 3, H, W); at width 64 and 224 x 224 it takes 1.8 GMAC an image."""
    torch.manual_seed(18)
    layers: list[nn.Module] = [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    for stage in range(4):
        outputs = width << stage
        layers.append(ResidualBlock(outputs // 2 if stage else width, outputs, 2 if stage else 1))
        layers.append(ResidualBlock(outputs, outputs, 1))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width << 3, classes)).eval()


class Transformer(nn.Module):
    """A language model of two encoder layers, tokens (samples, length) to logits (samples, length, tokens)."""

    def __init__(self, tokens: int = 50, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.embed = nn.Embedding(tokens, width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, tokens)
        self.eval()

    def forward(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.head(self.layers(self.embed(tokens), mask=mask))


class Recurrent(nn.Module):
    """An LSTM over sequences (samples, length, features), its last state classified."""

    def __init__(self, features: int = 8, width: int = 16, classes: int = 5) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.lstm = nn.LSTM(features, width, num_layers=2, batch_first=True)
        self.head = nn.Linear(width, classes)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])
