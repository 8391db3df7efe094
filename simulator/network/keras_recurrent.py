"""Recurrent layers of Keras, as products of their gates: one of the whole input, and one of the state for each step.

Keras runs a cell step by step, the first step twice to learn the shape of its output, with a product of the input in
each. An array computes the product with the input of all steps at once, as torch's own layers do; so the cells of
Keras' own layers run as these do, on Keras' variables, with Keras' activations, masks and order of gates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .keras_layers import value_of

# Of the product of the input (batch, gates units) and the states (batch, units), to the new states.
Step = Callable[..., tuple[Tensor, ...]]


def recurrent_loop(layer: Any) -> Callable[..., Any]:
    """Return what runs all steps of a layer, called as its `inner_loop` is, which it is unless there is a way here."""
    import keras

    layers = keras.layers
    own = functools.partial(type(layer).inner_loop, layer)
    made = {layers.LSTMCell: _lstm, layers.GRUCell: _gru, layers.SimpleRNNCell: _rnn}.get(type(layer.cell))
    # Of these types alone: a class that is derived from one may do anything.
    if made is None or type(layer) not in (layers.RNN, layers.LSTM, layers.GRU, layers.SimpleRNN):
        return own

    def loop(sequences: Tensor, initial_state: Any, mask: Any, training: bool = False) -> Any:
        if training and (layer.cell.dropout or layer.cell.recurrent_dropout):
            return own(sequences, initial_state, mask, training)
        return _steps(layer, made(layer.cell), sequences, tuple(initial_state), mask)

    return loop


def _steps(
    layer: Any, step: Step, sequences: Tensor, states: tuple[Tensor, ...], mask: Any
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the last output, those of all steps (batch, steps, units) in the order in which they run, and the states.

    Args:
        sequences: (batch, steps, features). mask: (batch, steps), or a list that begins with it, or None; where it is
            false states stay, and the output is the last one, or 0 if the layer wants that.
    """
    mask = mask[0] if isinstance(mask, list | tuple) else mask
    x = sequences.transpose(0, 1).contiguous()  # time first, so that the bias joins the product
    valid = None if mask is None else mask.bool().transpose(0, 1)[..., None]
    if layer.go_backwards:
        x, valid = x.flip(0), None if valid is None else valid.flip(0)
    inputs = functional.linear(x, value_of(layer.cell.kernel).mT, _input_bias(layer.cell))
    outputs: list[Tensor] = []
    for t in range(len(inputs)):
        new = step(inputs[t], *states)
        output = new[0]
        if valid is not None:
            before = torch.zeros_like(output) if layer.zero_output_for_mask or not outputs else outputs[-1]
            output = torch.where(valid[t], output, before)
            new = tuple(torch.where(valid[t], after, was) for after, was in zip(new, states, strict=True))
        outputs.append(output)
        states = new
    return outputs[-1], torch.stack(outputs, 1), list(states)


def _input_bias(cell: Any) -> Tensor | None:
    """Return the bias of the product with the input; a GRU may have a second one, of the product with the state."""
    if not cell.use_bias:
        return None
    bias = value_of(cell.bias)
    return bias if bias.dim() == 1 else bias[0]


def _state_weight(cell: Any) -> Tensor:
    return value_of(cell.recurrent_kernel).mT


def _rnn(cell: Any) -> Step:
    """h' = f(W x + R h + b)."""
    weight = _state_weight(cell)

    def step(given: Tensor, state: Tensor) -> tuple[Tensor]:
        new = given + functional.linear(state, weight)
        return (new if cell.activation is None else cell.activation(new),)

    return step


def _gru(cell: Any) -> Step:
    """h' = z h + (1 - z) n; the gates stand in the order z, r, n, and `reset_after` says what r multiplies."""
    weight, size = _state_weight(cell), cell.units
    bias = value_of(cell.bias)[1] if cell.use_bias and cell.reset_after else None

    def step(given: Tensor, state: Tensor) -> tuple[Tensor]:
        gates, new = given.split([2 * size, size], -1)
        if cell.reset_after:
            more, candidate = functional.linear(state, weight, bias).split([2 * size, size], -1)
            update, reset = cell.recurrent_activation(gates + more).chunk(2, -1)
            candidate = reset * candidate
        else:
            more = functional.linear(state, weight[: 2 * size])
            update, reset = cell.recurrent_activation(gates + more).chunk(2, -1)
            candidate = functional.linear(reset * state, weight[2 * size :])
        return (update * state + (1 - update) * cell.activation(new + candidate),)

    return step


def _lstm(cell: Any) -> Step:
    """h' = o f(c'), with c' = f c + i g; the gates stand in the order i, f, g, o."""
    weight = _state_weight(cell)

    def step(given: Tensor, state: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        i, forget, new, o = (given + functional.linear(state, weight)).chunk(4, -1)
        i, forget, o = (cell.recurrent_activation(gate) for gate in (i, forget, o))
        carry = forget * carry + i * cell.activation(new)
        return o * cell.activation(carry), carry

    return step
