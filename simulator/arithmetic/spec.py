"""MacSpec: the contract of a multiply-accumulate unit, in its string and its YAML form.

    mac := (format ("*" format)? "->")? acc ("->" use)?           acc: see grammar.py
    YAML: this string, or {operands: ..., accumulator: ..., output: ...}

Absent operands are taken as given, or are those of the preset that the accumulator names; an absent output is the
accumulator's. A preset followed by one of its own outputs is the unit in the mode that ends in that format.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from formats import FloatFormat, Format, Use
from formats.arguments import held_by_float64
from formats.notebook import Shown, View

from .accumulators import Accumulator, result_use, uses
from .grammar import RECORDS, accumulator, is_accumulator, is_misspelt_preset
from .presets import PRESETS


@dataclass(frozen=True)
class MacSpec(Shown):
    """How a unit multiplies and accumulates; its meaning is defined by `reference.dot`.

    Args:
        accumulator: order, state and roundings of the sum.
        operands: formats to which a and b are quantised first, or None: taken as given.
        output: use to which the result is converted, or None: as accumulated.
    """

    accumulator: Accumulator
    operands: tuple[Use, Use] | None = None
    output: Use | None = None

    def __post_init__(self) -> None:
        inside = (*uses(self.accumulator), *([self.output] if self.output else []))
        for use in (*(self.operands or ()), *inside):
            held_by_float64(use.format)
            if use.format.has_blocks and use.mode.stochastic:
                raise ValueError(
                    f"{use}: values that share scales are not rounded stochastically in a MAC; "
                    "quantise the arrays first"
                )
        for use in inside:
            if use.format.has_blocks:
                raise ValueError(
                    f"{use}: accumulators and outputs are single values; {use.format.name}, whose values share scales, "
                    "can be an operand"
                )

    @property
    def stochastic(self) -> bool:
        """Whether a rounding takes a random word, which depends on where its output lies in the whole result."""
        every = (*uses(self.accumulator), *(self.operands or ()), *([self.output] if self.output else []))
        return any(use.mode.stochastic for use in every)

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

    def _view(self) -> View:
        from .shown import mac_view

        return mac_view(self)


def float32_holds(fmt: Format) -> bool:
    """Whether every value of a format is a float32."""
    if not isinstance(fmt, FloatFormat):
        return False
    return fmt.precision <= 24 and fmt.max < 2.0**128 and fmt.smallest_subnormal >= 2.0**-149


def mac(form: str | Mapping[str, Any] | MacSpec | Accumulator, output: str | Use | None = None) -> MacSpec:
    """Return the MacSpec of its string form, its YAML form, or an accumulator.

    Args:
        form: "[OPERANDS ->] ACCUMULATOR [-> OUTPUT]", a mapping of these three words, or what is one already.
        output: format of the result, where the form names none; of a preset it picks the unit's mode.
    Raises:
        ValueError: the form does not follow the grammar, with the part that does not. TypeError: it is no form at all.
    """
    if isinstance(form, MacSpec) and output is None:
        return form
    if isinstance(form, MacSpec):
        return _assembled(form.accumulator, form.operands, output)
    if isinstance(form, RECORDS):
        return _assembled(form, None, output)
    if isinstance(form, str):
        return _from_string(form, output)
    if isinstance(form, Mapping):
        return _from_mapping(form, output)
    raise TypeError(f"got {type(form).__name__}; expected a MAC as string or mapping; give e.g. 'fma(fp16)'")


def _from_string(text: str, output: str | Use | None) -> MacSpec:
    parts = [part.strip() for part in text.split("->")]
    if any(part.count("(") > part.count(")") for part in parts[:-1]):
        raise ValueError(
            f"{text!r}: '->' stands within parentheses; there the output of a unit is written h100.fp16(fp16)"
        )
    operands = _leading_operands(parts.pop(0)) if len(parts) > 1 and not is_accumulator(parts[0]) else None
    if len(parts) > 1 and output is not None:
        raise ValueError(f"{text!r} names its output; got another one, {output}")
    if len(parts) > 1:
        output = parts.pop()
    if len(parts) != 1 or not parts[0]:
        raise ValueError(
            f"{text!r} is no MAC; write [OPERANDS ->] ACCUMULATOR [-> OUTPUT], "
            "e.g. 'fp8_e4m3 -> fma(fp16) -> fp8_e4m3/sat'"
        )
    return _assembled(parts[0], operands, output)


def _from_mapping(form: Mapping[str, Any], output: str | Use | None) -> MacSpec:
    known = ("operands", "accumulator", "output")
    for key in form:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            raise ValueError(
                f"{key}: unknown key; " + (f'did you mean "{near[0]}"?' if near else f"expected {', '.join(known)}")
            )
    if "accumulator" not in form:
        raise ValueError("accumulator: missing; a MAC needs one, e.g. fma(fp16)")
    operands = form.get("operands")
    return _assembled(
        form["accumulator"],
        None if operands is None else _operands(operands),
        form.get("output") if output is None else output,
    )


def _assembled(
    form: str | Mapping[str, Any] | Accumulator, operands: tuple[Use, Use] | None, output: str | Use | None
) -> MacSpec:
    """Put a MAC together; a preset's operands and outputs are those of the unit."""
    use = None if output is None else Use.parse(output)
    preset = PRESETS.get(form.strip()) if isinstance(form, str) else None
    if preset is None:
        return MacSpec(accumulator(form), operands, use)
    given = (Use.parse(preset.operands),) * 2 if operands is None else operands
    if use is not None and str(use) in preset.outputs:
        return MacSpec(accumulator(preset.form(str(use))), given)
    return MacSpec(accumulator(preset.form()), given, use)


def _leading_operands(text: str) -> tuple[Use, Use]:
    try:
        return _operands(text)
    except ValueError:
        if is_misspelt_preset(text):
            accumulator(text)  # whose message names the preset
        raise


def _operands(form: str | list[str]) -> tuple[Use, Use]:
    parts = [part.strip() for part in form.split("*")] if isinstance(form, str) else form
    if not isinstance(parts, list | tuple) or len(parts) not in (1, 2):
        raise ValueError(f"operands: got {form!r}; expected one format, or two for a and b; give e.g. 'fp8_e4m3'")
    return Use.parse(parts[0]), Use.parse(parts[-1])
