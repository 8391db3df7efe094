"""The string and YAML forms of accumulators.

    acc := NAME "(" argument ("," argument)* ")" | PRESET ("(" output format ")")?
    argument := value | key "=" value             positional ones first, in the order of the table below
    YAML: this string, or {NAME: first argument, other arguments by name}, for example
          {chunk: 128, inner: h100.fp8.wgmma, outer: seq(fp32)}.

`seq` alone takes its product first, and only if there are two: seq(fp16), seq(exact, fp16), seq(fp16, fp32).
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, get_args

from formats import Use

from .accumulators import (
    Accumulator,
    Aligned,
    Chunk,
    Exact,
    Fixed,
    Fma,
    Interleave,
    Kahan,
    Late,
    Neumaier,
    Reverse,
    Seq,
    Tree,
)
from .presets import LABELS, PRESETS, Preset

MAX_TEXT = 1000  # characters of a MAC in one line; no real unit comes near, and nesting stays bounded with it

RECORDS: tuple[type, ...] = get_args(Accumulator)


class Argument(NamedTuple):
    """An argument of an accumulator: its name in both forms, what reads it, and whether it may be left out."""

    name: str
    read: Callable[[str, Any], Any]
    optional: bool = False


def _integer(what: str, form: Any) -> int:
    if isinstance(form, int) and not isinstance(form, bool):
        return form
    text = form.strip() if isinstance(form, str) else ""
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) <= MAX_TEXT:
        return int(text)
    raise ValueError(f"{what}: got {form!r}; expected a whole number; write e.g. 8")


def _word(what: str, form: Any) -> str:
    if not isinstance(form, str):
        raise ValueError(f"{what}: got {form!r}; expected a word; write one")
    return form


def _use(what: str, form: Any) -> Use:
    if not isinstance(form, str | Use):
        raise ValueError(f"{what}: got {form!r}; expected a format; write e.g. fp16/sat")
    return Use.parse(form)


def _nested(what: str, form: Any) -> Accumulator:
    if not isinstance(form, (str, Mapping, *RECORDS)):
        raise ValueError(f"{what}: got {form!r}; expected an accumulator; write e.g. fma(fp16)")
    return accumulator(form)  # type: ignore[arg-type]  # checked above


_ARGUMENTS: dict[str, tuple[Argument, ...]] = {
    "fma": (Argument("sum", _use), Argument("products", _integer, True)),
    "seq": (Argument("sum", _use), Argument("product", _word, True)),
    "tree": (Argument("sum", _use), Argument("radix", _integer, True), Argument("leaves", _word, True)),
    "interleave": (Argument("ways", _integer), Argument("inner", _nested), Argument("join", _nested)),
    "chunk": (Argument("length", _integer), Argument("inner", _nested), Argument("outer", _nested)),
    "reverse": (Argument("length", _integer), Argument("inner", _nested)),
    "late": (Argument("inner", _nested),),
    "kahan": (Argument("sum", _use),),
    "neumaier": (Argument("sum", _use),),
    "aligned": (
        Argument("n", _integer),
        Argument("frac", _integer),
        Argument("out", _use),
        Argument("c", _word, True),
        Argument("align", _word, True),
        Argument("e_min", _integer, True),
        Argument("zero", _word, True),
        Argument("order", _word, True),
        *(Argument(name, _integer, True) for name in ("group", "parts", "part_frac", "sum_frac", "c_frac", "c_reach")),
    ),
    "exact": (Argument("sum", _use),),
    "fixed": (
        Argument("bits", _integer),
        Argument("frac", _integer),
        Argument("mode", _word),
        Argument("rounding", _word, True),
    ),
}
_ARGUMENTS["pairwise"] = _ARGUMENTS["tree"]

_BUILD: dict[str, Callable[..., Accumulator]] = {
    "fma": Fma,
    "tree": Tree,
    "pairwise": Tree,
    "interleave": Interleave,
    "chunk": Chunk,
    "reverse": Reverse,
    "late": Late,
    "kahan": Kahan,
    "neumaier": Neumaier,
    "aligned": Aligned,
    "exact": Exact,
    "fixed": Fixed,
}


def accumulator(form: str | Mapping[str, Any] | Accumulator) -> Accumulator:
    """Return the accumulator of its string or YAML form; ValueError says which part is wrong."""
    if isinstance(form, RECORDS):
        return form  # type: ignore[return-value]
    if isinstance(form, str):
        return _from_string(form)
    if isinstance(form, Mapping):
        try:
            return _from_mapping(form)
        except RecursionError:
            raise ValueError("accumulator: its mappings are nested too deeply, or within themselves") from None
    raise TypeError(f"got {type(form).__name__}; expected an accumulator as string or mapping; give e.g. 'fma(fp16)'")


def is_accumulator(text: str) -> bool:
    """Whether a text begins as an accumulator does, be it right or wrong inside."""
    name = text.split("(")[0].strip()
    return name in _ARGUMENTS or name in PRESETS


def is_misspelt_preset(text: str) -> bool:
    """Whether a text that is neither an accumulator nor a format resembles a preset's name."""
    return "." in text and bool(_near(text.split("(")[0].strip(), PRESETS))


def _from_string(text: str) -> Accumulator:
    if len(text) > MAX_TEXT:
        raise ValueError(f"accumulator of {len(text)} characters; expected at most {MAX_TEXT}")
    text = text.strip()
    name, bracket, rest = text.partition("(")
    name = name.strip()
    if name in PRESETS and (not bracket or rest.endswith(")")):
        return _from_string(PRESETS[name].form(rest[:-1].strip() if bracket else None))
    if name in PRESETS:
        raise ValueError(f"{text!r}: expected {name}, or its output format in parentheses behind")
    if name not in _ARGUMENTS:
        if not bracket and _is_use(name):
            raise ValueError(f"accumulator {name!r} is unknown; it is a format, write e.g. fma({name})")
        near = _near(name, PRESETS if "." in name else [*_ARGUMENTS, *PRESETS])
        known = f"expected one of {', '.join(_ARGUMENTS)}, or a preset; write e.g. fma(fp16)"
        hint = f"did you mean {' or '.join(near)}?" if near else known
        raise ValueError(f"accumulator {name!r} is unknown; {hint}")
    if not bracket or not rest.endswith(")"):
        missing = "; the closing parenthesis is missing" if bracket else ""
        raise ValueError(f"{text!r}: expected {_usage(name)}{missing}")
    return _build(name, _by_name(text, name, _split(text, rest[:-1])))


def _is_use(text: str) -> bool:
    try:
        Use.parse(text)
    except ValueError:
        return False
    return True


def _near(name: str, known: Collection[str]) -> list[str]:
    """Return the known names that go on where one ends, or else the one that it resembles most, if any."""
    longer = [one for one in known if one.startswith(f"{name.lower()}.")]
    return longer or difflib.get_close_matches(name.lower(), known, n=1)


def _from_mapping(form: Mapping[str, Any]) -> Accumulator:
    names = [key for key in form if key in _ARGUMENTS]
    if len(names) != 1:
        raise ValueError(
            f"accumulator: got {', '.join(map(str, form)) or 'no key'}; expected one of the keys "
            f"{', '.join(_ARGUMENTS)}; write one"
        )
    name = names[0]
    first, *others = (argument.name for argument in _ARGUMENTS[name])
    unknown = [key for key in form if key != name and key not in others]
    if unknown:
        raise ValueError(f"{name}: unknown key {unknown[0]!r}; expected {', '.join(others) or 'no other key'}")
    return _build(name, {first: form[name], **{key: form[key] for key in form if key != name}})


def _split(text: str, body: str) -> list[str]:
    """Split at the commas of the top level."""
    arguments, depth, start = [], 0, 0
    for position, character in enumerate(body):
        depth += (character == "(") - (character == ")")
        if depth < 0:
            raise ValueError(f"{text!r}: unbalanced parentheses")
        if character == "," and depth == 0:
            arguments.append(body[start:position].strip())
            start = position + 1
    if depth:
        raise ValueError(f"{text!r}: unbalanced parentheses")
    return [*arguments, body[start:].strip()]


def _by_name(text: str, name: str, arguments: list[str]) -> dict[str, Any]:
    expected = [argument.name for argument in _ARGUMENTS[name]]
    if name == "seq" and len(arguments) == 2 and not any("=" in argument for argument in arguments):
        expected = ["product", "sum"]
    given: dict[str, Any] = {}
    for position, argument in enumerate(arguments):
        if not argument:
            raise ValueError(f"{text!r}: an argument is empty; expected {_usage(name)}")
        key, equals, value = argument.partition("=")
        if equals and "(" not in key:
            key, value = key.strip(), value.strip()
        elif position >= len(expected) or len(given) < position or expected[position] in given:
            raise ValueError(f"{text!r}: expected {_usage(name)}; {argument!r} is too much")
        else:
            key, value = expected[position], argument
        if key not in expected:
            raise ValueError(f"{text!r}: {name} has no argument {key!r}; expected {_usage(name)}")
        if key in given:
            raise ValueError(f"{text!r}: {key} is given twice")
        given[key] = value
    return given


def _usage(name: str) -> str:
    if name == "seq":
        return "seq(product?, sum)"
    return f"{name}({', '.join(a.name + ('?' if a.optional else '') for a in _ARGUMENTS[name])})"


def _build(name: str, given: Mapping[str, Any]) -> Accumulator:
    values = {}
    for argument in _ARGUMENTS[name]:
        if argument.name in given:
            values[argument.name] = argument.read(f"{name}: {argument.name}", given[argument.name])
        elif not argument.optional:
            raise ValueError(f"{name}: {argument.name} is missing; expected {_usage(name)}")
    if name == "seq":
        product = values.get("product", values["sum"])
        # A product that is not rounded is a fused multiply-add, and is called so.
        return Fma(values["sum"]) if product == "exact" else Seq(Use.parse(product), values["sum"])
    return _BUILD[name](**values)


class Named(NamedTuple):
    """A preset that an accumulator is: the unit's name, its output format, the label and what is less certain."""

    preset: str
    output: str
    label: str
    but: str


def names_of(form: str | Mapping[str, Any] | Accumulator, operands: tuple[Use, Use] | None = None) -> tuple[Named, ...]:
    """Return which units of real hardware an accumulator is, those with the best evidence first.

    Args:
        form: an accumulator, or its string or YAML form.
        operands: where given, only units that take these formats.
    Returns:
        Names of presets, each with the output and the label of its evidence; none where no unit is known to be so.
    Raises:
        ValueError: the form does not follow the grammar. TypeError: it is no form at all.
    """
    wanted = accumulator(form)
    return tuple(
        named
        for one, named in _preset_outputs()
        if one == wanted and (operands is None or _takes(PRESETS[named.preset], operands))
    )


def _takes(preset: Preset, operands: tuple[Use, Use]) -> bool:
    taken = {Use.parse(name).format for name in (preset.operands, *preset.fits)}
    return all(use.format in taken for use in operands)


@functools.cache
def _preset_outputs() -> tuple[tuple[Accumulator, Named], ...]:
    found = [
        (accumulator(output.accumulator), Named(name, ends_in, output.label, output.but))
        for name, preset in PRESETS.items()
        for ends_in, output in preset.outputs.items()
    ]
    return tuple(sorted(found, key=lambda entry: list(LABELS).index(entry[1].label)))
