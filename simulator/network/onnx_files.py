"""Networks from ONNX files, which nobody has to trust: no code of a file runs, and no other files are read."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from simulator.errors import InputError

from .files import check_file
from .named_forward import unique_names
from .onnx_build import Builder
from .onnx_expansion import Expansion
from .onnx_functions import Functions, opset_versions
from .onnx_graph import Body
from .onnx_inputs import Declared, batch_elsewhere, fixed_batch, signature
from .onnx_operators.registry import Declined, Value
from .onnx_operators.types import torch_type
from .onnx_scope import Scope
from .onnx_tensors import Tensors
from .result_sizes import CheckedSizes

# Fields that are for people to read, of whatever length and with whatever in it.
_REMARKS = frozenset({"doc_string", "metadata_props"})


def read_onnx(path: str) -> nn.Module:
    """Return the network of an ONNX file, on the CPU and in eval mode.

    Its forward pass takes the inputs of the file by name, made identifiers, or in order; those that the file has a
    value for need not be given. Floats and integers become the types that the file declares. It returns the output, or
    a dictionary of several by their names. Each node is a module, by the name that it has in the file, with slashes and
    dots as levels; a tensor of floats that the file holds is a parameter of the nodes that use it.

    Args:
        path: of a file of opset 11 to the newest that the library onnx knows; files of external data lie in its folder.
    Raises:
        InputError: the file is damaged, refers to files outside of its folder, or needs operators that are not
            supported, which are all named.
    Source: https://onnx.ai/onnx/repo-docs/IR.html
    """
    check_file(path, "an .onnx file")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(Path(path).read_bytes())
    except Exception:  # of protobuf, which says no more than that it failed
        raise InputError(
            f"{path}: cannot be read as ONNX; expected a whole .onnx file in binary form; write or copy it anew"
        ) from None
    if not _has_names(model):
        raise InputError(
            f"{path}: holds names that are no printable text; expected a whole .onnx file; write or copy it anew"
        )
    if not model.HasField("graph") or not model.opset_import:
        raise InputError(f"{path}: holds no graph of ONNX; expected a whole .onnx file; write or copy it anew")
    if model.ir_version > onnx.IR_VERSION:
        raise InputError(
            f"{path}: of version {model.ir_version} of the format; expected at most {onnx.IR_VERSION}; install a newer "
            "onnx, or export the network for an older version"
        )
    return _network(model, path)


def _has_names(message: Any) -> bool:
    """Whether all names in a message are printable text; protobuf returns what is no text as bytes."""
    for field, value in message.ListFields():
        if field.name in _REMARKS:
            continue
        if field.type == field.TYPE_STRING:
            texts = [value] if isinstance(value, str | bytes) else value
            if not all(isinstance(text, str) and text.isprintable() for text in texts):
                return False
        elif field.type == field.TYPE_MESSAGE and not all(
            map(_has_names, value if isinstance(value, Sequence) else [value])
        ):
            return False
    return True


class OnnxNetwork(Body):
    """The graph of a file.

    Attributes:
        fixed_batch: how many samples it takes at a time, neither more nor less; None for any number.
        batch_elsewhere: which inputs have their samples along another axis than the first; None if none has.
        input_names: those that the inputs have in the file, by their argument.
        input_types: of the inputs that are tensors, by the names of its forward.
    """

    def __init__(self, path: str, declared: list[Declared], outputs: list[str], elsewhere: str | None) -> None:
        super().__init__([one.name for one in declared], outputs)
        self.batch_elsewhere = elsewhere
        self.fixed_batch = None if elsewhere else fixed_batch(declared)
        self.input_names = {one.argument: one.name for one in declared}
        self.input_types = {one.argument: one.dtype for one in declared if one.dtype is not None}
        self._path = path
        self._declared = declared
        # An empty tensor of each type of an input: what converts the network, as model.double() does, converts it too.
        for one in declared:
            name = _type_buffer(one)
            if one.dtype is not None and not hasattr(self, name):
                self.register_buffer(name, torch.empty(0, dtype=one.dtype), persistent=False)

    def forward(self, *args: Value, **kwargs: Value) -> Any:
        """Return the only output, or a dictionary of them by name."""
        given = self._signature.bind(self, *args, **kwargs).arguments
        values = []
        for one in self._declared:
            value = given.get(one.argument)
            if value is None and one.has_default:
                value = getattr(self, self._constants[one.name])
            elif one.dtype is not None:
                value = one.check(self._path, value, getattr(self, _type_buffer(one)).dtype)
            values.append(value)
        with CheckedSizes():
            outputs = self.run(*values)
        return outputs[0] if len(outputs) == 1 else dict(zip(self._outputs, outputs, strict=True))

    _signature: inspect.Signature


def _type_buffer(one: Declared) -> str:
    return f"_{str(one.dtype).removeprefix('torch.')}"


def _network(model: Any, path: str) -> nn.Module:
    graph = model.graph
    functions = Functions(model, path)
    versions = opset_versions(path, model.opset_import)
    counts = functions.unsupported(graph.node, versions)
    if counts:
        named = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
        raise InputError(
            f"{path}: has operators that are not supported, with the number of their nodes: {named}; expected those of "
            "docs/howto/model-files.md; export the network without them, or write them as it says there"
        )
    if graph.sparse_initializer:
        raise InputError(f"{path}: holds sparse tensors; expected dense ones; convert them")
    scope = Scope(versions)
    Expansion(path, functions).check(graph.node, scope)
    builder = Builder(path, Tensors(path), functions)
    builder.add_initialisers(graph.initializer, scope)
    declared = _declared(graph, model.ir_version, scope, path)
    outputs = [value.name for value in graph.output]
    if not outputs:
        raise InputError(f"{path}: has no output; expected at least one; export the network anew")
    network: OnnxNetwork = _class_of(path, declared)(path, declared, outputs, batch_elsewhere(declared, graph.node))
    for one in declared:
        scope.values.add(one.name)
        if one.has_default:
            network.hold(one.name, scope.constants.pop(one.name).tensor)
    builder.fill(network, graph.node, scope, outputs)
    builder.check_outputs(outputs, scope)
    return network.eval()


def _class_of(path: str, declared: list[Declared]) -> type[OnnxNetwork]:
    """Return a class with the signature of one file's inputs, named like the file: what runs it asks its class."""

    def forward(self: OnnxNetwork, *args: Value, **kwargs: Value) -> Any:
        return OnnxNetwork.forward(self, *args, **kwargs)

    own = signature(declared)
    forward.__signature__ = own  # type: ignore[attr-defined]
    (name,) = unique_names([Path(path).stem])
    return type(name, (OnnxNetwork,), {"forward": forward, "_signature": own, "__doc__": f"The network of {path}."})


def _declared(graph: Any, ir_version: int, scope: Scope, path: str) -> list[Declared]:
    """Return the inputs of a graph; in old files every tensor that they hold stands among them too."""
    protos = [value for value in graph.input if ir_version >= 4 or value.name not in scope.constants]
    names = [value.name for value in protos]
    if not all(names) or len(set(names)) < len(names):
        raise InputError(f"{path}: has inputs {', '.join(names)}; expected names, each another; export it anew")
    return [
        Declared(value.name, argument, *_type(value, path), value.name in scope.constants)
        for value, argument in zip(protos, unique_names(["self", *names])[1:], strict=True)
    ]


def _type(value: Any, path: str) -> tuple[torch.dtype | None, tuple[int | str, ...] | None]:
    kind = value.type.WhichOneof("value")
    if kind in ("sequence_type", "optional_type"):
        return None, None
    if kind != "tensor_type":
        raise InputError(f"{path}: input {value.name}: of the kind {kind}; expected a tensor; export it without")
    try:
        dtype = torch_type(value.type.tensor_type.elem_type)
    except Declined as declined:
        raise InputError(f"{path}: input {value.name}: {declined}; expected numbers; export it without") from None
    if not value.type.tensor_type.HasField("shape"):
        return dtype, None
    return dtype, tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in value.type.tensor_type.shape.dim
    )
