"""Recurrent layers, as products of their gates: one of the whole input, and one of the state for each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .registry import Declined, Node, operator

Activation = Callable[[Tensor], Tensor]

# Which of alpha and beta an activation takes, with the value that stands for each if it is not given.
_ALPHA = {"LeakyRelu": 0.01, "ThresholdedRelu": 1.0, "Elu": 1.0, "HardSigmoid": 0.2, "Affine": 1.0, "ScaledTanh": 1.0}
_BETA = {"HardSigmoid": 0.5, "Affine": 0.0, "ScaledTanh": 1.0}


def _activation(name: str, alpha: float, beta: float) -> Activation:
    known: dict[str, Activation] = {
        "Relu": torch.relu, "Tanh": torch.tanh, "Sigmoid": torch.sigmoid, "Softsign": nn.functional.softsign,
        "Softplus": nn.functional.softplus,
        "Affine": lambda x: alpha * x + beta,
        "LeakyRelu": lambda x: nn.functional.leaky_relu(x, alpha),
        "ThresholdedRelu": lambda x: nn.functional.threshold(x, alpha, 0.0),
        "ScaledTanh": lambda x: alpha * torch.tanh(beta * x),
        "HardSigmoid": lambda x: (alpha * x + beta).clamp(0, 1),
        "Elu": lambda x: nn.functional.elu(x, alpha),
    }  # fmt: skip
    lower = {each.lower(): function for each, function in known.items()}
    if name.lower() not in lower:
        raise Declined(f"the activation {name}")
    return lower[name.lower()]


def _activations(node: Node, default: list[str], directions: int) -> list[list[Activation]]:
    """Return the activations of each direction; alphas and betas go to those that take one, in their order."""
    names = node.get("activations", default * directions)
    if len(names) != len(default) * directions:
        raise Declined(f"{len(names)} activations; expected {len(default) * directions}")
    alphas, betas = iter(node.get("activation_alpha", [])), iter(node.get("activation_beta", []))

    def value(given: Iterator[float], defaults: dict[str, float], name: str) -> float:
        return next(given, defaults[name]) if name in defaults else 0.0

    made = [_activation(name, value(alphas, _ALPHA, name), value(betas, _BETA, name)) for name in names]
    return [made[i : i + len(default)] for i in range(0, len(made), len(default))]


class _Layer(NamedTuple):
    """What all recurrent layers share.

    Args:
        x: (steps, batch, input). w, r: (directions, gates hidden, input or hidden). b: (directions, 2 gates hidden).
        valid: (steps, batch, 1), whether a step lies within the sequence of a sample, or None if all do.
        h: (directions, batch, hidden), the states to begin with. backward: of each direction.
    """

    x: Tensor
    w: Tensor
    r: Tensor
    b: Tensor
    valid: Tensor | None
    h: Tensor
    backward: list[bool]

    def run(self, direction: int, step: Callable[..., tuple[Tensor, ...]], *states: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of one direction (steps, batch, hidden), and its last states.

        Behind the end of a sample's sequence its state stays, and its outputs are 0.

        Args:
            step: of the product of the input, (batch, gates hidden), and the states, to the new ones.
        """
        w_bias, _ = self.b[direction].chunk(2)
        inputs = nn.functional.linear(self.x, self.w[direction], w_bias)
        outputs: list[Tensor] = [self.x] * len(inputs)
        for t in reversed(range(len(inputs))) if self.backward[direction] else range(len(inputs)):
            new = step(inputs[t], *states)
            if self.valid is None:
                outputs[t], states = new[0], new
            else:
                within = self.valid[t]
                outputs[t] = torch.where(within, new[0], 0)
                states = tuple(torch.where(within, after, before) for after, before in zip(new, states, strict=True))
        return torch.stack(outputs), *states


def _layer(node: Node, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, lengths: Tensor | None, h: Tensor | None) -> _Layer:
    if node.get("layout", 0):
        x = x.transpose(0, 1)
        h = h if h is None else h.transpose(0, 1)
    direction = node.get("direction", "forward")
    backward = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}.get(direction)
    if backward is None or len(backward) != len(w):
        raise Declined(f"the direction {direction} with weights of {len(w)}")
    b = w.new_zeros(len(w), 2 * w.shape[1]) if b is None else b
    h = x.new_zeros(len(w), x.shape[1], r.shape[2]) if h is None else h
    valid = None if lengths is None else (torch.arange(len(x))[:, None] < lengths)[..., None]
    return _Layer(x, w, r, b, valid, h, backward)


def _outputs(node: Node, directions: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Return the outputs (steps, directions, batch, hidden) and the last states; with `layout` the batch is first."""
    outputs, *states = (torch.stack(parts) for parts in zip(*directions, strict=True))
    if node.get("layout", 0):
        return outputs.permute(2, 1, 0, 3), *(state.transpose(0, 1) for state in states)
    return outputs.transpose(0, 1), *states


def _clipped(node: Node, x: Tensor) -> Tensor:
    bound = node.get("clip")
    return x if bound is None else x.clamp(-bound, bound)


@operator("RNN")
def rnn(
    node: Node,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Return h' = f(W x + R h + b) for each step, and the last."""
    layer = _layer(node, x, w, r, b, lengths, h)
    results = []
    for at, (f,) in enumerate(_activations(node, ["Tanh"], len(layer.backward))):
        weight, bias = layer.r[at], layer.b[at].chunk(2)[1]

        def step(given: Tensor, state: Tensor) -> tuple[Tensor]:
            return (f(_clipped(node, given + nn.functional.linear(state, weight, bias))),)

        results.append(layer.run(at, step, layer.h[at]))
    return _outputs(node, results)


@operator("GRU")
def gru(
    node: Node,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Return h' = (1 - z) n + z h for each step, and the last; the gates stand in the order z, r, n.

    n = g(W x + R (r h) + b), or g(W x + r (R h + Rb) + Wb) with `linear_before_reset`.
    """
    layer = _layer(node, x, w, r, b, lengths, h)
    size = layer.h.shape[-1]
    results = []
    for at, (f, g) in enumerate(_activations(node, ["Sigmoid", "Tanh"], len(layer.backward))):
        weight, bias = layer.r[at], layer.b[at].chunk(2)[1]

        def step(given: Tensor, state: Tensor) -> tuple[Tensor]:
            gates, new = given.split([2 * size, size], -1)
            if node.get("linear_before_reset", 0):
                state_gates, state_new = nn.functional.linear(state, weight, bias).split([2 * size, size], -1)
                update, reset = f(_clipped(node, gates + state_gates)).chunk(2, -1)
                candidate = g(_clipped(node, new + reset * state_new))
            else:
                state_gates = nn.functional.linear(state, weight[: 2 * size], bias[: 2 * size])
                update, reset = f(_clipped(node, gates + state_gates)).chunk(2, -1)
                state_new = nn.functional.linear(reset * state, weight[2 * size :], bias[2 * size :])
                candidate = g(_clipped(node, new + state_new))
            return ((1 - update) * candidate + update * state,)

        results.append(layer.run(at, step, layer.h[at]))
    return _outputs(node, results)


@operator("LSTM")
def lstm(
    node: Node,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h: Tensor | None = None,
    c: Tensor | None = None,
    peepholes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Return h' = o h(c'), with c' = f c + i g, for each step, and the last of both; the gates stand as i, o, f, g.

    Peepholes add a multiple of c to i and f, of c' to o; with `input_forget` f = 1 - i.
    """
    layer = _layer(node, x, w, r, b, lengths, h)
    if c is None:
        c = torch.zeros_like(layer.h)
    elif node.get("layout", 0):
        c = c.transpose(0, 1)
    results = []
    for at, (f, g, last) in enumerate(_activations(node, ["Sigmoid", "Tanh", "Tanh"], len(layer.backward))):
        weight, bias = layer.r[at], layer.b[at].chunk(2)[1]
        peep_i, peep_o, peep_f = (0.0, 0.0, 0.0) if peepholes is None else peepholes[at].chunk(3)

        def step(given: Tensor, state: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
            i, o, forget, new = (given + nn.functional.linear(state, weight, bias)).chunk(4, -1)
            if peepholes is not None:
                i, forget = i + peep_i * cell, forget + peep_f * cell
            i, new = f(_clipped(node, i)), g(_clipped(node, new))
            forget = 1 - i if node.get("input_forget", 0) else f(_clipped(node, forget))
            cell = forget * cell + i * new
            o = o if peepholes is None else o + peep_o * cell
            return f(_clipped(node, o)) * last(cell), cell

        results.append(layer.run(at, step, layer.h[at], c[at]))
    return _outputs(node, results)
