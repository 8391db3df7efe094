"""A graph of ONNX as torch modules, one for each step, run in order; each value is freed after its last use."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from simulator.errors import InputError, first_line

from . import convolutions, limits, result_sizes
from .fit import NUMPY, OURS
from .model_scales import ScaledByModel
from .named_forward import plain_name
from .onnx_operators.quantised import QUANTISED
from .onnx_operators.recurrent import RECURRENT
from .onnx_operators.registry import Declined, Node, Operator, Value

# A name with more parts than this is one part: torch walks through modules recursively.
MAX_NESTED = 20

_OPERATORS = str(Path(__file__).with_name("onnx_operators"))


class Body(nn.Module):
    """Nodes in an order in which they can run; the graph of a file, a subgraph of a node, or the body of a function.

    Args:
        inputs: names of what a call gives, "" for what is not used; of a subgraph then those that it sees around it.
        outputs: names of what a call returns.
    """

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        self._constants: dict[str, str] = {}
        self._steps: list[Step] = []

    def hold(self, name: str, value: Tensor) -> None:
        """Give a value a name from the start, that of an output which no node computes or of an optional input."""
        self._constants[name] = add_constant(self, name, value)

    def run_in_order(self, steps: Sequence[Step]) -> None:
        """Set the nodes, which must be in order, and see when each value is used for the last time."""
        last = {name: i for i, step in enumerate(steps) for name in (*step.outputs, *step.inputs)}
        kept = {"", *self._outputs, *self._constants}
        unused: list[list[str]] = [[] for _ in steps]
        for name, i in last.items():
            if name not in kept:
                unused[i].append(name)
        self._steps = [step._replace(unused=tuple(names)) for step, names in zip(steps, unused, strict=True)]

    def forward(self, *inputs: Value) -> Any:
        """Return the only output, or a tuple of them."""
        outputs = self.run(*inputs)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def run(self, *inputs: Value) -> list[Value]:
        """Return the outputs."""
        if len(inputs) != len(self._inputs):
            raise Declined(f"a graph that takes {len(self._inputs)} values and is given {len(inputs)}")
        values: dict[str, Value] = {name: getattr(self, held) for name, held in self._constants.items()}
        values.update(zip(self._inputs, inputs, strict=True))
        del inputs
        values[""] = None
        for step in self._steps:
            result = step.module(*(values[name] for name in step.inputs))
            if len(step.outputs) == 1:
                values[step.outputs[0]] = result
            else:
                values.update(zip(step.outputs, result, strict=False))
            del result
            values[""] = None
            for name in step.unused:
                del values[name]
        return [values[name] for name in self._outputs]


class Step(NamedTuple):
    """A node in a graph, or several that are computed as one.

    Args:
        module: that computes it. inputs: names of what the module is given, "" for None.
        outputs: names of what it returns, "" for what nobody reads. unused: what nobody reads after it.
    """

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    unused: tuple[str, ...] = ()


class Operation(ScaledByModel):
    """A node: its operator, the weights and other constants among its inputs, and its subgraphs.

    Args:
        node: without its subgraphs. function: that computes it.
        path: of the file, for messages.
    """

    def __init__(self, node: Node, function: Operator, path: str) -> None:
        super().__init__()
        self._node, self._function, self._path = node, function, path
        self._constants: list[str] = []
        self._subgraphs: dict[str, tuple[str, int]] = {}

    @property
    def recurs(self) -> bool:
        """Whether it computes a recurrent layer, step by step."""
        return not self._node.domain and self._node.op in RECURRENT

    @property
    def quantises(self) -> bool:
        """Whether it computes with quantised integers, or makes or ends such."""
        return not self._node.domain and self._node.op in QUANTISED

    def set_inputs(self, constants: Sequence[tuple[str, Tensor] | None]) -> None:
        """Say which of the node's inputs are constants, with their names and values; None for each of the others."""
        self._constants = [add_constant(self, *one) if one else "" for one in constants]

    def add_subgraph(self, name: str, body: Body, around: int) -> None:
        """Add the subgraph of an attribute, which sees so many values around it."""
        self._subgraphs[name] = (add_module(self, name, body), around)

    def forward(self, *inputs: Value) -> Any:
        """Return the only output, or a tuple of them.

        Args:
            inputs: those of the node, None for constants and for what is left out, then for each subgraph what it sees
                around it.
        """
        own = len(self._constants)
        given = [getattr(self, name) if name else x for name, x in zip(self._constants, inputs[:own], strict=True)]
        try:
            result = self._function(self._with_subgraphs(inputs[own:]), *given)
        except InputError as error:
            place = f"{self._path}: "
            if str(error).startswith(place) or _is_of_emulation(error):  # from a node of a subgraph; of an analysis
                raise
            raise InputError(f"{place}{self._node.where}: {error}") from None
        except Declined as declined:
            raise InputError(
                f"{self._path}: {self._node.where}: {first_line(declined)}; expected a node without; change the "
                "network, or ask for this operator"
            ) from None
        except Exception as error:
            if _is_of_emulation(error):
                raise
            shapes = ", ".join(_described(x) for x in given) or "nothing"
            raise InputError(
                f"{self._path}: {self._node.where}: given {shapes} ({type(error).__name__}: {first_line(error)}); "
                "expected inputs that its operator takes; correct the samples, or the network"
            ) from error
        outputs = result if isinstance(result, tuple) else (result,)
        asked = self._node.outputs
        if len(outputs) < len(asked):
            raise InputError(
                f"{self._path}: {self._node.where}: output {len(outputs)} ({asked[len(outputs)]}) is asked for, which "
                "is not computed here; expected a network that does without; export it for inference"
            )
        return outputs[0] if len(asked) == 1 else outputs[: len(asked)]

    def _with_subgraphs(self, around: tuple[Value, ...]) -> Node:
        """Return the node, its subgraphs bound to what they see."""
        if not self._subgraphs:
            return self._node
        bound, first = {}, 0
        for name, (child, count) in self._subgraphs.items():
            bound[name] = _Bound(self.get_submodule(child), around[first : first + count])
            first += count
        return replace(self._node, attributes={**self._node.attributes, **bound})

    def _get_name(self) -> str:
        return self._node.op

    def extra_repr(self) -> str:
        """The attributes that a reader can take in at a glance."""
        shown = {name: value for name, value in self._node.attributes.items() if not isinstance(value, Tensor)}
        return ", ".join(f"{name}={value}" for name, value in shown.items())


class _Bound(NamedTuple):
    """A subgraph with what it sees around it: a Graph of an operator."""

    body: Any
    around: tuple[Value, ...]

    def __call__(self, *inputs: Value) -> list[Value]:
        outputs = self.body(*inputs, *self.around)
        return list(outputs) if isinstance(outputs, tuple) else [outputs]


def add_module(parent: nn.Module, name: str, module: nn.Module) -> str:
    """Add a module to another under a name as close to the file's as can be, and return the path below that.

    Slashes and dots nest; other characters that are none of an identifier become an underscore.
    """
    parts = [plain_name(part) for part in name.replace("/", ".").split(".") if part] or ["node"]
    *outer, last = parts if len(parts) <= MAX_NESTED else ["_".join(parts)]
    path = []
    for part in outer:
        if part not in parent._modules:
            part = _free(parent, part)
            parent.add_module(part, nn.Module())
        path.append(part)
        parent = parent._modules[part]  # type: ignore[assignment]
    last = _free(parent, last, len(parent._modules))
    parent.add_module(last, module)
    return ".".join([*path, last])


def add_constant(module: nn.Module, name: str, value: Tensor) -> str:
    """Add a parameter, or a buffer for any other tensor, and return the name that it has in the module.

    That is the last part of the file's name: conv1.weight is the weight of whoever uses it.
    """
    own = _free(module, plain_name(name.replace("/", ".").rstrip(".").split(".")[-1]) or "constant")
    if isinstance(value, nn.Parameter):
        module.register_parameter(own, value)
    else:
        module.register_buffer(own, value)
    return own


def _free(module: nn.Module, name: str, number: int = 1) -> str:
    """Return a name, or with a number above one behind it if a module has an attribute of that name."""
    free = name
    while hasattr(module, free):
        number += 1
        free = f"{name}_{number}"
    return free


def _described(value: Value) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return f"a sequence of {len(value)}" if isinstance(value, list) else "nothing"


def _is_of_emulation(error: BaseException) -> bool:
    """Whether an exception arose in our own code for the emulation, a fault of ours, and not for a node in an operator
    or in torch, where it is the operands' fault. What does not fit in memory is the fault of who asked."""
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    judges = (NUMPY, limits.__file__, result_sizes.__file__)
    innermost = next((name for name in reversed(frames) if not name.startswith(judges)), "")
    return innermost.startswith(OURS) and not innermost.startswith((_OPERATORS, convolutions.__file__))
