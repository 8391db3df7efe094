"""A Keras model as a torch module like any other: its layers are modules, their variables parameters and buffers."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from simulator.errors import InputError

from .input_types import as_integers
from .keras_layers import torch_call
from .keras_recurrent import recurrent_loop
from .named_forward import NamedForward, unique_names


class KerasNetwork(nn.Module):
    """A Keras model on the torch backend, whose layers hooks, state dicts and optimisers find under their Keras names.

    Keras' own layers are torch modules too, but not one within the other: a model shows one flat list of parameters and
    no layers. Here each layer has a module, nested as the layers are, in which the layer's `call` runs; Keras does
    what it does around it (masks, types, the graph). The tensors of the modules are the model's variables: whatever
    replaces one, such as a state dict or a run's own buffers, the next forward pass runs on.

    Args:
        model: built, of keras.Sequential or keras.Model (functional). Its layers run within their modules from now on,
            so a model has one such network.
    Attributes:
        model: the Keras model. fixed_batch: how many samples it takes at a time, neither more nor less; None for any
            number. input_types: of the inputs, by the names of its forward. forward: has the names of the model's
            inputs; integers and floats are converted to their types, and what the model returns comes back as it is: a
            tensor, or a list or dict of tensors.
    """

    model: Any

    def __init__(self, model: Any) -> None:
        super().__init__()
        graph = getattr(model, "_functional", model)  # of a Sequential, which has one once its input is known
        if not hasattr(graph, "_inputs_struct"):
            raise InputError(
                f"the Keras model {model.name}: has no inputs yet, or a call of its own code; expected a functional or "
                "sequential one that begins with keras.Input; rebuild it as one, or write its layers in torch"
            )
        object.__setattr__(self, "model", model)  # not a part: its layers are
        self._inputs = graph._inputs_struct
        self._variables: list[tuple[Any, dict[str, Any], str]] = []
        _add_variables(self, model, self._variables)
        _add_layers(self, graph, self._variables, {})
        batches = {x.shape[0] for x in model.inputs}
        self.fixed_batch: int | None = batches.pop() if len(batches) == 1 else None
        self._names = unique_names([x.name for x in model.inputs])
        declared = zip(self._names, (x.dtype for x in model.inputs), strict=True)
        # Without those of strings, which torch does not have.
        self.input_types = {name: getattr(torch, dtype) for name, dtype in declared if hasattr(torch, dtype)}
        # A forward pass that is an attribute and no method, since its names are the model's.
        self.forward = NamedForward(self._names, self._run)

    def _run(self, *inputs: Tensor) -> Any:
        import keras

        for variable, tensors, name in self._variables:
            variable._value = tensors[name]
        with keras.device("cpu"), _plain_failures(keras):
            named = zip(self._names, inputs, strict=True)
            typed = [as_integers(name, x, self.input_types.get(name, x.dtype)) for name, x in named]
            given = keras.tree.pack_sequence_as(self._inputs, typed)
            return self.model(given, training=self.training)

    def __reduce__(self) -> tuple[Any, ...]:
        # As Keras copies and pickles models: by what it would save.
        gradients = [parameter.requires_grad for parameter in self.parameters()]
        return KerasNetwork, (self.model,), {"training": self.training, "gradients": gradients}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.train(state["training"])
        for parameter, wanted in zip(self.parameters(), state["gradients"], strict=True):
            parameter.requires_grad_(wanted)


class _Layer(nn.Module):
    """The module of a layer, in which its `call` runs.

    Attributes:
        recurs: whether the layer is recurrent, which the tap asks for.
    """

    def __init__(self, layer: Any, variables: list[tuple[Any, dict[str, Any], str]], made: dict[int, _Layer]) -> None:
        import keras

        super().__init__()
        self._kind = type(layer).__name__
        self.call = torch_call(layer)
        _add_variables(self, layer, variables)
        _add_layers(self, layer, variables, made)
        # Past Keras' own way of setting attributes, which would make a layer of this.
        layer.__dict__["call"] = self
        self.recurs = isinstance(layer, keras.layers.RNN)
        if self.recurs:
            layer.__dict__["inner_loop"] = recurrent_loop(layer)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)

    def _get_name(self) -> str:
        return self._kind


def network_of(found: nn.Module) -> nn.Module:
    """Return a network, as a KerasNetwork if it is a Keras model."""
    keras = sys.modules.get("keras")
    return KerasNetwork(found) if keras is not None and isinstance(found, keras.Model) else found


@contextmanager
def _plain_failures(keras: Any) -> Iterator[None]:
    """Let what fails within layers come out as it is, without what Keras adds to the message."""
    before = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()
    try:
        yield
    finally:
        if before:
            keras.config.enable_traceback_filtering()


def _add_layers(module: nn.Module, layer: Any, variables: list[Any], made: dict[int, _Layer]) -> None:
    """Give a module those of the layers within its layer; a layer that several have has one module."""
    import keras

    if isinstance(layer, keras.Model):
        parts = [part for part in layer.layers if not isinstance(part, keras.layers.InputLayer)]
        names = [part.name for part in parts]
    else:
        parts = list(layer._flatten_layers(include_self=False, recursive=False))
        # Keras numbers these by what the process made before; within a layer they are the same every time.
        names = [re.sub(r"_\d+$", "", part.name) for part in parts]
    for name, part in zip(unique_names(names), parts, strict=True):
        if id(part) not in made:
            made[id(part)] = _Layer(part, variables, made)
        module._modules[name] = made[id(part)]


def _add_variables(module: nn.Module, layer: Any, variables: list[tuple[Any, dict[str, Any], str]]) -> None:
    """Give a module the variables of its layer alone: parameters that training changes, all others as buffers."""
    trained, others = layer._trainable_variables, layer._non_trainable_variables
    states = [generator.state for generator in layer._seed_generators]
    own = [*trained, *others, *states]
    kinds = [True] * len(trained) + [False] * (len(others) + len(states))
    for name, variable, is_parameter in zip(unique_names([v.name for v in own]), own, kinds, strict=True):
        tensors: dict[str, Any] = module._parameters if is_parameter else module._buffers
        # Past register_buffer and register_parameter, which refuse the names of a module's own attributes.
        tensors[name] = variable.value if is_parameter else variable.value.detach()
        variables.append((variable, tensors, name))
