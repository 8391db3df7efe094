"""The graph of a forward pass: the operations that depend on its inputs, as the tap sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from formats import Use
from simulator.errors import InputError
from simulator.network import vector
from simulator.network.batches import Batch
from simulator.network.fit import refused_failures
from simulator.network.outputs import output_of
from simulator.network.tap import Ran, Tap

from .refused import without_rule

# An operation of this graph alone, which rounds a value into the format of a vector unit.
ROUND = "round to format"
# Behind the names of operations whose operands and results are all integers or decisions, and of those that move values
# from places which are values of the graph themselves.
OF_INTEGERS, AT_VALUES = " of integers", " at values"
MOST_WHOLE = 2**24  # up to which integers are values of float32
# What gives numbers or decisions instead of values, which no graph shows.
_ASKS = frozenset({"_local_scalar_dense", "equal"})
# The same of which torch's dispatcher knows nothing.
_LEAVES = (Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.data_ptr, Tensor.data.__get__)  # type: ignore[attr-defined]
# What takes no more of its operand than its shape and type.
_LIKE = frozenset({"new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like"})
_PLACES = frozenset({"index", "index_select", "gather"})
_HALF = (torch.float16, torch.bfloat16)
# What only picks among its operands: of values of a format it gives values of this format.
_PICKS = frozenset({"relu", "abs", "neg", "maximum", "minimum", "max_pool2d_with_indices"})


class Ref(NamedTuple):
    """A value of the graph, by number; what an operation reads besides is constant."""

    number: int


@dataclass(frozen=True)
class Node:
    """An operation.

    Args:
        kind: its name in aten, without overload and without _ behind it. func: what torch's dispatcher calls.
        args, kwargs: with a Ref for each value of the graph. outputs: numbers of its tensors; None for what is none.
        shapes: of these. path: of the module that it belongs to. layer: name of the product, if it is one, and
            terms, how many products each of its sums has.
        use: format in which a vector unit reads its constants, or to which a ROUND rounds; None as torch has them.
        known: result of an operation on integers, in the pass that was recorded.
    """

    kind: str
    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[int | None, ...]
    shapes: tuple[torch.Size, ...]
    path: str
    layer: str = ""
    terms: int = 0
    use: Use | None = None
    known: Tensor | None = None

    @property
    def inputs(self) -> tuple[int, ...]:
        """Numbers of the values that it reads, in the order in which it does."""
        return tuple(leaf.number for leaf in _leaves((self.args, self.kwargs)) if isinstance(leaf, Ref))


@dataclass(frozen=True)
class Graph:
    """A forward pass: values with these numbers are its inputs and its output, the nodes are in the order in which they
    run, in some of these modules.
    """

    inputs: tuple[int, ...]
    nodes: tuple[Node, ...]
    output: int
    modules: Mapping[str, nn.Module]


def record(model: nn.Module, *args: Tensor, **kwargs: Tensor) -> Graph:
    """Return the graph of a model's forward pass on a batch.

    Args:
        args, kwargs: of the pass. Those with samples along a first axis are the inputs of the graph, in this order;
            those without axes are constants.
    Raises:
        InputError: what depends on its inputs in a way that no graph shows, such as writing into a part of a tensor;
            a constant that is computed of others, with roundings that no value of the graph has.
    """
    own = Batch(args, kwargs).copy()  # that the pass may write to, while the bounds begin with what was given
    recorder = _Recorder(dict(model.named_modules()))
    numbers = tuple(recorder.new(x) for x in own.inputs.values() if x.dim())
    with (
        refused_failures("bounds", model, args, kwargs), torch.no_grad(),
        Tap(model, lambda op: None, recorder.note), _Kept(recorder),
    ):  # fmt: skip
        y = output_of(model(*own.args, **own.kwargs))
    recorder.check_constants()
    found = recorder.of(y)
    if found is None:
        raise InputError(
            "bounds: the output does not depend on the inputs; expected a network that computes it of them; correct it"
        )
    return Graph(numbers, tuple(recorder.nodes), found, recorder.modules)


def with_roundings(graph: Graph, shapes: Sequence[torch.Size], held: Callable[[str], Use | None]) -> Graph:
    """Return a graph in which the vector unit's roundings of operands and results are operations of their own.

    Args:
        shapes: of the inputs. held: format in which the unit holds values in a module, by its path; None as torch has
            them.
    """
    if all(held(node.path) is None for node in graph.nodes):
        return graph
    nodes: list[Node] = []
    known: dict[int, Use] = {}  # values of a format

    def rounded(number: int, into: int, shape: torch.Size, path: str, use: Use) -> None:
        nodes.append(Node(ROUND, None, (Ref(number),), {}, (into,), (shape,), path, use=use))
        known[into] = use

    shape_of = dict(zip(graph.inputs, shapes, strict=True))
    for node in graph.nodes:
        shape_of.update((n, of) for n, of in zip(node.outputs, node.shapes, strict=True) if n is not None)
    new = count(max(shape_of) + 1).__next__
    for node in graph.nodes:
        use = held(node.path)
        if use is None or not vector.covers(node.func) or node.known is not None:
            nodes.append(node)
            if vector.computes_nothing(node.func) and node.inputs[0] in known and len(set(node.inputs)) == 1:
                known.update((n, known[node.inputs[0]]) for n in node.outputs if n is not None)
            continue
        read = {number: number for number in node.inputs}
        for number in read:
            if known.get(number) != use:
                read[number] = new()
                rounded(number, read[number], shape_of[number], node.path, use)
        args, kwargs = tree_map(
            lambda leaf, read=read: Ref(read[leaf.number]) if isinstance(leaf, Ref) else leaf,
            (node.args, dict(node.kwargs)), is_leaf=lambda leaf: isinstance(leaf, Ref),
        )  # fmt: skip
        picks = node.kind in _PICKS and all(isinstance(arg, Ref) for arg in node.args if isinstance(arg, Ref | Tensor))
        results = node.outputs if picks else tuple(None if n is None else new() for n in node.outputs)
        nodes.append(replace(node, args=args, kwargs=kwargs, outputs=results, use=use))
        for result, out in zip(results, node.outputs, strict=True):
            if result is not None and out is not None and result != out:
                rounded(result, out, shape_of[out], node.path, use)
            elif out is not None:
                known[out] = use
    return replace(graph, nodes=tuple(nodes))


class _Kept(TorchFunctionMode):
    """Refuses what takes values out of a graph without an operation that a dispatcher sees."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in _LEAVES and isinstance(args[0], Tensor) and self._recorder.of(args[0]) is not None:
            name = getattr(func, "__name__", "data").replace("__get__", "data")
            raise InputError(
                f"bounds: values leave the network by {name}, where no bound follows them; expected operations on "
                "tensors alone; write it so"
            )
        return func(*args, **(kwargs or {}))


class _Recorder:
    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.modules = modules  # by path
        self.nodes: list[Node] = []
        self._numbers: dict[int, int] = {}
        self._kept: list[Tensor] = []  # so that no other tensor has its address
        self._next = 0
        self._made: dict[int, str] = {}  # by memory, what rounded constants to make the constant in it
        self._made_kept: list[Tensor] = []  # likewise
        self._constants: list[tuple[Tensor, int, str]] = []  # with their states and by what module they were read

    def new(self, tensor: Tensor) -> int:
        self._numbers[id(tensor)] = self._next
        self._kept.append(tensor)
        self._next += 1
        return self._next - 1

    def of(self, tensor: Tensor) -> int | None:
        return self._numbers.get(id(tensor))

    def check_constants(self) -> None:
        """Refuse constants that were written to after an operation had read them, as what the graph holds is the last
        state of them.
        """
        for constant, version, path in self._constants:
            if constant._version != version:
                raise InputError(
                    f"bounds: {path}: reads a constant that the network writes to later; expected constants that stay "
                    "as they are; make another one of it"
                )

    def note(self, ran: Ran) -> None:
        name = str(ran.func.overloadpacket.__name__) if isinstance(ran.func, torch._ops.OpOverload) else str(ran.func)
        results, read = tree_leaves(ran.result), [x for x in _leaves((ran.args, ran.kwargs)) if isinstance(x, Tensor)]
        made = next((self._made[_memory(x)] for x in read if _memory(x) in self._made), None)
        if not any(id(x) in self._numbers for x in read):
            if made is None and _rounds(ran, name, read):
                made = f"{ran.path}: {name}"
            if made is not None:
                self._note_made(made, [x for x in results if isinstance(x, Tensor)] or read)
            return
        if made is not None and (refusal := without_rule(ran.path, self.modules)):
            raise InputError(refusal)
        if made is not None:
            raise InputError(
                f"bounds: {made} makes a constant out of others, and rounds: no rule; expected weights that are read "
                "as they are; store its result as a parameter, as torch.nn.utils.parametrize.remove_parametrizations "
                "does"
            )
        if name in _ASKS:
            raise InputError(
                f"bounds: {ran.path}: a number or a decision is taken from values ({name}), as by item() or by if; "
                "expected operations on tensors alone; write it so"
            )
        if name in _LIKE or not any(isinstance(x, Tensor) for x in results):
            return  # a constant, or a question about shapes or types
        if any(isinstance(x, Tensor) and x.is_floating_point() for x in results) and any(map(is_beyond, read)):
            raise InputError(
                f"bounds: {ran.path}: {name} reads integers beyond {MOST_WHOLE} as floats: no rule; expected up to "
                "that; leave them out of the model"
            )
        if name == "view" and results[0].dtype != ran.args[0].dtype:
            raise InputError(
                f"bounds: {ran.path}: view reads the bits of values as another type: no rule; expected a conversion; "
                "write to(dtype)"
            )
        if any(isinstance(x, Tensor) and x.dtype in _HALF for x in results) and (
            ran.ops or vector.covers(ran.func) or _mixes(ran, name, read)
        ):
            raise InputError(
                f"bounds: {ran.path}: {name} computes in half precision: no rule; expected float32; leave the "
                "conversion out of the model"
            )
        constants = [x for x in read if id(x) not in self._numbers and not x.is_inference()]
        self._constants += [(x, x._version, ran.path) for x in constants]
        single = any(isinstance(x, Tensor) and x.dtype == torch.float32 for x in results)

        def as_read(x: Any) -> Any:
            """A float64 without axes, which torch reads as a number in the code where it computes in float32."""
            is_number = single and isinstance(x, Tensor) and x.dtype == torch.float64 and not x.dim()
            return float(x) if is_number and id(x) not in self._numbers else self._ref(x)

        args, kwargs = tree_map(as_read, (ran.args, dict(ran.kwargs)))
        written = isinstance(ran.func, torch._ops.OpOverload) and ran.func._schema.is_mutable
        if written and name != "native_batch_norm" and not (name.endswith("_") and self._is_own(ran.args[0])):
            raise InputError(
                f"bounds: {ran.path}: {name} writes into a part of a tensor; expected operations that return their "
                "result; write it so"
            )
        outputs = tuple(self.new(x) if isinstance(x, Tensor) else None for x in results)
        shapes = tuple(x.shape if isinstance(x, Tensor) else torch.Size() for x in results)
        layer, terms = (ran.ops[0].name, ran.ops[0].k) if ran.ops else ("", 0)
        kind = name.removesuffix("_") + self._of_integers(ran, name.removesuffix("_"), [*read, *results])
        known = results[0].detach().clone() if kind.endswith(OF_INTEGERS) else None
        self.nodes.append(Node(kind, ran.func, args, kwargs, outputs, shapes, ran.path, layer, terms, known=known))

    def _of_integers(self, ran: Ran, name: str, tensors: list[Any]) -> str:
        """Return what the name of an operation has behind it, if it is one on integers or at places that are values."""
        if name in _PLACES:
            others = [x for x in _leaves((ran.args[1:], ran.kwargs)) if isinstance(x, Tensor)]
            return AT_VALUES if any(id(x) in self._numbers for x in others) else ""
        if vector.moves(ran.func) or vector.computes_nothing(ran.func):
            return ""
        whole = all(isinstance(x, Tensor) and not x.is_floating_point() and not x.is_complex() for x in tensors)
        return OF_INTEGERS if whole else ""

    def _note_made(self, what: str, tensors: list[Tensor]) -> None:
        self._made.update((_memory(x), what) for x in tensors)
        self._made_kept += tensors

    def _ref(self, x: Any) -> Any:
        return Ref(self._numbers[id(x)]) if isinstance(x, Tensor) and id(x) in self._numbers else x

    def _is_own(self, x: Any) -> bool:
        """Whether a tensor is a value of the graph, and no other one shows its memory."""
        return id(x) in self._numbers and not any(
            other is not x and other.untyped_storage()._cdata == x.untyped_storage()._cdata for other in self._kept
        )


def is_beyond(x: Tensor) -> bool:
    """Whether some integers of a tensor may be no values of float32."""
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool or not x.numel():
        return False
    return int(x.max()) > MOST_WHOLE or int(x.min()) < -MOST_WHOLE


def _memory(x: Tensor) -> int:
    """Return what tells the memory of a tensor, which its views share; of tensors without one, themselves."""
    return int(x.untyped_storage()._cdata) if x.layout is torch.strided else id(x)


def _rounds(ran: Ran, name: str, read: list[Tensor]) -> bool:
    """Whether an operation on constants may round: all but moves, conversions that lose nothing, and integers. What
    reads no tensor gives a constant of the code, as it is.
    """
    results = [x for x in tree_leaves(ran.result) if isinstance(x, Tensor)]
    if not read or vector.moves(ran.func) or vector.computes_nothing(ran.func):
        return False
    if name == "_to_copy":
        return not torch.equal(results[0].to(read[0].dtype), read[0])
    return not results or any(x.is_floating_point() or x.is_complex() for x in results)


def _leaves(tree: Any) -> Iterator[Any]:
    """Yield the leaves, a Ref being one."""
    yield from tree_leaves(tree, is_leaf=lambda x: isinstance(x, Ref))


def _mixes(ran: Ran, name: str, read: Sequence[Tensor]) -> bool:
    """Whether an operation with a result in half precision may round what it reads to it: what it only moves is of one
    type.
    """
    floats = {x.dtype for x in read if x.is_floating_point()}
    numbers = any(isinstance(x, float) for x in _leaves((ran.args, ran.kwargs)))
    return name != "_to_copy" and (len(floats) > 1 or numbers or name == "where" or not floats <= set(_HALF))
