"""From the nodes of an ONNX file to modules: names resolved, weights given to their users, functions expanded."""

from __future__ import annotations

import heapq
import inspect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from simulator.errors import InputError, first_line

from .onnx_graph import Body, Operation, Step, add_module
from .onnx_operators.registry import Declined, Node, Operator, find
from .onnx_tensors import Tensors

# What one file may ask for: nodes after functions are expanded, which may call each other twice and again, and
# subgraphs and functions within each other.
MAX_NODES = 200_000
MAX_DEPTH = 50

# Inputs, by position, that are floats and no weights, which training is not to change: statistics, scales, bounds.
_NO_WEIGHTS: Mapping[str, tuple[int, ...]] = {
    "BatchNormalization": (3, 4), "Clip": (1, 2), "DequantizeLinear": (1,), "Pad": (2,), "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6), "QuantizeLinear": (1,), "Range": (0, 1, 2), "Resize": (1, 2), "Upsample": (1,),
}  # fmt: skip


class Constant:
    """A tensor that the file holds.

    Args:
        name: in the file. tensor: its values.
    """

    def __init__(self, name: str, tensor: Tensor) -> None:
        self.name, self.tensor = name, tensor
        self._weight: nn.Parameter | None = None

    def used(self, as_weight: bool) -> Tensor:
        """Return it for one use: the one parameter that all its users share if it is a weight.

        That are floats with an axis, all of them finite: a number alone is part of a formula, and infinities are masks.
        """
        if as_weight and self._weight is None and self.tensor.dim() and self.tensor.dtype in _FLOATS:
            extremes = torch.stack(self.tensor.float().aminmax()) if self.tensor.numel() else torch.zeros(2)
            if bool(extremes.isfinite().all()):
                self._weight = nn.Parameter(self.tensor)
        return self._weight if as_weight and self._weight is not None else self.tensor


_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass
class Scope:
    """What nodes see: of a graph, of a function, or of a subgraph within one of them.

    Args:
        versions: of the opsets, by domain. where: which graph it is, for messages; empty for that of the file.
        attributes: of the call of a function, to which its nodes refer. outer: the scope around a subgraph.
        constants: tensors of the file by their names here. values: names of what is computed here or given.
        depth: how many scopes there are around. calls: the functions among them, by domain and name.
    """

    versions: Mapping[str, int]
    where: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outer: Scope | None = None
    constants: dict[str, Constant] = field(default_factory=dict)
    values: set[str] = field(default_factory=set)
    depth: int = 0
    calls: Set[tuple[str, str]] = frozenset()

    def constant(self, name: str) -> Constant | None:
        """Return the constant of a name here or around; None of what is computed, and of what nobody knows."""
        if name in self.constants:
            return self.constants[name]
        return None if name in self.values or self.outer is None else self.outer.constant(name)

    def knows(self, name: str) -> bool:
        """Whether a name stands for something, here or around."""
        return name in self.values or name in self.constants or (self.outer is not None and self.outer.knows(name))


class Builder:
    """Makes modules of the graphs of one file.

    Args:
        path: of the file, for messages. tensors: what reads its tensors.
        functions: of the file, by domain and name.
    """

    def __init__(self, path: str, tensors: Tensors, functions: Mapping[tuple[str, str], Any]) -> None:
        self.path = path
        self._tensors = tensors
        self._functions = functions
        self._nodes = 0

    def fill(self, body: Body, nodes: Iterable[Any], scope: Scope, outputs: Sequence[str]) -> None:
        """Make the modules of the nodes of a graph, whose inputs and initialisers are in its scope.

        Args:
            body: that they become part of. outputs: names of what the graph returns.
        Raises:
            InputError: names that are not defined, or twice; nodes in a circle; too many of them.
        """
        if scope.depth > MAX_DEPTH:
            self._refuse(f"{scope.where}: lies in {scope.depth} others", f"at most {MAX_DEPTH}", "simplify it")
        ordered = self._in_order(list(nodes), scope)
        steps = []
        for number, proto in ordered:
            self._nodes += 1
            if self._nodes > MAX_NODES:
                self._refuse("too many nodes, functions expanded", f"at most {MAX_NODES:,}", "take a smaller network")
            name = proto.name or f"{proto.op_type}_{number}"
            steps += self._step(body, proto, name, scope, self.place(number, proto, scope))
        for name in outputs:
            constant = scope.constant(name)
            if constant is not None and name not in body._inputs:
                body.hold(name, constant.tensor)
        body.run_in_order(steps)

    def place(self, number: int, proto: Any, scope: Scope) -> str:
        """Say which node it is: node 12 /conv1/Conv (Conv)."""
        named = f" {proto.name}" if proto.name else ""
        return f"{scope.where}{', ' if scope.where else ''}node {number}{named} ({proto.op_type})"

    def add_initialisers(self, protos: Iterable[Any], scope: Scope) -> None:
        """Read the tensors of a graph into its scope."""
        for proto in protos:
            if not proto.name or proto.name in scope.constants:
                self._refuse(f"initialiser {proto.name!r}: there are two of this name", "one", "rename them")
            scope.constants[proto.name] = Constant(proto.name, self._tensors.read(proto, f"initialiser {proto.name}"))

    def _refuse(self, found: str, expected: str, remedy: str) -> Any:
        raise InputError(f"{self.path}: {found}; expected {expected}; {remedy}")

    # --- order and names ----------------------------------------------------------------------------------------------

    def _in_order(self, nodes: list[Any], scope: Scope) -> list[tuple[int, Any]]:
        """Return the nodes with their numbers, each behind those that it reads and else as in the file."""
        makers: dict[str, int] = {}
        for i, node in enumerate(nodes):
            for name in filter(None, node.output):
                if name in makers or name in scope.values or name in scope.constants:
                    self._refuse(
                        f"{self.place(i, node, scope)}: its output {name} is defined already", "new names", "rename it"
                    )
                makers[name] = i
        readers: list[list[int]] = [[] for _ in nodes]
        waiting = [0] * len(nodes)
        for i, node in enumerate(nodes):
            for name in dict.fromkeys((*filter(None, node.input), *_seen_around(node))):
                if name in makers:
                    readers[makers[name]].append(i)
                    waiting[i] += 1
                elif not scope.knows(name):
                    self._refuse(
                        f"{self.place(i, node, scope)}: reads {name}, which nothing defines",
                        "an input, an initialiser or an output of another node",
                        "export the network anew",
                    )
        ready = [i for i, count in enumerate(waiting) if not count]
        ordered = []
        while ready:
            i = heapq.heappop(ready)
            ordered.append((i, nodes[i]))
            for reader in readers[i]:
                waiting[reader] -= 1
                if not waiting[reader]:
                    heapq.heappush(ready, reader)
        if len(ordered) < len(nodes):
            first = next(i for i, count in enumerate(waiting) if count)
            self._refuse(
                f"{self.place(first, nodes[first], scope)}: waits for its own output; "
                f"{len(nodes) - len(ordered)} nodes are in a circle or behind one",
                "a graph without",
                "export the network anew",
            )
        scope.values.update(makers)
        return ordered

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _step(self, body: Body, proto: Any, module_name: str, scope: Scope, place: str) -> list[Step]:
        """Return the step of a node; none for one that only gives a constant a name."""
        self._check(proto, scope, place)
        attributes = self._attributes(proto, scope, place)
        domain, version = self._domain(proto, scope)
        ours = (domain, proto.op_type) not in self._functions
        function = find(domain, proto.op_type, version) if ours else None
        if function is None:
            return [self._call(body, proto, module_name, attributes, scope, place)]
        graphs = {name: value.g for name, value in attributes.items() if value.type == _GRAPH}
        others = {
            name: self._decoded(value, f"{place}: attribute {name}")
            for name, value in attributes.items()
            if name not in graphs
        }
        node = Node(proto.op_type, domain, version, others, tuple(proto.output), place)
        constant = self._constant(node, function, proto, scope)
        if constant is not None:
            scope.values.discard(proto.output[0])
            scope.constants[proto.output[0]] = constant
            return []
        try:
            inspect.signature(function).bind(node, *proto.input)
        except TypeError as error:
            self._refuse(f"{place}: has {len(proto.input)} inputs ({error})", "those of its operator", "correct it")
        operation = Operation(node, function, self.path)
        no_weights = _NO_WEIGHTS.get(proto.op_type, ())
        constants = [scope.constant(name) if name else None for name in proto.input]
        inputs = ["" if constant else name for name, constant in zip(proto.input, constants, strict=True)]
        operation.set_inputs(
            [(one.name, one.used(i not in no_weights)) if one else None for i, one in enumerate(constants)]
        )
        add_module(body, module_name, operation)
        for name, graph in graphs.items():
            inner = Scope(
                scope.versions, f"{place}, {name}", scope.attributes, scope, depth=scope.depth + 1, calls=scope.calls
            )
            around = [x for x in dict.fromkeys(_seen(graph)) if scope.constant(x) is None]
            child = self._subgraph(graph, inner, around)
            operation.add_subgraph(name, child, len(around))
            inputs += around
        return [Step(operation, tuple(inputs), tuple(proto.output) or ("",))]

    def _check(self, proto: Any, scope: Scope, place: str) -> None:
        """Refuse numbers of inputs, and attributes, that are none of the operator's, as ONNX itself knows them."""
        if any(one.type == _GRAPH for one in proto.attribute):
            return  # the library checks a subgraph too, without what is around it
        context = onnx.checker.C.CheckerContext()
        context.ir_version = onnx.IR_VERSION
        context.opset_imports = dict(scope.versions)
        try:
            onnx.checker.check_node(proto, context)
        except onnx.checker.ValidationError as error:
            self._refuse(f"{place}: {first_line(error)}", "a node as its operator wants it", "export the network anew")

    def _constant(self, node: Node, function: Operator, proto: Any, scope: Scope) -> Constant | None:
        """Return the constant that a node only gives a name; None of a node that computes something."""
        if node.domain or not node.outputs:
            return None
        if node.op == "Identity" and proto.input:
            return scope.constant(proto.input[0])
        if node.op != "Constant":
            return None
        try:
            return Constant(node.outputs[0], function(node))
        except Declined as declined:
            return self._refuse(f"{node.where}: {declined}", "a dense tensor of numbers", "export it without")

    def _subgraph(self, graph: Any, scope: Scope, around: Sequence[str]) -> Body:
        self.add_initialisers(graph.initializer, scope)
        inputs = [value.name for value in graph.input]
        outputs = [value.name for value in graph.output]
        scope.values.update(inputs)
        child = Body((*inputs, *around), outputs)
        self.fill(child, graph.node, scope, outputs)
        self.check_outputs(outputs, scope)
        return child

    def check_outputs(self, outputs: Iterable[str], scope: Scope) -> None:
        """Refuse outputs of a graph that nothing in it or around it defines."""
        for name in outputs:
            if not scope.knows(name):
                where = f"{scope.where}: " if scope.where else ""
                self._refuse(
                    f"{where}output {name!r}, which nothing defines", "outputs of its nodes", "export the network anew"
                )

    def _call(
        self, body: Body, proto: Any, module_name: str, attributes: Mapping[str, Any], scope: Scope, place: str
    ) -> Step:
        """Expand a node whose operator is a function, of the file or of ONNX."""
        domain, version = self._domain(proto, scope)
        key = domain, proto.op_type
        if key in scope.calls:
            self._refuse(f"{place}: a function that calls itself", "one that ends", "export the network without it")
        function = self._functions.get(key) or schema_function(*key, version)
        if len(proto.input) > len(function.input) or len(proto.output) > len(function.output):
            self._refuse(
                f"{place}: has {len(proto.input)} inputs and {len(proto.output)} outputs",
                f"at most the {len(function.input)} and {len(function.output)} of the function",
                "correct the call",
            )
        given = {one.name: one for one in function.attribute_proto}
        given.update(attributes)
        versions = {**scope.versions, **opset_versions(self.path, function.opset_import)}
        inner = Scope(versions, place, given, depth=scope.depth + 1, calls={*scope.calls, key})
        inputs = []
        for i, name in enumerate(function.input):
            outer = proto.input[i] if i < len(proto.input) else ""
            constant = scope.constant(outer) if outer else None
            if constant is not None:
                inner.constants[name] = constant
            else:
                inner.values.add(name)
            inputs.append("" if constant is not None else outer)
        child = Body(function.input, function.output[: max(1, len(proto.output))])
        add_module(body, module_name, child)
        self.fill(child, function.node, inner, child._outputs)
        self.check_outputs(child._outputs, inner)
        return Step(child, tuple(inputs), tuple(proto.output) or ("",))

    @staticmethod
    def _domain(proto: Any, scope: Scope) -> tuple[str, int]:
        domain = plain_domain(proto.domain)
        return domain, scope.versions.get(domain, 0)

    # --- attributes ---------------------------------------------------------------------------------------------------

    def _attributes(self, proto: Any, scope: Scope, place: str) -> dict[str, Any]:
        """Return the attributes of a node, those of the function's call where it refers to them."""
        found: dict[str, Any] = {}
        for one in proto.attribute:
            if one.name in found:
                self._refuse(f"{place}: two attributes {one.name}", "one", "export the network anew")
            if not one.ref_attr_name:
                found[one.name] = one
            elif one.ref_attr_name in scope.attributes:
                found[one.name] = scope.attributes[one.ref_attr_name]
        return found

    def _decoded(self, one: Any, place: str) -> Any:
        """Return the value of an attribute."""
        kinds = onnx.AttributeProto
        plain = {kinds.FLOAT: "f", kinds.INT: "i"}
        lists = {kinds.FLOATS: "floats", kinds.INTS: "ints"}
        if one.type in plain:
            return getattr(one, plain[one.type])
        if one.type in lists:
            return list(getattr(one, lists[one.type]))
        if one.type == kinds.STRING:
            return one.s.decode("utf-8", "replace")
        if one.type == kinds.STRINGS:
            return [text.decode("utf-8", "replace") for text in one.strings]
        if one.type == kinds.TENSOR:
            return self._tensors.read(one.t, place)
        if one.type == kinds.TENSORS:
            return [self._tensors.read(tensor, place) for tensor in one.tensors]
        if one.type in (kinds.TYPE_PROTO, kinds.TYPE_PROTOS):
            return None  # of values that are not there
        kind = kinds.AttributeType.Name(one.type) if one.type in kinds.AttributeType.values() else one.type
        return self._refuse(
            f"{place}: of the kind {kind}", "numbers, text, tensors or one graph", "export the network without it"
        )


_GRAPH = onnx.AttributeProto.GRAPH


def plain_domain(domain: str) -> str:
    """Return the name of a domain; ONNX's own has two."""
    return "" if domain == "ai.onnx" else domain


def opset_versions(path: str, imports: Iterable[Any]) -> dict[str, int]:
    """Return the version of each opset that a file, or a function in it, imports.

    Raises:
        InputError: ONNX's own is one that is not supported.
    """
    versions = {plain_domain(one.domain): one.version for one in imports}
    for domain, version in versions.items():
        if not 0 < version < 1 << 31:
            raise InputError(
                f"{path}: imports version {version} of the opset {domain or 'ai.onnx'}; expected a positive number; "
                "export the network anew"
            )
    newest = onnx.defs.onnx_opset_version()
    if "" in versions and not OLDEST_OPSET <= versions[""] <= newest:
        remedy = (
            f"convert it with onnx.version_converter.convert_version(onnx.load(path), {OLDEST_OPSET + 2})"
            if versions[""] < OLDEST_OPSET
            else "install a newer onnx, or export the network for an older opset"
        )
        raise InputError(f"{path}: of opset {versions['']}; expected {OLDEST_OPSET} to {newest}; {remedy}")
    return versions


OLDEST_OPSET = 11


def schema_function(domain: str, op: str, version: int) -> Any:
    """Return the function by which ONNX itself defines an operator, a FunctionProto; None if it does not."""
    try:
        schema: Any = onnx.defs.get_schema(op, version, domain)
    except onnx.defs.SchemaError:
        return None
    since = max((one for one in schema.function_opset_versions if one <= version), default=None)
    if since is None:
        return None
    function = onnx.FunctionProto()
    function.ParseFromString(schema.get_function_with_opset_version(since))
    return function


def unsupported(
    nodes: Iterable[Any], versions: Mapping[str, int], functions: Mapping[tuple[str, str], Any]
) -> Counter[str]:
    """Count the nodes whose operators are neither ours nor functions of such, those of each function once."""
    counts: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    waiting = [(node, versions) for node in nodes]
    while waiting:
        node, opsets = waiting.pop()
        key = plain_domain(node.domain), node.op_type
        waiting += [(inner, opsets) for one in node.attribute if one.type == _GRAPH for inner in one.g.node]
        function = functions.get(key)
        if function is None:
            if find(*key, opsets.get(key[0], 0)) is not None:
                continue
            function = schema_function(*key, opsets.get(key[0], 0))
        if function is None:
            counts[".".join(filter(None, key))] += 1
        elif key not in seen:
            seen.add(key)
            inner_versions = {plain_domain(one.domain): one.version for one in function.opset_import}
            waiting += [(inner, {**opsets, **inner_versions}) for inner in function.node]
    return counts


def _seen_around(node: Any) -> Iterable[str]:
    """Yield the names that the subgraphs of a node see around them."""
    for one in node.attribute:
        if one.type == _GRAPH:
            yield from _seen(one.g)


def _seen(graph: Any) -> Iterable[str]:
    """Yield the names that a subgraph reads and does not define."""
    own = {value.name for value in (*graph.input, *graph.initializer)}
    own.update(name for node in graph.node for name in node.output)
    for node in graph.node:
        yield from (name for name in (*filter(None, node.input), *_seen_around(node)) if name not in own)
    yield from (value.name for value in graph.output if value.name not in own)
