"""Recurrent layers, as products of their gates: one of the whole input, and one of the state for each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from .registry import Declined, Node, operator

Activation = Callable[[Tensor], Tensor]

# Of the product of the input (batch, gates hidden) and the states (batch, hidden), to the new states.
Step = Callable[..., tuple[Tensor, ...]]

# Of a node, the weights and bias of the state, activations, and peepholes.
Cell = Callable[[Node, Tensor, Tensor, list[Activation], "Tensor | None"], Step]

# The operators here.
RECURRENT = ("GRU", "LSTM", "RNN")

_DIRECTIONS = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}

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


def _recurrent(
    node: Node,
    cell: Cell,
    default: list[str],
    x: Tensor,
    weights: Tensor,
    recurrence: Tensor,
    biases: Tensor | None,
    lengths: Tensor | None,
    states: tuple[Tensor | None, ...],
    peepholes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Return the outputs (steps, directions, batch, hidden), and the last states (directions, batch, hidden).

    With `layout` the batch is the first axis of all, and of x (steps, batch, input) and the states to begin with, which
    are 0 where there are none.

    Args:
        cell: makes the step of one direction. default: names of its activations.
        weights, recurrence: (directions, gates hidden, input or hidden). biases: (directions, 2 gates hidden), of both.
        lengths: of the sequence of each sample; behind it a state stays, and the outputs are 0.
    """
    batch_first, direction = bool(node.get("layout", 0)), node.get("direction", "forward")
    x = x.transpose(0, 1) if batch_first else x
    backward = _DIRECTIONS.get(direction)
    if backward is None or len(backward) != len(weights):
        raise Declined(f"the direction {direction} with weights of {len(weights)}")
    size = node.get("hidden_size", recurrence.shape[2])
    if size != recurrence.shape[2]:
        raise Declined(f"hidden_size {size} with weights of a state of {recurrence.shape[2]}")
    begin = [
        x.new_zeros(len(weights), x.shape[1], recurrence.shape[2])
        if state is None
        else state.transpose(0, 1)
        if batch_first
        else state
        for state in states
    ]
    biases = weights.new_zeros(len(weights), 2 * weights.shape[1]) if biases is None else biases
    valid = None if lengths is None else (torch.arange(len(x))[:, None] < lengths)[..., None]
    results = []
    for at, functions in enumerate(_activations(node, default, len(backward))):
        bias, state_bias = biases[at].chunk(2)
        step = cell(node, recurrence[at], state_bias, functions, None if peepholes is None else peepholes[at])
        inputs = nn.functional.linear(x, weights[at], bias)
        results.append(_steps(inputs, step, tuple(state[at] for state in begin), valid, backward[at]))
    outputs, *last = (torch.stack(parts) for parts in zip(*results, strict=True))
    if batch_first:
        return outputs.permute(2, 1, 0, 3), *(state.transpose(0, 1) for state in last)
    return outputs.transpose(0, 1), *last


def _steps(
    inputs: Tensor, step: Step, states: tuple[Tensor, ...], valid: Tensor | None, backward: bool
) -> tuple[Tensor, ...]:
    """Return the outputs of all steps (steps, batch, hidden) in the order of the input, and the last states."""
    outputs: dict[int, Tensor] = {}
    for t in reversed(range(len(inputs))) if backward else range(len(inputs)):
        new = step(inputs[t], *states)
        if valid is not None:
            new = tuple(torch.where(valid[t], after, before) for after, before in zip(new, states, strict=True))
        outputs[t] = new[0] if valid is None else torch.where(valid[t], new[0], 0)
        states = new
    return torch.stack([outputs[t] for t in range(len(inputs))]), *states


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
    return _recurrent(node, _rnn_cell, ["Tanh"], x, w, r, b, lengths, (h,))


def _rnn_cell(node: Node, weight: Tensor, bias: Tensor, functions: list[Activation], peepholes: Tensor | None) -> Step:
    (f,) = functions
    return lambda given, state: (f(_clipped(node, given + nn.functional.linear(state, weight, bias))),)


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
    return _recurrent(node, _gru_cell, ["Sigmoid", "Tanh"], x, w, r, b, lengths, (h,))


def _gru_cell(node: Node, weight: Tensor, bias: Tensor, functions: list[Activation], peepholes: Tensor | None) -> Step:
    f, g = functions
    size = weight.shape[1]
    sizes = [2 * size, size]

    def step(given: Tensor, state: Tensor) -> tuple[Tensor]:
        gates, new = given.split(sizes, -1)
        if node.get("linear_before_reset", 0):
            more, candidate = nn.functional.linear(state, weight, bias).split(sizes, -1)
            update, reset = f(_clipped(node, gates + more)).chunk(2, -1)
            candidate = reset * candidate
        else:
            more = nn.functional.linear(state, weight[: 2 * size], bias[: 2 * size])
            update, reset = f(_clipped(node, gates + more)).chunk(2, -1)
            candidate = nn.functional.linear(reset * state, weight[2 * size :], bias[2 * size :])
        return ((1 - update) * g(_clipped(node, new + candidate)) + update * state,)

    return step


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
    return _recurrent(node, _lstm_cell, ["Sigmoid", "Tanh", "Tanh"], x, w, r, b, lengths, (h, c), peepholes)


def _lstm_cell(node: Node, weight: Tensor, bias: Tensor, functions: list[Activation], peepholes: Tensor | None) -> Step:
    f, g, last = functions

    def step(given: Tensor, state: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        i, o, forget, new = (given + nn.functional.linear(state, weight, bias)).chunk(4, -1)
        if peepholes is not None:
            peep_i, peep_o, peep_f = peepholes.chunk(3)
            i, forget = i + peep_i * cell, forget + peep_f * cell
        i, new = f(_clipped(node, i)), g(_clipped(node, new))
        forget = 1 - i if node.get("input_forget", 0) else f(_clipped(node, forget))
        cell = forget * cell + i * new
        o = o if peepholes is None else o + peep_o * cell
        return f(_clipped(node, o)) * last(cell), cell

    return step
