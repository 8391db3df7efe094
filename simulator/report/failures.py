"""Why points have no result, said once for all that have the same reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from simulator.report.figures import counted

VALUES_SHOWN = 5  # in a message about several
NUMBER = re.compile(r"(?<![\w.])\d[\d.,]*(?:e[+-]?\d+)?(?:x\d+)*")
REFUSED = re.compile(r"(.*: got )(.*?)(; expected .*)", re.DOTALL)


def failures(points: Iterable[tuple[Mapping[str, Any], str]]) -> list[tuple[int, str]]:
    """Return why points have no result, the most frequent reason first, each with the number of its points.

    Messages that differ in the value of the parameter that is wrong are one, with these values in it. So are those that
    differ in other numbers, as of what a machine of these parameters needs: the first of them, and that it is one of
    several.

    Args:
        points: the parameters and the message of each.
    """
    found: dict[str, list[tuple[str, str, str]]] = {}
    for parameters, message in points:
        before, value, behind = _reason(parameters, message)
        found.setdefault(NUMBER.sub("0", f"{before}{behind}"), []).append((before, value, behind))
    return sorted(((len(reasons), _in_one(reasons)) for reasons in found.values()), key=lambda one: -one[0])


def _in_one(reasons: Sequence[tuple[str, str, str]]) -> str:
    (before, _, behind), *_ = reasons
    alike = len({(one, other) for one, _, other in reasons})
    more = f" (and {counted(alike - 1, 'such message')} with other numbers)" if alike > 1 else ""
    return f"{before}{_listed(value for _, value, _ in reasons)}{behind}{more}"


def _reason(own: Mapping[str, Any], message: str) -> tuple[str, str, str]:
    """Return a point's message without the values that end it, in parts around the value of a parameter that is wrong;
    without such a one, all of it and nothing twice."""
    said, _, values = message.rpartition(" (with ")
    if said and values.startswith(tuple(f"{key}: " for key in own)):
        message = said
    refused = REFUSED.fullmatch(message)
    if refused and refused[1].endswith(tuple(f"{key}: got " for key in own)):
        return refused[1], refused[2], refused[3]
    return message, "", ""


def _listed(values: Iterable[str]) -> str:
    """Return values once each, of many the first."""
    once = list(dict.fromkeys(values))
    more = f" and {len(once) - VALUES_SHOWN} others" if len(once) > VALUES_SHOWN else ""
    return f"{', '.join(once[:VALUES_SHOWN])}{more}"
