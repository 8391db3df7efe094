"""MacSpec: the contract of a multiply-accumulate unit, in its string and its YAML form.

    mac := (format ("*" format)? "->")? acc ("->" use)?
    acc := "fma(" use ")" | "seq(" (product ",")? use ")" | "chunk(" n "," acc "," acc ")" | "late(" acc ")"
         | "exact(" use ")"
    YAML: this string, or {operands: ..., accumulator: ..., output: ...}, where an accumulator is its string or
          {NAME: first argument, other arguments by name}, for example {chunk: 128, inner: fma(fp16), outer: seq(fp32)}.

Absent operands are taken as given; an absent output is the accumulator's.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from formats import FloatFormat, Format, Use
from formats.arguments import held_by_float64

from .accumulators import Accumulator, Chunk, Exact, Fma, Late, Seq, result_use, uses

MAX_TEXT = 1000  # characters of a MAC in one line; no real unit comes near, and nesting stays bounded with it

_ARGUMENTS = {  # name -> names of the arguments, the first of which is the value of the key in YAML
    "fma": ("sum",),
    "seq": ("sum", "product"),
    "chunk": ("length", "inner", "outer"),
    "late": ("inner",),
    "exact": ("sum",),
}


@dataclass(frozen=True)
class MacSpec:
    """How a unit multiplies and accumulates; its meaning is defined by `reference.dot`.

    Args:
        operands: formats to which a and b are quantised first, or None: taken as given.
        accumulator: order, state and roundings of the sum.
        output: use to which the result is converted, or None: as accumulated.
    """

    accumulator: Accumulator
    operands: tuple[Use, Use] | None = None
    output: Use | None = None

    def __post_init__(self) -> None:
        inside = (*uses(self.accumulator), *([self.output] if self.output else []))
        for use in (*(self.operands or ()), *inside):
            if use.mode.stochastic:
                raise ValueError(
                    f"{use}: stochastic rounding is for quantising arrays; a MAC unit takes the other modes"
                )
            held_by_float64(use.format)
        for use in inside:
            if not isinstance(use.format, FloatFormat):
                raise ValueError(f"{use}: accumulators and outputs are floats; {use.format.name} can be an operand")

    @property
    def result(self) -> Use:
        """Use of the values that come out."""
        return self.output or result_use(self.accumulator)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 if it holds every output value, else float64."""
        return np.dtype(np.float32 if float32_holds(self.result.format) else np.float64)

    def __str__(self) -> str:
        parts = [str(self.accumulator)]
        if self.operands:
            a, b = self.operands
            parts.insert(0, str(a) if a == b else f"{a}*{b}")
        if self.output:
            parts.append(str(self.output))
        return " -> ".join(parts)


def float32_holds(fmt: Format) -> bool:
    """Whether every value of a format is a float32."""
    if not isinstance(fmt, FloatFormat):
        return False
    return fmt.precision <= 24 and fmt.max < 2.0**128 and fmt.smallest_subnormal >= 2.0**-149


def mac(form: str | Mapping[str, Any] | MacSpec | Accumulator) -> MacSpec:
    """Return the MacSpec of its string form, its YAML form, or an accumulator.

    Raises:
        ValueError: the form does not follow the grammar, with the part that does not.
    """
    if isinstance(form, MacSpec):
        return form
    if isinstance(form, Fma | Seq | Chunk | Late | Exact):
        return MacSpec(form)
    if isinstance(form, str):
        return _from_string(form)
    if isinstance(form, Mapping):
        return _from_mapping(form)
    raise TypeError(f"expected a MAC as string or mapping, got {type(form).__name__}")


def accumulator(form: str | Mapping[str, Any] | Accumulator) -> Accumulator:
    """Return the accumulator of its string or YAML form; ValueError says which part is wrong."""
    if isinstance(form, Fma | Seq | Chunk | Late | Exact):
        return form
    if isinstance(form, str):
        name, arguments = _call(form)
        return _build(name, dict(_by_name(form, name, arguments)))
    if isinstance(form, Mapping):
        names = [key for key in form if key in _ARGUMENTS]
        if len(names) != 1:
            raise ValueError(
                f"accumulator: expected one of the keys {', '.join(_ARGUMENTS)}, got {', '.join(map(str, form))}"
            )
        name = names[0]
        first, *others = _ARGUMENTS[name]
        unknown = [key for key in form if key != name and key not in others]
        if unknown:
            raise ValueError(f"{name}: unknown key {unknown[0]!r}; expected {', '.join(others) or 'no other key'}")
        return _build(name, {first: form[name], **{key: form[key] for key in form if key != name}})
    raise TypeError(f"expected an accumulator as string or mapping, got {type(form).__name__}")


def _from_string(text: str) -> MacSpec:
    parts = [part.strip() for part in text.split("->")]
    operands, output = None, None
    if len(parts) > 1 and parts[0].split("(")[0].strip() not in _ARGUMENTS:
        operands = _operands(parts.pop(0))
    if len(parts) > 1:
        output = Use.parse(parts.pop())
    if len(parts) != 1 or not parts[0]:
        raise ValueError(
            f"{text!r} is no MAC; write [OPERANDS ->] ACCUMULATOR [-> OUTPUT], "
            "e.g. 'fp8_e4m3 -> fma(fp16) -> fp8_e4m3/sat'"
        )
    return MacSpec(accumulator(parts[0]), operands, output)


def _from_mapping(form: Mapping[str, Any]) -> MacSpec:
    known = ("operands", "accumulator", "output")
    for key in form:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            raise ValueError(
                f"{key}: unknown key; " + (f'did you mean "{near[0]}"?' if near else f"expected {', '.join(known)}")
            )
    if "accumulator" not in form:
        raise ValueError("accumulator: missing; a MAC needs one, e.g. fma(fp16)")
    operands, output = form.get("operands"), form.get("output")
    return MacSpec(
        accumulator(form["accumulator"]),
        None if operands is None else _operands(operands),
        None if output is None else Use.parse(output),
    )


def _operands(form: str | list[str]) -> tuple[Use, Use]:
    parts = [part.strip() for part in form.split("*")] if isinstance(form, str) else form
    if not isinstance(parts, list | tuple) or len(parts) not in (1, 2):
        raise ValueError(f"operands: expected one format, or two for a and b, got {form!r}")
    return Use.parse(parts[0]), Use.parse(parts[-1])


def _call(text: str) -> tuple[str, list[str]]:
    """Split `name(argument, ...)`, arguments at the top level only."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"accumulator of {len(text)} characters; expected at most {MAX_TEXT}")
    text = text.strip()
    name, bracket, rest = text.partition("(")
    name = name.strip()
    if name not in _ARGUMENTS:
        near = difflib.get_close_matches(name, _ARGUMENTS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_ARGUMENTS)}"
        raise ValueError(f"accumulator {name!r} is unknown; {hint}")
    if not bracket or not rest.endswith(")"):
        raise ValueError(f"{text!r}: expected {name}({', '.join(_ARGUMENTS[name])})")
    arguments, depth, start = [], 0, 0
    body = rest[:-1]
    for position, character in enumerate(body):
        depth += (character == "(") - (character == ")")
        if depth < 0:
            raise ValueError(f"{text!r}: unbalanced parentheses")
        if character == "," and depth == 0:
            arguments.append(body[start:position].strip())
            start = position + 1
    if depth:
        raise ValueError(f"{text!r}: unbalanced parentheses")
    return name, [*arguments, body[start:].strip()]


def _by_name(text: str, name: str, arguments: list[str]) -> list[tuple[str, str]]:
    expected = _ARGUMENTS[name]
    if name == "seq" and len(arguments) == 2:
        return [("product", arguments[0]), ("sum", arguments[1])]
    if len(arguments) != len(expected) and not (name == "seq" and len(arguments) == 1):
        raise ValueError(f"{text.strip()!r}: {name} takes {', '.join(expected)}; got {len(arguments)} arguments")
    return list(zip(expected, arguments, strict=False))


def _build(name: str, arguments: dict[str, Any]) -> Accumulator:
    for needed in _ARGUMENTS[name]:
        if needed not in arguments and (name, needed) != ("seq", "product"):
            raise ValueError(f"{name}: {needed} is missing")
    if name == "chunk":
        return Chunk(_length(arguments["length"]), accumulator(arguments["inner"]), accumulator(arguments["outer"]))
    if name == "late":
        return Late(accumulator(arguments["inner"]))
    total = Use.parse(arguments["sum"])
    if name == "fma":
        return Fma(total)
    if name == "exact":
        return Exact(total)
    product = arguments.get("product", total)
    # A product that is not rounded is a fused multiply-add, and is called so.
    return Fma(total) if product == "exact" else Seq(Use.parse(product), total)


def _length(form: Any) -> int:
    if isinstance(form, int) and not isinstance(form, bool):
        return form
    if isinstance(form, str) and form.isascii() and form.isdigit() and len(form) < 20:
        return int(form)
    raise ValueError(f"chunk: the length of a run must be a whole number, got {form!r}")
