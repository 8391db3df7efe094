"""From what a sweep varies to its points: every combination of lists and ranges that the conditions leave."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from numbers import Real
from typing import Any

import numpy as np

from simulator.errors import InputError, unknown
from simulator.hardware.quantities import describe

MOST_POINTS = 10**6
_EXACT = 200  # steps of a logarithmic range up to which values are looked at that could be decimal
_RANGE_KEYS = ("from", "to", "step", "steps", "scale")


def combinations(
    varied: Mapping[str, Any],
    only: Sequence[Mapping[str, Any]] | None = None,
    exclude: Sequence[Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Return the points of a grid, each as values by dotted key; the last key varies fastest.

    Args:
        varied: values by key: a list, or a range {from, to, step} or {from, to, steps, scale: linear | log}, decimal as
            they are written: 0.1 to 0.3 in steps of 0.1 is 0.1, 0.2, 0.3. Both ends are included, but for a last one
            that no step reaches: 8 to 64 in steps of 24 is 8, 32, 56. Keys with a comma
            between them vary together, through lists of as many values. Mappings stand for keys further down:
            {array: {rows: [8, 16]}} is {array.rows: [8, 16]}.
        only: conditions, of which a point must fulfil one to stay; each has by key a value, a list of values or an
            interval {from, to}, ends included, either of which may be left out, and is fulfilled if all keys fit.
        exclude: the same of those that a point must not fulfil.
    Raises:
        InputError: what is no list and no range, a condition on a key that does not vary, too many points.
    """
    axes = [_axis(keys, form) for keys, form in _leaves(varied)]
    if not axes:
        raise InputError("sweep: got nothing that varies; expected keys with lists; write e.g. 'array.rows: [8, 16]'")
    names = [name for axis in axes for name in axis[0]]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"sweep: {twice}: varies twice; expected it once; remove one")
    for name in names:
        above = next((other for other in names if name.startswith(f"{other}.")), None)
        if above is not None:
            raise InputError(f"sweep: {name}: varies below {above}, which varies as a whole; expected one; remove one")
    total = math.prod(len(values) for _, values in axes)
    if total > MOST_POINTS:
        raise InputError(f"sweep: got a grid of {total:,} points; expected at most {MOST_POINTS:,}; take shorter lists")
    kept, left_out = _conditions("only", only, names), _conditions("exclude", exclude, names)
    points = []
    for chosen in itertools.product(*(values for _, values in axes)):
        point = {
            name: value
            for (keys, _), group in zip(axes, chosen, strict=True)
            for name, value in zip(keys, group, strict=True)
        }
        if (not kept or _fulfils(point, kept)) and not _fulfils(point, left_out):
            points.append(point)
    if not points:
        raise InputError("sweep: got conditions that leave no point; expected some; correct `only` or `exclude`")
    return points


def axes(varied: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the keys that vary, those together that vary together."""
    return [_names(keys) for keys, _ in _leaves(varied)]


def _names(keys: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in keys.split(","))


def _leaves(varied: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, form in varied.items():
        at = f"{above}{name}"
        if isinstance(form, Mapping) and form and not ({"from", "to"} & set(form)):
            found += _leaves(form, f"{at}.")
        else:
            found.append((at, form))
    return found


def _axis(keys: str, form: Any) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Return the keys that vary together and their values."""
    names = _names(keys)
    if isinstance(form, np.ndarray):
        form = form.tolist()
    if isinstance(form, Mapping):
        values = _range(keys, form)
    elif isinstance(form, list | tuple | range) and form:
        values = [_plain(keys, value) for value in form]
    else:
        raise InputError(
            f"sweep: {keys}: got {describe(form)}; expected a list of values, or a range; write e.g. [8, 16], or "
            "{from: 8, to: 64, step: 8}"
        )
    if len(names) == 1:
        return names, [(value,) for value in values]
    for value in values:
        if not isinstance(value, list | tuple) or len(value) != len(names):
            raise InputError(
                f"sweep: {keys}: got {describe(value)} among the values of {len(names)} keys that vary together; "
                f"expected lists of {len(names)}; write e.g. [[8, 8], [16, 16]]"
            )
    return names, [tuple(value) for value in values]


def _plain(keys: str, value: Any) -> Any:
    """Return a value as a file would have it."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return [_plain(keys, item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(keys, item) for name, item in value.items()}
    if isinstance(value, float):
        return value + 0.0  # -0.0 is 0
    if value is None or isinstance(value, bool | int | str):
        return value
    raise InputError(
        f"sweep: {keys}: got {describe(value)} among its values; expected what a file could have: numbers, texts, "
        "lists, mappings; convert it"
    )


def _range(keys: str, form: Mapping[str, Any]) -> list[Any]:
    _check_keys(keys, form, _RANGE_KEYS)
    numbers = {name: form.get(name) for name in ("from", "to", "step", "steps")}
    if any(isinstance(v, bool) or not isinstance(v, int | float | None) for v in numbers.values()):
        raise _no_range(keys, form)
    first, last, step, steps = numbers.values()
    scale = form.get("scale", "linear")
    finite = all(value is None or math.isfinite(value) for value in numbers.values())
    if (
        not finite
        or first is None
        or last is None
        or (step is None) == (steps is None)
        or scale not in ("linear", "log")
    ):
        raise _no_range(keys, form)
    begin, end = _decimal(first), _decimal(last)
    whole = isinstance(first, int) and isinstance(last, int)
    if step is not None:
        if step <= 0 or scale == "log":
            raise _no_range(keys, form)
        if last < first:
            raise InputError(
                f"sweep: {keys}: got a range by steps from {first} down to {last}; expected from below to; exchange "
                "them, or say how many values with steps"
            )
        each = _decimal(step)
        count = math.floor((end - begin) / each) + 1
        if count > MOST_POINTS:
            raise _too_long(keys)
        whole = whole and isinstance(step, int)
        return [_number(begin + i * each, whole) for i in range(count)]
    if not isinstance(steps, int) or steps < 2 or (scale == "log" and min(first, last) <= 0):
        raise _no_range(keys, form)
    if steps > MOST_POINTS:
        raise _too_long(keys)
    between = range(1, steps - 1)
    if scale == "log":
        inner = [_between(first, last, i, steps - 1) for i in between]
    else:
        inner = [_number(begin + (end - begin) * i / (steps - 1), whole) for i in between]
    return [first, *inner, last]


def _check_keys(at: str, form: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse a key that no range or interval has."""
    other = next((str(name) for name in form if name not in known), None)
    if other is not None:
        raise InputError(f"sweep: {at}: {other}: unknown key; {unknown(other, known)}")


def _decimal(value: float) -> Fraction:
    """Return a number as it is written, in which 0.1 is a tenth."""
    return Fraction(value) if isinstance(value, int) else Fraction(repr(float(value)))


def _number(value: Fraction, whole: bool) -> int | float:
    """Return a value of a range: an integer, as array.rows must be, if its ends are some and it is one."""
    return int(value) if whole and value.denominator == 1 else float(value)


def _between(first: float, last: float, i: int, steps: int) -> int | float:
    """Return the geometric mean with the weight i / steps, decimal if it is one: an integer between integers."""
    found = float(first) * (float(last) / float(first)) ** (i / steps)
    near = Fraction(f"{found:.12g}")
    if steps > _EXACT or abs(float(near) - found) > 1e-12 * found:
        return found
    if near**steps != _decimal(first) ** (steps - i) * _decimal(last) ** i:
        return found
    return _number(near, isinstance(first, int) and isinstance(last, int))


def _too_long(keys: str) -> InputError:
    return InputError(
        f"sweep: {keys}: got a range of more than {MOST_POINTS:,} values; expected at most so many; take larger steps"
    )


def _no_range(keys: str, form: Mapping[str, Any]) -> InputError:
    shown = ", ".join(f"{name}: {describe(value)}" for name, value in form.items())
    return InputError(
        f"sweep: {keys}: got the range {{{shown}}}; expected {{from, to, step}} with numbers and a step above 0, or "
        "{from, to, steps} with steps of at least 2, and scale: log only above 0; write e.g. {from: 0.1, to: 10, "
        "steps: 5, scale: log}"
    )


_Condition = dict[str, Callable[[Any], bool]]


def _fulfils(point: Mapping[str, Any], conditions: Sequence[_Condition]) -> bool:
    return any(all(fits(point[name]) for name, fits in one.items()) for one in conditions)


def _conditions(key: str, given: Sequence[Mapping[str, Any]] | None, names: Sequence[str]) -> list[_Condition]:
    found = []
    for place, condition in enumerate(given or ()):
        at = f"{key}[{place}]"
        if not isinstance(condition, Mapping) or not condition:
            raise InputError(
                f"sweep: {at}: got {describe(condition)}; expected mappings of keys to values; write e.g. "
                "[{array.dataflow: os}, {array.dataflow: ws, array.rows: {from: 8}}]"
            )
        by_key = dict(_leaves(condition))
        for name in by_key:
            if name not in names:
                raise InputError(
                    f"sweep: {at}: {name}: does not vary; expected one of {', '.join(names)}; remove it or let it vary"
                )
        found.append({name: _fits(f"{at}: {name}", form) for name, form in by_key.items()})
    return found


def _fits(at: str, form: Any) -> Callable[[Any], bool]:
    """Return the test of one key of a condition."""
    if isinstance(form, np.ndarray):
        form = form.tolist()
    if not isinstance(form, Mapping):
        values = [_plain(at, value) for value in (form if isinstance(form, list | tuple | range) else [form])]
        return lambda value: any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in values)
    _check_keys(at, form, ("from", "to"))
    ends = form.get("from", -math.inf), form.get("to", math.inf)
    if not all(is_number(end) for end in ends):
        raise InputError(
            f"sweep: {at}: got {describe(form)}; expected a value, a list of values or an interval; write e.g. "
            "{from: 8, to: 64}, of which either may be left out"
        )
    if ends[0] > ends[1]:
        raise InputError(
            f"sweep: {at}: got an interval from {ends[0]} to {ends[1]}; expected from below to; exchange them"
        )
    return lambda value: is_number(value) and ends[0] <= value <= ends[1]


def is_number(value: Any) -> bool:
    """Return whether a value is a number that can be compared: no boolean, no NaN."""
    return isinstance(value, Real) and not isinstance(value, bool) and value == value
