"""The recording pass: what consumes each Op, so that the score can use the condition number of its activation.

The dispatcher shows a product before its activation; so the first sample runs once in torch's own arithmetic with every
tensor followed from the Op that made it, through views and folded batch normalisation, to the operations that read it.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_leaves, tree_map

from simulator.arithmetic.scores import MASKED

from .batches import fixed_batch
from .leaves import tensors_in
from .ops import Block, Convolution, Op, array
from .tap import Ran, Tap

Affine = tuple[NDArray[Any], NDArray[Any]]  # scale and shift

# Operations whose condition number is known -> activation, a key of simulator.arithmetic.activations.KAPPA_PRIME.
ACTIVATIONS = {
    name: activation
    for activation in ("relu", "leaky_relu", "tanh", "sigmoid", "silu", "gelu", "elu", "softplus", "exp")
    for name in (activation, f"{activation}_")
}
# What of the arguments behind its input an activation must have, by position and name, for the rule to hold; those of
# leaky_relu and elu that are not here do not change it.
_ARGUMENTS: Mapping[str, Mapping[tuple[int, str], Any]] = {
    "elu": {(3, "input_scale"): 1},
    "softplus": {(1, "beta"): 1},
}

# Operations that hand the same values on, beside those that the dispatcher itself marks as views.
_SAME_VALUES = frozenset({"clone", "_to_copy", "_unsafe_view", "_reshape_copy", "lift_fresh"})

# Batch normalisations -> position of epsilon among their arguments; the ones with a flag have it behind the statistics.
BATCH_NORMS = {"native_batch_norm": 7, "_native_batch_norm_legit_no_training": 6}


Read = Callable[[], Tensor | None]


@dataclass(frozen=True)
class Normalisation:
    """A batch normalisation in eval mode, its parameters and statistics read when it is asked for: they may change.

    Args:
        weight, bias, mean, variance: what reads them, each of shape (channels,).
    """

    weight: Read
    bias: Read
    mean: Read
    variance: Read
    epsilon: float

    @classmethod
    def of(cls, name: str, inputs: tuple[Any, ...], owners: Mapping[int, Read] | None = None) -> Normalisation:
        """Return that of an operation by its name and arguments.

        Args:
            owners: by the id of a tensor what reads it from the module that it belongs to, whatever will be there.
        """
        weight, bias, mean, variance = ((owners or {}).get(id(x), functools.partial(_itself, x)) for x in inputs[1:5])
        return cls(weight, bias, mean, variance, inputs[BATCH_NORMS[name]])

    @property
    def affine(self) -> Affine:
        """Scale and shift of each channel, float64."""
        weight, bias, mean, variance = (read() for read in (self.weight, self.bias, self.mean, self.variance))
        assert mean is not None and variance is not None  # or it would normalise by the batch
        scale = torch.rsqrt(variance.double() + self.epsilon)
        if weight is not None:
            scale = scale * weight.double()
        shift = -mean.double() * scale
        if bias is not None:
            shift = shift + bias.double()
        return array(scale), array(shift)


def _itself(x: Tensor | None) -> Tensor | None:
    return x


@dataclass(frozen=True)
class Logits:
    """Outputs of an Op on their way to a softmax over each row, in the recording pass.

    Args:
        factor: that they are multiplied by. addend: what is then added, masks and all, which broadcasts to a shape of
            the outputs, rows of all products in all axes but the last; None: nothing.
    """

    factor: float = 1.0
    addend: NDArray[Any] | None = None
    shape: tuple[int, ...] = ()

    def part(self, first: int, last: int) -> tuple[float, NDArray[Any] | float]:
        """Return the factor, and the addend of some rows, counted through all products."""
        if self.addend is None:
            return self.factor, 0.0
        at = np.unravel_index(np.arange(first, last), self.shape[:-1])
        return self.factor, np.broadcast_to(self.addend, self.shape)[at]

    def scaled(self, factor: float) -> Logits:
        """Return them multiplied."""
        return Logits(self.factor * factor, None if self.addend is None else self.addend * factor, self.shape)

    def masked(self, mask: Tensor, fill: Any, shape: torch.Size) -> Logits | None:
        """Return them with a number in some places that keeps these out; None if it does not."""
        number = _number(fill)
        if number is None or number > MASKED:
            return None
        return self.plus(torch.zeros(mask.shape).masked_fill(mask, -torch.inf), shape)

    def plus(self, other: Tensor, shape: torch.Size) -> Logits | None:
        """Return them, in a shape of theirs, with a tensor added; None if the sum would have another shape."""
        own = tuple(shape)
        if torch.broadcast_shapes(other.shape, shape) != shape or (self.addend is not None and self.shape != own):
            return None
        added = array(other.double())
        return Logits(self.factor, added if self.addend is None else self.addend + added, own)


@dataclass(frozen=True)
class Consumer:
    """What the score of an Op looks at.

    Args:
        activation: key of simulator.arithmetic.activations.KAPPA_PRIME.
        normalisation: in between, folded for the score; or None.
        note: why the identity had to be used, empty if there was no need.
        outputs: how many outputs the Op has in the recording pass.
        logits: if a softmax over the columns reads them; those of the samples of the recording pass.
        foldable: whether the normalisation reads the very result of the Op, whose output channels are the channels that
            it normalises, so that it can be folded into the weights.
    """

    activation: str = "identity"
    normalisation: Normalisation | None = None
    note: str = ""
    outputs: int = 0
    foldable: bool = False
    logits: Logits | None = None

    @property
    def affine(self) -> Affine | None:
        """(scale, shift) per output channel of the normalisation, as it is now."""
        return None if self.normalisation is None else self.normalisation.affine

    def logits_of(self, op: Op, block: Block) -> tuple[float, Any] | None:
        """Return what a score of logits sees of a block beside its outputs, as `two_pass` takes it; None of others."""
        if self.logits is None:
            return None
        first = block.gemm * op.m
        factor, addend = self.logits.part(first + block.rows.start, first + block.rows.stop)
        own = op.addend_of(block)
        if own is not None and (own <= MASKED).any():  # a mask in the product itself, which a narrow format cuts
            addend = np.where(own <= MASKED, -np.inf, addend)
        return factor, addend


def record_first_sample(
    model: nn.Module, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Consumer]:
    """Make the recording pass on the first sample, or on as many as the model takes at a time if that is fixed.

    It is made on all samples where the model does not take these alone.

    Args:
        model: any torch module; its buffers and torch's random state are left as they were.
        module: the model itself or a module of it.
        args, kwargs: of a forward pass of that module; samples are counted by the first axis of all tensors.
    Returns:
        The consumer of each Op, by its name.
    """
    sizes = {leaf.shape[0] for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim()}
    few = fixed_batch(model) or 1
    if len(sizes) == 1 and max(sizes) > few:
        first = _each(lambda x: x[:few] if x.dim() else x, (args, kwargs))
        try:
            return record(model, module, *first)
        except Exception:  # whatever a model raises that needs its whole input; if it is a real fault, it raises again
            pass
    return record(model, module, args, kwargs)


def record(model: nn.Module, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Consumer]:
    """Run a module of a model once and return the consumer of each Op by its name in the model.

    The arguments, the model's buffers and torch's random state are left as they were.
    """
    args, kwargs = _each(Tensor.clone, (args, kwargs))  # in which a model may write
    owners: dict[int, Read] = {
        id(parameter): functools.partial(getattr, owner, name, None)
        for owner in model.modules()
        for name, parameter in owner._parameters.items()
        if parameter is not None
    }
    recorder = _Recorder(owners)
    copies: dict[int, Tensor] = {}
    buffers = [
        (owner, name, buffer)
        for owner in model.modules()
        for name, buffer in owner._buffers.items()
        if buffer is not None
    ]
    try:
        for owner, name, buffer in buffers:
            owner._buffers[name] = copy = copies.setdefault(id(buffer), buffer.clone())
            owners[id(copy)] = functools.partial(getattr, owner, name, None)
        tap = Tap(model, lambda op: None, recorder.observe)
        with torch.random.fork_rng(devices=[]), torch.no_grad(), _without_cached_parameters(), tap:
            output = module(*args, **kwargs)
    finally:
        for owner, name, buffer in buffers:
            owner._buffers[name] = buffer
    return recorder.consumers(output)


def _each(change: Callable[[Tensor], Tensor], given: Any) -> Any:
    """Return arguments with each tensor changed; one that is given twice stays one."""
    changed: dict[int, Tensor] = {}

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if id(leaf) not in changed:
            changed[id(leaf)] = change(leaf)
        return changed[id(leaf)]

    return tree_map(one, given)


@contextmanager
def _without_cached_parameters() -> Iterator[None]:
    """Keep parametrised weights, computed here without gradients, out of the cache that the user's own pass reads."""
    enabled = parametrize._cache_enabled
    parametrize._cache_enabled = 0
    try:
        yield
    finally:
        parametrize._cache_enabled = enabled


@dataclass
class _Value:
    """A value of the network on its way: the outputs of an Op, or what a batch normalisation made of them.

    Args:
        op: where it comes from. shape: of the tensor that the Op made.
        normalisation: the batch normalisation, or None.
        consumers: names of the operations that read it, each with the activation that it is, None if it is none.
        normalised: what a batch normalisation made of it, if one reads it.
        foldable: of the normalised value, as in Consumer.
        logits: what was done on the way to a softmax. scaled: what scaling or masking made of it, if one did.
        softmax: whether a softmax over its last axis reads it.
    """

    op: Op
    shape: torch.Size
    normalisation: Normalisation | None = None
    consumers: list[tuple[str, str | None]] = field(default_factory=list)
    normalised: _Value | None = None
    foldable: bool = False
    logits: Logits = Logits()
    scaled: _Value | None = None
    softmax: bool = False


class _Recorder:
    """Follows the outputs of all Ops through one forward pass."""

    def __init__(self, owners: Mapping[int, Read]) -> None:
        self.values: dict[str, _Value] = {}
        self._owners = owners
        self._results: dict[str, Tensor] = {}
        self._carriers: dict[int, tuple[Tensor, _Value]] = {}  # by id of a tensor that holds the value
        self._turned: set[int] = set()  # ids of those that may hold it in another order than the Op
        self._alive: list[Any] = []  # keeps tensors, so that an id means one tensor

    def observe(self, ran: Ran) -> None:
        """Take note of one operation."""
        func, inputs, kwargs, result = ran.func, ran.args, ran.kwargs, ran.result
        self._alive.append((inputs, kwargs, result))
        name = func.__name__.split(".")[0]
        read = {id(value): (tensor, value) for tensor, value in self._read((inputs, kwargs))}
        self._forget_overwritten(func, inputs, kwargs)
        for tensor, value in read.values():
            outputs = tensors_in(result)
            if name in _SAME_VALUES or getattr(func, "is_view", False):
                for output in outputs:
                    self._carriers[id(output)] = output, value
                    if id(tensor) in self._turned or not (name in _SAME_VALUES or _keeps_order(ran, tensor, output)):
                        self._turned.add(id(output))
            elif name in BATCH_NORMS and tensor is inputs[0] and _folds(name, inputs, value):
                value.consumers.append((name, None))
                value.normalised = _Value(
                    value.op, value.shape, Normalisation.of(name, inputs, self._owners),
                    foldable=tensor is self._results.get(value.op.name),
                )  # fmt: skip
                self._carriers[id(outputs[0])] = outputs[0], value.normalised
            elif (logits := self._logits(ran, name, tensor, value)) is not None:
                value.consumers.append((name, None))
                value.scaled = _Value(value.op, value.shape, logits=logits)
                self._carriers[id(outputs[0])] = outputs[0], value.scaled
            else:
                value.softmax = (
                    name in _SOFTMAX and inputs[1] % tensor.dim() == tensor.dim() - 1 and self._in_rows(tensor, value)
                )
                whole = tensor.numel() >= value.shape.numel()
                activation = _activation(name, inputs, kwargs)
                value.consumers.append((name, activation) if whole else (f"{name} (of a part)", None))
        for op in ran.ops:
            self.values[op.name] = _Value(op, result.shape)
            self._carriers[id(result)] = result, self.values[op.name]
            self._results[op.name] = result

    def consumers(self, output: Any) -> dict[str, Consumer]:
        """Return the consumer of each Op, given what the model returned."""
        for _, value in self._read(output):
            value.consumers.append(("output", "identity"))
        return {name: _judge(value) for name, value in self.values.items()}

    def _read(self, inputs: Any) -> Iterator[tuple[Tensor, _Value]]:
        for leaf in tree_leaves(inputs):
            if id(leaf) in self._carriers:
                yield self._carriers[id(leaf)]

    def _in_rows(self, tensor: Tensor, value: _Value) -> bool:
        """Whether the last axis of a tensor is the columns of the Op, and the others its rows, product by product."""
        op = value.op
        whole = tensor.numel() == op.gemms * op.m * op.n and tensor.dim() > 0 and tensor.shape[-1] == op.n
        return whole and not isinstance(op, Convolution) and id(tensor) not in self._turned

    def _logits(self, ran: Ran, name: str, tensor: Tensor, value: _Value) -> Logits | None:
        """Return what an operation makes of logits: scaled, with a tensor added or masked; None if neither.

        Only of values that could be logits: whole, in rows, and with nothing between but this.
        """
        inputs, name = ran.args, name.removesuffix("_")
        if ran.kwargs or value.normalisation is not None or not self._in_rows(tensor, value):
            return None
        if name == "where" and tensor is inputs[1]:
            return value.logits.masked(inputs[0] == 0, inputs[2], tensor.shape)
        if name == "masked_fill" and tensor is inputs[0]:
            return value.logits.masked(inputs[1], inputs[2], tensor.shape)
        if len(inputs) != 2 or inputs[0] is inputs[1]:
            return None
        other = inputs[1] if tensor is inputs[0] else inputs[0]
        if name == "add" and isinstance(other, Tensor) and other.is_floating_point() and other.dim():
            return value.logits.plus(other, tensor.shape)
        factor = _number(other)
        if not factor or (name == "div" and tensor is not inputs[0]):
            return None
        return {"mul": value.logits.scaled(factor), "div": value.logits.scaled(1.0 / factor)}.get(name)

    def _forget_overwritten(self, func: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Drop what an operation in place has changed: who reads those tensors afterwards reads something else."""
        if not isinstance(func, torch._ops.OpOverload) or not func._schema.is_mutable:
            return
        given = {**dict(zip((x.name for x in func._schema.arguments), inputs, strict=False)), **kwargs}
        written = [given.get(argument.name) for argument in func._schema.arguments if argument.is_write]
        for x in tree_leaves(written):
            if not isinstance(x, Tensor) or x.layout is not torch.strided:
                continue
            memory = x.untyped_storage().data_ptr()
            for key, (tensor, value) in list(self._carriers.items()):
                if tensor.untyped_storage().data_ptr() == memory and x.numel() >= value.shape.numel():
                    del self._carriers[key]


_SOFTMAX = ("_softmax", "_safe_softmax")


def _keeps_order(ran: Ran, tensor: Tensor, output: Tensor) -> bool:
    """Whether a view of a whole tensor goes through its elements in the same order."""
    if output.numel() != tensor.numel() or output.dtype != tensor.dtype or "as_strided" in ran.func.__name__:
        return False
    places = torch.arange(tensor.numel()).reshape(tensor.shape)
    return torch.equal(ran.func(places, *ran.args[1:], **ran.kwargs).reshape(-1), places.reshape(-1))


def _number(x: Any) -> float | None:
    """Return a number that is a Python number or the only element of a tensor; None of anything else."""
    if isinstance(x, Tensor):
        return float(x) if x.dim() == 0 else None
    return float(x) if isinstance(x, int | float) else None


def _activation(name: str, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """Return the activation that an operation is, a key of KAPPA_PRIME; None if it is none with a rule."""
    found = ACTIVATIONS.get(name)

    def given(place: int, key: str, default: Any) -> Any:
        return inputs[place] if len(inputs) > place else kwargs.get(key, default)

    if any(given(*at, value) != value for at, value in _ARGUMENTS.get(found or "", {}).items()):
        return None
    if found == "leaky_relu" and given(1, "negative_slope", 0.01) == 0:
        return "relu"
    if found == "gelu" and given(1, "approximate", "none") == "tanh":
        return "gelu_tanh"
    return found


def _folds(name: str, inputs: tuple[Any, ...], value: _Value) -> bool:
    """Whether a batch normalisation is an affine map per column of the Op: in eval mode, its channels the columns."""
    x, mean, variance = inputs[0], inputs[3], inputs[4]
    if value.normalisation is not None:
        return False
    training = name == "native_batch_norm" and inputs[5]
    if training or mean is None or variance is None or x.shape[1] != value.op.channels:
        return False
    # As the Op made it, or with one axis only that can be the channels.
    untouched = x.shape == value.shape and (isinstance(value.op, Convolution) or x.dim() == 2)
    return untouched or list(x.shape[1:]).count(value.op.channels) == 1


def _judge(value: _Value) -> Consumer:
    if value.normalised is not None and len(value.consumers) == 1:
        return _judge(value.normalised)
    if value.scaled is not None and len(value.consumers) == 1:
        found = _judge(value.scaled)
        if found.logits is not None:
            return found
    consumers, note = value.consumers, ""
    activation = consumers[0][1] if consumers else "identity"
    if len(consumers) > 1:
        times = Counter(name for name, _ in consumers)
        shown = ", ".join(name if count == 1 else f"{name}, {count} times" for name, count in times.items())
        note = f"{len(consumers)} consumers ({shown})"
    elif activation is None:
        note = f"consumed by {consumers[0][0]}, for which there is no rule"
    if note or activation is None:
        note, activation = f"{note}; scored as identity", "identity"
    outputs = value.op.gemms * value.op.m * value.op.n
    logits = value.logits if value.softmax and len(consumers) == 1 else None
    return Consumer(activation, value.normalisation, note, outputs, value.foldable, logits)
