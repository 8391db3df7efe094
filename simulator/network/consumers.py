"""The recording pass: what consumes each Op, so that the score can use the condition number of its activation.

The dispatcher shows a product before its activation; so the first sample runs once in float32 with every tensor
followed from the Op that made it, through views, to the operations that read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .ops import Op, array
from .tap import Tap

aten = torch.ops.aten

RULES = {"relu": "relu", "relu_": "relu", "tanh": "tanh", "tanh_": "tanh"}

# Operations that hand the same values on, beside those that the dispatcher itself marks as views.
_SAME_VALUES = {"clone", "_to_copy", "contiguous", "_unsafe_view", "reshape", "copy", "lift_fresh"}
_BATCH_NORM = {"_native_batch_norm_legit_no_training", "native_batch_norm", "cudnn_batch_norm", "batch_norm"}


@dataclass(frozen=True)
class Consumer:
    """What the score of an Op looks at.

    Args:
        activation: key of simulator.arithmetic.two_pass.KAPPA_PRIME.
        scale, shift: per output channel, of a batch normalisation in between (folded for the score), or None.
        note: why the identity had to be used, empty if there was no need.
        outputs: how many outputs the Op has in the recording pass.
    """

    activation: str = "identity"
    scale: Any = None
    shift: Any = None
    note: str = ""
    outputs: int = 0


@dataclass
class _Followed:
    op: Op
    consumers: list[str] = field(default_factory=list)
    scale: Any = None
    shift: Any = None


def record(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Consumer]:
    """Run the model once in float32 and return the consumer of each Op by its name.

    The model's buffers and torch's random state are left as they were.
    """
    followed: dict[int, _Followed] = {}
    found: dict[str, _Followed] = {}
    alive: list[Any] = []  # keeps tensors, so that an id means one tensor

    def observe(func: Any, inputs: tuple[Any, ...], result: Any, op: Op | None) -> None:
        alive.append((inputs, result))
        name = func.overloadpacket.__name__
        sources = {id(t): followed[id(t)] for t in tree_leaves(inputs) if isinstance(t, Tensor) and id(t) in followed}
        outputs = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        for source in {id(s): s for s in sources.values()}.values():
            if func.is_view or name in _SAME_VALUES:
                for output in outputs:
                    followed[id(output)] = source
            elif name in _BATCH_NORM and source.scale is None and _follow_batch_norm(name, inputs, source, outputs, followed):
                continue
            else:
                source.consumers.append(name)
        if op is not None:
            found[op.name] = followed[id(result)] = _Followed(op)

    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.random.fork_rng(devices=[]), torch.no_grad(), Tap(model, lambda op: None, observe):
        output = model(*args, **kwargs)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    for leaf in tree_leaves(output):
        if id(leaf) in followed:
            followed[id(leaf)].consumers.append("output")
    return {name: _judge(source) for name, source in found.items()}


def _follow_batch_norm(
    name: str, inputs: tuple[Any, ...], source: _Followed, outputs: list[Tensor], followed: dict[int, _Followed]
) -> bool:
    """Fold a batch normalisation in eval mode into the score; False if it is in training mode."""
    weight, bias, mean, variance = inputs[1:5]
    training = name != "_native_batch_norm_legit_no_training" and bool(inputs[5])
    if training or mean is None or variance is None:
        return False
    epsilon = inputs[6] if name == "_native_batch_norm_legit_no_training" else inputs[7]
    scale = torch.rsqrt(variance.double() + epsilon) * (1.0 if weight is None else weight.double())
    shift = -mean.double() * scale + (0.0 if bias is None else bias.double())
    source.scale, source.shift = array(scale), array(shift)
    followed[id(outputs[0])] = source
    return True


def _judge(source: _Followed) -> Consumer:
    consumers, scale, shift = source.consumers, source.scale, source.shift
    note = ""
    if scale is not None and scale.size != source.op.channels:
        scale = shift = None
        note = "the channels of its batch normalisation are not its columns"
    elif len(consumers) > 1:
        note = f"{len(consumers)} consumers ({', '.join(consumers)})"
    elif consumers and consumers[0] != "output" and consumers[0] not in RULES:
        note = f"consumed by {consumers[0]}, for which there is no rule"
    if note:
        note = f"{source.op.name}: {note}; scored as identity"
    activation = "identity" if note or not consumers else RULES.get(consumers[0], "identity")
    return Consumer(activation, scale, shift, note, source.op.gemms * source.op.m * source.op.n)
