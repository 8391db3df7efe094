"""From the nodes of an ONNX file to modules: names resolved, weights given to their users, functions expanded."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import onnx
from torch import Tensor

from simulator.errors import InputError, first_line

from .model_scales import ModelScales
from .onnx_biases import with_biases
from .onnx_functions import Functions, opset_versions, plain_domain
from .onnx_graph import Body, Operation, Step, add_module
from .onnx_operators.registry import Declined, Node, Operator
from .onnx_scales import operand_scales, output_scales
from .onnx_scope import GRAPH, Constant, Scope, in_order, seen
from .onnx_tensors import Tensors

# Inputs, by position, that are floats and no weights, which training is not to change: statistics, scales, bounds.
_NO_WEIGHTS: Mapping[str, tuple[int, ...]] = {
    "BatchNormalization": (3, 4), "Clip": (1, 2), "DequantizeLinear": (1,), "Pad": (2,), "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6), "QuantizeLinear": (1,), "Range": (0, 1, 2), "Resize": (1, 2), "Upsample": (1,),
}  # fmt: skip
# Of constants these make one, as float32 has it, when the file is read, not whenever the network runs: numbers of a
# formula, and weights that a quantised file has as integers.
_MAKE_CONSTANTS = frozenset({"Add", "Cast", "DequantizeLinear", "Div", "Mul", "Neg", "Reciprocal", "Sqrt", "Sub"})


class Builder:
    """Makes modules of the graphs of one file.

    Args:
        path: of the file, for messages. tensors: what reads its tensors.
        functions: by which operators are defined.
    """

    def __init__(self, path: str, tensors: Tensors, functions: Functions) -> None:
        self.path = path
        self._tensors = tensors
        self._functions = functions

    def fill(self, body: Body, nodes: Iterable[Any], scope: Scope, outputs: Sequence[str]) -> None:
        """Make the modules of the nodes of a graph, whose inputs and initialisers are in its scope.

        Args:
            body: that they become part of. outputs: names of what the graph returns.
        Raises:
            InputError: names that are not defined, or twice; nodes in a circle, or that are none of their operators.
        """
        ordered = in_order(self.path, list(nodes), scope)
        for number, proto in ordered:
            self._check(proto, scope, scope.place(number, proto))
        computed = [one for one in ordered if not self._makes_constant(*one, scope)]
        joined = with_biases(computed, scope, outputs, self._formulas(computed, scope))
        steps = [self._step(body, *one, scope) for one in joined]
        for name in outputs:
            constant = scope.constant(name)
            if constant is not None and name not in body._inputs:
                body.hold(name, constant.tensor)
        body.run_in_order(steps)

    def add_initialisers(self, protos: Iterable[Any], scope: Scope) -> None:
        """Read the tensors of a graph into its scope."""
        for proto in protos:
            if not proto.name or proto.name in scope.constants:
                self._refuse(f"initialiser {proto.name!r}: there are two of this name", "one", "rename them")
            scope.constants[proto.name] = Constant(proto.name, self._tensors.read(proto, f"initialiser {proto.name}"))

    def _refuse(self, found: str, expected: str, remedy: str) -> Any:
        raise InputError(f"{self.path}: {found}; expected {expected}; {remedy}")

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _step(self, body: Body, number: int, proto: Any, scope: Scope) -> Step:
        """Return the step of a node, whose module it adds to the body."""
        name, place = proto.name or f"{proto.op_type}_{number}", scope.place(number, proto)
        attributes = self._attributes(proto, scope, place)
        function = self._functions.operator(proto, scope.versions)
        if function is None:
            return self._call(body, proto, name, attributes, scope, place)
        try:
            inspect.signature(function).bind(None, *proto.input)
        except TypeError as error:
            self._refuse(f"{place}: has {len(proto.input)} inputs ({error})", "those of its operator", "correct it")
        node = self._node(proto, attributes, scope, place)
        operation = Operation(node, function, self.path)
        inputs = self._give_inputs(operation, proto, scope)
        _follow_scales(operation, node, proto, scope)
        add_module(body, name, operation)
        graphs = {name: value.g for name, value in attributes.items() if value.type == GRAPH}
        around = [x for one in graphs.items() for x in self._add_subgraph(operation, *one, scope, place)]
        return Step(operation, (*inputs, *around), tuple(proto.output))

    def _node(self, proto: Any, attributes: Mapping[str, Any], scope: Scope, place: str) -> Node:
        """Return what an operator knows of a node, without its subgraphs."""
        domain = plain_domain(proto.domain)
        plain = {
            name: self._decoded(value, f"{place}: attribute {name}")
            for name, value in attributes.items()
            if value.type != GRAPH
        }
        return Node(proto.op_type, domain, scope.versions.get(domain, 0), plain, tuple(proto.output), place)

    def _give_inputs(self, operation: Operation, proto: Any, scope: Scope) -> list[str]:
        """Give a module the constants among its node's inputs, and return the names of the others, "" for constants."""
        constants = [scope.constant(name) if name else None for name in proto.input]
        no_weights = _NO_WEIGHTS.get(proto.op_type, ())
        operation.set_inputs(
            [(one.name, one.used(i not in no_weights)) if one else None for i, one in enumerate(constants)]
        )
        return ["" if constant else name for name, constant in zip(proto.input, constants, strict=True)]

    def _add_subgraph(self, operation: Operation, name: str, graph: Any, scope: Scope, place: str) -> list[str]:
        """Add a subgraph of a node to its module, and return the names of what it sees around it."""
        inner = Scope(scope.versions, f"{place}, {name}", scope.attributes, scope)
        around = [x for x in dict.fromkeys(seen(graph)) if scope.constant(x) is None]
        self.add_initialisers(graph.initializer, inner)
        inputs = [value.name for value in graph.input]
        outputs = [value.name for value in graph.output]
        inner.values.update(inputs)
        child = Body((*inputs, *around), outputs)
        self.fill(child, graph.node, inner, outputs)
        self.check_outputs(outputs, inner)
        operation.add_subgraph(name, child, len(around))
        return around

    def _check(self, proto: Any, scope: Scope, place: str) -> None:
        """Refuse numbers of inputs, and attributes, that are none of the operator's, as ONNX itself knows them."""
        if any(one.type == GRAPH for one in proto.attribute):
            return  # the library checks a subgraph too, without what is around it
        context = onnx.checker.C.CheckerContext()
        context.ir_version = onnx.IR_VERSION
        context.opset_imports = dict(scope.versions)
        try:
            onnx.checker.check_node(proto, context)
        except Exception as error:  # ValidationError, or what arises in the library's own reading of a damaged node
            self._refuse(f"{place}: {first_line(error)}", "a node as its operator wants it", "export the network anew")

    def _makes_constant(self, number: int, proto: Any, scope: Scope) -> bool:
        """Whether a node is a constant, or makes one of others, which its scope knows by name from then on."""
        function = self._functions.operator(proto, scope.versions)
        if function is None or plain_domain(proto.domain) or not proto.output:
            return False
        constant, place = None, scope.place(number, proto)
        given = [scope.constant(name) for name in proto.input]
        if proto.op_type == "Identity" and given:
            constant = given[0]
        elif proto.op_type == "Constant":
            node = self._node(proto, self._attributes(proto, scope, place), scope, place)
            try:
                constant = Constant(proto.output[0], function(node))
            except Declined as declined:
                self._refuse(f"{place}: {first_line(declined)}", "a dense tensor of numbers", "export it without")
        elif proto.op_type in _MAKE_CONSTANTS and given and all(given):
            constant = self._made(proto, function, [one.tensor for one in given if one], scope, place)
        if constant is None:
            return False
        scope.values.discard(proto.output[0])
        scope.constants[proto.output[0]] = constant
        return True

    def _made(self, proto: Any, function: Operator, tensors: list[Tensor], scope: Scope, place: str) -> Constant | None:
        """Return the constant that a node makes of others; None of weights, which training may change, and of what the
        node cannot take, which is said when the network runs.
        """
        dequantises = proto.op_type == "DequantizeLinear"
        if not dequantises and any(x.numel() > 1 or (x.dim() and x.is_floating_point()) for x in tensors):
            return None
        node = self._node(proto, self._attributes(proto, scope, place), scope, place)
        try:
            made = function(node, *tensors)
        except Exception:  # of operands that do not fit each other
            return None
        if dequantises:
            _note_scales(node, proto, scope)
        return Constant(proto.output[0], made, is_weight=not dequantises)

    def _formulas(self, nodes: Iterable[tuple[int, Any]], scope: Scope) -> dict[str, Tensor]:
        """Return what nodes compute of weights alone, by name, without values: these are what training makes them."""
        found: dict[str, Tensor] = {}
        for number, proto in nodes:
            function = self._functions.operator(proto, scope.versions)
            if function is None or plain_domain(proto.domain) or proto.op_type not in _MAKE_CONSTANTS:
                continue
            constants = [scope.constant(name) for name in proto.input]
            given = [
                found.get(name) if one is None else one.tensor.to("meta")
                for name, one in zip(proto.input, constants, strict=True)
            ]
            if any(x is None for x in given):
                continue
            node = self._node(proto, self._attributes(proto, scope, scope.place(number, proto)), scope, "")
            with suppress(Exception):  # of operands that do not fit each other, or are not there
                found[proto.output[0]] = function(node, *given)
        return found

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
        function = self._functions.function(proto, scope.versions, outermost=not scope.where)
        if function is None:  # which depends on versions that differ from call to call
            self._refuse(f"{place}: is not supported in its opset here", "another one", "export the network without it")
        if len(proto.input) > len(function.input) or len(proto.output) > len(function.output):
            self._refuse(
                f"{place}: has {len(proto.input)} inputs and {len(proto.output)} outputs",
                f"at most the {len(function.input)} and {len(function.output)} of the function",
                "correct the call",
            )
        given = {one.name: one for one in function.attribute_proto}
        given.update(attributes)
        versions = {**scope.versions, **opset_versions(self.path, function.opset_import)}
        inner = Scope(versions, place, given)
        inputs = []
        for i, name in enumerate(function.input):
            outer = proto.input[i] if i < len(proto.input) else ""
            constant = scope.constant(outer) if outer else None
            if constant is not None:
                inner.constants[name] = constant
            else:
                inner.values.add(name)
            inputs.append("" if constant is not None else outer)
        # What the call leaves out the body need not define.
        child = Body(function.input, [own for own, asked in zip(function.output, proto.output, strict=False) if asked])
        add_module(body, module_name, child)
        self.fill(child, function.node, inner, child._outputs)
        self.check_outputs(child._outputs, inner)
        return Step(child, tuple(inputs), tuple(filter(None, proto.output)))

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
                if found[one.name].type == GRAPH:  # which may refer to itself, and nobody could say how large it is
                    self._refuse(
                        f"{place}: runs a graph that the call of a function gives it",
                        "graphs in the nodes that run them",
                        "export the network without functions",
                    )
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


def _follow_scales(operation: Operation, node: Node, proto: Any, scope: Scope) -> None:
    """Give a module the scales of its operands, and a scope those of its output."""
    operation.operand_scales = operand_scales(node, *_scales_and_constants(proto, scope))
    _note_scales(node, proto, scope)


def _note_scales(node: Node, proto: Any, scope: Scope) -> None:
    """Give a scope the scales of a node's output, if it has any."""
    made = output_scales(node, *_scales_and_constants(proto, scope))
    if made is not None:
        scope.scales[proto.output[0]] = made


def _scales_and_constants(proto: Any, scope: Scope) -> tuple[list[ModelScales | None], list[Tensor | None]]:
    """Return of each input of a node the scales, and what the file holds of it."""
    constants = [scope.constant(name) if name else None for name in proto.input]
    return [scope.scales_of(name) for name in proto.input], [one.tensor if one else None for one in constants]
