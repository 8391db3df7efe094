"""Networks that train for some steps, tracked, beside the same program in float64, for tests of precision tracking."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import simulator

SIZES = ((64, 32, 10), (64, 128, 64, 10), (64, 32, 32, 32, 32, 10))
TRAINING = 1400


def digits() -> tuple[Tensor, Tensor]:
    """Return the 8x8 digits of scikit-learn, shuffled, from 0 to 1, and their classes."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = torch.randperm(len(found.data), generator=torch.Generator().manual_seed(0))
    return torch.tensor(found.data / 16, dtype=torch.float32)[order], torch.tensor(found.target)[order]


def mlp(sizes: tuple[int, ...]) -> nn.Sequential:
    """Return a network with ReLU between its layers."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Residual(nn.Module):
    """Normalisation before, a sum behind."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Attention(nn.Module):
    """Multi-head attention of a sequence to itself, causal if it is said."""

    def __init__(self, size: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.split, self.out, self.heads, self.causal = nn.Linear(size, 3 * size), nn.Linear(size, size), heads, causal

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in self.split(x).chunk(3, -1))
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=self.causal).transpose(1, 2).flatten(2))


class Words(nn.Module):
    """A classifier of sequences of whole numbers."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(17, 16), nn.Parameter(torch.randn(8, 16) / 10)
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.words((x[:, :8] * 16).long()) + self.places).mean(1))


def _square(x: Tensor) -> Tensor:
    return x.unflatten(1, (1, 8, 8))


class Image(nn.Sequential):
    """Layers on the image."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(_square(x))


def _activations() -> nn.Module:
    kinds = (nn.GELU(), nn.SiLU(), nn.ELU(), nn.LeakyReLU(0.1), nn.Softplus(), nn.Mish(), nn.Tanh(), nn.Sigmoid(),
             nn.Hardswish(), nn.Hardsigmoid(), nn.SELU(), nn.CELU(0.7), nn.PReLU(), nn.GELU("tanh"), nn.Softsign(),
             nn.LogSigmoid(), nn.ReLU6(), nn.Hardtanh(), nn.Tanhshrink(), nn.Softshrink(0.1))  # fmt: skip
    layers: list[nn.Module] = [nn.Linear(64, 32)]
    for kind in kinds:
        layers += [Residual(kind), nn.LayerNorm(32)]
    return nn.Sequential(*layers, nn.Linear(32, 10))


def _convolutions() -> nn.Module:
    return Image(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        Residual(nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False), nn.GroupNorm(2, 8), nn.SiLU()),
        nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16),
        nn.LeakyReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 10),
    )  # fmt: skip


def _up_and_down() -> nn.Module:
    return Image(
        nn.Conv2d(1, 6, 3, padding=1), nn.AvgPool2d(2), nn.GELU(), nn.ConvTranspose2d(6, 4, 2, stride=2), nn.PReLU(),
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.MaxPool2d(3, 2, 1), nn.Dropout2d(0.1), nn.Flatten(),
        nn.Linear(256, 10),
    )  # fmt: skip


def _encoder(**settings: Any) -> nn.Module:
    return Words(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, **settings))


def _decoder() -> nn.Module:
    return Words(
        Residual(nn.LayerNorm(16), Attention(16, 4, causal=True)), Residual(nn.RMSNorm(16, eps=1e-5), nn.Linear(16, 32),
        nn.GLU(), nn.Linear(16, 16)),
    )  # fmt: skip


def _cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z, y)


def _weighted(z: Tensor, y: Tensor) -> Tensor:
    weights = torch.linspace(0.5, 1.5, 10).to(z.dtype)
    return F.cross_entropy(z, y, weights, label_smoothing=0.1)


def _hot(z: Tensor, y: Tensor) -> Tensor:
    return F.one_hot(y, 10).to(z.dtype)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": _cross_entropy,
    "weighted": _weighted,
    "nll": lambda z, y: F.nll_loss(F.log_softmax(z, 1), y),
    "mse": lambda z, y: F.mse_loss(z, _hot(z, y)),
    "l1": lambda z, y: F.l1_loss(z, _hot(z, y)),
    "smooth_l1": lambda z, y: F.smooth_l1_loss(z, _hot(z, y), beta=0.3),
    "huber": lambda z, y: F.huber_loss(z, _hot(z, y), delta=0.3),
    "bce": lambda z, y: F.binary_cross_entropy(torch.sigmoid(z), _hot(z, y)),
    "bce_with_logits": lambda z, y: F.binary_cross_entropy_with_logits(z, _hot(z, y)),
    "kl_div": lambda z, y: F.kl_div(F.log_softmax(z, 1), 0.9 * _hot(z, y) + 0.01, reduction="batchmean"),
    "soft_margin": lambda z, y: F.soft_margin_loss(z, 2 * _hot(z, y) - 1),
    "hinge": lambda z, y: F.multi_margin_loss(z, y),
}

O = torch.optim  # noqa: E741
OPTIMISERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: O.SGD(p, 0.1),
    "momentum": lambda p: O.SGD(p, 0.1, momentum=0.9, weight_decay=1e-3),
    "nesterov": lambda p: O.SGD(p, 0.1, momentum=0.9, nesterov=True, foreach=True),
    "sgd_fused": lambda p: O.SGD(p, 0.1, momentum=0.9, weight_decay=1e-3, fused=True),
    "adam": lambda p: O.Adam(p, 1e-2),
    "adam_foreach": lambda p: O.Adam(p, 1e-2, foreach=True, amsgrad=True),
    "adam_fused": lambda p: O.Adam(p, 1e-2, fused=True, weight_decay=1e-3),
    "adamw": lambda p: O.AdamW(p, 1e-2, foreach=True),
    "adamw_fused": lambda p: O.AdamW(p, 1e-2, fused=True, amsgrad=True),
    "rmsprop": lambda p: O.RMSprop(p, 1e-2, momentum=0.5, centered=True),
    "rmsprop_foreach": lambda p: O.RMSprop(p, 1e-2, foreach=True),
    "adagrad": lambda p: O.Adagrad(p, 1e-2),
    "adagrad_foreach": lambda p: O.Adagrad(p, 1e-2, foreach=True, lr_decay=0.1),
    "adagrad_fused": lambda p: O.Adagrad(p, 1e-2, fused=True, weight_decay=1e-3),
    "adadelta": lambda p: O.Adadelta(p, 1.0),
    "adamax": lambda p: O.Adamax(p, 1e-2),
    "nadam": lambda p: O.NAdam(p, 1e-2),
    "radam": lambda p: O.RAdam(p, 1e-2),
}


class Case(NamedTuple):
    """A network that trains.

    Args:
        model: makes it. loss, optimiser: by name. clip: largest norm of the gradients, 0 for none. batch, steps: sizes.
    """

    name: str
    model: Callable[[], nn.Module]
    loss: str = "cross_entropy"
    optimiser: str = "sgd"
    clip: float = 0.0
    batch: int = 16
    steps: int = 3


MODELS: dict[str, Callable[[], nn.Module]] = {
    **{"-".join(map(str, sizes)): (lambda sizes=sizes: mlp(sizes)) for sizes in SIZES},  # type: ignore[misc]
    "convolutions": _convolutions,
    "up and down": _up_and_down,
    "encoder": _encoder,
    "encoder, norm first, gelu": lambda: _encoder(norm_first=True, activation="gelu", dropout=0.0),
    "decoder": _decoder,
    "activations": _activations,
}
CASES = [
    *(Case(name, make, clip=1.0) for name, make in MODELS.items()),
    *(Case(f"loss {name}", MODELS["64-32-10"], loss=name) for name in LOSSES),
    *(Case(f"optimiser {name}", MODELS["64-32-10"], optimiser=name) for name in OPTIMISERS),
    Case("encoder, AdamW", _encoder, "weighted", "adamw", 1.0),
    Case("convolutions, Adam", _convolutions, "weighted", "adam_foreach", 0.5),
]


class Tensors(NamedTuple):
    """What a step made: by name, the tensors of the run, and what is known of them."""

    run: dict[str, Tensor]
    bounds: dict[str, Tensor]
    readings: dict[str, Any]


def train(
    case: Case, dtype: torch.dtype, bits: Any = None, model: nn.Module | None = None, seed: int = 0
) -> Iterator[Tensors]:
    """Yield the values, gradients, parameters and state of each step; with `bits`, and their bounds."""
    x, y = digits()
    if model is None:
        torch.manual_seed(seed)
        model = case.model().to(dtype)
    optimiser = OPTIMISERS[case.optimiser](model.parameters())
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            if isinstance(out, Tensor):
                seen[name] = out.detach().clone()

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(keep(f"value {name}"))
    for step in range(case.steps):
        seen.clear()
        torch.manual_seed(1000 + step)
        some = slice(step * case.batch, (step + 1) * case.batch)
        optimiser.zero_grad(set_to_none=step % 2 == 0)
        z = model(x[some].to(dtype))
        p = z.softmax(1)
        loss = LOSSES[case.loss](z, y[some])
        loss.backward()
        seen |= {"softmax": p.detach(), "loss": loss.detach()}
        seen |= {f"gradient {n}": q.grad.clone() for n, q in model.named_parameters() if q.grad is not None}
        if case.clip:
            seen["norm"] = nn.utils.clip_grad_norm_(model.parameters(), case.clip).detach()
        optimiser.step()
        seen |= {f"parameter {n}": q.detach().clone() for n, q in model.named_parameters()}
        seen |= {f"buffer {n}": q.clone() for n, q in model.named_buffers() if q.is_floating_point()}
        for n, q in model.named_parameters():
            seen |= {f"state {k} {n}": v.clone() for k, v in optimiser.state[q].items() if isinstance(v, Tensor)}
        readings = {n: bits.of(v) for n, v in seen.items()} if bits is not None else {}
        yield Tensors(dict(seen), {n: r.bound for n, r in readings.items() if "safe" in r.noise}, readings)


class Sums(NamedTuple):
    """Counts of a case.

    Args:
        elements: compared. wrong: errors above their bound. claims: errors above 2**-bits of the exact value. same: the
            run is that of no tracking. shadowed: operations without a rule. finite: elements with a bound.
    """

    elements: int
    wrong: int
    claims: int
    same: bool
    shadowed: set[str]
    finite: int
    note: str


def compare(case: Case, seed: int = 0, numbers: tuple[str, ...] = ("safe",), **settings: Any) -> Sums:
    """Return counts of a case, against the same program in float64."""
    plain = list(train(case, torch.float32, seed=seed))
    torch.manual_seed(seed)
    model = case.model()
    twin = copy.deepcopy(model).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with simulator.track(model, numbers=numbers, **settings) as bits:
            tracked = list(train(case, torch.float32, bits, model))
    elements = wrong = claims = finite = 0
    same, note = True, ""
    for ours, untracked, exact in zip(tracked, plain, train(case, torch.float64, model=twin), strict=True):
        for name, value in ours.run.items():
            same &= torch.equal(*(v.reshape(-1).view(torch.int32) for v in (value, untracked.run[name])))
            z, bound = exact.run[name], ours.bounds[name].double()
            off = (value.double() - z).abs()
            over = off > bound * (1 + 2.0**-20) + z.abs() * 2.0**-45
            claimed = torch.pow(2.0, -ours.readings[name].safe.double())
            most = ours.readings[name].safe == 24
            over_claimed = (off > claimed * z.abs() * (1 + 2.0**-20)) & ~most & (ours.readings[name].safe > 0)
            elements += value.numel()
            wrong += int(over.sum())
            claims += int(over_claimed.sum())
            finite += int(bound.isfinite().sum())
            if (over | over_claimed).any() and not note:
                at = int(torch.where(over | over_claimed, off, 0.0).argmax())
                note = (f"{name}: run {value.flatten()[at]:.9g} exact {z.flatten()[at]:.9g} "
                        f"bound {bound.flatten()[at]:.3g}")  # fmt: skip
    return Sums(elements, wrong, claims, same, {n.split(" in ")[0] for n in bits.shadowed}, finite, note)
