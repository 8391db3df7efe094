"""Networks from `.pt2` files of torch.export, which nobody has to trust: a graph of torch's operations, and tensors."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from simulator.errors import InputError, first_line

from .exported_archives import EXPECTED, check_plain
from .files import check_file
from .input_types import as_integers
from .named_forward import NamedForward, unique_names

# Arguments of operations that say whether a layer is in training.
_TRAINING = ("train", "training")

# Layers as torch's operations -> as the functions that modules call, in which the tap finds their products.
_FUNCTIONS = {
    torch.ops.aten.linear.default: functional.linear,
    torch.ops.aten.lstm.input: torch.lstm, torch.ops.aten.lstm.data: torch.lstm,
    torch.ops.aten.gru.input: torch.gru, torch.ops.aten.gru.data: torch.gru,
    torch.ops.aten.rnn_tanh.input: torch.rnn_tanh, torch.ops.aten.rnn_tanh.data: torch.rnn_tanh,
    torch.ops.aten.rnn_relu.input: torch.rnn_relu, torch.ops.aten.rnn_relu.data: torch.rnn_relu,
}  # fmt: skip

_Range = tuple[int, int | None]


class ExportedNetwork(nn.Module):
    """The network of an exported program: its modules by the paths that they had, and what it takes by name.

    Args:
        program: of torch.export, whose graph stays as it was exported: batch normalisation and dropout too.
    Attributes:
        fixed_batch: how many samples it takes at a time, neither more nor less; None for any number.
        input_types: of the inputs, by the names of its forward; integers are converted to them.
        forward: has the names of the inputs; returns what the exported module returned.
    """

    graph: Any

    def __init__(self, program: Any) -> None:
        super().__init__()
        arguments = [spec.arg for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
        # Arguments that were no tensors have the values that they were exported with.
        self._constants = [getattr(argument, "value", None) for argument in arguments]
        self._places = [i for i, argument in enumerate(arguments) if not hasattr(argument, "value")]
        self._nesting = _Nesting(program.module_call_graph[0].signature.out_spec)
        names = [arguments[i].name for i in self._places]
        self._names = unique_names(names)
        examples = [_example(program, name) for name in names]
        self._shapes = [tuple(_range(program, length) for length in example.shape) for example in examples]
        self.input_types = {name: example.dtype for name, example in zip(self._names, examples, strict=True)}
        first = {shape[0] for shape in self._shapes if shape}
        least, most = first.pop() if len(first) == 1 else (0, None)
        self.fixed_batch = least if least == most else None
        graph = torch.export.unflatten(program)
        _prepare(graph)
        object.__setattr__(self, "graph", graph)  # not a part: its parts are, in the very same dictionaries
        self._modules, self._parameters, self._buffers = graph._modules, graph._parameters, graph._buffers
        self.forward = NamedForward(self._names, self._run)

    def _run(self, *inputs: Tensor) -> Any:
        values = list(self._constants)
        for place, name, shape, value in zip(self._places, self._names, self._shapes, inputs, strict=True):
            if len(shape) != value.dim() or not all(_within(*pair) for pair in zip(value.shape, shape, strict=True)):
                raise InputError(
                    f"{name}: got shape {tuple(value.shape)}; expected ({', '.join(map(_shown, shape))}), as the "
                    "network was exported; reshape the data, or export the network with other dynamic_shapes"
                )
            values[place] = as_integers(name, value, self.input_types[name])
        outputs = type(self.graph.graph_module).forward(self.graph, *values)
        return pytree.tree_unflatten(outputs, self._nesting.of_outputs)


class _Nesting:
    """How the outputs are nested, which copies of a network share: torch warns of copies."""

    def __init__(self, of_outputs: Any) -> None:
        self.of_outputs = of_outputs

    def __deepcopy__(self, memo: dict[int, Any]) -> _Nesting:
        return self


def load_exported(path: str, allow_code: bool = False) -> ExportedNetwork:
    """Return the network of a `.pt2` file, on the CPU.

    Args:
        path: of a file that torch.export.save wrote, of a module in eval mode. allow_code: whether the file may hold
            objects of other kinds than tensors, whose code is run when they are read; without it, nothing is run.
    Raises:
        InputError: the file is damaged, of another kind, holds code that is not allowed, or was exported in training
            mode.
    """
    check_file(path, EXPECTED)
    if not allow_code:
        check_plain(path)
    # A damaged file raises whatever its readers come to; and so does code from within the file.
    try:
        with _silent():
            program = torch.export.load(path)
            _check_tensors(program)
            trained = list(_in_training(program))
            network = None if trained else ExportedNetwork(program)
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}: {first_line(error)[:160]}); expected {EXPECTED}, of "
            "this version of torch and on the CPU; export it anew"
        ) from None
    if network is None:
        raise InputError(
            f"{path}: exported in training mode ({', '.join(trained[:4])}), which its graph keeps; expected a network "
            "that runs as it will; call model.eval() before torch.export.export, and export it anew"
        )
    return network


@contextmanager
def _silent() -> Iterator[None]:
    """Keep to ourselves what torch logs of files that it cannot read, or not in the first of its ways."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def _check_tensors(program: Any) -> None:
    """Raise ValueError for tensors of other shapes or types than those that the graph was traced with."""
    traced = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    for spec in program.graph_signature.input_specs:
        found = program.state_dict.get(spec.target, program.constants.get(spec.target))
        if isinstance(found, Tensor):
            wanted = traced[spec.arg.name]
            if found.shape != wanted.shape or found.dtype != wanted.dtype:
                raise ValueError(
                    f"{spec.target} of shape {tuple(found.shape)} and {found.dtype}, and the graph has "
                    f"{tuple(wanted.shape)} and {wanted.dtype}"
                )


def _in_training(program: Any) -> Iterator[str]:
    """Yield the names of what runs in training mode."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None:
            continue
        given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False)) | node.kwargs
        if any(given.get(name) is True for name in _TRAINING):
            yield node.name


def _example(program: Any, name: str) -> Tensor:
    """Return what stands for an input where the program was traced, without values."""
    (node,) = (node for node in program.graph.nodes if node.op == "placeholder" and node.name == name)
    example: Tensor = node.meta["val"]
    return example


def _range(program: Any, length: Any) -> _Range:
    """Return the least and the largest length of an axis of an input, as the program was exported."""
    if isinstance(length, int):
        return length, length
    found = program.range_constraints.get(length.node.expr)
    if found is None:  # an expression of other lengths
        return 0, None
    # A least length of 2 is torch's own, which tells apart what is 1 and nothing else, and does not insist on it.
    least = 0 if found.lower <= 2 else int(found.lower)
    return least, int(found.upper) if found.upper.is_Integer else None


def _within(length: int, allowed: _Range) -> bool:
    least, most = allowed
    return least <= length and (most is None or length <= most)


def _shown(allowed: _Range) -> str:
    least, most = allowed
    if most is None:
        return f"at least {least}" if least else "any"
    return str(least) if least == most else f"{least} to {most}"


def _prepare(graph: Any) -> None:
    """Let layers be called as modules call them, and drop what a copy cannot have: the tensors of the example."""
    graph.module_call_graph = []
    for module in graph.modules():
        if hasattr(module, "graph"):
            for node in module.graph.nodes:
                node.meta.clear()
                node.target = _FUNCTIONS.get(node.target, node.target)
            module._run_with_interpreter = False  # which adds its own words to what is said of a failure
            module.finalize()
