"""A certificate as records: what is read of the file, refused where it is none, and where in it something is wrong."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from simulator.errors import InputError

KIND = "ulpsim bounds certificate 3"
_PARTS = ("kind", "versions", "network", "inputs", "unit", "graph", "values", "gradients", "claim", "digest")
METHODS = ("forward", "forward, running sums", "adjoint", "adjoint, running sums")


class Fault(Exception):
    """What ends a check: a sentence that says where the certificate is wrong, and what it is."""


class NoRule(Fault):
    """Of these the one about what the checker does not know: nothing is said to be wrong, and nothing is proved."""


class Array(NamedTuple):
    """Numbers in C order."""

    shape: tuple[int, ...]
    numbers: list[float]


class Input(NamedTuple):
    """An input of the network between two ends; `value` is its number, None of what is the same for all samples."""

    name: str
    value: int | None
    lo: Array
    hi: Array


class Second(NamedTuple):
    """A second pass of a product: its unit, and what flags an output of the first one: above this tolerance, 1 over its
    magnitude does, where this activation follows, "" for one of which that is not known.
    """

    mac: str
    tolerance: float
    activation: str


@dataclass(frozen=True)
class Node:
    """An operation as the file has it.

    Args:
        kind: its name. path: of its module. args, kwargs: with mappings in place of values and constants. outputs,
            shapes: of what it returns, None for what is no tensor. vector: the rounding of what is no product.
        mac: of a product. ordered: whether that unit is emulated, and not torch's own. use: the format in which a
            narrower vector unit reads constants, or to which values are rounded; "" for none. second: a second pass of
            a product. part: which one of the outputs this is about.
    """

    kind: str
    path: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    outputs: Sequence[int | None]
    shapes: Sequence[tuple[int, ...]]
    vector: Mapping[str, Any]
    mac: str | None
    ordered: bool
    use: str = ""
    second: Second | None = None
    part: int = 0

    def __str__(self) -> str:
        return f"{self.kind} in {self.path}"

    @property
    def inputs(self) -> list[int]:
        """Numbers of the values that it reads."""
        leaves = _leaves([self.args, self.kwargs])
        return [leaf["value"] for leaf in leaves if isinstance(leaf, dict) and "value" in leaf]

    def parts(self) -> list[Node]:
        """Return one operation for each output."""
        return [
            replace(self, outputs=[number], shapes=[shape], part=i)
            for i, (number, shape) in enumerate(zip(self.outputs, self.shapes, strict=True))
        ]


@dataclass(frozen=True)
class Claim:
    """What is claimed of the samples: margins at least, and how much computing changes them at most."""

    method: str
    top: Sequence[int]
    certified: Sequence[bool]
    margins: Array
    bounds: Array


@dataclass(frozen=True)
class Certificate:
    """A certificate whose arrays are read; `gradients` by class, by number of the value: the lower, the upper ends.

    Args:
        name, weights: of the network, and the digest of its parameters. inputs: all of them. digest: of these.
        machine: that computes and its mode, None where one unit does; nothing rests on it.
    """

    name: str
    weights: str
    inputs: Sequence[Input]
    digest: str
    machine: str | None
    precision: int | None
    fixed: bool
    running: bool
    library: float
    output: int
    nodes: Sequence[Node]
    constants: Mapping[str, Array]
    values: Mapping[int, Mapping[str, Array]]
    gradients: Mapping[int, Mapping[int, tuple[Array, Array]]]
    claim: Claim


def parsed(text: str | Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return the mapping of a certificate; InputError if it is none."""
    form: Any = text
    if isinstance(text, str):
        try:
            form = json.loads(text, object_pairs_hook=_Pairs.of)
            twice = _repeated(form)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{where}: got what is no JSON, or is cut off ({error}); expected a certificate; give the file as it "
                "was written"
            ) from None
        if twice is not None:
            raise InputError(f"{where}: got {twice} twice; expected each name once; give the file as it was written")
    kind = form.get("kind") if isinstance(form, Mapping) else None
    if kind != KIND:
        found = f"the kind {kind!r}" if isinstance(form, Mapping) else type(form).__name__
        raise InputError(
            f"{where}: got {found}; expected {KIND!r}; give what `python -m simulator bounds "
            "--certificate FILE.json` writes"
        )
    missing = [name for name in _PARTS if name not in form]
    if missing:
        raise InputError(f"{where}: got no {', '.join(missing)}; expected a certificate; give it as it was written")
    assert isinstance(form, Mapping)
    return form


class _Pairs(dict[str, Any]):
    """A mapping of the file, and the first one of its names that is there again."""

    repeated: str | None = None

    @classmethod
    def of(cls, pairs: list[tuple[str, Any]]) -> _Pairs:
        found = cls(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            found.repeated = next(name for i, name in enumerate(names) if name in names[:i])
        return found


def _repeated(form: Any) -> str | None:
    """Return where a name is repeated, as the path of names to it; None if none is."""
    if isinstance(form, _Pairs) and form.repeated is not None:
        return form.repeated
    parts = form.items() if isinstance(form, dict) else enumerate(form) if isinstance(form, list) else ()
    for name, part in parts:
        if isinstance(part, dict | list) and (inner := _repeated(part)) is not None:
            return f"{name}: {inner}"
    return None


def digest_of(form: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all but the digest itself."""
    body = {name: part for name, part in form.items() if name != "digest"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read(form: Mapping[str, Any]) -> Certificate:
    """Return a certificate with its arrays; Fault says where its form is wrong."""
    _keys(form, "the certificate", _PARTS)
    inputs = _keys(form["inputs"], "inputs", ("arrays", "digest"))
    network = _keys(form["network"], "network", ("name", "weights"))
    _is(network["name"], str, "network: name")
    _digest(network["weights"], "network: weights")
    for name, version in _mapping(form["versions"], "versions").items():
        _is(version, str, f"versions: {name}")
    unit = _keys(form["unit"], "unit", ("machine", "precision", "fixed", "running", "library"))
    graph = _keys(form["graph"], "graph", ("output", "nodes", "constants"))
    claim = _keys(form["claim"], "claim", ("method", "top", "certified", "margins", "bounds"))
    if unit["machine"] is not None:
        _is(unit["machine"], str, "unit: machine")
    for name in ("fixed", "running"):
        _is(unit[name], bool, f"unit: {name}")
    _is(unit["library"], float, "unit: library")
    if unit["precision"] is not None:
        _whole(unit["precision"], "unit: precision")
    if _is(claim["method"], str, "claim: method") not in METHODS:
        raise Fault(f"claim: method: {claim['method']!r} is none of {', '.join(METHODS)}")
    arrays = [_input(one, f"inputs: {i}") for i, one in enumerate(_list(inputs["arrays"], "inputs: arrays"))]
    if _digest_of(arrays) != _digest(inputs["digest"], "inputs: digest"):
        raise Fault("inputs: the digest is not that of the inputs")
    values = {
        _number(name, "values"): {
            part: _array(array, f"values: {name}: {part}")
            for part, array in _keys(each, f"values: {name}", ("lo", "hi", "d", "e", "local")).items()
        }
        for name, each in _mapping(form["values"], "values").items()
    }
    gradients = {
        _number(j, "gradients"): {
            _number(name, f"gradients: {j}"): _ends(each, f"gradients: {j}: {name}")
            for name, each in _mapping(grads, f"gradients: {j}").items()
        }
        for j, grads in _mapping(form["gradients"], "gradients").items()
    }
    return Certificate(
        network["name"], network["weights"], arrays, inputs["digest"], unit["machine"], unit["precision"],
        unit["fixed"], unit["running"], unit["library"], _whole(graph["output"], "graph: output"),
        [_node(node, f"graph: node {i}") for i, node in enumerate(_list(graph["nodes"], "graph: nodes"))],
        {key: _constant(array, key) for key, array in _mapping(graph["constants"], "graph: constants").items()},
        values, gradients,
        Claim(
            claim["method"], [_whole(top, "claim: top") for top in _list(claim["top"], "claim: top")],
            [_is(one, bool, "claim: certified") for one in _list(claim["certified"], "claim: certified")],
            _array(claim["margins"], "claim: margins"), _array(claim["bounds"], "claim: bounds"),
        ),
    )  # fmt: skip


def _input(form: Any, where: str) -> Input:
    _keys(form, where, Input._fields)
    value = None if form["value"] is None else _whole(form["value"], f"{where}: value")
    lo, hi = (_array(form[end], f"{where}: {end}") for end in ("lo", "hi"))
    return Input(_is(form["name"], str, f"{where}: name"), value, lo, hi)


def _digest_of(inputs: Sequence[Input]) -> str:
    """Return the SHA-256 of inputs, in the order of their names."""
    digest = hashlib.sha256()
    for one in sorted(inputs, key=lambda one: one.name):
        for end in (one.lo, one.hi):
            digest.update(str(list(end.shape)).encode())
            digest.update(np.asarray(end.numbers, "<f8").tobytes())
    return digest.hexdigest()


_NODE = ("kind", "path", "layer", "args", "kwargs", "outputs", "shapes", "vector")


def _node(form: Any, where: str) -> Node:
    of_product = ("mac", "ordered") if isinstance(form, Mapping) and "mac" in form else ()
    besides = [name for name in ("use", "second") if isinstance(form, Mapping) and name in form]
    _keys(form, where, (*_NODE, *of_product, *besides))
    kind, path, _ = (_is(form[name], str, f"{where}: {name}") for name in ("kind", "path", "layer"))
    args, outputs, shapes = (_list(form[name], f"{where}: {name}") for name in ("args", "outputs", "shapes"))
    outputs = [None if n is None else _whole(n, f"{where}: outputs") for n in outputs]
    shapes = [tuple(_whole(n, f"{where}: shapes") for n in _list(shape, f"{where}: shapes")) for shape in shapes]
    if len(shapes) != len(outputs):
        raise Fault(f"{where}: {len(outputs)} outputs have {len(shapes)} shapes")
    node = Node(
        kind, path, args, _mapping(form["kwargs"], f"{where}: kwargs"), outputs, shapes,
        _mapping(form["vector"], f"{where}: vector"),
        _words(form["mac"], f"{where}: mac") if of_product else None,
        _is(form["ordered"], bool, f"{where}: ordered") if of_product else False,
        _words(form["use"], f"{where}: use") if "use" in besides else "",
        _second(form["second"], f"{where}: second") if "second" in besides else None,
    )  # fmt: skip
    for number in node.inputs:
        _whole(number, f"{where}: args")
    return node


def _second(form: Any, where: str) -> Second:
    _keys(form, where, Second._fields)
    kinds = zip(Second._fields, (str, float, str), strict=True)
    found = Second(*(_is(form[name], kind, f"{where}: {name}") for name, kind in kinds))
    _words(found.mac, f"{where}: mac")
    if not found.tolerance >= 0:
        raise Fault(f"{where}: got the tolerance {found.tolerance}; expected one from 0")
    return found


def _constant(form: Any, key: str) -> Array:
    """Return a constant; its key is a digest of it."""
    array = _array(form, f"graph: constant {key}")
    shape = f"torch.Size([{', '.join(map(str, array.shape))}])"
    own = hashlib.sha256(np.asarray(array.numbers, "<f8").tobytes() + shape.encode()).hexdigest()[:16]
    if own != key:
        raise Fault(f"graph: constant {key}: its digest is {own}; the weights are not those that were certified")
    if not all(map(math.isfinite, array.numbers)):
        raise Fault(f"graph: constant {key}: not all of it is finite")
    return array


def _array(form: Any, where: str) -> Array:
    _keys(form, where, ("shape", "data"))
    shape = tuple(_whole(n, f"{where}: shape") for n in _list(form["shape"], f"{where}: shape"))
    size = 8 * math.prod(shape)
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(base64.b64decode(_is(form["data"], str, where), validate=True), size + 1)
    except (ValueError, zlib.error) as error:
        raise Fault(f"{where}: its data cannot be read: {error}") from None
    if not stream.eof and len(raw) <= size:
        raise Fault(f"{where}: its data is cut off")
    if stream.unused_data:
        raise Fault(f"{where}: {len(stream.unused_data)} bytes are behind the end of its data")
    if len(raw) != size:
        raise Fault(f"{where}: {len(raw)} bytes are not those of the shape {list(shape)}")
    numbers = np.frombuffer(raw, "<f8").tolist()
    if any(map(math.isnan, numbers)):
        raise Fault(f"{where}: element {next(i for i, x in enumerate(numbers) if math.isnan(x))} is NaN")
    return Array(shape, numbers)


def _ends(form: Any, where: str) -> tuple[Array, Array]:
    _keys(form, where, ("lo", "hi"))
    return _array(form["lo"], f"{where}: lo"), _array(form["hi"], f"{where}: hi")


def _leaves(form: Any) -> Iterator[Any]:
    if isinstance(form, list | tuple):
        for part in form:
            yield from _leaves(part)
    elif isinstance(form, dict) and not form.keys() & {"value", "constant", "integers"}:
        for part in form.values():
            yield from _leaves(part)
    else:
        yield form


def _keys(form: Any, where: str, names: Sequence[str]) -> Mapping[str, Any]:
    found = _mapping(form, where)
    missing, more = [name for name in names if name not in found], [name for name in found if name not in names]
    if missing or more:
        raise Fault(f"{where}: " + (f"{missing[0]} is missing" if missing else f"{more[0]} is too much"))
    return found


def _mapping(form: Any, where: str) -> Mapping[str, Any]:
    return _is(form, dict, where)


def _list(form: Any, where: str) -> list[Any]:
    return _is(form, list, where)


def _is(form: Any, kind: type, where: str) -> Any:
    if not isinstance(form, kind):
        raise Fault(f"{where}: got {type(form).__name__}; expected {kind.__name__}")
    return form


def _words(form: Any, where: str) -> str:
    """Return the words of a unit or format, which have no other digits than 0 to 9."""
    if not _is(form, str, where).isascii():
        raise Fault(f"{where}: got {form!r}; expected ASCII characters")
    return str(form)


def _digest(form: Any, where: str) -> str:
    if re.fullmatch("[0-9a-f]{64}", _is(form, str, where)) is None:
        raise Fault(f"{where}: got {form!r}; expected a SHA-256 in hexadecimal")
    return str(form)


def _whole(form: Any, where: str) -> int:
    if not isinstance(form, int) or isinstance(form, bool) or form < 0:
        raise Fault(f"{where}: got {form!r}; expected a whole number")
    return form


def _number(name: str, where: str) -> int:
    if not name.isdecimal() or str(int(name)) != name:
        raise Fault(f"{where}: got the name {name!r}; expected a whole number")
    return int(name)
