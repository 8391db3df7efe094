"""What single keys of a machine file take: each check returns the value, or says what is wrong with it.

`takes` says the same of every check in words and as JSON schema, from which editors and the documentation have it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeGuard

from simulator.arithmetic.accumulators import Accumulator
from simulator.arithmetic.grammar import accumulator
from simulator.arithmetic.presets import presets
from simulator.arithmetic.spec import MacSpec, mac
from simulator.errors import InputError

from .quantities import UNITS, Quantity, describe, parse_quantity
from .scores import SIDE_METRICS, score_names
from .tables import ENTRIES, bundled_table, is_path, table_names
from .widths import significand_bits

_LARGEST_COUNT = 2**20


@dataclass(frozen=True, eq=False)
class Check:
    """What a key takes.

    Args:
        read: returns the value of what stands in the file; ValueError: what was found, expected and to be done.
        words: what is taken. form: the same as JSON schema.
        short: whether it is a short form, beside the mapping that it stands for.
    """

    read: Callable[[Any], Any]
    words: str
    form: Mapping[str, Any]
    short: bool = False

    def __call__(self, form: object) -> Any:
        return self.read(form)

    @property
    def auto(self) -> bool:
        """Whether the key takes the word auto, which is its default: a value of the technology table."""
        return {"const": "auto"} in self.form.get("anyOf", ())


def takes(words: str, *, short: bool = False, **form: Any) -> Callable[[Callable[[Any], Any]], Check]:
    """Say what a check takes; see Check."""
    return lambda read: Check(read, words, form, short)


def count(example: int, most: int = _LARGEST_COUNT) -> Check:
    """Whole number from 1."""

    @takes(f"whole number, 1 to {most}", type="integer", minimum=1, maximum=most)
    def check(form: object) -> int:
        if isinstance(form, bool) or not isinstance(form, int):
            raise ValueError(f"got {describe(form)}; expected a whole number from 1 to {most}; write e.g. {example}")
        if not 1 <= form <= most:
            raise ValueError(f"got {form}; expected a whole number from 1 to {most}; write e.g. {example}")
        return form

    return check


def quantity(
    *dimensions: str, least: float, most: float, example: str, auto: bool = False, whole: bool = False
) -> Check:
    """Quantity between two bounds in the base unit; `auto` also takes that word and gives None."""
    units = "|".join(re.escape(unit) for dimension in dimensions for unit in UNITS[dimension])
    pattern = {"type": "string", "pattern": rf"^\s*[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{{1,2}})?\s+({units})\s*$"}
    words = " or ".join(f"{one} ({_shortest(least, one)} to {_shortest(most, one)})" for one in dimensions)
    words = f"whole {words}" if whole else words

    @takes(f"{words}, auto" if auto else words, **({"anyOf": [{"const": "auto"}, pattern]} if auto else pattern))
    def check(form: object) -> Quantity | None:
        if auto and form == "auto":
            return None
        shown = f'{example}" or "auto' if auto else example
        found = parse_quantity(form, dimensions, shown)
        if not least <= found.value <= most:
            base = f"{_base(least, found.dimension)} to {_base(most, found.dimension)}"
            raise ValueError(f'got {form!r}; expected a value from {base}; write e.g. "{shown}"')
        if whole and found.value.denominator != 1:
            raise ValueError(f'got {form!r}; expected a whole number; write e.g. "{shown}"')
        return found

    return check


def _base(value: float, dimension: str) -> str:
    unit = next(unit for unit, factor in UNITS[dimension].items() if factor == 1)
    return f"{value:g} {unit}"


def _shortest(value: float, dimension: str) -> str:
    return str(Quantity(Fraction(repr(value)), dimension))


def choice(*values: str) -> Check:
    """One of some words."""

    @takes(", ".join(values), enum=list(values))
    def check(form: object) -> str:
        if isinstance(form, str) and form in values:
            return form
        known = ", ".join(values)
        raise ValueError(
            f"got {describe(form)}; expected {'one of ' if len(values) > 1 else ''}{known}; write e.g. {values[0]}"
        )

    return check


@takes(", ".join(SIDE_METRICS), enum=list(SIDE_METRICS))
def score(form: object) -> str:
    """The name of a score, also of one that `scores.register` has added."""
    names = score_names()
    if isinstance(form, str) and form in names:
        return form
    raise ValueError(f"got {describe(form)}; expected one of {', '.join(names)}; write e.g. {names[0]}")


@takes(
    "list out of a, w, o, or psum alone",
    anyOf=[
        {"type": "array", "items": {"enum": ["a", "w", "o"]}, "minItems": 1, "uniqueItems": True},
        {"const": ["psum"]},
    ],
)
def tensors(form: object) -> list[str]:
    """A list of what a memory level holds."""
    if not isinstance(form, list) or not form or not all(name in ("a", "w", "o", "psum") for name in form):
        found = "a list with " + ", ".join(map(describe, form)) if isinstance(form, list) and form else describe(form)
        raise ValueError(f"got {found}; expected a list out of a, w, o, or psum alone; write e.g. [a, w, o]")
    if len(set(form)) < len(form):
        raise ValueError(f"got {', '.join(form)}; expected each once; remove the second")
    if "psum" in form and len(form) > 1:
        raise ValueError(
            f"got {', '.join(form)}; expected psum in a level of its own, or in none (then they live where o does); "
            "write [psum]"
        )
    return form


@takes("true, false", type="boolean")
def switch(form: object) -> bool:
    """true or false."""
    if not isinstance(form, bool):
        raise ValueError(f"got {describe(form)}; expected true or false; write one of them without quotes")
    return form


@takes("path of a JSON file", type="string", pattern=r"\.json$")
def plan(form: object) -> str:
    """The path of a static plan."""
    if not isinstance(form, str) or not form.endswith(".json"):
        raise ValueError(f"got {describe(form)}; expected the path of a static plan; write e.g. plan.json")
    return form


@takes("text of at most 100 characters", type="string", minLength=1, maxLength=100)
def name(form: object) -> str:
    """Printable text."""
    if not isinstance(form, str) or not form.strip() or not form.isprintable() or len(form) > 100:
        raise ValueError(f"got {describe(form)}; expected a name of at most 100 printable characters; write e.g. npu")
    return form


@takes("1", const=1)
def version(form: object) -> int:
    """The version of the schema."""
    if form != 1 or isinstance(form, bool):
        raise ValueError(f"got {describe(form)}; expected 1, the only version so far; write 1")
    return 1


def fits_tolerance(value: object) -> TypeGuard[float]:
    """Whether a value is a tolerance: a number >= 0 or infinity."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0  # which NaN is not


@takes("number >= 0, `.inf`", type="number", minimum=0)
def tolerance(form: object) -> float:
    """A number >= 0 or infinity."""
    if not fits_tolerance(form):
        raise ValueError(f"got {describe(form)}; expected a plain number >= 0, or .inf; write e.g. 0.5")
    return float(form)


@takes(
    "number >= 0, `.inf`, or a list of them",
    anyOf=[
        {"type": "number", "minimum": 0},
        {"type": "array", "minItems": 1, "items": {"type": "number", "minimum": 0}},
    ],
)
def tolerances(form: object) -> float | list[float]:
    """A tolerance, or one for each level of a ladder below the last."""
    if not isinstance(form, list):
        found: float = tolerance(form)
        return found
    if not form or not all(map(fits_tolerance, form)):
        raise ValueError(f"got {describe(form)}; expected plain numbers >= 0, or .inf; write e.g. [0.5, 64]")
    return [float(one) for one in form]


@takes("number from 0 to 1", type="number", minimum=0, maximum=1)
def share(form: object) -> float:
    """A share, 0 to 1."""
    if isinstance(form, bool) or not isinstance(form, int | float) or not 0 <= form <= 1:
        raise ValueError(f"got {describe(form)}; expected a plain number from 0 to 1; write e.g. 0.1")
    return float(form)


@takes("number above 0, to 1", type="number", exclusiveMinimum=0, maximum=1)
def positive_share(form: object) -> float:
    """A number above 0, at most 1."""
    if isinstance(form, bool) or not isinstance(form, int | float) or not 0 < form <= 1:
        raise ValueError(f"got {describe(form)}; expected a plain number above 0, at most 1; write e.g. 0.04")
    return float(form)


@takes("number above 0, to 100", type="number", exclusiveMinimum=0, maximum=100)
def percentile(form: object) -> float:
    """A number above 0, at most 100."""
    if isinstance(form, bool) or not isinstance(form, int | float) or not 0 < form <= 100:
        raise ValueError(f"got {describe(form)}; expected a plain number above 0, at most 100; write e.g. 99.9")
    return float(form)


@takes("number above 0", type="number", exclusiveMinimum=0)
def magnitude(form: object) -> float:
    """A finite number above 0."""
    if isinstance(form, bool) or not isinstance(form, int | float) or not 0 < form < math.inf:
        raise ValueError(f"got {describe(form)}; expected a plain number above 0; write e.g. 448")
    return float(form)


@takes(
    f"{', '.join(table_names())}, or the path of a YAML file",
    anyOf=[{"enum": list(table_names())}, {"type": "string", "pattern": r"/|\.ya?ml$"}],
)
def table(form: object) -> str:
    """The name of a technology table, or the path of one."""
    if isinstance(form, str) and is_path(form):
        return form
    if not isinstance(form, str) or form not in table_names():
        raise ValueError(
            f"got {describe(form)}; expected one of {', '.join(table_names())}, or the path of a YAML file; write one "
            "of them"
        )
    try:
        bundled_table(form)
    except InputError as error:
        raise ValueError(f"got {form!r}, whose file is broken ({error}); expected a whole table; reinstall") from None
    return form


@takes("entries of the technology table with their values", type="object", propertyNames={"enum": list(ENTRIES)})
def overrides(form: object) -> object:
    """A mapping of entries of a technology table."""
    if not isinstance(form, dict):
        raise ValueError(
            f"got {describe(form)}; expected a mapping of entries of the technology table; write e.g. "
            "{adder_j_per_bit: 1.2 fJ/bit}"
        )
    return form


@takes("an accumulator, as text or as a mapping such as `{fma: fp16}`", type=["string", "object"])
def read_accumulator(form: object) -> Accumulator:
    """An accumulator in its string or YAML form."""
    return _arithmetic(lambda: mac(accumulator(_accumulator_form(form))).accumulator, "an accumulator", "fma(fp16)")


@takes(
    "a format, or a list of two",
    anyOf=[{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": 2}],
)
def operands(form: object) -> str | list[str]:
    """One format, or a list of two."""
    uses = form if isinstance(form, list) else [form]
    if not all(isinstance(use, str) for use in uses):
        raise ValueError(f"got {describe(form)}; expected a format, or a list of two; write e.g. fp8_e4m3")
    _arithmetic(lambda: mac({"accumulator": "fma(fp32)", "operands": form}), "a format, or a list of two", "fp8_e4m3")
    return form  # type: ignore[return-value]  # checked above


@takes("a format", type="string")
def output(form: object) -> str:
    """A format with its modes."""
    if not isinstance(form, str):
        raise ValueError(f"got {describe(form)}; expected a format; write e.g. fp8_e4m3/sat")
    _arithmetic(lambda: mac({"accumulator": "fma(fp32)", "output": form}), "a format", "fp8_e4m3/sat")
    return form


# What the MAC of a layer can be called, beside a MAC in its string form.
LAYER_MACS = ("low", "high", "two_pass", "exact", "float32")


@takes(f"{', '.join(LAYER_MACS)}, or a MAC", type="string")
def layer_mac(form: object) -> str:
    """A mode of the machine, exact, float32, or a MAC."""
    if isinstance(form, str) and form in LAYER_MACS:
        return form
    if not isinstance(form, str):
        raise ValueError(f"got {describe(form)}; expected {', '.join(LAYER_MACS)} or a MAC; write e.g. high")
    _arithmetic(lambda: mac(form), f"{', '.join(LAYER_MACS)} or a MAC", "high")
    return form


@takes("a format", type="string")
def vector_format(form: object) -> str:
    """A format whose values stand alone, rounded without random words."""
    if not isinstance(form, str):
        raise ValueError(f"got {describe(form)}; expected a format; write e.g. bf16")
    use = _arithmetic(lambda: mac({"accumulator": "fma(fp32)", "output": form}), "a format", "bf16").output
    if use.mode.stochastic:
        raise ValueError(f"got {form}; expected a rounding without random words; write e.g. {use.format.name}")
    return form


@takes("a float or integer format", type="string")
def sum_format(form: object) -> str:
    """A float or integer format, in which a running sum can be priced."""
    if not isinstance(form, str):
        raise ValueError(f"got {describe(form)}; expected a format; write e.g. uint16")
    use = _arithmetic(lambda: mac({"accumulator": "fma(fp32)", "output": form}), "a format", "uint16").output
    if significand_bits(use.format) is None:
        raise ValueError(f"got {form}; expected a float or an integer, whose sums have a price; write e.g. uint16")
    return form


@takes("what shares a scale", short=True, type="string")
def scaling(form: object) -> object:
    """Turn the short form of a scaling, what shares a scale, into its key."""
    return {"per": form} if isinstance(form, str) else form


@takes("a MAC", short=True, type="string")
def layer(form: object) -> object:
    """Turn the short form of a layer, its MAC, into its key."""
    return {"mac": form} if isinstance(form, str) else form


def _arithmetic(read: Callable[[], Any], expected: str, example: str) -> Any:
    try:
        return read()
    except RecursionError:
        raise ValueError(f"got what is nested too deeply; expected {expected}; write e.g. {example}") from None
    except ValueError as error:
        raise ValueError(f"got what is no arithmetic: {error}; expected {expected}; write e.g. {example}") from None


def _accumulator_form(form: Any) -> Any:
    """Check what the grammar of accumulators takes for granted: text and mappings; the number 128 becomes '128'."""
    match form:
        case str():
            return form
        case int() if not isinstance(form, bool):
            return str(form)
        case dict():
            return {key: _accumulator_form(value) for key, value in form.items()}
    raise ValueError(f"{describe(form)} instead of text or a mapping")


@takes("[OPERANDS ->] ACCUMULATOR [-> OUTPUT]", short=True, type="string")
def mode(form: object) -> object:
    """Turn the one-line form of a MAC into its keys; fill in what the preset of an accumulator says."""
    if isinstance(form, dict) and isinstance(form.get("accumulator"), str) and form["accumulator"].strip() in presets():
        given = {key: form[key] for key in ("accumulator", "operands", "output") if key in form}
        spec = _arithmetic(lambda: mac(given), "a preset with formats that it takes", "h100.fp16")
        return {key: form[key] for key in form if key not in given} | mode_keys(spec)
    if not isinstance(form, str):
        return form
    spec = _arithmetic(lambda: mac(form), "[OPERANDS ->] ACCUMULATOR [-> OUTPUT]", "fp8_e4m3 -> fma(fp16)")
    return mode_keys(spec)


def mode_keys(spec: MacSpec) -> dict[str, Any]:
    """Return the keys of a mode that say what a MAC says."""
    keys: dict[str, Any] = {"accumulator": str(spec.accumulator)}
    if spec.operands:
        a, b = map(str, spec.operands)
        keys["operands"] = a if a == b else [a, b]
    if spec.output:
        keys["output"] = str(spec.output)
    return keys
