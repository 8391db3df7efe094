"""Recurrent layers of Keras: the answers of Keras itself, and in the record a product for all steps of a gate."""

import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")
os.environ["KERAS_BACKEND"] = "torch"
pytest.importorskip("keras", reason="needs the extra keras")

import keras  # noqa: E402
from keras import layers  # noqa: E402

from simulator.hardware import load_hardware  # noqa: E402
from simulator.network.emulation import Emulation  # noqa: E402
from simulator.network.keras_network import KerasNetwork  # noqa: E402

STEPS, FEATURES, UNITS = 5, 4, 3

LAYERS = {
    "lstm": lambda: layers.LSTM(UNITS),
    "lstm whole": lambda: layers.LSTM(UNITS, return_sequences=True, return_state=True),
    "lstm backwards": lambda: layers.LSTM(UNITS, go_backwards=True, return_sequences=True),
    "lstm of others": lambda: layers.LSTM(
        UNITS, activation="relu", recurrent_activation="hard_sigmoid", use_bias=False, implementation=1
    ),
    "lstm unrolled": lambda: layers.LSTM(UNITS, unroll=True),
    "lstm of dropout": lambda: layers.LSTM(UNITS, dropout=0.5, recurrent_dropout=0.5),
    "gru": lambda: layers.GRU(UNITS, return_sequences=True, return_state=True),
    "gru before": lambda: layers.GRU(UNITS, reset_after=False),
    "gru no bias": lambda: layers.GRU(UNITS, use_bias=False),
    "rnn": lambda: layers.SimpleRNN(UNITS, return_sequences=True),
    "rnn linear": lambda: layers.SimpleRNN(UNITS, activation=None, use_bias=False),
    "cell": lambda: layers.RNN(layers.GRUCell(UNITS), return_sequences=True),
    "cells": lambda: layers.RNN([layers.LSTMCell(UNITS), layers.GRUCell(UNITS)]),
    "both": lambda: layers.Bidirectional(layers.LSTM(UNITS, return_sequences=True)),
}


def models(layer, mask=False):
    """The same model twice, of weights and biases that are not those of a new one: one stays Keras' own."""
    found, rng = [], np.random.default_rng(2)
    for _ in range(2):
        x = keras.Input((STEPS, FEATURES))
        y = layer()(layers.Masking()(x) if mask else x)
        found.append(keras.Model(x, list(y) if isinstance(y, tuple | list) else y))
    weights = [rng.normal(size=weight.shape) for weight in found[0].get_weights()]
    for model in found:
        model.set_weights(weights)
    return found


def inputs(mask=False):
    x = torch.from_numpy(np.random.default_rng(3).normal(size=(2, STEPS, FEATURES)).astype(np.float32))
    if mask:
        x[0, 3:] = x[1, 1] = x[1, 4] = 0
    return x


def flat(result):
    return [value.detach() for value in (result if isinstance(result, list) else [result])]


@pytest.mark.parametrize("mask", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_answers_are_those_of_keras(layer, mask):
    own, given = models(layer, mask and layer is not LAYERS["lstm unrolled"])
    x = inputs(mask)
    for wanted, found in zip(flat(own(x)), flat(KerasNetwork(given).eval()(x)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=2e-6, atol=2e-6)


def test_outputs_of_masked_steps_are_0_if_the_layer_wants_that():
    own, given = models(lambda: layers.RNN(layers.LSTMCell(UNITS), return_sequences=True, zero_output_for_mask=True), 1)
    wanted, found = own(inputs(True)).detach(), KerasNetwork(given).eval()(inputs(True)).detach()
    assert bool((wanted == 0).any())
    torch.testing.assert_close(found, wanted, rtol=2e-6, atol=2e-6)


def test_gradients_are_those_of_keras():
    own, given = models(LAYERS["gru"])
    network = KerasNetwork(given)
    for model in (own, network):
        model(inputs())[0].square().sum().backward()
    wanted = [variable.value.grad for variable in own.trainable_variables]
    found = [variable.value.grad for variable in given.trainable_variables]
    assert len(found) == 3 and all(grad is not None for grad in wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def records(layer):
    network = KerasNetwork(models(layer)[1]).eval()
    with Emulation(network, load_hardware("npu"), default="low") as run, torch.no_grad():
        network(inputs())
    return [(one.name.partition("#")[2], one.gemms, one.m, one.n, one.k) for one in run.result.layers]


@pytest.mark.parametrize("layer, gates", [("lstm", 4), ("gru", 3), ("rnn", 1), ("cell", 3)])
def test_the_steps_are_one_record_as_of_torch(layer, gates):
    assert records(LAYERS[layer]) == [
        ("", 1, 2 * STEPS, gates * UNITS, FEATURES), ("2 to #6", STEPS, 2, gates * UNITS, UNITS),
    ]  # fmt: skip


def test_two_products_of_a_step_and_two_directions_are_records_of_their_own():
    assert records(LAYERS["gru before"])[1:] == [
        ("2 to #10", STEPS, 2, 2 * UNITS, UNITS), ("3 to #11", STEPS, 2, UNITS, UNITS),
    ]  # fmt: skip
    assert [gemms for _, gemms, *_ in records(LAYERS["both"])] == [1, STEPS, 1, STEPS]


def test_the_steps_of_cells_that_keras_runs_are_joined_too():
    """Keras runs the first step twice more, to learn the shapes of what follows a cell, and of the output."""
    found = records(LAYERS["cells"])
    assert [gemms for _, gemms, *_ in found] == [STEPS + 2] * 4
