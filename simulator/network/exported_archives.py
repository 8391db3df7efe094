"""What a `.pt2` file of torch.export may hold if nothing in it is to be run.

torch.export.load runs what it reads in these places: tensors and constants marked as pickled, the inputs of the example
(unpickled in full where that fails with tensors alone), compiled code, expressions of shapes, which sympy evaluates as
Python, types of structures, which may name a module to import, and whatever function the graph names. Each is looked at
here before torch sees the file, and anything but plain tensors, torch's own operations and arithmetic is refused.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import torch

from simulator.errors import InputError, first_line

from .archives import member_names, shown_name
from .limits import check_fits

EXPECTED = "a .pt2 file as torch.export.save(program, path) writes it"

_GRAPH, _EXAMPLE = "models/model.json", "data/sample_inputs/model.pt"
_WEIGHTS, _CONSTANTS = "data/weights/", "data/constants/"
_CONFIGS = {_WEIGHTS: f"{_WEIGHTS}model_weights_config.json", _CONSTANTS: f"{_CONSTANTS}model_constants_config.json"}
# Tensors, and what describes the archive and them; extra files are text.
_PLAIN = re.compile(
    rf"{_WEIGHTS}weight_\d+|{_CONSTANTS}tensor_\d+|{'|'.join(_CONFIGS.values())}|{_GRAPH}|{_EXAMPLE}|archive_format|"
    r"archive_version|byteorder|version|\.data/[a-z_]+|extra/.*"
)

# Operations: torch's own, but for the one that opens a file; and arithmetic on sizes.
_OPERATION = re.compile(
    r"torch\.ops\.aten\.(?!from_file)\w+\.\w+|torch\.sym_\w+|math\.(ceil|floor|trunc)|"
    r"_operator\.(getitem|add|mul|sub|truediv|floordiv|mod|pow|neg|abs|ge|le|gt|lt|eq|ne|and_|or_|not_|lshift|rshift)"
)
_STRUCTURES = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
# Expressions of sizes: as sympy writes them, with the functions that torch adds.
_FUNCTIONS = frozenset({
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Mod", "PythonMod", "FloorDiv",
    "CleanDiv", "CeilDiv", "ModularIndexing", "IntTrueDiv", "FloatTrueDiv", "ToFloat", "TruncToInt", "CeilToInt",
    "FloorToInt", "Equality", "Unequality", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "LessThan", "StrictLessThan",
    "GreaterThan", "StrictGreaterThan", "And", "Or", "Not",
})  # fmt: skip
# Names of tensors and paths of modules, which torch writes between quotes in Python code.
_NAME = re.compile(r"[^\"'\\\x00-\x1f]*")
# Whose text is data: arguments of operations, and guards, which only ExportedProgram.module runs.
_TEXT = frozenset({"as_string", "as_strings", "guards_code", "in_spec", "out_spec", "expr_str", "stack_trace"})
_SYMBOL = re.compile(r"[a-z]{1,4}\d+|true|false|oo|int_oo")
_LARGEST = 1 << 63


class _NeedsCode(Exception):
    """What a file holds that is run when it is read."""


def check_plain(path: str) -> None:
    """Refuse a file in which anything is run when torch reads it, or that does not hold what it declares.

    Raises:
        InputError: as said; nothing was run.
    """
    names = member_names(path, EXPECTED)
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive, names)
    except _NeedsCode as needed:
        raise InputError(
            f"{path}: holds {needed}, and reading it runs code (nothing was run); expected tensors and torch's own "
            "operations; export the network without, or, if you trust where the file comes from, add --allow-code"
        ) from None
    except InputError:
        raise
    except Exception as error:  # broken bytes make readers of zip, JSON and pickles raise many types
        raise InputError(
            f"{path}: damaged ({type(error).__name__}: {first_line(error)[:160]}); expected {EXPECTED}; write or copy "
            "it anew"
        ) from None


def _check_members(path: str, archive: zipfile.ZipFile, names: list[str]) -> None:
    # All members are in one folder, named like the file was.
    folder = names[0].split("/")[0] + "/" if names else ""
    inside = [name.removeprefix(folder) for name in names]
    if missing := [name for name in (_GRAPH, *_CONFIGS.values()) if name not in inside]:
        raise InputError(f"{path}: lacks {', '.join(missing)}; expected {EXPECTED}; write or copy it anew")
    for member, name in zip(names, inside, strict=True):
        if not member.startswith(folder) or not _PLAIN.fullmatch(name):
            raise _NeedsCode(f"the member {shown_name(member)}")
        if archive.getinfo(member).compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{shown_name(member)} is compressed")
    for where, config in _CONFIGS.items():
        _check_tensors(path, where, json.loads(archive.read(folder + config))["config"], archive, folder)
    if _EXAMPLE in inside:
        _check_example(archive.read(folder + _EXAMPLE))
    _check_graph(json.loads(archive.read(folder + _GRAPH)))


def _check_tensors(path: str, where: str, config: dict[str, Any], archive: zipfile.ZipFile, folder: str) -> None:
    for name, payload in config.items():
        if not _NAME.fullmatch(name):
            raise _NeedsCode(f"a name that is none, {name!r:.80}")
        if payload["use_pickle"]:
            raise _NeedsCode(f"a pickle for {name}")
        stored = archive.getinfo(f"{folder}{where}{payload['path_name']}").file_size
        elements = math.prod(int(size["as_int"]) for size in payload["tensor_meta"]["sizes"])
        if elements and not stored:
            raise ValueError(f"no bytes for {name} of {elements:,} elements")
        if elements > stored:  # a small tensor, repeated
            check_fits(f"{path}: {name}", elements, 8, "export the network without it")


def _check_example(content: bytes) -> None:
    """Read the inputs of the example as torch does at first, so that its second way is never taken."""
    if not content:
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("a compressed example")
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:
        raise _NeedsCode("an example whose inputs are more than tensors") from None


def _check_graph(graph: dict[str, Any]) -> None:
    for key, value in _entries(graph):
        texts = [key, *(one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str))]
        if key not in _TEXT and not all(_NAME.fullmatch(text) for text in texts):
            raise _NeedsCode(f"a name that is none, {max(texts, key=len)!r:.80}")
        if key == "target" and not (isinstance(value, str) and _OPERATION.fullmatch(value)):
            raise _NeedsCode(f"the operation {shown_name(str(value))}")
        if key == "expr_str":
            _check_expression(value)
        if key in ("as_operator", "as_graph", "as_custom_obj", "custom_obj") and value is not None:
            raise _NeedsCode(f"an argument of the kind {key}")
        if key == "metadata" and not _NAME.fullmatch(str(value.get("nn_module_stack", ""))):
            raise _NeedsCode(f"a path that is none, {value['nn_module_stack']!r:.80}")
        if key in ("in_spec", "out_spec"):
            for part, kind in _entries(json.loads(value)):
                if part == "type" and kind not in _STRUCTURES:
                    raise _NeedsCode(f"a structure of the type {shown_name(str(kind))}")
    for symbol in graph["range_constraints"]:
        _check_expression(symbol)


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield all entries of dictionaries within a value, but for the notes on nodes, which are text."""
    if isinstance(value, list):
        for one in value:
            yield from _entries(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield key, one
            if key != "metadata":
                yield from _entries(one)


def _check_expression(text: str) -> None:
    """Refuse what is no arithmetic on symbols and numbers of moderate size."""
    for node in ast.walk(ast.parse(text, mode="eval")):
        plain = isinstance(
            node,
            ast.Expression | ast.BinOp | ast.UnaryOp | ast.Compare | ast.operator | ast.unaryop | ast.cmpop
            | ast.keyword | ast.expr_context,
        )  # fmt: skip
        if isinstance(node, ast.Call):
            plain = isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
        elif isinstance(node, ast.Name):
            plain = node.id in _FUNCTIONS or bool(_SYMBOL.fullmatch(node.id))
        elif isinstance(node, ast.Constant):
            value = node.value
            plain = isinstance(value, int | float) and abs(value) < _LARGEST
            plain |= isinstance(value, str) and bool(_SYMBOL.fullmatch(value))
        if isinstance(node, ast.LShift | ast.RShift | ast.MatMult) or not plain or _is_large_power(node):
            raise _NeedsCode(f"an expression that is no arithmetic on sizes, {shown_name(text)}")


def _is_large_power(node: ast.AST) -> bool:
    """Whether a power is of anything but a symbol, or of many factors, whose value takes long to work out."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        base, exponent = node.left, node.right
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Pow":
        base, exponent = node.args[0], node.args[1]
    else:
        return False
    return bool(re.search(r"\d{3}", ast.unparse(exponent))) or not re.fullmatch(
        r"[a-z]+\d+|Symbol\([^()]*\)", ast.unparse(base)
    )
