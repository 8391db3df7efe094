"""From what a sweep varies to its points: every combination of lists and ranges that the conditions leave."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from simulator.errors import InputError
from simulator.hardware.quantities import describe

MOST_POINTS = 10**6
_RANGE_KEYS = ("from", "to", "step", "steps", "scale")

# What varies besides the machine: keys of a sweep's own.
OWN_KEYS = ("hw", "model", "data", "weights", "samples", "seed", "flagged")


def combinations(varied: Mapping[str, Any], only: Sequence[Mapping[str, Any]] | None = None) -> list[dict[str, Any]]:
    """Return the points of a grid, each as values by dotted key; the last key varies fastest.

    Args:
        varied: values by key: a list, or a range {from, to, step} or {from, to, steps, scale: linear | log}, ends
            included; keys with a comma between them vary together, through lists of as many values. Mappings stand for
            keys further down: {array: {rows: [8, 16]}} is {array.rows: [8, 16]}.
        only: conditions, each values (one, or a list) by key: a point stays if it has for one of them a value of each.
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
    total = math.prod(len(values) for _, values in axes)
    if total > MOST_POINTS:
        raise InputError(f"sweep: got {total:,} points; expected at most {MOST_POINTS:,}; take shorter lists")
    kept = _conditions(only, names)
    points = []
    for chosen in itertools.product(*(values for _, values in axes)):
        point = {
            name: value
            for (keys, _), group in zip(axes, chosen, strict=True)
            for name, value in zip(keys, group, strict=True)
        }
        if not kept or any(all(point[name] in values for name, values in one.items()) for one in kept):
            points.append(point)
    if not points:
        raise InputError("sweep: only: got conditions that no point fulfils; expected some; correct the values")
    return points


def _leaves(varied: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, form in varied.items():
        at = f"{above}{name}"
        if isinstance(form, Mapping) and not ({"from", "to"} & set(form)):
            found += _leaves(form, f"{at}.")
        else:
            found.append((at, form))
    return found


def _axis(keys: str, form: Any) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Return the keys that vary together and their values."""
    names = tuple(name.strip() for name in keys.split(","))
    if isinstance(form, Mapping):
        values = _range(keys, form)
    elif isinstance(form, list | tuple) and form:
        values = list(form)
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


def _range(keys: str, form: Mapping[str, Any]) -> list[Any]:
    unknown = [name for name in form if name not in _RANGE_KEYS]
    numbers = {name: form.get(name) for name in ("from", "to", "step", "steps")}
    if unknown or any(isinstance(v, bool) or not isinstance(v, int | float | None) for v in numbers.values()):
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
    if step is not None:
        if step <= 0 or last < first or scale == "log":
            raise _no_range(keys, form)
        count = math.floor((last - first) / step * (1 + 2**-50)) + 1
        return [first + i * step for i in range(min(count, MOST_POINTS + 1))]
    if not isinstance(steps, int) or not 2 <= steps <= MOST_POINTS or (scale == "log" and min(first, last) <= 0):
        raise _no_range(keys, form)
    if scale == "log":
        inner = [first * (last / first) ** (i / (steps - 1)) for i in range(1, steps - 1)]
    else:
        inner = [first + (last - first) * i / (steps - 1) for i in range(1, steps - 1)]
    return [first, *inner, last]


def _no_range(keys: str, form: Mapping[str, Any]) -> InputError:
    shown = ", ".join(f"{name}: {value}" for name, value in form.items())
    return InputError(
        f"sweep: {keys}: got the range {{{shown}}}; expected {{from, to, step}} with numbers and a step above 0, or "
        "{from, to, steps} with steps of at least 2, and scale: log only above 0; write e.g. {from: 0.1, to: 10, "
        "steps: 5, scale: log}"
    )


def _conditions(only: Sequence[Mapping[str, Any]] | None, names: Sequence[str]) -> list[dict[str, list[Any]]]:
    found = []
    for condition in only or ():
        if not isinstance(condition, Mapping) or not condition:
            raise InputError(
                f"sweep: only: got {describe(condition)}; expected mappings of keys to values; write e.g. "
                "[{array.dataflow: os}, {array.dataflow: ws, array.interleave: 1}]"
            )
        by_key = dict(_leaves(condition))
        for name in by_key:
            if name not in names:
                raise InputError(
                    f"sweep: only: {name}: does not vary; expected one of {', '.join(names)}; remove it or let it vary"
                )
        found.append({name: value if isinstance(value, list) else [value] for name, value in by_key.items()})
    return found
