"""What each quantisation point does to a batch: the batch again with the point and without, beside the training.

Nothing of the training changes: what these passes read and write is put back, their counts are their own, and random
words of stochastic roundings depend on the step alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from formats import FloatFormat, Use
from simulator.network.batches import Batch
from simulator.network.emulation import Emulation

from .laws import INCOHERENT, flip_probability, forward_error
from .points import OPTIMIZER_STATE, WEIGHT_GRADIENT, WEIGHT_STORE, layers_of
from .recipe import Recipe
from .swamping import Swamped, Swamping

if TYPE_CHECKING:
    from .loop import Loss
    from .rounds import Rounds

ALL = "all"  # the cause that is all points together

_RELUS = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)


@dataclass(frozen=True)
class Effect:
    """What a cause did to a layer, on the batch observed; differences are with it minus without.

    Args:
        depth: place of the layer in the forward pass, from 1. units: elements of the masks of ReLUs between it and the
            next layer. flipped: of these, on which the two passes do not agree.
        forward_error: norm of the difference of the layer's outputs over their norm; None where that is 0 or infinite.
        gradient_error: likewise of the gradients with respect to them.
    """

    depth: int
    units: int
    flipped: int
    forward_error: float | None
    gradient_error: float | None

    @property
    def flips(self) -> float | None:
        """Share of the masks that flipped; None without a ReLU."""
        return self.flipped / self.units if self.units else None


@dataclass(frozen=True)
class GradientNoise:
    """The gradient of a parameter, as the optimiser read it, over the batches of an epoch.

    Args:
        batches: how many. signal: norm of the mean over them. deviation: norm of the standard deviations over them.
        rounding: by cause, norm of what it adds to the gradient of the batch observed.
    """

    batches: int
    signal: float
    deviation: float
    rounding: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Signal over noise; pure noise has about 1 / sqrt(batches)."""
        return self.signal / self.deviation if self.deviation else None


@dataclass(frozen=True)
class Observation:
    """What was seen of an epoch beside its counts.

    Args:
        effects: by cause (a point, a product with a MAC unit, ALL) and layer. gradients: by parameter.
        swamping: by product and layer. rates: of the optimiser, by parameter.
    """

    effects: dict[str, dict[str, Effect]]
    gradients: dict[str, GradientNoise]
    swamping: dict[str, dict[str, Swamping]]
    rates: dict[str, float]


def fraction_bits(use: Use | None) -> int | None:
    """Return the stored significand bits of a format; None of what is no float, or does not exist."""
    return use.format.fraction_bits if use is not None and isinstance(use.format, FloatFormat) else None


def flips_law(use: Use, depth: int) -> float | None:
    """Return the share of masks at a depth that weights in a format flip, (4); None for roundings without a law."""
    bits, rounding = fraction_bits(use), _rounding(use)
    return flip_probability(rounding, bits, depth) if bits is not None and rounding in INCOHERENT else None


def forward_law(use: Use, depth: int) -> float | None:
    """Return the relative error at a depth that weights in a format cause, (3); None for roundings without a law."""
    bits, rounding = fraction_bits(use), _rounding(use)
    return forward_error(rounding, bits, depth) if bits is not None and rounding in INCOHERENT else None


def _rounding(use: Use) -> str:
    """Return the rounding as the laws name it."""
    return "sr" if use.mode.stochastic else use.rounding


class _Moments:
    """Running mean and sum of squared deviations of an array. Source: Welford, Technometrics 4, 1962."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, x: Tensor) -> None:
        self.count += 1
        x = x.detach().double()
        away = x - self.mean
        self.mean = self.mean + away / self.count
        self.squares = self.squares + away * (x - self.mean)


class _Seen:
    """A pass over the batch: outputs of layers and their gradients, masks behind them, gradients of parameters."""

    def __init__(self) -> None:
        self.outputs: dict[str, list[Tensor]] = {}
        self.deltas: dict[str, list[Tensor]] = {}
        self.masks: dict[str, list[Tensor]] = {}
        self.gradients: dict[str, Tensor] = {}

    @contextmanager
    def each(self, model: nn.Module, see: Callable[[str, Tensor], None]) -> Iterator[None]:
        """Within it, outputs of layers are seen, before or after what hooks registered earlier make of them."""

        def see_all(path: str, out: Any) -> None:
            for x in tree_leaves(out):
                if isinstance(x, Tensor) and x.is_floating_point():
                    see(path, x)

        with ExitStack() as hooks:
            for path, module in layers_of(model):
                hook = module.register_forward_hook(lambda module, args, out, path=path: see_all(path, out))
                hooks.callback(hook.remove)
            yield

    def gradient_of(self, path: str, out: Tensor) -> None:
        """Keep the gradient that goes on into a layer."""
        if out.requires_grad:
            out.register_hook(lambda delta: self.deltas.setdefault(path, []).append(delta.detach().clone()))

    def output_of(self, path: str, out: Tensor) -> None:
        """Keep what a layer hands on."""
        self.outputs.setdefault(path, []).append(out.detach().clone())


class _Masks(TorchDispatchMode):
    """Notes the masks of ReLUs, modules and functions alike, under the layer whose output came last."""

    def __init__(self, seen: _Seen) -> None:
        super().__init__()
        self._seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _RELUS and self._seen.outputs:
            with _disable_current_modes():
                path = next(reversed(self._seen.outputs))
                self._seen.masks.setdefault(path, []).append(args[0].detach() > 0)
        return func(*args, **(kwargs or {}))


class Observer:
    """Follows a training, and looks at a batch at the end of each epoch.

    Args:
        model: in training. parameters: of it that are trained, by name. optimizer: whose steps are followed, until
            `close`. loss: of outputs and targets. recipe: of the training. run: its points and step.
        emulated: returns the context in which products are those of a recipe. seed: of stochastic roundings.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        recipe: Recipe,
        run: Rounds,
        emulated: Callable[[Recipe], AbstractContextManager[Any]],
        seed: int = 0,
    ) -> None:
        self._model, self._parameters, self._optimizer, self._loss = model, parameters, optimizer, loss
        self._recipe, self._run, self._emulated, self._seed = recipe, run, emulated, seed
        self._moments: dict[str, _Moments] = {}
        self._wanted: dict[str, Tensor] = {}
        self._step = run.step
        self._hooks = (
            optimizer.register_step_pre_hook(lambda *_: self._before_step()),
            optimizer.register_step_post_hook(lambda *_: self._after_step()),
        )

    def close(self) -> None:
        """Follow the optimiser no longer."""
        for hook in self._hooks:
            hook.remove()

    def _before_step(self) -> None:
        if self._step == self._run.step:  # torch calls again for a class of optimisers within one that derives from it
            return
        self._step = self._run.step
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                self._moments.setdefault(name, _Moments()).add(parameter.grad)

    def _after_step(self) -> None:
        if WEIGHT_STORE in self._recipe.points:
            self._wanted = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    def look(self, batch: Batch, scale: float = 1.0) -> Observation:
        """Return what the points do to a batch, and what the gradients of the epoch were; the next epoch begins anew.

        Stored parameters are compared with those that the last step wanted, on the batch with every other point off;
        every other point, on the batch with the stored parameters, with no point on.

        Args:
            batch: with its labels. scale: of its loss.
        """
        effects: dict[str, dict[str, Effect]] = {}
        rounding: dict[str, dict[str, float]] = {}
        swamping: dict[str, dict[str, Swamping]] = {}
        carrier = self._pass(Recipe(), batch, 1.0)
        wanted = carrier
        if self._wanted:
            with _values(self._parameters, self._wanted):
                wanted = self._pass(Recipe(), batch, 1.0)
        for cause in (*dict.fromkeys(self._recipe.parts), ALL):
            if cause == OPTIMIZER_STATE:  # no batch sees it
                continue
            if cause == WEIGHT_STORE:
                found, without = carrier, wanted
            elif cause == ALL:
                found, without = self._pass(self._recipe, batch, scale, swamping), wanted
            else:
                found, without = self._pass(self._recipe.only(cause), batch, scale), carrier
            effects[cause] = _effects(found, without)
            for name, gradient in without.gradients.items():
                rounding.setdefault(name, {})[cause] = _norm(found.gradients[name].double() - gradient.double())
        gradients = {
            name: GradientNoise(
                moments.count, _norm(moments.mean), math.sqrt(float(moments.squares.sum()) / moments.count),
                rounding.get(name, {}),
            )
            for name, moments in self._moments.items()
        }  # fmt: skip
        self._moments = {}
        return Observation(effects, gradients, swamping, self._rates())

    def _rates(self) -> dict[str, float]:
        by_parameter = {
            id(parameter): float(group["lr"])
            for group in self._optimizer.param_groups if "lr" in group for parameter in group["params"]
        }  # fmt: skip
        return {name: by_parameter[id(p)] for name, p in self._parameters.items() if id(p) in by_parameter}

    def _pass(
        self,
        recipe: Recipe,
        batch: Batch,
        scale: float,
        swamping: dict[str, dict[str, Swamping]] | None = None,
    ) -> _Seen:
        """Run a batch forward and backward under a recipe, which leaves the training as it is."""
        seen, run, emulation = _Seen(), self._run.part(recipe), self._emulated(recipe)
        if swamping is not None and isinstance(emulation, Emulation):
            counting = Swamped(emulation, recipe.macs, self._seed)
            emulation.observers = (*emulation.observers, counting)
            swamping.update(counting.found)
        parameters = dict(self._parameters)
        with (
            torch.random.fork_rng(devices=[]), _values(dict(self._model.named_buffers())), emulation,
            seen.each(self._model, seen.gradient_of), run.in_layers(self._model),
            seen.each(self._model, seen.output_of), run.with_copies(self._model), _Masks(seen),
        ):  # fmt: skip
            value = self._loss(self._model(*batch.args, **batch.kwargs), batch.labels)
            gradients = torch.autograd.grad(
                value * scale if scale != 1.0 else value, list(parameters.values()), allow_unused=True
            )
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                seen.gradients[name] = gradient.clone()
                run.store(WEIGHT_GRADIENT, seen.gradients[name], name)
                seen.gradients[name] /= scale
        for deltas in seen.deltas.values():
            for delta in deltas:
                delta /= scale
        return seen


@contextmanager
def _values(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor] | None = None) -> Iterator[None]:
    """Within it, tensors may have other values, from its beginning on if some are given; behind it, their own again."""
    own = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    with torch.no_grad():
        for name, value in (values or {}).items():
            tensors[name].copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(own[name])


def _effects(found: _Seen, without: _Seen) -> dict[str, Effect]:
    effects = {}
    for depth, (path, outputs) in enumerate(without.outputs.items(), 1):
        masks = list(zip(found.masks.get(path, []), without.masks.get(path, []), strict=True))
        deltas = found.deltas.get(path, []), without.deltas.get(path, [])
        effects[path] = Effect(
            depth, sum(mask.numel() for mask, _ in masks), sum(int((a != b).sum()) for a, b in masks),
            _relative(found.outputs[path], outputs), _relative(*deltas),
        )  # fmt: skip
    return effects


def _relative(found: list[Tensor], without: list[Tensor]) -> float | None:
    """Return the norm of the difference over that of what is expected."""
    size = math.hypot(*(_norm(b) for b in without))
    away = math.hypot(*(_norm(a.double() - b.double()) for a, b in zip(found, without, strict=True)))
    return away / size if size and math.isfinite(size) and math.isfinite(away) else None


def _norm(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x.detach().double()))
